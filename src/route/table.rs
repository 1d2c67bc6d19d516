//! The route table: the most specific pattern wins, whatever the order in the file.
//!
//! A narrower host wins first, as in Go's ServeMux; among equal hosts, A is more specific than B if everything that A
//! matches (method, path and `when`) B matches too. Two rules that some request meets without one being more specific
//! are a conflict, so at most one rule is ever the best, and no order decides.
//! Hosts and paths are two tries. A node of depth n is reached at most once per look-up, because it takes exactly n
//! segments: no path, however long, makes the walk backtrack more than the table is large.

use super::neighbours::Neighbours;
use super::pattern::{Captures, cut, labels};
use super::shape::{Domain, Segment, Shape, Tail};
use super::{Action, Place, Rule, When};
use crate::message::{Fields, Method};
use std::collections::HashMap;

/// The table of one plan.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rules: Vec<Rule>,
    hosts: Trie<Trie<Vec<usize>>>,
}

/// What is looked up. The path is normalised and has no query.
#[derive(Debug, Clone, Copy)]
pub struct Query<'req> {
    /// The method. An extended CONNECT matches as GET, which is what asks for the same in HTTP/1.1 (RFC 8441).
    pub method: &'req Method,
    /// The host without port, lower-case; empty for an HTTP/1.0 request without one.
    pub host: &'req str,
    /// The normalised path.
    pub path: &'req str,
    /// For `when`.
    pub fields: &'req Fields,
}

/// The rule that won, and what it was found for.
#[derive(Debug, Clone, Copy)]
pub struct Matched<'plan, 'req> {
    /// The rule.
    pub rule: &'plan Rule,
    host: &'req str,
    path: &'req str,
}

/// Why nothing was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Miss {
    /// No pattern matches path and host.
    NoRoute,
    /// Some do, but not with this method; these would.
    NoMethod(Vec<Method>),
}

/// Two rules that overlap without one being more specific.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The indices of both in the list given to `build`.
    pub pair: (usize, usize),
    /// Why neither is more specific, with a request that both match.
    pub why: String,
}

/// Conflicts reported at most: whoever has more mends these first.
pub const CONFLICTS_MAX: usize = 100;

impl Table {
    /// Builds the table. Errors: every conflicting pair, up to [`CONFLICTS_MAX`].
    ///
    /// Cost: pairs of rules whose literals do not tell them apart are compared; few, in a table that people wrote.
    pub fn build(rules: Vec<Rule>) -> Result<Table, Vec<Conflict>> {
        let conflicts: Vec<_> = pairs(&rules)
            .filter_map(|pair| {
                let why = conflict(rules.get(pair.0)?, rules.get(pair.1)?)?;
                Some(Conflict { pair, why })
            })
            .take(CONFLICTS_MAX)
            .collect();
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        let mut hosts: Trie<Trie<Vec<usize>>> = Trie::default();
        for (index, rule) in rules.iter().enumerate() {
            hosts.at(&rule.pattern.host).at(&rule.pattern.path).push(index);
        }
        hosts.each(&mut |paths| paths.each(&mut |ends| ends.sort_by_key(|&index| rules.get(index).map(rank))));
        Ok(Table { rules, hosts })
    }

    /// Finds the rule that serves a request. `is_edge` says which names `EdgeNamed` captures may hold.
    ///
    /// Cost: one walk over the segments, whatever the number of routes.
    pub fn find<'plan, 'req>(
        &'plan self,
        query: Query<'req>,
        is_edge: &dyn Fn(&str) -> bool,
    ) -> Result<Matched<'plan, 'req>, Miss> {
        let mut others = Vec::new();
        let found = self.hosts.walk(labels(query.host), Domain::Hosts, &mut |paths| {
            paths.walk(query.path.strip_prefix('/'), Domain::Paths, &mut |ends| {
                let mut rules = ends.iter().filter_map(|&index| self.rules.get(index));
                rules.find(|rule| rule.serves(&query, is_edge, &mut others))
            })
        });
        match found {
            Some(rule) => Ok(Matched { rule, host: query.host, path: query.path }),
            None => Err(miss(others)),
        }
    }

    /// All rules by id.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

impl<'plan, 'req> Matched<'plan, 'req> {
    /// What the names captured, in the order of the pattern; values are still percent-encoded.
    ///
    /// Cost: a walk over the pattern, whenever it is asked: most routes want to know nothing.
    pub fn captures(&self) -> Captures<'plan, 'req> {
        self.rule.pattern.capture(self.host, self.path).unwrap_or_default()
    }

