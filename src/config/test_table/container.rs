//! Parses the container of the process of a test. It resolves no names.

use std::fmt;

use crate::config::criteria::account::{AccountRef, account_named};
use crate::config::table::{TomlSection, Value, shortened};
use crate::rules::container::{ContainerEngine, split_container};

/// A container that a test describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestContainer {
    /// The engine that runs it.
    pub engine: ContainerEngine,
    /// The user who created it; `None` means root.
    pub owner: Option<AccountRef>,
    /// The name of the container, or its ID.
    pub name: String,
}

impl fmt::Display for TestContainer {
    /// Formats `podman@alice:db`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.engine.name())?;
        if let Some(owner) = &self.owner {
            write!(f, "@{owner}")?;
        }
        write!(f, ":{}", self.name)
    }
}

/// Reads `ENGINE:NAME` or `ENGINE@USER:NAME`. A process is in one container, so nothing is a pattern here.
pub(super) fn container(
    value: &Value<'_>,
    key: &str,
    piece: &mut TomlSection<'_, '_>,
) -> Option<TestContainer> {
    let text = piece.string(value, key)?;
    let parts = split_container(text).and_then(|(engine, owner, name)| {
        let is_name = !name.is_empty() && !name.contains(['/', '*', '?', '[']);
        is_name.then_some((ContainerEngine::of_name(engine)?, owner, name))
    });
    let Some((engine, owner, name)) = parts else {
        let engines = ContainerEngine::ALL.map(ContainerEngine::name).join(", ");
        let message = format!("\"{}\" is not one container", shortened(text));
        let help = format!("write \"ENGINE:NAME\" or \"ENGINE@USER:NAME\", with one of {engines}");
        piece.error_help(value.span(), message, help);
        return None;
    };
    let owner = match owner {
        Some(user) => Some(account_named(value, user, "user", piece)?),
        None => None,
    };
    Some(TestContainer { engine, owner, name: name.to_owned() })
}
