//! `cgrulectl explain`: the rule that matches a process, the mismatch of each earlier rule, the current
//! cgroup, and the reason if that is not the cgroup of the rule. Must not change anything.

mod attributes;
mod imagined;
mod json;
mod mismatch;
mod reason;
mod stays;
mod subject;
mod verdict;
mod view;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ancestors;
use super::command::{DaemonFlags, ToolError};
use super::conditions::container_name;
use super::daemon_client::{self, RunNotes};
use super::locale;
use super::rule_wording;
use super::unread;
use super::what_if::{WhatIfProgram, command_line, located};
use crate::cgroup::unit::usual_cgroup;
use crate::config::diagnostic::has_errors;
use crate::config::escape::{Escaped, EscapedBytes};
use crate::daemon;
use crate::event::{Gid, Pid};
use crate::kernel::process::ProcFs;
use crate::placement::stay::StayReason;
use crate::policy::rebuild::LoadedConfig;
use crate::rules::ancestry::Ancestor;
use crate::rules::{InapplicableReason, Rule, RuleId};

pub use super::inspected_program::InspectedProgram;
use reason::DaemonAnswer;
use reason::left_behind;
pub use reason::{DaemonMemory, span, why};
pub use subject::{InspectedProcess, LiveProcess, ParentProcess};
use verdict::unseen;
pub use verdict::{HierarchyState, PlacementState, Verdict, judge};
pub(super) use view::failed;
pub use view::{OutputOptions, show};

#[derive(clap::Args)]
#[command(
    about = "Show which cgroup a process belongs in, and why it is not there",
    after_help = "\
Examples:
  cgrulectl explain $$
      check this shell; exit status 1 if it is not in its rule's cgroup
  cgrulectl explain --user www-data --exe /usr/bin/php
      show the cgroup for php of www-data"
)]
pub(super) struct ExplainArgs {
    /// evaluate a hypothetical process of this user (name or UID)
    #[arg(long, value_name = "USER", conflicts_with = "pids")]
    user: Option<String>,
    /// with this effective group (default: the user's own)
    #[arg(long, value_name = "GROUP", requires = "user")]
    group: Option<String>,
    /// with this executable
    #[arg(long, value_name = "PATH", requires = "user")]
    exe: Option<OsString>,
    /// in this systemd unit
    #[arg(long, value_name = "UNIT", requires = "user", conflicts_with = "from")]
    unit: Option<String>,
    /// in this cgroup
    #[arg(long, value_name = "CGROUP", requires = "user")]
    from: Option<String>,
    /// below a process of root that runs this program; may be repeated
    #[arg(long, value_name = "PATH", requires = "user")]
    below: Vec<OsString>,
    /// in this container, such as docker:web
    #[arg(long, value_name = "NAME", requires = "user", conflicts_with_all = ["unit", "from"])]
    container: Option<String>,
    /// after a login of this user (name or UID)
    #[arg(long, value_name = "USER", requires = "user")]
    login: Option<String>,
    /// with this argument; may be repeated, in their order
    #[arg(long, value_name = "TEXT", requires = "user", allow_hyphen_values = true)]
    argument: Vec<OsString>,
    /// show every rule that was evaluated, with full paths
    #[arg(long)]
    all: bool,
    /// an array with one object per process
    #[arg(long)]
    json: bool,
    #[arg(value_name = "PID", required_unless_present_any = ["user", "group", "exe"], value_parser = pid)]
    pids: Vec<Pid>,
    #[command(flatten)]
    daemon: DaemonFlags,
}

/// Exit code for invalid rules or settings, `EX_DATAERR` of sysexits.h.
const INVALID_DATA: u8 = 65;

/// Result of the evaluation of one process.
#[derive(Clone, Debug)]
pub struct Explained {
    /// Process that was evaluated, living or hypothetical.
    pub subject: InspectedProcess,
    /// Result of the rules and the comparison with the current cgroups.
    pub verdict: Verdict,
    /// Time since the daemon moved it last, if the daemon has a record of that; `None` if no daemon reported.
    pub moved: Option<Option<Duration>>,
    /// The last external move that the daemon remembers, in words.
    pub external_move: Option<String>,
    /// Reasons for which it is misplaced; empty if it is not.
    pub reasons: Vec<String>,
}

