//! Who may do what at Central's door (DESIGN 3, Rights by certificate). Pure.

use super::api::Refusal;
use crate::body::{Downstream, Identity};
use crate::message::{Fields, Name};

/// Who asks, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// An edge, proven by its certificate.
    Edge(String),
    /// An operator or the application.
    Staff,
    /// Central itself, such as a standby that follows.
    Central,
    /// Anybody on loopback, with the edge that it says it is.
    Local(Option<String>),
}

impl Who {
    /// Reads who asks. Errors: nobody whom we know.
    pub fn of(from: &Downstream, fields: &Fields) -> Result<Who, Refusal> {
        match &from.identity {
            Identity::Edge(name) => Ok(Who::Edge(name.clone())),
            Identity::Operator | Identity::App => Ok(Who::Staff),
            Identity::Central => Ok(Who::Central),
            Identity::Loopback => Ok(Who::Local(fields.text(Name::CoordinatorEdge).map(str::to_owned))),
            Identity::Anyone => Err(Refusal::forbidden(
                "Central answers certificates of its deployment only: make one with `coordinator certs` and call with it",
            )),
        }
    }

    /// Whether homes may be written.
    pub fn must_write_homes(&self) -> Result<(), Refusal> {
        match self {
            Who::Staff | Who::Local(_) => Ok(()),
            Who::Edge(_) | Who::Central => Err(Refusal::forbidden(
                "homes are written by the application and by operators: use a certificate with `…/app/…` or `…/operator/…`; an edge claims",
            )),
        }
    }

    /// Whether the feed may be followed as an edge does it, with snapshots and acknowledgements.
    pub fn must_follow(&self) -> Result<(), Refusal> {
        match self {
            Who::Edge(_) | Who::Central | Who::Local(_) => Ok(()),
            Who::Staff => Err(Refusal::forbidden(
                "snapshots and acknowledgements are for edges: use a certificate with `…/edge/NAME`",
            )),
        }
    }

    /// Whether it may speak for the edge with this name.
    pub fn must_be(&self, edge: &str) -> Result<(), Refusal> {
        match self {
            Who::Edge(name) | Who::Local(Some(name)) if name == edge => Ok(()),
            Who::Local(None) => Ok(()),
            Who::Edge(name) | Who::Local(Some(name)) => Err(Refusal::forbidden(format!(
                "edge `{name}` speaks for itself only, not for `{}`",
                crate::home::key::shown(edge)
            ))),
            Who::Staff | Who::Central => Err(Refusal::forbidden("only an edge claims or acknowledges, for itself")),
        }
    }
}
