//! Leadership of the daemon: one thread leads, and another takes over when a read blocks it.
//!
//! Reading an executable can wait for a lock that a user controls (see [`crate::kernel::program`]). Passing
//! every such read to another thread would cost two context switches. Instead the leading thread
//! reads it itself, but checks the whole state of the daemon in before the read and out after it:
//! two uncontended locks of a mutex, 50 ns. When a read has blocked for [`LATE_NS`], a watcher
//! takes the state, leads from then on, and decides without that executable. The result of the
//! blocked read arrives later, as a reply.
//!
//! The watcher costs nothing while no executable is read: the leader arms its timer with the first
//! read, at most once in 15 ms, and postpones it while reads return: waking the watcher every 20 ms
//! took 2.5 % of the CPU time of 450 execs a second. Arming it for every event would cost 5 us of the
//! 120 us of a placement, because a virtual machine exits to the hypervisor for it (measured).
//!
//! A leader that works for [`STUCK_NS`] without waiting for events is reported, with the call that
//! took longest: by the thread that waits for the end, once a second, or by the leader itself when
//! it continues.

use std::io;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::event::{Nanos, Pid};
use crate::kernel::program::{ExeRead, ReadRequest};
use crate::sys;

/// Time after which a blocked read is left to its thread.
pub(super) const LATE_NS: u64 = 5_000_000;
/// Time without waiting for events after which a leader is reported.
pub(super) const STUCK_NS: u64 = 100_000_000;
/// Delay of the watcher's first check after the first read.
const FIRST_LOOK_NS: u64 = 20_000_000;
/// Time after which the leader postpones the check instead of waking the watcher while nothing blocks.
const POSTPONED_NS: u64 = 15_000_000;
/// Minimum time between two reports of a stall.
const REPORT_NS: u64 = 10_000_000_000;

/// Current call of the leader, for the report of a stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Call {
    /// Calls that cannot take long.
    Other,
    /// Write of a PID to `cgroup.procs`.
    Attach,
    /// Opening or creating a cgroup.
    Open,
    /// Read of the link `/proc/PID/exe`.
    Read,
}

impl Call {
    const ALL: [Self; 4] = [Self::Other, Self::Attach, Self::Open, Self::Read];

    const fn name(self) -> &'static str {
        match self {
            Self::Other => "evaluating processes",
            Self::Attach => "writing to cgroup.procs",
            Self::Open => "opening or creating a cgroup",
            Self::Read => "reading /proc/PID/exe",
        }
    }
}

/// Current activity of the leader, readable by other threads.
#[derive(Debug)]
pub(super) struct Activity {
    timer: TimerFd,
    /// Set while the timer is running.
    is_armed: AtomicBool,
    /// Time at which the timer was set for the first check.
    armed_at: AtomicU64,
    /// Time since when it works without waiting for events; 0 while it waits.
    busy_since: AtomicU64,
    call_began: AtomicU64,
    /// Time of the last report of a stall; 0 for never.
    reported: AtomicU64,
    /// Time since when it reads an executable; 0 while it does not.
    reading_since: AtomicU64,
    call: AtomicU32,
    pid: AtomicU32,
    /// ID of the leading thread.
    thread: AtomicU32,
}

