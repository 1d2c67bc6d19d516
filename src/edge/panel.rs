//! What the observe and admin doors show and do.

use super::{Shared, faults, live};
use crate::admin::{Ask, Later, Order, Panel, Refused, Unreleased};
use crate::base::clock;
use crate::central::Central;
use crate::central::fleet::Follower;
use crate::config::plan::{Plan, RouteSettings};
use crate::feed::status::LinkStatus;
use crate::homes::{Braked, Figures, Homes};
use crate::metrics::Page;
use crate::proxy::Site;
use crate::proxy::explain::{self, Explanation, Knowledge};
use crate::proxy::obtain;
use crate::upstream::Cluster;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The panel of a running place.
pub(crate) struct PanelOf(pub(crate) Arc<Shared>);

impl Panel for PanelOf {
    fn ready(&self) -> Result<(), Vec<String>> {
        self.0.ready()
    }

    fn metrics(&self) -> String {
        self.0.metrics.render()
    }

    fn status(&self) -> Value {
        status(&self.0)
    }

    fn live(&self) -> Value {
        live::live(&self.0)
    }

    fn faults(&self, order: Option<Order>) -> Result<Value, Refused> {
        faults::faults(&self.0, order)
    }

    fn explain(&self, ask: Ask) -> Result<String, String> {
        let head = explain::question(&ask.method, &ask.url, &ask.headers)?;
        let explanation = explained(&self.0, head);
        if ask.json {
            return serde_json::to_string_pretty(&explanation).map_err(|error| error.to_string());
        }
        Ok(explanation.to_string())
    }

    fn home(&self, space: &str, key: &str) -> Option<Value> {
        let homes = self.0.homes.as_ref()?;
        let site = self.0.site.load();
        let home = homes.look(space, key);
        let text = explain::describe(&site.plan, home);
        Some(json!({ "space": space, "key": key, "home": text, "seq": homes.cursor().seq }))
    }

    fn reload(&self) -> Later<Result<String, String>> {
        let shared = self.0.clone();
        Box::pin(async move { shared.reload() })
    }

    fn release(&self, id: &str) -> Result<Value, Unreleased> {
        let homes = self.0.homes.as_ref().ok_or(Unreleased::NoBrake)?;
        let named = u64::from_str_radix(id, 16).map_err(|_| homes.braked().0);
        match named.and_then(|id| homes.release_brake(id)) {
            Ok(braked) => Ok(json!({ "released": format!("{:016x}", braked.id), "changes": braked.changes })),
            Err(held) => Err(Unreleased::Other(held_instead(held))),
        }
    }

    fn drain(&self) -> Later<Value> {
        let shared = self.0.clone();
        Box::pin(async move { json!({ "drained": shared.drain().await }) })
    }
}

/// What the brake holds, for who named something else.
fn held_instead(held: Option<Braked>) -> String {
    match held {
        None => "nothing is held back".to_owned(),
        Some(Braked { id, changes, limit }) => format!(
            "{changes} homes would change within a minute, and {limit} may; if that is meant: coordinator release {id:016x}"
        ),
    }
}

fn explained(shared: &Shared, head: crate::message::RequestHead) -> Explanation {
    let site = shared.site.load();
    let home = |space: &str, key: &str| {
        shared.homes.as_ref().map_or(crate::home::Home::Unsynced, |homes| homes.look(space, key))
    };
    let reachable = |decision, settings: &RouteSettings| {
        obtain::cluster(&site, settings, decision).map(|cluster| cluster.is_reachable(clock::now()))
    };
    let endpoints = |decision, settings: &RouteSettings| {
        obtain::cluster(&site, settings, decision).map(|cluster| authorities(cluster)).unwrap_or_default()
    };
    let seq = shared.homes.as_ref().map(|homes| homes.cursor().seq);
    let can_ask = shared.link.as_ref().map(|link| link.is_up());
    let known = Knowledge {
        home: &home,
        reachable: &reachable,
        endpoints: &endpoints,
        seq,
        can_ask,
        by: explain::Source::Running,
    };
    explain::explain(&site.plan, head, &known)
}

fn authorities(cluster: &Cluster) -> Vec<String> {
    cluster.endpoints().iter().map(|endpoint| endpoint.authority().to_owned()).collect()
}

