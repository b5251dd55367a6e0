//! Programs of ancestors: who passes them on, and who keeps them.

use super::*;
use crate::engine::ancestry::{AncestryTable, RunningProcess};
use crate::engine::inheritance::Birth;
use crate::rules::ancestry::Ancestor;
use crate::tracking::fork_tracker::Fork;

/// What root starts below `/bin/sshd`, whoever it becomes, except for users who are no longer below it.
const REMOTE: &str = "[[rule]]\nuser = \"1000-1999\"\nbelow = \"sshd\"\ncgroup = \"remote/%U\"\n\
                      [[rule]]\nuser = \"1000-1999\"\ncgroup = \"local/%U\"\n";

impl World {
    /// Lets a process fork, which the kernel lists as its child.
    fn child(&mut self, parent: u32, child: u32) {
        self.engine.kernel.fork(parent, child);
        self.engine.kernel.processes.get_mut(&child).unwrap().children.clear();
        self.engine.kernel.processes.get_mut(&parent).unwrap().children.push(child);
    }

    /// Ends a process, whose children become those of process 1.
    fn end(&mut self, raw: u32) {
        let ended = self.engine.kernel.processes.remove(&raw).unwrap();
        for process in self.engine.kernel.processes.values_mut() {
            process.children.retain(|&child| child != raw);
        }
        self.engine.kernel.processes.get_mut(&1).unwrap().children.extend(ended.children);
    }

    fn become_user(&mut self, raw: u32, uid: u32) {
        self.engine.kernel.set_uid(raw, uid);
        self.run_for(SECOND / 20);
    }
}

fn sshd(world: &mut World) {
    sshd_at(world, 50);
    world.run_for(SECOND / 20);
}

fn sshd_at(world: &mut World, raw: u32) {
    world.child(SHELL, raw);
    world.engine.kernel.exec(raw, "sshd");
}

#[test]
fn a_child_of_the_program_is_below_it_and_the_program_is_not() {
    let mut world = World::new(REMOTE);
    sshd(&mut world);
    world.child(50, 51);
    world.become_user(51, 1000);
    world.child(SHELL, 52);
    world.become_user(52, 1000);
    world.become_user(50, 1000);
    let places = [50, 51, 52].map(|pid| world.cgroup_of(pid));
    assert_eq!(places, ["/local/1000", "/remote/1000", "/local/1000"]);
}

#[test]
fn an_orphan_stays_below_the_program_that_has_ended() {
    let mut world = World::new(REMOTE);
    sshd(&mut world);
    world.child(50, 51);
    world.child(51, 52);
    world.end(51);
    world.child(52, 53);
    world.end(50);
    world.engine.kernel.exec(53, "sh");
    world.become_user(53, 1000);
    world.become_user(52, 1001);
    assert_eq!([52, 53].map(|pid| world.cgroup_of(pid)), ["/remote/1001", "/remote/1000"]);
}

#[test]
fn an_orphan_that_was_born_before_the_program_was_evaluated_is_below_it() {
    let mut world = World::new(REMOTE);
    world.child(SHELL, 50);
    world.engine.kernel.exec(50, "sshd");
    for (creator, child) in [(51, 52), (53, 54)] {
        world.child(50, creator);
        world.child(creator, child);
        world.end(creator);
    }
    // Another process gets the PID of an orphan.
    world.end(54);
    world.child(SHELL, 54);
    world.run_for(SECOND / 20);
    world.become_user(52, 1000);
    world.become_user(54, 1000);
    assert_eq!([52, 54].map(|pid| world.cgroup_of(pid)), ["/remote/1000", "/local/1000"]);
}

#[test]
fn children_of_before_and_of_after_another_exec_differ() {
    let mut world = World::new(REMOTE);
    world.child(SHELL, 50);
    world.child(50, 51);
    world.engine.kernel.exec(50, "sshd");
    world.run_for(SECOND / 20);
    world.engine.kernel.exec(50, "sh");
    world.run_for(SECOND / 20);
    world.child(50, 52);
    world.become_user(51, 1000);
    world.become_user(52, 1000);
    let places = [51, 52].map(|pid| world.cgroup_of(pid));
    assert_eq!(places, ["/remote/1000", "/local/1000"], "51 was a child of it while it was sshd");
}

