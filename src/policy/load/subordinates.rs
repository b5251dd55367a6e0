//! Maps subordinate user IDs to their owners, from `/etc/subuid`; see subuid(5).
//!
//! A user may run processes of all these IDs in user namespaces, so their resource usage counts for
//! that user, and so does a cgroup whose path contains the user. A range that only the name service
//! has (`subid:` in nsswitch.conf) is unknown; its IDs count for themselves.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::text_file;
use crate::event::Uid;

/// The bytes of the file that are read: about 65,536 lines.
const MAX_BYTES: u64 = 2 << 20;
/// Owners that are looked up by NSS, because they are not local: the rules wait for them.
const MAX_LOOKUPS: usize = 64;

/// A range of user IDs that a user may use in user namespaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SubordinateRange {
    first: Uid,
    count: u32,
    /// `None` if the name service does not know the user named in the file.
    owner: Option<Uid>,
    /// `None` if the file has the UID of a user without a name.
    name: Option<Box<str>>,
}

/// The ranges of a host, disjoint and sorted by their first ID.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subordinates(Box<[SubordinateRange]>);

/// The user who owns a subordinate ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubordinateOwner<'s> {
    /// The UID of the owner, or the first ID of the range if the name service does not know the owner.
    pub uid: Uid,
    /// The name of the owner, if it has one.
    pub name: Option<&'s str>,
}

/// Looks up a user in the name service; fails if that does.
type LookUp = fn(&str) -> io::Result<Option<Uid>>;

/// The users that can be named in the file.
pub(super) struct OwnerNames {
    uids: HashMap<String, Uid>,
    names: HashMap<Uid, String>,
    look_up: LookUp,
    /// Number of names that may still be looked up.
    lookups: usize,
}

impl OwnerNames {
    /// Creates the names of these local users, and of those that `look_up` finds.
    pub(super) fn new(uids: HashMap<String, Uid>, look_up: LookUp) -> Self {
        let names = uids.iter().map(|(name, &uid)| (uid, name.clone())).collect();
        Self { uids, names, look_up, lookups: MAX_LOOKUPS }
    }

    fn uid(&mut self, name: &str) -> Option<Uid> {
        let local = self.uids.get(name).copied();
        if local.is_some() || self.lookups == 0 {
            return local;
        }
        self.lookups -= 1;
        (self.look_up)(name).unwrap_or_else(|error| {
            ::log::warn!(
                "cannot look up the owners of ranges in /etc/subuid: {}: {error}",
                name.escape_debug()
            );
            // The rules must not wait for a name service that fails.
            self.lookups = 0;
            None
        })
    }
}

impl Subordinates {
    /// Reads the file at `path`. Skips malformed lines, and those that begin within an earlier range.
    pub(super) fn read(path: &Path, names: &mut OwnerNames) -> Self {
        Self::parse(&text_file::read(path, MAX_BYTES).unwrap_or_default(), names)
    }

    pub(super) fn parse(text: &str, names: &mut OwnerNames) -> Self {
        let mut ranges: Vec<SubordinateRange> =
            text.lines().filter_map(|line| range(line, names)).collect();
        ranges.sort();
        let mut end = 0;
        ranges.retain(|range| {
            let is_free = range.first.0 >= end;
            if is_free {
                end = range.first.0.saturating_add(range.count);
            }
            is_free
        });
        Self(ranges.into())
    }

    /// Parses the text of a file on a host with the local user alice (UID 1000).
    #[cfg(test)]
    pub(crate) fn for_test(text: &str) -> Self {
        let local = HashMap::from([("root".to_owned(), Uid(0)), ("alice".to_owned(), Uid(1000))]);
        Self::parse(text, &mut OwnerNames::new(local, |_| Ok(None)))
    }

    /// Returns the user who is accountable for `uid`, or `None` for an ID that is not subordinate. All IDs
    /// of a range of root count for its first: containers of root use them, and share nothing with root.
    pub fn account_of(&self, uid: Uid) -> Option<Uid> {
        let range = self.range_of(uid)?;
        Some(range.owner.filter(|owner| owner.0 != 0).unwrap_or(range.first))
    }

