use std::path::Path;

use nix::errno::Errno;

use super::fake_kernel::{FakeKernel, FakeProcess, pid};
use super::*;
use crate::cgroup::host::ManagedRoots;
use crate::config::rules_toml;
use crate::control::request::{PinAction, PinClient, PinRequest};
use crate::event::{Gid, Uid};
use crate::kernel::program::{Examined, ExeRead, Program};
use crate::policy::User;
use crate::policy::load::{FileContents, Subordinates};
use crate::policy::rule_hits::{RuleHitTable, RulesInFiles};
use crate::policy::worker::WorkerReply;
use crate::rules::matcher::Matcher;
use crate::rules::names::{ResolvedNames, UserIdentity, resolve};
use crate::tracking::queue;

#[path = "ancestry_tests.rs"]
mod ancestry;
#[path = "gate_tests.rs"]
mod gate;
#[path = "late_children_tests.rs"]
mod late_children;
#[path = "observe_tests.rs"]
mod observe;
#[path = "origin_tests.rs"]
mod origin;
#[path = "plan_tests.rs"]
mod plans;

const SHELL: u32 = 100;
const SECOND: u64 = 1_000_000_000;

/// Engine on a kernel with a shell of root, after the first scan.
struct World {
    engine: Engine<FakeKernel>,
}

impl World {
    fn new(rules: &str) -> Self {
        let mut kernel = FakeKernel::new();
        for (pid, parent) in [(1, 0), (SHELL, 1)] {
            let cgroup = "/".to_owned();
            kernel.start(pid, FakeProcess { parent, comm: "sh", cgroup, ..FakeProcess::default() });
        }
        let policy = Self::policy(rules, &kernel);
        let options = EngineOptions {
            recheck_ns: Some(SECOND / 10),
            finds_external_moves: true,
            move_scan_ns: external_moves::MOVE_SCAN_NS,
            external_moves: ExternalMoves::Revert,
            is_dry_run: false,
        };
        let engine = Engine::new(kernel, Box::new(policy), Arc::default(), options);
        let mut world = Self { engine };
        world.run_for(SECOND);
        assert!(world.engine.is_settled());
        world
    }

    fn policy(rules: &str, kernel: &FakeKernel) -> Policy {
        let file = Arc::from(Path::new("/a.toml"));
        let parsed = rules_toml::parse(&file, &format!("version = 1\n{rules}"));
        assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
        let names = ResolvedNames::default();
        let rules = parsed.rules.into_iter();
        let resolved: Vec<_> = rules.map(|one| resolve(one.rule, &names)).collect();
        let lacks_users = resolved.iter().any(|(_, unknown)| !unknown.is_empty());
        let matcher = Matcher::compile(resolved.into_iter().filter_map(|(rule, _)| rule).collect());
        let mut policy = Policy::new(
            1,
            Arc::new(matcher),
            kernel.hierarchies(),
            &ManagedRoots::default(),
            [],
            [],
        );
        policy.lacks_users = lacks_users;
        let in_files =
            RulesInFiles { rules: policy.matcher.rules(), contents: &FileContents::default() };
        policy.hits = RuleHitTable::new(in_files, None, Nanos(0));
        policy
    }

    /// Starts a process of the user for whom the rules are.
    fn start_of_user(&mut self, pid: u32) {
        self.engine.kernel.fork(SHELL, pid);
        self.engine.kernel.set_uid(pid, 1000);
    }

    /// Runs the engine as the main loop does. Time passes only while the engine waits or reads the
    /// clock.
    fn run_for(&mut self, nanoseconds: u64) {
        let end = self.engine.kernel.now().plus(nanoseconds);
        while self.engine.kernel.now() < end {
            self.engine.take_answers();
            match self.engine.turn().unwrap() {
                TurnResult::Busy => {}
                TurnResult::Read(request) => self.read(request),
                TurnResult::Idle | TurnResult::Quiet => {
                    let next = self.engine.next_turn().min(end);
                    let clock = &self.engine.kernel.clock;
                    clock.set(clock.get().max(next.0));
                }
            }
        }
    }

    /// Supplies an executable. The read of a process named `blocks` does not return, that of `no memory` fails.
    fn read(&mut self, request: ReadRequest) {
        let process = self.engine.kernel.processes.get(&request.pid.get());
        let link = match process.map(|process| process.comm) {
            Some("blocks") => return self.engine.read_is_late(),
            Some("no memory") => Err(Errno::ENOMEM),
            Some(comm) => Ok(format!("/bin/{comm}")),
            None => Err(Errno::ENOENT),
        };
        let link = link.as_ref().map(|link| link.as_bytes()).map_err(|&errno| errno);
        self.engine.supply(&ExeRead::new(link, true, None));
    }

