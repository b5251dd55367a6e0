//! Lists of rules that share a key, and the tests that remain for each of them.

use super::criteria::UserFacts;
use super::{ExeTest, Facts, Rule, RuleId};

/// The tests that remain for a rule found in an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ResidualTests(u8);

impl ResidualTests {
    /// No test: the rule matches.
    pub(super) const NOTHING: Self = Self(0);
    /// The executable must be a file of the host.
    pub(super) const ON_HOST: Self = Self(1);
    /// The users that the rule excludes.
    pub(super) const NOT_USERS: Self = Self(2);
    /// The groups that the rule excludes.
    pub(super) const NOT_GROUPS: Self = Self(4);
    /// The executables that the rule excludes.
    pub(super) const NOT_EXES: Self = Self(8);
    /// The groups that the rule requires.
    pub(super) const GROUPS: Self = Self(16);
    /// The executables that the rule requires. This is the highest bit in which entries of one rule
    /// can differ, so of two entries the one with fewer tests sorts first.
    pub(super) const EXES: Self = Self(32);
    /// Conditions that only the caller can test: the rule may turn out not to match.
    pub(super) const CONDITIONAL: Self = Self(64);

    #[inline]
    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    #[must_use]
    pub(super) fn with(self, other: Self, given: bool) -> Self {
        if given { Self(self.0 | other.0) } else { self }
    }

    /// Returns the tests of a rule other than those under `when`.
    pub(super) fn of_rest(rule: &Rule) -> Self {
        Self::NOTHING
            .with(Self::CONDITIONAL, rule.is_conditional())
            .with(Self::NOT_USERS, !rule.not.users.is_empty())
            .with(Self::NOT_GROUPS, !rule.not.groups.is_empty())
            .with(Self::NOT_EXES, !rule.not.exes.is_empty())
    }
}

/// A rule in a list and its remaining tests. Lists are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ListedRule {
    pub(super) id: RuleId,
    pub(super) residue: ResidualTests,
}

impl ListedRule {
    /// Returns the executables under `when`.
    pub(super) fn exes<'r>(&self, rules: &'r [Rule]) -> &'r [ExeTest] {
        &rules[self.id.0 as usize].when.exes
    }
}

/// One lookup, with the data that all indexes need.
#[derive(Clone, Copy)]
pub(super) struct Query<'a> {
    pub(super) rules: &'a [Rule],
    pub(super) facts: &'a Facts<'a>,
    pub(super) person: UserFacts<'a>,
    /// The first rule that may match: of the earlier ones, each does not match, or has failed conditions.
    pub(super) from: u32,
}

impl Query<'_> {
    /// Returns the first matching rule of a list, if it comes before `best`; otherwise `best`.
    #[inline]
    pub(super) fn first_of(&self, list: &[ListedRule], best: u32) -> u32 {
        // Earlier rules have been tried: with 1,000 conditional rules, to look at them again and again
        // would take a million steps.
        let list = match self.from {
            0 => list,
            from => &list[list.partition_point(|entry| entry.id.0 < from)..],
        };
        for entry in list {
            if entry.id.0 >= best {
                break;
            }
            if self.holds(*entry) {
                return entry.id.0;
            }
        }
        best
    }

    /// Checks whether a rule found in an index matches.
    #[inline]
    pub(super) fn holds(&self, entry: ListedRule) -> bool {
        match entry.residue {
            ResidualTests::NOTHING => true,
            ResidualTests::ON_HOST => self.is_on_host(),
            _ => self.rest_matches(entry),
        }
    }

    fn is_on_host(&self) -> bool {
        self.facts.exe.is_some_and(|exe| exe.on_host)
    }

    fn rest_matches(&self, entry: ListedRule) -> bool {
        let Some(rule) = self.rules.get(entry.id.0 as usize) else { return false };
        let rest = entry.residue;
        let person = &self.person;
        let facts = self.facts;
        (self.is_on_host() || !rest.has(ResidualTests::ON_HOST))
            && (!rest.has(ResidualTests::EXES) || rule.exe_matches(facts))
            && (!rest.has(ResidualTests::GROUPS) || rule.when.groups_match(facts.gid, person))
            && !(rest.has(ResidualTests::NOT_USERS) && rule.not.users_match(person))
            && !(rest.has(ResidualTests::NOT_GROUPS) && rule.not.groups_match(facts.gid, person))
            && !(rest.has(ResidualTests::NOT_EXES) && rule.exe_excluded(facts))
    }
}

/// Sorts a list of rules that all match one key and removes unreachable ones: everything after a
/// rule that always matches and, after one that matches every file of the host, those that require
/// a file of the host.
pub(super) fn prune(list: &mut Vec<ListedRule>) {
    list.sort_unstable();
    list.dedup_by_key(|entry| entry.id);
    let mut host_taken = false;
    let mut all_taken = false;
    list.retain(|entry| {
        let taken = all_taken || host_taken && entry.residue.has(ResidualTests::ON_HOST);
        all_taken |= entry.residue == ResidualTests::NOTHING;
        host_taken |= entry.residue == ResidualTests::ON_HOST;
        !taken
    });
}
