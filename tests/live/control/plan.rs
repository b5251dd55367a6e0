//! Compares plans with what the reloads then do, process by process, for random rules and processes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use cgruled::control::client;
use cgruled::control::difference::DecisionChange;
use cgruled::control::plan_report::{PlanReport, ProcessPlan};
use cgruled::control::protocol::ControlRequest;

use super::ctl::{Said, ctl};
use super::{BASE, SOCKET, served};
use crate::containers::{BY_ROOT, contained_in, unused_name};
use crate::harness::user::{ALICE, BOB, CAROL, FENCE, NAMELESS};
use crate::harness::{Actor, Live, PATIENCE, REST, census, eventually};
use crate::histories::history::Rng;

const USERS: [u32; 4] = [ALICE, BOB, CAROL, NAMELESS];
/// Processes that live for several rounds, each with descendants.
const ACTORS: usize = 24;
fn rounds() -> usize {
    let given = std::env::var("CGRULED_PLAN_ROUNDS").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(5)
}

fn one_of<'t>(rng: &mut Rng, texts: &[&'t str]) -> &'t str {
    texts[usize::try_from(rng.below(texts.len() as u64)).unwrap()]
}

/// Returns a rule for test users alone.
fn rule(rng: &mut Rng) -> String {
    let users = [
        "\"cgt-alice\"",
        "[\"cgt-alice\", \"cgt-bob\"]",
        "\"61703\"",
        "\"cgt-*\"",
        "\"61701-61750\"",
        "[\"cgt-carol\", \"61750\"]",
    ];
    let criteria = [
        "",
        "exe = \"tool\"\n",
        "exe = \"/run/cgruled-live/bin/*\"\n",
        "exe = \"job\"\n",
        "exe = [\"actors\", \"job\"]\n",
        "group = \"cgt-team\"\n",
        "group = \"cgt-bob\"\n",
        "argument = \"special\"\n",
        "below = \"remoted\"\n",
        "below = \"locald\"\n",
        "not = { exe = \"tool\" }\n",
        "not = { below = \"remoted\" }\n",
        "not = { group = \"cgt-team\" }\n",
        "from = \"/*\"\n",
    ];
    let places = [
        "cgroup = \"a\"",
        "cgroup = \"b/c\"",
        "cgroup = \"people/%u\"",
        "cgroup = \"people/%U/%g\"",
        "cgroup = \"programs/%p\"",
        "cgroup = \"jobs/%P\"",
        "cgroup = \"pids\"\ncontrollers = [\"pids\"]",
        "ignore = true",
    ];
    let users = one_of(rng, &users);
    let (criteria, place) = (one_of(rng, &criteria), one_of(rng, &places));
    let name = match rng.below(2) {
        0 => String::new(),
        _ => format!("name = \"rule {}\"\n", rng.below(5)),
    };
    let priority = rng.below(3);
    format!("[[rule]]\n{name}priority = {priority}\nuser = {users}\n{criteria}{place}\n")
}

fn rules(rng: &mut Rng) -> String {
    let tables = ["", "[cgroup.a]\ncpu.weight = 50\n", "[cgroup.\"people/%u\"]\npids.max = 500\n"];
    let table = one_of(rng, &tables).to_owned();
    let count = 1 + rng.below(6);
    (0..count).map(|_| rule(rng)).collect::<String>() + &table
}

/// Starts a random process of a test user, with descendants.
fn process(live: &Live, rng: &mut Rng) -> Actor {
    let uid = USERS[usize::try_from(rng.below(4)).unwrap()];
    let (tool, actors) = (live.path("bin/tool"), live.path("bin/actors"));
    let (tool, actors) = (tool.display(), actors.display());
    let program = ["remoted", "locald"][usize::try_from(rng.below(2)).unwrap()];
    let daemon = live.path("bin").join(program);
    let script = live.path("bin/job");
    let above = match rng.below(3) {
        0 => format!("exec {} daemon fork", daemon.display()),
        _ => String::new(),
    };
    let what = match rng.below(7) {
        0 => format!("exec {tool} tool"),
        1 => format!("exec {actors} renamed"),
        2 => format!("exec {} job", script.display()),
        3 => "fork fork".to_owned(),
        4 => format!("fork exec {tool} special"),
        5 => "thread exit-leader".to_owned(),
        _ => String::new(),
    };
    live.hold(&format!("{above} uid {uid} {uid} {what}"))
}

