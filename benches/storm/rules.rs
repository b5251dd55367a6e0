//! Defines the rule sets of the subjects, and their users and groups.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::Path;

use crate::machine::{Hierarchy, V1_CONTROLLER};

/// All UIDs of processes of the benchmark besides 0.
pub(crate) const UIDS: RangeInclusive<u32> = 61900..=61903;
/// UID of a rule with the cgroup `one`.
pub(crate) const HIT: u32 = 61900;
/// UID of a rule of the mixed set with the cgroup `user`.
pub(crate) const BY_USER: u32 = 61901;
/// UID of processes that a rule by executable of the mixed set moves to `exe`.
pub(crate) const BY_EXE: u32 = 61902;
/// First UID of the processes of [`Rules::Accounts`].
pub(crate) const CROWD: u32 = 2_000_000;
/// Start of the names of their users.
const CROWD_NAME: &str = "cgcrowd";
/// UID that no rule matches.
pub(crate) const MISS: u32 = 61903;

/// First ID of filler rules, above those of the processes of any machine.
const FILLER_ID: usize = CROWD as usize;

/// The rule set of a subject.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rules {
    /// A single rule, by UID.
    One,
    /// 10,000 rules, half of them by group; the last one matches.
    TenThousand,
    /// 190 rules by user, group and executable that match no process, then one by UID and one by executable.
    Mixed,
    /// A single rule, by a pattern that matches 100,000 accounts.
    Accounts,
    /// A rule with a criterion on the origin of a process, which no process of the benchmark meets, then one by UID.
    Origin(Origin),
}

/// A criterion on the origin of a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    Unit,
    From,
    Below,
    Container,
    Login,
    Argument,
}

impl Origin {
    pub(crate) const ALL: [Self; 6] =
        [Self::Unit, Self::From, Self::Below, Self::Container, Self::Login, Self::Argument];

    /// Returns the key and value of the criterion.
    const fn criterion(self) -> &'static str {
        match self {
            Self::Unit => "unit = \"cgbench-*.service\"",
            Self::From => "from = \"/cgbench.slice/**\"",
            Self::Below => "below = \"/nonexistent/daemon\"",
            Self::Container => "container = true",
            Self::Login => "login = 61904",
            Self::Argument => "argument = \"--cgbench=*\"",
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Unit => "one with unit",
            Self::From => "one with from",
            Self::Below => "one with below",
            Self::Container => "one with container",
            Self::Login => "one with login",
            Self::Argument => "one with argument",
        }
    }
}

enum Who {
    User(usize),
    Group(usize),
    Uid(u32),
    Exe(u32, String),
    Origin(u32, Origin),
    /// Every user whose name begins with this.
    Begins(&'static str),
}

struct Line {
    who: Who,
    leaf: &'static str,
}

impl Rules {
    /// Accounts of [`Rules::Accounts`].
    pub(crate) const ACCOUNTS: usize = 100_000;

    fn fillers(self) -> usize {
        match self {
            Rules::One | Rules::Accounts | Rules::Origin(_) => 0,
            Rules::TenThousand => 9_999,
            Rules::Mixed => 150,
        }
    }

    fn lines(self, bin: &Path) -> Vec<Line> {
        let filler =
            |n| Line { who: if n % 2 == 0 { Who::User(n) } else { Who::Group(n) }, leaf: "one" };
        let mut lines: Vec<Line> = (0..self.fillers()).map(filler).collect();
        let mut add = |who, leaf| lines.push(Line { who, leaf });
        match self {
            Rules::One | Rules::TenThousand => add(Who::Uid(HIT), "one"),
            Rules::Mixed => {
                for n in 0..40 {
                    add(Who::Exe(BY_EXE, format!("/nonexistent/program-{n}")), "one");
                }
                add(Who::Uid(BY_USER), "user");
                add(Who::Exe(BY_EXE, format!("{}/*", bin.display())), "exe");
            }
            Rules::Accounts => add(Who::Begins(CROWD_NAME), "users/%u"),
            Rules::Origin(origin) => {
                add(Who::Origin(MISS, origin), "origin");
                add(Who::Uid(HIT), "one");
            }
        }
        lines
    }

    /// Returns a TOML rule file; cgroup paths are below the root given on the command line.
    pub(crate) fn toml(self, hierarchy: Hierarchy, bin: &Path) -> String {
        let mut text = "version = 1\n".to_owned();
        for line in self.lines(bin) {
            let criteria = match line.who {
                Who::User(n) => format!("user = \"cgfu{n}\""),
                Who::Group(n) => format!("group = \"cgfg{n}\""),
                Who::Uid(uid) => format!("user = {uid}"),
                Who::Begins(name) => format!("user = \"{name}*\""),
                Who::Exe(uid, exe) => format!("user = {uid}\nexe = \"{exe}\""),
                Who::Origin(uid, origin) => format!("user = {uid}\n{}", origin.criterion()),
            };
            let controllers = match hierarchy {
                Hierarchy::V1 => format!("controllers = [\"{V1_CONTROLLER}\"]\n"),
                Hierarchy::V2 => String::new(),
            };
            let leaf = line.leaf;
            // Writing to a String cannot fail.
            let _ok = write!(text, "[[rule]]\n{criteria}\n{controllers}cgroup = \"{leaf}\"\n");
        }
        text
    }

    /// Returns a cgrules.conf; that format supports only names.
    pub(crate) fn cgrules_conf(self, top: &str, bin: &Path) -> String {
        let mut text = String::new();
        for line in self.lines(bin) {
            let who = match line.who {
                Who::User(n) => format!("cgfu{n}"),
                Who::Group(n) => format!("@cgfg{n}"),
                Who::Uid(uid) => format!("cgbench{uid}"),
                Who::Begins(name) => format!("{name}*"),
                Who::Exe(uid, exe) => format!("cgbench{uid}:{exe}"),
                // cgrulesengd has no such criterion.
                Who::Origin(..) => continue,
            };
            let leaf = line.leaf;
            let _ok = writeln!(text, "{who} {V1_CONTROLLER} {top}/{leaf}");
        }
        text
    }

    /// Returns the lines for /etc/passwd, with the users of the rules.
    pub(crate) fn passwd(self) -> String {
        let user =
            |name: String, id: usize| format!("{name}:x:{id}:{id}::/nonexistent:/bin/false\n");
        let tests = UIDS.map(|uid| user(format!("cgbench{uid}"), uid as usize));
        let fillers = (0..self.fillers()).filter(|n| n % 2 == 0);
        let crowd = 0..if self == Rules::Accounts { Self::ACCOUNTS } else { 0 };
        let crowd = crowd.map(|n| user(format!("{CROWD_NAME}{n}"), FILLER_ID + n));
        tests.chain(fillers.map(|n| user(format!("cgfu{n}"), FILLER_ID + n))).chain(crowd).collect()
    }

    /// Returns the lines for /etc/group, with the groups of the rules.
    pub(crate) fn group(self) -> String {
        let fillers = (0..self.fillers()).filter(|n| n % 2 == 1);
        fillers.map(|n| format!("cgfg{n}:x:{}:\n", FILLER_ID + n)).collect()
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Rules::One => "1 rule",
            Rules::TenThousand => "10,000 rules",
            Rules::Mixed => "mixed rules",
            Rules::Accounts => "a rule by a pattern",
            Rules::Origin(origin) => origin.label(),
        }
    }
}
