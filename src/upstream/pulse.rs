//! Keeps a connection of the control thread's own to each other place, so that its round trip and its loss are known
//! there also while no request goes that way.
//!
//! What it costs: an idle HTTP/2 connection per place, a PING every few seconds. No request is sent.

use super::endpoint::Endpoint;
use super::{Live, Upstream};
use crate::base::snapshot::Reader;
use crate::config::plan::Timeouts;
use crate::wire::HeadLimits;
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;

/// How often a lost connection is looked for.
const EVERY: Duration = Duration::from_secs(1);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);
/// Bounds of heads; none come.
const LIMITS: HeadLimits = HeadLimits { head: 16 << 10, fields: 100, uri: 16 << 10 };

/// Reaches for all links until dropped; follows the plan as `Live` is replaced.
///
/// To be polled inside the control thread's `LocalRuntime`.
pub async fn run(mut live: Reader<Live>) {
    let upstream = Upstream::new(LIMITS);
    let waits = Timeouts { connect: CONNECT, ..Timeouts::default() };
    loop {
        let links = links(live.load());
        // Why one cannot be reached is known to its breaker, and logged where requests meet it.
        join_all(links.iter().map(|link| upstream.reach(link, &waits))).await;
        tokio::time::sleep(EVERY).await;
    }
}

fn links(live: &Live) -> Vec<Arc<Endpoint>> {
    live.links().flat_map(|cluster| cluster.endpoints()).cloned().collect()
}
