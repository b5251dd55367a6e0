//! Row 14: a mixed load for the whole length. Memory, descriptors and the latency of a bystander stay as
//! they are after the first third.

use std::fs;
use std::time::{Duration, Instant};

use crate::bystander::{self, Bystander};
use crate::clients::{SOCKET, ask_status};
use crate::harness::user::{ALICE, CAROL};
use crate::harness::{Live, Settings};
use crate::report::Outcome;
use crate::storm::{Storm, daemon};
use crate::subject::rules;

const GROWTH_KIB: i64 = 1024;
const P99: Duration = Duration::from_millis(20);

pub(crate) fn run(live: &Live, length: Duration) -> Outcome {
    let settings = Settings { config: "", arguments: &["--log", "info", "--control", SOCKET] };
    let alice = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"alice/%P\"\n\
                 [cgroup.\"alice/%P\"]\nremove_when_empty = \"1s\"\n";
    let rules = rules(&[bystander::RULE, ("cgt-carol", "carol")]) + alice;
    let running = daemon(live, &rules, &settings);
    let tool = live.program("bin/tool");
    let mut storm = Storm::new(
        live,
        vec![
            format!("uid {CAROL} {CAROL} storm 10000000 {tool}"),
            format!("uid {CAROL} {CAROL} relay 0 0"),
        ],
    );
    let mut bystander = Bystander::new(&live.ground);
    let began = Instant::now();
    let mut rounds = 0_u32;
    let mut first = None;
    while began.elapsed() < length {
        storm.keep_up();
        rounds += 1;
        bystander.step(live);
        drop(live.hold(&format!("uid {ALICE} {ALICE}")));
        if rounds % 50 == 0 {
            live.write_rules(&format!("{rules}# {rounds}\n"));
        }
        ask_status();
        if first.is_none() && began.elapsed() > length / 3 {
            first = Some((running.resident_kib(), descriptors(running.pid())));
        }
    }
    let (memory, open) = first.unwrap();
    let growth = i64::try_from(running.resident_kib()).unwrap() - i64::try_from(memory).unwrap();
    let now = descriptors(running.pid());
    let mut row =
        Outcome::new(format!("{rounds} rounds of logins, requests and reloads under a storm"));
    row.growth = Some(growth);
    row.expect_limit(growth <= GROWTH_KIB, format!("grew by more than {GROWTH_KIB} KiB"));
    row.expect_limit(now <= open + 4, format!("{open} descriptors, then {now}"));
    bystander.expect_stable(&mut row);
    drop(storm);
    let counters = running.stop();
    row.count(|name| counters.get(name));
    bystander.report(&mut row, P99);
    row
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
