//! Who may do what at Central's door (DESIGN 3, Rights by certificate). Pure.
//!
//! A bearer token counts instead of whatever the connection proves: who sends one wants to be that, and a wrong one is
//! refused wherever it comes in. Invariant: tokens are compared by their digests, in constant time, and never told.

use super::api::Refusal;
use crate::body::{Downstream, Identity};
use crate::config::plan::BearerToken;
use crate::message::{Fields, Name};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

/// Who asks, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// An edge, proven by its certificate.
    Edge(String),
    /// An operator or the application.
    Staff,
    /// The bearer of a token, and whether it may write.
    Bearer(bool),
    /// Central itself, such as a standby that follows.
    Central,
    /// Anybody on loopback, with the edge that it says it is.
    Local(Option<String>),
}

impl Who {
    /// Reads who asks. Errors: nobody whom we know.
    pub fn of(from: &Downstream, fields: &Fields, tokens: &[BearerToken]) -> Result<Who, Refusal> {
        if fields.has(Name::Authorization) {
            return bearer(fields, tokens).map(|token| Who::Bearer(token.may_write));
        }
        match &from.identity {
            Identity::Edge(name) => Ok(Who::Edge(name.clone())),
            Identity::Operator | Identity::App => Ok(Who::Staff),
            Identity::Central => Ok(Who::Central),
            Identity::Loopback => Ok(Who::Local(fields.text(Name::CoordinatorEdge).map(str::to_owned))),
            Identity::Anyone if !tokens.is_empty() => Err(Refusal::unknown(
                "Central answers certificates of its deployment (`--cert FILE --key FILE`) and bearers of its tokens (`--token-file FILE`)",
            )),
            Identity::Anyone => Err(Refusal::forbidden(
                "Central answers certificates of its deployment only: make one with `coordinator certs` and call with it",
            )),
        }
    }

    /// Whether homes may be written.
    pub fn must_write_homes(&self) -> Result<(), Refusal> {
        match self {
            Who::Staff | Who::Bearer(true) | Who::Local(_) => Ok(()),
            Who::Bearer(false) => Err(Refusal::forbidden(
                "this token may only read: say `write = true` in its `[tokens.NAME]` at Central, and reload",
            )),
            Who::Edge(_) | Who::Central => Err(Refusal::forbidden(
                "homes are written by the application and by operators: use a certificate with `…/app/…` or `…/operator/…`; an edge claims",
            )),
        }
    }

    /// Whether the feed may be followed as an edge does it, with snapshots and acknowledgements.
    pub fn must_follow(&self) -> Result<(), Refusal> {
        match self {
            Who::Edge(_) | Who::Central | Who::Local(_) => Ok(()),
            Who::Staff | Who::Bearer(_) => Err(Refusal::forbidden(
                "snapshots and acknowledgements are for edges: use a certificate with `…/edge/NAME`",
            )),
        }
    }

    /// Whether it may copy the log itself, as a standby does.
    pub fn must_copy(&self) -> Result<(), Refusal> {
        match self {
            Who::Central | Who::Local(None) => Ok(()),
            _ => Err(Refusal::forbidden("the log is for a standby: use Central's own certificate")),
        }
    }

    /// The edge that asks, if it is one.
    pub fn edge(&self) -> Option<&str> {
        match self {
            Who::Edge(name) | Who::Local(Some(name)) => Some(name),
            Who::Local(None) | Who::Staff | Who::Bearer(_) | Who::Central => None,
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
            Who::Staff | Who::Bearer(_) | Who::Central => {
                Err(Refusal::forbidden("only an edge claims or acknowledges, for itself"))
            }
        }
    }
}

/// The name in the configuration of the token that a request bears, if it is one of these; for the log.
pub fn bearer_name<'a>(fields: &Fields, tokens: &'a [BearerToken]) -> Option<&'a str> {
    let named = fields.has(Name::Authorization).then(|| bearer(fields, tokens).ok()).flatten();
    named.map(|token| token.name.as_str())
}

/// The token that a request bears. Errors: it bears another, or none that can be read.
fn bearer<'a>(fields: &Fields, tokens: &'a [BearerToken]) -> Result<&'a BearerToken, Refusal> {
    let mut lines = fields.all(Name::Authorization);
    let sent = match (lines.next(), lines.next()) {
        (Some(line), None) => {
            line.split_at_checked(SCHEME.len()).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME))
        }
        _ => None,
    };
    let Some((_, sent)) = sent else {
        return Err(Refusal::unknown("Central reads one field `Authorization: Bearer TOKEN`, and no other scheme"));
    };
    let sent = digest(&SHA256, sent.trim_ascii());
    // Every token is compared, so that the time tells nothing of which one it is.
    let same = |token: &BearerToken| verify_slices_are_equal(sent.as_ref(), &token.digest).is_ok();
    tokens.iter().fold(None, |found, token| if same(token) { Some(token) } else { found }).ok_or_else(|| {
        Refusal::unknown(
            "Central knows no such token: compare the file with the one that `[tokens.NAME]` names there, and reload Central if that has changed",
        )
    })
}

/// What stands before a token.
const SCHEME: &[u8] = b"Bearer ";
