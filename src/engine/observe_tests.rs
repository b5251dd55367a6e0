//! Tests rules that observe, and the counters of rules: what is counted, and that nothing else changes.

use super::*;
use crate::control::channel::{exchange, watch};
use crate::control::protocol::WatchMessage;
use crate::rules::RuleId;

use nix::sys::eventfd::EventFd;

const HEAD: &str = "requires = \"0.2\"\n";
const TOOL: &str =
    "[[rule]]\nname = \"tool\"\nuser = \"1000\"\nexe = \"tool\"\ncgroup = \"tool\"\n";

impl World {
    /// Returns how often a rule matched, and how often it moved a process.
    fn hits(&self, rule: u32) -> (u64, u64) {
        let hits = self.engine.policy.hits.get(RuleId(rule)).unwrap();
        (hits.matched.get(), hits.placed.get())
    }

    /// Lets processes of the user, one of them a tool, be born and execute programs.
    fn live(&mut self) {
        self.start_of_user(101);
        self.engine.kernel.fork(101, 102);
        self.run_for(SECOND);
        self.engine.kernel.exec(101, "tool");
        self.engine.kernel.exec(102, "other");
        self.run_for(SECOND);
    }
}

#[test]
fn a_rule_has_the_same_count_whether_it_observes_or_not() {
    let mut acting = World::new(TOOL);
    acting.live();
    assert_eq!((acting.cgroup_of(101), acting.hits(0)), ("/tool", (1, 1)));
    let mut observing = World::new(&format!("{HEAD}observe = true\n{TOOL}"));
    observing.live();
    assert_eq!((observing.cgroup_of(101), observing.hits(0)), ("/", (1, 0)));
    assert_eq!(observing.count(|metrics| metrics.would_match.get()), 1);
    assert_eq!(observing.count(|metrics| metrics.placed.get()), 0);
}

#[test]
fn a_rule_that_observes_changes_no_decision_and_no_other_count() {
    let mut without = World::new(PEOPLE);
    without.live();
    let observe = TOOL.replace("cgroup", "observe = true\ncgroup");
    let everybody = "[[rule]]\nuser = \"0-5000\"\nignore = true\nobserve = true\n";
    let mut with = World::new(&format!("{HEAD}{observe}{everybody}{PEOPLE}"));
    with.live();
    for pid in [101, 102] {
        assert_eq!([&without, &with].map(|own| own.cgroup_of(pid)), ["/people/1000"; 2]);
    }
    assert_eq!(with.hits(2), without.hits(0));
    assert_eq!(with.hits(0), (1, 0));
    // Each evaluation of a process of the user, and those of the shell and of process 1.
    assert!(with.hits(1).0 > with.hits(2).0, "{:?}", [0, 1, 2].map(|rule| with.hits(rule)));
    let other = |world: &World| world.count(|metrics| metrics.placed.get());
    assert_eq!(other(&with), other(&without));
}

#[test]
fn a_recheck_is_not_counted() {
    let mut world = World::new(PEOPLE);
    world.start_of_user(101);
    world.run_for(SECOND);
    assert_eq!(world.count(|metrics| metrics.confirmed.get()), 1);
    assert_eq!(world.hits(0), (1, 1));
    world.engine.kernel.exec(101, "sh");
    world.run_for(SECOND);
    assert_eq!(world.hits(0), (2, 1));
}

#[test]
fn a_process_that_waits_for_its_name_is_counted_once() {
    let named = "[[rule]]\nuser = \"a*\"\ncgroup = \"named\"\nobserve = true\n";
    let mut world = World::new(&format!("{HEAD}{named}"));
    world.start_of_user(101);
    world.run_for(SECOND);
    assert_eq!(world.hits(0), (0, 0));
    let name = Some("alice".to_owned());
    world.reply(UserIdentity { name, ..UserIdentity::nameless(Uid(1000)) });
    world.run_for(SECOND);
    assert_eq!(world.hits(0), (1, 0));
}

