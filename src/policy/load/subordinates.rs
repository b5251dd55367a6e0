//! Maps subordinate user IDs to their owners, from `/etc/subuid`; see subuid(5). It must not query
//! NSS.
//!
//! A user may run processes of all these IDs in user namespaces, so their resource usage counts for
//! that user. A range that only the name service has is unknown; its IDs count for themselves.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::event::Uid;

/// The bytes of the file that are read: about 65,536 lines.
const MAX_BYTES: u64 = 2 << 20;

/// A range of user IDs that a user may use in user namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SubordinateRange {
    first: Uid,
    count: u32,
    owner: Uid,
}

/// The ranges of a host, disjoint and sorted by their first ID.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subordinates(Box<[SubordinateRange]>);

impl Subordinates {
    /// Reads the file at `path`. Skips malformed lines, those with a user not among `uids`, and
    /// those that begin within an earlier range.
    pub(super) fn read(path: &Path, uids: &HashMap<String, Uid>) -> Self {
        let mut bytes = Vec::new();
        let opened = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
        if opened.is_err() {
            // A host without the file has no subordinate IDs.
            return Self::default();
        }
        Self::parse(&String::from_utf8_lossy(&bytes), uids)
    }

    fn parse(text: &str, uids: &HashMap<String, Uid>) -> Self {
        let mut ranges: Vec<SubordinateRange> =
            text.lines().filter_map(|line| range(line, uids)).collect();
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

    /// Returns the owner of `uid`, or `None` for an ID that is not subordinate.
    pub fn owner_of(&self, uid: Uid) -> Option<Uid> {
        let next = self.0.partition_point(|range| range.first <= uid);
        let range = self.0.get(next.checked_sub(1)?)?;
        (uid.0 - range.first.0 < range.count).then_some(range.owner)
    }
}

/// Parses a line such as `alice:100000:65536`.
fn range(line: &str, uids: &HashMap<String, Uid>) -> Option<SubordinateRange> {
    let mut fields = line.split(':');
    let owner = fields.next()?;
    let owner = uids.get(owner).copied().or_else(|| owner.parse().ok().map(Uid))?;
    let first = Uid(fields.next()?.parse().ok()?);
    let count = fields.next()?.trim_end().parse().ok().filter(|&count| count > 0)?;
    Some(SubordinateRange { first, count, owner })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uids() -> HashMap<String, Uid> {
        HashMap::from([("alice".to_owned(), Uid(1000)), ("7".to_owned(), Uid(1001))])
    }

    #[test]
    fn ranges_by_name_and_number() {
        let text = "alice:100000:65536\n# comment\n\nbob:1:2\n1002:300000:10 \n7:200000:5\nalice:x:1\n\
                    alice:5:0\nalice:165535:9\n";
        let ranges = Subordinates::parse(text, &uids());
        let owners = [99_999, 100_000, 165_535, 165_536, 200_000, 200_004, 200_005, 300_009, 1, 5]
            .map(|uid| ranges.owner_of(Uid(uid)).map_or(0, |owner| owner.0));
        assert_eq!(owners, [0, 1000, 1000, 0, 1001, 1001, 0, 1002, 0, 0]);
    }

    #[test]
    fn a_host_without_the_file_has_none() {
        assert_eq!(Subordinates::read(Path::new("/nonexistent"), &uids()), Subordinates::default());
    }

    proptest! {
        #[test]
        fn any_text_gives_disjoint_ranges(text in "([a-z0-9]{0,5}:[0-9]{0,10}:[0-9]{0,10}\n){0,20}") {
            let ranges = Subordinates::parse(&text, &uids()).0;
            let is_disjoint =
                |pair: &[SubordinateRange]| pair[0].first.0.saturating_add(pair[0].count) <= pair[1].first.0;
            prop_assert!(ranges.windows(2).all(is_disjoint));
        }
    }
}
