//! An edge's link to a real Central: it follows, asks, falls behind, and stands still before another history.

use crate::central::open;
use crate::door::TestDoor;
use crate::follower::{Follower, copy, is_ours, put, url};
use coordinator::feed::follow::Alarm;
use coordinator::home::Home;
use coordinator::homes::{Asked, Homes, Registered};
use std::io::Read as _;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn it_follows_over_cuts_and_restarts() {
    let data = tempfile::tempdir().unwrap();
    let (at_central, at_edge) = (data.path().join("central"), data.path().join("edge"));
    let central = open(&at_central);
    let door = TestDoor::open(central.clone(), None);
    put(&door, 0..100, "fr").await;
    let edge = Follower::of_central(&at_edge, "fr", &[door.address]);
    edge.level(&central).await;
    assert!(edge.owns(7) && edge.status.is_up());
    // Central is told both how far the edge is and how far its disk is.
    edge.until("acknowledged", |_| {
        let told = central.followers().into_iter().find_map(|(name, edge)| edge.filter(|_| name == "fr"));
        told.is_some_and(|told| (told.applied, told.durable) == (central.head(), central.head()))
    })
    .await;

    for round in 1..5 {
        let before = edge.status.connects();
        door.cut();
        edge.until("connected again", |edge| edge.status.connects() > before).await;
        put(&door, round * 100..round * 100 + 50, "de").await;
        edge.level(&central).await;
        assert!(matches!(edge.look(round * 100 + 49), Home::At { .. }));
    }

    // Central goes and comes back; the edge serves meanwhile, and starts again meanwhile.
    let address = door.address;
    drop(door);
    central.shutdown();
    drop(central);
    edge.until("down", |edge| !edge.status.is_up()).await;
    assert!(edge.owns(7));
    edge.stop().await;
    let edge = Follower::of_central(&at_edge, "fr", &[address]);
    assert!(edge.owns(7) && matches!(edge.look(449), Home::At { .. }));
    assert_eq!(edge.homes.ask("user", "nobody").await, Asked::Unreachable);

    let central = open(&at_central);
    let door = TestDoor::open(central.clone(), Some(address));
    put(&door, 900..901, "fr").await;
    edge.level(&central).await;
    assert!(edge.owns(900));
    edge.until("level", |edge| edge.status.lag_seq() == 0 && edge.status.is_up()).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_asks_and_claims_and_delivers_registrations() {
    let data = tempfile::tempdir().unwrap();
    let (at_fr, at_de) = (data.path().join("fr"), data.path().join("de"));
    let central = open(&data.path().join("central"));
    let door = TestDoor::open(central.clone(), None);
    let fr = Follower::of_central(&at_fr, "fr", &[door.address]);
    let de = Follower::of_central(&at_de, "de", &[door.address]);
    fr.level(&central).await;
    de.level(&central).await;
    fr.until("connected", |edge| edge.status.is_connected()).await;
    de.until("connected", |edge| edge.status.is_connected()).await;

    assert_eq!(fr.homes.register("user", "a b/ü", WAIT).await, Registered::Granted);
    assert!(matches!(de.homes.ask("user", "a b/ü").await, Asked::Home(Home::At { .. })));
    assert!(matches!(de.homes.claim_now("user", "1").await, Asked::Home(Home::Ours { .. })));
    assert!(matches!(fr.homes.claim_now("user", "1").await, Asked::Home(Home::At { .. })));
    assert_eq!(fr.homes.ask("user", "nobody").await, Asked::NoSuchKey);

    // A registration while Central is away is delivered when it is back.
    let address = door.address;
    drop(door);
    let pending = fr.homes.register("user", "later", Duration::from_millis(100)).await;
    assert_eq!(pending, Registered::Pending);
    let _door = TestDoor::open(central.clone(), Some(address));
    fr.until("granted", |edge| is_ours(edge.homes.look("user", "later"))).await;
    let asked = async {
        loop {
            // The negative answers of an unreachable Central are not remembered; those of a reachable one are short.
            if let Asked::Home(home) = de.homes.ask("user", "later").await {
                return home;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(matches!(tokio::time::timeout(WAIT, asked).await.unwrap(), Home::At { .. }));
    fr.stop().await;
    de.stop().await;
}

/// A wire to `to` each of whose connections breaks once it has carried so many octets back. Counts those that did.
fn brittle(to: SocketAddr, octets: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, broken) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = broken.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(mut client), Ok(mut server)) = (client, std::net::TcpStream::connect(to)) else { return };
            let (mut requests, mut central) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let count = count.clone();
            std::thread::spawn(move || std::io::copy(&mut requests, &mut central));
            std::thread::spawn(move || {
                let carried = std::io::copy(&mut std::io::Read::by_ref(&mut server).take(octets as u64), &mut client);
                count.fetch_add(usize::from(carried.is_ok_and(|carried| carried == octets as u64)), Relaxed);
                let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
            });
        }
    });
    (address, broken)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_cut_goes_on_where_it_was() {
    let data = tempfile::tempdir().unwrap();
    let at_edge = data.path().join("edge");
    std::fs::create_dir(&at_edge).unwrap();
    let central = open(&data.path().join("central"));
    let door = TestDoor::open(central.clone(), None);
    put(&door, 0..20_000, "fr").await;
    // Some 120 KiB, in four or five connections.
    let (wire, broken) = brittle(door.address, 30 << 10);
    let edge = Follower::of_central(&at_edge, "fr", &[wire]);
    edge.level(&central).await;
    assert!((0..20_000).all(|key| edge.owns(key)));
    assert_eq!(edge.status.snapshots(), 1);
    assert!(broken.load(Relaxed) >= 3, "{broken:?} connections broke");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_far_behind_it_takes_a_snapshot() {
    let data = tempfile::tempdir().unwrap();
    let at_edge = data.path().join("edge");
    let central = open(&data.path().join("central"));
    let door = TestDoor::open(central.clone(), None);
    put(&door, 0..10, "fr").await;
    let edge = Follower::of_central(&at_edge, "fr", &[door.address]);
    edge.level(&central).await;
    edge.stop().await;

    put(&door, 10..5_000, "de").await;
    put(&door, 5_000..5_010, "fr").await;
    let edge = Follower::of_central(&at_edge, "fr", &[door.address]);
    edge.level(&central).await;
    edge.until("one snapshot", |edge| edge.status.snapshots() == 1).await;
    assert!(edge.owns(7) && edge.owns(5_009));
    assert!(matches!(edge.look(4_000), Home::At { .. }));
    put(&door, 6_000..6_001, "fr").await;
    edge.level(&central).await;
    assert!(edge.owns(6_000));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stands_still_before_another_history_and_goes_on_with_its_own() {
    let data = tempfile::tempdir().unwrap();
    let at_edge = data.path().join("edge");
    let (ours, other) = (open(&data.path().join("ours")), open(&data.path().join("other")));
    let door = TestDoor::open(ours.clone(), None);
    let address = door.address;
    put(&door, 0..10, "fr").await;
    let edge = Follower::of_central(&at_edge, "fr", &[address]);
    edge.level(&ours).await;
    drop(door);

    let door = TestDoor::open(other.clone(), Some(address));
    put(&door, 0..50, "de").await;
    edge.until("alarmed", |edge| edge.status.alarm() == Some(Alarm::OtherFeed)).await;
    assert!(!edge.status.is_up() && edge.owns(7));
    assert_eq!(edge.homes.ask("user", "11").await, Asked::Unreachable);
    assert_eq!(edge.homes.claim_now("user", "new").await, Asked::Unreachable);
    assert_eq!(other.head(), 52);
    drop(door);

    let door = TestDoor::open(ours.clone(), Some(address));
    put(&door, 10..11, "fr").await;
    edge.level(&ours).await;
    assert!(edge.owns(10) && edge.status.is_up());
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_notices_that_central_lost_entries() {
    let data = tempfile::tempdir().unwrap();
    let (at_central, at_edge, at_copy) = (data.path().join("c"), data.path().join("e"), data.path().join("copy"));
    let central = open(&at_central);
    copy(&at_central, &at_copy);
    let door = TestDoor::open(central.clone(), None);
    let address = door.address;
    put(&door, 0..10, "fr").await;
    let edge = Follower::of_central(&at_edge, "fr", &[address]);
    edge.level(&central).await;
    drop(door);

    let restored = open(&at_copy);
    assert!(restored.head() < central.head());
    let door = TestDoor::open(restored.clone(), Some(address));
    // Told by 416, Central takes the next term and waits for all edges; one of them has never run.
    edge.until("reported", |_| restored.awaited() == Some(vec!["de".to_owned()])).await;
    assert!(edge.owns(9));
    assert_eq!(edge.homes.claim_now("user", "9000").await, Asked::Unreachable);
    assert_eq!((restored.head(), restored.term(), edge.homes.obeyed()), (3, 2, 2));
    drop(door);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_address_is_tried_when_one_is_dead() {
    let data = tempfile::tempdir().unwrap();
    let at_edge = data.path().join("edge");
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let central = open(&data.path().join("central"));
    let door = TestDoor::open(central.clone(), None);
    let edge = Follower::of_central(&at_edge, "fr", &[dead, door.address]);
    edge.level(&central).await;
    assert_eq!(edge.homes.register("user", "1", WAIT).await, Registered::Granted);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_the_first_snapshot_is_nothing_to_remember() {
    let data = tempfile::tempdir().unwrap();
    let at_edge = data.path().join("edge");
    let central = open(&data.path().join("central"));
    let door = TestDoor::open(central.clone(), None);
    put(&door, 0..10, "fr").await;
    std::fs::create_dir(&at_edge).unwrap();
    let (homes, mut applier, asks) = Homes::open(&at_edge, "fr", vec!["user".into()]).unwrap();
    applier.registered(0, 1);
    applier.begin_feed(central.feed_id().parse().unwrap(), 1).unwrap();
    drop((homes, applier, asks));
    let edge = Follower::of_central(&at_edge, "fr", &[door.address]);
    edge.level(&central).await;
    assert!(edge.owns(7));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_cut_on_its_way_goes_on_where_it_was() {
    let data = tempfile::tempdir().unwrap();
    let at_edge = data.path().join("edge");
    std::fs::create_dir(&at_edge).unwrap();
    let central = open(&data.path().join("central"));
    let door = TestDoor::open(central.clone(), None);
    for step in 0..10 {
        put(&door, step * 5_000..(step + 1) * 5_000, "fr").await;
    }
    *door.mischief.cut_snapshot.lock().unwrap() = Some(100_000);
    let edge = Follower::of_central(&at_edge, "fr", &[door.address]);
    edge.until("a part of it", |_| door.mischief.is_still.load(Relaxed)).await;
    door.cut();
    edge.level(&central).await;
    let asked = door.mischief.snapshots.lock().unwrap().clone();
    let [(None, 200), (Some(range), 206)] = &asked[..] else { panic!("{asked:?}") };
    let from: usize = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')).unwrap().parse().unwrap();
    assert!(from > 0 && from <= 100_000, "nothing that had come was asked for again: {range}");
    edge.until("one snapshot", |edge| edge.status.snapshots() == 1).await;
    assert!([0, 24_999, 49_999].into_iter().all(|key| edge.owns(key)));
    edge.stop().await;
}

/// Makes the event of `user:13` one that no release can read, and mends the checksum of its batch.
fn poisoned(line: bytes::Bytes) -> bytes::Bytes {
    let text = String::from_utf8(line.to_vec()).unwrap();
    let mut batch: serde_json::Value = serde_json::from_str(&text).unwrap();
    if batch["t"] == "hb" {
        // Else the digest would tell that a home is missing, and the map would be taken anew.
        batch.as_object_mut().unwrap().remove("dig");
        return format!("{batch}\n").into();
    }
    if !text.contains("\"user:13\"") {
        return line;
    }
    for event in batch["ev"].as_array_mut().unwrap() {
        if event["k"] == "user:13" {
            event["st"] = "of a later release".into();
        }
    }
    let covered = serde_json::to_vec(&[&batch["first"], &batch["last"], &batch["ev"]]).unwrap();
    batch["crc"] = crc32fast::hash(&covered).into();
    format!("{batch}\n").into()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_read_spares_the_others_and_central_is_told() {
    let data = tempfile::tempdir().unwrap();
    let at_edge = data.path().join("edge");
    std::fs::create_dir(&at_edge).unwrap();
    let central = open(&data.path().join("central"));
    let door = TestDoor::open(central.clone(), None);
    *door.mischief.bend.lock().unwrap() = Some(poisoned);
    put(&door, 0..1, "fr").await;
    let edge = Follower::of_central(&at_edge, "fr", &[door.address]);
    edge.level(&central).await;
    edge.until("connected", |edge| edge.status.is_connected()).await;
    put(&door, 10..20, "fr").await;
    edge.level(&central).await;
    put(&door, 20..21, "fr").await;
    edge.level(&central).await;
    assert_eq!((edge.status.poisoned(), edge.status.connects()), (1, 1), "it went on");
    assert!([10, 12, 14, 19, 20].into_iter().all(|key| edge.owns(key)));
    assert_eq!(edge.look(13), Home::Unknown, "it keeps its last good home, which is none");
    let mut line = coordinator::feed::client::Line::connect(&url(door.address), None).await.unwrap();
    let end = Instant::now() + WAIT;
    loop {
        let call = coordinator::feed::client::Call { target: "/v1/status".into(), ..Default::default() };
        let answer = line.send(call).await.unwrap();
        let text = coordinator::feed::client::content(answer.into_body(), 1 << 20).await.unwrap();
        let status: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let nack = status["edges"][0]["ack"]["nack"].clone();
        if nack[0]["why"].as_str().is_some_and(|why| why.contains("of a later release")) {
            // The two edges, the incarnation, the home before, and three of the ten stand before it.
            assert_eq!(nack[0]["s"], 8, "{nack}");
            break;
        }
        assert!(Instant::now() < end, "{status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_is_told_so_and_holds_nothing_up() {
    let data = tempfile::tempdir().unwrap();
    let central = open(&data.path().join("central"));
    let door = TestDoor::open(central.clone(), None);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut slow = socket.connect(door.address).await.unwrap();
    let feed = central.feed_id();
    let request = format!("GET /feed/v1/stream?feed={feed}&term=1&from=1 HTTP/1.1\r\nhost: c\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut slow, request.as_bytes()).await.unwrap();
    // More than the buffers of two sockets hold, and far more than Central keeps for it.
    for step in 0..30 {
        put(&door, step * 5_000..(step + 1) * 5_000, "fr").await;
    }
    let mut text = Vec::new();
    let reading = async {
        let mut piece = vec![0; 64 << 10];
        while !text.windows(9).any(|window| window == b"\"t\":\"bye\"") {
            let count = tokio::io::AsyncReadExt::read(&mut slow, &mut piece).await.unwrap();
            assert!(count > 0, "it was cut without a word");
            text.drain(..text.len().saturating_sub(1 << 10));
            text.extend_from_slice(&piece[..count]);
        }
    };
    tokio::time::timeout(WAIT, reading).await.expect("a bye");
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("too slow"), "{}", &text[text.len().saturating_sub(500)..]);
}
