//! Detection of the characters that the locale can show.

use std::env;

/// Checks whether arrows, ellipses and blocks can be shown. As in setlocale(3), the first variable set
/// counts.
pub(super) fn is_unicode() -> bool {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}
