//! Carries questions to this edge's other instances, over their peer doors (HOMES 2.1, DESIGN 5).
//!
//! Runs on the control runtime, beside the data path. A sibling that cannot be reached is left alone for a moment, so that it
//! costs those who wait nothing; a connection that was begun is finished for the next question, whoever has gone meanwhile.

use super::client::{Call, Line, content};
use crate::base::clock;
use crate::base::snapshot::Reader;
use crate::config::plan::{Url, UrlScheme};
use crate::home::key::escape;
use crate::home::standing::Boot;
use crate::homes::{Homes, SiblingAsk, SiblingReceiver, Word};
use crate::tls::client::{Alpn, Client};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Where the peer door answers a sibling: below it a key, or `boot`.
pub const PATH: &str = "/.well-known/coordinator/sibling/";
/// The name below [`PATH`] under which an instance says which incarnation it is. No key is called so: each has a colon.
pub const BOOT: &str = "boot";
/// Siblings that are asked; a name may stand for many.
const SIBLINGS_MAX: usize = 16;
/// Questions under way; what comes beyond is answered as if nobody knew.
const FLYING_MAX: usize = 256;
/// Idle connections to one sibling.
const IDLE_MAX: usize = 16;
/// How long one sibling may take. Who asked has gone to Central long before; the connection is kept for the next.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// A sibling that could not be reached is asked again after this.
const AWAY: Duration = Duration::from_secs(1);
/// How often names are resolved, certificates looked at, and company is sought.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The longest answer.
const CONTENT_MAX: usize = 4 << 10;

/// Who this edge's other instances are. Replaced as a whole on a reload.
#[derive(Clone, Default)]
pub struct Family {
    /// The name of this edge.
    pub edge: String,
    /// Their peer doors; a name may stand for several addresses.
    pub urls: Vec<Url>,
    /// What `https` doors are called with.
    pub tls: Option<Arc<Client>>,
}

/// One sibling's door.
struct Sibling {
    url: Url,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    idle: Vec<Line>,
    away_until: Option<Instant>,
}

/// Answers questions until nobody can ask any more.
pub async fn run(homes: Arc<Homes>, mut asks: SiblingReceiver, mut family: Reader<Family>) {
    let mut siblings: Vec<Arc<Sibling>> = Vec::new();
    let (mut flying, mut looking) = (JoinSet::new(), tokio::time::interval(LOOK_EVERY));
    looking.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ask = asks.recv() => {
                let Some(ask) = ask else { return };
                if flying.len() < FLYING_MAX {
                    flying.spawn(answer(ask, siblings.clone(), family.load().clone()));
                }
            }
            Some(_) = flying.join_next() => {}
            _ = looking.tick() => {
                let family = family.load().clone();
                siblings = resolved(&family.urls, &siblings).await;
                homes.has_siblings(!siblings.is_empty());
                // What cannot be read now is told by the door that serves the same files.
                let _ = family.tls.as_ref().map(|client| client.reload());
                if homes.needs_company() && flying.len() < FLYING_MAX {
                    flying.spawn(seek_company(homes.clone(), siblings.clone(), family));
                }
            }
        }
    }
}

/// The doors behind the URLs; those that stand there already keep their connections.
async fn resolved(urls: &[Url], known: &[Arc<Sibling>]) -> Vec<Arc<Sibling>> {
    let mut known: HashMap<String, &Arc<Sibling>> = known.iter().map(|one| (one.url.to_string(), one)).collect();
    let mut found: Vec<Arc<Sibling>> = Vec::new();
    for url in urls {
        for url in addresses(url).await {
            let kept = known.remove(&url.to_string()).cloned();
            let is_new = found.len() < SIBLINGS_MAX && !found.iter().any(|one| one.url == url);
            found.extend(is_new.then(|| kept.unwrap_or_else(|| Arc::new(Sibling::at(url)))));
        }
    }
    found
}

