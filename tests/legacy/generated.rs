//! Compares the two daemons on generated files: ours must load the files that cgrulesengd loads,
//! and a strict start must accept the same files. A daemon exits before it moves any process,
//! because another file is missing or invalid.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use cgruled::config::cgconfig_conf;

use crate::cast::Cast;
use crate::daemons::Which;
use crate::harness::{Live, rounds};
use crate::private::Private;
use crate::{cases, complaints, live};

/// A linear congruential generator: the same numbers in each run with the same seed.
struct Dice {
    state: u64,
    /// One in this many choices is an unusual one.
    odd: usize,
}

impl Dice {
    /// Starts with the seed CGRULED_SEED, or with `usual` if that is unset. Prints the seed, so
    /// that a failure can be reproduced.
    fn new(usual: u64, odd: usize) -> Self {
        let given = std::env::var("CGRULED_SEED").ok();
        let state = given.map_or(usual, |seed| seed.parse().expect("CGRULED_SEED is a number"));
        println!("CGRULED_SEED={state}");
        Self { state, odd }
    }

    fn below(&mut self, end: usize) -> usize {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.state >> 33).unwrap() % end
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.below(from.len())]
    }

    /// Returns a usual value in most cases, else an odd one.
    fn mostly<'t>(&mut self, usual: &[&'t str], odd: &[&'t str]) -> &'t str {
        let from = if self.below(self.odd) == 0 { odd } else { usual };
        self.pick(from)
    }
}

/// Returns the exit code and the output of a strict start on the present files.
fn ask(which: Which) -> (Option<i32>, String) {
    let mut command = Command::new(which.program());
    let strict = ["--strict"].iter().filter(|_| which == Which::Ours);
    let output = command.args(strict).args(["-n", "-f", "/dev/null"]).stdin(Stdio::null()).output();
    let output = output.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// Prepares the test; `None` without cgrulesengd, which [`Which::installed`] reports.
fn stage() -> Option<(Live, Private)> {
    let live = Live::require()?;
    let private = Private::enter(&live);
    live::accounts(&[Cast::as_written()]);
    Which::installed().contains(&Which::Original).then_some((live, private))
}

const BLANKS: [&str; 6] = [" ", "\t", "  ", "\u{b}", "\u{c}", "\r"];

fn line(dice: &mut Dice) -> String {
    if dice.below(8) == 0 {
        let odd =
            ["%", "#", "alice", ",", "*", "\0", "\u{feff}", "\\", "ignore", ":", "@", "cpu", " "];
        return (0..dice.below(8)).map(|_| dice.pick(&odd)).collect();
    }
    let usual = ["alice", "@ssl-cert", "*", "%", "alice:/usr/bin/x", "bob:x*", "@bob:a:b"];
    let key = dice.mostly(&usual, &["nosuch", "@nosuch", ":x", "@", "1001", "%x", "*x", "alice#"]);
    let usual = ["cpu", "cpu,memory", "*", "name=x", "freezer,"];
    let many = "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t";
    let controllers = dice.mostly(&usual, &[",", many, "cpu, memory", "#", ",,cpu", &many[..31]]);
    let destination = dice.mostly(&["ct", "ct/%u", "/", "*", "\\%u"], &["", "#x", "..", "%"]);
    let options = dice.mostly(
        &["", "", " ", " # c", "#c", "\tignore", " ignore,ignore", "\r"],
        &[" bogus", " IGNORE", " ,", " ignore bogus", " ignore,bogus", " ,ignore"],
    );
    let (start, a, b) = (dice.mostly(&[""], &BLANKS), blank(dice), blank(dice));
    format!("{start}{key}{a}{controllers}{b}{destination}{options}")
}

fn blank(dice: &mut Dice) -> &'static str {
    dice.mostly(&[" ", "\t"], &BLANKS)
}

fn rules(dice: &mut Dice) -> String {
    let lines = (0..=dice.below(3)).map(|_| line(dice) + dice.mostly(&["\n"], &["\n\n", "\r\n"]));
    lines.collect()
}

#[test]
fn rules_are_loaded_as_by_cgrulesengd() {
    let dice = Dice::new(1, 6);
    compare(dice, rules, |private, text| {
        // Status 99: the rules are invalid. Status 96: they are loaded, and cgconfig.conf is missing.
        private.files(&[("cgrules.conf", text), ("cgconfig.d/", "")]);
        |(code, _)| match code {
            Some(96) => Some(true),
            Some(99) => Some(false),
            _ => None,
        }
    });
}

