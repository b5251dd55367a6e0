//! Radix tree from literal prefixes to the rules that ask for them. Pure.
//!
//! Nodes lie in one vector, level by level, so that the children of a node are neighbours and
//! their first bytes form one short run to search.

use std::collections::VecDeque;

use super::index::{Entry, prune};
use super::span::{Span, to_u32};

#[derive(Debug, Default)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    /// The first byte of each node's label, by node.
    first_bytes: Vec<u8>,
    labels: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug, Default)]
struct Node {
    label: Span,
    children: u32,
    child_count: u32,
    entries: Span,
    /// The first rule of this node and all below.
    first: u32,
}

/// A node whose children are still to be made.
struct Pending<'a> {
    node: usize,
    /// The keys below the node, sorted.
    keys: &'a [(Vec<u8>, Entry)],
    /// How many bytes of each key the path to the node has used.
    depth: usize,
}

impl Trie {
    pub(super) fn build(mut keys: Vec<(Vec<u8>, Entry)>) -> Self {
        let mut trie = Self::default();
        if keys.is_empty() {
            return trie;
        }
        keys.sort_unstable();
        let mut pending = VecDeque::new();
        pending.push_back(trie.add(&keys, 0, 0));
        while let Some(next) = pending.pop_front() {
            trie.grow(&next, &mut pending);
        }
        trie.nodes.shrink_to_fit();
        trie.entries.shrink_to_fit();
        trie
    }

    /// Adds the node for `keys`, which agree up to `end`; `depth` of it the path has used.
    fn add<'a>(&mut self, keys: &'a [(Vec<u8>, Entry)], depth: usize, end: usize) -> Pending<'a> {
        let label = &keys[0].0[depth..end];
        let node = self.nodes.len();
        self.first_bytes.push(label.first().copied().unwrap_or_default());
        let first = keys.iter().map(|(_, entry)| entry.id.0).min().unwrap_or(u32::MAX);
        let label = Span::push(&mut self.labels, label);
        self.nodes.push(Node { label, first, ..Node::default() });
        Pending { node, keys, depth: end }
    }

    /// Gives a node its entries and its children.
    fn grow<'a>(&mut self, own: &Pending<'a>, pending: &mut VecDeque<Pending<'a>>) {
        let (here, mut below) =
            own.keys.split_at(own.keys.partition_point(|(key, _)| key.len() == own.depth));
        let mut entries: Vec<Entry> = here.iter().map(|(_, entry)| *entry).collect();
        prune(&mut entries);
        let children = self.nodes.len();
        while let [(first, _), ..] = below {
            let byte = first[own.depth];
            let (group, rest) =
                below.split_at(below.partition_point(|(key, _)| key[own.depth] == byte));
            let last = &group[group.len() - 1].0;
            let end = first.iter().zip(last).take_while(|(a, b)| a == b).count();
            pending.push_back(self.add(group, own.depth, end));
            below = rest;
        }
        let child_count = to_u32(self.nodes.len() - children);
        let entries = Span::push(&mut self.entries, &entries);
        let node = &mut self.nodes[own.node];
        (node.entries, node.children, node.child_count) = (entries, to_u32(children), child_count);
    }

    /// Bytes on the heap.
    pub(super) fn heap(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
            + self.first_bytes.capacity()
            + self.labels.capacity()
            + self.entries.capacity() * size_of::<Entry>()
    }

    /// Shows `take` the entries of each prefix of a subject, shortest first. `byte_at` gives the
    /// bytes of the subject; `take` gets the best rule so far and gives the new one. Parts of the
    /// tree without a rule before the best one are left out.
    #[inline]
    pub(super) fn walk(
        &self,
        byte_at: impl Fn(usize) -> Option<u8>,
        mut best: u32,
        mut take: impl FnMut(&[Entry], u32) -> u32,
    ) -> u32 {
        let Some(mut node) = self.nodes.first() else { return best };
        let mut depth = 0;
        loop {
            if node.first >= best {
                return best;
            }
            let label = node.label.of(&self.labels);
            if label.iter().enumerate().any(|(n, &byte)| byte_at(depth + n) != Some(byte)) {
                return best;
            }
            depth += label.len();
            best = take(node.entries.of(&self.entries), best);
            let Some(child) = byte_at(depth).and_then(|byte| self.child(node, byte)) else {
                return best;
            };
            node = child;
        }
    }

    #[inline]
    fn child(&self, node: &Node, byte: u8) -> Option<&Node> {
        let from = node.children as usize;
        let first_bytes = self.first_bytes.get(from..from + node.child_count as usize)?;
        let n = match first_bytes.len() {
            0..=8 => first_bytes.iter().position(|&own| own == byte)?,
            _ => first_bytes.binary_search(&byte).ok()?,
        };
        self.nodes.get(from + n)
    }
}
