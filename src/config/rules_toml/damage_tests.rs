//! Tests with arbitrary and damaged text: no rule becomes wider than written, and none changes by
//! damage elsewhere.

use proptest::prelude::*;

use super::*;

const VALID: &str = r#"version = 1
[[rule]]
name = "one"
user = ["alice", "site-*"]
group = "web"
exe = "/bin/sh"
cgroup = "a/%u"
[rule.not]
user = "bob"
[[rule]]
user = """carol"""
exe = ['/bin/x',
  "y"]
cgroup = "b"
[cgroup."a/%u"]
cpu.weight = 50
[[rule]]
user = 7
group = "1-2"
exe = "z"
ignore = true
"#;

/// Counts the criteria of a rule of `VALID`.
fn kinds(criteria: &Criteria) -> usize {
    [criteria.users.is_empty(), criteria.groups.is_empty(), criteria.exes.is_empty()]
        .iter()
        .filter(|&&empty| !empty)
        .count()
}

#[test]
fn sections_read_as_the_whole_file_would() {
    let (whole, errors) = DeTable::parse_recoverable(VALID);
    assert!(errors.is_empty());
    let rules = whole.get_ref().get("rule").and_then(|rule| rule.get_ref().as_array()).unwrap();
    let parsed = read(VALID);
    assert_eq!((parsed.rules.len(), parsed.groups.len()), (rules.len(), 1));
    assert_eq!(parsed.rules[0].rule.not.users.len(), 1);
}

proptest! {
    #[test]
    fn any_text_is_survived(text in any::<String>()) {
        read(&text);
    }

    #[test]
    fn any_bytes_are_survived(bytes in any::<Vec<u8>>()) {
        let file = Arc::from(Path::new("/a.toml"));
        parse_bytes(&file, &bytes);
        crate::config::daemon_toml::parse_bytes(&file, &bytes);
    }

    #[test]
    fn any_toml_like_text_is_survived(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "[[rule]]\n", "[cgroup.a]\n", "[", "]", "{", "}", "=", "\n", "\"", "'", "\"\"\"",
                "user", "not", ".", ",", "exe = \"a\"\n", "cgroup = \"x\"\n", "1", "-", "\\", "#",
                "version = 1\n", "é", " ",
            ]),
            0..40,
        )
    ) {
        let text = words.concat();
        for diagnostic in read(&text).diagnostics {
            prop_assert!(!diagnostic.to_string().is_empty());
        }
    }

    #[test]
    fn a_damaged_line_never_makes_a_rule_wider(
        line in 1usize..21,
        at in 0usize..40,
        put in prop::sample::select(vec![
            "", "\"", "'", "[", "]", "=", "#", "\n", "\"\"\"", "'''", "{", "}", ",", "\\", ".", " x",
            "\u{0}", "[[rule]]", "\n[[rule]]\n",
        ]),
        cut in 0usize..3,
    ) {
        let mut lines: Vec<String> = VALID.lines().map(str::to_owned).collect();
        let target = &mut lines[line];
        let at = at.min(target.len());
        let end = (at + cut).min(target.len());
        target.replace_range(at..end, put);
        let text = lines.join("\n");
        for written in read(&text).rules {
            // The text of the rule, line by line, up to the next header.
            let begin = written.rule.origin.line as usize - 1;
            let body: Vec<&str> = text.lines().skip(begin)
                .take_while(|line| !line.starts_with("[["))
                .take_while(|line| !line.starts_with("[cgroup") && !line.starts_with("[rule.not]"))
                .collect();
            let says = |key: &str| body.iter().any(|line| {
                line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
            });
            let said = ["user", "group", "exe"].into_iter().filter(|key| says(key)).count();
            prop_assert!(kinds(&written.rule.when) >= said, "{text}\n{written:?}");
        }
    }
}

