//! Tests file systems of users that do not answer: an exec that hangs, and executables that cannot be read.

use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::user::{ALICE, BOB};
use crate::harness::{Actor, Daemon, Live, Settings};

/// Returns rules by executable before the rule by user of each user.
fn rules(alice: &str) -> String {
    format!(
        "[[rule]]\nexe = \"cc1\"\ncgroup = \"cc\"\n\
         [[rule]]\nuser = \"cgt-alice\"\ncgroup = \"{alice}\"\n\
         [[rule]]\nuser = \"cgt-bob\"\nexe = \"tool\"\ncgroup = \"tools\"\n\
         [[rule]]\nuser = \"cgt-bob\"\ncgroup = \"bob\"\n"
    )
}

/// Measurements: printed at once, asserted at the end, when nothing hangs any more.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, what: &str, time: Option<Duration>) {
        match time {
            Some(time) => println!("{what}: {} ms", time.as_millis()),
            None => {
                println!("{what}: not within the limit, ms");
                self.0.push(what.to_owned());
            }
        }
    }

    /// Releases the hanging processes, then asserts that everything was in time.
    fn expect_none(self, hanging: Actor, daemon: Daemon) {
        drop(hanging);
        drop(daemon);
        assert!(self.0.is_empty(), "not within the limit: {:?}", self.0);
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// Starts a process of alice with an exec that hangs (mode `hang`, line `hangs`) or
/// does not (`pass`, `passes`).
fn executing(live: &Live, mode: &str, line: &str) -> Actor {
    live.program("bin/tool");
    let program = live.program("bin/held");
    let mut actor = live.file_system(ALICE, &format!("{mode} {program} sleep 60000"));
    actor.subject = actor.said(line);
    actor
}

/// Starts processes of bob meanwhile. One of them is placed by a rule by executable.
fn bystanders(live: &Live, findings: &mut Findings) -> [Actor; 2] {
    let tool = live.path("bin/tool").display().to_string();
    let user = live.hold(&format!("uid {BOB} {BOB}"));
    findings.add("bystander, user rule", live.placed_within_a_second(user.subject, "bob"));
    let tool = live.hold(&format!("uid {BOB} {BOB} exec {tool} tool"));
    findings.add("bystander, exe rule", live.placed_within_a_second(tool.subject, "tools"));
    [user, tool]
}

fn with_a_running_daemon(mode: &str, line: &str) {
    let Some(live) = Live::require() else { return };
    let mut daemon = live.daemon(&rules("alice"));
    let executing = executing(&live, mode, line);
    let mut findings = Findings::default();
    findings.add("its process", live.placed_within_a_second(executing.subject, "alice"));
    sleep(Duration::from_millis(200)); // the recheck
    let _bystanders = bystanders(&live, &mut findings);
    live.write_rules(&rules("new"));
    daemon.signal(Signal::SIGHUP);
    findings.add("reload", live.placed_within_a_second(executing.subject, "new"));
    let _more = bystanders(&live, &mut findings);
    findings.add("SIGTERM", daemon.exits_within(SECOND));
    findings.expect_none(executing, daemon);
}

fn with_a_daemon_that_starts(mode: &str, line: &str) {
    let Some(live) = Live::require() else { return };
    let executing = executing(&live, mode, line);
    let mut daemon = live.unready_daemon(&rules("alice"), &Settings::default());
    let mut findings = Findings::default();
    findings.add("ready", daemon.ready_within(3 * SECOND));
    findings.add("its process", live.placed_within_a_second(executing.subject, "alice"));
    let _bystanders = bystanders(&live, &mut findings);
    findings.add("SIGTERM", daemon.exits_within(SECOND));
    findings.expect_none(executing, daemon);
}

#[test]
fn a_hanging_exec_does_not_stop_a_running_daemon() {
    with_a_running_daemon("hang", "hangs");
}

#[test]
fn a_hanging_exec_does_not_stop_a_daemon_that_starts() {
    with_a_daemon_that_starts("hang", "hangs");
}

/// Controls: the same with an exec that does not hang.
#[test]
fn an_exec_that_does_not_hang_and_a_running_daemon() {
    with_a_running_daemon("pass", "passes");
}

#[test]
fn an_exec_that_does_not_hang_and_a_daemon_that_starts() {
    with_a_daemon_that_starts("pass", "passes");
}

/// Starts 10 processes of alice that execute `name`, then do `more`, on a file system
/// that root may not access.
fn unreadable(live: &Live, name: &str, more: &str) -> Actor {
    let path = live.path("m").join(name);
    // The first exec sets the saved IDs, which must match those of the mount too.
    let again = format!("exec {} actors", live.path("bin/actors").display());
    let steps = format!(
        "gid {ALICE} {ALICE} uid {ALICE} {ALICE} {again} exec {} {name} {more} hold",
        path.display()
    );
    let mut actor = live.actor(&format!("spawn 10 {steps}"));
    for _ in 0..10 {
        actor.said("pid");
    }
    actor
}

/// Checks that processes (and the server, the 11th) with an executable that root cannot read are
/// placed by the rule that does not need it, also when the daemon starts later, and also when the
/// name is that of an interpreter.
fn by_the_user_rule(name: &str, more: &str) {
    let Some(live) = Live::require() else { return };
    let mut file_system = live.file_system(ALICE, "serve");
    file_system.said("mounted");
    let _early = unreadable(&live, name, more);
    let daemon = live.daemon(&rules("alice"));
    live.expect_at_rest(&format!("unreadable {name}, then start"), ALICE, 11, "alice");
    let _late = unreadable(&live, name, more);
    live.expect_at_rest(&format!("unreadable {name}, after start"), ALICE, 21, "alice");
    live.write_rules(&rules("new"));
    daemon.signal(Signal::SIGHUP);
    live.expect_at_rest(&format!("unreadable {name}, reload"), ALICE, 21, "new");
}

#[test]
fn an_unreadable_executable_is_placed_by_the_user_rule() {
    by_the_user_rule("job", "");
}

#[test]
fn an_unreadable_interpreter_is_placed_by_the_user_rule() {
    by_the_user_rule("python3", "");
}

/// Checks a process name that differs from the file name, as after the exec of a symbolic link.
#[test]
fn an_unreadable_executable_with_another_name_is_placed_by_the_user_rule() {
    by_the_user_rule("job", "comm link");
}

/// Checks that a rule that excludes a program does not match a process with an unreadable executable.
#[test]
fn an_unreadable_executable_does_not_match_a_negated_exe() {
    let Some(live) = Live::require() else { return };
    let mut file_system = live.file_system(ALICE, "serve");
    file_system.said("mounted");
    let _early = unreadable(&live, "python3", "");
    let _daemon = live
        .daemon("[[rule]]\nuser = \"cgt-alice\"\nnot = { exe = \"job\" }\ncgroup = \"alice\"\n");
    live.expect_at_rest("unreadable python3, not exe", ALICE, 11, "alice");
}

/// Steps of a process that becomes alice once.
const IDLE: &str = "uid 61701 61701";

/// Starts 30 processes of alice with an executable that never answers, of which 4 do `flood`, then 5
/// processes of bob that run interpreters, so that their executable must be read by the slow path as well.
fn hanging_reads(flood: &str) {
    let Some(live) = Live::require() else { return };
    let python = live.program("bin/python3");
    // Dropped after the file system, which releases the processes.
    let mut attackers: Vec<Actor> = Vec::new();
    let mut file_system = live.file_system(ALICE, "share");
    file_system.said("mounted");
    let path = live.path("m/python3");
    let attack = |number| {
        let flood = if number < 4 { flood } else { IDLE };
        format!("exec {} python3 say ready gate {flood} sleep 60000", path.display())
    };
    attackers.extend((0..30).map(|number| live.actor(&attack(number))));
    for attacker in &mut attackers {
        attacker.said("ready");
    }
    file_system.open_gate();
    file_system.said("silent");
    let daemon = live.daemon(&rules("alice"));
    let begin = std::time::Instant::now();
    attackers.iter_mut().for_each(Actor::open_gate);
    sleep(Duration::from_millis(500));
    let bobs = [0; 5].map(|_| live.hold(&format!("exec {python} python3 uid {BOB} {BOB}")));
    let placed = bobs.each_ref().map(|bob| live.placed_within_a_second(bob.subject, "bob"));
    let late = placed.iter().filter(|time| time.is_none()).count();
    println!("bystanders: {placed:?}, {late} of 5 outside after 1 s: outside");
    sleep(2 * SECOND);
    let seconds = i64::try_from(begin.elapsed().as_secs()).unwrap();
    drop(file_system);
    drop(attackers);
    let scans = daemon.stop().get("scans");
    println!("{scans} scans in {seconds} s, ms");
    assert_eq!(late, 0, "of 5 bystanders were not placed within a second");
    assert!(scans <= seconds + 2, "{scans} scans in {seconds} s");
}

#[test]
fn reads_that_hang_do_not_delay_others() {
    hanging_reads(IDLE);
}

#[test]
fn reads_that_hang_and_many_events_do_not_delay_others() {
    hanging_reads(&format!("keep-caps toggle 100000000 {ALICE} 0"));
}
