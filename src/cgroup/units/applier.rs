//! Brings units to the configured state, on a thread that may block on systemd and the name
//! service.
//!
//! Nothing is queued: after each event the plan is recomputed from the existing slices and the
//! applied settings, so a burst of logins costs no memory. One command runs at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use super::UserName;
use super::drop_ins::is_of;
use super::plan::{AppliedUnit, AppliedUnits, DropIn, HostState, UnitPlan, UnitTables};
use super::state_file;
use super::systemctl::Systemd;
use super::watch::SliceWatch;
use crate::cgroup::config::{UnitSpec, user_of_slice};
use crate::event::Uid;
use crate::telemetry::metrics::Metrics;

/// The state of the thread.
pub(super) struct Applier {
    pub(super) systemd: Systemd,
    pub(super) metrics: Arc<Metrics>,
    pub(super) orders: Receiver<UnitTables>,
    pub(super) wakeup: Arc<EventFd>,
    pub(super) name_of: UserName,
    tables: UnitTables,
    /// `None` without tables for user slices.
    watch: Option<SliceWatch>,
    present: BTreeSet<Uid>,
    applied: AppliedUnits,
    due: BTreeSet<String>,
    refused: BTreeSet<String>,
    /// Units with drop-ins that could not be removed, until the next reload.
    stuck: BTreeSet<String>,
    /// Names of the users of existing slices, until the next reload.
    names: BTreeMap<Uid, Option<String>>,
    /// Units with removed drop-ins, until systemd has read its files again and has written the
    /// remaining settings.
    reverted: BTreeSet<String>,
}

impl Applier {
    pub(super) fn new(
        systemd: Systemd,
        metrics: Arc<Metrics>,
        orders: Receiver<UnitTables>,
        wakeup: Arc<EventFd>,
        name_of: UserName,
    ) -> Self {
        let applied = state_file::read(&systemd.state).unwrap_or_default();
        Self {
            systemd,
            metrics,
            orders,
            wakeup,
            name_of,
            tables: UnitTables::default(),
            watch: None,
            present: BTreeSet::new(),
            applied,
            due: BTreeSet::new(),
            refused: BTreeSet::new(),
            stuck: BTreeSet::new(),
            names: BTreeMap::new(),
            reverted: BTreeSet::new(),
        }
    }

    /// Runs until the channel is closed.
    pub(super) fn serve(mut self) {
        let mut is_told = false;
        loop {
            // Read before the channel, so that later tables set the eventfd again. EAGAIN means no
            // wake-up.
            let _woken = self.wakeup.read();
            match self.orders.try_recv() {
                Ok(tables) => {
                    // Only the latest tables matter.
                    let tables = self.orders.try_iter().last().unwrap_or(tables);
                    self.adopt(tables);
                    is_told = true;
                }
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {}
            }
            // Before the first tables arrive every setting would be reverted.
            if is_told {
                self.check();
                self.work();
            }
            if self.orders.is_empty() {
                self.wait();
            }
        }
    }

    fn adopt(&mut self, tables: UnitTables) {
        self.due = tables.units.iter().map(|unit| unit.name.clone()).collect();
        self.refused.clear();
        self.stuck.clear();
        self.names.clear();
        if tables.user_slices.is_empty() {
            (self.watch, self.present) = (None, BTreeSet::new());
        } else if self.watch.is_none() {
            self.watch = self.open_watch(&tables);
        }
        self.tables = tables;
    }

    fn open_watch(&self, tables: &UnitTables) -> Option<SliceWatch> {
        let place = tables.user_slices.first().map(|table| table.origin.to_string());
        let place = place.unwrap_or_default();
        let Some(tree) = &self.systemd.tree else {
            ::log::warn!(
                "{place}: no cgroup hierarchy of systemd is mounted: user slices are not configured"
            );
            return None;
        };
        let opened = SliceWatch::open(tree);
        opened
            .inspect_err(|errno| {
                ::log::error!(
                    "{place}: cannot watch {}: {}: user slices are not configured until the next reload",
                    tree.display(),
                    errno.desc()
                );
            })
            .ok()
    }

    /// Reads which user slices exist.
    fn check(&mut self) {
        let Some(watch) = &mut self.watch else { return };
        match watch.present() {
            Ok(present) => self.present = present,
            Err(errno) => ::log::warn!("cannot watch user slices: {}", errno.desc()),
        }
        // A slice that is created again is tried again.
        let present = &self.present;
        self.refused.retain(|name| user_of_slice(name).is_none_or(|uid| present.contains(&uid)));
        let applied: BTreeSet<Uid> =
            self.applied.keys().filter_map(|name| user_of_slice(name)).collect();
        self.names.retain(|uid, _| present.contains(uid) || applied.contains(uid));
    }

