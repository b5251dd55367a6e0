//! Runs `systemctl set-property --runtime` and `systemctl daemon-reload` with a time limit, because
//! systemd can be busy for seconds.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::drop_ins::{DropIns, is_of};
use super::plan::DropIn;
use crate::cgroup::config::UnitSpec;
use crate::cgroup::mounts::Hierarchies;
use crate::sys;
use crate::sys::subprocess::{self, printed};

/// The time limit of a command. The D-Bus timeout of systemd is 25 s.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
/// The interval at which a running command is polled. It takes about 20 ms.
const PAUSE: Duration = Duration::from_millis(10);

/// Properties that `systemctl show` prints in the form that `systemctl set-property` accepts.
const REWRITABLE: [&str; 4] = ["TasksMax", "MemoryMax", "MemoryHigh", "MemorySwapMax"];

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
            state: Path::new(sys::RUNTIME_DIRECTORY).join("units.json"),
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
        self.run(&words).map(drop)
    }

    /// Runs `systemctl daemon-reload`.
    ///
    /// # Errors
    /// The command failed or timed out; the text is for the log.
    pub(super) fn reload(&self) -> Result<(), String> {
        self.run(&["daemon-reload"]).map(drop)
    }

    /// Makes systemd write all settings of a unit to its cgroup, if it has one, by setting one
    /// property to the value that it already has. Returns the created drop-in, which has to be removed.
    ///
    /// daemon-reload alone is not sufficient: after drop-ins were removed, systemd 257 reports the
    /// remaining values but leaves the cgroup as it is.
    ///
    /// # Errors
    /// A command failed or timed out, or each of the properties has a drop-in already; the text is
    /// for the log.
    pub(super) fn rewrite(&self, unit: &str) -> Result<Option<DropIn>, String> {
        let present = self.drop_ins.of(unit);
        let mut properties = REWRITABLE.iter();
        let free = properties.find(|property| !present.keys().any(|file| is_of(file, &[property])));
        let Some(property) = free else {
            return Err(format!("all of {} are set by others", REWRITABLE.join(", ")));
        };
        let shown =
            self.run(&["show", "--property", property, "--property=ActiveState", "--", unit])?;
        let value = value_of(&shown, property);
        let state = value_of(&shown, "ActiveState");
        if matches!(state, "" | "inactive" | "failed") || value.is_empty() {
            return Ok(None);
        }
        self.run(&["set-property", "--runtime", "--", unit, &format!("{property}={value}")])?;
        let mut after = self.drop_ins.of(unit);
        let file = after.keys().find(|file| is_of(file, &[property])).cloned();
        Ok(file.and_then(|file| after.remove(&file)))
    }

    /// Runs the command and returns its output.
    fn run(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        command.args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| self.failed(&error))?;
        let status = subprocess::wait(&mut child, self.limit, PAUSE);
        match status.map_err(|error| self.failed(&error))? {
            Some(status) if status.success() => Ok(printed(child.stdout.take())),
            Some(status) => {
                let message = printed(child.stderr.take());
                Err(format!("systemctl: {status}: {}", message.trim().escape_debug()))
            }
            None => Err(format!("systemctl timed out after {} s", self.limit.as_secs_f32())),
        }
    }

    fn failed(&self, error: &io::Error) -> String {
        format!("{}: {error}", self.program.display())
    }
}

/// Returns the value of a property in the output of `systemctl show`, empty if it is missing.
fn value_of<'s>(shown: &'s str, property: &str) -> &'s str {
    let mut values = shown.lines().filter_map(|line| line.split_once('='));
    values.find(|(key, _)| *key == property).map_or("", |(_, value)| value)
}
