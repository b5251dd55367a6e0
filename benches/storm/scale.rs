//! Measures large rule sets, and a host with many accounts and processes.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Result;
use crate::actors::{Actor, Keeps, words};
use crate::machine::{Ground, Hierarchy, PidMax};
use crate::plan::Plan;
use crate::rate::rss_mib;
use crate::report::{Table, spread};
use crate::rules::{CROWD, Rules};
use crate::subjects::{Kind, Running, Subject, control_socket, write_trusted};

const OURS: Subject = Subject::new(Kind::Controlled, Hierarchy::V2);
/// Files of the rules of [`tools`].
const RULE_FILES: u32 = 10;

/// Users of the processes that are placed; each has the same number of them.
const USERS: u32 = 1_000;
/// PIDs for the processes of [`accounts`]: the default of a small machine is 32,768.
const PIDS: u32 = 200_000;

/// The values of one figure, one of each round.
#[derive(Default)]
struct Figure(Vec<f64>);

/// Measures `check`, `list` and `convert`.
pub(crate) fn tools(plan: &Plan, ground: &Ground) -> Result<Table> {
    let (rules, settings) = (plan.amount(100_000), plan.amount(60_000));
    let directory = rule_files(&ground.work.join("scale.d"), rules)?;
    let cgconfig = ground.work.join("cgconfig.conf");
    fs::write(&cgconfig, cgconfig_conf(settings))?;
    let empty = ground.work.join("empty.toml");
    write_trusted(&empty, "")?;
    let cgconfig = cgconfig.display().to_string();
    let from = [
        "--no-legacy".into(),
        "--config".into(),
        empty.display().to_string(),
        "--rules".into(),
        directory,
    ];
    let run = |command: &str| seconds(&[&[command.to_owned()][..], &from].concat());
    let [mut check, mut list, mut convert] = <[Figure; 3]>::default();
    for _ in 0..plan.rounds(3) {
        check.0.push(run("check")?);
        list.0.push(run("list")?);
        convert.0.push(seconds(&["convert".into(), cgconfig.clone()])?);
    }
    let note = format!(
        "{rules} rules in {RULE_FILES} files, each with a name, a user and a program that does not exist; a \
         cgconfig.conf with {settings} settings."
    );
    let mut table = Table::new("Scale: tools", &note, &["command", "s"]);
    for (command, figure) in [("check", check), ("list", list), ("convert", convert)] {
        table.row(vec![format!("cgrulectl {command}"), spread(figure.0, 2)]);
    }
    Ok(table)
}

/// Measures the start and the reload on a host with many accounts and processes.
pub(crate) fn accounts(plan: &Plan, ground: &Ground) -> Result<Table> {
    let subject = OURS.with(Rules::Accounts);
    let each = plan.amount(50);
    let pid_max = PidMax::raise(PIDS)?;
    let [mut outside, mut inside, mut reload, mut before, mut after] = <[Figure; 5]>::default();
    for _ in 0..plan.rounds(2) {
        let mut crowd =
            Actor::start(ground, "crowd", &words![CROWD, USERS, each], Keeps::Sleepers)?;
        if crowd.done()? != u64::from(USERS * each) {
            return Err("some processes of the crowd are missing".into());
        }
        let first = subject.start(ground)?;
        outside.0.push(first.ready_after.as_secs_f64());
        first.stop()?;
        let second = subject.start(ground)?;
        inside.0.push(second.ready_after.as_secs_f64());
        before.0.push(rss(&second)?);
        reload.0.push(reloaded(ground)?);
        after.0.push(rss(&second)?);
        second.stop()?;
    }
    drop(pid_max);
    let note = format!(
        "{} processes of {USERS} of {} accounts in /etc/passwd, one rule by a pattern, a cgroup for each user; from \
         exec to ready, and from the request to the answer of cgrulectl reload. RSS is VmRSS.",
        USERS * each,
        Rules::ACCOUNTS
    );
    let mut table = Table::new("Scale: accounts and processes", &note, &["what", "measured"]);
    for (what, unit, figure, digits) in [
        ("start, all outside of their cgroups", "s", outside, 1),
        ("start, all in place", "s", inside, 1),
        ("reload", "s", reload, 1),
        ("RSS after the start", "MiB", before, 1),
        ("RSS after the reload", "MiB", after, 1),
    ] {
        table.row(vec![format!("{what}, {unit}"), spread(figure.0, digits)]);
    }
    Ok(table)
}