/// Returns the text of `/proc/PID/cgroup` of each process of a test user.
fn cgroups() -> BTreeMap<u32, String> {
    let users = USERS.iter().chain(&[FENCE]);
    let pids = users.flat_map(|&uid| census::of(uid)).map(|resident| resident.pid);
    let text = |pid| {
        let thread = census::live_thread(pid)?;
        fs::read_to_string(format!("/proc/{pid}/task/{thread}/cgroup")).ok()
    };
    pids.filter_map(|pid| Some((pid, text(pid)?))).collect()
}

/// Returns the text of `/proc/PID/cgroup` after the moves of a plan.
fn moved(text: &str, plan: &ProcessPlan) -> String {
    let lines = text.lines().map(|line| {
        let mut parts = line.splitn(3, ':');
        let [id, listed, path] = [(); 3].map(|()| parts.next().unwrap_or_default());
        let step = plan.moves.iter().find(|step| match step.hierarchy.as_str() {
            "unified" => id == "0",
            name => name == listed && id != "0",
        });
        step.inspect(|step| assert_eq!(step.from, path, "{plan:?}"));
        format!("{id}:{listed}:{}\n", step.map_or(path, |step| &step.to))
    });
    lines.collect()
}

fn plan_of(rules: Vec<String>, file: Option<String>) -> (PlanReport, Vec<ProcessPlan>) {
    let request = ControlRequest::Plan { rules, file };
    let mut reply = client::ask(Path::new(SOCKET), &request).unwrap().expect("a daemon");
    let report = reply.next_line().unwrap().expect("a report");
    let mut processes = Vec::new();
    while let Some(process) = reply.next_line().unwrap() {
        processes.push(process);
    }
    (report, processes)
}

/// Writes the rules of a plan to another directory, with the names of the daemon's files.
fn write_next(live: &Live, rules: &str) -> String {
    let next = live.path("next.d");
    fs::create_dir_all(&next).unwrap();
    for file in ["50-test.toml", "99-fence.toml"] {
        fs::copy(live.path("rules.d").join(file), next.join(file)).unwrap();
    }
    fs::write(next.join("50-test.toml"), format!("version = 1\n{rules}")).unwrap();
    next.to_str().unwrap().to_owned()
}

fn reload() {
    let said = ctl("reload");
    assert!(said.code == 0 && !said.out.contains("in progress"), "{said:?}");
}

/// Sums of all rounds.
#[derive(Debug, Default)]
struct Sums {
    processes: usize,
    moved: usize,
    otherwise: usize,
    unknown: usize,
    created: usize,
}

