//! Programs that are executed by a descriptor, from memory, by another thread, under a tracer, or that change
//! their executable without an exec.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::user::{ALICE, BOB};
use crate::harness::{Actor, BASE, Crowd, Daemon, Live, census};

/// Longer than it takes until the rechecks of what was placed are over.
const RECHECK: Duration = Duration::from_millis(300);

/// Processes in each test.
const COUNT: usize = 50;

const TOOL: &str = "[[rule]]\nuser = \"cgt-alice\"\nexe = \"tool\"\ncgroup = \"tools\"\n";
const BY_USER: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"alice\"\n\
                    [[rule]]\nuser = \"cgt-bob\"\ncgroup = \"bob\"\n";

fn become_alice() -> String {
    format!("uid {ALICE} {ALICE}")
}

/// 50 children of root do `steps` and are then processes of alice that belong into `cgroup`.
fn expect(live: &Live, rules: &str, what: &str, steps: &str, cgroup: &str) {
    let steps = format!("spawn {COUNT} {steps} hold");
    let crowd = Crowd { what, steps: &steps, lines: COUNT, uid: ALICE, count: COUNT, cgroup };
    live.expect_crowd(rules, &crowd);
}

#[test]
fn a_program_executed_by_a_descriptor_is_the_file_behind_it() {
    let Some(live) = Live::require() else { return };
    let tool = live.program("bin/tool");
    for exe in ["tool", &tool] {
        let rules = format!(
            "[[rule]]\nuser = \"cgt-alice\"\nexe = \"{exe}\"\ncgroup = \"tools\"\n{BY_USER}"
        );
        let steps = format!("{} exec-fd {tool} whatever", become_alice());
        expect(&live, &rules, &format!("execveat of a descriptor, exe = {exe}"), &steps, "tools");
    }
}

/// The kernel shows `/memfd:NAME (deleted)`, and the name may have slashes: its owner chooses the base name.
fn in_memory(what: &str, name: &str, more: &str, cgroup: &str) {
    let Some(live) = Live::require() else { return };
    let program = live.program("bin/program");
    let rules = format!(
        "[[rule]]\nuser = \"cgt-alice\"\nexe = [\"tool\", \"{BASE}/**\", \"memfd:*\", \"**\"]\n\
         not = {{ exe = [\"program\", \"actors\"] }}\n{more}\ncgroup = \"tools\"\n{BY_USER}"
    );
    let steps = format!("{} exec-memfd {program} {name} tool", become_alice());
    expect(&live, &rules, what, &steps, cgroup);
}

#[test]
fn a_program_in_memory_is_no_file_of_the_host() {
    in_memory("execveat of a memfd", "tool", "", "alice");
    in_memory("execveat of a memfd with the name of a path", &format!("{BASE}/tool"), "", "alice");
}

#[test]
fn a_program_in_memory_counts_when_asked_for() {
    in_memory("memfd, exe_anywhere", "x", "exe_anywhere = true", "tools");
    in_memory("memfd, exe_anywhere", &format!("{BASE}/tool"), "exe_anywhere = true", "tools");
}

/// A rule that exempts a program does not exempt a program in memory of that name.
#[test]
fn a_program_in_memory_does_not_match_a_negated_exe() {
    let Some(live) = Live::require() else { return };
    let program = live.program("bin/program");
    let rules = "[[rule]]\nuser = \"cgt-alice\"\nnot = { exe = [\"tool\", \"memfd:tool\", \"actors\"] }\n\
                 cgroup = \"alice\"\n";
    for name in ["tool", "/tool"] {
        let steps = format!("{} exec-memfd {program} {name} tool", become_alice());
        expect(&live, rules, &format!("memfd {name}, not exe"), &steps, "alice");
    }
}

/// The interpreter has `/dev/fd/N` for an argument: the script has no name, the interpreter has one.
#[test]
fn a_script_executed_by_a_descriptor_is_its_interpreter() {
    let Some(live) = Live::require() else { return };
    let interpreter = live.program("bin/tool");
    let script = live.script("bin/job", &format!("#!{interpreter}\n"));
    let rules =
        format!("[[rule]]\nuser = \"cgt-alice\"\nexe = \"job\"\ncgroup = \"job\"\n{TOOL}{BY_USER}");
    let steps = format!("{} exec-fd {script} whatever", become_alice());
    expect(&live, &rules, "execveat of a script", &steps, "tools");
}

