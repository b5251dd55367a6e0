//! Plans: what a reload would change for each process. Must not change anything, nor delay evaluations.
//!
//! The rule thread builds the policy as for a reload ([`crate::policy::planned`]). Here each process is
//! evaluated by it and by the active one, with the functions of an evaluation and a placer that records moves
//! instead of making them. A plan takes 17 us of CPU time for each process (measured with 89 processes and
//! one rule), so that it is computed in parts, like reports.
//!
//! What must be read, examined or looked up is requested as in an evaluation. A process about which that is not
//! known after [`PATIENCE_NS`] is reported as unknown.

mod decision;
mod processes;

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::Engine;
use super::ancestry::AncestryTable;
use super::name_lookups::PendingName;
use crate::cgroup::config::GroupConfigs;
use crate::control::plan::{Plan, PlanReply, PlannedProcess};
use crate::engine::kernel::Kernel;
use crate::engine::placer::Placer;
use crate::event::{Nanos, Pid};
use crate::kernel::process::ProcessHandle;
use crate::kernel::program::{Examined, Program, ReadRequest};
use crate::policy::Policy;
use crate::policy::planned::{PlanRequest, PlanSources, PlannedPolicy};

/// Time for the plan at once, and from one such part to the next: a sixth of the thread.
pub(super) const PART_NS: u64 = 200_000;
const PART_INTERVAL_NS: u64 = 1_200_000;
/// Time after the last request for what is still to be known. A name service that takes longer hangs.
pub(super) const PATIENCE_NS: u64 = 5_000_000_000;

/// The requested plan.
#[derive(Default)]
pub(super) struct Planning {
    /// Number of the last request.
    number: u64,
    state: PlanState,
}

#[derive(Default)]
enum PlanState {
    #[default]
    Idle,
    /// The rule thread builds the policy.
    Loading(Sender<PlanReply>),
    Running(Box<PlanRun>),
}

/// A set of rules by which a plan decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Active,
    Planned,
}

/// What is done with each process. Ancestors come first: what they run decides about their descendants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Ancestors,
    Decisions,
}

/// A process of a plan.
#[derive(Debug)]
struct PlanItem {
    pid: Pid,
    /// Result of an examination, with the identity of the process.
    program: Option<(Option<u64>, Program)>,
    /// Decide by what is known, as after an examination that failed.
    is_final: bool,
    /// What is not known of it in time.
    unknown: Option<&'static str>,
}

/// What a process of a plan waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Name(PendingName),
    Examination(u64),
}

/// A plan that is being computed.
struct PlanRun {
    reply: Sender<PlanReply>,
    policy: Box<Policy>,
    /// The rest of what the rule thread found.
    found: PlannedPolicy,
    /// The active settings of cgroups.
    configs: Arc<GroupConfigs>,
    /// The placer of each [`Side`].
    placers: [Placer; 2],
    ancestry: AncestryTable,
    pass: Pass,
    all: Vec<Pid>,
    /// Processes that were not taken yet, oldest last, as in a scan.
    left: Vec<Pid>,
    waiting: Vec<(Awaited, Option<u64>, PlanItem)>,
    /// Processes for which what they waited for has arrived.
    ready: VecDeque<PlanItem>,
    /// Process whose executable is being read.
    open: Option<(PlanItem, ProcessHandle)>,
    processes: Vec<PlannedProcess>,
    examined: usize,
    /// Time of the next part, and what was used of the present one.
    due: Nanos,
    used: u64,
    /// Time after which nothing is waited for any more.
    deadline: Nanos,
}

impl PlanItem {
    const fn new(pid: Pid) -> Self {
        Self { pid, program: None, is_final: false, unknown: None }
    }
}

