//! The main loop of the daemon, as in `daemon.rs`, on the simulated machine.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use cgruled::config::daemon_toml::ExternalMoves;
use cgruled::control::plan::PlanReply;
use cgruled::engine::kernel::Kernel;
use cgruled::engine::{Engine, EngineOptions, TurnResult};
use cgruled::kernel::container::Containment;
use cgruled::kernel::program::{ExeRead, ReadRequest};
use cgruled::policy::planned::PlanSources;
use cgruled::telemetry::metrics::Metrics;
use nix::errno::Errno;

use super::boundary::{Killed, SimKernel};
use super::machine::{Machine, Request};
use super::plans::{EVERY, PlanCheck};
use super::programs::PROGRAMS;
use super::rules;
use super::services::{BlockedRead, Services};
use super::situations::Situation;
use super::tally::Tally;

const MS: u64 = 1_000_000;
/// Time from the last step of the kernel to the check: rechecks, a drain of the fork socket, a scan
/// after a loss and one after that.
const REST_NS: u64 = 4_500 * MS;
/// The same when retries must have succeeded.
const LONG_REST_NS: u64 = 130_000 * MS;
/// Time for which other threads read the executables of a user after a read blocked.
const SLOW_NS: u64 = 10_000 * MS;
/// Interval of the main loop's other checks.
const CLOCKS_NS: u64 = 1_000 * MS;
/// Turns in one rest after which the engine counts as busy for ever.
const MOST_TURNS: u32 = 200_000;

/// One life of the daemon.
struct Daemon {
    machine: Rc<RefCell<Machine>>,
    engine: Engine<SimKernel>,
    metrics: Arc<Metrics>,
    clocks_due: u64,
    /// Start of the rest, its end, and the turns since.
    rest: Option<(u64, u64, u32)>,
    /// The plan of this rest.
    plan: Option<PlanCheck>,
}

/// Runs a history to its end, or to the first violation.
pub(crate) fn run(machine: &Rc<RefCell<Machine>>) {
    loop {
        let result = catch_unwind(AssertUnwindSafe(|| live(machine)));
        let mut borrowed = machine.borrow_mut();
        let is_over = match result {
            Ok(()) => true,
            Err(payload) if payload.is::<Killed>() => false,
            Err(payload) => {
                let text = payload
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| payload.downcast_ref::<&str>().copied());
                let text = format!("panic: {}", text.unwrap_or("unknown"));
                borrowed.violate(text);
                true
            }
        };
        if is_over || borrowed.violation.is_some() {
            return;
        }
        borrowed.bury();
    }
}

impl Machine {
    /// The daemon is dead: its sockets are closed, its requests forgotten, its pins void.
    fn bury(&mut self) {
        self.is_killed = false;
        self.is_running = false;
        self.in_attach = false;
        self.is_scanning = false;
        self.opened = None;
        self.event_socket.queue.clear();
        self.fork_socket.queue.clear();
        self.trace.clear();
        self.lost_moves = 0;
        self.moved_at.clear();
        self.services = Services::default();
        self.policies.clear();
        self.requests.clear();
        for pid in self.pids.clone() {
            let Some(process) = self.find_mut(pid) else { continue };
            process.is_pinned = false;
            process.pins_children = false;
            // A scan evaluates it; the daemon of before knows nothing any more.
            process.excuses = super::process::Excuses::default();
            process.placed_at = 0;
            process.mistaken = None;
            process.unread_change = None;
        }
        // The kernel goes on while no daemon runs.
        for _ in 0..5 {
            if self.wants_rest || self.violation.is_some() {
                break;
            }
            self.take();
        }
        self.is_killed = false;
    }
}

/// Starts the daemon and runs it until the history ends.
fn live(machine: &Rc<RefCell<Machine>>) {
    let mut daemon = Daemon::start(machine);
    loop {
        let result = daemon.turn();
        if daemon.wait(result) {
            return;
        }
    }
}

