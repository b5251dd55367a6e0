//! Parses one `[[test]]` of a rule file: a process and what the rules must decide about it. It
//! decides nothing and resolves no names.

mod container;
mod process;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::de::DeTable;

use super::criteria::account::{AccountRef, account};
use super::diagnostic::TextPosition;
use super::table::{TomlSection, Value, alternatives, did_you_mean, shortened};
use crate::event::Uid;
use crate::rules::context::TextTest;
use crate::rules::destination::Specifier;
use crate::rules::glob::Glob;

pub use container::TestContainer;
pub use process::{PROCESS_KEYS, TestProcess};

/// The keys of a test.
pub const TEST_KEYS: [&str; 5] = ["name", "process", "expect", "rule", "users"];
/// The keys of an account in `[test.users]`.
pub const ACCOUNT_KEYS: [&str; 3] = ["uid", "group", "groups"];
/// The words of `expect` that are no paths.
const WORDS: [(&str, ExpectedDecision); 3] = [
    ("none", ExpectedDecision::NoRule),
    ("ignored", ExpectedDecision::Ignored),
    ("stays", ExpectedDecision::Stays),
];
/// The maximum number of tests in a file: a load with them must not take seconds.
pub const MAX_TESTS: usize = 1000;

/// A test in a rule file.
#[derive(Clone, Debug)]
pub struct RuleTest {
    /// The absolute path of the file.
    pub file: Arc<Path>,
    /// The line of its header.
    pub line: u32,
    /// The name, if it has one.
    pub name: Option<String>,
    /// The process about which the rules decide.
    pub process: TestProcess,
    /// The accounts that the test describes, by name.
    pub users: Arc<BTreeMap<String, TestAccount>>,
    /// The value of `expect`.
    pub decision: Option<Assertion<ExpectedDecision>>,
    /// The value of `rule`: the name of the first rule that matches.
    pub rule: Option<Assertion<String>>,
}

/// An assertion of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion<T> {
    /// The expected value.
    pub expected: T,
    /// The place of the value in the file.
    pub place: TextPosition,
}

/// The decision that a test expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedDecision {
    /// No rule matches.
    NoRule,
    /// A rule with `ignore = true` matches first.
    Ignored,
    /// A rule matches first that leaves the process where it is, for example in its unit.
    Stays,
    /// The process is moved to this path below the managed root, without slashes at its ends.
    Moved(TextTest),
}

/// An account that need not exist on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestAccount {
    /// The UID.
    pub uid: Option<Uid>,
    /// The group that the user logs in with.
    pub group: Option<AccountRef>,
    /// The groups that list the user as a member.
    pub groups: Vec<AccountRef>,
}

impl RuleTest {
    /// Returns the UIDs that the test gives to names.
    pub(crate) fn uids(&self) -> impl Iterator<Item = (&str, Uid)> {
        let own = match (&self.process.user, self.process.uid) {
            (Some(AccountRef::Name(name) | AccountRef::NameOrId(name, _)), Some(uid)) => {
                Some((&**name, uid))
            }
            _ => None,
        };
        let users = self.users.iter().filter_map(|(name, own)| Some((&**name, own.uid?)));
        users.chain(own)
    }
}

/// Reads a test: one for each process. None if anything was reported: a part of it could succeed by
/// chance.
pub(super) fn read(
    table: &DeTable<'_>,
    header: Range<usize>,
    piece: &mut TomlSection<'_, '_>,
) -> Vec<RuleTest> {
    let errors = piece.report.errors();
    piece.only_keys(table, &TEST_KEYS);
    let name = table.get("name").and_then(|value| piece.string(value, "name")).map(str::to_owned);
    let users = table.get("users").map(|value| users(value, piece)).unwrap_or_default();
    let users = Arc::new(users);
    let processes = match table.get("process") {
        Some(value) => process::read(value, piece),
        None => {
            let help = "write process = { user = \"name\", exe = \"/path\" }";
            piece.error_help(header.clone(), "test without process", help);
            Vec::new()
        }
    };
    let decision = table.get("expect").and_then(|value| decision(value, piece));
    let rule = table.get("rule").and_then(|value| {
        let expected = piece.string(value, "rule")?.to_owned();
        Some(Assertion { expected, place: piece.place(value.span()) })
    });
    if !table.contains_key("expect") && !table.contains_key("rule") {
        let help =
            "write expect = \"path\", \"none\", \"ignored\" or \"stays\", or rule = \"name\"";
        piece.error_help(header.clone(), "test without expect or rule", help);
    }
    let (file, line) = (Arc::clone(piece.text().file()), piece.line(header.start));
    if piece.report.errors() > errors {
        return Vec::new();
    }
    let tests = processes.into_iter().map(|process| RuleTest {
        file: Arc::clone(&file),
        line,
        name: name.clone(),
        process,
        users: Arc::clone(&users),
        decision: decision.clone(),
        rule: rule.clone(),
    });
    tests.collect()
}

