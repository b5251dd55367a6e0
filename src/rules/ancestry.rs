//! Criteria on the programs that the ancestors of a process run. It must not read anything.

use super::context::{ContextCriteria, ContextMismatch};
use super::criteria::accept_path;
use super::{ExeTest, Rule};

/// A program that an ancestor of a process runs, or ran when the process or one of its ancestors was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// The path of the executable.
    pub path: Box<[u8]>,
    /// The path of the invoked script or symbolic link, if known.
    pub invoked: Option<Box<[u8]>>,
    /// Set if the real UID of the ancestor was 0, so that no user chose the program.
    pub is_of_root: bool,
}

impl ContextCriteria {
    /// Checks whether one of these ancestors runs one of the programs.
    fn accepts_ancestor(&self, ancestors: &[Ancestor]) -> bool {
        let counts = |one: &&Ancestor| one.is_of_root || self.below_any_user;
        ancestors.iter().filter(counts).any(|one| {
            accept_path(&self.below, &one.path)
                || one.invoked.as_ref().is_some_and(|path| accept_path(&self.below, path))
        })
    }
}

impl Rule {
    /// Checks whether a match depends on the ancestors of a process.
    pub fn tests_ancestors(&self) -> bool {
        self.context().into_iter().flatten().any(|context| !context.below.is_empty())
    }

    /// Returns the programs of ancestors that the rule requires and excludes, and whether those of processes of any
    /// user count.
    pub fn ancestor_tests(&self) -> impl Iterator<Item = (&[ExeTest], bool)> {
        let both = self.context().into_iter().flatten();
        both.map(|context| (&*context.below, context.below_any_user))
            .filter(|(tests, _)| !tests.is_empty())
    }

    /// Returns the first criterion on its ancestors that a process does not meet.
    pub fn ancestor_mismatch(&self, ancestors: &[Ancestor]) -> Option<ContextMismatch> {
        let [when, not] = self.context();
        if when.is_some_and(|when| !when.below.is_empty() && !when.accepts_ancestor(ancestors)) {
            Some(ContextMismatch::Below)
        } else {
            let is_excluded = not.is_some_and(|not| not.accepts_ancestor(ancestors));
            is_excluded.then_some(ContextMismatch::NotBelow)
        }
    }
}
