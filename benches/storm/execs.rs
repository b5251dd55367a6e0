//! Runs a long exec storm with a mixed rule set; sampled children report their cgroup.

use std::fs::{self, File};
use std::path::PathBuf;

use crate::Result;
use crate::actors::{self, Actor, Execs, Keeps};
use crate::drops::drops;
use crate::machine::{Ground, Hierarchy};
use crate::plan::Plan;
use crate::report::Table;
use crate::rules::{BY_EXE, BY_USER, MISS, Rules};
use crate::subjects::{Kind, Moves, Running, Subject};

const FIELD: [Subject; 3] = [
    Subject::new(Kind::Cgruled(Moves::Off), Hierarchy::V2),
    Subject::new(Kind::Cgruled(Moves::Off), Hierarchy::V1),
    Subject::new(Kind::Cgrulesengd, Hierarchy::V1),
];

/// Execs per second of each of three workers: 15,000 in total if the machine is fast enough.
const RATE: u32 = 5_000;
const EVERY: u32 = 50;

/// A worker of the storm: its UID, the directory of its programs, and their cgroup (None: unchanged).
struct Worker {
    uid: u32,
    dir: &'static str,
    leaf: Option<&'static str>,
}

const WORKERS: [Worker; 3] = [
    Worker { uid: BY_USER, dir: "bin", leaf: Some("user") },
    Worker { uid: BY_EXE, dir: "ruled", leaf: Some("exe") },
    Worker { uid: MISS, dir: "bin", leaf: None },
];

pub(crate) fn storm(plan: &Plan, ground: &Ground) -> Result<Table> {
    let seconds = plan.seconds();
    let title = format!("Exec storm, {seconds} s, target 15,000 a second, 192 mixed rules");
    let note = "A third of the programs belong to a rule by uid (inherited), a third to a rule by executable (each is \
                moved), a third to no rule. Every 50th checks its own /proc/self/cgroup after 0.3 s. Dropped events \
                as counted by the kernel; \
                the last column is the loss that the daemon itself reports at exit.";
    let head =
        ["subject", "execs/s", "checked", "misplaced by uid / exe / none", "dropped", "reported"];
    let mut table = Table::new(&title, note, &head);
    for subject in FIELD {
        if let Some(why) = subject.missing() {
            table.missing(subject, why);
            continue;
        }
        let running = subject.with(Rules::Mixed).start(ground)?;
        table.row(measure(ground, subject, running, seconds)?);
    }
    Ok(table)
}

fn measure(
    ground: &Ground,
    subject: Subject,
    running: Running,
    seconds: u32,
) -> Result<Vec<String>> {
    let mut actors = Vec::new();
    for worker in &WORKERS {
        actors.push((start(ground, subject, worker, seconds)?, verdicts(ground, worker)));
    }
    let (mut execs, mut checked, mut misplaced) = (0, 0, Vec::new());
    for (mut actor, verdicts) in actors {
        execs += actor.done()?;
        drop(actor);
        let said = fs::read_to_string(verdicts)?;
        checked += said.matches(['+', '-']).count();
        misplaced.push(said.matches('-').count().to_string());
    }
    let drops = running.pid().map_or(0, drops).to_string();
    let rate = (execs / u64::from(seconds)).to_string();
    let says = of_loss(&running.stop()?);
    Ok(vec![subject.name(), rate, checked.to_string(), misplaced.join(" / "), drops, says])
}

fn start(ground: &Ground, subject: Subject, worker: &Worker, seconds: u32) -> Result<Actor> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let (prefix, born) = subject.hierarchy.line(&own).ok_or("no such hierarchy")?;
    let path = worker.leaf.map_or_else(|| born.to_owned(), |leaf| ground.path(leaf));
    let storm = Execs {
        ms: seconds * 1000,
        rate: RATE,
        uid: worker.uid,
        dir: worker.dir,
        every: EVERY,
        line: &format!("{prefix}{path}"),
        ..Execs::default()
    };
    let file = verdicts(ground, worker);
    // Removed first: several processes append, and results of an earlier storm must not remain.
    let _absent = fs::remove_file(&file);
    let append = File::options().create(true).append(true).open(file)?;
    actors::execs(ground, &storm, Keeps::Verdicts(append))
}

fn verdicts(ground: &Ground, worker: &Worker) -> PathBuf {
    ground.work.join(format!("verdicts-{}", worker.uid))
}

/// Returns the lines of the exit statistics that report losses.
fn of_loss(lines: &[String]) -> String {
    let about = |line: &&String| line.contains("lost");
    let said: Vec<&str> = lines.iter().filter(about).map(|line| line.trim()).collect();
    if said.is_empty() { "nothing".into() } else { said.join("; ") }
}
