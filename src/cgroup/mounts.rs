//! Determines the mounted cgroup hierarchies, v1, v2 or both, from the text of
//! `/proc/self/mountinfo` and `/proc/self/cgroup`. The only place where the two versions are
//! detected. Pure.

mod hierarchy_set;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use procfs::process::MountInfo;

use crate::config;
use crate::kernel::process::path_in;
use crate::rules::{PathBase, Target};

pub use hierarchy_set::HierarchySet;

/// The cgroup version of a hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A v1 hierarchy, one for each set of controllers.
    V1,
    /// The unified v2 hierarchy with all other controllers.
    V2,
}

/// A mounted cgroup hierarchy of either version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The cgroup version.
    pub version: Version,
    /// The directory of the mount.
    pub mount_point: PathBuf,
    /// The cgroup at the mount point as `/proc/PID/cgroup` shows it: `/` except in containers.
    pub top: String,
    /// The second field of its line in `/proc/PID/cgroup`: `cpu,cpuacct`, `name=systemd`, empty for
    /// v2.
    pub listed: String,
    /// The controllers of the hierarchy. For v2 the caller reads them from `cgroup.controllers`.
    pub controllers: Vec<String>,
    /// True if it is mounted with the option `favordynmods`.
    pub favordynmods: bool,
}

impl Hierarchy {
    /// Returns a path of `/proc/PID/cgroup` relative to the mount point: empty or `/` for the
    /// cgroup there, `None` for a cgroup outside of the mount.
    pub fn below_top<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        path.strip_prefix(self.top.trim_end_matches('/').as_bytes())
    }

    /// Returns the cgroup of a process, relative to the mount point, from the text of its
    /// `/proc/PID/cgroup`.
    pub fn place<'t>(&self, text: &'t [u8]) -> Option<&'t [u8]> {
        path_in(text, self.listed.as_bytes()).and_then(|path| self.below_top(path))
    }

    /// Checks whether a process with this text of `/proc/PID/cgroup` is in the cgroup `path`,
    /// which begins with a slash.
    pub fn holds(&self, path: &str, text: &[u8]) -> bool {
        self.place(text)
            .is_some_and(|place| place == path.as_bytes() || place.is_empty() && path == "/")
    }

    /// Checks whether a process with this text of `/proc/PID/cgroup` is in a descendant of `path`.
    pub fn holds_below(&self, path: &str, text: &[u8]) -> bool {
        let rest = self.place(text).and_then(|place| place.strip_prefix(path.as_bytes()));
        rest.is_some_and(|rest| rest.len() > 1 && rest.starts_with(b"/"))
    }

    /// Returns the directory of a cgroup with this path in `/proc/PID/cgroup`. `None` for a cgroup
    /// outside of the mount.
    pub fn directory(&self, path: &[u8]) -> Option<PathBuf> {
        let below = self.below_top(path)?;
        let below = below.strip_prefix(b"/").unwrap_or(below);
        Some(self.mount_point.join(OsStr::from_bytes(below)))
    }

    fn has(&self, controller: &str) -> bool {
        let is_unified = self.version == Version::V2 && controller == UNIFIED;
        is_unified || self.controllers.iter().any(|name| name == controller)
    }

    /// Checks whether a legacy rule with this controller name applies in it.
    fn has_for_legacy(&self, name: &str) -> bool {
        match name {
            "*" => self.is_legacy(),
            UNIFIED => self.has(UNIFIED),
            name => self.is_legacy() && self.has(name),
        }
    }

    /// Creates a completely mounted hierarchy for a test.
    #[cfg(test)]
    pub(crate) fn for_test(
        version: Version,
        mount_point: impl Into<PathBuf>,
        listed: impl Into<String>,
        controllers: Vec<String>,
    ) -> Self {
        let (mount_point, listed) = (mount_point.into(), listed.into());
        let top = "/".to_owned();
        Self { version, mount_point, top, listed, controllers, favordynmods: false }
    }

    /// Checks whether this is the named v1 hierarchy in which systemd keeps its units.
    pub fn is_systemds(&self) -> bool {
        self.listed == "name=systemd"
    }

    /// Checks whether legacy rules can use the hierarchy: it has controllers or a name, and is not
    /// systemd's own v1 hierarchy, which Debian's cgrulesengd ignores as well.
    pub fn is_legacy(&self) -> bool {
        !self.controllers.is_empty() && !self.is_systemds()
    }
}

