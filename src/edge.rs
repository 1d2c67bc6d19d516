//! A running edge: the only file that knows every module.
//!
//! One control thread runs what is not on the path of a request: the feed, probes, certificates, the admin and observe
//! doors. Workers run the rest. What both share is a [`Site`] snapshot, the homes, and numbers.
//!
//! Invariants: a reload that is refused changes nothing; what did not change in a reload is not touched; the data path
//! never waits for the control thread, except for a home that only Central knows.

mod control;
mod faults;
mod live;
mod panel;

use crate::base::clock;
use crate::base::id::EdgeId;
use crate::base::mend;
use crate::base::snapshot::{Reader, Snapshot};
use crate::body::{Door, Downstream, Request, Response};
use crate::central::rights::bearer_name;
use crate::central::standby::Leader;
use crate::central::{Begun, Central, outbox, publish};
use crate::config;
use crate::config::plan::{Central as CentralEntry, Edge as EdgeEntry, Feed, Plan, Url};
use crate::error::{Error, Side};
use crate::feed::link::{Pace, Target};
use crate::feed::siblings::Family;
use crate::feed::status::LinkStatus;
use crate::home::cursor::NotAFeedId;
use crate::home::event::{EdgeRow, EdgeState};
use crate::homes::{Applier, AskReceiver, Homes, instance};
use crate::message::{Name, RequestHead};
use crate::metrics::log::{AccessBuffer, AccessLog};
use crate::metrics::window::Window;
use crate::metrics::{Local, Metrics};
use crate::proxy::{Proxy, RETRY_AFTER, Site};
use crate::record::Record;
use crate::server::{DoorSpec, Service, Summary, Workers, access, listen};
use crate::tls::client::{Alpn, Client, Trust};
use crate::upstream::Live;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

/// Where the configuration comes from.
pub trait Source: Send + Sync {
    /// Reads it again: a new plan, or the rendered problems.
    fn read(&self) -> Result<Plan, String>;

    /// A plan that was read has been taken over: for what is set up outside, such as the level of events.
    fn adopted(&self, _plan: &Plan) {}
}

impl<F: Fn() -> Result<Plan, String> + Send + Sync> Source for F {
    fn read(&self) -> Result<Plan, String> {
        self()
    }
}

/// A source, owned by what runs by it.
pub type ReadPlan = Box<dyn Source>;

/// A running place: an edge, or Central. Dropping it stops it at once.
pub struct Running {
    shared: Arc<Shared>,
    control: Option<control::Control>,
}

/// What the control thread, the doors' panels and the owner of the edge share.
pub(crate) struct Shared {
    site: Snapshot<Site>,
    live: Snapshot<Live>,
    homes: Option<Arc<Homes>>,
    central: Option<Arc<Central>>,
    /// The Central that this one copies.
    leader: Option<Leader>,
    link: Option<Arc<LinkStatus>>,
    /// How Central's relay of an outbox does, if there is one.
    outbox: Option<Arc<outbox::Status>>,
    /// How its publisher does, if there is one.
    publish: Option<Arc<publish::Status>>,
    /// Where the control thread finds Central.
    target: Snapshot<Target>,
    /// And this edge's other instances.
    family: Snapshot<Family>,
    metrics: Arc<Metrics>,
    /// The last minute, looked at by the page.
    window: Mutex<Window>,
    log: Snapshot<Option<Arc<AccessLog>>>,
    workers: OnceLock<Workers>,
    doors: Mutex<Vec<DoorSpec>>,
    read: ReadPlan,
    draining: AtomicBool,
    started: Instant,
    reloads: AtomicU64,
    reloads_refused: AtomicU64,
    /// The lock on the instance folder.
    _instance: Option<instance::Instance>,
    /// The plan as the configuration has it, before the feed's edge table is laid over it.
    written: Mutex<Plan>,
}

/// What an edge has and Central has not, and the other way round.
#[derive(Default)]
struct Parts {
    homes: Option<Arc<Homes>>,
    feeding: Option<Feeding>,
    instance: Option<instance::Instance>,
    central: Option<Arc<Central>>,
    leader: Option<Leader>,
}

