//! Collects the status of the daemon. It must not wait for the hot thread.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;

use super::history::reader::HistoryReader;
use super::protocol::{ActiveSources, ExplainContext, LastGoodFiles, ReloadReply};
use super::status::{
    ActiveRule, ActiveRules, ActiveRulesStatus, ExternalMover, HierarchyStatus, KeptFile,
    MoveLatency, RefusedMoves, RefusedReload, Status,
};
use crate::cgroup::mounts::{Hierarchies, Hierarchy, Version};
use crate::config::daemon_toml::ExternalMoves;
use crate::config::diagnostic::Diagnostic;
use crate::config::escape::Escaped;
use crate::event::{Nanos, Uid};
use crate::policy::load::{FileContents, Sources};
use crate::policy::rebuild::active::{ActivePolicy, PolicyCell};
use crate::policy::rebuild::retained::{Fallback, Retained, RetainedFiles};
use crate::policy::rule_hits::RuleHits;
use crate::rules::{Rule, RuleId};
use crate::sys;
use crate::telemetry::metrics::{Histogram, Metrics, Refusals};

/// The sources of the status.
#[derive(Clone, Debug)]
pub struct StatusSource {
    pub(super) metrics: Arc<Metrics>,
    cell: PolicyCell,
    hierarchies: Arc<Hierarchies>,
    is_dry_run: bool,
    /// The reaction to external moves, and whether they are traced.
    external_moves: (ExternalMoves, bool),
    started: StartTime,
    pub(super) history: Option<HistoryReader>,
}

/// Time of the start on both clocks: durations do not depend on changes of the wall clock.
#[derive(Clone, Copy, Debug)]
struct StartTime {
    unix_seconds: u64,
    since_boot: Nanos,
}

impl StartTime {
    /// Returns the seconds from the start to a time since boot.
    fn uptime(self, now: Nanos) -> u64 {
        now.0.saturating_sub(self.since_boot.0) / NANOS
    }

    /// Returns a time since boot as seconds since 1970, by the wall clock at the start.
    fn unix_seconds(self, at: Nanos) -> u64 {
        let before = self.since_boot.0.saturating_sub(at.0).div_ceil(NANOS);
        (self.unix_seconds + self.uptime(at)).saturating_sub(before)
    }
}

/// Nanoseconds of a second.
const NANOS: u64 = 1_000_000_000;

impl StatusSource {
    /// Creates the overview of a daemon that starts now.
    pub fn new(
        metrics: Arc<Metrics>,
        cell: PolicyCell,
        hierarchies: Arc<Hierarchies>,
        is_dry_run: bool,
        external_moves: (ExternalMoves, bool),
    ) -> Self {
        let unix_seconds = seconds(SystemTime::now());
        let started = StartTime { unix_seconds, since_boot: sys::since_boot() };
        Self { metrics, cell, hierarchies, is_dry_run, external_moves, started, history: None }
    }

    /// Returns the counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Adds the history of evaluations.
    #[must_use]
    pub fn with_history(self, history: Option<HistoryReader>) -> Self {
        Self { history, ..self }
    }

