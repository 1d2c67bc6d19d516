//! What the instances of the edges say of themselves each second, and what follows from it (HOMES 2.2).
//!
//! Owns the last word of every instance, in memory alone: after a restart of Central all is said again within seconds. From
//! it come how far back the stream reaches ([`Reach`]), which kinds of events may be written, and whether the edges agree on
//! how keys are claimed. Knows nothing of requests.
//! Invariant: who has said nothing counts as having seen nothing: the log is held for it, up to a bound.

use super::lock;
use super::state::EDGES_MAX;
use crate::config::plan::Regime;
use crate::home::event::{EdgeRow, EdgeState};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Edges whose words are kept; only registered ones are, so this is never reached.
const FLEET_MAX: usize = EDGES_MAX as usize;
/// Instances of one edge whose words are kept: the one that was silent for longest makes room.
const INSTANCES_MAX: usize = 64;
/// An instance that was silent for so long, while another of its edge speaks, has been replaced by it.
const REPLACED_AFTER: Duration = Duration::from_secs(600);
/// An instance that was silent for so long does not follow now. When it returns, it keeps the last good home of a key whose
/// event it cannot read, and says so.
const GONE_AFTER: Duration = Duration::from_secs(30);
/// Features that are kept of one acknowledgement.
const FEATURES_MAX: usize = 64;
/// Key spaces that are kept of one acknowledgement.
const SPACES_MAX: usize = 256;
/// Unreadable events that are kept of one acknowledgement.
const NACKS_MAX: usize = 16;
/// Who lags less than one of so many of the events that a lost edge may hold back is never sent to a snapshot: those who
/// are not registered follow too, and a snapshot that is still on its way must be followed by the stream.
const KEPT_SHARE: u64 = 4;

/// What an instance says each second of how far it is.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Ack {
    pub(super) edge: String,
    #[serde(default)]
    pub(super) inst: String,
    pub(super) applied: u64,
    /// How far its disk is; an acknowledgement that does not say it vouches for nothing.
    #[serde(default)]
    pub(super) durable: u64,
    /// The term that its cursors count in; releases before it was said were never in a second one.
    #[serde(default)]
    pub(super) term: Option<u64>,
    #[serde(default)]
    pub(super) nack: Vec<Nack>,
    /// Its round trip to here, as it measured it.
    #[serde(default)]
    pub(super) rtt_us: Option<u64>,
    #[serde(default)]
    pub(super) version: String,
    /// What it understands of the feed.
    #[serde(default)]
    pub(super) features: Vec<String>,
    /// How the keys of each space are claimed there, as `SPACE=REGIME`.
    #[serde(default)]
    pub(super) spaces: Vec<String>,
    /// Whether its map had our digest when it last compared them.
    #[serde(default)]
    pub(super) digest_ok: Option<bool>,
    #[serde(default)]
    pub(super) ready: Option<bool>,
}

/// An event that an instance could not read.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct Nack {
    #[serde(default)]
    pub(super) s: Option<u64>,
    #[serde(default)]
    pub(super) why: String,
}

/// What Central knows of an edge that follows it; of several instances, the one that is furthest behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follower {
    /// The last seq that it had applied.
    pub applied: u64,
    /// The last seq that it had on disk for good.
    pub durable: u64,
    /// How long ago any instance of it spoke.
    pub ago: Duration,
    /// Its round trip to here.
    pub rtt_us: Option<u64>,
    /// Instances that speak.
    pub instances: usize,
}

/// The last word of every instance, by edge.
#[derive(Debug, Default)]
pub struct Fleet(Mutex<HashMap<String, Vec<Said>>>);

/// What an instance says when it opens a stream.
#[derive(Debug, Default)]
pub(super) struct Hello {
    /// What it understands of the feed.
    pub(super) features: Vec<String>,
    /// See [`Ack::spaces`].
    pub(super) spaces: Vec<String>,
}

#[derive(Debug)]
struct Said {
    ack: Ack,
    at: Instant,
}

impl Said {
    fn ago(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }
}