/// What feeds the homes: handed to the control thread once.
struct Feeding {
    applier: Applier,
    asks: AskReceiver,
    /// Where it comes from.
    feed: Feed,
    /// The folder of the homes.
    dir: PathBuf,
}

impl Running {
    /// Starts an edge: loads map and ledger, opens the peer door, then the public doors, then observe and admin.
    ///
    /// `read` is called on every reload. Errors: what could not be opened, and what to do about it.
    pub fn edge(plan: Plan, read: ReadPlan) -> Result<Running, String> {
        let parts = open_homes(&plan)?;
        Running::start(plan, read, parts)
    }

    /// Starts Central: opens its log, then its one door, then observe and admin.
    pub fn central(plan: Plan, read: ReadPlan) -> Result<Running, String> {
        let central = Central::open(&plan)?;
        Running::start(plan, read, Parts { central: Some(central), ..Parts::default() })
    }

    /// The same with a log that came from a copy, and may lack what the edges have seen (HOMES 2.2, Restore).
    pub fn restored_central(plan: Plan, read: ReadPlan) -> Result<Running, String> {
        let central = Central::open_as(&plan, Begun::Restored)?;
        Running::start(plan, read, Parts { central: Some(central), ..Parts::default() })
    }

    /// A standby of the Central at `leader`: it copies the log of that one, and answers nothing before it is promoted.
    ///
    /// Errors: also that the leader cannot be asked which feed it is, or is another one than was copied before.
    pub fn standby(plan: Plan, read: ReadPlan, leader: Url) -> Result<Running, String> {
        let tls = plan.peer.as_ref().and_then(|peer| peer.tls.clone());
        let name = format!("spiffe://{}/central", plan.own.deployment);
        let tls = tls.map(|files| Client::new(Trust::Deployment { files, name }).config(Alpn::Either)).transpose()?;
        let leader = Leader { url: leader, tls };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let feed = runtime.map_err(|error| error.to_string())?.block_on(leader.feed())?;
        let feed = feed.parse().map_err(|error: NotAFeedId| error.to_string())?;
        let central = Central::open_as(&plan, Begun::Standby { of: &leader.url.to_string(), feed })?;
        Running::start(plan, read, Parts { central: Some(central), leader: Some(leader), ..Parts::default() })
    }

    fn start(plan: Plan, read: ReadPlan, parts: Parts) -> Result<Running, String> {
        let Parts { homes, feeding, instance, central, leader } = parts;
        let plan_now = overlay(&plan, homes.as_deref());
        let live = Arc::new(Live::build(&plan_now, None));
        let log = open_log(&plan)?;
        let target = target(&plan, instance.as_ref(), &live);
        let link = feeding.as_ref().map(|_| Arc::new(LinkStatus::default()));
        let private = if central.is_some() { Door::Central } else { Door::Peer };
        let doors = doors(&plan, private, &[])?;
        let outbox = plan.relays.outbox.as_ref().map(|_| Arc::default());
        let publish = plan.relays.publish.as_ref().map(|_| Arc::default());
        let shared = Arc::new(Shared {
            live: Snapshot::shared(live.clone()),
            site: Snapshot::new(Site::new(Arc::new(plan_now), live)),
            homes,
            central,
            leader,
            link,
            outbox,
            publish,
            target: Snapshot::new(target),
            family: Snapshot::new(family(&plan, None)),
            metrics: Metrics::new(),
            window: Mutex::default(),
            log: Snapshot::new(log),
            workers: OnceLock::new(),
            doors: Mutex::new(doors.clone()),
            read,
            draining: AtomicBool::new(false),
            started: clock::now(),
            reloads: AtomicU64::new(0),
            reloads_refused: AtomicU64::new(0),
            _instance: instance,
            written: Mutex::new(plan),
        });
        let workers = start_workers(&shared, doors)?;
        let _ = shared.workers.set(workers);
        panel::register(&shared);
        let control = control::Control::start(shared.clone(), feeding)?;
        Ok(Running { shared, control: Some(control) })
    }

