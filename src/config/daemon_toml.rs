//! `cgruled.toml`, the daemon's own settings. Pure.
