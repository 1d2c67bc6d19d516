//! The side that we call: clusters and their health, connections, and one attempt at a time.
//!
//! `Live` is shared by all threads and holds what is believed of clusters and endpoints; an [`Upstream`] belongs to one
//! worker and owns its connections. An attempt either gives an answer head or an error that says whether another attempt
//! may be made; deciding on it is the caller's. Knows nothing of routes, homes or decisions.
//!
//! Invariant: a response body ends with `None` only where its framing says that it is complete; everything else is an
//! error of the body.

mod alarm;
mod budget;
mod health;
mod connect;
mod pool;
mod upload;
mod http1;
mod link;
mod translate;
mod http2;
pub mod endpoint;
pub mod cluster;
pub mod live;
pub mod probe;
pub mod pulse;

pub use cluster::{Active, Cluster, Retrying};
pub use endpoint::Endpoint;
pub use live::Live;

use crate::base::clock;
use crate::body::{Body, InterimLine, Response};
use crate::config::plan::Timeouts;
use crate::error::{Again, Error, Kind, Result};
use crate::message::{RequestHead, ResponseHead, hop};
use crate::record::Record;
use crate::tls::client::Alpn;
use crate::wire::HeadLimits;
use endpoint::{InFlight, Speaks};
use link::{Opened, Slot};
use pool::{Conn, Leave, Pool};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// A head that is sent: one that is kept for further attempts, or one that was made for this.
pub enum Shaped<'a> {
    /// It stays with the caller.
    Kept(&'a RequestHead),
    /// It is for this attempt only.
    Made(Box<RequestHead>),
}

impl Deref for Shaped<'_> {
    type Target = RequestHead;

    fn deref(&self) -> &RequestHead {
        match self {
            Shaped::Kept(head) => head,
            Shaped::Made(head) => head,
        }
    }
}

/// A request as it goes to an endpoint.
pub struct Outgoing<'a> {
    /// The head with its final fields; `authority` is the Host to send. Framing and connection fields are written anew.
    pub head: Shaped<'a>,
    /// The content.
    pub body: Body,
    /// Where interim responses go.
    pub interim: Option<InterimLine>,
    /// The protocol that the connection is asked to switch to, such as `websocket`.
    pub upgrade: Option<String>,
}

/// What an endpoint answered: the final head as received, the content, and the switched connection with 101, or 2xx to an
/// extended CONNECT. Dropping the content before its end closes the connection or resets the stream.
pub type Answer = Response;

/// Passes an interim response on, without what ends here and without what only edges may say.
fn relay(interim: &InterimLine, mut head: ResponseHead) {
    hop::strip_connection(&mut head.fields);
    hop::strip_internal(&mut head.fields);
    interim.send(&head);
}

/// The waits and bounds of one attempt.
#[derive(Debug, Clone, Copy)]
struct Terms {
    limits: HeadLimits,
    connect: Duration,
    first_byte: Duration,
    between: Duration,
    pool_idle: Duration,
    /// When the whole exchange is over.
    deadline: Option<Instant>,
}

impl Terms {
    /// A moment `wait` from now, or the deadline if that comes first.
    fn due(&self, wait: Duration) -> Instant {
        let due = clock::turn() + wait;
        self.deadline.map_or(due, |deadline| due.min(deadline))
    }

    /// `wait`, or what is left until the deadline if that is less.
    fn left(&self, wait: Duration) -> Duration {
        self.due(wait).saturating_duration_since(clock::turn())
    }

    /// Whether the deadline has passed.
    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| clock::turn() >= deadline)
    }
}

/// The connections of one worker.
pub struct Upstream {
    limits: Cell<HeadLimits>,
    doors: RefCell<HashMap<usize, Rc<Door>, BuildHasherDefault<ById>>>,
}

/// Endpoints are numbered by us: their numbers need no hashing against an adversary.
#[derive(Default)]
struct ById(u64);

