//! One address that is called, with what is believed of it: shared by all threads, all of it atomics or brief locks.

use super::health::{Breaker, Checks};
use crate::base::fault::Fault;
use crate::config::plan::{HealthCheck, Url, UrlScheme};
use crate::tls::client::Client;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long resolved addresses are used before the name is looked up again.
const ADDRESSES_FRESH: Duration = Duration::from_secs(10);

/// What kind of server an endpoint is; decides protocol, windows and breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A server of the application.
    Origin,
    /// Another edge or Central.
    Link,
}

/// Which protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Http1,
    Http2,
    /// What TLS negotiates.
    Negotiated,
}

/// What makes two endpoints the same over a reload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Spec {
    pub(super) kind: Kind,
    pub(super) url: Url,
    pub(super) trust: Option<crate::tls::client::Trust>,
    pub(super) connections_max: usize,
}

/// One address that is called.
pub struct Endpoint {
    id: usize,
    spec: Spec,
    authority: Arc<str>,
    tls: Result<Option<Arc<Client>>, &'static str>,
    in_flight: AtomicUsize,
    passes: AtomicBool,
    checks: Mutex<Checks>,
    pub(super) breaker: Breaker,
    addresses: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
    fault: Arc<Fault>,
    rtt: Arc<Rtt>,
}

/// How long the last round trip to an endpoint took.
#[derive(Debug, Default)]
pub struct Rtt {
    /// In microseconds; 0 = none yet.
    micros: AtomicU64,
}

impl Rtt {
    /// The last one; none before the first.
    pub fn last(&self) -> Option<Duration> {
        Some(self.micros.load(Ordering::Relaxed)).filter(|micros| *micros > 0).map(Duration::from_micros)
    }

    fn took(&self, time: Duration) {
        self.micros.store(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }
}

impl Endpoint {
    pub(super) fn new(spec: Spec, tls: Result<Option<Arc<Client>>, &'static str>) -> Endpoint {
        static IDS: AtomicUsize = AtomicUsize::new(0);
        Endpoint {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            authority: spec.url.authority().into(),
            spec,
            tls,
            in_flight: AtomicUsize::new(0),
            passes: AtomicBool::new(true),
            checks: Mutex::default(),
            breaker: Breaker::default(),
            addresses: Mutex::default(),
            fault: Arc::default(),
            rtt: Arc::default(),
        }
    }

    /// Its number, unique in the process: what `pick` takes as tried.
    pub fn id(&self) -> usize {
        self.id
    }

    /// `host:port`, for logs and for `host = "origin"`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The same, to be kept.
    pub fn shared_authority(&self) -> Arc<str> {
        Arc::clone(&self.authority)
    }

    /// Where it is.
    pub fn url(&self) -> &Url {
        &self.spec.url
    }

    /// What kind of server it is.
    pub fn kind(&self) -> Kind {
        self.spec.kind
    }

    /// Requests in flight, over all workers.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether it is believed up: by its checks, and by how connecting to it went.
    pub fn is_up(&self) -> bool {
        self.passes_checks() && !self.breaker.is_open()
    }

    /// The faults on purpose on the way there.
    pub fn fault(&self) -> &Arc<Fault> {
        &self.fault
    }

    /// From the last PING to its PONG, on any worker's HTTP/2 connection. A PONG may have queued behind a large body.
    pub fn rtt(&self) -> &Arc<Rtt> {
        &self.rtt
    }

    pub(super) fn answered_ping(&self, took: Duration) {
        self.rtt.took(took);
    }

    /// Whether active checks, where there are any, call it healthy.
    pub fn passes_checks(&self) -> bool {
        self.passes.load(Ordering::Relaxed)
    }

    /// Takes the result of an active check; the new verdict if it changed.
    pub(super) fn checked(&self, healthy: bool, check: &HealthCheck) -> Option<bool> {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = checks.see(healthy, check.rise, check.fall);
        if let Some(up) = verdict {
            self.passes.store(up, Ordering::Relaxed);
        }
        verdict
    }

    /// Forgets what active checks said: there are none any more.
    pub(super) fn unchecked(&self) {
        *self.checks.lock().unwrap_or_else(PoisonError::into_inner) = Checks::default();
        self.passes.store(true, Ordering::Relaxed);
    }

    pub(super) fn spec(&self) -> &Spec {
        &self.spec
    }

    pub(super) fn tls(&self) -> Result<Option<&Arc<Client>>, &'static str> {
        self.tls.as_ref().map(Option::as_ref).map_err(|why| *why)
    }

    /// HTTP/1.1 for plain origins; links always speak HTTP/2, whose windows hold back bodies until ownership is known.
    pub(super) fn speaks(&self) -> Speaks {
        match (self.spec.kind, self.spec.url.scheme) {
            (Kind::Link, _) | (_, UrlScheme::H2c) => Speaks::Http2,
            (_, UrlScheme::Http | UrlScheme::Unix) => Speaks::Http1,
            (_, UrlScheme::Https) => Speaks::Negotiated,
        }
    }

    /// Addresses resolved not long ago.
    pub(super) fn addresses(&self, now: Instant) -> Option<Vec<SocketAddr>> {
        let known = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().filter(|(at, _)| now.duration_since(*at) < ADDRESSES_FRESH).map(|(_, all)| all.clone())
    }

    /// The addresses resolved last, however long ago: better than none while names cannot be resolved.
    pub(super) fn addresses_last(&self) -> Option<Vec<SocketAddr>> {
        let known = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().map(|(_, all)| all.clone())
    }

    pub(super) fn resolved(&self, now: Instant, all: Vec<SocketAddr>) {
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, all));
    }
}

/// A request in flight at an endpoint, counted until dropped.
pub(super) struct InFlight(Arc<Endpoint>);

impl InFlight {
    pub(super) fn enter(endpoint: &Arc<Endpoint>) -> InFlight {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(endpoint))
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
