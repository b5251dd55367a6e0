//! Defines the meaning of a set of rules by readable code: every rule is tried in order.

use cgruled::event::Gid;
use cgruled::rules::names::UserIdentity;
use cgruled::rules::{Criteria, ExeTest, Facts, GroupTest, Rule, RuleId, UserTest, base_name};

/// Returns the first rule from `from` on for which every criterion under `when` matches
/// and none under `not` does.
pub(crate) fn first_match(
    rules: &[Rule],
    who: &UserIdentity,
    facts: &Facts<'_>,
    from: u32,
) -> Option<RuleId> {
    let mut later = (0..).map(RuleId).zip(rules).skip(from as usize);
    later.find(|(_, rule)| holds(rule, who, facts)).map(|(id, _)| id)
}

fn holds(rule: &Rule, who: &UserIdentity, facts: &Facts<'_>) -> bool {
    let Rule { when, not, .. } = rule;
    let counts = facts.exe.is_some_and(|exe| exe.on_host || rule.exe_anywhere);
    (when.users.is_empty() || user_holds(when, who))
        && (when.groups.is_empty() || group_holds(when, who, facts.gid))
        && (when.exes.is_empty() || counts && exe_matches(when, facts))
        && !user_holds(not, who)
        && !group_holds(not, who, facts.gid)
        && !(counts && exe_matches(not, facts))
}

fn user_holds(criteria: &Criteria, who: &UserIdentity) -> bool {
    criteria.users.iter().any(|test| match test {
        UserTest::Name(_) | UserTest::NameOrId(..) => false,
        UserTest::Human(uids) => {
            uids.ranges().iter().any(|(first, last)| *first <= who.uid && who.uid <= *last)
        }
        UserTest::Ids(first, last) => *first <= who.uid && who.uid <= *last,
        UserTest::Glob(glob) => match &who.name {
            Some(name) => glob.matches(name.as_bytes()),
            None => [&b"*"[..], b"**"].contains(&glob.as_bytes()),
        },
    })
}

fn group_holds(criteria: &Criteria, who: &UserIdentity, gid: Gid) -> bool {
    criteria.groups.iter().any(|test| match test {
        GroupTest::Name(_) | GroupTest::NameOrId(..) | GroupTest::Glob(_) => false,
        GroupTest::Ids(first, last) => {
            let within = |gid: &Gid| first <= gid && gid <= last;
            within(&gid) || who.listed_in.iter().any(within)
        }
    })
}

fn exe_matches(criteria: &Criteria, facts: &Facts<'_>) -> bool {
    let Some(exe) = facts.exe else { return false };
    [Some(exe.path), facts.invoked].into_iter().flatten().any(|path| {
        criteria.exes.iter().any(|test| match test {
            ExeTest::Path(own) => own == path,
            ExeTest::PathGlob(glob) => glob.matches(path),
            ExeTest::Base(own) => own == base_name(path),
            ExeTest::BaseGlob(glob) => glob.matches(base_name(path)),
        })
    })
}
