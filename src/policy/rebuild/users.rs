//! Names of the users that are known before their first event, by the name service.

use std::io;
use std::path::Path;
use std::thread::{self, ScopedJoinHandle};

use crate::event::{Gid, Pid, Uid};
use crate::kernel::process::ProcFs;
use crate::policy::load::{NameService, Subordinates, container_files};
use crate::policy::worker::Directory;
use crate::rules::Rule;
use crate::rules::container::ContainerKey;
use crate::rules::matcher::Matcher;
use crate::rules::names::{UnknownName, UserIdentity};

/// Number of simultaneous lookups of users while rules are read.
const LOOKUPS_AT_ONCE: usize = 4;

/// Returns the users that own a process now. Also the local users, if only their names are needed:
/// the groups that list a user can be groups of another source than the local files, and a lookup
/// of each local user would take too long.
pub(super) fn known_users(
    names: &NameService,
    matcher: &Matcher,
    subordinates: &Subordinates,
) -> Vec<UserIdentity> {
    if !matcher.asks_identity() {
        return Vec::new();
    }
    let needs_groups = names.nss && matcher.rules().iter().any(Rule::tests_groups);
    let mut known = if needs_groups { Vec::new() } else { names.identities() };
    known.sort_by_key(|identity| identity.uid);
    known.dedup_by_key(|identity| identity.uid);
    let mut unknown = owners();
    unknown.retain(|uid| known.binary_search_by_key(uid, |identity| identity.uid).is_err());
    unknown.retain(|&uid| subordinates.account_of(uid).is_none());
    known.extend(identified(names, &unknown));
    known
}

/// Looks up users, several simultaneously because a reload waits for all of them.
fn identified(directory: &impl Directory, uids: &[Uid]) -> Vec<UserIdentity> {
    let share = uids.len().div_ceil(LOOKUPS_AT_ONCE).max(1);
    thread::scope(|scope| {
        let threads: Vec<_> = uids
            .chunks(share)
            .map(|share| {
                let started =
                    thread::Builder::new().spawn_scoped(scope, move || look_up(directory, share));
                (share, started)
            })
            .collect();
        let found =
            threads.into_iter().map(|(share, thread)| match thread.map(ScopedJoinHandle::join) {
                Ok(Ok(found)) => found,
                Ok(Err(_)) | Err(_) => look_up(directory, share),
            });
        found.flatten().collect()
    })
}

/// Looks up users. One for which the name service fails is looked up again when a process of it is evaluated.
fn look_up(directory: &impl Directory, uids: &[Uid]) -> Vec<UserIdentity> {
    uids.iter().filter_map(|&uid| directory.identify(uid).ok()).collect()
}

impl Directory for NameService {
    fn identify(&self, uid: Uid) -> io::Result<UserIdentity> {
        self.identify(uid)
    }

    fn group_name(&self, gid: Gid) -> io::Result<Option<Box<str>>> {
        Ok(self.group_name(gid)?.map(String::into_boxed_str))
    }

    fn container_name(&self, key: ContainerKey) -> io::Result<Option<Box<str>>> {
        Ok(container_files::name(Path::new("/"), key)?.map(String::into_boxed_str))
    }

    fn exists(&self, name: &UnknownName) -> io::Result<bool> {
        match name {
            UnknownName::User(name) => Ok(self.uid(name)?.is_some()),
            UnknownName::Group(name) => Ok(self.gid(name)?.is_some()),
        }
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
        fn container_name(&self, _: ContainerKey) -> io::Result<Option<Box<str>>> {
            Ok(None)
        }

        fn identify(&self, uid: Uid) -> io::Result<UserIdentity> {
            thread::sleep(Duration::from_millis(100));
            self.0.lock().unwrap().push(uid);
            Ok(UserIdentity::nameless(uid))
        }

        fn group_name(&self, _: Gid) -> io::Result<Option<Box<str>>> {
            Ok(None)
        }

        fn exists(&self, _: &UnknownName) -> io::Result<bool> {
            Ok(false)
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
