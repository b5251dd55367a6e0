//! Reads the origin of processes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::home::ProcessOrigin;
use crate::cgroup::mounts::Hierarchies;
use crate::event::Pid;
use crate::kernel::container::{Containment, HostNamespaces};
use crate::kernel::process::{ProcFs, path_in};

/// The number of ancestors that are examined.
const MAX_ANCESTORS: usize = 64;
/// The value of an audit session and of a login user that was never set.
const UNSET: u32 = u32::MAX;

/// The running host, with the cgroups of rules.
pub(super) struct Origins<'h> {
    proc: ProcFs,
    namespaces: HostNamespaces,
    hierarchies: &'h Hierarchies,
    /// The directories of the cgroups of rules.
    placed: &'h BTreeSet<PathBuf>,
    /// The cgroups of services by their main PID.
    main_pids: BTreeMap<u32, String>,
}

impl<'h> Origins<'h> {
    pub(super) fn open(
        hierarchies: &'h Hierarchies,
        placed: &'h BTreeSet<PathBuf>,
    ) -> io::Result<Self> {
        let proc = Path::new("/proc");
        let main_pids = main_pids();
        let namespaces = HostNamespaces::read(proc);
        Ok(Self { proc: ProcFs::open(proc)?, namespaces, hierarchies, placed, main_pids })
    }

    pub(super) fn of(&mut self, pid: u32) -> ProcessOrigin {
        let directory = PathBuf::from(format!("/proc/{pid}"));
        let number = |file: &str| {
            let text = fs::read_to_string(directory.join(file)).ok()?;
            text.trim().parse::<u32>().ok().filter(|&number| number != UNSET)
        };
        let login = number("loginuid").zip(number("sessionid"));
        let containment = self.namespaces.containment_by_proc(&directory);
        let Some(process) = Pid::new(pid) else { return ProcessOrigin::default() };
        ProcessOrigin {
            unit_path: self.unit_path(process),
            main_of: self.main_pids.get(&pid).cloned(),
            login,
            ancestor_path: self.ancestor_path(process),
            may_be_container: !matches!(containment, Containment::Host | Containment::OfUser(_)),
        }
    }

    /// Returns the path of a process in systemd's hierarchies where no rule placed it.
    fn unit_path(&mut self, pid: Pid) -> Option<String> {
        let text = self.proc.cgroup(pid, None)?.to_vec();
        let trees = self.hierarchies.of_systemd().indexes().map(|index| &self.hierarchies[index]);
        let mut paths = trees.filter_map(|tree| {
            let path = path_in(&text, tree.listed.as_bytes())?;
            let directory = tree.directory(path)?;
            let is_placed = directory.ancestors().any(|own| self.placed.contains(own));
            // Without a unit it was moved by hand, or systemd keeps units in the other hierarchy.
            (!is_placed && path != b"/").then(|| String::from_utf8(path.to_vec()).ok())?
        });
        paths.next()
    }

    fn ancestor_path(&mut self, pid: Pid) -> Option<String> {
        let mut child = pid;
        for _ in 0..MAX_ANCESTORS {
            let parent = self.proc.status(child)?.parent.filter(|parent| parent.get() > 1)?;
            if let Some(path) = self.unit_path(parent) {
                return Some(path);
            }
            child = parent;
        }
        None
    }
}

/// Asks systemd for the main processes of services and their cgroups.
fn main_pids() -> BTreeMap<u32, String> {
    let mut command = Command::new("systemctl");
    command.args(["show", "--property=MainPID,ControlGroup", "*.service"]);
    command.env("LC_ALL", "C").stdin(Stdio::null());
    match command.output() {
        Ok(output) => parse(&String::from_utf8_lossy(&output.stdout)),
        Err(error) => {
            eprintln!("cgrulectl: cannot run systemctl: {error}: main processes are unknown");
            BTreeMap::new()
        }
    }
}

/// Parses the properties of units, which are separated by empty lines.
fn parse(output: &str) -> BTreeMap<u32, String> {
    let mut found = BTreeMap::new();
    for unit in output.split("\n\n") {
        let value = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name));
        let main = value("MainPID=").and_then(|pid| pid.parse().ok()).filter(|&pid| pid > 1);
        let path = value("ControlGroup=").filter(|path| path.starts_with('/'));
        found.extend(main.zip(path.map(str::to_owned)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn main_processes_are_those_that_systemd_reports() {
        let output = "MainPID=0\nControlGroup=\n\nControlGroup=/system.slice/db.service\n\
                      MainPID=41\n\nMainPID=1\nControlGroup=/init.scope\n\nMainPID=x\n";
        let db = "/system.slice/db.service".to_owned();
        assert_eq!(parse(output), BTreeMap::from([(41, db)]));
    }
}
