//! Simulated cgroups of one or two hierarchies.

use std::collections::HashMap;
use std::rc::Rc;

/// A cgroup; its index never refers to another one.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) path: Rc<str>,
    pub(crate) exists: bool,
    pub(crate) owner: u32,
}

/// All cgroups that ever existed.
#[derive(Default)]
pub(crate) struct Cgroups {
    groups: Vec<Group>,
    by_path: [HashMap<Rc<str>, usize>; 2],
}

impl Cgroups {
    pub(crate) fn get(&self, index: usize) -> &Group {
        &self.groups[index]
    }

    pub(crate) fn find(&self, hierarchy: usize, path: &str) -> Option<usize> {
        self.by_path[hierarchy].get(path).copied()
    }

    /// Checks whether there is a cgroup below a path.
    pub(crate) fn has_below(&self, hierarchy: usize, path: &str) -> bool {
        let is_below = |own: &str| own.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        self.by_path[hierarchy].keys().any(|own| is_below(own))
    }

    /// Returns the cgroup of a path, creating it.
    pub(crate) fn make(&mut self, hierarchy: usize, path: &str, owner: u32) -> usize {
        if let Some(found) = self.find(hierarchy, path) {
            return found;
        }
        let path: Rc<str> = Rc::from(path);
        self.groups.push(Group { path: Rc::clone(&path), exists: true, owner });
        let index = self.groups.len() - 1;
        self.by_path[hierarchy].insert(path, index);
        index
    }

    /// Removes the cgroups of rules that `is_used` does not hold.
    pub(crate) fn remove_unused(
        &mut self,
        hierarchy: usize,
        is_used: impl Fn(usize) -> bool,
    ) -> usize {
        let groups = &mut self.groups;
        let before = self.by_path[hierarchy].len();
        self.by_path[hierarchy].retain(|path, &mut index| {
            let stays = !path.starts_with("/r") || is_used(index);
            groups[index].exists = stays;
            stays
        });
        before - self.by_path[hierarchy].len()
    }
}

/// Checks whether a user controls the cgroup, so that moves into it are reverted each time.
pub(crate) fn is_users(path: &str, owner: u32) -> bool {
    owner != 0 || path.contains("/user@") || path.contains("/session-")
}
