//! Sending to another edge, and following its corrections (HOMES 2.5).
//!
//! Loops are impossible by construction: each further edge must come with a strictly greater epoch, epochs are finite
//! and minted by Central alone, and there are at most `VISITS_MAX` visits.

use super::obtain::{self, Sending};
use super::outgoing::{Note, Role};
use super::serve::{self, Settled};
use super::{Proxy, RETRY_AFTER};
use crate::base::id::EdgeId;
use crate::config::plan::Edges;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::home::guard::Guards;
use crate::homes::Asked;
use crate::message::{Fields, Name, ResponseHead};
use crate::peer::answer::leads_on;
use crate::peer::wire::{HomeIs, Moved};
use crate::record::Record;
use crate::route::decide::{Decision, Reason};
use crate::upstream::Answer;
use std::time::Duration;

/// Edges that one request may be sent to.
const VISITS_MAX: u32 = 3;

/// How long a request waits for the own feed when another edge says that the key lives here.
const PARK: Duration = Duration::from_millis(500);

/// What another edge says instead of serving.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Correction {
    Moved(Moved),
    Unknown,
}

impl Proxy {
    /// To the edge that was settled upon, and on to the one that it names.
    pub(super) async fn remotely(
        &self,
        sending: &mut Sending<'_>,
        settled: Settled,
        record: &mut Record,
    ) -> Result<Answer> {
        let mut settled = settled;
        let mut visits = 0;
        loop {
            let Decision::Remote(edge) = settled.decision else {
                return self.locally(sending, settled, record).await;
            };
            if visits == VISITS_MAX {
                return Err(later("the user's home keeps moving"));
            }
            visits += 1;
            let answer = self.visit(sending, edge, settled.epoch, record).await?;
            let Some(correction) = correction(&answer.head) else {
                self.learn(sending, &answer.head.fields);
                return Ok(answer);
            };
            obtain::discard(answer).await;
            record.corrections += 1;
            if !sending.body.is_replayable() {
                return Err(later("the user has moved, and too much of the request was already sent"));
            }
            settled = self.corrected(sending, correction, settled.epoch).await?;
            serve::note(sending.site, settled, sending.course, record);
        }
    }

    async fn visit(&self, sending: &mut Sending<'_>, edge: EdgeId, epoch: u32, record: &mut Record) -> Result<Answer> {
        let link = sending.site.live.edge(edge);
        let link = link.ok_or_else(|| Error::unavailable(Reason::NoAddress.sentence(), RETRY_AFTER))?;
        let note = Note {
            entry: &sending.site.plan.own.name,
            home: Some(sending.site.plan.edges.name(edge)),
            epoch,
            ..Note::central(sending)
        };
        self.attempts(sending, link, Role::Peer(edge), &note, record).await
    }

    /// Where the correction leads; always to a greater epoch, or home.
    async fn corrected(&self, sending: &Sending<'_>, correction: Correction, epoch: u32) -> Result<Settled> {
        let Some((space, key)) = &sending.course.key else {
            return Err(later("the edge that the request names does not know itself by that name"));
        };
        let homes = self.homes()?;
        let edges = &sending.site.plan.edges;
        let newer = match correction {
            Correction::Moved(moved) if leads_on(moved.epoch, epoch, Guards::ALL) => {
                let edge = edges.named(&moved.edge).map(|edge| edge.id);
                let edge = edge.ok_or_else(|| later("the user has moved to an edge that is not known here yet"))?;
                homes.learn(&space.name, key, edge, moved.epoch);
                Home::At { edge, epoch: moved.epoch }
            }
            Correction::Moved(_) => return Err(later("the edge that was asked named an older home")),
            Correction::Unknown => match homes.ask(&space.name, key).await {
                Asked::Home(home) => home,
                _ => {
                    return Err(later(
                        "the edge that was asked does not own the key, and Central cannot tell who does",
                    ));
                }
            },
        };
        let newer = match newer {
            Home::At { edge, .. } if Some(edge) == edges.own => homes.changed(&space.name, key, newer, PARK).await,
            other => other,
        };
        follow(newer, epoch, edges)
    }

    /// The owner told that its epoch differs from the one that we used.
    fn learn(&self, sending: &Sending<'_>, fields: &Fields) {
        let told = fields.get(Name::CoordinatorHome).and_then(HomeIs::parse);
        if let (Some(told), Some((space, key)), Some(homes)) = (told, &sending.course.key, &self.homes)
            && let Some(edge) = sending.site.plan.edges.named(&told.edge)
        {
            homes.learn(&space.name, key, edge.id, told.epoch);
        }
    }
}

fn follow(home: Home, epoch: u32, edges: &Edges) -> Result<Settled> {
    match home {
        Home::Ours { epoch: own, .. } => {
            Ok(Settled { decision: Decision::Local, reason: Reason::Corrected, epoch: own })
        }
        Home::At { edge, epoch: newer } if leads_on(newer, epoch, Guards::ALL) && Some(edge) != edges.own => {
            Ok(Settled { decision: Decision::Remote(edge), reason: Reason::Corrected, epoch: newer })
        }
        _ => Err(later("the user's new home has not told us yet")),
    }
}

/// Only a 421 with our own fields is a correction; an origin's own 421 has lost them on its way and is relayed.
fn correction(head: &ResponseHead) -> Option<Correction> {
    if head.status != 421 {
        return None;
    }
    if let Some(moved) = head.fields.get(Name::CoordinatorMoved) {
        // One that cannot be read is as good as one that knows nothing.
        return Some(Moved::parse(moved).map_or(Correction::Unknown, Correction::Moved));
    }
    head.fields.has(Name::CoordinatorUnknown).then_some(Correction::Unknown)
}

fn later(detail: &'static str) -> Error {
    Error::unavailable(detail, RETRY_AFTER)
}
