//! One evaluation: reads the state of a process, finds the matching rule, applies it. It must not
//! read an executable itself; reads are requests to the caller.

use super::Engine;
use super::ancestry::ChangeTimes;
use super::classification::EvaluationResult;
use super::job::{Evaluation, Queue};
use super::known::{Known, NeededRead};
use super::rechecks::attempts_before;
use super::rescan::Urgency;
use crate::engine::kernel::Kernel;
use crate::engine::placer::Placement;
use crate::event::{Cause, Nanos, Pid, Uid};
use crate::kernel::container::Containment;
use crate::kernel::errno::can_pass;
use crate::kernel::process::ProcessHandle;
use crate::kernel::program::{Arguments, ExeInfo, ExeRead, ReadRequest};
use crate::placement::{KnownExe, Purpose};
use crate::tracking::queue::{EvaluationRequest, Threads};

/// Maximum length of a kernel thread name, including the name of a workqueue.
pub(super) const THREAD_NAME: usize = 64;

/// Length of a path for which an evaluation has its usual cost. 1,000 patterns with `**` take 4 ms for the
/// longest path of 4 KiB, 64 times as much.
const USUAL_PATH: usize = 64;

/// Evaluation that waits for the read of its executable.
#[derive(Debug)]
pub(super) struct OpenEvaluation {
    job: Evaluation,
    handle: ProcessHandle,
    purpose: Purpose,
}

/// How the engine obtains what an evaluation needs.
enum Obtained {
    /// The caller reads it.
    Read(ReadRequest),
    /// Another thread reads it, and the evaluation waits.
    Later,
    /// Not at all.
    Never,
}

impl<K: Kernel> Engine<K> {
    /// Starts an evaluation. Returns the read that it needs; `None` when it is finished.
    pub(super) fn start(&mut self, mut job: Evaluation) -> Option<ReadRequest> {
        let evaluation = job.evaluation;
        if job.queue == Queue::Moves {
            // What else is in it is known to that queue alone.
            job.evaluation = evaluation.outside_batch();
        }
        let mut handle = self.kernel.open_process(evaluation.pid);
        if job.queue == Queue::Moves && handle.is_none() {
            handle = self.process_of_moved_thread(&mut job);
        }
        let Some(handle) = handle else {
            if job.queue == Queue::Moves {
                self.placer.moves().dismiss(evaluation);
            }
            self.metrics.evaluations.increment();
            self.is_gone(&job);
            return None;
        };
        let is_admitted = match job.queue {
            Queue::None => true,
            Queue::Batch => {
                self.intake.batch.admit(evaluation, self.policy.accountable(handle.uid))
            }
            Queue::Moves => {
                self.placer.moves().admit(evaluation, self.policy.accountable(handle.uid))
            }
        };
        if !is_admitted {
            self.metrics.deferred.increment();
            return None;
        }
        let mut job = self.of_present_process(job, &handle);
        if self.gate.holds(&mut job.evaluation) {
            self.finish(&job, Some(&handle), Placement::Waiting);
            return None;
        }
        if job.queue == Queue::Batch && evaluation.cause.contains(Cause::EXEC) {
            self.note_exec(evaluation);
        }
        self.metrics.evaluations.increment();
        let Some(handle) = self.live_view(&job, handle) else {
            self.is_gone(&job);
            return None;
        };
        self.proceed(job, handle, KnownExe::Unread, None)
    }

    /// Records that an exec is evaluated before evaluations for earlier changes of the process, which wait: what those
    /// will find began with this exec.
    fn note_exec(&mut self, evaluation: EvaluationRequest) {
        let EvaluationRequest { pid, executed, .. } = evaluation;
        self.executables.executed(pid, executed);
        let waiting = self.answered.iter_mut().map(|job| &mut job.evaluation);
        for earlier in waiting.filter(|earlier| earlier.pid == pid && earlier.may_change_program())
        {
            earlier.executed = earlier.executed.max(executed);
        }
    }

    /// Returns the time of the first change of a process that is not evaluated: that of this evaluation, or of an earlier
    /// one that waits for an examination, or did until a reload.
    pub(super) fn first_change(&self, evaluation: EvaluationRequest) -> Nanos {
        let EvaluationRequest { pid, since, .. } = evaluation;
        let waiting = self.answered.iter().map(|job| &job.evaluation);
        let waiting = waiting.filter(|other| other.pid == pid && other.may_change_program());
        let earlier = waiting.map(|other| other.since).chain(self.executables.changed_since(pid));
        earlier.fold(since, Nanos::min)
    }