/// The controllers that a v1-only host uses when neither the rule nor its settings name one.
const DEFAULT_V1: [&str; 4] = ["cpu", "memory", "blkio", "pids"];

/// The name in a target for the v2 hierarchy itself, where a v1 controller has no successor to
/// enable. No controller name contains a blank.
const UNIFIED: &str = "cgroup v2";

/// The v1 controllers that v2 replaced by features of every cgroup.
const NEEDLESS: [&str; 5] = ["devices", "freezer", "net_cls", "net_prio", "perf_event"];

/// The other v1 controllers. A v2 host can lack them, by `cgroup_disable=` or in a container.
const SEPARABLE: [&str; 8] =
    ["blkio", "cpu", "cpuacct", "cpuset", "hugetlb", "memory", "pids", "rdma"];

/// The v1 and v2 names of the same controller.
const ALSO_CALLED: [(&str, &str); 3] = [("cpuacct", "cpu"), ("blkio", "io"), ("io", "blkio")];

/// The meaning of a controller name on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControllerMapping {
    /// The controller of this name, or an unknown one.
    Itself,
    /// A controller with another name here.
    Other(&'static str),
    /// A function that v2 cgroups have without a controller.
    Needless,
    /// A controller that this v2 host lacks. The cgroup is used without its settings.
    Absent,
}

/// All mounted hierarchies, in the order of the mount table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    trees: Vec<Hierarchy>,
    /// See [`Self::of_systemd`]. Stored, because each exec of a process that is placed needs it.
    of_systemd: HierarchySet,
    /// True if the kernel has `blkio.weight`, which 5.0 replaced by `blkio.bfq.weight`.
    pub has_blkio_weight: bool,
}

impl std::ops::Deref for Hierarchies {
    type Target = [Hierarchy];
    fn deref(&self) -> &[Hierarchy] {
        &self.trees
    }
}

impl Hierarchies {
    /// More hierarchies than any kernel has controllers, and the capacity of a [`HierarchySet`].
    pub const MOST: usize = 32;

    /// Creates the list from these hierarchies, at most [`Self::MOST`].
    pub fn new(mut trees: Vec<Hierarchy>) -> Self {
        trees.truncate(Self::MOST);
        let of_systemd = trees
            .iter()
            .enumerate()
            .filter(|(_, tree)| tree.version == Version::V2 || tree.is_systemds());
        let of_systemd =
            of_systemd.fold(HierarchySet::default(), |span, (index, _)| span.with(index));
        Self { trees, of_systemd, has_blkio_weight: false }
    }

    /// Returns the hierarchies in which systemd keeps its units: v2, and its named v1 hierarchy.
    pub const fn of_systemd(&self) -> HierarchySet {
        self.of_systemd
    }

    /// Returns the index of the hierarchy that shows the unit of a process: v2, or the named v1
    /// hierarchy of systemd on hosts without v2.
    pub fn of_units(&self) -> Option<usize> {
        let unified = self.trees.iter().position(|tree| tree.version == Version::V2);
        unified.or_else(|| self.trees.iter().position(Hierarchy::is_systemds))
    }

    /// Returns the v2 hierarchy, if it is mounted.
    pub fn unified(&self) -> Option<&Hierarchy> {
        self.trees.iter().find(|tree| tree.version == Version::V2)
    }

    /// Checks whether all these hierarchies are v2, so that the v2 cgroup of a process determines its
    /// membership.
    pub fn has_only_v2(&self, span: HierarchySet) -> bool {
        span.indexes().all(|index| self.trees[index].version == Version::V2)
    }

