use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::compat::convert::{Converted, HostFacts, SourceFile, SourceSyntax, convert};
use crate::config::cgrules_conf;
use crate::config::rules_toml::{self, NameKind, WrittenRule};
use crate::event::{Gid, Pid, Uid};
use crate::rules::destination::SpecifierValues;
use crate::rules::matcher::Matcher;
use crate::rules::names::{ResolvedNames, UserIdentity, resolve};
use crate::rules::{Action, ExeFacts, Facts, Rule, RuleId};

fn knows(_: NameKind, name: &str) -> bool {
    ["alice", "bob", "web", "a\\b"].contains(&name)
}

fn converted(text: &str) -> Converted {
    converted_on(vec!["cpu".to_owned(), "memory".to_owned()], text)
}

/// Converts rules on a host with these v1 controllers.
fn converted_on(controllers: Vec<String>, text: &str) -> Converted {
    let file = Arc::from(Path::new("/etc/cgrules.conf"));
    let source = SourceFile { file, syntax: SourceSyntax::Cgrules, text: text.to_owned() };
    convert(&[source], &HostFacts { controllers, cpus: 4, knows: &knows })
}

/// Returns the text after the header.
fn body(text: &str) -> String {
    let made = converted(text);
    let (_, body) = made.text.split_once("# /etc/cgrules.conf\n").unwrap();
    body.to_owned()
}

#[test]
fn a_line_is_left_out_because_of_its_error() {
    let body = body("\"a3bob cpu y z\n");
    assert!(body.contains("not converted: unknown option \"z\""), "{body}");
}

#[test]
fn a_rule_with_a_controller_that_cgrulesengd_does_not_find_is_said() {
    let made = converted("alice cpu,perf_event g\nalice cpu h\nalice * i\n");
    let told: Vec<_> = made.diagnostics.iter().map(|told| told.message.as_str()).collect();
    assert_eq!(
        told,
        [
            "no v1 hierarchy of this host has the controller \"perf_event\": cgrulesengd moves nothing"
        ]
    );
    assert!(made.text.contains("controllers = [\"cpu\", \"perf_event\"]"), "{}", made.text);
}

#[test]
fn a_rule_keeps_its_meaning_and_its_comments() {
    let text =
        "# sites\nalice:/usr/bin/vim cpu,memory ct/%u # edits\n\n@web:x* * /web/\n@web:x cpu /w/\n";
    assert_eq!(
        body(text),
        "# sites\n\n# edits\n[[rule]]\nname = \"cgrules.conf:2\"\nuser = \"alice\"\n\
         exe = \"/usr/bin/vim\"\nexe_anywhere = true\ncontrollers = [\"cpu\", \"memory\"]\n\
         cgroup = \"ct/%u\"\nleave_units = true\n\n\
         # line 4: not converted: no program can have this path\n#   @web:x* * /web/\n\n\
         [[rule]]\nname = \"cgrules.conf:5\"\ngroup = \"web\"\nexe = \"x\"\nexe_anywhere = true\n\
         controllers = [\"cpu\"]\ncgroup = \"w\"\nleave_units = true\n"
    );
}

#[test]
fn a_star_means_everybody_every_hierarchy_and_every_program_below() {
    assert_eq!(
        body("*:/opt/* * a%%b"),
        "\n[[rule]]\nname = \"cgrules.conf:1\"\nexe = \"/opt/**\"\nexe_anywhere = true\n\
         controllers = [\"cpu\", \"memory\"]\ncgroup = \"a%%%%b\"\nleave_units = true\n"
    );
    assert!(body("* cpu a").contains("user = \"*\"\n"));
}

#[test]
fn a_rule_that_empties_services_is_said() {
    let warned = |text: &str| {
        let found = converted(text).diagnostics;
        assert!(found.iter().all(|diagnostic| !diagnostic.is_error()), "{found:?}");
        found.iter().any(|diagnostic| diagnostic.message.contains("as cgrulesengd does"))
    };
    assert!(warned("* cpu a\n"));
    assert!(!warned("*:/usr/bin/x cpu a\n") && !warned("root cpu a\n"));
}

/// Other cgroups serve cgexec, and a table would not create them.
#[test]
fn sections_that_no_rule_uses_are_said() {
    let file = |path: &str, syntax, text: &str| SourceFile {
        file: Arc::from(Path::new(path)),
        syntax,
        text: text.to_owned(),
    };
    let groups = "group a { cpu { cpu.shares = 1; } }\ngroup /a/b { cpu { cpu.shares = 2; } }\n\
                  group batch { cpu { cpu.shares = 3; } }\ngroup empty { cpu { } }\n\
                  template t/%u { cpu { cpu.shares = 4; } }\ngroup a/b/c { cpu { cpu.shares = 5; } }\n";
    let groups = file("/etc/cgconfig.conf", SourceSyntax::Cgconfig, groups);
    let host = HostFacts { controllers: Vec::new(), cpus: 1, knows: &knows };
    let rules = file("/etc/cgrules.conf", SourceSyntax::Cgrules, "root cpu a/b\nghost cpu t/%u\n");
    let made = convert(&[rules, groups.clone()], &host);
    let unused = made.diagnostics.iter().filter(|d| d.message.contains("no rule uses the cgroup"));
    let lines: Vec<u32> = unused.map(|d| d.place.as_ref().unwrap().line).collect();
    assert_eq!(lines, [3, 4, 6]);
    assert!(made.text.contains("#   group batch { cpu { cpu.shares = 3; } }\n"), "{}", made.text);
    for table in ["[cgroup.\"a\"]", "[cgroup.\"a/b\"]", "[cgroup.\"t/%u\"]"] {
        assert!(made.text.contains(table), "{table}: {}", made.text);
    }
    assert!(!made.text.contains("[cgroup.\"batch\"]"), "{}", made.text);
    // The rules are elsewhere.
    let made = convert(&[groups], &host);
    assert!(made.text.contains("[cgroup.\"batch\"]"), "{}", made.text);
}