    /// Lets the name service reply.
    fn reply(&mut self, identity: UserIdentity) {
        let policy = &self.engine.policy;
        let user = User::new(&policy.matcher, identity, Nanos(0));
        let reply = WorkerReply::User { generation: policy.generation, user };
        self.engine.kernel.replies.push(reply);
    }

    fn cgroup_of(&self, pid: u32) -> &str {
        &self.engine.kernel.processes[&pid].cgroup
    }

    fn count(&self, counter: impl Fn(&Metrics) -> u64) -> u64 {
        counter(&self.engine.metrics)
    }
}

const PEOPLE: &str = "[[rule]]\nuser = \"1000-1999\"\ncgroup = \"people/%U\"\n";

#[test]
fn a_process_that_changes_its_user_is_placed_and_so_is_its_child() {
    let mut world = World::new(PEOPLE);
    world.start_of_user(101);
    // Born before the placement of its parent, so no event of its own follows.
    world.engine.kernel.fork(101, 102);
    world.run_for(SECOND);
    assert_eq!([101, 102].map(|pid| world.cgroup_of(pid)), ["/people/1000"; 2]);
    assert_eq!(world.cgroup_of(SHELL), "/");
    assert_eq!(world.count(|metrics| metrics.placed.get()), 2);
    assert_eq!(world.count(|metrics| metrics.confirmed.get()), 2);
    assert_eq!(world.count(|metrics| metrics.scans.get()), 1);
}

#[test]
fn a_loss_causes_a_scan() {
    let mut world = World::new(PEOPLE);
    world.start_of_user(101);
    let FakeKernel { events, forks, losses, .. } = &mut world.engine.kernel;
    losses.lost = (events.drain(..).count() + forks.drain(..).count()) as u64;
    world.run_for(5 * SECOND);
    assert_eq!(world.cgroup_of(101), "/people/1000");
    assert_eq!(world.count(|metrics| metrics.lost_events.get()), 2);
    assert_eq!(world.count(|metrics| metrics.scans.get()), 2);
}

#[test]
fn a_refused_process_in_the_root_cgroup_does_not_cause_scan_after_scan() {
    let rule = "[[rule]]\nuser = \"1000\"\nnot = { unit = \"a.service\" }\ncgroup = \"people\"\n";
    let mut world = World::new(rule);
    world.engine.kernel.refusals.insert("/people".to_owned(), Errno::EBUSY);
    world.start_of_user(101);
    world.engine.rescan.want(Urgency::Limited);
    world.run_for(10 * SECOND);
    assert!(world.count(|metrics| metrics.refused.get()) > 1);
    let scans = world.count(|metrics| metrics.scans.get());
    world.run_for(30 * SECOND);
    assert_eq!(world.count(|metrics| metrics.scans.get()), scans);
}

#[test]
fn a_refusal_that_can_pass_is_tried_again() {
    let mut world = World::new(PEOPLE);
    world.engine.kernel.refusals.insert("/people/1000".to_owned(), Errno::EAGAIN);
    world.start_of_user(101);
    world.run_for(SECOND);
    assert_eq!(world.cgroup_of(101), "/");
    assert!(world.count(|metrics| metrics.refused.get()) > 1);
    world.engine.kernel.refusals.clear();
    world.run_for(SECOND);
    assert_eq!(world.cgroup_of(101), "/people/1000");
}

#[test]
fn an_executable_whose_read_failed_for_an_instant_is_read_again() {
    let by_exe = "[[rule]]\nuser = \"1000\"\nexe = \"tool\"\ncgroup = \"tool\"\n";
    let mut world = World::new(&format!("{by_exe}{PEOPLE}"));
    world.start_of_user(101);
    world.engine.kernel.processes.get_mut(&101).unwrap().comm = "no memory";
    world.run_for(SECOND / 2);
    // The rules without an executable decide meanwhile.
    assert_eq!(world.cgroup_of(101), "/people/1000");
    world.engine.kernel.processes.get_mut(&101).unwrap().comm = "tool";
    world.run_for(2 * SECOND);
    assert_eq!(world.cgroup_of(101), "/tool");
}

