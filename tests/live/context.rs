//! Tests criteria on the origin of a process: its unit, its cgroup, its container and its login user.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

use crate::containers::{BY_ROOT, contained_by_alice, contained_in, unused_name};
use crate::harness::user::{ALICE, BOB};
use crate::harness::{Actor, BASE, Daemon, Live, Settings, Surroundings, census};

/// Starts a daemon whose managed root is a cgroup beside those in which the processes are.
fn daemon_in_pool(live: &Live, rules: &str) -> Daemon {
    let root = live.ground.at("pool");
    let settings = Settings { arguments: &["--no-legacy", "--root", &root], ..Settings::default() };
    live.daemon_on(rules, &settings, &Surroundings { is_bare: true, ..Surroundings::default() })
}

/// Moves a process to a cgroup outside of the managed root.
fn put(live: &Live, actor: &Actor, group: &str) {
    put_all(live, &[actor.subject], group);
}

fn put_all(live: &Live, processes: &[u32], group: &str) {
    let directory = live.ground.directory("", group).unwrap();
    fs::create_dir_all(&directory).unwrap();
    for process in processes {
        fs::write(directory.join("cgroup.procs"), process.to_string()).unwrap();
    }
}

/// Starts a process of alice in a cgroup outside of the managed root.
fn resident(live: &Live, group: &str) -> Actor {
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    put(live, &actor, group);
    actor
}

const RULES: &str = "[[rule]]\nuser = \"cgt-alice\"\nnot = { unit = [\"cgt.service\", \"cron*\"] }\n\
                     from = \"/*.slice/system.slice/**\"\ncgroup = \"other\"\nleave_units = true\n\
                     [[rule]]\nuser = \"cgt-*\"\nunit = \"cgt.service\"\ncgroup = \"jobs/%u\"\nleave_units = true\n\
                     [[rule]]\nuser = \"cgt-alice\"\ncgroup = \"rest\"\n";
const SERVICE: &str = "system.slice/cgt.service";

#[test]
fn a_process_keeps_the_rule_of_its_unit_over_reload_and_restart() {
    let Some(live) = Live::require() else { return };
    let (job, below) = (resident(&live, SERVICE), resident(&live, "system.slice/cgt.service/a"));
    let other = resident(&live, "system.slice/b.service");
    let elsewhere = resident(&live, "x");
    let expect = || {
        live.expect(&job, "pool/jobs/cgt-alice");
        live.expect(&below, "pool/jobs/cgt-alice");
        live.expect(&other, "pool/other");
        live.expect(&elsewhere, "pool/rest");
    };
    let daemon = daemon_in_pool(&live, RULES);
    expect();
    for _ in 0..3 {
        daemon.signal(Signal::SIGHUP);
        sleep(Duration::from_millis(300));
        expect();
    }
    let counters = daemon.expect_no_external_moves("reloads");
    assert_eq!(counters.get("placed"), 4);
    let daemon = daemon_in_pool(&live, RULES);
    sleep(Duration::from_millis(300));
    expect();
    assert_eq!(daemon.stop().get("placed"), 0, "each was in place");
}

#[test]
fn children_and_their_programs_keep_the_rule_of_the_unit() {
    let Some(live) = Live::require() else { return };
    let program = live.program("bin/job");
    let steps = format!(
        "subreaper uid {ALICE} {ALICE} say ready gate brood 20 daemonize exec {program} job hold"
    );
    let mut actor = live.actor(&steps);
    actor.subject = actor.said("ready");
    put(&live, &actor, SERVICE);
    let _daemon = daemon_in_pool(&live, RULES);
    live.expect(&actor, "pool/jobs/cgt-alice");
    actor.open_gate();
    (0..20).for_each(|_| while actor.says().0 != "pid" {});
    live.expect_at_rest("children of a job", ALICE, 21, "pool/jobs/cgt-alice");
}

#[test]
fn another_user_of_the_unit_gets_the_cgroup_of_that_user() {
    let Some(live) = Live::require() else { return };
    let steps = format!("keep-caps uid {ALICE} {ALICE} say ready gate uid {BOB} {BOB}");
    let mut actor = live.actor(&format!("{steps} hold"));
    actor.subject = actor.said("ready");
    put(&live, &actor, SERVICE);
    let _daemon = daemon_in_pool(&live, RULES);
    live.expect(&actor, "pool/jobs/cgt-alice");
    actor.open_gate();
    live.expect(&actor, "pool/jobs/cgt-bob");
}

