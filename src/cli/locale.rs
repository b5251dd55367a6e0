//! Detection of what the terminal and its locale can show.

use std::env;
use std::io::{self, IsTerminal};

/// Checks whether arrows, ellipses and blocks can be shown. As in setlocale(3), the first variable set
/// counts.
pub(super) fn is_unicode() -> bool {
    let variables = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter();
    let mut set =
        variables.filter_map(|name| env::var(name).ok().filter(|value| !value.is_empty()));
    let locale = set.next().unwrap_or_default().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Checks whether output may be coloured: standard output is a terminal and `NO_COLOR`
/// (<https://no-color.org>) is unset or empty.
pub(super) fn is_colored() -> bool {
    io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