#[test]
fn a_program_of_a_user_counts_only_where_the_rule_says_so() {
    let any =
        "[[rule]]\nuser = \"1000\"\nbelow = \"sshd\"\nbelow_any_user = true\ncgroup = \"any\"\n";
    for (rules, expected) in
        [(REMOTE.to_owned(), "/local/1000"), (format!("{any}{REMOTE}"), "/any")]
    {
        let mut world = World::new(&rules);
        world.child(SHELL, 50);
        world.become_user(50, 1000);
        world.engine.kernel.exec(50, "sshd");
        world.run_for(SECOND / 20);
        world.child(50, 51);
        world.engine.kernel.exec(51, "sh");
        world.run_for(SECOND / 20);
        assert_eq!(world.cgroup_of(51), expected);
    }
}

#[test]
fn children_born_after_the_program_became_another_or_its_user_are_not_below_it() {
    for is_exec in [true, false] {
        let mut world = World::new(REMOTE);
        sshd(&mut world);
        world.child(50, 51);
        if is_exec {
            world.engine.kernel.exec(50, "sh");
        } else {
            world.engine.kernel.set_uid(50, 1001);
        }
        // Born before the change is evaluated, and an orphan at once.
        world.child(50, 52);
        world.child(52, 53);
        world.end(52);
        world.become_user(51, 1000);
        world.become_user(53, 1000);
        let places = [51, 53].map(|pid| world.cgroup_of(pid));
        assert_eq!(places, ["/remote/1000", "/local/1000"], "{is_exec}");
    }
}

#[test]
fn an_orphan_of_before_the_exec_is_not_below_the_program_that_is_found_after_it() {
    // Both events are read at once, or the second after the evaluation for the first.
    for is_read_late in [false, true] {
        let mut world = World::new(REMOTE);
        world.child(SHELL, 50);
        world.engine.kernel.exec(50, "sh");
        world.child(50, 51);
        world.child(51, 52);
        world.end(51);
        world.engine.kernel.exec(50, "sshd");
        let late = if is_read_late { world.engine.kernel.events.pop_back() } else { None };
        world.child(50, 53);
        world.child(53, 54);
        world.end(53);
        if is_read_late {
            let turn = world.engine.turn().unwrap();
            let TurnResult::Read(request) = turn else { panic!("{turn:?}") };
            world.read(request);
            world.engine.kernel.events.extend(late);
        }
        world.run_for(SECOND / 20);
        world.become_user(52, 1000);
        world.become_user(54, 1000);
        let places = [52, 54].map(|pid| world.cgroup_of(pid));
        assert_eq!(places, ["/local/1000", "/remote/1000"], "{is_read_late}");
    }
}

#[test]
fn a_scan_finds_those_below_a_program_that_runs_already() {
    let mut world = World::new(REMOTE);
    // The descendants are listed before the program.
    for (raw, parent, comm, uid) in
        [(60, SHELL, "sshd", 0), (40, 60, "sh", 1000), (41, 40, "sh", 1001)]
    {
        let cgroup = "/".to_owned();
        let process =
            FakeProcess { parent, comm, uid, cgroup, started: 5, ..FakeProcess::default() };
        world.engine.kernel.start(raw, process);
        world
            .engine
            .kernel
            .processes
            .get_mut(&parent)
            .into_iter()
            .for_each(|own| own.children.push(raw));
    }
    world.engine.kernel.processes.get_mut(&60).unwrap().children = vec![40];
    world.engine.kernel.processes.get_mut(&40).unwrap().children = vec![41];
    world.engine.kernel.losses.lost = 1;
    world.run_for(5 * SECOND);
    assert_eq!([40, 41].map(|pid| world.cgroup_of(pid)), ["/remote/1000", "/remote/1001"]);
}

