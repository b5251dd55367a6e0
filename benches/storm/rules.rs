//! The rule sets that the subjects are given, and who their users and groups are.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::Path;

use crate::machine::{Hierarchy, V1_CONTROLLER};

/// Every uid that a process of the benchmark may have besides 0.
pub(crate) const UIDS: RangeInclusive<u32> = 61900..=61903;
/// A rule by uid sends it to `one`.
pub(crate) const HIT: u32 = 61900;
/// In the mixed set: a rule by uid sends it to `user`.
pub(crate) const BY_USER: u32 = 61901;
/// In the mixed set: a rule by executable sends what it runs to `exe`.
pub(crate) const BY_EXE: u32 = 61902;
/// No rule is about it.
pub(crate) const MISS: u32 = 61903;

/// The groups that rules send to.
pub(crate) const LEAVES: [&str; 3] = ["one", "user", "exe"];

/// Ids of filler rules start here, where no process of any machine is.
const FILLER_ID: usize = 2_000_000;

/// Which rules a subject has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rules {
    /// One, by uid.
    One,
    /// 10,000, half of them by group; the one that matches is the last.
    TenThousand,
    /// 190 by user, group and executable that match nobody, then one by uid and one by executable.
    Mixed,
}

enum Who {
    User(usize),
    Group(usize),
    Uid(u32),
    Exe(u32, String),
}

struct Line {
    who: Who,
    leaf: &'static str,
}

impl Rules {
    fn fillers(self) -> usize {
        match self {
            Rules::One => 0,
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
        }
        lines
    }

    /// A TOML rule file; cgroup paths are below the root given on the command line.
    pub(crate) fn toml(self, hierarchy: Hierarchy, bin: &Path) -> String {
        let mut text = "version = 1\n".to_owned();
        for line in self.lines(bin) {
            let criteria = match line.who {
                Who::User(n) => format!("user = \"cgfu{n}\""),
                Who::Group(n) => format!("group = \"cgfg{n}\""),
                Who::Uid(uid) => format!("user = {uid}"),
                Who::Exe(uid, exe) => format!("user = {uid}\nexe = \"{exe}\""),
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

    /// A cgrules.conf; that format takes names only.
    pub(crate) fn cgrules_conf(self, top: &str, bin: &Path) -> String {
        let mut text = String::new();
        for line in self.lines(bin) {
            let who = match line.who {
                Who::User(n) => format!("cgfu{n}"),
                Who::Group(n) => format!("@cgfg{n}"),
                Who::Uid(uid) => format!("cgbench{uid}"),
                Who::Exe(uid, exe) => format!("cgbench{uid}:{exe}"),
            };
            let leaf = line.leaf;
            let _ok = writeln!(text, "{who} {V1_CONTROLLER} {top}/{leaf}");
        }
        text
    }

    /// Lines for /etc/passwd: who the rules name.
    pub(crate) fn passwd(self) -> String {
        let user =
            |name: String, id: usize| format!("{name}:x:{id}:{id}::/nonexistent:/bin/false\n");
        let tests = UIDS.map(|uid| user(format!("cgbench{uid}"), uid as usize));
        let fillers = (0..self.fillers()).filter(|n| n % 2 == 0);
        tests.chain(fillers.map(|n| user(format!("cgfu{n}"), FILLER_ID + n))).collect()
    }

    /// Lines for /etc/group.
    pub(crate) fn group(self) -> String {
        let fillers = (0..self.fillers()).filter(|n| n % 2 == 1);
        fillers.map(|n| format!("cgfg{n}:x:{}:\n", FILLER_ID + n)).collect()
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Rules::One => "1 rule",
            Rules::TenThousand => "10,000 rules",
            Rules::Mixed => "mixed rules",
        }
    }
}