impl PlanRun {
    /// Returns the next process.
    fn next(&mut self, now: Nanos) -> Option<PlanItem> {
        if let Some(ready) = self.ready.pop_front() {
            return Some(ready);
        }
        if let Some(pid) = self.left.pop() {
            return Some(PlanItem::new(pid));
        }
        if !self.waiting.is_empty() && now >= self.deadline {
            let late = self.waiting.drain(..).map(|(awaited, _, item)| {
                let unknown = Some(awaited.reason());
                PlanItem { unknown, ..item }
            });
            self.ready.extend(late);
            return self.ready.pop_front();
        }
        if self.pass == Pass::Ancestors && self.waiting.is_empty() {
            self.pass = Pass::Decisions;
            self.left.clone_from(&self.all);
            return self.left.pop().map(PlanItem::new);
        }
        None
    }

    fn is_over(&self) -> bool {
        self.pass == Pass::Decisions
            && self.left.is_empty()
            && self.waiting.is_empty()
            && self.ready.is_empty()
            && self.open.is_none()
    }

    /// Returns when the next part is due.
    fn due(&self) -> Nanos {
        let has_work = !self.left.is_empty() || !self.ready.is_empty() || self.waiting.is_empty();
        if has_work { self.due } else { self.deadline }
    }

    fn wait(&mut self, awaited: Awaited, identity: Option<u64>, item: PlanItem, now: Nanos) {
        self.deadline = now.plus(PATIENCE_NS);
        self.waiting.push((awaited, identity, item));
    }

    /// Continues the processes that wait for this.
    fn resume(&mut self, arrived: Awaited, program: Option<&Program>, is_final: bool) {
        for (awaited, identity, item) in std::mem::take(&mut self.waiting) {
            if awaited == arrived {
                let program = program.map(|program| (identity, program.clone())).or(item.program);
                self.ready.push_back(PlanItem { program, is_final, ..item });
            } else {
                self.waiting.push((awaited, identity, item));
            }
        }
    }
}

impl Awaited {
    const fn reason(self) -> &'static str {
        match self {
            Self::Name(_) => "the name service has not answered",
            Self::Examination(_) => "its executable was not examined in time",
        }
    }
}

impl<K: Kernel> Engine<K> {
    /// Requests the policy of a plan for a client. An earlier plan is abandoned.
    pub fn plan(&mut self, sources: PlanSources, reply: Sender<PlanReply>) {
        self.abandon_plan();
        self.planning.number += 1;
        let number = self.planning.number;
        self.planning.state = PlanState::Loading(reply);
        self.kernel.plan(PlanRequest { number, sources });
    }

    /// Ends a plan that is being computed, because other rules become active.
    pub(super) fn abandon_running_plan(&mut self) {
        // A policy that is still to be built is compared with those.
        if matches!(self.planning.state, PlanState::Running(_)) {
            self.abandon_plan();
        }
    }

    fn abandon_plan(&mut self) {
        match std::mem::take(&mut self.planning.state) {
            PlanState::Idle => {}
            PlanState::Loading(reply) => answer(&reply, PlanReply::Superseded),
            PlanState::Running(run) => {
                answer(&run.reply, PlanReply::Superseded);
                self.kernel.retire(run.policy);
            }
        }
    }

    /// Returns when the next part of the plan is due.
    pub(super) fn plan_due(&self) -> Option<Nanos> {
        match &self.planning.state {
            PlanState::Idle | PlanState::Loading(_) => None,
            PlanState::Running(run) => Some(run.due()),
        }
    }

