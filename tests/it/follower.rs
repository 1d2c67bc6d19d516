//! An edge that follows homes without any door of its own: the map, the ledger and the link, against a Central behind a
//! [`TestDoor`] or what it publishes.

use crate::door::TestDoor;
use coordinator::base::snapshot::{Reader, Snapshot};
use coordinator::central::Central;
use coordinator::config::plan::{NatsStream, Url, UrlScheme};
use coordinator::feed::client::{Call, Line};
use coordinator::feed::link::{self, Pace, Target};
use coordinator::feed::source::nats::Stream;
use coordinator::feed::status::LinkStatus;
use coordinator::home::Home;
use coordinator::homes::{Applier, AskReceiver, Homes};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a level may take to be reached: a server that was killed is waited for with a back-off.
const WAIT: Duration = Duration::from_secs(40);

type Link = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// What a link is made of, and who stops it.
struct Parts {
    applier: Applier,
    asks: AskReceiver,
    target: Reader<Target>,
    status: Arc<LinkStatus>,
    stop: watch::Receiver<bool>,
}

/// An edge's homes and their link.
pub struct Follower {
    pub homes: Arc<Homes>,
    pub status: Arc<LinkStatus>,
    stop: watch::Sender<bool>,
    _target: Snapshot<Target>,
    tasks: Vec<JoinHandle<()>>,
}

impl Follower {
    /// One that follows Central behind these doors.
    pub fn of_central(dir: &Path, name: &str, doors: &[SocketAddr]) -> Follower {
        Follower::start(dir, name, doors, |parts| {
            Box::pin(link::run(parts.applier, parts.asks, parts.target, parts.status, parts.stop))
        })
    }

    /// One that follows a stream; what the stream cannot tell is asked at Central's door.
    pub fn of_stream(dir: &Path, name: &str, door: SocketAddr, at: NatsStream) -> Follower {
        Follower::start(dir, name, &[door], |parts| {
            let source = Stream::new(at, parts.target, parts.status.clone());
            Box::pin(link::run_from(source, parts.applier, parts.asks, parts.status, parts.stop))
        })
    }

    fn start(dir: &Path, name: &str, doors: &[SocketAddr], link: impl FnOnce(Parts) -> Link) -> Follower {
        std::fs::create_dir_all(dir).unwrap();
        let (homes, applier, asks) = Homes::open(dir, name, vec!["user".into()]).unwrap();
        let pace = Pace { spread: Duration::from_millis(50), alarmed: Duration::from_millis(50), ..Pace::default() };
        let target = Snapshot::new(Target {
            edge: name.into(),
            instance: "i".into(),
            spaces: Vec::new(),
            urls: doors.iter().map(|address| url(*address)).collect(),
            tls: None,
            pace,
            fault: Default::default(),
            rtt: Default::default(),
        });
        let (status, stop) = (Arc::new(LinkStatus::default()), watch::Sender::new(false));
        let parts = Parts { applier, asks, target: target.reader(), status: status.clone(), stop: stop.subscribe() };
        let link = link(parts);
        let tasks = vec![tokio::spawn(async move { link.await.unwrap() }), tokio::spawn(homes.clone().deliver())];
        Follower { homes, status, stop, _target: target, tasks }
    }

    pub async fn until(&self, what: &str, mut holds: impl FnMut(&Follower) -> bool) {
        until(|| format!("{what}: {:?} {:?}", self.status, self.homes.cursor()), || holds(self)).await;
    }

    pub async fn level(&self, central: &Central) {
        self.until("level with Central", |edge| edge.homes.cursor().seq >= central.head()).await;
    }

    pub fn look(&self, key: u32) -> Home {
        self.homes.look("user", &key.to_string())
    }

    /// Whether a key is this edge's, confirmed by Central.
    pub fn owns(&self, key: u32) -> bool {
        is_ours(self.look(key))
    }

    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        self.tasks.remove(0).await.unwrap();
        for task in self.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
    }
}

pub fn is_ours(home: Home) -> bool {
    matches!(home, Home::Ours { provisional: false, .. })
}

/// Waits for a level; `what` is told if it is not reached.
pub async fn until(what: impl Fn() -> String, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + WAIT;
    while !holds() {
        assert!(Instant::now() < end, "{}", what());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn url(address: SocketAddr) -> Url {
    Url { scheme: UrlScheme::Http, host: address.ip().to_string(), port: address.port(), base: String::new() }
}

/// Creates homes at Central, as the application would.
pub async fn put(door: &TestDoor, keys: std::ops::Range<u32>, home: &str) {
    let lines: String = keys.map(|key| format!("{{\"key\":\"{key}\",\"home\":\"{home}\"}}\n")).collect();
    let mut line = Line::connect(&url(door.address), None).await.unwrap();
    let call =
        Call { method: http::Method::POST, target: "/v1/homes".into(), content: lines.into(), ..Call::default() };
    assert_eq!(line.send(call).await.unwrap().status(), 200);
}

/// Copies Central's folder, as a backup does.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}
