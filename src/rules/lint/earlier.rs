//! Indexes rules by what they require, to find the rules that may cover another one; it leaves the
//! comparison to its caller.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use crate::rules::glob::Glob;
use crate::rules::subsumption::{accepts_any_group, accepts_any_user, group_ids, user_ids};
use crate::rules::{ExeTest, Rule, UserTest, base_name};

/// The earlier rules, by their requirements.
#[derive(Default)]
pub(super) struct EarlierRules<'r> {
    by_key: HashMap<Key<'r>, Vec<usize>>,
    /// The lengths of the literal prefixes of patterns.
    prefix_lengths: BTreeSet<usize>,
    /// The sizes of the blocks of IDs, as exponents of 2.
    block_sizes: BTreeSet<u32>,
}

/// One requirement of a rule for the executable and one for the user or group; `None` without such
/// a requirement.
type Key<'r> = (Option<ExeKey<'r>>, Option<IdKey<'r>>);

#[derive(Clone, PartialEq, Eq, Hash)]
struct ExeKey<'r> {
    kind: ExeKeyKind,
    text: Cow<'r, [u8]>,
}

/// The part of an executable test that a key contains.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum ExeKeyKind {
    Path,
    Base,
    PathGlob,
    BaseGlob,
    /// The literal prefix of a pattern that has only stars after it. Such a pattern can cover
    /// another pattern.
    PathStart,
    BaseStart,
    /// The literal prefix of any other pattern.
    PathPrefix,
    BasePrefix,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum IdKey<'r> {
    User(IdBlock),
    UserGlob(&'r [u8]),
    Group(IdBlock),
}

/// The IDs that are equal without their last `size` bits. A range consists of at most 62 blocks, and
/// an ID is in one block of each size.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct IdBlock {
    size: u32,
    first: u32,
}

/// The number of keys above which the key of a rule contains only its executables.
const KEYS_MAX: usize = 256;

impl<'r> EarlierRules<'r> {
    pub(super) fn insert(&mut self, at: usize, rule: &'r Rule) {
        let exes = self.exe_keys(rule);
        let mut ids = self.id_keys(rule);
        if exes.len() * ids.len() > KEYS_MAX {
            ids = vec![None];
        }
        for exe in &exes {
            for id in &ids {
                self.by_key.entry((exe.clone(), id.clone())).or_default().push(at);
            }
        }
    }

    /// Returns the first earlier rule that `covers` the rule.
    pub(super) fn first(&self, rule: &Rule, covers: &dyn Fn(usize) -> bool) -> Option<usize> {
        let ids = self.ids_covering(rule);
        // A covering rule covers each test of a list, so the first one is enough.
        let exes = rule.when.exes.first().map_or_else(Vec::new, |test| self.exes_covering(test));
        let exes: Vec<Option<ExeKey<'_>>> = exes.into_iter().map(Some).chain([None]).collect();
        let mut first: Option<usize> = None;
        for exe in exes {
            for id in &ids {
                let Some(list) = self.by_key.get(&(exe.clone(), id.clone())) else { continue };
                let earlier = list.iter().copied();
                let earlier = earlier.take_while(|&n| first.is_none_or(|first| n < first));
                let mut covering = earlier.filter(|&n| covers(n));
                first = covering.next().or(first);
            }
        }
        first
    }