#[test]
fn living_descendants_are_found_after_a_loss() {
    let mut world = World::new(REMOTE);
    sshd(&mut world);
    world.child(50, 51);
    world.child(51, 52);
    world.engine.kernel.set_uid(52, 1000);
    let FakeKernel { events, forks, losses, .. } = &mut world.engine.kernel;
    losses.lost = (events.drain(..).count() + forks.drain(..).count()) as u64;
    world.run_for(3 * SECOND);
    assert_eq!(world.cgroup_of(52), "/remote/1000");
}

#[test]
fn a_later_process_with_the_pid_of_a_descendant_is_not_below_the_program() {
    let mut world = World::new(REMOTE);
    sshd(&mut world);
    world.child(50, 51);
    world.run_for(SECOND / 20);
    world.end(51);
    world.child(SHELL, 51);
    world.become_user(51, 1000);
    assert_eq!(world.cgroup_of(51), "/local/1000");
}

#[test]
fn a_process_keeps_the_rule_after_a_restart_and_its_children_do() {
    let mut world = World::new(REMOTE);
    for (raw, cgroup) in [(61, "/remote/1000"), (62, "/elsewhere")] {
        world.start(raw, cgroup);
    }
    world.engine.kernel.losses.lost = 1;
    world.run_for(2 * SECOND);
    assert_eq!([61, 62].map(|pid| world.cgroup_of(pid)), ["/remote/1000", "/local/1000"]);
    world.child(61, 63);
    world.engine.kernel.exec(63, "sh");
    world.run_for(SECOND / 20);
    assert_eq!(world.cgroup_of(63), "/remote/1000");
}

#[test]
fn without_such_a_rule_nothing_is_recorded() {
    let mut world = World::new(PEOPLE);
    sshd(&mut world);
    world.child(50, 51);
    world.run_for(SECOND / 20);
    assert!(!world.engine.ancestry.is_active());
}

impl World {
    /// Starts a process of a user that no event reports.
    fn start(&mut self, raw: u32, cgroup: &str) {
        let cgroup = cgroup.to_owned();
        let process = FakeProcess {
            parent: 1,
            comm: "sh",
            uid: 1000,
            cgroup,
            started: 5,
            ..FakeProcess::default()
        };
        self.engine.kernel.start(raw, process);
    }
}

/// It is evaluated while it still runs the program as root, and exits before its change of the user is evaluated.
#[test]
fn an_orphan_of_a_fork_of_the_program_stays_below_it() {
    let mut world = World::new(REMOTE);
    sshd(&mut world);
    world.child(50, 51);
    world.engine.kernel.exec(51, "sshd");
    world.run_for(SECOND / 20);
    world.engine.kernel.set_uid(51, 1000);
    world.child(51, 52);
    world.end(51);
    world.run_for(SECOND / 20);
    world.engine.kernel.exec(52, "sh");
    world.run_for(SECOND / 20);
    assert_eq!(world.cgroup_of(52), "/remote/1000");
}

#[test]
fn an_event_of_an_earlier_process_with_the_pid_passes_nothing_on_to_the_children_of_that() {
    let mut world = World::new(REMOTE);
    world.child(SHELL, 50);
    world.become_user(50, 1000);
    // The event is read after another process, which is a fork of the program, has the PID.
    world.engine.kernel.set_uid(50, 1001);
    world.child(50, 51);
    world.end(50);
    sshd_at(&mut world, 49);
    world.child(49, 50);
    world.become_user(51, 1000);
    assert_eq!(world.cgroup_of(51), "/local/1000");
}

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
        self.table.heard(fork)
    }

    /// A process is evaluated for a change at this time, or found by a scan.
    fn runs(&mut self, raw: u32, time: u64, is_event: bool, is_sshd: bool) {
        let (seen, since) = (self.at(100), self.at(time));
        let kernel = &mut self.world.engine.kernel;
        let identity = kernel.identity(pid(raw)).unwrap();
        kernel.clock.set(kernel.clock.get().max(since.0));
        let process =
            RunningProcess { pid: pid(raw), identity, seen, first: since, since, is_event };
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
