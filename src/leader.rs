//! One thread leads the daemon, and another takes over when it is stuck.
//!
//! Reading an executable can wait for a lock that a user controls (see [`crate::program`]). Handing every
//! such read to another thread would cost two context switches each; so the thread that leads makes it
//! itself, but checks the daemon's whole state in before and out after: two uncontended locks of a mutex,
//! 50 ns. A watcher takes the state when a read has blocked for [`LATE_NS`], leads from then on, and decides
//! without that executable. What the stuck thread read comes later, as an answer.
//!
//! The watcher costs nothing while no executable is read: the leader arms its timer with the first read, and
//! at most once in 20 ms: with 10 ms it took 3 % of an exec storm's CPU time. Arming it for every event would cost
//! 5 us of a placement's 120, because a virtual machine leaves the guest for that (measured).
//!
//! Whoever works for [`STUCK_NS`] without waiting for events is reported, with the call that took longest: by
//! the thread that waits for the end, once a second, or by the leader itself when it goes on.

use std::io;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::event::{Nanos, Pid};
use crate::program::{ExeRead, ReadRequest};
use crate::sys;

/// A read that has blocked for so long is left to its thread.
pub const LATE_NS: u64 = 5_000_000;
/// A leader that has worked for so long without waiting for events is reported.
pub const STUCK_NS: u64 = 100_000_000;
/// The watcher looks this long after the first read.
const FIRST_LOOK_NS: u64 = 20_000_000;
/// The same leader is reported no more often than this.
const REPORT_NS: u64 = 10_000_000_000;

/// What the leader is doing, for the report that it is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Call {
    /// Nothing that can take long.
    Other,
    /// Writing a PID to `cgroup.procs`.
    Attach,
    /// Opening or creating a cgroup.
    Open,
    /// Reading an executable.
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

/// What the leader does, as others may see it.
#[derive(Debug)]
pub struct Activity {
    timer: TimerFd,
    /// Whether the timer is running.
    is_armed: AtomicBool,
    /// Since when it works without waiting for events; 0 while it waits.
    busy_since: AtomicU64,
    /// When the last call began.
    call_began: AtomicU64,
    /// When a stall was reported last; 0 for never.
    reported: AtomicU64,
    /// Since when it reads an executable; 0 while it does not.
    reading_since: AtomicU64,
    call: AtomicU32,
    pid: AtomicU32,
    /// The thread that leads.
    thread: AtomicU32,
}

impl Activity {
    /// # Errors
    /// As timerfd_create(2).
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?,
            is_armed: AtomicBool::new(false),
            busy_since: AtomicU64::new(0),
            call_began: AtomicU64::new(0),
            reported: AtomicU64::new(0),
            reading_since: AtomicU64::new(0),
            call: AtomicU32::new(0),
            pid: AtomicU32::new(0),
            thread: AtomicU32::new(0),
        })
    }

    /// The leader begins to work.
    pub fn works(&self, now: Nanos) {
        self.busy_since.store(now.0, Relaxed);
    }

    /// The leader waits for events.
    pub fn waits(&self, now: Nanos) {
        self.report_if_stuck(now);
        self.busy_since.store(0, Relaxed);
        self.call.store(Call::Other as u32, Relaxed);
    }

    /// The leader begins to read an executable.
    fn reads(&self, pid: Pid) {
        let now = sys::monotonic();
        self.begins_at(Call::Read, pid, now);
        self.reading_since.store(now.0, SeqCst);
        self.ensure_armed();
    }

    /// Arms the timer unless it runs. What the watcher must see was stored before: either it sees that, or
    /// we see that it has let the timer go.
    fn ensure_armed(&self) {
        if !self.is_armed.swap(true, SeqCst) {
            self.arm(FIRST_LOOK_NS);
        }
    }

    /// Lets the timer go, if there is nothing to watch.
    fn disarm(&self) {
        self.is_armed.store(false, SeqCst);
        if self.reading_since.load(SeqCst) != 0 {
            self.ensure_armed();
        }
    }

    /// The leader makes this call about this process.
    pub fn begins(&self, call: Call, pid: Pid) {
        self.begins_at(call, pid, sys::monotonic());
    }

    fn begins_at(&self, call: Call, pid: Pid, now: Nanos) {
        self.pid.store(pid.get(), Relaxed);
        self.call.store(call as u32, Relaxed);
        self.call_began.store(now.0, Relaxed);
    }

    /// The call is over. One that took long stays, for the report.
    pub fn ends(&self) {
        let began = Nanos(self.call_began.load(Relaxed));
        if sys::monotonic().since(began) < STUCK_NS / 2 {
            self.call.store(Call::Other as u32, Relaxed);
        }
    }

    fn arm(&self, nanoseconds: u64) {
        let expiration = Expiration::OneShot(Duration::from_nanos(nanoseconds).into());
        if let Err(errno) = self.timer.set(expiration, TimerSetTimeFlags::empty()) {
            ::log::error!("timer of the watcher: {}", errno.desc());
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
        let (pid, milliseconds) = (self.pid.load(Relaxed), now.since(Nanos(busy)) / 1_000_000);
        // A slow machine takes that long for a scan; a second is a fault.
        let level = if milliseconds < 1000 { ::log::Level::Info } else { ::log::Level::Warn };
        ::log::log!(level, "no events were handled for {milliseconds} ms: {call}, process {pid}");
    }

    /// Whether the leader waits in the kernel, and not only for a processor.
    fn is_blocked(&self) -> bool {
        let thread = self.thread.load(Relaxed);
        let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status"));
        status.is_ok_and(|text| !text.lines().any(|line| line.starts_with("State:\tR")))
    }
}

