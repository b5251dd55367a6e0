//! Which cgroup hierarchies are mounted: v1, v2 or both, told apart once. Pure: text of
//! `/proc/self/mountinfo` and `/proc/self/cgroup` in, [`Hierarchy`]s out.

use crate::process::path_in;
use std::path::PathBuf;

use procfs::process::MountInfo;

use crate::rules::{Below, Target};

/// The two interfaces of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One tree for each set of controllers.
    V1,
    /// The unified tree.
    V2,
}

/// One mounted tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Which interface it has.
    pub version: Version,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// The group at the mount point as `/proc/PID/cgroup` shows it; `/` but in containers.
    pub top: String,
    /// What `/proc/PID/cgroup` lists for it: `cpu,cpuacct`, `name=systemd`, empty for v2.
    pub listed: String,
    /// The controllers that it has. For v2 the edge fills them from `cgroup.controllers`.
    pub controllers: Vec<String>,
    /// Whether the mount options say `favordynmods`.
    pub favordynmods: bool,
}

impl Hierarchy {
    /// Returns a path of `/proc/PID/cgroup` from the mount point on: empty or `/` for the cgroup there. `None` for a
    /// cgroup that is not mounted.
    pub fn below_top<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        path.strip_prefix(self.top.trim_end_matches('/').as_bytes())
    }

    /// Returns the cgroup of a process with this text of `/proc/PID/cgroup`, from the mount point on.
    pub fn place<'t>(&self, text: &'t [u8]) -> Option<&'t [u8]> {
        path_in(text, self.listed.as_bytes()).and_then(|path| self.below_top(path))
    }

    /// Returns whether a process with this text of `/proc/PID/cgroup` is in the cgroup `path`, which begins with a
    /// slash.
    pub fn holds(&self, path: &str, text: &[u8]) -> bool {
        self.place(text)
            .is_some_and(|place| place == path.as_bytes() || place.is_empty() && path == "/")
    }

    fn has(&self, controller: &str) -> bool {
        let is_unified = self.version == Version::V2 && controller == UNIFIED;
        is_unified || self.controllers.iter().any(|name| name == controller)
    }

    /// Whether rules of cgrulesengd concern it. It has controllers, or a name; but systemd's own v1 tree,
    /// which Debian's cgrulesengd does not know either, is nobody else's.
    fn is_legacy(&self) -> bool {
        !self.controllers.is_empty() && self.listed != "name=systemd"
    }
}

/// The hierarchies that a destination concerns, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span(u32);

impl Span {
    /// The span of these positions in [`Hierarchies`].
    pub fn of(indexes: &[usize]) -> Self {
        let mut span = Self::default();
        indexes.iter().for_each(|&index| span.add(index));
        span
    }

    /// The same and this position.
    #[must_use]
    pub fn with(mut self, index: usize) -> Self {
        self.add(index);
        self
    }

    /// Whether it has this position.
    pub fn has(self, index: usize) -> bool {
        self.0 & 1 << index != 0
    }

    fn add(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    /// Whether it has none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its positions in [`Hierarchies`], ascending.
    pub fn indexes(self) -> impl Iterator<Item = usize> {
        (0..Hierarchies::MOST).filter(move |&index| self.has(index))
    }
}

/// What a v1-only host joins when neither rule nor settings name a controller.
const DEFAULT_V1: [&str; 4] = ["cpu", "memory", "blkio", "pids"];

/// What a target says for the v2 tree itself, where a v1 controller has no successor that it would have
/// to enable. No controller has a blank in its name.
const UNIFIED: &str = "cgroup v2";

/// Controllers of v1 without which every v2 group does the same.
const NEEDLESS: [&str; 5] = ["devices", "freezer", "net_cls", "net_prio", "perf_event"];

/// The other controllers of v1. A v2 host may lack them, by `cgroup_disable=` or in a container.
const SEPARABLE: [&str; 8] =
    ["blkio", "cpu", "cpuacct", "cpuset", "hugetlb", "memory", "pids", "rdma"];

/// Names that v1 and v2 have for the same controller.
const ALSO_CALLED: [(&str, &str); 3] = [("cpuacct", "cpu"), ("blkio", "io"), ("io", "blkio")];

/// What a controller's name means on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The controller of this name, or none at all.
    Itself,
    /// Another one: this.
    Other(&'static str),
    /// Nothing that the v2 group would not do.
    Needless,
    /// Nothing on this v2 host, which lacks the controller: the group without its settings.
    Absent,
}

/// All mounted trees, in the order of the mount table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    trees: Vec<Hierarchy>,
    /// Whether the kernel has `blkio.weight`, as it had before 5.0; later ones have `blkio.bfq.weight`.
    pub has_blkio_weight: bool,
}

