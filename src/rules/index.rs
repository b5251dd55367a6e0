//! Index of a set of rules that finds the first match without trying each rule.

use super::Rule;
use super::action::Which;
use super::exe::{Exes, HashedPath};
use super::listed::{ListedRule, Query, ResidualTests};

/// A set of rules, split into those with and without an executable.
#[derive(Debug)]
pub(super) struct Index {
    /// The rules without an executable, up to the first that always matches. Sorted.
    list: Box<[ListedRule]>,
    exes: Option<Exes>,
    /// The first rule that tests an executable, `u32::MAX` if none does.
    first_exe: u32,
    /// The first of them that does not only observe.
    first_acting_exe: u32,
}

impl Default for Index {
    fn default() -> Self {
        let none = u32::MAX;
        Self { list: Box::default(), exes: None, first_exe: none, first_acting_exe: none }
    }
}

impl Index {
    /// Builds the index. `entries` contain the tests that remain besides the executables under
    /// `when`.
    pub(super) fn build(rules: &[Rule], mut entries: Vec<ListedRule>) -> Self {
        entries.sort_unstable();
        entries.dedup_by_key(|entry| entry.id);
        let always = entries.iter().position(|entry| {
            entry.residue == ResidualTests::NOTHING && entry.exes(rules).is_empty()
        });
        entries.truncate(always.map_or(usize::MAX, |last| last + 1));
        let tests_exe = |entry: &&ListedRule| {
            entry.residue.has(ResidualTests::NOT_EXES) || !entry.exes(rules).is_empty()
        };
        let acts = |entry: &&ListedRule| !rules[entry.id.0 as usize].action.observes();
        let first = |entry: Option<&ListedRule>| entry.map_or(u32::MAX, |entry| entry.id.0);
        let first_exe = first(entries.iter().find(tests_exe));
        let first_acting_exe = first(entries.iter().filter(tests_exe).find(acts));
        let (list, exes): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| entry.exes(rules).is_empty());
        let exes = (!exes.is_empty()).then(|| Exes::build(rules, &exes));
        Self { list: list.into(), exes, first_exe, first_acting_exe }
    }

    /// Returns the first of these rules that tests an executable, `u32::MAX` if none does.
    pub(super) fn first_exe(&self, which: Which) -> u32 {
        match which {
            Which::All => self.first_exe,
            Which::Acting => self.first_acting_exe,
        }
    }

    /// Returns the last rule of the set if it always matches, because nothing after it is
    /// reachable.
    pub(super) fn end(&self) -> u32 {
        match self.list.last() {
            Some(entry) if entry.residue == ResidualTests::NOTHING => entry.id.0,
            Some(_) | None => u32::MAX,
        }
    }

    /// Returns the heap size in bytes.
    pub(super) fn heap(&self) -> usize {
        size_of_val(&*self.list) + self.exes.as_ref().map_or(0, Exes::heap)
    }

    /// Returns the first matching rule without an executable, if it comes before `best`.
    #[inline]
    pub(super) fn first_listed(&self, query: &Query<'_>, best: u32) -> u32 {
        query.first_of(&self.list, best)
    }

    /// Checks whether a rule with an executable comes before `best`.
    #[inline]
    pub(super) fn files_before(&self, best: u32) -> bool {
        self.exes.is_some() && self.first_exe < best
    }

    /// Returns the first matching rule with an executable, if it comes before `best`.
    #[inline]
    pub(super) fn first_of_exe(
        &self,
        query: &Query<'_>,
        candidate: &HashedPath<'_>,
        best: u32,
    ) -> u32 {
        match &self.exes {
            Some(exes) if self.first_exe < best => exes.first(query, candidate, best),
            Some(_) | None => best,
        }
    }
}
