//! Requests of control socket clients, served between evaluations, and the decision records sent to
//! them. It must not delay evaluations: each call handles one request.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Engine;
use crate::config::escape::Escaped;
use crate::control::exchange::{Done, Errand, HotSide, Seen, Ticket};
use crate::control::memory::{Memory, Remembered, Trouble};
use crate::control::moves::Moves;
use crate::control::protocol::{About, Happening};
use crate::decision::Exe;
use crate::event::batch::Look;
use crate::event::{Cause, Nanos, Pid, Uid};
use crate::placer::Outcome;
use crate::process::Grip;
use crate::rules::{Action, Rule, RuleId};
use crate::sys;

/// Details of the last evaluation that its outcome does not contain.
#[derive(Clone, Debug, Default)]
pub(super) struct Noted {
    pub(super) uid: Option<Uid>,
    pub(super) rule: Option<RuleId>,
    /// Link to the executable, recorded only while a client watches.
    exe: Option<Box<[u8]>>,
}

/// Rule of an evaluation, for a client.
#[derive(Debug)]
pub(super) struct Named {
    rule: Option<Arc<str>>,
    cgroup: Option<Box<str>>,
    /// Reason why the rule cannot be applied.
    reason: Option<String>,
}

/// Processes that a client wants evaluated now.
#[derive(Debug)]
struct Placing {
    ticket: Ticket,
    left: VecDeque<u32>,
    done: Vec<About>,
}

/// Pending requests and the history that answers them.
#[derive(Default)]
pub(super) struct Errands {
    side: Option<HotSide>,
    memory: Memory,
    moves: Moves,
    placing: Option<Placing>,
    reloads: Reloads,
}

/// Clients that wait for a reload.
#[derive(Debug, Default)]
struct Reloads {
    /// Clients before the reload is requested.
    wished: Vec<Ticket>,
    /// Requests sent to the rule thread, with the number of the reload, from 1.
    asked_for: Vec<(Ticket, u64)>,
    /// Policy active, scan not complete.
    settling: Vec<Ticket>,
    asked: u64,
    answered: u64,
}

impl Errands {
    /// Records that the rule thread received a request to read all files.
    pub(super) fn reload_asked(&mut self) {
        let reloads = &mut self.reloads;
        reloads.asked += 1;
        let asked = reloads.asked;
        reloads.asked_for.extend(reloads.wished.drain(..).map(|ticket| (ticket, asked)));
    }

    /// Records a reply of the rule thread. Reloads requested before it only wait for the scan, if
    /// there is one.
    pub(super) fn reload_answered(&mut self) {
        let reloads = &mut self.reloads;
        reloads.answered += 1;
        let answered = reloads.answered;
        let is_answered = |one: &(Ticket, u64)| one.1 <= answered;
        let tickets = reloads.asked_for.iter().filter(|one| is_answered(one)).map(|one| one.0);
        reloads.settling.extend(tickets);
        reloads.asked_for.retain(|one| !is_answered(one));
    }
}

impl Engine {
    /// Serves the requests of `side` from now on.
    pub fn serve(&mut self, side: HotSide) {
        self.errands.side = Some(side);
    }

    /// Returns the eventfd that wakes the main loop for a request.
    pub fn ringer(&self) -> Arc<nix::sys::eventfd::EventFd> {
        self.desk.ringer()
    }

    /// Checks whether a client requested a reload.
    pub fn wants_reload(&self) -> bool {
        !self.errands.reloads.wished.is_empty()
    }

    pub(super) fn has_errand(&self) -> bool {
        self.errands.placing.is_some()
            || self.errands.side.as_ref().is_some_and(HotSide::has_errand)
    }

    /// Checks whether a client watches decisions.
    pub(super) fn is_watched(&self) -> bool {
        self.errands.side.as_ref().is_some_and(HotSide::is_watched)
    }

