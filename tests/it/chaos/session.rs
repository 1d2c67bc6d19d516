//! What clients do, and what they are told: each session asks one thing at a time, and goes on when it knows or gives up.

use super::checker::Told;
use crate::harness::client::{Answer, Client};
use crate::harness::deployment::{Deployment, TRY};
use crate::harness::seed::Random;
use crate::harness::world::EDGES;
use coordinator::home::key;
use coordinator::tls::issue::Party;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Between two requests of a session: leaves the machine to those who are to answer.
const PACE: Duration = Duration::from_millis(5);

/// For how long an edge may say that a key does not exist after Central has known it: negative answers live 5 s.
const UNKNOWN_MAX: Duration = Duration::from_secs(6);

/// First touches of one team: enough for several edges to try at once.
const RIVALS: u64 = 4;

/// What all sessions were told.
#[derive(Default)]
pub struct History {
    told: Mutex<Told>,
    /// Where a key was last served, in which epoch, and since when Central has known it.
    known: Mutex<HashMap<String, Known>>,
    touches: AtomicU64,
    asked: AtomicUsize,
    unknown: AtomicUsize,
}

/// What is certain of a key.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its home.
    pub home: String,
    /// The epoch.
    pub epoch: u32,
    /// Since when, at the latest, Central has had it.
    pub since: Instant,
}

/// A client with keys of its own.
pub struct Session<'a> {
    number: u64,
    deployment: &'a Deployment,
    history: &'a History,
    random: Random,
    keys: Vec<String>,
    ops: u64,
    /// As which it calls peer doors.
    edges: HashMap<&'static str, Arc<rustls::ClientConfig>>,
}

/// The path of a key.
pub fn path(key: &str) -> String {
    let (space, name) = key.split_once(':').expect("a key has a space");
    format!("/v1/{space}s/{name}")
}

impl History {
    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("nobody panics under this lock")
    }

    /// A copy of all that was told.
    pub fn told(&self) -> Told {
        self.lock().clone()
    }

    /// Operations acknowledged.
    pub fn acked(&self) -> usize {
        self.lock().keys.values().map(Vec::len).sum()
    }

    /// In figures.
    pub fn report(&self) -> String {
        let (asked, unknown) = (self.asked.load(Ordering::Relaxed), self.unknown.load(Ordering::Relaxed));
        let (told, known) = (self.lock(), self.known().len());
        let acked: usize = told.keys.values().map(Vec::len).sum();
        let (keys, refused) = (told.keys.len(), told.refused.len());
        format!(
            "{asked} asked, {acked} acknowledged, {refused} refused, {unknown} open; {keys} keys, {known} of them seen from elsewhere"
        )
    }

    /// The keys that Central knows for certain.
    pub fn known(&self) -> BTreeMap<String, Known> {
        let known = self.known.lock().expect("nobody panics under this lock");
        known.iter().map(|(key, known)| (key.clone(), known.clone())).collect()
    }

    fn promise(&self, key: &str) {
        self.lock().keys.entry(key.to_owned()).or_default();
    }

    fn acknowledge(&self, key: &str, session: u64, op: &str) {
        self.lock().keys.entry(key.to_owned()).or_default().push((session, op.to_owned()));
    }

    /// An answer came through `entry` from the home of a key. One that is not there has it from Central.
    fn served(&self, key: &str, entry: &str, home: &str, epoch: u32) {
        if entry == home && key.starts_with("user:") {
            return;
        }
        let mut known = self.known.lock().expect("nobody panics under this lock");
        let since = Instant::now();
        let known = known.entry(key.to_owned()).or_insert_with(|| Known { home: home.to_owned(), epoch, since });
        if epoch > known.epoch {
            (known.home, known.epoch) = (home.to_owned(), epoch);
        }
    }

    /// The operations that whoever reads now must see.
    fn must(&self, key: &str) -> Vec<String> {
        self.lock().keys.get(key).into_iter().flatten().map(|(_, op)| op.clone()).collect()
    }

    /// A key was said not to exist by a request of `asked`.
    fn denied(&self, key: &str, asked: Instant) {
        let known = self.known.lock().expect("nobody panics under this lock").get(key).cloned();
        let late = known.is_some_and(|known| asked.saturating_duration_since(known.since) > UNKNOWN_MAX);
        assert!(!late, "{key} is known to Central, and was said not to exist");
    }
}