fn decision(
    value: &Value<'_>,
    piece: &mut TomlSection<'_, '_>,
) -> Option<Assertion<ExpectedDecision>> {
    let text = piece.string(value, "expect")?;
    let place = piece.place(value.span());
    if let Some((_, expected)) = WORDS.iter().find(|(word, _)| *word == text) {
        return Some(Assertion { expected: expected.clone(), place });
    }
    let path = text.trim_matches('/');
    let words = WORDS.map(|(word, _)| word);
    // A cgroup may have such a name, but then the path can be written with a slash.
    if let Some(near) = did_you_mean(text, &words).filter(|_| !text.contains('/')) {
        let help = format!("write \"{near}\", or \"/{}\" for a cgroup", shortened(path));
        piece.warning(value.span(), format!("did you mean \"{near}\"?"), help);
    }
    let has_specifier = |(at, _): (usize, &str)| {
        let letter = path[at + 1..].chars().next();
        letter.and_then(Specifier::from_letter).is_some()
    };
    if path.match_indices('%').any(has_specifier) {
        let help = "write the path for the process of the test, or * for any value";
        piece.warning(value.span(), "expect has no specifiers", help);
    }
    if !text.contains(['*', '?', '[']) {
        let test = TextTest::Is(path.as_bytes().into());
        return Some(Assertion { expected: ExpectedDecision::Moved(test), place });
    }
    match Glob::parse(path.as_bytes()) {
        Ok(glob) => {
            let expected = ExpectedDecision::Moved(TextTest::Matches(glob));
            Some(Assertion { expected, place })
        }
        Err(error) => {
            piece.error(value.span(), error.message.to_string());
            None
        }
    }
}

fn users(value: &Value<'_>, piece: &mut TomlSection<'_, '_>) -> BTreeMap<String, TestAccount> {
    let mut found = BTreeMap::new();
    let Some(table) = piece.table(value, "users") else { return found };
    for (key, value) in table.iter() {
        let name = key.get_ref().to_string();
        let Some(keys) = piece.table(value, &format!("users.{}", shortened(&name))) else {
            continue;
        };
        piece.only_keys(keys, &ACCOUNT_KEYS);
        let uid = keys.get("uid").and_then(|value| uid(value, piece));
        let group = keys.get("group").and_then(|value| account(value, "group", piece));
        let groups = keys.get("groups").map(|value| groups(value, piece)).unwrap_or_default();
        if name == "root" && uid.is_some_and(|uid| uid != Uid(0)) {
            piece.error_help(key.span(), "root has the UID 0", "remove uid");
        }
        found.insert(name, TestAccount { uid, group, groups });
    }
    found
}

/// Reads a UID.
fn uid(value: &Value<'_>, piece: &mut TomlSection<'_, '_>) -> Option<Uid> {
    let range = 0..=i64::from(u32::MAX) - 1;
    piece.integer(value, "uid", range).and_then(|uid| u32::try_from(uid).ok()).map(Uid)
}

/// Reads a list of groups.
fn groups(value: &Value<'_>, piece: &mut TomlSection<'_, '_>) -> Vec<AccountRef> {
    alternatives(value).iter().filter_map(|value| account(value, "groups", piece)).collect()
}

#[cfg(test)]
#[path = "test_table_tests.rs"]
mod tests;
