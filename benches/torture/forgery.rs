//! Row 11: forged datagrams for the sockets of the daemon, by root and by a user. None of them causes
//! an evaluation, and placements continue.

use std::time::{Duration, Instant};

use crate::bystander::{self, Bystander};
use crate::harness::user::ALICE;
use crate::harness::{Live, pins};
use crate::report::Outcome;
use crate::storm::{QUIET, daemon};
use crate::subject::rules;

const P99: Duration = Duration::from_millis(50);
const AT_ONCE: u32 = 20_000;

pub(crate) fn run(live: &Live, length: Duration) -> Outcome {
    let running = daemon(live, &rules(&[bystander::RULE]), &QUIET);
    let ports = running.connector_ports();
    assert_eq!(ports.len(), 2, "{ports:?}");
    let mut bystander = Bystander::new(&live.ground);
    let (began, cpu) = (Instant::now(), running.cpu_time());
    let (mut of_root, mut of_user) = (0, 0);
    while began.elapsed() < length {
        for port in &ports {
            of_root += pins(&format!("forge {port} {AT_ONCE} 0"))["sent"];
            of_user += pins(&format!("forge {port} {AT_ONCE} {ALICE}"))["sent"];
            (0..5).for_each(|_| bystander.step(live));
        }
    }
    let used = (running.cpu_time() - cpu).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    let mut row = Outcome::new(format!("{of_root} forged datagrams of root, {of_user} of a user"));
    let counters = running.stop();
    row.count(|name| counters.get(name));
    row.cpu = Some(used);
    let refused = counters.get("refused_datagrams");
    row.expect(of_user == 0, "the kernel accepted datagrams of a user");
    row.expect(of_root > 0 && refused > 0, format!("{refused} refused"));
    bystander.report(&mut row, P99);
    row
}
