//! `cgrulectl plan --since`: which recorded evaluations the files on disk would have decided otherwise. Must not decide
//! anything itself: the replay does, with the functions of an evaluation.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use super::view::PlanViewOptions;
use super::{CHANGES, ERRORS};
use crate::cli::command::{DaemonFlags, ToolError};
use crate::cli::decision_filter::UserNames;
use crate::cli::format::{counted, timestamp};
use crate::cli::history::each;
use crate::cli::json;
use crate::config::diagnostic::has_errors;
use crate::config::escape::Escaped;
use crate::control::history::message::RecordedEvaluation;
use crate::control::history::replay::{
    ReplayResult, ReplayedDecision, ReplayedEffect, ids, replay,
};
use crate::daemon;
use crate::event::{Nanos, Uid};
use crate::policy::load::NameService;
use crate::policy::{Policy, User};
use crate::rules::names::UserIdentity;

/// Differences between the recorded decisions and those of other rules. Fields are added, and must never be renamed.
#[derive(Debug, Default, Serialize)]
pub(super) struct PastPlan {
    /// The number of rules of the files.
    rules: usize,
    /// The number of recorded evaluations that some rule set decided.
    evaluations: u64,
    /// Those for which both have the same effect.
    same: u64,
    /// Those that depend on a fact that the history does not contain, by that fact.
    unknown: BTreeMap<&'static str, u64>,
    /// Evaluations that were overwritten while they were read.
    lost: u64,
    /// Those that would have been decided otherwise; equal ones together.
    different: Vec<PastDifference>,
}

/// Evaluations that would have been decided otherwise in the same way.
#[derive(Debug, Serialize)]
struct PastDifference {
    count: u64,
    /// The times of the first and the last one, in milliseconds since 1970.
    first_ms: u64,
    last_ms: u64,
    /// The PID of the last one.
    pid: u32,
    #[serde(flatten)]
    kind: DifferenceKind,
}

/// What evaluations have in common that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
struct DifferenceKind {
    uid: u32,
    exe: Option<String>,
    old: PastDecision,
    new: PastDecision,
}

/// A decision about a past process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
struct PastDecision {
    rule: Option<String>,
    /// `stays`, `inapplicable` or `moves`.
    effect: &'static str,
    /// The destinations as written.
    cgroups: Vec<String>,
}

impl From<ReplayedDecision> for PastDecision {
    fn from(ReplayedDecision { rule, effect }: ReplayedDecision) -> Self {
        let (effect, cgroups) = match effect {
            ReplayedEffect::Stays => ("stays", Vec::new()),
            ReplayedEffect::Inapplicable => ("inapplicable", Vec::new()),
            ReplayedEffect::Moved(cgroups) => ("moves", cgroups),
        };
        Self { rule, effect, cgroups }
    }
}

/// Collects the differences.
struct PastReplay<'p> {
    policy: &'p Policy,
    names: &'p NameService,
    users: HashMap<Uid, User>,
    kinds: HashMap<DifferenceKind, usize>,
    found: PastPlan,
}

