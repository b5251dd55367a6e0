//! Tests the settings of new cgroups: from tables of rule files through the daemon, from sections
//! of cgconfig.conf through the library, since the daemon under test reads no legacy files.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use cgruled::cgroup::host::ManagedRoots;
use cgruled::cgroup::tree::{self, CgroupTree};
use cgruled::policy::Policy;
use cgruled::policy::load::{NameService, Sources};
use cgruled::policy::rebuild::PolicyBuilder;
use cgruled::rules::{Action, RuleId};
use nix::sys::signal::Signal;

use crate::harness::user::{ALICE, BOB};
use crate::harness::{Live, PATIENCE, Settings, eventually, skip};

const RULE: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"there/%u\"\n";

/// Returns the directory of the cgroup of alice; prints the reason and returns `None`
/// if the test is skipped.
fn group(live: &Live, controller: &str) -> Option<PathBuf> {
    let found = live.ground.directory(controller, "there/cgt-alice");
    if found.is_none() {
        skip(&format!("no v1 hierarchy for {controller}"));
    }
    found
}

fn expect(group: &Path, file: &str, value: &str) {
    let mut found = String::new();
    let is_so = eventually(PATIENCE, || {
        found = fs::read_to_string(group.join(file)).unwrap_or_default();
        found.trim() == value
    });
    assert!(is_so, "{file} is {found:?}, not {value}");
}

#[test]
fn a_table_is_translated_for_v1() {
    let Some(live) = Live::require() else { return };
    let settings = "[cgroup.\"there/%u\"]\ncpu.weight = 50\ncpu.max = \"50%\"\nmemory.max = \"64M\"\n\
                    memory.swap.max = \"16M\"\npids.max = 77\n";
    let groups = ["cpu", "memory", "pids"].map(|name| group(&live, name));
    let [Some(cpu), Some(memory), Some(pids)] = groups else { return };
    let _daemon = live.daemon(&format!("{RULE}{settings}"));
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    for controller in ["cpu", "memory", "pids", ""] {
        live.expect_pid(controller, actor.subject, "there/cgt-alice");
    }
    expect(&cpu, "cpu.shares", "512");
    expect(&cpu, "cpu.cfs_quota_us", "50000");
    expect(&memory, "memory.limit_in_bytes", "67108864");
    expect(&memory, "memory.memsw.limit_in_bytes", "83886080");
    expect(&pids, "pids.max", "77");
}

#[test]
fn a_table_applies_to_existing_cgroups_after_a_reload() {
    let Some(live) = Live::require() else { return };
    let Some(pids) = group(&live, "pids") else { return };
    let text = |most: u32| format!("{RULE}[cgroup.\"there/%u\"]\npids.max = {most}\n");
    let daemon = live.daemon(&text(77));
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect(&actor, "there/cgt-alice");
    expect(&pids, "pids.max", "77");
    live.write_rules(&text(78));
    daemon.signal(Signal::SIGHUP);
    expect(&pids, "pids.max", "78");
}

/// Checks an empty cgroup: no process is placed in it, so the daemon does not open it either.
#[test]
fn an_empty_cgroup_gets_the_settings_of_a_reload() {
    let Some(live) = Live::require() else { return };
    let Some(pids) = group(&live, "pids") else { return };
    let rule = format!("{RULE}controllers = \"pids\"\n");
    let daemon = live.daemon(&rule);
    drop({
        let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
        live.expect_pid("pids", actor.subject, "there/cgt-alice");
        actor
    });
    let theirs = pids.with_file_name("theirs");
    fs::create_dir(&theirs).unwrap();
    for most in ["77", "78"] {
        let tables = format!(
            "[cgroup.\"there/%u\"]\npids.max = {most}\n[cgroup.there]\npids.max = 1{most}\n"
        );
        live.write_rules(&format!("{rule}{tables}"));
        daemon.signal(Signal::SIGHUP);
        expect(&pids, "pids.max", most);
        expect(pids.parent().unwrap(), "pids.max", &format!("1{most}"));
    }
    // A removed table is reverted.
    fs::write(theirs.join("pids.max"), "78").unwrap();
    live.write_rules(&rule);
    daemon.signal(Signal::SIGHUP);
    expect(&pids, "pids.max", "max");
    expect(pids.parent().unwrap(), "pids.max", "max");
    expect(&theirs, "pids.max", "78");
}

