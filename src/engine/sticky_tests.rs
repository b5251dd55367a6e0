use super::*;
use crate::engine::fake_kernel::{FakeKernel, FakeProcess, pid};

const ROOT: Uid = Uid(0);
const ALICE: Uid = Uid(61_701);

/// Processes and a table.
struct PinTest {
    kernel: FakeKernel,
    sticky: PinTable,
}

#[test]
fn a_pin_includes_moves_before_it_and_those_of_its_client_soon_after() {
    let mut world = PinTest::new(&[5]);
    world.stay(5, false);
    let pin = world.sticky.pin(pid(5), &mut world.kernel).unwrap();
    let soon = pin.since.plus(1_000);
    assert!(pin.includes(8, pin.since) && pin.includes(7, soon));
    assert!(!pin.includes(8, soon) && !pin.includes(7, pin.since.plus(CLIENT_MOVES_NS)));
    world.sticky.unpin(pid(5), pin);
    assert_eq!(world.sticky.pin(pid(5), &mut world.kernel), None);
}

impl PinTest {
    fn new(pids: &[u32]) -> Self {
        let mut world = Self { kernel: FakeKernel::new(), sticky: PinTable::new(Arc::default()) };
        pids.iter().for_each(|&pid| world.run(pid, 100, ALICE));
        world
    }

    fn run(&mut self, pid: u32, started: u64, uid: Uid) {
        self.kernel.start(pid, FakeProcess { started, uid: uid.0, ..FakeProcess::default() });
    }

    /// Lets the kernel list a process as a child.
    fn adopt(&mut self, parent: u32, child: u32) {
        self.kernel.processes.get_mut(&parent).unwrap().children.push(child);
        self.kernel.processes.get_mut(&child).unwrap().parent = parent;
    }

    fn end(&mut self, pid: u32) {
        self.kernel.processes.remove(&pid).unwrap();
    }

    fn ask(&mut self, raw: u32, action: PinAction, peer: Uid) -> bool {
        let request = PinRequest { pid: Pid::new(raw), action };
        self.sticky.grant(request, PinClient { uid: peer, process: 7 }, peer, &mut self.kernel)
    }

    fn stay(&mut self, raw: u32, children: bool) {
        assert!(self.ask(raw, PinAction::Stay { children }, ROOT));
    }

    fn fork(&mut self, parent: u32, child: u32) {
        let _ends = self.hear(parent, child);
    }

    /// Returns whether the fork ends the pin of an earlier process with the PID of the child.
    fn hear(&mut self, parent: u32, child: u32) -> bool {
        // After all pins.
        let at = self.kernel.now();
        let fork = Fork { at, parent: pid(parent), child: pid(child) };
        self.sticky.heard(fork, at) == Birth::EndsEarlier
    }

    fn emptied(&mut self) {
        self.sticky.emptied(&mut self.kernel);
    }

    fn holds(&mut self, raw: u32) -> bool {
        self.sticky.holds(pid(raw), &mut self.kernel)
    }
}

#[test]
fn a_wish_holds_for_a_process_and_not_for_its_number() {
    let mut world = PinTest::new(&[5]);
    assert!(!world.holds(5));
    world.stay(5, false);
    assert!(world.holds(5) && !world.holds(6) && !world.sticky.has_descendants());
    world.run(5, 101, ALICE);
    assert!(!world.holds(5));
}

#[test]
fn a_later_wish_replaces_the_earlier() {
    let mut world = PinTest::new(&[5, 6]);
    world.stay(5, true);
    world.stay(5, false);
    world.fork(5, 6);
    world.emptied();
    assert!(world.holds(5) && !world.holds(6));
    assert!(world.ask(5, PinAction::Cancel, ROOT) && !world.holds(5));
}

#[test]
fn others_than_root_name_their_own_processes() {
    let mut world = PinTest::new(&[5]);
    world.run(6, 100, ROOT);
    assert!(world.ask(5, PinAction::Stay { children: false }, ALICE));
    assert!(!world.ask(5, PinAction::Cancel, Uid(61_702)) && world.holds(5));
    assert!(!world.ask(6, PinAction::Stay { children: false }, ALICE));
    assert!(!world.ask(7, PinAction::Stay { children: false }, ROOT), "there is no 7");
    assert!(!world.ask(0, PinAction::Cancel, ROOT));
    assert_eq!(world.sticky.metrics.sticky_refused.get(), 4);
}

#[test]
fn heirs_of_heirs_inherit_whoever_ended_meanwhile() {
    let mut world = PinTest::new(&[5, 7]);
    world.stay(5, true);
    // Process 6 exits before any evaluation, and its last fork is read later.
    world.fork(5, 6);
    world.emptied();
    world.end(5);
    world.fork(6, 7);
    world.emptied();
    assert!(world.holds(7));
    world.emptied();
    assert!(world.sticky.pins.entry(pid(6)).is_none(), "nothing of 6 can come any more");
}

#[test]
fn a_fork_before_the_wish_does_not_inherit() {
    let mut world = PinTest::new(&[5, 6]);
    let before = world.kernel.now();
    world.stay(5, true);
    let fork = Fork { at: before, parent: pid(5), child: pid(6) };
    assert_eq!(world.sticky.heard(fork, before), Birth::Unmarked);
    world.emptied();
    assert!(!world.holds(6));
}

#[test]
fn a_number_that_somebody_else_gave_out_is_free() {
    let mut world = PinTest::new(&[1, 5, 6]);
    world.stay(5, true);
    world.fork(5, 6);
    world.emptied();
    assert!(world.holds(6));
    assert!(world.hear(1, 6) && !world.holds(6));
    assert!(!world.hear(1, 6));
}

