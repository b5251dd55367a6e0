//! The programs of the ancestors of processes, as far as rules test them. A process that runs such a program passes it
//! on to its living descendants when it is evaluated, and to those born later by their forks, so that an orphan keeps
//! it: see [`crate::engine::inheritance`]. Nothing is recorded while no rule tests ancestors.

mod births;
mod departed;
mod earlier_children;
mod mark;
mod running;
mod tested;

use std::ops::RangeBounds;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};

use super::inheritance::{Birth, Entry, Inheritance, Limits, children, is_child};
use crate::engine::kernel::Kernel;
use crate::event::{Nanos, Pid};
use crate::rules::ancestry::Ancestor;
use crate::telemetry::metrics::Metrics;
use crate::tracking::fork_tracker::Fork;
use births::{Births, Creator};
use departed::{DepartedProgram, DepartedPrograms, NO_END};
use earlier_children::EarlierChildren;
use mark::{AncestryMark, Found, FoundBy, merged};
pub(super) use running::{ChangeTimes, RunningProcess};
pub(super) use tested::TestedProgram;

/// All processes below sshd of a large login node, 120 bytes each: 30 MiB. A limit for each user would need its UID at
/// each fork; the number of its processes is limited by the kernel.
const LIMITS: Limits = Limits { all: 262_144, of_user: u32::MAX };

/// The processes with tested programs among those of their ancestors, and the processes that run them.
#[derive(Clone, Debug)]
pub(super) struct AncestryTable {
    is_active: bool,
    marks: Inheritance<AncestryMark>,
    /// The creator may have changed before, so that the child has another program, or none.
    births: Births,
    departed: DepartedPrograms,
    /// Forks before this time may have been lost, and with them who has the PIDs of children born before.
    lost: Nanos,
    /// Programs were taken from processes that may have been evaluated with them.
    has_withdrawn: bool,
    /// Those that may be children of an earlier process, until [`Self::identify`].
    doubtful: Vec<EarlierChildren>,
    metrics: Arc<Metrics>,
}

