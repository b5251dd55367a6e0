//! Tests the behaviour of cgrulesengd case by case, and where ours differs: runs the files of
//! `tests/cases/legacy` through loader, parser, matcher and reference, then live through both
//! daemons. A case that declares a difference fails if there is none.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "legacy/cases.rs"]
mod cases;
#[path = "legacy/cast.rs"]
mod cast;
#[path = "legacy/daemons.rs"]
mod daemons;
#[path = "legacy/generated.rs"]
mod generated;
#[allow(dead_code, unused_imports, reason = "shared with the live tests")]
#[path = "live/harness/mod.rs"]
mod harness;
#[path = "legacy/live.rs"]
mod live;
#[allow(dead_code, reason = "shared with the tests of the command line")]
#[path = "cgrulesengd/private.rs"]
mod private;
mod reference;
#[path = "legacy/table.rs"]
mod table;
#[path = "legacy/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cases::{Decision, OriginalRules, Parsing, Process};
use cast::Cast;
use cgruled::config::diagnostic::Diagnostic;
use cgruled::event::{Gid, Pid, Uid};
use cgruled::policy::load::{Loaded, NameService, Sources, UpstreamVerdict, load};
use cgruled::rules::ignore::Scheduling;
use cgruled::rules::matcher::Matcher;
use cgruled::rules::names::UserIdentity;
use cgruled::rules::{Action, ExeFacts, ExeTest, Facts, GroupTest, Rule, RuleId, Target, UserTest};
use daemons::Which;
use harness::Live;
use private::Private;
use table::Start;
use world::World;

fn names() -> NameService {
    let directory = cases::directory();
    NameService::of_files(&directory)
}

/// Loads a cgrules.conf, if there is one, and the files of cgrules.d.
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

fn verdict(upstream: &UpstreamVerdict) -> &'static str {
    match upstream {
        UpstreamVerdict::NotAsked => "not asked",
        UpstreamVerdict::Starts => "starts",
        UpstreamVerdict::Misses(_) => "misses",
        UpstreamVerdict::Refuses(_) => "refuses",
    }
}

