//! What the page shows each second: places and links, decisions and their durations, the last requests.
//!
//! Cost: a few sums and at most [`RECENT_MAX`] short lines, on the control thread.

use super::{Shared, faults};
use crate::base::clock;
use crate::central::fleet::Follower;
use crate::metrics::cells::DecisionLabel;
use crate::metrics::window::{Buckets, quantile};
use crate::proxy::Site;
use crate::upstream::{Cluster, Endpoint};
use serde_json::{Value, json};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Requests shown.
const RECENT_MAX: usize = 40;

/// Silence after which Central takes an edge for gone: three beats, and the way of one.
const SILENT: Duration = Duration::from_secs(4);

/// Everything.
pub(super) fn live(shared: &Shared) -> Value {
    let site = shared.site.load();
    let ready = shared.ready();
    let (recent, left_out) = shared.metrics.recent(RECENT_MAX);
    json!({
        "name": site.plan.own.name,
        "deployment": site.plan.own.deployment,
        "role": if shared.central.is_some() { "central" } else { "edge" },
        "version": env!("CARGO_PKG_VERSION"),
        "now_ms": clock::wall().as_millis() as u64,
        "uptime_ms": clock::now().duration_since(shared.started).as_millis() as u64,
        "ready": ready.is_ok(),
        "not_ready": ready.err().unwrap_or_default(),
        "draining": shared.draining.load(Ordering::Relaxed),
        "connections": shared.workers().connections(),
        "faults_permitted": site.plan.faults,
        "stopped": shared.central.as_ref().and_then(|central| faults::shown(central.stop(), clock::now())),
        "feed": feed(shared),
        "places": places(shared, &site),
        "decisions": decisions(shared),
        "recent": recent,
        "recent_left_out": left_out,
    })
}

/// Where this place stands in the feed: at an edge what it has applied of it, at Central its head.
fn feed(shared: &Shared) -> Value {
    if let Some(central) = &shared.central {
        return json!({ "following": false, "connected": true, "head": central.head(), "applied": central.head() });
    }
    let Some(link) = &shared.link else { return Value::Null };
    json!({
        "following": true,
        "connected": link.is_connected(),
        "head": link.head(),
        "applied": link.applied(),
        "lag_events": link.lag_seq(),
        "lag_ms": link.lag().map(millis),
        "trouble": link.trouble(),
    })
}

fn places(shared: &Shared, site: &Site) -> Vec<Value> {
    let local = site.plan.local.and_then(|id| site.live.cluster(id));
    let mut places: Vec<_> = local.map(|cluster| place("local", cluster)).into_iter().collect();
    if let Some(central) = &shared.central {
        places.extend(central.followers().into_iter().map(|(name, edge)| follower(&name, edge)));
        return places;
    }
    places.extend(site.live.central().map(|cluster| place("central", cluster)));
    let edges = site.plan.edges.list().into_iter().filter_map(|edge| site.live.edge(edge.id));
    places.extend(edges.map(|cluster| place("edge", cluster)));
    places
}

fn place(kind: &str, cluster: &Cluster) -> Value {
    let first = cluster.endpoints().first();
    let rtt = cluster.endpoints().iter().filter_map(|one| one.rtt().last()).min();
    json!({
        "name": cluster.name(),
        "kind": kind,
        "state": state(cluster),
        "endpoints": cluster.endpoints().iter().map(|one| one.authority()).collect::<Vec<_>>(),
        "rtt_us": rtt.map(|rtt| rtt.as_micros() as u64),
        "fault": first.and_then(|one| faults::shown(one.fault(), clock::now())),
        "active": cluster.active(),
        "requests": cluster.begun(),
    })
}

/// An edge as Central sees it: it is up as long as it says every second how far it is.
fn follower(name: &str, edge: Option<Follower>) -> Value {
    json!({
        "name": name,
        "kind": "edge",
        "state": if edge.is_some_and(|edge| edge.ago < SILENT) { "up" } else { "down" },
        "rtt_us": edge.and_then(|edge| edge.rtt_us),
        "applied": edge.map(|edge| edge.applied),
        "durable": edge.map(|edge| edge.durable),
        "applied_ago_ms": edge.map(|edge| millis(edge.ago)),
    })
}

/// `up`, `partly` (some addresses are down) or `down`.
fn state(cluster: &Cluster) -> &'static str {
    let is_up = |one: &&std::sync::Arc<Endpoint>| one.is_up() && !one.fault().is_cut(clock::now());
    match cluster.endpoints().iter().filter(is_up).count() {
        0 => "down",
        up if up < cluster.endpoints().len() => "partly",
        _ => "up",
    }
}

fn decisions(shared: &Shared) -> Value {
    let now = shared.metrics.look();
    let window = shared.window.lock().unwrap_or_else(PoisonError::into_inner);
    let since = window.since(&now);
    let rows = DecisionLabel::ALL.iter().zip(now.iter().zip(&since));
    let rows: Vec<_> = rows.map(|(label, (all, since))| row(*label, all, since)).collect();
    json!({ "seconds": window.seconds(), "rows": rows })
}

/// The counts of one decision since the start and in the window, and the window's quantiles in microseconds.
fn row(label: DecisionLabel, all: &Buckets, since: &Buckets) -> Value {
    let at = |share| quantile(since, share).map(|seconds| (seconds * 1e6) as u64);
    json!({
        "decision": label.as_str(),
        "total": all.iter().sum::<u64>(),
        "recent": since.iter().sum::<u64>(),
        "p50_us": at(0.5), "p90_us": at(0.9), "p99_us": at(0.99), "p999_us": at(0.999),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