    /// What a name captured.
    pub fn capture(&self, name: &str) -> Option<&'req str> {
        self.captures().iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
    }
}

impl When {
    /// Whether a request meets it. A field that stands twice meets no condition, so that two values never tie.
    pub fn is_met(&self, fields: &Fields) -> bool {
        let mut values = fields.named(&self.name);
        values.next() == Some(self.value.as_bytes()) && values.next().is_none()
    }
}

impl Rule {
    /// Whether it serves a request whose host and path fit; if only the method does not, that method joins `others`.
    fn serves(&self, query: &Query<'_>, is_edge: &dyn Fn(&str) -> bool, others: &mut Vec<Method>) -> bool {
        if !self.fits(query)
            || self.when.as_ref().is_some_and(|when| !when.is_met(query.fields))
            || !self.names_edges(query, is_edge)
        {
            return false;
        }
        match self.pattern.method() {
            Some(own) if !serves(own, query.method) => {
                others.push(own.clone());
                false
            }
            _ => true,
        }
    }

    /// Whether host and path fit, where the tries have led here: they tell exactly which paths do, and `*` is none.
    fn fits(&self, query: &Query<'_>) -> bool {
        let captured = || self.pattern.capture(query.host, query.path).is_some();
        let is_path = query.path.starts_with('/');
        debug_assert!(!is_path || captured(), "a trie led astray");
        is_path || captured()
    }

    /// Whether every capture that `edge:{NAME}` uses holds the name of an edge.
    fn names_edges(&self, query: &Query<'_>, is_edge: &dyn Fn(&str) -> bool) -> bool {
        let Action::To(places) = &self.action else { return true };
        let matched = Matched { rule: self, host: query.host, path: query.path };
        places.iter().all(|place| match place {
            Place::EdgeNamed(name) => matched.capture(name).is_some_and(is_edge),
            _ => true,
        })
    }
}

/// Whether a pattern with method `own` serves a request with method `asked`.
fn serves(own: &Method, asked: &Method) -> bool {
    own == asked || (*own == Method::Get && matches!(asked, Method::Head | Method::Connect))
}

/// Sorts rules with one path so that the more specific ones come first.
fn rank(rule: &Rule) -> (u8, bool) {
    let method = match rule.pattern.method() {
        None => 2,
        Some(Method::Get) => 1,
        Some(_) => 0,
    };
    (method, rule.when.is_none())
}

fn miss(mut others: Vec<Method>) -> Miss {
    if others.is_empty() {
        return Miss::NoRoute;
    }
    if others.contains(&Method::Get) {
        others.push(Method::Head);
    }
    others.sort();
    others.dedup();
    Miss::NoMethod(others)
}

/// The pairs of rules that may conflict, in order.
fn pairs(rules: &[Rule]) -> impl Iterator<Item = (usize, usize)> {
    let (hosts, own) = Hosts::group(rules);
    let rivals: Vec<Vec<usize>> = hosts.list.iter().map(|host| hosts.rivals(host.shape)).collect();
    rules.iter().zip(own).enumerate().flat_map(move |(first, (rule, own))| {
        let mut seconds = Vec::new();
        for host in rivals.get(own).into_iter().flatten().filter_map(|&at| hosts.list.get(at)) {
            host.paths.meeting(&rule.pattern.path, &mut |ends| {
                // They stand in the order of the list.
                let later = ends.partition_point(|index| *index <= first);
                seconds.extend_from_slice(ends.get(later..).unwrap_or_default());
            });
        }
        seconds.sort_unstable();
        seconds.into_iter().map(move |second| (first, second))
    })
}

/// The rules of each host, by their paths.
#[derive(Default)]
struct Hosts<'r> {
    list: Vec<HostRules<'r>>,
    index: Neighbours<Vec<usize>>,
}

struct HostRules<'r> {
    shape: &'r Shape,
    paths: Neighbours<Vec<usize>>,
}

