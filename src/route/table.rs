//! The route table: the most specific pattern wins, whatever the order in the file.

use super::Rule;
use crate::message::{Fields, Method};
use smallvec::SmallVec;

/// The table of one plan.
#[derive(Debug, Clone, Default)]
pub struct Table {}

/// What is looked up. The path is normalised and has no query.
#[derive(Debug, Clone, Copy)]
pub struct Query<'req> {
    /// The method.
    pub method: &'req Method,
    /// The host without port, lower-case.
    pub host: &'req str,
    /// The normalised path.
    pub path: &'req str,
    /// For `when`.
    pub fields: &'req Fields,
}

/// The rule that won, and what its names captured.
#[derive(Debug, Clone)]
pub struct Matched<'plan, 'req> {
    /// The rule.
    pub rule: &'plan Rule,
    /// Name and value, in the order of the pattern; values are still percent-encoded.
    pub captures: SmallVec<[(&'plan str, &'req str); 4]>,
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

impl Table {
    /// Builds the table. Errors: every conflicting pair.
    pub fn build(_rules: Vec<Rule>) -> Result<Table, Vec<Conflict>> {
        unimplemented!()
    }

    /// Finds the rule that serves a request. `is_edge` says which names `EdgeNamed` captures may hold.
    ///
    /// Cost: one walk over the segments, whatever the number of routes.
    pub fn find<'plan, 'req>(
        &'plan self,
        _query: Query<'req>,
        _is_edge: &dyn Fn(&str) -> bool,
    ) -> Result<Matched<'plan, 'req>, Miss> {
        unimplemented!()
    }

    /// All rules by id.
    pub fn rules(&self) -> &[Rule] {
        unimplemented!()
    }
}

impl<'req> Matched<'_, 'req> {
    /// What a name captured.
    pub fn capture(&self, name: &str) -> Option<&'req str> {
        self.captures.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
    }
}