    /// Returns the status without the data that only the hot thread has.
    pub fn status(&self) -> Status {
        let in_force = self.cell.read();
        let refused_reload =
            in_force.as_deref().and_then(|rules| refused_reload(rules, self.started));
        let changed = in_force.as_deref().and_then(|rules| rules.external_moves);
        let external_moves = changed.unwrap_or(self.external_moves.0);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.started.unix_seconds,
            uptime: self.started.uptime(sys::since_boot()),
            dry_run: self.is_dry_run,
            stalled: false,
            rules: in_force
                .as_deref()
                .map(|rules| rules_in_force(rules, self.started))
                .unwrap_or_default(),
            refused_reload,
            root: in_force.as_ref().map_or_else(String::new, |rules| root(&rules.root)),
            legacy_root: in_force.and_then(|rules| Some(root(rules.legacy_root.as_deref()?))),
            hierarchies: self.hierarchies.iter().map(hierarchy).collect(),
            external_moves: external_moves.word().to_owned(),
            external_moves_by: match (external_moves, self.external_moves.1) {
                (ExternalMoves::Off, _) => "none",
                (ExternalMoves::Revert | ExternalMoves::Report, true) => "trace",
                (ExternalMoves::Revert | ExternalMoves::Report, false) => "scan",
            }
            .to_owned(),
            counters: counters(&self.metrics),
            refusals: refusals(&self.metrics.refusals),
            external_movers: Vec::new(),
            history: self.history.as_ref().map(HistoryReader::status).unwrap_or_default(),
            latency: latency(&self.metrics.latency),
        }
    }

    /// Returns the status with the external movers reported by the hot thread.
    pub fn status_with(&self, takers: Vec<(String, u64)>) -> Status {
        let external_movers = takers
            .into_iter()
            .map(|(name, count)| ExternalMover { name: Escaped(&name).to_string(), count })
            .collect();
        Status { external_movers, ..self.status() }
    }

    /// Returns the status for a hot thread that does not respond.
    pub fn status_stalled(&self) -> Status {
        Status { stalled: true, ..self.status() }
    }

    /// Returns the user whose share the connections of `uid` use: the owner of a subordinate UID.
    pub fn account_of(&self, uid: Uid) -> Uid {
        let active = self.cell.read();
        active.and_then(|active| active.subordinates.account_of(uid)).unwrap_or(uid)
    }

    /// Returns the mounted hierarchies.
    pub fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }

    /// Returns the active rules.
    pub fn rules(&self) -> ActiveRules {
        let active = self.cell.read();
        active.as_deref().map(|active| active_rules(active, self.started)).unwrap_or_default()
    }

    /// Returns the active text of files with new errors.
    pub fn kept(&self) -> LastGoodFiles {
        self.cell.read().as_deref().map(last_good_files).unwrap_or_default()
    }

    /// Returns what the daemon knows about its rules at this moment.
    pub fn explain_context(&self, stalled: bool) -> ExplainContext {
        let active = self.cell.read();
        let active = active.as_deref();
        ExplainContext {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            dry_run: self.is_dry_run,
            stalled,
            root: active.map_or_else(String::new, |rules| root(&rules.root)),
            files: active.map(active_files).unwrap_or_default(),
            sources: active.map(active_sources),
            rules: active.map(|active| active_rules(active, self.started)).unwrap_or_default(),
        }
    }

    /// Returns the generation of the active rules.
    pub fn generation(&self) -> u64 {
        self.cell.read().map_or(0, |rules| rules.generation)
    }

    /// Returns the result of the last reload.
    pub fn reloaded(&self, is_settled: bool) -> ReloadReply {
        let Some(in_force) = self.cell.read() else { return ReloadReply::default() };
        let kept = &in_force.keeping.files;
        let mut diagnostics: Vec<&Diagnostic> = kept.iter().flat_map(|kept| &kept.errors).collect();
        // Diagnostics of kept files are about their last valid version.
        let others = in_force.diagnostics.iter();
        let others = others.filter(|own| !kept.iter().any(|kept| kept.file == own.file));
        // Invalid settings are new at each reload: there is no valid version of the file.
        let settings = &in_force.settings_diagnostics;
        let wrong = settings.iter().filter(|one| one.is_error()).count();
        diagnostics.extend(settings.iter().chain(others));
        let rules = rules_in_force(&in_force, self.started);
        ReloadReply {
            in_force: kept.is_empty(),
            new_errors: count(in_force.new_errors + new_errors(kept) + wrong),
            kept: kept.iter().map(kept_file).collect(),
            rules: rules.count,
            files: count(rules.files.len()),
            errors: count(diagnostics.iter().filter(|one| one.is_error()).count()),
            diagnostics: diagnostics.into_iter().map(Diagnostic::to_string).collect(),
            settled: is_settled,
        }
    }
}

/// Returns the refused reload, if files are kept at their last valid version.
fn refused_reload(rules: &ActivePolicy, started: StartTime) -> Option<RefusedReload> {
    let kept = &rules.keeping.files;
    let errors = kept.iter().flat_map(|kept| &kept.errors);
    (!kept.is_empty()).then(|| RefusedReload {
        at: started.unix_seconds(rules.since),
        errors: errors.map(Diagnostic::to_string).collect(),
        kept: kept.iter().map(kept_file).collect(),
    })
}

fn new_errors(kept: &[Retained]) -> usize {
    kept.iter().map(|kept| kept.errors.len()).sum()
}

fn active_rules(active: &ActivePolicy, started: StartTime) -> ActiveRules {
    let rules = (0..).map(RuleId).zip(active.matcher.rules());
    let rules = rules.map(|(id, rule)| active_rule(rule, active.hits.get(id), started));
    ActiveRules { rules: rules.collect() }
}

fn last_good_files(active: &ActivePolicy) -> LastGoodFiles {
    let RetainedFiles { files, overlay } = &active.keeping;
    LastGoodFiles {
        kept: files.iter().map(kept_file).collect(),
        texts: texts(&overlay.files),
        directories: overlay.directories.iter().map(|path| unescaped(path)).collect(),
        aside: overlay.aside.iter().map(|path| unescaped(path)).collect(),
    }
}