    /// Returns the v2 hierarchy for modification.
    pub fn unified_mut(&mut self) -> Option<&mut Hierarchy> {
        self.trees.iter_mut().find(|tree| tree.version == Version::V2)
    }

    /// Returns the hierarchies that a target with these controllers uses, and the controllers that
    /// no hierarchy has. v2 is always used, v1 by controller. On a v1-only host a target without
    /// controllers uses cpu, memory, blkio and pids.
    pub fn span<'c>(&self, controllers: &'c [String]) -> (HierarchySet, Vec<&'c str>) {
        let mut span = HierarchySet::default();
        let mut missing = Vec::new();
        if let Some(index) = self.trees.iter().position(|tree| tree.version == Version::V2) {
            span.add(index);
        } else if controllers.is_empty() {
            DEFAULT_V1.iter().filter_map(|name| self.with(name)).for_each(|index| span.add(index));
        }
        for name in controllers {
            match self.with(name) {
                Some(index) => span.add(index),
                None => missing.push(name.as_str()),
            }
        }
        (span, missing)
    }

    /// Returns the hierarchies that a target uses, and the controllers that no hierarchy has. A
    /// path from the hierarchy root uses only the hierarchies of its controllers, and none if one
    /// is missing, as in cgrulesengd.
    pub fn span_of<'t>(&self, target: &'t Target) -> (HierarchySet, Vec<&'t str>) {
        if target.below == PathBase::Root {
            return self.span(&target.controllers);
        }
        let mut span = HierarchySet::default();
        let mut missing = Vec::new();
        for name in &target.controllers {
            let mut is_missing = true;
            for (index, _) in self.trees.iter().enumerate().filter(|(_, t)| t.has_for_legacy(name))
            {
                span.add(index);
                is_missing = false;
            }
            if is_missing {
                missing.push(name.as_str());
            }
        }
        (if missing.is_empty() { span } else { HierarchySet::default() }, missing)
    }

    /// Returns the hierarchies of the `n`th step of a placement. `span` is that of the target.
    pub fn step(&self, target: &Target, span: HierarchySet, n: usize) -> Option<HierarchySet> {
        // A legacy rule enters one hierarchy after the other, each once, in the order of its
        // controllers or, for `*`, of the mount table. After a refusal the remaining ones are
        // skipped.
        let is_all = target.controllers.iter().any(|name| name == "*");
        let index = match target.below {
            PathBase::Root => return (n == 0).then_some(span),
            PathBase::Top if is_all => span.indexes().nth(n)?,
            PathBase::Top => self.in_order(target).nth(n)?,
        };
        Some(HierarchySet::of(&[index]))
    }

    /// Returns the controller of this host that a name probably means.
    pub fn similar_controller(&self, name: &str) -> Option<&str> {
        let all = self.trees.iter().flat_map(|tree| &tree.controllers);
        config::misspelled(name, all.map(String::as_str))
    }

    /// Returns the hierarchies of a target's controllers, each once.
    fn in_order<'s>(&'s self, target: &'s Target) -> impl Iterator<Item = usize> + 's {
        let mut seen = HierarchySet::default();
        target.controllers.iter().filter_map(|name| self.with(name)).filter(move |&index| {
            let is_new = !seen.has(index);
            seen.add(index);
            is_new
        })
    }

    pub(super) fn with(&self, controller: &str) -> Option<usize> {
        self.trees.iter().position(|tree| tree.has(controller))
    }

    /// Returns the meaning of a controller name on this host. `*` and hierarchy names are
    /// unchanged.
    pub fn meaning(&self, name: &str) -> ControllerMapping {
        if self.with(name).is_some() {
            return ControllerMapping::Itself;
        }
        let also = ALSO_CALLED.iter().filter(|(own, _)| *own == name).map(|&(_, other)| other);
        match also.into_iter().find(|other| self.with(other).is_some()) {
            Some(other) => ControllerMapping::Other(other),
            None if self.unified().is_some() && NEEDLESS.contains(&name) => {
                ControllerMapping::Needless
            }
            None if self.is_unified() && SEPARABLE.contains(&name) => ControllerMapping::Absent,
            None => ControllerMapping::Itself,
        }
    }

    /// Checks whether a process has only one cgroup on this host, whatever controllers a rule
    /// names.
    fn is_unified(&self) -> bool {
        let mut legacy = self.trees.iter().filter(|tree| tree.is_legacy());
        self.unified().is_some() && legacy.all(|tree| tree.version != Version::V1)
    }

    /// Replaces the controllers of a target by the names of this host, each once. Returns the names
    /// that changed. On a host with v1 hierarchies those of a legacy rule are not replaced: as in
    /// cgrulesengd, it moves nothing if one is missing.
    pub fn adapt(&self, target: &mut Target) -> Vec<(String, ControllerMapping)> {
        let mut changed = Vec::new();
        if target.below == PathBase::Top && !self.is_unified() {
            return changed;
        }
        let mut names: Vec<String> = Vec::with_capacity(target.controllers.len());
        for name in std::mem::take(&mut target.controllers) {
            let meaning = self.meaning(&name);
            let own = match (meaning, target.below) {
                // Reported with the rule, together with other unknown controllers.
                (ControllerMapping::Itself, _) | (ControllerMapping::Absent, PathBase::Root) => {
                    name
                }
                (ControllerMapping::Other(other), _) => {
                    changed.push((name, meaning));
                    other.to_owned()
                }
                (ControllerMapping::Needless | ControllerMapping::Absent, below) => {
                    changed.push((name, meaning));
                    // A native rule uses the v2 cgroup in any case.
                    if below == PathBase::Root { continue } else { UNIFIED.to_owned() }
                }
            };
            if !names.contains(&own) {
                names.push(own);
            }
        }
        target.controllers = names;
        changed
    }

    /// Returns the hierarchy for the settings of a controller, and its name there: empty for files
    /// that every v2 cgroup has.
    pub fn locate<'n>(&self, controller: &'n str) -> Option<(usize, &'n str)> {
        if controller == "cgroup" {
            return Some((self.with(UNIFIED)?, ""));
        }
        match self.meaning(controller) {
            ControllerMapping::Itself => Some((self.with(controller)?, controller)),
            ControllerMapping::Other(other) => Some((self.with(other)?, other)),
            ControllerMapping::Needless if self.is_unified() => Some((self.with(UNIFIED)?, "")),
            ControllerMapping::Needless | ControllerMapping::Absent => None,
        }
    }
}

