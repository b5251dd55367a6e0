//! Children and later processes that an event of another process has to reveal: born elsewhere, while a move was refused,
//! or while an executable could not be read.

use super::*;
use crate::kernel::program::Arguments;

const EDITORS: &str = "[[rule]]\nuser = \"1000\"\nexe = \"/bin/vi\"\ncgroup = \"editors\"\n";

impl World {
    /// Starts a process that runs a program before it gets the user for whom the rules are.
    fn start_running(&mut self, pid: u32, program: &'static str) {
        self.engine.kernel.fork(SHELL, pid);
        self.engine.kernel.processes.get_mut(&pid).unwrap().comm = program;
        self.engine.kernel.set_uid(pid, 1000);
    }

    /// Returns the numbers of the examinations of a process, in the order of the requests.
    fn examinations_of(&self, raw: u32) -> Vec<u64> {
        let requested = self.engine.kernel.examinations.iter().flatten();
        requested.filter(|one| one.pid == pid(raw)).map(|one| one.number).collect()
    }

    /// Sends the result of an examination.
    fn examined(&mut self, raw: u32, number: u64, examined: Examined) {
        let reply = WorkerReply::Examined { pid: pid(raw), number, examined };
        self.engine.kernel.replies.push(reply);
    }
}

/// Returns the result of an examination of `/bin/NAME`.
fn program(name: &str) -> Examined {
    let path: Box<[u8]> = format!("/bin/{name}").into_bytes().into();
    let (raw, on_host, invoked) = (path.clone(), true, None);
    Examined::Program(Program {
        raw,
        path,
        on_host,
        invoked,
        is_unreadable: false,
        arguments: Arguments::default(),
    })
}

#[test]
fn a_child_born_elsewhere_is_placed_although_its_creator_has_no_rule_any_more() {
    let mut world = World::new(PEOPLE);
    world.engine.kernel.moves = Some(Vec::new());
    world.start_of_user(101);
    world.run_for(SECOND);
    world.engine.kernel.move_by(SHELL, 101, "/other");
    // With CLONE_PARENT, so that the event names another parent.
    world.engine.kernel.fork(SHELL, 102);
    let creator = world.engine.kernel.processes[&101].clone();
    let child = FakeProcess { parent: SHELL, started: 102, ..creator };
    world.engine.kernel.start(102, child);
    world.engine.kernel.set_uid(101, 0);
    world.run_for(5 * SECOND);
    assert_eq!([101, 102].map(|pid| world.cgroup_of(pid)), ["/other", "/people/1000"]);
}

#[test]
fn a_child_of_a_process_born_elsewhere_is_placed_although_its_creator_was_placed_by_its_exec() {
    let mut world = World::new(PEOPLE);
    world.engine.kernel.moves = Some(Vec::new());
    world.start_of_user(101);
    // Between two reads of the trace.
    world.run_for(SECOND + SECOND / 10);
    world.engine.kernel.fork(101, 102);
    world.engine.kernel.move_by(101, 102, "/elsewhere");
    for traced in world.engine.kernel.moves.iter_mut().flatten() {
        traced.is_birth = true;
    }
    world.engine.kernel.fork(102, 103);
    // A placement reads its fork before the event of its creator is queued.
    world.engine.kernel.fork(SHELL, 104);
    world.engine.kernel.set_uid(104, 1000);
    world.run_for(SECOND / 10);
    world.engine.kernel.exec(102, "sh");
    world.run_for(SECOND / 10);
    assert_eq!([102, 103].map(|pid| world.cgroup_of(pid)), ["/people/1000", "/elsewhere"]);
    world.run_for(5 * SECOND);
    assert_eq!(world.cgroup_of(103), "/people/1000");
}

#[test]
fn a_child_born_between_a_change_and_a_pin_is_placed() {
    let mut world = World::new(PEOPLE);
    world.start_of_user(101);
    world.engine.kernel.fork(101, 102);
    let request = PinRequest { pid: Some(pid(101)), action: PinAction::Stay { children: false } };
    let client = PinClient { uid: Uid(0), process: SHELL };
    assert!(world.engine.grant(request, client).unwrap());
    world.run_for(3 * SECOND);
    assert_eq!([101, 102].map(|pid| world.cgroup_of(pid)), ["/", "/people/1000"]);
}

