//! Requests of control socket clients, served between evaluations. It must not delay evaluations:
//! each call handles one request.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::Engine;
use crate::config::escape::Escaped;
use crate::control::channel::{EngineChannel, EngineCommand};
use crate::control::failures::{FailureHistory, FailureRecord, PlacementFailure};
use crate::control::move_history::MoveHistory;
use crate::control::protocol::{HistoryEntry, ProcessReport};
use crate::engine::kernel::Kernel;
use crate::engine::placer::Placement;
use crate::event::{Cause, Nanos, Pid};
use crate::rules::{Action, Rule};
use crate::tracking::queue::EvaluationRequest;

/// Rule of an evaluation, for a client.
#[derive(Debug)]
pub(super) struct RuleName {
    rule: Option<Arc<str>>,
    cgroup: Option<Box<str>>,
    /// Reason why the rule cannot be applied.
    reason: Option<String>,
}

/// Time for reports to clients at once, and from one such part to the next: a sixth of the thread. Each
/// process takes 10 to 20 us, a request has up to 256, and members of the group can repeat it.
const REPORT_NS: u64 = 200_000;
const REPORT_INTERVAL_NS: u64 = 1_200_000;
/// Maximum number of requests for reports; more than there are connections.
const MOST_REPORTS: usize = 64;

/// Processes that a client wants evaluated now, or reported.
#[derive(Debug)]
struct ProcessesRequest {
    reply: Sender<Vec<ProcessReport>>,
    left: VecDeque<u32>,
    done: Vec<ProcessReport>,
}

/// Pending requests and the history that answers them.
#[derive(Default)]
pub(super) struct PendingCommands {
    pub(super) side: Option<EngineChannel>,
    memory: FailureHistory,
    pub(super) moves: MoveHistory,
    placing: Option<ProcessesRequest>,
    /// Requests for reports, served in turn.
    reports: VecDeque<ProcessesRequest>,
    reports_due: Nanos,
    reloads: ReloadWaiters,
}

/// Clients that wait for a reload.
#[derive(Debug, Default)]
struct ReloadWaiters {
    /// Clients before the reload is requested.
    wished: Vec<Sender<()>>,
    /// Requests sent to the rule thread, with the number of the reload, from 1.
    asked_for: Vec<(Sender<()>, u64)>,
    /// Policy active, scan not complete.
    settling: Vec<Sender<()>>,
    asked: u64,
    answered: u64,
    /// Set if a name that rules use exists since they were read.
    has_new_names: bool,
}

impl ProcessesRequest {
    fn new(pids: Vec<u32>, reply: Sender<Vec<ProcessReport>>) -> Self {
        Self { reply, left: pids.into(), done: Vec::new() }
    }
}

impl PendingCommands {
    /// Returns the time at which the next part of the requested reports is made.
    pub(super) fn reports_due(&self) -> Option<Nanos> {
        (!self.reports.is_empty()).then_some(self.reports_due)
    }

    fn add_report(&mut self, request: ProcessesRequest) {
        if self.reports.len() >= MOST_REPORTS {
            // Its client has waited longer than the others, and learns that it was dropped.
            self.reports.pop_front();
        }
        self.reports.push_back(request);
    }

    /// Records that the rule thread received a request to read all files.
    pub(super) fn reload_asked(&mut self) {
        let reloads = &mut self.reloads;
        reloads.has_new_names = false;
        reloads.asked += 1;
        let asked = reloads.asked;
        reloads.asked_for.extend(reloads.wished.drain(..).map(|reply| (reply, asked)));
    }

    /// Records that the rules have to be read again because of a name in them.
    pub(super) fn names_appeared(&mut self) {
        self.reloads.has_new_names = true;
    }

    /// Records a reply of the rule thread. Reloads requested before it only wait for the scan, if
    /// there is one.
    pub(super) fn reload_answered(&mut self) {
        let reloads = &mut self.reloads;
        reloads.answered += 1;
        let answered = reloads.answered;
        // Their numbers ascend.
        let count = reloads.asked_for.partition_point(|&(_, number)| number <= answered);
        reloads.settling.extend(reloads.asked_for.drain(..count).map(|(reply, _)| reply));
    }
}

impl<K: Kernel> Engine<K> {
    /// Serves the requests of `side` from now on.
    pub fn serve(&mut self, side: EngineChannel) {
        self.commands.side = Some(side);
    }

    /// Checks whether a client requested a reload, or a new name requires one.
    pub fn wants_reload(&self) -> bool {
        self.commands.reloads.has_new_names || !self.commands.reloads.wished.is_empty()
    }