#[test]
fn files_are_parsed_as_by_cgrulesengd() {
    let mut wrong = Vec::new();
    for case in cases::parsing() {
        let loaded = loaded(case.text().as_deref(), &case.directory);
        let rules: Vec<String> = loaded.rules.iter().map(show).collect();
        if rules != case.rules {
            wrong.push(format!("{}: {rules:?}, not {:?}", case.id, case.rules));
        }
        let complaints = complaints(&loaded.diagnostics);
        let held = |text: &String| complaints.iter().any(|one| one.contains(text.as_str()));
        if let Some(says) = case
            .says
            .as_ref()
            .filter(|says| !says.iter().all(held) || says.is_empty() != complaints.is_empty())
        {
            wrong.push(format!("{}: diagnostics {complaints:?}, not {says:?}", case.id));
        }
        let verdict = verdict(&loaded.upstream);
        if verdict != case.strict() {
            wrong.push(format!("{}: a strict start {verdict}, not {}", case.id, case.strict()));
        }
        let Some(differs) = &case.differs else { continue };
        let upstream = differs.upstream.as_ref().map(|upstream| match upstream {
            OriginalRules::Verdict(verdict) => verdict.clone(),
            OriginalRules::Rules(rules) => format!("{rules:?}"),
        });
        wrong.extend(differs.check(&case.id, &format!("{rules:?}"), upstream.as_deref()));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Returns diagnostics as `line:column: message`.
fn complaints(diagnostics: &[Diagnostic]) -> Vec<String> {
    let shown = |diagnostic: &Diagnostic| {
        let place = diagnostic.place.as_ref();
        let place = place.map(|place| format!("{}:{}: ", place.line, place.column));
        format!("{}{}", place.unwrap_or_default(), diagnostic.message)
    };
    diagnostics.iter().map(shown).collect()
}

/// Formats a rule on one line.
fn show(rule: &Rule) -> String {
    let users = rule.when.users.iter().map(|test| match test {
        UserTest::Ids(first, last) if first == last => format!("uid {first}"),
        UserTest::Ids(..)
        | UserTest::Name(_)
        | UserTest::NameOrId(..)
        | UserTest::Human(_)
        | UserTest::Glob(_) => format!("{test:?}"),
    });
    let groups = rule.when.groups.iter().map(|test| match test {
        GroupTest::Ids(first, last) if first == last => format!("gid {first}"),
        GroupTest::Ids(..) | GroupTest::Name(_) | GroupTest::NameOrId(..) | GroupTest::Glob(_) => {
            format!("{test:?}")
        }
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
        Action::Inapplicable(_) | Action::Observe(_) => "nothing".to_owned(),
        Action::Place(targets) => {
            let shown = |t: &Target| format!("{} {}", t.controllers.join(","), t.destination);
            targets.iter().map(shown).collect::<Vec<_>>().join(", ")
        }
    };
    format!("{} -> {action}", words.join(" "))
}

/// The facts of a process, with the owned names of its files.
struct Files {
    exe: String,
    invoked: Option<String>,
}

impl Files {
    fn of(process: &Process) -> Self {
        let text = |path: &String| Cast::as_written().text(path, 0);
        let exe = process.kernel.clone().unwrap_or_else(|| text(&process.exe));
        Self { exe, invoked: process.invoked.as_ref().map(text) }
    }

    fn facts(&self, process: &Process) -> Facts<'_> {
        let exe = ExeFacts { path: self.exe.as_bytes(), on_host: false };
        let cast = Cast::as_written();
        Facts {
            uid: Uid(cast.uid(&process.user)),
            gid: Gid(cast.gid(&process.group)),
            exe: Some(exe),
            invoked: self.invoked.as_deref().map(str::as_bytes),
        }
    }
}

#[test]
fn processes_are_placed_as_by_cgrulesengd() {
    let mut wrong = Vec::new();
    let (cases, cast) = (cases::decisions(), Cast::as_written());
    for case in &cases {
        let loaded = loaded(Some(&cast.text(&case.rules(), 0)), &BTreeMap::new());
        if verdict(&loaded.upstream) != case.strict() {
            wrong.push(format!("{}: a strict start {}", case.id, verdict(&loaded.upstream)));
        }
        let mut world = World::new(&case.world, &case.process.at, &case.process.unified);
        let (rules, decision) = decide(case, loaded, &world, &mut wrong);
        if case.rule.is_some() && decision.map(|id| id.0) != case.rule {
            wrong.push(format!("{}: rule {decision:?}, not {:?}", case.id, case.rule));
        }
        let expect = cast.text(&case.expect, PID);
        if case.beyond.is_none() {
            if let Some(Action::Place(targets)) = decision.map(|id| &rules[id.0 as usize].action) {
                let files = Files::of(&case.process);
                let (facts, who) = (files.facts(&case.process), who_is(&case.process));
                world.place(targets, &facts, &who, &names());
            }
            let ours = world.show(&expect);
            if ours != expect {
                wrong.push(format!("{}: {ours}, not {expect}", case.id));
            }
        }
        if let Some(differs) = &case.differs {
            wrong.extend(differs.check(&case.id, &expect, differs.upstream.as_deref()));
        }
    }
    assert!(cases.iter().filter(|case| case.beyond.is_some()).count() < 10, "most run here");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn who_is(process: &Process) -> UserIdentity {
    names().identify(Uid(Cast::as_written().uid(&process.user))).unwrap()
}

/// Returns the deciding rule, by the matcher and by the reference.
fn decide(
    case: &Decision,
    loaded: Loaded,
    world: &World,
    wrong: &mut Vec<String>,
) -> (Arc<[Rule]>, Option<RuleId>) {
    let rules = Arc::clone(&loaded.rules);
    let matcher = Matcher::compile(loaded.rules);
    let files = Files::of(&case.process);
    let (who, facts) = (who_is(&case.process), files.facts(&case.process));
    let applies = |id: RuleId| match &rules[id.0 as usize].action {
        Action::Ignore(when) => {
            when.means_place(&world.cgroup()) && when.scheduling.means(case.process.real_time)
        }
        Action::Place(_) | Action::Inapplicable(_) | Action::Observe(_) => true,
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
    let parsing = cases::parsing().into_iter().map(|case| case.id);
    let decisions = cases::decisions().into_iter().map(|case| case.id);
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

/// A controller in the root cgroup of the v2 hierarchy; disabled again on drop if it was not enabled before.
struct Enabled(Option<PathBuf>);

impl Enabled {
    fn note(live: &Live) -> Self {
        let ground = live.ground.directory("", "").unwrap();
        let file = ground.parent().unwrap().join("cgroup.subtree_control");
        let enabled = fs::read_to_string(&file).unwrap();
        Self((!enabled.split_whitespace().any(|name| name == "hugetlb")).then_some(file))
    }
}

impl Drop for Enabled {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            let _was_not_needed = fs::write(file, "-hugetlb");
        }
    }
}

/// Returns the reason why a case cannot run live on this host.
fn obstacle(live: &Live, case: &Decision) -> Option<String> {
    if let Some(reason) = &case.not_live {
        return Some(reason.clone());
    }
    let text = format!("{} {}", case.rules(), case.steps.as_deref().unwrap_or_default());
    if text.contains("cgexec") && !Path::new("/usr/bin/cgexec").exists() {
        return Some("no cgexec".to_owned());
    }
    let top = live.ground.directory("", "").unwrap().join("../cgroup.controllers");
    let has_hugetlb = fs::read_to_string(top).unwrap().contains("hugetlb");
    (text.contains("hugetlb") && !has_hugetlb).then(|| "the v2 tree has no hugetlb".to_owned())
}

#[test]
fn processes_go_there_for_real() {
    // Dropped last: the kernel refuses to disable the controller while cgroups of the test use it.
    let _enabled;
    let Some(live) = Live::require() else { return };
    if live.ground.directory("freezer", "").is_none() {
        println!("skipped: no v1 hierarchy");
        return;
    }
    _enabled = Enabled::note(&live);
    let private = Private::enter(&live);
    let cases = cases::decisions();
    let (skipped, cases): (Vec<_>, Vec<_>) =
        cases.iter().partition(|case| obstacle(&live, case).is_some());
    for case in skipped {
        println!("{} is not run: {}", case.id, obstacle(&live, case).unwrap());
    }
    let mut wrong = Vec::new();
    for which in Which::installed() {
        let refused =
            |case: &&&Decision| which == Which::Original && case.by_original() == "refuses";
        let runs: Vec<&Decision> = cases.iter().filter(|case| !refused(case)).copied().collect();
        let (alone, together): (Vec<_>, Vec<_>) =
            runs.iter().partition(|case| live::is_alone(case));
        for cases in together.chunks(60).chain(alone.chunks(1)) {
            wrong.extend(live::run(&live, &private, which, cases));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Returns the start that is expected of a daemon with the files of a case. `verdict` is `starts`
/// or the reason why it does not.
fn expected(verdict: &str, rules: &[String]) -> Start {
    // The rule table has no column for the scheduling policy that a rule needs.
    let shown = rules.iter().map(|rule| rule.trim_end_matches(" if RealTime").to_owned());
    if verdict == "starts" { Start::Rules(shown.collect()) } else { Start::Ended(Some(99)) }
}

/// Starts a daemon on the present files and returns the difference from the expected start.
fn check_start(which: Which, case: &Parsing, words: &[&str], wanted: &mut Start) -> Option<String> {
    let mut start = Start::of(which, words);
    if let (Which::Original, Start::Rules(wanted), Start::Rules(rules)) =
        (which, &mut *wanted, &mut start)
    {
        // cgrulesengd reads the files of a directory in on-disk order.
        if !case.directory.is_empty() {
            wanted.sort();
            rules.sort();
        }
    }
    let text = |name| fs::read_to_string(format!("{}/{name}", harness::BASE)).unwrap_or_default();
    let said = text("said") + &text("log");
    let is_lenient = which == Which::Ours && words.is_empty();
    if is_lenient
        && case.says.as_ref().is_some_and(|says| {
            !says.iter().all(|text| {
                let place = text.splitn(3, ':').take(2).collect::<Vec<_>>().join(":");
                said.contains(&format!("/etc/cgrules.conf:{place}"))
            })
        })
    {
        return Some(format!("{}: it logged {said}", case.id));
    }
    let words = words.join(" ");
    (start != *wanted).then(|| format!("{} {which:?} {words}: {start:?}, not {wanted:?}", case.id))
}

#[test]
fn files_say_it_to_the_daemons() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    live::accounts(&[Cast::as_written()]);
    let mut wrong = Vec::new();
    let installed = Which::installed();
    for case in cases::parsing() {
        let text = case.text();
        let main = text.as_deref().map(|text| ("cgrules.conf".to_owned(), text));
        let further = case.directory.iter();
        let further = further.map(|(name, text)| (format!("cgrules.d/{name}"), text.as_str()));
        let always = ["cgconfig.conf", "cgconfig.d/", "cgrules.d/"];
        let always = always.map(|name| (name.to_owned(), ""));
        let files: Vec<_> = always.into_iter().chain(main).chain(further).collect();
        private.files(&files.iter().map(|(name, text)| (&**name, *text)).collect::<Vec<_>>());
        let mut starts = vec![
            (Which::Ours, vec![], expected("starts", &case.rules)),
            (Which::Ours, vec!["--strict"], expected(case.strict(), &case.rules)),
            (Which::Original, vec![], expected(case.verdict(), case.of_original())),
        ];
        starts.retain(|(which, ..)| installed.contains(which));
        for (which, words, mut wanted) in starts {
            wrong.extend(check_start(which, &case, &words, &mut wanted));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// PID of the evaluated process.
const PID: u32 = 77;

fn pid() -> Pid {
    Pid::new(PID).unwrap()
}
