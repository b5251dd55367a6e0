//! The destinations of the active rules, by which cgroups of removed rules are found.

use std::collections::HashSet;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use crate::rules::{PathBase, Target};

/// Hashes of all destinations below the managed root and of the paths above them: 10,000 texts would take a megabyte.
/// A collision only keeps a cgroup.
#[derive(Debug)]
pub(super) struct UsedDestinations(HashSet<u64>);

impl UsedDestinations {
    pub(super) fn of<'t>(targets: impl Iterator<Item = &'t Target>) -> Self {
        let ours = targets.filter(|target| target.below == PathBase::Root);
        Self(ours.flat_map(|target| hashes(target.destination.as_str())).collect())
    }

    /// Checks whether a destination has this text or begins with its components.
    pub(super) fn contains(&self, text: &str) -> bool {
        hashes(text).last().is_none_or(|own| self.0.contains(&own))
    }
}

/// Returns the hash of each beginning of a path, the whole path last.
fn hashes(text: &str) -> impl Iterator<Item = u64> {
    let components = text.split('/').filter(|component| !component.is_empty());
    components.scan(0_u64, |above, component| {
        *above = FixedState::default().hash_one((*above, component));
        Some(*above)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::destination::Destination;

    #[test]
    fn a_path_is_used_with_those_above_it() {
        let target = |text: &str, below| Target {
            destination: Destination::parse(text).unwrap(),
            controllers: Vec::new(),
            creates: true,
            below,
        };
        let targets = [target("sites/%u/php", PathBase::Root), target("old", PathBase::Top)];
        let used = UsedDestinations::of(targets.iter());
        for text in ["sites", "sites/%u", "/sites/%u/php/", ""] {
            assert!(used.contains(text), "{text}");
        }
        for text in ["old", "%u", "site", "sites/%u/php/x", "sites/php"] {
            assert!(!used.contains(text), "{text}");
        }
    }
}
