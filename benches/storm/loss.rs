//! Measures loss: processes outside of their cgroup after families grew while their
//! first process was being placed.

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;

use crate::Result;
use crate::actors::{Actor, Keeps, words};
use crate::drops::drops;
use crate::machine::{Ground, Hierarchy};
use crate::plan::Plan;
use crate::report::Table;
use crate::rules::HIT;
use crate::subjects::{Kind, Moves, Subject};

/// Time from the last fork to the check: the guarantee is for a machine at rest.
const REST: Duration = Duration::from_secs(1);

const FIELD: [Subject; 5] = [
    Subject::new(Kind::Floor, Hierarchy::V2),
    Subject::new(Kind::Cgruled(Moves::Off), Hierarchy::V2),
    Subject::new(Kind::Cgruled(Moves::Auto), Hierarchy::V2),
    Subject::new(Kind::Cgruled(Moves::Off), Hierarchy::V1),
    Subject::new(Kind::Cgrulesengd, Hierarchy::V1),
];

/// Time until misplaced processes are checked again, which distinguishes late from lost ones.
const LONGER: Duration = Duration::from_secs(5);

/// Result of one round.
struct Round {
    outside: usize,
    /// Number of processes that are still outside after `LONGER`.
    lost: usize,
    total: usize,
    drops: u64,
}

pub(crate) fn tree_small(plan: &Plan, ground: &Ground) -> Result<Table> {
    let title = "Loss: a fork tree of 781 (4 levels of 5)";
    family(ground, title, plan.rounds(10), "tree", &words![HIT, 5, 4])
}

pub(crate) fn tree_large(plan: &Plan, ground: &Ground) -> Result<Table> {
    let title = "Loss: a fork tree of 9,724 (3 levels of 21)";
    family(ground, title, plan.rounds(3), "tree", &words![HIT, 21, 3])
}

pub(crate) fn orphans(plan: &Plan, ground: &Ground) -> Result<Table> {
    let title =
        "Loss: 1,000 orphans of parents that set their uid, forked and exited; two spawners";
    family(ground, title, plan.rounds(10), "orphans", &words![HIT, 1000, 2])
}

pub(crate) fn churn(plan: &Plan, ground: &Ground) -> Result<Table> {
    let forks = plan.amount(100_000);
    let title = format!(
        "Loss: {forks} forks by 4 workers, half of them relays; every 100th leaves a sleeper"
    );
    family(ground, &title, plan.rounds(3), "churn", &words![HIT, forks, 4])
}

fn family(
    ground: &Ground,
    title: &str,
    rounds: usize,
    actor: &str,
    args: &[String],
) -> Result<Table> {
    let mut results: BTreeMap<Subject, Vec<Round>> = BTreeMap::new();
    for _ in 0..rounds {
        for subject in FIELD.into_iter().filter(|subject| subject.missing().is_none()) {
            let round = measure(ground, subject, actor, args)
                .map_err(|error| format!("{}: {error}", subject.name()))?;
            results.entry(subject).or_default().push(round);
        }
    }
    Ok(table(title, &results))
}

fn measure(ground: &Ground, subject: Subject, name: &str, args: &[String]) -> Result<Round> {
    let running = subject.start(ground)?;
    let mut actor = Actor::start(ground, name, args, Keeps::Sleepers)?;
    actor.done()?;
    sleep(REST);
    let pids: Vec<i64> = actor.records()?.iter().map(|record| record.pid).collect();
    let outside = || pids.iter().filter(|&&pid| !is_inside(ground, subject.hierarchy, pid)).count();
    let early = outside();
    let late = if early > 0 && subject.kind != Kind::Floor {
        sleep(LONGER);
        outside()
    } else {
        early
    };
    let drops = running.pid().map_or(0, drops);
    drop(actor);
    running.stop()?;
    Ok(Round { outside: early, lost: late, total: pids.len(), drops })
}

fn is_inside(ground: &Ground, hierarchy: Hierarchy, pid: i64) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    hierarchy.line(&text).is_some_and(|(_start, path)| path == ground.path("one"))
}

fn table(title: &str, results: &BTreeMap<Subject, Vec<Round>>) -> Table {
    let note = "Survivors outside their cgroup after 1 s of rest, by round, and the number of those still \
                outside 5 s later; dropped events as counted by the kernel for the sockets of the \
                subject. The floor handles neither forks nor loss: it shows the effect of inheritance \
                alone.";
    let head = ["subject", "survivors", "outside, by round", "5 s later", "dropped"];
    let mut table = Table::new(title, note, &head);
    for subject in FIELD {
        let Some(rounds) = results.get(&subject) else {
            table.missing(subject, subject.missing().unwrap_or("not measured"));
            continue;
        };
        let by_round = |count: fn(&Round) -> usize| {
            rounds.iter().map(|round| count(round).to_string()).collect::<Vec<_>>().join(" ")
        };
        let total: usize = rounds.iter().map(|round| round.total).sum();
        let drops: u64 = rounds.iter().map(|round| round.drops).sum();
        let (outside, lost) = (by_round(|round| round.outside), by_round(|round| round.lost));
        let early: Vec<usize> = rounds.iter().map(|round| round.outside).collect();
        let late: Vec<usize> = rounds.iter().map(|round| round.lost).collect();
        let name = subject.name();
        table.samples.push(json!({
            "loss": name, "case": title, "survivors": total, "outside": early, "lost": late
        }));
        table.row(vec![name, total.to_string(), outside, lost, drops.to_string()]);
    }
    table
}
