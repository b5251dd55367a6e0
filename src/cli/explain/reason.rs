//! Reasons for which a process is not in its rule's cgroup: from the daemon's history of the process, and
//! from the state of the cgroup tree. Must give at least one reason, also without a daemon.

use std::path::PathBuf;
use std::time::Duration;

use super::subject::{InspectedProcess, LiveProcess};
use super::verdict::{HierarchyState, Verdict};
use crate::cgroup::release::destination_of;
use crate::cli::command::DaemonFlags;
use crate::cli::daemon_client::{self, DaemonAddress};
use crate::cli::{retained, unread};
use crate::config::escape::{Escaped, EscapedBytes};
use crate::control::client::{self, ClientError};
use crate::control::protocol::{ExplainContext, HistoryEntry, ProcessReport};
use crate::control::status::ActiveRules;
use crate::daemon::{self, DaemonOptions};
use crate::kernel::process::path_in;
use crate::placement::stay::StayReason;
use crate::policy::load::Overlay;
use crate::policy::rebuild::LoadedConfig;
use crate::rules::Rule;

/// Age below which a move may still be pending. The daemon takes microseconds when it is idle, the kernel
/// milliseconds for the move.
const FRESH: Duration = Duration::from_millis(200);

/// Note about a daemon with other active rules than those of the files; it does not report their criteria.
const OTHER_RULES: &str = "the daemon's active rules differ from the files: run 'cgrulectl reload', or \
                           omit the options that name other files";

/// Note about files that were changed since the daemon read them.
const CHANGED_FILES: &str = "files were changed since the daemon read them; its active rules were evaluated: \
                             run 'cgrulectl reload' to apply the files";

/// Answer of the daemon about a process.
#[derive(Clone, Debug)]
pub enum DaemonMemory {
    /// History of the process, and conditions that keep many processes from their cgroups, as text.
    Told(ProcessReport, Vec<String>),
    /// No daemon answers at this socket.
    NoDaemon(PathBuf),
    /// Control socket disabled by this settings file.
    Off(PathBuf),
    /// Failed query of a daemon that exists, with the error.
    Silent(String),
}

/// Answer of the daemon to one request about all processes.
#[derive(Debug)]
pub(super) enum DaemonAnswer {
    /// What it knows about its rules and each process.
    Told(Box<ExplainContext>, Vec<ProcessReport>),
    /// No answer, for each process.
    Without(DaemonMemory),
}

impl DaemonAnswer {
    /// Queries the daemon at this address.
    pub(super) fn ask(address: &DaemonAddress, pids: &[u32]) -> Self {
        let socket = match address {
            DaemonAddress::At(socket) => socket,
            DaemonAddress::Off(file) => return Self::Without(DaemonMemory::Off(file.clone())),
        };
        match client::explain(socket, pids) {
            // An older daemon does not know the request.
            Err(ClientError::Refused(why)) => {
                if let Some(status) = daemon_client::status_at(socket) {
                    daemon_client::note_version(&status.version);
                }
                Self::Without(DaemonMemory::Silent(ClientError::Refused(why).to_string()))
            }
            Err(error) => Self::Without(DaemonMemory::Silent(error.to_string())),
            Ok(None) => Self::Without(DaemonMemory::NoDaemon(socket.to_owned())),
            Ok(Some((context, reports))) => {
                daemon_client::note_version(&context.version);
                Self::Told(Box::new(context), reports)
            }
        }
    }

    /// Returns the configuration that is active: the daemon's files in their active version, or those of the
    /// disk if no daemon reported or the flags name other files.
    pub(super) fn options(&self, flags: &DaemonFlags) -> DaemonOptions {
        self.active(flags).unwrap_or_else(|| flags.options())
    }

    fn active(&self, flags: &DaemonFlags) -> Option<DaemonOptions> {
        let Self::Told(context, _) = self else { return None };
        daemon_client::active(flags, &context.files, context.sources.as_ref()?)
    }

    /// Reports on standard error that files on disk are not those that were evaluated: each that the daemon
    /// keeps at its last valid version, or that any was changed since it was read.
    pub(super) fn note_files(&self, flags: &DaemonFlags, survey: &LoadedConfig) {
        let (Self::Told(context, _), Some(active)) = (self, self.active(flags)) else { return };
        daemon_client::note_kept(&context.files.kept);
        let disk = daemon::survey(&DaemonOptions { overlay: Overlay::default(), ..active }, None);
        let is_known =
            context.files.kept.is_empty() && unread::files(&disk.loaded.diagnostics).is_empty();
        if is_known && !retained::are_same(&disk.loaded.contents, &survey.loaded.contents) {
            eprintln!("cgrulectl: {CHANGED_FILES}");
        }
    }

