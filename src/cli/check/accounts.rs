//! Lints about ranges of UIDs on hosts with accounts of a directory service. Must not query it.

use std::path::Path;

use super::lints::Pages;
use crate::cgroup::config::UserSliceSpec;
use crate::config::diagnostic::Diagnostic;
use crate::event::Uid;
use crate::policy::load::NameService;
use crate::rules::human::HUMAN;
use crate::rules::{Rule, UserTest};

/// NSS modules of directory services, with a file that exists where the service is in use: some
/// distributions list the module on every host.
const DIRECTORY_SERVICES: [(&str, Option<&str>); 3] =
    [("sss", Some("/var/lib/sss/pipes/nss")), ("winbind", None), ("ldap", None)];
/// Highest first UID of a range that is meant for all human users.
const FIRST: Uid = Uid(1000);
/// Last UIDs of such a range: `UID_MAX` of login.defs(5), as written with 59999 or up to nobody.
const LAST: (Uid, Uid) = (Uid(59_999), Uid(65_535));

/// Returns a warning for each rule and table with a range of UIDs that selects no user of the
/// directory service of this host.
pub(super) fn all(
    rules: &[Rule],
    tables: &[UserSliceSpec],
    names: &NameService,
) -> Vec<Diagnostic> {
    let service = directory_service(&names.user_sources(), |path| Path::new(path).exists());
    service.map_or_else(Vec::new, |service| without_directory(rules, tables, service))
}

fn without_directory(rules: &[Rule], tables: &[UserSliceSpec], service: &str) -> Vec<Diagnostic> {
    let mut pages = Pages::default();
    let of_rules = rules.iter().map(|rule| (&rule.when.users, &rule.origin));
    let of_tables = tables.iter().map(|table| (&table.users, &table.origin));
    let ranges = of_rules.chain(of_tables);
    ranges
        .filter_map(|(users, origin)| {
            let (first, last) = local_range(users)?;
            let message = format!(
                "users of {service} usually have UIDs of 200000 and above, which \"{first}-{last}\" does \
                 not select"
            );
            let help = format!("write \"{HUMAN}\" for all human users, or add the UIDs of {service}");
            Some(pages.warning(origin, message, help))
        })
        .collect()
}

/// Returns the range for all local human users, unless the list also selects others.
fn local_range(users: &[UserTest]) -> Option<(Uid, Uid)> {
    let mut range = None;
    for test in users {
        match test {
            UserTest::Ids(first, last) if *last <= LAST.1 => {
                // A smaller range is meant for particular users.
                let is_for_all = *first <= FIRST && first.0 > 0 && *last >= LAST.0;
                range = range.or(is_for_all.then_some((*first, *last)));
            }
            UserTest::Ids(..) | UserTest::Glob(_) | UserTest::Human(_) => return None,
            UserTest::Name(_) | UserTest::NameOrId(..) => {}
        }
    }
    range
}

/// Returns the directory service among the NSS modules that provide users.
fn directory_service(modules: &[String], exists: impl Fn(&str) -> bool) -> Option<&'static str> {
    modules.iter().find_map(|module| {
        let known = DIRECTORY_SERVICES.iter().find(|(name, _)| name == module);
        known.filter(|(_, file)| file.is_none_or(&exists)).map(|(name, _)| *name)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config::rules_toml;

    #[test]
    fn the_directory_service_of_a_host() {
        let modules = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let found = |names: &[&str], is_in_use| {
            let modules: Vec<String> = modules(names);
            directory_service(&modules, |_| is_in_use)
        };
        assert_eq!(found(&["files", "sss", "winbind"], true), Some("sss"));
        assert_eq!(found(&["files", "winbind"], false), Some("winbind"));
        assert_eq!(found(&["sss", "files"], false), None, "sssd is not in use");
        assert_eq!(found(&["files", "systemd"], true), None);
    }

    #[test]
    fn ranges_of_local_users() {
        for (users, is_warned) in [
            ("\"1000-59999\"", true),
            ("\"1000-60000\"", true),
            ("[\"root\", \"500-65533\"]", true),
            ("[\"1000-59999\", \"CORP\\\\\\\\*\"]", false),
            ("[\"1000-59999\", \"200000-2000000000\"]", false),
            ("\"1000-2000200000\"", false),
            ("\"20000-29999\"", false),
            ("\"1000-1999\"", false),
            ("\"0-65535\"", false),
            ("\"@human\"", false),
        ] {
            let text = format!("version = 1\n[[rule]]\nuser = {users}\ncgroup = \"a\"");
            let parsed = rules_toml::parse(&Arc::from(Path::new("/a.toml")), &text);
            assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
            let rules: Vec<Rule> = parsed.rules.into_iter().map(|own| own.rule).collect();
            let table = UserSliceSpec {
                users: rules[0].when.users.clone(),
                settings: Vec::new(),
                origin: rules[0].origin.clone(),
            };
            let found = without_directory(&rules, &[table], "sss");
            assert_eq!(found.len(), if is_warned { 2 } else { 0 }, "{users}: {found:?}");
        }
    }
}
