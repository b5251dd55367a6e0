//! Determines whether one rule matches every process that another rule matches. It must never answer
//! yes when that is not certain.
//!
//! Only the text of the rules is compared: patterns by equality, or by literal prefix if the rest
//! of the broader one is only stars.

use super::glob::Glob;
use super::{Criteria, ExeTest, GroupTest, Rule, UserTest, base_name};
use crate::event::Uid;

/// Checks whether `wide` matches every process that `narrow` matches.
pub(super) fn subsumes(wide: &Rule, narrow: &Rule) -> bool {
    // Everything that `wide` excludes must be excluded by `narrow` too.
    let exes_count = narrow.exe_anywhere || !wide.exe_anywhere;
    users_cover(&wide.when, &narrow.when)
        && groups_cover(&wide.when, &narrow.when)
        && (wide.when.exes.is_empty()
            || (wide.exe_anywhere || !narrow.exe_anywhere) && exes_cover(&wide.when, &narrow.when))
        && (wide.not.users.is_empty()
            || !narrow.not.users.is_empty() && users_cover(&narrow.not, &wide.not)
            || are_apart(&wide.not, &narrow.when))
        && (wide.not.groups.is_empty()
            || !narrow.not.groups.is_empty() && groups_cover(&narrow.not, &wide.not))
        && (wide.not.exes.is_empty()
            || !narrow.not.exes.is_empty() && exes_count && exes_cover(&narrow.not, &wide.not))
}

/// Checks whether the rule can match no process at all because it excludes everything that it
/// requires.
pub(super) fn is_empty(rule: &Rule) -> bool {
    let Rule { when, not, .. } = rule;
    !not.users.is_empty() && users_cover(not, when)
        || !not.groups.is_empty() && groups_cover(not, when)
        || !not.exes.is_empty() && !when.exes.is_empty() && exes_cover(not, when)
}

/// Checks whether the users of a rule are no restriction.
pub(super) fn accepts_any_user(when: &Criteria) -> bool {
    users_cover(when, &Criteria::default())
}

/// Checks whether the groups of a rule are no restriction.
pub(super) fn accepts_any_group(when: &Criteria) -> bool {
    groups_cover(when, &Criteria::default())
}

/// Checks whether `wide` accepts every user of `narrow`. An empty list of `wide` accepts all users.
fn users_cover(wide: &Criteria, narrow: &Criteria) -> bool {
    wide.users.is_empty()
        || wide.users.iter().any(is_everybody)
        || !narrow.users.is_empty() && all_users_in(&narrow.users, &wide.users)
}

/// Checks whether each user of `narrow` is certainly accepted by `wide`.
pub fn all_users_in(narrow: &[UserTest], wide: &[UserTest]) -> bool {
    let ids = merged(wide.iter().filter_map(user_ids).flatten().collect());
    wide.iter().any(is_everybody)
        || narrow.iter().all(|test| match test {
            UserTest::Ids(first, last) => has_all(&ids, (first.0, last.0)),
            UserTest::Human(_) => {
                user_ids(test).is_some_and(|mut own| own.all(|range| has_all(&ids, range)))
            }
            // A user that matches by name can have any UID.
            UserTest::Glob(_) => wide.contains(test),
            UserTest::Name(_) | UserTest::NameOrId(..) => true,
        })
}

/// Checks whether a user is certainly in both lists. Names are not resolved: patterns are only
/// compared for equality.
pub fn have_common_users(one: &[UserTest], other: &[UserTest]) -> bool {
    one.iter().any(|a| other.iter().any(|b| have_common_user(a, b)))
}

fn have_common_user(a: &UserTest, b: &UserTest) -> bool {
    match (user_ids(a), user_ids(b)) {
        (Some(mut ours), Some(_)) => ours.any(|range| overlaps(range, b)),
        (None, Some(_) | None) | (Some(_), None) => a == b || is_everybody(a) || is_everybody(b),
    }
}

/// Checks whether the test accepts all users, with or without a name.
fn is_everybody(test: &UserTest) -> bool {
    match test {
        UserTest::Ids(first, last) => first.0 == 0 && last.0 == u32::MAX,
        UserTest::Glob(glob) => glob.is_any(),
        UserTest::Name(_) | UserTest::NameOrId(..) | UserTest::Human(_) => false,
    }
}

/// Checks whether no user is in both lists, as far as both contain numeric IDs.
fn are_apart(one: &Criteria, other: &Criteria) -> bool {
    !other.users.is_empty()
        && other.users.iter().all(|test| {
            user_ids(test).is_some_and(|mut ids| ids.all(|range| is_outside(range, &one.users)))
        })
}

