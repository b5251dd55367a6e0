//! Collects the text of a converted rule file with its diagnostics; it does not check the text.

use std::collections::{HashMap, HashSet};

use super::{Converted, SourceFile, SourceSyntax, toml_text};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::source_text::SourceText;
use crate::rules::Criteria;
use crate::rules::destination::prefixes;

/// Differences from cgrulesengd that apply to the file as a whole.
const HEAD: &str = "\
# cgruled also reads the old files, before this one: remove them, or start it with --no-legacy.
# Paths are relative to `root` of /etc/cgruled/cgruled.toml; those of the old files were relative
# to the root of each hierarchy, which is root = \"/\".
# Missing cgroups are created; cgrulesengd created only those with a %-specifier.
# Processes are also placed in the hierarchies that the settings of their cgroup need and, where
# cgroup v2 is mounted, in the v2 cgroup.
# If the host lacks a controller, only that hierarchy is skipped; cgrulesengd then moved nothing.
";

/// The same for the files of ananicy.
const ANANICY: &str = "\
# ananicy also places programs in cgroups while it runs: disable it first.
# Paths are relative to `root` of /etc/cgruled/cgruled.toml; missing cgroups are created.
";

/// The text and diagnostics so far.
#[derive(Default)]
pub(super) struct TomlDraft {
    text: String,
    /// The length of the header, after which `requires` belongs.
    header: usize,
    diagnostics: Vec<Diagnostic>,
    /// The place of the table of each path.
    tables: HashMap<String, String>,
    /// The paths of the cgroups of rules and of the cgroups above them; `None` if no file has rules, so
    /// that it is unknown which cgroups are used.
    used: Option<HashSet<String>>,
    /// A rule has criteria on the context of a process, which older versions do not know.
    needs_context: bool,
}

/// The first version with criteria on the context of a process.
const FIRST_WITH_CONTEXT: &str = "0.2";

/// The most files that the header names.
const NAMED_FILES: usize = 8;

/// The lines of a file, to which diagnostics refer.
pub(super) struct SourceLines<'s> {
    pub(super) text: SourceText<'s>,
    starts: Vec<usize>,
}

impl<'s> SourceLines<'s> {
    pub(super) fn new(source: &'s SourceFile) -> Self {
        let starts = source.text.split_inclusive('\n').scan(0, |at, line| {
            let start = *at;
            *at += line.len();
            Some(start)
        });
        Self { starts: starts.collect(), text: SourceText::new(&source.file, &source.text) }
    }

    /// Returns the text of a line, counted from 1, without its end.
    pub(super) fn get(&self, line: u32) -> &'s str {
        let start = self.starts.get(line as usize - 1).copied();
        let start = start.unwrap_or(self.text.as_str().len());
        self.text.as_str()[start..].split('\n').next().unwrap_or_default()
    }

    /// Returns all lines with their numbers.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &'s str)> + '_ {
        self.between(1, u32::MAX)
    }

    /// Returns the lines from `first` to the one before `end`, with their numbers.
    pub(super) fn between(
        &self,
        first: u32,
        end: u32,
    ) -> impl Iterator<Item = (u32, &'s str)> + '_ {
        let count = u32::try_from(self.starts.len()).unwrap_or(u32::MAX);
        (first..end.min(count.saturating_add(1))).map(|number| (number, self.get(number)))
    }

    fn diagnostic(&self, line: u32, severity: Severity, message: &str, help: &str) -> Diagnostic {
        let whole = self.get(line);
        let start = self.starts.get(line as usize - 1).copied().unwrap_or(0);
        let indent = whole.len() - whole.trim_start().len();
        let length = whole.trim_end().len();
        let place = self.text.place(start + indent..start + length.max(indent));
        let about = Diagnostic::about(self.text.file(), severity, message);
        Diagnostic { place: Some(place), ..about.with_help(help) }
    }
}

