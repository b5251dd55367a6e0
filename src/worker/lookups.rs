//! Lookups in the name service, on a few threads of their own.
//!
//! A lookup takes as long as the directory server behind NSS does. With several threads one that is slow
//! delays no other user, and since they are not the thread that reads rules, a reload does not wait for a
//! lookup nor a lookup for a reload.
//!
//! The order is decided here, by the hot thread alone, which needs no lock for it: a thread is given a
//! lookup only when it is free.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::{Answer, Counter};
use crate::event::{Gid, Uid};
use crate::policy::User;
use crate::rules::matcher::Matcher;
use crate::rules::names::Identity;
use crate::sys;

/// Threads at most. Four slow lookups at a time delay others; NSS modules with a lock of their own gain
/// nothing from more.
pub(super) const MOST_THREADS: usize = 4;
/// One lookup of so many is the oldest that waits, so that a user who obtains one UID after the other, as
/// by subordinate UIDs, cannot keep an older request waiting for ever.
const OLDEST_EVERY: u64 = 4;

/// The name service. Called on several threads at a time, and may wait.
pub trait Directory: Send + Sync + 'static {
    /// Looks up the name of a user and the groups that list it.
    fn identify(&self, uid: Uid) -> Identity;
    /// Looks up the name of a group.
    fn group_name(&self, gid: Gid) -> Option<Box<str>>;
}

/// The id that a lookup is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum LookupKey {
    /// A user.
    User(Uid),
    /// A group.
    Group(Gid),
}

/// A request that is not answered.
struct Request {
    /// The policy that asked last, and its rules.
    generation: u64,
    matcher: Arc<Matcher>,
    /// Whether a thread has it.
    is_running: bool,
    /// Whether another policy asked while a thread had it. What is being looked up may be older than that
    /// policy, so it is looked up again.
    is_again: bool,
}

/// A lookup, as a thread is given it.
struct Lookup {
    key: LookupKey,
    generation: u64,
    matcher: Arc<Matcher>,
}

/// The requests that are not answered, and the threads.
pub(super) struct Lookups {
    directory: Arc<dyn Directory>,
    requests: HashMap<LookupKey, Request, FixedState>,
    /// The requests that no thread has, oldest first.
    waiting: VecDeque<LookupKey>,
    lookups: Sender<Lookup>,
    taken: Receiver<Lookup>,
    counter: Counter,
    threads: usize,
    running: usize,
    started: u64,
}

impl Lookups {
    /// Starts the first thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn open(directory: Arc<dyn Directory>, counter: Counter) -> io::Result<Self> {
        let (lookups, taken) = unbounded();
        let mut own = Self {
            directory,
            requests: HashMap::default(),
            waiting: VecDeque::new(),
            lookups,
            taken,
            counter,
            threads: 0,
            running: 0,
            started: 0,
        };
        own.start_thread()?;
        Ok(own)
    }

    /// Asks for an id by the rules of this generation. An id that is asked for already is not looked up
    /// twice at a time.
    pub(super) fn ask(&mut self, key: LookupKey, generation: u64, matcher: &Arc<Matcher>) {
        match self.requests.entry(key) {
            Entry::Occupied(mut entry) => {
                let request = entry.get_mut();
                let is_other = request.generation != generation;
                request.is_again |= request.is_running && is_other;
                request.generation = generation;
                request.matcher = Arc::clone(matcher);
            }
            Entry::Vacant(entry) => {
                let matcher = Arc::clone(matcher);
                entry.insert(Request { generation, matcher, is_running: false, is_again: false });
                self.waiting.push_back(key);
            }
        }
        self.start();
    }

    /// Takes note of an answer that came back.
    pub(super) fn note(&mut self, answer: &Answer) {
        let key = match answer {
            Answer::User { user, .. } => LookupKey::User(user.identity.uid),
            Answer::Group { gid, .. } => LookupKey::Group(*gid),
            Answer::Policy(_) | Answer::Examined { .. } | Answer::Readable(_) => return,
        };
        self.running = self.running.saturating_sub(1);
        if let Entry::Occupied(mut entry) = self.requests.entry(key) {
            if entry.get().is_again {
                (entry.get_mut().is_running, entry.get_mut().is_again) = (false, false);
                self.waiting.push_back(key);
            } else {
                entry.remove();
            }
        }
        self.start();
    }

    /// Gives lookups to threads that are free.
    fn start(&mut self) {
        while self.running < MOST_THREADS && !self.waiting.is_empty() {
            if self.running == self.threads {
                if let Err(error) = self.start_thread() {
                    // There is one at least, which takes them one by one.
                    ::log::error!("cannot start a thread for the name service: {error}");
                    return;
                }
            }
            let Some(key) = self.next() else { return };
            let Some(request) = self.requests.get_mut(&key) else { continue };
            request.is_running = true;
            let (generation, matcher) = (request.generation, Arc::clone(&request.matcher));
            // The threads end only with us.
            if self.lookups.send(Lookup { key, generation, matcher }).is_ok() {
                self.running += 1;
            }
        }
    }

    /// The next request: the newest, whose process has just begun; now and then the oldest.
    fn next(&mut self) -> Option<LookupKey> {
        self.started += 1;
        match self.started % OLDEST_EVERY {
            0 => self.waiting.pop_front(),
            _ => self.waiting.pop_back(),
        }
    }

    fn start_thread(&mut self) -> io::Result<()> {
        let (taken, counter) = (self.taken.clone(), self.counter.clone());
        let directory = Arc::clone(&self.directory);
        let builder = thread::Builder::new().name("names".into());
        builder.spawn(move || serve(&*directory, &taken, &counter))?;
        self.threads += 1;
        Ok(())
    }
}

fn serve(directory: &dyn Directory, taken: &Receiver<Lookup>, counter: &Counter) {
    while let Ok(Lookup { key, generation, matcher }) = taken.recv() {
        let answer = match key {
            LookupKey::User(uid) => {
                // What is known may be as old as the question.
                let asked = sys::monotonic();
                let identity = directory.identify(uid);
                Answer::User { generation, user: User::new(&matcher, identity, asked) }
            }
            LookupKey::Group(gid) => {
                Answer::Group { generation, gid, name: directory.group_name(gid) }
            }
        };
        if !counter.answer(answer) {
            return;
        }
    }
}

#[cfg(test)]
#[path = "lookups_tests.rs"]
mod tests;
