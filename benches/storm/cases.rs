//! Lists the cases of the benchmark.

use crate::machine::Ground;
use crate::plan::Plan;
use crate::report::Table;
use crate::subjects::baseline_path;
use crate::{Result, compare, execs, latency, loss, rate, scale};

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
    Case { name: "latency-apart", run: latency::apart },
    Case { name: "latency-isolated", run: latency::isolated },
    Case { name: "latency-close", run: latency::close },
    Case { name: "latency-under-forks", run: latency::fork_storm },
    Case { name: "latency-under-execs", run: latency::exec_storm },
    Case { name: "latency-under-threads", run: latency::thread_storm },
    Case { name: "latency-under-comms", run: latency::comm_storm },
    Case { name: "latency-busy-8", run: latency::busy_8 },
    Case { name: "latency-busy-32", run: latency::busy_32 },
    Case { name: "latency-reclaim", run: latency::reclaim },
    Case { name: "latency-short", run: latency::short },
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
    Case { name: "cost-origin", run: rate::origin },
    Case { name: "cost-idle", run: rate::idle },
    Case { name: "cost-memory", run: rate::memory },
    Case { name: "cost-start", run: rate::start },
    Case { name: "scale-tools", run: scale::tools },
    Case { name: "scale-accounts", run: scale::accounts },
    Case { name: "scale-reloads", run: scale::reloads },
    Case { name: "compare-latency-close", run: compare::close },
    Case { name: "compare-latency-isolated", run: compare::isolated },
    Case { name: "compare-exec-close", run: compare::exec },
    Case { name: "compare-fork-rate", run: compare::forks },
    Case { name: "compare-cpu-miss", run: compare::cpu_miss },
    Case { name: "compare-cpu-exe", run: compare::cpu_exe },
    Case { name: "compare-start", run: compare::start },
    Case { name: "history-latency-close", run: compare::history_close },
    Case { name: "history-cpu-miss", run: compare::history_cpu_miss },
    Case { name: "history-cpu-exe", run: compare::history_cpu_exe },
];
