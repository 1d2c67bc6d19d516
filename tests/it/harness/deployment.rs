//! A whole deployment of real processes: Central and three edges with mutual TLS, each before an application of its own
//! that outlives it, to be killed, stopped, cut off and started again.

use super::app::App;
use super::client::{Answer, Client};
use super::edge::door_in;
use super::process::{Process, Signal};
use super::wait;
use super::world::{CENTRAL, EDGES, Setup, World, setup};
use serde_json::Value;
use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// How long a request may take that need not be answered: beyond what a loaded machine needs, within what a place that
/// stands still may cost.
pub const TRY: Duration = Duration::from_secs(3);

/// Central and three edges as processes.
pub struct Deployment {
    /// Their files, certificates, and the wires to Central.
    pub world: World,
    /// What stands behind each place.
    pub apps: HashMap<&'static str, App>,
    running: Mutex<HashMap<&'static str, Process>>,
}

/// All places.
pub fn places() -> impl Iterator<Item = &'static str> {
    EDGES.into_iter().chain([CENTRAL])
}

impl Deployment {
    /// Starts everything.
    pub fn start() -> Deployment {
        Deployment::start_with(setup())
    }

    /// Starts everything, with routes of one's own.
    pub fn start_with(setup: Setup) -> Deployment {
        let apps: HashMap<_, _> = places().map(|place| (place, App::start(place))).collect();
        let setup = apps.iter().fold(setup, |setup, (place, app)| setup.with_origin(place, app.url()));
        let deployment = Deployment { world: setup.build(), apps, running: Mutex::default() };
        deployment.launch(CENTRAL);
        EDGES.into_iter().for_each(|edge| deployment.launch(edge));
        for (edge, other) in EDGES.into_iter().flat_map(|edge| EDGES.map(|other| (edge, other))) {
            let known = || edge == other || deployment.knows(edge, other);
            wait::until(&format!("{edge} to know {other}"), known, |known| *known);
        }
        deployment
    }

    /// Whether an edge runs and has a link to another place: a new one has none before the feed has told it.
    pub fn knows(&self, edge: &str, other: &str) -> bool {
        let status = self.try_admin(edge, "GET", "/status").unwrap_or_default();
        let clusters = status["clusters"].as_array().map(Vec::as_slice).unwrap_or_default();
        clusters.iter().any(|cluster| cluster["name"] == other)
    }

    /// Starts a place, and waits until its doors are open.
    #[track_caller]
    pub fn launch(&self, place: &'static str) {
        let file = self.world.folder().join(&format!("{place}.toml"));
        let command = if place == CENTRAL { "central" } else { "run" };
        let mut process = Process::start(&[command, "--config", file.to_str().expect("a temporary path is text")]);
        process.line(if place == CENTRAL { "central" } else { "admin" });
        self.running().insert(place, process);
    }

    /// Ends a place as `kill -9` does.
    pub fn kill(&self, place: &str) {
        let process = self.running().remove(place);
        if let Some(mut process) = process {
            process.kill();
        }
    }

    /// Sends a signal to a place that runs.
    pub fn signal(&self, place: &str, signal: Signal) {
        if let Some(process) = self.running().get(place) {
            process.signal(signal);
        }
    }

    /// What a place has printed since it was started.
    pub fn lines(&self, place: &str) -> Vec<String> {
        self.running().get(place).map(Process::lines).unwrap_or_default()
    }

    fn running(&self) -> MutexGuard<'_, HashMap<&'static str, Process>> {
        self.running.lock().expect("nobody panics under this lock")
    }

    /// A door of a place, while it runs.
    pub fn door_of(&self, place: &str, door: &str) -> Option<SocketAddr> {
        self.lines(place).iter().find_map(|line| door_in(line, door))
    }

    /// The public door of an edge, while it runs.
    pub fn door(&self, edge: &str) -> Option<SocketAddr> {
        self.door_of(edge, "public")
    }

    /// A request that may fail in any way: nothing is known then.
    pub fn try_ask(&self, edge: &str, method: &str, path: &str) -> Option<Answer> {
        ask_at(self.door(edge)?, "shop.example", method, path)
    }

    /// Asks the admin door of a place; `None` if it does not answer.
    pub fn try_admin(&self, place: &str, method: &str, path: &str) -> Option<Value> {
        let address = self.door_of(place, "admin")?;
        let answer = ask_at(address, &address.to_string(), method, path)?;
        assert_eq!(answer.status, 200, "{method} {path} at {place}: {answer:?}");
        Some(answer.json())
    }

    /// The status of an edge's `/health/ready`.
    pub fn ready(&self, edge: &str) -> u16 {
        let address = self.door_of(edge, "admin").expect("the admin door of an edge that runs");
        ask_at(address, &address.to_string(), "GET", "/health/ready").expect("it answers").status
    }

    /// The value of a metric of an edge, by its name and labels as they are written.
    pub fn metric(&self, edge: &str, name: &str) -> f64 {
        let address = self.door_of(edge, "admin").expect("the admin door of an edge that runs");
        let page = ask_at(address, &address.to_string(), "GET", "/metrics").expect("it answers").text();
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("{name} is missing in\n{page}"))
    }

    /// Asks Central, which must answer, as an operator.
    pub fn ask_central(&self, method: &str, path: &str, body: &str) -> Answer {
        self.world.central().ask(method, path, body)
    }

    /// The highest resident memory of an edge so far, in KiB.
    pub fn memory(&self, edge: &str) -> u64 {
        let id = self.running()[edge].id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a running process has a status");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a highest resident size");
        line.split_whitespace().nth(1).and_then(|size| size.parse().ok()).expect("a size")
    }
}

fn ask_at(address: SocketAddr, host: &str, method: &str, path: &str) -> Option<Answer> {
    let tcp = TcpStream::connect_timeout(&address, TRY).ok()?;
    let same = tcp.try_clone().ok()?;
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let mut client = Client::over_plain(tcp);
    same.set_read_timeout(Some(TRY)).ok()?;
    client.send(head).try_answer(method).ok()
}
