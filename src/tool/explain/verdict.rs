//! Where a process belongs, where it is, and what keeps it from getting there.

use std::path::PathBuf;

use super::subject::{Life, Program, Subject};
use crate::cgroup::mounts::{Hierarchies, Hierarchy, Version};
use crate::cgroup::provision::{UserSliceSpec, keeping_table};
use crate::cgroup::unit::Unit;
use crate::decision;
use crate::event::Pid;
use crate::host::Host;
use crate::placer::{Protection, protection};
use crate::process::{Proc, path_in};
use crate::rebuild::Survey;
use crate::rules::destination::{Destination, Field, Piece, Who};
use crate::rules::explain::{Miss, Walk, walk};
use crate::rules::{Action, Below, LeaveUnits, Rule, RuleId, Target};
use crate::tool::unread;
use crate::user_manager::ManagerLookup;

/// What is to be said of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is where its rule says.
    InPlace,
    /// It is elsewhere.
    Misplaced,
    /// Rules ask for its program, which is not known, or not all rules could be read.
    Unsure,
    /// The daemon goes by other rules than those that were tried.
    Outdated,
    /// No rule holds for it.
    NoRule,
    /// Its rule says to leave it.
    Ignored,
    /// Its rule cannot be applied on this host.
    Inapplicable,
    /// It is moved only by a rule that names its program.
    Protected,
    /// It stays in the slice of its user, which a table limits.
    InSlice,
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
    /// Files that the daemon goes by and that we may not read.
    pub unread: Vec<PathBuf>,
}

/// Tries the rules, and compares.
pub fn judge(survey: &Survey, subject: &Subject, proc: &mut Proc) -> Verdict {
    let rules = &survey.loaded.rules;
    let pid = subject.life.as_ref().map(|life| life.pid);
    let walk = walk(rules, &subject.who, &subject.facts(), |rule| {
        pid.is_some_and(|pid| decision::applies(rule, proc, pid, None))
    });
    let rule = walk.winner.and_then(|RuleId(id)| rules.get(id as usize));
    let seats = rule.map(|rule| seats(survey, subject, rule)).unwrap_or_default();
    let mut said = state(rule, subject, &seats, proc);
    if let (State::Misplaced, Some(rule)) = (said, rule) {
        if slice_table(survey, subject, rule).is_some() {
            said = State::InSlice;
        }
    }
    let depends = matches!(said, State::InPlace | State::Misplaced | State::NoRule);
    let unread = unread::files(&survey.loaded.diagnostics);
    let is_unsure = depends && (unseen(rule, subject, &walk) > 0 || !unread.is_empty());
    let state = if is_unsure { State::Unsure } else { said };
    Verdict { state, walk, seats, unread }
}

/// How many rules ask for a program that we could not see, so that the answer may be wrong.
pub(super) fn unseen(rule: Option<&Rule>, subject: &Subject, walk: &Walk) -> usize {
    if !matches!(subject.program, Program::Hidden(_)) {
        return 0;
    }
    walk.misses.iter().filter(|miss| **miss == Miss::UnknownExe).count()
        + usize::from(rule.is_some_and(|rule| !rule.not.exes.is_empty()))
}

fn state(rule: Option<&Rule>, subject: &Subject, seats: &[Seat], proc: &mut Proc) -> State {
    let Some(rule) = rule else { return State::NoRule };
    match &rule.action {
        Action::Ignore(_) => return State::Ignored,
        Action::Inapplicable(_) => return State::Inapplicable,
        Action::Place(_) => {}
    }
    match &subject.life {
        None => State::Imagined,
        Some(_) if seats.iter().all(|seat| seat.is_right) => State::InPlace,
        Some(life) if is_left_alone(rule, life, subject, proc) => State::Protected,
        Some(life) if life.is_zombie => State::Ended,
        Some(_) => State::Misplaced,
    }
}

