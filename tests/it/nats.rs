//! A feed in a real JetStream: edges follow it there, whatever becomes of the server, the stream and Central.

use crate::central::open;
use crate::door::TestDoor;
use crate::harness::nats::Server;
use coordinator::base::snapshot::Snapshot;
use coordinator::central::Central;
use coordinator::central::publish::{Publisher, Status};
use coordinator::config::plan::{NatsStream, Url, UrlScheme};
use coordinator::feed::link::{self, Pace, Target};
use coordinator::feed::nats::Nats;
use coordinator::feed::source::nats::{Stream, Subjects, stored_last};
use coordinator::feed::status::LinkStatus;
use coordinator::home::Home;
use coordinator::homes::{Asked, Homes};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const WAIT: Duration = Duration::from_secs(40);

fn at(server: &Server) -> NatsStream {
    NatsStream { host: "127.0.0.1".into(), port: server.port(), tls: false, login: None, stream: "HOMES".into() }
}

fn url(door: &TestDoor) -> Url {
    let (host, port) = (door.address.ip().to_string(), door.address.port());
    Url { scheme: UrlScheme::Http, host, port, base: String::new() }
}

fn publisher(central: &Arc<Central>, server: &Server) -> (Arc<Status>, JoinHandle<()>) {
    let status = Arc::<Status>::default();
    let task = tokio::spawn(Publisher::new(central.clone(), at(server), status.clone()).run());
    (status, task)
}

/// An edge that follows the stream.
struct Edge {
    homes: Arc<Homes>,
    status: Arc<LinkStatus>,
    stop: watch::Sender<bool>,
    _target: Snapshot<Target>,
    link: JoinHandle<Result<(), String>>,
}

impl Edge {
    fn start(dir: &Path, name: &str, door: &TestDoor, server: &Server) -> Edge {
        let (homes, applier, asks) = Homes::open(dir, name, vec!["user".into()]).unwrap();
        let pace = Pace { spread: Duration::from_millis(50), alarmed: Duration::from_millis(50), ..Pace::default() };
        let target = Snapshot::new(Target {
            edge: name.into(),
            instance: "i".into(),
            urls: vec![url(door)],
            tls: None,
            pace,
            fault: Default::default(),
            rtt: Default::default(),
        });
        let (status, stop) = (Arc::new(LinkStatus::default()), watch::Sender::new(false));
        let source = Stream::new(at(server), target.reader(), status.clone());
        let link = tokio::spawn(link::run_from(source, applier, asks, status.clone(), stop.subscribe()));
        Edge { homes, status, stop, _target: target, link }
    }

    async fn until(&self, what: &str, holds: impl FnMut() -> bool) {
        until(&format!("{what}: {:?} {:?}", self.status, self.homes.cursor()), holds).await;
    }

