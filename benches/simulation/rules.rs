//! Sets of rules, and a plain reference of what they mean.

use std::path::Path;
use std::sync::Arc;

use cgruled::cgroup::host::ManagedRoots;
use cgruled::cgroup::mounts::Hierarchies;
use cgruled::config::rules_toml;
use cgruled::event::{Gid, Nanos, Uid};
use cgruled::policy::{Policy, User};
use cgruled::rules::Rule;
use cgruled::rules::matcher::Matcher;
use cgruled::rules::names::{self, ResolvedNames, UserIdentity};

use super::programs::Program;

/// A rule as data; [`Self::toml`] is what the engine reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SimRule {
    users: Option<(u32, u32)>,
    group: Option<u32>,
    exe: Option<&'static str>,
    not_exe: Option<&'static str>,
    /// `None` for `ignore`.
    pub(crate) to: Option<&'static str>,
    pub has_v1: bool,
    pub(crate) leaves_units: bool,
    unit: Option<&'static str>,
    /// Pattern of cgroups that ends in `**`.
    from: Option<&'static str>,
    not_unit: Option<&'static str>,
    /// Indexes in [`TESTED`].
    below: Option<usize>,
    not_below: Option<usize>,
}

/// Programs that rules test of ancestors.
pub(crate) const TESTED: [&str; 2] = ["/usr/bin/su", "/opt/db"];

const ANY: SimRule = SimRule {
    users: None,
    group: None,
    exe: None,
    not_exe: None,
    to: None,
    has_v1: false,
    leaves_units: false,
    unit: None,
    from: None,
    not_unit: None,
    below: None,
    not_below: None,
};

const fn people(first: u32, last: u32, to: &'static str) -> SimRule {
    SimRule { users: Some((first, last)), to: Some(to), ..ANY }
}

/// The rule sets; each has destinations of its own, except for the fifth, which has no rule.
pub(crate) const SETS: [&[SimRule]; 10] = [
    &[
        SimRule { exe: Some("/opt/db"), ..people(1000, 1999, "r0/db") },
        SimRule { group: Some(600), to: Some("r0/listed/%g"), ..ANY },
        people(1000, 1002, "r0/people/%u"),
    ],
    &[
        SimRule { to: None, ..people(1001, 1001, "") },
        SimRule { exe: Some("/opt/job.py"), ..people(1000, 1999, "r1/jobs/%U") },
        people(1000, 1000, "r1/people/%U"),
        SimRule { group: Some(500), to: Some("r1/staff/%G"), leaves_units: true, ..ANY },
    ],
    &[people(1000, 1999, "r2/people/%U")],
    &[
        SimRule { exe: Some("/usr/bin/su"), ..people(0, 0, "r3/su") },
        people(1000, 1000, "r3/one"),
        SimRule { not_exe: Some("/opt/db"), ..people(1001, 1001, "r3/not") },
        people(0, 0, "r3/root"),
    ],
    &[],
    &[
        SimRule { has_v1: true, ..people(1000, 1001, "r5/both/%U") },
        SimRule { leaves_units: true, ..people(1002, 1003, "r5/free") },
    ],
    &[SimRule { leaves_units: true, ..people(1000, 1999, "r6/all") }],
    &[
        SimRule { exe: Some("/opt/db"), has_v1: true, to: Some("r7/db"), ..ANY },
        SimRule { group: Some(601), to: Some("r7/g/%g"), ..ANY },
        people(1000, 1003, "r7/%u"),
    ],
    &[
        SimRule { exe: Some("/usr/bin/su"), ..people(1000, 1003, "r8/su") },
        SimRule {
            not_unit: Some("some.service"),
            from: Some("/other/**"),
            ..people(1000, 1002, "r8/deep")
        },
        SimRule {
            unit: Some("some.service"),
            leaves_units: true,
            ..people(1000, 1002, "r8/jobs/%U")
        },
        SimRule { from: Some("/user.slice/**"), has_v1: true, ..people(1001, 1003, "r8/user/%u") },
        people(1000, 1002, "r8/rest"),
    ],
    &[
        SimRule { below: Some(0), ..people(1000, 1002, "r9/su/%U") },
        SimRule { not_below: Some(1), ..people(1000, 1001, "r9/free") },
        people(1000, 1003, "r9/rest"),
    ],
];

