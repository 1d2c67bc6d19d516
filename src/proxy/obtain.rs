//! Obtaining an answer: the places of a list in order, and at each place the attempts that are safe and affordable.

use super::course::Course;
use super::outgoing::{self, Note, Role};
use super::serve::{self, Settled};
use super::{Proxy, RETRY_AFTER, Site};
use crate::base::backoff::chance;
use crate::base::clock;
use crate::body::replay::{Replay, ReplayBudget};
use crate::body::{InterimLine, Request};
use crate::config::plan::{Retry, RouteSettings};
use crate::error::{Again, Error, Kind, Result, Side};
use crate::message::{Name, RequestHead};
use crate::record::Record;
use crate::route::Place;
use crate::route::decide::{Decision, Reason};
use crate::upstream::{Answer, Cluster, Outgoing};
use smallvec::SmallVec;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// What of a request's content is kept so that another attempt at an origin can be made.
const ORIGIN_REPLAY: usize = 64 << 10;

/// What of it is kept for a correction: the peer's stream window and a chunk, with room to spare (HOMES 2.5).
pub(super) const PEER_REPLAY: usize = 2 << 20;

/// What of an unwanted answer is read to keep its connection, and for how long: more than a new connection costs it
/// must not take.
const DISCARD_MAX: usize = 64 << 10;
const DISCARD_WAIT: Duration = Duration::from_millis(50);

/// A request on its way: everything that its attempts share.
pub struct Sending<'a> {
    pub(super) site: &'a Site,
    pub(super) course: &'a Course<'a>,
    pub(super) head: &'a mut RequestHead,
    /// How many lines all attempts share.
    pub(super) passed_on: usize,
    /// The protocol that the client asked to switch to.
    pub(super) upgrade: Option<String>,
    pub(super) interim: Option<InterimLine>,
    pub(super) body: Replay,
    /// Where it was sent last.
    pub(super) to: Option<Decision>,
}

impl<'a> Sending<'a> {
    pub(super) fn new(
        site: &'a Site,
        course: &'a Course<'a>,
        request: &'a mut Request,
        replays: &Rc<ReplayBudget>,
    ) -> Self {
        // One bound serves both: memory is taken as content passes, and origins get theirs cut off sooner.
        let keep = if course.key.is_some() || course.named.is_some() { PEER_REPLAY } else { ORIGIN_REPLAY };
        let head = &mut *request.head;
        // Every request has been brought into the one form (`tunnel`).
        let upgrade = head.protocol.clone();
        outgoing::pass_on(head, &request.from, site);
        Sending {
            site,
            course,
            interim: request.interim.take(),
            body: Replay::new(std::mem::take(&mut request.body), keep, replays),
            upgrade,
            passed_on: head.fields.len(),
            head,
            to: None,
        }
    }

    /// Whether the same request may be sent again although the first may have been acted upon.
    pub(super) fn is_repeatable(&self, retry: &Retry) -> bool {
        self.head.method.is_idempotent() || retry.unsafe_methods || self.head.fields.has(Name::IdempotencyKey)
    }
}

impl Proxy {
    /// Tries the places of a route in order.
    pub(super) async fn obtain(
        &self,
        sending: &mut Sending<'_>,
        places: &[Place],
        may_claim: bool,
        record: &mut Record,
    ) -> Result<Answer> {
        let mut because = None;
        for (at, place) in places.iter().enumerate() {
            let is_last = at + 1 == places.len();
            let tried = self.try_place(sending, place, may_claim, because, is_last, record).await;
            if is_last {
                return tried;
            }
            let unwanted = match tried {
                Ok(answer) if goes_on(sending, &answer) => Some(Box::pin(discard(answer))),
                Err(error) if moves_on(sending, &error) => None,
                settled => return settled,
            };
            because = Some(if unwanted.is_some() { Reason::NextOnStatus } else { Reason::FirstUnreachable });
            // Apart from the match, which would hold a place for the answer.
            if let Some(unwanted) = unwanted {
                unwanted.await;
            }
        }
        Err(Error::unavailable("the route names no place", RETRY_AFTER))
    }

    async fn try_place(
        &self,
        sending: &mut Sending<'_>,
        place: &Place,
        may_claim: bool,
        because: Option<Reason>,
        is_last: bool,
        record: &mut Record,
    ) -> Result<Answer> {
        let mut settled = match self.settle(sending, place, may_claim)? {
            Some(settled) => settled,
            None => Box::pin(self.settle_by_asking(sending, place, may_claim)).await?,
        };
        settled.reason = because.unwrap_or(settled.reason);
        sending.to = Some(settled.decision);
        serve::note(sending.site, settled, sending.course, record);
        if !is_last && !is_reachable(sending, settled.decision) {
            return Err(Error::unavailable("the place is down", RETRY_AFTER).again(Again::Unsent));
        }
        let (cluster, role, note) = match settled.decision {
            Decision::Local => origin(sending, settled)?,
            Decision::Central => central(sending)?,
            Decision::Remote(_) => return Box::pin(self.remotely(sending, settled, record)).await,
        };
        self.attempts(sending, cluster, role, &note, record).await
    }

    /// At this edge's own origin.
    pub(super) async fn locally(
        &self,
        sending: &mut Sending<'_>,
        settled: Settled,
        record: &mut Record,
    ) -> Result<Answer> {
        let (cluster, role, note) = origin(sending, settled)?;
        self.attempts(sending, cluster, role, &note, record).await
    }

