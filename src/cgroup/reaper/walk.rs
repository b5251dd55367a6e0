//! Finds existing cgroups in the file system.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::owner_tag::OwnerTags;

/// Returns the cgroups below `root` to which a table applies, as paths from the root of the
/// hierarchy. A literal path applies to any cgroup there. A path with specifiers applies only to
/// cgroups created by cgruled, because foreign cgroups can match its pattern by chance.
pub(super) fn paths(top: &Path, root: &str, text: &str, marks: &OwnerTags) -> Vec<String> {
    let mut found = vec![root.trim_end_matches('/').to_owned()];
    for component in text.split('/').filter(|component| !component.is_empty()) {
        found = match component.contains('%') {
            false => found.iter().map(|path| format!("{path}/{component}")).collect(),
            true => found.iter().flat_map(|path| paths_in(top, path)).collect(),
        };
    }
    found.retain(|path| {
        let directory = join(top, path);
        match text.contains('%') {
            false => directory.is_dir(),
            true => marks.of(&directory).is_some_and(|mark| mark == text),
        }
    });
    found
}

/// Returns the directory of a path from the root of a hierarchy.
pub(super) fn join(top: &Path, path: &str) -> PathBuf {
    top.join(path.trim_start_matches('/'))
}

/// Returns the child cgroups of a cgroup.
pub(in crate::cgroup) fn groups_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    groups.map(|entry| entry.path()).collect()
}

fn paths_in(top: &Path, path: &str) -> Vec<String> {
    let groups = groups_in(&join(top, path));
    // Names that are not UTF-8 are never created by cgruled.
    let names = groups.iter().filter_map(|group| group.file_name()?.to_str());
    names.map(|name| format!("{path}/{name}")).collect()
}
/// Returns the inode number of a cgroup, if it exists: a later cgroup of its name has another.
pub(super) fn inode(directory: &Path) -> Option<u64> {
    fs::metadata(directory).ok().map(|seen| seen.ino())
}