/// Returns a number by which a step chooses this set: see [`chosen`].
pub(crate) fn number(set: usize) -> u16 {
    if set + 1 == SETS.len() { 0xE000 } else { u16::try_from(set).unwrap_or_default() }
}

/// Returns the set that a step chooses. Kept histories name the first nine by small numbers.
pub(crate) fn chosen(b: u16) -> usize {
    if b >= 0xE000 { SETS.len() - 1 } else { usize::from(b) % (SETS.len() - 1) }
}

impl SimRule {
    fn toml(self) -> String {
        let mut text = "[[rule]]\n".to_owned();
        if let Some((first, last)) = self.users {
            text += &format!("user = \"{first}-{last}\"\n");
        }
        if let Some(group) = self.group {
            text += &format!("group = \"{group}\"\n");
        }
        if let Some(exe) = self.exe {
            text += &format!("exe = \"{exe}\"\n");
        }
        if let Some(exe) = self.not_exe {
            text += &format!("not = {{ exe = \"{exe}\" }}\n");
        }
        for (key, value) in [("unit", self.unit), ("from", self.from)] {
            if let Some(value) = value {
                text += &format!("{key} = \"{value}\"\n");
            }
        }
        if let Some(program) = self.below {
            text += &format!("below = \"{}\"\n", TESTED[program]);
        }
        if let Some(program) = self.not_below {
            text += &format!("not = {{ below = \"{}\" }}\n", TESTED[program]);
        }
        if let Some(unit) = self.not_unit {
            text += &format!("not = {{ unit = \"{unit}\" }}\n");
        }
        match self.to {
            Some(to) => text += &format!("cgroup = \"{to}\"\n"),
            None => text += "ignore = true\n",
        }
        if self.has_v1 {
            text += "controllers = [\"cpu\"]\n";
        }
        if self.leaves_units {
            text += "leave_units = true\n";
        }
        text
    }

    fn matches(self, uid: u32, gid: u32, exe: Option<Program>, identity: &UserIdentity) -> bool {
        let has_exe = |path: &str| exe.is_some_and(|exe| exe.is_known_as(path));
        let is_listed = |group: u32| gid == group || identity.listed_in.contains(&Gid(group));
        self.users.is_none_or(|(first, last)| (first..=last).contains(&uid))
            && self.group.is_none_or(is_listed)
            && self.exe.is_none_or(has_exe)
            // A program that was not read is not excluded.
            && self.not_exe.is_none_or(|path| !has_exe(path))
    }

    /// Checks the criteria on ancestors of a process below the programs of `below`. One in the cgroup of the rule
    /// counts as below its program.
    fn has_ancestors(self, below: [bool; 2], place: &str) -> bool {
        self.below.is_none_or(|program| below[program] || self.leads_to(place))
            && !self.not_below.is_some_and(|program| below[program])
    }

    fn tests_place(self) -> bool {
        self.unit.is_some() || self.from.is_some() || self.not_unit.is_some()
    }

    /// Checks whether the rule leads to this cgroup, for some process.
    fn leads_to(self, place: &str) -> bool {
        let to = self.to.unwrap_or_default();
        let below = place.strip_prefix('/').unwrap_or_default();
        match to.split_once('%') {
            Some((start, _)) => below
                .strip_prefix(start)
                .is_some_and(|rest| !rest.is_empty() && !rest.contains('/')),
            None => below == to,
        }
    }

    /// Checks whether a process in this cgroup meets the criteria on its place.
    fn is_from(self, place: &str) -> bool {
        let is_in = |unit: &str| {
            place.split('/').nth(2) == Some(unit) && place.starts_with("/system.slice/")
        };
        let is_below = |pattern: &str| place.starts_with(pattern.trim_end_matches('*'));
        self.unit.is_none_or(is_in)
            && self.from.is_none_or(is_below)
            && !self.not_unit.is_some_and(is_in)
    }

