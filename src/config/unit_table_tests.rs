use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::config::rules_toml::{self, ParsedRules};
use crate::event::Uid;

#[test]
fn names_of_units() {
    for name in ["php-fpm.service", "user-1000.slice", "a@b.service", "dev-sda\\x2d1.swap"] {
        assert!(is_unit(name), "{name}");
    }
    let of_length = |length: usize| "a".repeat(length - ".service".len()) + ".service";
    assert!(is_unit(&of_length(MOST)));
    let long = of_length(MOST + 1);
    for name in
        ["php-fpm", ".service", "-.slice", "--all.service", "a b.service", "a@.service", &long]
    {
        assert!(!is_unit(name), "{name}");
    }
}

fn parse(table: &str) -> ParsedRules {
    rules_toml::parse(&Arc::from(Path::new("/a.toml")), &format!("version = 1\n{table}\n"))
}

/// Returns the diagnostics of a table: place, message and help.
fn said(table: &str) -> Vec<String> {
    let one = |own: &crate::config::diagnostic::Diagnostic| {
        let place = own.place.as_ref().unwrap();
        let help = own.help.as_deref().unwrap_or_default();
        format!("{}:{}: {}; {help}", place.line, place.column, own.message)
    };
    parse(table).diagnostics.iter().map(one).collect()
}

#[test]
fn users_have_the_forms_of_the_rule_key() {
    let parsed = parse(
        "[unit.\"user-%U.slice\"]\nusers = [\"alice\", 1000, \"2000-2999\", \"site-*\"]\npids.max = 50",
    );
    assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
    let table = &parsed.units[0];
    let UnitTarget::UserSlices { users, mentions } = &table.target else { panic!("{table:?}") };
    assert_eq!(users[0], UserTest::Name("alice".to_owned()));
    assert_eq!(users[1], UserTest::Ids(Uid(1000), Uid(1000)));
    assert_eq!(users[2], UserTest::Ids(Uid(2000), Uid(2999)));
    assert!(matches!(&users[3], UserTest::Glob(_)));
    assert_eq!(mentions.iter().map(|own| &*own.name).collect::<Vec<_>>(), ["alice"]);
    let settings: Vec<&str> = table.settings.iter().map(|own| &*own.key).collect();
    assert_eq!((settings, table.origin.line), (vec!["pids.max"], 2));
    let human =
        parse("[unit.\"user-%U.slice\"]\nusers = [\"@human\", \"20231234\"]\npids.max = 50");
    let UnitTarget::UserSlices { users, mentions } = &human.units[0].target else { panic!() };
    assert!(matches!(users[0], UserTest::Human(_)), "{users:?}");
    assert_eq!(users[1], UserTest::NameOrId("20231234".to_owned(), Uid(20_231_234)));
    assert_eq!(mentions.iter().map(|own| &*own.name).collect::<Vec<_>>(), ["20231234"]);
    let single = parse("[unit.\"user-%U.slice\"]\nusers = \"*\"\npids.max = 50");
    assert_eq!((single.units.len(), single.diagnostics.len()), (1, 0), "as in a rule");
}

#[test]
fn mistakes_have_a_place_and_a_remedy() {
    let only = "write [unit.\"user-%U.slice\"], the only name with a specifier, or the full name of one unit";
    for name in ["user-%u.slice", "user-%U.scope", "app-%U.slice", "%U"] {
        let table = format!("[unit.\"{name}\"]\nusers = [1000]\npids.max = 5");
        assert_eq!(said(&table), [format!("2:7: invalid unit template \"{name}\"; {only}")]);
    }
    let table = [
        (
            "[unit.\"user-%U.slice\"]\npids.max = 5",
            "2:7: [unit.\"user-%U.slice\"] does not select users; \
             add users = [\"@human\"], or another list of users",
        ),
        (
            "[unit.\"a.service\"]\nusers = [1000]\npids.max = 5",
            "3:1: users does not apply to the single unit \"a.service\"; remove users, or write \
             [unit.\"user-%U.slice\"] for the slices of users",
        ),
        (
            "[unit.\"user-%U.slice\"]\nusers = []\npids.max = 5",
            "3:9: users is an empty list; write users = [\"*\"] for all users",
        ),
        (
            "[unit.\"user-%U.slice\"]\nusers = [\"@staff\"]\npids.max = 5",
            "3:10: invalid user name \"@staff\"; a unit table selects users by name, UID, range or \
             pattern, not by group or program",
        ),
        ("[unit.\"user-%U.slice\"]\nusers = [1000]", "2:7: table without settings; remove it"),
    ];
    for (text, expected) in table {
        assert_eq!(said(text), [expected]);
    }
    for wrong in ["4294967295", "\"9-1\"", "true", "{ a = 1 }", "1.5", "[[1]]"] {
        let parsed =
            parse(&format!("[unit.\"user-%U.slice\"]\nusers = [1000, {wrong}]\npids.max = 5"));
        assert!(parsed.units.is_empty() && !parsed.diagnostics.is_empty(), "{wrong}");
    }
}

proptest::proptest! {
    #[test]
    fn any_users_have_an_answer(users in "[ -~]{0,40}", name in "[ -~]{0,20}") {
        let parsed = parse(&format!("[unit.\"{name}\"]\nusers = [{users}]\npids.max = 5"));
        for table in &parsed.units {
            if let UnitTarget::UserSlices { users, .. } = &table.target {
                proptest::prop_assert!(!users.is_empty());
            }
        }
    }
}