/// What a leader does next.
pub enum Next<E> {
    /// Read this executable and [`Duty::supply`] it.
    Read(ReadRequest),
    /// End with this result.
    End(E),
}

/// The state that is handed from leader to leader.
pub trait Duty: Send + 'static {
    /// The result of the whole.
    type End: Send + 'static;

    /// Works until an executable must be read, or all is over.
    fn work(&mut self) -> Next<Self::End>;

    /// Takes what was read.
    fn supply(&mut self, read: &ExeRead);

    /// The read blocks: decides without it.
    fn read_is_late(&mut self);
}

/// Reads an executable; may block.
pub type Read = dyn Fn(ReadRequest, &mut ExeRead) + Send + Sync;

/// Told of a read that was late, when it is over.
pub type TakeLate = dyn Fn(ReadRequest) + Send + Sync;

struct Shared<D: Duty> {
    /// The state, while the leader reads.
    slot: Mutex<Option<Box<D>>>,
    activity: Arc<Activity>,
    read: Box<Read>,
    take_late: Box<TakeLate>,
    /// The last watcher leads and none could be started: the stuck leader will watch.
    lacks_watcher: AtomicBool,
    end: SyncSender<D::End>,
}

/// Leads `duty` on threads of its own and returns its result.
///
/// # Errors
/// A thread cannot be started.
pub fn run<D: Duty>(
    duty: Box<D>,
    activity: Arc<Activity>,
    read: Box<Read>,
    take_late: Box<TakeLate>,
) -> io::Result<D::End> {
    let (end, ended): (_, Receiver<D::End>) = sync_channel(1);
    let (slot, lacks_watcher) = (Mutex::new(None), AtomicBool::new(false));
    let shared = Arc::new(Shared { slot, activity, read, take_late, lacks_watcher, end });
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

fn spawn_watcher<D: Duty>(shared: &Arc<Shared<D>>) -> io::Result<()> {
    let shared = Arc::clone(shared);
    thread::Builder::new().name("watcher".into()).spawn(move || watch(&shared)).map(drop)
}

impl<D: Duty> Shared<D> {
    fn slot(&self) -> MutexGuard<'_, Option<Box<D>>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lead<D: Duty>(shared: &Arc<Shared<D>>, mut duty: Box<D>) {
    let activity = &shared.activity;
    activity.thread.store(u32::try_from(nix::unistd::gettid().as_raw()).unwrap_or(0), Relaxed);
    let mut read = ExeRead::default();
    loop {
        let request = match duty.work() {
            Next::Read(request) => request,
            Next::End(end) => {
                drop(duty);
                // Nobody waits for it when the process ends anyway.
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

fn watch<D: Duty>(shared: &Arc<Shared<D>>) {
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

/// Leads in place of a thread that is stuck; another thread watches.
fn take_over<D: Duty>(shared: &Arc<Shared<D>>, mut duty: Box<D>) {
    let activity = &shared.activity;
    activity.reading_since.store(0, Relaxed);
    activity.ends();
    if let Err(error) = spawn_watcher(shared) {
        ::log::error!(
            "cannot start another watcher: {error}; the next read that blocks is waited for"
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

    /// Has process after process read, and ends after the last.
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
            run(reads(1000), started(), Box::new(|_, _| {}), Box::new(|_| {})).unwrap();
        assert_eq!((supplied, late), ((1..=1000).collect(), vec![]));
    }

    #[test]
    fn another_thread_goes_on_when_reads_block_and_hears_when_they_are_over() {
        let (release, released) = channel::<()>();
        let released = Mutex::new(released);
        let (over, told): (Sender<u32>, _) = channel();
        let read = move |request: ReadRequest, _: &mut ExeRead| {
            if request.pid.get() % 10 == 0 {
                let _ = released.lock().map(|released| released.recv());
            }
        };
        let take_late = move |request: ReadRequest| {
            let _ = over.send(request.pid.get());
        };
        let (supplied, late) =
            run(reads(35), started(), Box::new(read), Box::new(take_late)).unwrap();
        assert_eq!(late, [10, 20, 30]);
        assert_eq!(supplied, (1..=35).filter(|pid| pid % 10 != 0).collect::<Vec<_>>());
        assert!(told.try_recv().is_err(), "the threads are still stuck");
        drop(release);
        let mut over: Vec<u32> =
            (0..3).map(|_| told.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
        over.sort_unstable();
        assert_eq!(over, [10, 20, 30]);
    }

    /// A thread that only waits for a processor is not blocked.
    #[test]
    fn a_read_that_takes_its_time_is_waited_for() {
        let read = |_: ReadRequest, _: &mut ExeRead| {
            let begin = sys::monotonic();
            while sys::monotonic().since(begin) < 4 * LATE_NS {}
        };
        let (supplied, late) = run(reads(1), started(), Box::new(read), Box::new(|_| {})).unwrap();
        assert_eq!((supplied, late), (vec![1], vec![]));
    }
}
