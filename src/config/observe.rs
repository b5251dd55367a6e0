//! Parses `observe` of a rule file. It must not let rules act that may be meant to observe.

use toml::de::DeTable;

use super::table::{TomlSection, TomlStatus, did_you_mean};

/// The key, of a file and of a rule.
pub(super) const OBSERVE: &str = "observe";

/// Reads whether the rules of a file observe. `head` is the text before its first section, `known` are
/// the keys of a file. `None`, with an error, if the file may be meant to observe: no part of it may be
/// loaded.
pub(super) fn of_file(
    (table, syntax): (&DeTable<'_>, TomlStatus),
    head: &str,
    known: &[&str],
    piece: &mut TomlSection<'_, '_>,
) -> Option<bool> {
    const REFUSAL: &str = "no rules of this file are loaded: ";
    let help = "write observe = true before the first section, or remove it";
    if let Some(value) = table.get(OBSERVE).filter(|_| syntax == TomlStatus::Right) {
        let found = value.get_ref().as_bool();
        if found.is_none() {
            let message = format!("{REFUSAL}observe must be true or false");
            piece.error_help(value.span(), message, help);
        }
        return found;
    }
    if syntax == TomlStatus::Wrong && mentions_key(head) {
        // The parser drops keys after an error.
        let message = format!("{REFUSAL}observe cannot be read because of the syntax error");
        piece.error_help(0..0, message, "correct the syntax error");
        return None;
    }
    let is_near = |name: &str| !known.contains(&name) && did_you_mean(name, known) == Some(OBSERVE);
    if let Some((key, _)) = table.iter().find(|(key, _)| is_near(key.get_ref())) {
        let message = format!("{REFUSAL}did you mean \"observe\"?");
        piece.error_help(key.span(), message, help);
        return None;
    }
    Some(false)
}

/// Checks whether the key occurs in a text outside of comments.
fn mentions_key(text: &str) -> bool {
    text.lines().any(|line| line.split('#').next().is_some_and(|code| code.contains(OBSERVE)))
}