    pub(super) fn has_command(&self) -> bool {
        self.commands.placing.is_some()
            || self.commands.reports_due().is_some_and(|due| due <= self.kernel.now())
            || self.commands.side.as_ref().is_some_and(EngineChannel::has_command)
    }

    /// Checks whether a client watches decisions.
    pub(super) fn is_watched(&self) -> bool {
        self.commands.side.as_ref().is_some_and(EngineChannel::is_watched)
    }

    /// Serves one request, and replies to clients after their scan is complete.
    pub(super) fn run_command(&mut self) {
        if !self.commands.reloads.settling.is_empty() && self.is_settled() {
            for reply in self.commands.reloads.settling.drain(..) {
                send(&reply, ());
            }
        }
        self.report_some();
        if self.commands.placing.is_some() {
            return;
        }
        let Some(side) = &mut self.commands.side else { return };
        match side.take_command() {
            Some(EngineCommand::About(pids, reply)) => {
                self.commands.add_report(ProcessesRequest::new(pids, reply));
            }
            Some(EngineCommand::Place(pids, reply)) => {
                self.commands.placing = Some(ProcessesRequest::new(pids, reply));
            }
            Some(EngineCommand::Takers(reply)) => {
                send(&reply, self.placer.external_movers().to_vec());
            }
            Some(EngineCommand::Watch(watcher, most, reply)) => {
                send(&reply, side.watch(watcher, most));
            }
            Some(EngineCommand::Reload(reply)) => self.commands.reloads.wished.push(reply),
            Some(EngineCommand::Plan(sources, reply)) => self.plan(sources, reply),
            None => {}
        }
    }

    /// Checks whether the process was placed since another one moved it or created it elsewhere, because it
    /// changed before that was read: children born until then may be elsewhere.
    pub(super) fn has_returned(&mut self, evaluation: EvaluationRequest) -> bool {
        let EvaluationRequest { pid, cause, since, .. } = evaluation;
        if !cause.intersects(Cause::MOVED | Cause::ELSEWHERE) {
            return false;
        }
        let placed = self.kernel.identity(pid).and_then(|own| self.commands.moves.last(pid, own));
        placed.is_some_and(|at| at >= since)
    }

    /// Makes a part of the requested reports if that is due. The client of the next part is another
    /// one, so that a short request does not wait for long ones.
    fn report_some(&mut self) {
        let Some(due) = self.commands.reports_due() else { return };
        let began = self.kernel.now();
        if began < due {
            return;
        }
        self.commands.reports_due = began.plus(REPORT_INTERVAL_NS);
        let Some(mut request) = self.commands.reports.pop_front() else { return };
        while let Some(pid) = request.left.pop_front() {
            request.done.push(self.about(pid));
            if self.kernel.now().since(began) >= REPORT_NS {
                break;
            }
        }
        if request.left.is_empty() {
            send(&request.reply, request.done);
        } else {
            self.commands.reports.push_back(request);
        }
    }

    /// Returns the recorded history of a process.
    fn about(&mut self, raw: u32) -> ProcessReport {
        let nothing = ProcessReport { pid: raw, ..ProcessReport::default() };
        let Some(pid) = Pid::new(raw) else { return nothing };
        let now = self.kernel.now();
        let identity = self.kernel.identity(pid);
        let mut history: Vec<HistoryEntry> =
            self.commands.memory.of(pid, identity).map(|one| one.told(now)).collect();
        if let Some((since, why)) = identity.and_then(|_| self.under_way(pid)) {
            let ago_ms = now.since(since) / 1_000_000;
            history.push(entry(ago_ms, Placement::Waiting.word(), why));
        }
        if self.sticky.holds(pid, &mut self.kernel) {
            let why = "registered as sticky, for example by cgexec --sticky";
            history.push(entry(0, Placement::Sticky.word(), why));
        }
        let moved = identity.and_then(|identity| self.commands.moves.last(pid, identity));
        let moved_ago_ms = moved.map(|at| now.since(at) / 1_000_000);
        ProcessReport { pid: raw, history, moved_ago_ms }
    }

    /// Returns since when an evaluation of the process is pending, and the reason.
    fn under_way(&self, pid: Pid) -> Option<(Nanos, &'static str)> {
        if let Some(since) = self.executables.waits_since(pid) {
            return Some((since, "waiting for its executable to be read"));
        }
        let mut waiting = self.waiting.values().flatten();
        if let Some(evaluation) = waiting.find(|evaluation| evaluation.pid == pid) {
            return Some((evaluation.since, "waiting for the name service"));
        }
        if let Some(since) = self.placer.waits_for_manager(pid) {
            return Some((since, "waiting for systemd to report the user's service manager"));
        }
        let queued = self.intake.batch.find(pid);
        queued.map(|evaluation| (evaluation.since, "queued behind other evaluations"))
    }

