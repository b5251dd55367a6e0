//! Rules that ask for a group and for no user, by group id. Pure.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::index::{Entry, Index};
use super::stretches::Stretches;
use super::{GroupTest, Rule, RuleId};
use crate::event::Gid;

/// Ranges up to this width are filed under each of their ids. Real ones are either one group or an
/// allocation of thousands.
const NARROW: u32 = 16;

/// Rules by group id.
#[derive(Debug, Default)]
pub(super) struct Groups {
    by_gid: HashTable<(Gid, Index)>,
    /// The rules of each id once more, for the plans of users whom the group lists. Sorted.
    members: Vec<(Gid, RuleId)>,
    /// Wide ranges of rules that ask for nothing else.
    stretches: Stretches,
    /// Every wide range, for plans.
    wide: Vec<(Gid, Gid, RuleId)>,
}

/// Rules on their way into [`Groups`].
#[derive(Default)]
pub(super) struct GroupsBuilder {
    by_gid: HashMap<Gid, Vec<Entry>>,
    stretches: Vec<(Gid, Gid, RuleId)>,
    wide: Vec<(Gid, Gid, RuleId)>,
}

/// What the builder could not file under a group id.
#[must_use]
pub(super) enum Filed {
    /// Everything.
    All,
    /// A wide range: the caller files the rule elsewhere and tests the group.
    NotAll,
}

impl GroupsBuilder {
    /// Files a rule. `only_group` says that it asks for nothing else.
    pub(super) fn add(&mut self, rule: &Rule, entry: Entry, only_group: bool) -> Filed {
        let mut filed = Filed::All;
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
                filed = Filed::NotAll;
            }
        }
        filed
    }

    pub(super) fn build(self, rules: &[Rule]) -> Groups {
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
        Groups { by_gid, members, stretches: Stretches::build(&self.stretches), wide: self.wide }
    }
}

#[inline]
fn hash(gid: Gid) -> u64 {
    FixedState::with_seed(0).hash_one(gid.0)
}

impl Groups {
    /// The rules filed under this id.
    #[inline]
    pub(super) fn get(&self, gid: Gid) -> Option<&Index> {
        self.by_gid.find(hash(gid), |(own, _)| *own == gid).map(|(_, index)| index)
    }

    /// The first rule that asks for a wide range with `gid` in it and for nothing else.
    #[inline]
    pub(super) fn first_wide(&self, gid: Gid) -> Option<RuleId> {
        self.stretches.first(gid)
    }

    /// Adds every rule whose groups hold for a user that `gid` lists.
    pub(super) fn add_listed(&self, gid: Gid, out: &mut Vec<RuleId>) {
        let from = self.members.partition_point(|(own, _)| *own < gid);
        let members = self.members[from..].iter().take_while(|(own, _)| *own == gid);
        out.extend(members.map(|(_, id)| *id));
        let wide = self.wide.iter().filter(|(first, last, _)| (*first..=*last).contains(&gid));
        out.extend(wide.map(|(_, _, id)| *id));
    }

    /// Bytes on the heap.
    pub(super) fn heap(&self) -> usize {
        self.by_gid.allocation_size()
            + self.by_gid.iter().map(|(_, index)| index.heap()).sum::<usize>()
            + self.members.capacity() * size_of::<(Gid, RuleId)>()
            + self.stretches.heap()
            + self.wide.capacity() * size_of::<(Gid, Gid, RuleId)>()
    }
}
