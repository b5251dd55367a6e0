//! Lints about tables for the slices of users: users selected by two tables, users limited in their slice
//! alone, and rules that move processes out of a limited slice.

use std::path::Path;

use super::lints::Pages;
use crate::cgroup::config::UserSliceSpec;
use crate::cgroup::host::Host;
use crate::config::USER_SLICES;
use crate::config::diagnostic::Diagnostic;
use crate::event::Uid;
use crate::rules::subsumption::{all_users_in, have_common_users};
use crate::rules::{Action, Rule, UserTest};

/// Programs that need their processes in the cgroup that they were started in, and the effect of moving them.
const ENGINES: [(&str, &str); 3] = [
    (
        "/usr/bin/podman",
        "rootless containers lose podman exec, podman pause and limits of their own",
    ),
    ("/usr/bin/snap", "snaps refuse to start"),
    ("/usr/bin/flatpak", "Flatpak applications are not recognised by the desktop portals"),
];

/// Returns the effects on this host of moving processes of users.
pub(super) fn effects_of_moving() -> Vec<&'static str> {
    if !Host::default().runs_systemd() {
        return Vec::new();
    }
    let present = ENGINES.into_iter().filter(|(program, _)| Path::new(program).exists());
    present.map(|(_, effect)| effect).collect()
}

/// Returns all diagnostics about these tables in order of precedence, and about rules that move processes of
/// users although that has these effects.
pub(super) fn all(
    tables: &[UserSliceSpec],
    rules: &[Rule],
    effects: &[&'static str],
) -> Vec<Diagnostic> {
    let mut pages = Pages::default();
    let mut found = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        let earlier = tables.get(..index).unwrap_or_default();
        if let Some((message, help)) = overlap(table, earlier) {
            found.push(pages.warning(&table.origin, message, help));
        }
        if !is_moved(&table.users, rules) {
            let message = "these users have no limit outside their slices, where cron, at, mail filters \
                           and CGI programs run";
            let help = "add a rule that moves these processes: [[rule]] with user = the same users, cgroup = \
                        \"people/%u\", and leave_units = true for mail filters and CGI programs; \
                        see cgruled-rules(5)";
            found.push(pages.warning(&table.origin, message, help));
        }
    }
    let limited: Vec<UserTest> = tables.iter().flat_map(|own| own.users.iter().cloned()).collect();
    for rule in rules.iter().filter(|rule| !effects.is_empty() && moves_people(rule, &limited)) {
        let message = format!("for the users that this rule moves: {}", effects.join("; "));
        let help = format!(
            "limit them in their slices, by [unit.\"{USER_SLICES}\"] with users = the same users: the \
             limits of the table then apply to them, and those of this rule do not"
        );
        found.push(pages.warning(&rule.origin, message, help));
    }
    found
}

/// Checks whether a rule moves all processes of human users, also out of slices that a table limits.
fn moves_people(rule: &Rule, limited: &[UserTest]) -> bool {
    /// First UID of human users on the known distributions.
    const FIRST: Uid = Uid(1000);
    let is_for_people = |test: &UserTest| match test {
        UserTest::Ids(_, last) => *last >= FIRST,
        UserTest::Name(_) | UserTest::Glob(_) => true,
    };
    let users = &rule.when.users;
    is_for_all_programs(rule)
        && (users.is_empty() || users.iter().any(is_for_people))
        && (limited.is_empty() || users.is_empty() || !all_users_in(users, limited))
}

/// Checks whether a rule moves processes regardless of their executable.
fn is_for_all_programs(rule: &Rule) -> bool {
    matches!(rule.action, Action::Place(_))
        && rule.when.exes.is_empty()
        && rule.when.groups.is_empty()
}

/// Returns message and help if earlier tables select users of this one.
fn overlap(table: &UserSliceSpec, earlier: &[UserSliceSpec]) -> Option<(String, String)> {
    let first = earlier.iter().find(|own| have_common_users(&own.users, &table.users))?;
    let all: Vec<UserTest> = earlier.iter().flat_map(|own| own.users.iter().cloned()).collect();
    let message = match all_users_in(&table.users, &all) {
        true => {
            format!("[unit.\"{USER_SLICES}\"] has no effect: earlier tables select all its users")
        }
        false => format!("some users of [unit.\"{USER_SLICES}\"] are selected by an earlier table"),
    };
    let help = format!("{} comes first and alone applies to users of both", first.origin);
    Some((message, help))
}

