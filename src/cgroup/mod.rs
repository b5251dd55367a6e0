//! Control groups: which trees are mounted, and groups in them.

pub mod fast_moves;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod mounts;
pub mod tree;