impl Activity {
    /// Creates the activity of a leader that has not started.
    ///
    /// # Errors
    /// As timerfd_create(2).
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?,
            is_armed: AtomicBool::new(false),
            armed_at: AtomicU64::new(0),
            busy_since: AtomicU64::new(0),
            call_began: AtomicU64::new(0),
            reported: AtomicU64::new(0),
            reading_since: AtomicU64::new(0),
            call: AtomicU32::new(0),
            pid: AtomicU32::new(0),
            thread: AtomicU32::new(0),
        })
    }

    /// Records that the leader begins to work.
    pub(super) fn works(&self, now: Nanos) {
        self.busy_since.store(now.0, Relaxed);
    }

    /// Records that the leader waits for events, and reports a stall that ends now.
    pub(super) fn waits(&self, now: Nanos) {
        self.report_if_stuck(now);
        self.busy_since.store(0, Relaxed);
        self.call.store(Call::Other as u32, Relaxed);
    }

    /// Records that the leader begins to read an executable.
    fn reads(&self, pid: Pid) {
        let now = sys::monotonic();
        self.begins_at(Call::Read, pid, now);
        self.reading_since.store(now.0, SeqCst);
        self.ensure_armed(now);
    }

    /// Arms the timer unless it is running and has time left.
    fn ensure_armed(&self, now: Nanos) {
        // The state for the watcher was stored before: either the watcher reads it, or the swap shows that
        // the watcher disarmed the timer.
        let was_armed = self.is_armed.swap(true, SeqCst);
        if !was_armed || now.since(Nanos(self.armed_at.load(Relaxed))) > POSTPONED_NS {
            self.armed_at.store(now.0, Relaxed);
            self.arm(FIRST_LOOK_NS);
        }
    }

    /// Disarms the timer, if there is nothing to watch.
    fn disarm(&self) {
        self.is_armed.store(false, SeqCst);
        if self.reading_since.load(SeqCst) != 0 {
            self.ensure_armed(sys::monotonic());
        }
    }

    /// Records that the leader begins this call for this process. Returns the time.
    pub(super) fn begins(&self, call: Call, pid: Pid) -> Nanos {
        let now = sys::monotonic();
        self.begins_at(call, pid, now);
        now
    }

    fn begins_at(&self, call: Call, pid: Pid, now: Nanos) {
        self.pid.store(pid.get(), Relaxed);
        self.call.store(call as u32, Relaxed);
        self.call_began.store(now.0, Relaxed);
    }

    /// Records that the call has ended. A call that took long is kept for the report.
    pub(super) fn ends(&self) {
        let began = Nanos(self.call_began.load(Relaxed));
        if sys::monotonic().since(began) < STUCK_NS / 2 {
            self.call.store(Call::Other as u32, Relaxed);
        }
    }

    fn arm(&self, nanoseconds: u64) {
        let expiration = Expiration::OneShot(Duration::from_nanos(nanoseconds).into());
        if let Err(errno) = self.timer.set(expiration, TimerSetTimeFlags::empty()) {
            ::log::error!("cannot set the timer of the watcher thread: {}", errno.desc());
        }
    }

    fn report_if_stuck(&self, now: Nanos) {
        let busy = self.busy_since.load(Relaxed);
        let reported = Nanos(self.reported.load(Relaxed));
        let is_stuck = busy != 0 && now.since(Nanos(busy)) >= STUCK_NS;
        if !is_stuck || reported.0 != 0 && now.since(reported) < REPORT_NS {
            return;
        }
        self.reported.store(now.0, Relaxed);
        let call = Call::ALL[self.call.load(Relaxed) as usize % Call::ALL.len()].name();
        let pid = self.pid.load(Relaxed);
        let milliseconds = now.since(Nanos(busy)) / 1_000_000;
        // A slow machine needs that long for a scan; a second indicates a problem.
        let level = if milliseconds < 1000 { ::log::Level::Info } else { ::log::Level::Warn };
        ::log::log!(level, "no events handled for {milliseconds} ms: {call}, process {pid}");
    }

    /// Checks whether the leader waits in the kernel, and not only for a CPU.
    fn is_blocked(&self) -> bool {
        let thread = self.thread.load(Relaxed);
        let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status"));
        status.is_ok_and(|text| !text.lines().any(|line| line.starts_with("State:\tR")))
    }
}

/// Next step of a leader.
pub(super) enum Next<E> {
    /// Read this executable and [`Duty::supply`] it.
    Read(ReadRequest),
    /// Stop leading and return this result.
    End(E),
}

/// State that passes from one leader to the next.
pub(super) trait Duty: Send + 'static {
    /// Result of the whole run.
    type End: Send + 'static;

    /// Begins on the calling thread, which leads from now on.
    fn begin(&mut self) {}

    /// Works until an executable must be read, or until the end.
    fn work(&mut self) -> Next<Self::End>;

    /// Continues with the executable that was read.
    fn supply(&mut self, read: &ExeRead);

    /// Continues without the executable, because the read blocks.
    fn read_is_late(&mut self);
}

