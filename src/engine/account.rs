//! Read access to the state of the engine for status output. It changes nothing.

use super::Engine;
use crate::engine::kernel::Kernel;
use crate::policy::Summary;

impl<K: Kernel> Engine<K> {
    /// Returns the summary of the active rules.
    pub fn summary(&self) -> &Summary {
        &self.policy.summary
    }

    /// Returns the programs that reverted placements, with counts: see
    /// [`crate::engine::placer::Placer::external_movers`].
    pub fn external_movers(&self) -> &[(String, u64)] {
        self.placer.external_movers()
    }
}
