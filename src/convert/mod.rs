//! Files of other programs to TOML rules that decide the same. Pure: text in, text and complaints out.
//!
//! Each rule that is written is read back and compared with what was meant; one that differs is not
//! written but said, with its line, as a complaint and as a comment where it would have been.

mod ananicy;
mod cgconfig;
mod cgrules;
mod draft;
mod toml_text;

use std::path::Path;
use std::sync::Arc;

use crate::config::diagnostic::Diagnostic;
use crate::config::rules_toml::NameKind;
use draft::Draft;

/// Whose syntax a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Syntax {
    /// `cgrules.conf` of cgrulesengd.
    Cgrules,
    /// `.rules`, `.types` and `.cgroups` of ananicy.
    Ananicy,
    /// `cgconfig.conf` of cgrulesengd and cgconfigparser.
    Cgconfig,
}

/// A file to be converted.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its path, for complaints and comments.
    pub file: Arc<Path>,
    /// Whose syntax it has.
    pub syntax: Syntax,
    /// What it says.
    pub text: String,
}

/// What must be known of the host.
pub struct Host<'h> {
    /// The controllers of the v1 hierarchies, for which `*` stands in a legacy rule.
    pub controllers: Vec<String>,
    /// How many CPUs there are.
    pub cpus: u64,
    /// Whether there is a user or group of this name: a TOML rule with an unknown one is an error.
    pub knows: &'h dyn Fn(NameKind, &str) -> bool,
}

/// The outcome.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The text of a rule file.
    pub text: String,
    /// An error for each line that cannot be expressed, a warning for each that is not quite the same.
    pub diagnostics: Vec<Diagnostic>,
}

impl Syntax {
    /// The syntax of a file, by its name and, if that says nothing, by how its text begins.
    pub fn guess(file: &Path, text: &str) -> Self {
        let has = |endings: &[&str]| {
            let extension = file.extension().and_then(|extension| extension.to_str());
            extension.is_some_and(|extension| endings.contains(&extension))
        };
        let is_below = |name: &str| file.iter().any(|part| part == name);
        let is_comment = |line: &&str| line.trim().is_empty() || line.trim().starts_with('#');
        let first = text.lines().find(|line| !is_comment(line)).unwrap_or_default().trim();
        let opens = |word: &str| {
            let rest = first.strip_prefix(word);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '{']))
        };
        let sections = ["group", "template", "mount", "namespace", "default", "systemd"];
        let is_cgconfig = is_below("cgconfig.conf") || is_below("cgconfig.d");
        let has_sections = sections.into_iter().any(opens) && text.contains('{');
        let is_cgrules = is_below("cgrules.conf") || is_below("cgrules.d");
        if has(&["rules", "types", "cgroups"]) || first.starts_with('{') {
            Self::Ananicy
        } else if !is_cgrules && (is_cgconfig || has_sections) {
            Self::Cgconfig
        } else {
            Self::Cgrules
        }
    }
}

/// Converts files to one rule file. Within a syntax their order is kept; groups come after rules.
pub fn convert(sources: &[Source], host: &Host<'_>) -> Converted {
    let mut draft = Draft::default();
    draft.head(sources);
    let of = |syntax: Syntax| sources.iter().filter(move |source| source.syntax == syntax);
    of(Syntax::Cgrules).for_each(|source| cgrules::convert(source, host, &mut draft));
    let ananicy: Vec<&Source> = of(Syntax::Ananicy).collect();
    if !ananicy.is_empty() {
        ananicy::convert(&ananicy, host, &mut draft);
    }
    of(Syntax::Cgconfig).for_each(|source| cgconfig::convert(source, host, &mut draft));
    draft.finish()
}
