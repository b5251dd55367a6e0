//! What cgrulesengd does, case by case, and where we differ: the files of `tests/cases/legacy` through
//! loader, parser, matcher and reference. A case that says that it differs and does not is wrong too.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(clippy::unwrap_used, clippy::panic)]

mod reference;
#[path = "legacy/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cgruled::event::{Gid, Pid, Uid};
use cgruled::load::{Loaded, NameService, Original, Sources, load};
use cgruled::rules::ignore::Scheduling;
use cgruled::rules::matcher::Matcher;
use cgruled::rules::names::Identity;
use cgruled::rules::{Action, Exe, ExeTest, Facts, GroupTest, Rule, RuleId, Target, UserTest};
use serde::Deserialize;
use world::World;

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/legacy")
}

fn names() -> NameService {
    NameService { passwd: cases().join("passwd"), group: cases().join("group"), nss: false }
}

/// Loads a cgrules.conf, if there is one, and files of cgrules.d.
fn loaded(conf: Option<&str>, directory: &BTreeMap<String, String>) -> Loaded {
    let root = tempfile::tempdir().unwrap();
    let (file, dir) = (root.path().join("cgrules.conf"), root.path().join("cgrules.d"));
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
    let further = directory.iter().map(|(name, text)| (dir.join(name), text.as_str()));
    for (path, text) in conf.map(|text| (file.clone(), text)).into_iter().chain(further) {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    }
    let sources = Sources {
        directories: Vec::new(),
        legacy: true,
        cgrules_conf: file,
        cgrules_d: dir,
        cgconfig_conf: root.path().join("cgconfig.conf"),
        cgconfig_d: root.path().join("cgconfig.d"),
        owner: Uid(nix::unistd::geteuid().as_raw()),
    };
    load(&sources, &names())
}

fn read<T: for<'de> Deserialize<'de>>(name: &str) -> Vec<T> {
    #[derive(Deserialize)]
    struct File<T> {
        case: Vec<T>,
    }
    let text = fs::read_to_string(cases().join(name)).unwrap();
    toml::from_str::<File<T>>(&text).unwrap_or_else(|error| panic!("{name}: {error}")).case
}

fn verdict(original: &Original) -> &'static str {
    match original {
        Original::NotAsked => "not asked",
        Original::Starts => "starts",
        Original::Misses(_) => "misses",
        Original::Refuses(_) => "refuses",
    }
}

