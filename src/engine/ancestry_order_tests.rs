//! Programs of ancestors when forks, execs and evaluations are read in unusual orders.

use super::*;
use crate::engine::ancestry::{AncestryTable, ChangeTimes, RunningProcess};
use crate::engine::inheritance::Birth;
use crate::rules::ancestry::Ancestor;
use crate::tracking::fork_tracker::Fork;

/// A table of programs, and a process 50.
struct Lineage {
    world: World,
    table: AncestryTable,
    begin: Nanos,
}

impl Lineage {
    fn new() -> Self {
        let mut world = World::new(REMOTE);
        world.child(SHELL, 50);
        let mut table = AncestryTable::new(Arc::default());
        table.activate(true);
        let begin = world.engine.kernel.now();
        Self { world, table, begin }
    }

    /// Returns a time in units that are longer than all calls of the kernel take.
    fn at(&self, time: u64) -> Nanos {
        self.begin.plus(time * 100_000)
    }

    /// A process is born, and its fork is read.
    fn born(&mut self, time: u64, parent: u32, child: u32) {
        self.world.child(parent, child);
        assert_ne!(self.hear(time, parent, child), Birth::EndsEarlier);
    }

    /// A fork is read.
    fn hear(&mut self, time: u64, parent: u32, child: u32) -> Birth {
        let fork = Fork { at: self.at(time), parent: pid(parent), child: pid(child) };
        let clock = &self.world.engine.kernel.clock;
        clock.set(clock.get().max(fork.at.0));
        let birth = self.table.heard(fork);
        self.table.identify(&mut self.world.engine.kernel);
        birth
    }

    /// A process is evaluated for a change at this time, or found by a scan.
    fn runs(&mut self, raw: u32, time: u64, is_event: bool, is_sshd: bool) {
        self.evaluate(raw, [time; 2], is_event, is_sshd);
    }

    /// A process is evaluated for changes from the first time on, of which the last is an exec.
    fn runs_since(&mut self, raw: u32, times: [u64; 2], is_sshd: bool) {
        self.evaluate(raw, times, true, is_sshd);
    }

    fn evaluate(&mut self, raw: u32, times: [u64; 2], is_event: bool, is_sshd: bool) {
        let [first, since] = times.map(|time| self.at(time));
        let (seen, read_from) = (self.at(100), self.at(0));
        let kernel = &mut self.world.engine.kernel;
        let identity = kernel.identity(pid(raw)).unwrap();
        kernel.clock.set(kernel.clock.get().max(since.0));
        let changes = ChangeTimes { first, since };
        let process =
            RunningProcess { pid: pid(raw), identity, seen, read_from, changes, is_event };
        let path = b"/usr/sbin/sshd"[..].into();
        let sshd = Ancestor { path, invoked: None, is_of_root: true };
        self.table.runs(process, is_sshd.then_some(sshd), kernel);
    }

    /// Checks whether a process is below the program.
    fn is_below(&mut self, raw: u32) -> bool {
        !self.table.of(pid(raw), &mut self.world.engine.kernel).is_empty()
    }
}

/// A scan finds the program, and then an evaluation for an earlier exec the program of before.
#[test]
fn who_is_below_the_program_twice_stays_there_with_all_children() {
    let mut line = Lineage::new();
    line.born(20, 50, 51);
    line.runs(50, 100, false, true);
    line.born(1_000_000, 51, 52);
    line.runs(50, 10, true, false);
    line.runs(50, 30, true, true);
    assert_eq!([51, 52].map(|raw| line.is_below(raw)), [true; 2]);
}

/// The child was born with the program of its creator, which is then found to have executed another one.
#[test]
fn who_is_below_a_child_that_runs_the_program_stays_there() {
    let mut line = Lineage::new();
    line.runs(50, 10, true, true);
    line.born(30, 50, 51);
    line.born(40, 51, 52);
    line.runs(51, 30, false, true);
    line.runs(50, 20, true, false);
    assert_eq!([51, 52].map(|raw| line.is_below(raw)), [false, true]);
}

/// A child that was evaluated before the loss of its fork was known has a program of its own.
#[test]
fn a_child_that_runs_the_program_is_below_it_after_the_loss_of_its_fork() {
    let mut line = Lineage::new();
    line.runs(50, 10, true, true);
    line.world.child(50, 51);
    line.runs(51, 30, false, true);
    assert!(!line.is_below(51));
    line.table.search(&mut line.world.engine.kernel);
    assert_eq!([50, 51].map(|raw| line.is_below(raw)), [false, true]);
}

/// The exec that ended the program of its creator waits for an examination, and the kernel dropped its fork.
#[test]
fn a_child_found_after_a_loss_is_not_below_the_program_that_its_creator_had_ended() {
    let mut line = Lineage::new();
    line.runs(50, 10, true, true);
    line.born(30, SHELL, 60);
    line.world.child(50, 51);
    line.table.search(&mut line.world.engine.kernel);
    assert!(line.is_below(51));
    line.runs(50, 20, true, false);
    assert!(!line.is_below(51));
}

/// The kernel dropped the fork of the process that has the PID of an orphan now.
#[test]
fn a_process_whose_fork_was_lost_is_not_below_the_creator_of_an_earlier_one() {
    let mut line = Lineage::new();
    line.born(20, 50, 51);
    line.born(30, 51, 52);
    for raw in [52, 51] {
        line.world.end(raw);
    }
    line.world.child(SHELL, 52);
    line.table.search(&mut line.world.engine.kernel);
    line.runs(50, 10, true, true);
    assert!(!line.is_below(52));
}

