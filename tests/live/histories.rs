//! Steps of the simulation (`benches/simulation`) as real processes of the real daemon, compared at rest: what the
//! simulated kernel does differently from the real one would show here.

#[allow(dead_code, reason = "the simulation uses the rest")]
#[path = "../../benches/simulation/history.rs"]
pub(crate) mod history;

use std::fs;
use std::time::SystemTime;

use crate::harness::user::{ALICE, BOB};
use crate::harness::{Actor, Live, REST, census, eventually};
use history::{Entry, Kind, Rng, Source};

const RULES: &str = "[[rule]]\nuser = [\"cgt-alice\", \"cgt-bob\"]\nexe = \"tool\"\ncgroup = \"tools/%u\"\n\
                     [[rule]]\nuser = [\"cgt-alice\", \"cgt-bob\"]\ncgroup = \"people/%u\"\n";
/// Processes of one history, each with descendants.
const ACTORS: usize = 24;
/// Steps of each, of which half concern a process alone.
const STEPS: u16 = 24;
const HISTORIES: u64 = 20;
/// Processes of all histories, at least: 1,400 are usual.
const FEWEST: usize = 500;

/// Steps of an actor, as far as its rights allow them.
struct Script<'p> {
    programs: [&'p str; 2],
    words: String,
    uid: u32,
    /// Its saved user ID is still that of root: exec ends that.
    can_return: bool,
    has_leader: bool,
}

impl<'p> Script<'p> {
    const fn new(programs: [&'p str; 2]) -> Self {
        Self { programs, words: String::new(), uid: 0, can_return: true, has_leader: true }
    }

    fn add(&mut self, word: &str) {
        self.words += word;
        self.words.push(' ');
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "the others are not steps of a process alone"
    )]
    fn step(&mut self, Entry { kind, b, .. }: Entry) {
        match kind {
            Kind::Fork | Kind::ForkSlowly => self.add("fork"),
            Kind::CloneThread => self.add("thread"),
            Kind::Daemonize => self.add("daemonize"),
            Kind::Vfork => self.execute("vfork", b),
            Kind::Exec | Kind::ExecSlowly => self.execute("exec", b),
            Kind::ExecOfThread => self.execute("thread-exec", b),
            Kind::SetUid | Kind::SetUidSlowly => self.become_user(b),
            Kind::SetUidOfThread if self.uid == 0 && self.has_leader => {
                self.uid = user(b);
                self.add(&format!("thread-as {} {}", self.uid, user(b >> 1)));
                // Its leader stays behind.
                (self.can_return, self.has_leader) = (false, false);
            }
            Kind::Login => {
                self.add("fork");
                self.become_user(b);
                self.execute("exec", b);
            }
            Kind::ExitOfLeader if self.has_leader => {
                self.has_leader = false;
                self.add("exit-leader");
            }
            Kind::Wait => self.add(&format!("sleep {}", b % 20)),
            _ => {}
        }
    }

    fn execute(&mut self, how: &str, b: u16) {
        let program = usize::from(b & 4 == 0);
        let name = ["actors", "tool"][program];
        self.add(&format!("{how} {} {name}", self.programs[program]));
        self.can_return &= self.uid == 0;
        self.has_leader = true;
    }

    fn become_user(&mut self, b: u16) {
        if self.uid != 0 && self.can_return {
            self.add("uid -1 0");
            self.uid = 0;
        }
        if self.uid == 0 {
            self.uid = user(b);
            self.add(&format!("uid {0} {0}", self.uid));
        }
    }
}

const fn user(b: u16) -> u32 {
    if b & 8 == 0 { ALICE } else { BOB }
}

/// Returns the cgroup of a process by the rules, from what `/proc` shows now. `None` when it is gone.
fn expected(live: &Live, pid: u32, name: &str) -> Option<String> {
    let thread = census::live_thread(pid)?;
    let exe = fs::read_link(format!("/proc/{pid}/task/{thread}/exe")).ok()?;
    let place = if exe.file_name()? == "tool" { "tools" } else { "people" };
    Some(live.ground.at(&format!("{place}/{name}")))
}

/// Returns the number of processes, and those that are elsewhere.
fn compare(live: &Live) -> (usize, Vec<String>) {
    let (mut count, mut outside) = (0, Vec::new());
    for (uid, name) in [(ALICE, "cgt-alice"), (BOB, "cgt-bob")] {
        for resident in census::of(uid) {
            count += 1;
            let Some(wanted) = expected(live, resident.pid, name) else { continue };
            if resident.cgroup != wanted {
                outside.push(format!(
                    "{} of {name}: {} instead of {wanted}",
                    resident.pid, resident.cgroup
                ));
            }
        }
    }
    (count, outside)
}

#[test]
fn processes_of_random_histories_are_where_the_rules_say() {
    let Some(live) = Live::require() else { return };
    let (actors, tool) = (live.program("bin/actors"), live.program("bin/tool"));
    let _daemon = live.daemon(RULES);
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut total = 0;
    for seed in (0..HISTORIES).map(|n| time.as_secs() * HISTORIES + n) {
        let mut source = Source::of_seed(Rng::new(seed), usize::MAX, None);
        let scripts: Vec<String> = (0..ACTORS)
            .map(|_| {
                let mut script = Script::new([&actors, &tool]);
                (0..STEPS).for_each(|_| script.step(source.next().unwrap()));
                script.become_user(STEPS);
                script.words + "hold"
            })
            .collect();
        let mut running: Vec<Actor> = scripts.iter().map(|script| live.actor(script)).collect();
        for (actor, script) in running.iter_mut().zip(&scripts) {
            assert_eq!(actor.says().0, "pid", "seed {seed}: {script}");
        }
        let (mut count, mut outside) = (0, Vec::new());
        eventually(REST, || {
            (count, outside) = compare(&live);
            outside.is_empty()
        });
        total += count;
        println!("seed {seed}: {} of {count} processes outside", outside.len());
        assert!(outside.is_empty(), "seed {seed}: {outside:?} after {scripts:#?}");
        drop(running);
        eventually(REST, || compare(&live).0 == 0);
    }
    assert!(total >= FEWEST, "only {total} processes");
}
