//! The processes of a plan: reads what the decisions about one need, and records the difference.

use super::decision::{Need, Outcome};
use super::{Awaited, Pass, PlanItem, PlanRun, Side};
use crate::cgroup::mounts::Version;
use crate::cgroup::unit::Unit;
use crate::control::difference::{Decided, DecisionChange, UNKNOWN, difference};
use crate::control::plan::{PlannedDecision, PlannedProcess};
use crate::engine::Engine;
use crate::engine::evaluation::THREAD_NAME;
use crate::engine::kernel::Kernel;
use crate::engine::known::{Known, NeededRead};
use crate::engine::name_lookups::{PendingName, ask};
use crate::event::{Nanos, Pid};
use crate::kernel::container::Containment;
use crate::kernel::exe_pool::Examination;
use crate::kernel::process::{ProcessHandle, path_in};
use crate::kernel::program::{Arguments, ExeInfo, ExeRead, ReadRequest};
use crate::placement::KnownExe;

impl<K: Kernel> Engine<K> {
    /// Decides about a process, or requests what that needs. Returns a read that it needs at once.
    pub(super) fn plan_process(
        &mut self,
        run: &mut PlanRun,
        item: PlanItem,
    ) -> Option<ReadRequest> {
        let handle = self.kernel.open_process(item.pid)?;
        // A zombie cannot be moved.
        if self.kernel.has_exited(&handle) {
            return None;
        }
        let is_single = self.kernel.thread_count(item.pid) == 1;
        let handle = match !is_single && self.kernel.has_leader_exited(item.pid) {
            true => self.kernel.stand_in(item.pid, handle)?,
            false => handle,
        };
        if let Some(reason) = item.unknown {
            self.record_unknown(run, &item, &handle, reason);
            return None;
        }
        self.proceed_plan(run, item, handle, KnownExe::Unread, None)
    }

    /// Continues the plan with what was read. Returns a further read that it needs.
    pub(in crate::engine) fn supply_plan(&mut self, read: &ExeRead) -> Option<ReadRequest> {
        let mut run = self.take_run()?;
        let request = run.open.take().and_then(|(item, handle)| {
            let mut name = [0; THREAD_NAME];
            let exe = match read.link() {
                Ok(_) => read.seen(self.kernel.comm(item.pid)),
                Err(_) => self.kernel_thread_name(&item, &mut name),
            };
            let exe = exe.map_or(KnownExe::Unavailable, KnownExe::Read);
            self.proceed_plan(&mut run, item, handle, exe, read.containment())
        });
        self.keep_run(run);
        request
    }

    /// Continues the plan without the process whose executable blocks another thread.
    pub(in crate::engine) fn plan_read_is_late(&mut self) {
        let Some(mut run) = self.take_run() else { return };
        if let Some((item, handle)) = run.open.take() {
            self.metrics.blocked_reads.increment();
            let user = self.policy.accountable(handle.uid);
            self.executables.block(item.pid, user, self.kernel.now());
            self.record_unknown(&mut run, &item, &handle, "a read of its executable blocks");
        }
        self.keep_run(run);
    }