impl AncestryTable {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            is_active: false,
            marks: Inheritance::new(LIMITS),
            births: Births::default(),
            departed: DepartedPrograms::default(),
            lost: Nanos(0),
            has_withdrawn: false,
            doubtful: Vec::new(),
            metrics,
        }
    }

    /// Returns the table in the state after rules became active that test ancestors or do not, for a plan.
    pub(super) fn planned(&self, is_active: bool) -> Self {
        let metrics = Arc::default();
        match is_active {
            true => Self { is_active, metrics, ..self.clone() },
            false => Self::new(metrics),
        }
    }

    /// Records births from now on, or forgets all processes because no rule tests ancestors.
    pub(super) fn activate(&mut self, is_active: bool) {
        self.is_active = is_active;
        if is_active {
            return;
        }
        self.marks = Inheritance::new(LIMITS);
        self.births = Births::default();
        self.departed = DepartedPrograms::default();
    }

    /// All changes before this time are evaluated.
    pub(super) fn evaluated(&mut self, until: Nanos) {
        self.departed.settle(until);
        self.births.settle(until);
    }

    /// Returns the tested programs of the ancestors of a process.
    pub(super) fn of(&mut self, pid: Pid, kernel: &mut impl Kernel) -> Arc<[Ancestor]> {
        let inherited = self.marks.get(pid, kernel).and_then(|entry| entry.mark.inherited.clone());
        inherited.unwrap_or_default()
    }

    /// Checks whether rules test ancestors, so that the fork socket must be emptied before an evaluation.
    pub(super) const fn is_active(&self) -> bool {
        self.is_active
    }

    /// Records a fork read from the fork socket.
    pub(super) fn heard(&mut self, fork: Fork) -> Birth {
        self.begin(fork);
        // Its last change may not be evaluated yet.
        let earlier = self.marks.entry(fork.child);
        let earlier = earlier
            .and_then(|entry| DepartedProgram::of(fork.child, &entry.mark, fork.at, fork.at));
        let birth = self.marks.heard(fork);
        if let Some(departed) = earlier.filter(|own| !self.knows(fork.child, &own.program)) {
            self.departed.add(departed);
        }
        self.count(birth);
        if self.is_active {
            self.births.record(fork);
        }
        birth
    }

    /// Checks whether a fork that was read since the last call took a program from a process.
    pub(super) fn take_withdrawn(&mut self) -> bool {
        std::mem::take(&mut self.has_withdrawn)
    }

    fn count(&self, birth: Birth) {
        if matches!(birth, Birth::NoRoom(_)) {
            self.metrics.lost_ancestors.increment();
        }
    }

    pub(super) fn emptied(&mut self, kernel: &mut impl Kernel) {
        self.marks.emptied(kernel);
    }

    pub(super) fn confirm(&mut self, now: Nanos) {
        self.marks.confirm(now);
    }

    /// Looks for descendants after the kernel dropped forks: see [`Inheritance::search`].
    pub(super) fn search(&mut self, kernel: &mut impl Kernel) {
        let at = kernel.now();
        self.lost = at;
        let mut found = Vec::new();
        self.marks.search(kernel, |parent, child, birth| found.push((parent, child, birth)));
        for (parent, child, birth) in found {
            self.count(birth);
            // A change of the parent may wait for its evaluation, and the child be born after it. No fork tells when.
            if let Some(entry) = self.marks.entry(child).filter(|_| birth == Birth::Inherited) {
                let _has_room = self.marks.insert(child, Entry { since: at, ..entry.clone() });
                self.births.record(Fork { at, parent, child });
            }
        }
    }

    /// Checks whether it is recorded that a process runs this program.
    pub(super) fn knows(&self, pid: Pid, own: &Ancestor) -> bool {
        self.marks.entry(pid).is_some_and(|entry| entry.mark.own.as_ref() == Some(own))
    }

    /// Records the tested program that a process runs, or that it runs none. Returns whether what it runs changed for
    /// descendants that may have been evaluated before. For a new program the fork socket must have been emptied.
    pub(super) fn runs(
        &mut self,
        process: RunningProcess,
        own: Option<Ancestor>,
        kernel: &mut impl Kernel,
    ) -> bool {
        let RunningProcess { pid, identity, seen, read_from, changes, is_event } = process;
        let since = changes.since;
        let mut has_changed = is_event && self.withdraw_departed(pid, changes);
        let before = self.marks.get(pid, kernel).cloned();
        if before.as_ref().and_then(|entry| entry.mark.own.as_ref()) == own.as_ref() {
            let early = before.filter(|entry| is_event && entry.mark.was_early(since));
            return has_changed | early.is_some_and(|early| self.correct(process, early, kernel));
        }
        let (born, inherited, found_by) = match before {
            Some(entry) => {
                match DepartedProgram::of(pid, &entry.mark, NO_END, seen) {
                    Some(lost) if is_event => {
                        has_changed |= self.end(Creator::Present(pid), lost, changes);
                    }
                    // The event that tells since when is still to be read, unless it was lost.
                    Some(lost) => self.departed.add(lost),
                    None => {}
                }
                (entry.since, entry.mark.inherited, entry.mark.found_by)
            }
            None => (seen, None, FoundBy::Evaluation),
        };
        let began = if is_event { since } else { Nanos(0) };
        let found = Found { since: began, read_from, at: kernel.now() };
        let is_new = own.is_some();
        let mark = AncestryMark { found, found_by, ..AncestryMark::new(inherited, own) };
        let Some(programs) = mark.for_children.clone() else {
            self.marks.remove(pid);
            return has_changed;
        };
        // Without a program of its own its children have from it what it inherited itself, by their forks. Those may be
        // unread, and those of another process with the PID of one as well.
        if self.add(pid, identity, born, mark, kernel) && is_new {
            has_changed |= is_event && self.pass_on(pid, &programs, since);
            has_changed |= self.spread((pid, identity), programs, kernel);
        }
        has_changed
    }

    /// A program was found before the event was read that began it: takes it from those born before that.
    fn correct(
        &mut self,
        process: RunningProcess,
        mut early: Entry<AncestryMark>,
        kernel: &mut impl Kernel,
    ) -> bool {
        let RunningProcess { pid, identity, changes: ChangeTimes { since, .. }, .. } = process;
        let from = std::mem::replace(&mut early.mark.found.since, since);
        let programs = early.mark.for_children.clone();
        let adds = early.mark.adds();
        let has_changed =
            adds.is_some_and(|own| self.withdraw(Creator::Present(pid), &own, from..since));
        let _has_room = self.marks.insert(pid, early);
        // The descendants of a living process are below it, whenever they were born.
        has_changed
            | programs.is_some_and(|programs| self.spread((pid, identity), programs, kernel))
    }

    /// Passes programs on to the descendants that were born since the process runs one of them: some have exited, or are
    /// orphans by now. Returns whether there are any that did not have them.
    fn pass_on(&mut self, from: Pid, programs: &[Ancestor], since: Nanos) -> bool {
        let mut is_any = false;
        for Fork { child, at, .. } in self.births.below(Creator::Present(from), since..) {
            let (entry, known) = match self.marks.entry(child).filter(|entry| entry.since >= at) {
                // It was recorded by itself, or is of a later process with the PID.
                Some(entry) if entry.since != at => continue,
                Some(entry) => (entry.clone(), entry.mark.inherited.clone()),
                // The fork of a later process with the PID may be among the lost ones.
                None if at < self.lost => continue,
                None => (Entry::new(0, [at; 2], true, AncestryMark::new(None, None)), None),
            };
            let all = merged(known.as_deref().unwrap_or_default(), programs);
            if known.is_none_or(|known| *known != *all) {
                let mark = entry.mark.below(Some(all));
                is_any |= self.marks.insert(child, Entry { mark, ..entry });
            }
        }
        is_any
    }

    /// The process, with this identity if that is known, was found to have exited after changes that were not evaluated.
    /// Returns whether descendants are concerned.
    pub(super) fn gone(
        &mut self,
        (pid, identity): (Pid, Option<u64>),
        changes: ChangeTimes,
        now: Nanos,
    ) -> bool {
        let is_any = self.withdraw_departed(pid, changes);
        let entry = self.marks.entry(pid);
        let entry = entry.filter(|entry| identity.is_none_or(|own| own == entry.started));
        let lost = entry.and_then(|entry| DepartedProgram::of(pid, &entry.mark, NO_END, now));
        lost.is_some_and(|lost| self.end(Creator::Present(pid), lost, changes)) || is_any
    }

    /// As [`Self::withdraw`] for the programs that the process was found not to run before.
    pub(super) fn withdraw_departed(&mut self, pid: Pid, changes: ChangeTimes) -> bool {
        let mut is_any = false;
        for departed in self.departed.take_of(pid) {
            is_any |= self.end(Creator::Earlier(pid), departed, changes);
        }
        is_any
    }

    /// Takes a program away from those born before these changes began it, if they did, and from those born after they
    /// ended it. Returns whether there are any.
    fn end(&mut self, from: Creator, lost: DepartedProgram, changes: ChangeTimes) -> bool {
        let ChangeTimes { first, since } = changes;
        let Found { since: began, read_from, at } = lost.found;
        if !lost.found.is_before_event(first) {
            return self.withdraw(from, &lost.program, first..lost.until);
        }
        // The process was found to run it after the first of the changes, which nobody had read by then.
        if since > at {
            let is_any = self.withdraw(from, &lost.program, began..first);
            // Other changes between the first and the last may have ended it at any time after it was read.
            let ended = first.max(read_from);
            return self.withdraw(from, &lost.program, ended..lost.until) || is_any;
        }
        let mut is_any = self.withdraw(from, &lost.program, began..since);
        // The last of the changes has begun it, or ended it just after the executable was read.
        if since > read_from {
            is_any |= self.withdraw(from, &lost.program, since..lost.until);
        }
        // Another change has ended it, if not that.
        self.departed.add(DepartedProgram { found: Found { since, ..lost.found }, ..lost });
        is_any
    }

    /// Takes a program away from the children that its process created in this time, in which it ran another one or had
    /// another user, and from their descendants. A child that was living when the program was passed on keeps it. So do
    /// those below this one, and those below a child that runs the program itself. Returns whether there are any others.
    fn withdraw(
        &mut self,
        from: Creator,
        lost: &Ancestor,
        within: impl RangeBounds<Nanos>,
    ) -> bool {
        let mut is_any = false;
        let mut keepers = HashSet::<Pid, FixedState>::default();
        let born = self.births.below(from, within);
        let last: HashMap<Pid, Nanos, FixedState> =
            born.iter().map(|fork| (fork.child, fork.at)).collect();
        for Fork { child, parent, at } in born {
            keepers.remove(&child);
            // It may have exited since, unlike its children.
            let Some(entry) = self.marks.entry(child).cloned() else { continue };
            if entry.since != at && last.get(&child) != Some(&at) {
                // The entry is of a descendant with the PID.
                continue;
            }
            if entry.since != at || keepers.contains(&parent) {
                keepers.insert(child);
                continue;
            }
            is_any = true;
            if entry.mark.own.as_ref() == Some(lost) {
                keepers.insert(child);
            }
            let left = entry.mark.inherited.iter().flat_map(|all| all.iter());
            let left: Arc<[Ancestor]> = left.filter(|one| *one != lost).cloned().collect();
            let mark = entry.mark.below((!left.is_empty()).then_some(left));
            if mark.for_children.is_some() {
                let _has_room = self.marks.insert(child, Entry { mark, ..entry });
            } else {
                self.marks.remove(child);
            }
        }
        is_any
    }

    fn add(
        &mut self,
        pid: Pid,
        identity: u64,
        since: Nanos,
        mark: AncestryMark,
        kernel: &mut impl Kernel,
    ) -> bool {
        self.marks.make_room(false, kernel);
        let is_inherited = mark.inherited.is_some();
        // The fork of a living child may still be read.
        let times = [since, Nanos(0)];
        let has_room = self.marks.insert(pid, Entry::new(identity, times, is_inherited, mark));
        if !has_room {
            self.metrics.lost_ancestors.increment();
        }
        has_room
    }

    /// Passes programs on to the living descendants of a process. Returns whether there are any that did not have
    /// them.
    fn spread(
        &mut self,
        from: (Pid, u64),
        programs: Arc<[Ancestor]>,
        kernel: &mut impl Kernel,
    ) -> bool {
        let mut is_new = false;
        let mut parents = vec![(from, programs)];
        while let Some(((parent, started), programs)) = parents.pop() {
            let found = children(parent, kernel);
            if kernel.identity(parent) != Some(started) {
                // They may be those of another process with the PID.
                continue;
            }
            for child in found {
                let seen = kernel.now();
                let Some(identity) = kernel.identity(child) else { continue };
                let (since, before) = match self.marks.get(child, kernel) {
                    Some(entry) => (entry.since, entry.mark.clone()),
                    None => (seen, AncestryMark::listed(parent)),
                };
                let known = before.inherited.as_deref().unwrap_or_default();
                let all = merged(known, &programs);
                if *all == *known || !is_child(child, parent, kernel) {
                    continue;
                }
                is_new = true;
                let mark = before.below(Some(all));
                let further = mark.for_children.clone();
                if self.add(child, identity, since, mark, kernel) {
                    parents.extend(further.map(|further| ((child, identity), further)));
                }
            }
        }
        is_new
    }
}
