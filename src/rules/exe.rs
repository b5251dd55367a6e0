//! Index of rules by executable. Each test is stored under the most selective literal text of its
//! subjects, so that few rules are tried that do not match.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::glob::Glob;
use super::listed::{ListedRule, Query, ResidualTests, prune};
use super::pool_range::PoolRange;
use super::trie::Trie;
use super::{ExeTest, Rule, base_name};

/// The number of bytes of the end of a name that select patterns. No two real names differ only
/// before it.
const SUFFIX: usize = 64;

/// The maximum number of executable tests that are searched linearly. Most plans have fewer, and an
/// index takes half a kilobyte.
const FEW: usize = 4;

/// A lookup of rules by the literal texts of their tests.
///
/// A pattern without literal text at its beginning, at its end or as its last component, such as
/// `*foo*`, is tried for every executable.
#[derive(Debug)]
pub(super) struct ExeIndex {
    paths: Exact,
    bases: Exact,
    path_prefixes: Trie,
    base_prefixes: Trie,
    /// The last [`SUFFIX`] bytes of base names, last byte first.
    base_suffixes: Trie,
}

/// Rules by executable, as a list or an index depending on their number.
#[derive(Debug)]
pub(super) enum Exes {
    /// A list that is searched linearly. Sorted.
    Few(Box<[SmallIndex]>),
    /// An index for many tests.
    Many(Box<ExeIndex>),
}

/// One test of a rule. The hash is compared first, which avoids a cache miss on the rule itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct SmallIndex {
    entry: ListedRule,
    hash: Option<Hashed>,
}

#[derive(Clone, Copy, Debug)]
enum Hashed {
    Path(u64),
    Base(u64),
}

impl SmallIndex {
    fn new(entry: ListedRule, test: &ExeTest) -> Self {
        let hash = match test {
            ExeTest::Path(path) => Some(Hashed::Path(hash(path))),
            ExeTest::Base(base) => Some(Hashed::Base(hash(base))),
            ExeTest::PathGlob(_) | ExeTest::BaseGlob(_) => None,
        };
        Self {
            entry: ListedRule { residue: entry.residue.with(ResidualTests::EXES, true), ..entry },
            hash,
        }
    }

    #[inline]
    fn may_mean(&self, candidate: &HashedPath<'_>) -> bool {
        match self.hash {
            Some(Hashed::Path(hash)) => hash == candidate.path_hash,
            Some(Hashed::Base(hash)) => hash == candidate.base_hash,
            None => true,
        }
    }
}

impl Exes {
    /// Builds the list or index. `entries` must be sorted and belong to rules with an executable.
    pub(super) fn build(rules: &[Rule], entries: &[ListedRule]) -> Self {
        if entries.iter().map(|entry| entry.exes(rules).len()).sum::<usize>() > FEW {
            return Self::Many(Box::new(ExeIndex::build(rules, entries)));
        }
        let few = entries
            .iter()
            .flat_map(|entry| entry.exes(rules).iter().map(|test| SmallIndex::new(*entry, test)));
        Self::Few(few.collect())
    }

    /// Returns the first rule that matches `candidate`, if it comes before `best`; otherwise
    /// `best`.
    #[inline]
    pub(super) fn first(&self, query: &Query<'_>, candidate: &HashedPath<'_>, best: u32) -> u32 {
        match self {
            Self::Many(index) => index.first(query, candidate, best),
            Self::Few(few) => few
                .iter()
                .skip_while(|few| few.entry.id.0 < query.from)
                .take_while(|few| few.entry.id.0 < best)
                .filter(|few| few.may_mean(candidate))
                .find(|few| query.holds(few.entry))
                .map_or(best, |few| few.entry.id.0),
        }
    }

    /// Returns the heap size in bytes.
    pub(super) fn heap(&self) -> usize {
        match self {
            Self::Few(few) => size_of_val(&**few),
            Self::Many(index) => size_of::<ExeIndex>() + index.heap(),
        }
    }
}

/// A path to look up, hashed once for all indexes.
pub(super) struct HashedPath<'a> {
    path: &'a [u8],
    base: &'a [u8],
    path_hash: u64,
    base_hash: u64,
}