proptest! {
    /// Damage outside of a rule's text never changes the rule; it may only disable it.
    #[test]
    fn damage_elsewhere_never_changes_a_rule(
        pieces in prop::collection::vec(piece(), 1..6),
        at in any::<prop::sample::Index>(),
        cut in prop_oneof![Just(0), 0usize..12],
        at_line in any::<bool>(),
        put in damage(),
    ) {
        let (text, ranges) = assemble(&pieces);
        let whole = read(&text);
        prop_assert!(!crate::config::diagnostic::has_errors(&whole.diagnostics), "{text}");
        let begin = at.index(text.len() + 1);
        // Most damage inside of a line is a syntax error; whole lines produce other valid files.
        let line = text[..begin].rfind('\n').map_or(0, |end| end + 1);
        let begin = if at_line { line } else { begin };
        let end = (begin + cut).min(text.len());
        let damaged = format!("{}{put}{}", &text[..begin], &text[end..]);
        prop_assert!(reads_as_toml_does(&damaged), "{}", damaged);
        for WrittenRule { rule, .. } in read(&damaged).rules {
            let Some((_, range)) = ranges.iter().find(|(name, _)| **name == *rule.name) else {
                continue;
            };
            // A rule may be continued directly after its end.
            if begin > range.end || end <= range.start {
                let upstream = whole.rules.iter().find(|w| w.rule.name == rule.name).unwrap();
                prop_assert_eq!(&rule.when, &upstream.rule.when, "{}", damaged);
                prop_assert_eq!(&rule.not, &upstream.rule.not, "{}", damaged);
                prop_assert_eq!(&rule.action, &upstream.rule.action, "{}", damaged);
            }
        }
    }
}

/// Checks whether each loaded rule has the criteria that a parse of the whole text gives it, if
/// that finds no error.
fn reads_as_toml_does(text: &str) -> bool {
    let (whole, errors) = DeTable::parse_recoverable(text);
    let list = whole.get_ref().get("rule").and_then(|rule| rule.get_ref().as_array());
    let (true, Some(list)) = (errors.is_empty(), list) else { return true };
    let given = |table: &DeTable<'_>| {
        ["user", "group", "exe"].iter().filter(|&&key| table.contains_key(key)).count()
    };
    let tables = list.iter().filter_map(|item| item.get_ref().as_table());
    let toml: Vec<(Option<&str>, usize, usize)> = tables
        .map(|table| {
            let name = table.get("name").and_then(|name| name.get_ref().as_str());
            let not = table.get("not").and_then(|not| not.get_ref().as_table());
            (name, given(table), not.map_or(0, given))
        })
        .collect();
    read(text).rules.iter().all(|WrittenRule { rule, .. }| {
        let has_name = toml.iter().any(|(name, ..)| *name == Some(&rule.name));
        let ours = (has_name.then_some(&*rule.name), kinds(&rule.when), kinds(&rule.not));
        toml.contains(&ours)
    })
}

/// Generates text that damages a file.
fn damage() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "\"",
        "'",
        "[",
        "]",
        "[[",
        "=",
        "#",
        "\n",
        "\"\"\"",
        "'''",
        "{",
        "}",
        ",",
        "\\",
        "x",
        "\u{0}",
        "\n[[rule]]\n",
        "\n[rule]\n",
        "\n[rule.not]\n",
        "\n[rule.not]\nuser = 9\n",
        "\n[cgroup.z]\n",
        "\n[[other]]\n",
        "\nuser = 1\n",
    ])
}

/// Generates a rule or a cgroup table, with `%` for its number.
fn piece() -> impl Strategy<Value = String> {
    let criteria = prop::sample::subsequence(
        vec![
            "user = [\"a%\",\n  'b*', # [[rule]]\n]\n",
            "group = \"\"\"\ng%\"\"\"\n",
            "not.user = \"c\"\n",
        ],
        0..=3,
    );
    let rule = (criteria, any::<bool>()).prop_map(|(criteria, has_table)| {
        let criteria = criteria.concat();
        let table = match has_table && !criteria.contains("not") {
            true => "[rule.not]\ngroup = 7\n",
            false => "",
        };
        format!("[[rule]]\nname = \"n%\"\n{criteria}exe = '/bin/x%'\ncgroup = \"d%\"\n{table}")
    });
    prop_oneof![
        4 => rule,
        1 => Just("[cgroup.\"d%\"]\ncpu.weight = 5\n".to_owned()),
    ]
}

/// Returns the text of a file, and the names and ranges of its rules.
fn assemble(pieces: &[String]) -> (String, Vec<(String, Range<usize>)>) {
    let mut text = "version = 1\n".to_owned();
    let mut ranges = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        let begin = text.len();
        text.push_str(&piece.replace('%', &number.to_string()));
        if piece.starts_with("[[rule]]") {
            ranges.push((format!("n{number}"), begin..text.len()));
        }
    }
    (text, ranges)
}
