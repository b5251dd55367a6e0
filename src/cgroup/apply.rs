//! Applies configuration to cgroups: controllers, settings and ownership. It must not keep a
//! process out of its cgroup because a setting failed, unless the table has `required = true`. A
//! refusal by the kernel is logged once for each cause.

mod ledger;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::advice::{TOP, of_value, remedy};
use super::config::{
    FileOwnership, GroupPermissions, HostWrite, PathConfig, PathLevel, ResolvedSpec,
};
use super::error::{self, CgroupError};
use super::mounts::{Hierarchy, Version};
use super::settings::write_order::{self, WriteStep};
use super::settings::{self, Write};
use crate::event::Uid;
use crate::sys;
pub(super) use ledger::{ApplyLedger, WrittenSetting};

/// A directory on the path of a cgroup, with the configuration that applies to it.
pub(super) struct PathStep<'p> {
    /// The parent, with `cgroup.subtree_control`.
    pub(super) parent: PathBuf,
    /// The directory of this step.
    pub(super) directory: PathBuf,
    hierarchy: usize,
    version: Version,
    /// The controllers that this cgroup and its descendants need.
    needs: Vec<&'p str>,
    /// The levels of the destination up to and including this one.
    levels: &'p [PathLevel],
    /// True if the path differs from the text of the destination, usually by an expanded specifier.
    differs: bool,
    /// The user of the path, if it is one of a process.
    user: Option<Uid>,
    /// True for the hierarchy root.
    is_top: bool,
}

/// Returns the directories of a path from the root down, each with its configuration. The levels of
/// a destination are the last components. The components before them are the managed root, which
/// can have a table, and its ancestors, which are not configured. The hierarchy root is included
/// only if it has a table.
pub(super) fn path_steps<'p>(
    hierarchy: usize,
    tree: &Hierarchy,
    path: &str,
    config: Option<&'p PathConfig>,
) -> Vec<PathStep<'p>> {
    let components: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    let mut stages = Vec::with_capacity(components.len() + 1);
    let mut directory = tree.mount_point.clone();
    let mut differs = false;
    for depth in 0..=components.len() {
        let parent = directory.clone();
        let levels = config.map_or(&[][..], |config| config.levels_at(depth, components.len()));
        let is_top = depth == 0;
        if is_top && levels.is_empty() {
            continue;
        }
        if !is_top {
            let component = components[depth - 1];
            directory.push(component);
            let own = levels.last().filter(|level| !level.text.is_empty());
            differs |= own.is_some_and(|level| *level.text != *component);
        }
        stages.push(PathStep {
            parent,
            directory: directory.clone(),
            hierarchy,
            version: tree.version,
            needs: Vec::new(),
            levels,
            differs,
            user: config.and_then(|config| config.user),
            is_top,
        });
    }
    if tree.version == Version::V2 {
        add_needs(&mut stages, config);
    }
    stages
}

/// Applies changed configuration to the existing directories of a path after a reload.
///
/// # Errors
/// The kernel refused a required setting.
pub(super) fn renew(
    hierarchy: usize,
    tree: &Hierarchy,
    path: &str,
    config: &PathConfig,
    done: &ApplyLedger,
) -> Result<(), CgroupError> {
    for stage in path_steps(hierarchy, tree, path, Some(config)) {
        stage.enable(done);
        stage.give(false, done)?;
    }
    Ok(())
}

/// Computes the controllers of each step. A controller is available in a cgroup only if it is
/// enabled in every ancestor.
fn add_needs<'p>(stages: &mut [PathStep<'p>], config: Option<&'p PathConfig>) {
    let mut needs: Vec<&'p str> = Vec::new();
    needs.extend(config.iter().flat_map(|what| &what.controllers).map(String::as_str));
    for stage in stages.iter_mut().filter(|stage| !stage.is_top).rev() {
        for name in
            stage.resolved().into_iter().flat_map(|resolved| resolved.needs(stage.hierarchy))
        {
            if !needs.contains(&name) {
                needs.push(name);
            }
        }
        stage.needs.clone_from(&needs);
    }
}

impl<'p> PathStep<'p> {
    /// Returns the destination text up to this step, which is stored in the owner tag of a new
    /// cgroup.
    pub(super) fn text(&self) -> Option<String> {
        let own = self.levels.last().filter(|level| level.is_for_old && !level.text.is_empty())?;
        let above = &self.levels[..self.levels.len() - 1];
        let words = above.iter().chain([own]).map(|level| &*level.text);
        Some(words.collect::<Vec<_>>().join("/"))
    }

