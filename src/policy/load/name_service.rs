//! Looks up users and groups: single names and IDs by NSS, lists from `/etc/passwd` and
//! `/etc/group`. It must not enumerate NSS, because a directory may have a million users. All
//! lookups may block as long as the name service does.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::unistd;

use super::subordinates::OwnerNames;
use super::{Subordinates, login_defs, nsswitch, subordinates};
use crate::event::{Gid, Uid};
use crate::rules::human::HumanUids;
use crate::rules::names::UserIdentity;
use crate::sys::accounts;

/// The maximum number of entries in a local list.
const MAX_ENTRIES: usize = 65_536;
/// The bytes of a local file that are read: 65,536 lines of 256 bytes.
const MAX_BYTES: u64 = 16 << 20;

/// The sources of users and groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameService {
    /// The file of local users, `/etc/passwd`.
    pub passwd: PathBuf,
    /// The file of local groups, `/etc/group`.
    pub group: PathBuf,
    /// True if names and IDs are looked up by NSS; else only the two files count.
    pub nss: bool,
    /// The file of subordinate user IDs, `/etc/subuid`.
    pub subuid: PathBuf,
    /// The file with the first UID of human users, `/etc/login.defs`.
    pub login_defs: PathBuf,
    /// The file with the sources of users and groups, `/etc/nsswitch.conf`.
    pub nsswitch: PathBuf,
}

impl Default for NameService {
    fn default() -> Self {
        Self { nss: true, ..Self::of_files(Path::new("/etc")) }
    }
}

impl NameService {
    /// Creates a service that knows only the users and groups of the files in this directory.
    pub fn of_files(directory: &Path) -> Self {
        Self {
            passwd: directory.join("passwd"),
            group: directory.join("group"),
            nss: false,
            subuid: directory.join("subuid"),
            login_defs: directory.join("login.defs"),
            nsswitch: directory.join("nsswitch.conf"),
        }
    }

    /// Returns the local users, each ID once: those that the daemon can plan for before it meets
    /// them. At most 65,536; none if the file cannot be read.
    pub fn identities(&self) -> Vec<UserIdentity> {
        let users = self.local_users();
        let mut listed = self.memberships(&users);
        let mut seen = HashSet::new();
        let first = users.into_iter().filter(|user| seen.insert(user.uid));
        let identities = first.map(|LocalUser { name, uid, gid }| {
            let listed_in = sorted(listed.remove(&name).unwrap_or_default());
            UserIdentity { uid, name: Some(name), listed_in, login_group: gid }
        });
        identities.collect()
    }

    /// Returns the identity of a user ID. An ID without a user has neither name nor groups.
    ///
    /// # Errors
    /// Returns an error if the name service failed: nothing is known.
    pub fn identify(&self, uid: Uid) -> io::Result<UserIdentity> {
        if !self.nss {
            let known = self.identities().into_iter().find(|identity| identity.uid == uid);
            return Ok(known.unwrap_or_else(|| nameless(uid)));
        }
        let Some(user) = accounts::user_by_uid(uid.0)? else { return Ok(nameless(uid)) };
        let name = CString::new(user.name.as_str())?;
        let groups = unistd::getgrouplist(&name, user.gid.into())?;
        // The list always has the primary group, which matches by the process's own GID only.
        let lists_user = accounts::group_lists(user.gid, &user.name)?;
        let groups = groups.into_iter().map(unistd::Gid::as_raw);
        let listed_in = groups.filter(|&gid| gid != user.gid || lists_user).map(Gid).collect();
        let (listed_in, login_group) = (sorted(listed_in), Some(Gid(user.gid)));
        Ok(UserIdentity { uid, name: Some(user.name), listed_in, login_group })
    }

    /// Returns the name of a user ID, or `None` for an ID without a user.
    ///
    /// # Errors
    /// Returns an error if the name service failed: nothing is known.
    pub fn user_name(&self, uid: Uid) -> io::Result<Option<String>> {
        if self.nss {
            return Ok(accounts::user_by_uid(uid.0)?.map(|user| user.name));
        }
        Ok(self.local_users().into_iter().find(|user| user.uid == uid).map(|user| user.name))
    }

    /// Returns the UID of a user name.
    ///
    /// # Errors
    /// Returns an error if the name service failed: nothing is known.
    pub fn uid(&self, name: &str) -> io::Result<Option<Uid>> {
        if self.nss { nss_uid(name) } else { Ok(self.local_names().uids.remove(name)) }
    }

    /// Returns the GID of a group name.
    ///
    /// # Errors
    /// Returns an error if the name service failed: nothing is known.
    pub fn gid(&self, name: &str) -> io::Result<Option<Gid>> {
        if self.nss { nss_gid(name) } else { Ok(self.local_names().gids.remove(name)) }
    }

