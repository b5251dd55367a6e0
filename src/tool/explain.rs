//! `cgrulectl explain`: which rule a process falls under, why not an earlier one, where it is, and what
//! keeps it from its group.

mod json;
mod reason;
mod subject;
mod verdict;
mod view;

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::asking::{self, Address, Notes};
use super::command::{Command, Failure, Flag, Given};
use super::foreseen::located;
use super::locale;
use super::unread;
use crate::cgroup::provision::UserSliceSpec;
use crate::config::diagnostic::has_errors;
use crate::config::escape::{Escaped, EscapedBytes};
use crate::daemon;
use crate::event::{Gid, Pid, Uid};
use crate::load::NameService;
use crate::process::Proc;
use crate::rebuild::Survey;
use crate::rules::{Rule, RuleId};

pub use reason::{Memory, span, why};
pub use subject::{Life, Parent, Program, Subject};
use verdict::unseen;
pub use verdict::{Seat, State, Verdict, judge};
pub use view::{Manner, show};

pub(super) const COMMAND: Command = Command {
    name: "explain",
    operands: "[PID]...",
    summary: "Say which group a process belongs in, and why it is not there",
    flags: &[
        Flag::value("user", "USER", "imagine a process of this user instead, by name or number"),
        Flag::value("group", "GROUP", "imagine it with this group (default: the user's own)"),
        Flag::value("exe", "PATH", "imagine that it runs this program"),
        Flag::new("all", "show every rule that was tried, with whole paths"),
        Flag::new("json", "one object for each process, in an array"),
    ],
    examples: &[
        ("explain $$", "is my shell in its group? exit 1 if it is not, and why"),
        ("explain --user www-data --exe /usr/bin/php", "where would php of www-data be put?"),
    ],
    ends_at_operand: false,
    run,
};

/// All that is said of a process.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The process.
    pub subject: Subject,
    /// What the rules say of it.
    pub verdict: Verdict,
    /// When the daemon moved it last, if it remembers; `None` when it was not asked or did not tell.
    pub moved: Option<Option<Duration>>,
    /// The last external move that the daemon remembers, in words.
    pub external_move: Option<String>,
    /// Why it is misplaced, if it is.
    pub reasons: Vec<String>,
}

impl Explained {
    /// The rule that decides.
    pub fn rule<'s>(&self, survey: &'s Survey) -> Option<&'s Rule> {
        self.verdict.walk.winner.and_then(|RuleId(id)| survey.loaded.rules.get(id as usize))
    }

    /// The reasons why the process is not where its rule says, also when the rule cannot be applied.
    fn all_reasons(&self, survey: &Survey) -> Vec<String> {
        let inapplicable = self.rule(survey).and_then(|rule| rule.action.inapplicable());
        let own = inapplicable.map(|reason| {
            format!(
                "the rule matches, but cannot be applied on this host: {reason}; the process stays where \
                 it is"
            )
        });
        let kept = self.slice_table(survey).map(|table| {
            let origin = Escaped(&table.origin.to_string()).to_string();
            format!("the table at {origin} limits its slice, and a rule without exe does not move it out")
        });
        own.into_iter().chain(kept).chain(self.reasons.iter().cloned()).collect()
    }

    /// The table that keeps the process in its slice.
    fn slice_table<'s>(&self, survey: &'s Survey) -> Option<&'s UserSliceSpec> {
        let rule = self.rule(survey).filter(|_| self.verdict.state == State::InSlice)?;
        verdict::slice_table(survey, &self.subject, rule)
    }

    /// What makes the answer unsure: rules that ask for a program that we could not see, and files that
    /// we may not read.
    fn caveats(&self, survey: &Survey) -> Vec<String> {
        self.hidden(survey).into_iter().chain(unread::told(&self.verdict.unread)).collect()
    }

    fn hidden(&self, survey: &Survey) -> Option<String> {
        let Program::Hidden(why) = &self.subject.program else { return None };
        let asking = unseen(self.rule(survey), &self.subject, &self.verdict.walk);
        (asking > 0).then(|| {
            let rules = if asking == 1 { "a rule asks" } else { "rules ask" };
            format!("{rules} for its program, which is not known: {why}")
        })
    }
}