impl std::ops::Deref for Hierarchies {
    type Target = [Hierarchy];
    fn deref(&self) -> &[Hierarchy] {
        &self.trees
    }
}

impl Hierarchies {
    /// More than any kernel has controllers; a [`Span`] holds as many.
    pub const MOST: usize = 32;

    /// These trees, [`Self::MOST`] at most.
    pub fn new(mut trees: Vec<Hierarchy>) -> Self {
        trees.truncate(Self::MOST);
        Self { trees, has_blkio_weight: false }
    }

    /// The v2 tree, if there is one.
    pub fn unified(&self) -> Option<&Hierarchy> {
        self.trees.iter().find(|tree| tree.version == Version::V2)
    }

    /// The same, to be completed.
    pub fn unified_mut(&mut self) -> Option<&mut Hierarchy> {
        self.trees.iter_mut().find(|tree| tree.version == Version::V2)
    }

    /// The hierarchies that a target with these controllers concerns: v2 always, v1 by controller. On
    /// a v1-only host a target without controllers means cpu, memory, blkio and pids. The names that
    /// no hierarchy has are returned.
    pub fn span<'c>(&self, controllers: &'c [String]) -> (Span, Vec<&'c str>) {
        let mut span = Span::default();
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

    /// The hierarchies that a target concerns, and the names that no hierarchy has. At the top only
    /// those of its controllers, and none at all when one of them is missing, as in the original.
    pub fn span_of<'t>(&self, target: &'t Target) -> (Span, Vec<&'t str>) {
        if target.below == Below::Root {
            return self.span(&target.controllers);
        }
        let mut span = Span::default();
        let mut missing = Vec::new();
        for name in &target.controllers {
            let has = |tree: &Hierarchy| match &**name {
                "*" => tree.is_legacy(),
                UNIFIED => tree.has(UNIFIED),
                name => tree.is_legacy() && tree.has(name),
            };
            let trees = self.trees.iter().enumerate().filter(|(_, tree)| has(tree));
            let mut is_missing = true;
            for (index, _) in trees {
                span.add(index);
                is_missing = false;
            }
            if is_missing {
                missing.push(name.as_str());
            }
        }
        (if missing.is_empty() { span } else { Span::default() }, missing)
    }

    /// The hierarchies of a target that are entered together, the `n`th time. Those of a legacy rule come
    /// one by one, each once, in the order of its controllers or for `*` of the mount table: one that
    /// refuses keeps a process from those that follow. `span` is that of the target.
    pub fn step(&self, target: &Target, span: Span, n: usize) -> Option<Span> {
        let is_all = target.controllers.iter().any(|name| name == "*");
        let index = match target.below {
            Below::Root => return (n == 0).then_some(span),
            Below::Top if is_all => span.indexes().nth(n)?,
            Below::Top => self.in_order(target).nth(n)?,
        };
        Some(Span::of(&[index]))
    }

    /// The hierarchies of a target's controllers, each once.
    fn in_order<'s>(&'s self, target: &'s Target) -> impl Iterator<Item = usize> + 's {
        let mut seen = Span::default();
        target.controllers.iter().filter_map(|name| self.with(name)).filter(move |&index| {
            let is_new = !seen.has(index);
            seen.add(index);
            is_new
        })
    }

    pub(super) fn with(&self, controller: &str) -> Option<usize> {
        self.trees.iter().position(|tree| tree.has(controller))
    }

    /// What a controller's name means here. `*` and names of hierarchies mean themselves.
    pub fn meaning(&self, name: &str) -> Meaning {
        if self.with(name).is_some() {
            return Meaning::Itself;
        }
        let also = ALSO_CALLED.iter().filter(|(own, _)| *own == name).map(|&(_, other)| other);
        match also.into_iter().find(|other| self.with(other).is_some()) {
            Some(other) => Meaning::Other(other),
            None if self.unified().is_some() && NEEDLESS.contains(&name) => Meaning::Needless,
            None if self.is_unified() && SEPARABLE.contains(&name) => Meaning::Absent,
            None => Meaning::Itself,
        }
    }

    /// Whether a process has one group here, whatever controllers a rule names.
    fn is_unified(&self) -> bool {
        let is_v1 = |tree: &Hierarchy| tree.version == Version::V1 && tree.is_legacy();
        self.unified().is_some() && !self.trees.iter().any(is_v1)
    }

    /// Puts the names that this host has into a target, each once. Those that changed are returned.
    pub fn adapt(&self, target: &mut Target) -> Vec<(String, Meaning)> {
        let mut changed = Vec::new();
        let mut names: Vec<String> = Vec::with_capacity(target.controllers.len());
        for name in std::mem::take(&mut target.controllers) {
            let meaning = self.meaning(&name);
            let own = match (meaning, target.below) {
                // Said of the rule that is left with the others.
                (Meaning::Itself, _) | (Meaning::Absent, Below::Root) => name,
                (Meaning::Other(other), _) => {
                    changed.push((name, meaning));
                    other.to_owned()
                }
                (Meaning::Needless | Meaning::Absent, below) => {
                    changed.push((name, meaning));
                    // The v2 group of a rule of ours is joined anyway.
                    if below == Below::Root { continue } else { UNIFIED.to_owned() }
                }
            };
            if !names.contains(&own) {
                names.push(own);
            }
        }
        target.controllers = names;
        changed
    }

    /// The hierarchy for the settings of a controller, and its name there: empty for what every v2
    /// group has.
    pub fn home<'n>(&self, controller: &'n str) -> Option<(usize, &'n str)> {
        if controller == "cgroup" {
            return Some((self.with(UNIFIED)?, ""));
        }
        match self.meaning(controller) {
            Meaning::Itself => Some((self.with(controller)?, controller)),
            Meaning::Other(other) => Some((self.with(other)?, other)),
            Meaning::Needless => Some((self.with(UNIFIED)?, "")),
            Meaning::Absent => None,
        }
    }
}

