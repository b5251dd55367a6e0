//! A long exec storm under a mixed rule set: sampled children say where they ended up.

use std::fs::{self, File};
use std::path::PathBuf;

use crate::Result;
use crate::actors::{self, Actor, Execs, Keeps};
use crate::machine::{Ground, Hierarchy};
use crate::plan::Plan;
use crate::report::Table;
use crate::rules::{BY_EXE, BY_USER, MISS, Rules};
use crate::subjects::{Kind, Moves, Running, Subject, drops};

const FIELD: [Subject; 3] = [
    Subject::new(Kind::Cgruled(Moves::Off), Hierarchy::V2),
    Subject::new(Kind::Cgruled(Moves::Off), Hierarchy::V1),
    Subject::new(Kind::Cgrulesengd, Hierarchy::V1),
];

/// Three workers at this rate: 15,000 a second if the machine can.
const RATE: u32 = 5_000;
const EVERY: u32 = 50;

/// One worker of the storm: whose uid, which programs, and where they belong (None: where they were born).
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
    let title = format!("Exec storm, {seconds} s, 15,000 a second asked, 192 mixed rules");
    let note = "A third of the programs belong to a rule by uid (inherited), a third to a rule by executable (each is \
                moved), a third to no rule. Every 50th looks at its own /proc/self/cgroup after 0.3 s. Dropped events \
                as the kernel counts them; \
                the last column is what the daemon itself says of loss on exit.";
    let head =
        ["subject", "execs/s", "checked", "misplaced by uid / exe / none", "dropped", "it says"];
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
    // Removed first: several processes append, and nothing of an earlier storm may stand in it.
    let _absent = fs::remove_file(&file);
    let append = File::options().create(true).append(true).open(file)?;
    actors::execs(ground, &storm, Keeps::Verdicts(append))
}

fn verdicts(ground: &Ground, worker: &Worker) -> PathBuf {
    ground.work.join(format!("verdicts-{}", worker.uid))
}

/// The lines of the exit statistics that are about loss.
fn of_loss(lines: &[String]) -> String {
    let about = |line: &&String| line.contains("lost");
    let said: Vec<&str> = lines.iter().filter(about).map(|line| line.trim()).collect();
    if said.is_empty() { "nothing".into() } else { said.join("; ") }
}
