//! Tests changes of limits while cgroups are in use: a refused write keeps the old limit active,
//! and limits that the kernel accepts only in another order are written in that order.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::harness::user::{ALICE, BOB};
use crate::harness::{Actor, Daemon, Live, PATIENCE, eventually};
use crate::settings::Enabled;

const RULE: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"par/%u\"\n";

/// A daemon with the cgroup `par/cgt-alice` in the hierarchy of one v1 controller, and alice in it.
struct Case {
    daemon: Daemon,
    parent: PathBuf,
    group: PathBuf,
    rule: String,
    _actor: Actor,
}

impl Case {
    /// Returns `None` if the controller is not on v1 on this host.
    fn start(live: &Live, controller: &str, tables: &str) -> Option<Self> {
        let Some(parent) = live.ground.directory(controller, "par") else {
            println!("skipped: no v1 hierarchy for {controller}");
            return None;
        };
        let rule = format!("{RULE}controllers = \"{controller}\"\n");
        let daemon = live.daemon(&format!("{rule}{tables}"));
        let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
        live.expect_pid(controller, actor.subject, "par/cgt-alice");
        let group = parent.join("cgt-alice");
        Some(Self { daemon, parent, group, rule, _actor: actor })
    }

    /// Writes other tables; returns when they are active and applied.
    fn reload(&self, live: &Live, tables: &str) {
        let loads = || self.daemon.log().matches("active: ").count();
        let before = loads();
        live.write_rules(&format!("{}{tables}", self.rule));
        self.daemon.signal(Signal::SIGHUP);
        assert!(eventually(PATIENCE, || loads() > before), "not active");
        // Another thread writes the settings of cgroups, and the new file may be noticed before the signal.
        std::thread::sleep(std::time::Duration::from_millis(300));
    }

    /// Returns the refused writes so far.
    fn warnings(&self) -> Vec<String> {
        let log = self.daemon.log();
        log.lines().filter(|line| line.contains("cannot write")).map(str::to_owned).collect()
    }
}

fn own(settings: &str) -> String {
    format!("[cgroup.\"par/%u\"]\n{settings}\n")
}

fn both(parent: &str, child: &str) -> String {
    format!("[cgroup.par]\n{parent}\n{}", own(child))
}

fn holds(group: &Path, file: &str, value: &str) {
    let mut found = String::new();
    let is_so = eventually(PATIENCE, || {
        found = fs::read_to_string(group.join(file)).unwrap_or_default();
        found.trim() == value
    });
    assert!(is_so, "{file} is {found:?}, not {value}");
}

#[test]
fn a_burst_is_lowered_before_its_quota() {
    let Some(live) = Live::require() else { return };
    let limits = |quota: &str, burst: u32| {
        own(&format!("cpu.max = \"{quota}\"\n\"cpu.max.burst\" = {burst}"))
    };
    let Some(case) = Case::start(&live, "cpu", &limits("50%", 40_000)) else { return };
    holds(&case.group, "cpu.cfs_burst_us", "40000");
    case.reload(&live, &limits("20%", 10_000));
    holds(&case.group, "cpu.cfs_quota_us", "20000");
    holds(&case.group, "cpu.cfs_burst_us", "10000");
    case.reload(&live, &limits("60000 200000", 50_000));
    holds(&case.group, "cpu.cfs_quota_us", "60000");
    holds(&case.group, "cpu.cfs_period_us", "200000");
    holds(&case.group, "cpu.cfs_burst_us", "50000");
    assert_eq!(case.warnings(), [""; 0]);
}

#[test]
fn a_refused_quota_leaves_the_old_one() {
    let Some(live) = Live::require() else { return };
    let limits = |parent: &str| both(&format!("cpu.max = \"{parent}\""), "cpu.max = \"100%\"");
    let Some(case) = Case::start(&live, "cpu", &limits("150%")) else { return };
    holds(&case.group, "cpu.cfs_quota_us", "100000");
    case.reload(&live, &limits("50%"));
    case.daemon.expect_log("nor be less than that of a child cgroup");
    holds(&case.parent, "cpu.cfs_quota_us", "150000");
    // Another period needs writes to two files.
    case.reload(&live, &limits("30000 50000"));
    holds(&case.parent, "cpu.cfs_quota_us", "150000");
    holds(&case.parent, "cpu.cfs_period_us", "100000");
    holds(&case.group, "cpu.cfs_quota_us", "100000");
    let mut said = case.warnings();
    // One change causes two reloads if the new file is noticed before the signal.
    said.dedup();
    let path = live.path("rules.d/50-test.toml");
    assert!(said[0].contains(&format!("{}:7: cpu.max = 50%: ", path.display())), "{said:#?}");
    assert_eq!(said.len(), 2, "{said:#?}");
}

