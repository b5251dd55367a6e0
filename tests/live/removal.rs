//! Tests the removal of cgroups that stay empty.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cgruled::cgroup::host::ManagedRoots;
use cgruled::cgroup::reaper::Reaper;
use cgruled::cgroup::tree::{self, AttachResult, CgroupTree, CurrentCgroup};
use cgruled::event::Pid;
use cgruled::policy::Policy;
use cgruled::policy::load::{NameService, Sources};
use cgruled::policy::rebuild::PolicyBuilder;
use cgruled::rules::{Action, RuleId};
use cgruled::telemetry::metrics::Metrics;
use nix::sys::signal::Signal;

use crate::harness::user::{ALICE, BOB};
use crate::harness::{Live, PATIENCE, census, eventually, rounds};

const RULES: &str =
    "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"there/%u\"\ncontrollers = \"freezer\"\n";

fn gone(group: &Path) -> bool {
    eventually(PATIENCE, || !group.exists())
}

fn both(live: &Live, below: &str) -> Vec<PathBuf> {
    ["", "freezer"].iter().filter_map(|name| live.ground.directory(name, below)).collect()
}

#[test]
fn a_cgroup_that_stays_empty_is_removed_and_created_again() {
    let Some(live) = Live::require() else { return };
    let table = "[cgroup.\"there/%u\"]\nremove_when_empty = \"300ms\"\n";
    let daemon = live.daemon(&format!("{RULES}{table}"));
    let groups = both(&live, "there/cgt-alice");
    for _ in 0..3 {
        let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
        live.expect(&actor, "there/cgt-alice");
        std::thread::sleep(Duration::from_millis(700));
        assert!(groups.iter().all(|group| group.exists()), "removed with a process in it");
        let left = Instant::now();
        drop(actor);
        assert!(groups.iter().all(|group| gone(group)));
        assert!(left.elapsed() > Duration::from_millis(200), "removed before the delay");
    }
    let there = live.ground.directory("", "there").unwrap();
    assert!(there.exists(), "a cgroup without remove_when_empty was removed");
    let counters = daemon.stop();
    assert_eq!(counters.get("groups_removed"), 3 * i64::try_from(groups.len()).unwrap());
    assert_eq!(counters.get("refused"), 0);
}

#[test]
fn foreign_cgroups_stay_and_ours_from_before_a_restart_are_removed() {
    let Some(live) = Live::require() else { return };
    let theirs = both(&live, "there/cgt-bob");
    theirs.iter().for_each(|group| fs::create_dir_all(group).unwrap());
    let daemon = live.daemon(RULES);
    let groups = both(&live, "there/cgt-alice");
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect(&actor, "there/cgt-alice");
    drop(actor);
    daemon.stop();
    assert!(groups.iter().all(|group| group.exists()));
    let table = "[cgroup.\"there/%u\"]\nremove_when_empty = \"100ms\"\n";
    let rule = "[[rule]]\nuser = \"cgt-bob\"\ncgroup = \"there/%u\"\ncontrollers = \"freezer\"\n";
    let _daemon = live.daemon(&format!("{RULES}{rule}{table}"));
    let bob = live.hold(&format!("uid {BOB} {BOB}"));
    live.expect(&bob, "there/cgt-bob");
    drop(bob);
    assert!(groups.iter().all(|group| gone(group)), "one of our cgroups was not removed");
    std::thread::sleep(Duration::from_millis(500));
    assert!(theirs.iter().all(|group| group.exists()), "a foreign cgroup was removed");
}

#[test]
fn a_reload_gives_and_takes_the_time() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(RULES);
    let groups = both(&live, "there/cgt-alice");
    let come_and_go = || {
        let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
        live.expect(&actor, "there/cgt-alice");
    };
    come_and_go();
    let table = "[cgroup.\"there/%u\"]\nremove_when_empty = \"100ms\"\n";
    live.write_rules(&format!("{RULES}{table}"));
    daemon.signal(Signal::SIGHUP);
    assert!(groups.iter().all(|group| gone(group)));
    // A write and a signal can cause two reloads: one more rule distinguishes the last set in the log.
    live.write_rules(&format!("{RULES}[[rule]]\nuser = \"cgt-carol\"\nignore = true\n"));
    daemon.signal(Signal::SIGHUP);
    daemon.expect_log("active: 3 rules");
    std::thread::sleep(Duration::from_millis(300));
    come_and_go();
    std::thread::sleep(Duration::from_millis(500));
    assert!(groups.iter().all(|group| group.exists()));
}

#[test]
fn groups_below_go_with_it_unless_they_are_not_ours() {
    let Some(live) = Live::require() else { return };
    let rules = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"there/%u/deep\"\n\
                 [cgroup.\"there/%u\"]\nremove_when_empty = \"200ms\"\n";
    let _daemon = live.daemon(rules);
    let group = live.ground.directory("", "there/cgt-alice").unwrap();
    let come = || {
        let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
        live.expect(&actor, "there/cgt-alice/deep");
        actor
    };
    drop(come());
    assert!(gone(&group));
    let actor = come();
    let theirs = group.join("theirs");
    fs::create_dir(&theirs).unwrap();
    drop(actor);
    std::thread::sleep(Duration::from_millis(800));
    assert!(theirs.exists());
    fs::remove_dir(&theirs).unwrap();
    assert!(gone(&group));
}

