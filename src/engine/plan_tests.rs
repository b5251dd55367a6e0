//! Tests plans on a kernel in memory.

use crossbeam_channel::{Receiver, bounded};

use super::*;
use crate::config::daemon_toml::changes::SettingChanges;
use crate::control::difference::DecisionChange;
use crate::control::plan::{PlanReply, PlannedProcess};
use crate::engine::plan::{PART_NS, PATIENCE_NS};
use crate::policy::planned::{PlanSources, PlannedPolicy};

const OLD: &str = "[[rule]]\nname = \"old\"\nuser = \"1000-1999\"\ncgroup = \"old\"\n";
const NEW: &str = "[[rule]]\nname = \"new\"\nuser = \"1000-1999\"\ncgroup = \"new\"\n";

impl World {
    /// Requests a plan, and lets the rule thread reply with these rules.
    fn request_plan(&mut self, rules: &str) -> Receiver<PlanReply> {
        let (reply, received) = bounded(1);
        self.engine.plan(PlanSources::default(), reply);
        let request = self.engine.kernel.plans.pop().expect("a request to the rule thread");
        let mut policy = Self::policy(rules, &self.engine.kernel);
        policy.generation = 2;
        let (diagnostics, settings) = (Vec::new(), SettingChanges::default());
        let number = request.number;
        let found = PlannedPolicy { number, policy: Some(Box::new(policy)), diagnostics, settings };
        self.engine.kernel.replies.push(WorkerReply::Planned(Box::new(found)));
        received
    }

    /// Returns the changes of a plan that is complete within this time.
    fn planned(&mut self, rules: &str, nanoseconds: u64) -> Vec<PlannedProcess> {
        let received = self.request_plan(rules);
        self.run_for(nanoseconds);
        match received.try_recv() {
            Ok(PlanReply::Plan(plan)) => plan.processes,
            other => panic!("{other:?}"),
        }
    }

    fn placed(rules: &str) -> Self {
        let mut world = Self::new(rules);
        world.start_of_user(101);
        world.run_for(SECOND);
        world
    }
}

#[test]
fn a_plan_names_the_move_and_moves_nothing() {
    let mut world = World::placed(OLD);
    let [moved]: [PlannedProcess; 1] = world.planned(NEW, SECOND).try_into().unwrap();
    assert_eq!((moved.pid.get(), moved.uid), (101, Uid(1000)));
    assert_eq!(moved.change, DecisionChange::Moves);
    let [before, after] = [&moved.before, &moved.after].map(|one| one.rule.as_ref().unwrap());
    assert_eq!((&*before.0, &*after.0), ("old", "new"));
    let [step] = &*moved.moves else { panic!("{moved:?}") };
    assert_eq!((&*step.from, &*step.to, step.creates), (&b"/old"[..], "/new", true));
    assert_eq!(world.cgroup_of(101), "/old");
    let counted = world.count(|metrics| metrics.placed.get());
    world.run_for(SECOND);
    assert_eq!(world.count(|metrics| metrics.placed.get()), counted);
}

#[test]
fn a_plan_of_the_active_rules_has_no_changes() {
    let mut world = World::placed(OLD);
    assert!(world.planned(OLD, SECOND).is_empty());
    // Without a rule the process stays.
    let [stays]: [PlannedProcess; 1] = world.planned("", SECOND).try_into().unwrap();
    assert_eq!((stays.change, stays.moves.len()), (DecisionChange::Rule, 0));
    assert_eq!(stays.after.outcome, "no-rule");
}

#[test]
fn a_process_that_only_the_active_rules_would_move_is_listed() {
    let mut world = World::placed(OLD);
    world.engine.kernel.processes.get_mut(&101).unwrap().cgroup = "/new".to_owned();
    let same_name = OLD.replace("cgroup = \"old\"", "cgroup = \"new\"");
    let [stays]: [PlannedProcess; 1] = world.planned(&same_name, SECOND).try_into().unwrap();
    assert_eq!(stays.moves.len(), 0);
    assert_eq!((stays.before.outcome, stays.after.outcome), ("would-place", "in-place"));
}

#[test]
fn a_pinned_process_is_not_listed() {
    let mut world = World::placed(OLD);
    let request = PinRequest { pid: Some(pid(101)), action: PinAction::Stay { children: false } };
    let root = PinClient { uid: Uid(0), process: SHELL };
    assert!(world.engine.grant(request, root).unwrap());
    assert!(world.planned(NEW, SECOND).is_empty());
    let policy = World::policy(NEW, &world.engine.kernel);
    world.engine.kernel.replies.push(WorkerReply::Policy(Box::new(policy)));
    world.run_for(SECOND);
    assert_eq!(world.cgroup_of(101), "/old");
}

