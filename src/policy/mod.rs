//! From files to the active policy of this host: which files are loaded and trusted, the resolution
//! of their names, the last valid versions, and the threads that do this. Must not be called by the
//! hot thread except through [`worker`], because files and the name service can block.

pub mod ancestor_programs;
mod compiled;
pub mod context_rules;
pub mod files;
mod known_containers;
pub mod load;
pub mod observer;
pub mod planned;
pub mod rebuild;
pub mod rule_hits;
mod settings_update;
pub mod worker;

#[cfg(test)]
pub(crate) use compiled::test_policy;
pub use compiled::{Policy, Summary, User};
pub use settings_update::SettingsUpdate;
