//! The languages of patterns: which segments, paths and hosts a pattern stands for, and how two of them relate.
//!
//! A segment is literals around names; a name stands for one or more symbols, and a symbol is one octet or one whole
//! escape (`%2F`), so that no name ever ends in the middle of an escape. A shape is segments and what may follow them.
//! Inclusion and overlap are decided exactly, by walking two small automata at once; no approximation decides which
//! route wins. Hosts are shapes too: their labels, from the right.

use smallvec::SmallVec;
use std::collections::{HashSet, VecDeque};

/// One segment of a path or label of a host: literals around names, `literals.len() == names.len() + 1`.
///
/// Only the first and the last literal may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) literals: Vec<String>,
    pub(super) names: Vec<String>,
}

/// What may follow the segments of a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tail {
    /// Nothing.
    Exact,
    /// A slash and nothing (`/{$}`).
    Slash,
    /// Nothing, or a slash and anything (`/`).
    Below,
    /// A slash and anything (`/{name...}`); for hosts one label or more (`*.`), which has no name.
    Rest(Option<String>),
}

/// A language of paths or hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) segments: Vec<Segment>,
    pub(super) tail: Tail,
}

/// What a shape is about. A path is a number of non-empty segments, with or without a slash at the end, and `/` is none
/// with one; a host is a number of labels, none for a request without a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Domain {
    Hosts,
    Paths,
}

/// The pieces that names of one segment took.
pub(super) type Pieces<'t> = SmallVec<[&'t str; 2]>;

impl Segment {
    /// The text, if no name is in it.
    pub(super) fn as_literal(&self) -> Option<&str> {
        if self.names.is_empty() { self.literals.first().map(String::as_str) } else { None }
    }

    /// Whether it is one name and nothing else.
    pub(super) fn is_any(&self) -> bool {
        self.names.len() == 1 && self.literals.iter().all(String::is_empty)
    }

    /// Sorts before every segment whose language strictly includes this one's: a narrower language has a longer shortest
    /// text, or an equally long one with more octets fixed.
    pub(super) fn rank(&self) -> impl Ord + use<> {
        let fixed: usize = self.literals.iter().map(|literal| symbols(literal).count()).sum();
        std::cmp::Reverse((fixed + self.names.len(), fixed))
    }

    /// What the names take of `text`, each at least one symbol, split at the last separator; `None` if it does not match.
    ///
    /// Taking separators from the right finds a split whenever there is one: the names that are left only gain room.
    pub(super) fn split<'t>(&self, text: &'t str) -> Option<Pieces<'t>> {
        let (first, rest) = self.literals.split_first()?;
        let Some((last, inner)) = rest.split_last() else {
            return (text == first).then(Pieces::new);
        };
        let mut left = text.strip_prefix(first.as_str())?.strip_suffix(last.as_str())?;
        if !is_between_symbols(text, first.len() + left.len()) {
            return None;
        }
        let mut pieces = Pieces::new();
        for separator in inner.iter().rev() {
            let at = last_separator(left, separator)?;
            pieces.push(&left[at + separator.len()..]);
            left = &left[..at];
        }
        if left.is_empty() {
            return None;
        }
        pieces.push(left);
        pieces.reverse();
        Some(pieces)
    }

    /// Whether every text of `self` is one of `other`.
    pub(super) fn is_within(&self, other: &Segment) -> bool {
        match (self.as_literal(), other.as_literal()) {
            (Some(text), _) => other.split(text).is_some(),
            (None, Some(_)) => false,
            _ if other.is_any() => true,
            _ => walk(self, other, |own, others| own && !others).is_none(),
        }
    }

    /// A text of both.
    pub(super) fn meet(&self, other: &Segment) -> Option<String> {
        match (self.as_literal(), other.as_literal()) {
            (Some(text), _) => other.split(text).map(|_| text.to_owned()),
            (_, Some(text)) => self.split(text).map(|_| text.to_owned()),
            _ => walk(self, other, |own, others| own && others),
        }
    }
}

impl Shape {
    /// The hosts of a pattern that names none: all.
    pub(super) fn everything() -> Shape {
        Shape { segments: Vec::new(), tail: Tail::Below }
    }

    /// Whether something with `count` segments, with or without a slash at its end, can be of this language.
    fn takes(&self, count: usize, slash: bool) -> bool {
        let own = self.segments.len();
        match self.tail {
            Tail::Exact => count == own && !slash,
            Tail::Slash => count == own && slash,
            Tail::Below => count >= own,
            Tail::Rest(_) => count > own || (count == own && slash),
        }
    }

    /// Whether everything of `self` is of `other`.
    pub(super) fn is_within(&self, other: &Shape, domain: Domain) -> bool {
        forms(self, other, domain).filter(|&(count, slash)| self.takes(count, slash)).all(|(count, slash)| {
            other.takes(count, slash)
                && other.segments.iter().enumerate().all(|(at, theirs)| match self.segments.get(at) {
                    Some(own) => own.is_within(theirs),
                    None => theirs.is_any(),
                })
        })
    }

    /// Something of both, as its segments and whether a slash ends it.
    pub(super) fn meet(&self, other: &Shape, domain: Domain) -> Option<(Vec<String>, bool)> {
        let (count, slash) =
            forms(self, other, domain).find(|&(count, slash)| self.takes(count, slash) && other.takes(count, slash))?;
        let segments = (0..count).map(|at| match (self.segments.get(at), other.segments.get(at)) {
            (Some(own), Some(theirs)) => own.meet(theirs),
            (Some(one), None) | (None, Some(one)) => one.meet(one),
            (None, None) => Some("x".to_owned()),
        });
        Some((segments.collect::<Option<_>>()?, slash))
    }