impl Fleet {
    /// Keeps a word in place of that instance's last one.
    pub(super) fn keep(&self, mut ack: Ack, now: Instant) {
        ack.features.truncate(FEATURES_MAX);
        ack.nack.truncate(NACKS_MAX);
        ack.spaces.truncate(SPACES_MAX);
        let mut all = lock(&self.0);
        if all.len() >= FLEET_MAX && !all.contains_key(&ack.edge) {
            return;
        }
        let said = all.entry(ack.edge.clone()).or_default();
        said.retain(|old| old.ack.inst != ack.inst && old.ago(now) < REPLACED_AFTER);
        if said.len() == INSTANCES_MAX {
            said.remove(0);
        }
        // In the order in which they last spoke.
        said.push(Said { ack, at: now });
    }

    /// An instance opens a stream: what it understands is known before the first event is sent to it, and how it claims
    /// before it can have claimed. How far its disk is, only its acknowledgements say.
    pub(super) fn greet(&self, (edge, inst): (&str, &str), applied: u64, hello: Hello, now: Instant) {
        let known = {
            let all = lock(&self.0);
            let said = all.get(edge).and_then(|said| said.iter().find(|said| said.ack.inst == inst));
            said.map(|said| said.ack.clone())
        };
        let fresh = Ack { edge: edge.to_owned(), inst: inst.to_owned(), ..Ack::default() };
        let Hello { features, spaces } = hello;
        self.keep(Ack { applied, features, spaces, ..known.unwrap_or(fresh) }, now);
    }

    /// Who keeps an edge from claiming keys of a space at first touch: the edges whose own origins mint them. There a new key
    /// is served before we hear of it (HOMES 2.6), so a grant to anybody else could make a second owner. Nobody, if this
    /// edge claims by registration itself. A removed edge does not count.
    pub(super) fn minters_beside(&self, edge: &str, space: &str, edges: &[EdgeRow]) -> Vec<String> {
        let all = lock(&self.0);
        let claims_by = |edge: &str, regime: Regime| {
            let is_it = |said: &String| said.split_once('=') == Some((space, regime.word()));
            all.get(edge).is_some_and(|said| said.iter().any(|said| said.ack.spaces.iter().any(is_it)))
        };
        if !claims_by(edge, Regime::FirstTouch) {
            return Vec::new();
        }
        let present = edges.iter().filter(|edge| edge.state != EdgeState::Removed).map(|edge| &edge.name);
        present.filter(|name| claims_by(name, Regime::Registration)).cloned().collect()
    }

    /// The instances that follow now and have not said that they understand a feature, each with its release.
    pub(super) fn lacking(&self, feature: &str, now: Instant) -> Vec<String> {
        let all = lock(&self.0);
        let lacks =
            |said: &&Said| said.ago(now) < GONE_AFTER && !said.ack.features.iter().any(|known| known == feature);
        let named = |said: &Said| {
            let Ack { edge, inst, version, .. } = &said.ack;
            format!(
                "{edge} (instance {inst}, release {version})",
                version = if version.is_empty() { "unknown" } else { version }
            )
        };
        let mut lacking: Vec<_> = all.values().flatten().filter(lacks).map(named).collect();
        lacking.sort_unstable();
        lacking
    }

    /// How an edge was when it last said so.
    pub(super) fn follower(&self, edge: &str, now: Instant) -> Option<Follower> {
        let all = lock(&self.0);
        let said = all.get(edge)?;
        let last = said.last()?;
        Some(Follower {
            applied: said.iter().map(|said| said.ack.applied).min()?,
            durable: said.iter().map(|said| said.ack.durable).min()?,
            ago: last.ago(now),
            rtt_us: last.ack.rtt_us,
            instances: said.len(),
        })
    }

    /// The seq that every registered edge has on disk for good in this term; 0 while one of them has said nothing.
    pub(super) fn slowest(&self, edges: &[EdgeRow], term: u64) -> u64 {
        let all = lock(&self.0);
        let durable = |said: &Said| said.ack.durable * u64::from(said.ack.term.is_none_or(|theirs| theirs == term));
        let of = |edge: &EdgeRow| all.get(&edge.name).and_then(|said| said.iter().map(durable).min()).unwrap_or(0);
        edges.iter().filter(|edge| edge.state != EdgeState::Removed).map(of).min().unwrap_or(u64::MAX)
    }

