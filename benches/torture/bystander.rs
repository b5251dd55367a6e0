//! Measures the placement of a process of a user who has nothing to do with the load.

use std::time::{Duration, Instant};

use crate::harness::user::BOB;
use crate::harness::{Ground, Live};
use crate::machine;
use crate::report::Outcome;
use crate::trace::Trace;

/// Rule of the bystander. The cgroups of the trace are below `bystander`.
pub(crate) const RULE: (&str, &str) = ("cgt-bob", "bystander/%u");
/// Time in which a bystander that is not placed at all is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Latencies from the system call, as the process stamped it, to the move, as the kernel traced it.
pub(crate) struct Bystander {
    trace: Trace,
    latencies: Vec<Duration>,
    unplaced: usize,
}

impl Bystander {
    pub(crate) fn new(ground: &Ground) -> Self {
        let name = ground.at("bystander").trim_start_matches('/').to_owned();
        let trace = Trace::start(&machine::Ground { name }).unwrap();
        Self { trace, latencies: Vec::new(), unplaced: 0 }
    }

    /// Lets one process become bob and waits until it is placed.
    pub(crate) fn step(&mut self, live: &Live) {
        self.trace.clear().unwrap();
        let mut actor = live.actor(&format!("stamp {BOB} hold"));
        let stamp = u64::from(actor.said("stamp"));
        let pid = i64::from(actor.said("pid"));
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let attaches = self.trace.attaches().unwrap();
            if let Some(attach) = attaches.iter().find(|attach| attach.pid == pid) {
                let at = u64::try_from(attach.ns / 1000).unwrap();
                let micros = at.wrapping_sub(stamp) & 0x7fff_ffff;
                self.latencies.push(Duration::from_micros(micros));
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.unplaced += 1;
    }

    /// Checks that the median of the last third is not above twice that of the first third.
    pub(crate) fn expect_stable(&self, row: &mut Outcome) {
        let third = self.latencies.len() / 3;
        let of = |part: &[Duration]| {
            let mut sorted = part.to_vec();
            sorted.sort();
            sorted.get(sorted.len() / 2).copied().unwrap_or_default()
        };
        let (first, last) = (of(&self.latencies[..third]), of(&self.latencies[2 * third..]));
        row.expect_limit(
            last <= 2 * first,
            format!("median {first:?}, in the last third {last:?}"),
        );
    }

    /// Adds the result to a row, with the limit for the 99th percentile.
    pub(crate) fn report(mut self, row: &mut Outcome, limit: Duration) {
        self.latencies.sort();
        let count = self.latencies.len();
        row.expect(self.unplaced == 0, format!("{} bystanders not placed", self.unplaced));
        row.expect_limit(count >= 20, format!("only {count} bystanders"));
        let Some(last) = count.checked_sub(1) else { return };
        let (p50, p99) = (self.latencies[last / 2], self.latencies[last * 99 / 100]);
        row.latency = Some((p50, p99));
        row.done += &format!(", {count} bystanders");
        row.expect_limit(p99 <= limit, format!("p99 above {} ms", limit.as_millis()));
    }
}