    /// Attempts at one cluster, as DESIGN 5 allows them.
    pub(super) async fn attempts(
        &self,
        sending: &mut Sending<'_>,
        cluster: &Arc<Cluster>,
        role: Role,
        note: &Note<'_>,
        record: &mut Record,
    ) -> Result<Answer> {
        let settings = sending.course.settings;
        let _active = cluster.begin();
        record.cluster = Some(cluster.shared_name());
        let mut retrying = None;
        let mut tried = SmallVec::<[usize; 4]>::new();
        loop {
            let picked = cluster.only().or_else(|| cluster.pick(&tried, chance(), clock::turn()));
            let endpoint = picked.ok_or_else(|| nobody(cluster))?;
            let Some(body) = sending.body.body() else {
                return Err(Error::new(Kind::ConnectionTerminated, "the request content cannot be sent a second time"));
            };
            let (interim, upgrade) = (sending.interim.clone(), sending.upgrade.clone());
            let head = outgoing::shape(sending, endpoint, role, note, self.seq());
            let mut outgoing = Outgoing { head, body, interim, upgrade };
            tried.push(endpoint.id());
            let outcome = self.upstream.exchange(endpoint, &mut outgoing, &settings.timeouts, record).await;
            let again = match &outcome {
                Ok(answer) => {
                    settings.retry.statuses.contains(&answer.head.status) && sending.head.method.is_idempotent()
                }
                Err(error) => may_repeat(sending, error, &settings.retry),
            };
            if !again || tried.len() >= settings.retry.attempts as usize || !sending.body.is_replayable() {
                return outcome;
            }
            // One leave to retry lasts for the whole request: it counts requests that are being retried.
            retrying = retrying.or_else(|| cluster.retry(settings.retry.budget_percent));
            if retrying.is_none() {
                return outcome;
            }
            let unwanted = outcome.ok().map(|unwanted| Box::pin(discard(unwanted)));
            if let Some(unwanted) = unwanted {
                unwanted.await;
            }
        }
    }
}

/// Which servers are called, what they are, and what they are told.
type Aim<'a> = (&'a Arc<Cluster>, Role, Note<'a>);

/// This edge's own origin.
fn origin<'a>(sending: &Sending<'a>, settled: Settled) -> Result<Aim<'a>> {
    let cluster = local_cluster(sending.site, sending.course.settings)?;
    Ok((cluster, Role::Origin, Note::local(sending, settled)))
}

/// Central: through its Coordinator's door, or its application directly.
fn central<'a>(sending: &Sending<'a>) -> Result<Aim<'a>> {
    let (cluster, role) = central_cluster(sending.site)
        .ok_or_else(|| Error::new(Kind::ProxyConfigurationError, "this edge knows no Central"))?;
    Ok((cluster, role, Note::central(sending)))
}

/// Reads an answer that nobody wants to its end, if that is near: its connection can then be used again.
pub(super) async fn discard(answer: Answer) {
    // What comes of it is nothing to anybody; dropping the rest closes the connection.
    let _ = tokio::time::timeout(DISCARD_WAIT, answer.body.collect(DISCARD_MAX)).await;
}

/// The pool of this place that the route uses.
pub(super) fn local_cluster<'site>(site: &'site Site, settings: &RouteSettings) -> Result<&'site Arc<Cluster>> {
    let id = settings.cluster.or(site.plan.local);
    id.and_then(|id| site.live.cluster(id))
        .ok_or_else(|| Error::new(Kind::ProxyConfigurationError, "this place has no origin of its own"))
}

/// Central's application: where `[central] origins` says that it is, else behind Central's door.
fn central_cluster(site: &Site) -> Option<(&Arc<Cluster>, Role)> {
    let own = site.plan.central.as_ref().and_then(|central| central.origins);
    match own.and_then(|id| site.live.cluster(id)) {
        Some(cluster) => Some((cluster, Role::Origin)),
        None => site.live.central().map(|door| (door, Role::Central)),
    }
}

/// Where a route's requests go by this decision.
pub fn cluster<'site>(site: &'site Site, settings: &RouteSettings, decision: Decision) -> Option<&'site Arc<Cluster>> {
    match decision {
        Decision::Local => local_cluster(site, settings).ok(),
        Decision::Central => central_cluster(site).map(|(cluster, _)| cluster),
        Decision::Remote(edge) => site.live.edge(edge),
    }
}

fn is_reachable(sending: &Sending<'_>, decision: Decision) -> bool {
    let cluster = cluster(sending.site, sending.course.settings, decision);
    cluster.is_some_and(|cluster| cluster.is_reachable(clock::turn()))
}

/// `next_on` acts on safe methods only; an unsafe request was acted upon.
fn goes_on(sending: &Sending<'_>, answer: &Answer) -> bool {
    sending.head.method.is_safe()
        && sending.body.is_replayable()
        && sending.course.settings.next_on.contains(&answer.head.status)
}

/// A safe request moves on after any failure of the place; an unsafe one only if it was provably not sent.
fn moves_on(sending: &Sending<'_>, error: &Error) -> bool {
    let is_place = error.side() != Side::Downstream;
    let may = sending.head.method.is_safe() || error.may_retry() == Again::Unsent;
    is_place && may && sending.body.is_replayable()
}

fn may_repeat(sending: &Sending<'_>, error: &Error, retry: &Retry) -> bool {
    match error.may_retry() {
        Again::Never => false,
        Again::IfIdempotent => sending.is_repeatable(retry),
        Again::Unsent => true,
    }
}

fn nobody(cluster: &Cluster) -> Error {
    Error::unavailable(format!("no endpoint of `{}` can be reached", cluster.name()), RETRY_AFTER).again(Again::Unsent)
}
