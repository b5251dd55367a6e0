//! Whose the subordinate user IDs are: `/etc/subuid`, see subuid(5).
//!
//! A user may run processes of all these IDs in user namespaces, so what they consume counts for that user.
//! A range that only the name service has is not known; its IDs count for themselves.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::event::Uid;
use crate::policy::Subordinates;

/// Bytes of the file that are read: about 65,536 lines.
const MAX_BYTES: u64 = 2 << 20;

/// The ranges in the file at `path`, by their first ID. Lines that are malformed, whose user is not among
/// `uids`, or that begin within an earlier range do not count.
pub(super) fn read(path: &Path, uids: &HashMap<String, Uid>) -> Box<[Subordinates]> {
    let mut bytes = Vec::new();
    let opened = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
    if opened.is_err() {
        // A host without the file has no such IDs.
        return Box::default();
    }
    parse(&String::from_utf8_lossy(&bytes), uids)
}

fn parse(text: &str, uids: &HashMap<String, Uid>) -> Box<[Subordinates]> {
    let mut ranges: Vec<Subordinates> = text.lines().filter_map(|line| range(line, uids)).collect();
    ranges.sort();
    let mut end = 0;
    ranges.retain(|range| {
        let is_free = range.first.0 >= end;
        if is_free {
            end = range.first.0.saturating_add(range.count);
        }
        is_free
    });
    ranges.into()
}

/// `alice:100000:65536`
fn range(line: &str, uids: &HashMap<String, Uid>) -> Option<Subordinates> {
    let mut fields = line.split(':');
    let owner = fields.next()?;
    let owner = uids.get(owner).copied().or_else(|| owner.parse().ok().map(Uid))?;
    let first = Uid(fields.next()?.parse().ok()?);
    let count = fields.next()?.trim_end().parse().ok().filter(|&count| count > 0)?;
    Some(Subordinates { first, count, owner })
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
        let range = |first, count, owner| Subordinates { first: Uid(first), count, owner: Uid(owner) };
        let expected = [range(100_000, 65_536, 1000), range(200_000, 5, 1001), range(300_000, 10, 1002)];
        assert_eq!(*parse(text, &uids()), expected);
    }

    #[test]
    fn a_host_without_the_file_has_none() {
        assert!(read(Path::new("/nonexistent"), &uids()).is_empty());
    }

    proptest! {
        #[test]
        fn any_text_gives_disjoint_ranges(text in "([a-z0-9]{0,5}:[0-9]{0,10}:[0-9]{0,10}\n){0,20}") {
            let ranges = parse(&text, &uids());
            let is_disjoint = |pair: &[Subordinates]| {
                pair[0].first.0.saturating_add(pair[0].count) <= pair[1].first.0
            };
            prop_assert!(ranges.windows(2).all(is_disjoint));
        }
    }
}
