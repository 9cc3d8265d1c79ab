// SPDX-License-Identifier: GPL-2.0

//! A balanced tree of intervals in lent nodes.
//!
//! An AVL tree ordered by the first sector, each node knowing the largest end below it. Nodes name
//! each other by index. Nothing recurses: every walk goes down by children and up by parents.

use core::ops::DerefMut;

use super::Kind;

/// No node.
pub(super) const NIL: u32 = u32::MAX;

/// A node of a range table; the default is fit to be lent.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    start: u64,
    end: u64,
    max_end: u64,
    left: u32,
    /// The right child, and for a free node the next free one.
    right: u32,
    parent: u32,
    generation: u32,
    height: u8,
    kind: Kind,
    is_used: bool,
    is_completed: bool,
    is_awaited: bool,
    is_overtaken: bool,
}

impl Default for Node {
    fn default() -> Self {
        Self::free(0, NIL)
    }
}

impl Node {
    pub(super) const fn free(generation: u32, next_free: u32) -> Self {
        Self {
            start: 0,
            end: 0,
            max_end: 0,
            left: NIL,
            right: next_free,
            parent: NIL,
            generation,
            height: 0,
            kind: Kind::LocalWrite,
            is_used: false,
            is_completed: false,
            is_awaited: false,
            is_overtaken: false,
        }
    }

    pub(super) const fn new(kind: Kind, start: u64, end: u64, generation: u32) -> Self {
        let free = Self::free(generation, NIL);
        Self {
            start,
            end,
            max_end: end,
            height: 1,
            kind,
            is_used: true,
            ..free
        }
    }

    pub(super) const fn start(&self) -> u64 {
        self.start
    }

    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn set_kind(&mut self, kind: Kind) {
        self.kind = kind;
    }

    pub(super) const fn generation(&self) -> u32 {
        self.generation
    }

    pub(super) const fn next_free(&self) -> u32 {
        self.right
    }

    pub(super) const fn is_used(&self) -> bool {
        self.is_used
    }

    pub(super) const fn is_completed(&self) -> bool {
        self.is_completed
    }

    pub(super) const fn is_awaited(&self) -> bool {
        self.is_awaited
    }

    pub(super) const fn is_overtaken(&self) -> bool {
        self.is_overtaken
    }

    pub(super) fn await_it(&mut self) {
        self.is_awaited = true;
    }

    pub(super) fn overtake(&mut self) {
        self.is_overtaken = true;
    }

    /// Whether someone waited until now; those who still have to wait will say so again.
    pub(super) fn complete(&mut self) -> bool {
        self.is_completed = true;
        core::mem::take(&mut self.is_awaited)
    }
}

/// The tree: nodes and the index of the root.
#[derive(Debug)]
pub(super) struct Tree<S> {
    nodes: S,
    root: u32,
}

impl<S: DerefMut<Target = [Node]>> Tree<S> {
    pub(super) fn new(nodes: S) -> Self {
        Self { nodes, root: NIL }
    }

    pub(super) fn node(&self, index: u32) -> Option<&Node> {
        // Lossless: the kernel's `usize` has 64 bits, and NIL is beyond every slice that was taken
        // in.
        self.nodes.get(index as usize)
    }

    pub(super) fn node_mut(&mut self, index: u32) -> Option<&mut Node> {
        self.nodes.get_mut(index as usize)
    }

    /// Puts `node` at a free `index`.
    pub(super) fn insert(&mut self, index: u32, node: Node) {
        let start = node.start;
        let mut parent = NIL;
        let mut next = self.root;
        while let Some(here) = self.node(next) {
            parent = next;
            next = if start < here.start {
                here.left
            } else {
                here.right
            };
        }
        if let Some(slot) = self.node_mut(index) {
            *slot = Node { parent, ..node };
        }
        match self.node_mut(parent) {
            Some(above) if start < above.start => above.left = index,
            Some(above) => above.right = index,
            None => self.root = index,
        }
        self.rebalance(parent);
    }

    /// Takes a node out of the tree; its own content is left as it is.
    pub(super) fn remove(&mut self, index: u32) {
        let Some(&Node {
            left,
            right,
            parent,
            height,
            max_end,
            ..
        }) = self.node(index)
        else {
            return;
        };
        if left == NIL || right == NIL {
            let child = if left == NIL { right } else { left };
            self.replace_child(parent, index, child);
            self.rebalance(parent);
            return;
        }
        let heir = self.leftmost(right);
        let Some(&Node {
            right: orphan,
            parent: above_heir,
            ..
        }) = self.node(heir)
        else {
            return;
        };
        let mut lowest = heir;
        if above_heir != index {
            lowest = above_heir;
            self.replace_child(above_heir, heir, orphan);
            self.set_right(heir, right);
        }
        self.set_left(heir, left);
        self.replace_child(parent, index, heir);
        if let Some(node) = self.node_mut(heir) {
            // What those above know of the subtree.
            node.height = height;
            node.max_end = max_end;
        }
        if lowest != heir {
            self.rebalance(lowest);
        }
        self.rebalance(heir);
    }

    /// The first range that overlaps `start..end`, by its first sector; [`NIL`] if none does.
    pub(super) fn first_overlap(&self, start: u64, end: u64) -> u32 {
        self.first_overlap_below(self.root, start, end)
    }

    /// The overlapping range after `index`.
    pub(super) fn next_overlap(&self, index: u32, start: u64, end: u64) -> u32 {
        let Some(node) = self.node(index) else {
            return NIL;
        };
        if self.max_end(node.right) > start {
            return self.first_overlap_below(node.right, start, end);
        }
        let mut child = index;
        let mut above = node.parent;
        while let Some(node) = self.node(above) {
            if node.left == child {
                if node.start >= end {
                    return NIL;
                }
                if node.end > start {
                    return above;
                }
                if self.max_end(node.right) > start {
                    return self.first_overlap_below(node.right, start, end);
                }
            }
            child = above;
            above = node.parent;
        }
        NIL
    }

