//! Tests external moves at any time after a placement: the kernel trace reports them, and the
//! process that caused them.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};

use crate::harness::user::ALICE;
use crate::harness::{
    Actor, Daemon, Live, REST, Settings, Surroundings, census, eventually, rounds, skip,
};

const RULE: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"alice\"\n";
/// Time after which all rechecks are over.
const LATER: Duration = Duration::from_millis(1200);
/// Limit for the detection of an external move; 100 ms of it are for a busy machine.
const FOUND: Duration = Duration::from_millis(1100);

fn placed(live: &Live) -> Actor {
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect(&actor, "alice");
    actor
}

/// Waits until the process is in the cgroup of its rule again, and returns the time that this took.
fn returns_within(live: &Live, pid: u32, limit: Duration) -> Option<Duration> {
    let begin = Instant::now();
    let wanted = live.ground.at("alice");
    while begin.elapsed() < limit {
        if census::cgroup_of(pid, "").as_ref() == Some(&wanted) {
            return Some(begin.elapsed());
        }
        sleep(Duration::from_millis(5));
    }
    None
}

fn returns(live: &Live, pid: u32) -> Option<Duration> {
    returns_within(live, pid, Duration::from_secs(3))
}

/// Moves a placed process away twice as root. Asserts that it is moved back within `limit`, and the second time left,
/// and returns the time until it was moved back.
fn is_reverted_once(live: &Live, daemon: &Daemon, alice: &Actor, limit: Duration) -> Duration {
    sleep(LATER);
    live.ground.take_away(alice.subject);
    let took = returns_within(live, alice.subject, limit);
    println!("external move by root: reverted after {took:?}");
    assert!(took.is_some(), "1 of 1 outside after {limit:?}");
    daemon.expect_log("it is moved back");
    sleep(LATER);
    live.ground.take_away(alice.subject);
    daemon.expect_log("it is left there");
    assert_eq!(returns_within(live, alice.subject, limit), None);
    took.unwrap()
}

/// Stops the daemon and asserts the number of external moves that it found, and that it left in place.
fn expect_moves(daemon: Daemon, found: i64, abandoned: i64) {
    let counters = daemon.stop();
    assert_eq!(
        (counters.get("external_moves_found"), counters.get("abandoned")),
        (found, abandoned),
        "{counters:?}"
    );
}

/// Lets Alice move her processes between groups of the ground, as a delegation does. Returns one of hers.
fn delegated(live: &Live) -> PathBuf {
    let own = live.ground.directory("", "own").unwrap();
    fs::create_dir_all(&own).unwrap();
    let files =
        [own.clone(), own.join("cgroup.procs"), live.ground.directory("", "cgroup.procs").unwrap()];
    for file in &files {
        chown(file, Some(ALICE), Some(ALICE)).unwrap();
    }
    own
}

/// Moves `pid` as Alice.
fn move_as_alice(live: &Live, pid: u32) {
    let own = delegated(live);
    let script = format!("echo {pid} > {}", own.join("cgroup.procs").display());
    let status = Command::new("/bin/sh").args(["-c", &script]).uid(ALICE).gid(ALICE).status();
    assert!(status.unwrap().success(), "Alice could not move process {pid}");
}

#[test]
fn a_move_by_root_is_reverted_once_and_then_left_and_the_mover_is_named() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(RULE);
    let alice = placed(&live);
    let took = is_reverted_once(&live, &daemon, &alice, Duration::from_secs(3));
    assert!(took < FOUND, "{took:?}");
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("it is moved back")).unwrap();
    assert!(line.contains(&format!("(process {} of uid 0", std::process::id())), "{line}");
    expect_moves(daemon, 2, 1);
}

#[test]
fn a_move_by_a_user_is_reverted_each_time() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(RULE);
    let alice = placed(&live);
    sleep(LATER);
    let (mut outside, mut times) = (0, Vec::new());
    for _ in 0..20 {
        move_as_alice(&live, alice.subject);
        let took = returns(&live, alice.subject);
        outside += usize::from(took.is_none_or(|took| took > FOUND));
        times.push(took);
    }
    println!("external moves by the user: {outside} of 20 outside; reverted after {times:?}");
    assert_eq!(outside, 0);
    assert_eq!(daemon.stop().get("abandoned"), 0);
}

