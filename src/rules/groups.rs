//! Index of rules that require a group but no user, by group ID.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::gid_intervals::GidIntervals;
use super::index::Index;
use super::listed::ListedRule;
use super::{GroupTest, Rule, RuleId};
use crate::event::Gid;

/// The maximum width of a range stored under each of its IDs. Real ranges are either one group or
/// an allocation of thousands.
const NARROW: u32 = 16;

/// Rules by required group ID.
#[derive(Debug, Default)]
pub(super) struct GroupIndex {
    by_gid: HashTable<(Gid, Index)>,
    /// The rules of each ID again, for the plans of users listed in the group. Sorted.
    members: Vec<(Gid, RuleId)>,
    /// Wide ranges of rules that require nothing else.
    stretches: GidIntervals,
    /// All wide ranges, used to build plans.
    wide: Vec<(Gid, Gid, RuleId)>,
}

/// Rules collected before [`GroupIndex`] is built from them.
#[derive(Default)]
pub(super) struct GroupsBuilder {
    by_gid: HashMap<Gid, Vec<ListedRule>>,
    stretches: Vec<(Gid, Gid, RuleId)>,
    wide: Vec<(Gid, Gid, RuleId)>,
}

/// The result of adding a rule to the builder.
#[must_use]
pub(super) enum GroupSlot {
    /// Every group of the rule is indexed.
    All,
    /// A wide range is not indexed: the caller stores the rule elsewhere and tests the group.
    NotAll,
}

impl GroupsBuilder {
    /// Adds a rule. `only_group` means that it requires nothing else.
    pub(super) fn add(&mut self, rule: &Rule, entry: ListedRule, only_group: bool) -> GroupSlot {
        let mut filed = GroupSlot::All;
        for test in &rule.when.groups {
            let GroupTest::Ids(first, last) = test else { continue };
            if first > last {
                continue;
            }
            if last.0 - first.0 < NARROW {
                for gid in first.0..=last.0 {
                    self.by_gid.entry(Gid(gid)).or_default().push(entry);
                }
                continue;
            }
            self.wide.push((*first, *last, entry.id));
            if only_group {
                self.stretches.push((*first, *last, entry.id));
            } else {
                filed = GroupSlot::NotAll;
            }
        }
        filed
    }

    pub(super) fn build(self, rules: &[Rule]) -> GroupIndex {
        let mut members: Vec<_> = self
            .by_gid
            .iter()
            .flat_map(|(gid, entries)| entries.iter().map(|entry| (*gid, entry.id)))
            .collect();
        members.sort_unstable();
        members.shrink_to_fit();
        let mut by_gid = HashTable::with_capacity(self.by_gid.len());
        for (gid, entries) in self.by_gid {
            by_gid.insert_unique(hash(gid), (gid, Index::build(rules, entries)), |(gid, _)| {
                hash(*gid)
            });
        }
        GroupIndex {
            by_gid,
            members,
            stretches: GidIntervals::build(&self.stretches),
            wide: self.wide,
        }
    }
}

#[inline]
fn hash(gid: Gid) -> u64 {
    FixedState::with_seed(0).hash_one(gid.0)
}

impl GroupIndex {
    /// Returns the rules indexed under this ID.
    #[inline]
    pub(super) fn get(&self, gid: Gid) -> Option<&Index> {
        self.by_gid.find(hash(gid), |(own, _)| *own == gid).map(|(_, index)| index)
    }

    /// Returns the first rule that requires only a wide range containing `gid`.
    #[inline]
    pub(super) fn first_wide(&self, gid: Gid) -> Option<RuleId> {
        self.stretches.first(gid)
    }

    /// Adds every rule with a group test that accepts `gid`, for a user listed in that group.
    pub(super) fn add_listed(&self, gid: Gid, out: &mut Vec<RuleId>) {
        let from = self.members.partition_point(|(own, _)| *own < gid);
        let members = self.members[from..].iter().take_while(|(own, _)| *own == gid);
        out.extend(members.map(|(_, id)| *id));
        let wide = self.wide.iter().filter(|(first, last, _)| (*first..=*last).contains(&gid));
        out.extend(wide.map(|(_, _, id)| *id));
    }

    /// Returns the heap size in bytes.
    pub(super) fn heap(&self) -> usize {
        self.by_gid.allocation_size()
            + self.by_gid.iter().map(|(_, index)| index.heap()).sum::<usize>()
            + self.members.capacity() * size_of::<(Gid, RuleId)>()
            + self.stretches.heap()
            + self.wide.capacity() * size_of::<(Gid, Gid, RuleId)>()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config::rules_toml;
    use crate::rules::listed::ResidualTests;

    /// Returns a rule with these groups, each an ID or a range.
    fn rule(groups: &[String]) -> Rule {
        let text = format!("version = 1\n[[rule]]\ngroup = {groups:?}\ncgroup = \"a\"\n");
        let parsed = rules_toml::parse(&Arc::from(Path::new("/r.toml")), &text);
        parsed.rules.into_iter().next().unwrap().rule
    }

    #[test]
    fn each_part_of_the_index_is_counted() {
        let empty = GroupsBuilder::default().build(&[]).heap();
        assert!(empty < 64, "{empty}");
        // Each group is stored with its rules and again for its members; wide ranges are stored twice as well.
        let of_group = size_of::<(Gid, Index)>() + size_of::<(Gid, RuleId)>();
        let of_range = size_of::<(Gid, Gid, RuleId)>() + 2 * size_of::<Gid>();
        for (width, least) in [(0, of_group), (50, of_range)] {
            let range = |n: u32| format!("{}-{}", 100 * n, 100 * n + width);
            let rules = [rule(&(0..100).map(range).collect::<Vec<_>>())];
            let mut builder = GroupsBuilder::default();
            let entry = ListedRule { id: RuleId(0), residue: ResidualTests::NOTHING };
            let _is_indexed = builder.add(&rules[0], entry, true);
            let heap = builder.build(&rules).heap();
            assert!((100 * least..300 * least).contains(&heap), "{width}: {heap}, {least}");
        }
    }

    #[test]
    fn groups_have_different_hashes() {
        let all: std::collections::HashSet<u64> = (0..1000).map(|raw| hash(Gid(raw))).collect();
        assert_eq!(all.len(), 1000);
    }
}