/// Complains of a case whose difference is not one, or is not explained.
fn check_difference(
    id: &str,
    ours: &str,
    original: Option<&str>,
    difference: Option<&str>,
    wrong: &mut Vec<String>,
) {
    match (original, difference) {
        (None, None) => {}
        (Some(original), Some(_)) if original == ours => {
            wrong.push(format!("{id}: says that it differs and does not: {ours}"));
        }
        (Some(_), Some(heading)) => {
            let text = include_str!("QUIRKS.md");
            let of_heading = text.split("\n## ").find(|part| part.lines().next() == Some(heading));
            if !of_heading.is_some_and(|part| part.contains(&format!("`{id}`"))) {
                wrong.push(format!("{id}: is not under \"{heading}\" in QUIRKS.md"));
            }
        }
        (Some(_), None) | (None, Some(_)) => {
            wrong.push(format!("{id}: original and difference belong together"));
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parsing {
    id: String,
    text: Option<String>,
    #[serde(default)]
    directory: BTreeMap<String, String>,
    rules: Vec<String>,
    original: Option<OriginalRules>,
    strict: Option<String>,
    difference: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OriginalRules {
    Verdict(String),
    Rules(Vec<String>),
}

/// `{x*9000}` becomes 9000 times x.
fn expanded(text: &str) -> String {
    let Some((before, rest)) = text.split_once("{x*") else { return text.to_owned() };
    let (count, after) = rest.split_once('}').unwrap();
    format!("{before}{}{after}", "x".repeat(count.parse().unwrap()))
}

#[test]
fn files_say_what_they_say_to_the_original() {
    let mut wrong = Vec::new();
    for case in read::<Parsing>("parsing.toml") {
        let text = case.text.as_deref().map(expanded);
        let loaded = loaded(text.as_deref(), &case.directory);
        let rules: Vec<String> = loaded.rules.iter().map(show).collect();
        if rules != case.rules {
            wrong.push(format!("{}: {rules:?}, not {:?}", case.id, case.rules));
        }
        let original = case.original.as_ref().map(|original| match original {
            OriginalRules::Verdict(verdict) => verdict.clone(),
            OriginalRules::Rules(rules) => format!("{rules:?}"),
        });
        let stops = original.as_deref().filter(|what| !what.starts_with('['));
        let expected = case.strict.as_deref().or(stops).unwrap_or("starts");
        if verdict(&loaded.original) != expected {
            wrong.push(format!(
                "{}: strictly it {}, not {expected}",
                case.id,
                verdict(&loaded.original)
            ));
        }
        let (original, difference) = (original.as_deref(), case.difference.as_deref());
        check_difference(&case.id, &format!("{rules:?}"), original, difference, &mut wrong);
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// A rule in one line.
fn show(rule: &Rule) -> String {
    let users = rule.when.users.iter().map(|test| match test {
        UserTest::Ids(first, last) if first == last => format!("uid {first}"),
        UserTest::Ids(..) | UserTest::Name(_) | UserTest::Glob(_) => format!("{test:?}"),
    });
    let groups = rule.when.groups.iter().map(|test| match test {
        GroupTest::Ids(first, last) if first == last => format!("gid {first}"),
        GroupTest::Ids(..) | GroupTest::Name(_) | GroupTest::Glob(_) => format!("{test:?}"),
    });
    let exes = rule.when.exes.iter().map(|test| match test {
        ExeTest::Path(path) => format!("path {}", String::from_utf8_lossy(path)),
        ExeTest::Base(base) => format!("base {}", String::from_utf8_lossy(base)),
        ExeTest::PathGlob(glob) => format!("path {}", String::from_utf8_lossy(glob.as_bytes())),
        ExeTest::BaseGlob(glob) => format!("base {}", String::from_utf8_lossy(glob.as_bytes())),
    });
    let mut words: Vec<String> = users.chain(groups).chain(exes).collect();
    if words.is_empty() {
        words.push("all".to_owned());
    }
    let action = match &rule.action {
        Action::Ignore(when) => {
            let place = when.below.as_ref().map(|below| format!(" below {below}"));
            let scheduling = match when.scheduling {
                Scheduling::Any => String::new(),
                Scheduling::NotRealTime => " if NotRealTime".to_owned(),
                Scheduling::RealTime => " if RealTime".to_owned(),
            };
            format!("ignore{}{scheduling}", place.unwrap_or_default())
        }
        Action::Place(targets) if targets.is_empty() => "nothing".to_owned(),
        Action::Place(targets) => {
            let shown = |t: &Target| format!("{} {}", t.controllers.join(","), t.destination);
            targets.iter().map(shown).collect::<Vec<_>>().join(", ")
        }
    };
    format!("{} -> {action}", words.join(" "))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision {
    id: String,
    rules: String,
    #[serde(default)]
    process: Process,
    #[serde(default)]
    world: String,
    expect: Option<String>,
    rule: Option<u32>,
    beyond: Option<String>,
    original: Option<String>,
    strict: Option<String>,
    difference: Option<String>,
    /// For the reader, and for who runs the case for real.
    #[serde(rename = "note")]
    _note: Option<String>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Process {
    uid: u32,
    gid: u32,
    exe: String,
    invoked: Option<String>,
    /// Its group in the freezer hierarchy.
    at: String,
    /// Its v2 group.
    unified: String,
    real_time: bool,
    /// Whether it is a kernel thread, which has no executable.
    kernel: bool,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            uid: 1001,
            gid: 1001,
            exe: "/opt/t/idle".to_owned(),
            invoked: None,
            at: "/".to_owned(),
            unified: "/".to_owned(),
            real_time: false,
            kernel: false,
        }
    }
}

impl Process {
    fn facts(&self) -> Facts<'_> {
        let exe = Exe { path: self.exe.as_bytes(), on_host: false };
        Facts {
            uid: Uid(self.uid),
            gid: Gid(self.gid),
            exe: (!self.kernel).then_some(exe),
            invoked: self.invoked.as_deref().map(str::as_bytes),
        }
    }
}

#[test]
fn processes_go_where_the_original_puts_them() {
    let mut wrong = Vec::new();
    let mut beyond = 0;
    for case in read::<Decision>("decisions.toml") {
        let text = case.rules.replace("; ", "\n").replace("X/", "/opt/t/");
        let text = text.replace(" F", " freezer").replace(",F", ",freezer");
        let loaded = loaded(Some(&text), &BTreeMap::new());
        let expected = case.strict.as_deref().unwrap_or("starts");
        if verdict(&loaded.original) != expected {
            wrong.push(format!("{}: strictly it {}", case.id, verdict(&loaded.original)));
        }
        let mut world = World::new(&case.world, &case.process.at, &case.process.unified);
        let (rules, decision) = decide(&case, loaded, &world, &mut wrong);
        if case.rule.is_some() && decision.map(|id| id.0) != case.rule {
            wrong.push(format!("{}: rule {decision:?}, not {:?}", case.id, case.rule));
        }
        beyond += usize::from(case.beyond.is_some());
        let Some(expect) = &case.expect else {
            if case.beyond.is_none() || case.rule.is_none() {
                wrong.push(format!("{}: expects nothing", case.id));
            }
            check_difference(
                &case.id,
                "",
                case.original.as_deref(),
                case.difference.as_deref(),
                &mut wrong,
            );
            continue;
        };
        if let Some(Action::Place(targets)) = decision.map(|id| &rules[id.0 as usize].action) {
            world.place(targets, &case.process.facts(), &who_is(case.process.uid), &names());
        }
        let ours = world.show(expect);
        if &ours != expect {
            wrong.push(format!("{}: {ours}, not {expect}", case.id));
        }
        check_difference(
            &case.id,
            &ours,
            case.original.as_deref(),
            case.difference.as_deref(),
            &mut wrong,
        );
    }
    assert!(beyond < 10, "most cases must be run here");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn who_is(uid: u32) -> Identity {
    names().identify(Uid(uid)).unwrap()
}

/// The rule that decides, by the matcher and by the reference.
fn decide(
    case: &Decision,
    loaded: Loaded,
    world: &World,
    wrong: &mut Vec<String>,
) -> (Arc<[Rule]>, Option<RuleId>) {
    let rules = Arc::clone(&loaded.rules);
    let matcher = Matcher::compile(loaded.rules);
    let (who, facts) = (who_is(case.process.uid), case.process.facts());
    let applies = |id: RuleId| match &rules[id.0 as usize].action {
        Action::Ignore(when) => {
            when.means_place(&world.cgroup()) && when.scheduling.means(case.process.real_time)
        }
        Action::Place(_) => true,
    };
    let plan = matcher.plan(&who);
    let mut decision = matcher.decide(&plan, &facts);
    while let Some(id) = decision.filter(|&id| !applies(id)) {
        decision = matcher.decide_after(&plan, &facts, id);
    }
    let mut expected = reference::first_match(&rules, &who, &facts, 0);
    while let Some(id) = expected.filter(|&id| !applies(id)) {
        expected = reference::first_match(&rules, &who, &facts, id.0 + 1);
    }
    if decision != expected {
        wrong.push(format!("{}: matcher {decision:?}, reference {expected:?}", case.id));
    }
    (rules, decision)
}

#[test]
fn every_case_that_is_explained_exists() {
    let parsing = read::<Parsing>("parsing.toml").into_iter().map(|case| case.id);
    let decisions = read::<Decision>("decisions.toml").into_iter().map(|case| case.id);
    let mut known: Vec<String> = parsing.chain(decisions).collect();
    known.sort();
    let count = known.len();
    known.dedup();
    assert_eq!(count, known.len(), "a name is used twice");
    let parts = include_str!("QUIRKS.md").split("\nCases: ").skip(1);
    let lists = parts.map(|part| part.split("\n\n").next().unwrap());
    for name in lists.flat_map(str::split_whitespace) {
        let id = name.trim_matches('`').to_owned();
        assert!(known.contains(&id), "QUIRKS.md names {id}");
    }
}

/// A process id for `%P`.
fn pid() -> Pid {
    Pid::new(77).unwrap()
}
