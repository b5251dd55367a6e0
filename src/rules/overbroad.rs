//! Detects rules so broad that they would move the processes of systemd services.

use super::{Action, Criteria, GroupTest, LeaveUnits, Rule, UserTest};

/// The highest system UID and GID, as in systemd and the distributions.
const SYSTEM: u32 = 999;
/// Sample names that a pattern for all users matches.
const NAMES: [&[u8]; 4] = [b"root", b"daemon", b"www-data", b"nobody"];

/// The overly broad set of processes that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overbroad {
    /// All users, including root and services.
    Everybody,
    /// Processes of root.
    Root,
    /// System users, which run services.
    System,
}

/// Returns the breadth of a rule that would take processes from services: it moves processes of
/// root or of system users out of every unit, independent of the executable.
pub fn width(rule: &Rule) -> Option<Overbroad> {
    let places = matches!(&rule.action, Action::Place(_));
    let leaves = match &rule.leave_units {
        LeaveUnits::Yes | LeaveUnits::AsTheOriginal => true,
        LeaveUnits::Of(_) | LeaveUnits::No => false,
    };
    // A rule for some units or logins does not reach all services.
    let is_narrow = !rule.when.exes.is_empty() || rule.when.context.is_some();
    if !places || !leaves || is_narrow {
        return None;
    }
    let has_root = reaches(&rule.when, (0, 0), &NAMES[..1]);
    let has_system = reaches(&rule.when, (1, SYSTEM), &NAMES[1..]);
    match (has_root && !is_out(rule, 0), has_system && !is_out(rule, SYSTEM)) {
        (true, true) => Some(Overbroad::Everybody),
        (true, false) => Some(Overbroad::Root),
        (false, true) => Some(Overbroad::System),
        (false, false) => None,
    }
}

/// Checks whether processes with one of these IDs or user names can match.
fn reaches(when: &Criteria, (from, to): (u32, u32), names: &[&[u8]]) -> bool {
    let has_user = when.users.iter().any(|test| match test {
        UserTest::Name(_) | UserTest::NameOrId(..) => false,
        UserTest::Human(uids) => {
            uids.ranges().iter().any(|(first, last)| first.0 <= to && last.0 >= from)
        }
        UserTest::Glob(glob) => names.iter().any(|name| glob.matches(name)),
        UserTest::Ids(first, last) => first.0 <= to && last.0 >= from,
    });
    let has_group = when.groups.iter().any(|test| match test {
        GroupTest::Name(_) | GroupTest::NameOrId(..) | GroupTest::Glob(_) => false,
        GroupTest::Ids(first, last) => first.0 <= to && last.0 >= from,
    });
    (when.users.is_empty() || has_user) && (when.groups.is_empty() || has_group)
}

/// Checks whether the rule excludes all users from 1 to `last`, or root if `last` is 0.
fn is_out(rule: &Rule, last: u32) -> bool {
    rule.not.users.iter().any(|test| match test {
        UserTest::Name(_) | UserTest::NameOrId(..) | UserTest::Human(_) => false,
        UserTest::Glob(glob) => glob.is_any(),
        UserTest::Ids(from, to) => from.0 <= last.min(1) && to.0 >= last,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config::rules_toml;
    use crate::event::Uid;
    use crate::rules::human::HumanUids;

    fn of(keys: &str) -> Option<Overbroad> {
        let text = format!("version = 1\n[[rule]]\n{}", keys.replace("; ", "\n"));
        let parsed = rules_toml::parse(&Arc::from(Path::new("/a.toml")), &text);
        assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
        width(&parsed.rules[0].rule)
    }

    #[test]
    fn rules_that_would_empty_services() {
        let table = [
            ("user = \"*\"", Some(Overbroad::Everybody)),
            ("user = \"0-65535\"", Some(Overbroad::Everybody)),
            ("user = 0", Some(Overbroad::Root)),
            ("user = [5000, \"r*\"]", Some(Overbroad::Root)),
            ("user = \"*\"; not = { user = \"1-999\" }", Some(Overbroad::Root)),
            ("user = \"*\"; not = { user = 0 }", Some(Overbroad::System)),
            ("user = \"100-2000\"", Some(Overbroad::System)),
            ("user = 33", Some(Overbroad::System)),
            ("group = 33", Some(Overbroad::System)),
            ("group = 0", Some(Overbroad::Root)),
            ("user = \"*\"; not = { user = \"0-999\" }", None),
            ("user = \"1000-59999\"", None),
            ("user = \"*\"; group = 5000", None),
            ("user = \"site-*\"", None),
            ("user = \"*\"; exe = \"/usr/bin/x\"", None),
        ];
        for (criteria, expected) in table {
            let keys = format!("cgroup = \"a\"; leave_units = true; {criteria}");
            assert_eq!(of(&keys), expected, "{criteria}");
            assert_eq!(of(&format!("cgroup = \"a\"; {criteria}")), None, "{criteria}");
            assert_eq!(of(&format!("ignore = true; {criteria}")), None, "{criteria}");
        }
    }

    /// The range of human users is that of the host.
    #[test]
    fn human_users_are_system_users_only_where_their_range_has_these() {
        let parsed = rules_toml::parse(
            &Arc::from(Path::new("/a.toml")),
            "version = 1\n[[rule]]\nuser = 5\ncgroup = \"a\"\nleave_units = true\n",
        );
        let of = |first: u32| {
            let mut rule = parsed.rules[0].rule.clone();
            rule.when.users = vec![UserTest::Human(HumanUids::new(Uid(first), []))];
            width(&rule)
        };
        assert_eq!([1000, 999].map(of), [None, Some(Overbroad::System)]);
    }
}