/// A URL for each address of its host: who is called is proven by the URI in the certificate, not by the host.
async fn addresses(url: &Url) -> Vec<Url> {
    if url.scheme == UrlScheme::Unix {
        return vec![url.clone()];
    }
    match tokio::time::timeout(AWAY, tokio::net::lookup_host((url.host.as_str(), url.port))).await {
        Ok(Ok(all)) => all.map(|address| Url { host: address.ip().to_string(), ..url.clone() }).collect(),
        _ => Vec::new(),
    }
}

/// Asks all siblings at once; the first that knows the key answers for all.
async fn answer(ask: SiblingAsk, siblings: Vec<Arc<Sibling>>, family: Arc<Family>) {
    let SiblingAsk { space, key, reply } = ask;
    let path = format!("{PATH}{space}:{}", escape(&key));
    let mut told: FuturesUnordered<_> = siblings.iter().map(|one| one.ask(&path, &family)).collect();
    let (mut reply, mut has_answered) = (Some(reply), siblings.is_empty());
    while let Some(answer) = told.next().await {
        let Some((status, text)) = answer else { continue };
        has_answered |= matches!(status, 200 | 404);
        let word = serde_json::from_slice::<Word>(&text).ok().filter(|_| status == 200);
        if let (Some(word), Some(reply)) = (word, reply.take_if(|_| status == 200)) {
            // Who asked may have gone to Central already. The others are heard out, for their connections.
            let _ = reply.send(Some(word));
        }
    }
    if let Some(reply) = reply.filter(|_| has_answered) {
        let _ = reply.send(None);
    }
}

/// Finds a sibling beside which a new disk may register.
async fn seek_company(homes: Arc<Homes>, siblings: Vec<Arc<Sibling>>, family: Arc<Family>) {
    for one in &siblings {
        let told = one.ask(&format!("{PATH}{BOOT}"), &family).await;
        let boot =
            told.filter(|(status, _)| *status == 200).and_then(|(_, text)| serde_json::from_slice::<Boot>(&text).ok());
        // A name may stand for us too.
        if let Some(boot) = boot.filter(|boot| *boot != homes.incarnation().boot) {
            return homes.stand_beside(boot);
        }
    }
}

impl Sibling {
    fn at(url: Url) -> Sibling {
        Sibling { url, state: Mutex::default() }
    }

    /// Status and content of its answer; `None` if there was none.
    async fn ask(&self, path: &str, family: &Family) -> Option<(u16, bytes::Bytes)> {
        if self.state().away_until.is_some_and(|until| clock::now() < until) {
            return None;
        }
        let idle = self.state().idle.pop();
        if let Some(line) = idle
            && let Ok(answer) = self.over(line, path, family).await
        {
            return Some(answer);
        }
        let asked = async { self.over(self.connect(family).await?, path, family).await };
        match tokio::time::timeout(ANSWER_MAX, asked).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(why)) => self.is_away(&why),
            Err(_) => self.is_away("it does not answer"),
        }
    }

    fn is_away<T>(&self, why: &str) -> Option<T> {
        tracing::debug!(sibling = %self.url, why, "a sibling could not be asked");
        self.state().away_until = Some(clock::now() + AWAY);
        None
    }

    async fn connect(&self, family: &Family) -> Result<Line, String> {
        let tls = family.tls.as_ref().map(|client| client.config(Alpn::Either)).transpose()?;
        Line::connect(&self.url, tls.as_ref()).await
    }

    async fn over(&self, mut line: Line, path: &str, family: &Family) -> Result<(u16, bytes::Bytes), String> {
        let fields = vec![("coordinator-edge", family.edge.clone())];
        let call = Call { target: path.to_owned(), fields, patience: Some(ANSWER_MAX), ..Call::default() };
        let answer = line.send(call).await?;
        let status = answer.status().as_u16();
        let text = content(answer.into_body(), CONTENT_MAX).await?;
        let mut state = self.state();
        state.away_until = None;
        if state.idle.len() < IDLE_MAX {
            state.idle.push(line);
        }
        Ok((status, text))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Each writer leaves whole values.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