impl<'a> HashedPath<'a> {
    #[inline]
    pub(super) fn new(path: &'a [u8]) -> Self {
        let base = base_name(path);
        Self { path, base, path_hash: hash(path), base_hash: hash(base) }
    }
}

/// Hashes with a fixed seed. Only the administrator writes the keys of the tables, so no user can
/// cause collisions.
#[inline]
fn hash(bytes: &[u8]) -> u64 {
    FixedState::with_seed(0).hash_one(bytes)
}

/// The index key of a test and whether the key alone decides the test.
enum ExeSlot {
    Path(Vec<u8>),
    Base(Vec<u8>, bool),
    PathPrefix(Vec<u8>, bool),
    BasePrefix(Vec<u8>, bool),
    BaseSuffix(Vec<u8>, bool),
}

impl ExeSlot {
    fn of(test: &ExeTest) -> Self {
        match test {
            ExeTest::Path(path) => Self::Path(path.clone()),
            ExeTest::Base(base) => Self::Base(base.clone(), true),
            ExeTest::BaseGlob(glob) => Self::of_base_glob(glob),
            ExeTest::PathGlob(glob) => Self::of_path_glob(glob),
        }
    }

    fn of_base_glob(glob: &Glob) -> Self {
        let (prefix, rest) = glob.split_prefix();
        let stars = rest.iter().all(|&byte| byte == b'*');
        if rest.is_empty() {
            return Self::Base(prefix.into_owned(), true);
        }
        if prefix.is_empty() {
            let mut suffix = glob.literal_suffix();
            if !suffix.is_empty() {
                suffix.reverse();
                suffix.truncate(SUFFIX);
                return Self::BaseSuffix(suffix, false);
            }
        }
        Self::BasePrefix(prefix.into_owned(), stars)
    }

    fn of_path_glob(glob: &Glob) -> Self {
        let (prefix, rest) = glob.split_prefix();
        if rest.is_empty() {
            return Self::Path(prefix.into_owned());
        }
        if let Some(last) = glob.last_component() {
            // Without a later `/` the literal prefix of the path includes that of the last
            // component.
            let by_path = !rest.contains(&b'/');
            match Self::of_base_glob(&last) {
                Self::Base(base, _) => return Self::Base(base, false),
                Self::BaseSuffix(suffix, _) => return Self::BaseSuffix(suffix, false),
                Self::BasePrefix(base, _) if !base.is_empty() && !by_path => {
                    return Self::BasePrefix(base, false);
                }
                Self::BasePrefix(..) | Self::Path(_) | Self::PathPrefix(..) => {}
            }
        }
        let all_below = rest.len() > 1 && rest.iter().all(|&byte| byte == b'*');
        Self::PathPrefix(prefix.into_owned(), all_below)
    }
}

/// Keys collected before an index is built from them.
#[derive(Default)]
struct ExeKeys {
    paths: Vec<(Vec<u8>, ListedRule)>,
    bases: Vec<(Vec<u8>, ListedRule)>,
    path_prefixes: Vec<(Vec<u8>, ListedRule)>,
    base_prefixes: Vec<(Vec<u8>, ListedRule)>,
    base_suffixes: Vec<(Vec<u8>, ListedRule)>,
}

impl ExeKeys {
    fn add(&mut self, test: &ExeTest, entry: ListedRule) {
        let (list, key, decides) = match ExeSlot::of(test) {
            ExeSlot::Path(key) => (&mut self.paths, key, true),
            ExeSlot::Base(key, decides) => (&mut self.bases, key, decides),
            ExeSlot::PathPrefix(key, decides) => (&mut self.path_prefixes, key, decides),
            ExeSlot::BasePrefix(key, decides) => (&mut self.base_prefixes, key, decides),
            ExeSlot::BaseSuffix(key, decides) => (&mut self.base_suffixes, key, decides),
        };
        let residue = entry.residue.with(ResidualTests::EXES, !decides);
        list.push((key, ListedRule { residue, ..entry }));
    }
}