    /// The open doors and where they are: `public`, `peer`, `observe`, `admin`.
    pub fn doors(&self) -> Vec<(String, String)> {
        let mut all: Vec<_> =
            self.shared.workers().doors().iter().map(|(door, at)| (name_of(*door), at.to_string())).collect();
        all.extend(self.control.iter().flat_map(|control| control.doors()));
        all
    }

    /// The address of the first door of a kind.
    pub fn address(&self, door: Door) -> Option<SocketAddr> {
        self.shared.workers().doors().iter().find(|(kind, _)| *kind == door).map(|(_, at)| *at)
    }

    /// Reads the configuration again: what changed, or why it was refused.
    pub fn reload(&self) -> Result<String, String> {
        self.shared.reload()
    }

    /// Whether requests are welcome; else why not.
    pub fn ready(&self) -> Result<(), Vec<String>> {
        self.shared.ready()
    }

    /// Drains: readiness off, doors closed, requests finished or cut at the deadline.
    pub async fn drain(&self) -> String {
        self.shared.drain().await
    }

    /// Opens the access log's file anew.
    pub fn reopen_log(&self) {
        if let Some(log) = self.shared.log.load().as_ref() {
            log.reopen();
        }
    }

    /// The Central that runs here, if one does; for benchmarks.
    pub fn authority(&self) -> Option<&Arc<Central>> {
        self.shared.central.as_ref()
    }

    /// The homes, for tests and the demo.
    pub fn homes(&self) -> Option<&Arc<Homes>> {
        self.shared.homes.as_ref()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(control) = self.control.take() {
            control.stop();
        }
        if let Some(central) = &self.shared.central {
            // What was taken becomes durable, and the folder is free for the next Central when this returns.
            central.shutdown();
        }
    }
}

impl Shared {
    fn workers(&self) -> &Workers {
        self.workers.get().expect("set before the edge is handed out")
    }

    fn ready(&self) -> Result<(), Vec<String>> {
        let mut why = Vec::new();
        if self.draining.load(Ordering::Relaxed) {
            why.push("draining".to_owned());
        }
        if self.homes.as_ref().is_some_and(|homes| !homes.is_loaded()) {
            why.push("no home map yet: never synced with Central".to_owned());
        }
        if why.is_empty() { Ok(()) } else { Err(why) }
    }

    fn reload(&self) -> Result<String, String> {
        let outcome = self.read.read().and_then(|plan| self.adopt(plan));
        match &outcome {
            Ok(said) => tracing::info!("reload: {said}"),
            Err(why) => tracing::error!("reload refused, everything stays as it was:\n{why}"),
        }
        let counter = if outcome.is_ok() { &self.reloads } else { &self.reloads_refused };
        counter.fetch_add(1, Ordering::Relaxed);
        outcome
    }

    /// Takes a new plan over; on an error nothing has changed.
    fn adopt(&self, plan: Plan) -> Result<String, String> {
        let mut written = self.written.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let fixed = crate::config::check::unchanged_or_problem(&written, &plan);
        if !fixed.is_empty() {
            return Err(fixed.iter().map(|problem| problem.wrong.clone()).collect::<Vec<_>>().join("\n"));
        }
        if follows(&plan) != follows(&written) {
            return Err("`[central]` has come or gone: the home map is opened at the start only, so restart".to_owned());
        }
        let mut doors_now = self.doors.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let private = if self.central.is_some() { Door::Central } else { Door::Peer };
        let doors = doors(&plan, private, &doors_now)?;
        let log = (plan.log != written.log).then(|| open_log(&plan)).transpose()?;
        let opened = self.workers().reload(doors.clone(), plan.limits.connections);
        opened.map_err(|error| format!("a door could not be opened: {error}"))?;
        if let Some(log) = log {
            self.log.set(log);
        }
        *doors_now = doors;
        self.family.set(family(&plan, Some(&self.family.load())));
        *written = plan;
        self.publish(&written);
        self.read.adopted(&written);
        Ok(format!("{} routes, {} clusters, {} doors", written.settings.len(), written.clusters.len(), doors_now.len()))
    }

