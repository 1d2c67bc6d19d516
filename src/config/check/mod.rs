//! From the tables as written to the plan: names resolved, ranges and files proven, every problem reported.
//!
//! Each function takes what it judges and leaves what it found in `Found`; none stops at the first problem. A plan
//! comes out only if nothing is an error and nothing needed is unknown.

mod certs;
mod compress;
mod doors;
mod places;
mod reload;
mod routes;
mod tokens;

pub use certs::not_after;

pub use reload::unchanged_or_problem;

use super::leaf;
use super::plan::{self, Own, Plan, Trust};
use super::problem::{Level, Place, Problem, Sources};
use super::raw::{self, CentralFile, EdgeFile};
use super::read::{At, Count, Field};
use crate::base::units::ByteSize;
use crate::route::table::Table;
use std::path::PathBuf;
use std::time::Duration;

/// The deployment's name where none is written.
const DEPLOYMENT: &str = "coordinator";

/// What checking has found so far, and what it goes by.
struct Found<'a> {
    sources: &'a Sources,
    /// Wall-clock time, for certificates.
    now: Duration,
    problems: Vec<Problem>,
}

impl Found<'_> {
    fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Reports a key that parses but has no effect yet. `effect` says what happens instead.
    fn later<T>(&mut self, field: &Field<T>, level: Level, effect: &str) {
        if let Some(place) = field.place() {
            self.later_at(place, level, effect);
        }
    }

    fn later_at(&mut self, place: Place, level: Level, effect: &str) {
        let wrong = format!("`{}` is not built yet", self.sources.text(place).trim_matches(['[', ']', '"']));
        let problem = Problem::at(place, wrong).level(level);
        self.report(match level {
            Level::Error => problem.label(effect).help("remove it until it is built"),
            _ => problem.label(effect),
        });
    }
}

/// What Central relays.
fn relays(file: &CentralFile, found: &mut Found<'_>) -> plan::Relays {
    let Some(central) = file.central.get() else { return plan::Relays::default() };
    let ca = central.outbox_ca.at();
    if let Some(ca) = ca {
        certs::authority(ca, found);
        // An outbox that cannot be read was reported there.
        let is_used = central.outbox.get().map_or(central.outbox.is_written(), |outbox| outbox.over_tls);
        if !is_used {
            let problem = Problem::at(ca.place, "`outbox_ca` has no effect: the outbox is not reached over TLS");
            found.report(problem.help("add `sslmode=require` to the URL of `outbox`, or remove this"));
        }
    }
    let database = |outbox: &leaf::Postgres| plan::Database { ca: ca.map(path), ..outbox.database.clone() };
    plan::Relays {
        outbox: central.outbox.get().map(database),
        publish: central.publish.get().map(|publish| publish.0.clone()),
    }
}

/// Whether faults on purpose are permitted.
fn faults(admin: &Field<raw::Admin>) -> bool {
    admin.get().is_some_and(|admin| admin.faults.get() == Some(&true))
}

/// Checks an edge's configuration.
pub fn edge(file: &EdgeFile, sources: &Sources, now: Duration) -> (Option<Plan>, Vec<Problem>) {
    let mut found = Found { sources, now, problems: Vec::new() };
    not_built(file, &mut found);
    let own = own(file, &mut found);
    let listeners = doors::listeners(&file.listen, &mut found);
    // A name that only the process will know cannot be compared.
    let known = own.as_ref().filter(|own| !own.name.contains("${") && !own.deployment.contains("${"));
    let identity = known.map(|own| format!("spiffe://{}/edge/{}", own.deployment, own.name));
    let peer = doors::peer(&file.peer, identity.as_deref(), &mut found);
    let (observe, admin) = (doors::observe(&file.observe), doors::admin(&file.admin, &mut found));
    doors::distinct(&file.listen, &file.peer, &file.observe, &file.admin, &mut found);
    let mut clusters = places::clusters(&file.local, &file.clusters, &mut found);
    let central = places::central(&file.central, &file.peer, peer.as_ref(), &mut clusters, &mut found);
    let edges = places::edges(&file.edges, own.as_ref().map(|own| own.name.as_str()), &mut found);
    let spaces = places::spaces(&file.homes);
    places::may_claim(&file.homes, &clusters, &mut found);
    let mut common = Common::read(&file.limits, &file.timeouts, &file.retry, &file.log, &mut found);
    common.compress = compress::section(&file.compress, &mut found);
    let routes = routes::routes(file, &clusters, &spaces, &edges, &common, &mut found);
    let plan = own.zip(routes).map(|(own, (routes, settings))| Plan {
        own,
        listeners,
        peer,
        observe,
        admin,
        faults: faults(&file.admin),
        local: clusters.local,
        clusters: clusters.list,
        central,
        edges,
        tokens: Vec::new(),
        spaces,
        routes,
        settings,
        limits: common.limits,
        timeouts: common.timeouts,
        retry: common.retry,
        log: common.log,
        trust: trust(&file.trust),
        tls: tls(&file.tls),
        relays: Default::default(),
    });
    (plan, found.problems)
}

