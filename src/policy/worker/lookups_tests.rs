use std::collections::HashSet;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use proptest::prelude::*;

use super::super::{PolicyService, WorkerHandle};
use super::*;
use crate::cgroup::host::ManagedRoots;
use crate::cgroup::mounts::Hierarchies;
use crate::config::daemon_toml::changes::SettingChanges;
use crate::event::Nanos;
use crate::event::{Gid, Uid};
use crate::policy::Policy;
use crate::policy::planned::{PlanRequest, PlannedPolicy};
use crate::rules::container::{ContainerEngine, ContainerId, ContainerKey};
use crate::rules::names::{UnknownName, UserIdentity};

const PATIENCE: Duration = Duration::from_secs(20);

/// Name service that blocks lookups of selected IDs.
#[derive(Default)]
struct Slow {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// IDs whose lookups block.
    held: HashSet<u32>,
    running: Vec<u32>,
    most_running: usize,
    /// Set if one ID was looked up twice at the same time.
    is_doubled: bool,
    begun: Vec<u32>,
}

impl Slow {
    fn holding(held: impl IntoIterator<Item = u32>) -> Arc<Self> {
        let own = Self::default();
        own.state.lock().unwrap().held.extend(held);
        Arc::new(own)
    }

    fn release(&self, uid: u32) {
        self.state.lock().unwrap().held.remove(&uid);
        self.changed.notify_all();
    }

    /// Waits until this number of lookups has begun, and returns their IDs.
    fn expect_begun(&self, count: usize) -> Vec<u32> {
        let state = self.state.lock().unwrap();
        let is_short = |state: &mut State| state.begun.len() < count;
        let (state, timeout) = self.changed.wait_timeout_while(state, PATIENCE, is_short).unwrap();
        assert!(!timeout.timed_out(), "{:?} of {count}", state.begun);
        state.begun.clone()
    }

    fn wait(&self, id: u32) {
        let mut state = self.state.lock().unwrap();
        state.is_doubled |= state.running.contains(&id);
        state.running.push(id);
        state.begun.push(id);
        state.most_running = state.most_running.max(state.running.len());
        self.changed.notify_all();
        let is_held = |state: &mut State| state.held.contains(&id);
        let (mut state, _) = self.changed.wait_timeout_while(state, PATIENCE, is_held).unwrap();
        state.running.retain(|running| *running != id);
    }
}

impl Directory for Arc<Slow> {
    fn identify(&self, uid: Uid) -> io::Result<UserIdentity> {
        self.wait(uid.0);
        Ok(UserIdentity { name: Some(format!("u{uid}")), ..UserIdentity::nameless(uid) })
    }

    fn group_name(&self, gid: Gid) -> io::Result<Option<Box<str>>> {
        self.wait(gid.0);
        Ok(Some("group".into()))
    }

    fn container_name(&self, key: ContainerKey) -> io::Result<Option<Box<str>>> {
        match key.engine {
            ContainerEngine::Docker => Ok(Some("web".into())),
            ContainerEngine::Podman
            | ContainerEngine::Lxc
            | ContainerEngine::Nspawn
            | ContainerEngine::Kubernetes => Err(io::Error::other("unreadable")),
        }
    }

    fn exists(&self, _: &UnknownName) -> io::Result<bool> {
        Ok(false)
    }
}

struct Bench {
    lookups: Lookups,
    answers: Receiver<WorkerReply>,
    matcher: Arc<Matcher>,
}

impl Bench {
    fn new(directory: &Arc<Slow>) -> Self {
        let (sender, answers) = unbounded();
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = Arc::new(EventFd::from_value_and_flags(0, flags).unwrap());
        let counter = ReplySender { answers: sender, bell };
        let service: Arc<dyn Directory> = Arc::new(Arc::clone(directory));
        let missing = MissingNames::new(Arc::clone(&service), counter.clone());
        let lookups = Lookups::open(service, counter, missing).unwrap();
        Self { lookups, answers, matcher: Arc::new(Matcher::compile(Arc::new([]))) }
    }

