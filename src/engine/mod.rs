//! The event loop body of the daemon: receives events, evaluates processes, applies rules. It must
//! not block on a disk, a name service or memory of a user.
//!
//! An event only triggers an evaluation. `Engine::evaluate` reads the current state of the process,
//! finds the first matching rule and lets the placer move the process into its cgroup. There is no
//! process table that could become stale.
//!
//! ```text
//! event socket ─► queue ─► evaluation ─► matcher ─► placer ─► cgroup.procs
//! fork socket ─► tracker ─► evaluation (children born before the evaluation of their creator took effect)
//! 100 ms later ─────► evaluation (recheck of the placement)
//! start, reload, loss ─► scan ─► evaluation (all processes)
//! ```
//!
//! [`Engine::turn`] does a bounded amount of work, so that signals and replies of other threads are
//! served in between. It returns when an evaluation needs an executable: reading one can block, so
//! the leading thread reads it while the engine is checked in (see [`crate::daemon`]), then continues
//! with [`Engine::supply`].
//!
//! All access to the machine, the clock included, goes through [`kernel::Kernel`].
//!
//! Three rules maintain the invariant: an event is completed only by an evaluation; a fork is
//! checked only after everything that was queued before it is completed (see
//! [`crate::tracking::fork_tracker`]); and the number of events that the kernel drops is known
//! exactly, and any loss causes a scan.

mod account;
mod ancestry;
mod classification;
mod commands;
mod completion;
mod decision_record;
mod evaluated_process;
mod evaluation;
mod executables;
pub(crate) mod external_moves;
#[cfg(test)]
mod fake_kernel;
#[cfg(test)]
mod faulty_kernel;
mod forks;
mod gate;
mod inheritance;
mod intake;
mod job;
pub mod kernel;
mod kernel_errors;
mod known;
mod name_lookups;
pub mod placer;
mod plan;
mod rechecks;
mod rescan;
mod rule_counts;
pub mod sticky;
mod threads;
mod turn;
pub mod user_managers;

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::config::daemon_toml::ExternalMoves;
use crate::control::history::recorder::HistoryRecorder;
use crate::engine::kernel::Kernel;
use crate::engine::placer::Placer;
use crate::engine::sticky::PinTable;
use crate::event::Nanos;
use crate::kernel::program::ReadRequest;
use crate::policy::{Policy, SettingsUpdate};
use crate::rules::RuleId;
use crate::telemetry::metrics::Metrics;
use crate::tracking::queue::EvaluationRequest;
use ancestry::AncestryTable;
use commands::PendingCommands;
use decision_record::LastDecision;
use evaluation::OpenEvaluation;
use executables::Executables;
use gate::GateMoves;
use intake::EventIntake;
use job::Evaluation;
use kernel_errors::KernelErrors;
use name_lookups::PendingName;
use plan::Planning;
use rechecks::Rechecks;
use rescan::{Rescan, Urgency};
use threads::OwnCredentials;
use turn::Progress;
pub use turn::TurnResult;

/// Configuration of the engine by the daemon.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Time from a placement to its recheck; `None` disables rechecks.
    pub recheck_ns: Option<u64>,
    /// Enables detection of external moves: by the trace, or by periodic scans if there is no
    /// trace.
    pub finds_external_moves: bool,
    /// From one of those scans to the next.
    pub move_scan_ns: u64,
    /// Reaction to external moves.
    pub external_moves: ExternalMoves,
    /// Logs moves instead of making them.
    pub is_dry_run: bool,
}

/// State of the daemon apart from its main loop.
pub struct Engine<K> {
    kernel: K,
    intake: EventIntake,
    errors: KernelErrors,
    policy: Box<Policy>,
    placer: Placer,
    metrics: Arc<Metrics>,
    options: EngineOptions,

    sticky: PinTable,
    ancestry: AncestryTable,
    /// Start of the last read of events.
    events_read_from: Nanos,
    rescan: Rescan,
    rechecks: Rechecks,
    /// Executions of files of active rules wait.
    is_gated: bool,
    gate: GateMoves,
    /// Evaluations that wait for a name.
    waiting: HashMap<PendingName, Vec<EvaluationRequest>, FixedState>,
    /// Evaluations that wait for an executable.
    executables: Executables,
    /// Evaluations that can continue, in order of arrival.
    answered: VecDeque<Evaluation>,
    own_credentials: OwnCredentials,
    commands: PendingCommands,
    planning: Planning,
    last_decision: LastDecision,
    /// Rules that observe and would have matched in the last evaluation. Kept for its capacity.
    observed: Vec<RuleId>,
    /// History of all evaluations, if it is enabled.
    history: Option<HistoryRecorder>,
    /// Time at which the current stage of evaluations began or resumed after a read. Its processes
    /// are opened later than this.
    stage_began: Nanos,
    /// Suspended turn, while an executable is read.
    progress: Option<Progress>,
    /// Evaluation suspended until its executable was read.
    open: Option<OpenEvaluation>,
    /// Further read that the same evaluation needs.
    also_needed: Option<ReadRequest>,
    /// Time of the next scan for external moves, where they are not traced.
    scan_for_moves: Option<Nanos>,
    /// Time before which nothing but events and forks is due; 0 if that is not known.
    quiet_until: Nanos,
}