#[test]
fn a_job_of_another_user_waits_for_the_owner_of_the_service_manager() {
    const JOB: &str = "/user.slice/user-5.slice/user@5.service/job.service";
    let rules =
        "[[rule]]\nuser = \"7\"\ncgroup = \"a\"\n[[rule]]\ngroup = \"50\"\ncgroup = \"b\"\n";
    for (login_group, expected) in [(50, "/a"), (49, JOB)] {
        let mut world = World::new(rules);
        world.engine.kernel.runs_systemd = true;
        // Known, so that only the owner is looked up.
        world.reply(UserIdentity { login_group: Some(Gid(7)), ..UserIdentity::nameless(Uid(7)) });
        world.run_for(SECOND);
        world.engine.kernel.identified.clear();
        world.engine.kernel.fork(SHELL, 101);
        world.engine.kernel.processes.get_mut(&101).unwrap().cgroup = JOB.to_owned();
        world.engine.kernel.set_uid(101, 7);
        world.run_for(SECOND);
        assert_eq!(world.cgroup_of(101), JOB, "not moved before the owner is known");
        assert_eq!(world.engine.kernel.identified, [Uid(5)]);
        world.reply(UserIdentity {
            login_group: Some(Gid(login_group)),
            ..UserIdentity::nameless(Uid(5))
        });
        world.run_for(SECOND);
        assert_eq!(world.cgroup_of(101), expected, "a rule moves the owner: {login_group}");
        assert_eq!(world.count(|metrics| metrics.kept_in_job.get()), u64::from(expected == JOB));
    }
}

#[test]
fn a_service_with_the_ids_of_a_user_for_an_instant_is_not_reported_as_kept_in_its_unit() {
    const UNIT: &str = "/system.slice/shop.service";
    for (is_momentary, expected) in [(true, 0), (false, 1)] {
        let mut world = World::new(PEOPLE);
        world.engine.kernel.runs_systemd = true;
        world.engine.kernel.fork(SHELL, 101);
        world.engine.kernel.processes.get_mut(&101).unwrap().cgroup = UNIT.to_owned();
        world.engine.kernel.set_uid(101, 1000);
        world.run_for(SECOND / 100);
        assert_eq!(world.count(|metrics| metrics.kept_in_unit.get()), 0);
        if is_momentary {
            world.engine.kernel.set_uid(101, 0);
        }
        world.run_for(SECOND);
        assert_eq!(world.cgroup_of(101), UNIT);
        assert_eq!(world.count(|metrics| metrics.kept_in_unit.get()), expected, "{is_momentary}");
    }
}

#[test]
fn a_program_of_root_keeps_the_cgroup_of_the_user_unless_a_rule_for_root_moves_it() {
    let root = "[[rule]]\nuser = 0\ncgroup = \"admin\"\n";
    for (rules, expected) in
        [(PEOPLE.to_owned(), "/people/1000"), (format!("{PEOPLE}{root}"), "/admin")]
    {
        let mut world = World::new(&rules);
        world.engine.kernel.runs_systemd = true;
        world.start_of_user(101);
        world.run_for(SECOND);
        world.engine.kernel.fork(101, 102);
        world.engine.kernel.set_uid(102, 0);
        world.engine.kernel.fork(SHELL, 103);
        let unit = "/system.slice/shop.service";
        world.engine.kernel.processes.get_mut(&103).unwrap().cgroup = unit.to_owned();
        world.engine.kernel.set_uid(103, 0);
        world.run_for(SECOND);
        assert_eq!([102, 103].map(|pid| world.cgroup_of(pid)), [expected, unit]);
    }
}

const EVERYBODY: &str = "[[rule]]\nuser = \"*\"\nnot = { user = 0 }\ncgroup = \"people/%u/%U\"\n";
/// First subordinate UID of alice, whose UID is 1000.
const SUBORDINATE: u32 = 100_000;

/// Creates a host on which alice has a range of subordinate UIDs.
fn with_subordinates(rules: &str) -> World {
    let mut world = World::new(rules);
    world.engine.policy.subordinates = Subordinates::for_test("alice:100000:65536\nroot:200000:9");
    world
}

#[test]
fn a_user_with_subordinate_uids_has_one_cgroup_and_causes_no_lookup() {
    let mut world = with_subordinates(EVERYBODY);
    world.engine.kernel.identified.clear();
    // Two of alice, and one of a container of root.
    let uids = [SUBORDINATE, SUBORDINATE + 65_535, 200_005];
    for (pid, uid) in (101..).zip(uids) {
        world.engine.kernel.fork(SHELL, pid);
        world.engine.kernel.set_uid(pid, uid);
    }
    world.run_for(SECOND);
    let expected = ["/people/alice/1000", "/people/alice/1000", "/people/200005/200005"];
    assert_eq!([101, 102, 103].map(|pid| world.cgroup_of(pid)), expected);
    assert_eq!(world.engine.kernel.identified, []);
}

#[test]
fn names_are_looked_up_of_users_alone_and_not_of_subordinate_uids() {
    let rules = format!("[[rule]]\nuser = \"site-*\"\ncgroup = \"sites\"\n{EVERYBODY}");
    let mut world = with_subordinates(&rules);
    world.engine.kernel.identified.clear();
    for (pid, uid) in [(101, SUBORDINATE + 7), (102, 200_001), (103, 300_000)] {
        world.engine.kernel.fork(SHELL, pid);
        world.engine.kernel.set_uid(pid, uid);
    }
    world.run_for(SECOND);
    assert_eq!(world.engine.kernel.identified, [Uid(300_000)]);
    assert_eq!(world.cgroup_of(101), "/people/alice/1000");
}

