//! Control groups: which trees are mounted, what groups in them are given, and the groups.

mod equip;
pub mod fast_moves;
pub mod keeper;
pub mod make;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod mounts;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod provision;
mod refusal;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod rivals;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod settings;
pub mod tree;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod unit;
pub mod units;
