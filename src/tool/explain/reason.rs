//! Why a process is not where its rule says: what the daemon remembers, and what can be seen without it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::subject::Subject;
use super::verdict::{Seat, Verdict, keeping_unit};
use crate::cgroup::mounts::Version;
use crate::config::escape::{Escaped, EscapedBytes};
use crate::control::client::{self, Conversation};
use crate::control::protocol::{About, Happening, Request};
use crate::control::status::{RuleInForce, Rules, Status};
use crate::rebuild::Survey;
use crate::rules::Rule;
use crate::tool::asking::{self, Address};

/// A process that is younger may be on its way. The daemon takes microseconds when it is not busy, the
/// kernel milliseconds for the move.
const FRESH: Duration = Duration::from_millis(200);

/// The rules that were tried are not those in force, whose conditions the daemon does not tell.
const OTHER_RULES: &str = "the daemon goes by other rules than the files say now: cgrulectl \
                           reload (or it was started with other options than this command)";

/// What the daemon has to say of a process.
#[derive(Clone, Debug)]
pub enum Memory {
    /// This of the process, and this, in words, that keeps many from their groups.
    Told(About, Vec<String>),
    /// Nobody answers at this socket.
    NoDaemon(PathBuf),
    /// The control socket is turned off in this file.
    Off(PathBuf),
    /// There is a daemon, but it does not tell us, and why.
    Silent(String),
}

impl Memory {
    /// Asks the daemon at this address for each process, in order. Takes where its groups begin into the
    /// survey: its command line may say something else than the settings.
    pub fn ask(address: &Address, pids: &[u32], survey: &mut Survey) -> Vec<Self> {
        let same = |memory: Self| vec![memory; pids.len()];
        let socket = match address {
            Address::At(socket) => socket,
            Address::Off(file) => return same(Self::Off(file.clone())),
        };
        let status = match answer::<Status>(socket, &Request::Status) {
            Err(error) => return same(Self::Silent(error.to_string())),
            Ok(None) => return same(Self::NoDaemon(socket.to_owned())),
            Ok(Some(status)) => status,
        };
        // The daemon says `/` for the top.
        status.root.trim_end_matches('/').clone_into(&mut survey.grounds.rules);
        let told = match client::about(socket, pids) {
            Err(error) => return same(Self::Silent(error.to_string())),
            Ok(told) => told.unwrap_or_default(),
        };
        let rules = answer::<Rules>(socket, &Request::Rules).ok().flatten();
        let general = general(&status, rules.as_ref(), survey);
        let of = |pid: &u32| {
            let about = told.iter().find(|about| about.pid == *pid).cloned();
            let nothing = || About { pid: *pid, ..About::default() };
            let mut general = general.clone();
            if *pid == status.pid {
                general.insert(0, "it is the daemon, which moves everybody but itself".to_owned());
            }
            Self::Told(about.unwrap_or_else(nothing), general)
        };
        pids.iter().map(of).collect()
    }

    /// When the daemon moved the process last, if it remembers; `None` when it did not tell.
    pub fn moved(&self) -> Option<Option<Duration>> {
        match self {
            Self::Told(about, _) => Some(about.moved_ago_ms.map(Duration::from_millis)),
            Self::NoDaemon(_) | Self::Off(_) | Self::Silent(_) => None,
        }
    }

    /// The last external move of the process that the daemon remembers, in words: its mover, when it was, and whether
    /// it was reverted.
    pub fn external_move(&self) -> Option<String> {
        let is_move = |one: &&Happening| matches!(one.outcome.as_str(), "taken-back" | "given-up");
        let last = self.happenings().iter().rev().find(is_move)?;
        let ago = span(Duration::from_millis(last.ago_ms));
        Some(format!("{ago} ago: {}", last.detail))
    }

    /// What keeps many processes from their groups.
    pub fn general(&self) -> &[String] {
        match self {
            Self::Told(_, general) => general,
            Self::NoDaemon(_) | Self::Off(_) | Self::Silent(_) => &[],
        }
    }

    /// Why the daemon says nothing although there may be one.
    pub fn silence(&self) -> Option<String> {
        match self {
            Self::Told(..) | Self::NoDaemon(_) => None,
            Self::Off(file) => Some(asking::turned_off(file)),
            Self::Silent(why) => Some(format!("the daemon cannot be asked: {why}")),
        }
    }

    /// Whether the daemon goes by other rules than those of the survey.
    pub fn has_other_rules(&self) -> bool {
        self.general().iter().any(|note| note == OTHER_RULES)
    }

    fn happenings(&self) -> &[Happening] {
        match self {
            Self::Told(about, _) => &about.happenings,
            Self::NoDaemon(_) | Self::Off(_) | Self::Silent(_) => &[],
        }
    }
}

fn answer<T: DeserializeOwned>(
    socket: &Path,
    request: &Request,
) -> Result<Option<T>, client::Error> {
    client::ask(socket, request)?.map(Conversation::only).transpose()
}

/// What keeps many processes from their groups.
fn general(status: &Status, rules: Option<&Rules>, survey: &Survey) -> Vec<String> {
    let dry_run = "the daemon runs with --dry-run: it moves nobody";
    let is_other = rules.is_some_and(|rules| !are_same(rules, &survey.loaded.rules));
    let said = [(status.dry_run, dry_run), (is_other, OTHER_RULES)];
    said.into_iter().filter(|(is_so, _)| *is_so).map(|(_, text)| text.to_owned()).collect()
}

