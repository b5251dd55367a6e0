//! cgruled.
#![deny(rustdoc::broken_intra_doc_links)]

#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod config;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod event;
#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod load;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod rules;
