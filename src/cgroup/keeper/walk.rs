//! Finding the groups that exist.

use std::fs;
use std::path::{Path, PathBuf};

use super::mark::Marks;

/// The paths from the top of a hierarchy of the groups that a table below `root` is for. One that is
/// written out is meant whoever made the group; one with fields means groups of ours alone, because
/// anybody's could have such a name.
pub(super) fn paths(top: &Path, root: &str, text: &str, marks: &Marks) -> Vec<String> {
    let mut found = vec![root.trim_end_matches('/').to_owned()];
    for component in text.split('/').filter(|component| !component.is_empty()) {
        found = match component.contains('%') {
            false => found.iter().map(|path| format!("{path}/{component}")).collect(),
            true => found.iter().flat_map(|path| paths_in(top, path)).collect(),
        };
    }
    let is_meant = |path: &String| {
        let directory = join(top, path);
        match text.contains('%') {
            false => directory.is_dir(),
            true => marks.of(&directory).is_some_and(|mark| mark == text),
        }
    };
    found.retain(is_meant);
    found
}

/// A path from the top as a directory.
pub(super) fn join(top: &Path, path: &str) -> PathBuf {
    top.join(path.trim_start_matches('/'))
}

/// The groups directly in a group.
pub(super) fn groups_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_group = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.filter(is_group).map(|entry| entry.path()).collect()
}

fn paths_in(top: &Path, path: &str) -> Vec<String> {
    let groups = groups_in(&join(top, path));
    // Ours have no other names.
    let names = groups.iter().filter_map(|group| group.file_name()?.to_str());
    names.map(|name| format!("{path}/{name}")).collect()
}