/// Measures the memory that reloads of many rules leave behind.
pub(crate) fn reloads(plan: &Plan, ground: &Ground) -> Result<Table> {
    let [mut start, mut one, mut ten] = <[Figure; 3]>::default();
    for _ in 0..plan.rounds(3) {
        let running = OURS.with(Rules::TenThousand).start(ground)?;
        start.0.push(rss(&running)?);
        reloaded(ground)?;
        one.0.push(rss(&running)?);
        for _ in 1..10 {
            reloaded(ground)?;
        }
        ten.0.push(rss(&running)?);
        running.stop()?;
    }
    let ratios = ten.0.iter().zip(&start.0).map(|(ten, start)| ten / start).collect();
    let note = "VmRSS with 10,000 rules, half of them by group.";
    let mut table = Table::new("Scale: memory after reloads", note, &["after", "MiB"]);
    table.row(vec!["the start".into(), spread(start.0, 1)]);
    table.row(vec!["one reload".into(), spread(one.0, 1)]);
    table.row(vec!["ten reloads".into(), spread(ten.0, 1)]);
    table.row(vec!["ten reloads / the start".into(), spread(ratios, 2)]);
    Ok(table)
}

/// Returns the memory at rest: the daemon frees the policy before the last one after its answer.
fn rss(running: &Running) -> Result<f64> {
    sleep(Duration::from_secs(1));
    rss_mib(running.pid().ok_or("no daemon")?)
}

/// Returns the seconds until the daemon has answered a request to reload.
fn reloaded(ground: &Ground) -> Result<f64> {
    seconds(&["reload".into(), "--socket".into(), control_socket(ground)])
}

/// Returns the duration of a call of `cgrulectl`, which must succeed.
fn seconds(words: &[String]) -> Result<f64> {
    let begin = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cgrulectl"));
    let output = command.args(words).stdout(Stdio::null()).output()?;
    let took = begin.elapsed().as_secs_f64();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let start: String = said.chars().take(500).collect();
        return Err(format!("cgrulectl {}: {}: {start}", words[0], output.status).into());
    }
    Ok(took)
}

fn rule_files(directory: &Path, rules: u32) -> Result<String> {
    fs::create_dir_all(directory)?;
    for file in 0..RULE_FILES {
        let mut text = "version = 1\n".to_owned();
        for rule in (0..rules).filter(|rule| rule % RULE_FILES == file) {
            // Writing to a String cannot fail.
            let _ok = write!(
                text,
                "[[rule]]\nname = \"rule {rule}\"\nuser = {}\nexe = \"/nonexistent/program-{rule}\"\n\
                 cgroup = \"scale/{rule}\"\n",
                CROWD + rule
            );
        }
        write_trusted(&directory.join(format!("{file}0-scale.toml")), &text)?;
    }
    Ok(directory.display().to_string())
}

/// Returns a file of cgconfigparser with three settings in each group.
fn cgconfig_conf(settings: u32) -> String {
    let group = |n| {
        format!(
            "group scale/g{n} {{ cpu {{ cpu.shares = \"{}\"; }} memory {{ memory.limit_in_bytes = \"{n}M\"; }} \
             pids {{ pids.max = \"{n}\"; }} }}\n",
            n + 2
        )
    };
    (1..=settings / 3).map(group).collect()
}
