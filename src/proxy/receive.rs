//! The peer door: what another edge sent is served here or corrected, never sent on. No path of this file calls `remotely`.

use super::course;
use super::obtain::Sending;
use super::outgoing::{Note, Role};
use super::serve::Settled;
use super::{Proxy, RETRY_AFTER, Site, finish, limit, obtain};
use crate::base::clock;
use crate::body::{Identity, Request, Response};
use crate::error::{Error, Kind, Result};
use crate::feed::siblings;
use crate::home::{Home, key};
use crate::message::Name;
use crate::peer::answer::{Answer, Claimed, Effort, answer};
use crate::peer::wire::{Fwd, HomeIs, Moved, Role as As};
use crate::record::Record;
use crate::route::decide::{Decision, Reason};
use std::time::Duration;

/// How long a request waits for the feed before Central is asked (HOMES 2.5).
const PARK: Duration = Duration::from_millis(500);

/// How long a freeze may hold a write up, and how long a release its commit (HOMES 2.5, 2.7).
const FREEZE_MAX: Duration = Duration::from_secs(5);
const COMMIT_WAIT: Duration = Duration::from_secs(1);

/// What the receiver makes of the key.
enum Verdict {
    Serve { epoch: u32, tell: bool },
    Correct(Response),
}

impl Proxy {
    pub(super) async fn receive(&self, site: &Site, request: &mut Request, record: &mut Record) -> Result<Response> {
        if let Some(asked) = request.head.path().strip_prefix(siblings::PATH).filter(|_| !is_forwarded(request)) {
            return self.tell_sibling(site, request, asked);
        }
        let fwd = forwarded(request)?;
        record.key.clone_from(&fwd.key);
        if is_cut(site, &fwd.from) {
            return Err(Error::unavailable("the link between the two edges is cut on purpose", RETRY_AFTER));
        }
        if fwd.to != site.plan.own.name {
            return Ok(unknown(record));
        }
        let (epoch, tell) = match self.judge(site, &fwd, request.head.method.is_safe(), record).await? {
            Verdict::Serve { epoch, tell } => (epoch, tell),
            Verdict::Correct(response) => return Ok(response),
        };
        let course = course::received(site, &request.head, record);
        limit::bound(&mut request.body, course.settings.body_max)?;
        let settled = Settled { decision: Decision::Local, reason: Reason::SentHere, epoch };
        noted(settled, &fwd, record);
        record.home = fwd.key.as_ref().map(|_| site.plan.own.name.clone());
        let mut sending = Sending::new(site, &course, request, &self.replays);
        let cluster = obtain::local_cluster(site, course.settings)?;
        let own = site.plan.own.name.as_str();
        let role = if fwd.key.is_some() { As::Home } else { As::Local };
        let note = Note { entry: &fwd.from, key: fwd.key.clone(), home: fwd.key.as_ref().map(|_| own), epoch, role };
        let mut response = self.attempts(&mut sending, cluster, Role::Origin, &note, record).await?;
        finish::response(site, course.settings, &mut response);
        if tell {
            let seq = self.homes()?.cursor().seq;
            response.head.fields.add(Name::CoordinatorHome, HomeIs { edge: own.to_owned(), epoch, seq }.to_string());
        }
        Ok(response)
    }

    /// Tells another instance of this edge what is known here of a key, or which incarnation this is. Nobody is asked on.
    fn tell_sibling(&self, site: &Site, request: &Request, asked: &str) -> Result<Response> {
        let own = site.plan.own.name.as_str();
        let is_sibling = match &request.from.identity {
            Identity::Loopback => request.head.fields.text(Name::CoordinatorEdge) == Some(own),
            Identity::Edge(name) => name == own,
            _ => false,
        };
        if !is_sibling {
            return Err(Error::new(Kind::HttpRequestDenied, "only another instance of this edge may ask that"));
        }
        let homes = self.homes()?;
        let told = if asked == siblings::BOOT {
            homes.is_founded().then(|| serde_json::to_vec(&homes.incarnation().boot))
        } else {
            let full =
                key::unescape(asked).ok_or_else(|| Error::bad_request("the key is not percent-encoded UTF-8"))?;
            let (space, key) = key::split(&full);
            homes.word_of(space, key).map(|word| serde_json::to_vec(&word))
        };
        let text = told.transpose().ok().flatten();
        Ok(text.map_or_else(|| Response::new(404), |text| Response::with(200, "application/json", text)))
    }

