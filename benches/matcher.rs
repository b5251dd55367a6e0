//! Measures the cost of one decision by number of rules, and compares it with a linear search.
//!
//! The sizes take turns, so that other load of the machine affects all of them alike. Plan and path
//! of a query are warm, as they are in the daemon, which has just looked up the one and read the
//! other; the state of the index in the cache depends on the load, of which there are two. One
//! sample is the mean of 64 calls: a single one is shorter than the resolution of the clock.
//!
//! `cargo bench --bench matcher`

#![allow(clippy::disallowed_methods, clippy::expect_used)]

#[path = "../tests/reference/mod.rs"]
mod reference;

use std::collections::HashMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cgruled::event::{Gid, Uid};
use cgruled::rules::glob::Glob;
use cgruled::rules::matcher::{Matcher, UserPlan};
use cgruled::rules::names::UserIdentity;
use cgruled::rules::{
    Action, Criteria, ExeFacts, ExeTest, Facts, GroupTest, LeaveUnits, Origin, Rule, RuleId,
    UserTest,
};

const SIZES: [u32; 6] = [1, 10, 100, 1_000, 10_000, 100_000];
/// Largest size at which the reference is timed too; beyond, one call takes milliseconds.
const NAIVE_UP_TO: u32 = 10_000;
/// Number of processes in a set, and of passes over the set before another size has its turn: the
/// usual programs of a machine, repeated, and so many that each finds its cache lines cold.
const LOADS: [(u32, usize); 2] = [(256, 16), (4096, 1)];
const BATCH: usize = 64;
const ROUNDS: usize = 40;
/// Number of kinds of rules, which alternate between the first and the last rule. The first nine kinds
/// create every sort of index, so that the smallest set of several rules has the same steps as the largest.
const KINDS: u32 = 16;

fn main() {
    let origin = Origin { file: Arc::from(Path::new("/etc/cgruled/rules.d/bench.toml")), line: 1 };
    for (distinct, passes) in LOADS {
        measure(distinct, passes, &origin);
    }
}

fn measure(distinct: u32, passes: usize, origin: &Origin) {
    let new = |&size: &u32| Bench::new(size, distinct, origin);
    let mut benches: Vec<Bench> = SIZES.iter().map(new).collect();
    for _ in 0..ROUNDS {
        for bench in &mut benches {
            (0..passes).for_each(|_| bench.round());
        }
    }
    println!("compiled matcher: ns for one decision, means of {BATCH} calls");
    println!("{distinct} different processes, {passes} passes before the next size");
    println!(
        "{:<10} {:>7} {:>8} {:>8} {:>8} {:>9} {:>10} {:>9}",
        "query", "rules", "p50", "p90", "min", "to 10", "naive p50", "speed-up"
    );
    for set in 0..Set::ALL.len() {
        let base = benches.iter().find(|bench| bench.size == 10).map(|bench| bench.p50(set));
        benches.iter().for_each(|bench| bench.print(set, base));
    }
    println!();
    println!(
        "{:>7} {:>12} {:>12} {:>14} {:>12}",
        "rules", "compile", "plan p50", "index bytes", "plan bytes"
    );
    benches.iter().for_each(Bench::print_sizes);
    println!();
}

/// Position of the rule that matches the processes of a set.
#[derive(Clone, Copy, PartialEq)]
enum Set {
    First,
    Last,
    /// A different rule for every process, spread over all rules.
    Any,
    Miss,
}

impl Set {
    const ALL: [Self; 4] = [Self::First, Self::Last, Self::Any, Self::Miss];

    fn name(self) -> &'static str {
        match self {
            Self::First => "hit first",
            Self::Last => "hit last",
            Self::Any => "hit any",
            Self::Miss => "miss",
        }
    }
}

struct Process {
    who: UserIdentity,
    gid: Gid,
    exe: Vec<u8>,
}