impl ExeIndex {
    pub(super) fn build(rules: &[Rule], entries: &[ListedRule]) -> Self {
        let mut filed = ExeKeys::default();
        for entry in entries {
            let rule = &rules[entry.id.0 as usize];
            let residue = entry.residue.with(ResidualTests::ON_HOST, !rule.exe_anywhere);
            for test in &rule.when.exes {
                filed.add(test, ListedRule { residue, ..*entry });
            }
        }
        Self::of_keys(filed)
    }

    fn of_keys(keys: ExeKeys) -> Self {
        Self {
            paths: Exact::build(keys.paths),
            bases: Exact::build(keys.bases),
            path_prefixes: Trie::build(keys.path_prefixes),
            base_prefixes: Trie::build(keys.base_prefixes),
            base_suffixes: Trie::build(keys.base_suffixes),
        }
    }

    /// Returns the first rule that matches `candidate`, if it comes before `best`; otherwise
    /// `best`.
    #[inline]
    pub(super) fn first(
        &self,
        query: &Query<'_>,
        candidate: &HashedPath<'_>,
        mut best: u32,
    ) -> u32 {
        let HashedPath { path, base, path_hash, base_hash } = *candidate;
        let take = |list: &[ListedRule], best: u32| query.first_of(list, best);
        best = self.paths.first(query, path, path_hash, best);
        best = self.bases.first(query, base, base_hash, best);
        best = self.path_prefixes.walk(path, best, take);
        best = self.base_prefixes.walk(base, best, take);
        if !self.base_suffixes.is_empty() {
            let mut end = [0; SUFFIX];
            let len = base.len().min(SUFFIX);
            end.iter_mut().zip(base.iter().rev()).for_each(|(to, from)| *to = *from);
            best = self.base_suffixes.walk(&end[..len], best, take);
        }
        best
    }

    /// Returns the heap size in bytes.
    pub(super) fn heap(&self) -> usize {
        self.paths.heap()
            + self.bases.heap()
            + self.path_prefixes.heap()
            + self.base_prefixes.heap()
            + self.base_suffixes.heap()
    }
}

/// Lists of rules by complete text.
#[derive(Debug, Default)]
struct Exact {
    table: HashTable<Bucket>,
    keys: Vec<u8>,
    entries: Vec<ListedRule>,
}

#[derive(Debug)]
struct Bucket {
    key: PoolRange,
    /// The first entry. Most lists have only this one, so it is stored inline.
    first: ListedRule,
    rest: PoolRange,
}

impl Exact {
    fn build(mut filed: Vec<(Vec<u8>, ListedRule)>) -> Self {
        filed.sort_unstable();
        // Called twice: the iterator cannot be cloned before Rust 1.87.
        let groups = || filed.chunk_by(|(a, _), (b, _)| a == b);
        let mut exact =
            Self { table: HashTable::with_capacity(groups().count()), ..Self::default() };
        let mut list = Vec::new();
        for group in groups() {
            list.clear();
            list.extend(group.iter().map(|(_, entry)| *entry));
            prune(&mut list);
            let key = PoolRange::push(&mut exact.keys, &group[0].0);
            let Some((&first, rest)) = list.split_first() else { continue };
            let bucket = Bucket { key, first, rest: PoolRange::push(&mut exact.entries, rest) };
            let keys = &exact.keys;
            exact.table.insert_unique(hash(&group[0].0), bucket, |own| hash(own.key.of(keys)));
        }
        exact.keys.shrink_to_fit();
        exact.entries.shrink_to_fit();
        exact
    }

    /// Returns the first matching rule under `key`, if it comes before `best`; otherwise `best`.
    #[inline]
    fn first(&self, query: &Query<'_>, key: &[u8], hash: u64, best: u32) -> u32 {
        match self.table.find(hash, |bucket| bucket.key.of(&self.keys) == key) {
            None => best,
            Some(bucket) if bucket.first.id.0 >= best => best,
            Some(bucket) if bucket.first.id.0 >= query.from && query.holds(bucket.first) => {
                bucket.first.id.0
            }
            Some(bucket) => query.first_of(bucket.rest.of(&self.entries), best),
        }
    }

