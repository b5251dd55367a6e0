//! One world: a machine with a history, from its start to its end.

use std::cell::RefCell;
use std::rc::Rc;

use super::driver;
use super::history::{History, Rng, Source};
use super::journal::Journal;
use super::machine::Machine;
use super::rules::{self, RuleSets};
use super::situations::Counts;

/// Steps of one world.
const STEPS: usize = 1_500;

/// What a history led to.
pub(crate) struct Outcome {
    pub(crate) violation: Option<String>,
    pub(crate) lines: Vec<String>,
}

/// A history that led to a violation.
pub(crate) struct Failing {
    pub(crate) history: History,
    pub(crate) violation: String,
    /// Kernel events of the thread until then.
    pub(crate) events: u64,
}

/// What one thread explored.
pub(crate) struct Explored {
    pub(crate) events: u64,
    pub(crate) counts: Counts,
    pub(crate) found: Option<Failing>,
}

thread_local! {
    static SETS: Rc<RuleSets> = Rc::new(RuleSets::compile());
}

fn run(machine: u64, source: Source, journal: Journal) -> Machine {
    let sets = SETS.with(Rc::clone);
    let machine = Rc::new(RefCell::new(Machine::new(machine, source, sets, journal)));
    driver::run(&machine);
    // The engine is gone, and with it the other references.
    Rc::into_inner(machine).map_or_else(|| unreachable!(), RefCell::into_inner)
}

/// Explores worlds until they had this number of kernel events, or one failed. `mostly` is the rule set that seven of
/// eight policies have.
pub(crate) fn explore(seed: u64, thread: u64, events: u64, mostly: Option<usize>) -> Explored {
    let mut explored = Explored { events: 0, counts: Counts::default(), found: None };
    let mut seeds = Rng::new(seed ^ thread.wrapping_mul(0x5851_f42d_4c95_7f2d));
    while explored.events < events {
        let mut rng = Rng::new(seeds.next());
        let number = rng.next();
        let machine =
            run(number, Source::of_seed(rng, STEPS, mostly.map(rules::number)), Journal::default());
        explored.events += machine.events;
        explored.counts.add(&machine.counts);
        if let Some(violation) = machine.violation {
            let history = History { machine: number, entries: machine.taken };
            explored.found = Some(Failing { history, violation, events: explored.events });
            break;
        }
    }
    explored
}

/// Runs a history again.
pub(crate) fn replay(history: &History, is_told: bool) -> Outcome {
    let left = history.entries.clone().into_iter();
    let journal = if is_told { Journal::wanted() } else { Journal::default() };
    let machine = run(history.machine, Source::Replay { left }, journal);
    Outcome { violation: machine.violation, lines: machine.journal.lines() }
}