/// Parses the hierarchies in the order of the mount table, each once. Invalid lines are skipped.
pub fn hierarchies(mountinfo: &str, own_cgroup: &str) -> Hierarchies {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Ok(mount) = MountInfo::from_line(line) else { continue };
        let Some(hierarchy) = hierarchy(&mount, own_cgroup) else { continue };
        // A second mount or a bind mount of the same hierarchy adds nothing.
        if !found.iter().any(|known| known.listed == hierarchy.listed) {
            found.push(hierarchy);
        }
    }
    Hierarchies::new(found)
}

fn hierarchy(mount: &MountInfo, own_cgroup: &str) -> Option<Hierarchy> {
    let version = match mount.fs_type.as_str() {
        "cgroup" => Version::V1,
        "cgroup2" => Version::V2,
        _ => return None,
    };
    let listed =
        own_cgroup.lines().filter_map(|line| line.split(':').nth(1)).find(
            |listed| match version {
                Version::V2 => listed.is_empty(),
                Version::V1 => !listed.is_empty() && listed.split(',').all(|name| has(mount, name)),
            },
        )?;
    let controllers = match version {
        Version::V2 => Vec::new(),
        Version::V1 => listed.split(',').map(str::to_owned).collect(),
    };
    Some(Hierarchy {
        version,
        mount_point: mount.mount_point.clone(),
        top: mount.root.clone(),
        listed: listed.to_owned(),
        controllers,
        favordynmods: mount.super_options.contains_key("favordynmods")
            || mount.mount_options.contains_key("favordynmods"),
    })
}

