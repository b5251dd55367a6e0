//! Two builds of cgruled in pairs: the one just built, or `CGRULED`, against `CGRULED_BASELINE`.

use std::thread::sleep;
use std::time::Duration;

use crate::Result;
use crate::actors::{self, Actor, Execs, Keeps, Storm, words};
use crate::latency::{self, CLOSE, EXECS, ISOLATED, Pulse};
use crate::machine::{Ground, Hierarchy};
use crate::plan::Plan;
use crate::rate::{count_as_f64, cpu_ns};
use crate::report::{Table, cell, median, spread};
use crate::rules::{BY_EXE, HIT, MISS, Rules};
use crate::subjects::{Kind, Moves, Subject};
use crate::trace::Trace;

const fn pair(moves: Moves) -> [Subject; 2] {
    [
        Subject::new(Kind::Cgruled(moves), Hierarchy::V2),
        Subject::new(Kind::Baseline(moves), Hierarchy::V2),
    ]
}

/// One figure of each build a round; who is first changes with each round, so that what one leaves behind does
/// not always meet the other.
fn compare(
    plan: &Plan,
    title: &str,
    note: &str,
    unit: &'static str,
    pair: [Subject; 2],
    mut measure: impl FnMut(Subject) -> Result<f64>,
) -> Result<Table> {
    let mut table = Table::new(title, note, &["build", unit, "new / baseline, pair by pair"]);
    if let Some(why) = pair.iter().find_map(|subject| subject.missing()) {
        table.missing(pair[1], why);
        return Ok(table);
    }
    let mut figures = [Vec::new(), Vec::new()];
    for round in 0..plan.rounds(10) {
        for turn in 0..2 {
            let index = (round + turn) % 2;
            figures[index].push(measure(pair[index])?);
        }
    }
    let [new, baseline] = &figures;
    let ratios = new.iter().zip(baseline).map(|(new, old)| new / old).collect();
    let mut ratios = [spread(ratios, 3), "1".into()].into_iter();
    for (subject, own) in pair.iter().zip(&figures) {
        let ratio = ratios.next().unwrap_or_default();
        table.row(vec![subject.name(), cell(median(own.clone()), 2), ratio]);
    }
    Ok(table)
}

fn latency(
    plan: &Plan,
    ground: &Ground,
    title: &str,
    pulse: &Pulse,
    rules: Rules,
) -> Result<Table> {
    let trace = Trace::start(ground)?;
    let pair = pair(Moves::Warm).map(|subject| subject.with(rules));
    let note = "p50 of a round, from the system call to the attach event; fast_moves = \"warm\".";
    compare(plan, title, note, "p50 us", pair, |subject| {
        let round = latency::measure(plan, ground, &trace, subject, pulse)?;
        if round.late > 0 {
            eprintln!("storm: {}: {} late", subject.name(), round.late);
        }
        median(round.us).ok_or_else(|| "nothing was attached".into())
    })
}

pub(crate) fn close(plan: &Plan, ground: &Ground) -> Result<Table> {
    latency(plan, ground, "Two builds: setresuid to attach, 5 ms apart", &CLOSE, Rules::One)
}

pub(crate) fn isolated(plan: &Plan, ground: &Ground) -> Result<Table> {
    latency(plan, ground, "Two builds: setresuid to attach, 100 ms apart", &ISOLATED, Rules::One)
}

pub(crate) fn exec(plan: &Plan, ground: &Ground) -> Result<Table> {
    let title = "Two builds: execve to attach by a rule with exe, 5 ms apart";
    latency(plan, ground, title, &EXECS, Rules::Mixed)
}

pub(crate) fn forks(plan: &Plan, ground: &Ground) -> Result<Table> {
    let note =
        "Fork, exit, wait for 1 s by one process that no rule is about, after one placement.";
    compare(plan, "Two builds: fork rate", note, "a second", pair(Moves::Warm), |subject| {
        let running = subject.start(ground)?;
        Actor::start(ground, "pulse", &words![HIT, 1, 0, -1], Keeps::Sleepers)?.done()?;
        sleep(Duration::from_millis(100));
        let count = Storm::Forks.start(ground, 1000, -1)?.done()?;
        running.stop()?;
        Ok(count_as_f64(count))
    })
}

/// CPU time of the daemon for an exec by `uid` that no rule matches.
fn cpu(plan: &Plan, ground: &Ground, title: &str, uid: u32, rules: Rules) -> Result<Table> {
    let most = u64::from(plan.amount(20_000));
    let note = "CPU time of the daemon's threads, per exec, from schedstat.";
    let pair = pair(Moves::Off).map(|subject| subject.with(rules));
    compare(plan, title, note, "us per exec", pair, |subject| {
        let running = subject.start(ground)?;
        let pid = running.pid().unwrap_or(0);
        let before = cpu_ns(pid)?;
        let storm = Execs { ms: 60_000, most, uid, ..Execs::default() };
        let count = actors::execs(ground, &storm, Keeps::Nothing)?.done()?;
        // What is still queued is part of the cost.
        sleep(Duration::from_millis(300));
        let used = cpu_ns(pid)? - before;
        running.stop()?;
        Ok(count_as_f64(used) / 1000.0 / count_as_f64(count))
    })
}

pub(crate) fn cpu_miss(plan: &Plan, ground: &Ground) -> Result<Table> {
    cpu(plan, ground, "Two builds: CPU per exec, nothing matches", MISS, Rules::One)
}

pub(crate) fn cpu_exe(plan: &Plan, ground: &Ground) -> Result<Table> {
    let title = "Two builds: CPU per exec, the executable is read and nothing matches";
    cpu(plan, ground, title, BY_EXE, Rules::Mixed)
}

pub(crate) fn start(plan: &Plan, ground: &Ground) -> Result<Table> {
    let others = plan.amount(2_000);
    let mut sleepers = Actor::start(ground, "tree", &words![HIT, others - 1, 1], Keeps::Sleepers)?;
    sleepers.done()?;
    // Places them, so that all are in place from then on.
    pair(Moves::Off)[0].start(ground)?.stop()?;
    let note = format!("{others} sleeping processes in place; from exec to ready.");
    compare(plan, "Two builds: start", &note, "ms", pair(Moves::Off), |subject| {
        let running = subject.start(ground)?;
        let after = running.ready_after;
        running.stop()?;
        Ok(after.as_secs_f64() * 1000.0)
    })
}