impl PastReplay<'_> {
    fn add(&mut self, recorded: &RecordedEvaluation) -> Result<(), ToolError> {
        let Some((uid, _)) = ids(recorded) else { return Ok(()) };
        if !self.users.contains_key(&uid) {
            let identity = self.identity(uid)?;
            self.users.insert(uid, User::new(&self.policy.matcher, identity, Nanos(0)));
        }
        match replay(&self.policy.matcher, &self.users[&uid], recorded) {
            ReplayResult::NotDecided => return Ok(()),
            ReplayResult::Same => self.found.same += 1,
            ReplayResult::Unknown(fact) => {
                *self.found.unknown.entry(fact.word()).or_default() += 1;
            }
            ReplayResult::Different { old, new } => {
                let exe = recorded.invoked.clone().or_else(|| recorded.exe.clone());
                let (old, new) = (old.into(), new.into());
                self.differs(DifferenceKind { uid: uid.0, exe, old, new }, recorded);
            }
        }
        self.found.evaluations += 1;
        Ok(())
    }

    /// Looks up a user, if the rules depend on more than the UID.
    fn identity(&self, uid: Uid) -> Result<UserIdentity, ToolError> {
        if !self.policy.matcher.asks_identity() {
            return Ok(UserIdentity::nameless(uid));
        }
        self.names.identify(uid).map_err(ToolError::nss)
    }

    fn differs(&mut self, kind: DifferenceKind, recorded: &RecordedEvaluation) {
        let all = &mut self.found.different;
        let at = *self.kinds.entry(kind.clone()).or_insert_with(|| {
            let (first_ms, last_ms) = (recorded.time_ms, recorded.time_ms);
            all.push(PastDifference { count: 0, first_ms, last_ms, pid: recorded.pid, kind });
            all.len() - 1
        });
        let own = &mut all[at];
        own.count += 1;
        (own.last_ms, own.pid) = (recorded.time_ms, recorded.pid);
    }
}

/// Replays the evaluations of this last time, and writes the differences. Returns the exit code.
pub(super) fn run(
    flags: &DaemonFlags,
    since: Duration,
    (is_json, options): (bool, PlanViewOptions),
    out: &mut dyn Write,
) -> Result<u8, ToolError> {
    let survey = daemon::survey(&flags.options(), None);
    if has_errors(&survey.loaded.diagnostics) {
        survey.loaded.diagnostics.iter().for_each(|one| eprintln!("{one}"));
        eprintln!("cgrulectl: no plan, because the files have errors");
        return Ok(ERRORS);
    }
    let policy = survey.policy();
    let found = PastPlan { rules: survey.loaded.rules.len(), ..PastPlan::default() };
    let (users, kinds) = (HashMap::new(), HashMap::new());
    let mut past = PastReplay { policy: &policy, names: &survey.names, users, kinds, found };
    let (_, lost) = each(flags, (Some(since), None, None), |own| past.add(own))?;
    past.found.lost = lost;
    let mut found = past.found;
    found.different.sort_by_key(|one| std::cmp::Reverse((one.count, one.last_ms)));
    if is_json {
        writeln!(out, "{}", json::line(&found)?)?;
    } else {
        show(&found, options, out)?;
    }
    Ok(if found.different.is_empty() { 0 } else { CHANGES })
}

fn show(found: &PastPlan, options: PlanViewOptions, out: &mut dyn Write) -> Result<(), ToolError> {
    let rules = counted(found.rules as u64, "rule", "rules");
    let evaluations = counted(found.evaluations, "evaluation", "evaluations");
    writeln!(out, "plan: {rules}, {evaluations} of the past")?;
    let different: u64 = found.different.iter().map(|one| one.count).sum();
    for (count, text) in
        [(different, "would have been decided otherwise"), (found.same, "the same")]
    {
        writeln!(out, "  {} {text}", counted(count, "evaluation", "evaluations"))?;
    }
    for (fact, count) in &found.unknown {
        let count = counted(*count, "evaluation", "evaluations");
        writeln!(out, "  {count} not known: the history does not contain the {fact}")?;
    }
    if found.lost > 0 {
        let lost = counted(found.lost, "evaluation", "evaluations");
        writeln!(out, "  {lost} overwritten while they were read")?;
    }
    let mut names = UserNames::default();
    let shown = options.shown(found.different.len());
    for (index, one) in found.different.iter().take(shown).enumerate() {
        if index == 0 {
            writeln!(out, "\ndecided otherwise:")?;
        }
        let PastDifference { count, last_ms, pid, kind, .. } = one;
        let DifferenceKind { uid, exe, old, new } = kind;
        let exe = exe.as_deref().map_or_else(String::new, |exe| format!(" {}", Escaped(exe)));
        let user = names.of(Some(*uid));
        let (old, new, arrow) = (told(old), told(new), options.arrow());
        let last = timestamp(*last_ms);
        writeln!(
            out,
            "  {count:>6}  {user}{exe}: {old} {arrow} {new} (last {last}, process {pid})"
        )?;
    }
    match found.different.len() - shown {
        0 => Ok(()),
        more => Ok(writeln!(out, "  {more} more; --all shows all")?),
    }
}

