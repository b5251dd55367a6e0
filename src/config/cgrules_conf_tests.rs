use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::rules::{ExeTest, UserTest};

fn file() -> Arc<Path> {
    Arc::from(Path::new("/etc/cgrules.conf"))
}

fn read(text: &str) -> ParsedCgrules {
    parse(&file(), text)
}

/// Returns the diagnostics as `line:column: message`.
fn complaints(text: &str) -> Vec<String> {
    let shown = |d: &Diagnostic| {
        let place = d.place.as_ref().unwrap();
        format!("{}:{}: {}", place.line, place.column, d.message)
    };
    read(text).diagnostics.iter().map(shown).collect()
}

fn targets(rule: &WrittenRule) -> Vec<(String, Vec<String>, bool)> {
    match &rule.rule.action {
        other @ (Action::Ignore(_) | Action::Inapplicable(_) | Action::Observe(_)) => {
            panic!("{other:?}")
        }
        Action::Place(targets) => targets
            .iter()
            .map(|t| (t.destination.to_string(), t.controllers.clone(), t.creates))
            .collect(),
    }
}

#[test]
fn a_rule_is_read() {
    let parsed = read("# rules\n\n \talice:/usr/bin/vim cpu,memory ct/%u\n");
    assert!(parsed.diagnostics.is_empty() && parsed.refusals.is_empty());
    let [written] = &*parsed.rules else { panic!("{:?}", parsed.rules) };
    let rule = &written.rule;
    assert_eq!((&*rule.name, rule.origin.line), ("cgrules.conf:3", 3));
    assert_eq!(rule.when.users, [UserTest::Name("alice".to_owned())]);
    assert_eq!(rule.when.exes, [ExeTest::Path(b"/usr/bin/vim".to_vec())]);
    assert!(rule.exe_anywhere && rule.not.is_empty());
    let controllers = vec!["cpu".to_owned(), "memory".to_owned()];
    assert_eq!(targets(written), [("ct/%u".to_owned(), controllers, true)]);
    assert_eq!(written.mentions[0].span, 11..16);
}

#[test]
fn a_bad_line_costs_that_line_and_what_continues_it() {
    let text = "alice cpu a\nbob cpu\n% memory b\nalice cpu c # x\n% memory\n% pids d\n";
    let parsed = read(text);
    assert_eq!(parsed.rules.len(), 2);
    assert_eq!(targets(&parsed.rules[0]).len(), 1);
    assert_eq!(targets(&parsed.rules[1]).len(), 2);
    assert_eq!(parsed.refusals.len(), 2);
    let three = "incomplete rule: needs user[:program], controllers and destination";
    assert_eq!(
        complaints(text),
        [
            format!("2:1: {three}"),
            "3:1: continuation ignored: the rule itself is not loaded".to_owned(),
            format!("5:1: {three}"),
        ]
    );
}

#[test]
fn a_complaint_stands_where_the_fault_is() {
    assert_eq!(complaints("alice cpu t ignore,bogus"), ["1:20: unknown option \"bogus\""]);
    assert_eq!(complaints("alice , t"), ["1:7: rule without a controller"]);
    assert_eq!(complaints("alice cpu a b\nx:y cpu t"), ["1:13: unknown option \"b\""]);
    assert_eq!(complaints("alice cpu \"t"), ["1:11: missing closing quote"]);
    let told = ["1:1: a quote after @ is part of the name", "1:21: unknown option \"x\""];
    assert_eq!(complaints("@\"domain users\" cpu x"), told);
    assert_eq!(complaints("\"@domain users\" cpu x"), [""; 0]);
    assert_eq!(
        complaints("a\0lice cpu t"),
        [
            "1:1: incomplete rule: needs user[:program], controllers and destination",
            "1:2: NUL byte: the rest of the line is ignored",
        ]
    );
    assert_eq!(complaints("\r\n"), ["1:1: blank line with white space other than spaces and tabs"]);
}

#[test]
fn what_is_not_utf8_is_harmless_in_a_comment() {
    let text = decode(b"# Gr\xfc\xdfe\nalice cpu t # \xff\nalice cpu \xff\n");
    let parsed = read(&text);
    assert_eq!((parsed.rules.len(), parsed.diagnostics.len()), (1, 1));
    assert_eq!(parsed.diagnostics[0].place.as_ref().unwrap().column, 11);
    assert!(parsed.refusals.is_empty());
}

#[test]
fn quotes_enclose_the_whole_key_or_its_program() {
    for (text, span) in [("\"alice:/opt/a b\" cpu t", 1..6), ("alice:\"/opt/a b\" cpu t", 0..5)] {
        let parsed = read(text);
        let [written] = &*parsed.rules else { panic!("{text}: {:?}", parsed.rules) };
        assert_eq!(written.mentions[0].span, span, "{text}");
        assert_eq!(written.rule.when.exes, [ExeTest::Path(b"/opt/a b".to_vec())], "{text}");
    }
}

#[test]
fn quotes_enclose_the_destination() {
    let parsed = read("alice cpu \"a b/%u\"\n");
    assert_eq!(targets(&parsed.rules[0]), [("a b/%u".to_owned(), vec!["cpu".to_owned()], true)]);
}

