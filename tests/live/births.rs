//! Processes that are created by other system calls than fork(2), or with flags of clone(2).

use crate::harness::user::ALICE;
use crate::harness::{BASE, Crowd, Live};

const BY_USER: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"alice\"\n";
const BY_EXE: &str = "[[rule]]\nuser = \"cgt-alice\"\nexe = \"tool\"\ncgroup = \"alice\"\n";

// Flags of clone(2), as the actor takes them.
const VM: u32 = 0x100;
const FILES_FS: u32 = 0x600;
const SIGHAND: u32 = 0x800;
const VFORK: u32 = 0x4000;
const PARENT: u32 = 0x8000;
const NEWNS: u32 = 0x2_0000;
const NEWCGROUP: u32 = 0x200_0000;
const NEWUSER: u32 = 0x1000_0000;
const NEWPID: u32 = 0x2000_0000;

/// Children of a process, and how many processes of alice there are in all: the children, and their parent if
/// it is hers.
const CHILDREN: usize = 50;
const WITH_PARENT: usize = CHILDREN + 1;

fn become_alice() -> String {
    format!("uid {ALICE} {ALICE}")
}

/// `steps` lead to 50 children that hold, and to `count` processes of alice.
fn placed(rules: &str, what: &str, steps: &str, count: usize) {
    let Some(live) = Live::require() else { return };
    live.program("bin/tool");
    let steps = format!("{steps} hold");
    let crowd = Crowd { what, steps: &steps, lines: CHILDREN, uid: ALICE, count, cgroup: "alice" };
    live.expect_crowd(rules, &crowd);
}

/// Alice clones 50 children with `flags`.
fn cloned(what: &str, before: &str, flags: u32) {
    let steps = format!("{before} {} clone {CHILDREN} {flags:x}", become_alice());
    placed(BY_USER, what, &steps, WITH_PARENT);
}

/// The path of the program that the exe rule names.
fn tool() -> String {
    format!("{BASE}/bin/tool")
}

/// 50 children by clone(2) with `flags` become alice and execute `bin/tool`.
fn cloned_for_exec(what: &str, before: &str, flags: u32) {
    let child = format!("{} exec {} tool", become_alice(), tool());
    let steps = format!("{before} clone {CHILDREN} {flags:x} {child}");
    placed(BY_EXE, what, &steps, CHILDREN);
}

#[test]
fn children_that_share_memory() {
    cloned("CLONE_VM", "", VM);
    cloned("CLONE_VM, CLONE_SIGHAND, CLONE_FILES, CLONE_FS", "", VM | SIGHAND | FILES_FS);
}

#[test]
fn children_that_share_memory_and_change_user_each() {
    let steps = format!("clone {CHILDREN} {VM:x} {}", become_alice());
    placed(BY_USER, "CLONE_VM, setuid by the child", &steps, CHILDREN);
}

/// As language runtimes start programs.
#[test]
fn vforked_children_that_change_user_and_execute() {
    cloned_for_exec("vfork, setuid and exec by the child", "", VM | VFORK);
}

#[test]
fn children_of_posix_spawn() {
    let steps = format!("uid {ALICE} 0 posix-spawn {CHILDREN} {} tool", tool());
    placed(BY_EXE, "posix_spawn with POSIX_SPAWN_RESETIDS", &steps, CHILDREN);
}

#[test]
fn siblings_that_share_memory() {
    cloned("CLONE_PARENT, CLONE_VM", "subreaper fork", PARENT | VM);
}

#[test]
fn siblings_that_are_vforked() {
    let what = "CLONE_PARENT, vfork, setuid and exec by the child";
    cloned_for_exec(what, "subreaper fork", PARENT | VM | VFORK);
}

/// The child becomes a child of the caller's parent, in a PID namespace of which it is the first process.
#[test]
fn siblings_in_namespaces_of_their_own() {
    cloned("CLONE_PARENT, CLONE_NEWPID", "subreaper fork keep-caps", PARENT | NEWPID);
}

#[test]
fn children_in_namespaces_of_their_own() {
    cloned("CLONE_NEWPID", "keep-caps", NEWPID);
    let others = NEWUSER | NEWPID | NEWNS | NEWCGROUP;
    cloned("CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNS, CLONE_NEWCGROUP", "", others);
}

#[test]
fn forks_inside_a_pid_namespace() {
    let steps = format!("pidns fork {} spawn {CHILDREN}", become_alice());
    placed(BY_USER, "forks in a PID namespace", &steps, WITH_PARENT);
    let steps = format!("pidns fork spawn {CHILDREN} {}", become_alice());
    placed(BY_USER, "setuid in a PID namespace", &steps, CHILDREN);
}

/// As a checkpoint is restored.
#[test]
fn children_with_chosen_pids() {
    let steps = format!("set-tid {CHILDREN} 20000 {}", become_alice());
    placed(BY_USER, "set_tid, setuid by the child", &steps, CHILDREN);
    let steps = format!("keep-caps {} set-tid {CHILDREN} 20000", become_alice());
    placed(BY_USER, "setuid, set_tid", &steps, WITH_PARENT);
}