    fn ask(&mut self, uid: u32, generation: u64) {
        self.lookups.ask(LookupKey::User(Uid(uid)), generation, &self.matcher);
    }

    /// Waits for the next reply and returns its user and generation.
    fn answer(&mut self) -> (u32, u64) {
        let answer = self.answers.recv_timeout(PATIENCE).unwrap();
        self.lookups.note(&answer);
        match answer {
            WorkerReply::User { generation, user } => (user.identity.uid.0, generation),
            WorkerReply::Group { .. }
            | WorkerReply::Container { .. }
            | WorkerReply::Policy(_)
            | WorkerReply::Examined { .. }
            | WorkerReply::Readable(_)
            | WorkerReply::NamesAppeared
            | WorkerReply::Planned(_)
            | WorkerReply::Manager(_) => panic!(),
        }
    }
}

#[test]
fn a_slow_lookup_delays_no_other_user() {
    let slow = Slow::holding([61_001]);
    let mut bench = Bench::new(&slow);
    bench.ask(61_001, 1);
    slow.expect_begun(1);
    bench.ask(61_002, 1);
    assert_eq!(bench.answer(), (61_002, 1));
    slow.release(61_001);
    assert_eq!(bench.answer(), (61_001, 1));
    assert_eq!(bench.lookups.threads, 2, "started on demand");
}

#[test]
fn the_newest_is_looked_up_first_and_the_oldest_is_not_forgotten() {
    let slow = Slow::holding([1, 2, 3, 4]);
    let mut bench = Bench::new(&slow);
    (1..=4).for_each(|uid| bench.ask(uid, 1));
    slow.expect_begun(4);
    (11..=18).for_each(|uid| bench.ask(uid, 1));
    slow.release(4);
    let answered: HashSet<u32> = (0..9).map(|_| bench.answer().0).collect();
    assert_eq!(answered.len(), 9);
    assert_eq!(slow.expect_begun(12)[4..], [18, 17, 16, 11, 15, 14, 13, 12]);
    assert_eq!(bench.lookups.threads, MOST_THREADS);
    (1..=3).for_each(|uid| slow.release(uid));
}

#[test]
fn another_policy_is_answered_by_a_lookup_of_its_own() {
    let slow = Slow::holding([7]);
    let mut bench = Bench::new(&slow);
    bench.ask(7, 1);
    slow.expect_begun(1);
    // Two requests by the same policy are one lookup.
    bench.ask(7, 2);
    bench.ask(7, 2);
    assert_eq!(slow.expect_begun(1), [7], "one at a time");
    slow.release(7);
    assert_eq!((bench.answer(), bench.answer()), ((7, 1), (7, 2)));
    assert!(bench.lookups.requests.is_empty() && bench.lookups.running == 0);
    bench.ask(7, 2);
    assert_eq!(bench.answer(), (7, 2));
}

#[test]
fn the_name_of_a_container_is_read_once_and_an_unreadable_one_is_none() {
    let slow = Slow::holding([]);
    let mut bench = Bench::new(&slow);
    let id = ContainerId::parse("0".repeat(64).as_bytes()).unwrap();
    for (engine, expected) in
        [(ContainerEngine::Docker, Some("web")), (ContainerEngine::Podman, None)]
    {
        let asked = ContainerKey { engine, id };
        bench.lookups.ask(LookupKey::Container(asked), 1, &bench.matcher);
        bench.lookups.ask(LookupKey::Container(asked), 1, &bench.matcher);
        let answer = bench.answers.recv_timeout(PATIENCE).unwrap();
        bench.lookups.note(&answer);
        let WorkerReply::Container { generation: 1, key, name } = answer else { panic!() };
        assert_eq!((key, name.as_deref()), (asked, expected));
        assert!(bench.lookups.requests.is_empty());
    }
}