/// Checks whether all tests are for numeric IDs, none of which is in the range.
fn is_outside(range: (u32, u32), tests: &[UserTest]) -> bool {
    tests.iter().all(|test| user_ids(test).is_some() && !overlaps(range, test))
}

/// Checks whether the test accepts an ID of the range by its number.
fn overlaps((first, last): (u32, u32), test: &UserTest) -> bool {
    user_ids(test).is_some_and(|mut ids| ids.any(|(from, to)| from <= last && first <= to))
}

fn groups_cover(wide: &Criteria, narrow: &Criteria) -> bool {
    let ids = merged(wide.groups.iter().filter_map(group_ids).collect());
    // Every process has a group, so the whole range accepts all processes.
    if wide.groups.is_empty() || ids == [(0, u32::MAX)] {
        return true;
    }
    !narrow.groups.is_empty()
        && narrow.groups.iter().filter_map(group_ids).all(|range| has_all(&ids, range))
}

fn exes_cover(wide: &Criteria, narrow: &Criteria) -> bool {
    !narrow.exes.is_empty()
        && narrow.exes.iter().all(|test| wide.exes.iter().any(|own| exe_covers(own, test)))
}

fn exe_covers(wide: &ExeTest, narrow: &ExeTest) -> bool {
    match (wide, narrow) {
        (ExeTest::BaseGlob(glob), _) if glob.is_any() => true,
        (ExeTest::PathGlob(glob), ExeTest::Path(path)) => glob.matches(path),
        (ExeTest::Base(own), ExeTest::Path(path)) => own == base_name(path),
        (ExeTest::BaseGlob(glob), ExeTest::Path(path)) => glob.matches(base_name(path)),
        (ExeTest::BaseGlob(glob), ExeTest::Base(name)) => glob.matches(name),
        (ExeTest::PathGlob(own), ExeTest::PathGlob(other)) => own == other || begins(own, other, 2),
        // A base name contains no slash, so one star already matches any rest.
        (ExeTest::BaseGlob(own), ExeTest::BaseGlob(other)) => own == other || begins(own, other, 1),
        (ExeTest::Path(own), ExeTest::Path(other)) | (ExeTest::Base(own), ExeTest::Base(other)) => {
            own == other
        }
        (ExeTest::Path(_) | ExeTest::PathGlob(_) | ExeTest::Base(_), _)
        | (ExeTest::BaseGlob(_), ExeTest::PathGlob(_)) => false,
    }
}

/// Checks whether `wide` is a literal prefix followed by at least `stars` stars, and `narrow`
/// begins with that prefix.
fn begins(wide: &Glob, narrow: &Glob, stars: usize) -> bool {
    let (prefix, rest) = wide.split_prefix();
    rest.len() >= stars
        && rest.iter().all(|&byte| byte == b'*')
        && narrow.literal_prefix().starts_with(&prefix)
}

/// Returns the ID ranges of a test, `None` for a pattern. A range that ends before it begins is
/// empty and therefore part of every other.
pub(super) fn user_ids(test: &UserTest) -> Option<impl Iterator<Item = (u32, u32)>> {
    let (one, more): (_, &[(Uid, Uid)]) = match test {
        UserTest::Ids(first, last) => (Some((first.0, last.0)), &[]),
        UserTest::Human(uids) => (None, uids.ranges()),
        UserTest::Glob(_) | UserTest::Name(_) | UserTest::NameOrId(..) => return None,
    };
    Some(one.into_iter().chain(more.iter().map(|&(first, last)| (first.0, last.0))))
}

/// Returns the ID range of a group test, `None` for a name or pattern. Those match no process once
/// names are resolved.
pub(super) fn group_ids(test: &GroupTest) -> Option<(u32, u32)> {
    match test {
        GroupTest::Ids(first, last) => Some((first.0, last.0)),
        GroupTest::Glob(_) | GroupTest::Name(_) | GroupTest::NameOrId(..) => None,
    }
}

/// Returns the same IDs as sorted ranges that neither overlap nor touch.
fn merged(mut ranges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    ranges.retain(|(first, last)| first <= last);
    ranges.sort_unstable();
    let mut out: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match out.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            Some(_) | None => out.push((first, last)),
        }
    }
    out
}

fn has_all(merged: &[(u32, u32)], (first, last): (u32, u32)) -> bool {
    first > last || merged.iter().any(|&(from, to)| from <= first && last <= to)
}