#[test]
fn a_move_that_a_user_can_cause_does_not_end_the_rule_and_one_by_root_does() {
    let Some(live) = Live::require() else { return };
    let (job, other) = (resident(&live, SERVICE), resident(&live, SERVICE));
    let daemon = daemon_in_pool(&live, RULES);
    live.expect(&job, "pool/jobs/cgt-alice");
    live.expect(&other, "pool/jobs/cgt-alice");
    for number in 1..=3 {
        sleep(Duration::from_millis(300));
        put(&live, &job, "user.slice/user-61701.slice/user@61701.service/app.slice/x.scope");
        live.expect(&job, "pool/jobs/cgt-alice");
        sleep(Duration::from_millis(300));
        assert!(daemon.log().matches("it is moved back").count() <= number);
    }
    put(&live, &other, "x");
    live.expect(&other, "pool/rest");
    assert!(daemon.stop().get("external_moves_found") >= 3);
}

/// Without an event of the children, the daemon knows them only by the forks of their creator.
#[test]
fn children_that_a_user_moves_at_once_keep_the_rule() {
    let Some(live) = Live::require() else { return };
    let mut actor = live.actor(&format!("uid {ALICE} {ALICE} say ready gate brood 10 hold"));
    actor.subject = actor.said("ready");
    put(&live, &actor, SERVICE);
    let _daemon = daemon_in_pool(&live, RULES);
    live.expect(&actor, "pool/jobs/cgt-alice");
    sleep(Duration::from_millis(300));
    actor.open_gate();
    let children: Vec<u32> = (0..11)
        .map(|_| actor.says())
        .filter_map(|(word, number)| (word == "pid").then_some(number))
        .collect();
    assert_eq!(children.len(), 10);
    put_all(&live, &children, "user.slice/user-61701.slice/user@61701.service/app.slice/x.scope");
    live.expect_at_rest("children moved by a user", ALICE, 11, "pool/jobs/cgt-alice");
}

#[test]
fn a_process_that_is_moved_into_a_unit_is_placed_with_its_children() {
    let Some(live) = Live::require() else { return };
    let mut actor = live.actor(&format!("uid {BOB} {BOB} say ready gate brood 10 hold"));
    actor.subject = actor.said("ready");
    let _daemon = daemon_in_pool(&live, RULES);
    sleep(Duration::from_millis(200));
    put(&live, &actor, SERVICE);
    actor.open_gate();
    (0..10).for_each(|_| while actor.says().0 != "pid" {});
    live.expect_at_rest("a process moved into a unit", BOB, 11, "pool/jobs/cgt-bob");
}

#[test]
fn a_user_who_owns_the_cgroup_cannot_claim_its_rule() {
    let Some(live) = Live::require() else { return };
    let rules = format!("{RULES}[cgroup.\"jobs/%u\"]\nowner = \"%u\"\n");
    let job = resident(&live, SERVICE);
    let _daemon = daemon_in_pool(&live, &rules);
    live.expect(&job, "pool/jobs/cgt-alice");
    // A process of alice that never was in the unit.
    let own = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect(&own, "pool/rest");
    put(&live, &own, "pool/jobs/cgt-alice");
    live.expect(&own, "pool/rest");
}

#[test]
fn the_login_user_counts_also_after_a_change_of_user() {
    let Some(live) = Live::require() else { return };
    let rules = "[[rule]]\nuser = \"61000-61999\"\nlogin = \"cgt-alice\"\ncgroup = \"of-%u\"\n\
                 [[rule]]\nuser = \"61000-61999\"\nnot = { login = \"*\" }\ncgroup = \"none\"\n\
                 [[rule]]\nuser = \"61000-61999\"\nlogin = \"cgt-b*\"\ncgroup = \"bob\"\n";
    let _daemon = live.daemon(rules);
    for (steps, below) in [
        (format!("login {ALICE} uid {ALICE} {ALICE}"), "of-cgt-alice"),
        (format!("login {ALICE} fork uid {BOB} {BOB}"), "of-cgt-bob"),
        (format!("login {BOB} uid {ALICE} {ALICE}"), "bob"),
    ] {
        live.expect(&live.hold(&steps), below);
    }
    // The login user of this test, if it was set, is that of its children.
    let own = fs::read_to_string("/proc/self/loginuid").unwrap();
    if own.trim() == u32::MAX.to_string() {
        live.expect(&live.hold(&format!("uid {BOB} {BOB}")), "none");
    }
}

