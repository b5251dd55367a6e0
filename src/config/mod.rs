//! Text of configuration files → rules and settings, and what is wrong with them. One file for each
//! syntax. Pure: the edge ([`crate::load`]) reads the files.

pub mod daemon_toml;
pub mod diagnostic;
pub mod rules_toml;