    fn first_overlap_below(&self, top: u32, start: u64, end: u64) -> u32 {
        let mut index = top;
        while let Some(node) = self.node(index) {
            // If the left side reaches far enough, a range there overlaps, or all that follow begin
            // too late.
            if self.max_end(node.left) > start {
                index = node.left;
            } else if node.start >= end {
                return NIL;
            } else if node.end > start {
                return index;
            } else {
                index = node.right;
            }
        }
        NIL
    }

    fn max_end(&self, index: u32) -> u64 {
        self.node(index).map_or(0, |node| node.max_end)
    }

    fn height(&self, index: u32) -> u8 {
        self.node(index).map_or(0, |node| node.height)
    }

    fn leftmost(&self, top: u32) -> u32 {
        let mut index = top;
        while let Some(node) = self.node(index) {
            if node.left == NIL {
                break;
            }
            index = node.left;
        }
        index
    }

    /// How much higher the left side of a node is.
    fn lean(&self, index: u32) -> i16 {
        let Some(node) = self.node(index) else {
            return 0;
        };
        let left = i16::from(self.height(node.left));
        left.saturating_sub(i16::from(self.height(node.right)))
    }

    /// Computes what a node knows of its subtree.
    fn update(&mut self, index: u32) {
        let Some(&Node { left, right, .. }) = self.node(index) else {
            return;
        };
        let height = self.height(left).max(self.height(right)).saturating_add(1);
        let below = self.max_end(left).max(self.max_end(right));
        if let Some(node) = self.node_mut(index) {
            node.height = height;
            node.max_end = node.end.max(below);
        }
    }

    /// Restores balance and knowledge from a node, below which something changed, up to where
    /// nothing is new to those above.
    fn rebalance(&mut self, lowest: u32) {
        let mut index = lowest;
        while let Some(&Node {
            height, max_end, ..
        }) = self.node(index)
        {
            self.update(index);
            let top = self.rotate_if_needed(index);
            match self.node(top) {
                Some(node) if node.height != height || node.max_end != max_end => {
                    index = node.parent;
                }
                _ => return,
            }
        }
    }

    /// The index of the node that is now at the top of the subtree.
    fn rotate_if_needed(&mut self, index: u32) -> u32 {
        let Some(&Node { left, right, .. }) = self.node(index) else {
            return NIL;
        };
        match self.lean(index) {
            2.. => {
                if self.lean(left) < 0 {
                    self.rotate_left(left);
                }
                self.rotate_right(index)
            }
            ..=-2 => {
                if self.lean(right) > 0 {
                    self.rotate_right(right);
                }
                self.rotate_left(index)
            }
            _ => index,
        }
    }

    fn rotate_right(&mut self, index: u32) -> u32 {
        let Some(&Node { left, parent, .. }) = self.node(index) else {
            return NIL;
        };
        let Some(&Node { right: inner, .. }) = self.node(left) else {
            return index;
        };
        self.replace_child(parent, index, left);
        self.set_left(index, inner);
        self.set_right(left, index);
        self.update(index);
        self.update(left);
        left
    }

    fn rotate_left(&mut self, index: u32) -> u32 {
        let Some(&Node { right, parent, .. }) = self.node(index) else {
            return NIL;
        };
        let Some(&Node { left: inner, .. }) = self.node(right) else {
            return index;
        };
        self.replace_child(parent, index, right);
        self.set_right(index, inner);
        self.set_left(right, index);
        self.update(index);
        self.update(right);
        right
    }

    fn set_left(&mut self, index: u32, child: u32) {
        if let Some(node) = self.node_mut(index) {
            node.left = child;
        }
        self.set_parent(child, index);
    }

    fn set_right(&mut self, index: u32, child: u32) {
        if let Some(node) = self.node_mut(index) {
            node.right = child;
        }
        self.set_parent(child, index);
    }

    fn set_parent(&mut self, index: u32, parent: u32) {
        if let Some(node) = self.node_mut(index) {
            node.parent = parent;
        }
    }

    /// Puts `new` where `old` was below `parent`, or at the root.
    fn replace_child(&mut self, parent: u32, old: u32, new: u32) {
        match self.node_mut(parent) {
            Some(node) if node.left == old => node.left = new,
            Some(node) => node.right = new,
            None => self.root = new,
        }
        self.set_parent(new, parent);
    }
}

#[cfg(test)]
impl<S: DerefMut<Target = [Node]>> Tree<S> {
    /// Whether it is ordered, balanced, knows its ends and holds `count` nodes.
    pub(super) fn is_sound(&self, count: usize) -> bool {
        let mut nodes = std::vec::Vec::new();
        let is_balanced = self.collect(self.root, NIL, &mut nodes);
        is_balanced && nodes.len() == count && nodes.windows(2).all(|pair| pair[0] <= pair[1])
    }

    fn collect(&self, index: u32, parent: u32, starts: &mut std::vec::Vec<u64>) -> bool {
        let Some(node) = self.node(index) else {
            return true;
        };
        let left = self.collect(node.left, index, starts);
        starts.push(node.start);
        let right = self.collect(node.right, index, starts);
        let below = self.max_end(node.left).max(self.max_end(node.right));
        let height = self.height(node.left).max(self.height(node.right)) + 1;
        let knows = node.max_end == node.end.max(below) && node.height == height;
        left && right && knows && node.parent == parent && self.lean(index).abs() <= 1
    }
}