/// Repeats this with the daemon, which is the only one to remove cgroups.
#[test]
fn the_daemon_places_processes_while_it_removes_cgroups() {
    let Some(live) = Live::require() else { return };
    let table = "[cgroup.\"there/%u\"]\nremove_when_empty = \"1ms\"\n";
    let daemon = live.daemon(&format!("{RULES}{table}"));
    for round in 0..rounds() * 30 {
        let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
        live.expect(&actor, "there/cgt-alice");
        live.expect_pid("freezer", actor.subject, "there/cgt-alice");
        drop(actor);
        // From before the removal to after it.
        std::thread::sleep(Duration::from_millis(1) * (round % 5) as u32);
    }
    assert!(both(&live, "there/cgt-alice").iter().all(|group| gone(group)));
    let counters = daemon.stop();
    println!("removed: {}", counters.get("groups_removed"));
    assert!(counters.get("groups_removed") > 0);
    assert_eq!(counters.get("refused"), 0);
}

/// Places processes while the cgroups are removed as fast as possible: all by the thread of the
/// daemon after a millisecond, half of them also by another thread in a loop. Each process must be
/// in its cgroup afterwards.
#[test]
fn no_placement_is_lost_to_a_removal() {
    let Some(live) = Live::require() else { return };
    let rules = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"there/%P\"\n\
                 [cgroup.\"there/%P\"]\nremove_when_empty = \"1ms\"\n";
    live.write_rules(rules);
    let metrics = Arc::new(Metrics::default());
    let (policy, mut tree) = policy(&live, &metrics);
    let names: Vec<String> = (0..8).map(|n| format!("there/g{n}")).collect();
    let groups: Vec<PathBuf> =
        names.iter().map(|name| live.ground.directory("", name).unwrap()).collect();
    let ends = Arc::new(AtomicBool::new(false));
    let remover = std::thread::spawn({
        let (groups, ends) = (groups.clone(), Arc::clone(&ends));
        move || {
            let mut removed = 0;
            // One cgroup at a time: a remover that always waits for the lock of the directory gets
            // it after every mkdir, and 16 attempts would not suffice.
            for group in groups.iter().step_by(2).cycle() {
                if ends.load(Ordering::Relaxed) {
                    break;
                }
                removed += usize::from(fs::remove_dir(group).is_ok());
                std::thread::sleep(Duration::from_micros(200));
            }
            removed
        }
    });
    let mut lost = Vec::new();
    for round in 0..rounds() * 200 {
        let name = &names[round % names.len()];
        let process = Sleeper::start();
        let outcome = place(&live, &policy, &mut tree, name, process.pid());
        let found = census::cgroup_of(process.pid(), "");
        if outcome != AttachResult::Moved || found.as_deref() != Some(&live.ground.at(name)) {
            lost.push((round, outcome, found));
        }
        drop(process);
    }
    ends.store(true, Ordering::Relaxed);
    let by_others = remover.join().unwrap();
    assert!(groups.iter().all(|group| gone(group)), "an empty cgroup was not removed");
    let by_us = metrics.groups_removed.get();
    println!("removed: {by_us} by the daemon, {by_others} by the test");
    assert!(lost.is_empty(), "lost: {:?}", &lost[..lost.len().min(3)]);
    assert!(by_us > 0 && by_others > 0);
}

/// A process of alice that only sleeps.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        let mut command = Command::new("/bin/sleep");
        command.arg("60").uid(ALICE).gid(ALICE).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Loads the rules of the test without a daemon, and creates a tree with a reaper thread.
fn policy(live: &Live, metrics: &Arc<Metrics>) -> (Box<Policy>, CgroupTree) {
    let sources =
        Sources { directories: vec![live.path("rules.d")], legacy: false, ..Sources::default() };
    let hierarchies = Arc::new(tree::discover().unwrap());
    let root = live.ground.at("");
    let root = root.trim_end_matches('/').to_owned();
    let roots = ManagedRoots { rules: root.clone(), ..ManagedRoots::default() };
    let mut builder =
        PolicyBuilder::new(sources, NameService::default(), Arc::clone(&hierarchies), roots);
    let policy = builder.first();
    let reaper = {
        let nobody = Arc::new(|_| Ok(None));
        Reaper::start(Arc::clone(&hierarchies), None, Arc::clone(metrics), nobody, None).unwrap()
    };
    let mut tree = CgroupTree::new(hierarchies).kept_by(reaper);
    tree.adopt(&policy.configs, &root);
    (policy, tree)
}

/// Places a process in the cgroup `below`, as the daemon does.
fn place(
    live: &Live,
    policy: &Policy,
    tree: &mut CgroupTree,
    below: &str,
    pid: u32,
) -> AttachResult {
    let rules = policy.matcher.rules().iter().enumerate();
    let mut alices = rules.filter(|(_, rule)| rule.name.contains("50-test"));
    let (index, rule) = alices.next().unwrap();
    let Action::Place(targets) = &rule.action else { panic!() };
    let id = RuleId(u32::try_from(index).unwrap());
    let span = policy.span(tree.hierarchies(), id, 0, &targets[0]);
    let config = || policy.configs.of(&targets[0]);
    match tree.group(span, &live.ground.at(below), true, config) {
        Ok(group) => tree.attach(group, Pid::new(pid).unwrap(), CurrentCgroup::default()),
        Err(refusal) => AttachResult::Refused(refusal),
    }
}