/// Whether the rules in force are those of the files, by their names and lines.
fn are_same(in_force: &Rules, files: &[Rule]) -> bool {
    let is_it = |(own, rule): (&RuleInForce, &Rule)| {
        own.line == rule.origin.line && own.name == Escaped(&rule.name).to_string()
    };
    in_force.rules.len() == files.len() && in_force.rules.iter().zip(files).all(is_it)
}

/// The reasons why a process is misplaced, the weightiest first; never none.
pub fn why(
    survey: &Survey,
    subject: &Subject,
    rule: &Rule,
    verdict: &Verdict,
    memory: &Memory,
) -> Vec<String> {
    let mut reasons: Vec<String> = moved_since(memory).into_iter().collect();
    reasons.extend(memory.happenings().iter().rev().map(told));
    match memory {
        Memory::NoDaemon(socket) => reasons.push(format!(
            "no daemon runs, so nobody moves it: start cgruled, which would answer at {}",
            EscapedBytes(socket.as_os_str().as_encoded_bytes())
        )),
        Memory::Off(_) | Memory::Silent(_) => reasons.extend(memory.silence()),
        Memory::Told(_, general) => reasons.extend_from_slice(general),
    }
    if !memory.happenings().is_empty() || moved_since(memory).is_some() {
        return reasons;
    }
    if let Some(unit) = keeping_unit(survey, subject, rule, &verdict.seats) {
        reasons.push(format!(
            "it is in {}, a unit of systemd that would lose it; leave_units = true in the rule would \
             allow that",
            EscapedBytes(unit.as_bytes())
        ));
    }
    reasons.extend(verdict.seats.iter().filter(|seat| !seat.is_right).filter_map(obstacle));
    if reasons.is_empty() {
        reasons.extend(guesses(subject));
    }
    reasons
}

/// That the daemon did move it, and knows of nothing that happened to it since.
fn moved_since(memory: &Memory) -> Option<String> {
    let moved = memory.moved()??;
    let last = memory.happenings().last().map(|last| Duration::from_millis(last.ago_ms));
    // What happened last may have happened on the way to that move.
    last.is_none_or(|last| moved <= last).then(|| {
        format!(
            "{} ago: the daemon moved it last. Since then somebody else has moved it, or it has come under \
             another rule: cgrulectl place looks at it now",
            span(moved)
        )
    })
}

/// What the daemon remembers, in words.
fn told(happening: &Happening) -> String {
    let Happening { ago_ms, outcome, detail, .. } = happening;
    if outcome == "sticky" {
        return detail.clone();
    }
    let ago = match outcome.as_str() {
        "waiting" => format!("for {}", span(Duration::from_millis(*ago_ms))),
        _ => format!("{} ago", span(Duration::from_millis(*ago_ms))),
    };
    let what = match outcome.as_str() {
        "refused" => "the kernel refused",
        "taken-back" => "external move",
        "given-up" => "external move",
        "in-unit" => "it was left in its unit",
        "in-container" => "it was left in its container",
        "others-job" => "it was left in its job",
        "waited" => "the answer was slow",
        "waiting" => "it has been on its way",
        other => other,
    };
    if detail.is_empty() { format!("{ago}: {what}") } else { format!("{ago}: {what}: {detail}") }
}

/// What the kernel or the rule would say to a move now.
fn obstacle(seat: &Seat) -> Option<String> {
    let directory = EscapedBytes(seat.directory.as_os_str().as_encoded_bytes());
    if !seat.directory.exists() {
        let text = format!(
            "{directory} does not exist, and a rule of cgrules.conf makes no group whose path is \
             written out: make it first"
        );
        return (!seat.creates).then_some(text);
    }
    let enabled = fs::read_to_string(seat.directory.join("cgroup.subtree_control"));
    let is_inner = enabled.is_ok_and(|text| !text.trim().is_empty());
    // Only the top of the tree may hold processes and hand controllers on.
    let is_top = seat.belongs == "/";
    (seat.version == Version::V2 && is_inner && !is_top).then(|| {
        format!(
            "{directory} hands controllers on to groups below it, so the kernel lets no process in \
             (EBUSY): name a group below it"
        )
    })
}

/// What is likely when nothing is known.
fn guesses(subject: &Subject) -> Vec<String> {
    let Some(life) = &subject.life else { return Vec::new() };
    if life.age.is_some_and(|age| age < FRESH) {
        return vec!["it has just started and may be on its way: ask again".to_owned()];
    }
    if let Some(parent) = life.parent.as_ref().filter(|parent| parent.is_alike) {
        return vec![format!(
            "it looks like a forked child of process {}: a forked child stays with its parent until it \
             starts a program or changes its user",
            parent.pid
        )];
    }
    vec![format!(
        "the daemon remembers no trouble with it. Perhaps it was moved by hand later than the daemon looked, \
         or the daemon has yet to look by rules that are new (cgrulectl reload): cgrulectl place {} looks \
         at it now and says what comes of it",
        life.pid
    )]
}

/// A time as people say it.
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
