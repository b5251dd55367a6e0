//! What is known of the programs of one process and its ancestors.

use std::sync::Arc;

use crate::engine::inheritance::Inherited;
use crate::event::{Nanos, Pid};
use crate::rules::ancestry::Ancestor;

/// The maximum number of programs of ancestors: the first ones, which started the others.
const MOST_PROGRAMS: usize = 16;

/// The tested programs of one process and its ancestors.
#[derive(Clone, Debug)]
pub(super) struct AncestryMark {
    /// Those of its ancestors.
    pub(super) inherited: Option<Arc<[Ancestor]>>,
    /// What it runs itself.
    pub(super) own: Option<Ancestor>,
    /// Both, for its children.
    pub(super) for_children: Option<Arc<[Ancestor]>>,
    /// The time of the change for which it was evaluated when `own` was found, 0 if no event told one, and that of the
    /// evaluation. A change in between whose event is read later may be what began it.
    pub(super) found: [Nanos; 2],
    /// The parent by which it was found, if its fork was not read before.
    pub(super) listed_by: Option<Pid>,
}

impl AncestryMark {
    pub(super) fn new(inherited: Option<Arc<[Ancestor]>>, own: Option<Ancestor>) -> Self {
        let for_children = match &own {
            None => inherited.clone(),
            Some(own) => {
                Some(merged(inherited.as_deref().unwrap_or_default(), std::slice::from_ref(own)))
            }
        };
        Self { inherited, own, for_children, found: [Nanos(0); 2], listed_by: None }
    }

    /// Returns the mark of a child that is found below this parent.
    pub(super) fn listed(parent: Pid) -> Self {
        Self { listed_by: Some(parent), ..Self::new(None, None) }
    }

    /// Checks whether a change of the process at this time was not read when its program was found.
    pub(super) fn was_early(&self, change: Nanos) -> bool {
        let [since, at] = self.found;
        self.own.is_some() && since < change && change <= at
    }

    /// Returns the mark of the same process with these programs of ancestors.
    pub(super) fn below(&self, inherited: Option<Arc<[Ancestor]>>) -> Self {
        let Self { found, listed_by, .. } = *self;
        Self { found, listed_by, ..Self::new(inherited, self.own.clone()) }
    }

    /// Returns what children have from the process itself, and not from its ancestors.
    pub(super) fn adds(&self) -> Option<Ancestor> {
        let inherited = self.inherited.as_deref().unwrap_or_default();
        self.own.clone().filter(|own| !inherited.contains(own))
    }
}

impl Inherited for AncestryMark {
    fn with_inherited(&self, inherited: &Self) -> Option<Self> {
        let of_parent = inherited.inherited.as_deref().unwrap_or_default();
        let own = self.inherited.as_deref().unwrap_or_default();
        let is_new = of_parent.iter().any(|one| !own.contains(one));
        is_new.then(|| self.below(Some(merged(of_parent, own))))
    }

    fn of_child(&self) -> Option<Self> {
        let inherited = self.for_children.clone()?;
        Some(Self {
            inherited: Some(Arc::clone(&inherited)),
            own: None,
            for_children: Some(inherited),
            found: [Nanos(0); 2],
            listed_by: None,
        })
    }
}

/// Returns both lists, without repetitions.
pub(super) fn merged(first: &[Ancestor], second: &[Ancestor]) -> Arc<[Ancestor]> {
    let mut all = first.to_vec();
    all.extend(second.iter().filter(|one| !first.contains(one)).cloned());
    all.truncate(MOST_PROGRAMS);
    all.into()
}
