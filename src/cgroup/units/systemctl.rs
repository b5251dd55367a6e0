//! The commands of systemd: `systemctl set-property --runtime` and `daemon-reload`, for a limited time, because
//! systemd can be busy for seconds.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::drop_ins::DropIns;
use crate::cgroup::mounts::Hierarchies;
use crate::cgroup::provision::UnitGift;
use crate::subprocess::{self, printed};

/// How long one unit may take. systemd's own limit for its bus is 25 s.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks whether the command has ended: it takes some 20 ms.
const PAUSE: Duration = Duration::from_millis(10);

/// The systemd of this host.
#[derive(Clone, Debug)]
pub(in crate::cgroup) struct Systemd {
    /// The command, looked for in `PATH`.
    pub(super) program: PathBuf,
    pub(super) is_running: bool,
    pub(super) limit: Duration,
    /// Where systemd keeps the settings that it is told.
    pub(super) drop_ins: DropIns,
    /// Where we keep which of them are ours.
    pub(super) state: PathBuf,
    /// Where the hierarchy is mounted in which systemd keeps its units.
    pub(super) tree: Option<PathBuf>,
}

impl Systemd {
    /// The systemd of a host with these hierarchies.
    pub(in crate::cgroup) fn of(hierarchies: &Hierarchies) -> Self {
        // On hybrid hosts systemd has one of its own, and may have the v2 tree besides.
        let named = hierarchies.iter().find(|tree| tree.listed == "name=systemd");
        let tree = named.or_else(|| hierarchies.unified());
        Self {
            program: "systemctl".into(),
            // As sd_booted(3).
            is_running: Path::new("/run/systemd/system").is_dir(),
            limit: LIMIT,
            drop_ins: DropIns { control: "/run/systemd/system.control".into() },
            state: "/run/cgruled/units.json".into(),
            tree: tree.map(|tree| tree.mount_point.clone()),
        }
    }

    /// Sets all properties of a unit in one call.
    ///
    /// # Errors
    /// What to report.
    pub(super) fn set(&self, unit: &UnitGift) -> Result<(), String> {
        let properties = unit.properties();
        if properties.is_empty() {
            return Ok(());
        }
        let mut words = vec!["set-property", "--runtime", "--", &unit.name];
        words.extend(properties);
        self.run(&words)
    }

    /// Lets systemd read its files again.
    ///
    /// # Errors
    /// What to report.
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
            None => Err(format!("systemctl took longer than {} s", self.limit.as_secs_f32())),
        }
    }
}
