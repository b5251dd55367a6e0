//! Parses the command line.

use std::path::PathBuf;

const HELP: &str = "\
FILTER selects the cases with a matching name. CGRULED=PATH measures that binary instead of the one just built.
CGRULED_BASELINE=PATH names another build. The cases compare-* run both in 10 pairs (--rounds), alternate the order,
and print the ratio new / baseline of each pair as its median and spread. They are skipped without it.
Needs root, the initial pid and user namespaces, cc with a static libc, and tracefs.";

/// Cases whose samples are drawn in the figures.
const FIGURES: [&str; 3] = ["latency-isolated", "latency-close", "loss-"];

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
    /// run only the cases of the figures of README.md, and write their samples
    #[arg(long, value_name = "FILE")]
    pub(crate) samples: Option<PathBuf>,
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
        let is_drawn = FIGURES.iter().any(|name| case.starts_with(name));
        case.contains(&self.filter) && (self.samples.is_none() || is_drawn)
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