#[test]
fn explain_names_unit_and_login() {
    let Some(live) = Live::require() else { return };
    live.write_rules(&format!("{RULES}[[rule]]\nlogin = 0\ncgroup = \"x\"\n"));
    let root = live.ground.at("pool");
    let ask = |what: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cgrulectl"));
        command.args(["explain", "--no-legacy", "--root", &root, "--socket", "/nonexistent"]);
        command.args(["--rules", &format!("{BASE}/rules.d")]).args(what.split(' '));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let said = ask("--user cgt-alice --unit cgt.service");
    assert!(said.contains("unit     cgt.service") && said.contains("jobs/cgt-alice"), "{said}");
    let said = ask("--user cgt-alice --from /a.slice/system.slice/b.service --login cgt-bob");
    assert!(said.contains(&format!("login    cgt-bob ({BOB})")), "{said}");
    assert!(said.contains("pool/other"), "{said}");
    let job = resident(&live, "pool/jobs/cgt-alice");
    let said = ask(&job.subject.to_string());
    assert!(
        said.contains("unknown: it is in the cgroup of a rule with unit, from or container"),
        "{said}"
    );
    let said = ask(&resident(&live, SERVICE).subject.to_string());
    assert!(said.contains("unit     cgt.service") && said.contains("login    "), "{said}");
}

#[test]
fn arguments_count_at_each_exec() {
    let Some(live) = Live::require() else { return };
    let program = live.program("bin/tool");
    // Before its exec a process has the user and other arguments.
    let rules = format!(
        "[[rule]]\nuser = \"cgt-alice\"\nargument = \"work*\"\ncgroup = \"workers\"\n\
         [[rule]]\nuser = \"cgt-alice\"\nargument.1 = \"say\"\nargument.2 = \"log\"\ncgroup = \"logs\"\n\
         [[rule]]\nuser = \"cgt-alice\"\nexe = \"{program}\"\nnot = {{ argument = \"free\" }}\ncgroup = \"rest\"\n"
    );
    let daemon = live.daemon(&rules);
    let run = |words: &str| {
        let steps = format!("uid {ALICE} {ALICE} exec {program} tool {words} hold");
        let mut actor = live.actor(&steps);
        actor.subject = loop {
            let (word, pid) = actor.says();
            if word == "pid" {
                break pid;
            }
        };
        actor
    };
    for (words, below) in [
        ("say worker", "workers"),
        ("say log", "logs"),
        ("say x say log", "rest"),
        ("say log say worker", "workers"),
    ] {
        live.expect(&run(words), below);
    }
    live.expect_untouched(&run("say free"));
    // The next program of the same process has other arguments.
    let again = format!("say worker exec {program} tool say log");
    live.expect(&run(&again), "logs");
    // The child of a worker stays until it executes a program itself.
    let child = format!("say worker fork exec {program} tool say other");
    live.expect(&run(&child), "rest");
    daemon.signal(Signal::SIGHUP);
    let counters = daemon.stop();
    assert!(counters.get("examinations") >= 8, "{counters:?}");
}

const BOXES: &str = "[[rule]]\nuser = \"cgt-alice\"\ncontainer = true\ncontainers = true\ncgroup = \"boxes/%u\"\n\
                     [[rule]]\nuser = \"cgt-alice\"\ncontainer = \"*@cgt-alice:*\"\ncgroup = \"own\"\n\
                     [[rule]]\nuser = \"cgt-alice\"\nnot = { container = true }\ncgroup = \"rest\"\n";

#[test]
fn a_process_keeps_the_rule_of_its_container_over_reload_and_restart() {
    let Some(live) = Live::require() else { return };
    let daemon = daemon_in_pool(&live, BOXES);
    let with_mounts = [BY_ROOT, &["--mount"]].concat();
    let inside = contained_in(&live, &unused_name(), &with_mounts);
    // The same cgroup and a mount namespace are no container.
    let mounts = contained_in(&live, &unused_name(), &["unshare", "--mount"]);
    let expect = || {
        live.expect_pid("", inside.pid, "pool/boxes/cgt-alice");
        live.expect_pid("", mounts.pid, "pool/rest");
    };
    expect();
    daemon.signal(Signal::SIGHUP);
    sleep(Duration::from_millis(300));
    expect();
    daemon.expect_no_external_moves("a reload");
    let daemon = daemon_in_pool(&live, BOXES);
    sleep(Duration::from_millis(300));
    expect();
    assert_eq!(daemon.stop().get("placed"), 0, "each was in place");
}

#[test]
fn a_container_of_a_user_is_one_of_its_owner() {
    let Some(live) = Live::require() else { return };
    let id = "0".repeat(64);
    let below = format!("user.slice/user-{ALICE}.slice/user@{ALICE}.service/libpod-{id}.scope");
    let job = resident(&live, &below);
    // The name of a container of root, but alice owns the cgroup above it.
    let parent = live.ground.directory("", "box.service").unwrap();
    fs::create_dir_all(&parent).unwrap();
    std::os::unix::fs::chown(&parent, Some(ALICE), None).unwrap();
    let own = resident(&live, &format!("box.service/libpod-payload-{id}"));
    // A rule that tests where a process is would keep those that it has placed before they enter a namespace.
    let _daemon = daemon_in_pool(&live, &BOXES.replace("not = { container = true }\n", ""));
    live.expect_pid("", contained_by_alice(&live, &unused_name()).pid, "pool/own");
    // The test has a slice of its own at the top, so this is no slice of the system: nobody's container.
    live.expect(&job, "pool/rest");
    live.expect(&own, "pool/own");
}