impl Hasher for ById {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        octets.iter().for_each(|octet| self.write_usize(usize::from(*octet)));
    }

    fn write_usize(&mut self, id: usize) {
        // Spreads neighbours over the whole word, of which the map uses both ends (Knuth, TAOCP 6.4).
        self.0 = (self.0 ^ id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// The connections of one worker to one endpoint.
struct Door {
    endpoint: Weak<Endpoint>,
    pool: Rc<Pool>,
    slot: Slot,
}

/// What an attempt runs over.
enum Way {
    Http1(http1::Lease),
    Http2(http2::Lease),
}

impl Way {
    /// Whether it is one that had been used before.
    fn is_pooled(&self) -> bool {
        match self {
            Way::Http1(lease) => lease.pooled,
            Way::Http2(lease) => lease.leave.pooled,
        }
    }
}

impl Upstream {
    /// A worker's own; to be called inside its `LocalRuntime`, where it keeps a task that closes idle connections.
    pub fn new(limits: HeadLimits) -> Rc<Upstream> {
        let upstream = Rc::new(Upstream { limits: Cell::new(limits), doors: RefCell::default() });
        tokio::task::spawn_local(sweep(Rc::downgrade(&upstream)));
        upstream
    }

    /// Bounds of response heads from now on: a reload may change them.
    pub fn set_limits(&self, limits: HeadLimits) {
        self.limits.set(limits);
    }

    /// One attempt at one endpoint, which takes the content out of `request`. Fills `attempts`, `endpoint`, `attempt_began`, `connect` and `first_byte` of `record`;
    /// the total deadline counts from `record.began`.
    ///
    /// A request that expects 100 (Continue) keeps its content back until the endpoint asks for it, for at most a second.
    /// Errors: `may_retry` says what may follow. An error of the request's own body comes back as it was.
    /// Cancel: dropping the future closes the connection or resets the stream.
    pub async fn exchange(
        &self,
        endpoint: &Arc<Endpoint>,
        request: &mut Outgoing<'_>,
        waits: &Timeouts,
        record: &mut Record,
    ) -> Result<Answer> {
        let terms = self.terms(waits, record.began);
        let flight = InFlight::enter(endpoint);
        let began = clock::turn();
        record.attempts += 1;
        record.endpoint = Some(endpoint.shared_authority());
        record.attempt_began = Some(began);
        if endpoint.fault().may_be()
            && let Some(by) = hindered(endpoint, began)?
        {
            Box::pin(tokio::time::sleep(terms.left(by))).await;
        }
        let way = match self.idle(endpoint, request.upgrade.is_some(), began) {
            Some((conn, leave)) => {
                record.connect = Duration::ZERO;
                Way::Http1(http1::Lease { conn, leave, flight, pooled: true })
            }
            None => {
                let way = Box::pin(self.way(endpoint, request.upgrade.is_some(), flight, &terms)).await;
                let pooled = way.as_ref().is_ok_and(Way::is_pooled);
                record.connect = if pooled { Duration::ZERO } else { clock::turn().duration_since(began) };
                way?
            }
        };
        let outcome = match way {
            Way::Http1(lease) => http1::exchange(lease, request, &terms).await,
            Way::Http2(lease) => Box::pin(http2::exchange(lease, request, terms)).await,
        };
        if outcome.is_ok() {
            record.first_byte = Some(clock::turn());
        }
        outcome
    }

    /// Opens the HTTP/2 connection to an endpoint unless there is one; its PINGs then tell whether the other side lives,
    /// and how far it is. Nothing is asked of the other side. Errors: as of an attempt.
    pub async fn reach(&self, endpoint: &Arc<Endpoint>, waits: &Timeouts) -> Result<()> {
        let terms = self.terms(waits, clock::now());
        if let Some(by) = hindered(endpoint, clock::now())? {
            tokio::time::sleep(terms.left(by)).await;
        }
        self.way(endpoint, false, InFlight::enter(endpoint), &terms).await.map(drop)
    }

    fn terms(&self, waits: &Timeouts, began: Instant) -> Terms {
        Terms {
            limits: self.limits.get(),
            connect: waits.connect,
            first_byte: waits.first_byte,
            between: waits.between,
            pool_idle: waits.pool_idle,
            deadline: waits.total.map(|total| began + total),
        }
    }

    fn door(&self, endpoint: &Arc<Endpoint>) -> Rc<Door> {
        let mut doors = self.doors.borrow_mut();
        let door = doors.entry(endpoint.id()).or_insert_with(|| {
            Rc::new(Door {
                endpoint: Arc::downgrade(endpoint),
                pool: Pool::new(endpoint.spec().connections_max),
                slot: Slot::default(),
            })
        });
        Rc::clone(door)
    }

    /// An idle connection, where HTTP/1.1 is spoken: how nearly every request gets its own.
    fn idle(&self, endpoint: &Arc<Endpoint>, upgrade: bool, now: Instant) -> Option<(Box<Conn>, Leave)> {
        let door = self.door(endpoint);
        let http1 = match endpoint.speaks() {
            Speaks::Http1 => true,
            Speaks::Http2 => false,
            Speaks::Negotiated => upgrade || door.slot.is_http1(),
        };
        let leave = http1.then(|| door.pool.try_enter()).flatten()?;
        Some((leave.reuse(now)?, leave))
    }

    /// A connection, idle or new, or room for a stream.
    async fn way(&self, endpoint: &Arc<Endpoint>, upgrade: bool, flight: InFlight, terms: &Terms) -> Result<Way> {
        let door = self.door(endpoint);
        match endpoint.speaks() {
            Speaks::Http1 => door.http1(endpoint, Alpn::Http1, flight, terms).await,
            Speaks::Http2 => door.http2(endpoint, Alpn::Http2, flight, terms).await,
            Speaks::Negotiated if upgrade => door.http1(endpoint, Alpn::Http1, flight, terms).await,
            Speaks::Negotiated if door.slot.is_http1() => door.http1(endpoint, Alpn::Either, flight, terms).await,
            Speaks::Negotiated => door.http2(endpoint, Alpn::Either, flight, terms).await,
        }
    }
}

impl Door {
    async fn http1(&self, endpoint: &Arc<Endpoint>, alpn: Alpn, flight: InFlight, terms: &Terms) -> Result<Way> {
        let leave = self.pool.enter(terms.left(terms.connect)).await?;
        if let Some(conn) = leave.reuse(clock::turn()) {
            return Ok(Way::Http1(http1::Lease { conn, leave, flight, pooled: true }));
        }
        let connected = connect::open(endpoint, alpn, terms.left(terms.connect)).await?;
        if connected.http2 {
            let link = self.slot.adopt(connected.stream, endpoint, terms.limits.head).await?;
            let leave = link.enter(terms.left(terms.connect)).await?;
            return Ok(Way::Http2(http2::Lease { leave, _flight: flight }));
        }
        let conn = Conn::new(connected.stream);
        Ok(Way::Http1(http1::Lease { conn, leave, flight, pooled: false }))
    }

    async fn http2(&self, endpoint: &Arc<Endpoint>, alpn: Alpn, flight: InFlight, terms: &Terms) -> Result<Way> {
        let link = match self.slot.current() {
            Some(link) => link,
            None => match self.slot.open(endpoint, alpn, terms.left(terms.connect), terms.limits.head).await? {
                Opened::Link(link) => link,
                Opened::Http1(None) => return self.http1(endpoint, alpn, flight, terms).await,
                Opened::Http1(Some(stream)) => {
                    let leave = self.pool.enter(terms.left(terms.connect)).await?;
                    let conn = Conn::new(stream);
                    return Ok(Way::Http1(http1::Lease { conn, leave, flight, pooled: false }));
                }
            },
        };
        let leave = link.enter(terms.left(terms.connect)).await?;
        Ok(Way::Http2(http2::Lease { leave, _flight: flight }))
    }
}

/// What faults on purpose do to a request: by how much it is delayed. A cut looks like a connect that failed, also to
/// the breaker.
fn hindered(endpoint: &Endpoint, now: Instant) -> Result<Option<Duration>> {
    if endpoint.fault().is_cut(now) {
        endpoint.breaker.failed(now);
        return Err(Error::new(Kind::ConnectionRefused, "the link is cut on purpose").again(Again::Unsent));
    }
    Ok(endpoint.fault().delayed(now).map(|(by, _)| by))
}

/// How often idle connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Closes connections that are idle for too long, have ended, or lead to endpoints that no plan names any more.
async fn sweep(upstream: std::rc::Weak<Upstream>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(upstream) = upstream.upgrade() else { return };
        let now = clock::now();
        upstream.doors.borrow_mut().retain(|_, door| {
            door.pool.sweep(now);
            door.endpoint.strong_count() > 0
        });
    }
}

#[cfg(test)]
mod tests;
