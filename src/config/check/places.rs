//! Where requests may go: clusters of this place, Central, other edges; and the key spaces.

use super::{Found, certs, path};
use crate::base::id::{ClusterId, EdgeId};
use crate::config::leaf::{Door, Name, Origin};
use crate::config::plan::{
    self, Balance, Cluster, Edge, Edges, HealthCheck, PeerDoor, Regime, Space, UnknownKey, UrlScheme,
};
use crate::config::problem::{Level, Place, Problem};
use crate::config::raw;
use crate::config::read::{At, Field, Named, OneOrMany};
use std::time::Duration;

/// Edges that only the configuration names get ids from here downwards (`base::id::EdgeId`).
const EDGE_ID_LAST: u16 = 4095;

/// Connections to one endpoint where nothing is written, per worker: above what one worker keeps busy.
const CONNECTIONS: usize = 256;

/// The clusters, and which of them is what.
#[derive(Debug, Default)]
pub(super) struct Clusters {
    pub(super) list: Vec<Cluster>,
    pub(super) local: Option<ClusterId>,
    /// `[local]` is written, readable or not.
    pub(super) local_written: bool,
    /// Central can be asked: a URL or origins are written, readable or not.
    pub(super) central_written: bool,
    /// `[central] url` is written, readable or not.
    pub(super) url_written: bool,
    /// `[central] feed` is a file, which takes no claims.
    pub(super) feed_is_file: bool,
}

impl Clusters {
    /// The cluster with this name.
    pub(super) fn named(&self, name: &str) -> Option<ClusterId> {
        self.list.iter().position(|cluster| cluster.name == name).map(id)
    }

    fn push(&mut self, cluster: Cluster) -> ClusterId {
        self.list.push(cluster);
        id(self.list.len() - 1)
    }
}

fn id(index: usize) -> ClusterId {
    ClusterId(u16::try_from(index).unwrap_or(u16::MAX))
}

/// `[local]` first, then `[clusters]`.
pub(super) fn clusters(
    local: &Field<raw::Cluster>,
    more: &Field<Named<Name, raw::Cluster>>,
    found: &mut Found<'_>,
) -> Clusters {
    let mut clusters = Clusters { local_written: local.is_written(), ..Clusters::default() };
    clusters.local = local.at().map(|at| clusters.push(cluster("local", &at.value, found)));
    for (name, at) in more.get().into_iter().flat_map(|named| &named.0) {
        if matches!(name.value.0.as_str(), "local" | "central") {
            let remedy = "`local` and `central` have sections of their own; choose another name";
            found.report(Problem::at(name.place, format!("`{}` is a name of its own", name.value.0)).help(remedy));
        }
        if clusters.list.len() >= usize::from(u16::MAX) {
            found.report(
                Problem::at(name.place, "there are more clusters than can be numbered").help("65535 is the most"),
            );
            break;
        }
        clusters.push(cluster(&name.value.0, &at.value, found));
    }
    clusters
}

fn cluster(name: &str, raw: &raw::Cluster, found: &mut Found<'_>) -> Cluster {
    if let Some(ca) = raw.ca.at() {
        certs::authority(ca, found);
    }
    Cluster {
        name: name.to_owned(),
        origins: origins(&raw.origins, found),
        balance: balance(&raw.balance, found),
        health: raw.health.get().and_then(|health| check(health, found)),
        ca: raw.ca.at().map(path),
        connections_max: raw.connections.get().map_or(CONNECTIONS, |count| count.0 as usize),
    }
}

fn origins(field: &Field<Vec<At<Origin>>>, found: &mut Found<'_>) -> Vec<plan::Url> {
    let Some(list) = field.at() else { return Vec::new() };
    // A list whose only element is unreadable was reported there.
    if found.sources.text(list.place).trim_matches(['[', ']']).trim().is_empty() {
        found.report(Problem::at(list.place, "a cluster needs an origin").help("such as [\"http://127.0.0.1:3000\"]"));
    }
    distinct(&list.value, |origin| &origin.0, "this origin", found);
    list.value.iter().map(|origin| origin.value.0.clone()).collect()
}

