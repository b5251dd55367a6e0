//! Where a process belongs, where it is, and what keeps it from getting there.

use std::path::PathBuf;

use super::subject::{Life, Subject};
use crate::cgroup::mounts::{Hierarchies, Hierarchy, Version};
use crate::decision;
use crate::process::{Proc, path_in};
use crate::rebuild::Survey;
use crate::rules::destination::{Field, Who};
use crate::rules::explain::{Walk, walk};
use crate::rules::{Action, Below, Rule, RuleId, Target};

/// What is to be said of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is where its rule says.
    InPlace,
    /// It is elsewhere.
    Misplaced,
    /// No rule holds for it.
    NoRule,
    /// Its rule says to leave it.
    Ignored,
    /// It is moved only by a rule that names its program.
    Protected,
    /// It has ended.
    Ended,
    /// It is only thought of.
    Imagined,
}

/// One hierarchy that a rule concerns.
#[derive(Clone, Debug)]
pub struct Seat {
    /// The hierarchy: `cgroup v2`, or the controllers of a v1 one.
    pub tree: String,
    /// Where the process belongs, from the top.
    pub belongs: String,
    /// Where it is; `None` when that is not known.
    pub is: Option<Vec<u8>>,
    /// Whether that is the same.
    pub is_right: bool,
    /// The directory of the group where it belongs.
    pub directory: PathBuf,
    /// Which interface the hierarchy has.
    pub version: Version,
    /// Whether a missing group is made.
    pub creates: bool,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// In a word.
    pub state: State,
    /// How the rules were tried.
    pub walk: Walk,
    /// The hierarchies that the rule concerns, in order.
    pub seats: Vec<Seat>,
}

/// Tries the rules, and compares.
pub fn judge(survey: &Survey, subject: &Subject, proc: &mut Proc) -> Verdict {
    let rules = &survey.loaded.rules;
    let pid = subject.life.as_ref().map(|life| life.pid);
    let walk = walk(rules, &subject.who, &subject.facts(), |rule| {
        pid.is_some_and(|pid| decision::applies(rule, proc, pid))
    });
    let rule = walk.winner.and_then(|RuleId(id)| rules.get(id as usize));
    let seats = rule.map(|rule| seats(survey, subject, rule)).unwrap_or_default();
    Verdict { state: state(rule, subject, &seats), walk, seats }
}

fn state(rule: Option<&Rule>, subject: &Subject, seats: &[Seat]) -> State {
    let Some(rule) = rule else { return State::NoRule };
    match &rule.action {
        Action::Ignore(_) => return State::Ignored,
        Action::Place(targets) if targets.is_empty() => return State::Ignored,
        Action::Place(_) => {}
    }
    match &subject.life {
        None => State::Imagined,
        Some(_) if seats.iter().all(|seat| seat.is_right) => State::InPlace,
        Some(life) if is_protected(rule, life, subject) => State::Protected,
        Some(life) if life.is_zombie => State::Ended,
        Some(_) => State::Misplaced,
    }
}

/// Where systemd's own programs are.
const SYSTEMD: [&[u8]; 2] = [b"/usr/lib/systemd/", b"/lib/systemd/"];

/// Whether the daemon leaves a process alone although a rule holds that does not name its program.
fn is_protected(rule: &Rule, life: &Life, subject: &Subject) -> bool {
    let is_systemds = |exe: &[u8]| SYSTEMD.iter().any(|directory| exe.starts_with(directory));
    let is_ours = life.pid.get() == 1 || life.is_kernel_thread;
    rule.when.exes.is_empty() && (is_ours || subject.raw_exe().is_some_and(is_systemds))
}

fn seats(survey: &Survey, subject: &Subject, rule: &Rule) -> Vec<Seat> {
    let Action::Place(targets) = &rule.action else { return Vec::new() };
    let mut seats = Vec::new();
    for target in targets {
        let (span, _) = survey.hierarchies.span_of(target);
        if span.is_empty() && target.below == Below::Top {
            // As the daemon does: what follows is not done either.
            break;
        }
        let path = path(survey, subject, target);
        let trees = span.indexes().filter_map(|index| survey.hierarchies.get(index));
        seats.extend(trees.map(|tree| seat(tree, &path, target, subject)));
    }
    seats
}

fn seat(tree: &Hierarchy, path: &str, target: &Target, subject: &Subject) -> Seat {
    let top = tree.top.trim_end_matches('/');
    let belongs = match path {
        "/" if !top.is_empty() => top.to_owned(),
        path => format!("{top}{path}"),
    };
    let text = subject.life.as_ref().map(|life| life.cgroup.as_slice());
    let is = text.and_then(|text| path_in(text, tree.listed.as_bytes())).map(<[u8]>::to_vec);
    Seat {
        tree: match tree.version {
            Version::V2 => "cgroup v2".to_owned(),
            Version::V1 => tree.listed.clone(),
        },
        is_right: is.as_deref() == Some(belongs.as_bytes()),
        is,
        belongs,
        directory: tree.mount_point.join(path.trim_start_matches('/')),
        version: tree.version,
        creates: target.creates,
    }
}

/// The path of a target for the process, as the daemon renders it. With a field that is not known
/// before there is a process, as it is written.
fn path(survey: &Survey, subject: &Subject, target: &Target) -> String {
    let mut path = match target.below {
        Below::Root => survey.root.clone(),
        Below::Top => String::new(),
    };
    path.push('/');
    let unknown = |field: Field| match field {
        Field::ProcessId => subject.life.is_none(),
        Field::Program => subject.life.is_none() && subject.raw_exe().is_none(),
        Field::UserName | Field::UserId | Field::GroupName | Field::GroupId => false,
    };
    let pid = subject.life.as_ref().map(|life| life.pid).or(crate::event::Pid::new(1));
    match pid {
        Some(pid) if !target.destination.fields().any(unknown) => {
            let who = Who {
                uid: subject.who.uid,
                user: subject.who.name.as_deref(),
                gid: subject.gid,
                group: subject.group.as_deref(),
                pid,
                program: subject.raw_exe(),
            };
            target.destination.render(&who, &mut path);
        }
        Some(_) | None => path.push_str(target.destination.as_str().trim_matches('/')),
    }
    if path.len() > 1 && path.ends_with('/') {
        path.pop();
    }
    path
}

/// The v2 group of a process first, then the others that are not at the top.
pub fn whereabouts(hierarchies: &Hierarchies, life: &Life) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for tree in hierarchies.iter() {
        let Some(path) = path_in(&life.cgroup, tree.listed.as_bytes()) else { continue };
        match tree.version {
            Version::V2 => found.insert(0, ("cgroup v2".to_owned(), path.to_vec())),
            Version::V1 if path != b"/" => found.push((tree.listed.clone(), path.to_vec())),
            Version::V1 => {}
        }
    }
    found
}
