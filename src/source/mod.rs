//! Where looks come from: the kernel's events and scans of `/proc`.

pub mod connector;
pub mod files;
pub mod intake;
pub mod pace;
pub mod scan;
