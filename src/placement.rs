//! Selection of the rule for a process, the path that follows from it, and whether the process is
//! moved there: the engine and the commands of the tool use the same functions. Reads no more of the process than the rules
//! need.

mod protection;
pub mod stay;

use crate::event::{Gid, Uid};
use crate::kernel::program::ExeInfo;
use crate::policy::User;
use crate::policy::load::Subordinates;
use crate::rules::destination::{Destination, SpecifierValues};
use crate::rules::ignore::Scheduling;
use crate::rules::matcher::Matcher;
use crate::rules::{Action, Facts, Rule, RuleId};
pub use protection::{Protection, protection};

/// Executable of a process, as far as it was read.
#[derive(Clone, Copy, Debug)]
pub enum KnownExe<'e> {
    /// Executable that was not read.
    Unread,
    /// Executable that cannot be read, or not in time: no rule can require or exclude it.
    Unavailable,
    /// Executable that was read, perhaps with open details.
    Read(ExeInfo<'e>),
}

impl<'e> KnownExe<'e> {
    /// Returns the executable if it was read.
    pub fn seen(self) -> Option<ExeInfo<'e>> {
        match self {
            Self::Unread | Self::Unavailable => None,
            Self::Read(seen) => Some(seen),
        }
    }

    /// Returns the path of the executable as the kernel shows it, if it was read.
    pub fn raw(self) -> Option<&'e [u8]> {
        self.seen().map(|seen| seen.raw)
    }

    /// Returns the same information marked as final: no further reads are requested.
    #[must_use]
    pub fn as_final(self) -> Self {
        match self {
            Self::Unread | Self::Unavailable => Self::Unavailable,
            Self::Read(seen) => Self::Read(ExeInfo { is_unsure: false, ..seen }),
        }
    }
}

/// Data that must be read before a process can be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The link to the executable of the process.
    Exe,
    /// The namespaces of the process.
    Namespaces,
    /// The name and groups of this user, below whose service manager it is.
    Owner(Uid),
}

/// Result of [`decide`] for a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Choice {
    /// The process matches this rule.
    Rule(RuleId),
    /// No rule matches the process.
    NoRule,
    /// The result depends on the executable, which was not read.
    NeedsExe,
    /// The result depends on details of the executable that only [`crate::kernel::program::examine`] can
    /// determine.
    NeedsExamination,
}

/// Returns the first rule that matches and applies. Needs the executable only if a rule that could
/// come first requires it, and calls `applies` only for rules that match.
pub fn decide(
    matcher: &Matcher,
    user: &User,
    (uid, gid): (Uid, Gid),
    exe: KnownExe<'_>,
    mut applies: impl FnMut(&Rule) -> bool,
) -> Choice {
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
                KnownExe::Unread => return Choice::NeedsExe,
                KnownExe::Read(seen) if seen.is_unsure => return Choice::NeedsExamination,
                KnownExe::Unavailable | KnownExe::Read(_) => {}
            }
        }
        let Some(id) = decision else { return Choice::NoRule };
        if matcher.rule(id).is_none_or(&mut applies) {
            return Choice::Rule(id);
        }
        decision = matcher.decide_after(&user.plan, &facts, id);
    }
}

/// Returns the user whose UID and name stand in the path of a cgroup for processes of `uid`: the owner of a
/// subordinate UID, so that a user with such a range has one cgroup and not 65,536, each with the
/// full limit.
pub fn path_user<'n>(
    subordinates: &'n Subordinates,
    uid: Uid,
    name: Option<&'n str>,
) -> (Uid, Option<&'n str>) {
    match subordinates.owner_of(uid).filter(|_| name.is_none()) {
        Some(owner) => (owner.uid, owner.name),
        None => (uid, name),
    }
}

/// Sets `path` to the path of a destination from the top of its hierarchies. `root` is the managed
/// root, without a trailing slash.
pub fn render(
    root: &str,
    destination: &Destination,
    values: &SpecifierValues<'_>,
    path: &mut String,
) {
    path.clear();
    path.push_str(root);
    path.push('/');
    destination.render(values, path);
    if path.len() > 1 && path.ends_with('/') {
        path.pop();
    }
}

/// Checks whether a matching rule applies to the current cgroup and scheduling policy of the
/// process. The kernel reports no change of either, so the state at the evaluation counts.
/// `cgroup` returns the content of its `/proc/PID/cgroup`, and `is_real_time` checks its policy; each
/// reads by `reader`, and only if the rule depends on it.
pub fn applies<R>(
    rule: &Rule,
    reader: &mut R,
    cgroup: impl FnOnce(&mut R) -> Option<&[u8]>,
    is_real_time: impl FnOnce(&mut R) -> bool,
) -> bool {
    let Action::Ignore(when) = &rule.action else { return true };
    let place = when.below.is_none() || cgroup(reader).is_some_and(|text| when.means_place(text));
    place && (when.scheduling == Scheduling::Any || when.scheduling.means(is_real_time(reader)))
}