fn balance(field: &Field<raw::Balance>, found: &mut Found<'_>) -> Balance {
    match field.get() {
        None | Some(raw::Balance::P2c) => Balance::P2c,
        Some(raw::Balance::RoundRobin) => Balance::RoundRobin,
        Some(raw::Balance::LeastRequest | raw::Balance::Hash | raw::Balance::Ewma) => {
            let place = field.at().map_or(Place::default(), |at| at.place);
            found.later_at(place, Level::Note, "p2c is used instead");
            Balance::P2c
        }
    }
}

fn check(raw: &raw::Health, found: &mut Found<'_>) -> Option<HealthCheck> {
    let every = raw.every.get().map_or(Duration::from_secs(2), |time| time.0);
    let timeout = raw.timeout.get().map_or(Duration::from_secs(1), |time| time.0);
    for time in [&raw.every, &raw.timeout].into_iter().filter_map(Field::at) {
        if time.value.0 < Duration::from_millis(10) {
            found.report(
                Problem::at(time.place, "checks this often would be a load of their own")
                    .help("write at least \"10ms\""),
            );
        }
    }
    Some(HealthCheck {
        path: raw.path.get()?.0.clone(),
        every,
        timeout,
        rise: raw.rise.get().map_or(2, |count| count.0),
        fall: raw.fall.get().map_or(3, |count| count.0),
    })
}

/// `[central]` of an edge.
pub(super) fn central(
    field: &Field<raw::Central>,
    peer_field: &Field<raw::Peer>,
    peer: Option<&PeerDoor>,
    clusters: &mut Clusters,
    found: &mut Found<'_>,
) -> Option<plan::Central> {
    let at = field.at()?;
    let raw = &at.value;
    clusters.url_written = raw.url.is_written();
    clusters.central_written = raw.url.is_written() || raw.origins.is_written();
    if !clusters.central_written && !raw.feed.is_written() {
        found.report(
            Problem::at(at.place, "[central] names no door")
                .help("add `url`, or `origins` for an application without a Coordinator"),
        );
    }
    let doors = raw.url.get().map_or(&[][..], |doors| &doors.0);
    for door in doors {
        reach(door, raw.insecure.get() == Some(&true), found);
    }
    central_doors(&raw.url, found);
    if let Some(door) = doors.iter().find(|door| door.value.0.scheme == UrlScheme::Https) {
        let has_files = peer_field.get().is_some_and(|peer| peer.chain.is_written());
        if !has_files {
            let remedy = "add [peer] with `address`, `chain`, `key` and `ca`; `coordinator certs` makes the files";
            found.report(Problem::at(door.place, "Central's https door asks for this edge's certificate").help(remedy));
        }
    }
    let feed = raw.feed.get().map(|feed| feed.0.clone()).unwrap_or_default();
    clusters.feed_is_file = matches!(feed, plan::Feed::File(_));
    if let (plan::Feed::Nats(_), Some(at), false) = (&feed, raw.feed.at(), clusters.url_written) {
        let remedy = "add `url`: claims, look-ups and snapshots are Central's also where the stream is not";
        found.report(Problem::at(at.place, "a stream alone grants no homes").help(remedy));
    }
    let origins = raw.origins.is_written().then(|| {
        let origins = origins(&raw.origins, found);
        let name = "central".to_owned();
        clusters.push(Cluster {
            name,
            origins,
            balance: Balance::P2c,
            health: None,
            ca: None,
            connections_max: CONNECTIONS,
        })
    });
    let urls = doors.iter().map(|door| door.value.0.clone()).collect();
    Some(plan::Central { urls, feed, origins, tls: peer.and_then(|peer| peer.tls.clone()) })
}

/// A list of Central's doors names one, and none twice.
fn central_doors(field: &Field<OneOrMany<Door>>, found: &mut Found<'_>) {
    let Some(at) = field.at() else { return };
    let is_list_of_none = found.sources.text(at.place).trim_matches(['[', ']']).trim().is_empty();
    if at.value.0.is_empty() && is_list_of_none {
        let remedy = "such as [\"https://c1.example.com:8444\"]";
        found.report(Problem::at(at.place, "the list names no door of Central's").help(remedy));
    }
    distinct(&at.value.0, |door| &door.0, "this door of Central's", found);
}

