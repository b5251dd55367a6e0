//! From what is true of a process to the rule that it falls under, reading no more of it than the rules
//! ask for.

use crate::event::{Gid, Pid, Uid};
use crate::policy::User;
use crate::process::Proc;
use crate::program::Seen;
use crate::rules::ignore::Scheduling;
use crate::rules::matcher::Matcher;
use crate::rules::{Action, Facts, Rule, RuleId};

/// What the rules say of a process.
#[must_use]
pub enum Decided<'e> {
    /// This rule; the program if it was read.
    Rule(RuleId, Option<Seen<'e>>),
    /// None; the program if it was read.
    NoRule(Option<Seen<'e>>),
    /// It depends on what only a slower look at this executable can tell.
    Unsure(&'e [u8]),
}

/// The first rule that holds and applies. The executable is read only if a rule that could come first
/// asks for it, and where the process is now only if such a rule depends on it.
pub fn decide<'e>(
    matcher: &Matcher,
    user: &User,
    (uid, gid): (Uid, Gid),
    pid: Pid,
    proc: &mut Proc,
    see: impl FnOnce(&mut Proc) -> Option<Seen<'e>>,
) -> Decided<'e> {
    let mut facts = Facts { uid, gid, exe: None, invoked: None };
    let mut decision = matcher.decide(&user.plan, &facts);
    let mut see = Some(see);
    let mut seen: Option<Seen<'e>> = None;
    loop {
        if matcher.asks_exe(&user.plan, gid, decision) {
            if let Some(see) = see.take() {
                seen = see(proc);
                facts.exe = seen.as_ref().map(|seen| seen.exe);
                facts.invoked = seen.as_ref().and_then(|seen| seen.invoked);
                decision = matcher.decide(&user.plan, &facts);
                continue;
            }
            if let Some(seen) = seen.as_ref().filter(|seen| seen.is_unsure) {
                return Decided::Unsure(seen.raw);
            }
        }
        let Some(id) = decision else { return Decided::NoRule(seen) };
        if matcher.rule(id).is_none_or(|rule| applies(rule, proc, pid)) {
            return Decided::Rule(id, seen);
        }
        decision = matcher.decide_after(&user.plan, &facts, id);
    }
}

/// Whether a rule that holds applies to where the process is now and how it is scheduled. Nothing
/// tells us when that changes, so it counts as it is at the look.
pub fn applies(rule: &Rule, proc: &mut Proc, pid: Pid) -> bool {
    let Action::Ignore(when) = &rule.action else { return true };
    let place = when.below.is_none() || proc.cgroup(pid).is_some_and(|text| when.means_place(text));
    place && (when.scheduling == Scheduling::Any || when.scheduling.means(proc.is_real_time(pid)))
}
