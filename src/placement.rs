//! Selection of the rule for a process, the path that follows from it, and whether the process is
//! moved there: the engine and the commands of the tool use the same functions. Reads no more of the process than the rules
//! need.

pub mod assertions;
pub mod conditions;
pub mod container;
mod protection;
pub mod stay;

use crate::event::{Gid, Uid};
use crate::kernel::program::ExeInfo;
use crate::policy::User;
use crate::policy::ancestor_programs::ProgramSet;
use crate::policy::load::Subordinates;
use crate::rules::container::ContainerKey;
use crate::rules::destination::{Destination, SpecifierValues};
use crate::rules::matcher::Matcher;
use crate::rules::{Facts, Rule, RuleId, Which};
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
    /// The arguments of its program.
    Arguments,
    /// The name of a container.
    ContainerName(ContainerKey),
    /// The name and groups of this user: the one below whose service manager the process is, who logged in,
    /// or who created its container.
    User(Uid),
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
    /// The result depends on data that were not read.
    Needs(Missing),
}

impl Choice {
    /// Returns the rule, or that none matches; `None` if something must be read first.
    pub const fn decided(self) -> Option<Option<RuleId>> {
        match self {
            Self::Rule(id) => Some(Some(id)),
            Self::NoRule => Some(None),
            Self::NeedsExe | Self::NeedsExamination | Self::Needs(_) => None,
        }
    }
}

/// What data are needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The decision.
    Decision,
    /// Counters of rules that observe, or output. Without these data the decision is the same.
    Record,
}

/// Returns the first rule that matches and applies; rules that only observe count as absent. Needs the
/// executable only if a rule that could come first requires it. `condition` returns whether the conditions
/// of a rule are met; it is called only for rules whose other criteria match.
pub fn decide(
    matcher: &Matcher,
    user: &User,
    ids: (Uid, Gid),
    exe: KnownExe<'_>,
    mut condition: impl FnMut(RuleId, &Rule) -> Result<bool, Missing>,
) -> Choice {
    let facts = facts(ids, exe);
    let observes = |id: &RuleId| matcher.rule(*id).is_some_and(|rule| rule.action.observes());
    let acting = |mut next: Option<RuleId>| {
        while let Some(id) = next.filter(observes) {
            next = matcher.decide_after(&user.plan, &facts, id);
        }
        next
    };
    let mut decision = acting(matcher.decide(&user.plan, &facts));
    loop {
        if let Some(needed) = asked(matcher, user, (ids.1, exe), decision, Which::Acting) {
            return needed;
        }
        let Some(id) = decision else { return Choice::NoRule };
        let conditional = matcher.rule(id).filter(|rule| rule.is_conditional());
        match conditional.map_or(Ok(true), |rule| condition(id, rule)) {
            Ok(true) => return Choice::Rule(id),
            Ok(false) => {}
            Err(missing) => return Choice::Needs(missing),
        }
        decision = acting(matcher.decide_after(&user.plan, &facts, id));
    }
}

/// Calls `observe` for each rule that observes, would match and comes before `decided`, the decision for the
/// same process: it would be that rule if that were active and the others that observe absent.
///
/// A rule that observes needs the same data as an active one, so that its count is right. With `passes_over`
/// it is passed over if they are not known. Returns whether none was.
///
/// # Errors
/// What must be read first: the calls so far are void.
pub fn observe_before(
    matcher: &Matcher,
    (user, gid, exe): (&User, Gid, KnownExe<'_>),
    decided: Option<RuleId>,
    passes_over: bool,
    mut condition: impl FnMut(RuleId, &Rule) -> Result<bool, Missing>,
    mut observe: impl FnMut(RuleId),
) -> Result<bool, Choice> {
    let mut is_complete = true;
    let mut lacks = |needed| {
        is_complete = false;
        if passes_over { Ok(()) } else { Err(needed) }
    };
    if let Some(needed) = asked(matcher, user, (gid, exe), decided, Which::All) {
        lacks(needed)?;
    }
    let facts = facts((user.identity.uid, gid), exe);
    let mut next = matcher.decide(&user.plan, &facts);
    while let Some(id) = next.filter(|id| decided.is_none_or(|decided| *id < decided)) {
        // Active ones before the decision have conditions that are not met.
        let rule = matcher.rule(id).filter(|rule| rule.action.observes());
        match rule.map_or(Ok(false), |rule| condition(id, rule)) {
            Ok(true) => observe(id),
            Ok(false) => {}
            Err(missing) => lacks(Choice::Needs(missing))?,
        }
        next = matcher.decide_after(&user.plan, &facts, id);
    }
    Ok(is_complete)
}

fn facts((uid, gid): (Uid, Gid), exe: KnownExe<'_>) -> Facts<'_> {
    let seen = exe.seen();
    Facts { uid, gid, exe: seen.map(|seen| seen.exe), invoked: seen.and_then(|seen| seen.invoked) }
}

/// Returns what must be known of the executable before `decision` is certain.
fn asked(
    matcher: &Matcher,
    user: &User,
    (gid, exe): (Gid, KnownExe<'_>),
    decision: Option<RuleId>,
    which: Which,
) -> Option<Choice> {
    let asks = |needed| matcher.asks_exe(&user.plan, gid, decision, which).then_some(needed);
    match exe {
        KnownExe::Unread => asks(Choice::NeedsExe),
        KnownExe::Read(seen) if seen.is_unsure => asks(Choice::NeedsExamination),
        KnownExe::Unavailable | KnownExe::Read(_) => None,
    }
}

/// Checks whether a process runs one of these programs: [`Choice::Rule`] if it does.
pub fn runs_program(programs: &ProgramSet, exe: KnownExe<'_>) -> Choice {
    decide(&programs.matcher, &programs.user, (Uid(0), Gid(0)), exe, |_, _| Ok(true))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Pid;

    #[test]
    fn an_executable_that_was_read_has_a_path_and_can_be_final() {
        let seen = ExeInfo { is_unsure: true, ..ExeInfo::kernel_thread(b"kswapd0") };
        assert_eq!(KnownExe::Read(seen).raw(), Some(&b"kswapd0"[..]));
        assert!(KnownExe::Read(seen).as_final().seen().is_some_and(|own| !own.is_unsure));
        for unknown in [KnownExe::Unread, KnownExe::Unavailable] {
            assert_eq!(unknown.raw(), None);
            assert!(matches!(unknown.as_final(), KnownExe::Unavailable));
        }
    }

    #[test]
    fn a_path_has_no_slash_at_its_end_unless_it_is_the_top() {
        let pid = Pid::new(1).unwrap();
        let (uid, gid) = (Uid(5), Gid(6));
        let who = SpecifierValues { uid, user: None, gid, group: None, pid, program: None };
        for (root, text, expected) in [
            ("", "/", "/"),
            ("", "a/%U", "/a/5"),
            ("/pool", "/", "/pool"),
            ("/pool", "/a/", "/pool/a"),
        ] {
            let mut path = "before".to_owned();
            render(root, &Destination::parse(text).unwrap(), &who, &mut path);
            assert_eq!(path, expected, "{root} {text}");
        }
    }
}
