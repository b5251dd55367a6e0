//! From what is true of a process to the rule that it falls under, reading no more of it than the rules
//! ask for.

use crate::event::{Gid, Pid, Uid};
use crate::policy::User;
use crate::process::Proc;
use crate::program::Seen;
use crate::rules::ignore::Scheduling;
use crate::rules::matcher::Matcher;
use crate::rules::{Action, Facts, Rule, RuleId};

/// What is known of the executable of a process.
#[derive(Clone, Copy, Debug)]
pub enum Exe<'e> {
    /// It was not read.
    Unread,
    /// It cannot be read, or not in time: it is one that no rule means and none excludes.
    Unavailable,
    /// It was read.
    Read(Seen<'e>),
}

impl<'e> Exe<'e> {
    /// What was read.
    pub fn seen(self) -> Option<Seen<'e>> {
        match self {
            Self::Unread | Self::Unavailable => None,
            Self::Read(seen) => Some(seen),
        }
    }

    /// The same, to be decided by without more.
    #[must_use]
    pub fn as_final(self) -> Self {
        match self {
            Self::Unread | Self::Unavailable => Self::Unavailable,
            Self::Read(seen) => Self::Read(Seen { is_unsure: false, ..seen }),
        }
    }
}

/// What the rules say of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decided {
    /// This rule.
    Rule(RuleId),
    /// None.
    NoRule,
    /// It depends on the executable, which was not read.
    NeedsExe,
    /// It depends on what only [`crate::program::examine`] can tell of the executable.
    NeedsExamination,
}

/// The first rule that holds and applies. The executable is asked for only if a rule that could come first
/// asks for it, and where the process is now only if such a rule depends on it.
pub fn decide(
    matcher: &Matcher,
    user: &User,
    (uid, gid): (Uid, Gid),
    exe: Exe<'_>,
    mut applies: impl FnMut(&Rule) -> bool,
) -> Decided {
    let seen = exe.seen();
    let facts = Facts {
        uid,
        gid,
        exe: seen.map(|seen| seen.exe),
        invoked: seen.and_then(|seen| seen.invoked),
    };
    let mut decision = matcher.decide(&user.plan, &facts);
    loop {
        if matcher.asks_exe(&user.plan, gid, decision) {
            match exe {
                Exe::Unread => return Decided::NeedsExe,
                Exe::Read(seen) if seen.is_unsure => return Decided::NeedsExamination,
                Exe::Unavailable | Exe::Read(_) => {}
            }
        }
        let Some(id) = decision else { return Decided::NoRule };
        if matcher.rule(id).is_none_or(&mut applies) {
            return Decided::Rule(id);
        }
        decision = matcher.decide_after(&user.plan, &facts, id);
    }
}

/// Whether a rule that holds applies to where the process is now and how it is scheduled. Nothing
/// tells us when that changes, so it counts as it is at the look.
pub fn applies(rule: &Rule, proc: &mut Proc, pid: Pid, thread: Option<Pid>) -> bool {
    let Action::Ignore(when) = &rule.action else { return true };
    let place =
        when.below.is_none() || proc.cgroup(pid, thread).is_some_and(|text| when.means_place(text));
    place && (when.scheduling == Scheduling::Any || when.scheduling.means(proc.is_real_time(pid)))
}