    /// Central's door: a request for Central's application goes to `[local]`, no route needed.
    pub(super) async fn at_central(&self, site: &Site, request: &mut Request, record: &mut Record) -> Result<Response> {
        let fwd = forwarded(request)?;
        record.key.clone_from(&fwd.key);
        let course = course::received(site, &request.head, record);
        limit::bound(&mut request.body, course.settings.body_max)?;
        noted(Settled { decision: Decision::Local, reason: Reason::SentHere, epoch: 0 }, &fwd, record);
        let mut sending = Sending::new(site, &course, request, &self.replays);
        let cluster = obtain::local_cluster(site, course.settings)?;
        let note = Note { entry: &fwd.from, key: fwd.key.clone(), home: None, epoch: 0, role: As::Central };
        let mut response = self.attempts(&mut sending, cluster, Role::Origin, &note, record).await?;
        finish::response(site, course.settings, &mut response);
        Ok(response)
    }

    /// Decides on the key that came along; the body has not been touched.
    async fn judge(&self, site: &Site, fwd: &Fwd, is_safe: bool, record: &mut Record) -> Result<Verdict> {
        let Some(whole) = &fwd.key else { return Ok(Verdict::Serve { epoch: 0, tell: false }) };
        let split = whole.split_once(':').filter(|(space, _)| site.plan.spaces.iter().any(|own| own.name == *space));
        let Some((space, key)) = split else { return Ok(Verdict::Correct(unknown(record))) };
        let homes = self.homes()?;
        let claimed = Claimed { epoch: fwd.epoch, seq: fwd.seq, is_safe };
        let mut effort = Effort::Looked;
        let mut home = homes.look(space, key);
        loop {
            match answer(home, homes.cursor().seq, claimed, effort) {
                Answer::Serve { epoch, tell } => return Ok(Verdict::Serve { epoch, tell }),
                Answer::Moved { edge, epoch } => return Ok(Verdict::Correct(self.moved(site, edge, epoch, record)?)),
                Answer::Unknown => return Ok(Verdict::Correct(unknown(record))),
                Answer::Later => {
                    return Err(Error::unavailable("a newer home exists that is not known here yet", RETRY_AFTER));
                }
                Answer::Park => {
                    home = self.park(space, key, home, claimed).await?;
                    effort = Effort::Parked;
                }
                Answer::Hold { is_released } => {
                    let wait = if is_released { COMMIT_WAIT } else { FREEZE_MAX };
                    home = homes.changed(space, key, home, wait).await;
                    effort = Effort::Parked;
                }
                Answer::Ask => {
                    if let crate::homes::Asked::Home(found) = homes.ask(space, key).await {
                        home = found;
                    }
                    effort = Effort::Asked;
                }
            }
        }
    }

    async fn park(&self, space: &str, key: &str, home: Home, claimed: Claimed) -> Result<Home> {
        let homes = self.homes()?;
        if claimed.seq > homes.cursor().seq {
            homes.seq_reached(claimed.seq, PARK).await;
            return Ok(homes.look(space, key));
        }
        Ok(homes.changed(space, key, home, PARK).await)
    }

    fn moved(&self, site: &Site, edge: crate::base::id::EdgeId, epoch: u32, record: &mut Record) -> Result<Response> {
        let moved = Moved { edge: site.plan.edges.name(edge).to_owned(), epoch, seq: self.homes()?.cursor().seq };
        record.decision = "moved";
        record.reason = Reason::HomeElsewhere.as_str();
        record.home = Some(moved.edge.clone());
        let mut response = Response::new(421);
        response.head.fields.add(Name::CoordinatorMoved, moved.to_string());
        Ok(response)
    }
}

/// Whether another edge sent it on.
fn is_forwarded(request: &Request) -> bool {
    request.head.fields.has(Name::CoordinatorFwd)
}

/// Reads `Coordinator-Fwd` and holds it against the certificate: an edge speaks for itself only.
fn forwarded(request: &Request) -> Result<Fwd> {
    let fwd = Fwd::read(&request.head.fields)?;
    let fwd = fwd.ok_or_else(|| Error::bad_request("this door takes requests with a Coordinator-Fwd only"))?;
    match &request.from.identity {
        Identity::Loopback => Ok(fwd),
        Identity::Edge(name) if *name == fwd.from => Ok(fwd),
        _ => Err(Error::new(
            Kind::HttpRequestDenied,
            "the certificate does not speak for the edge that Coordinator-Fwd names",
        )),
    }
}

/// Whether the link to the sender is cut on purpose: a cut holds in both directions.
fn is_cut(site: &Site, from: &str) -> bool {
    let link = site.plan.edges.named(from).and_then(|edge| site.live.edge(edge.id));
    link.is_some_and(|link| link.endpoints().iter().any(|endpoint| endpoint.fault().is_cut(clock::now())))
}

fn unknown(record: &mut Record) -> Response {
    record.decision = "unknown";
    record.reason = Reason::NotInLedger.as_str();
    let mut response = Response::new(421);
    response.head.fields.add(Name::CoordinatorUnknown, "1");
    response
}

fn noted(settled: Settled, fwd: &Fwd, record: &mut Record) {
    record.decision = settled.decision.as_str();
    record.reason = settled.reason.as_str();
    record.epoch = fwd.key.as_ref().map(|_| settled.epoch);
}
