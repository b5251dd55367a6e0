//! Radix tree from literal prefixes to the rules that require them.
//!
//! The cost of a lookup is the number of cache lines touched. Therefore a node takes half a line
//! including its label, and nodes are stored level by level: the children of a node are adjacent
//! and their first bytes form one short run to search.

use std::collections::VecDeque;

use super::listed::{ListedRule, prune};
use super::pool_range::{PoolRange, to_u32};

#[derive(Debug, Default)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    /// The first byte of the label of each node.
    first_bytes: Vec<u8>,
    entries: Vec<ListedRule>,
}

/// The maximum label length: what remains of 32 bytes. A longer label continues in an only child.
const LABEL: usize = 13;

#[derive(Debug, Default)]
#[repr(align(32))]
struct Node {
    /// The first rule of this node and its descendants.
    first: u32,
    children: u32,
    entries: PoolRange,
    child_count: u16,
    label_len: u8,
    label: [u8; LABEL],
}

impl Node {
    /// Returns the rest of `subject` after the label, if it begins with the label.
    #[inline]
    fn strip<'a>(&self, subject: &'a [u8]) -> Option<&'a [u8]> {
        let len = usize::from(self.label_len);
        let (head, rest) = subject.split_at_checked(len)?;
        head.iter().zip(&self.label).all(|(a, b)| a == b).then_some(rest)
    }
}

/// A node with children that are still to be created.
struct PendingNode<'a> {
    node: usize,
    /// The keys below the node, sorted.
    keys: &'a [(Vec<u8>, ListedRule)],
    /// The number of bytes of each key used by the path to the node.
    depth: usize,
}

impl Trie {
    pub(super) fn build(mut keys: Vec<(Vec<u8>, ListedRule)>) -> Self {
        let mut trie = Self::default();
        if keys.is_empty() {
            return trie;
        }
        keys.sort_unstable();
        let mut pending = VecDeque::new();
        pending.push_back(trie.add(&keys, 0));
        while let Some(next) = pending.pop_front() {
            trie.grow(&next, &mut pending);
        }
        trie.nodes.shrink_to_fit();
        trie.entries.shrink_to_fit();
        trie
    }

    /// Adds the node for `keys`. The path to it has used `depth` bytes of each.
    fn add<'a>(&mut self, keys: &'a [(Vec<u8>, ListedRule)], depth: usize) -> PendingNode<'a> {
        let first = &keys[0].0[depth..];
        let last = &keys[keys.len() - 1].0[depth..];
        let shared = first.iter().zip(last).take_while(|(a, b)| a == b).take(LABEL);
        let mut node = Node { first: u32::MAX, ..Node::default() };
        for (slot, (&byte, _)) in node.label.iter_mut().zip(shared) {
            *slot = byte;
            node.label_len += 1;
        }
        node.first = keys.iter().map(|(_, entry)| entry.id.0).min().unwrap_or(u32::MAX);
        let depth = depth + usize::from(node.label_len);
        self.first_bytes.push(node.label[0]);
        self.nodes.push(node);
        PendingNode { node: self.nodes.len() - 1, keys, depth }
    }

    /// Stores the entries of a node and adds its children.
    fn grow<'a>(&mut self, own: &PendingNode<'a>, pending: &mut VecDeque<PendingNode<'a>>) {
        let (here, mut below) =
            own.keys.split_at(own.keys.partition_point(|(key, _)| key.len() == own.depth));
        let mut entries: Vec<ListedRule> = here.iter().map(|(_, entry)| *entry).collect();
        prune(&mut entries);
        let children = self.nodes.len();
        while let [(first, _), ..] = below {
            let byte = first[own.depth];
            let (group, rest) =
                below.split_at(below.partition_point(|(key, _)| key[own.depth] == byte));
            pending.push_back(self.add(group, own.depth));
            below = rest;
        }
        let count = self.nodes.len() - children;
        let entries = PoolRange::push(&mut self.entries, &entries);
        let node = &mut self.nodes[own.node];
        node.entries = entries;
        node.children = to_u32(children);
        // At most 256, one per byte value.
        node.child_count = u16::try_from(count).unwrap_or(u16::MAX);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Returns the heap size in bytes.
    pub(super) fn heap(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
            + self.first_bytes.capacity()
            + self.entries.capacity() * size_of::<ListedRule>()
    }

    /// Calls `take` with the entries of each prefix of `subject`, shortest first. `take` receives
    /// the best rule so far and returns the new one. Subtrees without an earlier rule are skipped.
    #[inline]
    pub(super) fn walk(
        &self,
        mut subject: &[u8],
        mut best: u32,
        take: impl Fn(&[ListedRule], u32) -> u32,
    ) -> u32 {
        let Some(mut node) = self.nodes.first() else { return best };
        while node.first < best {
            let Some(rest) = node.strip(subject) else { break };
            subject = rest;
            best = take(node.entries.of(&self.entries), best);
            let Some(child) = rest.first().and_then(|&byte| self.child(node, byte)) else { break };
            node = child;
        }
        best
    }

    /// Returns the only child that can begin with `byte`.
    #[inline]
    fn child(&self, node: &Node, byte: u8) -> Option<&Node> {
        let from = node.children as usize;
        let count = usize::from(node.child_count);
        let n = match count {
            0 => return None,
            // The caller compares the label of an only child.
            1 => 0,
            2..=16 => self.first_bytes.get(from..from + count)?.iter().position(|&b| b == byte)?,
            _ => self.first_bytes.get(from..from + count)?.binary_search(&byte).ok()?,
        };
        self.nodes.get(from + n)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::rules::RuleId;
    use crate::rules::listed::ResidualTests;

    /// Generates keys: long runs of one byte need several nodes per label, arbitrary bytes make
    /// wide nodes.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            (0..40usize, vec(any::<u8>(), 0..2)).prop_map(|(n, end)| [vec![b'a'; n], end].concat()),
            vec(any::<u8>(), 0..3),
        ]
    }

    proptest! {
        #[test]
        fn finds_the_entries_of_every_prefix(
            keys in vec(key(), 0..200),
            subjects in vec(key(), 1..20),
        ) {
            let filed = (0..).map(RuleId).zip(&keys);
            let entries = filed
                .map(|(id, key)| (key.clone(), ListedRule { id, residue: ResidualTests::EXES }))
                .collect();
            let trie = Trie::build(entries);
            for subject in subjects.iter().chain(&keys) {
                let found = std::cell::RefCell::new(Vec::new());
                trie.walk(subject, u32::MAX, |entries, best| {
                    found.borrow_mut().extend(entries.iter().map(|entry| entry.id.0 as usize));
                    best
                });
                let mut found = found.into_inner();
                found.sort_unstable();
                let expected: Vec<usize> =
                    (0..keys.len()).filter(|n| subject.starts_with(&keys[*n])).collect();
                prop_assert_eq!(&found, &expected);
                let first = trie.walk(subject, u32::MAX, |entries, best| {
                    entries.first().map_or(best, |entry| entry.id.0.min(best))
                });
                let expected = expected.first().map_or(u32::MAX, |n| to_u32(*n));
                prop_assert_eq!(first, expected);
            }
        }
    }
}