/// Checks whether rules move the processes of all these users, regardless of their executables.
fn is_moved(users: &[UserTest], rules: &[Rule]) -> bool {
    let mut moving = rules.iter().filter(|rule| is_for_all_programs(rule)).peekable();
    if moving.clone().any(|rule| rule.when.users.is_empty()) {
        return true;
    }
    let has_any = moving.peek().is_some();
    let moved: Vec<UserTest> = moving.flat_map(|rule| rule.when.users.iter().cloned()).collect();
    has_any && all_users_in(users, &moved)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config::{UnitTarget, rules_toml};

    /// Returns the messages for tables with these users and a file of rules.
    fn messages(tables: &[&str], rules: &str) -> Vec<String> {
        let parse = |text: &str| {
            let parsed = rules_toml::parse(
                &Arc::from(Path::new("/a.toml")),
                &format!("version = 1\n{text}"),
            );
            assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
            parsed
        };
        let table = |users: &&str| {
            let text = format!("[unit.\"user-%U.slice\"]\nusers = {users}\npids.max = 5");
            let table = parse(&text).units.remove(0);
            let UnitTarget::UserSlices { users, .. } = table.target else { panic!("{users}") };
            UserSliceSpec { users, settings: Vec::new(), origin: table.origin }
        };
        let tables: Vec<UserSliceSpec> = tables.iter().map(table).collect();
        let rules: Vec<Rule> = parse(rules).rules.into_iter().map(|own| own.rule).collect();
        all(&tables, &rules, &[]).into_iter().map(|own| own.message).collect()
    }

    const MOVED: &str = "[[rule]]\nuser = \"*\"\ncgroup = \"a\"";

    #[test]
    fn users_of_two_tables() {
        let nothing = "[unit.\"user-%U.slice\"] has no effect: earlier tables select all its users";
        let some = "some users of [unit.\"user-%U.slice\"] are selected by an earlier table";
        let table = [
            ("[1000]", "[1001]", None),
            ("[\"1000-1999\"]", "[1001]", Some(nothing)),
            ("[1001]", "[\"1000-1999\"]", Some(some)),
            ("[\"*\"]", "[\"site-*\"]", Some(nothing)),
            ("[\"site-*\"]", "[\"*\"]", Some(some)),
            ("[\"site-*\", 5]", "[\"site-*\"]", Some(nothing)),
            ("[\"site-*\"]", "[\"1000-1999\"]", None),
        ];
        for (first, second, expected) in table {
            let found = messages(&[first, second], MOVED);
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{first} {second}");
        }
        let three = ["[\"1000-1499\"]", "[\"1500-1999\"]", "[\"1400-1600\"]"];
        assert_eq!(messages(&three, MOVED), [nothing]);
    }

    #[test]
    fn rules_that_move_what_belongs_in_a_slice() {
        let table = [
            (MOVED, true),
            ("[[rule]]\nuser = \"1000-59999\"\ncgroup = \"people/%u\"", true),
            ("[[rule]]\nuser = 33\ncgroup = \"web\"", false),
            ("[[rule]]\nuser = \"1000-59999\"\nexe = \"make\"\ncgroup = \"a\"", false),
            ("[[rule]]\nuser = \"1000-59999\"\nignore = true", false),
        ];
        for (text, is_warned) in table {
            let file = Arc::from(Path::new("/a.toml"));
            let parsed = rules_toml::parse(&file, &format!("version = 1\n{text}"));
            let rules: Vec<Rule> = parsed.rules.into_iter().map(|own| own.rule).collect();
            let found = all(&[], &rules, &["snaps refuse to start"]);
            assert_eq!(found.len(), usize::from(is_warned), "{text}: {found:?}");
            assert!(all(&[], &rules, &[]).is_empty());
            let users = vec![UserTest::Ids(Uid(1000), Uid(59_999))];
            let origin = rules[0].origin.clone();
            let limited = [UserSliceSpec { users, settings: Vec::new(), origin }];
            let found = all(&limited, &rules, &["snaps refuse to start"]);
            let is_about_moving = |own: &&Diagnostic| own.message.contains("snaps");
            assert_eq!(found.iter().filter(is_about_moving).count(), usize::from(text == MOVED));
        }
    }

    #[test]
    fn users_without_a_rule_that_moves_them() {
        let table = [
            ("", false),
            (MOVED, true),
            ("[[rule]]\nuser = \"1000-59999\"\ncgroup = \"people/%u\"", true),
            ("[[rule]]\nuser = \"1000-1999\"\ncgroup = \"people/%u\"", false),
            (
                "[[rule]]\nuser = \"1000-1999\"\ncgroup = \"a\"\n[[rule]]\nuser = \"2000-2999\"\ncgroup = \"b\"",
                true,
            ),
            ("[[rule]]\nuser = \"1000-59999\"\nexe = \"make\"\ncgroup = \"people/%u\"", false),
            ("[[rule]]\nuser = \"1000-59999\"\ngroup = 5\ncgroup = \"people/%u\"", false),
            ("[[rule]]\nuser = \"1000-59999\"\nignore = true", false),
        ];
        for (rules, is_moved) in table {
            let found = messages(&["[\"1000-2999\"]"], rules);
            assert_eq!(found.is_empty(), is_moved, "{rules}: {found:?}");
        }
    }
}