#[test]
fn a_rule_that_cannot_be_expressed_leaves_its_processes_to_no_later_rule() {
    let long = "a".repeat(300);
    let made = converted(&format!("alice cpu {long}\n* cpu b\n"));
    assert!(made.diagnostics[0].to_string().starts_with("/etc/cgrules.conf:1:1: error: "));
    let (_, after) = made.text.split_once("# In its place").unwrap();
    assert!(
        after.contains("name = \"cgrules.conf:1\"\nuser = \"alice\"\nignore = true\n"),
        "{after}"
    );
    assert!(after.contains("cgroup = \"b\"\n"), "{after}");
}

#[test]
fn continuations_to_the_same_group_are_one_rule() {
    let made = converted("alice cpu a\n% memory /a/\n% pids b\n");
    assert!(
        made.text.contains("controllers = [\"cpu\", \"memory\"]\ncgroup = \"a\"\n"),
        "{}",
        made.text
    );
    assert!(
        made.text.contains("# line 3: not converted: a TOML rule has one cgroup"),
        "{}",
        made.text
    );
    let said: Vec<String> = made.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("/etc/cgrules.conf:3:1: error: "), "{said:?}");
}

#[test]
fn rules_that_ignore_are_kept_where_they_have_no_condition() {
    let made = converted("alice * * ignore,ignore_rt\n");
    assert!(
        made.diagnostics.is_empty() && made.text.ends_with("user = \"alice\"\nignore = true\n")
    );
    for text in ["alice * ct ignore\n", "alice * * ignore\n", "alice * * ignore_rt\n"] {
        let made = converted(text);
        assert_eq!(made.diagnostics.len(), 1, "{text}");
        assert!(made.text.contains("# line 1: not converted: it ignores "), "{}", made.text);
    }
    // A rule that cannot be applied still ends the search.
    assert!(converted("alice cpu,cpu a").text.ends_with("ignore = true\n"));
}

/// With v1 the condition also concerns other hierarchies than the one that `from` compares.
#[test]
fn on_cgroup_v2_from_requires_the_cgroup_of_ignored_processes() {
    let made = converted_on(Vec::new(), "alice * c*t/ ignore\n* * / ignore\n");
    assert!(made.diagnostics.is_empty(), "{:?}", made.diagnostics);
    assert!(made.text.contains("version = 1\nrequires = \"0.2\"\n"), "{}", made.text);
    let expected = "user = \"alice\"\nfrom = [\"/c\\\\*t\", \"/c\\\\*t/**\"]\nignore = true\n";
    assert!(made.text.contains(expected), "{}", made.text);
    assert!(made.text.ends_with("from = [\"/\"]\nignore = true\n"), "{}", made.text);
    for text in ["alice * a//b ignore\n", "alice * * ignore_rt\n"] {
        let made = converted_on(Vec::new(), text);
        assert!(made.diagnostics.iter().any(|told| told.is_error()), "{text}");
        assert!(!made.text.contains("[[rule]]"), "{}", made.text);
    }
    let made = converted_on(Vec::new(), "ghost * ct ignore\n");
    assert!(made.text.contains("#ignore = true\n"), "{}", made.text);
}

#[test]
fn what_cannot_be_said_is_said_with_its_line() {
    for line in ["alice cpu tasks", "alice CPU a", "alice:/a/ cpu b"] {
        let made = converted(&format!("\n{line}\n"));
        assert!(made.diagnostics.iter().any(|d| d.is_error()), "{line}");
        assert!(made.text.contains(&format!("#   {line}\n")), "{}", made.text);
        assert!(!made.text.contains("cgroup = "), "{}", made.text);
    }
    let made = converted("ghost cpu a\n");
    assert!(made.text.contains("#[[rule]]\n") && made.text.contains("#user = \"ghost\"\n"));
    assert!(!made.diagnostics.iter().any(|d| d.is_error()));
}

