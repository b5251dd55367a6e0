//! `cgrulectl release`: returns placed processes to the cgroups of their units, as the last step
//! before the package is removed. It must not give a process more resources than its unit has.

mod home;
mod origins;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use super::command::{DaemonFlags, ToolError};
use super::daemon_client::{self, DaemonAddress, RunNotes};
use super::format::counted;
use crate::cgroup::host::Host;
use crate::cgroup::mounts::{Hierarchies, Version};
use crate::cgroup::release::{PlacedCgroup, enter, nearest_existing, placed_cgroups};
use crate::config::escape::{Escaped, EscapedBytes};
use crate::daemon::survey;
use crate::rules::{PathBase, Rule};
use home::unit_path;
use origins::Origins;

#[derive(clap::Args)]
#[command(
    about = "Return placed processes to the cgroups of their units",
    after_help = "\
Examples:
  cgrulectl release
      release the processes of rules that no longer exist
  systemctl stop cgruled && cgrulectl release --all
      release all processes before the package is removed; exit status 1 if
      some stay, each with the reason"
)]
pub(super) struct ReleaseArgs {
    /// release the processes of this rule; the daemon must be stopped
    #[arg(long, value_name = "RULE", conflicts_with = "all")]
    rule: Option<String>,
    /// release the processes of all rules; the daemon must be stopped
    #[arg(long)]
    all: bool,
    /// print the moves, make none
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    daemon: DaemonFlags,
}

/// Passes over the cgroups: processes can fork while they are moved.
const PASSES: usize = 8;

pub(super) fn run(given: &ReleaseArgs, out: &mut dyn Write) -> Result<u8, ToolError> {
    let is_running = match daemon_client::address(&given.daemon) {
        DaemonAddress::At(socket) => daemon_client::status_at(&socket).is_some(),
        DaemonAddress::Off(_) => false,
    };
    if is_running && !given.dry_run && (given.all || given.rule.is_some()) {
        let message = "the daemon is running and would move the processes again: run 'systemctl stop \
                       cgruled', or remove the rule and run 'cgrulectl release'";
        return Err(ToolError::Failed(message.to_owned()));
    }
    let invocation = daemon_client::invocation(&given.daemon, RunNotes::Said);
    let config = survey(&invocation, None);
    let choice = ReleaseChoice::new(given, &config.loaded.rules)?;
    let cgroups = placed_cgroups(&config.hierarchies, &config.roots.rules);
    let placed: BTreeSet<PathBuf> = cgroups.iter().map(|own| own.directory.clone()).collect();
    let origins = Origins::open(&config.hierarchies, &placed)?;
    let pools = [config.roots.rules.as_str(), config.roots.legacy.as_str()];
    let release = ReleaseCommand {
        hierarchies: &config.hierarchies,
        placed: &placed,
        pools: pools.into_iter().filter(|root| !root.is_empty()).collect(),
        origins,
        runs_systemd: Host::default().runs_systemd(),
        is_dry_run: given.dry_run,
        out,
    };
    let chosen: Vec<&PlacedCgroup> =
        cgroups.iter().filter(|own| choice.contains(&own.text)).collect();
    release.run(&chosen)
}

/// The destinations of which processes are released.
enum ReleaseChoice<'r> {
    All,
    /// Those of a rule.
    Only(BTreeSet<&'r str>),
    /// All but those of rules.
    Without(BTreeSet<&'r str>),
}

impl<'r> ReleaseChoice<'r> {
    fn new(given: &ReleaseArgs, rules: &'r [Rule]) -> Result<Self, ToolError> {
        if given.all {
            return Ok(Self::All);
        }
        let Some(name) = &given.rule else {
            return Ok(Self::Without(rules.iter().flat_map(destinations).collect()));
        };
        let named = rules.iter().filter(|rule| *rule.name == **name);
        let named: BTreeSet<&str> = named.flat_map(destinations).collect();
        if named.is_empty() {
            let name = Escaped(name);
            return Err(ToolError::Failed(format!(
                "no rule '{name}' with a cgroup: 'cgrulectl list' shows the names; without --rule, \
                 processes of removed rules are released"
            )));
        }
        Ok(Self::Only(named))
    }

    fn contains(&self, text: &str) -> bool {
        let is_above =
            |own: &&str| own.strip_prefix(text).is_some_and(|rest| rest.starts_with('/'));
        match self {
            Self::All => true,
            Self::Only(named) => named.contains(text),
            // A cgroup above that of a rule can have a table.
            Self::Without(active) => !active.contains(text) && !active.iter().any(is_above),
        }
    }
}

fn destinations(rule: &Rule) -> impl Iterator<Item = &str> {
    let targets = rule.action.written_targets().iter();
    let own = targets.filter(|target| target.below == PathBase::Root);
    own.map(|target| target.destination.as_str().trim_matches('/'))
}

struct ReleaseCommand<'c> {
    hierarchies: &'c Hierarchies,
    placed: &'c BTreeSet<PathBuf>,
    pools: Vec<&'c str>,
    origins: Origins<'c>,
    runs_systemd: bool,
    is_dry_run: bool,
    out: &'c mut dyn Write,
}