    /// Serves one request, and replies to clients after their scan is complete.
    pub(super) fn run_errand(&mut self) {
        if !self.errands.reloads.settling.is_empty() && self.is_settled() {
            for ticket in std::mem::take(&mut self.errands.reloads.settling) {
                self.report(ticket, Done::Reloaded);
            }
        }
        if self.errands.placing.is_some() {
            return;
        }
        let errand = self.errands.side.as_ref().and_then(HotSide::take_errand);
        let Some((ticket, errand)) = errand else { return };
        let done = match errand {
            Errand::About(pids) => Done::About(pids.iter().map(|&pid| self.about(pid)).collect()),
            Errand::Place(pids) => {
                let placing = Placing { ticket, left: pids.into(), done: Vec::new() };
                self.errands.placing = Some(placing);
                return;
            }
            Errand::Takers => Done::Takers(self.placer.taken_back_by().to_vec()),
            Errand::Reload => return self.errands.reloads.wished.push(ticket),
        };
        self.report(ticket, done);
    }

    fn report(&self, ticket: Ticket, done: Done) {
        if let Some(side) = &self.errands.side {
            side.answer(ticket, done);
        }
    }

    /// Returns the recorded history of a process.
    fn about(&mut self, raw: u32) -> About {
        let nothing = About { pid: raw, ..About::default() };
        let Some(pid) = Pid::new(raw) else { return nothing };
        let now = sys::monotonic();
        let identity = self.proc.identity(pid);
        let mut happenings: Vec<Happening> =
            self.errands.memory.of(pid, identity).map(|one| one.told(now)).collect();
        if let Some((since, why)) = identity.and_then(|_| self.under_way(pid)) {
            let ago_ms = now.since(since) / 1_000_000;
            happenings.push(happening(ago_ms, Outcome::Waiting.word(), why));
        }
        if self.sticky.holds(pid, &mut self.proc) {
            let why = "registered as sticky, for example by cgexec --sticky";
            happenings.push(happening(0, Outcome::Sticky.word(), why));
        }
        let moved = identity.and_then(|identity| self.errands.moves.last(pid, identity));
        let moved_ago_ms = moved.map(|at| now.since(at) / 1_000_000);
        About { pid: raw, happenings, moved_ago_ms }
    }

    /// Returns since when an evaluation of the process is pending, and the reason.
    fn under_way(&self, pid: Pid) -> Option<(Nanos, &'static str)> {
        if let Some(since) = self.executables.waits_since(pid) {
            return Some((since, "waiting for its executable to be read"));
        }
        let mut waiting = self.waiting.values().flatten();
        if let Some(look) = waiting.find(|look| look.pid == pid) {
            return Some((look.since, "waiting for the name service"));
        }
        if let Some(since) = self.placer.waits_for_manager(pid) {
            return Some((since, "waiting for systemd to report the user's service manager"));
        }
        let queued = self.intake.batch.find(pid);
        queued.map(|look| (look.since, "queued behind other evaluations"))
    }

    /// Returns the next process that a client wants evaluated.
    pub(super) fn next_asked(&mut self) -> Option<Look> {
        loop {
            let placing = self.errands.placing.as_mut()?;
            let Some(raw) = placing.left.pop_front() else {
                let Placing { ticket, done, .. } = self.errands.placing.take()?;
                self.report(ticket, Done::About(done));
                continue;
            };
            if let Some(pid) = Pid::new(raw) {
                return Some(Look::at_once(pid, Cause::ASKED, sys::monotonic()));
            }
            let gone = happening(0, Outcome::Gone.word(), "no such process");
            placing.done.push(About { pid: raw, happenings: vec![gone], moved_ago_ms: None });
        }
    }

    /// Records the result of an evaluation that a client requested.
    pub(super) fn answer_asked(
        &mut self,
        pid: Pid,
        outcome: Outcome,
        Named { rule, cgroup, reason }: Named,
    ) {
        let mut about = self.about(pid.get());
        // A recorded failure is more specific than the bare outcome.
        if about.happenings.last().is_none_or(|last| last.outcome != outcome.word()) {
            let mut last = happening(0, outcome.word(), &reason.unwrap_or_default());
            last.rule = rule.map(|rule| Escaped(&rule).to_string()).unwrap_or_default();
            last.cgroup = cgroup.map(|path| Escaped(&path).to_string()).unwrap_or_default();
            about.happenings.push(last);
        }
        if let Some(placing) = &mut self.errands.placing {
            placing.done.push(about);
        }
    }