    fn heap(&self) -> usize {
        self.table.allocation_size()
            + self.keys.capacity()
            + self.entries.capacity() * size_of::<ListedRule>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::RuleId;

    /// Returns the kind of index, its key, and whether the key alone decides.
    fn slot(test: &ExeTest) -> (&'static str, String, bool) {
        let (kind, key, decides) = match ExeSlot::of(test) {
            ExeSlot::Path(key) => ("path", key, true),
            ExeSlot::Base(key, decides) => ("base", key, decides),
            ExeSlot::PathPrefix(key, decides) => ("path prefix", key, decides),
            ExeSlot::BasePrefix(key, decides) => ("base prefix", key, decides),
            ExeSlot::BaseSuffix(key, decides) => ("base suffix", key, decides),
        };
        (kind, String::from_utf8(key).unwrap(), decides)
    }

    fn glob(text: &str) -> Glob {
        Glob::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_pattern_is_found_by_its_most_selective_text() {
        for (pattern, kind, key, decides) in [
            ("/usr/bin/x", "path", "/usr/bin/x", true),
            ("/opt/*/bin/app", "base", "app", false),
            ("/opt/**/app", "base", "app", false),
            ("/opt/*/*.jar", "base suffix", "raj.", false),
            ("/opt/*/py*", "base prefix", "py", false),
            ("/usr/bin/py*", "path prefix", "/usr/bin/py", false),
            ("/opt/*", "path prefix", "/opt/", false),
            ("/opt/**", "path prefix", "/opt/", true),
            ("/opt/a**/b*c?", "base prefix", "b", false),
            ("/opt/a*/b**", "path prefix", "/opt/a", false),
        ] {
            let found = slot(&ExeTest::PathGlob(glob(pattern)));
            assert_eq!(found, (kind, key.to_owned(), decides), "{pattern}");
        }
        for (pattern, kind, key, decides) in [
            ("x", "base", "x", true),
            ("php*", "base prefix", "php", true),
            ("php*x", "base prefix", "php", false),
            ("*foo", "base suffix", "oof", false),
            ("*foo*", "base prefix", "", false),
            ("*", "base prefix", "", true),
        ] {
            let found = slot(&ExeTest::BaseGlob(glob(pattern)));
            assert_eq!(found, (kind, key.to_owned(), decides), "{pattern}");
        }
    }

    #[test]
    fn the_hashes_of_a_list_exclude_other_programs() {
        let entry = ListedRule { id: RuleId(0), residue: ResidualTests::NOTHING };
        let tests = [
            (ExeTest::Path(b"/bin/x".to_vec()), [true, false, false]),
            (ExeTest::Base(b"x".to_vec()), [true, true, false]),
            (ExeTest::BaseGlob(glob("y*")), [true; 3]),
        ];
        for (test, expected) in tests {
            let own = SmallIndex::new(entry, &test);
            let may = ["/bin/x", "/usr/bin/x", "/bin/y"]
                .map(|path| own.may_mean(&HashedPath::new(path.as_bytes())));
            assert_eq!(may, expected, "{test:?}");
        }
    }

    #[test]
    fn each_part_of_the_index_is_counted() {
        let kinds: [fn(u32) -> ExeTest; 5] = [
            |n| ExeTest::Path(format!("/opt/{n}/x").into_bytes()),
            |n| ExeTest::Base(format!("x{n}").into_bytes()),
            |n| ExeTest::PathGlob(glob(&format!("/opt/{n}/**"))),
            |n| ExeTest::BaseGlob(glob(&format!("{n}-*"))),
            |n| ExeTest::BaseGlob(glob(&format!("*-{n}"))),
        ];
        for kind in kinds {
            let mut keys = ExeKeys::default();
            for n in 0..100 {
                keys.add(&kind(n), ListedRule { id: RuleId(n), residue: ResidualTests::NOTHING });
            }
            let index = ExeIndex::of_keys(keys);
            // Keys of one byte at least that differ, and an entry for each.
            let least = 100 * (1 + size_of::<ListedRule>());
            assert!(index.heap() >= least, "{:?}: {}", kind(0), index.heap());
        }
    }
}