impl ReleaseCommand<'_> {
    fn run(mut self, cgroups: &[&PlacedCgroup]) -> Result<u8, ToolError> {
        let mut released = BTreeSet::new();
        let mut left = Vec::new();
        for _ in 0..PASSES {
            left.clear();
            let before = released.len();
            for cgroup in cgroups {
                for pid in pids(cgroup) {
                    match self.release(pid, cgroup) {
                        Ok(directory) => {
                            let directory = EscapedBytes(directory.as_os_str().as_encoded_bytes());
                            writeln!(self.out, "{pid}: {directory}")?;
                            released.insert(pid);
                        }
                        Err(reason) => left.push((pid, *cgroup, reason)),
                    }
                }
            }
            if self.is_dry_run || released.len() == before {
                break;
            }
        }
        for (pid, cgroup, reason) in &left {
            let directory = EscapedBytes(cgroup.directory.as_os_str().as_encoded_bytes());
            writeln!(self.out, "{pid}: stays in {directory}: {reason}")?;
        }
        if !self.is_dry_run {
            // Children precede their parents; those with processes are kept by the kernel.
            cgroups.iter().for_each(|own| drop(fs::remove_dir(&own.directory)));
        }
        let stay: BTreeSet<u32> = left.iter().map(|(pid, ..)| *pid).collect();
        let verb = if self.is_dry_run { "would be released" } else { "released" };
        let count =
            counted(u64::try_from(released.len()).unwrap_or(u64::MAX), "process", "processes");
        writeln!(self.out, "{count} {verb}, {} left", stay.len())?;
        Ok(u8::from(!stay.is_empty()))
    }

    /// Moves a process out of a cgroup. Returns the directory of the new one.
    fn release(&mut self, pid: u32, cgroup: &PlacedCgroup) -> Result<PathBuf, String> {
        let directory = self.home(pid, cgroup)?;
        if self.is_dry_run {
            return Ok(directory);
        }
        // Read again right before the write: the PID could have been reused meanwhile.
        if !pids(cgroup).contains(&pid) {
            return Err("it has left the cgroup".to_owned());
        }
        enter(&directory, pid).map_err(|error| format!("{}: {error}", directory.display()))?;
        Ok(directory)
    }

    /// Returns the directory to which a process is released.
    fn home(&mut self, pid: u32, cgroup: &PlacedCgroup) -> Result<PathBuf, String> {
        if !self.runs_systemd {
            // Its ancestors keep limiting it. Only the limits of rules are lifted.
            return Ok(cgroup.above.clone());
        }
        let tree = &self.hierarchies[cgroup.hierarchy];
        let hierarchies = self.hierarchies;
        let exists = |path: &str| {
            hierarchies.of_systemd().indexes().any(|index| {
                hierarchies[index].directory(path.as_bytes()).is_some_and(|own| own.is_dir())
            })
        };
        let path = unit_path(&self.origins.of(pid), &self.pools, exists)?;
        let found = match tree.version == Version::V2 || tree.is_systemds() {
            true => tree.directory(path.as_bytes()).filter(|own| own.is_dir()),
            false => nearest_existing(tree, path.as_bytes(), self.placed),
        };
        found.ok_or_else(|| format!("its unit has no cgroup {path} in this hierarchy"))
    }
}

fn pids(cgroup: &PlacedCgroup) -> Vec<u32> {
    // A cgroup that was removed meanwhile, or a threaded one, has no processes to release.
    let text = fs::read_to_string(cgroup.directory.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.trim().parse().ok()).filter(|&pid| pid > 0).collect()
}
