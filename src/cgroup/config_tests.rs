use std::path::Path;

use super::super::mounts::Hierarchy;
use super::*;
use crate::rules::destination::Destination;

/// A host with memory and cpu on v2, pids and blkio on v1.
fn host() -> Hierarchies {
    let tree = |version, listed: &str, controllers: &[&str]| {
        Hierarchy::for_test(
            version,
            format!("/cg/{listed}"),
            listed,
            controllers.iter().map(|&name| name.to_owned()).collect(),
        )
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

fn spec(text: &str, settings: &[(&str, &str)], controllers: &[&str]) -> GroupSpec {
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
fn shown(config: &PathConfig) -> Vec<String> {
    let resolved = |level: &PathLevel| {
        let writes = level.resolved.iter().flat_map(|resolved| &resolved.writes);
        let words = writes.map(|w| format!("{}:{}={}", w.hierarchy, w.write.file, w.write.value));
        format!("{} {}", level.text, words.collect::<Vec<_>>().join(" ")).trim().to_owned()
    };
    config.levels.iter().map(resolved).collect()
}

#[test]
fn a_table_is_for_its_level_and_each_hierarchy_gets_its_own() {
    let settings =
        [("io.weight", "20"), ("memory.max", "1K"), ("pids.max", "9"), ("cgroup.freeze", "0")];
    let tables =
        vec![spec("sites/%u/", &settings, &[]), spec("/sites", &[("cpu.weight", "5")], &[])];
    let specs = GroupSpecs { tables, ..GroupSpecs::default() };
    let (configs, warnings) = GroupConfigs::new(&specs, &host());
    assert_eq!(warnings, []);
    let config = configs.of(&target("sites/%u/x", &["memory", "cpu"], PathBase::Root)).unwrap();
    assert_eq!(
        shown(&config),
        [
            "sites 0:cpu.weight=5",
            "%u 2:blkio.weight=100 0:memory.max=1024 1:pids.max=9 0:cgroup.freeze=0",
            "x"
        ]
    );
    assert!(config.controllers.is_empty() && config.creates.is_empty());
    let resolved = config.levels[1].resolved.as_deref().unwrap();
    assert_eq!(resolved.needs(0).collect::<Vec<_>>(), ["memory"]);
    let other = configs.of(&target("other/%u", &[], PathBase::Root)).unwrap();
    assert_eq!(shown(&other), ["other", "%u"]);
    let other = configs.of(&target("other/%u", &["memory", "pids"], PathBase::Root)).unwrap();
    assert_eq!(other.controllers, ["memory"]);
}

#[test]
fn what_this_host_cannot_do_is_said() {
    let table = spec(
        "a",
        &[("hugetlb.2MB.max", "0"), ("io.weight", "900"), ("io.latency", "8:0 target=1")],
        &[],
    );
    let specs = GroupSpecs { tables: vec![table], ..GroupSpecs::default() };
    // The BFQ scheduler accepts this value.
    assert_eq!(GroupConfigs::new(&specs, &host()).1.len(), 2);
    let mut host = host();
    host.has_blkio_weight = true;
    let (configs, warnings) = GroupConfigs::new(&specs, &host);
    let said: Vec<&str> = warnings.iter().map(|warning| &*warning.diagnostic.message).collect();
    assert_eq!(
        said,
        [
            "io.weight = 900 becomes blkio.weight = 1000 on this host, the maximum",
            "io.latency has no counterpart in cgroup v1, which this host uses",
            "no cgroup hierarchy of this host has the controller of hugetlb.2MB.max",
        ]
    );
    let config = configs.of(&target("a", &[], PathBase::Root)).unwrap();
    assert_eq!(shown(&config), ["a 2:blkio.weight=1000"]);
}

#[test]
fn templates_are_found_by_the_same_text_and_controller() {
    let both = [("cpu.shares", "2048"), ("memory.limit_in_bytes", "1K")];
    let templates = vec![
        spec("ct/%u/", &both, &["cpu", "memory"]),
        spec("/lead/%u", &[("pids.max", "1")], &["pids"]),
    ];
    let specs = GroupSpecs { templates, ..GroupSpecs::default() };
    let (configs, _) = GroupConfigs::new(&specs, &host());
    let legacy = |text: &str, controllers: &[&str]| {
        configs.of(&target(text, controllers, PathBase::Top)).map(|config| shown(&config))
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
    let groups = vec![spec("/web", &[("pids.max", "5")], &["pids", "freezer", "net_prio"])];
    let (configs, _) = GroupConfigs::new(&GroupSpecs { groups, ..GroupSpecs::default() }, &host());
    let creates = |controllers: &[&str]| {
        configs.of(&target("web/", controllers, PathBase::Top)).unwrap().creates
    };
    // cgrulesengd and cgconfigparser find no hierarchy for freezer here.
    assert_eq!(creates(&["pids"]), HierarchySet::of(&[1]));
    assert!(
        configs.of(&target("web/a", &["cpu"], PathBase::Top)).is_none_or(|p| p.creates.is_empty())
    );
    assert!(configs.of(&target("other", &["pids"], PathBase::Top)).is_none());
    // Without any v1 hierarchy freezer means the v2 hierarchy.
    let names = ["cpu".to_owned()].into();
    let unified = Hierarchies::new(vec![Hierarchy::for_test(Version::V2, "/cg", "", names)]);
    let groups = vec![spec("web", &[], &["freezer"])];
    let specs = GroupSpecs { groups, ..GroupSpecs::default() };
    let (configs, _) = GroupConfigs::new(&specs, &unified);
    let config = configs.of(&target("web", &["freezer"], PathBase::Top)).unwrap();
    assert_eq!(config.creates, HierarchySet::of(&[0]));
}

#[test]
fn percent_of_memory_are_bytes_of_this_host() {
    let settings = [("memory.max", "50%"), ("memory.swap.max", "1K"), ("cpu.max", "50%")];
    let mut specs = GroupSpecs { tables: vec![spec("a", &settings, &[])], ..GroupSpecs::default() };
    specs.share_out(200_000);
    let (configs, warnings) = GroupConfigs::new(&specs, &host());
    assert_eq!(warnings, []);
    let config = configs.of(&target("a", &[], PathBase::Root)).unwrap();
    let shown = shown(&config);
    assert!(shown[0].contains("memory.max=100000 "), "{shown:?}");
    assert!(shown[0].contains("cpu.max=50000 100000"), "{shown:?}");
}

#[test]
fn tables_for_one_path_are_one() {
    let mut specs = GroupSpecs {
        tables: vec![
            spec("/a/", &[("pids.max", "1")], &[]),
            spec("b", &[("pids.max", "2")], &[]),
            spec("a", &[("pids.max", "3"), ("cpu.weight", "4")], &[]),
        ],
        ..GroupSpecs::default()
    };
    specs.join_tables();
    let shown: Vec<Vec<&str>> = specs
        .tables
        .iter()
        .map(|table| table.settings.iter().map(|s| &*s.value).collect())
        .collect();
    assert_eq!(shown, [vec!["1", "4"], vec!["2"]]);
}

#[test]
fn sections_for_one_path_are_applied_one_after_the_other() {
    let group = |text, settings: &[(&str, &str)]| spec(text, settings, &["pids", "blkio"]);
    let read = "blkio.throttle.read_bps_device";
    let mut specs = GroupSpecs {
        groups: vec![
            group("/a/", &[("pids.max", "1"), (read, "8:0 1")]),
            group("b", &[("pids.max", "2")]),
            group("a", &[("pids.max", "3"), (read, "8:16 2")]),
        ],
        templates: vec![group("/a/%u", &[]), group("a/%u", &[]), group("a/%u/", &[])],
        ..GroupSpecs::default()
    };
    specs.join_sections();
    let shown = |specs: &[GroupSpec]| -> Vec<Vec<String>> {
        let values = |spec: &GroupSpec| spec.settings.iter().map(|s| s.value.clone()).collect();
        specs.iter().map(values).collect()
    };
    assert_eq!(shown(&specs.groups), [vec!["8:0 1", "3", "8:16 2"], vec!["2"]]);
    assert_eq!(specs.groups[0].controllers, ["pids", "blkio"]);
    assert_eq!(shown(&specs.templates).len(), 2);
}

#[test]
fn what_is_required_and_not_to_be_had_is_kept_in_mind() {
    let unmet = |settings: &[(&str, &str)], is_required| {
        let table = GroupSpec { is_required, ..spec("a", settings, &[]) };
        let specs = GroupSpecs { tables: vec![table], ..GroupSpecs::default() };
        let (configs, warnings) = GroupConfigs::new(&specs, &host());
        (configs.table("a").unwrap().unmet.clone(), warnings.len())
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
    let table = |text| spec(text, &[("memory.high", "1G")], &[]);
    let specs = GroupSpecs { tables: vec![table("a"), table("b")], ..GroupSpecs::default() };
    let (_, warnings) = GroupConfigs::new(&specs, &host);
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].diagnostic.message.contains("memory.soft_limit_in_bytes"));
    let both = spec("d", &[("memory.max", "2G"), ("memory.high", "1G")], &[]);
    let specs = GroupSpecs { tables: vec![both], ..GroupSpecs::default() };
    assert_eq!(GroupConfigs::new(&specs, &host).1, [], "memory.max limits at any time");
}

/// Cgroups whose names a user chooses are removed when they are empty, unless their table says when.
#[test]
fn groups_with_a_pid_or_a_program_in_their_path_are_removed() {
    let rules = "[[rule]]\nuser = 5\ncgroup = \"jobs/%u/%P/in\"\n[[rule]]\nuser = 6\ncgroup = \"a/%%p/%u\"\n\
                 [[rule]]\nuser = 7\ncgroup = \"programs/%p\"\n";
    let file = Arc::from(Path::new("/a.toml"));
    let parsed = crate::config::rules_toml::parse(&file, &format!("version = 1\n{rules}"));
    let rules: Vec<crate::rules::Rule> = parsed.rules.into_iter().map(|one| one.rule).collect();
    let mut specs = GroupSpecs::default();
    specs.remove_chosen(&rules);
    let texts: Vec<&str> = specs.tables.iter().map(|table| &*table.text).collect();
    assert_eq!(texts, ["jobs/%u/%P", "jobs/%u/%P/in", "programs/%p"]);
    let minute = Some(Duration::from_secs(60));
    assert!(specs.tables.iter().all(|table| table.remove_after == minute));
    let hour = Some(Duration::from_secs(3600));
    specs.tables.truncate(1);
    specs.tables[0].remove_after = hour;
    specs.remove_chosen(&rules);
    assert_eq!(
        specs.tables.iter().map(|table| table.remove_after).collect::<Vec<_>>(),
        [hour, minute, minute]
    );
}