#[test]
fn a_child_that_a_pinned_process_creates_after_a_move_is_placed_unless_it_inherits_the_pin() {
    for is_pinned_before in [true, false] {
        let mut world = World::new(PEOPLE);
        world.engine.kernel.moves = Some(Vec::new());
        world.engine.kernel.fork(SHELL, 101);
        world.run_for(SECOND);
        let action = PinAction::Stay { children: !is_pinned_before };
        let request = PinRequest { pid: Some(pid(101)), action };
        let client = PinClient { uid: Uid(0), process: SHELL };
        // It has a user only now: no placement is recorded.
        let grant = |world: &mut World| assert!(world.engine.grant(request, client).unwrap());
        if is_pinned_before {
            grant(&mut world);
        }
        for raw in [101, 102, 103] {
            let kernel = &mut world.engine.kernel;
            match raw {
                101 => kernel.processes.get_mut(&101).unwrap().uid = 1000,
                _ => kernel.fork(raw - 1, raw),
            }
            if raw == 101 {
                kernel.move_by(SHELL, 101, "/other");
            }
        }
        world.engine.kernel.processes.remove(&102);
        if !is_pinned_before {
            grant(&mut world);
        }
        world.run_for(3 * SECOND);
        let places = [101, 103].map(|pid| world.cgroup_of(pid));
        assert_eq!(places, ["/other", "/people/1000"], "{is_pinned_before}");
    }
}

#[test]
fn the_recheck_of_a_process_takes_no_later_one_with_its_pid_for_it() {
    let mut world = World::new(PEOPLE);
    world.start_of_user(101);
    world.run_for(SECOND / 20);
    assert_eq!(world.cgroup_of(101), "/people/1000");
    // Its fork is not known, as after a loss.
    let other = FakeProcess {
        uid: 1000,
        comm: "sh",
        started: 1,
        cgroup: "/".to_owned(),
        ..FakeProcess::default()
    };
    world.engine.kernel.start(101, other);
    world.run_for(SECOND);
    assert_eq!(world.cgroup_of(101), "/people/1000");
    assert_eq!(world.count(|metrics| metrics.external_moves_found.get()), 0);
}

#[test]
fn a_process_with_the_pid_of_one_that_was_moved_was_not_moved() {
    for forks_are_read_first in [true, false] {
        let mut world = World::new(PEOPLE);
        world.engine.kernel.moves = Some(Vec::new());
        world.start_of_user(101);
        world.run_for(SECOND);
        world.engine.kernel.move_by(SHELL, 101, "/other");
        let clock = &world.engine.kernel.clock;
        clock.set(clock.get() + SECOND / 1000);
        world.engine.kernel.fork(SHELL, 101);
        // Without an event, so that it is elsewhere when the move is found.
        world.engine.kernel.processes.get_mut(&101).unwrap().uid = 1000;
        if forks_are_read_first {
            world.start_of_user(102);
            world.run_for(SECOND / 100);
        }
        world.run_for(SECOND);
        assert_eq!(world.cgroup_of(101), "/people/1000");
        assert_eq!(world.count(|metrics| metrics.external_moves_found.get()), 0);
        world.engine.kernel.move_by(SHELL, 101, "/other");
        world.run_for(SECOND);
        assert_eq!(world.cgroup_of(101), "/people/1000", "its own first move");
    }
}

#[test]
fn a_process_with_a_thread_that_has_the_pid_of_one_that_was_moved_was_not_moved() {
    let mut world = World::new(PEOPLE);
    world.engine.kernel.moves = Some(Vec::new());
    world.start_of_user(101);
    let request = PinRequest { pid: Some(pid(101)), action: PinAction::Stay { children: false } };
    let client = PinClient { uid: Uid(0), process: SHELL };
    assert!(world.engine.grant(request, client).unwrap());
    world.start_of_user(102);
    world.start_of_user(103);
    world.run_for(SECOND);
    // A move by a user ends a pin.
    world.engine.kernel.move_by(102, 103, "/other");
    world.engine.kernel.processes.remove(&103);
    world.engine.kernel.threads.insert(103, 101);
    world.run_for(2 * SECOND);
    assert_eq!(world.cgroup_of(101), "/");
}

