//! Lints about rules on this host, each reported at the line of its rule. Must not report a valid rule that
//! can match.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::diagnostic::{Diagnostic, Severity, TextPosition};
use crate::config::escape::EscapedBytes;
use crate::kernel::program::is_script;
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
        let exes = if rule.exe_anywhere && !rule.is_legacy() { &[][..] } else { &rule.when.exes };
        let mut seen = HashSet::new();
        // A missing file of a gated rule is reported where it is checked, when the rules are loaded.
        let is_reported = rule.is_gated && !rule.action.observes();
        let exes = if is_reported { &[][..] } else { exes };
        for test in exes.iter().chain(&rule.not.exes) {
            let ExeTest::Path(path) = test else { continue };
            let exists = *is_there.entry(path).or_insert_with(|| exists(path));
            let found = match (rule.is_legacy(), exists) {
                (true, true) => other_path(path).and_then(|real| in_another_directory(path, &real)),
                (true, false) | (false, true) => None,
                // A rule of a TOML file has the real path too.
                (false, false) => other_path(path).is_none().then(|| missing(path)),
            };
            if let Some((message, help)) = found.filter(|_| seen.insert(path)) {
                said.push(pages.warning(&rule.origin, message, help));
            }
        }
    }
    said
}

/// Returns message and help for a path that does not exist.
fn missing(path: &[u8]) -> (String, String) {
    let message = format!("{} does not exist on this host", EscapedBytes(path));
    (message, "give the path of the executable itself, with links resolved".to_owned())
}

/// Returns message and help for a legacy rule with a path that the kernel shows as `real`. `None` for
/// a script, which cgrulesengd compares by the path that it was started by.
fn in_another_directory(path: &[u8], real: &Path) -> Option<(String, String)> {
    let is_script = is_script(real);
    let real = EscapedBytes(real.as_os_str().as_bytes()).to_string();
    let message =
        format!("{} is {real} on this host: the rule does not match it", EscapedBytes(path));
    let help = format!("write {real}, as cgrulesengd compares the path without links");
    (!is_script).then_some((message, help))
}

/// Returns the path with the links of its directory resolved, if that is different.
fn other_path(path: &[u8]) -> Option<PathBuf> {
    let path = Path::new(OsStr::from_bytes(path));
    let (directory, name) = (path.parent()?, path.file_name()?);
    let real = fs::canonicalize(directory).ok().filter(|real| real != directory)?;
    Some(real.join(name))
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::{cgrules_conf, rules_toml};

    fn messages(rules: &[Rule], root: &Path) -> Vec<String> {
        let shown =
            |own: Diagnostic| own.message.replace(root.to_str().unwrap_or_default(), "ROOT");
        all(rules).into_iter().map(shown).collect()
    }

    #[test]
    fn a_legacy_path_through_a_link_is_reported_with_the_real_path() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        symlink("usr/bin", root.join("bin")).unwrap();
        fs::write(root.join("usr/bin/tar"), "\u{7f}ELF").unwrap();
        fs::write(root.join("usr/bin/script"), "#!/bin/sh\n").unwrap();
        let at = root.to_str().unwrap();
        let legacy = |path: &str| {
            let text = format!("*:{at}/{path} cpu a\n");
            let parsed = cgrules_conf::parse(&Arc::from(root.join("cgrules.conf")), &text);
            parsed.rules.into_iter().map(|own| own.rule).collect::<Vec<_>>()
        };
        let found = |path: &str| messages(&legacy(path), &root);
        let expected = "ROOT/bin/tar is ROOT/usr/bin/tar on this host: the rule does not match it";
        assert_eq!(found("bin/tar"), [expected]);
        assert_eq!(found("usr/bin/tar"), [""; 0]);
        assert_eq!(found("bin/script"), [""; 0], "a script is compared as it was started");
        assert_eq!(found("bin/none"), [""; 0], "it can exist in a container");
        let text = format!(
            "version = 1\n[[rule]]\nexe = [\"{at}/bin/tar\", \"{at}/bin/none\", \"{at}/usr/bin/none\"]\ncgroup = \"a\""
        );
        let parsed = rules_toml::parse(&Arc::from(root.join("a.toml")), &text);
        let rules: Vec<Rule> = parsed.rules.into_iter().map(|own| own.rule).collect();
        assert_eq!(messages(&rules, &root), ["ROOT/usr/bin/none does not exist on this host"]);
    }
}