/// Reports what a list names twice.
fn distinct<T>(list: &[At<T>], url: impl Fn(&T) -> &plan::Url, what: &str, found: &mut Found<'_>) {
    for (count, item) in list.iter().enumerate() {
        if let Some(first) = list[..count].iter().find(|first| url(&first.value) == url(&item.value)) {
            let problem = Problem::at(item.place, format!("{what} is listed twice"));
            found.report(problem.spot(first.place, "first here").help("remove one"));
        }
    }
}

/// Plain http to Central or a peer is for loopback, or said to be meant.
fn reach(door: &At<Door>, insecure: bool, found: &mut Found<'_>) {
    if door.value.0.scheme == UrlScheme::Http && !door.value.is_loopback() && !insecure {
        let wrong = "plain http between places would show users' data, and let anyone act as an edge";
        let remedy = "use https, or say `insecure = true` beside it";
        found.report(Problem::at(door.place, wrong).label("not a loopback address").help(remedy));
    }
}

/// The edge table as the configuration knows it, our own edge included.
pub(super) fn edges(field: &Field<Named<Name, raw::OtherEdge>>, own: Option<&str>, found: &mut Found<'_>) -> Edges {
    let written = field.get().map_or(&[][..], |named| &named.0);
    let mut known: Vec<(String, Option<plan::Url>)> = Vec::new();
    for (name, edge) in written {
        if name.value.0 == "central" {
            found.report(
                Problem::at(name.place, "an edge cannot be called `central`").help("that is Central's own name"),
            );
        }
        let door = edge.value.peer.at();
        if let Some(door) = door {
            reach(door, edge.value.insecure.get() == Some(&true), found);
        }
        known.push((name.value.0.clone(), door.map(|door| door.value.0.clone())));
    }
    if let Some(own) = own.filter(|own| !known.iter().any(|(name, _)| name == own)) {
        known.push((own.to_owned(), None));
    }
    known.sort_by(|a, b| a.0.cmp(&b.0));
    if let Some((name, _)) = written.first().filter(|_| known.len() > usize::from(EDGE_ID_LAST)) {
        found.report(Problem::at(name.place, "there are more edges than can be numbered").help("4095 is the most"));
    }
    let mut edges = Edges::default();
    for ((name, peer), id) in known.into_iter().zip((0..=EDGE_ID_LAST).rev()) {
        edges.own = edges.own.or((own == Some(name.as_str())).then_some(EdgeId(id)));
        edges.insert(Edge { id: EdgeId(id), name, peer });
    }
    edges
}

/// A file grants nothing, so a space whose keys are claimed could never get a new one.
pub(super) fn may_claim(field: &Field<Named<Name, raw::Homes>>, clusters: &Clusters, found: &mut Found<'_>) {
    let written = field.get().map_or(&[][..], |named| &named.0);
    for (_, at) in written.iter().filter(|_| clusters.feed_is_file) {
        if let (Some(raw::Regime::FirstTouch), Some(place)) = (at.value.claim.get(), at.value.claim.place()) {
            let remedy =
                "remove this and write new homes into the file, or follow Central: remove `feed` and add `url`";
            let wrong = "a file of homes is read only: it grants no claim at first touch";
            found.report(Problem::at(place, wrong).help(remedy));
        }
    }
}

/// The key spaces in the order of the file.
pub(super) fn spaces(field: &Field<Named<Name, raw::Homes>>) -> Vec<Space> {
    let written = field.get().map_or(&[][..], |named| &named.0);
    let space = |(name, at): &(At<Name>, At<raw::Homes>)| Space {
        name: name.value.0.clone(),
        claim: match at.value.claim.get() {
            Some(raw::Regime::FirstTouch) => Regime::FirstTouch,
            _ => Regime::Registration,
        },
        unknown: match at.value.unknown.get() {
            Some(raw::UnknownKey::Central) => UnknownKey::Central,
            _ => UnknownKey::Reject,
        },
        claims_per_minute: at.value.claims_per_minute.get().map_or(0, |count| count.0),
    };
    written.iter().map(space).collect()
}
