//! The whole behaviour of the daemon: events in, looks, placements out.
//!
//! An event only says *look at this process*. `Engine::look` reads what is true of it now, asks the
//! matcher for the first rule that holds, and lets the placer put it into its group. There is no table
//! of processes that could go stale.
//!
//! ```text
//! WATCH ─► batch ─► look ─► matcher ─► placer ─► cgroup.procs
//! TRAIL ─► trail ─► look (children forked before their parent's look had its effect)
//! 100 ms later ───► look (did it hold?)
//! start, reload, loss ─► scan ─► look (everybody)
//! ```
//!
//! [`Engine::turn`] does a bounded part of the work, so that signals and answers of other threads are
//! served meanwhile. What keeps the promise: an event is settled only by a look; a fork is judged only
//! after everything that was queued before it is settled (see [`crate::event::trail`]); and what the
//! kernel drops is counted exactly and answered by a scan.

mod account;
mod errands;
mod hearing;
mod managers;
mod waiting;

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::control::sticky::Sticky;
use crate::decision::{Decided, decide};
use crate::event::batch::Look;
use crate::event::{Cause, Nanos};
use crate::metrics::Metrics;
use crate::narrator::{Ending, Told};
use crate::placer::{Outcome, Placer, Subject};
use crate::policy::Policy;
use crate::process::{Grip, Proc};
use crate::program::{Program, Seen, Sight};
use crate::source::connector::Connector;
use crate::source::intake::Intake;
use crate::source::scan::Scan;
use crate::sys;
use crate::worker::{Answer, Desk};
use errands::{Errands, Noted};
use waiting::{Asked, SLOW_ANSWER_NS};

/// Looks of one kind before the other kinds are served: about a millisecond.
const AT_ONCE: usize = 256;
/// Rounds of one turn: some ten milliseconds until signals are served.
const ROUNDS: usize = 8;

/// How the engine behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// From a placement to its second look; `None` for no second look.
    pub recheck_ns: Option<u64>,
}

/// The daemon without its loop.
pub struct Engine {
    intake: Intake,
    proc: Proc,
    policy: Box<Policy>,
    placer: Placer,
    desk: Desk,
    metrics: Arc<Metrics>,
    options: Options,

    sticky: Sticky,
    scan: Scan,
    /// Second looks and when they are due, in order.
    rechecks: VecDeque<(Nanos, Look)>,
    /// Looks that wait for a name.
    waiting: HashMap<Asked, Vec<Look>, FixedState>,
    scan_is_due: bool,
    sight: Sight,
    errands: Errands,
    noted: Noted,
}

impl Engine {
    /// Ready to work; begins with a scan of all processes.
    pub fn new(
        connector: Connector,
        proc: Proc,
        policy: Box<Policy>,
        mut placer: Placer,
        desk: Desk,
        metrics: Arc<Metrics>,
        options: Options,
    ) -> Self {
        metrics.reloads.increment();
        placer.adopt(&policy);
        placer.managers().wake_by(desk.ringer());
        Self {
            intake: Intake::new(connector, Arc::clone(&metrics)),
            sticky: Sticky::new(Arc::clone(&metrics)),
            proc,
            policy,
            placer,
            desk,
            metrics,
            options,
            scan: Scan::default(),
            rechecks: VecDeque::new(),
            waiting: HashMap::default(),
            scan_is_due: true,
            sight: Sight::default(),
            errands: Errands::default(),
            noted: Noted::default(),
        }
    }

