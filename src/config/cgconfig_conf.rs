//! Parses `/etc/cgconfig.conf` and the files of `/etc/cgconfig.d`, which configure the cgroups of
//! legacy rules; it reads no files and has no side effects.
//!
//! All sections of cgconfig.conf(5) are parsed in full, including those that other programs use.
//! Where cgrulesengd refuses all files because of one error, only the section with the error is
//! ignored here.
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

use super::criteria::NameRef;
use super::diagnostic::{Diagnostic, TextPosition};
use crate::rules::Origin;

/// The parsed sections of one file, with diagnostics.
#[derive(Debug, Default)]
pub struct ParsedCgconfig {
    /// The `template` sections, for cgroups that are created on demand.
    pub templates: Vec<GroupSection>,
    /// The `group` sections, which cgconfigparser creates at boot.
    pub groups: Vec<GroupSection>,
    /// The ownership from the `default` sections.
    pub defaults: Vec<PermSection>,
    /// The lines of the `mount` sections: controllers and their mount points.
    pub mounts: Vec<CgconfigSetting>,
    /// The lines of the `namespace` sections: controllers and cgroups.
    pub namespaces: Vec<CgconfigSetting>,
    /// The lines of the `systemd` sections, which are unknown to cgrulesengd 2.0.2.
    pub systemd: Vec<CgconfigSetting>,
    /// Errors and warnings in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// The first error that prevents cgrulesengd from starting.
    pub refusal: Option<Diagnostic>,
}

/// A `group` or `template` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSection {
    /// The path as written, including the specifiers of templates.
    pub text: String,
    /// Owner and mode of the files in a new cgroup.
    pub perm: Option<PermSection>,
    /// The controllers in the order of the file, without duplicates.
    pub controllers: Vec<ControllerSection>,
    /// The line at which the section begins.
    pub origin: Origin,
}

/// The part of a section for one controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerSection {
    /// The kernel's name of the controller, or `name=hierarchy`.
    pub name: String,
    /// The settings to write, in the order of the file.
    pub settings: Vec<CgconfigSetting>,
}

/// One `name = value;` line of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgconfigSetting {
    /// The name, which precedes the `=` sign.
    pub name: String,
    /// The value after the `=` sign, without quotes.
    pub value: String,
    /// File and line of the setting.
    pub origin: Origin,
    /// The place of the value.
    pub place: TextPosition,
}

/// A file whose content differs from what it accepts, and which cgsnapshot records all the same.
const OOM_CONTROL: &str = "memory.oom_control";

impl CgconfigSetting {
    /// Returns the values to write one after the other: each line that is not empty, as cgconfigparser
    /// does. The kernel reads only the first line of a write, and the values of cgsnapshot are what it
    /// read from the files, so that an empty one sets nothing.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        let lines = self.value.split('\n').map(str::trim).filter(|line| !line.is_empty());
        lines.filter_map(|line| match line.split_once(' ') {
            Some(("oom_kill_disable", value)) if self.name == OOM_CONTROL => Some(value.trim()),
            Some(("under_oom" | "oom_kill", _)) if self.name == OOM_CONTROL => None,
            Some(_) | None => Some(line),
        })
    }
}

/// A `perm` section: ownership of the files of a cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PermSection {
    /// Ownership of the files that processes are written to, such as `tasks`.
    pub task: SectionOwnership,
    /// Ownership of the directory and of its other files.
    pub admin: SectionOwnership,
}

/// Returns the number at the beginning of a `uid` or `gid` value, as cgrulesengd 2.0.2 reads it.
/// Returns `None` if the number is 0 or missing: the value is then a name. `u32::MAX` leaves the
/// owner of the files unchanged.
#[must_use]
pub fn leading_number(name: &str) -> Option<u32> {
    let name = name.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    let digits = name.strip_prefix(['-', '+']).unwrap_or(name);
    let digits = digits.bytes().take_while(u8::is_ascii_digit).map(|digit| i64::from(digit - b'0'));
    let number = digits.fold(0_i64, |sum, digit| sum.saturating_mul(10).saturating_add(digit));
    let number = if name.starts_with('-') { number.saturating_neg() } else { number };
    // atoi(3) returns the low half of a C long.
    u32::try_from(number & i64::from(u32::MAX)).ok().filter(|&low| low != 0)
}

/// Owner, group and modes from one `task` or `admin` section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SectionOwnership {
    /// The user, not yet resolved.
    pub user: Option<WrittenOwner>,
    /// The group, not yet resolved.
    pub group: Option<WrittenOwner>,
    /// The mode of the files, from `fperm`.
    pub file_mode: Option<u32>,
    /// The mode of the directory, from `dperm`, which only `admin` supports.
    pub directory_mode: Option<u32>,
}

/// A user or group in a `perm` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenOwner {
    /// The name or number as written.
    pub mention: NameRef,
    /// The file, which can be that of a `default` section.
    pub file: Arc<Path>,
    /// The place of the name.
    pub place: TextPosition,
}

/// Decodes the bytes of a file. Invalid UTF-8 is replaced, because it does no harm in a comment.
pub fn decode(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Parses the text of `file`, as returned by [`decode`].
pub fn parse(file: &Arc<Path>, text: &str) -> ParsedCgconfig {
    section::parse(file, text)
}

#[cfg(test)]
#[path = "cgconfig_conf_tests.rs"]
mod tests;
