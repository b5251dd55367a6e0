//! One evaluation: reads the state of a process, finds the matching rule, applies it. It must not
//! read an executable itself; reads are requests to the caller.

use super::Engine;
use super::name_lookups::PendingName;
use crate::engine::placer::{PlacedProcess, Placement};
use crate::event::{Cause, Gid, Uid};
use crate::kernel::container::Containment;
use crate::kernel::process::{ProcFs, ProcessHandle};
use crate::kernel::program::{ExeInfo, ExeRead, Program, ReadRequest};
use crate::placement::{Choice, KnownExe, Missing, applies, decide};
use crate::policy::Policy;
use crate::policy::observer::{DecisionEvent, DecisionResult};
use crate::tracking::queue::{EvaluationRequest, Threads};

/// Maximum length of a kernel thread name, including the name of a workqueue.
const THREAD_NAME: usize = 64;

/// A queue in which the user of a process may have had its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    None,
    /// Of processes that changed.
    Batch,
    /// Of processes that others moved.
    Moves,
}

/// Evaluation to be done, with what is already known.
#[derive(Debug)]
pub(super) struct Evaluation {
    pub(super) evaluation: EvaluationRequest,
    /// Result of an examination, if one was made.
    program: Option<Program>,
    /// Decide by what is known, without further reads.
    is_final: bool,
    /// The process was decided without its executable before: children born since may be misplaced
    /// too.
    pub(super) is_late: bool,
    /// Queue in which the evaluation waited.
    queue: Queue,
    /// A client waits for the outcome.
    pub(super) is_asked: bool,
    /// The leader may have exited.
    is_careful: bool,
}

impl Evaluation {
    /// Of an evaluation that waits in no queue: if it did, it was completed there when it was begun.
    pub(super) const fn new(evaluation: EvaluationRequest) -> Self {
        Self {
            evaluation: evaluation.outside_batch(),
            program: None,
            is_final: false,
            is_late: false,
            queue: Queue::None,
            is_asked: false,
            is_careful: false,
        }
    }

    pub(super) fn of_batch(evaluation: EvaluationRequest) -> Self {
        Self { evaluation, queue: Queue::Batch, ..Self::new(evaluation) }
    }

    pub(super) fn moved(evaluation: EvaluationRequest) -> Self {
        Self { evaluation, queue: Queue::Moves, ..Self::new(evaluation) }
    }

    pub(super) fn asked(evaluation: EvaluationRequest) -> Self {
        Self { is_asked: true, ..Self::new(evaluation) }
    }

    /// Creates an evaluation that does not wait for the examination.
    pub(super) fn without_examination(evaluation: EvaluationRequest) -> Self {
        Self { is_final: true, ..Self::new(evaluation) }
    }

    /// Creates an evaluation with the result of its examination; `None` decides without it.
    pub(super) fn examined(
        evaluation: EvaluationRequest,
        program: Option<Program>,
        is_late: bool,
    ) -> Self {
        Self { is_final: program.is_none(), program, is_late, ..Self::new(evaluation) }
    }

    /// Creates a repeated evaluation, because the executable may be readable now.
    pub(super) fn late(evaluation: EvaluationRequest) -> Self {
        Self { is_late: true, ..Self::new(evaluation) }
    }
}

/// Evaluation that waits for the read of its executable.
#[derive(Debug)]
pub(super) struct OpenEvaluation {
    job: Evaluation,
    handle: ProcessHandle,
}

/// Result of an evaluation: its outcome, or a further read that it needs.
enum EvaluationResult {
    Over(Placement),
    /// The executable must be read first.
    NeedsExe,
    /// The namespaces must be read first.
    NeedsNamespaces,
    /// This executable must be examined first.
    NeedsExamination(Box<[u8]>),
    /// Another user mattered, who is known now: it is evaluated again.
    OwnerKnown,
}