#[test]
fn children_born_after_a_move_by_a_user_are_placed() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(RULE);
    let mut actor =
        live.actor(&format!("subreaper uid {ALICE} {ALICE} say ready gate brood 50 hold"));
    let pid = actor.said("ready");
    assert!(returns(&live, pid).is_some(), "never placed");
    sleep(LATER);
    move_as_alice(&live, pid);
    actor.open_gate();
    for _ in 0..50 {
        let _line = actor.says();
    }
    live.expect_at_rest("children after a move by the user", ALICE, 51, "alice");
}

/// Alice moves a placed process of hers, which creates a child and then does `then`, before the trace of the move is
/// read. The child is placed, although its creator has nothing to place any more.
fn child_of_moved(live: &Live, what: &str, then: &str, count: usize) {
    let daemon = live.daemon(RULE);
    for _ in 0..rounds() {
        let steps = format!("subreaper fork uid {ALICE} {ALICE} say ready gate child {then}");
        let mut actor = live.actor(&steps);
        let pid = actor.said("ready");
        assert!(returns(live, pid).is_some(), "never placed");
        // Also long enough that the trace is not read soon because of the round before.
        sleep(Duration::from_secs(2));
        move_as_alice(live, pid);
        actor.open_gate();
        actor.said("pid");
        live.expect_at_rest(what, ALICE, count, "alice");
        end(actor);
    }
    assert_eq!(daemon.stop().get("abandoned"), 0);
}

#[test]
fn children_of_a_moved_process_that_exited_are_placed() {
    let Some(live) = Live::require() else { return };
    child_of_moved(&live, "child of a moved process that exited", "quit", 1);
}

#[test]
fn children_of_a_moved_process_that_returned_by_an_exec_are_placed() {
    let Some(live) = Live::require() else { return };
    let path = live.program("again");
    // Its creation is read before the exec, so that it is no candidate of that.
    let then = format!("sleep 100 exec {path} again hold");
    child_of_moved(&live, "child of a moved process that executed", &then, 2);
}

/// Alice is placed, and long after that 50 of her children are born in another cgroup of hers
/// (`CLONE_INTO_CGROUP`) and do `more`.
fn children_in(live: &Live, own: &Path, more: &str) -> Actor {
    let user = format!("subreaper uid {ALICE} {ALICE}");
    let steps = format!("{user} say ready gate into {} 50 {more} hold", own.display());
    let mut actor = live.actor(&steps);
    let pid = actor.said("ready");
    assert!(returns(live, pid).is_some(), "never placed");
    sleep(LATER);
    actor.open_gate();
    for _ in 0..50 {
        actor.said("pid");
    }
    actor
}

/// Ends the processes of alice.
fn end(actor: Actor) {
    drop(actor);
    assert!(eventually(REST, || census::of(ALICE).is_empty()));
}

/// Asserts that children created in another cgroup are placed, some of them because of the trace:
/// an evaluation of any other process at that moment makes the children candidates too, as after
/// any fork.
fn born_elsewhere(what: &str, more: &str, count: usize) {
    let Some(live) = Live::require() else { return };
    let own = delegated(&live);
    let daemon = live.daemon(RULE);
    for _ in 0..rounds() {
        let actor = children_in(&live, &own, more);
        live.expect_at_rest(what, ALICE, count, "alice");
        end(actor);
    }
    let log = daemon.log();
    let traced = log.lines().filter(|line| line.contains("after fork+elsewhere")).count();
    println!("{what}: {traced} of {} placed because of the trace", 50 * rounds());
    assert!(traced > 0, "{what}: the trace of births had no effect");
    assert_eq!(daemon.stop().get("abandoned"), 0);
}

#[test]
fn children_born_in_a_cgroup_of_their_user_are_placed() {
    born_elsewhere("CLONE_INTO_CGROUP by the user", "", 51);
}

#[test]
fn children_of_those_born_in_a_cgroup_of_their_user_are_placed() {
    born_elsewhere("CLONE_INTO_CGROUP by the user, fork", "fork", 101);
}