    fn plan(&mut self) -> UnitPlan {
        let damaged = self.applied.iter().filter(|(name, applied)| {
            let files = self.systemd.drop_ins.of(name);
            applied.drop_ins.iter().any(|own| files.get(&own.file) != Some(own))
        });
        let damaged: BTreeSet<String> = damaged.map(|(name, _)| name.clone()).collect();
        let now = HostState {
            present: &self.present,
            applied: &self.applied,
            damaged: &damaged,
            due: &self.due,
            refused: &self.refused,
            stuck: &self.stuck,
        };
        let names = &mut self.names;
        let name_of = &self.name_of;
        UnitPlan::new(&self.tables, &now, |uid| {
            if let Some(name) = names.get(&uid) {
                return Ok(name.clone());
            }
            let name = name_of(uid).inspect_err(|error| {
                ::log::warn!(
                    "name service failed: {error}; the slice of UID {uid} is not changed",
                    uid = uid.0
                );
            })?;
            names.insert(uid, name.clone());
            Ok::<_, std::io::Error>(name)
        })
    }

    fn work(&mut self) {
        let UnitPlan { release, set } = self.plan();
        for name in release {
            self.release(&name);
        }
        self.reload();
        for unit in set {
            self.set(&unit);
            if !self.orders.is_empty() {
                // Plan the rest again with the new tables.
                break;
            }
        }
        self.reload();
    }

    fn set(&mut self, unit: &UnitSpec) {
        self.due.remove(&unit.name);
        let before = self.systemd.drop_ins.of(&unit.name);
        let outcome = self.systemd.set(unit);
        let after = self.systemd.drop_ins.of(&unit.name);
        let properties = unit.properties();
        let known = self.applied.remove(&unit.name).unwrap_or_default();
        // A command that failed may have written some of its files.
        let ours = after.values().filter(|own| {
            known.drop_ins.contains(own)
                || before.get(&own.file) != Some(*own) && is_of(&own.file, &properties)
        });
        let (drop_ins, dropped): (Vec<DropIn>, Vec<DropIn>) =
            ours.cloned().partition(|own| outcome.is_err() || is_of(&own.file, &properties));
        let properties = match &outcome {
            Ok(()) => properties.into_iter().map(str::to_owned).collect(),
            Err(_) => Vec::new(),
        };
        if outcome.is_ok() || !drop_ins.is_empty() {
            self.applied.insert(unit.name.clone(), AppliedUnit { properties, drop_ins });
        }
        self.remove_files(&unit.name, &dropped);
        // Before it is counted: whoever sees the counter may start the next daemon.
        self.save();
        match outcome {
            Ok(()) => {
                self.metrics.units_configured.increment();
                ::log::debug!("set {}: {}", unit.name, unit.properties().join(" "));
            }
            Err(why) => {
                self.metrics.units_refused.increment();
                self.refused.insert(unit.name.clone());
                let file = unit.origin.file.display();
                let line = unit.origin.line;
                ::log::warn!("{file}:{line}: cannot configure {}: {why}", unit.name);
            }
        }
    }

    /// Reverts all settings of cgruled on a unit.
    fn release(&mut self, name: &str) {
        let Some(applied) = self.applied.get(name).cloned() else { return };
        if self.remove_files(name, &applied.drop_ins) {
            self.applied.remove(name);
            self.save();
            self.metrics.units_released.increment();
            ::log::debug!("reverted {} on {name}", applied.properties.join(" "));
        } else {
            self.stuck.insert(name.to_owned());
        }
    }

    /// Removes drop-ins. Returns whether they are gone.
    fn remove_files(&mut self, name: &str, drop_ins: &[DropIn]) -> bool {
        match self.systemd.drop_ins.remove(name, drop_ins) {
            Ok(removed) => {
                self.reverted.extend((removed > 0).then(|| name.to_owned()));
                true
            }
            Err(error) => {
                self.reverted.insert(name.to_owned());
                self.metrics.units_refused.increment();
                ::log::warn!("cannot revert settings of {name}: {error}");
                false
            }
        }
    }

    /// Makes the removal of drop-ins take effect.
    fn reload(&mut self) {
        if self.reverted.is_empty() || !self.read_files() {
            return;
        }
        for name in std::mem::take(&mut self.reverted) {
            match self.systemd.rewrite(&name) {
                Ok(None) => {}
                Ok(Some(drop_in)) => {
                    // An error is logged.
                    self.remove_files(&name, &[drop_in]);
                }
                Err(why) => {
                    self.metrics.units_refused.increment();
                    ::log::warn!(
                        "removed settings may stay active in the cgroup of {name} until it is set \
                         with 'systemctl set-property' or restarted: {why}"
                    );
                }
            }
        }
        // The drop-ins that were just removed set what the cgroups have, so nothing is to be written.
        if !std::mem::take(&mut self.reverted).is_empty() {
            self.read_files();
        }
    }

    /// Lets systemd read its files again. Returns whether it did.
    fn read_files(&self) -> bool {
        let outcome = self.systemd.reload();
        if let Err(why) = &outcome {
            self.metrics.units_refused.increment();
            ::log::warn!(
                "removed settings of units stay active until 'systemctl daemon-reload': {why}"
            );
        }
        outcome.is_ok()
    }

    fn save(&self) {
        if let Err(error) = state_file::write(&self.systemd.state, &self.applied) {
            ::log::warn!("cannot write {}: {error}", self.systemd.state.display());
        }
    }

    /// Sleeps until new tables arrive or a user slice changes.
    fn wait(&self) {
        let mut fds = vec![PollFd::new(self.wakeup.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.watch.iter().map(|watch| PollFd::new(watch.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => {
                ::log::error!("poll: {}", errno.desc());
                thread::sleep(Duration::from_secs(1));
            }
        }
    }
}
