//! Rules in the format that cgrulesengd prints at startup and after a reload.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};
use std::path::Path;
use std::sync::Arc;

use crate::event::{Gid, Uid};
use crate::policy::load::{Loaded, Sources};
use crate::rules::{Action, Criteria, ExeTest, GroupTest, Rule, Target, UserTest};

/// Rules of legacy files. Of other rules only the count, because the format cannot express them.
pub(super) struct RuleListing<'r> {
    rules: &'r [Rule],
    written: &'r BTreeMap<(Arc<Path>, u32), String>,
    sources: &'r Sources,
    users: BTreeMap<Uid, &'r str>,
    groups: BTreeMap<Gid, &'r str>,
}

impl Display for RuleListing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (legacy, others): (Vec<&Rule>, Vec<&Rule>) =
            self.rules.iter().partition(|rule| self.is_legacy(rule));
        let mut text = String::new();
        if legacy.is_empty() {
            text.push_str("The rules table is empty.\n");
        }
        legacy.iter().try_for_each(|rule| self.rule(&mut text, rule))?;
        if !others.is_empty() {
            writeln!(text, "And {} rules of TOML files.", others.len())?;
        }
        f.write_str(text.trim_end_matches('\n'))
    }
}

impl<'r> RuleListing<'r> {
    pub(super) fn new(loaded: &'r Loaded, sources: &'r Sources) -> Self {
        let Loaded { rules, names, written, .. } = loaded;
        let users = reversed(&names.uids);
        let groups = reversed(&names.gids);
        Self { rules, written, sources, users, groups }
    }

    /// Returns the name of each rule in cgrulesengd's "Found matching rule" lines: its user or
    /// group. A rule of a TOML file has a name.
    pub(super) fn heads(&self) -> Box<[Box<str>]> {
        let head = |rule: &Rule| match self.is_legacy(rule) {
            true => self.who(rule).into(),
            false => rule.name.escape_debug().to_string().into(),
        };
        self.rules.iter().map(head).collect()
    }

    fn is_legacy(&self, rule: &Rule) -> bool {
        let file = &*rule.origin.file;
        file == self.sources.cgrules_conf || file.parent() == Some(&self.sources.cgrules_d)
    }

    fn rule(&self, text: &mut String, rule: &Rule) -> fmt::Result {
        let who = self.who(rule);
        let head = match program(&rule.when) {
            Some(program) => format!("{who}:{program}"),
            None => who,
        };
        match &rule.action {
            Action::Ignore(when) => {
                let place = when.below.as_deref().unwrap_or("*");
                entry(text, &rule.when, &head, place, &["*".to_owned()], true)
            }
            // No legacy rule observes.
            Action::Observe(_) => Ok(()),
            Action::Place(_) | Action::Inapplicable(_) => {
                let targets = rule.action.written_targets();
                if targets.is_empty() {
                    return entry(text, &rule.when, &head, "", &[], false);
                }
                // cgrulesengd treats continuation lines of a rule as rules of their own.
                let heads = std::iter::once(head.as_str()).chain(std::iter::repeat("%"));
                for (head, Target { destination, controllers, .. }) in heads.zip(targets) {
                    entry(text, &rule.when, head, destination.as_str(), controllers, false)?;
                }
                Ok(())
            }
        }
    }

    fn who(&self, Rule { when, origin, .. }: &Rule) -> String {
        let written = self.written.get(&(Arc::clone(&origin.file), origin.line));
        if let Some(uid) = uid_of(when) {
            if let Some(name) = written {
                return name.clone();
            }
            return self.users.get(&uid).map_or_else(|| uid.to_string(), |&name| name.to_owned());
        }
        if let Some(gid) = gid_of(when) {
            let known = self.groups.get(&gid).copied();
            return match written.map(String::as_str).or(known) {
                Some(name) => format!("@{name}"),
                None => format!("@{gid}"),
            };
        }
        "*".to_owned()
    }
}

/// Returns the names by ID. Of several names with one ID it takes the first in alphabetical order.
fn reversed<'n, N: Copy + Ord + 'n>(
    names: impl IntoIterator<Item = (&'n String, &'n N)>,
) -> BTreeMap<N, &'n str> {
    let mut pairs: Vec<(N, &str)> =
        names.into_iter().map(|(name, &number)| (number, name.as_str())).collect();
    pairs.sort_unstable_by(|a, b| b.cmp(a));
    pairs.into_iter().collect()
}