/// The PID of the program is reused before its exec of another one is evaluated.
#[test]
fn a_late_event_of_an_earlier_process_takes_nothing_from_the_children_of_the_present_one() {
    let mut line = Lineage::new();
    line.world.child(SHELL, 40);
    line.runs(40, 10, true, true);
    line.runs(50, 10, true, true);
    line.born(20, 50, 52);
    line.world.end(50);
    line.born(200, 40, 50);
    line.born(210, 50, 51);
    line.runs(50, 15, true, false);
    assert_eq!([50, 51, 52].map(|raw| line.is_below(raw)), [true, true, false]);
}

/// A scan finds that a child runs the program, and its event tells that an orphan below it is older.
#[test]
fn an_orphan_of_before_the_change_that_a_scan_had_found_is_not_below_it() {
    let mut line = Lineage::new();
    line.runs(50, 10, true, true);
    line.born(200, 50, 51);
    line.born(210, 51, 52);
    line.born(215, 52, 53);
    line.world.end(52);
    line.runs(51, 300, false, true);
    line.runs(50, 150, true, false);
    assert!(line.is_below(53), "nothing tells since when 51 runs it");
    line.runs(51, 220, true, true);
    assert_eq!([51, 53].map(|raw| line.is_below(raw)), [false, false]);
}

/// It was found before its exec was read, and its PID is reused before that is evaluated.
#[test]
fn an_orphan_of_before_the_exec_of_an_earlier_process_is_not_below_it() {
    let mut line = Lineage::new();
    line.born(20, 50, 51);
    line.born(21, 51, 52);
    line.world.end(51);
    line.born(30, SHELL, 60);
    line.runs(50, 10, true, true);
    assert!(line.is_below(52), "nothing tells since when 50 runs it");
    line.world.end(50);
    line.world.child(SHELL, 50);
    assert_eq!(line.hear(140, SHELL, 50), Birth::EndsEarlier);
    line.runs(50, 25, true, false);
    assert!(!line.is_below(52));
}

/// A child is listed before its fork is read, and before that of an earlier process with the PID.
#[test]
fn a_child_of_an_earlier_process_with_the_pid_of_a_listed_child_is_not_below_it() {
    let mut line = Lineage::new();
    line.world.child(SHELL, 51);
    line.world.child(51, 52);
    line.world.end(51);
    line.world.child(50, 51);
    line.runs(50, 10, true, true);
    for (time, parent, child) in [(5, SHELL, 51), (6, 51, 52), (7, 50, 51)] {
        let _birth = line.hear(time, parent, child);
    }
    assert_eq!([51, 52].map(|raw| line.is_below(raw)), [true, false]);
    assert!(line.table.take_withdrawn());
}

/// A change of a process that exited is evaluated for the process that has its PID by then, which runs the program. Then
/// the fork of that is read.
fn fork_of_an_evaluated_process(time: u64) {
    let mut line = Lineage::new();
    line.born(5, 50, 51);
    line.born(20, 51, 52);
    line.world.end(51);
    line.world.child(50, 51);
    line.runs(51, 10, true, true);
    assert!(line.is_below(52), "the fork of the later process is unread");
    let _birth = line.hear(time, 50, 51);
    assert!(!line.is_below(52));
    assert!(line.table.take_withdrawn());
}

#[test]
fn a_child_of_an_earlier_process_with_the_pid_of_an_evaluated_process_is_not_below_it() {
    fork_of_an_evaluated_process(30);
}

/// The later process is found before its fork has a time stamp.
#[test]
fn a_fork_can_have_a_time_stamp_after_the_evaluation_of_its_child() {
    fork_of_an_evaluated_process(200);
}

/// The children of a process that executed another program are a process that exited, and an orphan that created a process
/// with its PID.
#[test]
fn an_orphan_whose_child_has_the_pid_of_its_creator_is_not_below_the_program_of_before() {
    let mut line = Lineage::new();
    line.runs(50, 10, true, true);
    line.born(30, 50, 51);
    line.born(40, 51, 52);
    line.world.end(51);
    line.world.child(52, 51);
    let _birth = line.hear(50, 52, 51);
    assert_eq!([52, 51].map(|raw| line.is_below(raw)), [true; 2]);
    line.runs(50, 20, true, false);
    assert_eq!([52, 51].map(|raw| line.is_below(raw)), [false; 2]);
}

/// Two execs are unread when the program is found: the last one can have followed the read of the executable.
#[test]
fn a_child_born_after_an_exec_that_may_have_ended_the_program_is_not_below_it() {
    let mut line = Lineage::new();
    line.born(30, SHELL, 60);
    line.runs(50, 10, true, true);
    line.born(40, 50, 51);
    assert!(line.is_below(51));
    line.runs_since(50, [20, 25], false);
    assert!(!line.is_below(51));
}

/// As before, and the last of three execs follows the record too.
#[test]
fn a_child_born_between_two_execs_that_may_have_ended_the_program_is_not_below_it() {
    let mut line = Lineage::new();
    line.born(30, SHELL, 60);
    line.runs(50, 10, true, true);
    line.born(40, 50, 51);
    line.runs_since(50, [20, 50], false);
    assert!(!line.is_below(51));
}
