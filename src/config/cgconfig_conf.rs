//! `/etc/cgconfig.conf` and the files of `/etc/cgconfig.d`: what groups of legacy rules get when they
//! are made. Pure.
//!
//! All sections of cgconfig.conf(5) are read in full, also those that are another program's business.
//! Where cgrulesengd refuses everything because of one fault, the section with it is left out here.
//!
//! ```text
//! template ct/%u {
//!     perm { task { uid = root; } admin { gid = web; } }
//!     cpu { cpu.shares = 333; }
//! }
//! ```

mod section;
mod token;

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use super::criteria::Mention;
use super::diagnostic::Diagnostic;
use crate::rules::Origin;

/// What a file says.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The `template` sections.
    pub templates: Vec<GroupSection>,
    /// The `group` sections, which cgconfigparser makes at boot.
    pub groups: Vec<GroupSection>,
    /// The `default` sections.
    pub defaults: Vec<Perm>,
    /// The lines of the `mount` sections: controllers and where to mount them.
    pub mounts: Vec<Setting>,
    /// The lines of the `namespace` sections: controllers and groups.
    pub namespaces: Vec<Setting>,
    /// The lines of the `systemd` sections, which 2.0.2 does not know.
    pub systemd: Vec<Setting>,
    /// What is wrong, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// The first fault for which cgrulesengd would not start.
    pub refusal: Option<Diagnostic>,
}

/// A `group` or `template` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSection {
    /// The path as written, fields of templates included.
    pub text: String,
    /// Who owns the files of a new group.
    pub perm: Option<Perm>,
    /// The controllers in the order of the file, each once.
    pub controllers: Vec<Controller>,
    /// Where the section begins.
    pub origin: Origin,
}

/// The part of a section for one controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// As the kernel names it, or `name=hierarchy`.
    pub name: String,
    /// What to write into its files, in the order of the file.
    pub settings: Vec<Setting>,
}

/// A `name = value;`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// What stands before the sign.
    pub name: String,
    /// What stands behind it.
    pub value: String,
    /// Where it is written.
    pub origin: Origin,
}

/// A `perm` section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Perm {
    /// The files that take processes.
    pub task: Ownership,
    /// The directory and its other files.
    pub admin: Ownership,
}

/// What 2.0.2 takes a `uid` or `gid` for: the number at its beginning, unless that is 0; else `None`, and
/// it is a name. `u32::MAX` is nobody's: the files stay whose they are.
#[must_use]
pub fn leading_number(name: &str) -> Option<u32> {
    let name = name.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    let digits = name.strip_prefix(['-', '+']).unwrap_or(name);
    let digits = digits.bytes().take_while(u8::is_ascii_digit).map(|digit| i64::from(digit - b'0'));
    let number = digits.fold(0_i64, |sum, digit| sum.saturating_mul(10).saturating_add(digit));
    let number = if name.starts_with('-') { number.saturating_neg() } else { number };
    // The low half of a C long, as atoi(3) gives it.
    u32::try_from(number & i64::from(u32::MAX)).ok().filter(|&low| low != 0)
}

/// Owner and mode of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// The user's name, still to be resolved.
    pub user: Option<Mention>,
    /// The group's name, still to be resolved.
    pub group: Option<Mention>,
    /// The mode of files.
    pub file_mode: Option<u32>,
    /// The mode of the directory; only `admin` has it.
    pub directory_mode: Option<u32>,
}

/// The bytes as text. What is not UTF-8 is harmless in a comment.
pub fn decode(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Parses the text of `file`, as [`decode`] gave it.
pub fn parse(file: &Arc<Path>, text: &str) -> Parsed {
    section::parse(file, text)
}

#[cfg(test)]
#[path = "cgconfig_conf_tests.rs"]
mod tests;