    fn exe_keys(&mut self, rule: &'r Rule) -> Vec<Option<ExeKey<'r>>> {
        if rule.when.exes.is_empty() {
            return vec![None];
        }
        rule.when.exes.iter().flat_map(|test| self.keys_of(test)).map(Some).collect()
    }

    fn keys_of(&mut self, test: &'r ExeTest) -> Vec<ExeKey<'r>> {
        let (whole, start, prefix, glob) = match test {
            ExeTest::Path(path) => return vec![exact(ExeKeyKind::Path, path)],
            ExeTest::Base(name) => return vec![exact(ExeKeyKind::Base, name)],
            ExeTest::PathGlob(glob) => {
                (ExeKeyKind::PathGlob, ExeKeyKind::PathStart, ExeKeyKind::PathPrefix, glob)
            }
            ExeTest::BaseGlob(glob) => {
                (ExeKeyKind::BaseGlob, ExeKeyKind::BaseStart, ExeKeyKind::BasePrefix, glob)
            }
        };
        let (literal, rest) = glob.split_prefix();
        self.prefix_lengths.insert(literal.len());
        let kind = if rest.iter().all(|&byte| byte == b'*') { start } else { prefix };
        vec![exact(whole, glob.as_bytes()), ExeKey { kind, text: literal }]
    }

    /// Returns the keys for the users of a rule, or for its groups if it is for all users.
    fn id_keys(&mut self, rule: &'r Rule) -> Vec<Option<IdKey<'r>>> {
        let mut keys = Vec::new();
        if !accepts_any_user(&rule.when) {
            for test in &rule.when.users {
                let blocks = user_ids(test).into_iter().flatten().flat_map(blocks);
                keys.extend(blocks.map(|block| Some(IdKey::User(block))));
                if let UserTest::Glob(glob) = test {
                    keys.push(Some(IdKey::UserGlob(glob.as_bytes())));
                }
            }
        } else if !accepts_any_group(&rule.when) {
            let ranges = rule.when.groups.iter().filter_map(group_ids);
            keys.extend(ranges.flat_map(blocks).map(|block| Some(IdKey::Group(block))));
        } else {
            keys.push(None);
        }
        for key in keys.iter().flatten() {
            match key {
                IdKey::User(block) | IdKey::Group(block) => self.block_sizes.insert(block.size),
                IdKey::UserGlob(_) => false,
            };
        }
        keys
    }

    /// Returns the keys of which every rule that covers this one has one. Names are resolved, and
    /// ranges not empty: a rule for which that is not so is for nobody.
    fn ids_covering<'n>(&self, rule: &'n Rule) -> Vec<Option<IdKey<'n>>> {
        let mut keys = vec![None];
        match rule.when.users.first() {
            Some(UserTest::Glob(glob)) => keys.push(Some(IdKey::UserGlob(glob.as_bytes()))),
            Some(test) => {
                let range = user_ids(test).and_then(|mut ids| ids.next());
                keys.extend(self.blocks_around(range, IdKey::User));
            }
            None => {}
        }
        let range = rule.when.groups.first().and_then(group_ids);
        keys.extend(self.blocks_around(range, IdKey::Group));
        keys
    }

    /// Returns the blocks that contain the first ID of a range.
    fn blocks_around<'n>(
        &self,
        range: Option<(u32, u32)>,
        key: fn(IdBlock) -> IdKey<'n>,
    ) -> impl Iterator<Item = Option<IdKey<'n>>> {
        let sizes = range.into_iter().flat_map(|(first, _)| {
            self.block_sizes.iter().map(move |&size| IdBlock::around(first, size))
        });
        sizes.map(move |block| Some(key(block)))
    }

    fn exes_covering<'n>(&self, test: &'n ExeTest) -> Vec<ExeKey<'n>> {
        let (mut keys, literals) = match test {
            ExeTest::Path(path) => {
                let name = base_name(path);
                let keys = vec![exact(ExeKeyKind::Path, path), exact(ExeKeyKind::Base, name)];
                let paths = (PATH_PATTERNS, Cow::Borrowed(&**path));
                (keys, vec![paths, (BASE_PATTERNS, Cow::Borrowed(name))])
            }
            ExeTest::Base(name) => {
                let keys = vec![exact(ExeKeyKind::Base, name)];
                (keys, vec![(BASE_PATTERNS, Cow::Borrowed(&**name))])
            }
            ExeTest::PathGlob(glob) => {
                let whole = exact(ExeKeyKind::PathGlob, glob.as_bytes());
                // The pattern * of a base name covers everything.
                let keys = vec![whole, exact(ExeKeyKind::BaseStart, b"")];
                (keys, vec![(&[ExeKeyKind::PathStart][..], Glob::literal_prefix(glob))])
            }
            ExeTest::BaseGlob(glob) => {
                let keys = vec![exact(ExeKeyKind::BaseGlob, glob.as_bytes())];
                (keys, vec![(&[ExeKeyKind::BaseStart][..], Glob::literal_prefix(glob))])
            }
        };
        for (kinds, literal) in literals {
            for &length in self.prefix_lengths.range(..=literal.len()) {
                let text: Cow<'n, [u8]> = match &literal {
                    Cow::Borrowed(literal) => Cow::Borrowed(&literal[..length]),
                    Cow::Owned(literal) => Cow::Owned(literal[..length].to_vec()),
                };
                keys.extend(kinds.iter().map(|&kind| ExeKey { kind, text: text.clone() }));
            }
        }
        keys
    }
}

const PATH_PATTERNS: &[ExeKeyKind] = &[ExeKeyKind::PathStart, ExeKeyKind::PathPrefix];
const BASE_PATTERNS: &[ExeKeyKind] = &[ExeKeyKind::BaseStart, ExeKeyKind::BasePrefix];

fn exact(kind: ExeKeyKind, text: &[u8]) -> ExeKey<'_> {
    ExeKey { kind, text: Cow::Borrowed(text) }
}

impl IdBlock {
    /// Returns the block of a size that contains an ID.
    fn around(id: u32, size: u32) -> Self {
        let first = id.checked_shr(size).map_or(0, |prefix| prefix << size);
        Self { size, first }
    }
}

/// Splits a range into the fewest blocks.
fn blocks((first, last): (u32, u32)) -> impl Iterator<Item = IdBlock> {
    let end = u64::from(last) + 1;
    let mut next = u64::from(first);
    std::iter::from_fn(move || {
        let left = end.checked_sub(next).filter(|&left| left > 0)?;
        let size = next.trailing_zeros().min(left.ilog2()).min(u32::BITS);
        let block = IdBlock { size, first: u32::try_from(next).ok()? };
        next += 1 << size;
        Some(block)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_the_sum_of_its_blocks() {
        let shown = |range| -> Vec<(u32, u32)> {
            blocks(range).map(|block| (block.first, block.size)).collect()
        };
        assert_eq!(shown((7, 7)), [(7, 0)]);
        assert_eq!(shown((1, 6)), [(1, 0), (2, 1), (4, 1), (6, 0)]);
        assert_eq!(shown((0, u32::MAX)), [(0, 32)]);
        assert_eq!(shown((u32::MAX, u32::MAX)), [(u32::MAX, 0)]);
        assert_eq!(shown((2, 1)), []);
        for range in [(1000, 59_999), (1, u32::MAX - 1)] {
            for id in [range.0, range.0 + 1, range.1 - 1, range.1] {
                let around = |block: IdBlock| IdBlock::around(id, block.size) == block;
                assert_eq!(blocks(range).filter(|&block| around(block)).count(), 1, "{id}");
            }
        }
    }
}