/// Returns the active version of all files: the loader finds no other files in their directories.
fn active_files(active: &ActivePolicy) -> LastGoodFiles {
    let directories = active.sources.all_directories();
    LastGoodFiles {
        kept: active.keeping.files.iter().map(kept_file).collect(),
        texts: texts(&active.contents),
        directories: directories.iter().map(|path| unescaped(path)).collect(),
        aside: Vec::new(),
    }
}

fn active_sources(active: &ActivePolicy) -> ActiveSources {
    let Sources { directories, legacy, .. } = &active.sources;
    ActiveSources {
        directories: directories.iter().map(|path| unescaped(path)).collect(),
        legacy: *legacy,
    }
}

fn texts(contents: &FileContents) -> BTreeMap<String, String> {
    let files = contents.iter();
    files
        .map(|(path, bytes)| (unescaped(path), String::from_utf8_lossy(bytes).into_owned()))
        .collect()
}

fn unescaped(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn kept_file(kept: &Retained) -> KeptFile {
    let (since, instead) = match &kept.stays {
        Fallback::AsOf(since) => (Some(seconds(*since)), None),
        Fallback::Directory => (None, None),
        Fallback::Aside(other) => (None, Some(shown(other))),
    };
    let first_error = kept.errors.first().map(Diagnostic::current).unwrap_or_default();
    KeptFile { file: shown(&kept.file), since, instead, first_error }
}

fn rules_in_force(rules: &ActivePolicy, started: StartTime) -> ActiveRulesStatus {
    let errors = rules.diagnostics.iter().filter(|one| one.is_error()).count();
    ActiveRulesStatus {
        count: count(rules.matcher.rules().len()),
        observing: count(
            rules.matcher.rules().iter().filter(|rule| rule.action.observes()).count(),
        ),
        since: started.unix_seconds(rules.since),
        generation: rules.generation,
        files: rules.files.iter().map(|file| shown(file)).collect(),
        errors: count(errors),
        warnings: count(rules.diagnostics.len() - errors),
    }
}

fn root(root: &str) -> String {
    if root.is_empty() { "/".to_owned() } else { Escaped(root).to_string() }
}

fn hierarchy(tree: &Hierarchy) -> HierarchyStatus {
    HierarchyStatus {
        version: match tree.version {
            Version::V1 => 1,
            Version::V2 => 2,
        },
        mount_point: shown(&tree.mount_point),
        controllers: tree.controllers.clone(),
    }
}

fn counters(metrics: &Metrics) -> BTreeMap<String, u64> {
    metrics.counters().into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn refusals(counted: &Refusals) -> Vec<RefusedMoves> {
    let mut refusals: Vec<RefusedMoves> = counted
        .counted()
        .map(|(errno, count)| {
            let errno = Errno::from_raw(errno);
            RefusedMoves { errno: format!("{errno:?}"), meaning: errno.desc().to_owned(), count }
        })
        .collect();
    refusals.sort_by_key(|refusal| std::cmp::Reverse(refusal.count));
    refusals
}

fn latency(histogram: &Histogram) -> MoveLatency {
    let [p50_us, p90_us, p99_us] =
        [500, 900, 990].map(|per_mille| histogram.quantile(per_mille).div_ceil(1000));
    MoveLatency {
        count: histogram.count(),
        p50_us,
        p90_us,
        p99_us,
        max_us: histogram.greatest().div_ceil(1000),
        sum_us: histogram.sum() / 1000,
        octaves: histogram.octaves(),
    }
}

fn active_rule(rule: &Rule, hits: Option<&RuleHits>, started: StartTime) -> ActiveRule {
    let targets = rule.action.targets().iter();
    let cgroups = targets.map(|target| Escaped(target.destination.as_str()).to_string()).collect();
    ActiveRule {
        name: Escaped(&rule.name).to_string(),
        file: shown(&rule.origin.file),
        line: rule.origin.line,
        cgroups,
        observe: rule.action.observes(),
        matched: hits.map_or(0, |hits| hits.matched.get()),
        placed: hits.map_or(0, |hits| hits.placed.get()),
        since: hits.map_or(0, |hits| started.unix_seconds(hits.since)),
    }
}

fn shown(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    crate::config::escape::EscapedBytes(path.as_os_str().as_bytes()).to_string()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_do_not_depend_on_the_wall_clock() {
        fn at(seconds: u64) -> Nanos {
            Nanos(seconds * NANOS)
        }
        let started = StartTime { unix_seconds: 1_000_000, since_boot: at(100) };
        assert_eq!(started.uptime(at(160)), 60);
        assert_eq!(started.unix_seconds(at(130)), 1_000_030);
        // Rules are read before the status exists.
        assert_eq!(started.unix_seconds(at(98)), 999_998);
    }
}
