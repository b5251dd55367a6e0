//! What others may know of the engine.

use super::Engine;
use crate::policy::Summary;

impl Engine {
    /// What the rules in force are made of.
    pub fn summary(&self) -> &Summary {
        &self.policy.summary
    }

    /// Who took processes back and how often: see [`crate::placer::Placer::taken_back_by`].
    pub fn taken_back_by(&self) -> &[(String, u64)] {
        self.placer.taken_back_by()
    }
}
