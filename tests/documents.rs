//! Completions are made from the tables of options, manual pages are checked against them: what a
//! program knows is in its help, in its page and in three shells.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use cgruled::tool::COMMANDS;
use cgruled::tool::command::{COMMON, Command, Flag};

const PACKAGING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging");

/// What a shell offers for a word.
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
}

/// By the name that help and page give to a value or an operand.
fn offer(name: &str) -> Offer {
    match name.trim_matches(['[', ']', '.']) {
        "FILE" | "PATH" => Offer::Files,
        "DIR" => Offer::Directories,
        "USER" => Offer::Users,
        "GROUP" => Offer::Groups,
        "RULE" => Offer::Rules,
        "PID" => Offer::Pids,
        "COMMAND" => Offer::Commands,
        _ => Offer::Nothing,
    }
}

fn operand(command: &Command) -> Offer {
    command.operands.split(' ').next().map_or(Offer::Nothing, offer)
}

fn flags(command: &Command) -> impl Iterator<Item = &'static Flag> {
    command.flags.iter().chain(COMMON)
}

fn names() -> String {
    COMMANDS.iter().map(|command| command.name).collect::<Vec<_>>().join(" ")
}

const MADE: &str = "# Made from the tables in src/tool: UPDATE_GOLDEN=1 cargo test --test documents\n";