    /// The feed's edge table has changed.
    fn edges_changed(&self) {
        let written = self.written.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.publish(&written);
    }

    /// Hands the feed new TLS where the files have changed.
    fn central_tls_changed(&self) {
        let (target, now) = (self.target.load(), self.live.load().central_tls());
        let same = match (&target.tls, &now) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (old, new) => old.is_none() == new.is_none(),
        };
        if !same {
            self.target.set(Target { tls: now, ..Target::clone(&target) });
        }
    }

    fn publish(&self, written: &Plan) {
        let plan = overlay(written, self.homes.as_deref());
        let live = Arc::new(Live::build(&plan, Some(&self.live.load())));
        self.target.set(Target { instance: self.target.load().instance.clone(), ..target(&plan, None, &live) });
        self.live.share(live.clone());
        self.site.set(Site::new(Arc::new(plan), live));
    }

    async fn drain(&self) -> String {
        let timeouts = self.site.load().plan.timeouts.clone();
        self.draining.store(true, Ordering::Relaxed);
        tokio::time::sleep(timeouts.drain_wait).await;
        let drained = self.workers().drain(timeouts.drain).await;
        format!("{} connections were open, {} were cut at the deadline", drained.open, drained.cut)
    }
}

/// Whether there is a feed that is followed.
fn follows(plan: &Plan) -> bool {
    let is_fed = |central: &CentralEntry| !central.urls.is_empty() || matches!(central.feed, Feed::File(_));
    plan.own.data.is_some() && plan.central.as_ref().is_some_and(is_fed)
}

/// Opens map and ledger where the plan follows a feed.
fn open_homes(plan: &Plan) -> Result<Parts, String> {
    let Some(data) = plan.own.data.as_ref().filter(|_| follows(plan)) else { return Ok(Parts::default()) };
    let lock = instance::take(data).map_err(|error| {
        let wrong = format!("`data` of [edge] cannot be used: {}: {error}", data.display());
        mend::told(wrong, mend::write(&error))
    })?;
    let spaces = plan.spaces.iter().map(|space| space.name.clone()).collect();
    let opened = Homes::open(lock.dir(), &plan.own.name, spaces);
    let (homes, applier, asks) = opened.map_err(|error| format!("{}: {error}", lock.dir().display()))?;
    adopt_claims(&homes, data);
    let feed = plan.central.as_ref().map(|central| central.feed.clone()).unwrap_or_default();
    let feeding = Some(Feeding { applier, asks, feed, dir: lock.dir().to_owned() });
    Ok(Parts { homes: Some(homes), feeding, instance: Some(lock), ..Parts::default() })
}

/// Takes over the claims of instances that have gone without delivering them. What cannot be read stays for the next start.
fn adopt_claims(homes: &Homes, data: &Path) {
    let abandoned = instance::abandoned(data).map_err(|error| error.to_string());
    let adopted = abandoned.and_then(|all| {
        all.iter().map(|one| homes.adopt(one).map_err(|error| error.to_string())).sum::<Result<usize, _>>()
    });
    match adopted {
        Ok(0) => {}
        Ok(claims) => tracing::info!(claims, "claims of an instance that has gone were taken over"),
        Err(why) => tracing::error!("claims of an instance that has gone could not be taken over: {why}"),
    }
}

/// Where the feed is followed, and as whom.
fn target(plan: &Plan, instance: Option<&instance::Instance>, live: &Live) -> Target {
    // The way to Central stays the same object as long as its first address does.
    let way = live.central().and_then(|central| central.endpoints().first());
    let folder = instance.and_then(|instance| instance.dir().file_name());
    Target {
        edge: plan.own.name.clone(),
        instance: folder.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        spaces: plan.spaces.iter().map(|space| format!("{}={}", space.name, space.claim.word())).collect(),
        urls: plan.central.as_ref().map(|central| central.urls.clone()).unwrap_or_default(),
        tls: live.central_tls(),
        pace: Pace::default(),
        fault: way.map(|way| way.fault().clone()).unwrap_or_default(),
        rtt: way.map(|way| way.rtt().clone()).unwrap_or_default(),
    }
}

