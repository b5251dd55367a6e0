//! Threads that examine executables. Their owners can block such a read for ever, so each user has
//! a limited share.
//!
//! A user has [`THREADS_OF_ONE`] threads and a queue with one entry per process, and one for a plan: blocked
//! reads of one user do not delay those of another. The queue holds as many processes as the default PID
//! space, because the scan that follows a refusal would request the same first processes again, and the
//! others never. When the queue of a user is full, the process is decided without its executable, and
//! [`ExaminationPool::take_overflown`] reports when that queue is empty again.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::event::{Pid, Uid};
use crate::kernel::program::Examined;

/// Maximum number of running examinations per user.
pub const THREADS_OF_ONE: usize = 2;
/// Maximum number of queued examinations per user: the default of `kernel.pid_max`. An entry has 40 bytes.
pub const QUEUE_OF_ONE: usize = 32_768;
/// Maximum number of queued examinations beyond [`RESERVED_OF_ONE`] of each user.
pub const QUEUE: usize = 65_536;
/// Queued examinations that each user has in any case. The link is kept for these only: it has up to
/// 4 KiB, and is read again for the others.
pub const RESERVED_OF_ONE: usize = 256;
/// Maximum number of threads, with 256 KiB of address space each: enough for 32 users with blocked
/// reads.
pub const THREADS: usize = 64;
/// Maximum number of idle threads; a further one exits.
const IDLE: usize = 2;

/// Request to examine an executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examination {
    /// PID of the process to examine.
    pub pid: Pid,
    /// Correlation number, returned with the result.
    pub number: u64,
    /// Link that was read before, if any.
    pub raw: Option<Box<[u8]>>,
    /// True if the arguments are needed, too.
    pub wants_arguments: bool,
    /// True for a plan, which must not replace the request of an evaluation of the process.
    pub is_planned: bool,
}

/// Callback that examines one executable.
pub type Examine = dyn Fn(Examination) -> Examined + Send + Sync;
/// Callback for the result of the examination with this PID and number; returns `false` when
/// results are not needed any more.
pub type Deliver = dyn Fn(Pid, u64, Examined) -> bool + Send + Sync;

/// Pool of threads with a queue for each user.
pub struct ExaminationPool {
    shared: Arc<PoolState>,
}

struct PoolState {
    state: Mutex<PoolQueues>,
    work: Condvar,
    examine: Box<Examine>,
    deliver: Box<Deliver>,
}

#[derive(Default)]
struct PoolQueues {
    users: HashMap<Uid, OfUser, FixedState>,
    /// Users with queued requests and unused threads, next first.
    turn: VecDeque<Uid>,
    threads: usize,
    /// Threads that wait for work, and those that were started but have not requested any.
    idle: usize,
    starting: usize,
    /// Examinations in all queues.
    queued: usize,
    /// Set when the queue of a user who was refused has become empty.
    overflown: bool,
}

/// A later request with the same key replaces an earlier one: the process, and whether it is for a plan.
type RequestKey = (Pid, bool);

#[derive(Default)]
struct OfUser {
    /// Keys in the order of their first request.
    queue: VecDeque<RequestKey>,
    /// The last request for each key in `queue`.
    requests: HashMap<RequestKey, Examination, FixedState>,
    running: usize,
    is_in_turn: bool,
    was_refused: bool,
}

impl ExaminationPool {
    /// Creates a pool without threads; they are started on demand.
    pub fn new(examine: Box<Examine>, deliver: Box<Deliver>) -> Self {
        let state = Mutex::default();
        let work = Condvar::new();
        Self { shared: Arc::new(PoolState { state, work, examine, deliver }) }
    }

    /// Requests an examination on behalf of `user`, in place of one for the same process and purpose
    /// that is still queued. Returns `false` when the queue of that user is full.
    #[must_use]
    pub fn submit(&self, user: Uid, examination: Examination) -> bool {
        let mut state = self.shared.lock();
        if !state.enqueue(user, examination) {
            return false;
        }
        let lacks_thread = state.reserve_thread();
        drop(state);
        if lacks_thread {
            self.shared.spawn();
        }
        self.shared.work.notify_one();
        true
    }

    /// Reports whether the queue of a user who was refused has become empty since the last call.
    pub fn take_overflown(&self) -> bool {
        std::mem::take(&mut self.shared.lock().overflown)
    }
}