/// Checks cgroups of v1 and, without a table for one of them, the values that others wrote.
#[test]
fn a_removed_setting_is_reverted_unless_others_changed_it() {
    let Some(live) = Live::require() else { return };
    let groups = ["cpu", "memory", "pids"].map(|name| group(&live, name));
    let [Some(cpu), Some(memory), Some(pids)] = groups else { return };
    let table = "[cgroup.\"there/%u\"]\ncpu.weight = 50\ncpu.max = \"50%\"\nmemory.max = \"64M\"\n\
                 memory.swap.max = \"16M\"\npids.max = 77\n";
    let daemon = live.daemon(&format!("{RULE}{table}"));
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect(&actor, "there/cgt-alice");
    expect(&memory, "memory.memsw.limit_in_bytes", "83886080");
    expect(&cpu, "cpu.shares", "512");
    expect(&pids, "pids.max", "77");
    // The administrator changes one of them.
    fs::write(pids.join("pids.max"), "99").unwrap();
    live.write_rules(&format!("{RULE}[cgroup.\"there/%u\"]\ncpu.weight = 50\n"));
    daemon.signal(Signal::SIGHUP);
    for file in ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"] {
        expect(&memory, file, "9223372036854771712");
    }
    expect(&cpu, "cpu.cfs_quota_us", "-1");
    expect(&cpu, "cpu.shares", "512");
    expect(&pids, "pids.max", "99");
    let counters = daemon.stop();
    assert_eq!((counters.get("settings_reverted"), counters.get("settings_not_reverted")), (4, 0));
}

#[test]
fn a_setting_that_is_removed_while_the_daemon_is_stopped_is_reverted() {
    let Some(live) = Live::require() else { return };
    let Some(pids) = group(&live, "pids") else { return };
    let daemon = live.daemon(&format!("{RULE}[cgroup.\"there/%u\"]\npids.max = 77\n"));
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect_pid("pids", actor.subject, "there/cgt-alice");
    expect(&pids, "pids.max", "77");
    daemon.stop();
    let daemon = live.daemon(RULE);
    expect(&pids, "pids.max", "max");
    assert_eq!(daemon.stop().get("settings_reverted"), 1);
}

/// Checks that a table for the same cgroup by another path takes over its settings.
#[test]
fn a_setting_that_another_table_contains_is_kept() {
    let Some(live) = Live::require() else { return };
    let Some(pids) = group(&live, "pids") else { return };
    let daemon = live.daemon(&format!("{RULE}[cgroup.\"there/%u\"]\npids.max = 77\n"));
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect_pid("pids", actor.subject, "there/cgt-alice");
    expect(&pids, "pids.max", "77");
    live.write_rules(&format!("{RULE}[cgroup.\"there/cgt-alice\"]\npids.max = 77\n"));
    daemon.signal(Signal::SIGHUP);
    assert!(eventually(PATIENCE, || daemon.log().matches("active: ").count() >= 2));
    live.fence();
    expect(&pids, "pids.max", "77");
    live.write_rules(RULE);
    daemon.signal(Signal::SIGHUP);
    expect(&pids, "pids.max", "max");
    assert_eq!(daemon.stop().get("settings_reverted"), 1);
}

/// Checks an owner who changes the extended attribute that names the table of an empty cgroup.
#[test]
fn an_owner_cannot_choose_among_tables() {
    let Some(live) = Live::require() else { return };
    let Some(pids) = group(&live, "pids") else { return };
    let tables = "[cgroup.\"there/%u\"]\npids.max = 7\nowner = \"cgt-alice\"\n\
                  [cgroup.\"there/%g\"]\npids.max = 700\n";
    let other = "[[rule]]\nuser = \"cgt-bob\"\ncgroup = \"there/%g\"\n";
    let daemon = live.daemon(&format!("{RULE}{other}{tables}"));
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect_pid("pids", actor.subject, "there/cgt-alice");
    expect(&pids, "pids.max", "7");
    let (name, text) = ("user.cgruled", "there/%g".as_bytes());
    rustix::fs::setxattr(&pids, name, text, rustix::fs::XattrFlags::empty()).unwrap();
    daemon.signal(Signal::SIGHUP);
    assert!(eventually(PATIENCE, || daemon.log().matches("active: ").count() >= 2));
    live.fence();
    std::thread::sleep(std::time::Duration::from_millis(300));
    expect(&pids, "pids.max", "7");
    let rules = format!("{RULE}{other}{tables}").replace("max = 7\n", "max = 8\n");
    live.write_rules(&rules);
    daemon.signal(Signal::SIGHUP);
    expect(&pids, "pids.max", "8");
}

