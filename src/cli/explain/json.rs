//! JSON form of an explanation. Fields are added, and must never be renamed or change their meaning. Bytes of
//! names and paths that are not UTF-8 appear as `\xff`.

use std::time::Duration;

use serde::Serialize;

use super::Explained;
use super::subject::InspectedProcess;
use super::verdict::{HierarchyState, PlacementState};
use crate::cli::inspected_program::InspectedProgram;
use crate::config::escape::EscapedBytes;
use crate::event::Pid;
use crate::policy::rebuild::LoadedConfig;
use crate::rules::explain::{Mismatch, Trace};
use crate::rules::{Rule, RuleId};

/// JSON object for one process.
#[derive(Serialize)]
pub(super) struct ExplainDocument {
    pid: Option<u32>,
    comm: Option<String>,
    /// `in-place`, `misplaced`, `unsure`, `no-rule`, `ignored`, `inapplicable`, `protected`, `in-slice`,
    /// `in-unit`, `in-container`, `others-job`, `ended`, `imagined`, `obstructed`.
    state: &'static str,
    uid: u32,
    user: Option<String>,
    gid: u32,
    group: Option<String>,
    /// IDs of the groups that list the user as a member.
    listed_in: Vec<u32>,
    exe: Option<String>,
    exe_on_host: Option<bool>,
    invoked: Option<String>,
    /// systemd unit in which it is; null if it is in none.
    unit: Option<String>,
    /// Programs of its ancestors, the nearest first; empty if no rule tests them.
    below: Vec<String>,
    /// Container in which it is, such as `docker:web`; null if it is in none, or if no rule tests that.
    container: Option<String>,
    /// Login UID; null if it is not set.
    login: Option<u32>,
    age_ms: Option<u64>,
    ppid: Option<u32>,
    /// Rule that matches; null if none does.
    rule: Option<Decider>,
    hierarchies: Vec<PlaceElement>,
    /// Milliseconds since the daemon moved it; null if it did not or has no record of it.
    moved_ago_ms: Option<u64>,
    /// The last external move that the daemon remembers, in words.
    external_move: Option<String>,
    /// Reasons for which it is misplaced or its rule cannot be applied, as text.
    reasons: Vec<String>,
    /// Causes of an uncertain answer, as text.
    caveats: Vec<String>,
    /// Rules that were evaluated before and did not match, in order.
    failed: Vec<FailedCriterion>,
    /// Rules before it that would match, but only observe.
    would_match: Vec<Decider>,
}

#[derive(Serialize)]
struct Decider {
    number: usize,
    name: String,
    file: String,
    line: u32,
    /// Whether executions of its files wait for the placement.
    gate: bool,
}

#[derive(Serialize)]
struct PlaceElement {
    hierarchy: String,
    belongs: String,
    is: Option<String>,
    in_place: bool,
}

#[derive(Serialize)]
struct FailedCriterion {
    number: usize,
    name: String,
    file: String,
    line: u32,
    /// First criterion that did not match.
    criterion: &'static str,
}

const fn word(state: PlacementState) -> &'static str {
    match state {
        PlacementState::InPlace => "in-place",
        PlacementState::Misplaced => "misplaced",
        PlacementState::Unsure | PlacementState::Outdated => "unsure",
        PlacementState::NoRule => "no-rule",
        PlacementState::Ignored => "ignored",
        PlacementState::Inapplicable => "inapplicable",
        PlacementState::Protected => "protected",
        PlacementState::InSlice => "in-slice",
        PlacementState::InUnit => "in-unit",
        PlacementState::InContainer => "in-container",
        PlacementState::OthersJob => "others-job",
        PlacementState::Ended => "ended",
        PlacementState::Imagined => "imagined",
        PlacementState::Obstructed => "obstructed",
    }
}

fn text(bytes: &[u8]) -> String {
    EscapedBytes(bytes).to_string()
}

/// JSON object for a PID that is not a process.
#[derive(Serialize)]
pub(super) struct MissingElement<'a> {
    pid: u32,
    /// Always `gone`: no process has the PID.
    state: &'static str,
    /// The message about the PID.
    reasons: [&'a str; 1],
}

