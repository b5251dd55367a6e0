//! Log lines of cgrulesengd about events and processes, at its verbosity levels. Must not affect
//! decisions, and must not block the hot thread.

use std::cell::Cell;
use std::fmt;

use ::log::Level;

use crate::event::{Cause, Nanos};
use crate::policy::observer::{
    DecisionEvent, DecisionObserver, DecisionResult, ObservedProcess, PlacementError,
};
use crate::rules::RuleId;
use crate::telemetry::log::FILES_ONLY;

/// Changes after which cgrulesengd evaluates a process.
const CHANGES: [Cause; 4] = [Cause::EXEC, Cause::UID, Cause::GID, Cause::FORK];

/// Minimum interval between two records of lost events: the log is full when the socket buffer is.
const LOSS_NS: u64 = 10_000_000_000;

/// Observer that logs evaluations as cgrulesengd does.
#[derive(Debug)]
pub(super) struct LegacyLog {
    /// Name of each rule in cgrulesengd's log, in the order of the rules.
    pub(super) heads: Box<[Box<str>]>,
    /// Table of rules, if it is to be printed.
    pub(super) table: Option<String>,
    /// Diagnostic for a missing file without which cgrulesengd would not start.
    pub(super) missing: Option<(Level, String)>,
    /// Time of the last record of lost events.
    pub(super) said_loss: Cell<Option<Nanos>>,
}

impl DecisionObserver for LegacyLog {
    fn begin(&mut self) {
        if let Some((level, line)) = self.missing.take() {
            ::log::log!(level, "{line}");
        }
        if let Some(table) = self.table.take() {
            ::log::info!(target: FILES_ONLY, "{table}");
        }
    }

    fn shows_program(&self) -> bool {
        ::log::log_enabled!(Level::Info)
    }

    fn tell(&self, event: &DecisionEvent<'_>, process: &mut dyn ObservedProcess) {
        let is_change = CHANGES.into_iter().any(|change| event.evaluation.cause.intersects(change));
        // cgrulesengd has no rechecks, and its initial scan logs nothing but the rules.
        if event.evaluation.cause.intersects(Cause::RECHECK) && !is_change {
            return;
        }
        if ::log::log_enabled!(Level::Debug) {
            events(event, process);
            self.decision(event);
        }
        let level = match event.ending {
            DecisionResult::Failed(..) => Level::Warn,
            DecisionResult::Sticky
            | DecisionResult::NoRule
            | DecisionResult::Ignored(_)
            | DecisionResult::Done(_) => Level::Info,
        };
        if is_change && event.ending != DecisionResult::Sticky && ::log::log_enabled!(level) {
            let (pid, (uid, gid)) = (event.evaluation.pid, event.ids);
            let name = LegacyName(name(event, process));
            let result = LegacyOutcome(event.ending);
            ::log::log!(
                level,
                "Cgroup change for PID: {pid}, UID: {uid}, GID: {gid}, PROCNAME: {name} {result}"
            );
        }
    }

    fn lost(&self, now: Nanos) {
        let last = self.said_loss.get();
        if last.is_none_or(|last| now.since(last) >= LOSS_NS) {
            self.said_loss.set(Some(now));
            ::log::error!("ERROR: NETLINK BUFFER FULL, MESSAGE DROPPED!");
        }
    }
}

impl LegacyLog {
    /// Creates the observer of an errors-only log, which reports lost events and nothing else.
    pub(super) fn of_errors(missing: Option<(Level, String)>) -> Self {
        Self { heads: Box::default(), table: None, missing, said_loss: Cell::default() }
    }

    fn decision(&self, event: &DecisionEvent<'_>) {
        let (pid, (uid, gid)) = (event.evaluation.pid, event.ids);
        let found = |id: RuleId| {
            let head = self.head(id);
            ::log::debug!("Found matching rule {head} for PID: {pid}, UID: {uid}, GID: {gid}");
            head
        };
        match event.ending {
            DecisionResult::Sticky => {}
            DecisionResult::NoRule => {
                ::log::debug!("No rule found to match PID: {pid}, UID: {uid}, GID: {gid}");
            }
            DecisionResult::Ignored(id) => {
                found(id);
                ::log::debug!("Matching rule is an ignore rule");
            }
            DecisionResult::Done(id) | DecisionResult::Failed(id, _) => {
                let head = found(id);
                let result = LegacyOutcome(event.ending);
                let end = if matches!(event.ending, DecisionResult::Done(_)) { "!" } else { "" };
                ::log::debug!("Executing rule {head} for PID {pid}... {result}{end}");
            }
        }
    }

    fn head(&self, id: RuleId) -> &str {
        self.heads.get(id.0 as usize).map_or("", |head| head)
    }
}

/// Logs one line for each kind of change since the last evaluation.
fn events(event: &DecisionEvent<'_>, process: &mut dyn ObservedProcess) {
    let (pid, (euid, egid), cause) = (event.evaluation.pid, event.ids, event.evaluation.cause);
    // The real IDs are read only for these changes, and cannot be read when the process has exited.
    let (ruid, rgid) = match cause.intersects(Cause::UID | Cause::GID) {
        true => process.real_ids().unwrap_or(event.ids),
        false => event.ids,
    };
    if cause.contains(Cause::GID) {
        ::log::debug!("GID Event: PID = {pid}, tGID = {pid}, rGID = {rgid}, eGID = {egid}");
    }
    if cause.contains(Cause::UID) {
        ::log::debug!("UID Event: PID = {pid}, tGID = {pid}, rUID = {ruid}, eUID = {euid}");
    }
    if cause.contains(Cause::EXEC) {
        ::log::debug!("EXEC Event: PID = {pid}, tGID = {pid}");
    }
}

/// Returns the program, or the command name (comm) of a process with an unknown program.
fn name<'n>(event: &DecisionEvent<'n>, process: &'n mut dyn ObservedProcess) -> &'n [u8] {
    match event.program {
        Some(program) => program,
        None => process.comm().unwrap_or_default(),
    }
}

/// Process name chosen by a user, escaped so that it cannot end the line or control a terminal.
struct LegacyName<'n>(&'n [u8]);

impl fmt::Display for LegacyName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

struct LegacyOutcome(DecisionResult);

impl fmt::Display for LegacyOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            DecisionResult::Sticky
            | DecisionResult::NoRule
            | DecisionResult::Ignored(_)
            | DecisionResult::Done(_) => f.write_str("OK"),
            DecisionResult::Failed(_, obstacle) => {
                write!(f, "FAILED! (Error Code: {})", error_code(obstacle))
            }
        }
    }
}

/// Returns the error code of libcgroup that corresponds to the obstacle.
const fn error_code(obstacle: PlacementError) -> u16 {
    match obstacle {
        PlacementError::NoGroup => 50002,
        PlacementError::NoController => 50004,
        PlacementError::Nowhere => 50007,
        PlacementError::Kernel => 50016,
    }
}
