//! Giving groups what they are to have: controllers, settings, owners. What the kernel refuses is said
//! once for each cause and keeps no process out, unless a table says that it must.

mod advice;
mod done;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::mounts::{Hierarchy, Version};
use super::provision::{HostWrite, Kit, Level, Ownership, Perm, Provision};
use super::refusal::{self, Refusal};
use super::settings::Write;
use super::settings::order::{self, Step};
pub(super) use advice::advice;
use advice::{TOP, remedy};
pub(super) use done::Done;

/// One directory on the way to a group.
pub(super) struct Stage<'p> {
    /// The directory above.
    pub(super) parent: PathBuf,
    /// The directory itself.
    pub(super) directory: PathBuf,
    hierarchy: usize,
    version: Version,
    /// The controllers that it and those below it need.
    needs: Vec<&'p str>,
    /// Those of the path up to its own, which is the last.
    levels: &'p [Level],
    /// Whether its path is not what the destination says by letter.
    differs: bool,
    /// Whether it is the top of its hierarchy.
    is_top: bool,
}

/// The directories of a path in their order, with what each is to have. The levels of a destination are
/// the last ones; what comes before is where groups begin: the managed root, which can have a table, and
/// what is above it, which gets nothing. The top of a hierarchy is there only if it is to have something.
pub(super) fn stages<'p>(
    hierarchy: usize,
    tree: &Hierarchy,
    path: &str,
    provision: Option<&'p Provision>,
) -> Vec<Stage<'p>> {
    let components: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    let levels = provision.map_or(&[][..], |what| &what.levels);
    let root = provision.map_or(&[][..], |what| what.root.as_slice());
    let before = components.len().checked_sub(levels.len());
    // The top of the hierarchy is depth 0.
    let levels_at = |depth: usize| match before {
        Some(before) if depth == before => root,
        Some(before) if depth > before => &levels[..depth - before],
        Some(_) | None => &[],
    };
    let mut stages = Vec::with_capacity(components.len() + 1);
    let (mut directory, mut differs) = (tree.mount_point.clone(), false);
    let stage = |parent: &Path, directory: &Path, depth: usize, differs: bool| {
        let (parent, directory) = (parent.to_owned(), directory.to_owned());
        let (needs, levels, is_top) = (Vec::new(), levels_at(depth), depth == 0);
        Stage {
            parent,
            directory,
            hierarchy,
            version: tree.version,
            needs,
            levels,
            differs,
            is_top,
        }
    };
    if !levels_at(0).is_empty() {
        stages.push(stage(&directory, &directory, 0, false));
    }
    for (index, component) in components.iter().enumerate() {
        let parent = directory.clone();
        directory.push(component);
        let own = levels_at(index + 1).last().filter(|level| !level.text.is_empty());
        differs |= own.is_some_and(|level| *level.text != **component);
        stages.push(stage(&parent, &directory, index + 1, differs));
    }
    if tree.version == Version::V2 {
        add_needs(&mut stages, provision);
    }
    stages
}

/// Gives the directories of a path that exists what they are to have after a reload.
///
/// # Errors
/// Something was refused that is required.
pub(super) fn renew(
    hierarchy: usize,
    tree: &Hierarchy,
    path: &str,
    provision: &Provision,
    done: &Done,
) -> Result<(), Refusal> {
    for stage in stages(hierarchy, tree, path, Some(provision)) {
        stage.enable(done);
        stage.give(false, done)?;
    }
    Ok(())
}

/// A controller of a group must be enabled in every group above it.
fn add_needs<'p>(stages: &mut [Stage<'p>], provision: Option<&'p Provision>) {
    let mut needs: Vec<&'p str> = Vec::new();
    needs.extend(provision.iter().flat_map(|what| &what.controllers).map(String::as_str));
    for stage in stages.iter_mut().filter(|stage| !stage.is_top).rev() {
        for name in stage.kit().into_iter().flat_map(|kit| kit.needs(stage.hierarchy)) {
            if !needs.contains(&name) {
                needs.push(name);
            }
        }
        stage.needs.clone_from(&needs);
    }
}