fn status(shared: &Shared) -> Value {
    let site = shared.site.load();
    let ready = shared.ready();
    json!({
        "name": site.plan.own.name,
        "deployment": site.plan.own.deployment,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_ms": clock::now().duration_since(shared.started).as_millis() as u64,
        "ready": ready.is_ok(),
        "not_ready": ready.err().unwrap_or_default(),
        "draining": shared.draining.load(Ordering::Relaxed),
        "connections": shared.workers().connections(),
        "routes": site.plan.settings.len(),
        "doors": shared.workers().doors().iter().map(|(door, at)| json!({ "door": super::name_of(*door), "address": at.to_string() })).collect::<Vec<_>>(),
        "clusters": site.live.all().map(|cluster| cluster_status(cluster)).collect::<Vec<_>>(),
        "edges": edges(&site.plan),
        "faults": faults::list(shared, &site),
        "feed": shared.link.as_ref().map(|link| feed(link, &site.plan)),
        "homes": shared.homes.as_ref().map(|homes| figures(&homes.figures())),
        "outbox": shared.outbox.as_ref().map(|outbox| outbox.show()),
        "publish": shared.publish.as_ref().map(|publish| publish.show()),
        "brake": shared.homes.as_ref().map(|homes| brake(homes)),
        "central": shared.central.as_ref().map(|central| json!({ "feed": central.feed_id(), "term": central.term(), "head": central.head(), "awaited": central.awaited() })),
    })
}

fn feed(link: &LinkStatus, plan: &Plan) -> Value {
    json!({
        "source": plan.central.as_ref().map(|central| central.feed.to_string()),
        "connected": link.is_connected(),
        "feed": link.feed(),
        "head": link.head(),
        "applied": link.applied(),
        "durable": link.durable(),
        "lag_events": link.lag_seq(),
        "lag_ms": link.lag().map(|lag| lag.as_millis() as u64),
        "connects": link.connects(),
        "snapshots": link.snapshots(),
        "poisoned": link.poisoned(),
        "term": link.obeyed(),
        "digest_ok": link.is_equal(),
        "digest_mismatches": link.mismatches(),
        "alarm": link.alarm().map(|alarm| format!("{alarm:?}")),
        "trouble": link.trouble(),
    })
}

fn brake(homes: &Homes) -> Value {
    let (braked, stops) = homes.braked();
    let id = braked.map(|it| format!("{:016x}", it.id));
    json!({ "on": braked.is_some(), "stops": stops, "id": id, "changes": braked.map(|it| it.changes), "limit": braked.map(|it| it.limit) })
}

fn figures(figures: &Figures) -> Value {
    json!({
        "map_keys": figures.map_keys,
        "owned": figures.owned,
        "provisional": figures.provisional,
        "closed": figures.closed,
        "clashes": figures.clashes,
        "outbox": figures.outbox,
        "overlay": figures.overlay,
        "term": figures.term,
        "seq": figures.seq,
        "kept_out": figures.kept_out,
        "purges": figures.purges,
        "ledger_lost": figures.ledger_lost,
        "cold": figures.is_cold,
        "set_aside": figures.set_aside,
    })
}

fn cluster_status(cluster: &Cluster) -> Value {
    let endpoints = cluster.endpoints().iter();
    let endpoints: Vec<_> = endpoints
        .map(|one| json!({ "address": one.authority(), "up": one.is_up(), "in_flight": one.in_flight() }))
        .collect();
    json!({ "name": cluster.name(), "reachable": cluster.is_reachable(clock::now()), "endpoints": endpoints })
}

fn edges(plan: &Plan) -> Vec<Value> {
    let own = plan.edges.own;
    let list = plan.edges.list();
    list.iter()
        .map(|edge| json!({ "name": edge.name, "own": Some(edge.id) == own, "peer": edge.peer.as_ref().map(ToString::to_string) }))
        .collect()
}

/// The round trips of links.
fn links(site: &Site, page: &mut Page<'_>) -> std::fmt::Result {
    let all = site.live.links().flat_map(|link| link.endpoints().iter().map(move |one| (link.name(), one)));
    let known: Vec<_> = all.filter_map(|(name, one)| Some((name, one.authority(), one.rtt().last()?))).collect();
    let labels: Vec<_> = known.iter().map(|(name, at, _)| [("place", *name), ("endpoint", *at)]).collect();
    let lines: Vec<_> = labels.iter().zip(&known).map(|(labels, (.., rtt))| (&labels[..], rtt.as_secs_f64())).collect();
    page.gauge("coordinator_link_rtt_seconds", "From the last PING to its PONG, by place", &lines)
}