/// The hierarchies in the order of the mount table, each once; lines that make no sense are skipped.
pub fn hierarchies(mountinfo: &str, own_cgroup: &str) -> Hierarchies {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Ok(mount) = MountInfo::from_line(line) else { continue };
        let Some(hierarchy) = hierarchy(&mount, own_cgroup) else { continue };
        // A second mount of the same tree, or a bind mount of a part of it, adds nothing.
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
    let option = |name: &str| mount.super_options.contains_key(name);
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
        favordynmods: option("favordynmods") || mount.mount_options.contains_key("favordynmods"),
    })
}

/// Whether the mount has a controller or, as `name=x`, a name.
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
        assert_eq!(found.span(&[]), (Span::of(&[2]), vec![]));
        let names = ["cpuacct".to_owned(), "hugetlb".to_owned()];
        assert_eq!(found.span(&names), (Span::of(&[0, 2]), vec!["hugetlb"]));
        assert_eq!(Span::of(&[0, 2]).indexes().collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn at_the_top_only_the_controllers_that_are_named_are_meant() {
        let mut found = hierarchies(HYBRID, OWN);
        let target = |names: &str| Target {
            destination: Destination::from_pieces("a", Vec::new()),
            controllers: names.split(',').map(str::to_owned).collect(),
            below: Below::Top,
            creates: false,
        };
        let span = |found: &Hierarchies, names: &str| {
            let target = target(names);
            let (span, missing) = found.span_of(&target);
            (span, missing.join(","))
        };
        let is = |indexes: &[usize], missing: &str| (Span::of(indexes), missing.to_owned());
        assert_eq!(span(&found, "cpu,cpuacct"), is(&[0], ""));
        assert_eq!(span(&found, "cpu,hugetlb"), is(&[], "hugetlb"));
        assert_eq!(span(&found, "name=systemd"), is(&[], "name=systemd"));
        assert_eq!(span(&found, "*"), is(&[0], ""));
        found.unified_mut().unwrap().controllers = vec!["hugetlb".to_owned()];
        assert_eq!(span(&found, "hugetlb,cpu"), is(&[0, 2], ""));
        assert_eq!(span(&found, "*"), is(&[0, 2], ""));
        assert_eq!(span(&Hierarchies::default(), "*"), is(&[], "*"));

        let steps = |names: &str| {
            let target = target(names);
            let span = found.span_of(&target).0;
            let steps = (0..).map_while(|n| found.step(&target, span, n));
            steps.flat_map(Span::indexes).collect::<Vec<_>>()
        };
        assert_eq!(steps("hugetlb,cpu"), [2, 0]);
        assert_eq!(steps("cpu,cpuacct,hugetlb"), [0, 2]);
        assert_eq!(steps("*"), [0, 2]);
    }

    #[test]
    fn names_of_the_other_interface_are_understood() {
        let unified = |names: &str| {
            let mut found = hierarchies(HYBRID, "0::/\n");
            let names = names.split(',').map(str::to_owned).collect();
            found.unified_mut().unwrap().controllers = names;
            found
        };
        let adapted = |found: &Hierarchies, names: &str, below: Below| {
            let mut target = Target {
                destination: Destination::from_pieces("a", Vec::new()),
                controllers: names.split(',').map(str::to_owned).collect(),
                below,
                creates: false,
            };
            let changed = found.adapt(&mut target);
            let (span, missing) = found.span_of(&target);
            assert_eq!(changed.is_empty(), names == target.controllers.join(","));
            (target.controllers.join(","), span, missing.join(","))
        };
        let found = unified("cpu,io,memory");
        let is = |names: &str, missing: &str| {
            let span = if missing.is_empty() { Span::of(&[0]) } else { Span::default() };
            (names.to_owned(), span, missing.to_owned())
        };
        assert_eq!(adapted(&found, "cpu,cpuacct", Below::Top), is("cpu", ""));
        assert_eq!(adapted(&found, "blkio,memory", Below::Top), is("io,memory", ""));
        assert_eq!(adapted(&found, "freezer", Below::Top), is("cgroup v2", ""));
        assert_eq!(adapted(&found, "devices,net_cls", Below::Top), is("cgroup v2", ""));
        assert_eq!(adapted(&found, "hugetlb,cpu", Below::Top), is("cgroup v2,cpu", ""));
        assert_eq!(adapted(&found, "hugetbl,cpu", Below::Top), is("hugetbl,cpu", "hugetbl"));
        assert_eq!(adapted(&unified("hugetlb"), "blkio,cpuacct", Below::Top), is("cgroup v2", ""));
        assert_eq!(found.home("hugetlb"), None);
        assert_eq!(adapted(&found, "blkio,freezer", Below::Root), is("io", ""));
        assert_eq!(found.home("blkio"), Some((0, "io")));
        assert_eq!(found.home("cgroup"), Some((0, "")));
        assert_eq!(found.home("pids"), None);
        let v1 = hierarchies(HYBRID, "1:cpu,cpuacct:/\n");
        assert_eq!(adapted(&v1, "cpuacct", Below::Top), is("cpuacct", ""));
        assert_eq!(adapted(&v1, "freezer", Below::Top), is("freezer", "freezer"));
        assert_eq!(v1.home("cgroup"), None);
    }

    #[test]
    fn a_v1_only_host_joins_the_usual_controllers() {
        let found = hierarchies(HYBRID, "1:cpu,cpuacct:/\n9:name=systemd:/\n");
        assert_eq!(found.span(&[]), (Span::of(&[0]), vec![]));
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