fn bash() -> String {
    let reply = |what: Offer| match what {
        Offer::Nothing => ":",
        Offer::Files => "_filedir",
        Offer::Directories => "_filedir -d",
        Offer::Users => "COMPREPLY=($(compgen -u -- \"$cur\"))",
        Offer::Groups => "COMPREPLY=($(compgen -g -- \"$cur\"))",
        Offer::Rules => "_cgrulectl_rules",
        Offer::Pids => "_pids",
        Offer::Commands => "COMPREPLY=($(compgen -c -- \"$cur\"))",
    };
    let mut text = format!(
        "{MADE}
_cgrulectl_rules() {{
    local IFS=$'\\n'
    COMPREPLY=($(compgen -W \"$(cgrulectl list --names 2>/dev/null)\" -- \"$cur\"))
    compopt -o filenames
}}

_cgrulectl() {{
    local cur prev words cword
    _init_completion || return
    local command=${{words[1]}}
    if [[ $cword -eq 1 ]]; then
        COMPREPLY=($(compgen -W \"{} --help --version\" -- \"$cur\"))
        return
    fi
    case $command in
",
        names()
    );
    for command in COMMANDS {
        let _ = writeln!(text, "    {})\n        case $prev in", command.name);
        for flag in flags(command) {
            let Some(value) = flag.value else { continue };
            let short = flag.short.map_or(String::new(), |short| format!("-{short} | "));
            let _ = writeln!(
                text,
                "        {short}--{})\n            {}\n            return\n            ;;",
                flag.long,
                reply(offer(value))
            );
        }
        let long: Vec<String> = flags(command).map(|flag| format!("--{}", flag.long)).collect();
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

/// A text between apostrophes for zsh and fish; brackets and colons mean something to zsh.
fn quoted(text: &str) -> String {
    text.replace('\'', "'\\''")
}

fn zsh() -> String {
    let action = |what: Offer| match what {
        Offer::Nothing => " ",
        Offer::Files => "_files",
        Offer::Directories => "_files -/",
        Offer::Users => "_users",
        Offer::Groups => "_groups",
        Offer::Rules => "_cgrulectl_rules",
        Offer::Pids => "_pids",
        Offer::Commands => "_command_names -e",
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
    local -a commands
    commands=(\n"
    );
    for command in COMMANDS {
        let _ = writeln!(text, "        '{}:{}'", command.name, plain(command.summary));
    }
    text += "    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    local command=$words[2]
    shift words
    (( CURRENT-- ))
    case $command in\n";
    for command in COMMANDS {
        let _ = writeln!(text, "    {})\n        _arguments -s \\", command.name);
        for flag in flags(command) {
            let what = plain(flag.summary);
            let value = flag.value.map_or(String::new(), |value| {
                format!(":{}:{}", value.to_lowercase(), action(offer(value)))
            });
            let repeats = if flag.long == "rules" { "*" } else { "" };
            let _ = writeln!(text, "            '{repeats}--{}[{what}]{value}' \\", flag.long);
        }
        let last = match command.operands {
            "" => "':: :'".to_owned(),
            operands => format!("'*:{}:{}'", plain(operands), action(operand(command))),
        };
        let _ = writeln!(text, "            {last}\n        ;;");
    }
    text + "    esac\n}\n\n_cgrulectl \"$@\"\n"
}

fn fish() -> String {
    let arguments = |what: Offer| match what {
        Offer::Nothing => " -x",
        Offer::Files => " -rF",
        Offer::Directories => " -xa '(__fish_complete_directories)'",
        Offer::Users => " -xa '(__fish_complete_users)'",
        Offer::Groups => " -xa '(__fish_complete_groups)'",
        Offer::Rules => " -xa '(cgrulectl list --names 2>/dev/null)'",
        Offer::Pids => " -xa '(__fish_complete_pids)'",
        Offer::Commands => " -xa '(__fish_complete_command)'",
    };
    let mut text = format!("{MADE}complete -c cgrulectl -f\n");
    for command in COMMANDS {
        let _ = writeln!(
            text,
            "complete -c cgrulectl -n __fish_use_subcommand -a {} -d '{}'",
            command.name,
            quoted(command.summary)
        );
        let here = format!("-n '__fish_seen_subcommand_from {}'", command.name);
        for flag in flags(command) {
            let value = flag.value.map_or("", |value| arguments(offer(value)));
            let short = flag.short.map_or(String::new(), |short| format!(" -s {short}"));
            let what = quoted(flag.summary);
            let _ = writeln!(
                text,
                "complete -c cgrulectl {here}{short} -l {}{value} -d '{what}'",
                flag.long
            );
        }
        match operand(command) {
            Offer::Nothing => {}
            Offer::Files => {
                let _ = writeln!(text, "complete -c cgrulectl {here} -F");
            }
            what => {
                let offered = arguments(what).trim_start().trim_start_matches("-xa ");
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

#[test]
fn completions_are_scripts() {
    for (shell, file) in [("bash", "cgrulectl.bash"), ("zsh", "_cgrulectl"), ("fish", "cgrulectl.fish")]
    {
        let path = Path::new(PACKAGING).join("completions").join(file);
        match Process::new(shell).arg("-n").arg(&path).status() {
            Ok(status) => assert!(status.success(), "{shell} -n {file}"),
            Err(error) => eprintln!("{shell}: {error}: not checked"),
        }
    }
}

/// The text of a manual page without the signs of its language.
fn page(name: &str) -> String {
    let text = fs::read_to_string(Path::new(PACKAGING).join("man").join(name)).unwrap();
    let plain = text.replace("\\-", "-").replace("\\&", "").replace("\\e", "\\");
    ["\\fB", "\\fI", "\\fP", "\\fR"].iter().fold(plain, |text, sign| text.replace(sign, ""))
}

#[test]
fn the_page_of_cgrulectl_has_each_command_and_flag() {
    let page = page("cgrulectl.1");
    for flag in COMMON {
        assert!(page.contains(&format!("--{}", flag.long)), "--{}", flag.long);
    }
    for command in COMMANDS {
        let begin = page.find(&format!("\n.SS {}", command.name));
        let begin = begin.unwrap_or_else(|| panic!("no section about {}", command.name));
        let section = &page[begin + 1..];
        let section = section.find("\n.S").map_or(section, |end| &section[..end]);
        for flag in command.flags {
            let usage = flag.usage();
            assert!(section.contains(&usage), "{}: {usage}", command.name);
        }
    }
}

/// The long options in a help text.
fn options(help: &str) -> Vec<&str> {
    let words = help.split(|c: char| c.is_whitespace() || c == ',' || c == '=');
    let mut options: Vec<&str> = words.filter(|word| word.starts_with("--")).collect();
    options.sort_unstable();
    options.dedup();
    options
}

#[test]
fn the_page_of_the_daemon_has_each_option() {
    let output = Process::new(env!("CARGO_BIN_EXE_cgruled")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let (page, options) = (page("cgruled.8"), options(&help));
    assert!(options.len() > 8, "{options:?}");
    for option in options {
        assert!(page.contains(&format!("\n{option}")), "{option}");
    }
}

#[test]
fn the_pages_of_the_files_have_each_key() {
    let settings = page("cgruled.toml.5");
    for key in cgruled::config::daemon_toml::KEYS {
        assert!(settings.contains(key), "{key}");
    }
    let rules = page("cgruled-rules.5");
    for key in cgruled::config::rules_toml::KEYS {
        assert!(rules.contains(key), "{key}");
    }
}

#[test]
fn every_counter_is_explained() {
    let (page, metrics) = (page("cgruled.8"), cgruled::metrics::Metrics::default());
    for (name, _) in metrics.counters() {
        assert!(page.contains(name), "{name}");
    }
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
            Err(error) => eprintln!("mandoc: {error}: {} not checked", page.display()),
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
            Err(error) => eprintln!("man: {error}: {} not checked", page.display()),
        }
    }
}
