//! Threads that examine executables whose owners can make that wait for ever, with a share for each user.
//!
//! A user has [`THREADS_OF_ONE`] threads and [`QUEUE_OF_ONE`] places in the queue: hanging reads of one user
//! do not delay those of another. When a request finds no place, the process is decided without its
//! executable, and [`Pool::take_overflown`] says when the queue of its user has room again.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::event::{Pid, Uid};
use crate::program::Examined;

/// Examinations of one user that run at once.
pub const THREADS_OF_ONE: usize = 2;
/// Examinations of one user that wait.
pub const QUEUE_OF_ONE: usize = 256;
/// Threads at most, of 256 KiB of address space each: 32 users whose files all hang.
pub const THREADS: usize = 64;
/// Threads that wait for work; one that becomes idle beside them exits.
const IDLE: usize = 2;

/// An examination that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examination {
    /// The process.
    pub pid: Pid,
    /// Comes back with the answer.
    pub number: u64,
    /// The link that was read, if it was.
    pub raw: Option<Box<[u8]>>,
}

/// Examines one executable.
pub type Examine = dyn Fn(Examination) -> Examined + Send + Sync;
/// Takes the answer to the examination of this PID and number; `false` when nobody wants answers any more.
pub type Deliver = dyn Fn(Pid, u64, Examined) -> bool + Send + Sync;

/// The threads and what waits for them.
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    examine: Box<Examine>,
    deliver: Box<Deliver>,
}

#[derive(Default)]
struct State {
    users: HashMap<Uid, OfUser, FixedState>,
    /// Users who have requests and fewer than their share of running ones; the next first.
    turn: VecDeque<Uid>,
    threads: usize,
    /// Threads that wait for work, and those that were started and have not asked for any.
    idle: usize,
    starting: usize,
    /// A user was refused and has room again.
    overflown: bool,
}

#[derive(Default)]
struct OfUser {
    queue: VecDeque<Examination>,
    running: usize,
    is_in_turn: bool,
    was_refused: bool,
}

impl Pool {
    /// A pool without threads.
    pub fn new(examine: Box<Examine>, deliver: Box<Deliver>) -> Self {
        let (state, work) = (Mutex::default(), Condvar::new());
        Self { shared: Arc::new(Shared { state, work, examine, deliver }) }
    }

    /// Asks for an examination on behalf of `user`. `false` when too many of that user wait.
    #[must_use]
    pub fn submit(&self, user: Uid, examination: Examination) -> bool {
        let mut state = self.shared.lock();
        let of_user = state.users.entry(user).or_default();
        if of_user.queue.len() >= QUEUE_OF_ONE {
            of_user.was_refused = true;
            return false;
        }
        of_user.queue.push_back(examination);
        state.take_turn(user);
        let lacks_thread = state.reserve_thread();
        drop(state);
        if lacks_thread {
            self.shared.spawn();
        }
        self.shared.work.notify_one();
        true
    }

    /// Whether the queue of a user who was refused has become empty since the last call.
    pub fn take_overflown(&self) -> bool {
        std::mem::take(&mut self.shared.lock().overflown)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
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
            // This one may hang, and then others must not wait for it.
            let lacks_thread = self.lock().reserve_thread();
            if lacks_thread {
                self.spawn();
            }
            let (pid, number) = (examination.pid, examination.number);
            let examined = (self.examine)(examination);
            self.lock().finished(user);
            if !(self.deliver)(pid, number, examined) {
                self.lock().threads -= 1;
                return;
            }
        }
    }

    /// The next examination. `None` when enough threads wait for one.
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

impl State {
    /// Lets `user` wait for a thread, if there is something to do and a share left.
    fn take_turn(&mut self, user: Uid) {
        let Some(of_user) = self.users.get_mut(&user) else { return };
        if !of_user.is_in_turn && !of_user.queue.is_empty() && of_user.running < THREADS_OF_ONE {
            of_user.is_in_turn = true;
            self.turn.push_back(user);
        }
    }

    /// Whether another thread is to be started, which is counted already.
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
        let next = of_user.queue.pop_front()?;
        of_user.running += 1;
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
        // Whoever finished takes it, or another thread that is free.
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn examination(number: u64) -> Examination {
        Examination { pid: Pid::new(7).unwrap(), number, raw: None }
    }

    /// A pool whose examinations of numbers below 1000 wait until `release` is dropped.
    fn pool() -> (Pool, mpsc::Receiver<u64>, mpsc::Sender<()>) {
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let (answer, answers) = mpsc::channel();
        let examine = move |examination: Examination| {
            if examination.number < 1000 {
                let _ = released.lock().map(|released| released.recv());
            }
            Examined::Gone
        };
        let deliver = move |_, number, _| answer.send(number).is_ok();
        (Pool::new(Box::new(examine), Box::new(deliver)), answers, release)
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

    #[test]
    fn a_user_who_was_refused_is_reported_when_the_queue_is_empty() {
        let (pool, answers, release) = pool();
        let accepted = (0..999).take_while(|&number| pool.submit(Uid(1), examination(number)));
        let accepted = accepted.count();
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
