//! `cgrulectl convert`: converts files of cgrulesengd, cgconfigparser and ananicy to one rule file. Must
//! report each line that has no equivalent.

use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::command::{DaemonFlags, ToolError};
use super::regular;
use crate::cgroup::mounts::{Hierarchy, Version};
use crate::cgroup::tree;
use crate::compat::convert::{Converted, HostFacts, SourceFile, SourceSyntax, convert};
use crate::config::diagnostic::has_errors;
use crate::config::rules_toml::NameKind;
use crate::policy::load::{Sources, is_leftover};
use crate::sys::accounts;

#[derive(clap::Args)]
#[command(
    about = "Convert files of cgrulesengd or ananicy to TOML rules",
    after_help = "\
Examples:
  cgrulectl convert > 10-legacy.toml
      convert /etc/cgrules.conf, cgrules.d, cgconfig.conf and cgconfig.d;
      lines without an equivalent are reported, with exit status 1
  cgrulectl convert /etc/ananicy.d
      convert all files in and below a directory"
)]
pub(super) struct ConvertArgs {
    /// cgrules, cgconfig or ananicy (default: by name and contents)
    #[arg(long, value_name = "SYNTAX", hide_possible_values = true)]
    from: Option<SourceSyntax>,
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    daemon: DaemonFlags,
}

/// Maximum depth of directories below one on the command line.
const MAX_DEPTH: usize = 8;

/// The reason for which a file in a directory is not converted.
const UNKNOWN: &str = "not a file of cgrulesengd, cgconfigparser or ananicy by its name; \
                       to convert it, give its own path";

pub(super) fn run(given: &ConvertArgs, out: &mut dyn Write) -> Result<u8, ToolError> {
    let mut sources = Vec::new();
    for path in paths(&given.paths, &standard())? {
        let text = read(&path).map_err(|error| unreadable(&path, &error))?;
        let syntax = match given.from {
            // A directory on the command line may also contain other files.
            None if !given.paths.is_empty() && !given.paths.contains(&path) => {
                SourceSyntax::of_listed(&path, &text)
            }
            from => Some(from.unwrap_or_else(|| SourceSyntax::guess(&path, &text))),
        };
        let Some(syntax) = syntax else {
            eprintln!("{}: warning: skipped: {UNKNOWN}", shown(&path));
            continue;
        };
        let file = Arc::from(std::path::absolute(&path).unwrap_or(path));
        sources.push(SourceFile { file, syntax, text });
    }
    if sources.is_empty() {
        let why = match given.paths.is_empty() {
            true => "no cgrulesengd file in /etc, and no PATH given",
            false => "no file to convert in the given paths",
        };
        return Err(ToolError::Failed(format!("nothing to convert: {why}")));
    }
    let Converted { text, diagnostics } = convert(&sources, &host());
    out.write_all(text.as_bytes())?;
    diagnostics.iter().for_each(|diagnostic| eprintln!("{diagnostic}"));
    Ok(u8::from(has_errors(&diagnostics)))
}

/// Returns the properties of this host that the conversion depends on.
fn host() -> HostFacts<'static> {
    let trees = tree::discover().unwrap_or_default();
    let controllers = controllers_of_star(&trees);
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    HostFacts { controllers, cpus, knows: &knows }
}

/// Returns the v1 controllers that `*` in a legacy rule stands for: as when the rule is applied, not
/// the hierarchy of systemd (`name=systemd`), which cgrulesengd does not touch either.
fn controllers_of_star(trees: &[Hierarchy]) -> Vec<String> {
    let old = trees.iter().filter(|tree| tree.version == Version::V1 && tree.is_legacy());
    old.flat_map(|tree| tree.controllers.iter().cloned()).collect()
}

/// Checks whether a user or group exists. If NSS fails it is assumed to exist: the daemon looks it up again.
fn knows(kind: NameKind, name: &str) -> bool {
    match kind {
        NameKind::User => accounts::user_by_name(name).map_or(true, |user| user.is_some()),
        NameKind::Group => accounts::group_by_name(name).map_or(true, |group| group.is_some()),
        NameKind::GroupPattern => true,
    }
}