    async fn level(&self, central: &Central) {
        self.until("level with Central", || self.homes.cursor().seq >= central.head()).await;
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.link.await.unwrap().unwrap();
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + WAIT;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn put(door: &TestDoor, keys: std::ops::Range<u32>, home: &str) {
    let lines: String = keys.map(|key| format!("{{\"key\":\"{key}\",\"home\":\"{home}\"}}\n")).collect();
    let mut line = coordinator::feed::client::Line::connect(&url(door), None).await.unwrap();
    let call = coordinator::feed::client::Call {
        method: http::Method::POST,
        target: "/v1/homes".into(),
        fields: Vec::new(),
        content: lines.into(),
        ..Default::default()
    };
    assert_eq!(line.send(call).await.unwrap().status(), 200);
}

fn look(edge: &Edge, key: u32) -> Home {
    edge.homes.look("user", &key.to_string())
}

fn is_ours(home: Home) -> bool {
    matches!(home, Home::Ours { provisional: false, .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_followed_over_kills_of_everybody() {
    let data = tempfile::tempdir().unwrap();
    let (at_central, at_edge) = (data.path().join("central"), data.path().join("edge"));
    std::fs::create_dir(&at_edge).unwrap();
    let mut server = Server::start();
    let central = open(&at_central);
    let door = TestDoor::open(central.clone(), None);
    let (published, publishing) = publisher(&central, &server);
    put(&door, 0..500, "fr").await;
    let edge = Edge::start(&at_edge, "fr", &door, &server);
    edge.level(&central).await;
    edge.until("connected", || edge.status.is_connected()).await;
    assert!(is_ours(look(&edge, 499)) && edge.status.is_up());
    assert_eq!(edge.status.snapshots(), 1);

    // Claims are Central's, and come back by the stream.
    assert!(matches!(edge.homes.claim_now("user", "claimed").await, Asked::Home(Home::Ours { .. })));

    // The server is killed while homes come to be.
    for round in 1..4 {
        server.kill();
        put(&door, round * 1000..round * 1000 + 700, "de").await;
        server.launch();
        edge.level(&central).await;
        assert!(matches!(look(&edge, round * 1000 + 699), Home::At { .. }));
    }
    assert_eq!(edge.status.snapshots(), 1, "the stream had all of it");

    // Central goes: the edge serves, and comes back to the stream without it.
    let head = central.head();
    publishing.abort();
    central.shutdown();
    let address = door.address;
    drop(door);
    drop(central);
    edge.stop().await;
    let central = open(&at_central);
    let door = TestDoor::open(central.clone(), Some(address));
    let edge = Edge::start(&at_edge, "fr", &door, &server);
    assert!(edge.homes.cursor().seq == head && is_ours(look(&edge, 7)));
    let (published_anew, _publishing) = publisher(&central, &server);
    put(&door, 9000..9300, "fr").await;
    edge.level(&central).await;
    assert!(is_ours(look(&edge, 9299)));
    until("published", || published_anew.published() == central.head()).await;
    assert!(published.published() <= head);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_lost_what_it_had_is_filled_again_and_holes_cost_a_snapshot() {
    let data = tempfile::tempdir().unwrap();
    let (at_central, at_edge) = (data.path().join("central"), data.path().join("edge"));
    std::fs::create_dir(&at_edge).unwrap();
    let mut server = Server::start();
    let central = open(&at_central);
    let door = TestDoor::open(central.clone(), None);
    let (status, _publishing) = publisher(&central, &server);
    put(&door, 0..900, "fr").await;
    let edge = Edge::start(&at_edge, "fr", &door, &server);
    edge.level(&central).await;
    until("published", || status.published() == central.head()).await;

    // All that it had acknowledged is gone.
    server.kill();
    server.forget();
    server.launch();
    put(&door, 1000..1300, "fr").await;
    edge.level(&central).await;
    until("published", || status.published() == central.head()).await;
    let subjects = Subjects::of(&at(&server));
    let mut nats = Nats::connect(&at(&server)).await.unwrap();
    let last = stored_last(&mut nats, &subjects).await.unwrap().unwrap();
    assert_eq!(last.covers().unwrap().1, central.head());

    // An edge that was away finds a hole in the stream: a snapshot brings what is missing.
    edge.stop().await;
    put(&door, 2000..2100, "fr").await;
    until("published", || status.published() == central.head()).await;
    let hole = stored_last(&mut nats, &subjects).await.unwrap().unwrap().seq;
    put(&door, 2100..2200, "de").await;
    until("published", || status.published() == central.head()).await;
    nats.api("STREAM.MSG.DELETE.HOMES", json!({ "seq": hole })).await.unwrap();
    let edge = Edge::start(&at_edge, "fr", &door, &server);
    edge.level(&central).await;
    assert!(is_ours(look(&edge, 2050)) && matches!(look(&edge, 2150), Home::At { .. }));
    assert_eq!(edge.status.snapshots(), 1);

    // And one that is there when all is purged goes on.
    nats.api("STREAM.PURGE.HOMES", Value::Null).await.unwrap();
    put(&door, 3000..3100, "fr").await;
    edge.level(&central).await;
    assert!(is_ours(look(&edge, 3099)));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_histories_never_mix_in_a_stream() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start();
    let first = open(&data.path().join("first"));
    let door = TestDoor::open(first.clone(), None);
    put(&door, 0..10, "fr").await;
    let (status, publishing) = publisher(&first, &server);
    until("published", || status.published() == first.head()).await;
    publishing.abort();
    let second = open(&data.path().join("second"));
    let (status, _publishing) = publisher(&second, &server);
    until("refused", || status.show()["trouble"].as_str().is_some_and(|why| why.contains("another feed"))).await;

    // Nor do two publishers of one.
    let both = [publisher(&first, &server), publisher(&first, &server)];
    for round in 1..20 {
        put(&door, round * 100..round * 100 + 60, "fr").await;
    }
    until("published", || both.iter().any(|(status, _)| status.published() == first.head())).await;
    let (subjects, mut nats) = (Subjects::of(&at(&server)), Nats::connect(&at(&server)).await.unwrap());
    let (mut next, mut reached) = (1, 0);
    while let Some(stored) = coordinator::feed::source::nats::stored_from(&mut nats, &subjects, next).await.unwrap() {
        let (from, until) = stored.covers().unwrap();
        assert!(from == reached + 1 || until == reached, "{from} to {until} follows {reached}");
        if !stored.message.payload.starts_with(b"{\"t\":\"edges\"") {
            reached = until;
        }
        next = stored.seq + 1;
    }
    assert_eq!(reached, first.head());
}