/// The control: without the trace such children can stay where they are born. Not in each round,
/// for the reason above.
#[test]
fn children_born_in_a_cgroup_of_their_user_can_stay_where_external_moves_are_off() {
    let Some(live) = Live::require() else { return };
    let own = delegated(&live);
    let settings = Settings { config: "external_moves = \"off\"\n", arguments: &[] };
    let _daemon = live.daemon_with(RULE, &settings);
    let mut stayed = Vec::new();
    while !stayed.contains(&50) && stayed.len() < 10 {
        let actor = children_in(&live, &own, "");
        sleep(LATER);
        stayed.push(census::outside(ALICE, &live.ground.at("alice")).len());
        end(actor);
    }
    println!("CLONE_INTO_CGROUP, external_moves off: {stayed:?} of 51 outside in each round");
    assert!(stayed.contains(&50), "{stayed:?}");
}

#[test]
fn moves_are_only_reported_with_that_setting() {
    let Some(live) = Live::require() else { return };
    let settings = Settings { config: "external_moves = \"report\"\n", arguments: &[] };
    let daemon = live.daemon_with(RULE, &settings);
    let alice = placed(&live);
    sleep(LATER);
    move_as_alice(&live, alice.subject);
    daemon.expect_log("it is left there");
    assert_eq!(returns(&live, alice.subject), None);
    expect_moves(daemon, 1, 1);
}

/// Control: `external_moves = "off"`.
#[test]
fn moves_are_not_traced_when_that_is_off() {
    let Some(live) = Live::require() else { return };
    let settings = Settings { config: "external_moves = \"off\"\n", arguments: &[] };
    let daemon = live.daemon_with(RULE, &settings);
    let alice = placed(&live);
    sleep(LATER);
    move_as_alice(&live, alice.subject);
    assert_eq!(returns(&live, alice.subject), None);
    assert_eq!(daemon.stop().get("external_moves_found"), 0);
}

/// Checks that the owner of a delegated cgroup may use descendants of it.
#[test]
fn a_subgroup_of_a_group_with_an_owner_is_in_place() {
    let Some(live) = Live::require() else { return };
    let table = "[cgroup.alice]\nowner = \"cgt-alice\"\n";
    let daemon = live.daemon(&format!("{RULE}{table}"));
    let alice = placed(&live);
    let own = live.ground.directory("", "alice/own").unwrap();
    fs::create_dir(&own).unwrap();
    fs::write(own.join("cgroup.procs"), alice.subject.to_string()).unwrap();
    sleep(LATER);
    live.expect(&alice, "alice/own");
    assert_eq!(daemon.stop().get("external_moves_found"), 0);
}

/// Moves a process that no rule matches as fast as possible; meanwhile that of alice is moved away.
#[test]
fn a_flood_of_moves_costs_little_and_hides_nothing() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(RULE);
    let alice = placed(&live);
    let other = live.hold("");
    let places = ["a", "b"].map(|name| {
        let directory = live.ground.directory("", name).unwrap();
        fs::create_dir_all(&directory).unwrap();
        fs::OpenOptions::new().write(true).open(directory.join("cgroup.procs")).unwrap()
    });
    sleep(LATER);
    let before = daemon.cpu_time();
    let (begin, mut moves, pid) = (Instant::now(), 0u32, other.subject.to_string());
    while begin.elapsed() < Duration::from_secs(5) {
        for mut place in &places {
            std::io::Write::write_all(&mut place, pid.as_bytes()).unwrap();
            moves += 1;
        }
        if moves == 1000 {
            live.ground.take_away(alice.subject);
        }
    }
    let used = daemon.cpu_time().saturating_sub(before);
    let took = returns(&live, alice.subject);
    println!("{moves} moves in 5 s: {used:?} of CPU time, reverted {took:?} after the flood");
    assert!(took.is_some(), "1 of 1 outside");
    assert!(used < Duration::from_secs(1), "{used:?} of CPU time in 5 s");
    live.ground.take_away(other.subject);
    let counters = daemon.stop();
    assert!(counters.get("lost_moves") > 0, "the flood lost no event: {counters:?}");
}