/// A limit: `/proc/PID/exe` shows the path in the mount namespace of the file, and the process is in that of
/// the host. Here another file lies at the path of `tool` in the namespace, and alice executes that from
/// outside.
#[test]
fn a_file_of_another_mount_namespace_is_taken_for_the_file_of_the_host() {
    let Some(live) = Live::require() else { return };
    let (other, tool) = (live.program("bin/other"), live.program("bin/tool"));
    let actors = live.path("bin/actors").display().to_string();
    let user = format!("gid {ALICE} {ALICE} uid {ALICE} {ALICE} exec {actors} actors");
    let mut owner = live.actor(&format!("mntns bind {other} {tool} {user} say ready hold"));
    let pid = owner.said("ready");
    let daemon = live.daemon(&format!(
        "[[rule]]\nuser = \"cgt-alice\"\nexe = \"{tool}\"\ncgroup = \"tools\"\n{BY_USER}"
    ));
    let mut crowd =
        live.actor(&format!("spawn {COUNT} {user} exec /proc/{pid}/root{tool} tool hold"));
    for _ in 0..COUNT {
        crowd.said("pid");
    }
    live.expect_placed_of(ALICE, COUNT, "tools", "file of another mount namespace, by its path");
    // The owner of the namespace runs a file of the host.
    live.expect_placed_of(ALICE, 1, "alice", "owner of the namespace");
    drop(daemon);
}

/// The leader and the executing thread have different users. The executing thread becomes the leader, with
/// its credentials: there is no event of a change but the EXEC event.
#[test]
fn the_exec_of_a_thread_with_its_own_user() {
    let Some(live) = Live::require() else { return };
    let tool = live.program("bin/tool");
    for leader in [0, BOB] {
        let what = format!("exec by a thread of alice, leader {leader}");
        let steps = format!("thread-as {ALICE} {leader} sleep 300 exec {tool} tool");
        expect(&live, &format!("{TOOL}{BY_USER}"), &what, &steps, "tools");
    }
}

/// Asserts that children forked after the exec belong to alice, without an evaluation of their own.
#[test]
fn forks_after_the_exec_of_a_thread_with_its_own_user() {
    let Some(live) = Live::require() else { return };
    let tool = live.program("bin/tool");
    let steps =
        format!("fork thread-as {ALICE} {BOB} sleep 300 exec {tool} tool spawn {COUNT} hold");
    let what = "forks after the exec by a thread";
    let count = COUNT + 1;
    let crowd = Crowd { what, steps: &steps, lines: COUNT, uid: ALICE, count, cgroup: "tools" };
    live.expect_crowd(&format!("{TOOL}{BY_USER}"), &crowd);
}

/// 50 tracees of bob that are stopped at the end of an exec of `tool`, before the kernel reports
/// it, and their tracers, which are bob's too. Nothing else is left to be evaluated. Repeated if a scan
/// of all processes, which other load on the machine can cause, found them.
fn stopped(live: &Live, daemon: &Daemon) -> Vec<Actor> {
    let found = || daemon.log().matches("after scan").count();
    for _ in 0..5 {
        let before = found();
        if let Some(tracers) = stop_at_exec(live, || found() == before) {
            return tracers;
        }
    }
    panic!("scans found the tracees each time");
}

fn stop_at_exec(live: &Live, is_undisturbed: impl Fn() -> bool) -> Option<Vec<Actor>> {
    let tool = live.program("bin/tool");
    // The first exec sets the saved IDs: an exec that changes them is reported as a change of user
    // too, before the stop.
    let again = format!("exec {} actors", live.path("bin/actors").display());
    let user = format!("gid {BOB} {BOB} uid {BOB} {BOB} {again}");
    let tracer = format!("{user} say ready gate traced {tool} tool hold");
    // Each has gates of its own: those of one actor share their bytes.
    let mut tracers: Vec<Actor> = (0..COUNT).map(|_| live.actor(&tracer)).collect();
    for (line, count) in [("ready", COUNT), ("traced", 2 * COUNT), ("stopped", 2 * COUNT)] {
        for tracer in &mut tracers {
            tracer.said(line);
        }
        // The evaluation of any process on the machine can make a birth a candidate, and births are
        // read late: at the next placement. None may be left when the exec is under way.
        settle(live);
        if !is_undisturbed() {
            return None;
        }
        live.expect_at_rest(line, BOB, count, "bob");
        if line != "stopped" {
            tracers.iter_mut().for_each(Actor::open_gate);
        }
    }
    Some(tracers)
}