/// Checks Central's configuration.
pub fn central(file: &CentralFile, sources: &Sources, now: Duration) -> (Option<Plan>, Vec<Problem>) {
    let mut found = Found { sources, now, problems: Vec::new() };
    let own = file.central.get().map(|central| Own {
        name: "central".to_owned(),
        deployment: deployment(&central.deployment),
        data: central.data.get().map(|data| data.0.clone()),
        workers: workers(&central.workers),
        siblings: Vec::new(),
        tells_decision: false,
    });
    let identity = own.as_ref().map(|own| format!("spiffe://{}/central", own.deployment));
    let peer = doors::peer(&file.peer, identity.as_deref(), &mut found);
    let (observe, admin) = (doors::observe(&file.observe), doors::admin(&file.admin, &mut found));
    doors::distinct(&Field::Absent, &file.peer, &file.observe, &file.admin, &mut found);
    let clusters = places::clusters(&file.local, &file.clusters, &mut found);
    let edges = places::edges(&file.edges, None, &mut found);
    let tokens = tokens::read(&file.tokens, &mut found);
    let common = Common::read(&file.limits, &file.timeouts, &file.retry, &file.log, &mut found);
    let relays = relays(file, &mut found);
    let plan = own.filter(|own| own.data.is_some() && peer.is_some()).map(|own| Plan {
        own,
        listeners: Vec::new(),
        peer,
        observe,
        admin,
        faults: faults(&file.admin),
        local: clusters.local,
        clusters: clusters.list,
        central: None,
        edges,
        tokens,
        spaces: Vec::new(),
        routes: Table::default(),
        settings: Vec::new(),
        limits: common.limits,
        timeouts: common.timeouts,
        retry: common.retry,
        log: common.log,
        trust: Trust::default(),
        tls: plan::TlsSettings::default(),
        relays,
    });
    (plan, found.problems)
}

fn own(file: &EdgeFile, found: &mut Found<'_>) -> Option<Own> {
    let edge = file.edge.get()?;
    if let Some(name) = edge.name.at().filter(|name| name.value.0 == "central") {
        found.report(Problem::at(name.place, "an edge cannot be called `central`").help("that is Central's own name"));
    }
    Some(Own {
        name: edge.name.get()?.0.clone(),
        deployment: deployment(&edge.deployment),
        data: edge.data.get().map(|data| data.0.clone()),
        workers: workers(&edge.workers),
        siblings: edge.siblings.get().into_iter().flatten().map(|door| door.value.0.clone()).collect(),
        tells_decision: edge.tell_decision.get() == Some(&true),
    })
}

fn deployment(field: &Field<super::leaf::Name>) -> String {
    field.get().map_or_else(|| DEPLOYMENT.to_owned(), |name| name.0.clone())
}

