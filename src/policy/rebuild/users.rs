//! Names of the users that are known before their first event, by the name service.

use std::path::Path;
use std::thread::{self, ScopedJoinHandle};

use crate::event::{Gid, Pid, Uid};
use crate::kernel::process::ProcFs;
use crate::policy::load::NameService;
use crate::policy::worker::Directory;
use crate::rules::matcher::Matcher;
use crate::rules::names::UserIdentity;

/// Number of simultaneous lookups of users while rules are read.
const LOOKUPS_AT_ONCE: usize = 4;

/// Returns the users in the user database and those that own a process now.
pub(super) fn known_users(names: &NameService, matcher: &Matcher) -> Vec<UserIdentity> {
    if !matcher.asks_identity() {
        return Vec::new();
    }
    let mut known = names.identities();
    known.sort_by_key(|identity| identity.uid);
    known.dedup_by_key(|identity| identity.uid);
    let mut unknown = owners();
    unknown.retain(|uid| known.binary_search_by_key(uid, |identity| identity.uid).is_err());
    known.extend(identified(names, &unknown));
    known
}

/// Looks up users, several simultaneously because a reload waits for all of them.
fn identified(directory: &impl Directory, uids: &[Uid]) -> Vec<UserIdentity> {
    let share = uids.len().div_ceil(LOOKUPS_AT_ONCE).max(1);
    let look_up = |share: &[Uid]| -> Vec<UserIdentity> {
        share.iter().map(|&uid| directory.identify(uid)).collect()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = uids
            .chunks(share)
            .map(|share| {
                let started = thread::Builder::new().spawn_scoped(scope, move || look_up(share));
                (share, started)
            })
            .collect();
        let found =
            threads.into_iter().map(|(share, thread)| match thread.map(ScopedJoinHandle::join) {
                Ok(Ok(found)) => found,
                Ok(Err(_)) | Err(_) => look_up(share),
            });
        found.flatten().collect()
    })
}

impl Directory for NameService {
    /// Returns the UID without a name if the name service fails, which is logged.
    fn identify(&self, uid: Uid) -> UserIdentity {
        self.identify(uid).unwrap_or_else(|error| {
            ::log::warn!("cannot look up uid {uid} in the name service: {error}");
            UserIdentity::nameless(uid)
        })
    }

    fn group_name(&self, gid: Gid) -> Option<Box<str>> {
        let answer = self.group_name(gid).unwrap_or_else(|error| {
            ::log::warn!("cannot look up gid {gid} in the name service: {error}");
            None
        });
        answer.map(String::into_boxed_str)
    }
}

/// Returns the users that own a process.
fn owners() -> Vec<Uid> {
    let mut owners = Vec::new();
    let Ok(mut proc) = ProcFs::open(Path::new("/proc")) else { return owners };
    let mut pids: Vec<Pid> = Vec::new();
    if let Err(error) = proc.all(|pid| pids.push(pid)) {
        ::log::warn!("cannot list /proc: {error}");
    }
    owners.extend(pids.into_iter().filter_map(|pid| proc.open_process(pid)).map(|who| who.uid));
    owners.sort_unstable();
    owners.dedup();
    owners
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use super::*;

    /// Name service that takes 100 ms per lookup and records the lookups.
    #[derive(Default)]
    struct Slow(Mutex<Vec<Uid>>);

    impl Directory for Slow {
        fn identify(&self, uid: Uid) -> UserIdentity {
            thread::sleep(Duration::from_millis(100));
            self.0.lock().unwrap().push(uid);
            UserIdentity::nameless(uid)
        }

        fn group_name(&self, _: Gid) -> Option<Box<str>> {
            None
        }
    }

    #[test]
    fn owners_are_looked_up_once_each_and_several_at_a_time() {
        for count in [0, 1, 4, 9, 21] {
            let uids: Vec<Uid> = (0..count).map(Uid).collect();
            let slow = Slow::default();
            let before = Instant::now();
            let found: Vec<Uid> = identified(&slow, &uids).iter().map(|one| one.uid).collect();
            assert_eq!(found, uids);
            assert_eq!(slow.0.lock().unwrap().len(), uids.len());
            let one_by_one = Duration::from_millis(100) * count;
            assert!(count < 9 || before.elapsed() < one_by_one * 3 / 4, "{:?}", before.elapsed());
        }
    }
}