/// Waits until the rechecks of what was placed are over and the births so far were read.
fn settle(live: &Live) {
    live.fence();
    sleep(RECHECK);
    live.fence();
}

/// Lets the tracers detach.
fn detach(tracers: &mut [Actor]) {
    for tracer in tracers {
        tracer.open_gate();
        tracer.said("pid");
    }
}

/// The processes of bob in the group `below`.
fn within(live: &Live, below: &str) -> usize {
    let group = live.ground.at(below);
    census::of(BOB).iter().filter(|resident| resident.cgroup == group).count()
}

const BOBS: &str = "[[rule]]\nuser = \"cgt-bob\"\nexe = \"tool\"\ncgroup = \"tools\"\n\
                    [[rule]]\nuser = \"cgt-bob\"\ncgroup = \"bob\"\n";

/// A limit: the kernel reports an exec after the stop. Until then the process runs no instruction of the new
/// program and belongs to the old one by its events. A scan finds it.
#[test]
fn a_tracee_that_stays_stopped_at_its_exec_counts_from_the_next_scan_on() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(BOBS);
    let mut tracers = stopped(&live, &daemon);
    sleep(RECHECK);
    println!("stopped at the exec: {} of {COUNT} by the new program", within(&live, "tools"));
    assert_eq!((within(&live, "bob"), within(&live, "tools")), (2 * COUNT, 0));
    daemon.signal(Signal::SIGHUP);
    live.expect_placed_of(BOB, COUNT, "tools", "stopped at the exec, reload");
    detach(&mut tracers);
    live.expect_placed_of(BOB, COUNT, "tools", "stopped at the exec, reload, detached");
}

#[test]
fn a_tracee_that_goes_on_after_its_exec_is_placed() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(BOBS);
    let mut tracers = stopped(&live, &daemon);
    assert_eq!(within(&live, "tools"), 0);
    detach(&mut tracers);
    live.expect_placed_of(BOB, COUNT, "tools", "stopped at the exec, detached");
    // The tracers stay by their own program.
    assert_eq!(within(&live, "bob"), COUNT);
}

/// The tracer dies: the kernel lets its tracees go on.
#[test]
fn a_tracee_whose_tracer_exits_is_placed() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(BOBS);
    let tracers = stopped(&live, &daemon);
    assert_eq!(within(&live, "tools"), 0);
    let tools = live.path("bin/tool");
    for tracer in census::of(BOB) {
        if fs::read_link(format!("/proc/{}/exe", tracer.pid)).is_ok_and(|exe| exe != tools) {
            kill(Pid::from_raw(i32::try_from(tracer.pid).unwrap()), Signal::SIGKILL).unwrap();
        }
    }
    live.expect_at_rest("stopped at the exec, tracer killed", BOB, COUNT, "tools");
    drop(tracers);
}

/// A limit: by `PR_SET_MM_MAP` in a user namespace of its own a process chooses what `/proc/PID/exe` shows,
/// without an event. It counts from the next event or scan on.
#[test]
fn an_executable_that_is_changed_without_an_exec_counts_from_the_next_event_on() {
    let Some(live) = Live::require() else { return };
    let tool = live.program("bin/tool");
    let actors = live.path("bin/actors").display().to_string();
    let daemon = live.daemon(&format!("{TOOL}{BY_USER}"));
    let user = format!("groups -1 gid {ALICE} {ALICE} {} exec {actors} actors", become_alice());
    let steps = format!("spawn {COUNT} {user} say placed gate userns exe-file {tool} hold");
    let mut actor = live.actor(&steps);
    for _ in 0..COUNT {
        actor.said("placed");
    }
    live.expect_at_rest("before PR_SET_MM_MAP", ALICE, COUNT, "alice");
    settle(&live);
    for _ in 0..COUNT {
        actor.open_gate();
    }
    for _ in 0..COUNT {
        actor.said("pid");
    }
    live.fence();
    let changed = census::outside(ALICE, &live.ground.at("alice")).len();
    println!("PR_SET_MM_MAP: {changed} of {COUNT} moved without an event");
    assert_eq!(changed, 0);
    daemon.signal(Signal::SIGHUP);
    live.expect_at_rest("PR_SET_MM_MAP, reload", ALICE, COUNT, "tools");
}
