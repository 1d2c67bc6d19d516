//! Central and three edges in this process, each with its doors and its folder: how long a home takes to reach all, how
//! fast an edge that was away catches up, and how many writers share a commit.

#[path = "../../tests/it/harness/launch.rs"]
mod launch;

use super::histogram::Histogram;
use coordinator::central::Central;
use coordinator::config::load;
use coordinator::edge::Running;
use coordinator::homes::Homes;
use launch::{held_port, launch};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const EDGES: [&str; 3] = ["fr", "us", "jp"];

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(120);

/// Central with its door, and the folder of all.
struct Deployment {
    folder: tempfile::TempDir,
    address: SocketAddr,
    central: Running,
    _port: socket2::Socket,
}

impl Deployment {
    fn start() -> Deployment {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder on a disk");
        let (port, address) = held_port();
        // Nobody calls the peer doors of these edges.
        let peers = EDGES.map(|name| format!("[edges.{name}]\npeer = \"http://127.0.0.1:9\"\n")).concat();
        let door = format!("[peer]\naddress = \"{address}\"\n");
        let file = folder.path().join("central.toml");
        let text = format!("[central]\ndata = \"central\"\nworkers = 1\n{door}[log]\naccess = false\n{peers}");
        std::fs::write(&file, text).expect("a temporary file");
        let central = launch(&file, load::central, Running::central);
        Deployment { folder, address, central, _port: port }
    }

    fn authority(&self) -> &Arc<Central> {
        self.central.authority().expect("it is Central")
    }

    fn edge(&self, name: &str) -> Running {
        let file = self.folder.path().join(format!("{name}.toml"));
        std::fs::write(&file, edge(name, self.address)).expect("a temporary file");
        launch(&file, load::edge, Running::edge)
    }

    fn wire(&self) -> TcpStream {
        let wire = TcpStream::connect(self.address).expect("Central's door is open");
        wire.set_nodelay(true).expect("a socket");
        wire
    }
}

/// Puts so many homes, one after the other, and says when each was durable at Central and applied at all edges. Gives
/// microseconds by name.
pub fn propagation(puts: u64) -> Value {
    let deployment = Deployment::start();
    let edges = EDGES.map(|name| deployment.edge(name));
    let homes: Vec<Arc<Homes>> = edges.iter().map(|edge| edge.homes().expect("it follows Central").clone()).collect();
    let registered = settled(&homes);
    let (stations, arrivals): (Vec<_>, Vec<_>) = homes.iter().map(|homes| at_edge(homes.clone())).unzip();
    let (commit, committed) = at_central(deployment.authority().clone());
    let mut wire = deployment.wire();
    let [mut durable, mut first, mut all] = [(); 3].map(|()| Histogram::new());
    for put in 1..=puts {
        stations.iter().chain([&commit]).for_each(|station| station.send(registered + put).expect("it is there"));
        let began = Instant::now();
        self::put(&mut wire, &format!("u{put}"), put);
        let since = committed.recv().expect("the station is there");
        let mut arrived: Vec<Instant> = arrivals.iter().map(|arrival| arrival.recv().expect("it is there")).collect();
        arrived.sort_unstable();
        durable.record(since - began);
        first.record(arrived[0].saturating_duration_since(since));
        all.record(arrived[arrived.len() - 1].saturating_duration_since(since));
    }
    // Were a put not one entry, arrivals would have been taken for those of others.
    assert!(homes.iter().all(|homes| homes.cursor().seq == registered + puts), "entries beside the puts");
    let mut figures = json!({});
    for (name, times) in [
        ("durable at Central, since the put was sent", durable),
        ("applied at the first edge, since it was durable at Central", first),
        ("applied at all three edges, since it was durable at Central", all),
    ] {
        for (share, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            figures[format!("{name}: {share}")] = times.micros(quantile).into();
        }
    }
    figures
}

/// The threads of an edge that follow the feed. Central has the first two as well, with next to nothing to do meanwhile.
const FOLLOWING: [&str; 4] = ["control", "tokio-rt-worker", "absorb-map", "absorb-ledger"];

/// Processor time of the threads of this process that follow the feed and have not ended.
fn following() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("the system tells").flatten();
    let nanos = tasks.filter_map(|task| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let times = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        FOLLOWING.contains(&name.trim()).then(|| times.split(' ').next()?.parse::<u64>().ok()).flatten()
    });
    Duration::from_nanos(nanos.sum())
}

/// Imports so many homes while the edge is away, and has it follow the stream from where it stood. Gives events a second
/// of the import, of the edge, and of the edge for each second of one core.
pub fn catch_up(events: u64) -> (f64, f64, f64) {
    let deployment = Deployment::start();
    let edge = deployment.edge("fr");
    settled(&[edge.homes().expect("it follows Central").clone()]);
    drop(edge);
    let before = deployment.authority().head();
    let began = Instant::now();
    import(&mut deployment.wire(), events);
    let imported = events as f64 / began.elapsed().as_secs_f64();
    let last = deployment.authority().head();
    assert_eq!(last - before, events, "each line is an entry");
    let edge = deployment.edge("fr");
    let homes = edge.homes().expect("it follows Central");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    // From its first batch on: connecting and greeting are not in the time.
    assert!(runtime.block_on(homes.seq_reached(before + 1, LONG)), "nothing came");
    let (began, had, from) = (Instant::now(), following(), homes.cursor().seq);
    assert!(runtime.block_on(homes.seq_reached(last, LONG)), "it never caught up: {:?}", homes.cursor());
    let (took, used, count) = (began.elapsed(), following().saturating_sub(had), (last - from) as f64);
    (imported, count / took.as_secs_f64(), count / used.as_secs_f64().max(1e-3))
}