#[test]
fn limits_of_a_group_and_those_in_it_change_together() {
    let Some(live) = Live::require() else { return };
    let limits = |parent: u32, child: u32| {
        both(&format!("cpu.max = \"{parent}%\""), &format!("cpu.max = \"{child}%\""))
    };
    let Some(case) = Case::start(&live, "cpu", &limits(150, 100)) else { return };
    for (parent, child) in [(50, 25), (190, 170)] {
        case.reload(&live, &limits(parent, child));
        holds(&case.parent, "cpu.cfs_quota_us", &format!("{parent}000"));
        holds(&case.group, "cpu.cfs_quota_us", &format!("{child}000"));
    }
    assert_eq!(case.warnings(), [""; 0]);
}

#[test]
fn processors_of_a_group_and_those_in_it_change_together() {
    let Some(live) = Live::require() else { return };
    let limits = |list: &str| {
        let words = format!("cpuset.cpus = \"{list}\"\ncpuset.mems = \"0\"");
        both(&words, &words)
    };
    let Some(case) = Case::start(&live, "cpuset", &limits("0")) else { return };
    let all = fs::read_to_string("/sys/fs/cgroup/cpuset/cpuset.cpus").unwrap();
    for list in [all.trim(), "0"] {
        case.reload(&live, &limits(list));
        holds(&case.parent, "cpuset.cpus", list);
        holds(&case.group, "cpuset.cpus", list);
    }
    assert_eq!(case.warnings(), [""; 0]);
}

#[test]
fn a_group_gets_its_weight_after_it_was_idle() {
    let Some(live) = Live::require() else { return };
    let limits = |weight: u32, idle: u32| own(&format!("cpu.weight = {weight}\ncpu.idle = {idle}"));
    let Some(case) = Case::start(&live, "cpu", &limits(50, 1)) else { return };
    holds(&case.group, "cpu.idle", "1");
    case.reload(&live, &limits(60, 1));
    case.reload(&live, &limits(50, 0));
    holds(&case.group, "cpu.idle", "0");
    holds(&case.group, "cpu.shares", "512");
    assert_eq!(case.warnings(), [""; 0]);
    case.reload(&live, &own("cpu.idle = 1"));
    holds(&case.group, "cpu.idle", "1");
    // A key that is removed is reverted.
    case.reload(&live, &own("cpu.weight = 50"));
    holds(&case.group, "cpu.idle", "0");
    holds(&case.group, "cpu.shares", "512");
    // Set by another program, and therefore not reverted.
    fs::write(case.group.join("cpu.idle"), "1").unwrap();
    case.reload(&live, &own("cpu.weight = 70"));
    case.daemon.expect_log("an idle cgroup has no weight");
}

#[test]
fn memory_and_swap_are_raised_and_lowered_together() {
    let Some(live) = Live::require() else { return };
    const MEGABYTE: u64 = 1 << 20;
    let v1 = |size: u32| {
        own(&format!(
            "\"memory.limit_in_bytes\" = \"{size}M\"\n\"memory.memsw.limit_in_bytes\" = \"{size}M\""
        ))
    };
    let is = |case: &Case, limit: u64, both: u64| {
        holds(&case.group, "memory.limit_in_bytes", &(limit * MEGABYTE).to_string());
        holds(&case.group, "memory.memsw.limit_in_bytes", &(both * MEGABYTE).to_string());
    };
    let Some(case) = Case::start(&live, "memory", &v1(50)) else { return };
    is(&case, 50, 50);
    for size in [80, 60] {
        case.reload(&live, &v1(size));
        is(&case, size.into(), size.into());
    }
    case.reload(&live, &own("memory.max = \"200M\"\nmemory.swap.max = \"10M\""));
    is(&case, 200, 210);
    // The swap limit is reverted when its key is removed.
    case.reload(&live, &own("memory.max = \"300M\""));
    holds(&case.group, "memory.limit_in_bytes", &(300 * MEGABYTE).to_string());
    holds(&case.group, "memory.memsw.limit_in_bytes", "9223372036854771712");
    assert_eq!(case.warnings(), [""; 0]);
}

