//! Applies settings to systemd units, which only systemd may write, with
//! `systemctl set-property --runtime` on a separate thread. Units with a table are set when rules
//! become active, user slices also when systemd creates them. Settings that no table contains any
//! more are reverted.

mod applier;
mod drop_ins;
mod plan;
mod state_file;
mod systemctl;
mod watch;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Sender, unbounded};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::config::GroupConfigs;
use crate::event::Uid;
use crate::rules::Origin;
use crate::telemetry::metrics::Metrics;
use applier::Applier;
use plan::UnitTables;
pub(super) use systemctl::Systemd;

/// A function that returns the name of a user from the name service.
pub type UserName = Arc<dyn Fn(Uid) -> io::Result<Option<String>> + Send + Sync>;

/// A handle to the thread that sets units, started on demand.
pub(super) struct Units {
    systemd: Systemd,
    metrics: Arc<Metrics>,
    name_of: UserName,
    /// Started when the first unit has a table, or has settings from an earlier run.
    thread: Option<UnitThread>,
    was_said: bool,
}

impl fmt::Debug for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Units").field("systemd", &self.systemd).finish_non_exhaustive()
    }
}

/// The channel to the thread, which never blocks.
struct UnitThread {
    /// `None` only during drop.
    orders: Option<Sender<UnitTables>>,
    wakeup: Arc<EventFd>,
}

impl Drop for UnitThread {
    fn drop(&mut self) {
        self.orders = None;
        // The thread notices that the channel is closed.
        let _written = self.wakeup.write(1);
    }
}

impl Units {
    pub(super) fn new(systemd: Systemd, metrics: Arc<Metrics>, name_of: UserName) -> Self {
        Self { systemd, metrics, name_of, thread: None, was_said: false }
    }

    /// Requests that units are set to the configuration and that other settings are reverted.
    pub(super) fn adopt(&mut self, configs: &GroupConfigs) {
        self.give(UnitTables::from(configs));
    }

    fn give(&mut self, tables: UnitTables) {
        if !self.systemd.is_running {
            self.say_without_systemd(&tables);
            return;
        }
        let is_empty = tables.units.is_empty() && tables.user_slices.is_empty();
        if self.thread.is_none() {
            // Settings of an earlier run may have to be reverted.
            if is_empty && !self.systemd.state.exists() {
                return;
            }
            self.thread = self
                .start()
                .map_err(|error| ::log::error!("cannot start thread \"units\": {error}"))
                .ok();
        }
        let Some(UnitThread { orders: Some(orders), wakeup }) = &self.thread else { return };
        if orders.send(tables).is_err() || wakeup.write(1).is_err() {
            ::log::error!("thread \"units\" has ended: restart the daemon to configure units");
        }
    }

    fn say_without_systemd(&mut self, tables: &UnitTables) {
        let origins = tables.units.iter().map(|unit| &unit.origin);
        let mut origins = origins.chain(tables.user_slices.iter().map(|table| &table.origin));
        let Some(Origin { file, line }) = origins.next() else { return };
        if !std::mem::replace(&mut self.was_said, true) {
            ::log::warn!(
                "{}:{line}: systemd is not running: settings of units are ignored",
                file.display()
            );
        }
    }

    fn start(&self) -> io::Result<UnitThread> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wakeup = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let (sender, orders) = unbounded();
        let systemd = self.systemd.clone();
        let metrics = Arc::clone(&self.metrics);
        let theirs = Arc::clone(&wakeup);
        let name_of = Arc::clone(&self.name_of);
        let builder = thread::Builder::new().name("units".into());
        builder.spawn(move || Applier::new(systemd, metrics, orders, theirs, name_of).serve())?;
        Ok(UnitThread { orders: Some(sender), wakeup })
    }
}

#[cfg(test)]
#[path = "units_tests.rs"]
mod tests;
