//! A feed in a real JetStream: edges follow it there, whatever becomes of the server, the stream and Central.

use crate::central::{open, open_restored};
use crate::door::TestDoor;
use crate::follower::{Follower, copy, put};
use crate::harness::nats::Server;
use coordinator::base::clock;
use coordinator::central::Central;
use coordinator::central::publish::{Publisher, Status};
use coordinator::config::plan::NatsStream;
use coordinator::feed::nats::Nats;
use coordinator::feed::source::nats::{Subjects, stored_from, stored_last};
use coordinator::home::Home;
use coordinator::homes::Asked;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

fn at(server: &Server) -> NatsStream {
    NatsStream { host: "127.0.0.1".into(), port: server.port(), tls: false, login: None, stream: "HOMES".into() }
}

fn publisher(central: &Arc<Central>, server: &Server) -> (Arc<Status>, JoinHandle<()>) {
    let status = Arc::<Status>::default();
    let task = tokio::spawn(Publisher::new(central.clone(), at(server), status.clone()).run());
    (status, task)
}

fn follower(dir: &Path, name: &str, door: &TestDoor, server: &Server) -> Follower {
    Follower::of_stream(dir, name, door.address, at(server))
}

async fn until(what: &str, holds: impl FnMut() -> bool) {
    crate::follower::until(|| what.to_owned(), holds).await;
}