fn told(decision: &PastDecision) -> String {
    let PastDecision { rule, effect, cgroups } = decision;
    match (rule, *effect) {
        (None, _) => "no rule".to_owned(),
        (Some(rule), "moves") => format!("{} by '{}'", Escaped(&cgroups.join(", ")), Escaped(rule)),
        (Some(rule), effect) => format!("{effect} by '{}'", Escaped(rule)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::test_policy;

    fn recorded(pid: u32, exe: &str, cgroup: Option<&str>) -> RecordedEvaluation {
        RecordedEvaluation {
            time_ms: 1_795_528_531_000 + u64::from(pid),
            pid,
            uid: Some(2_000_000_005),
            gid: Some(50),
            exe: Some(exe.to_owned()),
            exe_on_host: true,
            rule: cgroup.map(|_| "old".to_owned()),
            cgroups: cgroup.map(str::to_owned).into_iter().collect(),
            outcome: if cgroup.is_some() { "placed" } else { "no-rule" }.to_owned(),
            ..RecordedEvaluation::default()
        }
    }

    fn found(rules: &str, all: &[RecordedEvaluation]) -> PastPlan {
        let policy = test_policy(rules, Vec::new());
        let names = NameService::default();
        let mut past = PastReplay {
            policy: &policy,
            names: &names,
            users: HashMap::new(),
            kinds: HashMap::new(),
            found: PastPlan { rules: policy.matcher.rules().len(), ..PastPlan::default() },
        };
        all.iter().for_each(|one| past.add(one).unwrap());
        past.found
    }

    fn text(found: &PastPlan) -> String {
        let mut out = Vec::new();
        show(found, PlanViewOptions { all: false, ascii: true }, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    const MAKE: &str =
        "[[rule]]\nname = \"new\"\nuser = \"2000000005\"\nexe = \"/bin/make\"\ncgroup = \"b\"\n";

    #[test]
    fn equal_differences_are_one_line_with_their_number() {
        let make = |pid| recorded(pid, "/bin/make", Some("a"));
        let all = [make(7), recorded(8, "/bin/sh", None), make(9)];
        let found = found(MAKE, &all);
        assert_eq!((found.evaluations, found.same), (3, 1));
        let lines = text(&found);
        assert!(lines.starts_with("plan: 1 rule, 3 evaluations of the past\n"), "{lines}");
        assert!(lines.contains("  2 evaluations would have been decided otherwise\n"), "{lines}");
        let line = "       2  2000000005 /bin/make: a by 'old' -> b by 'new' (last 2026-11-24 13:55:31.009Z, process 9)\n";
        assert!(lines.ends_with(line), "{lines}");
    }

    #[test]
    fn what_the_history_lacks_is_counted_by_the_fact() {
        let unit = "[[rule]]\nuser = \"2000000005\"\nunit = \"a.service\"\ncgroup = \"b\"\n";
        let hidden = RecordedEvaluation { exe: None, ..recorded(7, "", Some("a")) };
        assert_eq!(found(unit, &[recorded(7, "/bin/sh", None)]).unknown, [("unit", 1)].into());
        assert_eq!(found(MAKE, &[hidden]).unknown, [("exe", 1)].into());
        let lines = text(&found(unit, &[recorded(7, "/bin/sh", None)]));
        assert!(lines.contains("1 evaluation not known: the history does not contain the unit\n"));
    }

    #[test]
    fn a_process_that_had_exited_was_not_decided() {
        let gone = RecordedEvaluation { uid: None, ..recorded(7, "/bin/sh", None) };
        assert_eq!(found(MAKE, &[gone]).evaluations, 0);
    }
}