impl Process {
    fn facts(&self) -> Facts<'_> {
        let exe = Some(ExeFacts { path: &self.exe, on_host: true });
        Facts { uid: self.who.uid, gid: self.gid, exe, invoked: None }
    }
}

struct Bench {
    size: u32,
    matcher: Matcher,
    plans: HashMap<Uid, UserPlan>,
    sets: Vec<Vec<Process>>,
    /// Samples in nanoseconds, by set.
    samples: Vec<Vec<f64>>,
    naive: Vec<Option<f64>>,
    compile: Duration,
    plan_times: Vec<f64>,
}

impl Bench {
    fn new(size: u32, distinct: u32, origin: &Origin) -> Self {
        let rules: Arc<[Rule]> = (0..size).map(|n| rule(n, size, origin)).collect();
        let start = Instant::now();
        let matcher = Matcher::compile(rules);
        let compile = start.elapsed();
        let sets: Vec<Vec<Process>> = Set::ALL
            .iter()
            .map(|&set| (0..distinct).map(|n| process(set, n, size)).collect())
            .collect();
        let (mut plans, mut plan_times) = (HashMap::new(), Vec::new());
        for process in sets.iter().flatten() {
            plans.entry(process.who.uid).or_insert_with(|| {
                let start = Instant::now();
                let plan = matcher.plan(&process.who);
                plan_times.push(nanos(start.elapsed()));
                plan
            });
        }
        let samples = vec![Vec::new(); sets.len()];
        let mut bench =
            Self { size, matcher, plans, sets, samples, naive: Vec::new(), compile, plan_times };
        bench.naive = (0..Set::ALL.len()).map(|set| bench.check(set)).collect();
        bench
    }

    /// Compares with the reference and times it. Checks fewer processes where the reference is slow.
    fn check(&self, set: usize) -> Option<f64> {
        let count = if self.size <= 1_000 { 1024 } else { 128 };
        let step = (self.sets[set].len() / count).max(1);
        let mut times = Vec::new();
        let processes: Vec<_> = self.sets[set].iter().step_by(step).collect();
        let naive = |process: &Process| {
            reference::first_match(self.matcher.rules(), &process.who, &process.facts(), 0)
        };
        for batch in processes.chunks(BATCH) {
            let start = Instant::now();
            for process in batch {
                black_box(naive(black_box(process)));
            }
            times.push(nanos(start.elapsed()) / batch.len() as f64);
        }
        for process in processes {
            let facts = process.facts();
            let expected = naive(process);
            assert_eq!(self.matcher.decide(&self.plans[&facts.uid], &facts), expected);
            check_kind(Set::ALL[set], expected, self.size);
        }
        (self.size <= NAIVE_UP_TO).then(|| percentile(&times, 50))
    }

