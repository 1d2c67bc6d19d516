//! An edge's link to a real Central: it follows, asks, falls behind, and stands still before another history.

use crate::central::open;
use crate::door::TestDoor;
use coordinator::base::snapshot::Snapshot;
use coordinator::central::Central;
use coordinator::config::plan::{Url, UrlScheme};
use coordinator::feed::follow::Alarm;
use coordinator::feed::link::{self, Pace, Target};
use coordinator::feed::status::LinkStatus;
use coordinator::home::Home;
use coordinator::homes::{Asked, Homes, Registered};
use std::io::Read as _;
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const WAIT: Duration = Duration::from_secs(10);

fn url(address: SocketAddr) -> Url {
    Url { scheme: UrlScheme::Http, host: address.ip().to_string(), port: address.port(), base: String::new() }
}

/// An edge's homes and their link.
struct Edge {
    homes: Arc<Homes>,
    status: Arc<LinkStatus>,
    stop: watch::Sender<bool>,
    _target: Snapshot<Target>,
    tasks: Vec<JoinHandle<()>>,
}

impl Edge {
    fn start(dir: &Path, name: &str, doors: &[SocketAddr]) -> Edge {
        let (homes, applier, asks) = Homes::open(dir, name, vec!["user".into()]).unwrap();
        let pace = Pace { spread: Duration::from_millis(50), alarmed: Duration::from_millis(50), ..Pace::default() };
        let urls = doors.iter().map(|address| url(*address)).collect();
        let target = Snapshot::new(Target {
            edge: name.into(),
            instance: "i".into(),
            urls,
            tls: None,
            pace,
            fault: Default::default(),
            rtt: Default::default(),
        });
        let (status, stop) = (Arc::new(LinkStatus::default()), watch::Sender::new(false));
        let link = link::run(applier, asks, target.reader(), status.clone(), stop.subscribe());
        let tasks = vec![tokio::spawn(async move { link.await.unwrap() }), tokio::spawn(homes.clone().deliver())];
        Edge { homes, status, stop, _target: target, tasks }
    }