/// Checks a refused limit: the kernel accepts none below the memory in use that it cannot reclaim.
#[test]
fn a_refused_limit_of_memory_leaves_that_of_swap() {
    let Some(live) = Live::require() else { return };
    let limits = |size: u32| own(&format!("memory.max = \"{size}M\"\nmemory.swap.max = \"10M\""));
    let Some(case) = Case::start(&live, "memory", &limits(200)) else { return };
    let group = case.group.clone();
    // Pages of a tmpfs are charged to the writer, and cannot be reclaimed without swap.
    let file = live.path("hundred-megabytes");
    let script = "echo $$ >\"$1\"; exec head -c 100M /dev/zero >\"$2\"";
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(group.join("cgroup.procs")).arg(&file);
    assert!(shell.status().unwrap().success());
    case.reload(&live, &limits(20));
    case.daemon.expect_log("uses more than that");
    holds(&group, "memory.limit_in_bytes", "209715200");
    holds(&group, "memory.memsw.limit_in_bytes", "220200960");
    fs::remove_file(file).unwrap();
}

#[test]
fn every_table_has_its_refusal_logged() {
    let Some(live) = Live::require() else { return };
    if live.ground.directory("cpuset", "").is_none() {
        println!("skipped: no v1 hierarchy for cpuset");
        return;
    }
    let rules = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"da\"\ncontrollers = \"cpuset\"\n\
                 [[rule]]\nuser = \"cgt-bob\"\ncgroup = \"db\"\ncontrollers = \"cpuset\"\n\
                 [cgroup.da]\ncpuset.mems = \"7\"\n[cgroup.db]\ncpuset.mems = \"7\"\n";
    let daemon = live.daemon(rules);
    let actors = [ALICE, BOB].map(|user| live.hold(&format!("uid {user} {user}")));
    for line in [11, 13] {
        daemon.expect_log(&format!("50-test.toml:{line}: cpuset.mems = 7: cannot write"));
    }
    drop(actors);
}

/// Checks two cgroups with a process each, so that neither can have controllers enabled in
/// cgroup.subtree_control.
#[test]
fn every_cgroup_without_an_enabled_controller_is_logged() {
    let Some(live) = Live::require() else { return };
    let top = live.ground.directory("", "").unwrap().parent().unwrap().to_owned();
    let available = fs::read_to_string(top.join("cgroup.controllers")).unwrap();
    let Some(name) = available.split_whitespace().next() else {
        println!("skipped: the v2 tree has no controller");
        return;
    };
    let guard = Enabled::note(&top, name);
    let rule = |user: u32, group: &str| {
        format!("[[rule]]\nuser = {user}\ncgroup = \"{group}\"\ncontrollers = \"{name}\"\n")
    };
    let rules = [(61_601, "ha"), (61_602, "hb"), (61_603, "ha/x"), (61_604, "hb/x")];
    let daemon = live.daemon(&rules.map(|(user, group)| rule(user, group)).concat());
    let hold = |user: u32| live.hold(&format!("uid {user} {user}"));
    let outer = [hold(61_601), hold(61_602)];
    live.expect(&outer[0], "ha");
    live.expect(&outer[1], "hb");
    let inner = [hold(61_603), hold(61_604)];
    for group in ["ha", "hb"] {
        let group = live.ground.directory("", group).unwrap();
        daemon.expect_log(&format!("in {}/cgroup.subtree_control: ", group.display()));
    }
    drop((outer, inner));
    drop(daemon);
    drop(live);
    drop(guard);
}

#[test]
fn a_weight_that_the_scheduler_takes_is_not_called_cut() {
    let Some(live) = Live::require() else { return };
    let Some(group) = live.ground.directory("blkio", "par/cgt-alice") else { return };
    if group.ancestors().nth(3).unwrap().join("blkio.weight").exists() {
        println!("skipped: this kernel has blkio.weight");
        return;
    }
    let Some(case) = Case::start(&live, "blkio", &own("io.weight = 500")) else { return };
    assert!(!case.daemon.log().contains("on this host, the maximum"));
    drop(case);
    let Some(case) = Case::start(&live, "blkio", &own("io.weight = 5000")) else { return };
    case.daemon.expect_log("io.weight = 5000 becomes blkio.bfq.weight = 1000");
}
