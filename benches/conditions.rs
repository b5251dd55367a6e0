//! Measures the cost of one decision with many rules that test the context of a process, and how often a fact about
//! the process is read for it.
//!
//! The facts are in memory: reading `/proc/PID/cgroup` and the like costs 5 to 20 us each in the daemon, so that the
//! number of reads matters more than these times.
//!
//! `cargo bench --bench conditions`

#![allow(clippy::disallowed_methods, clippy::expect_used)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cgruled::cgroup::host::ManagedRoots;
use cgruled::cgroup::mounts::{Hierarchies, Hierarchy, Version};
use cgruled::config::rules_toml;
use cgruled::event::{Gid, Nanos, Uid};
use cgruled::kernel::container::Containment;
use cgruled::kernel::program::ExeInfo;
use cgruled::placement::conditions::{ConditionFacts, Conditions};
use cgruled::placement::container::ContainerFacts;
use cgruled::placement::{Choice, KnownExe, Missing, decide};
use cgruled::policy::{Policy, User};
use cgruled::rules::ancestry::Ancestor;
use cgruled::rules::container::ContainerKey;
use cgruled::rules::matcher::Matcher;
use cgruled::rules::names::{ResolvedNames, UserIdentity, resolve};
use cgruled::rules::{ExeFacts, RuleId};

const RULES: u32 = 1_000;
const BATCH: u32 = 64;
const ROUNDS: usize = 400;

/// The process is in this cgroup, the last of those that the rules name.
const CGROUP: &str = "0::/system.slice/job-999.service/a\n";

/// A kind of rules.
struct Kind {
    name: &'static str,
    /// Each rule is for a user of its own.
    is_by_user: bool,
    /// The criterion of rule `n`.
    criterion: fn(u32) -> String,
}

const fn kind(name: &'static str, is_by_user: bool, criterion: fn(u32) -> String) -> Kind {
    Kind { name, is_by_user, criterion }
}

const KINDS: [Kind; 8] = [
    kind("user alone", true, |_| String::new()),
    kind("user and unit", true, |n| format!("unit = \"job-{n}.service\"")),
    kind("unit", false, |n| format!("unit = \"job-{n}.service\"")),
    kind("unit, pattern", false, |n| format!("unit = \"*-{n}.service\"")),
    kind("from", false, |n| format!("from = \"/system.slice/job-{n}.service/**\"")),
    kind("below", false, |n| format!("below = \"daemon-{n}\"")),
    kind("login", false, |n| format!("login = {n}")),
    kind("argument", false, |n| format!("argument = \"--job={n}\"")),
];

/// Facts about the process, with the number of reads.
struct Facts<'r> {
    hierarchies: &'r Hierarchies,
    ancestors: Arc<[Ancestor]>,
    arguments: &'r [u8],
    reads: &'r mut u32,
}

impl ContainerFacts for Facts<'_> {
    fn hierarchies(&self) -> &Hierarchies {
        self.hierarchies
    }
    fn sole_owner(&self, _: usize, _: &[u8]) -> Option<Uid> {
        Some(Uid(0))
    }
    fn containment(&mut self) -> Result<Containment, Missing> {
        Ok(Containment::Host)
    }
    fn is_in_namespace_of_root(&mut self) -> bool {
        false
    }
    fn accountable(&self, uid: Uid) -> Uid {
        uid
    }
    fn user_name(&mut self, _: Uid) -> Result<Option<String>, Missing> {
        Ok(None)
    }
    fn container_name(&mut self, _: ContainerKey) -> Result<Option<String>, Missing> {
        Ok(None)
    }
}

impl ConditionFacts for Facts<'_> {
    fn cgroup(&mut self) -> Option<&[u8]> {
        *self.reads += 1;
        Some(CGROUP.as_bytes())
    }
    fn is_real_time(&mut self) -> bool {
        *self.reads += 1;
        false
    }
    fn ancestors(&mut self) -> Arc<[Ancestor]> {
        // A lookup in a table of the daemon.
        Arc::clone(&self.ancestors)
    }
    fn login(&mut self) -> Option<Uid> {
        *self.reads += 1;
        Some(Uid(RULES - 1))
    }
    fn arguments(&mut self) -> Result<Option<&[u8]>, Missing> {
        *self.reads += 1;
        Ok(Some(self.arguments))
    }
    fn placed_by(&mut self, _: usize, _: &[u8]) -> Option<RuleId> {
        None
    }
}