    /// The descriptor to poll. TRAIL is never polled.
    pub fn watch(&self) -> BorrowedFd<'_> {
        self.intake.watch()
    }

    /// The descriptor that becomes readable when another thread has an answer.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.desk.bell()
    }

    /// Takes the answers of other threads.
    pub fn take_answers(&mut self) {
        let answers: Vec<Answer> = self.desk.answers().collect();
        answers.into_iter().for_each(|answer| self.answer(answer));
    }

    /// Asks for the rules as they are now; they come as an answer.
    pub fn reload(&mut self) {
        self.errands.reload_asked();
        self.desk.reload();
    }

    /// Puts other rules into force and places everybody by them.
    fn adopt(&mut self, policy: Box<Policy>) {
        self.policy = policy;
        self.placer.adopt(&self.policy);
        self.metrics.reloads.increment();
        self.metrics.refused_reloads.add(u64::from(self.policy.summary.kept > 0));
        self.scan_is_due = true;
        // The scan finds those who waited as well.
        self.waiting.clear();
    }

    /// Does what there is to do, up to a bound. Returns whether something is left to do at once.
    ///
    /// # Errors
    /// The kernel's events cannot be read any more.
    pub fn turn(&mut self) -> io::Result<bool> {
        for _ in 0..ROUNDS {
            self.intake.drain_watch()?;
            self.pass_on()?;
            self.settle();
            self.doubt_if_lost()?;
            self.follow()?;
            self.judge();
            self.recheck();
            self.resume_managers();
            self.scan_some()?;
            self.run_errand();
            if !self.has_work() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Nanoseconds for which to let events gather before the next [`Self::turn`].
    pub fn pause(&mut self) -> u64 {
        self.intake.pause()
    }

    /// When [`Self::turn`] must be called again although nothing happens.
    pub fn next_turn(&self) -> Nanos {
        let trail = self.managers_due().into_iter().fold(self.intake.next_due(), Nanos::min);
        self.rechecks.front().map_or(trail, |&(due, ..)| due.min(trail))
    }

    /// Whether the scan that was asked for last is over.
    pub fn is_settled(&self) -> bool {
        !self.scan_is_due && !self.has_work()
    }

    fn has_work(&self) -> bool {
        self.intake.has_work() || self.scan_is_due || self.scan.is_running() || self.has_errand()
    }

    /// Looks at processes of the batch.
    fn settle(&mut self) {
        for _ in 0..AT_ONCE {
            let Some(look) = self.intake.batch.pop() else { break };
            let grip = self.proc.grip(look.pid);
            if let Some(grip) = &grip {
                if !self.intake.batch.admit(look, grip.uid) {
                    self.metrics.deferred.increment();
                    continue;
                }
            }
            let outcome = self.look_at(look, grip, None);
            self.conclude(look, outcome);
            self.intake.batch.settle(look);
        }
    }

    /// Looks at children that may have been born outside.
    fn judge(&mut self) {
        for _ in 0..AT_ONCE {
            let Some(fork) = self.intake.trail.next_suspect(self.intake.batch.settled()) else {
                break;
            };
            self.metrics.trail_looks.increment();
            self.look(Look::at_once(fork.child, Cause::FORK, fork.at), None);
        }
    }

    /// Second looks that are due.
    fn recheck(&mut self) {
        let now = sys::monotonic();
        for _ in 0..AT_ONCE {
            let Some(&(due, look)) = self.rechecks.front() else { break };
            if due > now {
                break;
            }
            self.rechecks.pop_front();
            self.look(look, None);
        }
    }

    fn scan_some(&mut self) -> io::Result<()> {
        if self.scan_is_due && !self.scan.is_running() && self.intake.batch.is_empty() {
            self.scan_is_due = false;
            self.metrics.scans.increment();
            self.scan.begin(&self.proc)?;
            self.pass_on()?;
        }
        for _ in 0..AT_ONCE {
            let Some(pid) = self.scan.take_next() else { break };
            self.look(Look::at_once(pid, Cause::SCAN, sys::monotonic()), None);
        }
        Ok(())
    }

    /// Looks at one process, now and whatever became of it, and takes note of the outcome.
    fn look(&mut self, look: Look, program: Option<&Program>) {
        let grip = self.proc.grip(look.pid);
        let outcome = self.look_at(look, grip, program);
        self.conclude(look, outcome);
    }

    fn look_at(&mut self, look: Look, grip: Option<Grip>, program: Option<&Program>) -> Outcome {
        self.metrics.looks.increment();
        let Some(grip) = grip else { return Outcome::Gone };
        let Grip { uid, gid, .. } = grip;
        self.noted.uid = Some(uid);
        if self.sticky.holds(look.pid, &mut self.proc) {
            let told = Told { look, ids: (uid, gid), program: None, ending: Ending::Sticky };
            narrate(&self.policy, &mut self.proc, &told);
            return Outcome::Sticky;
        }
        if !self.policy.knows(uid) {
            return self.wait(Asked::User(uid), look);
        }
        let generation = self.policy.generation;
        let Some(user) = self.policy.users.get(&uid) else { return Outcome::NoRule };
        if user.take_stale(look.since) {
            self.desk.identify(generation, uid);
        }
        let (matcher, proc, sight) = (&self.policy.matcher, &mut self.proc, &mut self.sight);
        let decided = decide(matcher, user, (uid, gid), look.pid, proc, |proc| {
            sight.see(proc, look.pid, program)
        });
        let (rule, seen) = match decided {
            Decided::Rule(rule, seen) => (rule, seen),
            Decided::NoRule(seen) => {
                let program = seen.map(Seen::name);
                let told = Told { look, ids: (uid, gid), program, ending: Ending::NoRule };
                narrate(&self.policy, &mut self.proc, &told);
                return Outcome::NoRule;
            }
            Decided::Unsure(exe) => {
                if self.desk.examine(look, exe) {
                    self.errands.examined.insert(look.pid, look.since);
                } else {
                    self.scan_is_due = true;
                }
                return Outcome::Waiting;
            }
        };
        self.noted.rule = Some(rule);
        if self.policy.lacks_group(rule, gid) {
            return self.wait(Asked::Group(gid), look);
        }
        let (user, program) = (user.identity.name.as_deref(), seen.map(Seen::name));
        let subject = Subject { look, grip, user, exe: seen.map(|seen| seen.raw) };
        let outcome = self.placer.apply(&self.policy, &mut self.proc, rule, &subject);
        if let Some(ending) = outcome.ending(rule, self.placer.last_obstacle()) {
            narrate(&self.policy, &mut self.proc, &Told { look, ids: (uid, gid), program, ending });
        }
        outcome
    }

    /// Takes note of what a look came to.
    fn conclude(&mut self, look: Look, outcome: Outcome) {
        let now = sys::monotonic();
        let is_recheck = look.cause.contains(Cause::RECHECK);
        self.account(look, outcome, now);
        let metrics = &self.metrics;
        match outcome {
            Outcome::Gone => {
                metrics.gone.increment();
                self.intake.trail_is_due |= !is_recheck;
            }
            Outcome::Placed => {
                self.intake.placed(now);
                self.placed(look, now, is_recheck);
            }
            Outcome::Replaced => {
                metrics.reused_pids.increment();
                self.intake.trail_is_due = true;
                self.rechecks.push_front((now, Look::at_once(look.pid, Cause::SCAN, now)));
            }
            Outcome::WouldPlace => metrics.would_place.increment(),
            Outcome::InPlace if is_recheck => metrics.held.increment(),
            Outcome::InPlace => metrics.in_place.increment(),
            Outcome::NoRule => metrics.no_rule.increment(),
            Outcome::Ignored => metrics.ignored.increment(),
            Outcome::Sticky => {
                // Its children are only looked at for what they do themselves.
                metrics.sticky.increment();
                return;
            }
            Outcome::Protected => metrics.protected.increment(),
            // Counted where they are said.
            Outcome::Refused | Outcome::GivenUp | Outcome::InUnit | Outcome::Waiting => {}
        }
        // Children of one that waits are suspects until the answer comes.
        let waits = outcome == Outcome::Waiting;
        self.intake.trail.looked(look.pid, if waits { now.plus(2 * SLOW_ANSWER_NS) } else { now });
    }

    fn placed(&mut self, look: Look, now: Nanos, is_recheck: bool) {
        if let Some(delay) = self.options.recheck_ns {
            let cause = if is_recheck { Cause::RECHECK | Cause::AGAIN } else { Cause::RECHECK };
            let due = now.plus(delay);
            let again = Look::after(look.pid, cause, due, self.placer.last_placement());
            self.rechecks.push_back((due, again));
        }
        if is_recheck {
            // Its children of the time when somebody else had it are not on the trail any more.
            let mut children = Vec::new();
            self.proc.children(look.pid, |child| children.push(child));
            for child in children {
                self.intake.batch.push(child, Cause::FORK, now);
            }
        }
    }

    /// Takes an answer of another thread.
    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Policy(policy) => {
                self.adopt(policy);
                self.errands.reload_answered();
            }
            Answer::User { generation, user } if generation == self.policy.generation => {
                let asked = Asked::User(user.identity.uid);
                self.scan_is_due |= self.policy.meet(user);
                self.resume(asked);
            }
            Answer::Group { generation, gid, name } if generation == self.policy.generation => {
                self.policy.groups.insert(gid, name);
                self.resume(Asked::Group(gid));
            }
            // Asked under other rules: whoever waited was found by the scan since.
            Answer::User { .. } | Answer::Group { .. } => {}
            Answer::Program { look, program } => {
                self.desk.examined();
                self.metrics.waited_for_program.increment();
                self.errands.examined.remove(&look.pid);
                self.note_slowness(look);
                match program {
                    Some(program) => self.look(look, Some(&program)),
                    None => self.conclude(look, Outcome::Gone),
                }
            }
        }
    }
}

fn narrate(policy: &Policy, proc: &mut Proc, told: &Told<'_>) {
    if let Some(narrator) = &policy.narrator {
        narrator.tell(told, proc);
    }
}
