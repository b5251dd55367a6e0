//! Tests `cgrulectl history`: decisions about processes that have exited, and who may read them.

use std::collections::BTreeMap;
use std::time::Duration;

use cgruled::control::history::message::RecordedEvaluation;

use crate::control::ctl::{cgrulectl, ctl};
use crate::control::{become_alice, served, served_with, status};
use crate::harness::user::{ALICE, BOB, CAROL};
use crate::harness::{PATIENCE, Settings, census, eventually};

fn recorded(line: &str) -> Vec<RecordedEvaluation> {
    let said = ctl(&format!("history --json {line}"));
    assert_eq!(said.code, 0, "{said:?}");
    parsed(&said.out)
}

fn parsed(lines: &str) -> Vec<RecordedEvaluation> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until no more such evaluations are recorded: the rechecks of the last placements are over.
fn expect_settled(is_counted: impl Fn(&RecordedEvaluation) -> bool) {
    let evaluations = || recorded("--all").iter().filter(|one| is_counted(one)).count();
    assert!(eventually(PATIENCE, || {
        let before = evaluations();
        std::thread::sleep(Duration::from_millis(500));
        evaluations() == before
    }));
}

#[test]
fn processes_that_have_exited_are_found_by_pid_and_user() {
    let Some((live, _daemon)) = served() else { return };
    let mut actor = live.actor(&format!("{} say secret4711 hold", become_alice()));
    actor.subject = actor.said("secret4711");
    live.expect(&actor, "there");
    let pid = actor.subject;
    let other = live.hold(&format!("uid {BOB} {BOB}"));
    live.fence();
    drop(actor);
    assert!(eventually(PATIENCE, || census::of(ALICE).is_empty()));
    let text = ctl(&format!("history --pid {pid}")).ok();
    let line = format!(" placed    {pid} cgt-alice -> there by 'people' (");
    assert!(text.lines().any(|own| own.contains(&line)), "{text}");
    for filter in ["--user cgt-alice", "--user 61701 --since 10m --rule people"] {
        let found = recorded(filter);
        assert!(found.iter().all(|own| own.uid == Some(ALICE)), "{found:?}");
        let placed = found.iter().find(|own| own.pid == pid && own.outcome == "placed").unwrap();
        assert_eq!((placed.gid, &placed.cgroups[..]), (Some(0), &["there".to_owned()][..]));
        assert!(placed.file.as_ref().unwrap().ends_with("50-test.toml"), "{placed:?}");
    }
    let without_rule = recorded(&format!("--all --pid {}", other.subject));
    assert!(without_rule.iter().any(|own| own.outcome == "no-rule" && own.uid == Some(BOB)));
    assert!(recorded("--user cgt-bob").is_empty(), "decisions without a rule need --all");
    let all = ctl("history --all --json").out;
    assert!(all.contains(&format!("\"pid\":{pid},")) && !all.contains("secret"), "{all}");
    let history = status().history;
    assert_eq!((history.capacity, history.overwritten), (196_608, 0));
    assert!(history.kept > 0 && ctl("status").ok().contains("\nHistory  "));
}

/// Checks arguments that the daemon reads, because a rule tests them.
#[test]
fn arguments_are_not_recorded() {
    let Some((live, _daemon)) = served() else { return };
    let program = live.program("bin/tool");
    live.write_rules(&format!(
        "[[rule]]\nname = \"people\"\nuser = \"cgt-alice\"\nexe = \"{program}\"\n\
         argument = \"secret*\"\ncgroup = \"there\"\n"
    ));
    ctl("reload").ok();
    let steps = format!("{} exec {program} tool secret4711 hold", become_alice());
    let actor = live.actor(&steps.replace("secret4711", "say secret4711"));
    assert!(eventually(PATIENCE, || !census::of(ALICE).is_empty()));
    live.fence();
    let found = || recorded("--user cgt-alice --rule people");
    assert!(eventually(PATIENCE, || found().iter().any(|own| own.outcome == "placed")));
    drop(actor);
    let placed = found().into_iter().find(|own| own.outcome == "placed").unwrap();
    assert_eq!(placed.exe.as_deref(), Some(&*program));
    assert!(placed.exe_on_host && placed.cause.contains("exec"), "{placed:?}");
    assert!(!ctl("history --all --json").out.contains("secret"));
}

