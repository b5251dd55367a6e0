//! What is odd about rules on this host, each complaint at the rule's line.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use crate::config::diagnostic::{Diagnostic, Place, Severity};
use crate::config::escape::EscapedBytes;
use crate::rules::lint::{self, Dead};
use crate::rules::{ExeTest, Origin, Rule, RuleId};

/// Bytes of a rule file that are read for the lines to show.
const MAX_SIZE: u64 = 16 << 20;
/// Characters of a line that are kept: more than are shown.
const KEPT: usize = 400;

/// All lints over rules in their effective order.
pub(super) fn all(rules: &[Rule]) -> Vec<Diagnostic> {
    let mut pages = Pages::default();
    let mut said = Vec::new();
    let rule = |id: RuleId| &rules[id.0 as usize];
    for (id, dead) in lint::dead(rules) {
        let (message, help) = match dead {
            Dead::ShadowedBy(first) => (
                format!("{} can never match: {} comes first", title(rule(id)), title(rule(first))),
                format!("{} holds for all that it does", rule(first).origin),
            ),
            Dead::HoldsForNobody => (
                format!("{} can never match: it excludes all that it asks for", title(rule(id))),
                "nobody is left whom it could match".to_owned(),
            ),
        };
        said.push(pages.warning(&rule(id).origin, message, help));
    }
    for (id, first) in lint::namesakes(rules) {
        let (own, other) = (rule(id), rule(first));
        // Those of one file are said where it is read.
        if own.origin.file != other.origin.file {
            let message = format!("another {} is in {}", title(own), other.origin);
            said.push(pages.warning(&own.origin, message, "the log tells them apart by line only"));
        }
    }
    said.extend(missing_programs(rules, &mut pages));
    said
}

/// Programs by path that this host does not have.
fn missing_programs(rules: &[Rule], pages: &mut Pages) -> Vec<Diagnostic> {
    let mut is_there: HashMap<&[u8], bool> = HashMap::new();
    let mut said = Vec::new();
    for rule in rules {
        // Of a program in a container nothing can be said.
        let exes = if rule.exe_anywhere { &[][..] } else { &rule.when.exes };
        let mut seen = HashSet::new();
        for test in exes.iter().chain(&rule.not.exes) {
            let ExeTest::Path(path) = test else { continue };
            let exists = *is_there.entry(path).or_insert_with(|| exists(path));
            if exists || !seen.insert(path) {
                continue;
            }
            let message = format!("{} does not exist on this host", EscapedBytes(path));
            let help = "a rule means the path of the program itself, links followed";
            said.push(pages.warning(&rule.origin, message, help));
        }
    }
    said
}

/// Whether a path is there, or we may not see it.
fn exists(path: &[u8]) -> bool {
    match fs::metadata(Path::new(OsStr::from_bytes(path))) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}

/// `rule "web"`, or `the rule in line 7` without a name.
fn title(rule: &Rule) -> String {
    match rule.given_name() {
        Some(name) => format!("rule \"{name}\""),
        None => format!("the rule in line {}", rule.origin.line),
    }
}

/// The files of rules once more, for the lines that are complained of.
#[derive(Default)]
pub(super) struct Pages(HashMap<Arc<Path>, Vec<String>>);

impl Pages {
    pub(super) fn warning(
        &mut self,
        origin: &Origin,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Diagnostic {
        let about = Diagnostic::about(&origin.file, Severity::Warning, message).with_help(help);
        Diagnostic { place: Some(self.place(origin)), ..about }
    }

    /// The line of a rule; empty when the file was changed since.
    fn place(&mut self, origin: &Origin) -> Place {
        let file = &origin.file;
        let lines = self.0.entry(Arc::clone(file)).or_insert_with(|| lines(file));
        let line = lines.get(origin.line.saturating_sub(1) as usize);
        let line: String = line.map(|line| line.chars().take(KEPT).collect()).unwrap_or_default();
        let indent = line.chars().take_while(|character| character.is_whitespace()).count();
        let meant = line.trim_end().chars().count().saturating_sub(indent).max(1);
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Place {
            line: origin.line,
            column: number(indent + 1),
            width: number(meant),
            source: line,
            skipped: 0,
        }
    }
}

fn lines(path: &Path) -> Vec<String> {
    let mut bytes = Vec::new();
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let read = opened.and_then(|file| file.take(MAX_SIZE).read_to_end(&mut bytes));
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect(),
        Err(_) => Vec::new(),
    }
}
