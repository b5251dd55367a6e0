//! cgruled.
#![deny(rustdoc::broken_intra_doc_links)]

#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod config;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod event;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod rules;

pub mod cgroup;
pub mod daemon;
pub mod engine;
pub mod load;
pub mod log;
pub mod metrics;
pub mod placer;
pub mod policy;
pub mod process;
pub mod program;
pub mod rebuild;
pub mod source;
pub mod sys;
pub mod worker;