/// How long the certificates of our doors are good for. Those of `[peer]` are also what other places are called with.
fn certificates(shared: &Shared, page: &mut Page<'_>) -> std::fmt::Result {
    let doors = shared.doors.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let mut known: Vec<(String, String, f64)> = Vec::new();
    for door in &doors {
        for (file, end) in door.tls.iter().flat_map(|tls| tls.ends()) {
            let line = (super::name_of(door.door), file.display().to_string());
            // Two doors of one kind may share a file; a page has each line once.
            if !known.iter().any(|(kind, path, _)| *kind == line.0 && *path == line.1) {
                known.push((line.0, line.1, end.as_secs_f64() - clock::wall().as_secs_f64()));
            }
        }
    }
    let labels: Vec<_> =
        known.iter().map(|(door, file, _)| [("door", door.as_str()), ("file", file.as_str())]).collect();
    let lines: Vec<_> = labels.iter().zip(&known).map(|(labels, (.., left))| (&labels[..], *left)).collect();
    page.gauge(
        "coordinator_certificate_expiry_seconds",
        "Until a certificate in use expires, by file; below 0 it has",
        &lines,
    )
}

/// Adds the numbers that are computed at the time of looking.
pub(crate) fn register(shared: &Arc<Shared>) {
    let weak = Arc::downgrade(shared);
    shared.metrics.extra(move |page| weak.upgrade().map_or(Ok(()), |shared| write(&shared, page)));
}

/// How far the edges are, as Central was told.
fn fleet(central: &Central, page: &mut Page<'_>) -> std::fmt::Result {
    let (oldest, slowest, gone) = central.reach();
    page.gauge(
        "coordinator_central_oldest_events",
        "The oldest event from which the stream can start",
        &[(&[], oldest as f64)],
    )?;
    let slowest: Vec<_> = slowest.map(|seq| (&[][..], seq as f64)).into_iter().collect();
    page.gauge("coordinator_central_slowest_events", "The event that every registered edge has on disk", &slowest)?;
    page.counter(
        "coordinator_central_gone_edges",
        "Times that a registered edge stood before the oldest event and was sent to a snapshot",
        &[(&[], gone)],
    )?;
    let all = central.followers();
    let said: Vec<_> = all.iter().filter_map(|(name, edge)| Some((name.as_str(), (*edge)?))).collect();
    let labels: Vec<_> = said.iter().map(|(name, _)| [("edge", *name)]).collect();
    let lines = |of: fn(&Follower) -> u64| -> Vec<(&[(&str, &str)], f64)> {
        labels.iter().zip(&said).map(|(labels, (_, edge))| (&labels[..], of(edge) as f64)).collect()
    };
    page.gauge(
        "coordinator_central_edge_applied_events",
        "The last event that an edge has applied",
        &lines(|edge| edge.applied),
    )?;
    page.gauge(
        "coordinator_central_edge_durable_events",
        "The last event that an edge has on disk",
        &lines(|edge| edge.durable),
    )
}

/// What Central relays beside its door.
fn relays(shared: &Shared, page: &mut Page<'_>) -> std::fmt::Result {
    if let Some(outbox) = &shared.outbox {
        let up = f64::from(u8::from(outbox.is_connected()));
        page.gauge("coordinator_outbox_up", "Whether the outbox is taken over", &[(&[], up)])?;
        page.gauge(
            "coordinator_outbox_lag_bytes",
            "The database's log that was not yet looked at",
            &[(&[], outbox.lag_bytes() as f64)],
        )?;
        let rows = [(&[("outcome", "taken")][..], outbox.taken()), (&[("outcome", "refused")][..], outbox.refused())];
        page.counter("coordinator_outbox_rows", "Rows of the outbox, by what came of them", &rows)?;
    }
    if let Some(publish) = &shared.publish {
        let up = f64::from(u8::from(publish.is_connected()));
        page.gauge("coordinator_publish_up", "Whether NATS takes the feed", &[(&[], up)])?;
        let head = shared.central.as_ref().map_or(0, |central| central.head());
        let lag = head.saturating_sub(publish.published());
        page.gauge("coordinator_publish_lag_events", "Events that NATS has not yet", &[(&[], lag as f64)])?;
    }
    Ok(())
}

