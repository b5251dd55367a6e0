//! Children of processes that a rule with `unit` placed: they keep the rule after a move by a user.

use super::*;
use crate::kernel::moves::TracedMove;

const JOBS: &str = "[[rule]]\nuser = \"1000\"\nunit = \"cron.service\"\ncgroup = \"jobs\"\n\
                    leave_units = true\n[[rule]]\nuser = \"1001\"\ncgroup = \"other\"\n";
const CRON: &str = "/system.slice/cron.service";
const SESSION: &str = "/user.slice/user-1000.slice/session-1.scope";
const APP: &str = "/user.slice/user-1000.slice/user@1000.service/app.slice/a.scope";

/// Creates a world in which process 101 of user 1000 is in the cgroup of the rule.
fn job() -> World {
    let mut world = World::new(JOBS);
    world.engine.kernel.runs_systemd = true;
    world.engine.kernel.moves = Some(Vec::new());
    world.engine.kernel.fork(SHELL, 101);
    CRON.clone_into(&mut world.engine.kernel.processes.get_mut(&101).unwrap().cgroup);
    world.engine.kernel.set_uid(101, 1000);
    world.run_for(SECOND);
    assert_eq!(world.cgroup_of(101), "/jobs");
    world
}

impl World {
    /// Lets a process move another one, and the daemon notice it.
    fn moves(&mut self, mover: u32, raw: u32, path: &str) {
        self.engine.kernel.move_by(mover, raw, path);
        self.run_for(2 * SECOND);
    }
}

#[test]
fn a_child_that_a_user_moves_before_its_first_evaluation_keeps_the_rule() {
    let mut world = job();
    world.engine.kernel.fork(101, 102);
    world.run_for(SECOND);
    world.moves(1, 102, APP);
    assert_eq!(world.cgroup_of(102), "/jobs");
}

#[test]
fn an_orphan_that_a_user_moves_at_once_keeps_the_rule() {
    let mut world = job();
    world.engine.kernel.fork(101, 102);
    world.engine.kernel.fork(102, 103);
    world.engine.kernel.processes.remove(&102);
    world.moves(1, 103, APP);
    assert_eq!(world.cgroup_of(103), "/jobs");
}

#[test]
fn a_child_that_is_born_in_a_cgroup_of_a_user_keeps_the_rule() {
    let mut world = job();
    world.engine.kernel.fork(101, 102);
    APP.clone_into(&mut world.engine.kernel.processes.get_mut(&102).unwrap().cgroup);
    let at = world.engine.kernel.now();
    let birth = TracedMove { at, mover: 101, pid: 102, is_birth: true, hierarchy: 0 };
    world.engine.kernel.moves.as_mut().unwrap().push(birth);
    world.run_for(2 * SECOND);
    assert_eq!(world.cgroup_of(102), "/jobs");
}

#[test]
fn a_move_by_root_gives_a_new_origin_which_no_later_move_takes_back() {
    let mut world = job();
    world.engine.kernel.fork(101, 102);
    world.run_for(SECOND);
    for pid in [101, 102] {
        world.moves(SHELL, pid, SESSION);
        assert_eq!(world.cgroup_of(pid), SESSION, "{pid}");
        // Its children have the new origin as well.
        world.engine.kernel.fork(pid, pid + 10);
        for pid in [pid, pid + 10] {
            world.moves(1, pid, APP);
            assert_eq!(world.cgroup_of(pid), APP, "{pid}");
        }
    }
}

#[test]
fn another_rule_ends_it_for_later_children() {
    let mut world = job();
    world.engine.kernel.set_uid(101, 1001);
    world.run_for(SECOND);
    assert_eq!(world.cgroup_of(101), "/other");
    world.engine.kernel.fork(101, 102);
    world.engine.kernel.set_uid(102, 1000);
    world.moves(1, 102, APP);
    assert_eq!(world.cgroup_of(102), APP);
}

#[test]
fn a_process_with_the_pid_of_an_earlier_child_has_its_own_origin() {
    let mut world = job();
    world.engine.kernel.fork(101, 102);
    world.run_for(SECOND);
    world.engine.kernel.processes.remove(&102);
    world.engine.kernel.fork(SHELL, 102);
    world.engine.kernel.set_uid(102, 1000);
    world.moves(1, 102, APP);
    assert_eq!(world.cgroup_of(102), APP);
}

#[test]
fn a_child_whose_fork_was_lost_keeps_the_rule() {
    let mut world = job();
    world.engine.kernel.fork(101, 102);
    world.engine.kernel.forks.clear();
    world.engine.kernel.losses.lost = 1;
    world.run_for(3 * SECOND);
    world.moves(1, 102, APP);
    assert_eq!(world.cgroup_of(102), "/jobs");
}

#[test]
fn rules_without_criteria_on_the_place_record_nothing() {
    let mut world = World::new("[[rule]]\nuser = \"1000\"\ncgroup = \"people\"\n");
    world.start_of_user(101);
    world.run_for(SECOND);
    assert_eq!(world.cgroup_of(101), "/people");
    assert!(!world.engine.has_heirs());
    assert!(job().engine.has_heirs());
}