#[test]
fn a_disabled_history_is_said() {
    let Some((_live, _daemon)) = served_with("history.size = 0\n") else { return };
    let said = ctl("history");
    assert!(said.code == 1 && said.err.contains("history.size"), "{said:?}");
    assert_eq!(status().history.capacity, 0);
    assert!(!ctl("status").ok().contains("History"));
}

#[test]
fn a_plan_for_the_past_counts_each_decision_that_other_rules_would_change() {
    let Some((live, _daemon)) = served() else { return };
    let tool = live.program("bin/tool");
    live.write_rules(&format!(
        "[[rule]]\nname = \"tool\"\nuser = \"cgt-alice\"\nexe = \"{tool}\"\ncgroup = \"tools\"\n\
         [[rule]]\nname = \"people\"\nuser = \"cgt-alice\"\ncgroup = \"there\"\n"
    ));
    ctl("reload").ok();
    let storm = || {
        for _ in 0..20 {
            let plain = live.hold(&become_alice());
            let tools = live.actor(&format!("{} exec {tool} tool hold", become_alice()));
            let bob = live.hold(&format!("uid {BOB} {BOB}"));
            live.fence();
            drop((plain, tools, bob));
        }
    };
    storm();
    expect_settled(|one| [Some(ALICE), Some(BOB)].contains(&one.uid));
    // Rules that are not active: one is the same, one is missing, one is new.
    let directory = live.path("others");
    std::fs::create_dir(&directory).unwrap();
    let rules = format!(
        "version = 1\n[[rule]]\nname = \"tool\"\nuser = \"cgt-alice\"\nexe = \"{tool}\"\ncgroup = \"tools\"\n\
         [[rule]]\nname = \"bob\"\nuser = \"cgt-bob\"\ncgroup = \"bob\"\n"
    );
    std::fs::write(directory.join("50-test.toml"), &rules).unwrap();
    let directory = directory.display();
    let said = ctl(&format!("plan --since 10m --json --rules {directory} --no-legacy"));
    assert_eq!(said.code, 3, "{said:?}");
    let plan: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let counts = |uid: u32| -> u64 {
        let all = plan["different"].as_array().unwrap().iter();
        all.filter(|one| one["uid"] == uid).map(|one| one["count"].as_u64().unwrap()).sum()
    };
    for one in plan["different"].as_array().unwrap() {
        let rules = (one["old"]["rule"].as_str(), one["new"]["rule"].as_str());
        let uid = one["uid"].as_u64();
        if uid == Some(u64::from(ALICE)) {
            assert_eq!(rules, (Some("people"), None), "{one}");
        } else if uid == Some(u64::from(BOB)) {
            assert_eq!(rules, (None, Some("bob")), "{one}");
        }
    }
    // Evaluations may be added between both requests.
    let own = recorded("--all");
    let of_alice =
        own.iter().filter(|one| one.uid == Some(ALICE) && one.rule.as_deref() == Some("people"));
    let of_bob = own.iter().filter(|one| one.uid == Some(BOB) && one.outcome == "no-rule");
    assert!(counts(ALICE) <= of_alice.count() as u64 && counts(BOB) <= of_bob.count() as u64);
    assert!(counts(ALICE) >= 20 && counts(BOB) >= 20, "{plan}");
}

/// User, group and program: what the rules of the next test tell processes apart by.
type Subject = (u32, u32, String);
/// Name of a rule and its destinations.
type Decided = (Option<String>, Vec<String>);
/// The number of evaluations by user, and by the decisions of both sets of rules.
type Changes = BTreeMap<(u32, Decided, Decided), u64>;

const TESTERS: [u32; 3] = [ALICE, BOB, CAROL];

/// Returns what a decision about a process of a test user depended on. The rules that were active before, when there was
/// no second daemon, need no program.
fn subject(one: &RecordedEvaluation) -> Option<Subject> {
    let is_decided = !["gone", "waiting", "sticky", "confirmed"].contains(&one.outcome.as_str());
    let exe = one.invoked.clone().or_else(|| one.exe.clone());
    let uid = one.uid.filter(|uid| is_decided && TESTERS.contains(uid))?;
    Some((uid, one.gid?, exe?))
}