impl TomlDraft {
    /// Writes the header of the file.
    pub(super) fn head(&mut self, sources: &[SourceFile]) {
        let names: Vec<String> =
            sources.iter().map(|source| source.file.display().to_string()).collect();
        let more = names.len().saturating_sub(NAMED_FILES);
        let more = if more > 0 { format!(" and {more} more files") } else { String::new() };
        let named = names[..names.len().min(NAMED_FILES)].join(", ");
        self.comment(&format!("# Converted from {named}{more}."));
        let is_ananicy = |source: &SourceFile| source.syntax == SourceSyntax::Ananicy;
        if !sources.iter().all(is_ananicy) {
            self.text += HEAD;
        }
        if sources.iter().any(is_ananicy) {
            self.text += ANANICY;
        }
        self.text += "version = 1\n";
        self.header = self.text.len();
    }

    pub(super) fn finish(mut self) -> Converted {
        if self.needs_context {
            self.text.insert_str(self.header, &format!("requires = \"{FIRST_WITH_CONTEXT}\"\n"));
        }
        Converted { text: self.text, diagnostics: self.diagnostics }
    }

    /// Writes one comment line. `text` includes the `#`.
    pub(super) fn comment(&mut self, text: &str) {
        self.text += &toml_text::comment(text);
        self.text.push('\n');
    }

    /// Writes an empty line, but never two.
    pub(super) fn blank(&mut self) {
        if !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    /// Writes lines of TOML as they are.
    pub(super) fn lines(&mut self, text: &str) {
        self.text += text;
    }

    /// Writes lines of TOML that are commented out.
    pub(super) fn disabled(&mut self, text: &str) {
        text.lines().for_each(|line| self.comment(&format!("#{line}")));
    }

    /// Writes a rule, with criteria on the context of a process or without.
    pub(super) fn rule(&mut self, text: &str, when: &Criteria) {
        self.needs_context |= when.context.is_some();
        self.lines(text);
    }

    /// Records that a file has rules, even if none of them is converted.
    pub(super) fn has_rules(&mut self) {
        self.used.get_or_insert_default();
    }

    /// Records that a rule uses the cgroup of a path.
    pub(super) fn uses(&mut self, path: &str) {
        // The path of the managed root is empty.
        let all = prefixes(path).chain([path.trim_matches('/')]);
        self.used.get_or_insert_default().extend(all.map(str::to_owned));
    }

    /// Checks whether the files have rules, and none of them uses the cgroup of a path.
    pub(super) fn is_unused(&self, path: &str) -> bool {
        self.used.as_ref().is_some_and(|used| !used.contains(path.trim_matches('/')))
    }

    /// Begins the table of a path, of which a rule file can have one.
    ///
    /// # Errors
    /// Returns the place of an earlier table.
    pub(super) fn table(
        &mut self,
        path: &str,
        lines: &SourceLines<'_>,
        line: u32,
    ) -> Result<(), String> {
        if let Some(first) = self.tables.get(path) {
            return Err(format!("duplicate table for this cgroup, first in {first}"));
        }
        let place = format!("{}:{line}", lines.text.file().display());
        self.tables.insert(path.to_owned(), place);
        self.text += &format!("[cgroup.{}]\n", toml_text::quoted(path));
        Ok(())
    }

    /// Adds the diagnostics of the parser.
    pub(super) fn pass_on(&mut self, diagnostics: Vec<Diagnostic>) {
        self.diagnostics.extend(diagnostics);
    }

    /// Reports that a line cannot be expressed, also in the file.
    pub(super) fn lost(&mut self, lines: &SourceLines<'_>, line: u32, why: &str, help: &str) {
        self.diagnostics.push(lines.diagnostic(line, Severity::Error, why, help));
        self.left_out(lines, line, why);
    }

    /// Reports that a line is not quite the same, also in the file.
    pub(super) fn differs(&mut self, lines: &SourceLines<'_>, line: u32, how: &str, help: &str) {
        self.diagnostics.push(lines.diagnostic(line, Severity::Warning, how, help));
        self.comment(&format!("# line {line}: {how}"));
    }

    /// Writes a comment about a line that is not converted, without a diagnostic.
    pub(super) fn left_out(&mut self, lines: &SourceLines<'_>, line: u32, why: &str) {
        self.comment(&format!("# line {line}: not converted: {why}"));
        self.comment(&format!("#   {}", lines.get(line).trim()));
    }
}