/// Whether the daemon leaves a process alone although a rule holds.
fn is_left_alone(rule: &Rule, life: &Life, subject: &Subject, proc: &mut Proc) -> bool {
    let uid = subject.who.uid;
    let exe = subject.raw_exe();
    match exe {
        None if life.is_kernel_thread => return true,
        Some(_) if uid.0 != 0 && !Host::default().runs_systemd() => return false,
        _ => {}
    }
    match protection(rule, life.pid, exe.unwrap_or_default(), uid, || Some(&life.cgroup)) {
        Protection::Yes => true,
        Protection::No => false,
        // Where systemd does not answer us, the daemon leaves it alone as long as it gets no answer either.
        Protection::UserManager => {
            ManagerLookup::default().find(uid).map_or(true, |found| found.contains(life.pid, proc))
        }
    }
}

/// The table that limits the slice of the user, so that the process stays there.
pub(super) fn slice_table<'s>(
    survey: &'s Survey,
    subject: &Subject,
    rule: &Rule,
) -> Option<&'s UserSliceSpec> {
    let text = subject.life.as_ref().map(|life| life.cgroup.as_slice());
    let path = text.and_then(|text| path_in(text, b"")).unwrap_or_default();
    let tables = &survey.loaded.gifts.user_slices;
    keeping_table(tables, rule, path, subject.who.uid, subject.who.name.as_deref())
}

/// The unit of systemd that would lose the process, so that it stays there. `None` if it may leave.
pub(super) fn keeping_unit(
    survey: &Survey,
    subject: &Subject,
    rule: &Rule,
    seats: &[Seat],
) -> Option<String> {
    let concerned = seats.iter().any(|seat| seat.version == Version::V2 && !seat.is_right);
    if !concerned || rule.leave_units != LeaveUnits::No || !Host::default().runs_systemd() {
        return None;
    }
    let text = subject.life.as_ref().map(|life| life.cgroup.as_slice())?;
    let path = std::str::from_utf8(path_in(text, b"")?).ok()?;
    match Unit::of(path, &[&survey.grounds.rules, &survey.grounds.legacy]) {
        Unit::ForOthers(name) if subject.who.uid.0 == 0 => Some(name.to_owned()),
        Unit::Other(name) => Some(name.to_owned()),
        // Whether it is the last of its session changes from one moment to the next: the daemon knows.
        Unit::None | Unit::Session(..) | Unit::OfUser(_) | Unit::ForOthers(_) => None,
    }
}

fn seats(survey: &Survey, subject: &Subject, rule: &Rule) -> Vec<Seat> {
    let mut seats = Vec::new();
    for target in rule.action.targets() {
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

/// The path of a target for the process, as the daemon renders it. A field that is not known before there
/// is a process stays as it is written.
fn path(survey: &Survey, subject: &Subject, target: &Target) -> String {
    let mut path = match target.below {
        Below::Root => survey.grounds.rules.clone(),
        Below::Top => survey.grounds.legacy.clone(),
    };
    path.push('/');
    let known = |piece: Piece| match piece {
        Piece::Field(Field::ProcessId) if subject.life.is_none() => Piece::Literal("%P".to_owned()),
        Piece::Field(Field::Program) if subject.life.is_none() && subject.raw_exe().is_none() => {
            Piece::Literal("%p".to_owned())
        }
        piece @ (Piece::Field(_) | Piece::Literal(_)) => piece,
    };
    let pieces = target.destination.pieces().into_iter().map(known).collect();
    let destination = Destination::from_pieces(target.destination.as_str(), pieces);
    // Of one that does not exist the number is not shown.
    if let Some(pid) = subject.life.as_ref().map(|life| life.pid).or(Pid::new(1)) {
        let (uid, user) = (subject.who.uid, subject.who.name.as_deref());
        let (gid, group) = (subject.gid, subject.group.as_deref());
        let program = subject.raw_exe();
        destination.render(&Who { uid, user, gid, group, pid, program }, &mut path);
    }
    if path.len() > 1 && path.ends_with('/') {
        path.pop();
    }
    path
}

/// The v2 group of a process first, then the others that are not at the top.
pub(super) fn whereabouts(hierarchies: &Hierarchies, life: &Life) -> Vec<(String, Vec<u8>)> {
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