fn run(given: &Given, out: &mut dyn Write) -> Result<u8, Failure> {
    let is_imagined = ["user", "group", "exe"].iter().any(|flag| given.has(flag));
    match (is_imagined, given.operands.is_empty()) {
        (true, false) => {
            let message = "explain: --user, --group and --exe are for a process that has no PID";
            return Err(Failure::Usage(message.to_owned()));
        }
        (false, true) => {
            return Err(Failure::Usage("explain: give a PID, or --user USER".to_owned()));
        }
        (true, true) | (false, false) => {}
    }
    let pids = pids(given)?;
    let invocation = if is_imagined {
        asking::invocation(given, Notes::Said)
    } else {
        asking::as_in_force(given, Notes::Said)
    };
    let mut survey = daemon::survey(&invocation, None);
    let failed = |error: std::io::Error| Failure::Failed(format!("/proc: {error}"));
    let mut proc = Proc::open(Path::new("/proc")).map_err(failed)?;
    let answers = if is_imagined {
        let subject = imagined(given, &survey.names)?;
        let verdict = judge(&survey, &subject, &mut proc);
        let reasons = Vec::new();
        vec![Answer::There(Box::new(Explained {
            subject,
            verdict,
            moved: None,
            external_move: None,
            reasons,
        }))]
    } else {
        living(&mut survey, &pids, &asking::address(given), &mut proc)?
    };
    print(given, &survey, &answers, out)?;
    out.flush()?;
    if survey.loaded.rules.is_empty() {
        eprintln!(
            "cgrulectl: no rule was read: there is none, or the daemon was started with --config, \
             --rules, --root or --no-legacy, which are to be given here too"
        );
    }
    if has_errors(&survey.loaded.diagnostics) {
        eprintln!("cgrulectl: some rules are wrong and were not tried: see cgrulectl check");
    }
    let is_wrong = |answer: &Answer| match answer {
        Answer::There(one) => {
            matches!(one.verdict.state, State::Misplaced | State::Inapplicable)
        }
        Answer::Gone(..) => true,
    };
    Ok(u8::from(answers.iter().any(is_wrong)))
}

fn print(
    given: &Given,
    survey: &Survey,
    answers: &[Answer],
    out: &mut dyn Write,
) -> Result<(), Failure> {
    if given.has("json") {
        let element = |answer| element(survey, answer);
        return Ok(super::json::write(&answers.iter().map(element).collect::<Vec<_>>(), out)?);
    }
    let manner = Manner { color: given.color, all: given.has("all"), ascii: !locale::is_unicode() };
    let there = answers.iter().filter_map(|answer| match answer {
        Answer::There(one) => Some(one),
        Answer::Gone(..) => None,
    });
    for (index, one) in there.enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        show(survey, one, manner, out)?;
    }
    Ok(())
}

fn element<'a>(survey: &Survey, answer: &'a Answer) -> json::Element<'a> {
    match answer {
        Answer::There(one) => json::Element::There(Box::new(json::Document::of(survey, one))),
        Answer::Gone(pid, why) => json::Element::Missing(json::Missing::of(*pid, why)),
    }
}

/// What came of a question.
enum Answer {
    There(Box<Explained>),
    /// There is no such process, in words.
    Gone(Pid, String),
}