/// It was born elsewhere, and nothing of its own happens.
#[test]
fn a_child_of_a_process_that_exits_before_its_retry_is_placed() {
    let mut world = World::new(PEOPLE);
    world.engine.kernel.moves = Some(Vec::new());
    world.start_of_user(101);
    world.run_for(SECOND);
    world.engine.kernel.move_by(SHELL, 101, "/other");
    world.engine.kernel.fork(101, 102);
    for (path, is_child_placed) in [("/people/1000", false), ("/nowhere", true)] {
        world.engine.kernel.refusals = [(path.to_owned(), Errno::EAGAIN)].into();
        world.run_for(SECOND);
        world.engine.kernel.processes.remove(&101);
        world.run_for(3 * SECOND);
        assert_eq!(world.cgroup_of(102) == "/people/1000", is_child_placed);
    }
}

#[test]
fn a_read_that_blocks_leaves_the_process_to_the_rules_that_need_no_executable() {
    let mut world = World::new(&format!("{EDITORS}{PEOPLE}"));
    for (pid, comm) in [(101, "vi"), (102, "blocks")] {
        world.start_running(pid, comm);
        world.run_for(SECOND);
    }
    assert_eq!([101, 102].map(|pid| world.cgroup_of(pid)), ["/editors", "/people/1000"]);
    assert_eq!(world.count(|metrics| metrics.blocked_reads.get()), 1);
}

/// A program that blocks is left, so that its end places nobody, but children execute it still.
#[test]
fn a_child_of_a_process_with_a_blocked_read_is_placed_when_the_read_returns() {
    let mut world = World::new(&format!("{EDITORS}{PEOPLE}"));
    world.start_running(101, "blocks");
    world.run_for(SECOND);
    world.engine.kernel.fork(101, 102);
    // Other threads read the executables of the user for ten seconds after a read that blocked.
    world.run_for(11 * SECOND);
    for (pid, comm) in [(101, "sh"), (102, "vi")] {
        world.engine.kernel.processes.get_mut(&pid).unwrap().comm = comm;
    }
    world.engine.kernel.replies.push(WorkerReply::Readable(pid(101)));
    world.run_for(2 * SECOND);
    assert_eq!([101, 102].map(|pid| world.cgroup_of(pid)), ["/people/1000", "/editors"]);
}

/// Children of a process that was decided without its executable execute that program, even if it is gone.
#[test]
fn a_process_that_changes_after_its_late_examination_causes_a_scan() {
    for executes_again in [false, true] {
        let mut world = World::new(&format!("{EDITORS}{PEOPLE}"));
        world.engine.kernel.examinations = Some(Vec::new());
        for (pid, comm) in [(101, "blocks"), (102, "vi")] {
            world.start_running(pid, comm);
            world.run_for(SECOND);
        }
        let number = world.examinations_of(102).pop();
        assert_eq!(world.cgroup_of(102), "/people/1000", "decided without its executable");
        assert_eq!(world.count(|metrics| metrics.scans.get()), 1);
        if executes_again {
            world.engine.kernel.exec(102, "sh");
        } else {
            world.examined(102, number.unwrap(), Examined::Changed);
        }
        world.run_for(2 * SECOND);
        assert_eq!(world.count(|metrics| metrics.scans.get()), 2, "{executes_again}");
    }
}

/// The exec is decided without the executable, and then the user changes.
#[test]
fn an_examination_from_before_an_exec_decides_nothing_after_it() {
    let ignored = "[[rule]]\nuser = \"1001\"\nignore = true\n";
    let mut world = World::new(&format!("{ignored}{EDITORS}{PEOPLE}"));
    world.engine.kernel.examinations = Some(Vec::new());
    for (pid, comm) in [(101, "blocks"), (102, "sh")] {
        world.start_running(pid, comm);
        world.run_for(SECOND / 100);
    }
    world.engine.kernel.set_uid(102, 1001);
    world.engine.kernel.exec(102, "vi");
    world.run_for(SECOND / 100);
    world.engine.kernel.set_uid(102, 1000);
    world.run_for(SECOND / 100);
    let numbers = world.examinations_of(102);
    assert_eq!(numbers.len(), 2);
    for (number, name) in numbers.into_iter().zip(["sh", "vi"]) {
        world.examined(102, number, program(name));
        world.run_for(SECOND / 100);
    }
    assert_eq!(world.cgroup_of(102), "/editors");
}