    async fn until(&self, what: &str, mut holds: impl FnMut(&Edge) -> bool) {
        let end = Instant::now() + WAIT;
        while !holds(self) {
            assert!(Instant::now() < end, "{what}: {:?} {:?}", self.status, self.homes.cursor());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn level(&self, central: &Central) {
        self.until("level with Central", |edge| edge.homes.cursor().seq >= central.head()).await;
    }

    async fn stop(mut self) {
        self.stop.send_replace(true);
        self.tasks.remove(0).await.unwrap();
        for task in self.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
    }
}

/// Creates homes at Central, as the application would.
async fn put(door: &TestDoor, keys: std::ops::Range<u32>, home: &str) {
    let lines: String = keys.map(|key| format!("{{\"key\":\"{key}\",\"home\":\"{home}\"}}\n")).collect();
    let mut line = coordinator::feed::client::Line::connect(&url(door.address), None).await.unwrap();
    let call = coordinator::feed::client::Call {
        method: http::Method::POST,
        target: "/v1/homes".into(),
        fields: Vec::new(),
        content: lines.into(),
        ..coordinator::feed::client::Call::default()
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
async fn it_follows_over_cuts_and_restarts() {
    let data = tempfile::tempdir().unwrap();
    let (at_central, at_edge) = (data.path().join("central"), data.path().join("edge"));
    std::fs::create_dir(&at_edge).unwrap();
    let central = open(&at_central);
    let door = TestDoor::open(central.clone(), None);
    put(&door, 0..100, "fr").await;
    let edge = Edge::start(&at_edge, "fr", &[door.address]);
    edge.level(&central).await;
    assert!(is_ours(look(&edge, 7)) && edge.status.is_up());

    for round in 1..5 {
        let before = edge.status.connects();
        door.cut();
        edge.until("connected again", |edge| edge.status.connects() > before).await;
        put(&door, round * 100..round * 100 + 50, "de").await;
        edge.level(&central).await;
        assert!(matches!(look(&edge, round * 100 + 49), Home::At { .. }));
    }

    // Central goes and comes back; the edge serves meanwhile, and starts again meanwhile.
    let address = door.address;
    drop(door);
    central.shutdown();
    drop(central);
    edge.until("down", |edge| !edge.status.is_up()).await;
    assert!(is_ours(look(&edge, 7)));
    edge.stop().await;
    let edge = Edge::start(&at_edge, "fr", &[address]);
    assert!(is_ours(look(&edge, 7)) && matches!(look(&edge, 449), Home::At { .. }));
    assert_eq!(edge.homes.ask("user", "nobody").await, Asked::Unreachable);

    let central = open(&at_central);
    let door = TestDoor::open(central.clone(), Some(address));
    put(&door, 900..901, "fr").await;
    edge.level(&central).await;
    assert!(is_ours(look(&edge, 900)));
    edge.until("level", |edge| edge.status.lag_seq() == 0 && edge.status.is_up()).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_asks_and_claims_and_delivers_registrations() {
    let data = tempfile::tempdir().unwrap();
    let (at_fr, at_de) = (data.path().join("fr"), data.path().join("de"));
    [&at_fr, &at_de].iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
    let central = open(&data.path().join("central"));
    let door = TestDoor::open(central.clone(), None);
    let fr = Edge::start(&at_fr, "fr", &[door.address]);
    let de = Edge::start(&at_de, "de", &[door.address]);
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
                count.fetch_add(usize::from(carried.is_ok_and(|carried| carried == octets as u64)), Ordering::Relaxed);
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
    let edge = Edge::start(&at_edge, "fr", &[wire]);
    edge.level(&central).await;
    assert!((0..20_000).all(|key| is_ours(look(&edge, key))));
    assert_eq!(edge.status.snapshots(), 1);
    assert!(broken.load(Ordering::Relaxed) >= 3, "{broken:?} connections broke");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_far_behind_it_takes_a_snapshot() {
    let data = tempfile::tempdir().unwrap();
    let at_edge = data.path().join("edge");
    std::fs::create_dir(&at_edge).unwrap();
    let central = open(&data.path().join("central"));
    let door = TestDoor::open(central.clone(), None);
    put(&door, 0..10, "fr").await;
    let edge = Edge::start(&at_edge, "fr", &[door.address]);
    edge.level(&central).await;
    edge.stop().await;

    put(&door, 10..5_000, "de").await;
    put(&door, 5_000..5_010, "fr").await;
    let edge = Edge::start(&at_edge, "fr", &[door.address]);
    edge.level(&central).await;
    edge.until("one snapshot", |edge| edge.status.snapshots() == 1).await;
    assert!(is_ours(look(&edge, 7)) && is_ours(look(&edge, 5_009)));
    assert!(matches!(look(&edge, 4_000), Home::At { .. }));
    put(&door, 6_000..6_001, "fr").await;
    edge.level(&central).await;
    assert!(is_ours(look(&edge, 6_000)));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stands_still_before_another_history_and_goes_on_with_its_own() {
    let data = tempfile::tempdir().unwrap();
    let at_edge = data.path().join("edge");
    std::fs::create_dir(&at_edge).unwrap();
    let (ours, other) = (open(&data.path().join("ours")), open(&data.path().join("other")));
    let door = TestDoor::open(ours.clone(), None);
    let address = door.address;
    put(&door, 0..10, "fr").await;
    let edge = Edge::start(&at_edge, "fr", &[address]);
    edge.level(&ours).await;
    drop(door);

    let door = TestDoor::open(other.clone(), Some(address));
    put(&door, 0..50, "de").await;
    edge.until("alarmed", |edge| edge.status.alarm() == Some(Alarm::OtherFeed)).await;
    assert!(!edge.status.is_up() && is_ours(look(&edge, 7)));
    assert_eq!(edge.homes.ask("user", "11").await, Asked::Unreachable);
    assert_eq!(edge.homes.claim_now("user", "new").await, Asked::Unreachable);
    assert_eq!(other.head(), 52);
    drop(door);

    let door = TestDoor::open(ours.clone(), Some(address));
    put(&door, 10..11, "fr").await;
    edge.level(&ours).await;
    assert!(is_ours(look(&edge, 10)) && edge.status.is_up());
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_notices_that_central_lost_entries() {
    let data = tempfile::tempdir().unwrap();
    let (at_central, at_edge, copy) = (data.path().join("c"), data.path().join("e"), data.path().join("copy"));
    [&at_edge, &copy].iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
    let central = open(&at_central);
    for file in std::fs::read_dir(&at_central).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    let door = TestDoor::open(central.clone(), None);
    let address = door.address;
    put(&door, 0..10, "fr").await;
    let edge = Edge::start(&at_edge, "fr", &[address]);
    edge.level(&central).await;
    drop(door);

    let restored = open(&copy);
    assert!(restored.head() < central.head());
    let door = TestDoor::open(restored.clone(), Some(address));
    // Told by 416, Central takes the next term and waits for all edges; one of them has never run.
    edge.until("reported", |_| restored.awaited() == Some(vec!["de".to_owned()])).await;
    assert!(is_ours(look(&edge, 9)));
    assert_eq!(edge.homes.claim_now("user", "9000").await, Asked::Unreachable);
    assert_eq!((restored.head(), restored.term(), edge.homes.obeyed()), (3, 2, 2));
    drop(door);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_address_is_tried_when_one_is_dead() {
    let data = tempfile::tempdir().unwrap();
    let at_edge = data.path().join("edge");
    std::fs::create_dir(&at_edge).unwrap();
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let central = open(&data.path().join("central"));
    let door = TestDoor::open(central.clone(), None);
    let edge = Edge::start(&at_edge, "fr", &[dead, door.address]);
    edge.level(&central).await;
    assert_eq!(edge.homes.register("user", "1", WAIT).await, Registered::Granted);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_the_first_snapshot_is_nothing_to_remember() {
    let data = tempfile::tempdir().unwrap();
    let at_edge = data.path().join("edge");
    std::fs::create_dir(&at_edge).unwrap();
    let central = open(&data.path().join("central"));
    let door = TestDoor::open(central.clone(), None);
    put(&door, 0..10, "fr").await;
    let (homes, mut applier, asks) = Homes::open(&at_edge, "fr", vec!["user".into()]).unwrap();
    applier.registered(0, 1);
    applier.begin_feed(central.feed_id().parse().unwrap(), 1).unwrap();
    drop((homes, applier, asks));
    let edge = Edge::start(&at_edge, "fr", &[door.address]);
    edge.level(&central).await;
    assert!(is_ours(look(&edge, 7)));
    edge.stop().await;
}
