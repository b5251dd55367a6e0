//! Names of containers that were read from the files of their engines. Pure.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::event::Nanos;
use crate::rules::container::ContainerKey;

/// Lifetime of a name, and of the answer that a container has none: a container can get another name, and its engine
/// can write its file late.
const BELIEVED_NS: [u64; 2] = [600_000_000_000, 30_000_000_000];
/// Maximum number of known containers. Beyond it all are read again.
const MOST: usize = 16_384;

/// Names of containers by engine and ID.
#[derive(Debug, Default)]
pub struct KnownContainers {
    names: HashMap<ContainerKey, (Option<Box<str>>, Nanos), FixedState>,
}

impl KnownContainers {
    /// Returns the name of a container, `Some(None)` if it has none. `None` means that it must be read.
    pub fn name(&self, key: ContainerKey, now: Nanos) -> Option<Option<&str>> {
        let (name, read) = self.names.get(&key)?;
        let [named, nameless] = BELIEVED_NS;
        let believed = if name.is_some() { named } else { nameless };
        (now.since(*read) <= believed).then_some(name.as_deref())
    }

    /// Adds the name of a container, which was read at `now`.
    pub fn add(&mut self, key: ContainerKey, name: Option<Box<str>>, now: Nanos) {
        if self.names.len() >= MOST && !self.names.contains_key(&key) {
            self.names.clear();
        }
        self.names.insert(key, (name, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::container::{ContainerEngine, ContainerId};

    fn key(number: usize) -> ContainerKey {
        let id = ContainerId::parse(format!("{number:064x}").as_bytes()).unwrap();
        ContainerKey { engine: ContainerEngine::Docker, id }
    }

    #[test]
    fn names_are_believed_for_a_time() {
        let mut known = KnownContainers::default();
        let (early, late) = (Nanos(1_000_000_000), Nanos(40_000_000_000));
        known.add(key(1), Some("web".into()), early);
        known.add(key(2), None, early);
        assert_eq!(known.name(key(1), late), Some(Some("web")));
        assert_eq!(known.name(key(1), Nanos(700_000_000_000)), None);
        assert_eq!(known.name(key(2), early), Some(None));
        assert_eq!(known.name(key(2), late), None);
        assert_eq!(known.name(key(3), early), None);
    }

    #[test]
    fn their_number_is_bounded() {
        let mut known = KnownContainers::default();
        (0..2 * MOST + 1).for_each(|number| known.add(key(number), None, Nanos(1)));
        assert_eq!(known.names.len(), 1);
        assert_eq!(known.name(key(2 * MOST), Nanos(1)), Some(None));
    }
}
