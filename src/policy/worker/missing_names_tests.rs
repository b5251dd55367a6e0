use std::collections::HashSet;
use std::io;

use crossbeam_channel::{Receiver, unbounded};
use nix::sys::eventfd::EventFd;

use super::*;
use crate::event::{Gid, Uid};
use crate::rules::container::ContainerKey;

const PATIENCE: Duration = Duration::from_secs(20);
/// Time after which nothing is expected any more.
const SILENCE: Duration = Duration::from_millis(300);

/// Name service with these names, which records its lookups and can fail.
#[derive(Default)]
struct Names {
    known: Mutex<HashSet<UnknownName>>,
    asked: Mutex<Vec<(UnknownName, Instant)>>,
    fails: Mutex<bool>,
    /// Repeated lookups of users.
    repeated: Mutex<Vec<Uid>>,
}

/// A user whose lookup always fails.
const BROKEN: Uid = Uid(7);

impl Directory for Names {
    fn container_name(&self, _: ContainerKey) -> io::Result<Option<Box<str>>> {
        Ok(None)
    }

    fn identify(&self, uid: Uid) -> io::Result<UserIdentity> {
        self.repeated.lock().unwrap().push(uid);
        match *self.fails.lock().unwrap() || uid == BROKEN {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(UserIdentity::nameless(uid)),
        }
    }

    fn group_name(&self, _: Gid) -> io::Result<Option<Box<str>>> {
        Ok(None)
    }

    fn exists(&self, name: &UnknownName) -> io::Result<bool> {
        self.asked.lock().unwrap().push((name.clone(), Instant::now()));
        if *self.fails.lock().unwrap() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(self.known.lock().unwrap().contains(name))
    }
}

struct Watched {
    names: Arc<Names>,
    missing: Arc<MissingNames>,
    replies: Receiver<WorkerReply>,
}

impl Watched {
    fn new(first_pause: Duration) -> Self {
        let names = Arc::new(Names::default());
        let (answers, replies) = unbounded();
        let bell = Arc::new(EventFd::new().unwrap());
        let replies_to = ReplySender { answers, bell };
        let directory: Arc<dyn Directory> = Arc::clone(&names) as _;
        let missing = MissingNames::with_pause(directory, replies_to, first_pause);
        Self { names, missing, replies }
    }

    fn appears(&self, name: &UnknownName) {
        self.names.known.lock().unwrap().insert(name.clone());
    }

    fn expect_reload(&self) {
        let reply = self.replies.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(reply, WorkerReply::NamesAppeared));
    }

    fn asked(&self) -> Vec<(UnknownName, Instant)> {
        self.names.asked.lock().unwrap().clone()
    }

    fn wait_for_lookups(&self, count: usize) {
        let began = Instant::now();
        while self.asked().len() < count {
            assert!(began.elapsed() < PATIENCE, "{:?}", self.asked());
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.missing.stop();
    }
}

fn user(name: &str) -> UnknownName {
    UnknownName::User(name.to_owned())
}

fn group(name: &str) -> UnknownName {
    UnknownName::Group(name.to_owned())
}

#[test]
fn a_name_that_appears_causes_a_reload() {
    let watched = Watched::new(Duration::from_millis(5));
    watched.missing.watch(&[user("late"), group("late")]);
    watched.wait_for_lookups(4);
    assert!(watched.replies.is_empty());
    watched.appears(&group("late"));
    watched.expect_reload();
    // The rules that were read know the group.
    watched.missing.watch(&[user("late")]);
    watched.appears(&user("late"));
    watched.expect_reload();
    watched.missing.watch(&[]);
    while watched.replies.recv_timeout(SILENCE).is_ok() {}
    let count = watched.asked().len();
    thread::sleep(SILENCE);
    assert_eq!(watched.asked().len(), count, "nothing is missing any more");
}

#[test]
fn pauses_grow_and_a_reload_for_another_reason_keeps_them() {
    let watched = Watched::new(Duration::from_millis(10));
    watched.missing.watch(&[user("late")]);
    watched.wait_for_lookups(4);
    let asked = watched.asked();
    let pause = |index: usize| asked[index + 1].1 - asked[index].1;
    assert!(pause(0) >= Duration::from_millis(20), "{:?}", pause(0));
    assert!(pause(2) >= Duration::from_millis(80), "{:?}", pause(2));
    watched.missing.watch(&[user("late")]);
    let began = Instant::now();
    watched.wait_for_lookups(5);
    assert!(began.elapsed() >= Duration::from_millis(150), "{:?}", began.elapsed());
    watched.missing.watch(&[user("other")]);
    let began = Instant::now();
    watched.wait_for_lookups(6);
    assert!(began.elapsed() >= Duration::from_millis(10));
    assert_eq!(watched.asked()[5].0, user("other"));
}

#[test]
fn a_user_with_a_missing_name_that_is_seen_is_looked_up_at_once() {
    let watched = Watched::new(Duration::from_secs(3600));
    let seen = |name: &str| UserIdentity {
        name: Some(name.to_owned()),
        ..UserIdentity::nameless(Uid(61_900))
    };
    watched.missing.watch(&[user("late"), user("other")]);
    watched.missing.saw(&UserIdentity::nameless(Uid(61_900)));
    watched.missing.saw(&seen("known"));
    assert!(watched.replies.recv_timeout(SILENCE).is_err());
    assert_eq!(watched.asked(), []);
    watched.appears(&user("late"));
    watched.missing.saw(&seen("late"));
    watched.expect_reload();
    assert_eq!(watched.asked()[0].0, user("late"));
    // A name that can be found by its ID only must not cause one reload after the other.
    watched.missing.saw(&seen("other"));
    assert!(watched.replies.recv_timeout(SILENCE).is_err());
    assert_eq!(watched.asked().len(), 1);
}

#[test]
fn while_the_name_service_fails_one_name_is_asked_for_each_time() {
    let watched = Watched::new(Duration::from_millis(5));
    *watched.names.fails.lock().unwrap() = true;
    watched.missing.watch(&[user("a"), user("b")]);
    watched.wait_for_lookups(3);
    assert!(watched.asked().iter().all(|(name, _)| *name == user("a")));
    assert!(watched.replies.is_empty());
    watched.appears(&user("b"));
    *watched.names.fails.lock().unwrap() = false;
    watched.expect_reload();
}

#[test]
fn a_failed_lookup_is_repeated_until_the_service_answers() {
    let watched = Watched::new(Duration::from_millis(1));
    *watched.names.fails.lock().unwrap() = true;
    watched.missing.failed(LookupKey::User(BROKEN));
    watched.missing.failed(LookupKey::User(Uid(8)));
    let began = Instant::now();
    while watched.names.repeated.lock().unwrap().len() < 6 {
        assert!(began.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(1));
    }
    assert!(watched.replies.try_recv().is_err());
    *watched.names.fails.lock().unwrap() = false;
    // Not prevented by an ID that fails for ever.
    watched.expect_reload();
    assert!(watched.replies.recv_timeout(SILENCE).is_err());
    watched.missing.failed(LookupKey::User(BROKEN));
    assert!(watched.replies.recv_timeout(SILENCE).is_err());
}

#[test]
fn few_failed_lookups_are_kept() {
    let watched = Watched::new(Duration::from_secs(60));
    (0..1000).for_each(|uid| watched.missing.failed(LookupKey::User(Uid(uid))));
    assert_eq!(watched.missing.state().failed.keys.len(), MOST_FAILED);
}
