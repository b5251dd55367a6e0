//! Finds cgroups of rules that were removed.

use std::path::PathBuf;
use std::time::Duration;

use super::owner_tag::OwnerTags;
use super::walk::{groups_in, join};
use crate::cgroup::config::GroupConfigs;
use crate::cgroup::mounts::{Hierarchies, Version};

/// Time for which such a cgroup must be empty before it is removed, as for cgroups of one process.
const UNUSED_AFTER: Duration = Duration::from_secs(60);

/// Returns the cgroups of cgruled below `root` for which there is no rule and no table any more, with the time after
/// which they are removed. Those below a cgroup of another program are not searched: another daemon may have its
/// managed root there.
pub(super) fn find(
    hierarchies: &Hierarchies,
    tables: &GroupConfigs,
    root: &str,
    marks: &OwnerTags,
) -> Vec<(Version, PathBuf, Duration)> {
    let mut unused = Vec::new();
    for tree in hierarchies.iter() {
        let mut directories = groups_in(&join(&tree.mount_point, root));
        while let Some(directory) = directories.pop() {
            let Some(text) = marks.of(&directory) else { continue };
            directories.extend(groups_in(&directory));
            if !tables.is_used(&text) {
                unused.push((tree.version, directory, UNUSED_AFTER));
            }
        }
    }
    unused
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cgroup::mounts::Hierarchy;
    use crate::rules::destination::Destination;
    use crate::rules::{PathBase, Target};

    #[test]
    fn only_tagged_cgroups_without_a_rule_are_found() {
        let top = tempfile::tempdir().unwrap();
        let mut marks = OwnerTags::default();
        for (path, text) in [
            ("root/people", Some("people")),
            ("root/people/alice", Some("people/%u")),
            ("root/people/other", None),
            ("root/old", Some("old")),
            ("root/old/x", Some("old/%p")),
            ("root/foreign", None),
            ("root/foreign/y", Some("old")),
            ("elsewhere", Some("old")),
        ] {
            let directory = top.path().join(path);
            fs::create_dir_all(&directory).unwrap();
            if let Some(text) = text {
                marks.put(&directory, text.to_owned());
            }
        }
        let tree =
            Hierarchy::for_test(Version::V2, top.path().to_owned(), String::new(), Vec::new());
        let hierarchies = Hierarchies::new(vec![tree]);
        let found = |tables: &GroupConfigs| {
            let found = find(&hierarchies, tables, "/root", &marks).into_iter();
            let mut found: Vec<_> = found.map(|(_, directory, _)| directory).collect();
            found.sort();
            found
        };
        let target = Target {
            destination: Destination::parse("people/%u").unwrap(),
            controllers: Vec::new(),
            creates: true,
            below: PathBase::Root,
        };
        let known = GroupConfigs::default().with_destinations([&target].into_iter());
        assert_eq!(found(&known), ["root/old", "root/old/x"].map(|path| top.path().join(path)));
        assert!(found(&GroupConfigs::default()).is_empty(), "the rules are not known");
    }
}
