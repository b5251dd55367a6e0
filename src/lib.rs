//! cgruled.
#![deny(rustdoc::broken_intra_doc_links)]

#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod config;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod event;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod rules;

pub mod cgroup;
pub mod metrics;
pub mod process;
pub mod source;
pub mod sys;