#[test]
fn a_group_and_a_user_of_one_number_are_two_questions() {
    let slow = Slow::holding([]);
    let mut bench = Bench::new(&slow);
    bench.lookups.ask(LookupKey::Group(Gid(7)), 1, &bench.matcher);
    let answer = bench.answers.recv_timeout(PATIENCE).unwrap();
    bench.lookups.note(&answer);
    assert!(matches!(answer, WorkerReply::Group { generation: 1, gid: Gid(7), name: Some(_) }));
    bench.ask(7, 1);
    assert_eq!(bench.answer(), (7, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Each step requests a user by the current policy; 0 is a reload, and 1 receives a reply, if
    /// any.
    #[test]
    fn each_request_is_answered_once_by_few_threads(steps in prop::collection::vec(0u32..12, 0..120)) {
        let slow = Slow::holding([]);
        let mut bench = Bench::new(&slow);
        let mut generation = 1;
        // Requests without a reply.
        let mut open: HashSet<(u32, u64)> = HashSet::new();
        let take = |bench: &mut Bench, open: &mut HashSet<(u32, u64)>| {
            let answered = bench.answer();
            let is_asked = open.remove(&answered);
            // A request of a newer policy replaces an older one that no thread processes yet.
            open.retain(|one| one.0 != answered.0 || one.1 > answered.1);
            is_asked
        };
        for step in steps {
            match step {
                0 => generation += 1,
                1 if bench.answers.is_empty() => {}
                1 => prop_assert!(take(&mut bench, &mut open)),
                uid => {
                    bench.ask(uid, generation);
                    open.insert((uid, generation));
                }
            }
        }
        while !bench.lookups.requests.is_empty() {
            prop_assert!(take(&mut bench, &mut open));
        }
        prop_assert!(open.is_empty(), "never answered: {open:?}");
        prop_assert!(bench.answers.is_empty() && bench.lookups.running == 0);
        prop_assert!(bench.lookups.waiting.is_empty());
        let state = slow.state.lock().unwrap();
        prop_assert!(state.most_running <= MOST_THREADS && !state.is_doubled);
        prop_assert!(bench.lookups.threads <= MOST_THREADS);
    }
}

/// Rule service whose reload blocks for as long as a test requires.
struct SlowOffice {
    directory: Arc<Slow>,
}

/// ID that represents a reload in the list of blocked lookups.
const RELOAD: u32 = u32::MAX;

fn policy(generation: u64) -> Box<Policy> {
    let matcher = Arc::new(Matcher::compile(Arc::new([])));
    let hierarchies = Hierarchies::default();
    let roots = ManagedRoots::default();
    Box::new(Policy::new(generation, matcher, &hierarchies, &roots, [], []))
}

impl PolicyService for SlowOffice {
    fn reload(&mut self) -> Box<Policy> {
        self.directory.wait(RELOAD);
        policy(2)
    }

    fn plan(&mut self, request: &PlanRequest) -> PlannedPolicy {
        let (diagnostics, settings) = (Vec::new(), SettingChanges::default());
        PlannedPolicy { number: request.number, policy: None, diagnostics, settings }
    }

    fn directory(&self) -> Arc<dyn Directory> {
        Arc::new(Arc::clone(&self.directory))
    }

    fn missing_names(&self) -> &[UnknownName] {
        &[]
    }
}

fn next(worker: &mut WorkerHandle) -> WorkerReply {
    let before = sys::monotonic();
    loop {
        if let Some(answer) = worker.answers().next() {
            return answer;
        }
        assert!(sys::monotonic().since(before) < 20_000_000_000, "no answer");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn lookups_and_reloads_do_not_wait_for_each_other() {
    let slow = Slow::holding([RELOAD, 5]);
    let mut worker = WorkerHandle::open(SlowOffice { directory: Arc::clone(&slow) }).unwrap();
    worker.reload();
    slow.expect_begun(1);
    let before = policy(1);
    worker.identify(&before, Uid(6));
    let answer = next(&mut worker);
    let WorkerReply::User { generation: 1, user } = answer else { panic!() };
    assert_eq!((user.identity.uid, user.take_stale(Nanos(u64::MAX))), (Uid(6), true));
    worker.identify(&before, Uid(5));
    slow.release(RELOAD);
    assert!(matches!(next(&mut worker), WorkerReply::Policy(_)));
    slow.release(5);
    assert!(matches!(next(&mut worker), WorkerReply::User { generation: 1, .. }));
}
