//! Runs `systemctl set-property --runtime` and `systemctl daemon-reload` with a time limit, because
//! systemd can be busy for seconds.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::drop_ins::DropIns;
use crate::cgroup::config::UnitSpec;
use crate::cgroup::mounts::Hierarchies;
use crate::sys::subprocess::{self, printed};

/// The time limit of a command. The D-Bus timeout of systemd is 25 s.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
/// The interval at which a running command is polled. It takes about 20 ms.
const PAUSE: Duration = Duration::from_millis(10);

/// The paths and commands of systemd on this host.
#[derive(Clone, Debug)]
pub(in crate::cgroup) struct Systemd {
    /// The command, found in `PATH`.
    pub(super) program: PathBuf,
    pub(super) is_running: bool,
    pub(super) limit: Duration,
    /// The drop-ins of `systemctl set-property --runtime`.
    pub(super) drop_ins: DropIns,
    /// The file that records which of them cgruled wrote.
    pub(super) state: PathBuf,
    /// The mount point of the hierarchy in which systemd keeps its units.
    pub(super) tree: Option<PathBuf>,
}

impl Systemd {
    /// Returns the systemd of a host with these hierarchies.
    pub(in crate::cgroup) fn of(hierarchies: &Hierarchies) -> Self {
        // Hybrid hosts have a named hierarchy for systemd, and may have v2 as well.
        let named = hierarchies.iter().find(|tree| tree.is_systemds());
        let tree = named.or_else(|| hierarchies.unified());
        Self {
            program: "systemctl".into(),
            // The test of sd_booted(3).
            is_running: Path::new("/run/systemd/system").is_dir(),
            limit: LIMIT,
            drop_ins: DropIns { control: "/run/systemd/system.control".into() },
            state: "/run/cgruled/units.json".into(),
            tree: tree.map(|tree| tree.mount_point.clone()),
        }
    }

    /// Sets all properties of a unit with one command.
    ///
    /// # Errors
    /// The command failed or timed out; the text is for the log.
    pub(super) fn set(&self, unit: &UnitSpec) -> Result<(), String> {
        let properties = unit.properties();
        if properties.is_empty() {
            return Ok(());
        }
        let mut words = vec!["set-property", "--runtime", "--", &unit.name];
        words.extend(properties);
        self.run(&words)
    }

    /// Runs `systemctl daemon-reload`.
    ///
    /// # Errors
    /// The command failed or timed out; the text is for the log.
    pub(super) fn reload(&self) -> Result<(), String> {
        self.run(&["daemon-reload"])
    }

    fn run(&self, words: &[&str]) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        command.args(words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let said = |error: io::Error| format!("{}: {error}", self.program.display());
        let mut child = command.spawn().map_err(said)?;
        match subprocess::wait(&mut child, self.limit, PAUSE).map_err(said)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => {
                let message = printed(child.stderr.take());
                Err(format!("systemctl: {status}: {}", message.trim().escape_debug()))
            }
            None => Err(format!("systemctl timed out after {} s", self.limit.as_secs_f32())),
        }
    }
}
