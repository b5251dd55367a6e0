//! Reads the case files of `tests/cases/legacy`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Returns the directory of the case files.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/legacy")
}

/// Reads the cases of these files, in their order.
pub(crate) fn read<T: for<'de> Deserialize<'de>>(names: &[&str]) -> Vec<T> {
    #[derive(Deserialize)]
    struct File<T> {
        case: Vec<T>,
    }
    let read = |name: &&str| {
        let text = fs::read_to_string(directory().join(name)).unwrap();
        toml::from_str::<File<T>>(&text).unwrap_or_else(|error| panic!("{name}: {error}")).case
    };
    names.iter().flat_map(read).collect()
}

/// Returns the cases that test the result of parsing a text.
pub(crate) fn parsing() -> Vec<Parsing> {
    read(&["parsing.toml", "hostile.toml"])
}

/// Returns the cases that test the placement of a process.
pub(crate) fn decisions() -> Vec<Decision> {
    read(&DECISIONS)
}

const DECISIONS: [&str; 6] = [
    "users.toml",
    "programs.toml",
    "destinations.toml",
    "controllers.toml",
    "ignore.toml",
    "events.toml",
];

/// A deliberate difference from cgrulesengd.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Differs<T> {
    /// Result of cgrulesengd; `None` if it is the same.
    pub(crate) upstream: Option<T>,
    /// Expected files and directories of cgrulesengd, in place of ours.
    #[serde(default)]
    pub(crate) see: BTreeMap<String, String>,
    /// A heading of `tests/QUIRKS.md`.
    quirk: String,
    /// A text of the section DIFFERENCES of `cgrulesengd(8)`.
    manual: String,
}

impl<T> Differs<T> {
    /// Returns the missing explanation of the difference, if any.
    fn unexplained(&self, id: &str) -> Option<String> {
        if !differences().contains(&self.manual) {
            return Some(format!("{id}: \"{}\" is not in the manual page", self.manual));
        }
        let heading = self.quirk.as_str();
        let text = include_str!("../QUIRKS.md");
        let part = text.split("\n## ").find(|part| part.lines().next() == Some(heading));
        let is_there = part.is_some_and(|part| part.contains(&format!("`{id}`")));
        (!is_there).then(|| format!("{id}: is not under \"{heading}\" in QUIRKS.md"))
    }

    /// Reports a difference that does not exist, or is not explained.
    pub(crate) fn check(&self, id: &str, ours: &str, upstream: Option<&str>) -> Vec<String> {
        let mut wrong: Vec<String> = self.unexplained(id).into_iter().collect();
        if upstream.is_none_or(|upstream| upstream == ours) && self.see.is_empty() {
            wrong.push(format!("{id}: the declared difference does not exist: {ours}"));
        }
        wrong
    }
}

/// Returns the section DIFFERENCES of the manual page, without markup.
fn differences() -> String {
    let page = include_str!("../../packaging/man/cgrulesengd.8");
    let section = page.split(".SH DIFFERENCES").nth(1).unwrap().split("\n.SH ").next().unwrap();
    let plain = |line: &str| {
        let (request, rest) = line.split_once(' ').unwrap_or((line, ""));
        match request {
            ".IP" | ".SS" | ".PP" => String::new(),
            ".B" | ".I" => rest.to_owned(),
            ".BR" | ".IR" | ".RB" | ".RI" => rest.replace(' ', ""),
            _ => line.replace("\\fI", "").replace("\\fB", "").replace("\\fP", ""),
        }
    };
    section.lines().map(plain).collect::<Vec<_>>().join(" ").replace('\\', "")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parsing {
    pub(crate) id: String,
    /// Text of `cgrules.conf`; `None` if there is no such file.
    text: Option<String>,
    /// Texts of the files of `cgrules.d`, by name.
    #[serde(default)]
    pub(crate) directory: BTreeMap<String, String>,
    pub(crate) rules: Vec<String>,
    /// Texts that the diagnostics must contain.
    pub(crate) says: Option<Vec<String>>,
    /// Result of a strict start, where it differs from that of cgrulesengd.
    strict: Option<String>,
    pub(crate) differs: Option<Differs<OriginalRules>>,
}

/// A test case with a file of templates.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sections {
    pub(crate) id: String,
    text: String,
    /// True if cgrulesengd starts with the file.
    pub(crate) loads: bool,
    /// Number of sections that our daemon uses.
    pub(crate) kept: usize,
    pub(crate) says: Vec<String>,
    pub(crate) not_live: Option<String>,
}

impl Sections {
    pub(crate) fn text(&self) -> String {
        expanded(&self.text)
    }
}

