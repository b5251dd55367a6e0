//! Counts what the daemon was given and did.

/// Numbers of what the daemon was given and did, which its counters must equal.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) events: u64,
    pub(crate) forks: u64,
    pub(crate) moved: u64,
    pub(crate) policies: u64,
}