/// The other instances of this edge; what they are called with stays the same object as long as its files do.
fn family(plan: &Plan, before: Option<&Family>) -> Family {
    let files = plan.peer.as_ref().and_then(|peer| peer.tls.clone());
    let name = format!("spiffe://{}/edge/{}", plan.own.deployment, plan.own.name);
    let trust = files.filter(|_| !plan.own.siblings.is_empty()).map(|files| Trust::Deployment { files, name });
    let kept = before.and_then(|family| family.tls.clone()).filter(|client| Some(client.trust()) == trust.as_ref());
    let tls = kept.or_else(|| trust.map(|trust| Arc::new(Client::new(trust))));
    Family { edge: plan.own.name.clone(), urls: plan.own.siblings.clone(), tls }
}

/// The plan with the feed's edge table laid over the configuration's: the feed wins.
fn overlay(plan: &Plan, homes: Option<&Homes>) -> Plan {
    let mut plan = plan.clone();
    let rows = homes.map(Homes::edges).unwrap_or_default();
    for row in rows {
        lay(&mut plan, row);
    }
    plan
}

fn lay(plan: &mut Plan, row: EdgeRow) {
    if matches!(row.state, EdgeState::Removed) {
        return;
    }
    let id = EdgeId(row.idx);
    if row.name == plan.own.name {
        plan.edges.own = Some(id);
    }
    let written = plan.edges.named(&row.name).and_then(|edge| edge.peer.clone());
    let peer = row.peer.as_deref().and_then(config::door_url).or(written);
    plan.edges.insert(EdgeEntry { id, name: row.name, peer });
}

fn open_log(plan: &Plan) -> Result<Option<Arc<AccessLog>>, String> {
    if !plan.log.access {
        return Ok(None);
    }
    let opened = AccessLog::open(plan.log.file.as_deref());
    opened.map(Some).map_err(|error| {
        let file = plan.log.file.as_deref().unwrap_or(Path::new("standard output"));
        let wrong = format!("`file` of [log] cannot be opened: {}: {error}", file.display());
        mend::told(wrong, mend::write(&error))
    })
}

/// The doors of a plan, the private one first. TLS that did not change is taken from `old`, with its tickets and sessions.
fn doors(plan: &Plan, private: Door, old: &[DoorSpec]) -> Result<Vec<DoorSpec>, String> {
    let mut doors = listen::doors(plan, private).map_err(|wrong| wrong.join("\n"))?;
    for tls in doors.iter_mut().filter_map(|door| door.tls.as_mut()) {
        if let Some(kept) = old.iter().filter_map(|door| door.tls.as_ref()).find(|kept| kept.same_as(tls)) {
            *tls = kept.clone();
        }
    }
    Ok(doors)
}

fn start_workers(shared: &Arc<Shared>, doors: Vec<DoorSpec>) -> Result<Workers, String> {
    let site = shared.site.load();
    let plan = &site.plan;
    let connections = plan.limits.connections;
    let (shared_by, workers) = (shared.clone(), plan.own.workers);
    let make = move |_| Worker::new(&shared_by);
    Workers::start(workers, doors, connections, shared.metrics.clone(), make).map_err(|error| error.to_string())
}

fn name_of(door: Door) -> String {
    match door {
        Door::Public => "public",
        Door::Peer => "peer",
        Door::Central => "central",
    }
    .to_owned()
}

/// The service of one worker: the proxy, its counters and its part of the access log.
pub(crate) struct Worker {
    proxy: Proxy,
    central: Option<Arc<Central>>,
    local: Local,
    log: RefCell<Logging>,
}