#[test]
fn the_dead_leave_the_table() {
    let mut world = PinTest::new(&[5, 6]);
    world.stay(5, true);
    world.stay(6, false);
    world.end(5);
    world.end(6);
    world.sticky.pins.sweep(64, &mut world.kernel);
    assert_eq!(world.sticky.pins.len(), 1, "the last fork of 5 may still come");
    assert!(world.sticky.has_descendants());
    world.emptied();
    assert!(world.sticky.pins.len() == 0 && !world.sticky.has_descendants());
}

#[test]
fn who_asks_and_cancels_for_ever_takes_no_room() {
    let mut world = PinTest::new(&[5]);
    for _ in 0..1000 {
        world.stay(5, true);
        assert!(world.ask(5, PinAction::Cancel, ALICE));
    }
    assert!(world.sticky.pins.queued() < 100);
}

#[test]
fn a_storm_of_heirs_does_not_fill_the_table() {
    let mut world = PinTest::new(&[5]);
    world.stay(5, true);
    for child in 100..2100 {
        world.fork(5, child);
        world.emptied();
    }
    assert!(world.sticky.pins.len() < 100, "{}", world.sticky.pins.len());
}

#[test]
fn one_user_does_not_fill_the_table() {
    const BOB: Uid = Uid(61_702);
    let mut world = PinTest::new(&[5, 6]);
    world.run(7, 100, BOB);
    assert!(world.ask(5, PinAction::Stay { children: true }, ALICE));
    let children = 100..100 + MOST_OF_USER + 50;
    children.clone().for_each(|child| world.fork(5, child));
    assert_eq!(world.sticky.pins.len() as u32, MOST_OF_USER);
    assert_eq!(world.sticky.metrics.sticky_over_limit.get(), 51);
    assert!(
        !world.sticky.pins.has_room(pid(6), ALICE) && world.sticky.pins.has_room(pid(5), ALICE)
    );
    assert!(world.ask(7, PinAction::Stay { children: false }, BOB), "others have room");
    world.run(8, 100, ROOT);
    assert!(world.ask(8, PinAction::Stay { children: false }, ROOT));
    // The children have ended, and make room when their last forks were read.
    assert!(!world.ask(6, PinAction::Stay { children: false }, ALICE));
    world.emptied();
    assert!(world.ask(6, PinAction::Stay { children: false }, ALICE));
    for raw in [5, 6] {
        assert!(world.ask(raw, PinAction::Cancel, ALICE));
    }
    assert_eq!(world.sticky.pins.used() as usize, world.sticky.pins.len());
}

#[test]
fn lost_forks_are_made_good_by_the_living_children() {
    let mut world = PinTest::new(&[5, 6, 7]);
    world.stay(5, true);
    for (parent, child) in [(5, 6), (6, 7)] {
        world.adopt(parent, child);
    }
    world.sticky.search(&mut world.kernel);
    assert!(world.holds(6) && world.holds(7));
}

/// Whichever of both is looked at first.
#[test]
fn a_child_with_the_pid_of_an_earlier_pinned_process_is_pinned_after_a_loss() {
    for parent in [5, 50, 60, 70] {
        let pids: Vec<u32> = (6..40).collect();
        let mut world = PinTest::new(&[parent]);
        world.stay(parent, true);
        for &pid in &pids {
            world.run(pid, 100, ALICE);
            world.stay(pid, true);
            world.run(pid, 101, ALICE);
            world.adopt(parent, pid);
        }
        world.sticky.search(&mut world.kernel);
        assert!(pids.into_iter().all(|pid| world.holds(pid)), "{parent}");
    }
}

#[test]
fn a_lost_fork_pins_no_later_process_with_the_pid_of_a_descendant() {
    let mut world = PinTest::new(&[5, 6, 7, 8, 9]);
    world.stay(5, true);
    world.stay(7, true);
    for child in [6, 8] {
        world.fork(5, child);
    }
    world.emptied();
    world.adopt(5, 6);
    // The PIDs 7 and 8 belong to others by now, whose forks were lost.
    world.run(7, 101, ALICE);
    world.adopt(7, 9);
    world.sticky.search(&mut world.kernel);
    assert_eq!([5, 6, 7, 8, 9].map(|pid| world.holds(pid)), [true, true, false, false, false]);
    assert_eq!(world.sticky.metrics.sticky_inherited.get(), 2);
    // Nor the children that the one with the PID 7 creates before the next loss.
    world.run(10, 102, ALICE);
    world.fork(7, 10);
    world.emptied();
    assert!(!world.holds(10));
    assert_eq!(world.sticky.metrics.sticky_inherited.get(), 2);
}

#[test]
fn a_pin_that_was_ended_stays_so_after_a_loss() {
    let mut world = PinTest::new(&[5, 6, 7, 8]);
    world.stay(5, true);
    for child in [6, 7, 8] {
        world.fork(5, child);
        assert!(world.holds(child));
    }
    assert!(world.ask(6, PinAction::Cancel, ALICE));
    let broken = world.sticky.pin(pid(7), &mut world.kernel).unwrap();
    world.sticky.unpin(pid(7), broken);
    // The PID 8 belongs to another child by now, whose fork was lost.
    assert!(world.ask(8, PinAction::Cancel, ALICE));
    world.run(8, 101, ALICE);
    [6, 7, 8].into_iter().for_each(|child| world.adopt(5, child));
    world.sticky.search(&mut world.kernel);
    assert_eq!([5, 6, 7, 8].map(|pid| world.holds(pid)), [true, false, false, true]);
    // It can ask again, and its children inherit.
    world.stay(6, true);
    world.run(9, 102, ALICE);
    world.fork(6, 9);
    assert!(world.holds(6) && world.holds(9));
}
