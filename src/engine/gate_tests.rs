//! Executions of gated files.

use super::*;

/// The program `/bin/tool` is gated for some users.
const GATED: &str =
    "[[rule]]\nuser = \"1000-1999\"\nexe = \"/bin/tool\"\ngate = true\ncgroup = \"tools\"\n";

impl World {
    /// Starts a process that executes the gated file, which waits, and returns its ticket after the answer.
    fn waits(&mut self, raw: u32, uid: u32) -> u64 {
        self.engine.kernel.fork(SHELL, raw);
        self.engine.kernel.set_uid(raw, uid);
        self.run_for(SECOND / 2);
        self.executes(raw)
    }

    fn executes(&mut self, raw: u32) -> u64 {
        let ticket = self.engine.kernel.begin_exec(raw, "/bin/tool");
        self.engine.expect_other_work();
        assert!(matches!(self.engine.turn(), Ok(TurnResult::Idle | TurnResult::Quiet)));
        assert_eq!(self.engine.kernel.answered.last(), Some(&ticket));
        ticket
    }

    fn returned(&self) -> u64 {
        self.count(|metrics| metrics.gate_returned.get())
    }
}

#[test]
fn a_process_is_in_its_cgroup_before_the_program_begins() {
    let mut world = World::new(GATED);
    assert_eq!(world.engine.kernel.gated_files, [Box::from(&b"/bin/tool"[..])]);
    world.waits(101, 1000);
    assert_eq!(world.cgroup_of(101), "/tools");
    world.engine.kernel.exec(101, "tool");
    world.engine.kernel.fork(101, 102);
    world.run_for(SECOND);
    assert_eq!([101, 102].map(|raw| world.cgroup_of(raw)), ["/tools"; 2]);
    assert!(world.engine.gate.is_empty());
    assert_eq!(world.returned(), 0);
    // The exec, and the child that was born meanwhile.
    let hits = world.engine.policy.hits.get(RuleId(0)).unwrap();
    assert_eq!((hits.matched.get(), hits.placed.get()), (2, 1));
    assert_eq!(world.count(|metrics| metrics.gated.get()), 1);
    assert_eq!(world.count(|metrics| metrics.ungated.get()), 0);
}

#[test]
fn an_execution_without_a_gated_rule_is_only_answered() {
    let mut world = World::new(GATED);
    world.waits(101, 0);
    assert_eq!(world.cgroup_of(101), "/");
    assert_eq!(world.count(|metrics| metrics.gate_skipped.get()), 0);
    let before = "[[rule]]\nuser = \"1000\"\ncgroup = \"first\"\n".to_owned() + GATED;
    let mut world = World::new(&before);
    world.waits(101, 1000);
    assert_eq!(world.cgroup_of(101), "/first");
}

#[test]
fn a_process_whose_execution_fails_is_returned_with_its_children() {
    let mut world = World::new(GATED);
    world.waits(101, 1000);
    for (parent, child) in [(101, 102), (102, 103)] {
        world.engine.kernel.fork(parent, child);
    }
    world.engine.kernel.exec(103, "other");
    world.run_for(SECOND / 20);
    assert_eq!([101, 102].map(|raw| world.cgroup_of(raw)), ["/tools"; 2]);
    world.run_for(SECOND / 10);
    assert_eq!([101, 102, 103].map(|raw| world.cgroup_of(raw)), ["/"; 3]);
    assert!(world.engine.gate.is_empty());
    assert_eq!(world.returned(), 3);
}

#[test]
fn a_process_that_executes_another_program_after_a_failure_is_returned() {
    let mut world = World::new(GATED);
    world.waits(101, 1000);
    world.engine.kernel.fork(101, 102);
    world.engine.kernel.exec(101, "other");
    world.run_for(SECOND);
    assert_eq!([101, 102].map(|raw| world.cgroup_of(raw)), ["/"; 2]);
}

/// Only those that were born before the program began are returned.
#[test]
fn children_born_between_a_failure_and_a_success_are_returned() {
    let mut world = World::new(GATED);
    world.waits(101, 1000);
    world.engine.kernel.fork(101, 102);
    world.engine.kernel.exec(101, "tool");
    world.engine.kernel.fork(101, 103);
    world.run_for(SECOND);
    assert_eq!([101, 102, 103].map(|raw| world.cgroup_of(raw)), ["/tools", "/", "/tools"]);
}