#[test]
fn the_managed_root_has_a_table() {
    let Some(live) = Live::require() else { return };
    let Some(_) = group(&live, "pids") else { return };
    let pids = live.ground.directory("pids", "").unwrap();
    let daemon = live.daemon(&format!("{RULE}[cgroup.\"/\"]\npids.max = 70\n"));
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect_pid("pids", actor.subject, "there/cgt-alice");
    expect(&pids, "pids.max", "70");
    expect(&pids.join("there"), "pids.max", "max");
    live.write_rules(&format!("{RULE}[cgroup.\"/\"]\npids.max = 71\n"));
    daemon.signal(Signal::SIGHUP);
    expect(&pids, "pids.max", "71");
}

/// Checks the message for the root of a hierarchy, by a file that does not exist: a test must not
/// change a setting of the root.
#[test]
fn the_root_reports_why_it_takes_no_settings() {
    let Some(live) = Live::require() else { return };
    let Some(_) = group(&live, "pids") else { return };
    let rules = format!("{RULE}[cgroup.\"/\"]\n\"pids.nonsense\" = 1\n")
        .replace("there/%u", &format!("{}there/%u", live.ground.at("")));
    let settings = Settings { config: "", arguments: &["--root", "/"] };
    let daemon = live.daemon_with(&rules, &settings);
    daemon.expect_log("the hierarchy root is the whole machine");
}

#[test]
fn a_refused_setting_is_logged_and_prevents_no_placement() {
    let Some(live) = Live::require() else { return };
    let Some(_) = group(&live, "pids") else { return };
    let table = "[cgroup.\"there/%u\"]\npids.max = 7\n\"pids.nonsense\" = 1\n";
    let daemon = live.daemon(&format!("{RULE}{table}"));
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect(&actor, "there/cgt-alice");
    daemon.expect_log("pids.nonsense = 1");
}

#[test]
fn a_refused_required_setting_prevents_placement() {
    let Some(live) = Live::require() else { return };
    let Some(_) = group(&live, "pids") else { return };
    let table = "[cgroup.\"there/%u\"]\n\"pids.nonsense\" = 1\nrequired = true\n";
    let daemon = live.daemon(&format!("{RULE}{table}"));
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    daemon.expect_log("cannot write the required setting");
    live.expect_untouched(&actor);
}

#[test]
fn an_owner_may_make_groups_and_not_lift_limits() {
    let Some(live) = Live::require() else { return };
    let Some(pids) = group(&live, "pids") else { return };
    let table =
        "[cgroup.\"there/%u\"]\npids.max = 7\nowner = \"cgt-alice:cgt-bob\"\nmode = \"0750\"\n";
    let _daemon = live.daemon(&format!("{RULE}{table}"));
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect(&actor, "there/cgt-alice");
    let owner = |path: &Path| {
        let seen = fs::metadata(path).unwrap();
        (seen.uid(), seen.gid())
    };
    assert_eq!(owner(&pids), (ALICE, BOB));
    assert_eq!(fs::metadata(&pids).unwrap().permissions().mode() & 0o7777, 0o750);
    assert_eq!(owner(&pids.join("cgroup.procs")), (ALICE, BOB));
    assert_eq!(owner(&pids.join("pids.max")), (0, 0));
    assert_eq!(owner(pids.parent().unwrap()), (0, 0));
}

