//! All clusters of a plan with what is believed of them.
//!
//! Invariant: what a new plan does not change is the same object as before, so that health, counters and connections
//! outlive reloads and changes of the edge table.

use super::cluster::Cluster;
use super::endpoint::{Endpoint, Kind, Spec};
use crate::base::id::{ClusterId, EdgeId};
use crate::config::plan::{Balance, Cluster as Planned, HealthCheck, MutualTls, Plan, Url, UrlScheme};
use crate::tls::client::{Alpn, Client, Trust};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Connections to one link, per worker; HTTP/2 needs one, this is room for its successors.
const LINK_CONNECTIONS: usize = 4;

/// The live state of all clusters, shared by all threads.
pub struct Live {
    clusters: Vec<Arc<Cluster>>,
    central: Option<Arc<Cluster>>,
    edges: HashMap<EdgeId, Arc<Cluster>>,
    clients: HashMap<Trust, Arc<Client>>,
}

impl Live {
    /// The clusters of `plan`; what did not change keeps its state from `old`.
    ///
    /// A certificate file that cannot be read makes the calls that need it fail, until [`Live::reload_certificates`].
    /// Cost: reads the files of what is new.
    pub fn build(plan: &Plan, old: Option<&Live>) -> Live {
        let mut builder = Builder { old, endpoints: old.map(endpoints).unwrap_or_default(), clients: HashMap::new() };
        let clusters = plan.clusters.iter().map(|cluster| builder.origins(cluster)).collect();
        let central = plan.central.as_ref().filter(|central| !central.urls.is_empty());
        let central = central.map(|central| {
            let trust = central.tls.as_ref().map(|tls| deployment(tls, &plan.own.deployment, "central"));
            let kept = old.and_then(|old| old.central.as_ref());
            builder.links("central", &central.urls, trust, kept)
        });
        let own = |id: EdgeId, name: &str| plan.edges.own == Some(id) || plan.own.name == name;
        let tls = plan.peer.as_ref().and_then(|door| door.tls.as_ref());
        let kept: HashMap<_, _> =
            old.iter().flat_map(|old| old.edges.values().map(|edge| (edge.name(), edge))).collect();
        let mut edges = HashMap::new();
        for edge in plan.edges.list().into_iter().filter(|edge| !own(edge.id, &edge.name)) {
            let Some(url) = &edge.peer else { continue };
            let trust = tls.map(|tls| deployment(tls, &plan.own.deployment, &format!("edge/{}", edge.name)));
            let kept = kept.get(edge.name.as_str()).copied();
            edges.insert(edge.id, builder.links(&edge.name, std::slice::from_ref(url), trust, kept));
        }
        Live { clusters, central, edges, clients: builder.clients }
    }

    /// A cluster of the plan that this was built from.
    pub fn cluster(&self, id: ClusterId) -> Option<&Arc<Cluster>> {
        self.clusters.get(id.index())
    }

    /// Central's doors.
    pub fn central(&self) -> Option<&Arc<Cluster>> {
        self.central.as_ref()
    }

    /// The peer door of another edge.
    pub fn edge(&self, id: EdgeId) -> Option<&Arc<Cluster>> {
        self.edges.get(&id)
    }

    /// Central's doors and those of the other edges.
    pub fn links(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.central.iter().chain(self.edges.values())
    }

    /// Every cluster.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.clusters.iter().chain(&self.central).chain(self.edges.values())
    }

    /// What Central's doors are called with on the control thread; `None` where they are plain, or the files are broken.
    pub fn central_tls(&self) -> Option<Arc<rustls::ClientConfig>> {
        let trust = self.central.as_ref()?.endpoints().iter().find_map(|endpoint| endpoint.spec().trust.as_ref())?;
        self.clients.get(trust)?.config(Alpn::Either).ok()
    }

    /// Reads certificate files again; connections opened from now on use what changed. Gives what could not be read.
    /// Cost: file reads; for the control thread.
    pub fn reload_certificates(&self) -> Vec<String> {
        self.clients.values().filter_map(|client| client.reload().err()).collect()
    }
}