/// Returns how the evaluations of one daemon would change by the decisions of another.
fn changes(recorded: &[RecordedEvaluation], others: Vec<RecordedEvaluation>) -> Changes {
    let mut decided: BTreeMap<Subject, Decided> = BTreeMap::new();
    for one in others {
        let Some(subject) = subject(&one) else { continue };
        let own = (one.rule, one.cgroups);
        let before = decided.entry(subject.clone()).or_insert_with(|| own.clone());
        assert_eq!(*before, own, "{subject:?}");
    }
    let mut changes = Changes::new();
    for one in recorded {
        let Some(subject) = subject(one) else { continue };
        let new = decided.get(&subject).unwrap_or_else(|| panic!("not seen: {one:?}"));
        let old = (one.rule.clone(), one.cgroups.clone());
        if old.1 != new.1 {
            *changes.entry((subject.0, old, new.clone())).or_default() += 1;
        }
    }
    changes
}

/// Returns the changes that a plan for the past lists.
fn listed(plan: &serde_json::Value) -> Changes {
    let decided = |side: &serde_json::Value| -> Decided {
        let cgroups = serde_json::from_value(side["cgroups"].clone()).unwrap();
        (side["rule"].as_str().map(str::to_owned), cgroups)
    };
    let mut changes = Changes::new();
    for one in plan["different"].as_array().unwrap() {
        let uid = u32::try_from(one["uid"].as_u64().unwrap()).unwrap();
        if TESTERS.contains(&uid) {
            let kind = (uid, decided(&one["old"]), decided(&one["new"]));
            *changes.entry(kind).or_default() += one["count"].as_u64().unwrap();
        }
    }
    changes
}

#[test]
fn a_plan_for_the_past_is_what_a_second_daemon_decides() {
    let Some((live, _daemon)) = served() else { return };
    let tool = live.program("bin/tool");
    // The first rule needs the executable, so that each record has it.
    live.write_rules(&format!(
        "[[rule]]\nname = \"tools\"\nuser = \"cgt-*\"\nexe = \"{tool}\"\ncgroup = \"tools\"\n\
         [[rule]]\nname = \"people\"\nuser = \"cgt-*\"\ncgroup = \"there\"\n"
    ));
    ctl("reload").ok();
    let others = format!(
        "version = 1\n\
         [[rule]]\nname = \"a\"\nuser = [\"cgt-alice\", \"cgt-bob\"]\nexe = \"{tool}\"\ncgroup = \"a\"\n\
         [[rule]]\nname = \"b\"\nuser = \"cgt-bob\"\nnot = {{ group = \"cgt-team\" }}\ncgroup = \"b\"\n\
         [[rule]]\nname = \"c\"\nuser = \"cgt-carol\"\nexe = \"*\"\nignore = true\n\
         [[rule]]\nname = \"people\"\nuser = \"cgt-alice\"\ncgroup = \"there\"\n"
    );
    let (directory, socket) = (live.path("others"), live.path("second.socket"));
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("50-test.toml"), others).unwrap();
    let [directory, socket] = [&directory, &socket].map(|path| path.to_str().unwrap());
    let arguments = ["--control", socket, "--rules", directory, "--dry-run"];
    let _second = live.second_daemon(&Settings { config: "", arguments: &arguments });
    for _ in 0..25 {
        let kept = [
            live.hold(&become_alice()),
            live.actor(&format!("{} exec {tool} tool hold", become_alice())),
            live.hold(&format!("uid {BOB} {BOB}")),
            live.hold(&format!("uid {BOB} {BOB} exec {tool} tool")),
            live.hold(&format!("uid {CAROL} {CAROL} fork")),
        ];
        live.fence();
        drop(kept);
    }
    expect_settled(|one| subject(one).is_some());
    let said = cgrulectl(&format!("history --all --json --socket {socket}")).ok();
    let expected = changes(&recorded("--all"), parsed(&said));
    let said = ctl(&format!("plan --since 10m --json --rules {directory} --no-legacy"));
    let plan = serde_json::from_str(&said.out).unwrap();
    assert_eq!(listed(&plan), expected);
    assert!(expected.len() >= 4 && expected.values().sum::<u64>() >= 100, "{expected:?}");
}
