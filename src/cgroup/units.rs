//! Settings of systemd's units, which systemd alone may write: `systemctl set-property --runtime`, on a
//! thread of its own and for a limited time, because systemd can be busy for seconds.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::provision::UnitGift;
use crate::metrics::Metrics;
use crate::subprocess::{self, printed};

/// How long one unit may take. systemd's own limit for its bus is 25 s.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks whether the command has ended: it takes some 20 ms.
const PAUSE: Duration = Duration::from_millis(10);

/// The systemd of this host.
#[derive(Clone, Debug)]
pub(super) struct Systemd {
    /// The command, looked for in `PATH`.
    program: PathBuf,
    is_running: bool,
    limit: Duration,
}

impl Default for Systemd {
    fn default() -> Self {
        // As sd_booted(3).
        let is_running = Path::new("/run/systemd/system").is_dir();
        Self { program: "systemctl".into(), is_running, limit: LIMIT }
    }
}

/// Gives units their settings.
#[derive(Debug)]
pub(super) struct Units {
    systemd: Systemd,
    metrics: Arc<Metrics>,
    /// Started when the first unit has a table.
    thread: Option<Sender<Vec<UnitGift>>>,
    was_said: bool,
}

impl Units {
    pub(super) fn new(systemd: Systemd, metrics: Arc<Metrics>) -> Self {
        Self { systemd, metrics, thread: None, was_said: false }
    }

    /// Gives these units what their tables say, soon. Units without a table keep what they have.
    pub(super) fn give(&mut self, units: &[UnitGift]) {
        let Some(first) = units.first() else { return };
        if !self.systemd.is_running {
            if !std::mem::replace(&mut self.was_said, true) {
                ::log::warn!(
                    "{}:{}: systemd does not run here, so that units get no settings",
                    first.origin.file.display(),
                    first.origin.line
                );
            }
            return;
        }
        if self.thread.is_none() {
            self.thread = self.start().map_err(|error| ::log::error!("units: {error}")).ok();
        }
        let Some(thread) = &self.thread else { return };
        if thread.send(units.to_vec()).is_err() {
            ::log::error!("the thread that gives units their settings has ended");
        }
    }

    fn start(&self) -> io::Result<Sender<Vec<UnitGift>>> {
        let (sender, orders) = unbounded();
        let (systemd, metrics) = (self.systemd.clone(), Arc::clone(&self.metrics));
        let builder = thread::Builder::new().name("units".into());
        builder.spawn(move || serve(&systemd, &orders, &metrics))?;
        Ok(sender)
    }
}

fn serve(systemd: &Systemd, orders: &Receiver<Vec<UnitGift>>, metrics: &Metrics) {
    while let Ok(mut units) = orders.recv() {
        // What was ordered meanwhile is newer.
        units = orders.try_iter().last().unwrap_or(units);
        for unit in &units {
            match systemd.set(unit) {
                Ok(()) => {
                    metrics.set_units.increment();
                    ::log::debug!("gave {} {}", unit.name, unit.properties().join(" "));
                }
                Err(why) => {
                    metrics.refused_units.increment();
                    let (file, line) = (unit.origin.file.display(), unit.origin.line);
                    ::log::warn!("{file}:{line}: {} keeps its settings: {why}", unit.name);
                }
            }
        }
    }
}

impl Systemd {
    /// Sets all properties of a unit in one call.
    fn set(&self, unit: &UnitGift) -> Result<(), String> {
        let properties = unit.properties();
        if properties.is_empty() {
            return Ok(());
        }
        let mut command = Command::new(&self.program);
        command.args(["set-property", "--runtime", "--", &unit.name]).args(properties);
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

#[cfg(test)]
#[path = "units_tests.rs"]
mod tests;
