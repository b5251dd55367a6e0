//! Measures the time from the system call that changes the identity to the attach, both seen from
//! outside by the same clock.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;

use crate::Result;
use crate::actors::{Actor, Keeps, Record, Storm, ruled, words};
use crate::machine::{Ground, Hierarchy};
use crate::plan::Plan;
use crate::report::{Table, cell, median, percentile, sorted, spread};
use crate::rules::{BY_EXE, HIT, Rules};
use crate::subjects::{Kind, Moves, Subject};
use crate::trace::{Attach, Trace};

/// Time after the last process from which a missing attach counts as late.
const PATIENCE: Duration = Duration::from_millis(700);

/// A series of processes, each to be placed once.
pub(crate) struct Pulse {
    pub(crate) gap_us: u32,
    count: u32,
    storm: Option<Storm>,
    /// True if they execute a program that a rule matches; else they change their user.
    executes: bool,
}

pub(crate) const ISOLATED: Pulse =
    Pulse { gap_us: 100_000, count: 25, storm: None, executes: false };
/// As logins are: after a pause of the daemon's three seconds of no-op moves.
const APART: Pulse = Pulse { gap_us: 5_000_000, count: 20, storm: None, executes: false };
pub(crate) const CLOSE: Pulse = Pulse { gap_us: 5_000, count: 200, storm: None, executes: false };
pub(crate) const EXECS: Pulse = Pulse { executes: true, ..CLOSE };

/// Latencies of each round in microseconds and number of late ones, for each subject.
type Samples = BTreeMap<Subject, Vec<Round>>;

pub(crate) struct Round {
    pub(crate) us: Vec<f64>,
    pub(crate) late: usize,
}

pub(crate) fn apart(plan: &Plan, ground: &Ground) -> Result<Table> {
    let title = "Latency, processes 5 s apart, idle machine";
    let mut samples = collect(plan, ground, &PAUSED, &APART, plan.rounds(2))?;
    // A 99th percentile needs more rounds, which take 100 s for each subject: without the slow ones.
    let more = collect(plan, ground, &FAST, &APART, plan.rounds(3))?;
    for (subject, rounds) in more {
        samples.entry(subject).or_default().extend(rounds);
    }
    Ok(against(title, &APART, &PAUSED, &samples))
}

pub(crate) fn isolated(plan: &Plan, ground: &Ground) -> Result<Table> {
    against_floor(plan, ground, "Latency, processes 100 ms apart, idle machine", &ISOLATED)
}

pub(crate) fn close(plan: &Plan, ground: &Ground) -> Result<Table> {
    against_floor(plan, ground, "Latency, processes 5 ms apart, idle machine", &CLOSE)
}

pub(crate) fn fork_storm(plan: &Plan, ground: &Ground) -> Result<Table> {
    under(plan, ground, "Latency, 5 ms apart, under a fork storm on the other CPU", Storm::Forks)
}

pub(crate) fn exec_storm(plan: &Plan, ground: &Ground) -> Result<Table> {
    under(plan, ground, "Latency, 5 ms apart, under an exec storm on the other CPU", Storm::Execs)
}

pub(crate) fn thread_storm(plan: &Plan, ground: &Ground) -> Result<Table> {
    under(
        plan,
        ground,
        "Latency, 5 ms apart, under a thread storm on the other CPU",
        Storm::Threads,
    )
}

pub(crate) fn comm_storm(plan: &Plan, ground: &Ground) -> Result<Table> {
    under(
        plan,
        ground,
        "Latency, 5 ms apart, under a PR_SET_NAME storm on the other CPU",
        Storm::Comms,
    )
}

pub(crate) fn busy_8(plan: &Plan, ground: &Ground) -> Result<Table> {
    under_load(plan, ground, "Latency, 5 ms apart, 8 processes that compute", Storm::Busy(8))
}

pub(crate) fn busy_32(plan: &Plan, ground: &Ground) -> Result<Table> {
    under_load(plan, ground, "Latency, 5 ms apart, 32 processes that compute", Storm::Busy(32))
}

pub(crate) fn reclaim(plan: &Plan, ground: &Ground) -> Result<Table> {
    let title = "Latency, 5 ms apart, beside a cgroup whose memory is reclaimed all the time";
    under_load(plan, ground, title, Storm::Reclaim)
}

/// 100 ms apart, so that pages of the daemon can be reclaimed between two moves.
pub(crate) fn short(plan: &Plan, ground: &Ground) -> Result<Table> {
    let title = "Latency, 100 ms apart, in a cgroup whose memory is reclaimed all the time";
    let pulse = Pulse { storm: Some(Storm::Short), ..ISOLATED };
    against_floors(plan, ground, title, &pulse, &LOADED, plan.rounds(5))
}

