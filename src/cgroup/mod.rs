//! Everything that concerns cgroups: the mounted hierarchies, the configuration of cgroups and
//! systemd units, and the creation, opening and removal of cgroups. It must not decide which
//! process belongs into which cgroup; that is done in [`crate::placement`] and [`crate::engine::placer`].

mod advice;
mod apply;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod config;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod conflicts;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod container;
pub mod disk;
mod error;
pub mod fast_moves;
pub(crate) mod group_files;
pub mod host;
pub mod make;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod mounts;
pub mod reaper;
pub mod release;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod settings;
pub mod tree;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod unit;
pub mod units;
