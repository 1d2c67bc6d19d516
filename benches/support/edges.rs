//! Central and three edges in this process, each with its doors and its folder, and how long a home takes to reach all.

#[path = "../../tests/it/harness/launch.rs"]
mod launch;

use super::histogram::Histogram;
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
const LONG: Duration = Duration::from_secs(20);

/// Puts so many homes, one after the other. Gives microseconds by name.
pub fn propagation(puts: u64) -> Value {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder on a disk");
    let (_port, central) = held_port();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("a temporary file");
    // Nobody calls the peer doors of these edges.
    let peers = EDGES.map(|name| format!("[edges.{name}]\npeer = \"http://127.0.0.1:9\"\n")).concat();
    let door = format!("[peer]\naddress = \"{central}\"\n");
    write("central.toml", format!("[central]\ndata = \"central\"\nworkers = 1\n{door}[log]\naccess = false\n{peers}"));
    let _central = launch(&folder.path().join("central.toml"), load::central, Running::central);
    let edges = EDGES.map(|name| {
        let file = format!("{name}.toml");
        write(&file, edge(name, central));
        launch(&folder.path().join(file), load::edge, Running::edge)
    });
    let homes: Vec<Arc<Homes>> = edges.iter().map(|edge| edge.homes().expect("it follows Central").clone()).collect();
    let registered = settled(&homes);
    let followed = homes.clone();
    let (stations, arrivals): (Vec<_>, Vec<_>) = homes.into_iter().map(station).unzip();
    let mut wire = TcpStream::connect(central).expect("Central's door is open");
    wire.set_nodelay(true).expect("a socket");
    let [mut durable, mut everywhere, mut beyond] = [(); 3].map(|()| Histogram::new());
    for put in 1..=puts {
        stations.iter().for_each(|station| station.send(registered + put).expect("the station is there"));
        let began = Instant::now();
        self::put(&mut wire, put);
        let answered = Instant::now();
        let arrived = arrivals.iter().map(|arrival| arrival.recv().expect("the station is there")).max();
        let arrived = arrived.expect("there are three");
        durable.record(answered - began);
        everywhere.record(arrived - began);
        beyond.record(arrived.saturating_duration_since(answered));
    }
    // Were a put not one entry, arrivals would have been taken for those of others.
    assert!(followed.iter().all(|homes| homes.cursor().seq == registered + puts), "entries beside the puts");
    let mut figures = json!({});
    for (name, times) in [
        ("put answered, so durable at Central", durable),
        ("applied at all three edges, since the put was sent", everywhere),
        ("applied at all three edges, since the put was answered", beyond),
    ] {
        for (share, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            figures[format!("{name}: {share}")] = times.micros(quantile).into();
        }
    }
    figures
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

/// Says when an edge has applied the seq that it is asked for.
fn station(homes: Arc<Homes>) -> (mpsc::Sender<u64>, mpsc::Receiver<Instant>) {
    let (ask, asked) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        for seq in asked {
            assert!(runtime.block_on(homes.seq_reached(seq, LONG)), "seq {seq} never came: {:?}", homes.cursor());
            if tell.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    (ask, told)
}

fn put(wire: &mut TcpStream, key: u64) {
    let body = format!("{{\"home\":\"{}\"}}", EDGES[key as usize % 3]);
    let request = format!(
        "PUT /v1/homes/user/u{key} HTTP/1.1\r\nHost: central\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    wire.write_all(request.as_bytes()).expect("Central listens");
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let got = wire.read(&mut piece).expect("Central answers");
        answer.extend_from_slice(&piece[..got]);
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        assert!(got > 0 && text.starts_with("http/1.1 201"), "{text}");
        let Some((head, content)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
        if length.is_some_and(|length| content.len() >= length) {
            return;
        }
    }
}
