use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn read(text: &str) -> ParsedCgconfig {
    parse(&Arc::from(Path::new("/etc/cgconfig.conf")), text)
}

/// Returns the first diagnostic as `line:column: message`.
fn fault(text: &str) -> String {
    let parsed = read(text);
    let refusal = parsed.refusal.unwrap();
    assert!(parsed.diagnostics.contains(&refusal));
    let place = refusal.place.unwrap();
    format!("{}:{}: {}", place.line, place.column, refusal.message)
}

#[test]
fn a_template_is_read_in_full() {
    let parsed = read(
        "# c\n\ntemplate ct/%u {\n\tperm {\n\t\tadmin { uid = root; gid = \"web dev\"; dperm = 775; \
         fperm = 0664; }\n\t\ttask { uid = bob; fperm = 770; }\n\t}\n* x\n\tcpu { cpu.shares = 333; \
         }\n\t\"name=x\" { }\n\tmemory{memory.limit_in_bytes=\"1 G\";a=b;}\n}\n",
    );
    assert!(parsed.diagnostics.is_empty() && parsed.refusal.is_none(), "{:?}", parsed.diagnostics);
    let [template] = &*parsed.templates else { panic!("{parsed:?}") };
    assert_eq!((&*template.text, template.origin.line), ("ct/%u", 3));
    let perm = template.perm.as_ref().unwrap();
    assert_eq!(perm.admin.group.as_ref().unwrap().mention.name, "web dev");
    assert_eq!((perm.admin.directory_mode, perm.admin.file_mode), (Some(0o775), Some(0o664)));
    assert_eq!((perm.task.directory_mode, perm.task.file_mode), (None, Some(0o770)));
    assert_eq!(perm.task.user.as_ref().unwrap().mention.name, "bob");
    let shown: Vec<_> = template
        .controllers
        .iter()
        .map(|c| (&*c.name, c.settings.iter().map(|s| (&*s.name, &*s.value)).collect::<Vec<_>>()))
        .collect();
    assert_eq!(
        shown,
        [
            ("cpu", vec![("cpu.shares", "333")]),
            ("name=x", vec![]),
            ("memory", vec![("memory.limit_in_bytes", "1 G"), ("a", "b")]),
        ]
    );
    assert_eq!(template.controllers[2].settings[1].origin.line, 11);
}

/// The lines are those that cgconfigparser 2.0.2 writes, except for memory.oom_control: the kernel
/// refuses what cgconfigparser writes there.
#[test]
fn a_value_is_written_line_by_line() {
    for (name, value, expected) in [
        ("a", "1", &["1"][..]),
        ("a", "", &[]),
        ("a", "\n \n", &[]),
        ("a", "c 1:3 rwm\n\n  c 1:5 rwm  \n", &["c 1:3 rwm", "c 1:5 rwm"]),
        ("a", "oom_kill_disable 0\nunder_oom 0", &["oom_kill_disable 0", "under_oom 0"]),
        ("memory.oom_control", "oom_kill_disable 1\nunder_oom 0\noom_kill 3", &["1"]),
        ("memory.oom_control", "0", &["0"]),
    ] {
        let parsed = read(&format!("group a {{ a {{ {name} = \"{value}\"; }} }}"));
        let setting = &parsed.groups[0].controllers[0].settings[0];
        assert_eq!(setting.values().collect::<Vec<_>>(), expected, "{name} = {value:?}");
    }
}

/// The values are the results of cgrulesengd 2.0.2.
#[test]
fn a_number_at_the_beginning_is_an_id() {
    for (text, id) in [("7", 7), ("7x", 7), (" 7", 7), ("7.5", 7), ("99999999999", 1_215_752_191)] {
        assert_eq!(leading_number(text), Some(id), "{text}");
    }
    for (text, id) in [("-1", u32::MAX), ("4294967295", u32::MAX), ("-2", u32::MAX - 1)] {
        assert_eq!(leading_number(text), Some(id), "{text}");
    }
    for name in ["", "0", "00", "0x10", "alice", "a7", "-", "--1", "4294967296"] {
        assert_eq!(leading_number(name), None, "{name}");
    }
}

#[test]
fn the_other_sections_are_read() {
    let parsed = read(
        "mount { cpu = /cg/cpu; }\ngroup . { cpu {} }\nnamespace { cpu = /; }\nsystemd { slice = \
         a.slice; }\ndefault { perm { task { uid = a; } admin { uid = a; } } }\n",
    );
    assert!(parsed.refusal.is_none());
    let all = [&parsed.mounts, &parsed.namespaces, &parsed.systemd];
    let shown: Vec<_> = all.iter().map(|list| (&*list[0].name, &*list[0].value)).collect();
    assert_eq!(shown, [("cpu", "/cg/cpu"), ("cpu", "/"), ("slice", "a.slice")]);
    assert_eq!((&*parsed.groups[0].text, parsed.defaults.len()), (".", 1));
    let message = "cgconfigparser refuses mount together with namespace (line 3)";
    assert_eq!(parsed.diagnostics[0].message, message);
}

