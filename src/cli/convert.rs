//! `cgrulectl convert`: converts files of cgrulesengd, cgconfigparser and ananicy to one rule file. Must
//! report each line that has no equivalent.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::command::{DaemonFlags, ToolError};
use super::regular;
use crate::cgroup::mounts::Version;
use crate::cgroup::tree;
use crate::compat::convert::{Converted, HostFacts, SourceFile, SourceSyntax, convert};
use crate::config::diagnostic::has_errors;
use crate::config::rules_toml::NameKind;
use crate::policy::load::{Sources, is_leftover};

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

pub(super) fn run(given: &ConvertArgs, out: &mut dyn Write) -> Result<u8, ToolError> {
    let mut sources = Vec::new();
    for path in paths(&given.paths, &standard())? {
        let text = read(&path).map_err(|error| unreadable(&path, &error))?;
        let syntax = given.from.unwrap_or_else(|| SourceSyntax::guess(&path, &text));
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
    let old = trees.iter().filter(|tree| tree.version == Version::V1);
    let controllers = old.flat_map(|tree| tree.controllers.iter().cloned()).collect();
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    HostFacts { controllers, cpus, knows: &knows }
}

/// Checks whether a user or group exists. If NSS fails it is assumed to exist: the daemon looks it up again.
fn knows(kind: NameKind, name: &str) -> bool {
    match kind {
        NameKind::User => nix::unistd::User::from_name(name).map_or(true, |user| user.is_some()),
        NameKind::Group => {
            nix::unistd::Group::from_name(name).map_or(true, |group| group.is_some())
        }
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
        if let Some(reason) = is_leftover(name) {
            eprintln!("{}: warning: skipped: {reason}", shown(&entry));
        } else if metadata.is_file() || metadata.is_dir() && depth > 0 {
            files(&entry, depth - 1, found)?;
        }
    }
    Ok(())
}

pub(super) fn read(path: &Path) -> io::Result<String> {
    let (bytes, _) = regular::read(path)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn shown(path: &Path) -> String {
    path.display().to_string().escape_debug().to_string()
}

pub(super) fn unreadable(path: &Path, error: &io::Error) -> ToolError {
    ToolError::Failed(format!("{}: {error}", shown(path)))
}
