use super::*;
use crate::control::plan_report::PlannedMoveReport;

fn rule(name: &str, outcome: &str) -> PlannedRule {
    let rule = (!name.is_empty()).then(|| name.to_owned());
    PlannedRule { rule, outcome: outcome.to_owned(), ..PlannedRule::default() }
}

fn process_of(pid: u32, change: DecisionChange, new: PlannedRule) -> ProcessPlan {
    ProcessPlan {
        pid,
        uid: 1000,
        user: Some("alice".to_owned()),
        comm: "make".to_owned(),
        change,
        cgroup: "/old".to_owned(),
        old: rule("people", "in-place"),
        new,
        moves: Vec::new(),
        unit: None,
    }
}

fn moved(pid: u32) -> ProcessPlan {
    let step = PlannedMoveReport {
        hierarchy: "unified".to_owned(),
        from: "/system.slice/cron.service".to_owned(),
        to: "/jobs".to_owned(),
        creates: true,
    };
    ProcessPlan {
        moves: vec![step],
        unit: Some("cron.service".to_owned()),
        ..process_of(pid, DecisionChange::Moves, rule("jobs", "would-place"))
    }
}

fn text(answer: &PlanAnswer, all: bool) -> String {
    let mut out = Vec::new();
    show(answer, PlanViewOptions { all, ascii: true }, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn setting(
    kind: &str,
    name: &str,
    key: &str,
    old: Option<&str>,
    new: Option<&str>,
) -> PlannedSetting {
    PlannedSetting {
        kind: kind.to_owned(),
        name: name.to_owned(),
        key: key.to_owned(),
        old: old.map(str::to_owned),
        new: new.map(str::to_owned),
        restart: kind == "daemon",
    }
}

const EXPECTED: &str = "\
plan: 2 rules from 1 file, 123 processes
  2 processes would be moved
  1 process would keep the cgroup, but not the rule
  1 process would stay for another reason
  1 process not known

settings that would change:
  cgroup people/%u: memory.max: 1G -> 2G
  unit web.service: cpu.weight: CPUWeight=50 -> not set
  root: auto -> /x (after a restart)

cgroups that would be created:
  /jobs

by rule:
       2  people -> jobs
       1  people
       1  people -> no rule

by user:
       4  alice
       1  1000

units that would lose processes:
       2  cron.service

processes:
  7 make (alice): /system.slice/cron.service -> /jobs
      rule: people -> jobs
  8 make (alice): /system.slice/cron.service -> /jobs
      rule: people -> jobs
  9 make (alice): stays in /old
      rule: people -> no rule
      outcome: in-place -> no-rule
  10 make (alice): stays in /old
      rule: people
      outcome: in-place -> in-container: it is in a container
  11 make (1000): not known: the name service has not answered
";

#[test]
fn a_plan_begins_with_sums_and_ends_with_processes() {
    let stays =
        PlannedRule { reason: "it is in a container".to_owned(), ..rule("people", "in-container") };
    let unknown = PlannedRule {
        reason: "the name service has not answered".to_owned(),
        ..rule("", "unknown")
    };
    let changes = vec![
        moved(7),
        moved(8),
        process_of(9, DecisionChange::Rule, rule("", "no-rule")),
        process_of(10, DecisionChange::Outcome, stays),
        ProcessPlan { user: None, ..process_of(11, DecisionChange::Unknown, unknown) },
    ];
    let settings = vec![
        setting("cgroup", "people/%u", "memory.max", Some("1G"), Some("2G")),
        setting("unit", "web.service", "cpu.weight", Some("CPUWeight=50"), None),
        setting("daemon", "", "root", Some("auto"), Some("/x")),
    ];
    let created = vec!["/jobs".to_owned()];
    let report = PlanReport {
        rules: 2,
        files: 1,
        processes: 123,
        settings,
        created,
        ..PlanReport::default()
    };
    let answer = PlanAnswer { report, changes };
    assert_eq!(answer.code(), 3);
    assert_eq!(text(&answer, false), EXPECTED);
}

#[test]
fn the_rest_of_many_processes_is_counted() {
    let changes = (1..=50).map(moved).collect();
    let answer = PlanAnswer { report: PlanReport::default(), changes };
    let short = text(&answer, false);
    assert!(short.ends_with("  30 more; --all shows all\n"), "{short}");
    let all = text(&answer, true);
    assert!(all.contains("\n  50 make") && !all.contains("more"), "{all}");
}

#[test]
fn a_plan_without_changes_says_so() {
    let report = PlanReport { rules: 1, files: 1, processes: 1, ..PlanReport::default() };
    let answer = PlanAnswer { report, changes: Vec::new() };
    assert_eq!(answer.code(), 0);
    assert_eq!(
        text(&answer, false),
        "plan: 1 rule from 1 file, 1 process\n  nothing would change\n"
    );
    let errors = PlanReport { errors: 1, ..PlanReport::default() };
    assert_eq!(PlanAnswer { report: errors, changes: Vec::new() }.code(), 65);
}