#[test]
fn what_the_original_does_not_take_is_a_fault() {
    let perm = "perm { task { uid = a; } admin { uid = a; } }";
    for (text, expected) in [
        ("group a { cpu { x = 1 } }", "1:23: expected `;`, found `}`"),
        ("group a { }", "1:11: empty section"),
        ("mount { }", "1:9: empty section"),
        ("group a { cpu { x = 1; x = 2; } }", "1:24: duplicate setting in the section"),
        ("group a { cpu {} perm { } }", "1:18: perm must come first in its section"),
        ("group a { cpu {} cpu {} }", "1:18: duplicate controller in the section"),
        ("group a { perm { task { uid = a; } } }", "1:36: perm must have both task and admin"),
        ("group a { perm { task { } } }", "1:25: task and admin must not be empty"),
        ("group a { perm { x } }", "1:18: expected `task` or `admin` (each once), found `x`"),
        ("group perm { cpu {} }", "1:7: `perm` is a keyword: put it in quotes"),
        ("group a { cpu {} } # x", "1:20: a comment must be on its own line"),
        ("group a { cpu { x = \"1; } }", "1:21: missing closing quote"),
        ("group a { cpu {", "1:16: expected a name, found the end of the file"),
        ("templte a { cpu {} }", "1:1: expected a section, such as `template`, found `templte`"),
        ("default { cpu {} }", "1:11: expected `perm`, found `cpu`"),
    ] {
        assert_eq!(fault(text), expected);
    }
    let mode = format!("group a {{ {} }}", perm.replace("uid = a; }", "fperm = 78; }"));
    assert_eq!(fault(&mode), "1:33: invalid mode: not an octal number");
}

/// cgrulesengd 2.0.2 would not start with more.
#[test]
fn what_is_beyond_the_limits_of_the_original_is_a_warning_at_its_place() {
    let settings = |count: usize| {
        let lines: String = (0..count).map(|number| format!("x{number} = 1;\n")).collect();
        format!("group a {{ cpu {{\n{lines}}} }}")
    };
    let controllers = |count: usize| {
        let lines: String = (0..count).map(|number| format!("x{number} {{}}\n")).collect();
        format!("group a {{\n{lines}}}")
    };
    let value = |length: usize| format!("group a {{ cpu {{ x = \"{}\"; }} }}", "1".repeat(length));
    for right in [settings(100), controllers(100), value(4095)] {
        let parsed = read(&right);
        assert!(parsed.diagnostics.is_empty() && parsed.refusal.is_none());
    }
    let mount = settings(101).replace("group a { cpu {", "mount {").replace("} }", "}");
    assert!(read(&mount).refusal.is_none(), "these are not limited");
    for (text, expected) in [
        (settings(102), "102:1: more than 100 settings for one controller"),
        (controllers(102), "102:1: more than 100 controllers"),
        (value(4096), "1:17: value longer than 4095 bytes"),
    ] {
        let parsed = read(&text);
        assert_eq!((parsed.groups.len(), parsed.diagnostics.len()), (1, 1));
        assert!(!parsed.diagnostics[0].is_error());
        assert_eq!(fault(&text), expected);
    }
}

#[test]
fn a_mode_that_the_original_takes_is_cut() {
    let perm = |mode: &str| {
        read(&format!("default {{ perm {{ task {{ fperm = {mode}; }} admin {{ uid = a; }} }} }}"))
    };
    for (text, mode) in [("0664", 0o664), ("17777", 0o7777), ("-1", 0o7777)] {
        let parsed = perm(text);
        assert_eq!(parsed.defaults[0].task.file_mode, Some(mode));
        assert_eq!(parsed.diagnostics.len(), usize::from(text != "0664"), "{text}");
    }
}

#[test]
fn a_bad_section_costs_itself_alone() {
    let right = "group b { cpu {} }\n";
    for wrong in [
        "group a { cpu { x = 1 } }\n",
        "group a { cpu {\n",
        "what is this { } }\n",
        "group a { cpu { x = default; } }\n",
        "mount { cpu }\n",
        "}\n",
        "group a { cpu {} } # group c {\n",
    ] {
        let parsed = read(&format!("{right}{wrong}template c {{ cpu {{}} }}\n"));
        let names: Vec<&str> = parsed.groups.iter().map(|group| &*group.text).collect();
        let kept = if wrong.contains('#') { vec!["b", "a"] } else { vec!["b"] };
        assert_eq!((names, parsed.templates.len()), (kept, 1), "{wrong}");
        assert_eq!(parsed.diagnostics.len(), 1, "{wrong}");
        let parsed = read(&format!("{wrong}mount {{ cpu = /cg/cpu; }}\n"));
        assert_eq!((parsed.mounts.len(), parsed.diagnostics.len()), (1, 1), "{wrong}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_sections_or_complaints(bytes in vec(any::<u8>(), 0..200)) {
        read(&decode(&bytes));
    }

    #[test]
    fn any_words_are_sections_or_complaints(words in vec(select(vec![
        "group", "template", "mount", "default", "perm", "task", "admin", "uid", "fperm", "a", "\"",
        "{", "}", "=", ";", "#", "\n", "*", "7", "é",
    ]), 0..40)) {
        let parsed = read(&words.join(" "));
        prop_assert_eq!(parsed.refusal.is_some(), parsed.diagnostics.iter().any(Diagnostic::is_error));
    }

    /// A valid section is parsed after any text that contains no quotes.
    #[test]
    fn the_next_section_is_read(words in vec(select(vec![
        "group", "mount", "perm", "a", "{", "}", "=", ";", "#", "\n", "é",
    ]), 0..20)) {
        let parsed = read(&format!("{}\ntemplate ct/%u {{ cpu {{ a = b; }} }}\n", words.join(" ")));
        prop_assert_eq!(parsed.templates.len(), 1);
    }
}
