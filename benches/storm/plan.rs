//! Parses the command line and lists the cases.

use crate::machine::Ground;
use crate::report::Table;
use crate::subjects::baseline_path;
use crate::{Result, compare, execs, latency, loss, rate};

const HELP: &str = "\
FILTER selects the cases with a matching name. CGRULED=PATH measures that binary instead of the one just built.
CGRULED_BASELINE=PATH names another build. The cases compare-* run both in 10 pairs (--rounds), alternate the order,
and print the ratio new / baseline of each pair as its median and spread. They are skipped without it.
Needs root, the initial pid and user namespaces, cc with a static libc, and tracefs.";

/// A case of the benchmark: a name to filter by, and its function.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Plan, &Ground) -> Result<Table>,
}

impl Case {
    /// Returns the reason why the case cannot run with this environment, if any.
    pub(crate) fn left_out(&self) -> Option<&'static str> {
        let needs_baseline = self.name.starts_with("compare-");
        (needs_baseline && baseline_path().is_none()).then_some("CGRULED_BASELINE is not set")
    }
}

/// All cases, in the order of execution and output.
pub(crate) const CASES: &[Case] = &[
    Case { name: "latency-isolated", run: latency::isolated },
    Case { name: "latency-close", run: latency::close },
    Case { name: "latency-under-forks", run: latency::fork_storm },
    Case { name: "latency-under-execs", run: latency::exec_storm },
    Case { name: "latency-under-threads", run: latency::thread_storm },
    Case { name: "latency-under-comms", run: latency::comm_storm },
    Case { name: "latency-rules-close", run: latency::rules_close },
    Case { name: "latency-rules-isolated", run: latency::rules_isolated },
    Case { name: "loss-tree-781", run: loss::tree_small },
    Case { name: "loss-tree-9724", run: loss::tree_large },
    Case { name: "loss-orphans", run: loss::orphans },
    Case { name: "loss-churn", run: loss::churn },
    Case { name: "exec-storm", run: execs::storm },
    Case { name: "rate-fork", run: rate::forks },
    Case { name: "rate-exec", run: rate::execs },
    Case { name: "cost-cpu", run: rate::cpu },
    Case { name: "cost-idle", run: rate::idle },
    Case { name: "cost-memory", run: rate::memory },
    Case { name: "cost-start", run: rate::start },
    Case { name: "compare-latency-close", run: compare::close },
    Case { name: "compare-latency-isolated", run: compare::isolated },
    Case { name: "compare-exec-close", run: compare::exec },
    Case { name: "compare-fork-rate", run: compare::forks },
    Case { name: "compare-cpu-miss", run: compare::cpu_miss },
    Case { name: "compare-cpu-exe", run: compare::cpu_exe },
    Case { name: "compare-start", run: compare::start },
];

/// Amount of work and the form of the output.
#[derive(clap::Parser)]
#[command(name = "cargo bench --bench storm --", after_help = HELP)]
pub(crate) struct Plan {
    #[arg(default_value = "", hide_default_value = true)]
    filter: String,
    /// a fifth of the work: only tests that the benchmark works
    #[arg(long)]
    pub(crate) quick: bool,
    /// print the format of benches/RESULTS.md
    #[arg(long)]
    pub(crate) markdown: bool,
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// length of the exec storm (60)
    #[arg(long, value_name = "N")]
    seconds: Option<u32>,
    /// print the names of the cases
    #[arg(long)]
    pub(crate) list: bool,
    /// set by `cargo bench`, not by `cargo test`
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

impl Plan {
    pub(crate) fn wants(&self, case: &str) -> bool {
        case.contains(&self.filter)
    }

    /// Returns the number of rounds: `usual` by default; `--quick` only tests that the benchmark works.
    pub(crate) fn rounds(&self, usual: usize) -> usize {
        self.rounds.unwrap_or(if self.quick { usual.min(2) } else { usual })
    }

    pub(crate) fn seconds(&self) -> u32 {
        self.seconds.unwrap_or(if self.quick { 5 } else { 60 })
    }

    /// Returns `full`, or a fifth of it with `--quick`.
    pub(crate) fn amount(&self, full: u32) -> u32 {
        if self.quick { full.div_ceil(5) } else { full }
    }
}
