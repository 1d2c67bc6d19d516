//! Active health checks, on the control thread: a GET over the same client that carries requests.

use super::cluster::Cluster;
use super::endpoint::Endpoint;
use super::live::Live;
use super::{Outgoing, Shaped, Upstream};
use crate::base::snapshot::Reader;
use crate::body::Body;
use crate::config::plan::{HealthCheck, Timeouts};
use crate::message::{Method, Name, RequestHead, Scheme};
use crate::record::Record;
use crate::wire::HeadLimits;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{AbortHandle, JoinSet};

/// Bounds of the heads of answers to checks.
const LIMITS: HeadLimits = HeadLimits { head: 16 << 10, fields: 100, uri: 16 << 10 };

/// Checks all endpoints of clusters with `health` until dropped; follows the plan as `Live` is replaced.
///
/// To be polled inside the control thread's `LocalRuntime`.
pub async fn run(mut live: Reader<Live>) {
    let upstream = Upstream::new(LIMITS);
    let mut tasks = JoinSet::new();
    let mut running: HashMap<(usize, usize), AbortHandle> = HashMap::new();
    loop {
        let wanted = wanted(live.load());
        running.retain(|key, task| {
            let stays = wanted.contains_key(key);
            if !stays {
                task.abort();
            }
            stays
        });
        for (key, (cluster, endpoint)) in wanted {
            running.entry(key).or_insert_with(|| tasks.spawn_local(watch(Rc::clone(&upstream), cluster, endpoint)));
        }
        if !live.changed().await {
            return;
        }
        while tasks.try_join_next().is_some() {}
    }
}

/// What is to be checked, by endpoint and by the cluster object that says how.
fn wanted(live: &Live) -> HashMap<(usize, usize), (Arc<Cluster>, Arc<Endpoint>)> {
    let checked = live.all().filter(|cluster| cluster.health().is_some());
    let pairs = checked.flat_map(|cluster| cluster.endpoints().iter().map(move |endpoint| (cluster, endpoint)));
    pairs
        .map(|(cluster, endpoint)| {
            let key = (endpoint.id(), Arc::as_ptr(cluster) as usize);
            (key, (Arc::clone(cluster), Arc::clone(endpoint)))
        })
        .collect()
}

async fn watch(upstream: Rc<Upstream>, cluster: Arc<Cluster>, endpoint: Arc<Endpoint>) {
    let Some(check) = cluster.health() else { return };
    loop {
        let healthy = probe(&upstream, &endpoint, check).await;
        if let Some(up) = endpoint.checked(healthy, check) {
            tracing::info!(cluster = cluster.name(), endpoint = endpoint.authority(), up, "health changed");
        }
        tokio::time::sleep(check.every).await;
    }
}

/// One check: 2xx and 3xx are healthy. Always on a fresh connection where HTTP/1.1 is spoken: whether it can be made is
/// part of the question.
async fn probe(upstream: &Upstream, endpoint: &Arc<Endpoint>, check: &HealthCheck) -> bool {
    let mut head = RequestHead::new(Method::Get, check.path.clone());
    head.authority = endpoint.authority().to_owned();
    if endpoint.url().scheme == crate::config::plan::UrlScheme::Https {
        head.scheme = Scheme::Https;
    }
    head.fields.add(Name::UserAgent, "coordinator-health");
    let waits = Timeouts {
        connect: check.timeout,
        first_byte: check.timeout,
        total: Some(check.timeout),
        pool_idle: Duration::ZERO,
        ..Timeouts::default()
    };
    let mut request = Outgoing { head: Shaped::Made(Box::new(head)), body: Body::Empty, interim: None, upgrade: None };
    match upstream.exchange(endpoint, &mut request, &waits, &mut Record::start()).await {
        Ok(answer) => (200..400).contains(&answer.head.status),
        Err(_) => false,
    }
}