impl Daemon {
    fn start(machine: &Rc<RefCell<Machine>>) -> Self {
        let kernel = SimKernel::new(machine);
        let (policy, config) = {
            let mut machine = machine.borrow_mut();
            machine.is_running = true;
            machine.has_resubscribed = false;
            machine.dropped_before = machine.event_socket.dropped + machine.fork_socket.dropped;
            machine.tally = Tally::default();
            machine.built += 1;
            let generation = machine.built;
            let policy = machine.build_policy(generation);
            let users = policy.users.values().map(|user| user.identity.clone()).collect();
            machine.activate(generation, users);
            let clock = machine.clock;
            machine.journal.note(clock, || "the daemon starts".to_owned());
            (policy, machine.config)
        };
        machine.borrow_mut().counts.hit(Situation::StartWithProcesses);
        let metrics = Arc::new(Metrics::default());
        let external_moves =
            if config.reports_only { ExternalMoves::Report } else { ExternalMoves::Revert };
        let options = EngineOptions {
            recheck_ns: Some(100 * MS),
            finds_external_moves: true,
            move_scan_ns: 50_000 * MS,
            external_moves,
            is_dry_run: false,
        };
        let engine = Engine::new(kernel, policy, Arc::clone(&metrics), options);
        Self { machine: Rc::clone(machine), engine, metrics, clocks_due: 0, rest: None, plan: None }
    }

    fn turn(&mut self) -> TurnResult {
        loop {
            match self.engine.turn() {
                Ok(TurnResult::Read(request)) => self.read(request),
                Ok(result) => return result,
                Err(error) => {
                    self.machine.borrow_mut().violate(format!("turn: {error}"));
                    return TurnResult::Idle;
                }
            }
        }
    }

    /// Reads an executable, which may block.
    fn read(&mut self, request: ReadRequest) {
        let _before = self.engine.kernel().now();
        let mut machine = self.machine.borrow_mut();
        let pid = request.pid.get();
        let process = machine.find(pid);
        let hangs = process.is_some_and(|one| one.hang.is_some());
        let identity = process.map_or(0, |one| one.identity);
        let uid = process.map_or(0, |one| one.acting().0);
        if hangs || machine.late_reads > 0 && process.is_some() {
            machine.late_reads = machine.late_reads.saturating_sub(u32::from(!hangs));
            machine.counts.hit(Situation::HangingRead);
            machine.services.blocked.push(BlockedRead { process: pid, identity, uid });
            machine.blocked_at = machine.clock;
            drop(machine);
            for _ in 0..5 {
                let _later = self.engine.kernel().now();
            }
            return self.engine.read_is_late();
        }
        let link = match process {
            Some(one) if request.thread.is_none() && one.has_leader_exited => Err(Errno::ENOENT),
            Some(one) if one.is_kernel_thread || one.is_zombie => Err(Errno::ENOENT),
            Some(one) if PROGRAMS[one.program].is_hidden => Err(Errno::EACCES),
            Some(one) => Ok(PROGRAMS[one.program]),
            None => Err(Errno::ENOENT),
        };
        drop(machine);
        let shares = link.is_ok_and(|program| program.shares_mounts);
        let containment = request.namespaces.then_some(Containment::Host);
        let link = link.map(|program| program.link.as_bytes());
        self.engine.supply(&ExeRead::new(link, shares, containment));
    }

    /// Waits for events as the main loop does. Returns true at the end of the history.
    fn wait(&mut self, result: TurnResult) -> bool {
        let now = self.machine.borrow().clock;
        if result != TurnResult::Quiet || now >= self.clocks_due {
            self.clocks_due = now + CLOCKS_NS;
        }
        self.machine.borrow_mut().is_scanning = !self.engine.is_settled();
        let is_busy = result == TurnResult::Busy;
        let due = if is_busy { now } else { self.engine.next_turn().0.min(self.clocks_due) };
        let pause = self.engine.pause(cgruled::event::Nanos(now));
        if self.machine.borrow().wants_rest && self.rest(is_busy) {
            return true;
        }
        if pause > 0 && !is_busy {
            self.machine.borrow_mut().sleep_until(now + pause, false);
        }
        if !is_busy {
            self.machine.borrow_mut().sleep_until(due, true);
        }
        self.serve();
        false
    }