/// With the scheduling as the daemon chooses it, and with real-time scheduling, which it does not choose on kernels
/// with `CONFIG_RT_GROUP_SCHED`.
fn under_load(plan: &Plan, ground: &Ground, title: &str, storm: Storm) -> Result<Table> {
    let pulse = Pulse { storm: Some(storm), ..CLOSE };
    against_floors(plan, ground, title, &pulse, &LOADED, plan.rounds(5))
}

fn under(plan: &Plan, ground: &Ground, title: &str, storm: Storm) -> Result<Table> {
    against_floor(plan, ground, title, &Pulse { storm: Some(storm), ..CLOSE })
}

pub(crate) fn rules_close(plan: &Plan, ground: &Ground) -> Result<Table> {
    let title = "Latency with 10,000 rules, 5 ms apart";
    against_one_rule(plan, ground, title, &CLOSE, &[FIELD[1], FIELD[6], FIELD[7]])
}

pub(crate) fn rules_isolated(plan: &Plan, ground: &Ground) -> Result<Table> {
    let title = "Latency with 10,000 rules, 100 ms apart";
    // Without cgrulesengd: it takes most of a minute to load these rules, and the case
    // above shows the effect.
    against_one_rule(plan, ground, title, &ISOLATED, &[FIELD[1], FIELD[6]])
}

/// After a long pause, without the modes that change nothing then.
const PAUSED: [Subject; 5] = [
    Subject::new(Kind::Floor, Hierarchy::V2),
    Subject::new(Kind::FastFloor, Hierarchy::V2),
    Subject::new(Kind::Cgruled(Moves::Auto), Hierarchy::V2),
    Subject::new(Kind::Floor, Hierarchy::V1),
    Subject::new(Kind::Cgrulesengd, Hierarchy::V1),
];

/// Those of [`PAUSED`] that do not wait for a grace period.
const FAST: [Subject; 2] = [PAUSED[1], PAUSED[2]];

const LOADED: [Subject; 5] = [
    Subject::new(Kind::Floor, Hierarchy::V2),
    Subject::new(Kind::Cgruled(Moves::Auto), Hierarchy::V2),
    Subject::new(Kind::Realtime, Hierarchy::V2),
    Subject::new(Kind::Floor, Hierarchy::V1),
    Subject::new(Kind::Cgrulesengd, Hierarchy::V1),
];

const FIELD: [Subject; 8] = [
    Subject::new(Kind::Floor, Hierarchy::V2),
    Subject::new(Kind::Cgruled(Moves::Off), Hierarchy::V2),
    Subject::new(Kind::Cgruled(Moves::Auto), Hierarchy::V2),
    Subject::new(Kind::Cgruled(Moves::Warm), Hierarchy::V2),
    Subject::new(Kind::Cgruled(Moves::Expedited), Hierarchy::V2),
    Subject::new(Kind::Floor, Hierarchy::V1),
    Subject::new(Kind::Cgruled(Moves::Off), Hierarchy::V1),
    Subject::new(Kind::Cgrulesengd, Hierarchy::V1),
];

fn against_floor(plan: &Plan, ground: &Ground, title: &str, pulse: &Pulse) -> Result<Table> {
    against_floors(plan, ground, title, pulse, &FIELD, plan.rounds(5))
}

fn against_floors(
    plan: &Plan,
    ground: &Ground,
    title: &str,
    pulse: &Pulse,
    field: &[Subject],
    rounds: usize,
) -> Result<Table> {
    let samples = collect(plan, ground, field, pulse, rounds)?;
    Ok(against(title, pulse, field, &samples))
}

/// Compares each subject with its floor.
fn against(title: &str, pulse: &Pulse, field: &[Subject], samples: &Samples) -> Table {
    let head = ["subject", "n", "late", "p50 us", "p90", "p99", "max", "p50 / floor p50"];
    let mut table = Table::new(title, NOTE, &head);
    for &subject in field {
        row(&mut table, samples, subject, subject.floor(field), subject.name());
        if let Some(rounds) = samples.get(&subject) {
            let us: Vec<f64> = sorted(rounds.iter().flat_map(|round| round.us.clone()).collect());
            let late: usize = rounds.iter().map(|round| round.late).sum();
            let (name, pause) = (subject.name(), pulse.gap_us);
            table.samples.push(json!({"latency": name, "pause_us": pause, "late": late, "us": us}));
        }
    }
    table
}

const NOTE: &str = "setresuid of a process to a uid with a rule, until the kernel's cgroup_attach_task event. \
                    Late: not attached within 0.7 s of the last process; not part of the percentiles.";

