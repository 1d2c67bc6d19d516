//! Central after a restore, at its door: who reports, what is refused meanwhile, and the operator's fence (HOMES 2.2).
//!
//! A Central that came from a copy may have lost grants that edges act upon. It takes the next term and answers nothing
//! that follows from homes until every edge has told what its ledger holds, or an operator says that it is fenced.

use super::api::{Refusal, ok, query_value};
use super::appender::{Command, read};
use super::rights::Who;
use super::state::recovery::{FOUND_MAX, Report};
use super::{Central, lock};
use crate::body::{Body, Piece, Request, Response};
use crate::home::snapshot::{Decoder, Header, Part, Row};
use crate::home::standing::Boot;
use serde_json::json;

impl Central {
    /// Refuses what a Central must not answer that waits for reports, or was superseded.
    pub(super) fn must_be_open(&self) -> Result<(), Refusal> {
        self.must_lead()?;
        if let Some(term) = *lock(&self.superseded) {
            let detail = format!(
                "this Central is in term {}, and an edge follows term {term}: stop this one, unless it is a restored one: then start it with --restored",
                self.term()
            );
            return Err(Refusal::unavailable(detail).with("superseded_by", json!(term)));
        }
        let Some(awaited) = self.awaited() else { return Ok(()) };
        let detail = format!(
            "this Central came from a copy and waits for the reports of {}; an edge that is gone for good is fenced: coordinator edge fence NAME",
            awaited.join(", ")
        );
        let refusal = Refusal::unavailable(detail).with("term", json!(self.term())).with("awaited", json!(awaited));
        let refusal = refusal.field("feed-id", self.feed_id.clone());
        Err(refusal.field("coordinator-recover", format!("{}.{:016x}", self.term(), self.round)))
    }

    /// `POST /feed/v1/recover?edge=fr&boot=…&replaces=…`: an edge's ledger in the form of a snapshot.
    pub(super) async fn recover(&self, who: &Who, request: Request) -> Result<Response, Refusal> {
        let query = request.head.query();
        let edge = query_value(query, "edge")?.ok_or_else(|| Refusal::malformed("`edge` is missing"))?;
        who.must_be(&edge)?;
        let boot = boot_of(query, "boot")?.ok_or_else(|| Refusal::malformed("`boot` is missing"))?;
        let replaces = boot_of(query, "replaces")?;
        let is_complete = query_value(query, "incomplete")?.is_none();
        let mut told = Told::default();
        self.read_report(request.body, &mut told).await?;
        let header = told.header.filter(|_| told.is_whole).ok_or_else(|| Refusal::malformed("the report is cut"))?;
        if header.feed != self.feed {
            return Err(Refusal::new(409, "Another feed", "you follow another history than this Central's"));
        }
        if header.term >= self.term() {
            // It follows a history of this term that this Central has never published: the copy was restored before.
            let term = header.term.saturating_add(1);
            self.order(|answer| Command::Restore { term, answer }).await?;
        }
        let Told { edges, rows, .. } = told;
        let report = Box::new(Report { edge: edge.clone(), boot, replaces, is_complete, edges, rows });
        let taken = self.order(|answer| Command::Report { report, answer }).await?;
        taken.map_err(|why| Refusal::new(409, "Not taken", why))?;
        tracing::warn!(edge, awaited = ?self.awaited(), "an edge has reported its ledger");
        Ok(ok(json!({ "term": self.term(), "awaited": self.awaited().unwrap_or_default() })))
    }

    /// Takes a report apart, and keeps what the log does not have.
    async fn read_report(&self, mut body: Body, told: &mut Told) -> Result<(), Refusal> {
        let mut decoder = Decoder::default();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| Refusal::malformed(error.detail().to_owned()))?;
            let Piece::Data(octets) = piece else { continue };
            let mut parts = Vec::new();
            decoder.push(&octets, &mut parts).map_err(Refusal::malformed)?;
            for part in parts {
                self.take_part(part, told)?;
            }
        }
        Ok(())
    }

    fn take_part(&self, part: Part, told: &mut Told) -> Result<(), Refusal> {
        match part {
            Part::Header(header) => told.header = Some(header),
            Part::Edges(edges) => told.edges = edges,
            Part::Rows(rows) => {
                let state = read(&self.state);
                told.rows.extend(rows.into_iter().filter(|row| {
                    let known = state.record_of(row.kh);
                    row.epoch > known.epoch
                        || (row.epoch == known.epoch && (!row.tomb).then_some(row.home) != known.home)
                }));
            }
            Part::Overrides(_) => {}
            Part::End(_) => told.is_whole = true,
        }
        if told.rows.len() > FOUND_MAX {
            return Err(Refusal::new(413, "Too long", "too many keys are missing in this copy: restore a younger one"));
        }
        Ok(())
    }

    /// The operator's word that nothing of an edge runs, nor ever will with what is on its disks.
    pub(super) async fn fence(&self, who: &Who, edge: String) -> Result<Response, Refusal> {
        who.must_write_homes()?;
        if self.awaited().is_none() {
            return Err(Refusal::new(409, "Nothing to fence", "this Central is open and awaits no reports"));
        }
        let name = edge.clone();
        if !self.order(|answer| Command::Fence { edge: name, answer }).await? {
            return Err(Refusal::no_edge(&self.awaited().unwrap_or_default().join(", ")));
        }
        tracing::warn!(edge, "an operator says that this edge is fenced: its report is not awaited");
        Ok(ok(json!({ "edge": edge, "awaited": self.awaited().unwrap_or_default() })))
    }

    /// An edge, or the stream that is published to, has entries that this Central has not: it was restored from a copy,
    /// and nobody has said so.
    pub(super) async fn lost_history(&self, by: &str) -> Result<(), Refusal> {
        tracing::error!(by, head = self.head(), "somebody has seen entries that this log has not: it was set back");
        let term = self.term().saturating_add(1);
        if self.awaited().is_none() {
            self.order(|answer| Command::Restore { term, answer }).await?;
        }
        Ok(())
    }

    /// An edge or the stream is in a higher term than ours: another Central is the authority.
    pub(super) fn is_superseded(&self, term: u64) {
        if lock(&self.superseded).replace(term).is_none() {
            tracing::error!(
                ours = self.term(),
                theirs = term,
                "a higher term is followed: this Central was superseded"
            );
        }
    }
}

/// A report as it arrives.
#[derive(Default)]
struct Told {
    header: Option<Header>,
    edges: Vec<crate::home::event::EdgeRow>,
    rows: Vec<Row>,
    is_whole: bool,
}

fn boot_of(query: Option<&str>, name: &str) -> Result<Option<Boot>, Refusal> {
    query_value(query, name)?.map(|text| Boot::try_from(text).map_err(Refusal::malformed)).transpose()
}