#[test]
fn the_cgroup_of_each_user_may_belong_to_that_user() {
    let Some(live) = Live::require() else { return };
    let rules = "[[rule]]\nuser = [\"cgt-alice\", \"cgt-bob\"]\ncgroup = \"own/%u\"\n\
                 [cgroup.\"own/%u\"]\nowner = \"%u\"\n";
    let _daemon = live.daemon(rules);
    for (user, name) in [(ALICE, "cgt-alice"), (BOB, "cgt-bob")] {
        let actor = live.hold(&format!("uid {user} {user}"));
        live.expect(&actor, &format!("own/{name}"));
        let Some(own) = live.ground.directory("", &format!("own/{name}")) else { return };
        assert_eq!(fs::metadata(own.join("cgroup.procs")).unwrap().uid(), user);
        assert_eq!(fs::metadata(own.join("cgroup.subtree_control")).unwrap().uid(), 0);
        // The owner may move an own process below it, where it stays.
        let sub = own.join("sub");
        let made = Command::new("mkdir").arg(&sub).uid(user).status().unwrap();
        assert!(made.success());
        assert_eq!(fs::read_to_string(own.join("cgroup.max.descendants")).unwrap(), "1000\n");
    }
}

/// Checks the default limit on the cgroups that an owner creates, as alice, and that a table can set another.
#[test]
fn an_owner_may_make_a_limited_number_of_groups() {
    let Some(live) = Live::require() else { return };
    for (table, limit) in [("", 1000), ("cgroup.max.descendants = 3\n", 3)] {
        let table = format!("[cgroup.\"there/%u\"]\nowner = \"cgt-alice\"\n{table}");
        let daemon = live.daemon(&format!("{RULE}{table}"));
        let alice = live.hold(&format!("uid {ALICE} {ALICE}"));
        live.expect(&alice, "there/cgt-alice");
        let Some(own) = live.ground.directory("", "there/cgt-alice") else { return };
        let script = format!(
            "i=0; while mkdir {}/$i 2>/dev/null; do i=$((i+1)); done; echo $i",
            own.display()
        );
        let made = Command::new("sh").args(["-c", &script]).uid(ALICE).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&made.stdout).trim(), limit.to_string());
        (0..limit).for_each(|number| fs::remove_dir(own.join(number.to_string())).unwrap());
        drop((alice, daemon));
        assert!(eventually(PATIENCE, || fs::remove_dir(&own).is_ok()));
    }
}

/// Checks an owner who enables a controller in cgroup.subtree_control, which would make the kernel
/// refuse every later process.
#[test]
fn an_owner_cannot_keep_later_processes_out_of_the_limits() {
    let Some(live) = Live::require() else { return };
    let top = live.ground.directory("", "").unwrap().parent().unwrap().to_owned();
    if !has_hugetlb(&top) {
        return;
    }
    let (guard, live) = (Enabled::note(&top, "hugetlb"), live);
    let group = live.ground.directory("", "there/cgt-alice").unwrap();
    let table = "[cgroup.\"there/%u\"]\nhugetlb.2MB.max = \"4M\"\nowner = \"cgt-alice\"\n";
    let daemon = live.daemon(&format!("{RULE}{table}"));
    let script = "until cd \"$0\" 2>/dev/null && grep -q $$ cgroup.procs; do :; done\n\
                  mkdir sub && echo $$ > sub/cgroup.procs || exit 3\n\
                  echo +hugetlb > cgroup.subtree_control";
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(&group).uid(ALICE).gid(ALICE).stderr(Stdio::null());
    let tried = shell.status().unwrap();
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect(&actor, "there/cgt-alice");
    assert_eq!(tried.code(), Some(2), "the shell could not write");
    drop(actor);
    drop(daemon);
    drop(live);
    drop(guard);
}

/// Checks a controller that the v2 hierarchy has available: it is enabled along the path, and
/// disabled again in the root if the test enabled it.
#[test]
fn controllers_are_enabled_along_the_path_on_v2() {
    let Some(live) = Live::require() else { return };
    let group = live.ground.directory("", "there/cgt-alice").unwrap();
    let ground = live.ground.directory("", "").unwrap();
    let top = ground.parent().unwrap().to_owned();
    let available = fs::read_to_string(top.join("cgroup.controllers")).unwrap();
    let Some(name) = available.split_whitespace().next() else {
        skip("the v2 tree has no controller");
        return;
    };
    let (guard, live) = (Enabled::note(&top, name), live);
    let _daemon = live.daemon(&format!("{RULE}controllers = [\"{name}\"]\n"));
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect(&actor, "there/cgt-alice");
    for directory in [&ground, &ground.join("there")] {
        expect(directory, "cgroup.subtree_control", name);
    }
    expect(&group, "cgroup.controllers", name);
    drop(actor);
    drop(live);
    drop(guard);
}

