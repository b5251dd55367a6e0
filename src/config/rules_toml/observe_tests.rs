//! Tests `observe` of files and rules: a file that may be meant to observe loads no active rule.

use super::*;

const RULES: &str = "[[rule]]\nuser = 7\ncgroup = \"a\"\n[[rule]]\nuser = 8\nignore = true\n";

/// Returns for each rule whether it observes.
fn observing(text: &str) -> Vec<bool> {
    read(text).rules.iter().map(|written| written.rule.action.observes()).collect()
}

#[test]
fn a_rule_or_all_of_a_file_observe() {
    let all = format!("requires = \"0.2\"\nobserve = true\n{RULES}");
    assert_eq!((observing(&all), complaints(&all)), (vec![true, true], Vec::new()));
    assert_eq!(observing(RULES), [false, false]);
    assert_eq!(observing(&format!("observe = false\n{RULES}")), [false, false]);
    let one = format!("{RULES}observe = true\n");
    assert_eq!(observing(&one), [false, true]);
    let but_one = format!("observe = true\n{RULES}observe = false\n");
    assert_eq!(observing(&but_one), [true, false]);
}

#[test]
fn a_rule_keeps_the_action_that_it_would_have() {
    let parsed = read(&format!("observe = true\n{RULES}"));
    let [moves, ignores] = [0, 1].map(|at: usize| &parsed.rules[at].rule.action);
    assert!(moves.targets().is_empty() && moves.written_targets().is_empty());
    assert_eq!(moves.intended().targets().len(), 1);
    assert_eq!(*ignores.intended(), Action::ignore());
    assert_eq!(destinations(&parsed.rules[0].rule), ["a"]);
}

#[test]
fn a_file_that_may_be_meant_to_observe_is_refused() {
    for (head, message) in [
        ("observe = 1", "1:11: no rules of this file are loaded: observe must be true or false"),
        ("obsreve = true", "1:1: no rules of this file are loaded: did you mean \"observe\"?"),
        ("observes = true", "1:1: no rules of this file are loaded: did you mean \"observe\"?"),
    ] {
        let text = format!("{head}\n{RULES}");
        assert_eq!((observing(&text), complaints(&text)), (vec![], vec![message.to_owned()]));
    }
    // The version is known, so that without observe the rules would be loaded.
    for head in ["root\nobserve = true", "observe = true\nroot", "observe = true\nobserve = false"]
    {
        let text = format!("version = 1\n{head}\n{RULES}");
        assert_eq!(observing(&text), [false; 0], "{head}");
        let end = "observe cannot be read because of the syntax error";
        let wrong = complaints(&text);
        assert!(wrong.iter().any(|message| message.ends_with(end)), "{wrong:?}");
    }
    assert_eq!(observing(&format!("version = 1\nroot # observe\n{RULES}")), [false, false]);
}

#[test]
fn a_rule_with_another_value_is_ignored() {
    let (rule, wrong) = rule_with("user = 7\ncgroup = \"a\"\nobserve = \"true\"");
    assert!(rule.is_none());
    assert_eq!(wrong[1], "4:11: observe must be true or false, not a string");
}

#[test]
fn the_version_that_knows_the_key_is_required() {
    for text in [format!("observe = true\n{RULES}"), format!("{RULES}observe = false\n")] {
        let text = format!("version = 1\n{text}");
        let [warning] = &read(&text).diagnostics[..] else { panic!("{:?}", read(&text)) };
        assert_eq!(warning.message, "observe needs cgruled 0.2 or later");
        let required = text.replace("version = 1\n", "version = 1\nrequires = \"0.2\"\n");
        assert_eq!(read(&required).diagnostics, []);
    }
}