impl Worker {
    /// To be called on the worker's own runtime.
    pub(crate) fn new(shared: &Arc<Shared>) -> Worker {
        let (site, local): (Reader<Site>, _) = (shared.site.reader(), shared.metrics.worker());
        Worker {
            proxy: Proxy::new(site, shared.homes.clone(), local.cells().replay.clone()),
            central: shared.central.clone(),
            local,
            log: RefCell::new(Logging::new(shared.log.reader())),
        }
    }

    /// Central's door: what an edge sends for the application goes to `[local]`, everything else is the API's.
    async fn central(&self, request: &mut Request, record: &mut Record) -> Response {
        if self.central.as_ref().is_some_and(|central| central.stop().is_cut(clock::now())) {
            let error = Error::unavailable("Central is stopped on purpose", RETRY_AFTER).on(Side::Own);
            record.failed(&error);
            let mut response = self.proxy.refuse(&error, Some(&request.head), &request.from);
            response.head.fields.add(Name::Connection, "close");
            return response;
        }
        match &self.central {
            Some(central) if !request.head.fields.has(Name::CoordinatorFwd) => {
                record.decision = "api";
                let site = self.proxy.site();
                record.bearer = bearer_name(&request.head.fields, &site.plan.tokens).map(str::to_owned);
                central.call(request.take(), &site.plan.tokens).await
            }
            _ => self.proxy.application(request, record).await,
        }
    }

    /// Whether people want to see it: the beats of the feed are no decisions.
    fn keeps(&self, record: &Record, head: &Summary) -> bool {
        self.central.is_none() || record.status >= 400 || !head.target().starts_with("/feed/")
    }

    /// Counts and logs a request that has ended.
    pub(crate) fn observe(&self, record: &Record, from: &Downstream, head: Option<&Summary>) {
        self.proxy.with_seen(|site| {
            let shown = head.filter(|head| site.plan.admin.is_some() && self.keeps(record, head));
            if let Some(head) = shown {
                self.local.note(record, head.method.as_str(), head.target());
            }
            self.local.observe(&site.plan, record);
            if let Some(log) = self.log.borrow_mut().open() {
                log.line(|out| access::line(out, &site.plan, record, from, head));
            }
        });
    }
}

/// A worker's part of the access log; follows the log that a reload opens or closes.
struct Logging {
    log: Reader<Option<Arc<AccessLog>>>,
    buffer: Option<AccessBuffer>,
}

impl Logging {
    fn new(mut log: Reader<Option<Arc<AccessLog>>>) -> Logging {
        Logging { buffer: buffer(log.load()), log }
    }

    /// Where lines are written at this moment, if they are.
    fn open(&mut self) -> Option<&AccessBuffer> {
        if self.log.refresh() {
            self.buffer = buffer(self.log.seen());
        }
        self.buffer.as_ref()
    }
}

fn buffer(log: &Option<Arc<AccessLog>>) -> Option<AccessBuffer> {
    log.as_ref().map(AccessLog::buffer)
}

impl Service for Worker {
    fn plan(&self) -> Arc<Plan> {
        self.proxy.with_site(|site| site.plan.clone())
    }

    async fn call(&self, request: &mut Request, record: &mut Record) -> Response {
        match request.from.door {
            Door::Peer => Box::pin(self.proxy.peer(request, record)).await,
            Door::Central => Box::pin(self.central(request, record)).await,
            Door::Public => self.proxy.public(request, record).await,
        }
    }

    fn refuse(&self, error: &Error, head: Option<&RequestHead>, from: &Downstream) -> Response {
        self.proxy.refuse(error, head, from)
    }

    fn wants_summary(&self) -> bool {
        // The page of the admin door shows the last requests, logged or not.
        self.log.borrow_mut().open().is_some() || self.proxy.with_seen(|site| site.plan.admin.is_some())
    }

    fn finish(&self, record: &Record, from: &Downstream, head: Option<&Summary>) {
        self.observe(record, from, head);
    }
}
