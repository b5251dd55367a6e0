//! Converts the values of `container` and `containers` to tests.

use toml::de::DeTable;

use super::{NameRef, each, glob, is_pattern, mention_users, named_ids, tests, user_test};
use crate::config::table::{TomlSection, Value, did_you_mean, shortened};
use crate::rules::container::{ContainerEngine, ContainerTest, LeaveContainers, split_container};
use crate::rules::context::TextTest;
use crate::rules::glob::Glob;

/// The key of the criterion.
const KEY: &str = "container";
/// The key that permits moves out of containers.
const LEAVE_KEY: &str = "containers";

/// Reads the criterion: `true`, a pattern or a list of patterns.
pub(super) fn containers(
    table: &DeTable<'_>,
    piece: &mut TomlSection<'_, '_>,
    mentions: &mut Vec<NameRef>,
) -> Vec<ContainerTest> {
    let Some(value) = table.get(KEY) else { return Vec::new() };
    match value.get_ref().as_bool() {
        Some(true) => vec![any()],
        Some(false) => {
            let help = "write not = { container = true } for processes outside of containers";
            piece.error_help(value.span(), "container = false is no criterion", help);
            Vec::new()
        }
        None => listed(table, KEY, piece, mentions),
    }
}

/// Reads the key that permits moves out of containers: `true`, `false`, a pattern or a list of patterns.
pub(in crate::config) fn leave_containers(
    table: &DeTable<'_>,
    piece: &mut TomlSection<'_, '_>,
    mentions: &mut Vec<NameRef>,
) -> LeaveContainers {
    let Some(value) = table.get(LEAVE_KEY) else { return LeaveContainers::No };
    if !table.contains_key("cgroup") {
        piece.warning(value.span(), "containers has no effect without cgroup", "remove it");
    }
    match value.get_ref().as_bool() {
        Some(true) => LeaveContainers::Yes,
        Some(false) => LeaveContainers::No,
        None => LeaveContainers::Of(listed(table, LEAVE_KEY, piece, mentions).into()),
    }
}

/// Returns the test that accepts each container of root.
fn any() -> ContainerTest {
    let name = TextTest::Matches(Glob::starting_with(b""));
    ContainerTest { engine: None, owner: None, name }
}

fn listed(
    table: &DeTable<'_>,
    key: &str,
    piece: &mut TomlSection<'_, '_>,
    mentions: &mut Vec<NameRef>,
) -> Vec<ContainerTest> {
    let found = each(table, key, piece, |value, piece| container(value, key, piece));
    let owners = found.iter().filter_map(|(test, span)| Some((test.owner.clone()?, span.clone())));
    mention_users(&owners.collect::<Vec<_>>(), piece, mentions);
    tests(found)
}

/// Reads `ENGINE:NAME` or `ENGINE@OWNER:NAME`.
fn container(
    value: &Value<'_>,
    key: &str,
    piece: &mut TomlSection<'_, '_>,
) -> Option<ContainerTest> {
    if !value.get_ref().is_str() {
        let wanted = match key {
            LEAVE_KEY => "true, false, a pattern such as \"docker:web-*\" or a list of patterns",
            _ => "true, a pattern such as \"docker:web-*\" or a list of patterns",
        };
        piece.wrong_type(value, key, wanted);
        return None;
    }
    let text = piece.string(value, key)?;
    let Some((engine_name, owner, name)) = split_container(text) else {
        let help = match ContainerEngine::of_name(text) {
            Some(_) => format!("write \"{text}:*\" for all of its containers"),
            None => format!("write the engine before it: \"docker:{}\"", shortened(text)),
        };
        let message = format!("\"{}\" is not a container", shortened(text));
        piece.error_help(value.span(), message, help);
        return None;
    };
    let engine = engine(value, text, engine_name, piece)?;
    let owner = match owner {
        Some("") => {
            let help = format!("write \"{engine_name}@*:{}\" for all users", shortened(name));
            piece.error_help(value.span(), "no user after @", help);
            return None;
        }
        Some(owner) => Some(user_test(named_ids(value, owner, "user", piece)?)),
        None => None,
    };
    if name.is_empty() {
        let help = format!("write \"{}*\" for all containers", shortened(text));
        piece.error_help(value.span(), "no name after the engine", help);
        return None;
    }
    let name = match is_pattern(name) {
        // The name of no container is a path.
        true => TextTest::Matches(glob(value, name, piece)?.across_slashes()),
        false => TextTest::Is(name.as_bytes().into()),
    };
    Some(ContainerTest { engine, owner, name })
}

/// Reads the name of an engine; `*` stands for any.
#[allow(clippy::option_option, reason = "no engine means any, and no result an error")]
fn engine(
    value: &Value<'_>,
    text: &str,
    name: &str,
    piece: &mut TomlSection<'_, '_>,
) -> Option<Option<ContainerEngine>> {
    if name == "*" {
        return Some(None);
    }
    let found = ContainerEngine::of_name(name);
    if found.is_none() {
        let known = ContainerEngine::ALL.map(ContainerEngine::name);
        let help = match did_you_mean(name, &known) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("write one of {}, or * for any", known.join(", ")),
        };
        let span = piece.within(&value.span(), text, 0..name.len());
        let message = format!("unknown container engine \"{}\"", shortened(name));
        piece.error_help(span, message, help);
    }
    found.map(Some)
}