    /// Whether every one of these edges has said that it understands a feature.
    pub(super) fn all_know(&self, edges: &[String], feature: &str) -> bool {
        let all = lock(&self.0);
        let knows = |said: &Said| said.ack.features.iter().any(|known| known == feature);
        edges.iter().all(|edge| all.get(edge).is_some_and(|said| said.iter().all(knows)))
    }

    /// The last word of each instance of an edge, the newest last.
    pub(super) fn show(&self, edge: &str, now: Instant) -> Vec<Value> {
        let all = lock(&self.0);
        let shown = |Said { ack, at }: &Said| {
            json!({
                "inst": ack.inst, "applied": ack.applied, "durable": ack.durable, "nack": ack.nack,
                "version": ack.version, "features": ack.features, "spaces": ack.spaces, "digest_ok": ack.digest_ok, "ready": ack.ready,
                "age_ms": u64::try_from(now.saturating_duration_since(*at).as_millis()).unwrap_or(u64::MAX),
            })
        };
        all.get(edge).into_iter().flatten().map(shown).collect()
    }
}

/// How far back the stream reaches: to the slowest registered edge, within bounds.
///
/// What lies before is let go of by [`State::compact`](super::state::State::compact). Who stands there is answered 410 and
/// takes a snapshot.
#[derive(Debug)]
pub struct Reach {
    /// A lost edge, or one that has said nothing yet, holds back so many events and no more.
    held: u64,
    slowest: AtomicU64,
}

impl Reach {
    /// A lost edge may hold back `held` events.
    pub fn new(held: u64) -> Reach {
        Reach { held, slowest: AtomicU64::new(0) }
    }

    /// So many events are kept, whoever has passed them.
    pub(super) fn kept(&self) -> u64 {
        self.held / KEPT_SHARE
    }

    /// Every registered edge has this seq on disk.
    pub(super) fn passed(&self, slowest: u64) {
        self.slowest.store(slowest, Relaxed);
    }

    /// That seq; beyond every head if no edge is registered.
    pub(super) fn slowest(&self) -> u64 {
        self.slowest.load(Relaxed)
    }

