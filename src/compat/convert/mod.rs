//! Converts the files of other programs to TOML rules with the same effect; it takes and returns
//! text and never accesses files.
//!
//! Each rule is parsed back and compared with the original. One that differs is not written but
//! reported, with its line, as a diagnostic and as a comment in its place.

mod ananicy;
mod cgconfig;
mod cgrules;
mod draft;
mod toml_text;

use std::path::Path;
use std::sync::Arc;

use crate::config::diagnostic::Diagnostic;
use crate::config::rules_toml::NameKind;
use draft::TomlDraft;

/// The syntax of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum SourceSyntax {
    /// `cgrules.conf` of cgrulesengd.
    Cgrules,
    /// `.rules`, `.types` and `.cgroups` of ananicy.
    Ananicy,
    /// `cgconfig.conf` of cgrulesengd and cgconfigparser.
    Cgconfig,
}

/// A file of another program.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// The path, for diagnostics and comments.
    pub file: Arc<Path>,
    /// The syntax in which the text is parsed.
    pub syntax: SourceSyntax,
    /// The whole content of the file.
    pub text: String,
}

/// The properties of the host that a conversion depends on.
pub struct HostFacts<'h> {
    /// The controllers of the v1 hierarchies, which `*` in a legacy rule stands for.
    pub controllers: Vec<String>,
    /// The number of CPUs, which CPU quotas are relative to.
    pub cpus: u64,
    /// Checks whether a user or group of this name exists: an unknown one in a TOML rule is an
    /// error.
    pub knows: &'h dyn Fn(NameKind, &str) -> bool,
}

/// The result of a conversion.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The text of a rule file.
    pub text: String,
    /// An error for each line that cannot be expressed, a warning for each that is not quite the
    /// same.
    pub diagnostics: Vec<Diagnostic>,
}

impl SourceSyntax {
    /// Guesses the syntax of a file from its name or, if that is inconclusive, from the beginning
    /// of its text.
    pub fn guess(file: &Path, text: &str) -> Self {
        Self::of_name(file).or_else(|| Self::of_text(text)).unwrap_or(Self::Cgrules)
    }

    /// Returns the syntax of a file in a directory, which may contain other files: `None` if
    /// neither its name nor, for a visible file named `*.conf`, its text is that of a known syntax.
    pub fn of_listed(file: &Path, text: &str) -> Option<Self> {
        let is_hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        let is_conf = file.extension().is_some_and(|extension| extension == "conf");
        let of_text = if is_conf && !is_hidden { Self::of_text(text) } else { None };
        Self::of_name(file).or(of_text)
    }

    fn of_name(file: &Path) -> Option<Self> {
        let is_below = |name: &str| file.iter().any(|part| part == name);
        let extension = file.extension().and_then(|extension| extension.to_str());
        if is_below("cgrules.conf") || is_below("cgrules.d") {
            Some(Self::Cgrules)
        } else if is_below("cgconfig.conf") || is_below("cgconfig.d") {
            Some(Self::Cgconfig)
        } else {
            matches!(extension, Some("rules" | "types" | "cgroups")).then_some(Self::Ananicy)
        }
    }

    fn of_text(text: &str) -> Option<Self> {
        let is_comment = |line: &&str| line.trim().is_empty() || line.trim().starts_with('#');
        let first = text.lines().find(|line| !is_comment(line)).unwrap_or_default().trim();
        let opens = |word: &str| {
            let rest = first.strip_prefix(word);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '{']))
        };
        let sections = ["group", "template", "mount", "namespace", "default", "systemd"];
        let has_sections = sections.into_iter().any(opens) && text.contains('{');
        if first.starts_with('{') {
            Some(Self::Ananicy)
        } else {
            has_sections.then_some(Self::Cgconfig)
        }
    }
}

/// Converts files to one rule file. Files of one syntax stay in order; tables come after rules.
pub fn convert(sources: &[SourceFile], host: &HostFacts<'_>) -> Converted {
    let mut draft = TomlDraft::default();
    draft.head(sources);
    let of = |syntax: SourceSyntax| sources.iter().filter(move |source| source.syntax == syntax);
    of(SourceSyntax::Cgrules).for_each(|source| cgrules::convert(source, host, &mut draft));
    let ananicy: Vec<&SourceFile> = of(SourceSyntax::Ananicy).collect();
    if !ananicy.is_empty() {
        ananicy::convert(&ananicy, host, &mut draft);
    }
    let cgconfig: Vec<&SourceFile> = of(SourceSyntax::Cgconfig).collect();
    cgconfig::convert(&cgconfig, host, &mut draft);
    draft.finish()
}

#[cfg(test)]
impl Converted {
    /// Asserts that the text has no errors.
    fn expect_valid(self) -> Self {
        let file = Arc::from(Path::new("/a.toml"));
        let read = crate::config::rules_toml::parse(&file, &self.text);
        let is_valid = !read.diagnostics.iter().any(Diagnostic::is_error);
        assert!(is_valid, "{}\n{:?}", self.text, read.diagnostics);
        self
    }
}