    /// Returns the destination as a path, for a group with this name.
    pub(crate) fn path(
        self,
        (uid, gid): (u32, u32),
        group: Option<&str>,
        identity: &UserIdentity,
    ) -> Option<String> {
        let user = identity.name.clone().unwrap_or_else(|| uid.to_string());
        let group = group.map_or_else(|| gid.to_string(), str::to_owned);
        let path = self.to?.replace("%U", &uid.to_string()).replace("%u", &user);
        Some(format!("/{}", path.replace("%G", &gid.to_string()).replace("%g", &group)))
    }
}

/// Returns the first rule of a set that matches a process in the cgroup `place`, below these programs: the reference.
pub(crate) fn first(
    set: usize,
    (uid, gid): (u32, u32),
    exe: Option<Program>,
    identity: &UserIdentity,
    (place, below): (&str, [bool; 2]),
) -> Option<&'static SimRule> {
    let mut of_place = SETS[set].iter().filter(|rule| rule.tests_place());
    let is_placed = of_place.any(|rule| rule.leads_to(place));
    let is_from = |rule: &SimRule| match is_placed {
        true => rule.leads_to(place),
        false => rule.is_from(place),
    };
    SETS[set].iter().find(|rule| {
        rule.matches(uid, gid, exe, identity)
            && rule.has_ancestors(below, place)
            && (!rule.tests_place() || is_from(rule))
    })
}

/// Returns what the name service knows of a user.
pub(crate) fn identity(uid: u32) -> UserIdentity {
    let known = |name: &str, listed: &[u32]| UserIdentity {
        uid: Uid(uid),
        name: Some(name.to_owned()),
        listed_in: listed.iter().copied().map(Gid).collect(),
        login_group: Some(Gid(uid)),
    };
    match uid {
        0 => known("root", &[]),
        1000 => known("anna", &[600]),
        1001 => known("bert", &[]),
        1002 => known("carl", &[600, 601]),
        _ => UserIdentity::nameless(Uid(uid)),
    }
}

pub(crate) fn group_name(gid: u32) -> Option<&'static str> {
    match gid {
        600 => Some("listed"),
        500 => Some("staff"),
        1000 => Some("anna"),
        _ => None,
    }
}

/// The compiled sets.
pub(crate) struct RuleSets(Vec<Arc<Matcher>>);

impl RuleSets {
    pub(crate) fn compile() -> Self {
        let file: Arc<Path> = Arc::from(Path::new("/rules.toml"));
        let compile = |set: &&[SimRule]| {
            let text: String = set.iter().map(|rule| rule.toml()).collect();
            let parsed = rules_toml::parse(&file, &format!("version = 1\n{text}"));
            assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
            // No account has a number as its name, so each number is an ID.
            let accounts = ResolvedNames::default();
            let rules: Vec<Rule> = parsed
                .rules
                .into_iter()
                .filter_map(|written| names::resolve(written.rule, &accounts).0)
                .collect();
            assert_eq!(rules.len(), set.len());
            Arc::new(Matcher::compile(rules.into()))
        };
        Self(SETS.iter().map(compile).collect())
    }

    /// Creates the policy of a set that knows these users.
    pub(crate) fn policy(
        &self,
        set: usize,
        generation: u64,
        hierarchies: &Hierarchies,
        users: &[UserIdentity],
        now: u64,
    ) -> Box<Policy> {
        let matcher = Arc::clone(&self.0[set]);
        let known: Vec<User> = users
            .iter()
            .map(|identity| User::new(&matcher, identity.clone(), Nanos(now)))
            .collect();
        let roots = ManagedRoots::default();
        Box::new(Policy::new(generation, matcher, hierarchies, &roots, known, []))
    }

    pub(crate) fn matcher(&self, set: usize) -> &Arc<Matcher> {
        &self.0[set]
    }
}
