use std::path::Path;

use super::super::mounts::Hierarchy;
use super::*;
use crate::rules::destination::Destination;

/// A host with memory and cpu on v2, pids and blkio on v1.
fn host() -> Hierarchies {
    let tree = |version, listed: &str, controllers: &[&str]| Hierarchy {
        version,
        mount_point: format!("/cg/{listed}").into(),
        top: "/".into(),
        listed: listed.into(),
        controllers: controllers.iter().map(|&name| name.to_owned()).collect(),
        favordynmods: false,
    };
    Hierarchies::new(vec![
        tree(Version::V2, "", &["cpu", "memory"]),
        tree(Version::V1, "pids", &["pids"]),
        tree(Version::V1, "blkio", &["blkio"]),
    ])
}

fn setting(controller: &str, key: &str, value: &str) -> SpecSetting {
    let origin = Origin { file: Path::new("/a").into(), line: 1 };
    let (key, value, controller) = (key.to_owned(), value.to_owned(), controller.to_owned());
    SpecSetting { key, value, controller, origin, place: None }
}

fn gift(text: &str, settings: &[(&str, &str)], controllers: &[&str]) -> GroupSpec {
    let settings =
        settings.iter().map(|(key, value)| setting(key.split_once('.').unwrap().0, key, value));
    GroupSpec {
        text: text.to_owned(),
        controllers: controllers.iter().map(|&name| name.to_owned()).collect(),
        settings: settings.collect(),
        perm: GroupPermissions::default(),
        is_required: false,
        remove_after: None,
        origin: Origin { file: Path::new("/a").into(), line: 1 },
    }
}

fn target(text: &str, controllers: &[&str], below: PathBase) -> Target {
    Target {
        destination: Destination::parse(text).unwrap(),
        controllers: controllers.iter().map(|&name| name.to_owned()).collect(),
        below,
        creates: below == PathBase::Root || text.contains('%'),
    }
}

/// Formats each level as `hierarchy:file=value`.
fn shown(provision: &PathConfig) -> Vec<String> {
    let kit = |level: &PathLevel| {
        let writes = level.kit.iter().flat_map(|kit| &kit.writes);
        let words = writes.map(|w| format!("{}:{}={}", w.hierarchy, w.write.file, w.write.value));
        format!("{} {}", level.text, words.collect::<Vec<_>>().join(" ")).trim().to_owned()
    };
    provision.levels.iter().map(kit).collect()
}

#[test]
fn a_table_is_for_its_level_and_each_hierarchy_gets_its_own() {
    let settings =
        [("io.weight", "20"), ("memory.max", "1K"), ("pids.max", "9"), ("cgroup.freeze", "0")];
    let tables =
        vec![gift("sites/%u/", &settings, &[]), gift("/sites", &[("cpu.weight", "5")], &[])];
    let gifts = GroupSpecs { tables, ..GroupSpecs::default() };
    let (provisions, remarks) = GroupConfigs::new(&gifts, &host());
    assert_eq!(remarks, []);
    let provision =
        provisions.of(&target("sites/%u/x", &["memory", "cpu"], PathBase::Root)).unwrap();
    assert_eq!(
        shown(&provision),
        [
            "sites 0:cpu.weight=5",
            "%u 2:blkio.weight=100 0:memory.max=1024 1:pids.max=9 0:cgroup.freeze=0",
            "x"
        ]
    );
    assert!(provision.controllers.is_empty() && provision.creates.is_empty());
    let kit = provision.levels[1].kit.as_deref().unwrap();
    assert_eq!(kit.needs(0).collect::<Vec<_>>(), ["memory"]);
    let other = provisions.of(&target("other/%u", &[], PathBase::Root)).unwrap();
    assert_eq!(shown(&other), ["other", "%u"]);
    let other = provisions.of(&target("other/%u", &["memory", "pids"], PathBase::Root)).unwrap();
    assert_eq!(other.controllers, ["memory"]);
}

#[test]
fn what_this_host_cannot_do_is_said() {
    let table = gift(
        "a",
        &[("hugetlb.2MB.max", "0"), ("io.weight", "900"), ("io.latency", "8:0 target=1")],
        &[],
    );
    let gifts = GroupSpecs { tables: vec![table], ..GroupSpecs::default() };
    // The BFQ scheduler accepts this value.
    assert_eq!(GroupConfigs::new(&gifts, &host()).1.len(), 2);
    let mut host = host();
    host.has_blkio_weight = true;
    let (provisions, remarks) = GroupConfigs::new(&gifts, &host);
    let said: Vec<&str> = remarks.iter().map(|remark| &*remark.complaint.message).collect();
    assert_eq!(
        said,
        [
            "io.weight = 900 becomes blkio.weight = 1000 on this host, the maximum",
            "io.latency has no counterpart in cgroup v1, which this host uses",
            "no cgroup hierarchy of this host has the controller of hugetlb.2MB.max",
        ]
    );
    let provision = provisions.of(&target("a", &[], PathBase::Root)).unwrap();
    assert_eq!(shown(&provision), ["a 2:blkio.weight=1000"]);
}

