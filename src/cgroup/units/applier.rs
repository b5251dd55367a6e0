//! Brings units to what the tables say, on a thread that may wait for systemd and the name service.
//!
//! Nothing is queued: after each event the plan is made anew from the slices that exist and from what was applied, so
//! that a burst of logins costs no memory. One command runs at a time.

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
use super::plan::{Applied, AppliedUnit, DropIn, Plan, Situation, UnitTables};
use super::state_file;
use super::systemctl::Systemd;
use super::watch::SliceWatch;
use crate::cgroup::provision::{UnitGift, user_of_slice};
use crate::event::Uid;
use crate::metrics::Metrics;

/// The state of the thread.
pub(super) struct Applier {
    pub(super) systemd: Systemd,
    pub(super) metrics: Arc<Metrics>,
    pub(super) orders: Receiver<UnitTables>,
    pub(super) wakeup: Arc<EventFd>,
    pub(super) name_of: UserName,
    tables: UnitTables,
    /// Without tables for users nothing is watched.
    watch: Option<SliceWatch>,
    present: BTreeSet<Uid>,
    applied: Applied,
    due: BTreeSet<String>,
    refused: BTreeSet<String>,
    /// Units whose files could not be removed, until the next reload.
    stuck: BTreeSet<String>,
    /// Names of users whose slices exist, until the next reload.
    names: BTreeMap<Uid, Option<String>>,
    /// Whether systemd has yet to learn that files are gone.
    needs_reload: bool,
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
            needs_reload: false,
        }
    }

    /// Works until nobody is left who could give orders.
    pub(super) fn serve(mut self) {
        let mut is_told = false;
        loop {
            // Read first: what is ordered later wakes us again. EAGAIN means that nobody did.
            let _woken = self.wakeup.read();
            match self.orders.try_recv() {
                Ok(tables) => {
                    // What was ordered meanwhile is newer.
                    let tables = self.orders.try_iter().last().unwrap_or(tables);
                    self.adopt(tables);
                    is_told = true;
                }
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {}
            }
            // Without tables everything would be taken back.
            if is_told {
                self.look();
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
                "{place}: no cgroup hierarchy of systemd is mounted: slices of users get no settings"
            );
            return None;
        };
        let opened = SliceWatch::open(tree);
        opened
            .inspect_err(|errno| {
                ::log::error!(
                    "{place}: cannot watch {}: {}: slices of users get no settings until the next reload",
                    tree.display(),
                    errno.desc()
                );
            })
            .ok()
    }

    /// Looks which slices of users exist.
    fn look(&mut self) {
        let Some(watch) = &mut self.watch else { return };
        match watch.present() {
            Ok(present) => self.present = present,
            Err(errno) => ::log::warn!("cannot watch the slices of users: {}", errno.desc()),
        }
        // A slice that comes again is tried again.
        let present = &self.present;
        self.refused.retain(|name| user_of_slice(name).is_none_or(|uid| present.contains(&uid)));
        let applied: BTreeSet<Uid> =
            self.applied.keys().filter_map(|name| user_of_slice(name)).collect();
        self.names.retain(|uid, _| present.contains(uid) || applied.contains(uid));
    }

    fn plan(&mut self) -> Plan {
        let is_changed = |(name, applied): (&String, &AppliedUnit)| {
            let files = self.systemd.drop_ins.of(name);
            let is_intact = |own: &DropIn| files.get(&own.file) == Some(own);
            (!applied.drop_ins.iter().all(is_intact)).then(|| name.clone())
        };
        let damaged: BTreeSet<String> = self.applied.iter().filter_map(is_changed).collect();
        let now = Situation {
            present: &self.present,
            applied: &self.applied,
            damaged: &damaged,
            due: &self.due,
            refused: &self.refused,
            stuck: &self.stuck,
        };
        let (names, name_of) = (&mut self.names, &self.name_of);
        Plan::new(&self.tables, &now, |uid| {
            if let Some(name) = names.get(&uid) {
                return Ok(name.clone());
            }
            let name = name_of(uid).inspect_err(|error| {
                ::log::warn!(
                    "the name service failed: {error}; the slice of UID {uid} stays as it is",
                    uid = uid.0
                );
            })?;
            names.insert(uid, name.clone());
            Ok::<_, std::io::Error>(name)
        })
    }

    fn work(&mut self) {
        let Plan { release, set } = self.plan();
        for name in release {
            self.release(&name);
        }
        self.reload();
        for unit in set {
            self.set(&unit);
            if !self.orders.is_empty() {
                // The rest is planned anew.
                break;
            }
        }
        self.reload();
    }

    fn set(&mut self, unit: &UnitGift) {
        self.due.remove(&unit.name);
        let before = self.systemd.drop_ins.of(&unit.name);
        let outcome = self.systemd.set(unit);
        let after = self.systemd.drop_ins.of(&unit.name);
        let properties = unit.properties();
        let known = self.applied.remove(&unit.name).unwrap_or_default();
        // Also of a command that failed: it may have gone half its way.
        let is_ours = |own: &&DropIn| {
            known.drop_ins.contains(own)
                || before.get(&own.file) != Some(*own) && is_of(&own.file, &properties)
        };
        let (drop_ins, dropped): (Vec<DropIn>, Vec<DropIn>) = after
            .values()
            .filter(is_ours)
            .cloned()
            .partition(|own| outcome.is_err() || is_of(&own.file, &properties));
        let properties = match &outcome {
            Ok(()) => properties.into_iter().map(str::to_owned).collect(),
            Err(_) => Vec::new(),
        };
        if outcome.is_ok() || !drop_ins.is_empty() {
            self.applied.insert(unit.name.clone(), AppliedUnit { properties, drop_ins });
        }
        self.remove_files(&unit.name, &dropped);
        match outcome {
            Ok(()) => {
                self.metrics.set_units.increment();
                ::log::debug!("gave {} {}", unit.name, unit.properties().join(" "));
            }
            Err(why) => {
                self.metrics.refused_units.increment();
                self.refused.insert(unit.name.clone());
                let (file, line) = (unit.origin.file.display(), unit.origin.line);
                ::log::warn!("{file}:{line}: {} keeps its settings: {why}", unit.name);
            }
        }
        self.save();
    }

    /// Takes back all that a unit has from us.
    fn release(&mut self, name: &str) {
        let Some(applied) = self.applied.get(name).cloned() else { return };
        if self.remove_files(name, &applied.drop_ins) {
            self.applied.remove(name);
            self.metrics.released_units.increment();
            ::log::debug!("took back {} from {name}", applied.properties.join(" "));
        } else {
            self.stuck.insert(name.to_owned());
        }
        self.save();
    }

    /// Whether the files are gone.
    fn remove_files(&mut self, name: &str, drop_ins: &[DropIn]) -> bool {
        match self.systemd.drop_ins.remove(name, drop_ins) {
            Ok(removed) => {
                self.needs_reload |= removed > 0;
                true
            }
            Err(error) => {
                self.needs_reload = true;
                self.metrics.refused_units.increment();
                ::log::warn!("{name} keeps settings that no table has: {error}");
                false
            }
        }
    }

    fn reload(&mut self) {
        if !self.needs_reload {
            return;
        }
        match self.systemd.reload() {
            Ok(()) => self.needs_reload = false,
            Err(why) => {
                self.metrics.refused_units.increment();
                ::log::warn!(
                    "units keep settings that no table has until systemctl daemon-reload: {why}"
                );
            }
        }
    }

    fn save(&self) {
        if let Err(error) = state_file::write(&self.systemd.state, &self.applied) {
            ::log::warn!("{}: {error}", self.systemd.state.display());
        }
    }

    /// Sleeps until there is something to do.
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
