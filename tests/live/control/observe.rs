//! Tests rules that observe, and the counters of rules, with a daemon.

use cgruled::control::status::ActiveRule;

use super::*;

const TRIAL: &str = "[[rule]]\nname = \"trial\"\nuser = \"cgt-alice\"\ncgroup = \"trial\"\n";

/// Returns the rule of this name with its counters.
fn hits(name: &str) -> ActiveRule {
    let rules: Vec<ActiveRule> = serde_json::from_str(&ctl("list --hits --json").ok()).unwrap();
    rules.into_iter().find(|rule| rule.name == name).unwrap()
}

#[test]
fn a_rule_is_tried_before_it_acts() {
    let Some(live) = Live::require() else { return };
    let settings = Settings { config: "", arguments: &["--control", SOCKET] };
    let observing = format!("requires = \"0.2\"\n{TRIAL}observe = true\n{RULES}");
    let daemon = live.daemon_with(&observing, &settings);
    let mut watch = Watch::start("watch --user cgt-alice");
    let actor = live.hold(&become_alice());
    live.expect(&actor, "there");
    let line = watch.line();
    assert!(line.contains(" would-match ") && line.contains("by 'trial'"), "{line:?}");
    let line = watch.line();
    assert!(line.contains(" placed ") && line.contains("by 'people'"), "{line:?}");
    let (trial, people) = (hits("trial"), hits("people"));
    assert!(trial.observe && trial.matched >= 1 && trial.placed == 0, "{trial:?}");
    assert!(!people.observe && people.matched == trial.matched && people.placed == 1, "{people:?}");
    assert_eq!(status().counters["would_match"], trial.matched);
    assert_eq!(status().rules.observing, 1);
    assert!(ctl("list --hits").ok().contains("would match"));
    let group = live.ground.directory("", "trial").unwrap();
    assert!(!group.exists(), "its cgroup was created");
    let explained = cgrulectl(&format!("explain {} --socket {SOCKET}", actor.subject)).out;
    assert!(explained.contains("would match, but observes"), "{explained}");

    // Its text is the same: it keeps its counters, and the scan counts the process again.
    live.write_rules(
        &observing.replace("[[rule]]\nname = \"people", "# x\n\n[[rule]]\nname = \"people"),
    );
    ctl("reload").ok();
    let later = hits("trial");
    assert!(later.matched > trial.matched && later.since == trial.since, "{later:?}");
    assert!(hits("people").matched > people.matched);

    live.write_rules(&format!("{TRIAL}{RULES}"));
    ctl("reload").ok();
    live.expect(&actor, "trial");
    let acting = hits("trial");
    assert!(!acting.observe && acting.placed == 1 && acting.matched >= 1, "{acting:?}");
    daemon.stop();
}