#[test]
fn a_second_execution_before_the_end_of_the_first_does_not_prolong_the_stay() {
    let mut world = World::new(GATED);
    world.waits(101, 1000);
    world.run_for(SECOND / 20);
    world.executes(101);
    assert_eq!(world.count(|metrics| metrics.gate_skipped.get()), 1);
    world.run_for(SECOND / 15);
    assert_eq!(world.cgroup_of(101), "/");
}

#[test]
fn other_evaluations_wait_until_the_program_runs() {
    let people = GATED.to_owned() + "[[rule]]\nuser = \"1000\"\ncgroup = \"people\"\n";
    let mut world = World::new(&people);
    world.waits(101, 1000);
    world.engine.rescan.want(Urgency::Now);
    world.engine.expect_other_work();
    world.run_for(SECOND / 100);
    assert_eq!(world.cgroup_of(101), "/tools");
    world.engine.kernel.exec(101, "tool");
    world.run_for(SECOND / 100);
    assert_eq!(world.cgroup_of(101), "/tools");
    world.waits(102, 1000);
    world.engine.kernel.set_uid(102, 1000);
    world.run_for(SECOND);
    assert_eq!(world.cgroup_of(102), "/people");
}

#[test]
fn doubtful_executions_go_on_without_a_placement() {
    let mut world = World::new(GATED);
    world.engine.kernel.thread_count = 2;
    world.waits(101, 1000);
    world.engine.kernel.thread_count = 1;
    assert_eq!(world.cgroup_of(101), "/");
    assert_eq!(world.count(|metrics| metrics.gate_skipped.get()), 1);
    world.engine.kernel.exec(101, "tool");
    world.run_for(SECOND);
    assert_eq!(world.cgroup_of(101), "/tools");
    assert_eq!(world.count(|metrics| metrics.ungated.get()), 1);

    let argument = GATED.to_owned() + "argument = \"x\"\n";
    let mut world = World::new(&argument);
    world.waits(101, 1000);
    assert_eq!(world.count(|metrics| metrics.gate_skipped.get()), 1);
}

#[test]
fn a_reload_returns_processes_whose_program_has_not_begun() {
    let mut world = World::new(GATED);
    world.waits(101, 1000);
    let policy = World::policy(PEOPLE, &world.engine.kernel);
    world.engine.kernel.replies.push(WorkerReply::Policy(Box::new(policy)));
    world.engine.take_answers();
    assert_eq!(world.cgroup_of(101), "/");
    assert!(world.engine.kernel.gated_files.is_empty());
    world.run_for(SECOND);
    assert_eq!(world.cgroup_of(101), "/people/1000");
}

/// The children of the process are known by its list alone.
#[test]
fn children_whose_forks_were_lost_are_returned() {
    let mut world = World::new(GATED);
    world.waits(101, 1000);
    world.engine.kernel.fork(101, 102);
    world.engine.kernel.forks.clear();
    world.engine.kernel.processes.get_mut(&101).unwrap().children.push(102);
    world.engine.kernel.losses.lost = 1;
    world.engine.kernel.exec(SHELL, "sh");
    world.run_for(2 * SECOND);
    assert_eq!([101, 102].map(|raw| world.cgroup_of(raw)), ["/"; 2]);
}

/// The events of a process that becomes another user and executes a shell before are read after the execution began.
#[test]
fn an_earlier_exec_neither_confirms_nor_returns() {
    let mut world = World::new(GATED);
    world.engine.kernel.fork(SHELL, 101);
    world.engine.kernel.set_uid(101, 1000);
    world.engine.kernel.exec(101, "other");
    world.executes(101);
    world.run_for(SECOND / 100);
    assert_eq!(world.cgroup_of(101), "/tools");
    world.engine.kernel.exec(101, "tool");
    world.run_for(SECOND);
    assert_eq!((world.cgroup_of(101), world.returned()), ("/tools", 0));
}

/// The program has created a child and exited when its exec is evaluated: the child stays where it was born.
#[test]
fn children_of_a_program_that_has_exited_stay() {
    let mut world = World::new(GATED);
    world.waits(101, 1000);
    world.engine.kernel.exec(101, "tool");
    world.engine.kernel.fork(101, 102);
    world.engine.kernel.exec(102, "other");
    world.engine.kernel.processes.remove(&101);
    world.run_for(SECOND);
    assert_eq!((world.cgroup_of(102), world.returned()), ("/tools", 0));
    assert!(world.engine.gate.is_empty());
}
