//! Tables for user slices: selects the table of a user, and decides which processes stay in their
//! slice because of it. Pure.

use std::convert::Infallible;

use super::UnitSpec;
use crate::event::Uid;
use crate::rules::{LeaveUnits, Origin, Rule, UserTest};

/// The settings of the slices of selected users.
#[derive(Clone, Debug, PartialEq)]
pub struct UserSliceSpec {
    /// The selected users, without names that could not be resolved.
    pub users: Vec<UserTest>,
    /// The settings by key, each as `Property=value` assignments.
    pub settings: Vec<(String, Vec<String>)>,
    /// The file and line of its table.
    pub origin: Origin,
}

impl UserSliceSpec {
    /// Returns the settings for the slice of this user.
    pub fn of_user(&self, uid: Uid) -> UnitSpec {
        let settings = self.settings.clone();
        let origin = self.origin.clone();
        UnitSpec { name: format!("user-{}.slice", uid.0), settings, origin }
    }
}

/// Checks whether user names decide which table applies.
pub fn ask_names(tables: &[UserSliceSpec]) -> bool {
    tables.iter().flat_map(|table| &table.users).any(UserTest::needs_name)
}

/// Returns the first table that selects the user. `name` is called only if the name decides.
///
/// # Errors
/// `name` failed, so the table is unknown.
pub fn select<E>(
    tables: &[UserSliceSpec],
    uid: Uid,
    name: impl FnOnce() -> Result<Option<String>, E>,
) -> Result<Option<&UserSliceSpec>, E> {
    let mut ask = Some(name);
    let mut known: Option<String> = None;
    for table in tables {
        // UIDs first: a table that has both then needs no name.
        if table.users.iter().any(|test| test.matches(uid, None)) {
            return Ok(Some(table));
        }
        let needs_name = table.users.iter().any(UserTest::needs_name);
        if let Some(ask) = ask.take_if(|_| needs_name) {
            known = ask()?;
        }
        if table.users.iter().any(|test| test.matches(uid, known.as_deref())) {
            return Ok(Some(table));
        }
    }
    Ok(None)
}

/// Returns the table that keeps a process in the v2 cgroup `path`, because it limits the slice of
/// its user.
pub fn keeping_table<'t>(
    tables: &'t [UserSliceSpec],
    rule: &Rule,
    path: &[u8],
    uid: Uid,
    name: Option<&str>,
) -> Option<&'t UserSliceSpec> {
    // The table covers everything that the user runs in the slice, and so does a rule without
    // `exe`. A rule with `exe` is more specific than the table and moves the process. A process in
    // the slice of another user is not limited like its own user, so it is moved.
    let is_general = rule.when.exes.is_empty()
        && match rule.leave_units {
            LeaveUnits::No | LeaveUnits::Yes | LeaveUnits::Of(_) => true,
            // Legacy rules do not know about slices.
            LeaveUnits::AsTheOriginal => false,
        };
    if !is_general || tables.is_empty() || user_of_path(path) != Some(uid) {
        return None;
    }
    let Ok(found) = select(tables, uid, || Ok::<_, Infallible>(name.map(str::to_owned)));
    found.filter(|table| !table.settings.is_empty())
}

/// Returns the user of the slice that contains the cgroup.
fn user_of_path(path: &[u8]) -> Option<Uid> {
    let rest = path.strip_prefix(b"/user.slice/")?;
    let slice = rest.split(|&byte| byte == b'/').next()?;
    user_of_slice(std::str::from_utf8(slice).ok()?)
}

/// Returns the user of `user-UID.slice`, as systemd writes it: decimal, without leading zeros.
pub fn user_of_slice(name: &str) -> Option<Uid> {
    let digits = name.strip_prefix("user-")?.strip_suffix(".slice")?;
    let uid: u32 = digits.parse().ok()?;
    (uid.to_string() == digits && uid != u32::MAX).then_some(Uid(uid))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config::rules_toml;

    fn rule(keys: &str) -> Rule {
        let text = format!("version = 1\n[[rule]]\ncgroup = \"a\"\n{keys}");
        let mut parsed = rules_toml::parse(&Arc::from(Path::new("/a.toml")), &text);
        assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
        parsed.rules.remove(0).rule
    }

    #[test]
    fn processes_that_stay_in_a_limited_slice() {
        let origin = rule("user = 1000").origin;
        let users = vec![UserTest::Ids(Uid(1000), Uid(1999))];
        let settings = vec![("pids.max".to_owned(), vec!["TasksMax=5".to_owned()])];
        let tables = [UserSliceSpec { users, settings, origin }];
        let general = rule("user = \"1000-2999\"\nleave_units = true");
        let stays = |rule: &Rule, path: &str, uid| {
            keeping_table(&tables, rule, path.as_bytes(), Uid(uid), None).is_some()
        };
        let session = "/user.slice/user-1000.slice/session-3.scope";
        assert!(stays(&general, session, 1000));
        assert!(stays(
            &general,
            "/user.slice/user-1000.slice/user@1000.service/app.slice/a.scope",
            1000
        ));
        assert!(!stays(&general, session, 1001), "in the slice of another user");
        assert!(!stays(&general, "/user.slice/user-2000.slice/session-3.scope", 2000), "no table");
        for elsewhere in
            ["/system.slice/cron.service", "/", "/people/alice", "/x/user.slice/user-1000.slice/a"]
        {
            assert!(!stays(&general, elsewhere, 1000), "{elsewhere}");
        }
        assert!(
            !stays(&rule("exe = \"make\""), session, 1000),
            "a rule for a program is more special"
        );
        let upstream = Rule { leave_units: LeaveUnits::AsTheOriginal, ..general.clone() };
        assert!(!stays(&upstream, session, 1000));
        let none = [UserSliceSpec { settings: Vec::new(), ..tables[0].clone() }];
        assert!(keeping_table(&none, &general, session.as_bytes(), Uid(1000), None).is_none());
    }

    #[test]
    fn names_of_slices() {
        assert_eq!(user_of_slice("user-0.slice"), Some(Uid(0)));
        for name in [
            "user-.slice",
            "user-00.slice",
            "user-+1.slice",
            "user-1.scope",
            "user-4294967295.slice",
        ] {
            assert_eq!(user_of_slice(name), None, "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_path_has_an_answer(path in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
            let _user = user_of_path(&path);
        }
    }
}