    /// Returns the configuration of this step, if there is one for this path and hierarchy.
    fn resolved(&self) -> Option<&'p ResolvedSpec> {
        let level = self.levels.last()?;
        let resolved =
            level.resolved.as_deref().filter(|resolved| resolved.span.has(self.hierarchy))?;
        (self.differs || !level.is_template).then_some(resolved)
    }

    /// Checks whether the configuration of this step writes a file.
    pub(super) fn writes(&self, file: &str) -> bool {
        let mut writes = self.resolved().into_iter().flat_map(|resolved| &resolved.writes);
        writes.any(|own| own.hierarchy == self.hierarchy && own.write.file == file)
    }

    /// Enables the needed controllers in the `cgroup.subtree_control` of the parent.
    pub(super) fn enable(&self, done: &ApplyLedger) {
        if self.needs.is_empty() || !done.may_enable(&self.directory) {
            return;
        }
        let file = self.parent.join("cgroup.subtree_control");
        let enabled = fs::read_to_string(&file).unwrap_or_default();
        let mut missing = self.needs.clone();
        missing.retain(|name| !enabled.split_ascii_whitespace().any(|known| known == *name));
        let is_populated = !missing.is_empty() && self.is_parent_populated();
        for name in missing {
            let enabled = match is_populated {
                true => Err(Errno::EBUSY),
                false => write(&file, &format!("+{name}")),
            };
            let Err(errno) = enabled else { continue };
            // A controller that is missing in the parent is missing for every cgroup there, so its
            // name is the cause. EBUSY concerns this parent only, so the place is part of the
            // cause.
            let what = match errno == Errno::EBUSY {
                true => format!("{name} in {}", self.place()),
                false => name.to_owned(),
            };
            done.refused(&self.directory, (self.hierarchy, &what, errno), || {
                format!(
                    "cannot enable controller {name} in {}: {} ({errno:?}): {}",
                    file.display(),
                    errno.desc(),
                    remedy(errno)
                )
            });
        }
    }

    /// Returns the place named in a diagnostic: one text for all cgroups of a destination up to
    /// this step, so that it is logged once.
    fn place(&self) -> String {
        match self.levels.is_empty() {
            true => self.directory.display().to_string(),
            false => self.levels_text(),
        }
    }

    /// Checks whether the parent cgroup contains processes itself.
    fn is_parent_populated(&self) -> bool {
        // The kernel then refuses to enable `memory` or `io` in `cgroup.subtree_control`, but accepts
        // `cpu`, `cpuset` and `pids`: the subtree becomes threaded and its cgroups accept no process.
        // The root cgroup is exempt from the "no internal processes" rule and has no `cgroup.type`.
        if !self.parent.join("cgroup.type").exists() {
            return false;
        }
        let processes = File::open(self.parent.join("cgroup.procs"));
        processes.and_then(|mut file| file.read(&mut [0])).is_ok_and(|length| length > 0)
    }

    /// Applies the configuration to the directory.
    ///
    /// # Errors
    /// The kernel refused a required setting.
    pub(super) fn give(&self, is_new: bool, done: &ApplyLedger) -> Result<(), CgroupError> {
        let Some(resolved) = self.resolved() else { return Ok(()) };
        let is_for_old = self.levels.last().is_some_and(|level| level.is_for_old);
        if !is_new && (!is_for_old || done.is_given(&self.directory)) {
            return Ok(());
        }
        if let Some(key) = &resolved.unmet {
            let path = self.directory.join(&**key);
            return Err(CgroupError::new(path, error::CgroupOperation::Set, Errno::EOPNOTSUPP));
        }
        self.set(resolved, done)?;
        if is_new {
            self.own(&resolved.perm.of_user(self.user), done);
        }
        if is_for_old {
            done.give(&self.directory);
        }
        Ok(())
    }

    /// Defers the configuration of an existing cgroup to the maintenance thread. Returns whether
    /// there is something to apply.
    pub(super) fn leave(&self, done: &ApplyLedger) -> bool {
        let is_for_old = self.levels.last().is_some_and(|level| level.is_for_old);
        let is_left = is_for_old && self.resolved().is_some();
        is_left && done.give(&self.directory)
    }

    fn set(&self, resolved: &ResolvedSpec, done: &ApplyLedger) -> Result<(), CgroupError> {
        let wanted: Vec<&HostWrite> =
            resolved.writes.iter().filter(|write| write.hierarchy == self.hierarchy).collect();
        let writes: Vec<&Write> = wanted.iter().map(|wanted| &wanted.write).collect();
        let bundles = write_order::batches(&writes, &|file| {
            fs::read_to_string(self.directory.join(file)).ok()
        });
        for bundle in bundles {
            let (step, errno) = match take(&self.directory, &bundle, &writes) {
                Ok(applied) => {
                    self.record(applied, done);
                    continue;
                }
                Err(refused) => refused,
            };
            self.say(wanted[step.of], step, errno, done);
            if resolved.is_required {
                let path = self.directory.join(&step.file);
                return Err(CgroupError::new(path, error::CgroupOperation::Set, errno));
            }
        }
        Ok(())
    }

    /// Records settings that are reverted when no table contains them any more. Those of
    /// cgconfig.conf stay, as with cgrulesengd.
    fn record(&self, applied: Vec<AppliedStep>, done: &ApplyLedger) {
        if !self.levels.last().is_some_and(|level| level.is_for_old) {
            return;
        }
        for AppliedStep { file, value, was_set } in applied {
            done.wrote(|| WrittenSetting {
                directory: self.directory.clone(),
                text: self.levels_text(),
                slot: settings::slot(&file, &value),
                was_set,
            });
        }
    }

    /// Returns the text of the destination up to this step.
    fn levels_text(&self) -> String {
        self.levels.iter().map(|level| &*level.text).collect::<Vec<_>>().join("/")
    }

    fn say(&self, wanted: &HostWrite, step: &WriteStep, errno: Errno, done: &ApplyLedger) {
        let origin = &wanted.origin;
        let written = wanted.written.escape_debug();
        let what = format!("{origin}: {written}");
        done.refused(&self.directory, (self.hierarchy, &what, errno), || {
            format!(
                "{what}: cannot write \"{}\" to {}: {} ({errno:?}): {}",
                step.value.escape_debug(),
                self.directory.join(&step.file).display(),
                errno.desc(),
                if self.is_top { TOP.to_owned() } else { of_value(&step.file, &step.value, errno) }
            )
        });
    }

    /// Sets owner and mode of a new directory and its files.
    fn own(&self, perm: &GroupPermissions, done: &ApplyLedger) {
        if *perm == GroupPermissions::default() {
            return;
        }
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file())) {
            let name = entry.file_name();
            let ownership = perm.of_file(name.to_str().unwrap_or_default(), self.version);
            self.hand(&entry.path(), ownership, false, done);
        }
        self.hand(&self.directory, &perm.directory, true, done);
    }

    fn hand(&self, path: &Path, to: &FileOwnership, is_directory: bool, done: &ApplyLedger) {
        let Err(error) = chown_files(path, to, is_directory) else { return };
        let what = format!("owner in {}", self.place());
        done.refused(&self.directory, (self.hierarchy, &what, sys::errno(&error)), || {
            format!("cannot change the owner or mode of {}: {error}", path.display())
        });
    }
}

