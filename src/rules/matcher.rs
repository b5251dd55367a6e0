//! Index over the rules that finds the first match in rule order, at a cost that does not grow with
//! the number of rules. It must not do I/O or allocate during a decision.
//!
//! Rules are separated by the user that they require. Rules without a user or group are in one
//! shared index; rules with a group only are indexed by group ID; rules with a user are collected
//! in a [`UserPlan`] when that user is first seen, outside the hot path. A decision is the earliest
//! match of the three. Each part is indexed by executable.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::action::Which;
use super::criteria::UserFacts;
use super::destination::Specifier;
use super::exe::HashedPath;
use super::groups::{GroupIndex, GroupSlot, GroupsBuilder};
use super::index::Index;
use super::listed::{ListedRule, Query, ResidualTests};
use super::names::UserIdentity;
use super::{Criteria, Facts, Rule, RuleId, UserTest};
use crate::event::{Gid, Uid};

/// The compiled index over one set of rules.
#[derive(Debug)]
pub struct Matcher {
    rules: Arc<[Rule]>,
    /// The rules that require neither user nor group.
    shared: Index,
    /// The rules that require a group but no user.
    groups: GroupIndex,
    /// The rules that require a user.
    users: UserIndex,
    asks_identity: bool,
    /// Whether a rule observes.
    has_observing: bool,
    /// Whether `shared` or `groups` test names or listed groups, so that plans must store them.
    keeps_identity: bool,
}

/// The rules that remain for one user ID. Takes a few words for a user that no rule names, or for one
/// with the same rules as another, see [`SharedPlans`].
#[derive(Debug)]
pub struct UserPlan {
    rules: Arc<PlanRules>,
    /// The name and groups, if a rule outside the plan tests them.
    identity: Option<Box<UserIdentity>>,
}

/// The rules that accept a user, with their remaining tests.
#[derive(Debug)]
struct PlanRules {
    /// The rules from which the index was built.
    entries: Box<[ListedRule]>,
    index: Index,
}

/// The plans of all users, each set of rules stored once. A user can have 65,536 subordinate UIDs, and a
/// plan of 10,000 rules takes half a megabyte.
#[derive(Debug, Default)]
pub struct SharedPlans {
    by_hash: HashMap<u64, Vec<Arc<PlanRules>>, FixedState>,
    bytes: usize,
}

impl SharedPlans {
    /// Lets `plan` use the stored rules if they are the same, and stores them otherwise.
    pub fn share(&mut self, plan: &mut UserPlan) {
        let hash = FixedState::with_seed(0).hash_one(&plan.rules.entries);
        let known = self.by_hash.entry(hash).or_default();
        match known.iter().find(|known| known.entries == plan.rules.entries) {
            Some(known) => plan.rules = Arc::clone(known),
            None => {
                self.bytes += plan.rules.heap();
                known.push(Arc::clone(&plan.rules));
            }
        }
    }

    /// Returns the approximate size of all stored rules in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets all plans. Those in use stay valid.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl PlanRules {
    fn heap(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.entries) + self.index.heap()
    }
}

/// Rules by required user.
#[derive(Debug, Default)]
struct UserIndex {
    /// Single IDs, one entry per rule and user. Sorted.
    by_uid: Vec<(Uid, RuleId)>,
    ranges: Vec<(Uid, Uid, RuleId)>,
    /// The rules with a pattern or for human users, each once.
    others: Vec<RuleId>,
}

impl Matcher {
    /// Builds the index. The names in `rules` must have been replaced ([`super::names::resolve`]);
    /// a remaining name matches no user.
    pub fn compile(rules: Arc<[Rule]>) -> Self {
        let mut shared = Vec::new();
        let mut groups = GroupsBuilder::default();
        let mut users = UserIndex::default();
        let mut keeps_identity = false;
        for (id, rule) in (0..).map(RuleId).zip(rules.iter()) {
            let entry = ListedRule { id, residue: ResidualTests::of_rest(rule) };
            if asks_user(rule) {
                users.add(id, rule);
                continue;
            }
            keeps_identity |= asks_identity(&rule.not);
            if rule.when.groups.is_empty() {
                shared.push(entry);
            } else {
                let only_group =
                    rule.when.exes.is_empty() && entry.residue == ResidualTests::NOTHING;
                if let GroupSlot::NotAll = groups.add(rule, entry, only_group) {
                    keeps_identity = true;
                    let residue = entry.residue.with(ResidualTests::GROUPS, true);
                    shared.push(ListedRule { id, residue });
                }
            }
        }
        users.finish();
        Self {
            shared: Index::build(&rules, shared),
            groups: groups.build(&rules),
            users,
            asks_identity: rules.iter().any(|rule| {
                asks_identity(&rule.when)
                    || asks_identity(&rule.not)
                    || rule.needs_login_name()
                    || rule.needs_container_owner()
                    || rule.renders(&[Specifier::UserName])
            }),
            has_observing: rules.iter().any(|rule| rule.action.observes()),
            keeps_identity,
            rules,
        }
    }

