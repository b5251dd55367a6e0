use std::sync::Arc;

use super::super::config::{GroupConfigs, GroupSpec, GroupSpecs, SpecSetting};
use super::super::mounts::{Hierarchies, HierarchySet};
use super::super::tree::CgroupTree;
use super::*;
use crate::rules::destination::Destination;
use crate::rules::{Origin, PathBase, Target};

/// A directory that imitates a v2 hierarchy with the cgroup `/sites/alice`.
struct Fake(tempfile::TempDir);

impl Fake {
    fn new() -> Self {
        let fake = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(fake.0.path().join("sites/alice")).unwrap();
        for group in ["", "sites/", "sites/alice/"] {
            for file in ["cgroup.subtree_control", "cgroup.procs", "memory.max", "memory.high"] {
                fs::write(fake.0.path().join(format!("{group}{file}")), "").unwrap();
            }
        }
        fake
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.path().join(file)).unwrap()
    }

    fn hierarchies(&self) -> Arc<Hierarchies> {
        Arc::new(Hierarchies::new(vec![Hierarchy::for_test(
            Version::V2,
            self.0.path().to_owned(),
            "",
            vec!["memory".to_owned()],
        )]))
    }

    /// Opens the cgroup of alice as a rule with these tables does.
    fn open(&self, tree: &mut CgroupTree, tables: &[GroupSpec]) -> Result<(), CgroupError> {
        let specs = GroupSpecs { tables: tables.to_vec(), ..GroupSpecs::default() };
        let (configs, warnings) = GroupConfigs::new(&specs, &self.hierarchies());
        assert_eq!(warnings, []);
        let target = Target {
            destination: Destination::parse("sites/%u").unwrap(),
            controllers: vec!["memory".to_owned()],
            below: PathBase::Root,
            creates: true,
        };
        let config = || configs.of(&target);
        tree.group(HierarchySet::of(&[0]), "/sites/alice", true, config).map(drop)
    }
}

fn table(text: &str, key: &str, value: &str) -> GroupSpec {
    let origin = Origin { file: Path::new("/a").into(), line: 1 };
    let setting = SpecSetting {
        key: key.to_owned(),
        value: value.to_owned(),
        controller: "memory".to_owned(),
        origin: origin.clone(),
        place: None,
    };
    GroupSpec {
        text: text.to_owned(),
        controllers: Vec::new(),
        settings: vec![setting],
        perm: GroupPermissions::default(),
        is_required: false,
        remove_after: None,
        origin,
    }
}

#[test]
fn controllers_come_down_the_path_and_settings_to_their_level() {
    let fake = Fake::new();
    let mut tree = CgroupTree::new(fake.hierarchies());
    let tables = [table("sites", "memory.high", "2K"), table("sites/%u", "memory.max", "1K")];
    fake.open(&mut tree, &tables).unwrap();
    assert_eq!(fake.read("cgroup.subtree_control"), "+memory");
    assert_eq!(fake.read("sites/cgroup.subtree_control"), "+memory");
    assert_eq!(fake.read("sites/alice/cgroup.subtree_control"), "");
    assert_eq!(fake.read("sites/memory.high"), "2048");
    assert_eq!(fake.read("sites/alice/memory.max"), "1024");
    assert_eq!(fake.read("sites/alice/memory.high"), "");
}

#[test]
fn a_group_with_processes_is_not_made_threaded() {
    let fake = Fake::new();
    fs::write(fake.0.path().join("cgroup.procs"), "1\n").unwrap();
    fs::write(fake.0.path().join("sites/cgroup.procs"), "41\n").unwrap();
    fs::write(fake.0.path().join("sites/cgroup.type"), "domain\n").unwrap();
    let mut tree = CgroupTree::new(fake.hierarchies());
    fake.open(&mut tree, &[table("sites/%u", "memory.max", "1K")]).unwrap();
    assert_eq!(fake.read("cgroup.subtree_control"), "+memory");
    assert_eq!(fake.read("sites/cgroup.subtree_control"), "");
}

#[test]
fn above_the_ground_nothing_is_written() {
    let fake = Fake::new();
    let mut tree = CgroupTree::new(fake.hierarchies());
    tree.stay_below("/cgruled.slice/pool.service/", true);
    assert!(fake.0.path().join("cgruled.slice/pool.service").is_dir());
    tree.stay_below("/sites", true);
    fake.open(&mut tree, &[table("sites/%u", "memory.max", "1K")]).unwrap();
    assert_eq!(fake.read("cgroup.subtree_control"), "");
    assert_eq!(fake.read("sites/cgroup.subtree_control"), "+memory");
    assert_eq!(fake.read("sites/alice/memory.max"), "1024");
    // Cgroups outside of `/site` are not restricted: the destinations of legacy rules are there.
    tree.stay_below("/site", false);
    tree.forget();
    fake.open(&mut tree, &[]).unwrap();
    assert!(!fake.0.path().join("site").exists());
    tree.forget();
    fake.open(&mut tree, &[table("sites", "memory.high", "1K")]).unwrap();
    assert_eq!(fake.read("cgroup.subtree_control"), "+memory");
}

