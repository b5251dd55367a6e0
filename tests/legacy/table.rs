//! Reads the rule table that both daemons log at startup, and the result of a start.

use crate::daemons::{Running, Which};
use crate::harness::{PATIENCE, eventually};

/// Result of the start of a daemon.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Rules(Vec<String>),
    /// Exit code of the process.
    Ended(Option<i32>),
}

impl Start {
    /// Starts a daemon on the present files, reads the result and stops the daemon.
    pub(crate) fn of(which: Which, words: &[&str]) -> Self {
        let mut daemon = Running::start(which, &[&["-vvv"], words].concat());
        let mut ended = None;
        let decided = eventually(PATIENCE, || {
            ended = daemon.ended();
            ended.is_some() || daemon.log().contains("Started the CGroup Rules Engine Daemon.")
        });
        assert!(decided, "{which:?} neither starts nor exits: {}", daemon.log());
        match ended {
            Some(status) => Self::Ended(status.code()),
            None => Self::Rules(rules(&daemon.log())),
        }
    }
}

/// One entry of the rule table.
#[derive(Default)]
struct Entry<'l> {
    /// User and optional program: `user[:program]`.
    head: &'l str,
    uid: Option<&'l str>,
    gid: Option<&'l str>,
    destination: &'l str,
    controllers: Vec<&'l str>,
    ignores: bool,
}

/// Returns the rules of the table in the form of the case files.
fn rules(log: &str) -> Vec<String> {
    let mut rules: Vec<String> = Vec::new();
    for entry in entries(log) {
        if !entry.head.starts_with('%') {
            rules.push(entry.show());
        } else if let Some(rule) = rules.last_mut() {
            *rule = format!("{rule}, {}", entry.target());
        }
    }
    rules
}

fn entries(log: &str) -> Vec<Entry<'_>> {
    let mut entries: Vec<Entry<'_>> = Vec::new();
    for line in log.lines() {
        if let Some(head) = line.strip_prefix("Rule: ") {
            entries.push(Entry { head, ..Entry::default() });
        }
        let Some(entry) = entries.last_mut() else { continue };
        let id = |text| Some(text).filter(|text| !["any", "N/A"].contains(text));
        if let Some(text) = line.strip_prefix("  UID: ") {
            entry.uid = id(text);
        } else if let Some(text) = line.strip_prefix("  GID: ") {
            entry.gid = id(text);
        } else if let Some(text) = line.strip_prefix("  DEST: ") {
            entry.destination = text;
        } else if let Some(text) = line.strip_prefix("    IS_IGNORE: ") {
            entry.ignores = text == "True";
        } else if let Some(text) = line.strip_prefix("    ") {
            entry.controllers.push(text);
        }
    }
    entries
}

impl Entry<'_> {
    fn show(&self) -> String {
        let who = [("uid", self.uid), ("gid", self.gid)];
        let who = who.into_iter().filter_map(|(kind, id)| Some(format!("{kind} {}", id?)));
        let mut words: Vec<String> = who.chain(self.program()).collect();
        if words.is_empty() {
            words.push("all".to_owned());
        }
        format!("{} -> {}", words.join(" "), self.target())
    }

    fn program(&self) -> Option<String> {
        let (_, program) = self.head.split_once(':')?;
        match program.strip_suffix('*') {
            Some("") => None,
            Some(stem) => Some(format!("path {}**", stem.replace('[', "\\["))),
            None if program.is_empty() => None,
            None if program.contains('/') => Some(format!("path {program}")),
            None => Some(format!("base {program}")),
        }
    }

    fn target(&self) -> String {
        if self.ignores && !self.head.starts_with('%') {
            return format!("ignore below {}", self.destination);
        }
        if self.controllers.is_empty() {
            return "nothing".to_owned();
        }
        let all = self.controllers.first() == Some(&"*");
        let controllers = if all { "*".to_owned() } else { self.controllers.join(",") };
        format!("{controllers} {}", self.destination)
    }
}