#[test]
fn a_list_of_controllers_has_a_length_of_which_the_original_is_safe() {
    let list = |length: usize| format!("alice cpu,{} t", "x".repeat(length - 4));
    assert_eq!(complaints(&list(99)), [""; 0]);
    let told = "1:7: controller list longer than 99 bytes";
    assert_eq!(complaints(&list(100)), [told]);
}

/// cgrulesengd 2.0.2 reads the rest of a long line as another one, even in a comment.
#[test]
fn a_long_line_is_refused_by_the_original_if_a_part_of_it_is_incomplete() {
    let comment = |length: usize| format!("#{}", "x".repeat(length - 1));
    let refusals = |text: &str| read(text).refusals.len();
    assert_eq!(complaints(&comment(LINE_MAX)), [""; 0]);
    let message = [format!("2:1: line longer than {LINE_MAX} bytes")];
    let (rest, rule) = (comment(LINE_MAX + 1), comment(LINE_MAX) + "alice cpu t");
    for (line, refused) in [(rest, 1), (rule, 0)] {
        let text = format!("\n{line}\nbob cpu t\n");
        assert_eq!((complaints(&text), refusals(&text)), (message.to_vec(), refused));
        assert_eq!(read(&text).rules.len(), 1);
    }
}

#[test]
fn a_limited_number_of_refusals_is_kept() {
    let parsed = read(&"alice cpu\n".repeat(REFUSALS_KEPT + 5));
    assert_eq!(parsed.refusals.len(), REFUSALS_KEPT);
}

#[test]
fn what_has_no_effect_is_remarked() {
    let options = "2:12: options of a continuation line are ignored";
    assert_eq!(complaints("alice cpu t\n% memory u ignore\n"), [options]);
    let mark = "1:1: byte order mark is read as part of the first name";
    assert_eq!(complaints("\u{feff}alice cpu t\n\u{feff}bob cpu t\n"), [mark]);
}

#[test]
fn a_refusal_behind_an_unknown_user_depends_on_it() {
    let parsed = read("ghost cpu t bogus\n");
    assert_eq!(parsed.refusals[0].unless_unknown.as_ref().unwrap().name, "ghost");
    assert!(read("ghost cpu\n").refusals[0].unless_unknown.is_none());
}

/// Generates pieces of lines, including invalid ones.
fn piece() -> impl Strategy<Value = &'static str> {
    select(vec![
        "alice",
        "@web",
        "*",
        "%",
        ":",
        "/usr/bin/x",
        "x*",
        " ",
        "\t",
        "\n",
        "\r",
        "\u{b}",
        "\"",
        "#",
        "cpu",
        ",",
        "memory",
        "ct/%u",
        "\\",
        "..",
        "/",
        "ignore",
        "ignore_rt",
        "\0",
        "\u{feff}",
        "é",
        "%u",
        "\u{fffd}",
    ])
}

/// Generates a line that cgrulesengd 2.0.2 loads.
fn right_line() -> impl Strategy<Value = String> {
    let user = select(vec!["alice", "@web", "*", "*x", "a\\b"]);
    let program = select(vec!["", ":", ":x", ":/usr/bin/x", ":/usr/*", ":a:b", ":\"x"]);
    let controllers = select(vec!["cpu", "cpu,memory", "*", "cpu,,pids,", "name=x", "\"cpu\""]);
    let destination = select(vec!["ct", "/ct/a/", "ct/%u", "ct/%%", "%", "\\", "*", "/", "a\"b"]);
    let options = select(vec!["", " ", " ignore", " ignore,ignore", "\u{b}", " ignore junk # c"]);
    let blank = || select(vec![" ", "\t", "  ", " \t", "\u{c}"]);
    (user, program, blank(), controllers, blank(), destination, options).prop_map(
        |(user, program, a, controllers, b, destination, options)| {
            format!("{user}{program}{a}{controllers}{b}{destination}{options}\n")
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_rules_or_complaints(bytes in vec(any::<u8>(), 0..200)) {
        read(&decode(&bytes));
    }

    #[test]
    fn any_pieces_are_rules_or_complaints(pieces in vec(piece(), 0..40)) {
        let text = pieces.concat();
        let parsed = read(&text);
        for written in &parsed.rules {
            for mention in &written.mentions {
                let at = text.get(mention.span.clone());
                prop_assert!(at.is_some_and(|at| at.starts_with(&mention.name)));
            }
        }
        // Each line that 2.0.2 would refuse has a diagnostic.
        for refusal in &parsed.refusals {
            prop_assert!(parsed.diagnostics.contains(&refusal.diagnostic));
        }
    }

    #[test]
    fn every_right_line_is_loaded(lines in vec(right_line(), 1..20)) {
        let parsed = read(&lines.concat());
        prop_assert_eq!(parsed.rules.len(), lines.len());
        prop_assert!(parsed.refusals.is_empty());
        prop_assert!(!parsed.diagnostics.iter().any(Diagnostic::is_error));
    }

    /// A line is parsed in the same way whatever precedes or follows it.
    #[test]
    fn lines_do_not_change_each_other(lines in vec(right_line(), 1..8)) {
        let together = read(&lines.concat());
        for (line, written) in lines.iter().zip(&together.rules) {
            let alone = read(line);
            prop_assert_eq!(&alone.rules[0].rule.when, &written.rule.when);
            prop_assert_eq!(&alone.rules[0].rule.action, &written.rule.action);
        }
    }
}