/// One plan and the reload after it.
fn round(live: &Live, next: &str, sums: &mut Sums, seed: u64) {
    let directory = write_next(live, next);
    let (report, plan) = plan_of(vec![directory], None);
    assert_eq!(report.errors, 0, "seed {seed}: {:?}\n{next}", report.diagnostics);
    let plan: BTreeMap<u32, ProcessPlan> = plan.into_iter().map(|one| (one.pid, one)).collect();
    let before = cgroups();
    live.write_rules(next);
    reload();
    for one in plan.values() {
        match one.change {
            DecisionChange::Unknown => sums.unknown += 1,
            DecisionChange::Moves => sums.moved += 1,
            DecisionChange::Rule | DecisionChange::Outcome => sums.otherwise += 1,
        }
    }
    let differing = || {
        let after = cgroups();
        let expected = before.iter().filter_map(|(pid, old)| {
            let now = after.get(pid)?;
            let plan = plan.get(pid).filter(|plan| plan.change != DecisionChange::Unknown);
            let expected = plan.map_or_else(|| old.clone(), |plan| moved(old, plan));
            (*now != expected).then(|| format!("{pid}: {now} instead of {expected}: {plan:?}"))
        });
        expected.collect::<Vec<_>>()
    };
    // Executables are examined by other threads after the reply.
    eventually(REST, || differing().is_empty());
    sleep(Duration::from_millis(200));
    let wrong = differing();
    assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}\n{next}");
    let after = cgroups();
    sums.processes += before.keys().filter(|pid| after.contains_key(pid)).count();
    let of_others =
        plan.values().filter(|one| !before.contains_key(&one.pid) && !one.moves.is_empty());
    let of_others: Vec<&ProcessPlan> =
        of_others.filter(|one| fs::exists(format!("/proc/{}/exe", one.pid)).unwrap()).collect();
    assert!(of_others.is_empty(), "seed {seed}: {of_others:?}");
    let paths: BTreeSet<&str> = after
        .values()
        .flat_map(|text| text.lines())
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .collect();
    let missing: Vec<&String> =
        report.created.iter().filter(|path| !paths.contains(path.as_str())).collect();
    assert!(missing.is_empty(), "seed {seed}: {missing:?} not created");
    sums.created += report.created.len();
}

#[test]
fn a_plan_is_what_the_reload_does() {
    let Some((live, _daemon)) = served() else { return };
    for program in ["tool", "remoted", "locald"] {
        live.program(&format!("bin/{program}"));
    }
    live.script("bin/job", &format!("#!{}/bin/actors\n", BASE));
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let given = std::env::var("CGRULED_PLAN_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or(time.as_secs());
    let mut rng = Rng::new(seed);
    let mut running: Vec<Actor> = (0..ACTORS).map(|_| process(&live, &mut rng)).collect();
    let mut sums = Sums::default();
    for _ in 0..rounds() {
        for _ in 0..ACTORS / 6 {
            let index = usize::try_from(rng.below(ACTORS as u64)).unwrap();
            running[index] = process(&live, &mut rng);
        }
        let index = usize::try_from(rng.below(ACTORS as u64)).unwrap();
        live.ground.take_away(running[index].subject);
        live.fence();
        sleep(Duration::from_millis(500));
        round(&live, &rules(&mut rng), &mut sums, seed);
    }
    println!("seed {seed}, {} rounds: {sums:?}", rounds());
    // Everything that a decision needs is available here within the five seconds of a plan.
    assert!(sums.unknown == 0 && sums.moved > rounds(), "{sums:?}");
}

#[test]
fn the_command_shows_a_plan_and_changes_nothing() {
    let Some((live, _daemon)) = served() else { return };
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect(&actor, "there");
    let Said { code, out, err } = ctl("plan");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("nothing would change"), "{out}");
    let rule = "[[rule]]\nname = \"all\"\nuser = \"cgt-alice\"\ncgroup = \"other\"\n";
    let directory = write_next(&live, rule);
    let Said { code, out, err } = ctl(&format!("plan --rules {directory}"));
    let out = out.replace(char::from_u32(0x2192).unwrap(), "->");
    assert_eq!((code, err.as_str()), (3, ""), "{out}");
    let line = format!("{} actors (cgt-alice): {}", actor.subject, live.ground.at("there"));
    assert!(out.contains(&line) && out.contains("rule: people -> all"), "{out}");
    assert!(out.contains(&format!("created:\n  {}", live.ground.at("other"))), "{out}");
    // One file, added to the directory of the daemon, where it comes first.
    let file = live.path("next.d/10-first.toml");
    fs::write(&file, format!("version = 1\n{rule}")).unwrap();
    let file = file.to_str().unwrap();
    let said = ctl(&format!("plan {file} --json"));
    let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let change = &answer["changes"][0];
    assert_eq!((said.code, &change["pid"]), (3, &actor.subject.into()), "{answer}");
    let installed = live.path("rules.d/10-first.toml");
    assert_eq!(change["new"]["file"], installed.to_str().unwrap());
    assert_eq!(change["moves"][0]["to"], live.ground.at("other"));
    assert!(!installed.exists());
    live.expect(&actor, "there");
    fs::write(file, "version = 1\n[[rule]]\nuser = \"cgt-alice\"\n").unwrap();
    let Said { code, out, err } = ctl(&format!("plan {file}"));
    assert_eq!((code, out.as_str()), (65, ""), "{err}");
    assert!(err.contains("10-first.toml:2"), "{err}");
    fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let Said { code, err, .. } = ctl(&format!("plan {file}"));
    assert!(code == 65 && err.contains("writable"), "{err}");
    let Said { code, err, .. } = ctl("plan --rules /nonexistent");
    assert!(code == 65 && err.contains("/nonexistent: error: is not a directory"), "{err}");
}