/// Sets owner and mode of a file or directory.
pub(super) fn chown_files(path: &Path, to: &FileOwnership, is_directory: bool) -> io::Result<()> {
    if to.uid.is_some() || to.gid.is_some() {
        chown(path, to.uid.map(|uid| uid.0), to.gid.map(|gid| gid.0))?;
    }
    let Some(mode) = to.mode else { return Ok(()) };
    // The mode of a file can only lose bits: permissions that root lacks are not granted to others.
    let own = fs::metadata(path)?.mode() >> 6 & 0o7;
    let may = if is_directory { 0o7777 } else { own << 6 | own << 3 | own };
    fs::set_permissions(path, PermissionsExt::from_mode(mode & may))
}

/// A file of a cgroup with a value that was to be written.
#[derive(Debug)]
pub(super) struct AppliedStep {
    file: String,
    value: String,
    /// True if the file had the value before.
    was_set: bool,
}

impl AppliedStep {
    fn of(step: &WriteStep, was_set: bool) -> Self {
        Self { file: step.file.clone(), value: step.value.clone(), was_set }
    }
}

/// Writes a batch of settings to a cgroup, all or none. Returns the files with their values.
pub(super) fn take<'s>(
    directory: &Path,
    bundle: &'s [WriteStep],
    writes: &[&Write],
) -> Result<Vec<AppliedStep>, (&'s WriteStep, Errno)> {
    let mut before: Vec<(PathBuf, String)> = Vec::new();
    let mut applied = Vec::new();
    for step in bundle {
        let path = directory.join(&step.file);
        let text = fs::read_to_string(&path).ok();
        // Already set. Writing a memory limit again can block while the kernel reclaims memory.
        if text.as_ref().is_some_and(|text| write_order::says(&step.file, text, &step.value)) {
            applied.push(AppliedStep::of(step, true));
            continue;
        }
        let mut result = write(&path, &step.value);
        let mut written = AppliedStep::of(step, false);
        let instead = writes.get(step.of).and_then(|wanted| wanted.instead.as_ref());
        if let (Err(Errno::ENOENT), Some((file, value))) = (result, instead) {
            let instead = write(&directory.join(file), value);
            result = if instead == Err(Errno::ENOENT) { result } else { instead };
            written =
                AppliedStep { file: (*file).to_owned(), value: value.clone(), was_set: false };
        }
        if let Err(errno) = result {
            before.iter().rev().for_each(|(path, text)| restore(path, text));
            return Err((step, errno));
        }
        before.extend(text.map(|text| (path, text)));
        applied.push(written);
    }
    Ok(applied)
}

/// Writes a value with a single write(2), as the kernel requires; never creates the file.
fn write(path: &Path, value: &str) -> Result<(), Errno> {
    let file = OpenOptions::new().write(true).open(path);
    file.and_then(|mut file| file.write_all(value.as_bytes())).map_err(|error| sys::errno(&error))
}

/// Writes the previous content of a file back.
fn restore(path: &Path, text: &str) {
    if let Err(errno) = write(path, text.trim()) {
        let path = path.display();
        let text = text.trim().escape_debug();
        ::log::warn!("{path}: cannot restore \"{text}\": {} ({errno:?})", errno.desc());
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