fn main() {
    let unified = Hierarchy {
        version: Version::V2,
        mount_point: "/sys/fs/cgroup".into(),
        top: "/".to_owned(),
        listed: String::new(),
        controllers: Vec::new(),
        favordynmods: false,
    };
    let hierarchies = Hierarchies::new(vec![unified]);
    println!("one decision with {RULES} rules of one kind, of which the last one matches");
    println!("ns, means of {BATCH} calls, {ROUNDS} rounds; reads of facts about the process");
    println!("{:<16} {:>10} {:>10} {:>10} {:>6}", "criteria", "p50", "p90", "min", "reads");
    for Kind { name, is_by_user, criterion } in KINDS {
        let policy = policy(&hierarchies, is_by_user, criterion);
        let (mut ns, reads) = measure(&policy, &hierarchies);
        ns.sort_by(f64::total_cmp);
        let at = |percent: usize| ns[(ns.len() * percent / 100).min(ns.len() - 1)];
        println!("{name:<16} {:>10.0} {:>10.0} {:>10.0} {reads:>6}", at(50), at(90), ns[0]);
    }
}

fn policy(hierarchies: &Hierarchies, is_by_user: bool, criterion: fn(u32) -> String) -> Policy {
    let rule = |n: u32| {
        let user = if is_by_user { format!("user = {n}\n") } else { String::new() };
        format!("[[rule]]\n{user}{}\ncgroup = \"of/{n}\"\nleave_units = true\n", criterion(n))
    };
    let text: String = (0..RULES).map(rule).collect();
    let file = Arc::from(Path::new("/etc/cgruled/rules.d/bench.toml"));
    let parsed = rules_toml::parse(&file, &format!("version = 1\n{text}"));
    assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics.first());
    let names = ResolvedNames::default();
    let rules = parsed.rules.into_iter().filter_map(|own| resolve(own.rule, &names).0);
    let matcher = Arc::new(Matcher::compile(rules.collect()));
    Policy::new(1, matcher, hierarchies, &ManagedRoots::default(), [], [])
}

/// Returns the time of a decision in each round, and the number of reads for one.
fn measure(policy: &Policy, hierarchies: &Hierarchies) -> (Vec<f64>, u32) {
    let uid = Uid(RULES - 1);
    let user = User::new(&policy.matcher, UserIdentity::nameless(uid), Nanos(0));
    let path = b"/usr/bin/job";
    let exe = ExeInfo {
        raw: path,
        exe: ExeFacts { path, on_host: true },
        invoked: None,
        is_unsure: false,
    };
    let program = format!("/usr/sbin/daemon-{}", RULES - 1);
    let ancestor = Ancestor { path: program.as_bytes().into(), invoked: None, is_of_root: true };
    let ancestors: Arc<[Ancestor]> = Arc::new([ancestor]);
    let arguments = format!("/usr/bin/job\0--verbose\0--job={}\0", RULES - 1);
    let mut reads = 0;
    let mut once = || {
        reads = 0;
        let facts = Facts {
            hierarchies,
            ancestors: Arc::clone(&ancestors),
            arguments: arguments.as_bytes(),
            reads: &mut reads,
        };
        let mut conditions = Conditions::new(&policy.context, facts);
        let choice =
            decide(&policy.matcher, &user, (uid, Gid(0)), KnownExe::Read(exe), |id, rule| {
                conditions.test(id, rule).map(|miss| miss.is_none())
            });
        drop(conditions);
        assert!(matches!(black_box(choice), Choice::Rule(RuleId(id)) if id == RULES - 1));
    };
    let mut round = || {
        let begin = Instant::now();
        (0..BATCH).for_each(|_| once());
        begin.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH)
    };
    let ns = (0..ROUNDS).map(|_| round()).collect();
    (ns, reads)
}