    /// Returns the rules, indexed by [`RuleId`].
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Returns the rule of a decision, `None` for a decision of another matcher.
    pub fn rule(&self, id: RuleId) -> Option<&Rule> {
        self.rules.get(id.0 as usize)
    }

    /// Checks whether any rule depends on the name of a user or on the groups that list it. If not,
    /// the [`UserIdentity`] of a user can consist of the UID alone, without an NSS lookup.
    pub fn asks_identity(&self) -> bool {
        self.asks_identity
    }

    /// Checks whether a rule only observes.
    pub fn has_observing(&self) -> bool {
        self.has_observing
    }

    /// Collects the rules that can match a user. The cost depends on the number of rules with a
    /// range or pattern of users, not on that of all rules. The plan is valid only for this
    /// matcher.
    pub fn plan(&self, identity: &UserIdentity) -> UserPlan {
        let person = UserFacts {
            uid: identity.uid,
            name: identity.name.as_deref(),
            listed: &identity.listed_in,
        };
        let mut ids = Vec::new();
        self.users.add_matching(&self.rules, &person, &mut ids);
        identity.listed_in.iter().for_each(|gid| self.groups.add_listed(*gid, &mut ids));
        let end = self.shared.end();
        ids.retain(|id| id.0 < end);
        ids.sort_unstable();
        ids.dedup();
        let entries: Vec<ListedRule> =
            ids.into_iter().filter_map(|id| self.remaining(id, &person)).collect();
        let index = Index::build(&self.rules, entries.clone());
        UserPlan {
            rules: Arc::new(PlanRules { entries: entries.into(), index }),
            identity: self.keeps_identity.then(|| Box::new(identity.clone())),
        }
    }

    /// Returns the tests that remain once the user is known, `None` if the rule cannot match.
    fn remaining(&self, id: RuleId, person: &UserFacts<'_>) -> Option<ListedRule> {
        let rule = self.rules.get(id.0 as usize)?;
        if rule.not.users_match(person) || rule.not.groups_list(person) {
            return None;
        }
        let groups = !rule.when.groups.is_empty() && !rule.when.groups_list(person);
        let residue = ResidualTests::NOTHING
            .with(ResidualTests::GROUPS, groups)
            .with(ResidualTests::CONDITIONAL, rule.is_conditional())
            .with(ResidualTests::NOT_GROUPS, !rule.not.groups.is_empty())
            .with(ResidualTests::NOT_EXES, !rule.not.exes.is_empty());
        Some(ListedRule { id, residue })
    }

    /// Returns the first matching rule. `plan` must be that of `facts.uid`.
    ///
    /// Facts that were not read count as absent: an unread executable matches no rule and is
    /// excluded by none. [`Matcher::asks_exe`] reports whether reading it can change the result.
    ///
    /// A conditional rule ([`Rule::is_conditional`]) counts as matching. The caller tests its
    /// conditions and, if they are not met, continues with
    /// [`Matcher::decide_after`].
    pub fn decide(&self, plan: &UserPlan, facts: &Facts<'_>) -> Option<RuleId> {
        self.decide_from(plan, facts, 0)
    }

    /// Returns the first matching rule after `failed`, a conditional rule with unmet conditions.
    ///
    /// `failed` must be the result of [`Matcher::decide`] or of this function for the same process.
    pub fn decide_after(
        &self,
        plan: &UserPlan,
        facts: &Facts<'_>,
        failed: RuleId,
    ) -> Option<RuleId> {
        // Each rule before `failed` either does not match, or is conditional and failed too. So lists
        // may omit rules after one that always matches.
        self.decide_from(plan, facts, failed.0.saturating_add(1))
    }

    #[inline]
    fn decide_from(&self, plan: &UserPlan, facts: &Facts<'_>, from: u32) -> Option<RuleId> {
        let query = Query { rules: &self.rules, facts, person: plan.person(facts.uid), from };
        let group = self.groups.get(facts.gid);
        let mut best = plan.rules.index.first_listed(&query, u32::MAX);
        if let Some(group) = group {
            best = group.first_listed(&query, best);
        }
        if let Some(wide) = self.groups.first_wide(facts.gid) {
            best = best.min(wide.0);
        }
        best = self.shared.first_listed(&query, best);
        if let Some(exe) = facts.exe {
            for path in [Some(exe.path), facts.invoked].into_iter().flatten() {
                let indexes = [Some(&plan.rules.index), group, Some(&self.shared)];
                best = first_of_exe(indexes, &query, path, best);
            }
        }
        (best != u32::MAX).then_some(RuleId(best))
    }

