//! What is known of the programs of one process and its ancestors.

use std::sync::Arc;

use crate::engine::inheritance::Inherited;
use crate::event::{Nanos, Pid};
use crate::rules::ancestry::Ancestor;

/// The maximum number of programs of ancestors: the first ones, which started the others.
const MOST_PROGRAMS: usize = 16;

/// When the program of a process was found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    /// The time of the change for which the process was evaluated, 0 if no event told one.
    pub(super) since: Nanos,
    /// The executable was read later than this.
    pub(super) read_from: Nanos,
    /// The time of the evaluation: it was read before.
    pub(super) at: Nanos,
}

impl Found {
    /// Checks whether a change of the process at this time was not read by then, and may be what began the program.
    pub(super) fn is_before_event(self, change: Nanos) -> bool {
        self.since < change && change <= self.at
    }
}

/// The tested programs of one process and its ancestors.
#[derive(Clone, Debug)]
pub(super) struct AncestryMark {
    /// Those of its ancestors.
    pub(super) inherited: Option<Arc<[Ancestor]>>,
    /// What it runs itself.
    pub(super) own: Option<Ancestor>,
    /// Both, for its children.
    pub(super) for_children: Option<Arc<[Ancestor]>>,
    /// When `own` was found.
    pub(super) found: Found,
    pub(super) found_by: FoundBy,
}

/// How it was found that a process has a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoundBy {
    /// Its fork was read.
    Fork,
    /// This parent listed it before its fork was read.
    List(Pid),
    /// It was evaluated. Its fork may be unread, if the event was that of an earlier process with the PID.
    Evaluation,
}

impl AncestryMark {
    pub(super) fn new(inherited: Option<Arc<[Ancestor]>>, own: Option<Ancestor>) -> Self {
        let for_children = match &own {
            None => inherited.clone(),
            Some(own) => {
                Some(merged(inherited.as_deref().unwrap_or_default(), std::slice::from_ref(own)))
            }
        };
        Self { inherited, own, for_children, found: Found::default(), found_by: FoundBy::Fork }
    }

    /// Returns the mark of a child that is found below this parent.
    pub(super) fn listed(parent: Pid) -> Self {
        Self { found_by: FoundBy::List(parent), ..Self::new(None, None) }
    }

    /// Checks whether a change of the process at this time was not read when its program was found.
    pub(super) fn was_early(&self, change: Nanos) -> bool {
        self.own.is_some() && self.found.is_before_event(change)
    }

    /// Returns the mark of the same process with these programs of ancestors.
    pub(super) fn below(&self, inherited: Option<Arc<[Ancestor]>>) -> Self {
        let Self { found, found_by, .. } = *self;
        Self { found, found_by, ..Self::new(inherited, self.own.clone()) }
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
            found: Found::default(),
            found_by: FoundBy::Fork,
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
