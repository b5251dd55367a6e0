//! Attributes of a process that rules evaluate, as text. Must not add anything that could control a terminal.

use super::Explained;
use crate::config::escape::{Escaped, EscapedBytes};
use crate::policy::rebuild::LoadedConfig;
use crate::rules::Rule;
use crate::rules::ancestry::Ancestor;

/// Attribute of a process that a rule has moved away from its origin.
const PLACED: &str = "unknown: it is in the cgroup of a rule with unit, from or container";

/// Returns label and text of the attributes that only rules with criteria on the context of a process test, as far as
/// there are such rules.
pub(super) fn context_attributes(
    survey: &LoadedConfig,
    explained: &Explained,
) -> Vec<(&'static str, String)> {
    let (rules, subject) = (&survey.loaded.rules, &explained.subject);
    let mut found = Vec::new();
    if rules.iter().any(Rule::tests_place) {
        let text = match (explained.verdict.is_placed, subject.unit(survey)) {
            (true, _) => PLACED.to_owned(),
            (false, Some(unit)) => Escaped(unit).to_string(),
            (false, None) => "none".to_owned(),
        };
        found.push(("unit", text));
    }
    if rules.iter().any(Rule::tests_ancestors) {
        found.push(("below", ancestors(&subject.ancestors)));
    }
    if rules.iter().any(Rule::tests_container) {
        found.push(("container", container(survey, explained)));
    }
    if rules.iter().any(Rule::tests_login) {
        let name = |uid| survey.names.identify(uid).ok().and_then(|identity| identity.name);
        let login = subject.login.map(|uid| named(name(uid).as_deref(), uid.0));
        found.push(("login", login.unwrap_or_else(|| "not set".to_owned())));
    }
    if rules.iter().any(Rule::tests_arguments) {
        found.push(("args", arguments(subject.arguments.as_deref())));
    }
    found
}

/// Formats the programs of ancestors.
fn ancestors(all: &[Ancestor]) -> String {
    let shown = all.iter().map(|one| {
        let user = if one.is_of_root { "" } else { " (not of root)" };
        format!("{}{user}", EscapedBytes(&one.path))
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    if shown.is_empty() { "none".to_owned() } else { shown }
}

/// Formats the text of `/proc/PID/cmdline`.
fn arguments(text: Option<&[u8]>) -> String {
    match text {
        None => "unknown".to_owned(),
        Some([]) => "none".to_owned(),
        Some(text) => {
            let text = text.strip_suffix(b"\0").unwrap_or(text);
            let words = text.split(|&byte| byte == 0).map(|word| EscapedBytes(word).to_string());
            words.collect::<Vec<_>>().join(" ")
        }
    }
}

/// Returns the container of a process with what shows it.
fn container(survey: &LoadedConfig, explained: &Explained) -> String {
    let Some(found) = &explained.verdict.container else {
        return if explained.verdict.is_placed { PLACED } else { "none" }.to_owned();
    };
    let (text, name) = explained.container(survey).unwrap_or_default();
    match (found.engine, found.id, name) {
        (None, ..) => format!("{text}, by its namespaces"),
        (Some(_), Some(id), Some(_)) => format!("{text}, ID {}, by its cgroup", id.shown()),
        (Some(_), None | Some(_), _) => format!("{text}, by its cgroup"),
    }
}

/// Formats a user or group: `alice (1000)`.
pub(super) fn named(name: Option<&str>, number: u32) -> String {
    match name {
        Some(name) => format!("{} ({number})", Escaped(name)),
        None => number.to_string(),
    }
}