/// What a publisher complains of.
fn trouble(status: &Status) -> String {
    status.show()["trouble"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_followed_over_kills_of_everybody() {
    let data = tempfile::tempdir().unwrap();
    let (at_central, at_edge) = (data.path().join("central"), data.path().join("edge"));
    let mut server = Server::start();
    let central = open(&at_central);
    let door = TestDoor::open(central.clone(), None);
    let (published, publishing) = publisher(&central, &server);
    put(&door, 0..500, "fr").await;
    let edge = follower(&at_edge, "fr", &door, &server);
    edge.level(&central).await;
    edge.until("connected", |edge| edge.status.is_connected()).await;
    assert!(edge.owns(499) && edge.status.is_up());
    assert_eq!(edge.status.snapshots(), 1);

    // Claims are Central's, and come back by the stream.
    assert!(matches!(edge.homes.claim_now("user", "claimed").await, Asked::Home(Home::Ours { .. })));

    // The server is killed while homes come to be.
    for round in 1..4 {
        server.kill();
        put(&door, round * 1000..round * 1000 + 700, "de").await;
        server.launch();
        edge.level(&central).await;
        assert!(matches!(edge.look(round * 1000 + 699), Home::At { .. }));
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
    let edge = follower(&at_edge, "fr", &door, &server);
    assert!(edge.homes.cursor().seq == head && edge.owns(7));
    let (published_anew, _publishing) = publisher(&central, &server);
    put(&door, 9000..9300, "fr").await;
    edge.level(&central).await;
    assert!(edge.owns(9299));
    until("published", || published_anew.published() == central.head()).await;
    assert!(published.published() <= head);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_lost_what_it_had_is_filled_again_and_holes_cost_a_snapshot() {
    let data = tempfile::tempdir().unwrap();
    let (at_central, at_edge) = (data.path().join("central"), data.path().join("edge"));
    let mut server = Server::start();
    let central = open(&at_central);
    let door = TestDoor::open(central.clone(), None);
    let (status, _publishing) = publisher(&central, &server);
    put(&door, 0..900, "fr").await;
    let edge = follower(&at_edge, "fr", &door, &server);
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
    let edge = follower(&at_edge, "fr", &door, &server);
    edge.level(&central).await;
    assert!(edge.owns(2050) && matches!(edge.look(2150), Home::At { .. }));
    assert_eq!(edge.status.snapshots(), 1);

    // And one that is there when all is purged goes on.
    nats.api("STREAM.PURGE.HOMES", Value::Null).await.unwrap();
    put(&door, 3000..3100, "fr").await;
    edge.level(&central).await;
    assert!(edge.owns(3099));
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
    until("refused", || trouble(&status).contains("another feed")).await;

    // Nor do two publishers of one.
    let both = [publisher(&first, &server), publisher(&first, &server)];
    for round in 1..20 {
        put(&door, round * 100..round * 100 + 60, "fr").await;
    }
    until("published", || both.iter().any(|(status, _)| status.published() == first.head())).await;
    let (subjects, mut nats) = (Subjects::of(&at(&server)), Nats::connect(&at(&server)).await.unwrap());
    let (mut next, mut reached) = (1, 0);
    while let Some(stored) = stored_from(&mut nats, &subjects, next).await.unwrap() {
        let (from, until) = stored.covers().unwrap();
        assert!(from == reached + 1 || until == reached, "{from} to {until} follows {reached}");
        if !stored.message.payload.starts_with(b"{\"t\":\"edges\"") {
            reached = until;
        }
        next = stored.seq + 1;
    }
    assert_eq!(reached, first.head());
}

/// Central, edges fr and de on its stream, and a copy of Central that lacks what it granted last: 100 to 200 of fr.
struct Ahead {
    server: Server,
    door: TestDoor,
    central: Arc<Central>,
    published: Arc<Status>,
    publishing: JoinHandle<()>,
    edges: [Follower; 2],
    data: tempfile::TempDir,
}

async fn ahead() -> Ahead {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start();
    let central = open(&data.path().join("central"));
    let door = TestDoor::open(central.clone(), None);
    let (published, publishing) = publisher(&central, &server);
    let edges = ["fr", "de"].map(|name| follower(&data.path().join(name), name, &door, &server));
    put(&door, 0..100, "fr").await;
    until("published", || published.published() == central.head()).await;
    copy(&data.path().join("central"), &data.path().join("copy"));
    put(&door, 100..200, "fr").await;
    for edge in &edges {
        edge.level(&central).await;
    }
    Ahead { server, door, central, published, publishing, edges, data }
}

/// Both edges follow this Central in its term by the stream, and what the copy lacked is not lost.
async fn follows(edges: &[Follower; 2], door: &TestDoor, central: &Central, term: u64) {
    for edge in edges {
        edge.until("the new term", |edge| edge.homes.cursor().term == term && edge.status.is_connected()).await;
    }
    put(door, 5000..5010, "de").await;
    for edge in edges {
        edge.level(central).await;
    }
    let [fr, de] = edges;
    assert!(fr.owns(7) && fr.owns(150) && de.owns(5009));
    assert!(matches!(de.look(150), Home::At { .. }) && matches!(fr.look(5009), Home::At { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_a_term_that_ended_are_passed_over_while_their_central_still_publishes_them() {
    let Ahead { mut server, door, central: old, published, edges, data, .. } = ahead().await;
    let address = door.address;
    drop(door);
    let restored = open_restored(&data.path().join("copy"));
    let door = TestDoor::open(restored.clone(), Some(address));
    // Who connects anew asks Central first, and reports.
    server.kill();
    server.launch();
    until("all reports", || restored.awaited().is_none()).await;
    for edge in &edges {
        edge.until("the restored Central's term", |edge| edge.homes.cursor().term == 2).await;
    }
    // Nobody has told the old one: its stream grows on, in term 1.
    let elsewhere = TestDoor::open(old.clone(), None);
    for round in 0..20 {
        put(&elsewhere, 9000 + round..9001 + round, "de").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for edge in &edges {
        edge.until("frames of the old term to come", |edge| edge.status.passed_over() > 0).await;
        assert!(edge.homes.cursor().term == 2 && !edge.owns(9001), "and none to be taken");
    }
    // The restored one publishes: the stream begins anew, and the old one hears that it was superseded.
    let (status, _publishing) = publisher(&restored, &server);
    until("published", || status.published() == restored.head()).await;
    follows(&edges, &door, &restored, 2).await;
    put(&elsewhere, 9100..9101, "de").await;
    until("the old one to stop", || trouble(&published).contains("term 2")).await;
    assert_eq!(status.published(), restored.head());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_set_back_and_has_grown_again_is_noticed_at_its_stream() {
    for grown in [0, 300] {
        let Ahead { server, door, central, publishing, edges, data, .. } = ahead().await;
        let head = central.head();
        publishing.abort();
        central.shutdown();
        let address = door.address;
        drop((door, central));
        // The copy is started as if nothing had happened, and grants anew.
        let central = open(&data.path().join("copy"));
        let door = TestDoor::open(central.clone(), Some(address));
        put(&door, 1000..1000 + grown, "de").await;
        assert_eq!(central.head() > head, grown > 0);
        let (status, _publishing) = publisher(&central, &server);
        until("all reports", || central.term() == 2 && central.awaited().is_none()).await;
        until("published", || status.published() == central.head()).await;
        follows(&edges, &door, &central, 2).await;
        assert!(grown == 0 || edges[1].owns(1000 + grown - 1), "what it granted meanwhile stands");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_central_that_is_stopped_on_purpose_publishes_nothing() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start();
    let central = open(&data.path().join("central"));
    let door = TestDoor::open(central.clone(), None);
    let (status, _publishing) = publisher(&central, &server);
    put(&door, 0..10, "fr").await;
    until("published", || status.published() == central.head()).await;
    let before = central.head();
    central.stop().cut(clock::now(), Duration::from_secs(60));
    until("stopped", || trouble(&status).contains("stopped on purpose")).await;
    put(&door, 10..20, "fr").await;
    let (subjects, mut nats) = (Subjects::of(&at(&server)), Nats::connect(&at(&server)).await.unwrap());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let last = stored_last(&mut nats, &subjects).await.unwrap().unwrap();
    assert_eq!((last.covers().unwrap().1, status.is_connected()), (before, false));
    central.stop().mend();
    until("published again", || status.published() == central.head()).await;
}