/// The processes, in order. Of those that do not exist, and of a daemon that does not tell, is said so.
fn living(
    survey: &mut Survey,
    pids: &[Pid],
    address: &Address,
    proc: &mut Proc,
) -> Result<Vec<Answer>, Failure> {
    let numbers: Vec<u32> = pids.iter().map(|pid| pid.get()).collect();
    let memories = Memory::ask(address, &numbers, survey);
    let (mut answers, mut has_told) = (Vec::new(), false);
    for (pid, memory) in pids.iter().zip(memories) {
        let Some(subject) = Subject::living(*pid, proc, &survey.names)? else {
            let why = match proc.owner(*pid) {
                Some(owner) => {
                    format!("{pid} is a thread of process {}: explain that", owner.process)
                }
                None => format!("there is no process {pid}"),
            };
            eprintln!("cgrulectl: {why}");
            answers.push(Answer::Gone(*pid, why));
            continue;
        };
        let mut verdict = judge(survey, &subject, proc);
        let is_well = matches!(verdict.state, State::InPlace | State::NoRule);
        if is_well && memory.has_other_rules() {
            verdict.state = State::Outdated;
        }
        let moved = memory.moved();
        if verdict.state != State::Misplaced && !has_told {
            let notes = memory.general().iter().cloned().chain(memory.silence());
            notes.for_each(|note| eprintln!("cgrulectl: {note}"));
            has_told = true;
        }
        let external_move = memory.external_move();
        let mut one = Explained { subject, verdict, moved, external_move, reasons: Vec::new() };
        if let (State::Misplaced, Some(rule)) = (one.verdict.state, one.rule(survey)) {
            one.reasons = why(survey, &one.subject, rule, &one.verdict, &memory);
        }
        answers.push(Answer::There(Box::new(one)));
    }
    Ok(answers)
}

fn pids(given: &Given) -> Result<Vec<Pid>, Failure> {
    let number = |operand: &std::ffi::OsString| {
        let found = operand.to_str().and_then(|text| text.parse().ok()).and_then(Pid::new);
        let shown = EscapedBytes(operand.as_encoded_bytes());
        found.ok_or_else(|| Failure::Usage(format!("explain: {shown} is no process id")))
    };
    given.operands.iter().map(number).collect()
}

fn imagined(given: &Given, names: &NameService) -> Result<Subject, Failure> {
    let failed = |error| Failure::Failed(format!("the name service failed: {error}"));
    let unknown = |what: &str, name: &str| {
        Failure::Usage(format!("explain: no {what} is named {}", name.escape_debug()))
    };
    let uid = match given.text("user")? {
        None => return Err(Failure::Usage("explain: --user is missing".to_owned())),
        Some(text) => match text.parse() {
            Ok(number) => Uid(number),
            Err(_) => names.uid(text).map_err(failed)?.ok_or_else(|| unknown("user", text))?,
        },
    };
    let gid = match given.text("group")? {
        // Who has no group of his own has that of his number on most hosts.
        None => names.login_group(uid).map_err(failed)?.unwrap_or(Gid(uid.0)),
        Some(text) => match text.parse() {
            Ok(number) => Gid(number),
            Err(_) => names.gid(text).map_err(failed)?.ok_or_else(|| unknown("group", text))?,
        },
    };
    let program = given.value("exe").map(program).transpose()?;
    Subject::imagined(uid, gid, program.as_deref(), names)
}

/// The path of a program, which need not be on this host; a bare name is looked for in PATH.
fn program(named: &OsStr) -> Result<PathBuf, Failure> {
    let shown = EscapedBytes(named.as_encoded_bytes());
    if named.is_empty() {
        return Err(Failure::Usage("explain: --exe: name a program".to_owned()));
    }
    if !named.as_encoded_bytes().contains(&b'/') {
        let unknown = format!("explain: --exe: no program {shown} is in PATH: give its path");
        return located(Path::new(named)).ok_or(Failure::Usage(unknown));
    }
    let path = std::path::absolute(named)
        .map_err(|error| Failure::Failed(format!("the current directory: {error}")))?;
    if !path.is_file() {
        eprintln!("cgrulectl: there is no file {shown} here: it is taken as it is written");
    }
    Ok(path)
}
