//! The path of a request: match, decide, obtain, finish. Control flow lives here; everything called either computes
//! (pure) or does one piece of I/O.
//!
//! Invariants: one [`Site`] snapshot per request; every failure becomes an answer with its token; a request that came
//! through the peer door meets no code that forwards to a peer; nothing below this module knows what a decision is.

pub mod claim;
pub mod compress;
pub mod correct;
pub mod course;
pub mod explain;
pub mod finish;
pub mod limit;
pub mod obtain;
pub mod outgoing;
pub mod receive;
pub mod refuse;
pub mod reply;
pub mod serve;
pub mod tunnel;

use crate::base::snapshot::Reader;
use crate::body::encode::Encoders;
use crate::body::replay::ReplayBudget;
use crate::body::{Downstream, Request, Response};
use crate::config::plan::{Plan, RouteSettings};
use crate::error::{Error, Result};
use crate::homes::Homes;
use crate::message::via::Mark;
use crate::message::{Name, Ready, RequestHead};
use crate::metrics::cells;
use crate::peer::wire::Decided;
use crate::record::Record;
use crate::upstream::{Live, Upstream};
use crate::wire::HeadLimits;
use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long a client is asked to stay away when nothing tells better.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What all requests of a worker may keep for replays (DESIGN 10); beyond it a correction becomes 503 with Retry-After.
const REPLAY_MAX: usize = 64 << 20;

/// What a request holds from its first step to its last: the plan, and the live state of everything that it names.
pub struct Site {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Clusters, links and their health.
    pub live: Arc<Live>,
    /// Who we are, in what we forward.
    mark: Mark,
    /// What an origin is told of a request that is no key's.
    plainly: Ready,
    /// The settings of requests from other places that no route of ours matches: only limits and waits.
    fallback: RouteSettings,
}

impl Site {
    /// Joins a plan and the live state that was built for it.
    pub fn new(plan: Arc<Plan>, live: Arc<Live>) -> Self {
        let own = &plan.own;
        let (mark, plainly) = (Mark::new(&own.deployment, &own.name), outgoing::plainly(&own.name));
        Site { mark, plainly, fallback: course::fallback(&plan), plan, live }
    }
}

/// The site that a worker saw last. Its requests hold it by a count of their own, which no other thread looks at.
pub struct Held(Arc<Site>);

impl Deref for Held {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.0
    }
}

/// The proxy of one worker.
pub struct Proxy {
    site: RefCell<Reader<Site>>,
    held: RefCell<Rc<Held>>,
    upstream: Rc<Upstream>,
    homes: Option<Arc<Homes>>,
    replays: Rc<ReplayBudget>,
    encoders: Rc<Encoders>,
}

impl Proxy {
    /// A proxy for the calling worker thread, on its runtime. `homes` is there where the plan has a Central to follow.
    /// `kept` says how much of requests is kept for replays.
    pub fn new(mut site: Reader<Site>, homes: Option<Arc<Homes>>, kept: Arc<cells::Held>) -> Self {
        let held = Rc::new(Held(site.load().clone()));
        let upstream = Upstream::new(head_limits(&held.plan));
        Proxy {
            site: RefCell::new(site),
            held: RefCell::new(held),
            upstream,
            homes,
            replays: ReplayBudget::new(REPLAY_MAX, kept),
            encoders: Encoders::new(),
        }
    }

    /// The snapshot for one request.
    pub fn site(&self) -> Rc<Held> {
        self.refresh();
        self.held.borrow().clone()
    }

    /// Looks at the snapshot, which costs less than to hold it. `look` may not ask for it again.
    pub fn with_site<T>(&self, look: impl FnOnce(&Site) -> T) -> T {
        self.refresh();
        look(&self.held.borrow())
    }

    /// The same for a request that took its snapshot: what is newer is looked for once for each.
    pub fn with_seen<T>(&self, look: impl FnOnce(&Site) -> T) -> T {
        look(&self.held.borrow())
    }

    fn refresh(&self) {
        let mut reader = self.site.borrow_mut();
        if reader.refresh() {
            self.upstream.set_limits(head_limits(&reader.seen().plan));
            self.held.replace(Rc::new(Held(reader.seen().clone())));
        }
    }

    /// Answers a request from the public door.
    pub async fn public(&self, request: &mut Request, record: &mut Record) -> Response {
        let site = self.site();
        let served = match tunnel::is_asked_for(&request.head) {
            false => self.serve(&site, request, record).await,
            true => {
                let serve = async |request: &mut Request| self.serve(&site, request, record).await;
                Box::pin(tunnel::switched(request, serve)).await
            }
        };
        let mut response = served.unwrap_or_else(|error| {
            record.failed(&error);
            // The addresses behind a public door are nobody's business; the log has them.
            let accept = request.head.fields.get(Name::Accept);
            refuse::response(&error, &site.plan.own.name, accept, asked(record))
        });
        if site.plan.own.tells_decision {
            response.head.fields.put(Name::Coordinator, Decided::of(&site.plan.own.name, record));
        }
        response
    }

    /// Answers a request from the peer door.
    pub async fn peer(&self, request: &mut Request, record: &mut Record) -> Response {
        let site = self.site();
        match tunnel::switched(request, async |request: &mut Request| self.receive(&site, request, record).await).await
        {
            Ok(response) => response,
            Err(error) => explained(&site.plan, &error, record),
        }
    }

    /// Answers, at Central's door, a request that an edge sent for Central's application.
    pub async fn application(&self, request: &mut Request, record: &mut Record) -> Response {
        let site = self.site();
        match tunnel::switched(request, async |request: &mut Request| self.at_central(&site, request, record).await)
            .await
        {
            Ok(response) => response,
            Err(error) => explained(&site.plan, &error, record),
        }
    }

    /// The answer to what could not be read or admitted.
    pub fn refuse(&self, error: &Error, head: Option<&RequestHead>, _from: &Downstream) -> Response {
        let accept = head.and_then(|head| head.fields.get(Name::Accept));
        refuse::response(error, &self.site().plan.own.name, accept, None)
    }

    /// The cursor of the home map, as other places are told; 0 where there is none.
    fn seq(&self) -> u64 {
        self.homes.as_ref().map_or(0, |homes| homes.cursor().seq)
    }

    /// The homes, or the clear error of an edge that has none.
    fn homes(&self) -> Result<&Arc<Homes>> {
        self.homes
            .as_ref()
            .ok_or_else(|| Error::new(crate::error::Kind::ProxyConfigurationError, "this place keeps no home map"))
    }
}

/// What origins may send as a head: as much as clients.
fn head_limits(plan: &Plan) -> HeadLimits {
    HeadLimits { head: plan.limits.head, fields: plan.limits.fields, uri: plan.limits.uri }
}

/// Whom we asked, as others may know it: the name of the cluster, which RFC 9209 allows, and no address.
fn asked(record: &Record) -> Option<&str> {
    record.endpoint.as_ref().and(record.cluster.as_deref())
}

/// Turns a failure into its answer to another place of the deployment, and notes it once.
fn explained(plan: &Plan, error: &Error, record: &mut Record) -> Response {
    record.failed(error);
    refuse::response(error, &plan.own.name, None, asked(record))
}