    /// Finishes the evaluation of a process that has exited.
    fn is_gone(&mut self, job: &Evaluation) {
        self.note_departure(job);
        self.finish(job, None, Placement::Gone);
    }

    /// Records that a process has exited after changes: it may have run another program, or had another user, when it
    /// created its last children.
    pub(super) fn note_departure(&mut self, job: &Evaluation) {
        let EvaluationRequest { pid, since: first, .. } = job.evaluation;
        let changes = ChangeTimes { first, since: job.evaluation.program_since() };
        let now = self.kernel.now();
        let process = (pid, job.identity);
        if job.evaluation.may_change_program() && self.ancestry.gone(process, changes, now) {
            self.rescan.want(Urgency::Limited);
        }
    }

    /// The process of a thread that was moved alone, with the cgroup of that thread. `None` when
    /// the thread is gone, or is where its process is: then the move was one of an earlier process with this ID.
    fn process_of_moved_thread(&mut self, job: &mut Evaluation) -> Option<ProcessHandle> {
        let thread = job.evaluation.pid;
        let process = self.kernel.status(thread)?.process;
        let of_process = self.kernel.cgroup(process, None)?.to_vec();
        if self.kernel.cgroup(process, Some(thread))? == of_process {
            return None;
        }
        let handle = self.kernel.open_process(process)?;
        self.placer.moves().moved_by_thread(thread, process);
        job.evaluation.pid = process;
        Some(ProcessHandle { unified: None, thread: Some(thread), ..handle })
    }

    /// Returns the process as its leader shows it, or as a live thread does when the leader has
    /// exited. `None` when all threads have exited.
    fn live_view(&mut self, job: &Evaluation, handle: ProcessHandle) -> Option<ProcessHandle> {
        let pid = job.evaluation.pid;
        // Counted once: most processes have one thread, and need no further check.
        let is_single = may_be_frozen(job) && self.kernel.thread_count(pid) == 1;
        let is_frozen = may_be_frozen(job) && !is_single && self.kernel.has_leader_exited(pid);
        let handle = if is_frozen { self.kernel.stand_in(pid, handle)? } else { handle };
        self.note_threads(job.evaluation, &handle, is_single);
        Some(handle)
    }

    /// Continues the suspended evaluation with `read`. If more must be read, the next
    /// [`Self::turn`] requests it.
    pub fn supply(&mut self, read: &ExeRead) {
        let Some(OpenEvaluation { mut job, handle, .. }) = self.open.take() else {
            self.also_needed = self.supply_plan(read);
            return;
        };
        let pid = job.evaluation.pid;
        let mut name = [0; THREAD_NAME];
        let exe = match read.link() {
            Ok(_) => read.seen(self.kernel.comm(pid)).map(KnownExe::Read),
            // Only on this path, so that processes with an executable cost no further reads.
            Err(errno) => {
                if can_pass(errno) {
                    // Another rule may decide until then.
                    self.rechecks.retry(pid, self.kernel.now(), attempts_before(job.evaluation));
                }
                self.without_exe(&job, &handle, &mut name)
            }
        };
        let Some(exe) = exe else {
            job.is_careful = true;
            self.answered.push_front(job);
            return;
        };
        let length = exe.raw().map_or(0, <[u8]>::len);
        let further = u32::try_from(length / USUAL_PATH).unwrap_or(u32::MAX);
        self.intake.batch.charge(self.policy.accountable(handle.uid), further);
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
        if self.kernel.status(pid).is_some_and(|status| status.is_kernel_thread) {
            let comm = self.kernel.comm(pid).unwrap_or_default();
            let length = comm.len().min(THREAD_NAME);
            name[..length].copy_from_slice(&comm[..length]);
            return Some(KnownExe::Read(ExeInfo::kernel_thread(&name[..length])));
        }
        if !job.is_careful && self.kernel.has_leader_exited(pid) {
            return None;
        }
        // Zombies have no executable.
        if !self.kernel.has_exited(handle) {
            self.metrics.unreadable_executables.increment();
        }
        Some(KnownExe::Unavailable)
    }

