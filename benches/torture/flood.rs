//! Row 2: one user floods. A bystander is placed with p99 of at most 5 ms, the daemon uses at most
//! half of one CPU and grows by at most 16 MiB.

use std::time::{Duration, Instant};

use crate::bystander::{self, Bystander};
use crate::harness::user::{ALICE, CAROL};
use crate::harness::{Live, Settings};
use crate::report::Outcome;
use crate::storm::{QUIET, Storm};
use crate::subject::{Setup, Subject, Which};

const P99: Duration = Duration::from_millis(5);
const CPU: f64 = 50.0;
const GROWTH_KIB: i64 = 16 * 1024;
/// Real-time scheduling, which is the default except on a kernel with `CONFIG_RT_GROUP_SCHED`. Debian 12 does not have
/// it.
const SETTINGS: Settings<'static> = Settings { config: "scheduling = \"realtime\"\n", ..QUIET };
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) fn run(live: &Live, length: Duration, which: Which) -> Outcome {
    let mut row = Outcome::new("execs, forks, UID and GID toggling, orphans, sessions by one user");
    let rules = [bystander::RULE, ("cgt-carol", "flood")];
    let limit = Some(("flood", 2000));
    let running = Subject::start(live, &Setup { which, rules: &rules, limit, settings: &SETTINGS });
    let tool = live.program("bin/tool");
    let of = |steps: &str| format!("uid {CAROL} {CAROL} setsid {steps}");
    let mut storm = Storm::new(
        live,
        vec![
            of(&format!("storm 10000000 {tool}")),
            of("forks 100000000"),
            of("threads 500 breed 2000 50"),
            of("relay 0 0"),
            // The saved user ID stays 0, so these are not of carol for half of the time.
            format!("toggle 100000000 {CAROL} 0"),
            format!("uid 0 {CAROL} toggle 100000000 {CAROL} {CAROL}"),
        ],
    );
    let mut bystander = Bystander::new(&live.ground);
    std::thread::sleep(Duration::from_secs(1));
    let (memory, cpu, began) = (running.resident_kib(), running.cpu_time(), Instant::now());
    while began.elapsed() < length {
        storm.keep_up();
        bystander.step(live);
        std::thread::sleep(PAUSE);
    }
    let used = (running.cpu_time() - cpu).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    let growth = i64::try_from(running.resident_kib()).unwrap() - i64::try_from(memory).unwrap();
    // Survivors at rest: carol's tree outlives the storm.
    let mut tree = live.actor(&format!("uid {CAROL} {CAROL} tree 3 5"));
    tree.said("tree");
    drop(storm);
    row.expect_none_misplaced(
        running.at_rest(live, CAROL, "flood").0 + running.at_rest(live, ALICE, "").0,
    );
    running.stop(&mut row);
    bystander.report(&mut row, P99);
    row.cpu = Some(used);
    row.growth = Some(growth);
    row.expect_limit(used <= CPU, format!("more than {CPU} % of one CPU"));
    row.expect_limit(growth <= GROWTH_KIB, format!("grew by more than {GROWTH_KIB} KiB"));
    row
}