#[test]
fn engines_and_names_of_containers() {
    let Some(live) = Live::require() else { return };
    // In the namespace of the test.
    mount(Some("tmpfs"), "/var/lib", Some("tmpfs"), MsFlags::empty(), Some("mode=755")).unwrap();
    let storage = "/var/lib/containers/storage/overlay-containers";
    fs::create_dir_all(storage).unwrap();
    let (web, other) = (format!("{:064x}", std::process::id()), format!("{:064x}", 1));
    let list = format!("[{{\"id\":\"{web}\",\"names\":[\"web-1\"]}}]");
    fs::write(format!("{storage}/containers.json"), list).unwrap();
    let rules = "[[rule]]\nuser = \"cgt-alice\"\ncontainer = \"lxc:cgruled-test-*\"\ncgroup = \"lxc\"\n\
                 [[rule]]\nuser = \"cgt-alice\"\ncontainer = \"podman:web-*\"\ncgroup = \"web\"\nleave_units = true\n\
                 [[rule]]\nuser = \"cgt-alice\"\ncontainer = \"podman:000000000000\"\ncgroup = \"by-id\"\nleave_units = true\n\
                 [[rule]]\nuser = \"cgt-alice\"\ncgroup = \"rest\"\nleave_units = true\n";
    let scope = |id: &str| format!("machine.slice/libpod-{id}.scope/container");
    // Before the daemon starts: it may move a process to the rest while the test moves it.
    let (named, by_id) = (resident(&live, &scope(&web)), resident(&live, &scope(&other)));
    let rest = resident(&live, "machine.slice/x.scope");
    let daemon = daemon_in_pool(&live, rules);
    let lxc = contained_in(&live, &format!("lxc.payload.{}", unused_name()), &["env"]);
    live.expect_pid("", lxc.pid, "pool/lxc");
    live.expect(&named, "pool/web");
    live.expect(&by_id, "pool/by-id");
    live.expect(&rest, "pool/rest");
    daemon.signal(Signal::SIGHUP);
    sleep(Duration::from_millis(300));
    live.expect(&named, "pool/web");
    assert!(daemon.stop().get("name_lookups") >= 1);
}

#[test]
fn a_rule_names_the_containers_that_its_processes_may_leave() {
    let Some(live) = Live::require() else { return };
    let rules = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"a\"\ncontainers = \"lxc:*-1-*\"\n";
    let names = [1, 2].map(|number| format!("lxc.payload.box-{number}-{}", unused_name()));
    let _daemon = daemon_in_pool(&live, rules);
    let [moved, kept] = names.each_ref().map(|name| contained_in(&live, name, BY_ROOT));
    live.expect_pid("", moved.pid, "pool/a");
    assert_eq!(census::cgroup_of(kept.pid, ""), Some(format!("/{}", names[1])));
}

#[test]
fn explain_names_the_container() {
    let Some(live) = Live::require() else { return };
    live.write_rules(BOXES);
    let root = live.ground.at("pool");
    let ask = |what: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cgrulectl"));
        command.args(["explain", "--no-legacy", "--root", &root, "--socket", "/nonexistent"]);
        command.args(["--rules", &format!("{BASE}/rules.d")]).args(what.split(' '));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let said = ask("--user cgt-alice --container docker:web");
    assert!(said.contains("container docker:web, ID 000000000000, by its cgroup"), "{said}");
    assert!(said.contains("pool/boxes/cgt-alice"), "{said}");
    let said = ask("--user cgt-alice --container podman@cgt-alice:db --json");
    assert!(said.contains("\"container\": \"podman@cgt-alice:db\""), "{said}");
    assert!(said.contains("pool/own"), "{said}");
    let said = ask("--user cgt-alice");
    assert!(said.contains("container none") || said.contains("needs"), "{said}");
    let inside = contained_in(&live, &unused_name(), BY_ROOT);
    let said = ask(&inside.pid.to_string());
    assert!(said.contains("container *:*, by its namespaces"), "{said}");
    let said = ask(&contained_by_alice(&live, &unused_name()).pid.to_string());
    assert!(said.contains("container *@cgt-alice:*, by its namespaces"), "{said}");
    assert!(said.contains("pool/own"), "{said}");
    let said = ask(&resident(&live, "pool/boxes/cgt-alice").subject.to_string());
    assert!(said.contains("in the cgroup of a rule with unit, from or container"), "{said}");
}