/// Puts by so many writers at once, each waiting for its own answer. Gives puts a second, the median of what a put takes in
/// microseconds, and how many puts shared a commit.
pub fn writers(count: u64, lasts: Duration) -> (f64, f64, f64) {
    let deployment = Deployment::start();
    let mut heads = deployment.authority().heads();
    let began = Instant::now();
    let write = |writer: u64| {
        let (mut wire, mut times) = (deployment.wire(), Histogram::new());
        for n in 0.. {
            let start = Instant::now();
            if start - began >= lasts {
                break;
            }
            put(&mut wire, &format!("w{writer}-{n}"), n);
            times.record(start.elapsed());
        }
        times
    };
    let (times, groups) = std::thread::scope(|scope| {
        let counting = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            let mut groups = 0u64;
            runtime.block_on(async {
                while let Ok(Ok(())) =
                    tokio::time::timeout(lasts.saturating_sub(began.elapsed()), heads.changed()).await
                {
                    groups += 1;
                }
            });
            groups
        });
        let threads: Vec<_> = (0..count).map(|writer| scope.spawn(move || write(writer))).collect();
        let mut times = Histogram::new();
        threads.into_iter().for_each(|thread| times.add(&thread.join().expect("the writer ends")));
        (times, counting.join().expect("it ends"))
    });
    let puts = times.total() as f64;
    (puts / began.elapsed().as_secs_f64(), times.micros(0.5), puts / groups.max(1) as f64)
}

/// Says when Central has made a seq durable, which it publishes at once.
fn at_central(central: Arc<Central>) -> (mpsc::Sender<u64>, mpsc::Receiver<Instant>) {
    station(move |runtime, seq| {
        let mut heads = central.heads();
        let reached = runtime.block_on(async { heads.wait_for(|head| *head >= seq).await.is_ok() });
        assert!(reached, "Central has gone");
    })
}

/// Says when an edge has applied a seq, durably and for everybody to see.
fn at_edge(homes: Arc<Homes>) -> (mpsc::Sender<u64>, mpsc::Receiver<Instant>) {
    station(move |runtime, seq| {
        assert!(runtime.block_on(homes.seq_reached(seq, LONG)), "seq {seq} never came: {:?}", homes.cursor());
    })
}

/// Says when what it waits for has come, for each seq that it is asked for.
fn station(
    wait: impl Fn(&tokio::runtime::Runtime, u64) + Send + 'static,
) -> (mpsc::Sender<u64>, mpsc::Receiver<Instant>) {
    let (ask, asked) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        for seq in asked {
            wait(&runtime, seq);
            if tell.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    (ask, told)
}

fn edge(name: &str, central: SocketAddr) -> String {
    format!(
        "[edge]\nname = \"{name}\"\ndata = \"{name}\"\nworkers = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\n\
         [peer]\naddress = \"127.0.0.1:0\"\n[local]\norigins = [\"http://127.0.0.1:9\"]\n[log]\naccess = false\n\
         [central]\nurl = \"http://{central}\"\n[homes.user]\n[[route]]\nmatch = \"/\"\nto = \"local\"\n"
    )
}

/// Where the edges stand once all have applied that all are registered: nothing is entered any more.
fn settled(homes: &[Arc<Homes>]) -> u64 {
    let seqs = || homes.iter().map(|homes| homes.cursor().seq).collect::<Vec<_>>();
    let deadline = Instant::now() + LONG;
    loop {
        let before = seqs();
        std::thread::sleep(std::time::Duration::from_secs(1));
        match before.first() {
            Some(first) if *first > 0 && seqs().iter().all(|seq| seq == first) => return *first,
            _ => assert!(Instant::now() < deadline, "the edges do not settle: {before:?}"),
        }
    }
}

/// One home, and its answer.
fn put(wire: &mut TcpStream, key: &str, home: u64) {
    let body = format!("{{\"home\":\"{}\"}}", EDGES[home as usize % 3]);
    let request = format!(
        "PUT /v1/homes/user/{key} HTTP/1.1\r\nHost: central\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    wire.write_all(request.as_bytes()).expect("Central listens");
    answered(wire, "http/1.1 201");
}

/// Many homes in one request.
fn import(wire: &mut TcpStream, count: u64) {
    let line = |n: u64| format!("{{\"space\":\"user\",\"key\":\"i{n}\",\"home\":\"{}\"}}\n", EDGES[n as usize % 3]);
    let length: usize = (0..count).map(|n| line(n).len()).sum();
    let head = format!(
        "POST /v1/homes HTTP/1.1\r\nHost: central\r\nContent-Type: application/x-ndjson\r\nContent-Length: {length}\r\n\r\n"
    );
    let mut writer = std::io::BufWriter::with_capacity(1 << 18, &*wire);
    writer.write_all(head.as_bytes()).expect("Central listens");
    (0..count).for_each(|n| writer.write_all(line(n).as_bytes()).expect("Central takes all"));
    writer.flush().expect("Central takes all");
    drop(writer);
    answered(wire, "http/1.1 200");
}

/// Takes an answer that begins so, to its end.
fn answered(wire: &mut TcpStream, begins: &str) {
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let got = wire.read(&mut piece).expect("Central answers");
        answer.extend_from_slice(&piece[..got]);
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        assert!(got > 0 && text.starts_with(begins), "{text}");
        let Some((head, content)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
        if length.is_some_and(|length| content.len() >= length) {
            return;
        }
    }
}