impl<'p> Stage<'p> {
    /// The text by which a group of ours is made: that of its destination up to here.
    pub(super) fn text(&self) -> Option<String> {
        let own = self.levels.last().filter(|level| level.is_for_old && !level.text.is_empty())?;
        let above = &self.levels[..self.levels.len() - 1];
        let words = above.iter().chain([own]).map(|level| &*level.text);
        Some(words.collect::<Vec<_>>().join("/"))
    }

    /// What it gets, if it gets anything.
    fn kit(&self) -> Option<&'p Kit> {
        let level = self.levels.last()?;
        let kit = level.kit.as_deref().filter(|kit| kit.span.has(self.hierarchy))?;
        (self.differs || !level.is_template).then_some(kit)
    }

    /// Enables the controllers that are needed here in the group above.
    pub(super) fn enable(&self, done: &Done) {
        if self.needs.is_empty() || !done.may_enable(&self.directory) {
            return;
        }
        let file = self.parent.join("cgroup.subtree_control");
        let enabled = fs::read_to_string(&file).unwrap_or_default();
        let is_missing =
            |name: &&&str| !enabled.split_ascii_whitespace().any(|known| known == **name);
        let missing: Vec<&str> = self.needs.iter().filter(is_missing).copied().collect();
        let is_populated = !missing.is_empty() && self.is_parent_populated();
        for name in missing {
            let enabled = match is_populated {
                true => Err(Errno::EBUSY),
                false => write(&file, &format!("+{name}")),
            };
            let Err(errno) = enabled else { continue };
            // What is missing above is so for every group, a group that holds processes is one of many.
            let what = match errno == Errno::EBUSY {
                true => format!("{name} in {}", self.place()),
                false => name.to_owned(),
            };
            done.refused(&self.directory, (self.hierarchy, &what, errno), || {
                format!(
                    "the controller {name} cannot be enabled for the groups in {}: {} ({errno:?}): {}",
                    self.parent.display(),
                    errno.desc(),
                    remedy(errno)
                )
            });
        }
    }

    /// What a refusal is said once for: all groups of one destination up to here.
    fn place(&self) -> String {
        let words: Vec<&str> = self.levels.iter().map(|level| &*level.text).collect();
        match words.is_empty() {
            true => self.directory.display().to_string(),
            false => words.join("/"),
        }
    }

    /// Whether the group above holds processes itself. The kernel refuses to let it hand on `memory` or
    /// `io` then, but takes `cpu`, `cpuset` and `pids`: from there on the group is threaded, and those
    /// below it take no process at all.
    fn is_parent_populated(&self) -> bool {
        let read = || File::open(self.parent.join("cgroup.procs"))?.read(&mut [0]);
        // The top of the tree may hand on what it likes, and has no type.
        self.parent.join("cgroup.type").exists() && read().is_ok_and(|length| length > 0)
    }

    /// Gives the directory what it is to have.
    ///
    /// # Errors
    /// Something was refused that is required.
    pub(super) fn give(&self, is_new: bool, done: &Done) -> Result<(), Refusal> {
        let Some(kit) = self.kit() else { return Ok(()) };
        let is_for_old = self.levels.last().is_some_and(|level| level.is_for_old);
        if !is_new && (!is_for_old || done.is_given(&self.directory)) {
            return Ok(());
        }
        if let Some(key) = &kit.unmet {
            let path = self.directory.join(&**key);
            return Err(Refusal::new(path, refusal::Step::Set, Errno::EOPNOTSUPP));
        }
        self.set(kit, done)?;
        if is_new {
            self.own(&kit.perm, done);
        }
        if is_for_old {
            done.give(&self.directory);
        }
        Ok(())
    }

    /// Leaves what an old group is to get to another thread. Whether it is to get anything.
    pub(super) fn leave(&self, done: &Done) -> bool {
        let is_for_old = self.levels.last().is_some_and(|level| level.is_for_old);
        let is_left = is_for_old && self.kit().is_some();
        is_left && done.give(&self.directory)
    }

    fn set(&self, kit: &Kit, done: &Done) -> Result<(), Refusal> {
        let wanted: Vec<&HostWrite> =
            kit.writes.iter().filter(|write| write.hierarchy == self.hierarchy).collect();
        let writes: Vec<&Write> = wanted.iter().map(|wanted| &wanted.write).collect();
        let present = |file: &str| fs::read_to_string(self.directory.join(file)).ok();
        for bundle in order::bundles(&writes, &present) {
            let Err((step, errno)) = take(&self.directory, &bundle, &writes) else { continue };
            self.say(wanted[step.of], step, errno, done);
            if kit.is_required {
                let path = self.directory.join(&step.file);
                return Err(Refusal::new(path, refusal::Step::Set, errno));
            }
        }
        Ok(())
    }

    fn say(&self, wanted: &HostWrite, step: &Step, errno: Errno, done: &Done) {
        let (origin, written) = (&wanted.origin, wanted.written.escape_debug());
        let what = format!("{origin}: {written}");
        done.refused(&self.directory, (self.hierarchy, &what, errno), || {
            format!(
                "{what}: cannot write \"{}\" to {}: {} ({errno:?}): {}",
                step.value.escape_debug(),
                self.directory.join(&step.file).display(),
                errno.desc(),
                if self.is_top { TOP } else { advice(&step.file, errno) }
            )
        });
    }

    /// Gives a new directory and its files to their owners.
    fn own(&self, perm: &Perm, done: &Done) {
        if *perm == Perm::default() {
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

    fn hand(&self, path: &Path, to: &Ownership, is_directory: bool, done: &Done) {
        let Err(error) = hand_over(path, to, is_directory) else { return };
        let what = format!("owner in {}", self.place());
        done.refused(&self.directory, (self.hierarchy, &what, errno(&error)), || {
            format!("cannot change the owner or mode of {}: {error}", path.display())
        });
    }
}

/// Gives a file or directory to its owner.
pub(super) fn hand_over(path: &Path, to: &Ownership, is_directory: bool) -> io::Result<()> {
    if to.uid.is_some() || to.gid.is_some() {
        chown(path, to.uid.map(|uid| uid.0), to.gid.map(|gid| gid.0))?;
    }
    let Some(mode) = to.mode else { return Ok(()) };
    // What the kernel lets nobody do with a file stays so.
    let own = fs::metadata(path)?.mode() >> 6 & 0o7;
    let may = if is_directory { 0o7777 } else { own << 6 | own << 3 | own };
    fs::set_permissions(path, PermissionsExt::from_mode(mode & may))
}

/// Takes these steps in a group, or none of them. What a file says already is not written again: one write
/// of a limit of memory can wait for the kernel to take memory back.
pub(super) fn take<'s>(
    directory: &Path,
    bundle: &'s [Step],
    writes: &[&Write],
) -> Result<(), (&'s Step, Errno)> {
    let mut before: Vec<(PathBuf, String)> = Vec::new();
    for step in bundle {
        let path = directory.join(&step.file);
        let text = fs::read_to_string(&path).ok();
        if text.as_ref().is_some_and(|text| order::says(&step.file, text, &step.value)) {
            continue;
        }
        let mut result = write(&path, &step.value);
        let instead = writes.get(step.of).and_then(|wanted| wanted.instead.as_ref());
        if let (Err(Errno::ENOENT), Some((file, value))) = (result, instead) {
            let instead = write(&directory.join(file), value);
            result = if instead == Err(Errno::ENOENT) { result } else { instead };
        }
        if let Err(errno) = result {
            before.iter().rev().for_each(|(path, text)| restore(path, text));
            return Err((step, errno));
        }
        before.extend(text.map(|text| (path, text)));
    }
    Ok(())
}

/// One write, as the kernel wants it; a file that is missing is not made.
fn write(path: &Path, value: &str) -> Result<(), Errno> {
    let file = OpenOptions::new().write(true).open(path);
    file.and_then(|mut file| file.write_all(value.as_bytes())).map_err(|error| errno(&error))
}

/// Gives a file what it had.
fn restore(path: &Path, text: &str) {
    if let Err(errno) = write(path, text.trim()) {
        let (path, text) = (path.display(), text.trim().escape_debug());
        ::log::warn!("{path}: cannot write back \"{text}\": {} ({errno:?})", errno.desc());
    }
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
#[path = "equip_tests.rs"]
mod tests;