fn against_one_rule(
    plan: &Plan,
    ground: &Ground,
    title: &str,
    pulse: &Pulse,
    field: &[Subject],
) -> Result<Table> {
    let head = ["subject", "n", "late", "p50 us", "p90", "p99", "max", "p50 / own p50 with 1 rule"];
    let note = "Half of the rules are by group; the one that matches is the last.";
    let mut table = Table::new(title, note, &head);
    let subjects: Vec<Subject> =
        field.iter().flat_map(|subject| [*subject, subject.with(Rules::TenThousand)]).collect();
    let samples = collect(plan, ground, &subjects, pulse, plan.rounds(3))?;
    for subject in subjects {
        let name = format!("{}, {}", subject.name(), subject.rules.label());
        row(&mut table, &samples, subject, subject.with(Rules::One), name);
    }
    Ok(table)
}

fn collect(
    plan: &Plan,
    ground: &Ground,
    subjects: &[Subject],
    pulse: &Pulse,
    rounds: usize,
) -> Result<Samples> {
    let trace = Trace::start(ground)?;
    let mut samples = Samples::new();
    for _ in 0..rounds {
        for &subject in subjects.iter().filter(|subject| subject.missing().is_none()) {
            let round = measure(plan, ground, &trace, subject, pulse)
                .map_err(|error| format!("{}: {error}", subject.name()))?;
            samples.entry(subject).or_default().push(round);
        }
    }
    Ok(samples)
}

pub(crate) fn measure(
    plan: &Plan,
    ground: &Ground,
    trace: &Trace,
    subject: Subject,
    pulse: &Pulse,
) -> Result<Round> {
    let memory = pulse.storm.map(|storm| storm.memory(ground)).transpose()?.flatten();
    let running = subject.start_in(ground, memory.as_deref())?;
    let (count, gap) = (plan.amount(pulse.count), pulse.gap_us);
    // Longer than the pulse and the wait for late processes; killed when they are over.
    let storm_ms = 2 * count * gap / 1000 + 5_000;
    let storm = pulse.storm.map(|storm| storm.start(ground, storm_ms, 1)).transpose()?;
    sleep(Duration::from_millis(50));
    trace.clear()?;
    let program = ruled(&ground.work).join("actors").display().to_string();
    let mut actor = if pulse.executes {
        let words = words![BY_EXE, count, gap, 0, program];
        Actor::start(ground, "pulse-exec", &words, Keeps::Sleepers)?
    } else {
        Actor::start(ground, "pulse", &words![HIT, count, gap, 0], Keeps::Sleepers)?
    };
    actor.done()?;
    sleep(PATIENCE);
    let round = join(&actor.records()?, &trace.attaches()?);
    if let Some(mut storm) = storm {
        storm.kill();
    }
    drop(actor);
    running.stop()?;
    Ok(round)
}

/// Returns the time to the first attach of each process. The trace truncates to microseconds, so an
/// attach may seem to be before its system call.
fn join(records: &[Record], attaches: &[Attach]) -> Round {
    let mut first: BTreeMap<i64, i64> = BTreeMap::new();
    for attach in attaches {
        let ns = first.entry(attach.pid).or_insert(attach.ns);
        *ns = (*ns).min(attach.ns);
    }
    let took = |record: &Record| Some((first.get(&record.pid)? - record.ns).max(0));
    #[expect(clippy::cast_precision_loss, reason = "latencies are far below 2^52 ns")]
    let us: Vec<f64> = records.iter().filter_map(took).map(|ns| ns as f64 / 1000.0).collect();
    Round { late: records.len() - us.len(), us }
}

fn row(table: &mut Table, samples: &Samples, subject: Subject, base: Subject, name: String) {
    let Some(rounds) = samples.get(&subject) else {
        return table.missing(subject, subject.missing().unwrap_or("not measured"));
    };
    let all = sorted(rounds.iter().flat_map(|round| round.us.iter().copied()).collect());
    let at = |percent| cell(percentile(&all, percent), 0);
    let late: usize = rounds.iter().map(|round| round.late).sum();
    let (n, late) = (all.len().to_string(), late.to_string());
    let ratio =
        samples.get(&base).map_or_else(|| "-".into(), |base| spread(ratios(rounds, base), 2));
    table.row(vec![name, n, late, at(50), at(90), at(99), at(100), ratio]);
}

fn ratios(rounds: &[Round], base: &[Round]) -> Vec<f64> {
    let p50 = |round: &Round| median(round.us.clone());
    rounds.iter().zip(base).filter_map(|(ours, theirs)| Some(p50(ours)? / p50(theirs)?)).collect()
}