fn line() -> impl Strategy<Value = String> {
    let user =
        select(vec!["alice", "@web", "*", "*x", "bob", "ghost", "%", "%", "a\\b", ":", "\"alice"]);
    let program = select(vec![
        "",
        "",
        ":",
        ":x",
        ":/usr/bin/x",
        ":/usr/*",
        ":*",
        ":x*",
        ":a*b",
        ":/a\\b",
        ":[",
        ":\"x y\"",
        ":/usr//x",
        ":/usr/bin/",
        ":?",
    ]);
    let controllers =
        select(vec!["cpu", "cpu,memory", "*", "cpu,,pids,", "name=x", "CPU", "cpu,cpu"]);
    let destination = select(vec![
        "ct", "/ct/a/", "ct/%u", "ct/%%", "%", "\\%u", "*", "/", "a\"b", "..", "a/../b", "tasks",
        "\"a b\"", "%p/%G.%U", "a%x",
    ]);
    let options =
        select(vec!["", "", " ", " # why", " ignore", " ignore,ignore_rt", " ignore_rt", " bogus"]);
    (user, program, controllers, destination, options).prop_map(
        |(user, program, controllers, destination, options)| {
            format!("{user}{program} {controllers} {destination}{options}\n")
        },
    )
}

fn compiled(written: Vec<WrittenRule>) -> Matcher {
    let names = ResolvedNames {
        uids: HashMap::from([
            ("alice".to_owned(), Uid(1)),
            ("bob".to_owned(), Uid(2)),
            ("a\\b".to_owned(), Uid(3)),
        ]),
        gids: HashMap::from([("web".to_owned(), Gid(7))]),
        ..ResolvedNames::default()
    };
    let rules: Vec<Rule> =
        written.into_iter().filter_map(|written| resolve(written.rule, &names).0).collect();
    Matcher::compile(rules.into())
}

/// Returns the first matching rule, assuming that no condition of an ignore rule is met.
fn winner<'m>(matcher: &'m Matcher, who: &UserIdentity, facts: &Facts<'_>) -> Option<&'m Rule> {
    let plan = matcher.plan(who);
    let mut id: Option<RuleId> = matcher.decide(&plan, facts);
    while let Some(rule) = id.and_then(|id| matcher.rule(id)) {
        if !rule.is_conditional() {
            return Some(rule);
        }
        id = matcher.decide_after(&plan, facts, id?);
    }
    None
}

/// Returns the first path to which a rule moves a process.
fn outcome(rule: Option<&Rule>, who: &UserIdentity, facts: &Facts<'_>) -> Option<String> {
    let Action::Place(targets) = &rule?.action else { return None };
    let who = SpecifierValues {
        uid: facts.uid,
        user: who.name.as_deref(),
        gid: facts.gid,
        group: Some("grp"),
        pid: Pid::new(42).unwrap(),
        program: facts.exe.map(|exe| exe.path),
    };
    let mut path = String::new();
    targets.first()?.destination.render(&who, &mut path);
    Some(path)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// The rules select the same cgroups as the old ones, or an error names the line of the
    /// deciding rule.
    #[test]
    fn decisions_stay(lines in vec(line(), 0..12), uid in 0u32..5, gid in 6u32..9,
        exe in select(vec!["/usr/bin/x", "/usr/bin/a*b", "/a\\b", "/opt/[", "/x y", "/bin/?", "/z"]),
        listed in any::<bool>(), on_host in any::<bool>())
    {
        let text = lines.concat();
        let made = converted(&text);
        let file = Arc::from(Path::new("/etc/cgrules.conf"));
        let legacy = cgrules_conf::parse(&file, &text);
        let read = rules_toml::parse(&file, &made.text);
        prop_assert!(!read.diagnostics.iter().any(|d| d.is_error()), "{}\n{:?}", made.text, read.diagnostics);
        let name = [None, Some("alice"), Some("bob"), Some("a\\b"), None][uid as usize];
        let listed_in = if listed { vec![Gid(7)] } else { vec![] };
        let name = name.map(str::to_owned);
        let who = UserIdentity { uid: Uid(uid), name, listed_in, login_group: None };
        let exe = ExeFacts { path: exe.as_bytes(), on_host };
        let facts = Facts { uid: Uid(uid), gid: Gid(gid), exe: Some(exe), invoked: None };
        let (old, new) = (compiled(legacy.rules), compiled(read.rules));
        let (old, new) = (winner(&old, &who, &facts), winner(&new, &who, &facts));
        let line = old.map_or(0, |rule| rule.origin.line);
        let said = |d: &crate::config::diagnostic::Diagnostic| {
            d.is_error() && d.place.as_ref().is_some_and(|place| place.line == line)
        };
        if !made.diagnostics.iter().any(said) {
            prop_assert_eq!(old.map(|rule| &*rule.name), new.map(|rule| &*rule.name), "{}", made.text);
            prop_assert_eq!(outcome(old, &who, &facts), outcome(new, &who, &facts), "{}", made.text);
        }
    }

    #[test]
    fn any_text_becomes_a_rule_file(text in "[ -~\\n\\t\u{0}\r%#é]{0,200}") {
        let made = converted(&text);
        let read = rules_toml::parse(&Arc::from(Path::new("/a.toml")), &made.text);
        prop_assert!(!read.diagnostics.iter().any(|d| d.is_error()), "{}\n{:?}", made.text, read.diagnostics);
    }
}