    /// Continues a rest. Returns true if it was the end of the history.
    fn rest(&mut self, is_busy: bool) -> bool {
        let mut machine = self.machine.borrow_mut();
        let now = machine.clock;
        let Some((began, end, turns)) = self.rest else {
            machine.fall_silent();
            let is_long = machine.rests % 16 == 15;
            let length = if is_long { LONG_REST_NS } else { REST_NS };
            let length = length + 10 * std::mem::take(&mut machine.stalled);
            let after_block = machine.blocked_at + SLOW_NS + length;
            self.rest = Some((now, after_block.max(now + length), 0));
            return false;
        };
        machine.deliver_all();
        self.rest = Some((began, end, turns + 1));
        if turns > MOST_TURNS {
            machine.violate("the engine does not come to rest".to_owned());
            return true;
        }
        // A periodic scan may have begun shortly before the end, and wait for replies.
        if now < end.max(machine.scanned_at + REST_NS) || is_busy {
            return false;
        }
        let is_long = end - began >= LONG_REST_NS;
        machine.check_rest(&self.metrics, is_long);
        if machine.violation.is_some() {
            let counters = self.metrics.counters();
            let text =
                counters.iter().filter(|one| one.1 > 0).map(|(name, n)| format!(" {name}={n}"));
            let text: String = text.collect();
            machine.journal.note(now, || format!("counters:{text}"));
        }
        let is_over = machine.violation.is_some();
        drop(machine);
        if !is_over && self.check_plan(now) {
            return false;
        }
        let mut machine = self.machine.borrow_mut();
        machine.rests += 1;
        machine.is_silent = false;
        machine.stalled = 0;
        machine.wants_rest = false;
        self.rest = None;
        machine.violation.is_some() || machine.next.is_none()
    }

    /// Continues the check of a plan. Returns whether the rest goes on for it.
    fn check_plan(&mut self, now: u64) -> bool {
        match self.plan.take() {
            None => {
                let mut machine = self.machine.borrow_mut();
                if machine.rests % EVERY != 0 {
                    return false;
                }
                machine.files = rules::chosen((machine.rests / EVERY * 7919) as u16);
                machine.is_planning = true;
                drop(machine);
                let (reply, received) = crossbeam_channel::bounded(1);
                self.engine.expect_other_work();
                self.engine.plan(PlanSources::default(), reply);
                let places = self.machine.borrow().places();
                self.plan = Some(PlanCheck::Requested(received, places));
            }
            Some(PlanCheck::Requested(received, places)) => {
                self.machine.borrow_mut().is_planning = false;
                let Ok(PlanReply::Plan(plan)) = received.try_recv() else {
                    self.machine.borrow_mut().violate("no plan".to_owned());
                    return false;
                };
                let expected = self.machine.borrow().expected_by(&plan, &places);
                self.plan = Some(PlanCheck::Reloading(expected));
                self.engine.expect_other_work();
                self.engine.reload();
            }
            Some(PlanCheck::Reloading(expected)) => {
                self.machine.borrow_mut().check_plan(expected);
                return false;
            }
        }
        // A plan waits for five seconds at a time, and a read that blocked makes a user slow.
        let slow = self.machine.borrow().blocked_at + SLOW_NS;
        self.rest = Some((now, slow.max(now + REST_NS) + 4 * REST_NS, 0));
        true
    }

    /// Serves what ended the wait, other than events and the timer.
    fn serve(&mut self) {
        let (has_replies, request) = {
            let mut machine = self.machine.borrow_mut();
            let has_replies = !machine.services.replies.is_empty();
            (has_replies, machine.requests.pop_front())
        };
        if has_replies {
            self.engine.expect_other_work();
            self.engine.take_answers();
        }
        match request {
            Some(Request::Signal) => {
                self.engine.expect_other_work();
                self.engine.reload();
            }
            Some(Request::Pin(request, client, meant)) => {
                self.engine.expect_other_work();
                let open = self.machine.borrow_mut().open_pin(request);
                let is_granted = self.engine.grant(request, client).unwrap_or(false);
                self.machine.borrow_mut().close_pin(request, open.as_ref(), meant, is_granted);
            }
            None => {}
        }
    }
}
