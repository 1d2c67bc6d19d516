//! The incarnations of edges at Central's door: who registers, and the operator's word (HOMES 2.1, Incarnation).
//!
//! To register is to say that the old disk is gone for good. An old instance that still runs, cut off, would be a second
//! owner whom no incarnation stops; so either the one that registers proves the end of the old one, or an operator says it.

use super::Central;
use super::api::{Refusal, ok, parsed};
use super::appender::Command;
use super::rights::Who;
use super::state::rules::{Proof, Registration};
use crate::body::{Body, Response};
use crate::home::key;
use crate::home::standing::Boot;
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Incarnation {
    edge: String,
    boot: Boot,
    /// One whose folder the sender has locked, and whose ledger is gone.
    #[serde(default)]
    replaces: Option<Boot>,
    /// One that shares a disk with the sender, and goes on.
    #[serde(default)]
    beside: Option<Boot>,
    /// The feed that the sender follows, if it does already.
    #[serde(default)]
    feed: Option<String>,
}

impl Incarnation {
    fn proof(&self) -> Proof {
        match (self.replaces, self.beside) {
            (Some(old), _) => Proof::Replaces(old),
            (None, Some(other)) => Proof::Beside(other),
            (None, None) => Proof::None,
        }
    }
}

impl Central {
    /// Registers an incarnation: 200 with the seq from which it holds; 409 if it needs the operator's word, 410 if it was
    /// replaced. With the query of a stream it says where it stands: 416 if this log was set back, to which nothing is
    /// appended then.
    pub(super) async fn incarnation(&self, who: &Who, query: Option<&str>, body: Body) -> Result<Response, Refusal> {
        let asked: Incarnation = parsed(body, r#"{"edge":"fr","boot":"00000000000000aa"}"#).await?;
        who.must_be(&asked.edge)?;
        if query.is_some() {
            self.must_reach(query, &asked.edge).await?;
        }
        if asked.feed.as_ref().is_some_and(|feed| feed != self.feed_id()) {
            let detail = "you follow another history than this Central's";
            return Err(Refusal::new(409, "Another feed", detail).with("feed", json!(self.feed_id())));
        }
        let (edge, boot, proof) = (asked.edge.clone(), asked.boot, asked.proof());
        match self.order(|answer| Command::Register { edge, boot, proof, answer }).await? {
            Some(Registration::Known { at }) => {
                Ok(ok(json!({ "seq": at, "term": self.term(), "feed": self.feed_id(), "boot": boot })))
            }
            Some(Registration::Ended) => Err(Refusal::new(
                410,
                "Replaced",
                format!("this incarnation of `{}` was replaced by another and must accept nothing", asked.edge),
            )),
            Some(_) => Err(Refusal::new(
                409,
                "Another incarnation",
                format!(
                    "edge `{0}` is known with another disk. If that is gone for good and nothing of it still runs, say so: coordinator edge replace {0} --central URL",
                    key::shown(&asked.edge)
                ),
            )),
            None => Err(Refusal::no_edge(&self.edge_names())),
        }
    }

    /// The operator's word; it counts for the next registration.
    pub(super) async fn replace(&self, who: &Who, edge: String) -> Result<Response, Refusal> {
        who.must_write_homes()?;
        let name = edge.clone();
        if self.order(|answer| Command::Replace { edge: name, answer }).await? {
            tracing::warn!(edge, "an operator says that every disk of this edge is gone for good");
            return Ok(ok(json!({ "edge": edge, "next": "the next incarnation that registers replaces all before" })));
        }
        Err(Refusal::no_edge(&self.edge_names()))
    }
}
