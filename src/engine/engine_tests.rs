use std::path::Path;

use nix::errno::Errno;

use super::fake_kernel::{FakeKernel, FakeProcess};
use super::*;
use crate::cgroup::host::ManagedRoots;
use crate::config::rules_toml;
use crate::event::{Gid, Uid};
use crate::kernel::program::ExeRead;
use crate::policy::User;
use crate::policy::worker::WorkerReply;
use crate::rules::matcher::Matcher;
use crate::rules::names::UserIdentity;

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
        let file = Arc::from(Path::new("/a.toml"));
        let parsed = rules_toml::parse(&file, &format!("version = 1\n{rules}"));
        assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
        let matcher = Matcher::compile(parsed.rules.into_iter().map(|one| one.rule).collect());
        let policy = Policy::new(
            1,
            Arc::new(matcher),
            kernel.hierarchies(),
            &ManagedRoots::default(),
            [],
            [],
        );
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

    /// Supplies an executable; the read of a process named `blocks` does not return.
    fn read(&mut self, request: ReadRequest) {
        let process = self.engine.kernel.processes.get(&request.pid.get());
        let link = match process.map(|process| process.comm) {
            Some("blocks") => return self.engine.read_is_late(),
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
    world.engine.kernel.fork(SHELL, 101);
    world.engine.kernel.set_uid(101, 1000);
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
    world.engine.kernel.fork(SHELL, 101);
    world.engine.kernel.set_uid(101, 1000);
    let FakeKernel { events, forks, losses, .. } = &mut world.engine.kernel;
    losses.lost = (events.drain(..).count() + forks.drain(..).count()) as u64;
    world.run_for(5 * SECOND);
    assert_eq!(world.cgroup_of(101), "/people/1000");
    assert_eq!(world.count(|metrics| metrics.lost_events.get()), 2);
    assert_eq!(world.count(|metrics| metrics.scans.get()), 2);
}

#[test]
fn a_refusal_that_can_pass_is_tried_again() {
    let mut world = World::new(PEOPLE);
    world.engine.kernel.refusals.insert("/people/1000".to_owned(), Errno::EAGAIN);
    world.engine.kernel.fork(SHELL, 101);
    world.engine.kernel.set_uid(101, 1000);
    world.run_for(SECOND);
    assert_eq!(world.cgroup_of(101), "/");
    assert!(world.count(|metrics| metrics.refused.get()) > 1);
    world.engine.kernel.refusals.clear();
    world.run_for(SECOND);
    assert_eq!(world.cgroup_of(101), "/people/1000");
}

#[test]
fn a_read_that_blocks_leaves_the_process_to_the_rules_that_need_no_executable() {
    let by_exe = "[[rule]]\nuser = \"1000\"\nexe = \"/bin/vi\"\ncgroup = \"editors\"\n";
    let mut world = World::new(&format!("{by_exe}{PEOPLE}"));
    for (pid, comm) in [(101, "vi"), (102, "blocks")] {
        world.engine.kernel.fork(SHELL, pid);
        world.engine.kernel.processes.get_mut(&pid).unwrap().comm = comm;
        world.engine.kernel.set_uid(pid, 1000);
        world.run_for(SECOND);
    }
    assert_eq!([101, 102].map(|pid| world.cgroup_of(pid)), ["/editors", "/people/1000"]);
    assert_eq!(world.count(|metrics| metrics.blocked_reads.get()), 1);
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
