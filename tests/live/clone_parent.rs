//! Tests children that are cloned with `CLONE_PARENT`: the fork event names the parent of the
//! cloning process, not that process, although the child inherits its cgroup and credentials.

use crate::harness::Live;
use crate::harness::user::ALICE;

const BY_USER: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"alice\"\n";

/// Number of processes that clone at the same time, and of the children of each.
const CLONERS: usize = 20;
const CHILDREN: usize = 25;

/// Starts 20 processes with `steps`, which end with 25 children by CLONE_PARENT, and asserts that
/// all of these and the 20 cloners are in their cgroup.
fn expect_siblings(live: &Live, what: &str, steps: &str) {
    let mut actor = live.actor(&format!("subreaper spawn {CLONERS} {steps} siblings {CHILDREN}"));
    for _ in 0..CLONERS {
        actor.said("siblings");
    }
    live.expect_at_rest(what, ALICE, CLONERS * (CHILDREN + 1), "alice");
}

fn after_a_user_change(what: &str, steps: &str) {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(BY_USER);
    expect_siblings(&live, what, steps);
}

#[test]
fn clone_parent_after_setuid() {
    after_a_user_change("setuid, CLONE_PARENT", &format!("uid {ALICE} {ALICE}"));
}

/// Clones while the real parent is an exiting process, then the one before it, and so on.
#[test]
fn clone_parent_while_a_chain_of_subreapers_exits() {
    let chain = "subreaper daemonize ".repeat(6);
    let steps = format!("{chain} uid {ALICE} {ALICE}");
    after_a_user_change("exiting subreapers, setuid, CLONE_PARENT", &steps);
}

/// Clones after the process that changed its user has exited.
#[test]
fn clone_parent_by_an_orphan_of_the_process_that_called_setuid() {
    let steps = format!("uid {ALICE} {ALICE} daemonize");
    after_a_user_change("setuid, fork, exit, CLONE_PARENT", &steps);
    let steps = format!("uid {ALICE} {ALICE} subreaper daemonize subreaper daemonize");
    after_a_user_change("setuid, two exiting subreapers, CLONE_PARENT", &steps);
}

#[test]
fn clone_parent_after_exec() {
    let Some(live) = Live::require() else { return };
    let tool = live.static_program("bin/tool");
    let _daemon =
        live.daemon("[[rule]]\nuser = \"cgt-alice\"\nexe = \"tool\"\ncgroup = \"alice\"\n");
    let steps = format!("uid {ALICE} {ALICE} exec {tool} tool");
    expect_siblings(&live, "exec, CLONE_PARENT", &steps);
}

/// Clones at once in the first program of a user, which is statically linked, as with login and cron.
#[test]
fn clone_parent_by_the_first_program_of_a_login() {
    let Some(live) = Live::require() else { return };
    let tool = live.static_program("bin/tool");
    let _daemon = live.daemon(BY_USER);
    let steps = format!("uid {ALICE} {ALICE} exec {tool} tool");
    expect_siblings(&live, "setuid, exec, CLONE_PARENT", &steps);
}

/// Control: the same with plain forks.
#[test]
fn plain_forks_after_setuid() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(BY_USER);
    let steps = format!("uid {ALICE} {ALICE} spawn {CHILDREN} hold");
    let mut actor = live.actor(&format!("spawn {CLONERS} {steps}"));
    for _ in 0..CLONERS * CHILDREN {
        actor.said("pid");
    }
    live.expect_at_rest("setuid, fork", ALICE, CLONERS * (CHILDREN + 1), "alice");
}
