//! Reads references to one user or group, as tests have them: names and IDs, but no patterns.

use std::fmt;

use super::{IdOrName, id_or_name, named_ids};
use crate::config::table::{TomlSection, Value, shortened};

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountRef {
    /// A name.
    Name(String),
    /// A name of digits, and the ID that it means if no account has that name.
    NameOrId(String, u32),
    /// An ID.
    Id(u32),
}

impl fmt::Display for AccountRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) | Self::NameOrId(name, _) => f.write_str(name),
            Self::Id(id) => write!(f, "{id}"),
        }
    }
}

/// Reads the name or ID of one user or group.
pub(in crate::config) fn account(
    value: &Value<'_>,
    key: &str,
    piece: &mut TomlSection<'_, '_>,
) -> Option<AccountRef> {
    let read = id_or_name(value, key, piece)?;
    one_account(read, value, key, piece)
}

/// Reads the name or ID of one user or group in a part of a value.
pub(in crate::config) fn account_named(
    value: &Value<'_>,
    text: &str,
    key: &str,
    piece: &mut TomlSection<'_, '_>,
) -> Option<AccountRef> {
    let read = named_ids(value, text, key, piece)?;
    one_account(read, value, key, piece)
}

fn one_account(
    read: IdOrName,
    value: &Value<'_>,
    key: &str,
    piece: &mut TomlSection<'_, '_>,
) -> Option<AccountRef> {
    Some(match read {
        IdOrName::Name(name) => AccountRef::Name(name),
        IdOrName::NameOrId(name, id) => AccountRef::NameOrId(name, id),
        IdOrName::Ids(first, last) if first == last => AccountRef::Id(first),
        IdOrName::Ids(..) | IdOrName::Glob(_) => {
            let text = value.get_ref().as_str().unwrap_or_default();
            let message = format!("\"{}\" is not one {key}", shortened(text));
            piece.error_help(value.span(), message, "write the name or the ID of one account");
            return None;
        }
    })
}
