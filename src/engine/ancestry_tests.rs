//! Programs of ancestors: who passes them on, and who keeps them.

use super::*;

#[path = "ancestry_order_tests.rs"]
mod order;

/// What root starts below `/bin/sshd`, whoever it becomes, except for users who are no longer below it.
const REMOTE: &str = "[[rule]]\nuser = \"1000-1999\"\nbelow = \"sshd\"\ncgroup = \"remote/%U\"\n\
                      [[rule]]\nuser = \"1000-1999\"\ncgroup = \"local/%U\"\n";

impl World {
    /// Lets a process fork, which the kernel lists as its child.
    pub(super) fn child(&mut self, parent: u32, child: u32) {
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