fn workers(field: &Field<Count<0, 1024>>) -> usize {
    match field.get() {
        Some(Count(number)) if *number > 0 => *number as usize,
        _ => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// What parses and has no effect yet: a note where requests pass plain, a problem where silence would break a promise.
fn not_built(file: &EdgeFile, found: &mut Found<'_>) {
    found.later(&file.cache, Level::Note, "answers are not stored");
    found.later(&file.trace, Level::Note, "traceparent is passed on; no spans are exported");
    if let Some(tls) = file.tls.get() {
        found.later(&tls.ticket_keys, Level::Note, "each process makes its own keys");
    }
    if let Some(trust) = file.trust.get() {
        let effect = "without it every client would seem to be the load balancer, and its header a bad request";
        found.later(&trust.proxy_protocol, Level::Error, effect);
    }
}

/// The sections that mean the same at an edge and at Central.
struct Common {
    limits: plan::Limits,
    timeouts: plan::Timeouts,
    retry: plan::Retry,
    log: plan::Log,
    /// Of an edge only: Central faces no clients.
    compress: Option<plan::Compress>,
}

impl Common {
    fn read(
        limits: &Field<raw::Limits>,
        timeouts: &Field<raw::Timeouts>,
        retry: &Field<raw::Retry>,
        log: &Field<raw::Log>,
        found: &mut Found<'_>,
    ) -> Common {
        Common {
            limits: limits.get().map_or_else(plan::Limits::default, |limits| read_limits(limits, found)),
            timeouts: timeouts.get().map_or_else(plan::Timeouts::default, |timeouts| read_timeouts(timeouts, found)),
            retry: retry.get().map_or_else(plan::Retry::default, read_retry),
            log: read_log(log.get(), found),
            compress: None,
        }
    }
}

/// The smallest head that any real request fits into.
const HEAD_MIN: u64 = 1 << 10;

/// The largest head: it is held in memory for every connection.
const HEAD_MAX: u64 = 16 << 20;

fn read_limits(raw: &raw::Limits, found: &mut Found<'_>) -> plan::Limits {
    let mut limits = plan::Limits::default();
    for (field, target) in [(&raw.head, &mut limits.head), (&raw.uri, &mut limits.uri)] {
        let Some(size) = field.at() else { continue };
        if !(HEAD_MIN..=HEAD_MAX).contains(&size.value.0) {
            let remedy = format!("write a size from {} to {}", ByteSize(HEAD_MIN), ByteSize(HEAD_MAX));
            found.report(Problem::at(size.place, "this size is out of range").help(remedy));
        }
        *target = ByteSize(size.value.0).as_usize();
    }
    if let Some(place) = raw.uri.at().map(|at| at.place).or(raw.head.at().map(|at| at.place))
        && limits.uri > limits.head
    {
        let wrong = format!("a head of {} has no room for a target of {}", size(limits.head), size(limits.uri));
        found.report(Problem::at(place, wrong).help("raise `head` or lower `uri`"));
    }
    limits.body = raw.body.get().map(|size| size.0);
    limits.connections = raw.connections.get().map(|count| count.0 as usize);
    set(&mut limits.fields, &raw.fields, |count| count.0 as usize);
    set(&mut limits.streams, &raw.streams, |count| count.0);
    limits
}

fn size(octets: usize) -> ByteSize {
    ByteSize(octets as u64)
}

/// Puts what is written in place of a default.
fn set<T, R>(target: &mut T, field: &Field<R>, value: impl FnOnce(&R) -> T) {
    if let Some(written) = field.get() {
        *target = value(written);
    }
}

fn read_timeouts(raw: &raw::Timeouts, found: &mut Found<'_>) -> plan::Timeouts {
    let mut to = plan::Timeouts::default();
    let waits = [
        (&raw.head, &mut to.head),
        (&raw.body, &mut to.body),
        (&raw.idle, &mut to.idle),
        (&raw.send, &mut to.send),
        (&raw.connect, &mut to.connect),
        (&raw.first_byte, &mut to.first_byte),
        (&raw.between, &mut to.between),
        (&raw.tunnel, &mut to.tunnel),
        (&raw.pool_idle, &mut to.pool_idle),
    ];
    for (field, target) in waits {
        set(target, field, |time| time.0);
        not_zero(field, found);
    }
    not_zero(&raw.total, found);
    to.total = raw.total.get().map(|time| time.0);
    set(&mut to.drain_wait, &raw.drain_wait, |time| time.0);
    set(&mut to.drain, &raw.drain, |time| time.0);
    to
}

/// A wait of nothing would refuse every request; only drains may be instant.
fn not_zero(field: &Field<super::leaf::Time>, found: &mut Found<'_>) {
    if let Some(time) = field.at().filter(|time| time.value.0.is_zero()) {
        let remedy = "write a duration above zero; a long one, such as \"1d\", is as good as none";
        found.report(Problem::at(time.place, "a wait of zero would fail every request").help(remedy));
    }
}

fn read_retry(raw: &raw::Retry) -> plan::Retry {
    let mut retry = plan::Retry::default();
    set(&mut retry.attempts, &raw.attempts, |count| count.0);
    set(&mut retry.statuses, &raw.statuses, |list| routes::statuses(list));
    set(&mut retry.unsafe_methods, &raw.unsafe_methods, |flag| *flag);
    set(&mut retry.budget_percent, &raw.budget, |share| share.0);
    retry
}

fn read_log(raw: Option<&raw::Log>, found: &mut Found<'_>) -> plan::Log {
    let absent = raw::Log::default();
    let raw = raw.unwrap_or(&absent);
    if let Some(level) = raw.level.at()
        && let Err(error) = tracing_subscriber::EnvFilter::try_new(&level.value.0)
    {
        let remedy = "write error, warn, info or debug, or a list such as \"info,coordinator::feed=debug\"";
        found.report(Problem::at(level.place, format!("this is not a filter of events: {error}")).help(remedy));
    }
    plan::Log {
        access: raw.access.get().copied().unwrap_or(true),
        file: raw.file.get().map(|path| path.0.clone()),
        json: raw.format.get() != Some(&raw::LogFormat::Text),
        level: raw.level.get().map_or_else(|| "info".to_owned(), |level| level.0.clone()),
    }
}

fn trust(field: &Field<raw::Trust>) -> Trust {
    let Some(raw) = field.get() else { return Trust::default() };
    Trust {
        forwarded: raw.forwarded.get().into_iter().flatten().map(|network| network.value).collect(),
        send_forwarded: raw.send_forwarded.get() == Some(&true),
    }
}

fn tls(field: &Field<raw::Tls>) -> plan::TlsSettings {
    let only_13 = field.get().and_then(|tls| tls.min_version.get()) == Some(&raw::TlsVersion::V13);
    plan::TlsSettings { only_13 }
}

/// The paths of elements, as the plan holds them.
fn path(at: &At<super::leaf::FilePath>) -> PathBuf {
    at.value.0.clone()
}