#[test]
fn a_cgroup_with_processes_enables_no_controller() {
    let Some(live) = Live::require() else { return };
    let top = live.ground.directory("", "").unwrap().parent().unwrap().to_owned();
    let available = fs::read_to_string(top.join("cgroup.controllers")).unwrap();
    let Some(name) = available.split_whitespace().next() else {
        skip("the v2 tree has no controller");
        return;
    };
    let (guard, live) = (Enabled::note(&top, name), live);
    let rules = format!(
        "[[rule]]\nuser = \"cgt-bob\"\ncgroup = \"there\"\n{RULE}controllers = [\"{name}\"]\n"
    );
    let daemon = live.daemon(&rules);
    let bob = live.hold(&format!("uid {BOB} {BOB}"));
    live.expect(&bob, "there");
    let alice = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect(&alice, "there/cgt-alice");
    daemon.expect_log("the cgroup contains processes");
    drop((alice, bob));
    drop(daemon);
    drop(live);
    drop(guard);
}

/// Runs case `M99` live.
#[test]
fn a_template_destination_has_its_controllers_enabled_on_v2() {
    let Some(live) = Live::require() else { return };
    let top = live.ground.directory("", "").unwrap().parent().unwrap().to_owned();
    if !has_hugetlb(&top) {
        return;
    }
    let (guard, live) = (Enabled::note(&top, "hugetlb"), live);
    let template = "template {ground}/there/%u { hugetlb { hugetlb.2MB.limit_in_bytes = 4M; } }\n";
    let (policy, mut tree) = legacy(&live, "cgt-alice hugetlb {ground}/there/%u\n", template);
    open(&live, &policy, &mut tree, "there/cgt-alice").unwrap();
    let there = live.ground.directory("", "there").unwrap();
    expect(&there, "cgroup.subtree_control", "hugetlb");
    expect(&there.join("cgt-alice"), "hugetlb.2MB.max", "4194304");
    drop(tree);
    drop(live);
    drop(guard);
}

fn has_hugetlb(top: &Path) -> bool {
    let available = fs::read_to_string(top.join("cgroup.controllers")).unwrap();
    let has = available.split_whitespace().any(|name| name == "hugetlb");
    if !has {
        skip("the v2 tree has no hugetlb");
    }
    has
}

/// A controller in the root of the v2 hierarchy; disabled again on drop if it was not enabled before.
/// Bound before [`Live`], because the kernel refuses to disable it while cgroups of the test use it.
pub(crate) struct Enabled(Option<(PathBuf, String)>);

impl Enabled {
    pub(crate) fn note(top: &Path, name: &str) -> Self {
        let file = top.join("cgroup.subtree_control");
        let before = fs::read_to_string(&file).unwrap();
        let was_enabled = before.split_whitespace().any(|known| known == name);
        Self((!was_enabled).then(|| (file, name.to_owned())))
    }
}

impl Drop for Enabled {
    fn drop(&mut self) {
        if let Some((file, name)) = &self.0 {
            let _ = fs::write(file, format!("-{name}"));
        }
    }
}

/// Returns a policy from legacy files alone. `{ground}` in them is the test cgroup.
fn legacy(live: &Live, cgrules: &str, cgconfig: &str) -> (Box<Policy>, CgroupTree) {
    let ground = live.ground.at("");
    let ground = ground.trim_matches('/');
    let file = |name: &str, text: &str| {
        let path = live.path(name);
        fs::write(&path, text.replace("{ground}", ground)).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        path
    };
    let sources = Sources {
        directories: Vec::new(),
        cgrules_conf: file("cgrules.conf", cgrules),
        cgrules_d: live.path("cgrules.d"),
        cgconfig_conf: file("cgconfig.conf", cgconfig),
        cgconfig_d: live.path("cgconfig.d"),
        ..Sources::default()
    };
    let hierarchies = Arc::new(tree::discover().unwrap());
    let names = NameService::default();
    let mut builder =
        PolicyBuilder::new(sources, names, Arc::clone(&hierarchies), ManagedRoots::default());
    let policy = builder.first();
    let shown: Vec<String> = builder.diagnostics().iter().map(ToString::to_string).collect();
    assert!(shown.is_empty(), "{shown:#?}");
    (policy, CgroupTree::new(hierarchies))
}