/// Callback that reads an executable and may block.
pub(super) type ReadExecutable = dyn Fn(ReadRequest, &mut ExeRead) + Send + Sync;

/// Callback for a late read that has completed.
pub(super) type OnLateRead = dyn Fn(ReadRequest) + Send + Sync;

struct LeaderState<D: Duty> {
    /// State of the daemon, while the leader reads.
    slot: Mutex<Option<Box<D>>>,
    activity: Arc<Activity>,
    read: Box<ReadExecutable>,
    take_late: Box<OnLateRead>,
    /// Set if the last watcher leads and no new one could be started: the blocked leader will
    /// watch.
    lacks_watcher: AtomicBool,
    /// Whether watchers have real-time scheduling: they must notice a blocked leader on a busy machine too.
    is_realtime: bool,
    end: SyncSender<D::End>,
}

/// Leads `duty` on threads of its own and returns its result.
///
/// # Errors
/// A thread cannot be started.
pub(super) fn run<D: Duty>(
    duty: Box<D>,
    activity: Arc<Activity>,
    read: Box<ReadExecutable>,
    take_late: Box<OnLateRead>,
    is_realtime: bool,
) -> io::Result<D::End> {
    let (end, ended): (_, Receiver<D::End>) = sync_channel(1);
    let slot = Mutex::new(None);
    let lacks_watcher = AtomicBool::new(false);
    let shared =
        Arc::new(LeaderState { slot, activity, read, take_late, lacks_watcher, is_realtime, end });
    spawn_watcher(&shared)?;
    let leading = Arc::clone(&shared);
    thread::Builder::new().name("engine".into()).spawn(move || lead(&leading, duty))?;
    let activity = Arc::clone(&shared.activity);
    // A leader exits only when another leads, or after the end was sent.
    drop(shared);
    loop {
        match ended.recv_timeout(Duration::from_secs(1)) {
            Err(RecvTimeoutError::Timeout) => activity.report_if_stuck(sys::monotonic()),
            end => return end.map_err(io::Error::other),
        }
    }
}

fn spawn_watcher<D: Duty>(shared: &Arc<LeaderState<D>>) -> io::Result<()> {
    let shared = Arc::clone(shared);
    let spawned = thread::Builder::new().name("watcher".into()).spawn(move || {
        if shared.is_realtime {
            // Refused only if the leader, which reports it, is refused too.
            let _set = sys::realtime::set_realtime();
        }
        watch(&shared);
    });
    spawned.map(drop)
}

impl<D: Duty> LeaderState<D> {
    fn slot(&self) -> MutexGuard<'_, Option<Box<D>>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lead<D: Duty>(shared: &Arc<LeaderState<D>>, mut duty: Box<D>) {
    let activity = &shared.activity;
    activity.thread.store(u32::try_from(nix::unistd::gettid().as_raw()).unwrap_or(0), Relaxed);
    let mut read = ExeRead::default();
    duty.begin();
    loop {
        let request = match duty.work() {
            Next::Read(request) => request,
            Next::End(end) => {
                drop(duty);
                // The receiver is gone only when the process exits anyway.
                let _sent = shared.end.send(end);
                return;
            }
        };
        activity.reads(request.pid);
        *shared.slot() = Some(duty);
        (shared.read)(request, &mut read);
        match shared.slot().take() {
            Some(back) => {
                activity.reading_since.store(0, Relaxed);
                activity.ends();
                duty = back;
            }
            None => {
                (shared.take_late)(request);
                if shared.lacks_watcher.swap(false, Relaxed) {
                    watch(shared);
                }
                return;
            }
        }
        duty.supply(&read);
    }
}