    /// Returns the UID that a text on a command line means, as in a rule: that of the user with this
    /// name, else the number. `None` for an unknown name.
    ///
    /// # Errors
    /// Returns an error if the name service failed: nothing is known.
    pub fn uid_of(&self, text: &str) -> io::Result<Option<Uid>> {
        Ok(self.uid(text)?.or_else(|| text.parse().ok().map(Uid)))
    }

    /// Returns the GID that a text on a command line means, as [`Self::uid_of`].
    ///
    /// # Errors
    /// Returns an error if the name service failed: nothing is known.
    pub fn gid_of(&self, text: &str) -> io::Result<Option<Gid>> {
        Ok(self.gid(text)?.or_else(|| text.parse().ok().map(Gid)))
    }

    /// Returns the login group of a user, or `None` for an ID without a user.
    ///
    /// # Errors
    /// Returns an error if the name service failed: nothing is known.
    pub fn login_group(&self, uid: Uid) -> io::Result<Option<Gid>> {
        if self.nss {
            return Ok(accounts::user_by_uid(uid.0)?.map(|user| Gid(user.gid)));
        }
        let ids: Vec<(u32, u32)> = records(&self.passwd, |fields| {
            Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
        });
        let found = ids.into_iter().find(|(own, _)| *own == uid.0);
        Ok(found.map(|(_, gid)| Gid(gid)))
    }

    /// Returns the name of a group ID.
    ///
    /// # Errors
    /// Returns an error if the name service failed: nothing is known.
    pub fn group_name(&self, gid: Gid) -> io::Result<Option<String>> {
        if !self.nss {
            return Ok(self.group_names().into_iter().find(|known| known.0 == gid).map(|g| g.1));
        }
        Ok(accounts::group_by_gid(gid.0)?.map(|group| group.name))
    }

    /// Returns the names of the local groups. The first line with an ID is used, as in NSS.
    pub fn group_names(&self) -> BTreeMap<Gid, String> {
        let mut names = BTreeMap::new();
        for group in self.local_groups() {
            names.entry(group.gid).or_insert(group.name);
        }
        names
    }

    /// Returns the ranges of subordinate user IDs of this host.
    pub fn subordinates(&self) -> Subordinates {
        let look_up = if self.nss { nss_uid } else { |_: &str| Ok(None) };
        let mut names = OwnerNames::new(self.local_names().uids, look_up);
        Subordinates::read(&self.subuid, &mut names)
    }

    /// Returns the NSS modules that provide users, in order.
    pub fn user_sources(&self) -> Vec<String> {
        nsswitch::modules(&self.nsswitch, "passwd")
    }

    /// Checks whether the name service can have users or groups with names of digits that are not
    /// in the local files.
    pub(super) fn has_names_of_digits(&self) -> bool {
        self.nss
            && ["passwd", "group"].iter().any(|database| {
                nsswitch::have_names_of_digits(&nsswitch::modules(&self.nsswitch, database))
            })
    }

    /// Returns the UIDs of the human users of this host.
    pub fn human_uids(&self) -> HumanUids {
        HumanUids::new(login_defs::first_uid(&self.login_defs), subordinates::ranges(&self.subuid))
    }

    /// Returns the names and IDs in the local files.
    pub(super) fn local_names(&self) -> LocalNames {
        let mut names = LocalNames::default();
        for user in self.local_users() {
            names.uids.entry(user.name).or_insert(user.uid);
        }
        for group in self.local_groups() {
            names.gids.entry(group.name).or_insert(group.gid);
        }
        names
    }

    fn local_users(&self) -> Vec<LocalUser> {
        records(&self.passwd, |fields| {
            let uid = Uid(fields.get(2)?.parse().ok()?);
            let gid = fields.get(3).and_then(|gid| gid.parse().ok()).map(Gid);
            Some(LocalUser { name: fields[0].to_owned(), uid, gid })
        })
    }

    fn local_groups(&self) -> Vec<LocalGroup> {
        records(&self.group, |fields| {
            let gid = Gid(fields.get(2)?.parse().ok()?);
            let members = fields.get(3).unwrap_or(&"").split(',').map(str::trim);
            let members = members.filter(|name| !name.is_empty()).map(str::to_owned).collect();
            Some(LocalGroup { name: fields[0].to_owned(), gid, members })
        })
    }

