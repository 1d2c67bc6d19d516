//! A named set of endpoints, and the choice among them.
//!
//! p2c: of two different endpoints drawn at random the less loaded one, ties at random. Source: Mitzenmacher, "The
//! Power of Two Choices in Randomized Load Balancing" (1996).

use super::budget;
use super::endpoint::{Endpoint, Kind};
use crate::config::plan::{Balance, HealthCheck};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// A named set of endpoints.
pub struct Cluster {
    name: Arc<str>,
    kind: Kind,
    balance: Balance,
    health: Option<HealthCheck>,
    endpoints: Vec<Arc<Endpoint>>,
    counts: Arc<Counts>,
}

/// What a cluster counts; shared with the cluster that a reload puts in its place.
#[derive(Default)]
struct Counts {
    turn: AtomicUsize,
    begun: AtomicU64,
    /// Of those that have begun; the others are active.
    ended: AtomicU64,
    retrying: AtomicUsize,
}

/// A request that counts as active at a cluster until dropped.
pub struct Active<'a>(&'a Counts);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Release);
    }
}

/// A retry in flight, counted until dropped.
pub struct Retrying(Arc<Counts>);

impl Drop for Retrying {
    fn drop(&mut self) {
        self.0.retrying.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Cluster {
    pub(super) fn new(
        name: &str,
        kind: Kind,
        balance: Balance,
        health: Option<HealthCheck>,
        endpoints: Vec<Arc<Endpoint>>,
        old: Option<&Cluster>,
    ) -> Cluster {
        if health.is_none() {
            endpoints.iter().for_each(|endpoint| endpoint.unchecked());
        }
        let counts = old.map_or_else(Arc::default, |old| Arc::clone(&old.counts));
        Cluster { name: name.into(), kind, balance, health, endpoints, counts }
    }

    /// Its name: that of the configuration, `central`, or the name of an edge.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same, to be kept by a record.
    pub fn shared_name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// Its endpoints.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Its active checks.
    pub fn health(&self) -> Option<&HealthCheck> {
        self.health.as_ref()
    }

    /// Requests that are active.
    pub fn active(&self) -> usize {
        // In this order: whatever has ended by now has begun.
        let ended = self.counts.ended.load(Ordering::Acquire);
        self.counts.begun.load(Ordering::Relaxed).saturating_sub(ended) as usize
    }

    /// Requests that have been sent here so far, each once.
    pub fn begun(&self) -> u64 {
        self.counts.begun.load(Ordering::Relaxed)
    }

    /// Whether a request may be tried here now. Of origins only checks can say no; a link also when it is down.
    pub fn is_reachable(&self, now: Instant) -> bool {
        let open = |endpoint: &Arc<Endpoint>| self.kind == Kind::Origin || endpoint.breaker.may_try(now);
        self.endpoints.iter().any(|endpoint| endpoint.passes_checks() && open(endpoint))
    }

    /// The one endpoint there is, if it is up: what `pick` would come to, tried or not.
    pub fn only(&self) -> Option<&Arc<Endpoint>> {
        match &self.endpoints[..] {
            [only] if only.is_up() => Some(only),
            _ => None,
        }
    }

    /// An endpoint for an attempt: one that is not in `tried` (ids) if there is one. `None` = nobody may be tried.
    ///
    /// Endpoints that are down by failed connects get a turn now and then. When all are, a cluster of origins goes on
    /// as if none were: the last endpoint is never ejected.
    pub fn pick(&self, tried: &[usize], random: u64, now: Instant) -> Option<&Arc<Endpoint>> {
        let fresh = |endpoint: &Endpoint| !tried.contains(&endpoint.id());
        let origin = self.kind == Kind::Origin;
        self.turn(&fresh, now)
            .or_else(|| self.choose(random, |endpoint| endpoint.is_up() && fresh(endpoint)))
            .or_else(|| self.choose(random, Endpoint::is_up))
            .or_else(|| self.choose(random, |endpoint| origin && endpoint.passes_checks() && fresh(endpoint)))
            .or_else(|| self.choose(random, |endpoint| origin && endpoint.passes_checks()))
    }

    /// One that is down by failed connects and whose turn it is.
    fn turn(&self, fresh: &impl Fn(&Endpoint) -> bool, now: Instant) -> Option<&Arc<Endpoint>> {
        let alone = self.kind == Kind::Link || self.endpoints.len() == 1;
        self.endpoints.iter().find(|endpoint| {
            endpoint.breaker.is_open()
                && endpoint.passes_checks()
                && fresh(endpoint)
                && endpoint.breaker.take_turn(now, alone)
        })
    }

    /// One of those that `fit`, by the policy.
    fn choose(&self, random: u64, fit: impl Fn(&Endpoint) -> bool) -> Option<&Arc<Endpoint>> {
        let fitting = || self.endpoints.iter().filter(|endpoint| fit(endpoint));
        let count = fitting().count();
        if count < 2 {
            return fitting().next();
        }
        if self.balance == Balance::RoundRobin {
            let turn = self.counts.turn.fetch_add(1, Ordering::Relaxed);
            return fitting().nth(turn % count);
        }
        let first = (random & 0xffff) as usize % count;
        let second = (first + 1 + ((random >> 16) & 0xffff) as usize % (count - 1)) % count;
        let (first, second) = (fitting().nth(first)?, fitting().nth(second)?);
        let take_first = match first.in_flight().cmp(&second.in_flight()) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Greater => false,
            std::cmp::Ordering::Equal => random >> 63 == 0,
        };
        Some(if take_first { first } else { second })
    }

    /// Counts a request as active: the measure of the retry budget. One per request, whatever its attempts.
    pub fn begin(&self) -> Active<'_> {
        self.counts.begun.fetch_add(1, Ordering::Relaxed);
        Active(&self.counts)
    }

    /// Leave to retry, within `percent` of the active requests and never fewer than 3.
    pub fn retry(&self, percent: u32) -> Option<Retrying> {
        let active = self.active();
        let before = self.counts.retrying.fetch_add(1, Ordering::Relaxed);
        let leave = Retrying(Arc::clone(&self.counts));
        budget::allows(active, before, percent).then_some(leave)
    }

    /// Whether a reload that asks for this may keep it.
    pub(super) fn is(&self, name: &str, balance: Balance, health: Option<&HealthCheck>) -> bool {
        *self.name == *name && self.balance == balance && self.health.as_ref() == health
    }
}