    /// Returns the answer about each process. Sets the survey's root to the daemon's, since its command
    /// line may override the settings.
    pub(super) fn memories(self, pids: &[u32], survey: &mut LoadedConfig) -> Vec<DaemonMemory> {
        let (context, reports) = match self {
            Self::Without(memory) => return vec![memory; pids.len()],
            Self::Told(context, reports) => (context, reports),
        };
        // The daemon reports `/` for the hierarchy root.
        context.root.trim_end_matches('/').clone_into(&mut survey.roots.rules);
        if context.stalled {
            let why = "the thread that moves processes does not respond; see its log";
            return vec![DaemonMemory::Silent(why.to_owned()); pids.len()];
        }
        let general = general(&context, survey);
        let memories = pids.iter().map(|&pid| {
            let about = reports.iter().find(|about| about.pid == pid).cloned();
            let about = about.unwrap_or(ProcessReport { pid, ..ProcessReport::default() });
            let mut general = general.clone();
            if pid == context.pid {
                general.insert(0, "it is the daemon, which never moves itself".to_owned());
            }
            DaemonMemory::Told(about, general)
        });
        memories.collect()
    }
}

impl DaemonMemory {
    /// Returns the time since the daemon moved the process last, if it has a record; `None` if no daemon
    /// reported.
    pub fn moved(&self) -> Option<Option<Duration>> {
        match self {
            Self::Told(about, _) => Some(about.moved_ago_ms.map(Duration::from_millis)),
            Self::NoDaemon(_) | Self::Off(_) | Self::Silent(_) => None,
        }
    }

    /// The last external move of the process that the daemon remembers, in words: its mover, when
    /// it was, and whether it was reverted.
    pub fn external_move(&self) -> Option<String> {
        let mut latest_first = self.history().iter().rev();
        let last = latest_first
            .find(|one| matches!(one.outcome.as_str(), "externally-moved" | "abandoned"))?;
        let ago = span(Duration::from_millis(last.ago_ms));
        Some(format!("{ago} ago: {}", last.detail))
    }

    /// Returns the conditions that keep many processes from their cgroups.
    pub fn general(&self) -> &[String] {
        match self {
            Self::Told(_, general) => general,
            Self::NoDaemon(_) | Self::Off(_) | Self::Silent(_) => &[],
        }
    }

    /// Returns the message for a daemon that may be running and could not be queried.
    pub fn no_failure(&self) -> Option<String> {
        match self {
            Self::Told(..) | Self::NoDaemon(_) => None,
            Self::Off(file) => Some(daemon_client::turned_off(file)),
            Self::Silent(why) => Some(format!("cannot query the daemon: {why}")),
        }
    }

    /// Checks whether the daemon's active rules differ from those of the survey.
    pub fn has_other_rules(&self) -> bool {
        self.general().iter().any(|note| note == OTHER_RULES)
    }

    fn history(&self) -> &[HistoryEntry] {
        match self {
            Self::Told(about, _) => &about.history,
            Self::NoDaemon(_) | Self::Off(_) | Self::Silent(_) => &[],
        }
    }
}

/// Returns the conditions that keep many processes from their cgroups.
fn general(context: &ExplainContext, survey: &LoadedConfig) -> Vec<String> {
    let dry_run = "the daemon runs with --dry-run and moves no process";
    let is_other = !are_same(&context.rules, &survey.loaded.rules);
    let said = [(context.dry_run, dry_run), (is_other, OTHER_RULES)];
    said.into_iter().filter(|(is_so, _)| *is_so).map(|(_, text)| text.to_owned()).collect()
}

/// Checks whether the active rules are those of the files, by their names and lines.
fn are_same(in_force: &ActiveRules, files: &[Rule]) -> bool {
    let mut pairs = in_force.rules.iter().zip(files);
    in_force.rules.len() == files.len()
        && pairs.all(|(own, rule)| {
            own.line == rule.origin.line && own.name == Escaped(&rule.name).to_string()
        })
}

/// Returns the reasons for which a process is misplaced, the most important first; at least one.
pub fn why(subject: &InspectedProcess, verdict: &Verdict, memory: &DaemonMemory) -> Vec<String> {
    let mut reasons: Vec<String> = moved_since(memory).into_iter().collect();
    reasons.extend(memory.history().iter().rev().map(told));
    match memory {
        DaemonMemory::NoDaemon(socket) => reasons.push(format!(
            "the daemon is not running: start cgruled; it does not answer at {}",
            EscapedBytes(socket.as_os_str().as_encoded_bytes())
        )),
        DaemonMemory::Off(_) | DaemonMemory::Silent(_) => reasons.extend(memory.no_failure()),
        DaemonMemory::Told(_, general) => reasons.extend_from_slice(general),
    }
    if !memory.history().is_empty() || moved_since(memory).is_some() {
        return reasons;
    }
    reasons.extend(verdict.stays.as_ref().and_then(stays));
    reasons.extend(
        verdict.seats.iter().filter(|seat| !seat.is_right).filter_map(HierarchyState::obstacle),
    );
    if reasons.is_empty() {
        reasons.extend(guesses(subject));
    }
    reasons
}

