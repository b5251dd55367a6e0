//! Measures the cost of a daemon for the machine: fork and exec rate, CPU, memory, start.

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use crate::Result;
use crate::actors::{self, Actor, Execs, Keeps, Storm, words};
use crate::machine::{Ground, Hierarchy};
use crate::plan::Plan;
use crate::report::{Table, cell, median, spread};
use crate::rules::{HIT, MISS, Origin, Rules};
use crate::subjects::{Kind, Moves, Subject};

const NOBODY: Subject = Subject::new(Kind::Nobody, Hierarchy::V2);
const OURS: Subject = Subject::new(Kind::Cgruled(Moves::Off), Hierarchy::V2);
const ORIGINAL: Subject = Subject::new(Kind::Cgrulesengd, Hierarchy::V1);
const FLOOR: Subject = Subject::new(Kind::Floor, Hierarchy::V2);
const AUTO: Subject = Subject::new(Kind::Cgruled(Moves::Auto), Hierarchy::V2);
const EXPEDITED: Subject = Subject::new(Kind::Cgruled(Moves::Expedited), Hierarchy::V2);

/// One value per round for each subject.
type Figures = BTreeMap<Subject, Vec<f64>>;

pub(crate) fn forks(plan: &Plan, ground: &Ground) -> Result<Table> {
    rate(plan, ground, "Fork rate of the machine (fork, exit, wait)", Storm::Forks)
}

pub(crate) fn execs(plan: &Plan, ground: &Ground) -> Result<Table> {
    rate(
        plan,
        ground,
        "Exec rate of the machine (vfork, exec of a tiny program, wait)",
        Storm::Execs,
    )
}

fn rate(plan: &Plan, ground: &Ground, title: &str, storm: Storm) -> Result<Table> {
    let field = [NOBODY, FLOOR, OURS, AUTO, EXPEDITED, ORIGINAL];
    let figures = interleave(&field, plan.rounds(12), |subject| {
        let running = subject.start(ground)?;
        place_one(ground)?;
        let count = storm.start(ground, 1000, -1)?.done()?;
        running.stop()?;
        Ok(count_as_f64(count))
    })?;
    let note = "One spawner that no rule matches, slices of 1 s; one process is placed before each \
                slice, which activates the mode of fast_moves. Best to best: other load on the machine \
                can only lower a rate.";
    let head = ["subject", "a second (median)", "ratio to no daemon", "best to best"];
    let mut table = Table::new(title, note, &head);
    for subject in field {
        let Some(rates) = figures.get(&subject) else {
            table.missing(subject, subject.missing().unwrap_or("not measured"));
            continue;
        };
        let none = figures.get(&NOBODY).map_or(&[][..], Vec::as_slice);
        let ratios = rates.iter().zip(none).map(|(with, without)| with / without).collect();
        let best = format!("{:.3}", greatest(rates) / greatest(none));
        let middle = cell(median(rates.clone()), 0);
        table.row(vec![subject.name(), middle, spread(ratios, 3), best]);
    }
    Ok(table)
}

fn greatest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

fn place_one(ground: &Ground) -> Result<()> {
    Actor::start(ground, "pulse", &words![HIT, 1, 0, -1], Keeps::Sleepers)?.done()?;
    // An isolated move takes tens of milliseconds on a stock kernel.
    sleep(Duration::from_millis(100));
    Ok(())
}

fn interleave(
    field: &[Subject],
    rounds: usize,
    mut measure: impl FnMut(Subject) -> Result<f64>,
) -> Result<Figures> {
    let mut figures = Figures::new();
    for _ in 0..rounds {
        for &subject in field.iter().filter(|subject| subject.missing().is_none()) {
            let figure =
                measure(subject).map_err(|error| format!("{}: {error}", subject.name()))?;
            figures.entry(subject).or_default().push(figure);
        }
    }
    Ok(figures)
}

pub(crate) fn cpu(plan: &Plan, ground: &Ground) -> Result<Table> {
    let field = [FLOOR, OURS, OURS.with(Rules::TenThousand), ORIGINAL];
    let figures = cpu_per_exec(plan, ground, &field)?;
    let note = format!(
        "CPU time of the daemon's threads over {} execs by a uid without a rule, per exec, from schedstat. \
         The floor requests only UID events, so it receives none of them.",
        missed_execs(plan)
    );
    Ok(plain_table("CPU per exec that matches nothing", &note, "us per exec", &field, &figures, 2))
}

/// Compares the cost of an exec for which a rule tests the origin of the process with that without such a rule.
pub(crate) fn origin(plan: &Plan, ground: &Ground) -> Result<Table> {
    let mut field = vec![OURS];
    field.extend(Origin::ALL.map(|origin| OURS.with(Rules::Origin(origin))));
    let figures = cpu_per_exec(plan, ground, &field)?;
    let note = format!(
        "CPU time of the daemon's threads over {} execs by a uid for which a rule tests the origin, per exec, from \
         schedstat. No process meets the criterion. The first row has no such rule.",
        missed_execs(plan)
    );
    let head = ["rules", "us per exec", "ratio to the first row"];
    let mut table = Table::new("CPU per exec with rules on the origin", &note, &head);
    for &subject in &field {
        let (Some(values), Some(without)) = (figures.get(&subject), figures.get(&OURS)) else {
            table.missing(subject, subject.missing().unwrap_or("not measured"));
            continue;
        };
        let ratios = values.iter().zip(without).map(|(with, without)| with / without).collect();
        let rules = subject.rules.label().to_owned();
        table.row(vec![rules, spread(values.clone(), 2), spread(ratios, 2)]);
    }
    Ok(table)
}