/// Returns the cases with files of templates.
pub(crate) fn sections() -> Vec<Sections> {
    read(&["sections.toml"])
}

/// Expands `{x*9000}` to 9000 times x.
fn expanded(text: &str) -> String {
    let Some((before, rest)) = text.split_once("{x*") else { return text.to_owned() };
    let (count, after) = rest.split_once('}').unwrap();
    format!("{before}{}{after}", "x".repeat(count.parse().unwrap()))
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum OriginalRules {
    /// `refuses` or `misses`, the same for any file.
    Verdict(String),
    Rules(Vec<String>),
}

impl Parsing {
    pub(crate) fn text(&self) -> Option<String> {
        self.text.as_deref().map(expanded)
    }

    /// Returns the result that cgrulesengd has with the files.
    pub(crate) fn verdict(&self) -> &str {
        match self.differs.as_ref().and_then(|differs| differs.upstream.as_ref()) {
            Some(OriginalRules::Verdict(verdict)) => verdict,
            Some(OriginalRules::Rules(_)) | None => "starts",
        }
    }

    /// Returns the result of a strict start with the files.
    pub(crate) fn strict(&self) -> &str {
        self.strict.as_deref().unwrap_or(self.verdict())
    }

    /// Returns the rules that cgrulesengd loads from the files, if it starts.
    pub(crate) fn of_original(&self) -> &[String] {
        match self.differs.as_ref().and_then(|differs| differs.upstream.as_ref()) {
            Some(OriginalRules::Rules(rules)) => rules,
            Some(OriginalRules::Verdict(_)) | None => &self.rules,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Decision {
    pub(crate) id: String,
    rules: String,
    /// Text of `cgconfig.conf`.
    #[serde(default)]
    pub(crate) cgconfig: String,
    #[serde(default)]
    pub(crate) process: Process,
    /// Steps of the process (see `tests/live/actors.c`), where `process` does not imply them.
    pub(crate) steps: Option<String>,
    /// True if the daemon is stopped by SIGSTOP during the steps.
    #[serde(default)]
    pub(crate) stopped: bool,
    #[serde(default)]
    pub(crate) world: String,
    pub(crate) expect: String,
    /// Expected state: `controller:/group` has owner, group and mode, `controller:/group/file` has its text.
    #[serde(default)]
    pub(crate) see: BTreeMap<String, String>,
    pub(crate) rule: Option<u32>,
    pub(crate) beyond: Option<String>,
    strict: Option<String>,
    pub(crate) differs: Option<Differs<String>>,
    /// Reason why the case cannot run live.
    pub(crate) not_live: Option<String>,
    /// A remark for the reader of the case.
    #[serde(rename = "note")]
    _note: Option<String>,
}

impl Decision {
    /// Returns the text of `cgrules.conf`.
    pub(crate) fn rules(&self) -> String {
        let text = self.rules.replace("; ", "\n").replace(" F", " freezer");
        text.replace(",F", ",freezer") + "\n"
    }

    /// Returns the cgroup in which cgrulesengd places the process, or `refuses`.
    pub(crate) fn by_original(&self) -> &str {
        let differs = self.differs.as_ref().and_then(|differs| differs.upstream.as_deref());
        differs.unwrap_or(&self.expect)
    }

    /// Returns the result of a strict start with the file.
    pub(crate) fn strict(&self) -> &str {
        self.strict.as_deref().unwrap_or("starts")
    }
}

/// The process of a case. Users and groups are those of [`super::cast::Cast`].
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Process {
    pub(crate) user: String,
    pub(crate) group: String,
    pub(crate) real_user: Option<String>,
    pub(crate) real_group: Option<String>,
    /// The only supplementary group, if any.
    pub(crate) groups: Option<String>,
    pub(crate) exe: String,
    /// Path of the script or link, which our rules match by name.
    pub(crate) invoked: Option<String>,
    /// Executed path and its arguments; by default `invoked`, else `exe`, with the path as `argv[0]`.
    pub(crate) run: Option<String>,
    /// Initial cgroup in the freezer hierarchy.
    pub(crate) at: String,
    /// Initial cgroup in the v2 hierarchy.
    pub(crate) unified: String,
    pub(crate) real_time: bool,
    /// Name of a kernel thread, which has no executable.
    pub(crate) kernel: Option<String>,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            user: "alice".to_owned(),
            group: "alice".to_owned(),
            real_user: None,
            real_group: None,
            groups: None,
            exe: "X/cgt-idle".to_owned(),
            invoked: None,
            run: None,
            at: "/".to_owned(),
            unified: "/".to_owned(),
            real_time: false,
            kernel: None,
        }
    }
}