    /// Returns the groups that list each of the users.
    fn memberships(&self, users: &[LocalUser]) -> HashMap<String, Vec<Gid>> {
        let known: HashSet<&str> = users.iter().map(|user| user.name.as_str()).collect();
        let mut listed: HashMap<String, Vec<Gid>> = HashMap::new();
        for group in self.local_groups() {
            let members = group.members.into_iter().filter(|name| known.contains(name.as_str()));
            members.for_each(|name| listed.entry(name).or_default().push(group.gid));
        }
        listed
    }
}

/// The names in the local files. The first line with a name is used, as in NSS.
#[derive(Debug, Default)]
pub(super) struct LocalNames {
    pub(super) uids: HashMap<String, Uid>,
    pub(super) gids: BTreeMap<String, Gid>,
}

struct LocalUser {
    name: String,
    uid: Uid,
    gid: Option<Gid>,
}

struct LocalGroup {
    name: String,
    gid: Gid,
    members: Vec<String>,
}

fn nameless(uid: Uid) -> UserIdentity {
    UserIdentity::nameless(uid)
}

fn sorted(mut gids: Vec<Gid>) -> Vec<Gid> {
    gids.sort_unstable();
    gids.dedup();
    gids
}

/// Reads the lines of a file in the format of `/etc/passwd`. NIS lines (`+`, `-`), comments and
/// malformed lines are skipped.
fn records<T>(path: &PathBuf, read: impl Fn(&[&str]) -> Option<T>) -> Vec<T> {
    let mut bytes = Vec::new();
    let complete = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
    if complete.is_err() {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    // A file at the limit may end in an incomplete line.
    let end = if bytes.len() as u64 == MAX_BYTES { text.rfind('\n') } else { None };
    let lines = text[..end.unwrap_or(text.len())].lines();
    let entries = lines.filter(|line| !line.starts_with(['#', '+', '-', ':']));
    let records = entries.filter_map(|line| read(&line.split(':').collect::<Vec<_>>()));
    records.take(MAX_ENTRIES).collect()
}

/// Returns the UID of a user by NSS.
pub(super) fn nss_uid(name: &str) -> io::Result<Option<Uid>> {
    Ok(accounts::user_by_name(name)?.map(|user| Uid(user.uid)))
}

/// Returns the GID of a group by NSS.
pub(super) fn nss_gid(name: &str) -> io::Result<Option<Gid>> {
    Ok(accounts::group_by_name(name)?.map(|group| Gid(group.gid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(passwd: &str, group: &str) -> (tempfile::TempDir, NameService) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("passwd"), passwd).unwrap();
        std::fs::write(directory.path().join("group"), group).unwrap();
        let service = NameService::of_files(directory.path());
        (directory, service)
    }

    #[test]
    fn local_lists_are_read() {
        let (_directory, service) = service(
            "root:x:0:0:root:/root:/bin/sh\n# c\n+nis\n:x:1:1\nbad:x:y\nalice:x:1000:1000::/:\n\
             toor:x:0:0::/:\nbob:x:1001:100",
            "root:x:0:\nweb:x:33:bob, alice,,ghost\nweb2:x:33:alice\nwheel:x:10:alice\nbroken\n",
        );
        fn identity(uid: u32, name: &str, gid: u32, listed: &[u32]) -> UserIdentity {
            UserIdentity {
                uid: Uid(uid),
                name: Some(name.to_owned()),
                listed_in: listed.iter().copied().map(Gid).collect(),
                login_group: Some(Gid(gid)),
            }
        }
        let expected = [
            identity(0, "root", 0, &[]),
            identity(1000, "alice", 1000, &[10, 33]),
            identity(1001, "bob", 100, &[33]),
        ];
        assert_eq!(service.identities(), expected);
        assert_eq!(service.identify(Uid(1001)).unwrap(), expected[2]);
        assert_eq!(service.identify(Uid(77)).unwrap(), nameless(Uid(77)));
        assert_eq!(service.local_names().uids["toor"], Uid(0));
    }

    #[test]
    fn lists_are_bounded() {
        let passwd: String = (0..70_000).map(|id| format!("u{id}:x:{id}:1\n")).collect();
        let (_directory, service) = service(&passwd, "");
        assert_eq!(service.identities().len(), MAX_ENTRIES);
    }

    #[test]
    fn missing_files_have_nobody() {
        let service = NameService::of_files(Path::new("/nonexistent"));
        assert_eq!(service.identities(), []);
    }

    #[test]
    fn nss_knows_root() {
        let root = NameService::default().identify(Uid(0)).unwrap();
        assert_eq!(root.name.as_deref(), Some("root"));
        assert_eq!(nss_uid("root").unwrap(), Some(Uid(0)));
        assert_eq!(nss_gid("no such group").unwrap(), None);
        assert_eq!(NameService::default().identify(Uid(61_999)).unwrap(), nameless(Uid(61_999)));
    }
}