impl<'a> MissingElement<'a> {
    pub(super) fn of(pid: Pid, why: &'a str) -> Self {
        Self { pid: pid.get(), state: "gone", reasons: [why] }
    }
}

/// Element of the JSON array.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Element<'a> {
    There(Box<ExplainDocument>),
    Missing(MissingElement<'a>),
}

impl ExplainDocument {
    pub(super) fn of(survey: &LoadedConfig, explained: &Explained) -> Self {
        let Explained { subject, verdict, moved, .. } = explained;
        let InspectedProcess { life, who, gid, group, program, .. } = subject;
        let (exe, on_host, invoked) = match program {
            InspectedProgram::Read { path, on_host, invoked, .. } => {
                (Some(text(path)), Some(*on_host), invoked.as_deref().map(text))
            }
            InspectedProgram::KernelThread(_)
            | InspectedProgram::None
            | InspectedProgram::Hidden(_) => (None, None, None),
        };
        let age = life.as_ref().and_then(|life| life.age);
        let parent = life.as_ref().and_then(|life| life.parent.as_ref());
        Self {
            pid: life.as_ref().map(|life| life.pid.get()),
            comm: life.as_ref().map(|life| text(&life.comm)),
            state: word(verdict.state),
            uid: who.uid.0,
            user: who.name.clone(),
            gid: gid.0,
            group: group.clone(),
            listed_in: who.listed_in.iter().map(|gid| gid.0).collect(),
            exe,
            exe_on_host: on_host,
            invoked,
            unit: subject.unit(survey).map(str::to_owned),
            below: subject.ancestors.iter().map(|one| text(&one.path)).collect(),
            container: explained.container(survey).map(|(text, _)| text),
            login: subject.login.map(|uid| uid.0),
            age_ms: age.map(milliseconds),
            ppid: parent.map(|parent| parent.pid.get()),
            rule: verdict.walk.winner.and_then(|id| decider(survey, id)),
            hierarchies: verdict.seats.iter().map(place).collect(),
            moved_ago_ms: moved.flatten().map(milliseconds),
            external_move: explained.external_move.clone(),
            reasons: explained.all_reasons(survey),
            caveats: explained.caveats(survey),
            failed: failed(survey, explained),
            would_match: observed(&verdict.walk).filter_map(|id| decider(survey, id)).collect(),
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn place(seat: &HierarchyState) -> PlaceElement {
    PlaceElement {
        hierarchy: seat.tree.clone(),
        belongs: seat.belongs.clone(),
        is: seat.is.as_deref().map(text),
        in_place: seat.is_right,
    }
}

fn decider(survey: &LoadedConfig, RuleId(id): RuleId) -> Option<Decider> {
    let rule = survey.loaded.rules.get(id as usize)?;
    let Rule { name, origin, is_gated, .. } = rule;
    let file = text(origin.file.as_os_str().as_encoded_bytes());
    Some(Decider {
        number: id as usize + 1,
        name: name.to_string(),
        file,
        line: origin.line,
        gate: *is_gated,
    })
}

/// Returns the rules that would match, but only observe.
fn observed(walk: &Trace) -> impl Iterator<Item = RuleId> {
    let misses = (0..).map(RuleId).zip(&walk.misses);
    misses.filter(|(_, miss)| **miss == Mismatch::Observes).map(|(id, _)| id)
}

fn failed(survey: &LoadedConfig, explained: &Explained) -> Vec<FailedCriterion> {
    let rules = survey.loaded.rules.iter().enumerate();
    let misses = &explained.verdict.walk.misses;
    let failed = rules.zip(misses).filter(|(_, miss)| **miss != Mismatch::Observes);
    let failed = failed.map(|((at, rule), miss)| FailedCriterion {
        number: at + 1,
        name: rule.name.to_string(),
        file: text(rule.origin.file.as_os_str().as_encoded_bytes()),
        line: rule.origin.line,
        criterion: miss.word(),
    });
    failed.collect()
}