    /// Handles the policy of a plan: lists the processes.
    pub(super) fn take_planned(&mut self, mut found: PlannedPolicy) {
        let policy = found.policy.take();
        let is_wanted = found.number == self.planning.number;
        let PlanState::Loading(reply) = &self.planning.state else {
            return policy.into_iter().for_each(|policy| self.kernel.retire(policy));
        };
        if !is_wanted {
            return policy.into_iter().for_each(|policy| self.kernel.retire(policy));
        }
        let reply = reply.clone();
        self.planning.state = PlanState::Idle;
        let Some(policy) = policy else {
            return answer(&reply, PlanReply::Errors(found.diagnostics));
        };
        let mut all = Vec::new();
        if let Err(error) = self.kernel.processes(|pid| all.push(pid)) {
            ::log::warn!("plan: cannot list the processes: {error}");
            self.kernel.retire(policy);
            return answer(&reply, PlanReply::NoProcesses);
        }
        // As a scan: parents come before their children.
        all.reverse();
        let tests_ancestors = policy.ancestors.is_some();
        let now = self.kernel.now();
        self.planning.state = PlanState::Running(Box::new(PlanRun {
            reply,
            found,
            configs: Arc::clone(&self.policy.configs),
            placers: [self.placer.foreseeing(), self.placer.foreseeing()],
            ancestry: self.ancestry.planned(tests_ancestors),
            pass: if tests_ancestors { Pass::Ancestors } else { Pass::Decisions },
            left: all.clone(),
            all,
            policy,
            waiting: Vec::new(),
            ready: VecDeque::new(),
            open: None,
            processes: Vec::new(),
            examined: 0,
            due: now,
            used: 0,
            deadline: now.plus(PATIENCE_NS),
        }));
    }

    /// Computes a part of the plan if that is due. Returns the read that it needs.
    pub(super) fn plan_some(&mut self) -> Option<ReadRequest> {
        let PlanState::Running(run) = &self.planning.state else { return None };
        let began = self.kernel.now();
        if run.used == 0 && began < run.due() {
            return None;
        }
        let mut run = self.take_run()?;
        let mut request = None;
        let mut now = began;
        while request.is_none() && run.used + now.since(began) < PART_NS {
            let Some(item) = run.next(now) else { break };
            request = self.plan_process(&mut run, item);
            now = self.kernel.now();
        }
        if request.is_some() {
            // The part continues after the read.
            run.used += now.since(began).max(1);
        } else {
            (run.used, run.due) = (0, began.plus(PART_INTERVAL_NS));
        }
        self.keep_run(run);
        request
    }

    fn take_run(&mut self) -> Option<Box<PlanRun>> {
        match std::mem::take(&mut self.planning.state) {
            PlanState::Running(run) => Some(run),
            other @ (PlanState::Idle | PlanState::Loading(_)) => {
                self.planning.state = other;
                None
            }
        }
    }

    /// Continues the plan later, or sends it if it is complete.
    fn keep_run(&mut self, run: Box<PlanRun>) {
        if !run.is_over() {
            self.planning.state = PlanState::Running(run);
            return;
        }
        let PlanRun { reply, policy, found, configs, processes, examined, .. } = *run;
        let plan = Plan {
            diagnostics: found.diagnostics,
            settings: found.settings,
            summary: policy.summary.clone(),
            configs: [configs, Arc::clone(&policy.configs)],
            examined,
            processes,
        };
        answer(&reply, PlanReply::Plan(Box::new(plan)));
        self.kernel.retire(policy);
    }

    /// Returns the policy of the plan if it has this generation.
    pub(super) fn plan_for(&mut self, generation: u64) -> Option<&mut Policy> {
        match &mut self.planning.state {
            PlanState::Running(run) if run.policy.generation == generation => Some(&mut run.policy),
            PlanState::Idle | PlanState::Loading(_) | PlanState::Running(_) => None,
        }
    }

    /// Continues the processes of the plan that wait for this name.
    pub(super) fn resume_plan(&mut self, name: PendingName) {
        if let PlanState::Running(run) = &mut self.planning.state {
            run.resume(Awaited::Name(name), None, false);
        }
    }

    /// Handles the result of an examination for the plan.
    pub(super) fn take_planned_examination(&mut self, number: u64, examined: Examined) {
        let PlanState::Running(run) = &mut self.planning.state else { return };
        let arrived = Awaited::Examination(number);
        match examined {
            Examined::Program(program) => run.resume(arrived, Some(&program), false),
            Examined::Changed => run.resume(arrived, None, false),
            Examined::Gone | Examined::Unreadable => run.resume(arrived, None, true),
        }
    }
}

/// Sends the reply to the client.
fn answer(reply: &Sender<PlanReply>, result: PlanReply) {
    // There is room for it. This fails only if the client no longer waits.
    let _abandoned = reply.try_send(result);
}
