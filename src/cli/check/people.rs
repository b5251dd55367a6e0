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
/// The portals are installed in either directory.
const ENGINES: [(&str, &str); 5] = [
    (
        "/usr/bin/podman",
        "rootless containers lose podman exec, podman pause and limits of their own, and can fail to start",
    ),
    ("/usr/bin/snap", "snaps refuse to start"),
    ("/usr/bin/flatpak", "Flatpak applications are not recognised by the desktop portals"),
    ("/usr/libexec/xdg-desktop-portal", PORTALS),
    ("/usr/lib/xdg-desktop-portal", PORTALS),
];
const PORTALS: &str = "the desktop portals do not recognise applications by their scope (app-*.scope), so permissions that \
     were granted to one do not apply";

/// Returns the effects on this host of moving processes of users.
pub(super) fn effects_of_moving() -> Vec<&'static str> {
    match Host::default().runs_systemd() {
        true => effects_with(|program| Path::new(program).exists()),
        false => Vec::new(),
    }
}

/// Returns the effects of moving processes of users where these programs are installed.
fn effects_with(is_installed: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let installed = ENGINES.into_iter().filter(|(program, _)| is_installed(program));
    let mut effects: Vec<&str> = installed.map(|(_, effect)| effect).collect();
    // Both directories may be the same.
    effects.dedup();
    effects
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
        let help = alternative(rule);
        found.push(pages.warning(&rule.origin, message, help));
    }
    found
}

/// Returns the key that leaves the processes of a rule in place, and its consequence.
fn alternative(rule: &Rule) -> String {
    let limit = format!(
        "limit them in their slices, by [unit.\"{USER_SLICES}\"] with users = the same users: the limits of the \
         table then apply to them, and those of this rule do not"
    );
    match rule.is_legacy() {
        true => format!(
            "{limit}; a rule of cgrules.conf moves them all the same: write it in a TOML file instead"
        ),
        false => limit,
    }
}

/// Checks whether a rule moves all processes of human users, or of a group of them, also out of slices that
/// a table limits.
fn moves_people(rule: &Rule, limited: &[UserTest]) -> bool {
    /// First UID of human users on the known distributions.
    const FIRST: Uid = Uid(1000);
    let is_for_people = |test: &UserTest| match test {
        UserTest::Ids(_, last) => *last >= FIRST,
        UserTest::Name(_) | UserTest::NameOrId(..) | UserTest::Glob(_) | UserTest::Human(_) => true,
    };
    let users = &rule.when.users;
    let stay_in_slices = !limited.is_empty()
        && !users.is_empty()
        && all_users_in(users, limited)
        && !rule.is_legacy();
    matches!(rule.action, Action::Place(_))
        && rule.when.exes.is_empty()
        && (users.is_empty() || users.iter().any(is_for_people))
        && !stay_in_slices
}

/// Checks whether a rule moves all processes of its users.
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
    use crate::rules::LeaveUnits;

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
            // A rule by group stays subject to the table only if that selects all users, so both warn.
            ("[[rule]]\ngroup = 100\ncgroup = \"students\"", true),
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
            let warns_beside_table = is_warned && !text.contains("1000-59999");
            let is_about_moving = |own: &&Diagnostic| own.message.contains("snaps");
            assert_eq!(
                found.iter().filter(is_about_moving).count(),
                usize::from(warns_beside_table)
            );
        }
    }

    #[test]
    fn a_rule_of_cgrules_conf_is_not_kept_in_slices() {
        let file = Arc::from(Path::new("/etc/cgrules.conf"));
        let rules = "version = 1\n[[rule]]\nuser = \"1000-59999\"\ncgroup = \"people/%u\"";
        let mut rule = rules_toml::parse(&file, rules).rules.remove(0).rule;
        let users = vec![UserTest::Ids(Uid(1000), Uid(59_999))];
        let limited = [UserSliceSpec { users, settings: Vec::new(), origin: rule.origin.clone() }];
        let effects = ["snaps refuse to start"];
        assert!(all(&limited, &[rule.clone()], &effects).is_empty());
        rule.leave_units = LeaveUnits::AsTheOriginal;
        let found = all(&limited, &[rule], &effects);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].help.as_ref().unwrap().contains("TOML file"));
    }

    #[test]
    fn the_effects_are_those_of_installed_programs() {
        assert!(effects_with(|_| false).is_empty());
        assert_eq!(effects_with(|program| program == "/usr/bin/snap"), ["snaps refuse to start"]);
        let portals = effects_with(|program| program.ends_with("/xdg-desktop-portal"));
        assert_eq!(portals, [PORTALS]);
    }

    #[test]
    fn the_help_names_the_key_and_its_consequence() {
        let file = Arc::from(Path::new("/a.toml"));
        let rule = rules_toml::parse(&file, MOVED).rules.remove(0).rule;
        let help = all(&[], &[rule], &["snaps refuse to start"]).remove(0).help.unwrap();
        assert!(help.contains("[unit.\"user-%U.slice\"] with users ="), "{help}");
        assert!(help.contains("those of this rule do not"), "{help}");
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