    /// The seq up to which a log that ends at `head` may be let go of.
    pub(super) fn floor(&self, head: u64) -> u64 {
        self.slowest().clamp(head.saturating_sub(self.held), head.saturating_sub(self.kept()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(edge: &str, inst: &str, durable: u64) -> Ack {
        serde_json::from_value(json!({ "edge": edge, "inst": inst, "applied": durable + 5, "durable": durable }))
            .unwrap()
    }

    fn edges(names: &[&str]) -> Vec<EdgeRow> {
        let row = |(idx, name): (usize, &&str)| EdgeRow {
            idx: idx as u16,
            name: (*name).to_owned(),
            peer: None,
            state: EdgeState::Active,
        };
        names.iter().enumerate().map(row).collect()
    }

    #[test]
    fn the_slowest_instance_of_the_slowest_edge_counts_and_silence_as_nothing() {
        let (fleet, now, both) = (Fleet::default(), crate::base::clock::now(), edges(&["fr", "de"]));
        fleet.keep(ack("fr", "a", 90), now);
        assert_eq!((fleet.slowest(&both, 1), fleet.slowest(&[], 1)), (0, u64::MAX));
        fleet.keep(ack("de", "a", 70), now);
        fleet.keep(ack("fr", "b", 40), now);
        assert_eq!(fleet.slowest(&both, 1), 40);
        let follower = fleet.follower("fr", now).unwrap();
        assert_eq!((follower.applied, follower.durable, follower.instances), (45, 40, 2));
        fleet.keep(Ack { term: Some(1), ..ack("de", "a", 70) }, now);
        assert_eq!((fleet.slowest(&both, 1), fleet.slowest(&both, 2)), (40, 0), "a cursor of another term is none");
        let mut gone = edges(&["fr", "de", "us"]);
        gone[2].state = EdgeState::Removed;
        assert_eq!(fleet.slowest(&gone, 1), 40);
        // The instance that another one has replaced holds nothing back for ever, and the last one of an edge does.
        let later = now + REPLACED_AFTER;
        fleet.keep(ack("fr", "a", 95), later);
        assert_eq!((fleet.slowest(&both, 1), fleet.show("fr", later).len()), (70, 1));
    }

    #[test]
    fn a_lost_edge_holds_back_a_bounded_number_of_events() {
        let reach = Reach::new(1000);
        let floors =
            [(0, 5000), (4200, 5000), (4749, 5000), (u64::MAX, 5000), (0, 10), (7, 10)].map(|(slowest, head)| {
                reach.passed(slowest);
                reach.floor(head)
            });
        assert_eq!(floors, [4000, 4200, 4749, 4750, 0, 0]);
    }

    #[test]
    fn an_instance_that_follows_and_does_not_know_a_feature_is_named() {
        let (fleet, now) = (Fleet::default(), crate::base::clock::now());
        let knows = |inst, features: &[&str]| Ack {
            features: features.iter().map(|feature| (*feature).to_owned()).collect(),
            version: "1.2.0".into(),
            ..ack("fr", inst, 7)
        };
        assert!(fleet.lacking("purge", now).is_empty(), "nobody follows");
        fleet.keep(knows("b", &["purge", "chain"]), now);
        fleet.keep(knows("a", &["chain"]), now);
        assert_eq!(fleet.lacking("purge", now), ["fr (instance a, release 1.2.0)"]);
        assert!(fleet.lacking("chain", now).is_empty());
        // It comes back as a newer release; how far its disk is stays known.
        fleet.greet(("fr", "a"), 9, Hello { features: vec!["purge".into()], ..Hello::default() }, now);
        assert!(fleet.lacking("purge", now).is_empty());
        assert_eq!(fleet.slowest(&edges(&["fr"]), 1), 7);
        fleet.greet(("de", "c"), 9, Hello::default(), now);
        assert_eq!(fleet.lacking("purge", now), ["de (instance c, release unknown)"], "before its first word");
        assert!(fleet.lacking("purge", now + GONE_AFTER).is_empty(), "it does not follow any more");
    }

    #[test]
    fn no_edge_claims_at_first_touch_what_another_ones_origin_mints() {
        let (fleet, now) = (Fleet::default(), crate::base::clock::now());
        let says = |spaces: &[&str]| Hello {
            spaces: spaces.iter().map(|said| (*said).to_owned()).collect(),
            ..Hello::default()
        };
        let both = edges(&["fr", "de"]);
        fleet.greet(("fr", "a"), 0, says(&["user=first-touch", "cart=first-touch"]), now);
        assert!(fleet.minters_beside("fr", "user", &both).is_empty());
        fleet.greet(("de", "b"), 0, says(&["user=registration", "device=registration"]), now);
        assert_eq!(fleet.minters_beside("fr", "user", &both), ["de"]);
        assert!(fleet.minters_beside("fr", "cart", &both).is_empty(), "another space");
        assert!(fleet.minters_beside("de", "user", &both).is_empty(), "what an origin mints is its edge's in any case");
        // Two instances of one edge may differ while a change of its configuration is rolled out.
        fleet.greet(("fr", "c"), 0, says(&["cart=registration"]), now);
        assert_eq!(fleet.minters_beside("fr", "cart", &both), ["fr"]);
        let mut without = edges(&["fr", "de"]);
        without[1].state = EdgeState::Removed;
        assert!(fleet.minters_beside("fr", "user", &without).is_empty());
    }

    #[test]
    fn the_words_of_an_edge_are_bounded() {
        let (fleet, now) = (Fleet::default(), crate::base::clock::now());
        (0..INSTANCES_MAX + 9).for_each(|n| fleet.keep(ack("fr", &n.to_string(), n as u64), now));
        assert_eq!((fleet.show("fr", now).len(), fleet.slowest(&edges(&["fr"]), 1)), (INSTANCES_MAX, 9));
    }
}
