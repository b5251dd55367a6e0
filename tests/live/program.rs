//! Tests the criterion `exe`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::harness::user::{ALICE, BOB};
use crate::harness::{BASE, Daemon, Live};

/// Starts a daemon that moves the program `exe` of alice to `there`.
fn daemon(live: &Live, exe: &str, more: &str) -> Daemon {
    live.daemon(&format!(
        "[[rule]]\nuser = \"cgt-alice\"\nexe = \"{exe}\"\n{more}\ncgroup = \"there\"\n"
    ))
}

/// Returns the steps by which alice executes `path` under the name `argv0`.
fn executes(path: &str, argv0: &str) -> String {
    format!("uid {ALICE} {ALICE} exec {path} {argv0}")
}

/// Checks that a program of alice at `bin/tool` matches a rule for `exe`.
fn tool_is_sent(exe: &str) {
    let Some(live) = Live::require() else { return };
    let path = live.program("bin/tool");
    let _daemon = daemon(&live, exe, "");
    live.expect(&live.hold(&executes(&path, "tool")), "there");
}

fn tool_is_left(exe: &str) {
    let Some(live) = Live::require() else { return };
    let path = live.program("bin/tool");
    let _daemon = daemon(&live, exe, "");
    live.expect_untouched(&live.hold(&executes(&path, "tool")));
}

#[test]
fn a_program_is_meant_by_its_path() {
    tool_is_sent(&format!("{BASE}/bin/tool"));
    tool_is_left(&format!("{BASE}/sbin/tool"));
}

#[test]
fn a_program_is_meant_by_its_base_name() {
    tool_is_sent("tool");
    tool_is_left("too");
}

#[test]
fn programs_are_meant_by_glob() {
    tool_is_sent(&format!("{BASE}/bin/to*"));
    tool_is_sent("t?ol");
    tool_is_left(&format!("{BASE}/*l"));
}

#[test]
fn a_program_of_another_user_is_left() {
    let Some(live) = Live::require() else { return };
    let path = live.program("bin/tool");
    let _daemon = daemon(&live, "tool", "");
    live.expect_untouched(&live.hold(&format!("uid {BOB} {BOB} exec {path} tool")));
}

#[test]
fn a_script_is_meant_by_its_own_name() {
    let Some(live) = Live::require() else { return };
    let script = live.script("bin/job.sh", "#!/bin/sh\necho \"pid $$\"\nread never\n");
    for exe in ["job.sh", script.as_str()] {
        let _daemon = daemon(&live, exe, "");
        live.expect(&live.hold(&executes(&script, "job.sh")), "there");
    }
}

#[test]
fn a_script_through_an_interpreter_of_ours_is_meant_by_path() {
    let Some(live) = Live::require() else { return };
    let interpreter = live.program("bin/interpreter");
    let script = live.script("bin/work", &format!("#!{interpreter}\n"));
    let _daemon = daemon(&live, &script, "");
    live.expect(&live.hold(&executes(&script, "work")), "there");
}

#[test]
fn a_program_is_meant_by_the_symlink_that_was_invoked() {
    let Some(live) = Live::require() else { return };
    let path = live.program("bin/tool");
    let link = format!("{BASE}/bin/alias");
    symlink(path, &link).unwrap();
    let _daemon = daemon(&live, "alias", "");
    live.expect(&live.hold(&executes(&link, &link)), "there");
}

#[test]
fn a_symlink_that_a_shell_found_in_path_is_meant_by_its_name() {
    let Some(live) = Live::require() else { return };
    let path = live.program("bin/tool");
    let link = PathBuf::from(format!("/usr/local/bin/cgt-alias-{}", std::process::id()));
    let _removed = RemovedFile(link.clone());
    symlink(path, &link).unwrap();
    let name = link.file_name().unwrap().to_str().unwrap();
    let _daemon = daemon(&live, name, "");
    live.expect(&live.hold(&executes(link.to_str().unwrap(), name)), "there");
    // A name that is no link to the program counts no more than before.
    let other = format!("uid {ALICE} {ALICE} exec {BASE}/bin/tool cat hold");
    live.expect_untouched(&live.hold(&other));
}

/// A file outside the directory of the tests, removed also when a test fails.
struct RemovedFile(PathBuf);

impl Drop for RemovedFile {
    fn drop(&mut self) {
        let _removed = fs::remove_file(&self.0);
    }
}

/// Checks a process that changed its own name, which cgrulesengd relied on; see "names
/// of programs" in tests/QUIRKS.md.
#[test]
fn a_name_that_a_process_gave_itself_does_not_count() {
    let Some(live) = Live::require() else { return };
    let path = live.program("bin/tool");
    live.program("bin/nginx");
    let _daemon = daemon(&live, "nginx", "");
    let nginx = format!("{BASE}/bin/nginx");
    let steps = format!("exec {path} {nginx} comm nginx say {nginx} uid {ALICE} {ALICE} hold");
    let mut actor = live.actor(&steps);
    actor.said(&nginx);
    actor.subject = actor.said("pid");
    live.expect_untouched(&actor);
}