impl Explained {
    /// Returns the rule that matches.
    pub fn rule<'s>(&self, survey: &'s LoadedConfig) -> Option<&'s Rule> {
        self.verdict.walk.winner.and_then(|RuleId(id)| survey.loaded.rules.get(id as usize))
    }

    /// Returns the container of the process in the form of rule files, and its name in the files of its engine.
    fn container(&self, survey: &LoadedConfig) -> Option<(String, Option<String>)> {
        let found = self.verdict.container.as_ref()?;
        let imagined = self.subject.imagined_container.clone();
        let name = imagined.or_else(|| found.key().and_then(container_name));
        let owner = survey.names.identify(found.owner).ok().and_then(|identity| identity.name);
        Some((rule_wording::container(found, name.as_deref(), owner.as_deref()), name))
    }

    /// Returns the reasons for which the process is not in its rule's cgroup, or its rule cannot be applied.
    fn all_reasons(&self, survey: &LoadedConfig) -> Vec<String> {
        let inapplicable = self.rule(survey).and_then(|rule| rule.action.inapplicable());
        let own = inapplicable.map(|reason| {
            let near = if let InapplicableReason::NoController(name) = reason {
                survey.hierarchies.similar_controller(name)
            } else {
                None
            };
            let near = near.map(|near| format!(", did you mean \"{near}\"?")).unwrap_or_default();
            format!(
                "the rule matches, but cannot be applied on this host: {reason}{near}; the process is not moved"
            )
        });
        let table = match &self.verdict.stays {
            Some(StayReason::InSlice(table)) => Some(table.to_string()),
            _ => None,
        };
        let kept = table.map(|table| {
            let table = Escaped(&table);
            format!(
                "the table at {table} limits its slice, and a rule without exe does not move it out"
            )
        });
        let seats = self.verdict.seats.iter();
        let is_obstructed = self.verdict.state == PlacementState::Obstructed;
        let obstacles = seats.filter(|_| is_obstructed).filter_map(HierarchyState::obstacle);
        let reasons = self.reasons.iter().cloned();
        own.into_iter().chain(kept).chain(obstacles).chain(reasons).collect()
    }

    /// Returns the causes of an uncertain answer: rules that need an unknown executable, and rule files that
    /// cannot be read.
    fn caveats(&self, survey: &LoadedConfig) -> Vec<String> {
        self.hidden(survey).into_iter().chain(unread::told(&self.verdict.unread)).collect()
    }

    fn hidden(&self, survey: &LoadedConfig) -> Option<String> {
        let InspectedProgram::Hidden(why) = &self.subject.program else { return None };
        let asking = unseen(&survey.loaded.rules, &self.subject, &self.verdict.walk);
        (asking > 0).then(|| {
            let rules = if asking == 1 { "a rule needs" } else { "rules need" };
            format!("{rules} its executable, which is unknown: {why}")
        })
    }
}

pub(super) fn run(given: &ExplainArgs, out: &mut dyn Write) -> Result<u8, ToolError> {
    let pids: Vec<u32> = given.pids.iter().map(|pid| pid.get()).collect();
    let answer = given.user.is_none().then(|| {
        let address = daemon_client::address(&given.daemon);
        DaemonAnswer::ask(&address, &pids)
    });
    let invocation = match &answer {
        None => daemon_client::invocation(&given.daemon, RunNotes::Said),
        Some(answer) => answer.options(&given.daemon),
    };
    let absent = daemon::missing_rules(&given.daemon.options());
    if !absent.is_empty() {
        absent.iter().for_each(|error| eprintln!("{error}"));
        return Ok(INVALID_DATA);
    }
    let mut survey = daemon::survey(&invocation, None);
    if let Some(answer) = &answer {
        answer.note_files(&given.daemon, &survey);
    }
    let proc = ProcFs::open(Path::new("/proc"));
    let mut proc =
        proc.map_err(|error| ToolError::Failed(format!("cannot open /proc: {error}")))?;
    let answers = if let Some(answer) = answer {
        let memories = answer.memories(&pids, &mut survey);
        living(&survey, &given.pids, memories, &mut proc)?
    } else {
        let user = given.user.as_deref().unwrap_or_default();
        let subject = imagined(user, given, &survey)?;
        let verdict = judge(&survey, &subject, &mut proc);
        let reasons = Vec::new();
        vec![ExplainAnswer::There(Box::new(Explained {
            subject,
            verdict,
            moved: None,
            external_move: None,
            reasons,
        }))]
    };
    print(given, &survey, &answers, out)?;
    out.flush()?;
    if survey.loaded.rules.is_empty() {
        eprintln!(
            "cgrulectl: no rules found; if the daemon runs with --config, --rules, --root or --no-legacy, \
             give the same options here"
        );
    }
    if has_errors(&survey.loaded.diagnostics) {
        eprintln!("cgrulectl: invalid rules were skipped; run 'cgrulectl check' to see them");
    }
    Ok(u8::from(answers.iter().any(|answer| match answer {
        ExplainAnswer::There(one) => one.verdict.state.is_negative(),
        ExplainAnswer::Gone(..) => true,
    })))
}