#[test]
fn a_missing_cgroup_that_no_rule_creates_is_refused() {
    let mut world = World::placed(OLD);
    world.engine.kernel.group_ids.insert("/new".to_owned(), 7);
    let [moved]: [PlannedProcess; 1] = world.planned(NEW, SECOND).try_into().unwrap();
    assert!(!moved.moves[0].creates, "it exists");
}

#[test]
fn executables_are_read_and_examined_as_in_an_evaluation() {
    let by_exe = format!("[[rule]]\nuser = 1000\nexe = \"/bin/tool\"\ncgroup = \"tool\"\n{OLD}");
    let mut world = World::placed(OLD);
    world.engine.kernel.exec(101, "tool");
    world.run_for(SECOND);
    let [moved]: [PlannedProcess; 1] = world.planned(&by_exe, SECOND).try_into().unwrap();
    assert_eq!(&*moved.moves[0].to, "/tool");
    // The examination of a script has no result.
    world.engine.kernel.examinations = Some(Vec::new());
    let by_argument = format!("[[rule]]\nuser = 1000\nargument = \"x\"\ncgroup = \"x\"\n{OLD}");
    let received = world.request_plan(&by_argument);
    world.run_for(PATIENCE_NS / 2);
    assert!(received.try_recv().is_err(), "it waits");
    world.run_for(PATIENCE_NS);
    let Ok(PlanReply::Plan(plan)) = received.try_recv() else { panic!("no plan") };
    let [unknown] = &*plan.processes else { panic!("{:?}", plan.processes) };
    assert_eq!(unknown.change, DecisionChange::Unknown);
    assert_eq!(unknown.after.reason, Some("its executable was not examined in time"));
}

#[test]
fn a_read_that_blocks_leaves_the_process_unknown() {
    let mut world = World::placed(OLD);
    world.engine.kernel.exec(101, "blocks");
    world.run_for(SECOND);
    let by_exe = format!("[[rule]]\nuser = 1000\nexe = \"/bin/tool\"\ncgroup = \"tool\"\n{OLD}");
    let changes = world.planned(&by_exe, SECOND);
    assert!(changes.iter().all(|one| one.change == DecisionChange::Unknown), "{changes:?}");
    assert_eq!(changes.len(), 1);
}

#[test]
fn names_are_looked_up_for_the_rules_of_the_plan() {
    let mut world = World::placed(OLD);
    let by_name = "[[rule]]\nname = \"people\"\nuser = \"a*\"\ncgroup = \"people/%u\"\n";
    let received = world.request_plan(by_name);
    world.run_for(SECOND);
    assert!(received.try_recv().is_err());
    assert!(world.engine.kernel.identified.contains(&Uid(1000)));
    for uid in std::mem::take(&mut world.engine.kernel.identified) {
        let name = (uid == Uid(1000)).then(|| "alice".to_owned());
        let identity = UserIdentity { name, ..UserIdentity::nameless(uid) };
        let policy = world.engine.plan_for(2).expect("a plan");
        let user = User::new(&policy.matcher, identity, Nanos(0));
        world.engine.kernel.replies.push(WorkerReply::User { generation: 2, user });
    }
    world.run_for(SECOND);
    let Ok(PlanReply::Plan(plan)) = received.try_recv() else { panic!("no plan") };
    let moved = plan.processes.iter().find(|one| one.pid.get() == 101).unwrap();
    assert_eq!(&*moved.moves[0].to, "/people/alice");
    assert_eq!(moved.user.as_deref(), Some("alice"));
}

#[test]
fn other_rules_or_another_plan_end_a_plan() {
    let mut world = World::placed(OLD);
    let first = world.request_plan(NEW);
    let second = world.request_plan(NEW);
    assert!(matches!(first.try_recv(), Ok(PlanReply::Superseded)));
    world.engine.take_answers();
    assert!(second.try_recv().is_err());
    let policy = World::policy(NEW, &world.engine.kernel);
    world.engine.kernel.replies.push(WorkerReply::Policy(Box::new(policy)));
    world.engine.take_answers();
    assert!(matches!(second.try_recv(), Ok(PlanReply::Superseded)));
    world.run_for(SECOND);
    assert_eq!(world.cgroup_of(101), "/new");
}

#[test]
fn a_plan_leaves_most_of_the_thread_to_evaluations() {
    let mut world = World::placed(OLD);
    for pid in 1000..1500 {
        world.start_of_user(pid);
    }
    world.run_for(SECOND);
    let received = world.request_plan(NEW);
    world.engine.take_answers();
    let began = world.engine.kernel.now();
    assert!(matches!(world.engine.turn().unwrap(), TurnResult::Idle));
    let took = world.engine.kernel.now().since(began);
    assert!(took < 4 * PART_NS && received.try_recv().is_err(), "{took}");
    world.run_for(SECOND);
    let Ok(PlanReply::Plan(plan)) = received.try_recv() else { panic!("no plan") };
    assert_eq!(plan.processes.len(), 501);
}
