//! Everything that concerns cgroups: the mounted hierarchies, the configuration of cgroups and
//! systemd units, and the creation, opening and removal of cgroups. It must not decide which
//! process belongs into which cgroup; that is done in [`crate::decision`] and [`crate::placer`].

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