/// Returns the text for a process that stays in other cgroups than those of its rule.
fn stays(reason: &StayReason) -> Option<String> {
    Some(match reason {
        StayReason::InUnit(unit) => format!(
            "it is in {}, a systemd unit that keeps its processes; set leave_units = true, or leave_units to its name, in the rule to \
             move it",
            EscapedBytes(unit.name.as_bytes())
        ),
        StayReason::InContainer(path) => format!(
            "it is in {}, a container created by root, and moving it would take it out of the limits and the device filter of \
             the container; a rule with containers = true does that",
            EscapedBytes(path.as_bytes())
        ),
        StayReason::OthersJob(path) => format!(
            "it is in {}, a job below the service manager of a user whose processes no rule moves",
            EscapedBytes(path.as_bytes())
        ),
        StayReason::ManagerUnknown
        | StayReason::Delegated
        | StayReason::Protected
        | StayReason::Exited
        | StayReason::InSlice(_) => return None,
    })
}

/// Returns the reason for a process that the daemon moved, and about which it has recorded nothing since.
fn moved_since(memory: &DaemonMemory) -> Option<String> {
    let moved = memory.moved()??;
    let last = memory.history().last().map(|last| Duration::from_millis(last.ago_ms));
    // The last entry may have been recorded on the way to that move.
    last.is_none_or(|last| moved <= last).then(|| {
        format!(
            "{} ago: the daemon moved it last; since then another process moved it, or another rule matches \
             it: run 'cgrulectl place' with its PID",
            span(moved)
        )
    })
}

/// Formats an entry of the daemon's history.
fn told(entry: &HistoryEntry) -> String {
    let HistoryEntry { ago_ms, outcome, detail, .. } = entry;
    if outcome == "sticky" {
        return detail.clone();
    }
    let ago = match outcome.as_str() {
        "waiting" => format!("for {}", span(Duration::from_millis(*ago_ms))),
        _ => format!("{} ago", span(Duration::from_millis(*ago_ms))),
    };
    let what = match outcome.as_str() {
        "refused" => "the kernel refused",
        "externally-moved" => "external move",
        "abandoned" => "external move",
        "in-unit" => "it was left in its unit",
        "in-container" => "it was left in its container",
        "others-job" => "it was left in its job",
        "waited" => "slow lookup",
        "waiting" => "placement pending",
        other => other,
    };
    if detail.is_empty() { format!("{ago}: {what}") } else { format!("{ago}: {what}: {detail}") }
}

/// Returns the reason for which a process that no rule matches is in a cgroup of a rule.
pub(super) fn left_behind(survey: &LoadedConfig, life: &LiveProcess) -> Option<String> {
    let mut trees = survey.hierarchies.iter();
    let text = trees.find_map(|tree| {
        let path = path_in(&life.cgroup, tree.listed.as_bytes())?;
        destination_of(&tree.directory(path)?)
    })?;
    let targets = survey.loaded.rules.iter().flat_map(|rule| rule.action.targets());
    let mut texts = targets.map(|target| target.destination.as_str().trim_matches('/'));
    let shown = Escaped(&text);
    Some(match texts.any(|own| own == text.trim_matches('/')) {
        true => format!(
            "it is in a cgroup of rules with the destination \"{shown}\", which it, or the process that \
             created it, matched before"
        ),
        false => format!(
            "it is in a cgroup of a rule that no longer exists, with the destination \"{shown}\": \
             'cgrulectl release' returns such processes"
        ),
    })
}

/// Returns the likely reason when nothing is recorded and nothing prevents the move.
fn guesses(subject: &InspectedProcess) -> Vec<String> {
    let Some(life) = &subject.life else { return Vec::new() };
    if life.age.is_some_and(|age| age < FRESH) {
        return vec!["it has just started and its move may be pending: run this again".to_owned()];
    }
    if let Some(parent) = life.parent.as_ref().filter(|parent| parent.is_alike) {
        return vec![format!(
            "it looks like a forked child of process {}: such a child stays in its parent's cgroup until it \
             executes a program or changes its user",
            parent.pid
        )];
    }
    vec![format!(
        "no failure recorded. It may have been moved manually, or the rules changed since the last check; \
         'cgrulectl place {}' re-evaluates it",
        life.pid
    )]
}

/// Formats a duration in its greatest unit.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