    fn kernel_thread_name<'n>(
        &mut self,
        item: &PlanItem,
        name: &'n mut [u8; THREAD_NAME],
    ) -> Option<ExeInfo<'n>> {
        self.kernel.status(item.pid).filter(|status| status.is_kernel_thread)?;
        let comm = self.kernel.comm(item.pid).unwrap_or_default();
        let length = comm.len().min(THREAD_NAME);
        name[..length].copy_from_slice(&comm[..length]);
        Some(ExeInfo::kernel_thread(&name[..length]))
    }

    fn proceed_plan(
        &mut self,
        run: &mut PlanRun,
        mut item: PlanItem,
        handle: ProcessHandle,
        exe: KnownExe<'_>,
        mut containment: Option<Containment>,
    ) -> Option<ReadRequest> {
        let pid = item.pid;
        let identity = self.kernel.identity_of(pid, &handle);
        // Of another process with the PID.
        let program = item.program.take().filter(|(of, _)| *of == identity);
        let seen = program.as_ref().map(|(_, program)| KnownExe::Read(program.seen()));
        let mut exe = seen.unwrap_or(exe);
        let own = program.as_ref().map_or(Arguments::Unread, |(_, own)| own.arguments.clone());
        let mut arguments = if item.is_final { Arguments::Unavailable } else { own };
        let is_of_root = match (run.pass, &run.policy.ancestors) {
            (Pass::Ancestors, Some(_)) => self.is_of_root(pid),
            (Pass::Decisions, _) | (Pass::Ancestors, None) => None,
        };
        loop {
            if item.is_final && matches!(exe, KnownExe::Read(_)) {
                exe = exe.as_final();
            }
            let read_from = Nanos(0);
            let known = Known { exe, arguments: &arguments, containment, read_from, is_of_root };
            let need = match run.pass {
                Pass::Ancestors => self.note_planned_ancestor(run, pid, &handle, known),
                Pass::Decisions => self.decide_both(run, pid, &handle, known),
            };
            let needed = match need {
                None => return None,
                Some(Need::Again) => continue,
                Some(Need::Read(needed)) => needed,
                Some(Need::Name(side, name)) => {
                    item.program = program;
                    self.ask_for_plan(run, side, name, (item, identity));
                    return None;
                }
                Some(Need::Unknown(reason)) => {
                    self.record_unknown(run, &item, &handle, reason);
                    return None;
                }
            };
            if let Some(request) = needed.link(pid, &handle) {
                let user = self.policy.accountable(handle.uid);
                if self.executables.may_be_read(user, &self.kernel) {
                    item.program = program;
                    run.open = Some((item, handle));
                    return Some(request);
                }
            }
            match needed {
                NeededRead::Namespaces => containment = Some(Containment::Unknown),
                NeededRead::Arguments if item.is_final => arguments = Arguments::Unavailable,
                NeededRead::Exe if item.is_final => exe = KnownExe::Unavailable,
                NeededRead::Exe | NeededRead::Arguments | NeededRead::Examination(_) => {
                    self.examine_for_plan(run, item, &handle, &needed);
                    return None;
                }
            }
        }
    }

    /// Requests a name that the rules of one side need.
    fn ask_for_plan(
        &mut self,
        run: &mut PlanRun,
        side: Side,
        name: PendingName,
        (item, identity): (PlanItem, Option<u64>),
    ) {
        let policy = match side {
            Side::Active => &self.policy,
            Side::Planned => &run.policy,
        };
        ask(name, policy, &mut self.kernel);
        run.wait(Awaited::Name(name), identity, item, self.kernel.now());
    }

    /// Requests the examination of an executable.
    fn examine_for_plan(
        &mut self,
        run: &mut PlanRun,
        item: PlanItem,
        handle: &ProcessHandle,
        needed: &NeededRead,
    ) {
        let number = self.executables.next_number();
        let user = self.policy.accountable(handle.uid);
        let examination =
            Examination { is_planned: true, ..needed.to_examination(item.pid, number) };
        if self.kernel.examine(user, examination) {
            let identity = self.kernel.identity_of(item.pid, handle);
            run.wait(Awaited::Examination(number), identity, item, self.kernel.now());
        } else {
            let reason = "too many executables of its user are to be examined";
            self.record_unknown(run, &item, handle, reason);
        }
    }

    /// Decides by both sets of rules, and records the difference. Returns what that needs first.
    fn decide_both(
        &mut self,
        run: &mut PlanRun,
        pid: Pid,
        handle: &ProcessHandle,
        known: Known<'_>,
    ) -> Option<Need> {
        let both = self.decide_side(run, Side::Active, (pid, handle), known).and_then(|before| {
            Ok((before, self.decide_side(run, Side::Planned, (pid, handle), known)?))
        });
        let (before, after) = match both {
            Ok(both) => both,
            Err(need) => return Some(need),
        };
        run.placers[Side::Planned as usize].count_foreseen(
            pid,
            &after.moves,
            self.kernel.hierarchies(),
        );
        run.examined += 1;
        if let Some(change) = change_between(&before, &after) {
            self.record_difference(run, (pid, handle), change, [before, after]);
        }
        None
    }

    fn record_unknown(
        &mut self,
        run: &mut PlanRun,
        item: &PlanItem,
        handle: &ProcessHandle,
        reason: &'static str,
    ) {
        // An evaluation that waits for too long goes on without it, too.
        if run.pass == Pass::Ancestors {
            return;
        }
        run.examined += 1;
        let decision =
            PlannedDecision { rule: None, outcome: UNKNOWN, reason: Some(reason), failure: None };
        let unknown = [(); 2].map(|()| Outcome { decision: decision.clone(), moves: Vec::new() });
        self.record_difference(run, (item.pid, handle), DecisionChange::Unknown, unknown);
    }

    fn record_difference(
        &mut self,
        run: &mut PlanRun,
        (pid, handle): (Pid, &ProcessHandle),
        change: DecisionChange,
        [before, after]: [Outcome; 2],
    ) {
        let text: Box<[u8]> = self.kernel.cgroup(pid, handle.thread).unwrap_or_default().into();
        let trees = self.kernel.hierarchies();
        let leaves_v2 = after
            .moves
            .iter()
            .any(|one| trees.get(one.hierarchy).is_some_and(|tree| tree.version == Version::V2));
        let path = path_in(&text, b"").unwrap_or_default();
        let roots = run.policy.roots();
        let unit = Unit::of_bytes(path, &roots).name().filter(|_| leaves_v2).map(Box::from);
        let users = [&self.policy, &run.policy].into_iter();
        let mut names =
            users.filter_map(|own| own.users.get(&handle.uid)?.identity.name.as_deref());
        run.processes.push(PlannedProcess {
            pid,
            uid: handle.uid,
            user: names.next().map(Box::from),
            comm: self.kernel.comm(pid).unwrap_or_default().into(),
            cgroups: text,
            change,
            before: before.decision,
            after: after.decision,
            moves: after.moves,
            unit,
        });
    }
}

/// Returns what differs between the decisions for a process.
fn change_between(before: &Outcome, after: &Outcome) -> Option<DecisionChange> {
    let first = after.moves.first();
    let from = first.map(|first| String::from_utf8_lossy(&first.from)).unwrap_or_default();
    let to = first.map_or("", |first| &first.to);
    difference(before.decided(&from), after.decided(to))
}

impl Outcome {
    fn decided<'d>(&'d self, cgroup: &'d str) -> Decided<'d> {
        let PlannedDecision { rule, outcome, .. } = &self.decision;
        let rule = rule.as_ref().map(|(name, _)| name.as_ref());
        Decided { rule, cgroup, outcome }
    }
}