    /// Returns the owner of `uid`, or `None` for an ID that is not subordinate or is one of root.
    pub fn owner_of(&self, uid: Uid) -> Option<SubordinateOwner<'_>> {
        let range = self.range_of(uid).filter(|range| range.owner != Some(Uid(0)))?;
        let uid = range.owner.unwrap_or(range.first);
        Some(SubordinateOwner { uid, name: range.name.as_deref() })
    }

    fn range_of(&self, uid: Uid) -> Option<&SubordinateRange> {
        let next = self.0.partition_point(|range| range.first <= uid);
        let range = self.0.get(next.checked_sub(1)?)?;
        (uid.0 - range.first.0 < range.count).then_some(range)
    }
}

/// Returns all ranges of the file at `path`, each with its first and last ID.
pub(super) fn ranges(path: &Path) -> Vec<(Uid, Uid)> {
    let text = text_file::read(path, MAX_BYTES).unwrap_or_default();
    let parsed = text.lines().filter_map(fields);
    parsed.map(|(_, first, count)| (first, Uid(first.0.saturating_add(count - 1)))).collect()
}

fn range(line: &str, names: &mut OwnerNames) -> Option<SubordinateRange> {
    let (user, first, count) = fields(line)?;
    let number = user.parse().ok().map(Uid).filter(|_| !names.uids.contains_key(user));
    let (owner, name) = match number {
        Some(uid) => (number, names.names.get(&uid).map(|name| (**name).into())),
        None => (names.uid(user), Some(user.into())),
    };
    Some(SubordinateRange { first, count, owner, name })
}

/// Parses a line such as `alice:100000:65536`: the owner, the first ID and the number of IDs.
fn fields(line: &str) -> Option<(&str, Uid, u32)> {
    let mut fields = line.split(':');
    let owner = fields.next().filter(|owner| !owner.is_empty() && !owner.starts_with('#'))?;
    let first = Uid(fields.next()?.parse().ok()?);
    let count = fields.next()?.trim_end().parse().ok().filter(|&count| count > 0)?;
    Some((owner, first, count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names() -> OwnerNames {
        let local = [("root", 0), ("alice", 1000), ("7", 1001)];
        OwnerNames::new(local.map(|(name, uid)| (name.to_owned(), Uid(uid))).into(), |_| Ok(None))
    }

    #[test]
    fn ranges_by_name_and_number() {
        let text = "alice:100000:65536\n# comment\n\nbob:1:2\n1002:300000:10 \n7:200000:5\nalice:x:1\n\
                    alice:5:0\nalice:165535:9\n1000:400000:1\nroot:500000:9\n:600000:1\n";
        let ranges = Subordinates::parse(text, &mut names());
        let table = [
            (99_999, None),
            (100_000, Some((1000, Some("alice")))),
            (165_535, Some((1000, Some("alice")))),
            (165_536, None),
            (200_000, Some((1001, Some("7")))),
            (200_005, None),
            (300_009, Some((1002, None))),
            (400_000, Some((1000, Some("alice")))),
            // The name service does not know the owner.
            (2, Some((1, Some("bob")))),
            (5, None),
            (600_000, None),
        ];
        for (uid, expected) in table {
            let owner = ranges.owner_of(Uid(uid));
            assert_eq!(owner.map(|owner| (owner.uid.0, owner.name)), expected, "{uid}");
            let account = ranges.account_of(Uid(uid));
            assert_eq!(account, owner.map(|owner| owner.uid), "{uid}");
        }
        assert_eq!(ranges.owner_of(Uid(500_003)), None, "a container of root is nobody's");
        assert_eq!(ranges.account_of(Uid(500_003)), Some(Uid(500_000)));
    }

    #[test]
    fn a_host_without_the_file_has_none() {
        let read = Subordinates::read(Path::new("/nonexistent"), &mut names());
        assert_eq!(read, Subordinates::default());
    }

    proptest! {
        #[test]
        fn any_text_gives_disjoint_ranges(text in "([a-z0-9]{0,5}:[0-9]{0,10}:[0-9]{0,10}\n){0,20}") {
            let ranges = Subordinates::parse(&text, &mut names()).0;
            for pair in ranges.windows(2) {
                prop_assert!(pair[0].first.0.saturating_add(pair[0].count) <= pair[1].first.0);
            }
        }
    }
}
