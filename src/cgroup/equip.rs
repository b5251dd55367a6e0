//! Giving groups what they are to have: controllers, settings, owners. What the kernel refuses is said
//! once for each cause and keeps no process out, unless a table says that it must.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::mounts::{Hierarchies, Hierarchy, Version};
use super::provision::{HostWrite, Kit, Level, Ownership, Perm, Provision};
use super::refusal::{Refusal, Step};

/// What was done since rules were read.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// The causes that were said: one refusal for a thousand users' groups is one line.
    causes: RefCell<HashSet<(usize, Box<str>, i32)>>,
    /// The groups that have all their tables say: one above a thousand users' groups is written once.
    given: RefCell<HashSet<PathBuf>>,
    /// Where our part of systemd's tree begins, if only a part of it is ours.
    ground: Option<PathBuf>,
}

impl Done {
    /// Nothing was done, and only what is below `ground` on v2 is ours.
    pub(super) fn below(hierarchies: &Hierarchies, ground: &str) -> Self {
        let unified = hierarchies.iter().find(|tree| tree.version == Version::V2);
        let ground = unified.map(|tree| tree.mount_point.join(ground.trim_matches('/')));
        Self { ground, ..Self::default() }
    }

    /// Whether controllers may be enabled for `directory` in the group above it: not on the way to the
    /// ground, which is systemd's.
    fn may_enable(&self, directory: &Path) -> bool {
        self.ground.as_ref().is_none_or(|ground| !ground.starts_with(directory))
    }

    /// From now on everything is said and given again.
    pub(super) fn forget(&self) {
        self.causes.borrow_mut().clear();
        self.given.borrow_mut().clear();
    }

    pub(super) fn is_new(&self, hierarchy: usize, what: &str, errno: Errno) -> bool {
        self.causes.borrow_mut().insert((hierarchy, what.into(), errno as i32))
    }
}

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
            if done.is_new(self.hierarchy, name, errno) {
                ::log::warn!(
                    "the controller {name} cannot be enabled for the groups in {}: {} ({errno:?}): {}",
                    self.parent.display(),
                    errno.desc(),
                    remedy(errno)
                );
            }
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
        if !is_new && (!is_for_old || done.given.borrow().contains(&self.directory)) {
            return Ok(());
        }
        if let Some(key) = &kit.unmet {
            return Err(Refusal::new(self.directory.join(&**key), Step::Set, Errno::EOPNOTSUPP));
        }
        for write in kit.writes.iter().filter(|write| write.hierarchy == self.hierarchy) {
            self.set(write, kit.is_required, done)?;
        }
        if is_new {
            self.own(&kit.perm, done);
        }
        if is_for_old {
            done.given.borrow_mut().insert(self.directory.clone());
        }
        Ok(())
    }

    /// Leaves what an old group is to get to another thread. Whether it is to get anything.
    pub(super) fn leave(&self, done: &Done) -> bool {
        let is_for_old = self.levels.last().is_some_and(|level| level.is_for_old);
        let is_left = is_for_old && self.kit().is_some();
        is_left && done.given.borrow_mut().insert(self.directory.clone())
    }

    fn set(&self, wanted: &HostWrite, is_required: bool, done: &Done) -> Result<(), Refusal> {
        let path = self.directory.join(&wanted.write.file);
        let mut result = write(&path, &wanted.write.value);
        if let (Err(Errno::ENOENT), Some((file, value))) = (result, &wanted.write.instead) {
            let instead = write(&self.directory.join(file), value);
            result = if instead == Err(Errno::ENOENT) { result } else { instead };
        }
        let Err(errno) = result else { return Ok(()) };
        if done.is_new(self.hierarchy, &wanted.written, errno) {
            ::log::warn!(
                "{}: cannot write \"{}\" to {}: {} ({errno:?}): {}",
                wanted.written.escape_debug(),
                wanted.write.value.escape_debug(),
                path.display(),
                errno.desc(),
                if self.is_top { TOP } else { advice(errno) }
            );
        }
        if is_required { Err(Refusal::new(path, Step::Set, errno)) } else { Ok(()) }
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
        let errno = errno(&error);
        if done.is_new(self.hierarchy, "owner", errno) {
            ::log::warn!("cannot change the owner or mode of {}: {error}", path.display());
        }
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

/// One write, as the kernel wants it; a file that is missing is not made.
fn write(path: &Path, value: &str) -> Result<(), Errno> {
    let file = OpenOptions::new().write(true).open(path);
    file.and_then(|mut file| file.write_all(value.as_bytes())).map_err(|error| errno(&error))
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Why the top of a hierarchy refuses most settings.
const TOP: &str = "this is the top of the hierarchy, which is the whole machine and has few settings: \
                   give them to the groups below, or name a root below the top";

/// What can be done when a setting is refused.
pub(super) fn advice(errno: Errno) -> &'static str {
    const NO_RIGHT: &str = "the daemon may not write there: is the cgroup file system mounted \
                            read-only, or does the group belong to another manager?";
    const TOO_MUCH: &str = "the kernel does not take the value here: a group may not have more than \
                            the group above it";
    look_up(
        errno,
        &[
            (
                Errno::ENOENT,
                "the group has no such file: is the controller enabled in the group above, and does \
                 this kernel have it?",
            ),
            (Errno::EBUSY, "the group uses more than that: stop some of its processes first"),
            (Errno::EINVAL, TOO_MUCH),
            (Errno::ERANGE, TOO_MUCH),
            (Errno::ENODEV, "there is no such device"),
            (Errno::EOPNOTSUPP, "this host has no such setting: leave it out, or required = true"),
            (Errno::EACCES, NO_RIGHT),
            (Errno::EPERM, NO_RIGHT),
            (Errno::EROFS, NO_RIGHT),
        ],
    )
}

/// What can be done when a controller cannot be enabled.
fn remedy(errno: Errno) -> &'static str {
    const NO_RIGHT: &str = "that group belongs to another manager, as systemd: name a root below a \
                            unit with Delegate=yes";
    look_up(
        errno,
        &[
            (
                Errno::EBUSY,
                "that group holds processes itself, and only one without can hand controllers on: \
                 move them into a group below it",
            ),
            (
                Errno::ENOENT,
                "the controller is not available there: enable it in the group above, or where that is \
                 systemd's start the unit with Delegate=yes",
            ),
            (Errno::EACCES, NO_RIGHT),
            (Errno::EPERM, NO_RIGHT),
            (Errno::EROFS, NO_RIGHT),
            (Errno::EOPNOTSUPP, "that group is threaded, and the controller is not"),
        ],
    )
}

fn look_up(errno: Errno, known: &[(Errno, &'static str)]) -> &'static str {
    let found = known.iter().find(|(own, _)| *own == errno);
    found.map_or("see cgroups(7)", |(_, text)| text)
}

#[cfg(test)]
#[path = "equip_tests.rs"]
mod tests;