/// Returns the standard paths of cgrulesengd's files.
fn standard() -> [PathBuf; 4] {
    let Sources { cgrules_conf, cgrules_d, cgconfig_conf, cgconfig_d, .. } = Sources::default();
    [cgrules_conf, cgrules_d, cgconfig_conf, cgconfig_d]
}

/// Returns the files to read in order of precedence: those of the operands, or without any those of
/// `standard` that exist.
pub(super) fn paths(given: &[PathBuf], standard: &[PathBuf]) -> Result<Vec<PathBuf>, ToolError> {
    let mut found = Vec::new();
    if given.is_empty() {
        let there = standard.iter().filter(|path| path.exists());
        there.into_iter().try_for_each(|path| files(path, MAX_DEPTH, &mut found))?;
    }
    given.iter().try_for_each(|path| files(path, MAX_DEPTH, &mut found))?;
    Ok(found)
}

/// Adds a file, or all files below a directory in the order of their names.
fn files(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), ToolError> {
    if !fs::metadata(path).map_err(|error| unreadable(path, &error))?.is_dir() {
        if path.extension().is_some_and(|extension| extension == "toml") {
            eprintln!("{}: warning: skipped: already a TOML file", shown(path));
        } else {
            found.push(path.to_owned());
        }
        return Ok(());
    }
    let entries = fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
    let mut entries = entries.map_err(|error| unreadable(path, &error))?;
    entries.sort();
    for entry in entries {
        let name = entry.file_name().unwrap_or_default();
        let Ok(metadata) = fs::metadata(&entry) else { continue };
        let is_hidden = name.as_encoded_bytes().starts_with(b".");
        if is_hidden && metadata.is_dir() {
            eprintln!("{}: warning: skipped: hidden directory", shown(&entry));
        } else if let Some(reason) = is_leftover(name) {
            eprintln!("{}: warning: skipped: {reason}", shown(&entry));
        } else if metadata.is_file() || metadata.is_dir() && depth > 0 {
            files(&entry, depth - 1, found)?;
        }
    }
    Ok(())
}

/// Reads a file as text.
///
/// # Errors
/// As [`regular::read`]; or the output would show the file to a user who cannot read it.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let (bytes, metadata) = regular::read(path)?;
    if runs_by_sudo() && !is_public(path, &metadata) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "not all users can read this file, and sudo may permit this command alone: \
             run it in a shell of root",
        ));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Checks whether another user than root started the command as root with sudo(8).
fn runs_by_sudo() -> bool {
    let is_other = |uid: String| uid != "0";
    nix::unistd::geteuid().is_root() && std::env::var("SUDO_UID").is_ok_and(is_other)
}

/// Checks whether all users can read a file, and search each directory on the way to it.
fn is_public(path: &Path, metadata: &Metadata) -> bool {
    const READ: u32 = 0o004;
    const SEARCH: u32 = 0o001;
    let Ok(path) = path.canonicalize() else { return false };
    let mut directories = path.ancestors().skip(1);
    metadata.mode() & READ != 0
        && directories.all(|directory| {
            fs::metadata(directory).is_ok_and(|metadata| metadata.mode() & SEARCH != 0)
        })
}

fn shown(path: &Path) -> String {
    path.display().to_string().escape_debug().to_string()
}

pub(super) fn unreadable(path: &Path, error: &io::Error) -> ToolError {
    ToolError::Failed(format!("{}: {error}", shown(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_does_not_stand_for_the_hierarchy_of_systemd() {
        let tree = |version, listed: &str| {
            let names = listed.split(',').map(str::to_owned).collect();
            Hierarchy::for_test(version, "/x", listed, names)
        };
        let trees = [
            tree(Version::V1, "cpu,cpuacct"),
            tree(Version::V1, "name=systemd"),
            tree(Version::V1, "name=jobs"),
            tree(Version::V2, "hugetlb"),
        ];
        assert_eq!(controllers_of_star(&trees), ["cpu", "cpuacct", "name=jobs"]);
    }
}
