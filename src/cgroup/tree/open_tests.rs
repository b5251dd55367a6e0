use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::cgroup::config::{GroupConfigs, GroupPermissions, GroupSpec, GroupSpecs, SpecSetting};
use crate::cgroup::mounts::Hierarchies;
use crate::cgroup::reaper::Reaper;
use crate::rules::Origin;
use crate::telemetry::metrics::Metrics;

fn hierarchies(top: &Path, version: Version, controller: &str) -> Arc<Hierarchies> {
    Arc::new(Hierarchies::new(vec![Hierarchy::for_test(
        version,
        top.to_owned(),
        if version == Version::V1 { controller.to_owned() } else { String::new() },
        vec![controller.to_owned()],
    )]))
}

/// Returns the configuration along `sites/%u` with a table for `sites`.
fn config(hierarchies: &Hierarchies) -> Arc<PathConfig> {
    let origin = Origin { file: Path::new("/a").into(), line: 1 };
    let setting = SpecSetting {
        key: "memory.max".to_owned(),
        value: "4096".to_owned(),
        controller: "memory".to_owned(),
        origin: origin.clone(),
        place: None,
    };
    let table = GroupSpec {
        text: "sites".to_owned(),
        controllers: Vec::new(),
        settings: vec![setting],
        perm: GroupPermissions::default(),
        is_required: false,
        remove_after: None,
        origin,
    };
    let specs = GroupSpecs { tables: vec![table], ..GroupSpecs::default() };
    Arc::new(GroupConfigs::new(&specs, hierarchies).0.of_path("sites/%u"))
}

/// A write of `memory.max` blocks until the kernel has reclaimed memory: 0.4 s for 1.4 GB of page
/// cache.
#[test]
fn a_new_group_does_not_wait_for_the_one_above_it() {
    let top = tempfile::tempdir().unwrap();
    let file = top.path().join("sites/memory.max");
    fs::create_dir(top.path().join("sites")).unwrap();
    fs::write(&file, "max").unwrap();
    let trees = hierarchies(top.path(), Version::V2, "memory");
    let reaper = {
        let (metrics, nobody) = (Arc::new(Metrics::default()), Arc::new(|_| Ok(None)));
        Reaper::start(Arc::clone(&trees), None, metrics, nobody, None).unwrap()
    };
    let config = config(&trees);
    let tree = CgroupTree::new(trees).kept_by(reaper);
    let mut commands = Vec::new();
    tree.create(0, "/sites/alice", Some(&config), &mut commands).unwrap();
    assert!(top.path().join("sites/alice").is_dir());
    assert_eq!(fs::read_to_string(&file).unwrap(), "max");
    assert!(matches!(&*commands, [.., ReaperTask::Renew { .. }]), "{commands:?}");
    tree.report(commands);
    let is_given = || fs::read_to_string(&file).unwrap() == "4096";
    let until = Instant::now() + Duration::from_secs(10);
    while !is_given() {
        assert!(Instant::now() < until, "the maintenance thread did not apply it");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn empty_cpusets_of_a_path_are_filled_from_above() {
    let top = tempfile::tempdir().unwrap();
    let group = |below: &str, cpus: &str| {
        fs::create_dir_all(top.path().join(below)).unwrap();
        fs::write(top.path().join(below).join("cpuset.cpus"), cpus).unwrap();
        fs::write(top.path().join(below).join("cpuset.mems"), "0\n").unwrap();
    };
    group("", "0-3\n");
    group("own", "1\n");
    group("own/empty", "\n");
    group("own/empty/leaf", "\n");
    let tree = CgroupTree::new(hierarchies(top.path(), Version::V1, "cpuset"));
    let cpus = |below: &str| fs::read_to_string(top.path().join(below).join("cpuset.cpus"));
    tree.create(0, "/own/empty/new", None, &mut Vec::new()).unwrap();
    for below in ["own", "own/empty", "own/empty/new"] {
        assert_eq!(cpus(below).unwrap(), "1\n", "{below}");
    }
    assert_eq!(cpus("own/empty/leaf").unwrap(), "\n");
    tree.fill_cpusets(0, "/own/empty/leaf");
    assert_eq!(cpus("own/empty/leaf").unwrap(), "1\n");
}