#[test]
fn a_watching_client_sees_the_rule_that_would_match_before_the_decision() {
    let observe = TOOL.replace("cgroup", "observe = true\ncgroup");
    let mut world = World::new(&format!("{HEAD}{observe}{PEOPLE}"));
    world.start_of_user(101);
    world.run_for(SECOND);
    let (mut channel, _control) = exchange(Arc::new(EventFd::new().unwrap()));
    let (watcher, stream) = watch();
    assert!(channel.watch(watcher, 1));
    world.engine.serve(channel);
    world.engine.kernel.exec(101, "tool");
    world.run_for(SECOND);
    let text = String::from_utf8(stream.take()).unwrap();
    let decisions = text.lines().map(|line| match serde_json::from_str(line).unwrap() {
        WatchMessage::Decision(decision) => decision,
        WatchMessage::Lost { lost } => panic!("{lost}"),
    });
    let seen: Vec<_> = decisions.map(|own| (own.outcome, own.rule, own.cgroup, own.exe)).collect();
    let exe = Some("/bin/tool".to_owned());
    let [observed, decided] = &seen[..] else { panic!("{seen:?}") };
    let would_match = ("would-match".to_owned(), Some("tool".to_owned()), None, exe.clone());
    assert_eq!(*observed, would_match);
    assert_eq!((&*decided.0, &decided.3), ("in-place", &exe));
}

const INSIDE: &str = "[[rule]]\nuser = 1000\ncontainer = true\ncgroup = \"inside\"\n";

/// A rule that observes needs the executable, whose read blocks. Without it the active rules decide as usual, and not
/// as if a read had failed that they need.
#[test]
fn what_only_an_observing_rule_needs_does_not_change_a_decision() {
    let observe = TOOL.replace("cgroup", "observe = true\ncgroup");
    for (comm, matches, lacking) in [("tool", 1, 0), ("blocks", 0, 1)] {
        let mut world = World::new(&format!("{HEAD}{observe}{INSIDE}{PEOPLE}"));
        world.engine.kernel.is_in_container = true;
        world.start_of_user(101);
        world.engine.kernel.processes.get_mut(&101).unwrap().comm = comm;
        world.run_for(SECOND / 20);
        assert_eq!([0, 1, 2].map(|rule| world.hits(rule).0), [matches, 1, 0], "{comm}");
        assert_eq!(world.count(|metrics| metrics.not_observed.get()), lacking, "{comm}");
    }
}

#[test]
fn arguments_that_arrive_too_late_for_an_observing_rule_do_not_change_a_decision() {
    let observe = "[[rule]]\nuser = 1000\nargument = \"-x\"\nobserve = true\ncgroup = \"x\"\n";
    let mut world = World::new(&format!("{HEAD}{observe}{TOOL}{PEOPLE}"));
    // They are requested, and never arrive.
    world.engine.kernel.examinations = Some(Vec::new());
    world.start_of_user(101);
    world.engine.kernel.processes.get_mut(&101).unwrap().comm = "tool";
    world.run_for(SECOND);
    assert_eq!(world.cgroup_of(101), "/tool");
    assert_eq!(world.hits(0), (0, 0));
    assert!(world.count(|metrics| metrics.not_observed.get()) > 0);
}

#[test]
fn a_watching_client_does_not_change_the_decision_about_a_process_whose_executable_blocks() {
    let mut world = World::new(&format!("{INSIDE}{PEOPLE}"));
    world.engine.kernel.is_in_container = true;
    let (mut channel, _control) = exchange(Arc::new(EventFd::new().unwrap()));
    let (watcher, _stream) = watch();
    assert!(channel.watch(watcher, 1));
    world.engine.serve(channel);
    world.start_of_user(101);
    world.engine.kernel.processes.get_mut(&101).unwrap().comm = "blocks";
    world.run_for(SECOND);
    assert_eq!([0, 1].map(|rule| world.hits(rule).0), [1, 0]);
    assert_eq!(world.count(|metrics| metrics.blocked_reads.get()), 1);
    assert_eq!(world.count(|metrics| metrics.not_observed.get()), 0);
}
