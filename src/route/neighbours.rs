//! Which shapes may meet which, by their literals: so that a table of thousands of rules is searched for conflicts
//! without a look at every pair.
//!
//! Owns a tree over segments in which all segments with a name are one. Invariant: what it leaves out cannot meet what
//! was asked for; what it gives may or may not, and the exact comparison decides.

use super::shape::{Segment, Shape, Tail};
use std::collections::HashMap;

/// A tree over shapes; what ends at a node is a `T`.
#[derive(Debug)]
pub(super) struct Neighbours<T> {
    nodes: Vec<Node<T>>,
}

#[derive(Debug, Default)]
struct Node<T> {
    literals: HashMap<Box<str>, usize>,
    named: Option<usize>,
    /// What ends here.
    ended: T,
    /// What goes on from here with anything.
    open: T,
}

impl<T: Default> Default for Neighbours<T> {
    fn default() -> Self {
        Neighbours { nodes: vec![Node::default()] }
    }
}

impl<T: Default> Neighbours<T> {
    /// What ends where this shape ends; new if need be.
    pub(super) fn at(&mut self, shape: &Shape) -> &mut T {
        let mut index = 0;
        for segment in &shape.segments {
            index = self.child(index, segment);
        }
        let node = &mut self.nodes[index];
        if is_open(shape) { &mut node.open } else { &mut node.ended }
    }

    fn child(&mut self, parent: usize, segment: &Segment) -> usize {
        let new = self.nodes.len();
        let node = &mut self.nodes[parent];
        let found = match segment.as_literal() {
            Some(text) => *node.literals.entry(text.into()).or_insert(new),
            None => *node.named.get_or_insert(new),
        };
        if found == new {
            self.nodes.push(Node::default());
        }
        found
    }
}

impl<T> Neighbours<T> {
    /// Visits everything that may meet a shape, each once.
    ///
    /// Cost: in proportion to what is visited, where literals tell shapes apart.
    pub(super) fn meeting<'t>(&'t self, shape: &Shape, visit: &mut dyn FnMut(&'t T)) {
        if let Some(root) = self.nodes.first() {
            self.walk(root, &shape.segments, is_open(shape), visit);
        }
    }

    /// The depth of the recursion is that of the tree, which `SEGMENTS_MAX` bounds.
    fn walk<'t>(&'t self, node: &'t Node<T>, left: &[Segment], open: bool, visit: &mut dyn FnMut(&'t T)) {
        visit(&node.open);
        let Some((segment, left)) = left.split_first() else {
            visit(&node.ended);
            if open {
                self.children(node).for_each(|child| self.walk(child, &[], true, visit));
            }
            return;
        };
        match segment.as_literal() {
            Some(text) => {
                let both = node.literals.get(text).copied().into_iter().chain(node.named);
                both.filter_map(|at| self.nodes.get(at)).for_each(|child| self.walk(child, left, open, visit));
            }
            None => self.children(node).for_each(|child| self.walk(child, left, open, visit)),
        }
    }

    fn children<'t>(&'t self, node: &'t Node<T>) -> impl Iterator<Item = &'t Node<T>> {
        node.literals.values().copied().chain(node.named).filter_map(|at| self.nodes.get(at))
    }
}

/// Whether a shape goes on with anything.
fn is_open(shape: &Shape) -> bool {
    matches!(shape.tail, Tail::Below | Tail::Rest(_))
}
