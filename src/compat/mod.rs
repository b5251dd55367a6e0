//! Compatibility with other programs: the command line and log of cgrulesengd, and converters of
//! configuration files.

pub mod cgrulesengd;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod convert;