    /// Whether nothing can be of both, judged by literals alone: the cheap look before the exact one.
    pub(super) fn is_plainly_apart(&self, other: &Shape) -> bool {
        self.segments.iter().zip(&other.segments).any(|(own, theirs)| match (own.as_literal(), theirs.as_literal()) {
            (Some(own), Some(theirs)) => own != theirs,
            _ => false,
        })
    }
}

/// All forms that two shapes can tell apart: beyond one segment more than both have, nothing changes.
fn forms(one: &Shape, other: &Shape, domain: Domain) -> impl Iterator<Item = (usize, bool)> + use<> {
    let longest = one.segments.len().max(other.segments.len()) + 1;
    (0..=longest).flat_map(|count| [(count, false), (count, true)]).filter(move |&(count, slash)| match domain {
        Domain::Hosts => !slash,
        Domain::Paths => slash || count > 0,
    })
}

/// Where `separator` last stands in `text` with something on both sides.
fn last_separator(text: &str, separator: &str) -> Option<usize> {
    let last = text.len().checked_sub(separator.len() + 1)?;
    let octets = text.as_bytes();
    (1..=last).rev().find(|&at| octets[at..].starts_with(separator.as_bytes()) && is_between_symbols(text, at))
}

/// Whether `at` is not in the middle of an escape. Every `%` of a normalised path starts one.
fn is_between_symbols(text: &str, at: usize) -> bool {
    let octets = text.as_bytes();
    !(1..=2).any(|back| at >= back && octets.get(at - back) == Some(&b'%'))
}

/// The symbols of a text: octets and whole escapes.
fn symbols(text: &str) -> impl Iterator<Item = &str> {
    let mut left = text;
    std::iter::from_fn(move || {
        let first = left.chars().next()?;
        let length = if first == '%' { left.len().min(3) } else { first.len_utf8() };
        let (symbol, rest) = left.split_at_checked(length)?;
        left = rest;
        Some(symbol)
    })
}

/// A segment as an automaton: state `n` means that the first `n` tokens are behind us. A name is one symbol of any kind
/// and then, as a loop on the state after it, any number more.
struct Machine<'s> {
    tokens: Vec<Option<&'s str>>,
}

type States = Vec<usize>;

impl<'s> Machine<'s> {
    fn of(segment: &'s Segment) -> Machine<'s> {
        let mut tokens = Vec::new();
        for (at, literal) in segment.literals.iter().enumerate() {
            if at > 0 {
                tokens.push(None);
            }
            tokens.extend(symbols(literal).map(Some));
        }
        Machine { tokens }
    }

    /// `symbol` is `None` for one that no literal of either side holds.
    fn step(&self, from: &States, symbol: Option<&str>) -> States {
        let mut next = States::new();
        for &state in from {
            if self.loops(state) {
                next.push(state);
            }
            match self.tokens.get(state) {
                Some(None) => next.push(state + 1),
                Some(&Some(literal)) if Some(literal) == symbol => next.push(state + 1),
                _ => {}
            }
        }
        next.sort_unstable();
        next.dedup();
        // What an earlier state could still reach, a loop after it reaches as well: this keeps the sets few.
        let keep_from = next.iter().rposition(|&state| self.loops(state)).unwrap_or(0);
        next.drain(..keep_from);
        next
    }

    fn loops(&self, state: usize) -> bool {
        state > 0 && self.tokens[state - 1].is_none()
    }

    fn accepts(&self, states: &States) -> bool {
        states.last() == Some(&self.tokens.len())
    }
}

/// The shortest text that brings both automata where `goal` says so; the first must still be alive.
fn walk(one: &Segment, other: &Segment, goal: impl Fn(bool, bool) -> bool) -> Option<String> {
    let (a, b) = (Machine::of(one), Machine::of(other));
    let mut alphabet: Vec<&str> = a.tokens.iter().chain(&b.tokens).flatten().copied().collect();
    alphabet.sort_unstable();
    alphabet.dedup();
    let fresh = fresh_symbol(&alphabet);
    let steps: Vec<_> = std::iter::once((None, fresh.as_str())).chain(alphabet.iter().map(|&s| (Some(s), s))).collect();
    let start: (States, States) = (vec![0], vec![0]);
    let mut seen = HashSet::from([start.clone()]);
    let mut queue = VecDeque::from([(start, String::new())]);
    while let Some(((at_a, at_b), text)) = queue.pop_front() {
        if goal(a.accepts(&at_a), b.accepts(&at_b)) {
            return Some(text);
        }
        for &(symbol, shown) in &steps {
            let next = (a.step(&at_a, symbol), b.step(&at_b, symbol));
            if !next.0.is_empty() && seen.insert(next.clone()) {
                queue.push_back((next, format!("{text}{shown}")));
            }
        }
    }
    None
}

/// A symbol that no literal uses, a pleasant one if possible.
fn fresh_symbol(taken: &[&str]) -> String {
    let pleasant = (b'a'..=b'z').map(|octet| char::from(octet).to_string());
    let others = (0x80..=0xffu8).map(|octet| format!("%{octet:02X}"));
    pleasant.chain(others).find(|symbol| !taken.contains(&symbol.as_str())).unwrap_or_else(|| "x".to_owned())
}

#[cfg(test)]
mod tests;