    /// Returns the rule and cgroup of the last evaluation for a client.
    pub(super) fn target_names(&self, outcome: Outcome) -> Named {
        let (rule, cgroup) = self.target(outcome);
        let reason = rule.and_then(|rule| rule.action.inapplicable()).map(ToString::to_string);
        Named { rule: rule.map(|rule| Arc::clone(&rule.name)), cgroup, reason }
    }

    /// Returns the rule of the last evaluation and its cgroup, as far as they are known.
    fn target(&self, outcome: Outcome) -> (Option<&Rule>, Option<Box<str>>) {
        let rule = self.noted.rule.and_then(|id| self.policy.matcher.rule(id));
        let Some(rule) = rule else { return (None, None) };
        let is_placed = match &rule.action {
            Action::Place(_) => outcome != Outcome::Waiting,
            Action::Ignore(_) | Action::Inapplicable(_) => false,
        };
        (Some(rule), is_placed.then(|| self.placer.path().into()))
    }

    /// Records the executable of the evaluated process while a client watches.
    pub(super) fn note_exe(&mut self, exe: Exe<'_>) {
        if self.is_watched() {
            self.noted.exe = exe.seen().map(|seen| Box::from(seen.raw));
        }
    }

    /// Records the failures of an evaluation, and reports it to watching clients.
    pub(super) fn account(
        &mut self,
        look: Look,
        grip: Option<&Grip>,
        outcome: Outcome,
        now: Nanos,
    ) {
        if let (Outcome::Placed, Some(grip)) = (outcome, grip) {
            let identity = self.proc.identity_of(look.pid, grip).unwrap_or(0);
            self.errands.moves.remember(look.pid, identity, now);
        }
        if self.placer.has_troubles() {
            self.remember(look, now);
        }
        if self.is_watched() {
            self.tell_watchers(look, outcome, now);
        }
        self.noted = Noted::default();
    }

    fn tell_watchers(&mut self, look: Look, outcome: Outcome, now: Nanos) {
        let exe = self.noted.exe.take();
        let Some(side) = &self.errands.side else { return };
        let (rule, cgroup) = self.target(outcome);
        let is_held = outcome == Outcome::InPlace && look.cause.contains(Cause::RECHECK);
        side.tell(Seen {
            pid: look.pid,
            uid: self.noted.uid,
            exe,
            rule: rule.map(|rule| Arc::clone(&rule.name)),
            origin: rule.map(|rule| rule.origin.clone()),
            cgroup,
            outcome: if is_held { "held" } else { outcome.word() },
            cause: look.cause,
            at: now,
            latency_ns: now.since(look.since),
        });
    }

    fn remember(&mut self, look: Look, at: Nanos) {
        let rule = self.noted.rule.and_then(|id| self.policy.matcher.rule(id));
        let rule = rule.map_or_else(|| Arc::from(""), |rule| Arc::clone(&rule.name));
        let troubles = self.placer.take_troubles();
        let Some(identity) = self.proc.identity(look.pid) else { return };
        for (trouble, cgroup) in troubles {
            let rule = Arc::clone(&rule);
            let pid = look.pid;
            self.errands.memory.remember(Remembered { pid, identity, at, trouble, rule, cgroup });
        }
    }

    /// Records an event of a process for which no rule was found yet.
    pub(super) fn remember_trouble(&mut self, pid: Pid, trouble: Trouble, at: Nanos) {
        let Some(identity) = self.proc.identity(pid) else { return };
        let rule = Arc::from("");
        let cgroup = String::new();
        self.errands.memory.remember(Remembered { pid, identity, at, trouble, rule, cgroup });
    }
}

fn happening(ago_ms: u64, outcome: &str, detail: &str) -> Happening {
    Happening {
        ago_ms,
        outcome: outcome.to_owned(),
        rule: String::new(),
        cgroup: String::new(),
        detail: detail.to_owned(),
    }
}