impl<'r> Hosts<'r> {
    /// All of them, and for each rule which host is its own.
    fn group(rules: &'r [Rule]) -> (Hosts<'r>, Vec<usize>) {
        let mut hosts = Hosts::default();
        let mut own = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let host = hosts.find(&rule.pattern.host);
            hosts.list[host].paths.at(&rule.pattern.path).push(index);
            own.push(host);
        }
        (hosts, own)
    }

    /// Where a host stands in the list; new if need be.
    fn find(&mut self, shape: &'r Shape) -> usize {
        let same = self.index.at(shape);
        if let Some(&known) = same.iter().find(|&&at| self.list[at].shape == shape) {
            return known;
        }
        same.push(self.list.len());
        self.list.push(HostRules { shape, paths: Neighbours::default() });
        self.list.len() - 1
    }

    /// The hosts whose rules may conflict with those of `own`: where one host is narrower, it wins, whatever the paths.
    fn rivals(&self, own: &Shape) -> Vec<usize> {
        let mut rivals = Vec::new();
        self.index.meeting(own, &mut |near| {
            rivals.extend(near.iter().copied().filter(|&at| {
                let shape = self.list[at].shape;
                shape == own || own.is_within(shape, Domain::Hosts) == shape.is_within(own, Domain::Hosts)
            }));
        });
        rivals
    }
}

/// Why two rules conflict; `None` if they do not.
fn conflict(one: &Rule, other: &Rule) -> Option<String> {
    let (a, b) = (&one.pattern, &other.pattern);
    if a.path.is_plainly_apart(&b.path) || a.host.is_plainly_apart(&b.host) {
        return None;
    }
    let example = example(one, other)?;
    let hosts = order(a.host.is_within(&b.host, Domain::Hosts), b.host.is_within(&a.host, Domain::Hosts));
    let within = |one: &Rule, other: &Rule| {
        method_within(one.pattern.method(), other.pattern.method())
            && (other.when.is_none() || one.when == other.when)
            && one.pattern.path.is_within(&other.pattern.path, Domain::Paths)
    };
    let reason = match hosts {
        Order::Narrower => return None,
        Order::Apart => "neither host is more specific",
        Order::Equal => match order(within(one, other), within(other, one)) {
            Order::Narrower => return None,
            Order::Apart => "neither is more specific",
            Order::Equal => "they match the same requests",
        },
    };
    let hint = [(one, other), (other, one)].into_iter().find_map(|(own, theirs)| below_only(own, theirs));
    Some(format!("`{}` and `{}` both match `{example}`, and {reason}{}", a.text, b.text, hint.unwrap_or_default()))
}

/// How to mend a conflict that is about the node of a trailing `/` itself: `/a/` and `/{x}` both match `/a`.
fn below_only(own: &Rule, theirs: &Rule) -> Option<String> {
    let mut narrowed = own.clone();
    let named = matches!(own.pattern.path.tail, Tail::Below) && !own.pattern.path.segments.is_empty();
    narrowed.pattern.path.tail = Tail::Rest(None);
    if !named || example(&narrowed, theirs).is_some() {
        return None;
    }
    let text = &own.pattern.text;
    Some(format!("; `{text}{{rest...}}` leaves out `{}` itself", text.strip_suffix('/').unwrap_or(text)))
}

enum Order {
    Narrower,
    Equal,
    Apart,
}

fn order(one_within: bool, other_within: bool) -> Order {
    match (one_within, other_within) {
        (true, true) => Order::Equal,
        (false, false) => Order::Apart,
        _ => Order::Narrower,
    }
}

fn method_within(one: Option<&Method>, other: Option<&Method>) -> bool {
    match (one, other) {
        (_, None) => true,
        (Some(one), Some(other)) => serves(other, one),
        (None, Some(_)) => false,
    }
}

/// A request that both rules match: `GET fr.example.com/a with x-beta: 1`.
fn example(one: &Rule, other: &Rule) -> Option<String> {
    let (a, b) = (&one.pattern, &other.pattern);
    let method = match (a.method(), b.method()) {
        (Some(own), None) | (None, Some(own)) => own.clone(),
        (None, None) => Method::Get,
        (Some(own), Some(theirs)) if serves(theirs, own) => own.clone(),
        (Some(own), Some(theirs)) if serves(own, theirs) => theirs.clone(),
        _ => return None,
    };
    let (mut labels, _) = a.host.meet(&b.host, Domain::Hosts)?;
    labels.reverse();
    let (segments, slash) = a.path.meet(&b.path, Domain::Paths)?;
    let slash = if slash && !segments.is_empty() { "/" } else { "" };
    let fields = conditions(one.when.as_ref(), other.when.as_ref())?;
    Some(format!("{method} {}/{}{slash}{fields}", labels.join("."), segments.join("/")))
}

/// What a request must carry to meet both; `None` if none can.
fn conditions(one: Option<&When>, other: Option<&When>) -> Option<String> {
    let text = |when: &When| format!("{}: {}", when.name, when.value);
    match (one, other) {
        (None, None) => Some(String::new()),
        (Some(only), None) | (None, Some(only)) => Some(format!(" with {}", text(only))),
        (Some(one), Some(other)) if one == other => Some(format!(" with {}", text(one))),
        (Some(one), Some(other)) if one.name.eq_ignore_ascii_case(&other.name) => None,
        (Some(one), Some(other)) => Some(format!(" with {} and {}", text(one), text(other))),
    }
}