fn entry(
    text: &mut String,
    when: &Criteria,
    head: &str,
    destination: &str,
    controllers: &[String],
    is_ignore: bool,
) -> fmt::Result {
    let (uid, gid) = ids(when);
    let is_ignore = if is_ignore { "True" } else { "False" };
    writeln!(text, "Rule: {head}\n  UID: {uid}\n  GID: {gid}\n  DEST: {destination}")?;
    writeln!(text, "  CONTROLLERS:")?;
    controllers.iter().try_for_each(|name| writeln!(text, "    {name}"))?;
    writeln!(text, "  OPTIONS:\n    IS_IGNORE: {is_ignore}\n")
}

/// Formats the UID and GID columns. A rule of a legacy file has one user, one group, or neither.
fn ids(when: &Criteria) -> (String, String) {
    let absent = || "N/A".to_owned();
    match (uid_of(when), gid_of(when)) {
        (Some(uid), _) => (uid.to_string(), absent()),
        (None, Some(gid)) => (absent(), gid.to_string()),
        (None, None) => ("any".to_owned(), "any".to_owned()),
    }
}

fn uid_of(when: &Criteria) -> Option<Uid> {
    match when.users.first() {
        Some(&UserTest::Ids(uid, _)) => Some(uid),
        Some(
            UserTest::Name(_) | UserTest::NameOrId(..) | UserTest::Glob(_) | UserTest::Human(_),
        )
        | None => None,
    }
}

fn gid_of(when: &Criteria) -> Option<Gid> {
    match when.groups.first() {
        Some(&GroupTest::Ids(gid, _)) => Some(gid),
        Some(GroupTest::Name(_) | GroupTest::NameOrId(..) | GroupTest::Glob(_)) | None => None,
    }
}

fn program(when: &Criteria) -> Option<String> {
    when.exes.first().map(|test| match test {
        ExeTest::Path(name) | ExeTest::Base(name) => String::from_utf8_lossy(name).into_owned(),
        // A literal prefix followed by anything, which is written with one asterisk.
        ExeTest::PathGlob(glob) | ExeTest::BaseGlob(glob) => {
            let text = String::from_utf8_lossy(glob.as_bytes());
            format!("{}*", text.trim_end_matches('*').replace('\\', ""))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::compat::cgrulesengd::in_directory;
    use crate::policy::load::load;

    fn shown(text: &str) -> String {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::write(
            path("passwd"),
            "alice:x:1001:1001::/:\nroot:x:0:0::/:\ntoor:x:0:0::/:\nadmin:x:0:0::/:\n",
        )
        .unwrap();
        fs::write(path("group"), "web:x:33:\nwww:x:33:\n").unwrap();
        fs::write(path("cgrules.conf"), text).unwrap();
        let (sources, service) = in_directory(root.path());
        let loaded = load(&sources, &service);
        RuleListing::new(&loaded, &sources).to_string()
    }

    #[test]
    fn a_table_has_every_line_of_the_file() {
        let text = shown("alice:/opt/x/* cpu,memory t1\n% pids t2\n@web * t/%u\n* cpu / ignore\n");
        let entry = |head, ids, rest| format!("Rule: {head}\n  UID: {ids}\n  DEST: {rest}");
        let end = |is| format!("\n  OPTIONS:\n    IS_IGNORE: {is}\n\n");
        let expected = [
            entry("alice:/opt/x/*", "1001\n  GID: N/A", "t1\n  CONTROLLERS:\n    cpu\n    memory"),
            end("False"),
            entry("%", "1001\n  GID: N/A", "t2\n  CONTROLLERS:\n    pids"),
            end("False"),
            entry("@web", "N/A\n  GID: 33", "t/%u\n  CONTROLLERS:\n    *"),
            end("False"),
            entry("*", "any\n  GID: any", "/\n  CONTROLLERS:\n    *"),
            end("True"),
        ];
        assert_eq!(text, expected.concat().trim_end());
    }

    #[test]
    fn users_are_called_as_they_are_written() {
        let rules = ["toor", "root", "admin", "@www", "@web"];
        let text: String = rules.iter().map(|who| format!("{who} cpu t\n")).collect();
        let shown = shown(&text);
        let heads: Vec<&str> =
            shown.lines().filter_map(|line| line.strip_prefix("Rule: ")).collect();
        assert_eq!(heads, rules);
    }

    #[test]
    fn no_rules_are_said() {
        assert_eq!(shown("# none\n"), "The rules table is empty.");
    }
}
