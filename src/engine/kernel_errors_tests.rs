use std::cell::Cell;
use std::path::Path;

use super::*;
use crate::cgroup::host::ManagedRoots;
use crate::config::daemon_toml::ExternalMoves;
use crate::config::rules_toml;
use crate::engine::fake_kernel::{FakeKernel, FakeProcess, OWN};
use crate::engine::faulty_kernel::{Call, Faults, FaultyKernel, Frequency};
use crate::engine::{EngineOptions, TurnResult, external_moves};
use crate::policy::Policy;
use crate::rules::matcher::Matcher;

const SHELL: u32 = 100;
const SECOND: u64 = 1_000_000_000;
/// Time from one action of a storm to the next.
const ACTION_NS: u64 = 200_000;
const STORM_NS: u64 = SECOND / 5;
const RULES: &str = "version = 1\n[[rule]]\nuser = \"1000-1999\"\ncgroup = \"people/%U\"\n";

/// Errors of a lack of resources and of interruptions.
const PASSING: [Errno; 8] = [
    Errno::ENOBUFS,
    Errno::ENOMEM,
    Errno::EINTR,
    Errno::EMFILE,
    Errno::ENFILE,
    Errno::EAGAIN,
    Errno::ENOSPC,
    Errno::EIO,
];
/// Errors of a wrong call, which a repetition does not change.
const LASTING: [Errno; 4] = [Errno::EBADF, Errno::ENOTSOCK, Errno::EFAULT, Errno::EINVAL];
/// Calls whose result is an error of the engine.
const READS: [Call; 5] =
    [Call::DrainEvents, Call::DrainForks, Call::EventBacklog, Call::TakeLosses, Call::Processes];
/// Calls whose failure concerns one process, or is compensated by a scan.
const OTHERS: [Call; 4] = [Call::CreateGroup, Call::OpenGroup, Call::Attach, Call::ReadMoves];

/// Engine with storms of forks, user changes and exits, while calls fail.
struct Storm {
    engine: Engine<FaultyKernel>,
    random: u64,
    next_pid: u32,
}

impl Storm {
    fn new(call: Call, errno: Errno, frequency: Frequency) -> Self {
        let mut inner = FakeKernel::new();
        for (pid, parent) in [(1, 0), (SHELL, 1)] {
            let cgroup = "/".to_owned();
            inner.start(pid, FakeProcess { parent, comm: "sh", cgroup, ..FakeProcess::default() });
        }
        inner.moves = Some(Vec::new());
        let parsed = rules_toml::parse(&Arc::from(Path::new("/a.toml")), RULES);
        let matcher = Matcher::compile(parsed.rules.into_iter().map(|one| one.rule).collect());
        let roots = ManagedRoots::default();
        let policy = Policy::new(1, Arc::new(matcher), inner.hierarchies(), &roots, [], []);
        let options = EngineOptions {
            recheck_ns: Some(SECOND / 10),
            finds_external_moves: true,
            move_scan_ns: external_moves::MOVE_SCAN_NS,
            external_moves: ExternalMoves::Revert,
            is_dry_run: false,
        };
        let faults = Faults {
            call,
            errno,
            frequency: Cell::new(frequency),
            count: Cell::new(0),
            random: Cell::new(0x9e37_79b9_7f4a_7c15),
        };
        let kernel = FaultyKernel { inner, faults };
        let engine = Engine::new(kernel, Box::new(policy), Arc::default(), options);
        Self { engine, random: 0x2545_f491_4f6c_dd1d, next_pid: OWN + 1 }
    }