/// Starts both daemons on generated files. The function that `write` returns tells from the result
/// whether the file was loaded.
fn compare<F: Fn(&(Option<i32>, String)) -> Option<bool>>(
    mut dice: Dice,
    generate: fn(&mut Dice) -> String,
    write: impl Fn(&Private, &str) -> F,
) {
    let Some((_live, private)) = stage() else { return };
    let (mut wrong, mut refused) = (Vec::new(), 0);
    let count = 100 * rounds();
    for _ in 0..count {
        let text = generate(&mut dice);
        let is_loaded = write(&private, &text);
        let [upstream, ours] = [Which::Original, Which::Ours].map(|which| {
            let end = ask(which);
            is_loaded(&end).unwrap_or_else(|| panic!("{which:?} with {text:?}: {end:?}"))
        });
        refused += usize::from(!upstream);
        if ours != upstream {
            wrong.push(format!("{text:?}: by cgrulesengd {upstream}, by ours {ours}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count / 10 < refused && refused < count * 9 / 10, "{refused} of {count} are refused");
}

fn sections(dice: &mut Dice) -> String {
    (0..=dice.below(2)).map(|_| section(dice)).collect()
}

fn section(dice: &mut Dice) -> String {
    let kind = dice.mostly(&["group", "template"], &["group\n", "mount", "default", "x", ""]);
    let name =
        dice.mostly(&["a", "ct/%u", "\"a b\"", "."], &["", "{", "perm", "\"perm\"", "é", "#"]);
    let perm = if dice.below(3) == 0 { perm(dice) } else { String::new() };
    let body: String = (0..dice.below(3)).map(|_| controller(dice)).collect();
    let between = dice.mostly(&["", "\n", "\n# c\n"], &["# c\n", "\n* c\n", ";", "\r\n"]);
    let end = dice.mostly(&["}\n"], &["}", "", "}}\n", "};\n"]);
    format!("{kind} {name} {{{between}{perm}{body}{end}")
}

fn controller(dice: &mut Dice) -> String {
    let name = dice.mostly(&["cpu ", "memory", "\"name=x\"", "pids "], &["perm", "", "cpu.x", "{"]);
    let setting = |dice: &mut Dice| {
        let name = dice.mostly(&["cpu.shares", "a", "\"b c\""], &["", "=", "task", "#"]);
        let value = dice.mostly(&["1", "\"1 G\"", "x/y", "\"\""], &["", "-1", "a b", "\"", "'x'"]);
        let equals = dice.mostly(&[" = ", "="], &[" ", "==", "\n=\n"]);
        format!("{name}{equals}{value}{}", dice.mostly(&[";", "; "], &["", ";;", "\n;"]))
    };
    let settings: String = (0..dice.below(3)).map(|_| setting(dice)).collect();
    format!("{name}{{{settings}}}\n")
}

fn perm(dice: &mut Dice) -> String {
    let part = |dice: &mut Dice| {
        let kind = dice.mostly(&["task", "admin"], &["x", "perm", ""]);
        let key = dice.mostly(&["uid", "gid"], &["fperm", "dperm", "x", ""]);
        let value = dice.mostly(&["root", "alice", "bob"], &["nosuch", "7", "98x", "0", "-1", ""]);
        format!("{kind} {{ {key} = {value}; }}")
    };
    let both = "task { uid = root; fperm = 770; } admin { gid = bob; dperm = 775; }".to_owned();
    let parts = if dice.below(2) == 0 { both } else { part(dice) + &part(dice) };
    format!("perm {{ {parts} }}\n")
}

/// Reports whether a file of templates was loaded, if it has the place that `write_sections` gives it.
fn loads_sections((code, said): &(Option<i32>, String)) -> Option<bool> {
    (*code == Some(104)).then(|| said.contains("/etc/cgconfig.d/z"))
}

/// Writes the file and a second, invalid one, so that a daemon exits.
fn write_sections(private: &Private, text: &str) -> fn(&(Option<i32>, String)) -> Option<bool> {
    let broken = ("cgconfig.d/z", "group {");
    let files = [("cgrules.conf", ""), ("cgconfig.conf", text), ("cgconfig.d/", ""), broken];
    private.files(&files);
    loads_sections
}

#[test]
fn sections_are_loaded_as_by_cgrulesengd() {
    compare(Dice::new(2, 25), sections, write_sections);
}

#[test]
fn an_unusual_section_disables_only_itself() {
    let mut wrong = Vec::new();
    let file: Arc<Path> = Arc::from(Path::new("/etc/cgconfig.conf"));
    for case in cases::sections() {
        let parsed = cgconfig_conf::parse(&file, &case.text());
        let kept = parsed.groups.len() + parsed.templates.len();
        if (kept, parsed.refusal.is_none()) != (case.kept, case.loads) {
            wrong.push(format!("{}: {kept} sections, {:?}", case.id, parsed.refusal));
        }
        let said = complaints(&parsed.diagnostics);
        let held = |text: &String| said.iter().any(|one| one.contains(text.as_str()));
        if !case.says.iter().all(held) || case.says.is_empty() != said.is_empty() {
            wrong.push(format!("{}: diagnostics {said:?}, not {:?}", case.id, case.says));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn an_unusual_section_stops_a_strict_start() {
    let Some((_live, private)) = stage() else { return };
    let mut wrong = Vec::new();
    for case in cases::sections() {
        let loads = write_sections(&private, &case.text());
        for which in [Which::Ours, Which::Original] {
            if let (Which::Original, Some(reason)) = (which, &case.not_live) {
                println!("{} is not run by cgrulesengd: {reason}", case.id);
                continue;
            }
            let end = ask(which);
            if loads(&end) != Some(case.loads) {
                wrong.push(format!("{} {which:?}: {end:?}", case.id));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