/// Returns the number of execs by a UID that no rule moves.
fn missed_execs(plan: &Plan) -> u64 {
    u64::from(plan.amount(20_000))
}

/// Measures the CPU time of each subject per exec that no rule moves, in us.
fn cpu_per_exec(plan: &Plan, ground: &Ground, field: &[Subject]) -> Result<Figures> {
    let most = missed_execs(plan);
    interleave(field, plan.rounds(5), |subject| {
        let running = subject.start(ground)?;
        let pid = running.pid().unwrap_or(0);
        let before = cpu_ns(pid)?;
        let storm = Execs { ms: 60_000, most, uid: MISS, ..Execs::default() };
        let count = actors::execs(ground, &storm, Keeps::Nothing)?.done()?;
        // Processing the remaining queue is part of the cost.
        sleep(Duration::from_millis(300));
        let used = cpu_ns(pid)? - before;
        running.stop()?;
        Ok(count_as_f64(used) / 1000.0 / count_as_f64(count))
    })
}

pub(crate) fn idle(plan: &Plan, ground: &Ground) -> Result<Table> {
    let field = [FLOOR, OURS, AUTO, EXPEDITED, ORIGINAL];
    let mut after = Figures::new();
    let before = interleave(&field, plan.rounds(5), |subject| {
        let running = subject.start(ground)?;
        let pid = running.pid().unwrap_or(0);
        let quiet = cpu_per_second(pid)?;
        place_one(ground)?;
        after.entry(subject).or_default().push(cpu_per_second(pid)?);
        running.stop()?;
        Ok(quiet)
    })?;
    let note = "CPU time of the daemon over 1 s before any placement and over the second after \
                one. Other processes of the machine cause events.";
    let head = ["subject", "us a second, before", "us a second, after"];
    Ok(paired_table("CPU when idle", note, &head, &field, [&before, &after]))
}

fn cpu_per_second(pid: u32) -> Result<f64> {
    let before = cpu_ns(pid)?;
    sleep(Duration::from_secs(1));
    Ok(count_as_f64(cpu_ns(pid)? - before) / 1000.0)
}

/// Returns user and system time of all threads, in ns; `utime` and `stime` would have ticks of 4 to 10 ms.
pub(crate) fn cpu_ns(pid: u32) -> Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split_whitespace().next().ok_or("empty schedstat")?.parse::<u64>()?;
    }
    Ok(total)
}

pub(crate) fn memory(plan: &Plan, ground: &Ground) -> Result<Table> {
    let field =
        [FLOOR, OURS, OURS.with(Rules::TenThousand), ORIGINAL, ORIGINAL.with(Rules::TenThousand)];
    let figures = interleave(&field, plan.rounds(1), |subject| {
        let running = subject.start(ground)?;
        // Some events first, so that the daemon has allocated its buffers.
        Storm::Execs.start(ground, 300, -1)?.done()?;
        let rss = rss_mib(running.pid().unwrap_or(0))?;
        running.stop()?;
        Ok(rss)
    })?;
    let note = "VmRSS after an exec storm of 0.3 s.";
    Ok(plain_table("Resident memory", note, "MiB", &field, &figures, 1))
}

pub(crate) fn rss_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: f64 = line.trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}

pub(crate) fn start(plan: &Plan, ground: &Ground) -> Result<Table> {
    let others = plan.amount(10_000);
    let field = [FLOOR, OURS, ORIGINAL];
    let mut placing = Figures::new();
    let in_place = interleave(&field, plan.rounds(5), |subject| {
        let tree = words![HIT, others - 1, 1];
        let mut sleepers = Actor::start(ground, "tree", &tree, Keeps::Sleepers)?;
        sleepers.done()?;
        // At the first start all processes are outside, at the second all are in place.
        placing.entry(subject).or_default().push(start_ms(ground, subject)?);
        start_ms(ground, subject)
    })?;
    let note = format!(
        "{others} sleeping processes of a uid with a rule; from exec to ready. The floor does not scan."
    );
    let head = ["subject", "ms, all outside", "ms, all in place"];
    Ok(paired_table("Start", &note, &head, &field, [&placing, &in_place]))
}

fn paired_table(
    title: &str,
    note: &str,
    head: &[&'static str],
    field: &[Subject],
    [first, second]: [&Figures; 2],
) -> Table {
    let mut table = Table::new(title, note, head);
    for &subject in field {
        match (first.get(&subject), second.get(&subject)) {
            (Some(first), Some(second)) => {
                let cells = [first, second].map(|figures| spread(figures.clone(), 0));
                table.row(std::iter::once(subject.name()).chain(cells).collect());
            }
            (_, _) => table.missing(subject, subject.missing().unwrap_or("not measured")),
        }
    }
    table
}

fn start_ms(ground: &Ground, subject: Subject) -> Result<f64> {
    let running = subject.start(ground)?;
    let ms = running.ready_after.as_secs_f64() * 1000.0;
    running.stop()?;
    Ok(ms)
}

fn plain_table(
    title: &str,
    note: &str,
    unit: &'static str,
    field: &[Subject],
    figures: &Figures,
    digits: usize,
) -> Table {
    let mut table = Table::new(title, note, &["subject", "rules", unit]);
    for &subject in field {
        match figures.get(&subject) {
            Some(values) => {
                let rules = subject.rules.label().to_owned();
                table.row(vec![subject.name(), rules, spread(values.clone(), digits)]);
            }
            None => table.missing(subject, subject.missing().unwrap_or("not measured")),
        }
    }
    table
}

#[expect(clippy::cast_precision_loss, reason = "counts and times here are far below 2^52")]
pub(crate) fn count_as_f64(count: u64) -> f64 {
    count as f64
}