#[test]
fn templates_are_found_by_the_same_text_and_controller() {
    let both = [("cpu.shares", "2048"), ("memory.limit_in_bytes", "1K")];
    let templates = vec![
        gift("ct/%u/", &both, &["cpu", "memory"]),
        gift("/lead/%u", &[("pids.max", "1")], &["pids"]),
    ];
    let gifts = GroupSpecs { templates, ..GroupSpecs::default() };
    let (provisions, _) = GroupConfigs::new(&gifts, &host());
    let legacy = |text: &str, controllers: &[&str]| {
        provisions.of(&target(text, controllers, PathBase::Top)).map(|provision| shown(&provision))
    };
    assert_eq!(legacy("ct/%u", &["cpu"]).unwrap(), ["ct", "%u 0:cpu.weight=200"]);
    let all = "%u 0:cpu.weight=200 0:memory.max=1024";
    assert_eq!(legacy("ct/%u", &["*"]).unwrap(), ["ct", all]);
    assert_eq!(legacy("/lead/%u/", &["pids"]).unwrap(), ["lead", "%u 1:pids.max=1"]);
    assert_eq!(legacy("lead/%u", &["pids"]), None);
    assert_eq!(legacy("/ct/%u", &["pids"]), None);
    // There is no section, but cpu must be enabled for it.
    assert_eq!(legacy("/ct/%u", &["cpu"]).unwrap(), ["ct", "%u"]);
}

#[test]
fn a_section_makes_a_plain_group_in_its_hierarchies() {
    let groups = vec![gift("/web", &[("pids.max", "5")], &["pids", "freezer", "net_prio"])];
    let (provisions, _) =
        GroupConfigs::new(&GroupSpecs { groups, ..GroupSpecs::default() }, &host());
    let creates = |controllers: &[&str]| {
        provisions.of(&target("web/", controllers, PathBase::Top)).unwrap().creates
    };
    // Without a v1 hierarchy freezer means the v2 hierarchy.
    assert_eq!(creates(&["pids"]), HierarchySet::of(&[0, 1]));
    assert!(
        provisions
            .of(&target("web/a", &["cpu"], PathBase::Top))
            .is_none_or(|p| p.creates.is_empty())
    );
    assert!(provisions.of(&target("other", &["pids"], PathBase::Top)).is_none());
}

#[test]
fn percent_of_memory_are_bytes_of_this_host() {
    let settings = [("memory.max", "50%"), ("memory.swap.max", "1K"), ("cpu.max", "50%")];
    let mut gifts = GroupSpecs { tables: vec![gift("a", &settings, &[])], ..GroupSpecs::default() };
    gifts.share_out(200_000);
    let (provisions, remarks) = GroupConfigs::new(&gifts, &host());
    assert_eq!(remarks, []);
    let provision = provisions.of(&target("a", &[], PathBase::Root)).unwrap();
    let shown = shown(&provision);
    assert!(shown[0].contains("memory.max=100000 "), "{shown:?}");
    assert!(shown[0].contains("cpu.max=50000 100000"), "{shown:?}");
}

#[test]
fn tables_for_one_path_are_one() {
    let mut gifts = GroupSpecs {
        tables: vec![
            gift("/a/", &[("pids.max", "1")], &[]),
            gift("b", &[("pids.max", "2")], &[]),
            gift("a", &[("pids.max", "3"), ("cpu.weight", "4")], &[]),
        ],
        ..GroupSpecs::default()
    };
    gifts.join_tables();
    let shown: Vec<Vec<&str>> = gifts
        .tables
        .iter()
        .map(|table| table.settings.iter().map(|s| &*s.value).collect())
        .collect();
    assert_eq!(shown, [vec!["1", "4"], vec!["2"]]);
}

#[test]
fn what_is_required_and_not_to_be_had_is_kept_in_mind() {
    let unmet = |settings: &[(&str, &str)], is_required| {
        let table = GroupSpec { is_required, ..gift("a", settings, &[]) };
        let gifts = GroupSpecs { tables: vec![table], ..GroupSpecs::default() };
        let (provisions, remarks) = GroupConfigs::new(&gifts, &host());
        (provisions.table("a").unwrap().unmet.clone(), remarks.len())
    };
    let without = [("pids.max", "5"), ("memory.swappiness", "5")];
    assert_eq!(unmet(&without, true), (Some("memory.swappiness".into()), 1));
    assert_eq!(unmet(&without, false), (None, 1));
    assert_eq!(unmet(&[("cpuset.cpus", "1")], true), (Some("cpuset.cpus".into()), 1));
    assert_eq!(unmet(&[("pids.max", "5")], true), (None, 0));
}

#[test]
fn a_soft_limit_is_said_once() {
    let mut host = host();
    host = Hierarchies::new(
        host.iter().map(|tree| Hierarchy { version: Version::V1, ..tree.clone() }).collect(),
    );
    let table = |text| gift(text, &[("memory.high", "1G")], &[]);
    let gifts = GroupSpecs { tables: vec![table("a"), table("b")], ..GroupSpecs::default() };
    let (_, remarks) = GroupConfigs::new(&gifts, &host);
    assert_eq!(remarks.len(), 1);
    assert!(remarks[0].complaint.message.contains("memory.soft_limit_in_bytes"));
}
