//! Lints about rules on this host, each reported at the line of its rule. Must not report a valid rule that
//! can match.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use crate::config::diagnostic::{Diagnostic, Severity, TextPosition};
use crate::config::escape::EscapedBytes;
use crate::rules::lint::{self, Unreachable};
use crate::rules::{ExeTest, Origin, Rule, RuleId};

/// Maximum bytes of a rule file that are read for the quoted lines.
const MAX_SIZE: u64 = 16 << 20;
/// Maximum characters of a line that are kept, more than are shown.
const KEPT: usize = 400;

/// Returns all lints about rules in evaluation order.
pub(super) fn all(rules: &[Rule]) -> Vec<Diagnostic> {
    let mut pages = Pages::default();
    let mut said = Vec::new();
    for (id, dead) in lint::dead(rules) {
        let (message, help) = match dead {
            Unreachable::ShadowedBy(first) => (
                format!(
                    "{} can never match: {} comes first",
                    title(rule(rules, id)),
                    title(rule(rules, first))
                ),
                format!("{} matches everything that it does", rule(rules, first).origin),
            ),
            Unreachable::HoldsForNobody => (
                format!(
                    "{} can never match: its exclusions cover all it selects",
                    title(rule(rules, id))
                ),
                "remove the rule, or narrow its exclusions".to_owned(),
            ),
        };
        said.push(pages.warning(&rule(rules, id).origin, message, help));
    }
    for (id, first) in lint::duplicate_names(rules) {
        let own = rule(rules, id);
        let other = rule(rules, first);
        // Duplicates within one file are reported by its parser.
        if own.origin.file != other.origin.file {
            let message = format!("{} is also defined in {}", title(own), other.origin);
            said.push(pages.warning(
                &own.origin,
                message,
                "rename one: the log tells them apart by line only",
            ));
        }
    }
    said.extend(missing_programs(rules, &mut pages));
    said
}

fn rule(rules: &[Rule], id: RuleId) -> &Rule {
    &rules[id.0 as usize]
}

/// Returns warnings for executables given by a path that does not exist on this host.
fn missing_programs(rules: &[Rule], pages: &mut Pages) -> Vec<Diagnostic> {
    let mut is_there: HashMap<&[u8], bool> = HashMap::new();
    let mut said = Vec::new();
    for rule in rules {
        // An executable in a container cannot be checked.
        let exes = if rule.exe_anywhere { &[][..] } else { &rule.when.exes };
        let mut seen = HashSet::new();
        for test in exes.iter().chain(&rule.not.exes) {
            let ExeTest::Path(path) = test else { continue };
            let exists = *is_there.entry(path).or_insert_with(|| exists(path));
            if exists || !seen.insert(path) {
                continue;
            }
            let message = format!("{} does not exist on this host", EscapedBytes(path));
            let help = "give the path of the executable itself, with links resolved";
            said.push(pages.warning(&rule.origin, message, help));
        }
    }
    said
}

/// Checks whether a path exists. A path without permission to look it up counts as existing.
fn exists(path: &[u8]) -> bool {
    match fs::metadata(Path::new(OsStr::from_bytes(path))) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}

/// Returns `rule "web"`, or `the rule in line 7` for a rule without a name.
fn title(rule: &Rule) -> String {
    match rule.given_name() {
        Some(name) => format!("rule \"{name}\""),
        None => format!("the rule in line {}", rule.origin.line),
    }
}

/// Lines of the rule files, read again to be quoted in diagnostics.
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

    /// Returns the place of a rule with its line; the line is empty if the file was changed since.
    fn place(&mut self, origin: &Origin) -> TextPosition {
        let file = &origin.file;
        let lines = self.0.entry(Arc::clone(file)).or_insert_with(|| lines(file));
        let line = lines.get(origin.line.saturating_sub(1) as usize);
        let line: String = line.map(|line| line.chars().take(KEPT).collect()).unwrap_or_default();
        let indent = line.chars().take_while(|character| character.is_whitespace()).count();
        let meant = line.trim_end().chars().count().saturating_sub(indent).max(1);
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        TextPosition {
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
