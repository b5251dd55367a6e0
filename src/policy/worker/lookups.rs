//! Lookups in the name service on a few dedicated threads. A slow lookup must not delay those of
//! other users.
//!
//! A lookup takes as long as the directory server behind NSS. With several threads a slow lookup
//! does not delay those of other users, and because the rule thread is a separate one, reloads and
//! lookups do not wait for each other.
//!
//! The hot thread alone determines the order, which needs no lock: a lookup is passed to a thread
//! only when one is idle.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::directory::{Directory, LookupKey};
use super::missing_names::MissingNames;
use super::{ReplySender, WorkerReply};
use crate::policy::User;
use crate::rules::matcher::Matcher;
use crate::rules::names::UserIdentity;
use crate::sys;

/// Maximum number of threads. Four simultaneous slow lookups delay others; NSS modules that
/// serialize lookups by a lock gain nothing from more.
pub(super) const MOST_THREADS: usize = 4;
/// Interval of lookups at which the oldest request is taken. It prevents that a user who obtains
/// one UID after the other, for example by subordinate UIDs, delays an older request for ever.
const OLDEST_EVERY: u64 = 4;

/// Request that has no reply yet.
struct LookupRequest {
    /// Generation of the last policy that requested it, and its rules.
    generation: u64,
    matcher: Arc<Matcher>,
    /// True while a thread processes it.
    is_running: bool,
    /// True if another policy requested it while it was being processed. The result may be older
    /// than that policy, so the lookup is repeated.
    is_again: bool,
}

/// Request as it is passed to a thread.
struct Lookup {
    key: LookupKey,
    generation: u64,
    matcher: Arc<Matcher>,
}

/// Pending requests, and the threads that process them.
pub(super) struct Lookups {
    directory: Arc<dyn Directory>,
    requests: HashMap<LookupKey, LookupRequest, FixedState>,
    /// Requests that no thread processes, oldest first.
    waiting: VecDeque<LookupKey>,
    lookups: Sender<Lookup>,
    taken: Receiver<Lookup>,
    counter: ReplySender,
    missing: Arc<MissingNames>,
    threads: usize,
    running: usize,
    started: u64,
}

impl Lookups {
    /// Starts the first thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn open(
        directory: Arc<dyn Directory>,
        counter: ReplySender,
        missing: Arc<MissingNames>,
    ) -> io::Result<Self> {
        let (lookups, taken) = unbounded();
        let mut own = Self {
            directory,
            requests: HashMap::default(),
            waiting: VecDeque::new(),
            lookups,
            taken,
            counter,
            missing,
            threads: 0,
            running: 0,
            started: 0,
        };
        own.start_thread()?;
        Ok(own)
    }

    /// Requests a lookup for the rules of this generation. An ID is never looked up twice at the
    /// same time.
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
                entry.insert(LookupRequest {
                    generation,
                    matcher,
                    is_running: false,
                    is_again: false,
                });
                self.waiting.push_back(key);
            }
        }
        self.start();
    }

    /// Completes the request of a reply that arrived.
    pub(super) fn note(&mut self, answer: &WorkerReply) {
        let key = match answer {
            WorkerReply::User { user, .. } => LookupKey::User(user.identity.uid),
            WorkerReply::Group { gid, .. } => LookupKey::Group(*gid),
            WorkerReply::Container { key, .. } => LookupKey::Container(*key),
            WorkerReply::Policy(_)
            | WorkerReply::Planned(_)
            | WorkerReply::Examined { .. }
            | WorkerReply::Readable(_)
            | WorkerReply::Manager(_)
            | WorkerReply::NamesAppeared => return,
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

    /// Passes requests to idle threads.
    fn start(&mut self) {
        while self.running < MOST_THREADS && !self.waiting.is_empty() {
            if self.running == self.threads {
                if let Err(error) = self.start_thread() {
                    // At least one thread exists, which processes all requests in turn.
                    ::log::error!("cannot start another name service thread: {error}");
                    return;
                }
            }
            let Some(key) = self.next() else { return };
            let Some(request) = self.requests.get_mut(&key) else { continue };
            request.is_running = true;
            let generation = request.generation;
            let matcher = Arc::clone(&request.matcher);
            // The threads do not exit before this value is dropped.
            if self.lookups.send(Lookup { key, generation, matcher }).is_ok() {
                self.running += 1;
            }
        }
    }

    /// Returns the next request: the newest one, since its process has just started, or the oldest
    /// one at every fourth call.
    fn next(&mut self) -> Option<LookupKey> {
        self.started += 1;
        match self.started % OLDEST_EVERY {
            0 => self.waiting.pop_front(),
            _ => self.waiting.pop_back(),
        }
    }

    fn start_thread(&mut self) -> io::Result<()> {
        let taken = self.taken.clone();
        let counter = self.counter.clone();
        let directory = Arc::clone(&self.directory);
        let missing = Arc::clone(&self.missing);
        let builder = thread::Builder::new().name("names".into());
        builder.spawn(move || serve(&*directory, &taken, &counter, &missing))?;
        self.threads += 1;
        Ok(())
    }
}

fn serve(
    directory: &dyn Directory,
    taken: &Receiver<Lookup>,
    counter: &ReplySender,
    missing: &Arc<MissingNames>,
) {
    while let Ok(Lookup { key, generation, matcher }) = taken.recv() {
        let answer = match key {
            LookupKey::User(uid) => {
                // Read before the lookup: the result may be as old as that.
                let asked = sys::monotonic();
                // Without an answer the user has no name and no groups until it is repeated.
                let identity = directory.identify(uid).unwrap_or_else(|error| {
                    ::log::warn!("cannot look up uid {uid} in the name service: {error}");
                    missing.failed(key);
                    UserIdentity::nameless(uid)
                });
                missing.saw(&identity);
                WorkerReply::User { generation, user: User::new(&matcher, identity, asked) }
            }
            LookupKey::Group(gid) => {
                let name = directory.group_name(gid).unwrap_or_else(|error| {
                    ::log::warn!("cannot look up gid {gid} in the name service: {error}");
                    missing.failed(key);
                    None
                });
                WorkerReply::Group { generation, gid, name }
            }
            LookupKey::Container(key) => {
                let name = directory.container_name(key).unwrap_or_else(|error| {
                    let (engine, id) = (key.engine.name(), key.id.shown());
                    ::log::warn!("cannot read the name of the {engine} container {id}: {error}");
                    None
                });
                WorkerReply::Container { generation, key, name }
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