#[test]
fn all_subordinate_uids_share_the_evaluations_of_their_owner() {
    let mut world = with_subordinates(EVERYBODY);
    let count = 2 * queue::SHARE;
    for number in 0..count {
        world.engine.kernel.fork(SHELL, 101 + number);
        world.engine.kernel.set_uid(101 + number, SUBORDINATE + number);
    }
    world.run_for(SECOND);
    assert_eq!(world.count(|metrics| metrics.deferred.get()), u64::from(count - queue::SHARE));
    assert_eq!(world.cgroup_of(100 + count), "/people/alice/1000");
}

#[test]
fn users_that_need_no_lookup_are_forgotten_at_a_bound() {
    let mut world = with_subordinates(EVERYBODY);
    for uid in 0..40_000 {
        assert!(world.engine.policy.knows(Uid(SUBORDINATE + uid)));
    }
    assert!(world.engine.policy.users.len() <= 16_384 + 1, "{}", world.engine.policy.users.len());
}

#[test]
fn gid_events_are_received_only_where_a_rule_depends_on_groups() {
    let table = [
        ("user = \"5\"\ncgroup = \"a/%u\"", false),
        ("user = \"5\"\ncgroup = \"a/%g\"", true),
        ("user = \"5\"\ncgroup = \"a/%G\"", true),
        ("user = \"5\"\ngroup = \"7\"\ncgroup = \"a\"", true),
        ("user = \"5\"\nnot = { group = \"7\" }\ncgroup = \"a\"", true),
    ];
    for (rule, expected) in table {
        let world = World::new(&format!("[[rule]]\n{rule}\n"));
        assert_eq!(world.engine.kernel.accepts_gid, expected, "{rule}");
    }
}

/// A user chooses PIDs and names of programs, and so the number of cgroups; none is without limits.
#[test]
fn further_processes_of_a_user_share_a_cgroup_and_those_of_others_do_not() {
    let mut world =
        with_subordinates("[[rule]]\nuser = \"1000-299999\"\ncgroup = \"jobs/%U/%P\"\n");
    for number in 0..1030 {
        world.engine.kernel.fork(SHELL, 1000 + number);
        // The subordinate UIDs of alice count for her.
        world
            .engine
            .kernel
            .set_uid(1000 + number, if number % 2 == 0 { 1000 } else { SUBORDINATE + number });
    }
    world.engine.kernel.fork(SHELL, 9000);
    world.engine.kernel.set_uid(9000, 1001);
    world.run_for(5 * SECOND);
    let is_shared = |pid: &u32| world.cgroup_of(*pid) == "/jobs/1000/uid-1000";
    let is_own = |pid: &u32| world.cgroup_of(*pid) == format!("/jobs/1000/{pid}");
    let pids: Vec<u32> = (1000..2030).collect();
    assert_eq!(pids.iter().copied().filter(is_shared).count(), 6);
    assert_eq!(pids.iter().copied().filter(is_own).count(), 1024);
    assert_eq!(world.cgroup_of(9000), "/jobs/1001/9000");
    assert_eq!(world.count(|metrics| metrics.external_moves_found.get()), 0);
    assert!(world.count(|metrics| metrics.groups_over_limit.get()) >= 6);
}

#[test]
fn a_user_seen_first_is_looked_up_while_a_name_is_missing_and_nothing_waits_for_it() {
    let mut world = World::new(&format!("{PEOPLE}[[rule]]\nuser = \"late\"\ncgroup = \"late\"\n"));
    world.engine.kernel.identified.clear();
    for pid in [101, 102] {
        world.engine.kernel.fork(SHELL, pid);
        world.engine.kernel.set_uid(pid, 1000);
    }
    world.run_for(SECOND);
    assert_eq!(world.cgroup_of(101), "/people/1000", "before any reply");
    assert_eq!(world.engine.kernel.identified, [Uid(1000)], "once");
    let scans = world.count(|metrics| metrics.scans.get());
    let name = Some("late".to_owned());
    world.reply(UserIdentity { name, ..UserIdentity::nameless(Uid(1000)) });
    world.run_for(SECOND);
    assert_eq!(world.count(|metrics| metrics.scans.get()), scans, "no rule depends on the name");
    assert!(!world.engine.wants_reload());
    world.engine.kernel.replies.push(WorkerReply::NamesAppeared);
    world.run_for(SECOND);
    assert!(world.engine.wants_reload());
    world.engine.reload();
    assert!(!world.engine.wants_reload());
}

#[test]
fn without_a_missing_name_no_user_is_looked_up() {
    let mut world = World::new(PEOPLE);
    world.start_of_user(101);
    world.run_for(SECOND);
    assert_eq!(world.engine.kernel.identified, []);
}