    fn random(&mut self, below: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.random >> 33).unwrap() % below
    }

    /// Lets a random process fork, change its user or exit.
    fn act(&mut self) {
        let alive: Vec<u32> =
            self.inner().processes.keys().copied().filter(|&pid| pid > 1).collect();
        let one = alive[self.random(alive.len())];
        match self.random(8) {
            0..=3 => {
                let child = self.next_pid;
                self.next_pid += 1;
                let kernel = &mut self.engine.kernel.inner;
                kernel.fork(one, child);
                kernel.processes.get_mut(&one).unwrap().children.push(child);
                kernel.processes.get_mut(&child).unwrap().children.clear();
            }
            4..=6 if one != SHELL => {
                let uid = [0, 1000, 1001, 2000][self.random(4)];
                self.engine.kernel.inner.set_uid(one, uid);
            }
            _ if one != SHELL => drop(self.engine.kernel.inner.processes.remove(&one)),
            _ => {}
        }
    }

    fn inner(&self) -> &FakeKernel {
        &self.engine.kernel.inner
    }

    /// Runs the engine as the main loop does, with one action each time if it storms.
    fn run_for(&mut self, nanoseconds: u64, storms: bool) -> io::Result<u64> {
        let end = self.engine.kernel.now().plus(nanoseconds);
        let mut turns = 0;
        while self.engine.kernel.now() < end {
            if storms {
                self.act();
            }
            self.engine.take_answers();
            turns += 1;
            let is_busy = match self.engine.turn()? {
                TurnResult::Busy => true,
                TurnResult::Read(_) => panic!("no rule needs an executable"),
                TurnResult::Idle | TurnResult::Quiet => false,
            };
            if is_busy {
                continue;
            }
            let now = self.engine.kernel.now();
            let is_readable = !self.inner().events.is_empty();
            let pause = now.plus(self.engine.pause(now));
            let next = if is_readable { pause } else { self.engine.next_turn().max(pause) };
            let next = if storms { next.min(now.plus(ACTION_NS)).max(pause) } else { next };
            let clock = &self.engine.kernel.inner.clock;
            clock.set(clock.get().max(next.min(end).0));
        }
        Ok(turns)
    }

    fn misplaced(&self) -> Vec<(u32, &FakeProcess)> {
        let is_wrong = |process: &FakeProcess| match process.uid {
            uid @ 1000..2000 => process.cgroup != format!("/people/{uid}"),
            _ => false,
        };
        let all = self.inner().processes.iter();
        all.filter(|(_, process)| is_wrong(process)).map(|(&pid, process)| (pid, process)).collect()
    }
}

/// Runs a storm with errors, and then asserts that all processes are right at rest.
fn survives(call: Call, errno: Errno, frequency: Frequency) {
    let what = format!("{call:?} {errno:?} {frequency:?}");
    let mut storm = Storm::new(call, errno, frequency);
    let turns = storm.run_for(STORM_NS, true).unwrap_or_else(|error| panic!("{what}: {error}"));
    let count = storm.engine.kernel.faults.count.get();
    if frequency == Frequency::Always {
        // A lasting error must not occupy a processor.
        assert!(turns < 4_000, "{what}: {turns} turns");
    }
    storm.engine.kernel.faults.frequency.set(Frequency::Never);
    storm.run_for(3 * SECOND, false).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(count > 0 || call == Call::EventBacklog, "{what}: no error");
    let misplaced = storm.misplaced();
    assert!(misplaced.is_empty(), "{what}: {}, {:?}", misplaced.len(), misplaced[0]);
    assert!(storm.inner().processes.len() > 20 && storm.engine.is_settled(), "{what}");
    if READS.contains(&call) {
        assert!(storm.engine.metrics.retried_calls.get() >= count.min(1), "{what}");
    }
}

#[test]
fn errors_that_can_pass_end_nothing_and_leave_no_process_outside() {
    for call in READS.into_iter().chain(OTHERS) {
        for errno in PASSING {
            for frequency in [Frequency::Once, Frequency::OneOf(3), Frequency::Always] {
                survives(call, errno, frequency);
            }
        }
    }
}

#[test]
fn an_error_of_a_wrong_call_ends_the_daemon() {
    for errno in LASTING {
        for call in READS.into_iter().filter(|call| *call != Call::EventBacklog) {
            let mut storm = Storm::new(call, errno, Frequency::Once);
            let error = storm.run_for(STORM_NS, true).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno as i32), "{call:?}");
        }
    }
}