fn print(
    given: &ExplainArgs,
    survey: &LoadedConfig,
    answers: &[ExplainAnswer],
    out: &mut dyn Write,
) -> Result<(), ToolError> {
    if given.json {
        let elements: Vec<_> = answers.iter().map(|answer| element(survey, answer)).collect();
        return Ok(super::json::write(&elements, out)?);
    }
    let options =
        OutputOptions { color: locale::is_colored(), all: given.all, ascii: !locale::is_unicode() };
    let there = answers.iter().filter_map(|answer| match answer {
        ExplainAnswer::There(one) => Some(one),
        ExplainAnswer::Gone(..) => None,
    });
    for (index, one) in there.enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        show(survey, one, options, out)?;
    }
    Ok(())
}

fn element<'a>(survey: &LoadedConfig, answer: &'a ExplainAnswer) -> json::Element<'a> {
    match answer {
        ExplainAnswer::There(one) => {
            json::Element::There(Box::new(json::ExplainDocument::of(survey, one)))
        }
        ExplainAnswer::Gone(pid, why) => {
            json::Element::Missing(json::MissingElement::of(*pid, why))
        }
    }
}

/// Result for one PID of the command line.
enum ExplainAnswer {
    There(Box<Explained>),
    /// No such process, with the message about it.
    Gone(Pid, String),
}

/// Evaluates the processes in order. Reports on standard error the PIDs that do not exist, and a daemon that
/// cannot be queried.
fn living(
    survey: &LoadedConfig,
    pids: &[Pid],
    memories: Vec<DaemonMemory>,
    proc: &mut ProcFs,
) -> Result<Vec<ExplainAnswer>, ToolError> {
    let mut answers = Vec::new();
    let mut has_told = false;
    let rules = &survey.loaded.rules;
    for (pid, memory) in pids.iter().zip(memories) {
        let Some(mut subject) = InspectedProcess::living(*pid, proc, &survey.names)? else {
            let why = match proc.status(*pid) {
                Some(owner) => {
                    format!("{pid} is a thread of process {}: use that PID", owner.process)
                }
                None => format!("process {pid} does not exist"),
            };
            eprintln!("cgrulectl: {why}");
            answers.push(ExplainAnswer::Gone(*pid, why));
            continue;
        };
        read_what_is_tested(rules, (*pid, &mut subject), proc);
        let mut verdict = judge(survey, &subject, proc);
        let is_well = matches!(verdict.state, PlacementState::InPlace | PlacementState::NoRule);
        if is_well && memory.has_other_rules() {
            verdict.state = PlacementState::Outdated;
        }
        let moved = memory.moved();
        if !verdict.state.has_reasons() && !has_told {
            let notes = memory.general().iter().cloned().chain(memory.no_failure());
            notes.for_each(|note| eprintln!("cgrulectl: {note}"));
            has_told = true;
        }
        let external_move = memory.external_move();
        let mut one = Explained { subject, verdict, moved, external_move, reasons: Vec::new() };
        if one.verdict.state.has_reasons() {
            one.reasons = why(&one.subject, &one.verdict, &memory);
        }
        if let (PlacementState::NoRule, Some(life)) = (one.verdict.state, &one.subject.life) {
            one.reasons.extend(left_behind(survey, life));
        }
        answers.push(ExplainAnswer::There(Box::new(one)));
    }
    Ok(answers)
}