impl Engine {
    /// Starts an evaluation. Returns the read that it needs; `None` when it is finished.
    pub(super) fn start(&mut self, mut job: Evaluation) -> Option<ReadRequest> {
        let evaluation = job.evaluation;
        if job.queue == Queue::Moves {
            // What else is in it is known to that queue alone.
            job.evaluation = evaluation.outside_batch();
        }
        let mut handle = self.proc.open_process(evaluation.pid);
        if job.queue == Queue::Moves && handle.is_none() {
            handle = self.process_of_moved_thread(&mut job);
        }
        let Some(handle) = handle else {
            if job.queue == Queue::Moves {
                self.placer.moves().dismiss(evaluation);
            }
            self.metrics.evaluations.increment();
            self.finish(&job, None, Placement::Gone);
            return None;
        };
        let is_admitted = match job.queue {
            Queue::None => true,
            Queue::Batch => self.intake.batch.admit(evaluation, handle.uid),
            Queue::Moves => {
                self.placer.moves().admit(evaluation, self.policy.accountable(handle.uid))
            }
        };
        if !is_admitted {
            self.metrics.deferred.increment();
            return None;
        }
        self.metrics.evaluations.increment();
        let Some(handle) = self.live_view(&job, handle) else {
            self.finish(&job, None, Placement::Gone);
            return None;
        };
        self.proceed(job, handle, KnownExe::Unread, None)
    }

    /// The process of a thread that was moved alone, with the cgroup of that thread. `None` when
    /// the thread is gone.
    fn process_of_moved_thread(&mut self, job: &mut Evaluation) -> Option<ProcessHandle> {
        let thread = job.evaluation.pid;
        let process = self.proc.owner(thread)?.process;
        let handle = self.proc.open_process(process)?;
        self.placer.moves().moved_by_thread(thread, process);
        job.evaluation.pid = process;
        Some(ProcessHandle { unified: None, thread: Some(thread), ..handle })
    }

    /// Returns the process as its leader shows it, or as a live thread does when the leader has
    /// exited. `None` when all threads have exited.
    fn live_view(&mut self, job: &Evaluation, handle: ProcessHandle) -> Option<ProcessHandle> {
        let pid = job.evaluation.pid;
        // Counted once: most processes have one thread, and need no further check.
        let is_single = may_be_frozen(job) && self.proc.thread_count(pid) == 1;
        let is_frozen = may_be_frozen(job) && !is_single && self.proc.has_leader_exited(pid);
        let handle = if is_frozen { self.proc.stand_in(pid, handle)? } else { handle };
        self.note_threads(job.evaluation, &handle, is_single);
        Some(handle)
    }

    /// Continues the suspended evaluation with `read`. If more must be read, the next
    /// [`Self::turn`] requests it.
    pub fn supply(&mut self, read: &ExeRead) {
        let Some(OpenEvaluation { mut job, handle }) = self.open.take() else { return };
        let pid = job.evaluation.pid;
        let mut name = [0; THREAD_NAME];
        let exe = match read.link() {
            Ok(_) => read.seen(self.proc.comm(pid)).map(KnownExe::Read),
            // Only on this path, so that processes with an executable cost no further reads.
            Err(_) => self.without_exe(&job, &handle, &mut name),
        };
        let Some(exe) = exe else {
            job.is_careful = true;
            self.answered.push_front(job);
            return;
        };
        self.also_needed = self.proceed(job, handle, exe, read.containment());
    }