/// Opens the cgroup of the first rule at `below`, as for a process.
fn open(
    live: &Live,
    policy: &Policy,
    tree: &mut CgroupTree,
    below: &str,
) -> Result<(), tree::CgroupError> {
    let id = RuleId(0);
    let Action::Place(targets) = &policy.matcher.rule(id).unwrap().action else { panic!() };
    let span = policy.span(tree.hierarchies(), id, 0, &targets[0]);
    let path = live.ground.at(below);
    let config = || policy.configs.of(&targets[0]);
    tree.group(span, &path, targets[0].creates, config).map(drop)
}

fn modes(path: &Path) -> (u32, u32, u32) {
    let seen = fs::metadata(path).unwrap();
    (seen.uid(), seen.gid(), seen.permissions().mode() & 0o7777)
}

/// Runs case `M101` live, except that `perm` is applied here.
#[test]
fn a_template_gives_settings_and_owners() {
    let Some(live) = Live::require() else { return };
    let (Some(cpu), Some(freezer)) = (group(&live, "cpu"), group(&live, "freezer")) else { return };
    let template = "template {ground}/there/%u {\n\
                    perm { task { uid = cgt-bob; fperm = 770; } admin { uid = root; gid = cgt-bob; \
                    dperm = 775; fperm = 664; } }\ncpu { cpu.shares = 333; } }\n";
    let rule = "cgt-alice cpu,freezer {ground}/there/%u\n";
    let (policy, mut tree) = legacy(&live, rule, template);
    open(&live, &policy, &mut tree, "there/cgt-alice").unwrap();
    expect(&cpu, "cpu.shares", "333");
    assert_eq!(modes(&cpu), (0, BOB, 0o775));
    assert_eq!(modes(&cpu.join("cpu.shares")), (0, BOB, 0o664));
    let tasks = modes(&cpu.join("tasks"));
    assert_eq!((tasks.0, tasks.1), (BOB, 0));
    // Same result as with cgconfigparser, and so with `cgrulectl groups`.
    assert_eq!(modes(&cpu.join("cgroup.procs")), (0, BOB, 0o664));
    assert_eq!(modes(&freezer), (0, 0, 0o755));
    assert_eq!(modes(cpu.parent().unwrap()), (0, 0, 0o755));
}

/// Runs case `M102` live: levels with a literal path get no settings, and an existing cgroup is not changed.
#[test]
fn a_template_is_for_levels_with_fields() {
    let Some(live) = Live::require() else { return };
    let Some(cpu) = group(&live, "cpu") else { return };
    let templates = "template {ground}/there { cpu { cpu.shares = 11; } }\n\
                     template {ground}/there/%u { cpu { cpu.shares = 22; } }\n";
    let rule = "cgt-alice cpu {ground}/there/%u\n";
    let (policy, mut tree) = legacy(&live, rule, templates);
    open(&live, &policy, &mut tree, "there/cgt-alice").unwrap();
    expect(&cpu, "cpu.shares", "22");
    expect(cpu.parent().unwrap(), "cpu.shares", "1024");
    fs::write(cpu.join("cpu.shares"), "44").unwrap();
    tree.forget();
    open(&live, &policy, &mut tree, "there/cgt-alice").unwrap();
    expect(&cpu, "cpu.shares", "44");
}

#[test]
fn a_literal_path_is_created_if_a_section_describes_it() {
    let Some(live) = Live::require() else { return };
    let Some(pids) = live.ground.directory("pids", "plain") else { return };
    // Settings that perm does not contain are taken from default, as with `cgrulectl groups`.
    let section = "group {ground}/plain { perm { task { uid = cgt-bob; } admin { uid = root; } } \
                   pids { pids.max = 9; } }\n\
                   default { perm { task { gid = cgt-bob; } admin { gid = cgt-bob; } } }\n";
    let (policy, mut tree) = legacy(&live, "cgt-alice pids {ground}/plain\n", section);
    open(&live, &policy, &mut tree, "plain").unwrap();
    expect(&pids, "pids.max", "9");
    assert_eq!(modes(&pids.join("tasks")), (BOB, BOB, 0o644));
    assert_eq!(modes(&pids), (0, BOB, 0o755));
    let (policy, mut tree) = legacy(&live, "cgt-alice pids {ground}/other\n", section);
    assert!(open(&live, &policy, &mut tree, "other").is_err());
}