    fn round(&mut self) {
        for (set, samples) in self.sets.iter().zip(&mut self.samples) {
            for batch in set.chunks(BATCH) {
                let paths: Vec<Vec<u8>> = batch.iter().map(|process| process.exe.clone()).collect();
                let prepared: Vec<(&UserPlan, Facts<'_>)> = batch
                    .iter()
                    .zip(&paths)
                    .map(|(process, path)| {
                        let exe = Some(ExeFacts { path, on_host: true });
                        let plan = &self.plans[&process.who.uid];
                        black_box(plan.size());
                        (plan, Facts { exe, ..process.facts() })
                    })
                    .collect();
                let start = Instant::now();
                for (plan, facts) in &prepared {
                    black_box(self.matcher.decide(black_box(plan), black_box(facts)));
                }
                samples.push(nanos(start.elapsed()) / prepared.len() as f64);
            }
        }
    }

    fn p50(&self, set: usize) -> f64 {
        percentile(&self.samples[set], 50)
    }

    fn print(&self, set: usize, base: Option<f64>) {
        let (samples, p50) = (&self.samples[set], self.p50(set));
        let naive = self.naive[set].map_or_else(Default::default, |ns| format!("{ns:.0}"));
        let gain = self.naive[set].map_or_else(Default::default, |ns| format!("{:.1}x", ns / p50));
        println!(
            "{:<10} {:>7} {p50:>8.1} {:>8.1} {:>8.1} {:>9.2} {naive:>10} {gain:>9}",
            Set::ALL[set].name(),
            self.size,
            percentile(samples, 90),
            percentile(samples, 0),
            p50 / base.unwrap_or(p50),
        );
    }

    fn print_sizes(&self) {
        let plans: usize = self.plans.values().map(UserPlan::size).sum();
        println!(
            "{:>7} {:>9.2} ms {:>9.2} us {:>14} {:>12.1}",
            self.size,
            nanos(self.compile) / 1e6,
            percentile(&self.plan_times, 50) / 1e3,
            self.matcher.heap(),
            plans as f64 / self.plans.len() as f64,
        );
    }
}

/// Asserts that a set matches the rule that it is named after; otherwise it would measure another case.
fn check_kind(set: Set, found: Option<RuleId>, size: u32) {
    let as_named = match set {
        Set::First => found == Some(RuleId(0)),
        Set::Last => found == Some(RuleId(size - 1)),
        Set::Any => found.is_some(),
        Set::Miss => found.is_none(),
    };
    assert!(as_named, "{} met {found:?} of {size} rules", set.name());
}

/// Returns the rule at position `n`: all kinds alternate between the first and the last.
fn rule(n: u32, size: u32, origin: &Origin) -> Rule {
    let glob = |text: String| Glob::parse(text.as_bytes()).expect("a pattern");
    let uids = |first, last| vec![UserTest::Ids(Uid(first), Uid(last))];
    let gids = |first, last| vec![GroupTest::Ids(Gid(first), Gid(last))];
    let (mut when, mut not) = (Criteria::default(), Criteria::default());
    match n % KINDS {
        _ if n == 0 => when.exes = vec![ExeTest::Base(b"first".to_vec())],
        _ if n == size - 1 => when.exes = vec![ExeTest::BaseGlob(glob("last-*".to_owned()))],
        1 | 9 => when.exes = vec![ExeTest::Path(format!("/usr/bin/tool{n}").into_bytes())],
        2 => when.users = uids(uid(n), uid(n)),
        3 => when.groups = gids(gid(n), gid(n)),
        4 => when.exes = vec![ExeTest::PathGlob(glob(format!("/opt/app{n}/**")))],
        5 => {
            when.users = uids(uid(n), uid(n));
            when.exes = vec![ExeTest::Base(b"python3".to_vec())];
        }
        6 => when.exes = vec![ExeTest::BaseGlob(glob(format!("*-worker{n}")))],
        7 => when.groups = gids(wide_gid(n), wide_gid(n) + 200),
        8 => {
            when.groups = gids(gid(n), gid(n));
            when.exes = vec![ExeTest::PathGlob(glob(format!("/usr/lib/pkg{n}/[a-z]*")))];
        }
        10 => when.exes = vec![ExeTest::Base(format!("daemon{n}").into_bytes())],
        11 => when.exes = vec![ExeTest::BaseGlob(glob(format!("svc{n}-*")))],
        12 => when.users = uids(uid(n), uid(n) + 6),
        13 => {
            when.users = uids(uid(n), uid(n));
            when.groups = gids(gid(n), gid(n));
        }
        14 => when.users = vec![UserTest::Glob(glob(format!("site{n}-*")))],
        15 => {
            when.exes = vec![ExeTest::PathGlob(glob(format!("/usr/sbin/fpm{n}*")))];
            not.users = uids(uid(n), uid(n));
        }
        _ => when.exes = vec![ExeTest::PathGlob(glob(format!("/srv/*/bin/job{n}")))],
    }
    let name = Arc::from(format!("rule {n}"));
    let action = Action::ignore();
    let (exe_anywhere, leave_units) = (false, LeaveUnits::No);
    Rule {
        name,
        origin: origin.clone(),
        when,
        not: not.into(),
        exe_anywhere,
        is_gated: false,
        leave_units,
        leave_containers: cgruled::rules::container::LeaveContainers::No,
        action,
    }
}

fn uid(n: u32) -> u32 {
    10_000 + n * 8
}

fn gid(n: u32) -> u32 {
    10_000 + n
}

/// Returns the first of 200 GIDs that rule `n` matches; 56 GIDs are free between two such rules.
fn wide_gid(n: u32) -> u32 {
    1_000_000_000 + gid(n) * 16
}

/// Returns a process that no rule matches, although its strings share prefixes with rules.
fn stranger(n: u32) -> Process {
    let exe = match n % 6 {
        0 => format!("/usr/bin/toolbox{n}"),
        1 => format!("/usr/lib/pkg{n}/helper"),
        2 => format!("/opt/application/{n}/bin/svc"),
        3 => format!("/srv/www{n}/bin/jobs"),
        4 => format!("/usr/sbin/fpm-pool{n}"),
        _ => format!("/home/user{n}/bin/a-worker"),
    };
    let who = UserIdentity {
        name: Some(format!("user{}", n % 1024)),
        ..UserIdentity::nameless(Uid(4_000_000 + n % 1024))
    };
    let gid = if n % 4 == 0 { wide_gid(n * KINDS + 7) + 230 } else { 1 + n % 512 };
    Process { who, gid: Gid(gid), exe: exe.into_bytes() }
}

fn process(set: Set, n: u32, size: u32) -> Process {
    let mut process = stranger(n);
    match set {
        Set::First => process.exe = format!("/usr/lib/pkg{n}/first").into_bytes(),
        Set::Last if size == 1 => process.exe = b"/usr/bin/first".to_vec(),
        Set::Last => process.exe = format!("/usr/lib/pkg{n}/last-{n}").into_bytes(),
        Set::Any => meet(&mut process, spread(n, size), size),
        // Half of them match the user of a rule, but not its executable.
        Set::Miss if n % 2 == 0 && size > 1 => {
            let rule = spread(n, size) / KINDS * KINDS + 5;
            if rule < size - 1 {
                process.who = UserIdentity::nameless(Uid(uid(rule)));
            }
        }
        Set::Miss => {}
    }
    process
}

/// Returns a position that looks random but is the same in every run.
fn spread(n: u32, size: u32) -> u32 {
    n.wrapping_mul(2_654_435_761) % size
}

/// Changes `process` so that the rule at `n` matches it.
fn meet(process: &mut Process, n: u32, size: u32) {
    let exe = match n % KINDS {
        _ if n == 0 => "/usr/bin/first".to_owned(),
        _ if n == size - 1 => "/usr/bin/last-one".to_owned(),
        0 => format!("/srv/host/bin/job{n}"),
        1 | 9 => format!("/usr/bin/tool{n}"),
        4 => format!("/opt/app{n}/bin/run"),
        5 => "/usr/bin/python3".to_owned(),
        6 => format!("/usr/bin/queue-worker{n}"),
        8 => format!("/usr/lib/pkg{n}/helper"),
        10 => format!("/usr/bin/daemon{n}"),
        11 => format!("/usr/bin/svc{n}-main"),
        15 => format!("/usr/sbin/fpm{n}.1"),
        _ => "/usr/bin/vim".to_owned(),
    };
    process.exe = exe.into_bytes();
    if n == 0 || n == size - 1 {
        return;
    }
    match n % KINDS {
        2 | 5 | 12 | 13 => process.who.uid = Uid(uid(n)),
        14 => {
            process.who.uid = Uid(uid(n));
            process.who.name = Some(format!("site{n}-a"));
        }
        _ => {}
    }
    match n % KINDS {
        3 | 8 | 13 => process.gid = Gid(gid(n)),
        7 => process.gid = Gid(wide_gid(n) + 100),
        _ => {}
    }
}

fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get((sorted.len().saturating_sub(1)) * percent / 100).copied().unwrap_or(f64::NAN)
}