/// Checks whether the mount has a controller or, for `name=x`, a name.
fn has(mount: &MountInfo, listed: &str) -> bool {
    match listed.split_once('=') {
        Some((key, value)) => {
            mount.super_options.get(key).and_then(Option::as_deref) == Some(value)
        }
        None => mount.super_options.contains_key(listed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::destination::Destination;

    const HYBRID: &str = "\
24 23 0:21 / /proc rw - proc proc rw
31 23 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:28 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpuacct,cpu
33 31 0:29 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
34 31 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate,favordynmods
35 31 0:28 /part /elsewhere rw,relatime - cgroup cgroup rw,cpuacct,cpu
garbage
";
    const OWN: &str = "9:name=systemd:/\n1:cpu,cpuacct:/\n0::/\n";

    #[test]
    fn a_hybrid_host() {
        let found = hierarchies(HYBRID, OWN);
        let listed: Vec<_> = found.iter().map(|h| (h.version, h.listed.as_str())).collect();
        let expected =
            [(Version::V1, "cpu,cpuacct"), (Version::V1, "name=systemd"), (Version::V2, "")];
        assert_eq!(listed, expected);
        assert_eq!(found[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(found[0].mount_point, PathBuf::from("/sys/fs/cgroup/cpu"));
        assert!(found[2].favordynmods && !found[0].favordynmods);
    }

    #[test]
    fn v2_is_always_meant_and_v1_by_controller() {
        let found = hierarchies(HYBRID, OWN);
        assert_eq!(found.span(&[]), (HierarchySet::of(&[2]), vec![]));
        let names = ["cpuacct".to_owned(), "hugetlb".to_owned()];
        assert_eq!(found.span(&names), (HierarchySet::of(&[0, 2]), vec!["hugetlb"]));
        assert_eq!(HierarchySet::of(&[0, 2]).indexes().collect::<Vec<_>>(), [0, 2]);
    }

    fn target(names: &str, below: PathBase) -> Target {
        Target {
            destination: Destination::from_pieces("a", Vec::new()),
            controllers: names.split(',').map(str::to_owned).collect(),
            below,
            creates: false,
        }
    }

    #[test]
    fn at_the_top_only_the_controllers_that_are_named_are_meant() {
        let mut found = hierarchies(HYBRID, OWN);
        fn span(found: &Hierarchies, names: &str) -> (HierarchySet, String) {
            let target = target(names, PathBase::Top);
            let (span, missing) = found.span_of(&target);
            (span, missing.join(","))
        }
        fn is(indexes: &[usize], missing: &str) -> (HierarchySet, String) {
            (HierarchySet::of(indexes), missing.to_owned())
        }
        assert_eq!(span(&found, "cpu,cpuacct"), is(&[0], ""));
        assert_eq!(span(&found, "cpu,hugetlb"), is(&[], "hugetlb"));
        assert_eq!(span(&found, "name=systemd"), is(&[], "name=systemd"));
        assert_eq!(span(&found, "*"), is(&[0], ""));
        found.unified_mut().unwrap().controllers = vec!["hugetlb".to_owned()];
        assert_eq!(span(&found, "hugetlb,cpu"), is(&[0, 2], ""));
        assert_eq!(span(&found, "*"), is(&[0, 2], ""));
        assert_eq!(span(&Hierarchies::default(), "*"), is(&[], "*"));

        for (names, indexes) in
            [("hugetlb,cpu", [2, 0]), ("cpu,cpuacct,hugetlb", [0, 2]), ("*", [0, 2])]
        {
            let target = target(names, PathBase::Top);
            let span = found.span_of(&target).0;
            let steps = (0..).map_while(|n| found.step(&target, span, n));
            assert_eq!(steps.flat_map(HierarchySet::indexes).collect::<Vec<_>>(), indexes);
        }
    }

    #[test]
    fn names_of_the_other_interface_are_understood() {
        fn unified(names: &str) -> Hierarchies {
            let mut found = hierarchies(HYBRID, "0::/\n");
            let names = names.split(',').map(str::to_owned).collect();
            found.unified_mut().unwrap().controllers = names;
            found
        }
        fn adapted(
            found: &Hierarchies,
            names: &str,
            below: PathBase,
        ) -> (String, HierarchySet, String) {
            let mut target = target(names, below);
            let changed = found.adapt(&mut target);
            let (span, missing) = found.span_of(&target);
            assert_eq!(changed.is_empty(), names == target.controllers.join(","));
            (target.controllers.join(","), span, missing.join(","))
        }
        fn is(names: &str, missing: &str) -> (String, HierarchySet, String) {
            let span =
                if missing.is_empty() { HierarchySet::of(&[0]) } else { HierarchySet::default() };
            (names.to_owned(), span, missing.to_owned())
        }
        let found = unified("cpu,io,memory");
        assert_eq!(adapted(&found, "cpu,cpuacct", PathBase::Top), is("cpu", ""));
        assert_eq!(adapted(&found, "blkio,memory", PathBase::Top), is("io,memory", ""));
        assert_eq!(adapted(&found, "freezer", PathBase::Top), is("cgroup v2", ""));
        assert_eq!(adapted(&found, "devices,net_cls", PathBase::Top), is("cgroup v2", ""));
        assert_eq!(adapted(&found, "hugetlb,cpu", PathBase::Top), is("cgroup v2,cpu", ""));
        assert_eq!(adapted(&found, "hugetbl,cpu", PathBase::Top), is("hugetbl,cpu", "hugetbl"));
        assert_eq!(
            adapted(&unified("hugetlb"), "blkio,cpuacct", PathBase::Top),
            is("cgroup v2", "")
        );
        assert_eq!(found.locate("hugetlb"), None);
        assert_eq!(adapted(&found, "blkio,freezer", PathBase::Root), is("io", ""));
        assert_eq!(found.locate("blkio"), Some((0, "io")));
        assert_eq!(found.locate("cgroup"), Some((0, "")));
        assert_eq!(found.locate("pids"), None);
        let mut hybrid = hierarchies(HYBRID, OWN);
        hybrid.unified_mut().unwrap().controllers = vec!["io".to_owned()];
        for name in ["freezer", "net_cls", "perf_event", "blkio", "pids"] {
            let names = format!("cpu,{name}");
            assert_eq!(adapted(&hybrid, &names, PathBase::Top), is(&names, name));
        }
        assert_eq!(adapted(&hybrid, "cpu,freezer", PathBase::Root).0, "cpu");
        assert_eq!(hybrid.locate("freezer"), None);
        let v1 = hierarchies(HYBRID, "1:cpu,cpuacct:/\n");
        assert_eq!(adapted(&v1, "cpuacct", PathBase::Top), is("cpuacct", ""));
        assert_eq!(adapted(&v1, "freezer", PathBase::Top), is("freezer", "freezer"));
        assert_eq!(v1.locate("cgroup"), None);
    }

    #[test]
    fn a_v1_only_host_joins_the_usual_controllers() {
        let found = hierarchies(HYBRID, "1:cpu,cpuacct:/\n9:name=systemd:/\n");
        assert_eq!(found.span(&[]), (HierarchySet::of(&[0]), vec![]));
    }

    #[test]
    fn no_cgroups_at_all() {
        assert!(hierarchies("", "").is_empty());
        assert!(hierarchies("24 23 0:21 / /proc rw - proc proc rw\n", OWN).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn any_text_ends(mountinfo in ".{0,300}", own in ".{0,100}") {
            let _ = hierarchies(&mountinfo, &own);
        }
    }
}
