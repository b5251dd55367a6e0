//! What the locale can show.

use std::env;

/// Whether arrows, ellipses and blocks can be shown. As setlocale(3): the first of these that is set counts.
pub(super) fn is_unicode() -> bool {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}
