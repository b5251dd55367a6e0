//! Sources of evaluations: the events of the kernel, external moves, and scans of `/proc`.

pub mod coalescer;
pub mod connector;
pub mod files;
pub mod intake;
pub mod moves;
pub mod scan;