impl PoolState {
    fn lock(&self) -> MutexGuard<'_, PoolQueues> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a thread that was reserved.
    fn spawn(self: &Arc<Self>) {
        let shared = Arc::clone(self);
        let builder = thread::Builder::new().name("executables".into()).stack_size(256 * 1024);
        if let Err(error) = builder.spawn(move || shared.serve()) {
            let mut state = self.lock();
            state.threads -= 1;
            state.starting -= 1;
            drop(state);
            ::log::error!("cannot start a thread to examine executables: {error}");
        }
    }

    fn serve(self: &Arc<Self>) {
        self.lock().starting -= 1;
        while let Some((user, examination)) = self.next() {
            // This examination may block, and others must not wait for it.
            let lacks_thread = self.lock().reserve_thread();
            if lacks_thread {
                self.spawn();
            }
            let pid = examination.pid;
            let number = examination.number;
            let examined = (self.examine)(examination);
            self.lock().finished(user);
            if !(self.deliver)(pid, number, examined) {
                self.lock().threads -= 1;
                return;
            }
        }
    }

    /// Waits for the next examination. Returns `None` when enough threads are idle.
    fn next(&self) -> Option<(Uid, Examination)> {
        let mut state = self.lock();
        loop {
            if let Some(next) = state.next() {
                return Some(next);
            }
            if state.idle >= IDLE {
                state.threads -= 1;
                return None;
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

impl PoolQueues {
    fn enqueue(&mut self, user: Uid, mut examination: Examination) -> bool {
        let of_user = self.users.entry(user).or_default();
        let length = of_user.queue.len();
        if length >= RESERVED_OF_ONE {
            examination.raw = None;
        }
        let key = (examination.pid, examination.is_planned);
        if let Some(earlier) = of_user.requests.get_mut(&key) {
            examination.wants_arguments |= earlier.wants_arguments;
            *earlier = examination;
            return true;
        }
        if length >= RESERVED_OF_ONE && (length >= QUEUE_OF_ONE || self.queued >= QUEUE) {
            of_user.was_refused = true;
            return false;
        }
        of_user.queue.push_back(key);
        of_user.requests.insert(key, examination);
        self.queued += 1;
        self.take_turn(user);
        true
    }

    /// Queues `user` for a thread, if the user has a request and an unused thread.
    fn take_turn(&mut self, user: Uid) {
        let Some(of_user) = self.users.get_mut(&user) else { return };
        if !of_user.is_in_turn && !of_user.queue.is_empty() && of_user.running < THREADS_OF_ONE {
            of_user.is_in_turn = true;
            self.turn.push_back(user);
        }
    }

    /// Reserves a further thread if one is needed. Returns whether it must be started.
    fn reserve_thread(&mut self) -> bool {
        let lacks = self.idle + self.starting < self.turn.len() && self.threads < THREADS;
        if lacks {
            self.threads += 1;
            self.starting += 1;
        }
        lacks
    }

    fn next(&mut self) -> Option<(Uid, Examination)> {
        let user = self.turn.pop_front()?;
        let of_user = self.users.get_mut(&user)?;
        of_user.is_in_turn = false;
        let key = of_user.queue.pop_front()?;
        let next = of_user.requests.remove(&key)?;
        of_user.running += 1;
        self.queued -= 1;
        self.take_turn(user);
        Some((user, next))
    }

    fn finished(&mut self, user: Uid) {
        let Some(of_user) = self.users.get_mut(&user) else { return };
        of_user.running -= 1;
        if of_user.queue.is_empty() {
            self.overflown |= std::mem::take(&mut of_user.was_refused);
            if of_user.running == 0 {
                self.users.remove(&user);
            }
            return;
        }
        self.take_turn(user);
        // The current thread takes it, or another idle one.
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Returns an examination of a process of its own.
    fn examination(number: u64) -> Examination {
        of_process(number as u32 + 1, number)
    }

    fn of_process(pid: u32, number: u64) -> Examination {
        Examination {
            pid: Pid::new(pid).unwrap(),
            number,
            raw: Some(Box::from(*b"/bin/x")),
            wants_arguments: false,
            is_planned: false,
        }
    }

    /// Returns a pool in which examinations with numbers below 1000 wait until `release` is
    /// dropped.
    fn pool() -> (ExaminationPool, mpsc::Receiver<u64>, mpsc::Sender<()>) {
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let (answer, answers) = mpsc::channel();
        let pool = ExaminationPool::new(
            Box::new(move |examination| {
                if examination.number < 1000 {
                    let _ = released.lock().map(|released| released.recv());
                }
                Examined::Gone
            }),
            Box::new(move |_, number, _| answer.send(number).is_ok()),
        );
        (pool, answers, release)
    }

    #[test]
    fn hanging_reads_of_one_user_do_not_delay_another() {
        let (pool, answers, release) = pool();
        for number in 0..QUEUE_OF_ONE as u64 / 2 {
            assert!(pool.submit(Uid(1), examination(number)));
        }
        for number in 1000..1100 {
            assert!(pool.submit(Uid(2), examination(number)));
        }
        let mut of_other: Vec<u64> =
            (0..100).map(|_| answers.recv_timeout(PATIENCE).unwrap()).collect();
        of_other.sort_unstable();
        assert_eq!(of_other, (1000..1100).collect::<Vec<_>>());
        assert!(pool.shared.lock().threads <= IDLE + 2 * THREADS_OF_ONE);
        drop(release);
        let rest = (0..QUEUE_OF_ONE / 2).map(|_| answers.recv_timeout(PATIENCE).unwrap());
        assert_eq!(rest.count(), QUEUE_OF_ONE / 2, "each is answered once");
    }

    /// Queues examinations of `user` until one is refused, and returns the number of those accepted.
    fn fill(pool: &ExaminationPool, user: u32) -> usize {
        // The first two block the threads of the user.
        (0..).take_while(|&number| pool.submit(Uid(user), examination(number))).count()
    }

    #[test]
    fn a_user_who_was_refused_is_reported_when_the_queue_is_empty() {
        let (pool, answers, release) = pool();
        let accepted = fill(&pool, 1);
        assert!((QUEUE_OF_ONE..=QUEUE_OF_ONE + THREADS_OF_ONE).contains(&accepted), "{accepted}");
        assert!(pool.submit(Uid(2), examination(1000)));
        assert_eq!(answers.recv_timeout(PATIENCE), Ok(1000));
        assert!(!pool.take_overflown());
        drop(release);
        for _ in 0..accepted {
            answers.recv_timeout(PATIENCE).unwrap();
        }
        assert!(pool.take_overflown());
        assert!(!pool.take_overflown());
        assert!(pool.shared.lock().users.len() <= 1);
        assert_eq!(pool.shared.lock().queued, 0);
    }

    #[test]
    fn a_queued_process_is_examined_once_for_its_last_request() {
        let (pool, answers, release) = pool();
        for blocking in [1, 2] {
            assert!(pool.submit(Uid(1), examination(blocking)));
        }
        while pool.shared.lock().queued > 0 {
            thread::yield_now();
        }
        for number in 1000..1000 + 2 * QUEUE_OF_ONE as u64 {
            assert!(pool.submit(Uid(1), of_process(100_000 + (number % 2) as u32, number)));
        }
        let planned = Examination { is_planned: true, ..of_process(100_000, 500_000) };
        assert!(pool.submit(Uid(1), planned));
        assert_eq!(pool.shared.lock().queued, 3);
        drop(release);
        let mut numbers: Vec<u64> =
            (0..5).map(|_| answers.recv_timeout(PATIENCE).unwrap()).collect();
        numbers.sort_unstable();
        let last = 999 + 2 * QUEUE_OF_ONE as u64;
        assert_eq!(numbers, [1, 2, last - 1, last, 500_000], "that of a plan is another one");
        assert_eq!(answers.recv_timeout(Duration::from_millis(50)).ok(), None);
    }

    #[test]
    fn full_queues_of_some_users_leave_each_other_user_a_share() {
        let (pool, _answers, release) = pool();
        for user in [1, 2, 3] {
            fill(&pool, user);
        }
        let of_late = fill(&pool, 4);
        let expected = RESERVED_OF_ONE..=RESERVED_OF_ONE + THREADS_OF_ONE;
        assert!(expected.contains(&of_late), "{of_late}");
        let state = pool.shared.lock();
        assert!(state.queued <= QUEUE + 2 * RESERVED_OF_ONE, "{}", state.queued);
        let links =
            |of_user: &OfUser| of_user.requests.values().filter(|e| e.raw.is_some()).count();
        assert!(state.users.values().all(|of_user| links(of_user) <= RESERVED_OF_ONE));
        drop(state);
        drop(release);
    }

    #[test]
    fn many_users_have_no_more_than_all_threads() {
        let (pool, answers, release) = pool();
        for user in 0..2 * THREADS as u32 {
            assert!(pool.submit(Uid(user), examination(1)));
        }
        assert_eq!(pool.shared.lock().threads, THREADS);
        drop(release);
        for _ in 0..2 * THREADS {
            answers.recv_timeout(PATIENCE).unwrap();
        }
    }
}