/// A tree over segments; what ends at a node is a `T`.
#[derive(Debug, Clone)]
struct Trie<T> {
    nodes: Vec<Node<T>>,
}

#[derive(Debug, Clone)]
struct Node<T> {
    literals: HashMap<Box<str>, usize, foldhash::fast::RandomState>,
    /// Segments with a name, a narrower one before a wider one; names are not compared, only what they match.
    others: Vec<(Segment, usize)>,
    exact: Option<T>,
    slash: Option<T>,
    rest: Option<T>,
    below: Option<T>,
}

impl<T> Node<T> {
    /// Whether any segment leads from here to another node.
    fn leads_on(&self) -> bool {
        !self.literals.is_empty() || !self.others.is_empty()
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Node { literals: HashMap::default(), others: Vec::new(), exact: None, slash: None, rest: None, below: None }
    }
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Trie { nodes: vec![Node::default()] }
    }
}

impl<T: Default> Trie<T> {
    /// What ends where this shape ends; new if need be.
    fn at(&mut self, shape: &Shape) -> &mut T {
        let mut index = 0;
        for segment in &shape.segments {
            index = self.child(index, segment);
        }
        let node = &mut self.nodes[index];
        let end = match shape.tail {
            Tail::Exact => &mut node.exact,
            Tail::Slash => &mut node.slash,
            // At the root both mean everything, so they must end in one place.
            Tail::Rest(_) if !shape.segments.is_empty() => &mut node.rest,
            Tail::Rest(_) | Tail::Below => &mut node.below,
        };
        end.get_or_insert_default()
    }

    fn child(&mut self, parent: usize, segment: &Segment) -> usize {
        let new = self.nodes.len();
        let node = &mut self.nodes[parent];
        let found = match segment.as_literal() {
            Some(text) => *node.literals.entry(text.into()).or_insert(new),
            None => match node.others.iter().find(|(own, _)| own.literals == segment.literals) {
                Some((_, index)) => *index,
                None => {
                    let at = node.others.partition_point(|(own, _)| own.rank() <= segment.rank());
                    node.others.insert(at, (segment.clone(), new));
                    new
                }
            },
        };
        if found == new {
            self.nodes.push(Node::default());
        }
        found
    }

    fn each(&mut self, visit: &mut dyn FnMut(&mut T)) {
        for node in &mut self.nodes {
            let ends = [&mut node.exact, &mut node.slash, &mut node.rest, &mut node.below];
            ends.into_iter().flatten().for_each(&mut *visit);
        }
    }
}

impl<T> Trie<T> {
    /// Visits every end that fits, each after all that are narrower, until one answers.
    fn walk<'t, R>(
        &'t self,
        left: Option<&str>,
        domain: Domain,
        visit: &mut dyn FnMut(&'t T) -> Option<R>,
    ) -> Option<R> {
        self.walk_from(self.nodes.first()?, left, domain, visit)
    }

    /// The depth of the recursion is that of the table, never of the path.
    fn walk_from<'t, R>(
        &'t self,
        node: &'t Node<T>,
        left: Option<&str>,
        domain: Domain,
        visit: &mut dyn FnMut(&'t T) -> Option<R>,
    ) -> Option<R> {
        let (first, second) = match left {
            None => (&node.exact, &None),
            Some("") => (&node.slash, &node.rest),
            Some(left) => {
                let below = node.leads_on().then(|| self.descend(node, cut(left, domain), domain, visit)).flatten();
                if below.is_some() {
                    return below;
                }
                (&None, &node.rest)
            }
        };
        [first, second, &node.below].into_iter().flatten().find_map(visit)
    }

    fn descend<'t, R>(
        &'t self,
        node: &'t Node<T>,
        (segment, rest): (&str, Option<&str>),
        domain: Domain,
        visit: &mut dyn FnMut(&'t T) -> Option<R>,
    ) -> Option<R> {
        let literal = node.literals.get(segment).copied();
        let others = node.others.iter().filter(|(own, _)| own.split(segment).is_some()).map(|&(_, index)| index);
        literal.into_iter().chain(others).find_map(|index| self.walk_from(self.nodes.get(index)?, rest, domain, visit))
    }
}

#[cfg(test)]
mod tests;