impl<'a> Session<'a> {
    /// A session that has done nothing yet.
    pub fn new(number: u64, deployment: &'a Deployment, history: &'a History, random: Random) -> Session<'a> {
        let world = &deployment.world;
        let config = |edge| world.tls(&["http/1.1"], Some(&world.certificate(Party::Edge(edge))));
        let edges = EDGES.into_iter().map(|edge| (edge, config(edge))).collect();
        Session { number, deployment, history, random, keys: Vec::new(), ops: 0, edges }
    }

    /// Asks until told to stop.
    pub fn run(mut self, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            self.history.asked.fetch_add(1, Ordering::Relaxed);
            match self.random.below(20) {
                0 | 1 => self.register(),
                2 | 3 => self.touch(),
                _ if self.keys.is_empty() => {}
                4..=11 => self.write(),
                12..=16 => self.read(),
                _ => self.stray(),
            }
            std::thread::sleep(PACE);
        }
    }

    fn register(&mut self) {
        let edge = *self.random.pick(&EDGES);
        let Some(answer) = self.deployment.try_ask(edge, "POST", "/v1/users") else { return self.open() };
        match answer.status {
            201 => {
                let location = answer.field("location").expect("a new user has a place").to_owned();
                let key = format!("user:{}", location.strip_prefix("/v1/users/").expect("a user"));
                self.history.promise(&key);
                self.keys.push(key);
            }
            502..=504 => self.open(),
            _ => panic!("a registration at {edge}: {answer:?}"),
        }
    }

    /// Writes for a team that nobody may own yet, at the same time as others do.
    fn touch(&mut self) {
        let number = self.history.touches.fetch_add(1, Ordering::Relaxed) / RIVALS;
        self.write_for(&format!("team:{number}"));
    }

    fn write(&mut self) {
        let key = self.random.pick(&self.keys).clone();
        self.write_for(&key);
    }

    fn write_for(&mut self, key: &str) {
        let (edge, asked) = (*self.random.pick(&EDGES), Instant::now());
        let method = *self.random.pick(&["POST", "PUT"]);
        let op = self.op(method);
        let answer = self.deployment.try_ask(edge, method, &format!("{}/ops/{op}", path(key)));
        self.told(key, edge, &op, asked, answer);
    }

    fn op(&mut self, method: &str) -> String {
        self.ops += 1;
        let op = format!("{}-{}", self.number, self.ops);
        if method == "POST" {
            self.history.lock().once.insert(op.clone());
        }
        op
    }

    fn told(&mut self, key: &str, edge: &str, op: &str, asked: Instant, answer: Option<Answer>) {
        let Some(answer) = answer else { return self.open() };
        match answer.status {
            200 => {
                let ops = self.served(key, edge, &answer);
                assert!(ops.iter().any(|done| done == op), "{op} is acknowledged by one who has only {ops:?}");
                self.history.acknowledge(key, self.number, op);
                if !self.keys.iter().any(|known| known == key) {
                    self.keys.push(key.to_owned());
                }
            }
            404 => {
                self.history.denied(key, asked);
                self.history.lock().refused.insert(op.to_owned());
            }
            502..=504 => self.open(),
            _ => panic!("{op} for {key} at {edge}: {answer:?}"),
        }
    }

    /// What the home has, and that it answered.
    fn served(&self, key: &str, edge: &str, answer: &Answer) -> Vec<String> {
        let told = answer.json();
        let epoch = told["epoch"].as_u64().and_then(|epoch| u32::try_from(epoch).ok()).expect("an epoch");
        self.history.served(key, edge, told["at"].as_str().expect("a place"), epoch);
        serde_json::from_value(told["ops"].clone()).expect("a list of names")
    }

    fn read(&mut self) {
        let (key, edge, asked) = (self.random.pick(&self.keys).clone(), *self.random.pick(&EDGES), Instant::now());
        let must = self.history.must(&key);
        let Some(answer) = self.deployment.try_ask(edge, "GET", &format!("{}/ops", path(&key))) else {
            return self.open();
        };
        match answer.status {
            200 => {
                let ops = self.served(&key, edge, &answer);
                let missing: Vec<_> = must.iter().filter(|op| !ops.contains(op)).collect();
                assert!(missing.is_empty(), "I3: {key} was read at {edge} without {missing:?}: {answer:?}");
            }
            404 => self.history.denied(&key, asked),
            502..=504 => self.open(),
            _ => panic!("{key} read at {edge}: {answer:?}"),
        }
    }

    /// Writes as one edge at the peer door of another, whoever the owner is.
    fn stray(&mut self) {
        let key = self.random.pick(&self.keys).clone();
        let (from, to) = (*self.random.pick(&EDGES), *self.random.pick(&EDGES));
        if from == to {
            return;
        }
        let (op, epoch, asked) = (self.op("POST"), 1 + self.random.below(2) as u32, Instant::now());
        let fwd =
            format!("v=1; from={from}; to={to}; key=\"{}\"; epoch={epoch}; seq=1; id=\"{op}\"", key::escape(&key));
        let answer = self.as_edge(from, to).and_then(|mut client| {
            let head = format!("POST {}/ops/{op} HTTP/1.1\r\nHost: shop.example\r\nCoordinator-Fwd: {fwd}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", path(&key));
            client.send(head).try_answer("POST").ok()
        });
        match answer {
            Some(answer) if answer.status == 421 => {
                let newer = answer.field("coordinator-moved").and_then(|moved| {
                    moved.split("epoch=").nth(1)?.split([';', ',']).next()?.trim().parse::<u32>().ok()
                });
                assert!(newer.is_none_or(|newer| newer > epoch), "I6: {answer:?} to one of epoch {epoch}");
                assert!(newer.is_some() || answer.field("coordinator-unknown").is_some(), "{answer:?}");
                self.history.lock().refused.insert(op);
            }
            answer => self.told(&key, to, &op, asked, answer),
        }
    }

    fn as_edge(&self, from: &str, to: &str) -> Option<Client> {
        let door = self.deployment.world.edge(to).peer_door();
        Client::try_tls(door, self.edges[from].clone(), "127.0.0.1", TRY).ok()
    }

    fn open(&self) {
        self.history.unknown.fetch_add(1, Ordering::Relaxed);
    }
}
