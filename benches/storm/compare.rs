//! Compares two builds of cgruled in pairs: the present one, or `CGRULED`, with `CGRULED_BASELINE`; and one build
//! with and without its history.

use std::fs;
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

/// One build with and without its history.
const HISTORY: [Subject; 2] = [
    Subject::new(Kind::Recording(true), Hierarchy::V2),
    Subject::new(Kind::Recording(false), Hierarchy::V2),
];

/// Measures both builds in each round. The order alternates, so that after-effects of one build do
/// not always affect the other.
fn compare(
    plan: &Plan,
    title: &str,
    note: &str,
    unit: &'static str,
    pair: [Subject; 2],
    mut measure: impl FnMut(Subject) -> Result<f64>,
) -> Result<Table> {
    let mut table = Table::new(title, note, &["build", unit, "new / baseline, pair by pair"]);
    // A mistyped path must fail the run: an empty table would not be noticed.
    for subject in pair {
        if let Some(why) = subject.missing() {
            return Err(format!("{}: {why}", subject.name()).into());
        }
    }
    let mut figures = [Vec::new(), Vec::new()];
    for round in 0..plan.rounds(10) {
        for turn in 0..2 {
            let index = (round + turn) % 2;
            let figure =
                measure(pair[index]).map_err(|error| format!("{}: {error}", pair[index].name()))?;
            figures[index].push(figure);
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
    pair: [Subject; 2],
) -> Result<Table> {
    let trace = Trace::start(ground)?;
    let pause = pulse.gap_us / 1000;
    let note = format!(
        "p50 of a round, from the system call to the attach event; fast_moves = \"warm\". Pause before each move: \
         {pause} ms; before the first one at least 50 ms after the start."
    );
    let mut late = [0, 0];
    let mut table = compare(plan, title, &note, "p50 us", pair, |subject| {
        let round = latency::measure(plan, ground, &trace, subject, pulse)?;
        late[usize::from(subject == pair[1])] += round.late;
        median(round.us).ok_or_else(|| "nothing was attached".into())
    })?;
    let [new, baseline] = late;
    table.note +=
        &format!(" Not attached within 0.7 s, so not in p50: new {new}, baseline {baseline}.");
    Ok(table)
}

pub(crate) fn close(plan: &Plan, ground: &Ground) -> Result<Table> {
    latency(plan, ground, "Two builds: setresuid to attach, 5 ms apart", &CLOSE, pair(Moves::Warm))
}

pub(crate) fn isolated(plan: &Plan, ground: &Ground) -> Result<Table> {
    latency(
        plan,
        ground,
        "Two builds: setresuid to attach, 100 ms apart",
        &ISOLATED,
        pair(Moves::Warm),
    )
}

pub(crate) fn exec(plan: &Plan, ground: &Ground) -> Result<Table> {
    let title = "Two builds: execve to attach by a rule with exe, 5 ms apart";
    latency(plan, ground, title, &EXECS, pair(Moves::Warm).map(|own| own.with(Rules::Mixed)))
}

pub(crate) fn history_close(plan: &Plan, ground: &Ground) -> Result<Table> {
    latency(plan, ground, "History: setresuid to attach, 5 ms apart", &CLOSE, HISTORY)
}

pub(crate) fn history_cpu_miss(plan: &Plan, ground: &Ground) -> Result<Table> {
    cpu(plan, ground, "History: CPU per exec, nothing matches", MISS, HISTORY)
}

pub(crate) fn history_cpu_exe(plan: &Plan, ground: &Ground) -> Result<Table> {
    let title = "History: CPU per exec, the executable is read and nothing matches";
    cpu(plan, ground, title, BY_EXE, HISTORY.map(|own| own.with(Rules::Mixed)))
}

pub(crate) fn forks(plan: &Plan, ground: &Ground) -> Result<Table> {
    let note = "Fork, exit and wait for 1 s by one process that no rule matches, 100 ms after the only move; \
                fast_moves = \"warm\".";
    compare(plan, "Two builds: fork rate", note, "a second", pair(Moves::Warm), |subject| {
        let running = subject.start(ground)?;
        Actor::start(ground, "pulse", &words![HIT, 1, 0, -1], Keeps::Sleepers)?.done()?;
        sleep(Duration::from_millis(100));
        let count = Storm::Forks.start(ground, 1000, -1)?.done()?;
        running.stop()?;
        Ok(count_as_f64(count))
    })
}

/// Returns the CPU time of the daemon for an exec by `uid` that no rule matches.
fn cpu(plan: &Plan, ground: &Ground, title: &str, uid: u32, pair: [Subject; 2]) -> Result<Table> {
    let most = u64::from(plan.amount(20_000));
    let note = format!(
        "CPU time of the daemon's threads over {most} execs, per exec, from schedstat. No process is moved."
    );
    compare(plan, title, &note, "us per exec", pair, |subject| {
        let running = subject.start(ground)?;
        let pid = running.pid().unwrap_or(0);
        let before = cpu_ns(pid)?;
        let storm = Execs { ms: 60_000, most, uid, ..Execs::default() };
        let count = actors::execs(ground, &storm, Keeps::Nothing)?.done()?;
        // Processing the remaining queue is part of the cost.
        sleep(Duration::from_millis(300));
        let used = cpu_ns(pid)? - before;
        running.stop()?;
        Ok(count_as_f64(used) / 1000.0 / count_as_f64(count))
    })
}

pub(crate) fn cpu_miss(plan: &Plan, ground: &Ground) -> Result<Table> {
    cpu(plan, ground, "Two builds: CPU per exec, nothing matches", MISS, pair(Moves::Off))
}

pub(crate) fn cpu_exe(plan: &Plan, ground: &Ground) -> Result<Table> {
    let title = "Two builds: CPU per exec, the executable is read and nothing matches";
    cpu(plan, ground, title, BY_EXE, pair(Moves::Off).map(|own| own.with(Rules::Mixed)))
}

pub(crate) fn start(plan: &Plan, ground: &Ground) -> Result<Table> {
    let others = plan.amount(2_000);
    let mut sleepers = Actor::start(ground, "tree", &words![HIT, others - 1, 1], Keeps::Sleepers)?;
    sleepers.done()?;
    // A first start places the processes, so that all are in place from then on.
    pair(Moves::Off)[0].start(ground)?.stop()?;
    let group = ground.group(Hierarchy::V2, "one").ok_or("hierarchy not mounted")?;
    let placed = fs::read_to_string(group.join("cgroup.procs"))?.lines().count();
    if placed != others as usize {
        return Err(
            format!("{placed} of {others} processes in place before the first start").into()
        );
    }
    let note = format!(
        "{others} sleeping processes of a user with a rule, all in place; from exec to ready. No process is moved; \
         fast_moves = \"off\"."
    );
    compare(plan, "Two builds: start", &note, "ms", pair(Moves::Off), |subject| {
        let running = subject.start(ground)?;
        let after = running.ready_after;
        running.stop()?;
        Ok(after.as_secs_f64() * 1000.0)
    })
}