impl<K: Kernel> Engine<K> {
    /// Creates an engine that begins with a scan of all processes.
    pub fn new(
        mut kernel: K,
        policy: Box<Policy>,
        metrics: Arc<Metrics>,
        options: EngineOptions,
    ) -> Self {
        metrics.reloads.increment();
        let mut placer =
            Placer::new(Arc::clone(&metrics), options.is_dry_run, options.external_moves);
        placer.adopt(&policy, &mut kernel);
        kernel.accept_gid_events(policy.needs_gid_events());
        let mut rescan = Rescan::default();
        rescan.want(Urgency::Now);
        let mut ancestry = AncestryTable::new(Arc::clone(&metrics));
        ancestry.activate(policy.ancestors.is_some());
        let mut engine = Self {
            intake: EventIntake::new(kernel.now(), Arc::clone(&metrics)),
            errors: KernelErrors::new(Arc::clone(&metrics)),
            sticky: PinTable::new(Arc::clone(&metrics)),
            ancestry,
            events_read_from: Nanos(0),
            kernel,
            policy,
            placer,
            metrics,
            options,
            rescan,
            rechecks: Rechecks::default(),
            is_gated: false,
            gate: GateMoves::default(),
            waiting: HashMap::default(),
            executables: Executables::default(),
            answered: VecDeque::new(),
            own_credentials: OwnCredentials::default(),
            commands: PendingCommands::default(),
            planning: Planning::default(),
            last_decision: LastDecision::default(),
            observed: Vec::new(),
            history: None,
            stage_began: Nanos(0),
            progress: None,
            open: None,
            also_needed: None,
            scan_for_moves: None,
            quiet_until: Nanos(0),
        };
        engine.close_gate();
        engine
    }

    /// Returns the access to the machine.
    pub fn kernel(&self) -> &K {
        &self.kernel
    }

    /// Returns the kernel, to change how it is accessed.
    pub fn kernel_mut(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// Returns the settings that take effect with the active policy, once.
    pub fn take_settings(&mut self) -> Option<SettingsUpdate> {
        self.policy.settings.take()
    }

    /// Replaces the configuration, except for the detection of external moves.
    pub fn configure(&mut self, options: EngineOptions) {
        let finds_external_moves = self.options.finds_external_moves;
        self.options = EngineOptions { finds_external_moves, ..options };
        self.placer.set_reaction(options.external_moves);
    }

    /// Handles the replies of other threads.
    pub fn take_answers(&mut self) {
        self.kernel.replies().into_iter().for_each(|answer| self.answer(answer));
        if self.kernel.take_overflown() {
            self.rescan.want(Urgency::Limited);
        }
    }

    /// Requests a reload of all files. The new policy arrives as a reply.
    pub fn reload(&mut self) {
        self.commands.reload_asked();
        self.kernel.reload();
    }

    /// Activates `policy` and schedules a scan of all processes.
    fn adopt(&mut self, mut policy: Box<Policy>) {
        self.abandon_running_plan();
        self.abandon_gated();
        // The daemon may not have taken those of the last policy yet.
        let earlier = self.policy.settings.take();
        policy.settings = SettingsUpdate::merge(earlier, policy.settings.take());
        let earlier = std::mem::replace(&mut self.policy, policy);
        // Before the scan, so that no change of a group is missed.
        self.kernel.accept_gid_events(self.policy.needs_gid_events());
        self.placer.adopt(&self.policy, &mut self.kernel);
        self.close_gate();
        self.ancestry.activate(self.policy.ancestors.is_some());
        self.kernel.retire(earlier);
        self.metrics.reloads.increment();
        self.metrics.refused_reloads.add(u64::from(self.policy.summary.kept > 0));
        // The scan also evaluates the processes that waited.
        self.waiting.clear();
        let examined = self.executables.forget();
        let answered = std::mem::take(&mut self.answered).into_iter();
        let answered = answered.map(|job| Evaluation::of_process(job.evaluation, job.identity));
        if self.ancestry.is_active() {
            // It does not know when they began to run their program: children of before would stay below the last one.
            let all = examined.chain(answered);
            self.answered.extend(all.filter(|job| job.evaluation.may_change_program()));
        }
        self.intake.forks.drop_pending();
        self.rescan.want(Urgency::Now);
    }

    /// Returns the number of nanoseconds to wait before the next [`Self::turn`], although events may
    /// be queued: to let them accumulate, or because a call failed.
    pub fn pause(&mut self, now: Nanos) -> u64 {
        self.errors.pause().map_or_else(|| self.intake.pause(now), |end| end.since(now))
    }

    /// Checks whether the last requested scan is complete, including the children of its processes.
    pub fn is_settled(&self) -> bool {
        self.rescan.is_complete(self.intake.forks.horizon())
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