    /// Returns the next process that a client wants evaluated.
    pub(super) fn next_asked(&mut self) -> Option<EvaluationRequest> {
        loop {
            let placing = self.commands.placing.as_mut()?;
            let Some(raw) = placing.left.pop_front() else {
                let ProcessesRequest { reply, done, .. } = self.commands.placing.take()?;
                send(&reply, done);
                continue;
            };
            if let Some(pid) = Pid::new(raw) {
                return Some(EvaluationRequest::at_once(pid, Cause::ASKED, self.kernel.now()));
            }
            let gone = entry(0, Placement::Gone.word(), "no such process");
            placing.done.push(ProcessReport { pid: raw, history: vec![gone], moved_ago_ms: None });
        }
    }

    /// Records the result of an evaluation that a client requested.
    pub(super) fn answer_asked(
        &mut self,
        pid: Pid,
        outcome: Placement,
        RuleName { rule, cgroup, reason }: RuleName,
    ) {
        let mut about = self.about(pid.get());
        // A recorded failure is more specific than the bare outcome.
        if about.history.last().is_none_or(|last| last.outcome != outcome.word()) {
            let mut last = entry(0, outcome.word(), &reason.unwrap_or_default());
            last.rule = rule.map(|rule| Escaped(&rule).to_string()).unwrap_or_default();
            last.cgroup = cgroup.map(|path| Escaped(&path).to_string()).unwrap_or_default();
            about.history.push(last);
        }
        if let Some(placing) = &mut self.commands.placing {
            placing.done.push(about);
        }
    }

    /// Returns the rule and cgroup of the last evaluation for a client.
    pub(super) fn target_names(&self, outcome: Placement) -> RuleName {
        let (rule, cgroup) = self.target(outcome);
        let reason = rule.and_then(|rule| rule.action.inapplicable()).map(ToString::to_string);
        RuleName { rule: rule.map(|rule| Arc::clone(&rule.name)), cgroup, reason }
    }

    /// Returns the rule of the last evaluation and its cgroup, as far as they are known.
    pub(super) fn target(&self, outcome: Placement) -> (Option<&Rule>, Option<Box<str>>) {
        let rule = self.last_decision.rule.and_then(|id| self.policy.matcher.rule(id));
        let Some(rule) = rule else { return (None, None) };
        let is_placed = match &rule.action {
            Action::Place(_) => outcome != Placement::Waiting,
            Action::Ignore(_) | Action::Inapplicable(_) | Action::Observe(_) => false,
        };
        (Some(rule), is_placed.then(|| self.placer.path().into()))
    }

    pub(super) fn remember(&mut self, evaluation: EvaluationRequest, at: Nanos) {
        let rule = self.last_decision.rule.and_then(|id| self.policy.matcher.rule(id));
        let rule = rule.map_or_else(|| Arc::from(""), |rule| Arc::clone(&rule.name));
        let failures = self.placer.take_failures();
        let Some(identity) = self.kernel.identity(evaluation.pid) else { return };
        for (failure, cgroup) in failures {
            let rule = Arc::clone(&rule);
            let pid = evaluation.pid;
            self.commands.memory.remember(FailureRecord {
                pid,
                identity,
                at,
                failure,
                rule,
                cgroup,
            });
        }
    }

    /// Records an event of a process for which no rule was found yet.
    pub(super) fn remember_failure(&mut self, pid: Pid, failure: PlacementFailure, at: Nanos) {
        let Some(identity) = self.kernel.identity(pid) else { return };
        let rule = Arc::from("");
        let cgroup = String::new();
        self.commands.memory.remember(FailureRecord { pid, identity, at, failure, rule, cgroup });
    }
}

/// Sends the result of a command.
fn send<T>(reply: &Sender<T>, result: T) {
    // There is room for it. This fails only if the client no longer waits.
    let _abandoned = reply.try_send(result);
}

fn entry(ago_ms: u64, outcome: &str, detail: &str) -> HistoryEntry {
    HistoryEntry {
        ago_ms,
        outcome: outcome.to_owned(),
        rule: String::new(),
        cgroup: String::new(),
        detail: detail.to_owned(),
    }
}