    /// Returns what is known of a process after its link could not be read. `None` when a live
    /// thread must be read instead.
    fn without_exe<'n>(
        &mut self,
        job: &Evaluation,
        handle: &ProcessHandle,
        name: &'n mut [u8; THREAD_NAME],
    ) -> Option<KnownExe<'n>> {
        let pid = job.evaluation.pid;
        if self.proc.is_kernel_thread(pid) {
            let comm = self.proc.comm(pid).unwrap_or_default();
            let length = comm.len().min(THREAD_NAME);
            name[..length].copy_from_slice(&comm[..length]);
            return Some(KnownExe::Read(ExeInfo::kernel_thread(&name[..length])));
        }
        if !job.is_careful && self.proc.has_leader_exited(pid) {
            return None;
        }
        // Zombies have no executable.
        if !handle.has_exited() {
            self.metrics.unreadable_executables.increment();
        }
        Some(KnownExe::Unavailable)
    }

    /// Continues the suspended evaluation without its executable, because the read blocks another
    /// thread.
    pub fn read_is_late(&mut self) {
        let Some(OpenEvaluation { job, handle }) = self.open.take() else { return };
        self.metrics.blocked_reads.increment();
        let user = self.policy.accountable(handle.uid);
        self.executables.block(job.evaluation.pid, user);
        let unknown = Some(Containment::Unknown);
        let request = self.proceed(
            Evaluation { is_final: true, ..job },
            handle,
            KnownExe::Unavailable,
            unknown,
        );
        debug_assert!(request.is_none());
    }

    /// Evaluates a process as far as possible without reading its executable.
    fn proceed(
        &mut self,
        mut job: Evaluation,
        handle: ProcessHandle,
        exe: KnownExe<'_>,
        mut containment: Option<Containment>,
    ) -> Option<ReadRequest> {
        let pid = job.evaluation.pid;
        // The result belongs to this process: replies for another process of the same PID are
        // discarded.
        let program = job.program.take();
        let mut exe = program.as_ref().map_or(exe, |program| KnownExe::Read(program.seen()));
        loop {
            match self.evaluate(job.evaluation, &handle, exe, containment) {
                EvaluationResult::Over(outcome) => {
                    self.finish(&job, Some(&handle), outcome);
                    return None;
                }
                EvaluationResult::NeedsExe => {
                    let user = self.policy.accountable(handle.uid);
                    if self.executables.may_be_read(user) {
                        let request = ReadRequest { pid, thread: handle.thread, namespaces: false };
                        self.open = Some(OpenEvaluation { job, handle });
                        return Some(request);
                    }
                    if !job.is_final && self.examine(&job, &handle, None) {
                        self.finish(&job, Some(&handle), Placement::Waiting);
                        return None;
                    }
                    exe = KnownExe::Unavailable;
                }
                EvaluationResult::NeedsNamespaces => {
                    let user = self.policy.accountable(handle.uid);
                    if !job.is_final && self.executables.may_be_read(user) {
                        let request = ReadRequest { pid, thread: handle.thread, namespaces: true };
                        job.program = program;
                        self.open = Some(OpenEvaluation { job, handle });
                        return Some(request);
                    }
                    containment = Some(Containment::Unknown);
                }
                EvaluationResult::OwnerKnown => {}
                EvaluationResult::NeedsExamination(raw) => {
                    if !job.is_final && self.examine(&job, &handle, Some(raw)) {
                        self.finish(&job, Some(&handle), Placement::Waiting);
                        return None;
                    }
                    exe = exe.as_final();
                }
            }
        }
    }

    fn evaluate(
        &mut self,
        evaluation: EvaluationRequest,
        handle: &ProcessHandle,
        exe: KnownExe<'_>,
        containment: Option<Containment>,
    ) -> EvaluationResult {
        let &ProcessHandle { uid, gid, thread, .. } = handle;
        let ids = (uid, gid);
        self.last_decision.uid = Some(uid);
        if self.is_pinned(evaluation, handle) {
            observe(&self.policy, &mut self.proc, (evaluation, ids), None, DecisionResult::Sticky);
            return EvaluationResult::Over(Placement::Sticky);
        }
        if matches!(exe, KnownExe::Unread) && self.shows_exe() {
            return EvaluationResult::NeedsExe;
        }
        self.note_exe(exe);
        if !self.policy.knows(uid) {
            return EvaluationResult::Over(self.wait(PendingName::User(uid), evaluation));
        }
        let Some(user) = self.policy.users.get(&uid) else {
            return EvaluationResult::Over(Placement::NoRule);
        };
        if user.take_stale(evaluation.since) {
            self.worker.identify(&self.policy, uid);
        }
        let program = exe.seen().map(ExeInfo::name);
        let proc = &mut self.proc;
        let decided = decide(&self.policy.matcher, user, ids, exe, |rule| {
            applies(rule, proc, evaluation.pid, thread)
        });
        let rule = match decided {
            Choice::Rule(rule) => rule,
            Choice::NoRule => {
                let result = DecisionResult::NoRule;
                observe(&self.policy, &mut self.proc, (evaluation, ids), program, result);
                return EvaluationResult::Over(Placement::NoRule);
            }
            Choice::NeedsExe => return EvaluationResult::NeedsExe,
            Choice::NeedsExamination => {
                let raw = exe.seen().map_or_else(Box::default, |seen| Box::from(seen.raw));
                return EvaluationResult::NeedsExamination(raw);
            }
        };
        self.last_decision.rule = Some(rule);
        if self.policy.lacks_group(rule, gid) {
            return EvaluationResult::Over(self.wait(PendingName::Group(gid), evaluation));
        }
        let user = user.identity.name.as_deref();
        let subject = PlacedProcess { evaluation, handle, user, exe, containment };
        let outcome = match self.placer.apply(&self.policy, &mut self.proc, rule, &subject) {
            Ok(outcome) => outcome,
            Err(Missing::Exe) => return EvaluationResult::NeedsExe,
            Err(Missing::Namespaces) => return EvaluationResult::NeedsNamespaces,
            Err(Missing::Owner(owner)) if self.policy.knows(owner) => {
                return EvaluationResult::OwnerKnown;
            }
            Err(Missing::Owner(owner)) => {
                return EvaluationResult::Over(self.wait(PendingName::User(owner), evaluation));
            }
        };
        if let Some(ending) = outcome.ending(rule, self.placer.last_error()) {
            observe(&self.policy, &mut self.proc, (evaluation, ids), program, ending);
        }
        EvaluationResult::Over(outcome)
    }

    /// Checks whether the process is pinned to its cgroup, and ends the pin if an external move
    /// breaks it.
    fn is_pinned(&mut self, evaluation: EvaluationRequest, handle: &ProcessHandle) -> bool {
        let Some(pin) = self.sticky.pin(evaluation.pid, &mut self.proc) else { return false };
        let is_moved = evaluation.cause.contains(Cause::MOVED);
        if is_moved
            && self.placer.breaks_pin(&self.policy, &mut self.proc, (evaluation, handle), pin)
        {
            self.sticky.unpin(evaluation.pid);
            self.metrics.broken_pins.increment();
            return false;
        }
        true
    }

    /// Checks whether executables are read for output, even if no rule needs them.
    fn shows_exe(&self) -> bool {
        self.is_watched() || self.policy.observer.as_ref().is_some_and(|one| one.shows_program())
    }
}

/// Checks whether the kernel may report stale data for a leader that has exited. An event of the
/// leader proves that it was alive then, and it is classified by its state at that time.
fn may_be_frozen(job: &Evaluation) -> bool {
    const ASKED: Cause = Cause::SCAN.or(Cause::ASKED).or(Cause::RECHECK).or(Cause::RETRY);
    const CAUSES: Cause = ASKED.or(Cause::ELSEWHERE);
    job.is_careful
        || job.evaluation.threads != Threads::None
        || job.evaluation.cause.intersects(CAUSES)
}

/// Reports the result of an evaluation to the observer of the active policy, if it has one.
fn observe(
    policy: &Policy,
    proc: &mut ProcFs,
    (evaluation, ids): (EvaluationRequest, (Uid, Gid)),
    program: Option<&[u8]>,
    ending: DecisionResult,
) {
    if let Some(observer) = &policy.observer {
        observer.tell(&DecisionEvent { evaluation, ids, program, ending }, proc);
    }
}
