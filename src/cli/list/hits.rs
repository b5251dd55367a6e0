//! `cgrulectl list --hits`: the counters of the active rules. Must not read rule files: the counters are
//! those of the rules that the daemon uses.

use std::io::Write;

use crate::cli::command::{DaemonFlags, ToolError};
use crate::cli::format::{date, grouped};
use crate::cli::rows::{self, RowOptions, RuleRow};
use crate::cli::{daemon_client, json};
use crate::control::protocol::ControlRequest;
use crate::control::status::{ActiveRule, ActiveRules};

pub(super) fn run(
    flags: &DaemonFlags,
    is_json: bool,
    style: RowOptions,
    out: &mut dyn Write,
) -> Result<(), ToolError> {
    let ActiveRules { rules } = daemon_client::ask(flags, &ControlRequest::Rules)?.only()?;
    if is_json {
        json::write(&rules, out)?;
        return Ok(());
    }
    let rows: Vec<RuleRow> = rules.iter().zip(1..).map(|(rule, at)| row(rule, at, style)).collect();
    rows::show(&rows, Some("COUNTERS"), style, out)?;
    Ok(())
}

fn row(rule: &ActiveRule, number: usize, style: RowOptions) -> RuleRow {
    let ActiveRule { name, file, line, observe, matched, placed, since, .. } = rule;
    let base = file.rsplit('/').next().unwrap_or(file);
    let is_default = *name == format!("{base}:{line}");
    let matched = grouped(*matched);
    let counters = match observe {
        true => format!("{matched} would match"),
        false => format!("{matched} matched, {} moved", grouped(*placed)),
    };
    let file = if style.is_full { file } else { base };
    RuleRow::Rule {
        number,
        mark: if *observe { '~' } else { ' ' },
        name: if is_default { "-".to_owned() } else { name.clone() },
        text: format!("{counters} since {}", date(*since)),
        target: String::new(),
        origin: format!("{file}:{line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(rules: &[ActiveRule]) -> String {
        let style = RowOptions { is_full: false, is_ascii: true };
        let rows: Vec<RuleRow> =
            rules.iter().zip(1..).map(|(own, at)| row(own, at, style)).collect();
        let mut out = Vec::new();
        rows::show(&rows, Some("COUNTERS"), style, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_rule_has_its_counters_in_one_line() {
        let file = "/etc/cgruled/rules.d/50-a.toml".to_owned();
        let since = 1_795_528_531;
        let web = ActiveRule {
            name: "web".to_owned(),
            file: file.clone(),
            line: 3,
            matched: 1_200,
            placed: 7,
            since,
            ..ActiveRule::default()
        };
        let name = "50-a.toml:9".to_owned();
        let other =
            ActiveRule { name, file, line: 9, observe: true, matched: 5, since, ..web.clone() };
        let text = shown(&[web, other]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("web") && lines[1].contains("1,200 matched, 7 moved since 2026"));
        assert!(lines[2].starts_with('~') && lines[2].contains("5 would match since 2026"));
        assert!(lines[2].ends_with("50-a.toml:9"), "{text}");
    }
}
