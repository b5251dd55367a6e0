//! Generates completions from the definition of the command line and compares the manual pages with them: every
//! option of a program is in its help, in its page and in three shells.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use cgruled::cli::command::definition;
use cgruled::config::daemon_toml::changes::Effect;
use cgruled::config::{daemon_toml, rules_toml, test_table};
use cgruled::control::history::message::RecordedEvaluation;
use cgruled::control::protocol::{
    HistoryEntry, ProcessReport, ReloadReply, WatchMessage, WatchedDecision,
};
use cgruled::control::status::{
    ExternalMover, HierarchyStatus, KeptFile, RefusedMoves, RefusedReload, Status,
};
use cgruled::policy::load::GROUP_KEYS;
use cgruled::telemetry::metrics::Metrics;
use clap::{Arg, Command};
use serde_json::Value;

const PACKAGING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging");

/// The completion of a word in a shell.
#[derive(Clone, Copy)]
enum Offer {
    Nothing,
    Files,
    Directories,
    Users,
    Groups,
    Rules,
    Pids,
    Commands,
    /// One of the listed words.
    Words(&'static str),
}

/// Returns the completion for the name that help and page use for a value or an operand.
fn offer(name: &str) -> Offer {
    match name {
        "FILE" | "PATH" => Offer::Files,
        "DIR" => Offer::Directories,
        "USER" => Offer::Users,
        "GROUP" => Offer::Groups,
        "RULE" => Offer::Rules,
        "PID" => Offer::Pids,
        "COMMAND" => Offer::Commands,
        "KEY" => Offer::Words("cpu memory io tasks pressure name"),
        "SYNTAX" => Offer::Words("cgrules cgconfig ananicy"),
        _ => Offer::Nothing,
    }
}

/// Returns the commands with all their flags, which clap adds when it parses.
fn commands() -> Vec<Command> {
    let mut definition = definition();
    definition.build();
    definition.get_subcommands().cloned().collect()
}

/// Returns the placeholder of a value or an operand, such as `FILE`.
fn placeholder(argument: &Arg) -> Option<&str> {
    let takes_value = argument.get_action().takes_values();
    argument.get_value_names().filter(|_| takes_value)?.first().map(|name| name.as_str())
}

fn operand(command: &Command) -> Offer {
    let name = command.get_positionals().next().and_then(placeholder);
    name.map_or(Offer::Nothing, offer)
}

/// Checks whether all that follows the first operand belongs to it.
fn ends_at_operand(command: &Command) -> bool {
    command.get_positionals().any(Arg::is_trailing_var_arg_set)
}

fn flags(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|argument| !argument.is_positional())
}

fn long(flag: &Arg) -> &str {
    flag.get_long().unwrap()
}

fn summary(flag: &Arg) -> String {
    flag.get_help().unwrap().to_string()
}

fn names() -> String {
    commands().iter().map(Command::get_name).collect::<Vec<_>>().join(" ")
}

/// The flags of every command, which the page explains once.
const COMMON: [&str; 6] = ["config", "rules", "root", "no-legacy", "socket", "help"];

const MADE: &str =
    "# Generated from the command lines in src/cli: UPDATE_GOLDEN=1 cargo test --test documents\n";

const BASH_RULES: &str = r#"# Names are compared and quoted here: compgen -W would expand them.
_cgrulectl_rules() {
    local name quoted
    COMPREPLY=()
    while IFS= read -r name; do
        printf -v quoted %q "$name"
        if [[ $cur == [\"\']* ]]; then
            [[ $name == "${cur:1}"* ]] && COMPREPLY+=("$name")
        elif [[ $name == "$cur"* || $quoted == "$cur"* ]]; then
            COMPREPLY+=("$quoted")
        fi
    done < <(cgrulectl list --names 2>/dev/null)
}

# From the first operand on it is a command line of its own. Takes a pattern of the flags with a value.
_cgrulectl_operand() {
    local at
    shopt -s extglob
    for ((at = 2; at < COMP_CWORD; at++)); do
        case ${COMP_WORDS[at]} in
        --) ((at++)) ;;
        $1)
            # The shell has split --user=root at its sign.
            [[ ${COMP_WORDS[at + 1]} == = ]] && ((at++))
            ((at++))
            continue
            ;;
        -*) continue ;;
        esac
        _command_offset $at
        return 0
    done
    return 1
}"#;