/// Reads the attributes that are read only if a rule tests them, because that can take long.
fn read_what_is_tested(
    rules: &[Rule],
    (pid, subject): (Pid, &mut InspectedProcess),
    proc: &mut ProcFs,
) {
    if rules.iter().any(Rule::tests_ancestors) {
        subject.ancestors = ancestors::of(pid, proc);
    }
    if rules.iter().any(Rule::tests_arguments) {
        subject.read_arguments(pid);
    }
}

fn pid(text: &str) -> Result<Pid, &'static str> {
    text.parse().ok().and_then(Pid::new).ok_or("use a PID such as 4711")
}

fn imagined(
    user: &str,
    given: &ExplainArgs,
    survey: &LoadedConfig,
) -> Result<InspectedProcess, ToolError> {
    let names = &survey.names;
    let uid = names.uid_of(user).map_err(ToolError::nss)?.ok_or_else(|| unknown("user", user))?;
    let gid = match &given.group {
        // A user without a passwd entry gets the group of the same ID, as users have on most hosts.
        None => names.login_group(uid).map_err(ToolError::nss)?.unwrap_or(Gid(uid.0)),
        Some(text) => {
            names.gid_of(text).map_err(ToolError::nss)?.ok_or_else(|| unknown("group", text))?
        }
    };
    let program = given.exe.as_deref().map(program).transpose()?;
    let mut subject = InspectedProcess::imagined(uid, gid, program.as_deref(), names)?;
    subject.login = match &given.login {
        None => None,
        Some(user) => {
            names.uid_of(user).map_err(ToolError::nss)?.ok_or_else(|| unknown("user", user))?.into()
        }
    };
    subject.ancestors = given.below.iter().map(|path| ancestor(path)).collect::<Result<_, _>>()?;
    let name = given.exe.as_deref().unwrap_or_default();
    let words = std::iter::once(name).chain(given.argument.iter().map(OsString::as_os_str));
    subject.arguments = Some(command_line(words));
    let container = given.container.as_deref();
    let container = container.map(|text| imagined::container(text, names)).transpose()?;
    let (of_container, container_name) = container.unzip();
    subject.imagined_container = container_name;
    let cgroup = given.from.clone().or(of_container);
    let cgroup = cgroup.or_else(|| given.unit.as_deref().map(|unit| usual_cgroup(unit, uid)));
    let tree = survey.hierarchies.of_units().and_then(|index| survey.hierarchies.get(index));
    if let Some((cgroup, tree)) = cgroup.zip(tree) {
        subject.imagined_cgroup = format!("0:{}:{cgroup}\n", tree.listed).into_bytes();
    }
    Ok(subject)
}

/// Returns an ancestor of root that runs this program.
fn ancestor(named: &OsStr) -> Result<Ancestor, ToolError> {
    let path = program(named)?;
    let found = WhatIfProgram::find(&path);
    let (exe, invoked) = found.map_or((path, None), |found| (found.exe, found.invoked));
    let bytes = |path: PathBuf| path.into_os_string().into_encoded_bytes().into_boxed_slice();
    Ok(Ancestor { path: bytes(exe), invoked: invoked.map(bytes), is_of_root: true })
}

fn unknown(what: &str, name: &str) -> ToolError {
    ToolError::Usage(format!("explain: unknown {what}: {}", name.escape_debug()))
}

/// Checks the path of an executable, which need not exist on this host; a bare name must be found in PATH.
fn program(named: &OsStr) -> Result<PathBuf, ToolError> {
    let shown = EscapedBytes(named.as_encoded_bytes());
    if named.is_empty() {
        return Err(ToolError::Usage("explain: --exe: the path is empty".to_owned()));
    }
    if !named.as_encoded_bytes().contains(&b'/') {
        let unknown = format!("explain: --exe: {shown} not found in PATH: give its path");
        located(Path::new(named)).ok_or(ToolError::Usage(unknown))?;
    } else if !Path::new(named).is_file() {
        eprintln!("cgrulectl: {shown} does not exist on this host: links in it are not resolved");
    }
    Ok(PathBuf::from(named))
}