    /// Checks whether more information about the executable could change `decision`, the result of
    /// [`Matcher::decide`] for this plan and group with the facts known so far.
    ///
    /// The caller decides without the executable first, reads it only if this returns true, and
    /// decides again; the same applies before it resolves `invoked`. The executable is never needed
    /// if no rule for the user and group tests one, or if a rule without one comes before all that
    /// do. Only tests of the rules in `which` count.
    pub fn asks_exe(
        &self,
        plan: &UserPlan,
        gid: Gid,
        decision: Option<RuleId>,
        which: Which,
    ) -> bool {
        let indexes = [Some(&plan.rules.index), Some(&self.shared), self.groups.get(gid)];
        let first = indexes.into_iter().flatten().map(|index| index.first_exe(which));
        let first = first.min().unwrap_or(u32::MAX);
        match decision {
            None => first != u32::MAX,
            // The selected rule may turn out not to match if it excludes an executable.
            Some(id) => first < id.0 || self.rule(id).is_some_and(|rule| !rule.not.exes.is_empty()),
        }
    }

    /// Returns the approximate size of the index in bytes, without the rules.
    pub fn heap(&self) -> usize {
        self.shared.heap() + self.groups.heap() + self.users.heap()
    }
}

/// Returns the first rule under `path` in any of `indexes`, if it comes before `best`.
#[inline]
fn first_of_exe(
    indexes: [Option<&Index>; 3],
    query: &Query<'_>,
    path: &[u8],
    mut best: u32,
) -> u32 {
    if !indexes.iter().flatten().any(|index| index.files_before(best)) {
        return best;
    }
    let candidate = HashedPath::new(path);
    for index in indexes.into_iter().flatten() {
        best = index.first_of_exe(query, &candidate, best);
    }
    best
}

/// Checks whether the rule selects users. A rule for `*` applies to all users and does not: it
/// would be stored in the plan of every user, thousands of times.
fn asks_user(rule: &Rule) -> bool {
    let everybody = rule.when.users.iter().any(|test| match test {
        UserTest::Glob(glob) => glob.is_any(),
        UserTest::Ids(first, last) => first.0 == 0 && last.0 == u32::MAX,
        UserTest::Human(_) | UserTest::Name(_) | UserTest::NameOrId(..) => false,
    });
    !rule.when.users.is_empty() && !everybody
}

/// Checks whether criteria need more of a user than its UID.
fn asks_identity(criteria: &Criteria) -> bool {
    !criteria.groups.is_empty()
        || criteria.users.iter().any(|test| matches!(test, UserTest::Glob(_)))
}

impl UserPlan {
    fn person(&self, uid: Uid) -> UserFacts<'_> {
        match &self.identity {
            Some(who) => UserFacts { uid, name: who.name.as_deref(), listed: &who.listed_in },
            None => UserFacts { uid, name: None, listed: &[] },
        }
    }

    /// Returns the approximate size of the plan in bytes.
    pub fn size(&self) -> usize {
        let identity = self.identity.as_ref().map_or(0, |identity| {
            size_of::<UserIdentity>()
                + identity.name.as_ref().map_or(0, String::len)
                + size_of_val(&*identity.listed_in)
        });
        // The empty set of rules is that of most users, who share it.
        let rules = if self.rules.entries.is_empty() { 0 } else { self.rules.heap() };
        size_of::<Self>() + rules + identity
    }
}

impl UserIndex {
    fn add(&mut self, id: RuleId, rule: &Rule) {
        let mut has_other = false;
        for test in &rule.when.users {
            match test {
                UserTest::Ids(first, last) if first == last => self.by_uid.push((*first, id)),
                UserTest::Ids(first, last) => self.ranges.push((*first, *last, id)),
                UserTest::Glob(_) | UserTest::Human(_) => has_other = true,
                UserTest::Name(_) | UserTest::NameOrId(..) => {}
            }
        }
        if has_other {
            self.others.push(id);
        }
    }

    fn finish(&mut self) {
        self.by_uid.sort_unstable();
        self.by_uid.shrink_to_fit();
        self.ranges.shrink_to_fit();
        self.others.shrink_to_fit();
    }

    fn add_matching(&self, rules: &[Rule], person: &UserFacts<'_>, out: &mut Vec<RuleId>) {
        let uid = person.uid;
        let from = self.by_uid.partition_point(|(own, _)| *own < uid);
        let single = self.by_uid[from..].iter().take_while(|(own, _)| *own == uid);
        out.extend(single.map(|(_, id)| *id));
        let ranges = self.ranges.iter().filter(|(first, last, _)| (*first..=*last).contains(&uid));
        out.extend(ranges.map(|(_, _, id)| *id));
        out.extend(self.others.iter().filter(|id| rules[id.0 as usize].when.users_match(person)));
    }

    fn heap(&self) -> usize {
        self.by_uid.capacity() * size_of::<(Uid, RuleId)>()
            + self.ranges.capacity() * size_of::<(Uid, Uid, RuleId)>()
            + self.others.capacity() * size_of::<RuleId>()
    }
}
