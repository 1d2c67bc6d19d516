//! Which rule a request matches, and what follows from it. Pure: no sockets, no clock, no config files.

pub mod decide;
pub mod key;
mod neighbours;
pub mod pattern;
mod shape;
pub mod table;

use crate::base::id::{RouteId, SpaceId};

/// A place that a route sends requests to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// This edge's origin.
    Local,
    /// The authority.
    Central,
    /// The edge that owns the key.
    Home(SpaceId),
    /// The edge whose name a capture holds (`edge:{edge}`): the capture's name.
    EdgeNamed(String),
    /// A fixed edge (`edge:de`): its name.
    Edge(String),
}

/// Where the key of a home route stands in the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A capture of the pattern.
    Capture(String),
    /// A request field.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// A query parameter.
    Query(String),
    /// A label of the host: the name of a capture in the host pattern.
    HostLabel(String),
}

/// A narrowing condition: `when = { header = "NAME: value" }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct When {
    /// The field name, lower-case.
    pub name: String,
    /// The exact value.
    pub value: String,
}

/// What a route does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Tries these places in order; never empty.
    To(Vec<Place>),
    /// Answers by itself; the text is in the route's settings.
    Reply,
}

/// A rule of the table.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its id.
    pub id: RouteId,
    /// What it matches.
    pub pattern: pattern::Pattern,
    /// What else must hold.
    pub when: Option<When>,
    /// What it does.
    pub action: Action,
    /// Where the key is, for `home` places.
    pub key: Option<KeySource>,
}
