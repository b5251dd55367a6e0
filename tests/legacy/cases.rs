//! The case files of `tests/cases/legacy`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Where they are.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/legacy")
}

/// The cases of these files, in their order.
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

/// What loading a text gives.
pub(crate) fn parsing() -> Vec<Parsing> {
    read(&["parsing.toml", "hostile.toml"])
}

/// What becomes of a process.
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

/// In what the original is another, on purpose.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Differs<T> {
    /// What becomes of it there; `None` if the same.
    pub(crate) original: Option<T>,
    /// What is seen there instead.
    #[serde(default)]
    pub(crate) see: BTreeMap<String, String>,
    /// A heading of `tests/QUIRKS.md`.
    quirk: String,
    /// A text of the section DIFFERENCES of `cgrulesengd(8)`.
    manual: String,
}

impl<T> Differs<T> {
    /// What keeps the difference from being explained.
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

    /// Complains of a difference that is none, or is not explained.
    pub(crate) fn check(&self, id: &str, ours: &str, original: Option<&str>) -> Vec<String> {
        let mut wrong: Vec<String> = self.unexplained(id).into_iter().collect();
        if original.is_none_or(|original| original == ours) && self.see.is_empty() {
            wrong.push(format!("{id}: says that it differs and does not: {ours}"));
        }
        wrong
    }
}

/// The section of the manual page, without its markup.
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
    /// Of `cgrules.conf`, if there is one.
    text: Option<String>,
    /// Files of `cgrules.d`.
    #[serde(default)]
    pub(crate) directory: BTreeMap<String, String>,
    pub(crate) rules: Vec<String>,
    /// What the complaints hold.
    pub(crate) says: Option<Vec<String>>,
    /// What a strict start does with it, when that is not what the original does.
    strict: Option<String>,
    pub(crate) differs: Option<Differs<OriginalRules>>,
}

/// A file of templates.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sections {
    pub(crate) id: String,
    text: String,
    /// Whether the original starts with it.
    pub(crate) loads: bool,
    /// The number of sections that are in force here.
    pub(crate) kept: usize,
    pub(crate) says: Vec<String>,
    pub(crate) not_live: Option<String>,
}

impl Sections {
    pub(crate) fn text(&self) -> String {
        expanded(&self.text)
    }
}

/// Files of templates.
pub(crate) fn sections() -> Vec<Sections> {
    read(&["sections.toml"])
}

/// `{x*9000}` becomes 9000 times x.
fn expanded(text: &str) -> String {
    let Some((before, rest)) = text.split_once("{x*") else { return text.to_owned() };
    let (count, after) = rest.split_once('}').unwrap();
    format!("{before}{}{after}", "x".repeat(count.parse().unwrap()))
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum OriginalRules {
    /// `refuses` or `misses`.
    Verdict(String),
    Rules(Vec<String>),
}

impl Parsing {
    pub(crate) fn text(&self) -> Option<String> {
        self.text.as_deref().map(expanded)
    }

    /// What the original does with the files.
    pub(crate) fn verdict(&self) -> &str {
        match self.differs.as_ref().and_then(|differs| differs.original.as_ref()) {
            Some(OriginalRules::Verdict(verdict)) => verdict,
            Some(OriginalRules::Rules(_)) | None => "starts",
        }
    }

    /// What a strict start does with them.
    pub(crate) fn strict(&self) -> &str {
        self.strict.as_deref().unwrap_or(self.verdict())
    }

    /// The rules that the original takes from them, if it starts.
    pub(crate) fn of_original(&self) -> &[String] {
        match self.differs.as_ref().and_then(|differs| differs.original.as_ref()) {
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
    /// The text of `cgconfig.conf`.
    #[serde(default)]
    pub(crate) cgconfig: String,
    #[serde(default)]
    pub(crate) process: Process,
    /// What the process does (see `tests/live/actors.c`), where that does not follow from `process`.
    pub(crate) steps: Option<String>,
    /// Whether the daemon stands still meanwhile.
    #[serde(default)]
    pub(crate) stopped: bool,
    #[serde(default)]
    pub(crate) world: String,
    pub(crate) expect: String,
    /// `controller:/group` is owner, group and mode; `controller:/group/file` is its text.
    #[serde(default)]
    pub(crate) see: BTreeMap<String, String>,
    pub(crate) rule: Option<u32>,
    pub(crate) beyond: Option<String>,
    strict: Option<String>,
    pub(crate) differs: Option<Differs<String>>,
    /// Why the case cannot be run live.
    pub(crate) not_live: Option<String>,
    /// For the reader.
    #[serde(rename = "note")]
    _note: Option<String>,
}

impl Decision {
    /// The text of `cgrules.conf`.
    pub(crate) fn rules(&self) -> String {
        let text = self.rules.replace("; ", "\n").replace(" F", " freezer");
        text.replace(",F", ",freezer") + "\n"
    }

    /// Where the original puts the process, or `refuses`.
    pub(crate) fn by_original(&self) -> &str {
        let differs = self.differs.as_ref().and_then(|differs| differs.original.as_deref());
        differs.unwrap_or(&self.expect)
    }

    /// What a strict start does with the file.
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
    /// The one supplementary group.
    pub(crate) groups: Option<String>,
    pub(crate) exe: String,
    /// The script or link that our rules for names find.
    pub(crate) invoked: Option<String>,
    /// What is executed and its arguments; else `invoked`, else `exe`, by that name.
    pub(crate) run: Option<String>,
    /// Its group in the freezer hierarchy.
    pub(crate) at: String,
    /// Its v2 group.
    pub(crate) unified: String,
    pub(crate) real_time: bool,
    /// The name of a kernel thread, which has no executable.
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