fn bash() -> String {
    let reply = |what: Offer| match what {
        Offer::Nothing => ":".to_owned(),
        Offer::Files => "_filedir".to_owned(),
        Offer::Directories => "_filedir -d".to_owned(),
        Offer::Users => "COMPREPLY=($(compgen -u -- \"$cur\"))".to_owned(),
        Offer::Groups => "COMPREPLY=($(compgen -g -- \"$cur\"))".to_owned(),
        Offer::Rules => "_cgrulectl_rules".to_owned(),
        Offer::Pids => "_pids".to_owned(),
        Offer::Commands => "COMPREPLY=($(compgen -c -- \"$cur\"))".to_owned(),
        Offer::Words(words) => format!("COMPREPLY=($(compgen -W \"{words}\" -- \"$cur\"))"),
    };
    let mut text = format!(
        "{MADE}
{BASH_RULES}

_cgrulectl() {{
    local cur prev words cword split
    _init_completion -s || return
    local command=${{words[1]}}
    if [[ $cword -eq 1 ]]; then
        COMPREPLY=($(compgen -W \"{} --help --version\" -- \"$cur\"))
        return
    fi
    case $command in
",
        names()
    );
    for command in &commands() {
        let _ = writeln!(text, "    {})", command.get_name());
        if ends_at_operand(command) {
            let valued = flags(command).filter(|flag| placeholder(flag).is_some());
            let valued: Vec<String> = valued.map(|flag| format!("--{}", long(flag))).collect();
            let _ =
                writeln!(text, "        _cgrulectl_operand '@({})' && return", valued.join("|"));
        }
        text += "        case $prev in\n";
        for flag in flags(command) {
            let Some(value) = placeholder(flag) else { continue };
            let short = flag.get_short().map_or(String::new(), |short| format!("-{short} | "));
            let _ = writeln!(
                text,
                "        {short}--{})\n            {}\n            return\n            ;;",
                long(flag),
                reply(offer(value))
            );
        }
        let long: Vec<String> = flags(command).map(|flag| format!("--{}", long(flag))).collect();
        let _ = writeln!(
            text,
            "        esac\n        if [[ $cur == -* ]]; then\n            \
             COMPREPLY=($(compgen -W \"{}\" -- \"$cur\"))\n            return\n        fi\n        \
             {}\n        ;;",
            long.join(" "),
            reply(operand(command))
        );
    }
    text + "    esac\n} &&\n    complete -F _cgrulectl cgrulectl\n"
}

/// Returns a text in single quotes for zsh and fish; brackets and colons are special in zsh.
fn quoted(text: &str) -> String {
    text.replace('\'', "'\\''")
}

/// Returns the zsh completion. The variable `commands` is the table that `_normal` searches, so
/// ours has another name.
fn zsh() -> String {
    let action = |what: Offer| match what {
        Offer::Nothing => " ".to_owned(),
        Offer::Files => "_files".to_owned(),
        Offer::Directories => "_files -/".to_owned(),
        Offer::Users => "_users".to_owned(),
        Offer::Groups => "_groups".to_owned(),
        Offer::Rules => "_cgrulectl_rules".to_owned(),
        Offer::Pids => "_pids".to_owned(),
        Offer::Commands => "_command_names -e".to_owned(),
        Offer::Words(words) => format!("({words})"),
    };
    let plain = |text: &str| quoted(text).replace(['[', ']'], "").replace(':', "\\:");
    let mut text = format!(
        "#compdef cgrulectl\n{MADE}
_cgrulectl_rules() {{
    local -a rules
    rules=(\"${{(@f)$(cgrulectl list --names 2>/dev/null)}}\")
    compadd -a rules
}}

_cgrulectl() {{
    local -a known
    known=(\n"
    );
    for command in &commands() {
        let about = command.get_about().unwrap().to_string();
        let _ = writeln!(text, "        '{}:{}'", command.get_name(), plain(&about));
    }
    text += "    )
    if (( CURRENT == 2 )); then
        _describe command known
        return
    fi
    local command=$words[2]
    shift words
    (( CURRENT-- ))
    case $command in\n";
    for command in &commands() {
        // All flags after the first operand belong to the command that is run.
        let rest = if ends_at_operand(command) { " -A '-*'" } else { "" };
        let _ = writeln!(text, "    {})\n        _arguments -s -S{rest} \\", command.get_name());
        for flag in flags(command) {
            let what = plain(&summary(flag));
            let value = placeholder(flag).map_or(String::new(), |value| {
                format!(":{}:{}", value.to_lowercase(), action(offer(value)))
            });
            let repeats = if long(flag) == "rules" { "*" } else { "" };
            let sign = if placeholder(flag).is_some() { "=" } else { "" };
            let _ =
                writeln!(text, "            '{repeats}--{}{sign}[{what}]{value}' \\", long(flag));
        }
        let last = match command.get_positionals().next().and_then(placeholder) {
            None => "':: :'".to_owned(),
            // The name of the command, then the completion of that command.
            Some(_) if ends_at_operand(command) => "'*:::command:_normal'".to_owned(),
            Some(name) => format!("'*:{name}...:{}'", action(offer(name))),
        };
        let _ = writeln!(text, "            {last}\n        ;;");
    }
    text + "    esac\n}\n\n_cgrulectl \"$@\"\n"
}

fn fish() -> String {
    let arguments = |what: Offer| match what {
        Offer::Nothing => " -x".to_owned(),
        Offer::Files => " -rF".to_owned(),
        Offer::Directories => " -xa '(__fish_complete_directories)'".to_owned(),
        Offer::Users => " -xa '(__fish_complete_users)'".to_owned(),
        Offer::Groups => " -xa '(__fish_complete_groups)'".to_owned(),
        Offer::Rules => " -xa '(cgrulectl list --names 2>/dev/null)'".to_owned(),
        Offer::Pids => " -xa '(__fish_complete_pids)'".to_owned(),
        Offer::Commands => " -xa '(__fish_complete_command)'".to_owned(),
        Offer::Words(words) => format!(" -xa '{words}'"),
    };
    let mut text = format!("{MADE}complete -c cgrulectl -f\n");
    for command in &commands() {
        let _ = writeln!(
            text,
            "complete -c cgrulectl -n __fish_use_subcommand -a {} -d '{}'",
            command.get_name(),
            quoted(&command.get_about().unwrap().to_string())
        );
        let here = format!("-n '__fish_seen_subcommand_from {}'", command.get_name());
        for flag in flags(command) {
            let value = placeholder(flag).map_or(String::new(), |value| arguments(offer(value)));
            let short = flag.get_short().map_or(String::new(), |short| format!(" -s {short}"));
            let what = quoted(&summary(flag));
            let _ = writeln!(
                text,
                "complete -c cgrulectl {here}{short} -l {}{value} -d '{what}'",
                long(flag)
            );
        }
        match operand(command) {
            Offer::Nothing => {}
            Offer::Files => {
                let _ = writeln!(text, "complete -c cgrulectl {here} -F");
            }
            what @ (Offer::Directories
            | Offer::Users
            | Offer::Groups
            | Offer::Rules
            | Offer::Pids
            | Offer::Commands
            | Offer::Words(_)) => {
                let offered = arguments(what);
                let offered = offered.trim_start().trim_start_matches("-xa ");
                let _ = writeln!(text, "complete -c cgrulectl {here} -a {offered}");
            }
        }
    }
    text
}

#[test]
fn completions_are_those_of_the_tables() {
    for (file, made) in
        [("cgrulectl.bash", bash()), ("_cgrulectl", zsh()), ("cgrulectl.fish", fish())]
    {
        let path = Path::new(PACKAGING).join("completions").join(file);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &made).unwrap();
        }
        let written = fs::read_to_string(&path).unwrap();
        assert_eq!(written, made, "{file}: UPDATE_GOLDEN=1 cargo test --test documents");
    }
}

/// Reports a missing tool. With `CGRULED_LIVE=1`, where no test may be skipped, this is a failure.
fn unchecked(why: &str) {
    assert!(std::env::var_os("CGRULED_LIVE").is_none_or(|value| value != "1"), "{why}");
    eprintln!("{why}: not checked");
}

#[test]
fn completions_are_scripts() {
    for (shell, file) in
        [("bash", "cgrulectl.bash"), ("zsh", "_cgrulectl"), ("fish", "cgrulectl.fish")]
    {
        let path = Path::new(PACKAGING).join("completions").join(file);
        match Process::new(shell).arg("-n").arg(&path).status() {
            Ok(status) => assert!(status.success(), "{shell} -n {file}"),
            Err(error) => unchecked(&format!("{shell}: {error}")),
        }
    }
}

/// Returns the completions that bash gives for the last of `words`, in a directory with hostile file names.
fn offered(words: &[&str]) -> Option<Vec<String>> {
    let library = Path::new("/usr/share/bash-completion/bash_completion");
    if !library.exists() {
        unchecked(&format!("{} is not installed", library.display()));
        return None;
    }
    let script = r#"
        source "$0"; source "$1"; shift
        cgrulectl() { printf '%s\n' web 'web of a' '$(echo gotcha >&2)' "it's"; }
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*"
        COMP_POINT=${#COMP_LINE} COMP_TYPE=9 COMP_KEY=9
        _cgrulectl
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let completions = Path::new(PACKAGING).join("completions/cgrulectl.bash");
    let mut bash = Process::new("bash");
    bash.args(["-c", script]).arg(library).arg(completions).arg("cgrulectl").args(words);
    let output = bash.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("gotcha") && !errors.contains("error"), "{errors}");
    Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

#[test]
fn bash_completes_commands_flags_users_rules_and_pids() {
    let table: [(&[&str], &[&str]); 11] = [
        (&["explain", "--user=roo"], &["root"]),
        (&["run", "--us"], &["--user"]),
        (&["run", "--user", "root", "--", "ls", "--al"], &["--all"]),
        (&["ex"], &["explain"]),
        (&["explain", "--us"], &["--user"]),
        (&["explain", "--user", "roo"], &["root"]),
        (&["top", "--sort", "mem"], &["memory"]),
        (&["watch", "--rule", "we"], &["web", "web\\ of\\ a"]),
        (&["watch", "--rule", "web\\ o"], &["web\\ of\\ a"]),
        (&["watch", "--rule", "\"web o"], &["web of a"]),
        (&["watch", "--rule", "$"], &[]),
    ];
    for (words, wanted) in table {
        let Some(offered) = offered(words) else { return };
        let offered: Vec<&str> = offered.iter().map(String::as_str).collect();
        assert!(wanted.iter().all(|word| offered.contains(word)), "{words:?}: {offered:?}");
    }
    for words in [
        &["run", "--user", "root", "--", "ls", "--"][..],
        &["run", "--user=root", "ls", "--"],
        &["run", "--cgroup", "a", "ls", "-l", "--"],
    ] {
        let Some(offered) = offered(words) else { return };
        assert!(!offered.iter().any(|word| word == "--cgroup"), "{words:?}: {offered:?}");
    }
    let own = std::process::id().to_string();
    let Some(pids) = offered(&["explain", &own]) else { return };
    assert!(pids.contains(&own), "{own}: {pids:?}");
}

/// Returns the text of a manual page without its markup.
fn page(name: &str) -> String {
    let text = fs::read_to_string(Path::new(PACKAGING).join("man").join(name)).unwrap();
    let plain = text.replace("\\-", "-").replace("\\&", "").replace("\\e", "\\");
    ["\\fB", "\\fI", "\\fP", "\\fR"].iter().fold(plain, |text, sign| text.replace(sign, ""))
}

#[test]
fn the_page_of_cgrulectl_has_each_command_and_flag() {
    let page = page("cgrulectl.1");
    for command in &commands() {
        let begin = page.find(&format!("\n.SS {}", command.get_name()));
        let begin = begin.unwrap_or_else(|| panic!("no section for {}", command.get_name()));
        let section = &page[begin + 1..];
        let section = section.find("\n.S").map_or(section, |end| &section[..end]);
        for flag in flags(command) {
            let short = flag.get_short().map_or(String::new(), |short| format!("-{short}, "));
            let value = placeholder(flag).map_or(String::new(), |value| format!(" {value}"));
            let usage = format!("{short}--{}{value}", long(flag));
            let place = if COMMON.contains(&long(flag)) { &page } else { section };
            assert!(place.contains(&usage), "{}: {usage}", command.get_name());
        }
    }
}

/// Returns the long options that a help text explains.
fn options(help: &str) -> Vec<&str> {
    let lines = help.lines().filter(|line| line.trim_start().starts_with('-'));
    lines.filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--"))).collect()
}

#[test]
fn the_page_of_the_daemon_has_each_option() {
    let output = Process::new(env!("CARGO_BIN_EXE_cgruled")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let (page, options) = (page("cgruled.8"), options(&help));
    assert!(options.len() > 8, "{options:?}");
    for option in options {
        let is_tag =
            |line: &str| line.starts_with('-') && line.split([' ', ',']).any(|word| word == option);
        assert!(page.lines().any(is_tag), "{option}");
    }
}

/// Checks that the page explains every exit code after which systemd must not restart the service.
#[test]
fn the_pages_explain_the_statuses_that_end_a_service() {
    for (unit, name) in
        [("systemd/cgruled.service", "cgruled.8"), ("cgred/cgrulesengd.conf", "cgrulesengd.8")]
    {
        let unit = fs::read_to_string(Path::new(PACKAGING).join(unit)).unwrap();
        let line = unit.lines().find_map(|line| line.strip_prefix("RestartPreventExitStatus="));
        let statuses: Vec<&str> = line.unwrap().split(' ').collect();
        assert!(statuses.len() >= 3, "{unit}");
        let page = page(name).replace(".B ", "");
        let begin = page.find("EXIT STATUS").unwrap();
        let end = page[begin..].find("\n.SH").unwrap();
        for status in statuses {
            let tag = format!("\n.TP\n{status}\n");
            assert!(page[begin..][..end].contains(&tag), "{name}: {status}");
        }
    }
}

/// Returns the words that a page explains: those of the lines after `.TP`.
fn explained(page: &str) -> HashSet<String> {
    let is_part = |character: char| character.is_alphanumeric() || "_.".contains(character);
    let mut lines = page.lines();
    let mut words = HashSet::new();
    while lines.any(|line| line == ".TP") {
        let tag = lines.next().unwrap_or_default();
        words.extend(tag.split(|character| !is_part(character)).map(str::to_owned));
    }
    words
}

fn expect<'w>(page_name: &str, wanted: impl IntoIterator<Item = &'w str>) {
    let explained = explained(&page(page_name));
    let missing: Vec<&str> = wanted.into_iter().filter(|word| !explained.contains(*word)).collect();
    assert!(missing.is_empty(), "{page_name}: {missing:?}");
}

#[test]
fn the_pages_of_the_files_have_each_key() {
    // The parts of a table are explained, not the table itself.
    expect(
        "cgruled.toml.5",
        daemon_toml::KEYS.into_iter().filter(|key| !["log", "history"].contains(key)),
    );
    let history = daemon_toml::HISTORY_KEYS.iter().map(|key| format!("history.{key}"));
    let log = daemon_toml::LOG_KEYS.iter().map(|key| format!("log.{key}"));
    let parts: Vec<String> = log.chain(history).collect();
    expect("cgruled.toml.5", parts.iter().map(String::as_str));
    expect("cgruled-rules.5", rules_toml::FILE_KEYS);
    expect("cgruled-rules.5", rules_toml::RULE_KEYS);
    expect("cgruled-rules.5", test_table::TEST_KEYS);
    expect("cgruled-rules.5", test_table::PROCESS_KEYS);
    expect("cgruled-rules.5", test_table::ACCOUNT_KEYS);
    expect("cgruled-rules.5", GROUP_KEYS);
}

#[test]
fn every_kind_of_journal_entry_is_explained() {
    expect("cgruled.8", cgruled::telemetry::log::field::KINDS);
}

#[test]
fn every_counter_is_explained() {
    let counters = Metrics::default().counters();
    expect("cgruled.8", counters.iter().map(|(name, _)| *name));
}

/// Adds the names of all JSON fields, at any depth.
fn fields(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                found.insert(name.clone());
                fields(value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| fields(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Returns the JSON fields of answers of the daemon.
fn protocol_fields() -> BTreeSet<String> {
    let status = Status {
        refused_reload: Some(RefusedReload {
            kept: vec![KeptFile {
                since: Some(0),
                instead: Some("".into()),
                ..KeptFile::default()
            }],
            ..RefusedReload::default()
        }),
        hierarchies: vec![HierarchyStatus::default()],
        refusals: vec![RefusedMoves::default()],
        external_movers: vec![ExternalMover::default()],
        ..Status::default()
    };
    let about = ProcessReport {
        pid: 1,
        history: vec![HistoryEntry {
            ago_ms: 0,
            outcome: String::new(),
            rule: String::new(),
            cgroup: String::new(),
            detail: String::new(),
        }],
        moved_ago_ms: Some(0),
    };
    let decision = WatchedDecision {
        time_ms: 0,
        pid: 1,
        uid: Some(0),
        exe: Some(String::new()),
        rule: Some(String::new()),
        file: Some(String::new()),
        line: Some(1),
        cgroup: Some(String::new()),
        outcome: String::new(),
        cause: String::new(),
        latency_us: 0,
    };
    let values = [
        serde_json::to_value(WatchMessage::Decision(decision)).unwrap(),
        serde_json::to_value(WatchMessage::Lost { lost: 1 }).unwrap(),
        serde_json::to_value(RecordedEvaluation::default()).unwrap(),
        serde_json::to_value(status).unwrap(),
        serde_json::to_value(about).unwrap(),
        serde_json::to_value(ReloadReply::default()).unwrap(),
    ];
    let mut names = BTreeSet::new();
    values.iter().for_each(|value| fields(value, &mut names));
    assert!(names.len() > 30, "{names:?}");
    names
}

#[test]
fn the_page_of_cgrulectl_has_each_field_of_the_protocol() {
    expect_in_json(&protocol_fields());
}

/// Returns the section of a page with this heading.
fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let section = page.split(&format!("\n.SH {heading}\n")).nth(1).unwrap();
    section.split("\n.SH").next().unwrap()
}

/// Returns the exit codes that a page explains.
fn exit_codes(page_name: &str) -> Vec<String> {
    let words = explained(section(&page(page_name), "\"EXIT STATUS\""));
    words.into_iter().filter(|word| word.parse::<u8>().is_ok()).collect()
}

/// Checks that the page states for each setting when a changed value takes effect, as the daemon does it.
#[test]
fn the_page_of_the_settings_states_when_each_takes_effect() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/man/cgruled.toml.5");
    let text = fs::read_to_string(path).unwrap();
    for row in &daemon_toml::changes::ROWS {
        let start = format!(".TP\n\\fB{}\\fP\n", row.key);
        let (_, entry) =
            text.split_once(&start).unwrap_or_else(|| panic!("no entry for {}", row.key));
        let entry = entry.split(".TP\n").next().unwrap();
        let sentence = match row.effect {
            Effect::Reload => "Takes effect at a reload.\n",
            Effect::ReloadUnlessOff => "Takes effect at a reload; a change from or to",
            Effect::Restart => "Takes effect after a restart.\n",
        };
        assert!(entry.contains(sentence), "{}: {sentence}", row.key);
    }
}

/// Compares all names that scripts and files can depend on with `tests/public-names.txt`. A line may be added to that
/// file (`UPDATE_GOLDEN=1`); to change or remove one breaks what others wrote.
#[test]
fn public_names_are_kept() {
    let mut lines = BTreeSet::new();
    let mut add = |kind: &str, names: &mut dyn Iterator<Item = String>| {
        lines.extend(names.map(|name| format!("{kind} {name}")));
    };
    add("counter", &mut Metrics::default().counters().iter().map(|(name, _)| (*name).to_owned()));
    add("json", &mut protocol_fields().into_iter());
    add("settings", &mut daemon_toml::KEYS.iter().map(|key| (*key).to_owned()));
    add("settings", &mut daemon_toml::LOG_KEYS.iter().map(|key| format!("log.{key}")));
    add("settings", &mut daemon_toml::HISTORY_KEYS.iter().map(|key| format!("history.{key}")));
    add("rules", &mut rules_toml::FILE_KEYS.iter().map(|key| (*key).to_owned()));
    add("rules", &mut rules_toml::RULE_KEYS.iter().map(|key| format!("rule.{key}")));
    add("rules", &mut test_table::TEST_KEYS.iter().map(|key| format!("test.{key}")));
    add("rules", &mut test_table::PROCESS_KEYS.iter().map(|key| format!("test.process.{key}")));
    add("rules", &mut test_table::ACCOUNT_KEYS.iter().map(|key| format!("test.users.{key}")));
    add("rules", &mut GROUP_KEYS.iter().map(|key| format!("cgroup.{key}")));
    add(
        "journal",
        &mut cgruled::telemetry::log::field::KINDS.iter().map(|kind| (*kind).to_owned()),
    );
    for command in &commands() {
        let name = command.get_name();
        let flags = flags(command).map(long).filter(|flag| !COMMON.contains(flag));
        let flags = flags.map(|flag| format!("{name} --{flag}"));
        add("command", &mut flags.chain([name.to_owned()]));
    }
    for page in ["cgruled.8", "cgrulectl.1", "cgrulesengd.8"] {
        let codes = exit_codes(page);
        assert!(codes.len() >= 4, "{page}: {codes:?}");
        add("exit", &mut codes.into_iter().map(|code| format!("{page} {code}")));
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/public-names.txt");
    let kept = fs::read_to_string(&file).unwrap_or_default();
    let missing: Vec<&str> = kept.lines().filter(|line| !lines.contains(*line)).collect();
    assert!(missing.is_empty(), "names that are gone: {missing:?}");
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return fs::write(&file, &text).unwrap();
    }
    assert_eq!(kept, text, "new names: write them with UPDATE_GOLDEN=1");
}

/// Checks the fields that commands generate without a daemon.
#[test]
fn the_page_of_cgrulectl_has_each_field_of_the_commands() {
    let directory = tempfile::tempdir().unwrap();
    let rules = "version = 1\n[[rule]]\nuser = 0\nexe = \"/x\"\ncgroup = \"a\"\n[[rule]]\nuser = 0\n\
                 cgroup = \"b\"\n[[rule]]\nuser = 0\ncgroup = \"c\"\nnonsense = 1\n\
                 [[test]]\nprocess = { user = \"root\" }\nexpect = \"x\"\n";
    let file = directory.path().join(OsStr::from_bytes(b"50-\xff\n.toml"));
    fs::write(&file, rules).unwrap();
    let mut names = BTreeSet::new();
    for line in [
        "check --json",
        "test --json",
        "list --json",
        "explain --json --user 0",
        "explain --json 4000000 1",
        "top --json --once --delay 50ms",
    ] {
        let mut command = Process::new(env!("CARGO_BIN_EXE_cgrulectl"));
        command.args(line.split(' ')).args(["--no-legacy", "--socket", "/nonexistent"]);
        command.args(["--config", "/nonexistent", "--rules"]).arg(directory.path());
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        // `top` prints nothing on a host without cgroups.
        if line.starts_with("top") && text.is_empty() {
            continue;
        }
        let value: Value = serde_json::from_str(&text).unwrap();
        fields(&value, &mut names);
        // The daemon rejects rule files that do not belong to root.
        if (line.starts_with("list") || line.starts_with("check"))
            && nix::unistd::geteuid().is_root()
        {
            let name = "50-\\xff\\u{a}.toml";
            assert!(value[0]["file"].as_str().unwrap().ends_with(name), "{text}");
        }
    }
    assert!(names.len() > 20, "{names:?}");
    expect_in_json(&names);
}

/// Asserts that the JSON section of the page contains these names.
fn expect_in_json(names: &BTreeSet<String>) {
    let page = page("cgrulectl.1");
    let json = section(&page, "JSON");
    let words: HashSet<&str> = json.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let missing: Vec<_> = names.iter().filter(|name| !words.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Checks whether a name matches `pattern`; `*` stands for any text.
fn is_named(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|tail| {
            let ends = tail.char_indices().map(|(index, _)| index).chain([tail.len()]);
            ends.into_iter().any(|index| is_named(rest, &tail[index..]))
        }),
    }
}

/// The functions of a file that are tests.
fn tests_in(text: &str) -> Vec<&str> {
    let parts = text.split("#[test]").skip(1);
    parts.filter_map(|part| part.split_once("fn ")?.1.split('(').next()).collect()
}

/// Returns the errors in the last column of a row of the table of docs/hot-thread.md.
fn missing_tests(cell: &str) -> Vec<String> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut missing = Vec::new();
    // Odd parts are between backquotes.
    let parts: Vec<&str> = cell.split('`').collect();
    for pair in parts.chunks_exact(2) {
        let (before, name) = (pair[0], pair[1]);
        if before.ends_with("VM ") {
            let scenario = tests.join(format!("vm/scenarios/{name}.sh"));
            missing.extend((!scenario.exists()).then(|| name.to_owned()));
        } else if let Some((file, pattern)) = name.split_once("::") {
            let path = tests.join(format!("live/{file}.rs"));
            let text = fs::read_to_string(path).unwrap_or_default();
            let is_there = tests_in(&text).into_iter().any(|test| is_named(pattern, test));
            missing.extend((!is_there).then(|| name.to_owned()));
        }
    }
    missing
}

#[test]
fn the_tests_that_the_page_about_the_hot_thread_names_exist() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/hot-thread.md");
    let text = fs::read_to_string(path).unwrap();
    let table = text.split("\n| way | event | test |\n|---|---|---|\n").nth(1).unwrap();
    let rows: Vec<&str> = table.lines().take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 20, "{rows:?}");
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let &[_, event, test] = &cells[..] else { panic!("{row}") };
        assert!(!event.is_empty() && !test.is_empty(), "{row}");
        assert_eq!(missing_tests(test), Vec::<String>::new(), "{row}");
    }
    // The control.
    let wrong =
        "`escape::*`, `escape::no_such_test`, `nowhere::*`, VM `nowhere`, `leader` unit tests";
    assert_eq!(missing_tests(wrong), ["escape::no_such_test", "nowhere::*", "nowhere"]);
    assert!(is_named("a*c*", "abcd") && is_named("*", "") && !is_named("a*d", "abc"));
}

/// Returns the names of all tests in files below `directory`.
fn unit_tests(directory: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            unit_tests(&path, names);
        } else {
            let text = fs::read_to_string(&path).unwrap();
            names.extend(tests_in(&text).into_iter().map(str::to_owned));
        }
    }
}

/// Returns the names after "unit " in a cell that no test has.
fn missing_unit_tests(cell: &str, known: &[String]) -> Vec<String> {
    let parts: Vec<&str> = cell.split('`').collect();
    let named = parts.chunks_exact(2).filter(|pair| pair[0].ends_with("unit "));
    let missing = named.filter(|pair| !known.iter().any(|test| is_named(pair[1], test)));
    missing.map(|pair| pair[1].to_owned()).collect()
}

#[test]
fn each_promise_of_the_threat_model_has_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut known = Vec::new();
    unit_tests(&root.join("src"), &mut known);
    let text = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let table = text.split("\n| promise | test |\n|---|---|\n").nth(1).unwrap();
    let rows: Vec<&str> = table.lines().take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 20, "{rows:?}");
    for row in rows {
        let test = row.trim_matches('|').rsplit('|').next().unwrap();
        assert!(test.contains('`'), "{row}");
        assert_eq!(missing_tests(test), [""; 0], "{row}");
        assert_eq!(missing_unit_tests(test, &known), [""; 0], "{row}");
    }
    // The control.
    assert_eq!(missing_unit_tests("unit `no_such_test`, unit `*`", &known), ["no_such_test"]);
    assert!(known.len() > 400, "{}", known.len());
    let policy = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    assert!(policy.contains("`docs/security.md`"), "SECURITY.md makes no promise of its own");
}

fn pages() -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(PACKAGING).join("man")).unwrap();
    let mut pages: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    assert!(pages.len() >= 5, "{pages:?}");
    pages
}

#[test]
fn pages_are_clean() {
    for page in pages() {
        let mandoc = Process::new("mandoc").args(["-Tlint", "-Wwarning"]).arg(&page).output();
        match mandoc {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success(), "{said}");
            }
            Err(error) => unchecked(&format!("mandoc: {error}")),
        }
        let man = Process::new("man")
            .args(["--warnings", "-l", "-Tutf8", "-Z"])
            .arg(&page)
            .env("MANWIDTH", "80")
            .output();
        match man {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success() && said.is_empty(), "{}: {said}", page.display());
            }
            Err(error) => unchecked(&format!("man: {error}")),
        }
    }
}