#[test]
fn a_reload_shows_its_plan_first() {
    let Some((live, _daemon)) = served() else { return };
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect(&actor, "there");
    let Said { code, out, err } = ctl("reload --plan");
    assert!(code == 0 && out.contains("nothing would change"), "{out}");
    assert!(err.contains("not on a terminal") && !out.contains("active:"), "{err}");
    let said = ctl("reload --plan --yes").ok();
    assert!(said.contains("nothing would change") && said.contains("active: 2 rules"), "{said}");
    live.write_rules("nonsense = 1\n");
    let kept = eventually(PATIENCE, || ctl("plan").code == 65);
    assert!(kept && ctl("reload --plan --yes").code == 65);
}

/// Answers the prompt of a reload on a terminal. Returns the exit code and what was shown.
fn answered(answer: &str) -> (Option<i32>, String) {
    let tool = env!("CARGO_BIN_EXE_cgrulectl");
    let mut terminal = Command::new("script")
        .args(["-qec", &format!("{tool} reload --plan --socket {SOCKET}"), "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = terminal.stdout.take().unwrap();
    let mut shown = Vec::new();
    while !shown.ends_with(b"[y/N] ") {
        let mut byte = [0];
        output.read_exact(&mut byte).expect("a prompt");
        shown.extend(byte);
    }
    let mut input = terminal.stdin.take().unwrap();
    writeln!(input, "{answer}").unwrap();
    output.read_to_end(&mut shown).unwrap();
    drop(input);
    (terminal.wait().unwrap().code(), String::from_utf8_lossy(&shown).into_owned())
}

#[test]
fn a_reload_on_a_terminal_asks_first() {
    let Some((_live, _daemon)) = served() else { return };
    for answer in ["", "n", "yy"] {
        let (code, shown) = answered(answer);
        assert!(shown.contains("nothing would change"), "{shown}");
        assert!(code == Some(0) && !shown.contains("active:"), "{shown}");
    }
    let (code, shown) = answered("y");
    assert!(code == Some(0) && shown.contains("active: 2 rules"), "{code:?} {shown}");
}

#[test]
fn a_plan_leaves_processes_in_their_container_as_a_reload_does() {
    let Some((live, _daemon)) = served() else { return };
    let inside = contained_in(&live, &unused_name(), BY_ROOT);
    live.fence();
    let mut sums = Sums::default();
    let rule = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"other\"\n";
    for (rules, moves) in [(rule.to_owned(), 0), (format!("{rule}containers = true\n"), 1)] {
        let before = sums.moved;
        round(&live, &rules, &mut sums, 0);
        assert_eq!(sums.moved - before, moves, "{rules}");
    }
    live.expect_pid("", inside.pid, "other");
}