fn write(shared: &Shared, page: &mut Page<'_>) -> std::fmt::Result {
    let site = shared.site.load();
    let up: Vec<_> = site
        .live
        .all()
        .flat_map(|cluster| cluster.endpoints().iter().map(move |one| (cluster.name().to_owned(), one.clone())))
        .collect();
    let labels: Vec<_> =
        up.iter().map(|(name, one)| [("cluster", name.as_str()), ("endpoint", one.authority())]).collect();
    let lines: Vec<_> =
        labels.iter().zip(&up).map(|(labels, (_, one))| (&labels[..], f64::from(u8::from(one.is_up())))).collect();
    page.gauge("coordinator_endpoint_up", "Whether an endpoint is believed up", &lines)?;
    links(&site, page)?;
    certificates(shared, page)?;
    faults::write(shared, &site, page)?;
    page.gauge(
        "coordinator_ready",
        "Whether requests are welcome",
        &[(&[], f64::from(u8::from(shared.ready().is_ok())))],
    )?;
    let reloads = [("taken", &shared.reloads), ("refused", &shared.reloads_refused)];
    let labels = reloads.map(|(outcome, _)| [("outcome", outcome)]);
    let lines: Vec<_> =
        labels.iter().zip(reloads).map(|(labels, (_, count))| (&labels[..], count.load(Ordering::Relaxed))).collect();
    page.counter("coordinator_config_reloads", "Reloads of the configuration, by what came of them", &lines)?;
    if let Some(log) = shared.log.load().as_ref() {
        page.counter(
            "coordinator_access_log_dropped_lines",
            "Access lines lost because the log was slower than the requests",
            &[(&[], log.dropped())],
        )?;
    }
    if let Some(link) = &shared.link {
        page.gauge("coordinator_feed_up", "Whether the feed is followed", &[(&[], f64::from(u8::from(link.is_up())))])?;
        page.gauge(
            "coordinator_feed_lag_events",
            "Events between Central's head and our cursor",
            &[(&[], link.lag_seq() as f64)],
        )?;
        page.counter(
            "coordinator_feed_digest_mismatches",
            "Times that the home map was found not to be Central's at one event",
            &[(&[], link.mismatches())],
        )?;
        page.counter("coordinator_feed_poison_events", "Events that could not be read", &[(&[], link.poisoned())])?;
        page.counter(
            "coordinator_feed_superseded_frames",
            "Frames of a term that another has followed, passed over",
            &[(&[], link.passed_over())],
        )?;
    }
    if let Some(central) = &shared.central {
        let awaited = central.awaited().map_or(0, |awaited| awaited.len());
        page.gauge("coordinator_central_term", "The term of Central", &[(&[], f64::from(central.term()))])?;
        page.gauge(
            "coordinator_central_awaited_edges",
            "Edges whose reports a restored Central awaits before it grants anything",
            &[(&[], awaited as f64)],
        )?;
        fleet(central, page)?;
    }
    relays(shared, page)?;
    if let Some(homes) = &shared.homes {
        let figures = homes.figures();
        page.gauge("coordinator_homes_keys", "Keys in the home map", &[(&[], figures.map_keys as f64)])?;
        page.gauge("coordinator_homes_owned_keys", "Keys that this edge owns", &[(&[], figures.owned as f64)])?;
        page.gauge(
            "coordinator_homes_outbox_claims",
            "Registrations that await Central",
            &[(&[], figures.outbox as f64)],
        )?;
        page.counter(
            "coordinator_feed_purges",
            "Cache tags that were purged; there is no cache yet, so they are only counted",
            &[(&[], figures.purges)],
        )?;
        let (braked, stops) = homes.braked();
        page.gauge(
            "coordinator_homes_braked",
            "Whether a mass change of homes is held back until an operator releases it",
            &[(&[], f64::from(u8::from(braked.is_some())))],
        )?;
        page.counter(
            "coordinator_homes_brake_stops",
            "Times that the brake on mass changes has stopped",
            &[(&[], stops)],
        )?;
        let asked = homes.siblings_asked();
        let labels = asked.map(|(outcome, _)| [("outcome", outcome)]);
        let lines: Vec<_> = labels.iter().zip(asked).map(|(labels, (_, count))| (&labels[..], count)).collect();
        page.counter(
            "coordinator_siblings_asked",
            "Keys unknown here that this edge's other instances were asked for, by what came of it",
            &lines,
        )?;
        page.gauge("coordinator_feed_cursor_events", "The last event applied", &[(&[], homes.cursor().seq as f64)])?;
        page.gauge(
            "coordinator_feed_durable_events",
            "The last event that is on disk for good",
            &[(&[], homes.durable_seq() as f64)],
        )?;
    }
    Ok(())
}