fn endpoints(old: &Live) -> HashMap<Spec, Vec<Arc<Endpoint>>> {
    let mut all: HashMap<_, Vec<_>> = HashMap::new();
    for endpoint in old.all().flat_map(|cluster| cluster.endpoints()) {
        all.entry(endpoint.spec().clone()).or_default().push(Arc::clone(endpoint));
    }
    all
}

fn deployment(files: &MutualTls, deployment: &str, path: &str) -> Trust {
    Trust::Deployment { files: files.clone(), name: format!("spiffe://{deployment}/{path}") }
}

struct Builder<'a> {
    old: Option<&'a Live>,
    /// Endpoints that the old state holds and the new one has not yet taken over.
    endpoints: HashMap<Spec, Vec<Arc<Endpoint>>>,
    clients: HashMap<Trust, Arc<Client>>,
}

impl Builder<'_> {
    fn origins(&mut self, planned: &Planned) -> Arc<Cluster> {
        let trust = |url: &Url| match (url.scheme, planned.ca.as_deref().map(Path::to_path_buf)) {
            (UrlScheme::Https, Some(ca)) => Some(Trust::Private(ca)),
            (UrlScheme::Https, None) => Some(Trust::System),
            _ => None,
        };
        let specs = planned.origins.iter().map(|url| Spec {
            kind: Kind::Origin,
            url: url.clone(),
            trust: trust(url),
            connections_max: planned.connections_max,
        });
        let kept = self.old.and_then(|old| old.clusters.iter().find(|cluster| cluster.name() == planned.name));
        self.cluster(&planned.name, planned.balance, planned.health.as_ref(), specs.collect(), kept)
    }

    fn links(&mut self, name: &str, urls: &[Url], trust: Option<Trust>, kept: Option<&Arc<Cluster>>) -> Arc<Cluster> {
        let specs = urls.iter().map(|url| Spec {
            kind: Kind::Link,
            url: url.clone(),
            trust: if url.scheme == UrlScheme::Https { trust.clone() } else { None },
            connections_max: LINK_CONNECTIONS,
        });
        self.cluster(name, Balance::P2c, None, specs.collect(), kept)
    }

    fn cluster(
        &mut self,
        name: &str,
        balance: Balance,
        health: Option<&HealthCheck>,
        specs: Vec<Spec>,
        kept: Option<&Arc<Cluster>>,
    ) -> Arc<Cluster> {
        let same = |cluster: &&Arc<Cluster>| {
            let held = cluster.endpoints().iter().map(|endpoint| endpoint.spec());
            cluster.is(name, balance, health) && held.eq(specs.iter())
        };
        let unchanged = kept.filter(same).cloned();
        let kind = specs.first().map_or(Kind::Origin, |spec| spec.kind);
        let endpoints: Vec<_> = specs.into_iter().map(|spec| self.endpoint(spec, kept)).collect();
        unchanged.unwrap_or_else(|| {
            let kept = kept.map(Arc::as_ref);
            Arc::new(Cluster::new(name, kind, balance, health.cloned(), endpoints, kept))
        })
    }

    /// The endpoint of the cluster's old self with the same spec, or a new one.
    fn endpoint(&mut self, spec: Spec, kept: Option<&Arc<Cluster>>) -> Arc<Endpoint> {
        let tls = self.client(&spec);
        let ours = |endpoint: &Arc<Endpoint>| {
            kept.is_some_and(|kept| kept.endpoints().iter().any(|held| Arc::ptr_eq(held, endpoint)))
        };
        let held = self.endpoints.get_mut(&spec).and_then(|held| {
            let at = held.iter().position(ours)?;
            Some(held.swap_remove(at))
        });
        held.unwrap_or_else(|| Arc::new(Endpoint::new(spec, tls)))
    }

    fn client(&mut self, spec: &Spec) -> Result<Option<Arc<Client>>, &'static str> {
        let trust = match (&spec.trust, spec.url.scheme) {
            (Some(trust), _) => trust,
            (None, UrlScheme::Https) => return Err("there is no certificate of [peer] to call https with"),
            (None, _) => return Ok(None),
        };
        let old = self.old;
        let client = self.clients.entry(trust.clone()).or_insert_with(|| {
            let kept = old.and_then(|old| old.clients.get(trust)).cloned();
            kept.unwrap_or_else(|| Arc::new(Client::new(trust.clone())))
        });
        Ok(Some(Arc::clone(client)))
    }
}