#[test]
fn an_open_group_is_given_nothing_until_rules_are_read_again() {
    let fake = Fake::new();
    let mut tree = CgroupTree::new(fake.hierarchies());
    let tables = [table("sites/%u", "memory.max", "1K")];
    fake.open(&mut tree, &tables).unwrap();
    let limit = fake.0.path().join("sites/alice/memory.max");
    fs::write(&limit, "9").unwrap();
    fake.open(&mut tree, &tables).unwrap();
    assert_eq!(fake.read("sites/alice/memory.max"), "9");
    tree.forget();
    fs::write(&limit, "").unwrap();
    fake.open(&mut tree, &tables).unwrap();
    assert_eq!(fake.read("sites/alice/memory.max"), "1024");
}

#[test]
fn what_is_refused_keeps_nobody_out_unless_it_is_required() {
    let fake = Fake::new();
    let mut tree = CgroupTree::new(fake.hierarchies());
    let mut wrong = table("sites/%u", "memory.nonsense", "1");
    fake.open(&mut tree, &[wrong.clone()]).unwrap();
    tree.forget();
    wrong.is_required = true;
    let refusal = fake.open(&mut tree, &[wrong]).unwrap_err();
    assert_eq!((refusal.step, refusal.errno), (error::CgroupOperation::Set, Errno::ENOENT));
    assert!(refusal.to_string().starts_with("cannot write the required setting "), "{refusal}");
    assert!(!fake.0.path().join("sites/alice/memory.nonsense").exists());
}

#[test]
fn a_mode_takes_away_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("memory.stat");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o444)).unwrap();
    let to = FileOwnership { mode: Some(0o664), ..FileOwnership::default() };
    chown_files(&path, &to, false).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o444);
    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    chown_files(&path, &to, false).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o664);
}

/// Returns the controllers enabled at the root and in `/sites` when a legacy rule with these
/// controllers creates the cgroup of bob from this template.
fn enabled_for(controllers: &str, template: Option<(&str, &str)>) -> [String; 2] {
    let fake = Fake::new();
    let spec = |(key, value)| GroupSpec {
        controllers: vec!["memory".into()],
        ..table("sites/%u", key, value)
    };
    let specs =
        GroupSpecs { templates: template.map(spec).into_iter().collect(), ..GroupSpecs::default() };
    let (configs, _) = GroupConfigs::new(&specs, &fake.hierarchies());
    let target = Target {
        destination: Destination::parse("sites/%u").unwrap(),
        controllers: vec![controllers.to_owned()],
        below: PathBase::Top,
        creates: true,
    };
    let config = configs.of(&target);
    let done = ApplyLedger::default();
    let hierarchies = fake.hierarchies();
    for stage in path_steps(0, &hierarchies[0], "/sites/bob", config.as_deref()) {
        stage.enable(&done);
    }
    ["cgroup.subtree_control", "sites/cgroup.subtree_control"].map(|file| fake.read(file))
}

#[test]
fn a_legacy_rule_has_enabled_what_it_names_and_by_every_controller_what_a_template_sets() {
    let none = [String::new(), String::new()];
    let memory = ["+memory".to_owned(), "+memory".to_owned()];
    assert_eq!(enabled_for("memory", None), memory);
    assert_eq!(enabled_for("*", None), none);
    assert_eq!(enabled_for("*", Some(("memory.max", "1G"))), memory);
    // The controller of a v1 setting is derived from its v1 name.
    assert_eq!(enabled_for("*", Some(("memory.limit_in_bytes", "1G"))), memory);
    assert_eq!(enabled_for("cgroup v2", None), none);
}

#[test]
fn who_requires_what_the_host_does_not_have_is_kept_out() {
    let fake = Fake::new();
    let specs = GroupSpecs {
        tables: vec![GroupSpec {
            is_required: true,
            ..table("sites/%u", "memory.swappiness", "1")
        }],
        ..GroupSpecs::default()
    };
    let config = Arc::new(GroupConfigs::new(&specs, &fake.hierarchies()).0.of_path("sites/%u"));
    let mut tree = CgroupTree::new(fake.hierarchies());
    let opened = tree.group(HierarchySet::of(&[0]), "/sites/alice", true, || Some(config));
    let refusal = opened.unwrap_err();
    assert_eq!((refusal.step, refusal.errno), (error::CgroupOperation::Set, Errno::EOPNOTSUPP));
    assert!(refusal.path.ends_with("sites/alice/memory.swappiness"));
    assert!(refusal.advice().contains("not supported by this host"));
}