/// Starts a daemon that cannot trace moves and scans for them every 500 ms in place of 50 s, or
/// after 100 times the duration of the last scan.
fn untraced_daemon(live: &Live, config: &str) -> Daemon {
    let nothing = None::<&str>;
    mount(Some("tmpfs"), "/sys/kernel", Some("tmpfs"), MsFlags::empty(), nothing).unwrap();
    let on = Surroundings {
        environment: &[("CGRULED_TEST_MOVE_SCAN_MS", "500")],
        ..Surroundings::default()
    };
    let daemon = live.daemon_on(RULE, &Settings { config, arguments: &[] }, &on);
    daemon.expect_log("external moves are not traced");
    daemon
}

/// Longer than some scans for external moves with 200 processes on the machine.
const SCANS: Duration = Duration::from_secs(8);

#[test]
fn without_trace_events_a_scan_finds_a_move_and_it_is_reverted_once() {
    let Some(live) = Live::require() else { return };
    let daemon = untraced_daemon(&live, "");
    let alice = placed(&live);
    is_reverted_once(&live, &daemon, &alice, SCANS);
    expect_moves(daemon, 2, 1);
}

#[test]
fn without_trace_events_a_move_by_a_user_is_reverted_each_time() {
    let Some(live) = Live::require() else { return };
    let daemon = untraced_daemon(&live, "");
    let alice = placed(&live);
    sleep(LATER);
    for round in 0..3 {
        move_as_alice(&live, alice.subject);
        assert!(
            returns_within(&live, alice.subject, SCANS).is_some(),
            "round {round}: 1 of 1 outside"
        );
        sleep(LATER);
    }
    expect_moves(daemon, 3, 0);
}

#[test]
fn without_trace_events_moves_are_only_reported_when_that_is_asked_for() {
    let Some(live) = Live::require() else { return };
    let daemon = untraced_daemon(&live, "external_moves = \"report\"\n");
    // The second was born in the cgroup: the daemon never placed it.
    let mut family = live.actor(&format!("uid {ALICE} {ALICE} say ready gate spawn 1 hold"));
    let parent = family.said("ready");
    live.expect_pid("", parent, "alice");
    family.open_gate();
    let child = family.said("pid");
    sleep(SCANS / 2);
    for pid in [parent, child] {
        live.ground.take_away(pid);
    }
    assert_eq!(returns_within(&live, child, SCANS), None);
    assert_eq!(returns_within(&live, parent, SCANS), None);
    daemon.expect_log("it is left there");
    expect_moves(daemon, 2, 2);
}

const V1: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"alice\"\ncontrollers = [\"pids\"]\n";

/// Starts a process with threads whose rule is about the v1 hierarchy of pids, moves one of its
/// threads alone to the top, and returns in which cgroup that is 3 s later, and the daemon.
fn thread_moved_alone(live: &Live, is_leader: bool) -> (String, Daemon) {
    let daemon = live.daemon(V1);
    let mut actor = live.actor(&format!("uid {ALICE} {ALICE} threads 2 say ready hold"));
    let pid = actor.said("ready");
    live.expect_pid("pids", pid, "alice");
    sleep(LATER);
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let tids = tasks.map(|task| task.file_name().into_string().unwrap().parse::<u32>().unwrap());
    let thread = if is_leader { pid } else { tids.max().unwrap() };
    let top = live.ground.directory("pids", "").unwrap().parent().unwrap().join("tasks");
    fs::write(top, thread.to_string()).unwrap();
    sleep(Duration::from_secs(3));
    let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/cgroup")).unwrap();
    let line = text.lines().find_map(|line| line.split_once(":pids:"));
    (line.unwrap().1.to_owned(), daemon)
}

#[test]
fn a_thread_that_is_moved_alone_comes_back() {
    for is_leader in [true, false] {
        let Some(live) = Live::require() else { return };
        if live.ground.directory("pids", "").is_none() {
            return skip("no v1 hierarchy for pids");
        }
        let (found, daemon) = thread_moved_alone(&live, is_leader);
        assert_eq!(found, live.ground.at("alice"), "leader: {is_leader}");
        daemon.expect_log(&format!("(process {} of uid 0", std::process::id()));
        assert_eq!(daemon.stop().get("external_moves_found"), 1, "leader: {is_leader}");
    }
}