    /// Continues the suspended evaluation without its executable, because the read blocks another
    /// thread.
    pub fn read_is_late(&mut self) {
        let Some(OpenEvaluation { job, handle, purpose }) = self.open.take() else {
            return self.plan_read_is_late();
        };
        self.metrics.blocked_reads.increment();
        let user = self.policy.accountable(handle.uid);
        self.executables.block(job.evaluation.pid, user, self.kernel.now());
        let request = match purpose {
            Purpose::Decision => {
                let job = Evaluation { is_final: true, ..job };
                self.proceed(job, handle, KnownExe::Unavailable, Some(Containment::Unknown))
            }
            Purpose::Record => {
                let job = Evaluation { skips_records: true, ..job };
                self.proceed(job, handle, KnownExe::Unread, None)
            }
        };
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
        // The result belongs to this process: replies for another process of the same PID are
        // discarded.
        let program = job.program.take();
        let is_of_root = match self.policy.ancestors {
            Some(_) => self.is_of_root(job.evaluation.pid),
            None => None,
        };
        let before = std::mem::replace(&mut job.was_of_root, is_of_root);
        // Otherwise descendants would get a program from it that it ran as another user.
        let is_current = before.is_none() || is_of_root.is_none() || before == is_of_root;
        let program = program.filter(|_| is_current);
        let mut exe = match &program {
            Some(program) => KnownExe::Read(program.seen()),
            None if is_current => exe,
            None => KnownExe::Unread,
        };
        let mut arguments =
            program.as_ref().map_or_else(Arguments::default, |own| own.arguments.clone());
        loop {
            // Other threads examine an executable at any time after the request.
            let read_from = if program.is_some() { Nanos(0) } else { self.stage_began };
            let known = Known { exe, arguments: &arguments, containment, read_from, is_of_root };
            let (needed, purpose) = match self.evaluate(&job, &handle, known) {
                EvaluationResult::Over(outcome) => {
                    self.finish(&job, Some(&handle), outcome);
                    return None;
                }
                EvaluationResult::Needs(needed, purpose) => (needed, purpose),
                EvaluationResult::OwnerKnown => continue,
            };
            match self.obtain(&job, &handle, &needed, purpose) {
                Obtained::Read(request) => {
                    job.program = program;
                    self.open = Some(OpenEvaluation { job, handle, purpose });
                    return Some(request);
                }
                Obtained::Later => {
                    self.finish(&job, Some(&handle), Placement::Waiting);
                    return None;
                }
                Obtained::Never if purpose == Purpose::Record => job.skips_records = true,
                Obtained::Never => match needed {
                    NeededRead::Exe => exe = KnownExe::Unavailable,
                    NeededRead::Namespaces => containment = Some(Containment::Unknown),
                    NeededRead::Arguments => arguments = Arguments::Unavailable,
                    NeededRead::Examination(_) => exe = exe.as_final(),
                },
            }
        }
    }

    /// Checks whether the real user of a process is root. `None` if it has exited.
    pub(super) fn is_of_root(&mut self, pid: Pid) -> Option<bool> {
        Some(self.kernel.status(pid)?.real == Uid(0))
    }

    /// Requests what an evaluation needs, if it may be read.
    fn obtain(
        &mut self,
        job: &Evaluation,
        handle: &ProcessHandle,
        needed: &NeededRead,
        purpose: Purpose,
    ) -> Obtained {
        let user = self.policy.accountable(handle.uid);
        let request = needed.link(job.evaluation.pid, handle);
        if let Some(request) = request.filter(|request| !(request.namespaces && job.is_final)) {
            if self.executables.may_be_read(user, &self.kernel) {
                return Obtained::Read(request);
            }
        }
        let is_examined = match needed {
            // A decision does not wait for what it does not need, while its user has slow executables.
            NeededRead::Exe => purpose == Purpose::Decision,
            NeededRead::Namespaces => false,
            NeededRead::Arguments | NeededRead::Examination(_) => true,
        };
        if is_examined && !job.is_final && self.examine(job, handle, needed, purpose) {
            return Obtained::Later;
        }
        Obtained::Never
    }
}

/// Checks whether the kernel may report stale data for a leader that has exited. An event of the
/// leader proves that it was alive then, and it is classified by its state at that time. That does not
/// hold for an evaluation that has waited since: another thread may have been evaluated meanwhile.
fn may_be_frozen(job: &Evaluation) -> bool {
    const ASKED: Cause = Cause::SCAN.or(Cause::ASKED).or(Cause::RECHECK).or(Cause::RETRY);
    const CAUSES: Cause = ASKED.or(Cause::ELSEWHERE);
    let has_waited = job.queue == Queue::None && !job.evaluation.cause.contains(Cause::MOVED);
    job.is_careful
        || has_waited
        || job.evaluation.threads != Threads::None
        || job.evaluation.cause.intersects(CAUSES)
}
