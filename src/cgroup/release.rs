//! Finds the cgroups into which rules have placed processes, and the cgroup above each that cgruled
//! did not create. It moves nothing.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::mounts::{Hierarchies, Hierarchy};
use super::reaper::{OwnerTags, groups_in, is_trusted};

/// A cgroup that cgruled created, or one below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedCgroup {
    /// The index of its hierarchy.
    pub hierarchy: usize,
    /// Its directory.
    pub directory: PathBuf,
    /// The destination for which it, or the one above it, was created.
    pub text: String,
    /// The nearest directory above it that cgruled did not create.
    pub above: PathBuf,
}

/// Returns the cgroups of rules in all hierarchies, each after those below it. `root` is the managed
/// root.
///
/// The owner of a directory can change its tag, and thereby the cgroup above it. A tag therefore
/// counts only in a directory that root alone can change, or directly below a cgroup that counts:
/// there only cgruled creates cgroups.
pub fn placed_cgroups(hierarchies: &Hierarchies, root: &str) -> Vec<PlacedCgroup> {
    let mut found = Vec::new();
    for (hierarchy, tree) in hierarchies.iter().enumerate() {
        let pool = Some(root.trim_matches('/')).filter(|root| !root.is_empty());
        let pool = pool.map(|root| tree.mount_point.join(root));
        let mut walk =
            CgroupWalk { hierarchy, pool, tags: OwnerTags::default(), found: &mut found };
        walk.below(&tree.mount_point, None);
    }
    found
}

/// Returns the destination for which cgruled created a cgroup. Whoever can write to its directory can
/// change the text.
pub fn destination_of(directory: &Path) -> Option<String> {
    OwnerTags::default().of(directory)
}

struct CgroupWalk<'f> {
    hierarchy: usize,
    /// The managed root, unless that is the root of the hierarchy.
    pool: Option<PathBuf>,
    tags: OwnerTags,
    found: &'f mut Vec<PlacedCgroup>,
}

impl CgroupWalk<'_> {
    /// Adds the cgroups below a directory. `placed` is that directory, if it counts itself.
    fn below(&mut self, directory: &Path, placed: Option<&PlacedCgroup>) {
        for child in groups_in(directory) {
            let is_certain =
                placed.is_some() || self.pool.as_deref() == Some(directory) || is_trusted(&child);
            let tag = self.tags.of(&child).filter(|_| is_certain);
            let own = tag.or_else(|| placed.map(|above| above.text.clone())).map(|text| {
                let above = placed.map_or_else(|| directory.to_owned(), |own| own.above.clone());
                let hierarchy = self.hierarchy;
                PlacedCgroup { hierarchy, directory: child.clone(), text, above }
            });
            self.below(&child, own.as_ref());
            self.found.extend(own);
        }
    }
}

/// Returns the nearest existing cgroup at or above a path, as systemd uses it for a unit that has no
/// cgroup in a v1 hierarchy. `None` if that is one of `placed`.
pub fn nearest_existing(
    tree: &Hierarchy,
    path: &[u8],
    placed: &BTreeSet<PathBuf>,
) -> Option<PathBuf> {
    let wanted = tree.directory(path)?;
    let found = wanted.ancestors().find(|directory| directory.is_dir())?;
    let is_below = found.starts_with(&tree.mount_point);
    (is_below && !found.ancestors().any(|own| placed.contains(own))).then(|| found.to_owned())
}

/// Writes a PID to the `cgroup.procs` of a directory.
///
/// # Errors
/// As open(2) and write(2).
pub fn enter(directory: &Path, pid: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(directory.join("cgroup.procs"))?;
    file.write_all(pid.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cgroup::mounts::Version;

    fn tag(directory: &Path, text: &str) {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(directory, "user.cgruled", text.as_bytes(), flags).unwrap();
    }

    #[test]
    fn a_tag_of_a_user_does_not_count() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let top = tempfile::tempdir().unwrap();
        let root = top.path();
        for below in ["people/alice/own", "limits/alice", "pool/bob"] {
            fs::create_dir_all(root.join(below)).unwrap();
        }
        for (below, text) in [
            ("people", "people"),
            ("people/alice", "people/%u"),
            ("limits/alice", "people/%u"),
            ("pool/bob", "%u"),
        ] {
            tag(&root.join(below), text);
        }
        // Writable by users, as with `owner` or `mode`.
        for below in ["people/alice", "limits/alice", "pool/bob"] {
            fs::set_permissions(root.join(below), PermissionsExt::from_mode(0o777)).unwrap();
        }
        let tree = Hierarchy::for_test(Version::V2, root, "", Vec::new());
        let found = placed_cgroups(&Hierarchies::new(vec![tree]), "/pool");
        let mut names: Vec<(String, String)> = found
            .iter()
            .map(|own| {
                let below = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
                (below(&own.directory), format!("{} {}", own.text, below(&own.above)))
            })
            .collect();
        names.sort();
        let expected = [
            ("people", "people "),
            ("people/alice", "people/%u "),
            ("people/alice/own", "people/%u "),
            ("pool/bob", "%u pool"),
        ];
        assert_eq!(names, expected.map(|(name, rest)| (name.to_owned(), rest.to_owned())));
    }
}