fn watch<D: Duty>(shared: &Arc<LeaderState<D>>) {
    let activity = &shared.activity;
    while activity.timer.wait().is_ok() {
        let reading = activity.reading_since.load(SeqCst);
        if reading == 0 {
            activity.disarm();
            continue;
        }
        let is_late = sys::monotonic().since(Nanos(reading)) >= LATE_NS;
        if is_late && activity.is_blocked() {
            let taken = shared.slot().take();
            if let Some(duty) = taken {
                return take_over(shared, duty);
            }
        }
        activity.arm(LATE_NS);
    }
}

/// Leads in place of a blocked thread, and starts another watcher.
fn take_over<D: Duty>(shared: &Arc<LeaderState<D>>, mut duty: Box<D>) {
    let activity = &shared.activity;
    activity.reading_since.store(0, Relaxed);
    activity.ends();
    if let Err(error) = spawn_watcher(shared) {
        ::log::error!(
            "cannot start another watcher thread: {error}; the next read that blocks delays all processes"
        );
        shared.lacks_watcher.store(true, Relaxed);
    }
    activity.arm(LATE_NS);
    duty.read_is_late();
    lead(shared, duty);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    fn request(pid: u32) -> ReadRequest {
        ReadRequest { pid: Pid::new(pid).unwrap(), thread: None, namespaces: false }
    }

    /// Requests one read per process and ends after the last.
    struct Reads {
        pids: std::ops::RangeInclusive<u32>,
        supplied: Vec<u32>,
        late: Vec<u32>,
        last: u32,
    }

    impl Duty for Reads {
        type End = (Vec<u32>, Vec<u32>);

        fn work(&mut self) -> Next<Self::End> {
            match self.pids.next() {
                Some(pid) => {
                    self.last = pid;
                    Next::Read(request(pid))
                }
                None => Next::End((self.supplied.clone(), self.late.clone())),
            }
        }

        fn supply(&mut self, _: &ExeRead) {
            self.supplied.push(self.last);
        }

        fn read_is_late(&mut self) {
            self.late.push(self.last);
        }
    }

    fn started() -> Arc<Activity> {
        Arc::new(Activity::new().unwrap())
    }

    fn reads(count: u32) -> Box<Reads> {
        Box::new(Reads { pids: 1..=count, supplied: Vec::new(), late: Vec::new(), last: 0 })
    }

    #[test]
    fn reads_that_do_not_block_are_supplied() {
        let (supplied, late) =
            run(reads(1000), started(), Box::new(|_, _| {}), Box::new(|_| {}), false).unwrap();
        assert_eq!((supplied, late), ((1..=1000).collect(), vec![]));
    }

    #[test]
    fn another_thread_goes_on_when_reads_block_and_hears_when_they_are_over() {
        let (release, released) = channel::<()>();
        let released = Mutex::new(released);
        let (over, told): (Sender<u32>, _) = channel();
        let (supplied, late) = run(
            reads(35),
            started(),
            Box::new(move |request, _| {
                if request.pid.get() % 10 == 0 {
                    let _ = released.lock().map(|released| released.recv());
                }
            }),
            Box::new(move |request| {
                let _ = over.send(request.pid.get());
            }),
            false,
        )
        .unwrap();
        assert_eq!(late, [10, 20, 30]);
        assert_eq!(supplied, (1..=35).filter(|pid| pid % 10 != 0).collect::<Vec<_>>());
        assert!(told.try_recv().is_err(), "the threads are still stuck");
        drop(release);
        let mut over: Vec<u32> =
            (0..3).map(|_| told.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
        over.sort_unstable();
        assert_eq!(over, [10, 20, 30]);
    }

    /// A thread that only waits for a CPU is not blocked.
    #[test]
    fn a_read_that_takes_its_time_is_waited_for() {
        fn read(_: ReadRequest, _: &mut ExeRead) {
            let begin = sys::monotonic();
            while sys::monotonic().since(begin) < 4 * LATE_NS {}
        }
        let (supplied, late) =
            run(reads(1), started(), Box::new(read), Box::new(|_| {}), false).unwrap();
        assert_eq!((supplied, late), (vec![1], vec![]));
    }
}