/// The reply of the examination and the event of the next exec arrive in the same turn.
#[test]
fn an_examination_from_before_an_exec_that_is_evaluated_decides_nothing() {
    let mut world = World::new(&format!("{EDITORS}{PEOPLE}"));
    world.engine.kernel.examinations = Some(Vec::new());
    for (pid, comm) in [(101, "blocks"), (102, "vi")] {
        world.start_running(pid, comm);
        world.run_for(SECOND / 100);
    }
    let number = world.examinations_of(102).pop().unwrap();
    // From now on the executables of the user are read at once again.
    world.engine.kernel.replies.push(WorkerReply::Readable(pid(101)));
    world.engine.kernel.processes.get_mut(&101).unwrap().comm = "sh";
    world.run_for(11 * SECOND);
    world.examined(102, number, program("vi"));
    world.engine.kernel.exec(102, "sh");
    world.run_for(SECOND / 100);
    assert_eq!(world.cgroup_of(102), "/people/1000");
}

/// The event of the exec is lost after the examination read the link, and its result arrives after the scan.
#[test]
fn an_examination_that_a_scan_finds_pending_is_repeated_after_its_result() {
    let mut world = World::new(&format!("{EDITORS}{PEOPLE}"));
    world.engine.kernel.examinations = Some(Vec::new());
    for (pid, comm) in [(101, "blocks"), (102, "vi")] {
        world.start_running(pid, comm);
        world.run_for(2 * SECOND);
    }
    world.engine.kernel.processes.get_mut(&102).unwrap().comm = "sh";
    world.engine.kernel.losses.lost = 1;
    world.run_for(2 * SECOND);
    let examined = world.examinations_of(102);
    world.examined(102, examined[0], program("vi"));
    world.run_for(SECOND / 100);
    assert_eq!((examined.len(), world.cgroup_of(102)), (1, "/editors"));
    let number = world.examinations_of(102).pop().unwrap();
    assert_ne!(number, examined[0]);
    world.examined(102, number, program("sh"));
    world.run_for(SECOND / 100);
    assert_eq!(world.cgroup_of(102), "/people/1000");
}

/// The events of its exec and of its change of user are lost.
#[test]
fn a_program_that_was_examined_before_its_process_became_root_is_no_ancestor() {
    let below = "[[rule]]\nuser = \"1000\"\nbelow = \"sshd\"\ncgroup = \"remote\"\n";
    let mut world = World::new(&format!("{EDITORS}{below}{PEOPLE}"));
    world.engine.kernel.examinations = Some(Vec::new());
    for (pid, comm) in [(101, "blocks"), (102, "sshd")] {
        world.start_running(pid, comm);
        world.run_for(SECOND / 100);
    }
    world.child(102, 103);
    world.run_for(SECOND / 100);
    let number = world.examinations_of(102).pop().unwrap();
    let creator = world.engine.kernel.processes.get_mut(&102).unwrap();
    (creator.uid, creator.comm) = (0, "sh");
    world.examined(102, number, program("sshd"));
    world.run_for(2 * SECOND);
    assert_eq!(world.cgroup_of(103), "/people/1000");
}

/// The fork of the process that has its PID by now is read later.
#[test]
fn a_change_that_waits_for_an_examination_is_none_of_a_later_process_with_the_pid() {
    let below = "[[rule]]\nuser = \"1000\"\nbelow = \"sshd\"\ncgroup = \"remote\"\n";
    let mut world = World::new(&format!("{below}{PEOPLE}"));
    world.engine.kernel.examinations = Some(Vec::new());
    for (pid, comm) in [(101, "blocks"), (102, "sh")] {
        world.child(SHELL, pid);
        world.engine.kernel.exec(pid, comm);
        world.run_for(SECOND / 100);
    }
    let number = world.examinations_of(102).pop().unwrap();
    world.child(102, 103);
    world.engine.kernel.set_uid(103, 1000);
    world.run_for(SECOND / 100);
    let earlier = world.engine.kernel.processes.remove(&102).unwrap();
    let later = FakeProcess { comm: "sshd", started: 1 << 40, children: Vec::new(), ..earlier };
    world.engine.kernel.start(102, later);
    for (number, name) in [(Some(number), "sh"), (None, "sshd")] {
        let number = number.or_else(|| world.examinations_of(102).pop()).unwrap();
        world.examined(102, number, program(name));
        world.run_for(SECOND / 100);
    }
    assert_eq!(world.cgroup_of(103), "/people/1000");
}
