//! A rule file in the making, and what is to be said about it. Pure.

use std::collections::HashMap;

use super::{Converted, Source, Syntax, toml_text};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::source_text::SourceText;

/// What no single rule of cgrulesengd can say.
const HEAD: &str = "\
# cgruled reads the old files as well, before this one: remove them, or start it with --no-legacy.
# Groups begin at `root` of /etc/cgruled/cgruled.toml; those of the old files began at the top of
# each hierarchy, which is root = \"/\".
# Groups that are missing are made; cgrulesengd made those alone that have a %-field.
# Processes join the hierarchies of the settings of their group too, and where cgroup v2 is mounted
# the v2 group.
# A controller that the host lacks costs a rule that hierarchy; cgrulesengd then moved nothing.
";

/// The same of ananicy.
const ANANICY: &str = "\
# ananicy puts programs into groups too, as long as it runs: disable it first.
# Groups begin at `root` of /etc/cgruled/cgruled.toml, and those that are missing are made.
";

/// The text so far.
#[derive(Default)]
pub(super) struct Draft {
    text: String,
    diagnostics: Vec<Diagnostic>,
    /// Where the group of each table was described.
    tables: HashMap<String, String>,
}

/// The lines of a file, which complaints are about.
pub(super) struct Lines<'s> {
    pub(super) text: SourceText<'s>,
    starts: Vec<usize>,
}

impl<'s> Lines<'s> {
    pub(super) fn new(source: &'s Source) -> Self {
        let starts = source.text.split_inclusive('\n').scan(0, |at, line| {
            let start = *at;
            *at += line.len();
            Some(start)
        });
        Self { starts: starts.collect(), text: SourceText::new(&source.file, &source.text) }
    }

    /// The text of a line, from 1, without its end.
    pub(super) fn get(&self, line: u32) -> &'s str {
        let start = self.starts.get(line as usize - 1).copied();
        let start = start.unwrap_or(self.text.as_str().len());
        self.text.as_str()[start..].split('\n').next().unwrap_or_default()
    }

    /// All lines with their numbers.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &'s str)> + '_ {
        (1..).take(self.starts.len()).map(|number| (number, self.get(number)))
    }

    fn diagnostic(&self, line: u32, severity: Severity, message: &str, help: &str) -> Diagnostic {
        let whole = self.get(line);
        let start = self.starts.get(line as usize - 1).copied().unwrap_or(0);
        let (indent, length) = (whole.len() - whole.trim_start().len(), whole.trim_end().len());
        let place = self.text.place(start + indent..start + length.max(indent));
        let about = Diagnostic::about(self.text.file(), severity, message);
        Diagnostic { place: Some(place), ..about.with_help(help) }
    }
}

impl Draft {
    /// The beginning of the file.
    pub(super) fn head(&mut self, sources: &[Source]) {
        let names: Vec<String> =
            sources.iter().map(|source| source.file.display().to_string()).collect();
        self.comment(&format!("# Converted from {}.", names.join(", ")));
        let is_ananicy = |source: &Source| source.syntax == Syntax::Ananicy;
        if !sources.iter().all(is_ananicy) {
            self.text += HEAD;
        }
        if sources.iter().any(is_ananicy) {
            self.text += ANANICY;
        }
        self.text += "version = 1\n";
    }

    pub(super) fn finish(self) -> Converted {
        Converted { text: self.text, diagnostics: self.diagnostics }
    }

    /// One line of comment, the sign included.
    pub(super) fn comment(&mut self, text: &str) {
        self.text += &toml_text::comment(text);
        self.text.push('\n');
    }

    /// An empty line, but never two.
    pub(super) fn blank(&mut self) {
        if !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    /// Lines of TOML.
    pub(super) fn lines(&mut self, text: &str) {
        self.text += text;
    }

    /// Lines of TOML that are not in force.
    pub(super) fn disabled(&mut self, text: &str) {
        text.lines().for_each(|line| self.comment(&format!("#{line}")));
    }

    /// Begins the table of a path, which a rule file can have once.
    ///
    /// # Errors
    /// Why it cannot have this one.
    pub(super) fn table(&mut self, path: &str, lines: &Lines<'_>, line: u32) -> Result<(), String> {
        if let Some(first) = self.tables.get(path) {
            return Err(format!("the group is described already in {first}"));
        }
        let place = format!("{}:{line}", lines.text.file().display());
        self.tables.insert(path.to_owned(), place);
        self.text += &format!("[cgroup.{}]\n", toml_text::quoted(path));
        Ok(())
    }

    /// Passes on what the parser said.
    pub(super) fn pass_on(&mut self, diagnostics: Vec<Diagnostic>) {
        self.diagnostics.extend(diagnostics);
    }

    /// Says that a line cannot be expressed, in the file too.
    pub(super) fn lost(&mut self, lines: &Lines<'_>, line: u32, why: &str, help: &str) {
        self.diagnostics.push(lines.diagnostic(line, Severity::Error, why, help));
        self.left_out(lines, line, why);
    }

    /// Says that a line is not quite the same, in the file too.
    pub(super) fn differs(&mut self, lines: &Lines<'_>, line: u32, how: &str, help: &str) {
        self.diagnostics.push(lines.diagnostic(line, Severity::Warning, how, help));
        self.comment(&format!("# line {line}: {how}"));
    }

    /// Says in the file alone why a line is not in it.
    pub(super) fn left_out(&mut self, lines: &Lines<'_>, line: u32, why: &str) {
        self.comment(&format!("# line {line}: left out: {why}"));
        self.comment(&format!("#   {}", lines.get(line).trim()));
    }
}