#[test]
fn a_negated_program_is_left() {
    let Some(live) = Live::require() else { return };
    // Not in bin: the actor itself is there, and belongs to alice before the exec.
    let (kept, sent) = (live.program("own/kept"), live.program("own/sent"));
    let _daemon = daemon(&live, &format!("{BASE}/own/*"), "not = { exe = \"kept\" }");
    live.expect_untouched(&live.hold(&executes(&kept, "kept")));
    live.expect(&live.hold(&executes(&sent, "sent")), "there");
}

#[test]
fn a_setuid_program_belongs_to_its_owner() {
    let Some(live) = Live::require() else { return };
    let path = live.setuid_program("bin/as-bob", BOB);
    let _daemon = live.daemon("[[rule]]\nuser = \"cgt-bob\"\ncgroup = \"bob\"\n");
    live.expect(&live.hold(&executes(&path, "as-bob")), "bob");
}

#[test]
fn a_vforked_child_is_placed_on_its_exec() {
    let Some(live) = Live::require() else { return };
    let path = live.program("bin/tool");
    let _daemon = daemon(&live, "tool", "");
    live.expect(&live.hold(&format!("uid {ALICE} {ALICE} vfork {path} tool")), "there");
}

#[test]
fn a_program_that_a_thread_executes_is_placed() {
    let Some(live) = Live::require() else { return };
    let path = live.program("bin/tool");
    let _daemon = daemon(&live, "tool", "");
    live.expect(&live.hold(&format!("uid {ALICE} {ALICE} thread-exec {path} tool")), "there");
}

/// Checks children of a script that are forked before the slow path has resolved its name.
#[test]
fn the_children_of_a_script_are_placed_with_it() {
    let Some(live) = Live::require() else { return };
    let interpreter = live.program("bin/interpreter");
    let script = live.script("bin/work", &format!("#!{interpreter}\n"));
    let _daemon = daemon(&live, "work", "");
    for _ in 0..5 {
        let mut tree = live.actor(&format!("{} tree 3 5", executes(&script, "work")));
        let size = tree.said("tree") as usize;
        live.expect_all(ALICE, size, "there");
    }
}

#[test]
fn a_replaced_program_that_still_runs_counts_as_its_path() {
    let Some(live) = Live::require() else { return };
    let path = live.program("bin/tool");
    let _daemon = daemon(&live, "tool", "");
    let mut actor =
        live.actor(&format!("exec {path} tool say running gate uid {ALICE} {ALICE} hold"));
    actor.subject = actor.said("running");
    fs::remove_file(&path).unwrap();
    actor.open_gate();
    actor.said("pid");
    live.expect(&actor, "there");
}

/// Returns the steps of a process that sees `evil` at the path of `tool`, in a mount namespace of its own.
fn evil_tool(live: &Live) -> String {
    let (evil, tool) = (live.program("bin/evil"), live.program("bin/tool"));
    format!("mntns bind {evil} {tool} {}", executes(&tool, "tool"))
}

#[test]
fn a_path_in_a_foreign_mount_namespace_is_another_file() {
    let Some(live) = Live::require() else { return };
    let steps = evil_tool(&live);
    let _daemon = daemon(&live, &format!("{BASE}/bin/tool"), "");
    live.expect_untouched(&live.hold(&steps));
}

#[test]
fn a_path_in_a_foreign_mount_namespace_counts_with_exe_anywhere() {
    let Some(live) = Live::require() else { return };
    let steps = evil_tool(&live);
    let _daemon = daemon(&live, &format!("{BASE}/bin/tool"), "exe_anywhere = true");
    live.expect(&live.hold(&steps), "there");
}

#[test]
fn the_host_s_file_in_a_foreign_mount_namespace_counts() {
    let Some(live) = Live::require() else { return };
    let tool = live.program("bin/tool");
    let _daemon = daemon(&live, &tool, "");
    live.expect(&live.hold(&format!("mntns {}", executes(&tool, "tool"))), "there");
}

/// Checks a running program after an upgrade replaced its file, which has another hard link, too.
fn replaced_with_another_link(what: &str, setuid_late: bool) {
    let Some(live) = Live::require() else { return };
    let path = live.program("bin/tool");
    let user = format!("uid {ALICE} {ALICE}");
    let steps = format!("exec {path} tool say running gate {user}");
    let mut actor = live.actor(&format!("spawn 10 {steps} hold"));
    for _ in 0..10 {
        actor.said("running");
    }
    fs::hard_link(&path, format!("{BASE}/bin/other")).unwrap();
    fs::remove_file(&path).unwrap();
    let early = setuid_late.then(|| daemon(&live, "tool", ""));
    for _ in 0..10 {
        actor.open_gate();
    }
    for _ in 0..10 {
        actor.said("pid");
    }
    let _daemon = early.unwrap_or_else(|| daemon(&live, "tool", ""));
    live.expect_at_rest(what, ALICE, 10, "there");
}

#[test]
fn a_replaced_program_with_another_link_counts_as_its_name() {
    replaced_with_another_link("removed, other link, setuid", true);
}

#[test]
fn a_replaced_program_with_another_link_counts_as_its_name_at_the_start() {
    replaced_with_another_link("removed, other link, then start", false);
}
