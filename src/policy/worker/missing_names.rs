//! Names in rules that the name service did not know when the rules were read: they are looked up
//! again until they exist, and then the rules are read again.
//!
//! An account can appear late: the service that provides it starts after the daemon (sssd), or the
//! account exists only while it is used (systemd-homed, `DynamicUser=`). Nothing reports that, so
//! the names are looked up again with growing pauses, and at once when a process of a user with a
//! missing name is seen. A thread of its own does this, started when a name is missing: neither
//! reloads nor lookups of other users wait for it. It also repeats lookups of IDs that failed.

use std::collections::{BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::directory::{Directory, LookupKey};
use super::{ReplySender, WorkerReply};
use crate::config::escape::Escaped;
use crate::rules::names::{UnknownName, UserIdentity};

/// Pause before the first repeated lookup; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause. A name that is misspelt is looked up this often for ever.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Share of the time that lookups may take: with many names on a slow name service the pause is
/// longer than [`LONGEST_PAUSE`].
const PAUSE_PER_LOOKUP_TIME: u32 = 9;

/// Longest pause before a failed lookup is repeated: most failures are restarts of a service.
const LONGEST_FAILURE_PAUSE: Duration = Duration::from_secs(10);
/// Maximum number of failed lookups that are kept: when one of them succeeds, all users are looked up again.
const MOST_FAILED: usize = 64;
/// Number of failed lookups that are repeated at a time, in turn: a single ID may fail for ever.
const REPEATED: usize = 4;

/// Missing names, and the thread that looks them up.
pub(super) struct MissingNames {
    directory: Arc<dyn Directory>,
    replies: ReplySender,
    first_pause: Duration,
    state: Mutex<WatchState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct WatchState {
    names: BTreeSet<UnknownName>,
    /// Names of users of which a process was seen.
    seen: BTreeSet<UnknownName>,
    /// Time before which seen names are not looked up again.
    seen_due: Option<Instant>,
    due: Option<Instant>,
    pause: Duration,
    failed: FailedLookups,
    is_running: bool,
    is_over: bool,
}

/// Lookups of IDs that failed, the next to be repeated first.
#[derive(Debug, Default)]
struct FailedLookups {
    keys: VecDeque<LookupKey>,
    due: Option<Instant>,
    pause: Duration,
    repeated: Option<Instant>,
}

/// Lookups that are due.
enum DueLookups {
    Names(BTreeSet<UnknownName>),
    Failed(Vec<LookupKey>),
}

impl MissingNames {
    /// Creates the watch without any names.
    pub(super) fn new(directory: Arc<dyn Directory>, replies: ReplySender) -> Arc<Self> {
        Self::with_pause(directory, replies, FIRST_PAUSE)
    }

    fn with_pause(
        directory: Arc<dyn Directory>,
        replies: ReplySender,
        first_pause: Duration,
    ) -> Arc<Self> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Arc::new(Self { directory, replies, first_pause, state, changed })
    }

    /// Replaces the missing names by those of newly read rules.
    pub(super) fn watch(self: &Arc<Self>, names: &[UnknownName]) {
        let names: BTreeSet<UnknownName> = names.iter().cloned().collect();
        let mut state = self.state();
        // A reload for another reason must not begin with short pauses again.
        if state.names != names {
            state.names = names;
            state.pause = self.first_pause;
        }
        state.due = (!state.names.is_empty()).then(|| Instant::now() + state.pause);
        if !state.names.is_empty() {
            self.wake(&mut state);
        }
    }

    /// Has a lookup repeated that failed.
    pub(super) fn failed(self: &Arc<Self>, key: LookupKey) {
        let mut state = self.state();
        let now = Instant::now();
        let failed = &mut state.failed;
        if failed.keys.contains(&key) || failed.keys.len() >= MOST_FAILED {
            return;
        }
        failed.keys.push_back(key);
        if failed.due.is_none() {
            // A service that fails now and then does not cause a reload every second.
            let is_recent = |at: Instant| now - at < 2 * LONGEST_FAILURE_PAUSE;
            if !failed.repeated.is_some_and(is_recent) {
                failed.pause = self.first_pause;
            }
            failed.due = Some(now + failed.pause);
        }
        self.wake(&mut state);
    }

    /// Wakes the thread, or starts it.
    fn wake(self: &Arc<Self>, state: &mut WatchState) {
        self.changed.notify_all();
        if !state.is_running {
            let own = Arc::clone(self);
            let builder = thread::Builder::new().name("missing names".into());
            match builder.spawn(move || own.serve()) {
                Ok(_) => state.is_running = true,
                Err(error) => ::log::error!(
                    "cannot start the thread that looks up unknown names again: {error}; a name that \
                     appears needs 'cgrulectl reload'"
                ),
            }
        }
    }

    /// Has the name of a user looked up at once if it is missing: a process of the user runs.
    pub(super) fn saw(&self, identity: &UserIdentity) {
        let Some(name) = &identity.name else { return };
        let mut state = self.state();
        let name = UnknownName::User(name.clone());
        if state.names.contains(&name) {
            state.seen.insert(name);
            self.changed.notify_all();
        }
    }

    /// Stops the thread.
    pub(super) fn stop(&self) {
        self.state().is_over = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, WatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        while let Some(due) = self.next() {
            let is_over = match due {
                DueLookups::Names(names) => self.look_up(&names),
                DueLookups::Failed(keys) => self.repeat(keys),
            };
            if is_over.is_break() {
                return;
            }
        }
    }

    fn look_up(&self, names: &BTreeSet<UnknownName>) -> ControlFlow<()> {
        let began = Instant::now();
        let found = self.first_known(names);
        self.extend_pause(began.elapsed());
        let Some(name) = found else { return ControlFlow::Continue(()) };
        ::log::info!("{} exists now: the rules are read again", described(name));
        self.reload()
    }

    /// Repeats lookups that failed. If one succeeds, the users that had no name meanwhile are looked up again with
    /// the rules.
    fn repeat(&self, keys: Vec<LookupKey>) -> ControlFlow<()> {
        let began = Instant::now();
        let works = keys.iter().any(|key| match *key {
            LookupKey::User(uid) => self.directory.identify(uid).is_ok(),
            LookupKey::Group(gid) => self.directory.group_name(gid).is_ok(),
            LookupKey::Container(key) => self.directory.container_name(key).is_ok(),
        });
        let mut state = self.state();
        let failed = &mut state.failed;
        failed.pause = (failed.pause * 2).min(LONGEST_FAILURE_PAUSE);
        failed.repeated = Some(Instant::now());
        if !works {
            failed.keys.extend(keys);
            let pause = failed.pause.max(began.elapsed() * PAUSE_PER_LOOKUP_TIME);
            failed.due = Some(Instant::now() + pause);
            return ControlFlow::Continue(());
        }
        (failed.due, failed.keys) = (None, VecDeque::new());
        drop(state);
        ::log::info!("the name service answers again: the rules are read again");
        self.reload()
    }

    fn reload(&self) -> ControlFlow<()> {
        match self.replies.answer(WorkerReply::NamesAppeared) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }

    /// Waits until lookups are due, and returns them. `None` at the end.
    fn next(&self) -> Option<DueLookups> {
        let mut state = self.state();
        loop {
            if state.is_over {
                return None;
            }
            let now = Instant::now();
            let seen_due = if state.seen.is_empty() { None } else { state.seen_due.or(Some(now)) };
            if seen_due.is_some_and(|due| due <= now) {
                state.seen_due = Some(now + self.first_pause);
                return Some(DueLookups::Names(std::mem::take(&mut state.seen)));
            }
            if state.due.is_some_and(|due| due <= now) {
                return Some(DueLookups::Names(state.names.clone()));
            }
            if state.failed.due.is_some_and(|due| due <= now) {
                let count = state.failed.keys.len().min(REPEATED);
                return Some(DueLookups::Failed(state.failed.keys.drain(..count).collect()));
            }
            let until = [seen_due, state.due, state.failed.due].into_iter().flatten().min();
            let pause = until.map_or(LONGEST_PAUSE, |until| until - now);
            let woken = self.changed.wait_timeout(state, pause);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Returns the first name that exists now. After a failure of the name service the others are
    /// looked up next time.
    fn first_known<'n>(&self, names: &'n BTreeSet<UnknownName>) -> Option<&'n UnknownName> {
        for name in names {
            match self.directory.exists(name) {
                Ok(true) => return Some(name),
                Ok(false) => {}
                Err(error) => {
                    ::log::debug!("name service failed for {}: {error}", described(name));
                    return None;
                }
            }
        }
        None
    }

    fn extend_pause(&self, took: Duration) {
        let mut state = self.state();
        state.pause = (state.pause * 2).min(LONGEST_PAUSE);
        let pause = state.pause.max(took * PAUSE_PER_LOOKUP_TIME);
        state.due = (!state.names.is_empty()).then(|| Instant::now() + pause);
    }
}

fn described(name: &UnknownName) -> String {
    match name {
        UnknownName::User(name) => format!("user {}", Escaped(name)),
        UnknownName::Group(name) => format!("group {}", Escaped(name)),
    }
}

#[cfg(test)]
#[path = "missing_names_tests.rs"]
mod tests;
