//! A whole deployment in this process: Central, the edges fr, us and jp, a scripted origin at each place, and wires to
//! Central that can be cut. Stories are told with it.
//!
//! It is configured as an operator would do it, by TOML files in a folder of its own, and each place starts the way `run`
//! and `central` do.

use super::client::{Answer, Client};
use super::folder::{self, Folder};
use super::h2;
use super::launch::{held_port, launch};
use super::origin::{self, Origin, Seen};
use super::relay::Relay;
use super::{certs, wait};
use coordinator::body::Door;
use coordinator::config::load;
use coordinator::edge::Running;
use coordinator::home::Home;
use coordinator::home::event::{Event, State};
use coordinator::home::key::escape;
use coordinator::homes::Homes;
use coordinator::store::log::Log;
use coordinator::tls::issue::{Issued, Issuer, Party};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The edges of every world.
pub const EDGES: [&str; 3] = ["fr", "us", "jp"];

/// Where Central is, among the places.
pub const CENTRAL: &str = "central";

/// Routes of every kind; stories that need others bring them along.
pub const ROUTES: &str = include_str!("routes.toml");

/// What a world is made of.
pub struct Setup {
    routes: String,
    is_secure: bool,
    edge: String,
    central_has_application: bool,
    has_standby: bool,
    origins: HashMap<&'static str, String>,
}

/// The world. All its places end when it is dropped.
pub struct World {
    central: Place,
    /// A second Central, for stories that start it; every edge has its address.
    standby: Place,
    edges: Vec<Edge>,
    seen: Mutex<HashMap<&'static str, usize>>,
    is_secure: bool,
    issuer: Issuer,
    folder: Folder,
}

/// An edge.
pub struct Edge {
    place: Place,
    to_central: Relay,
    is_isolated: AtomicBool,
}

/// What Central and the edges have in common.
struct Place {
    name: &'static str,
    /// The origin of this place; absent where the story has one of its own.
    origin: Option<Origin>,
    peer: SocketAddr,
    /// Holds the port of the peer door while nobody listens there.
    _held: socket2::Socket,
    running: Option<Running>,
}

/// Central, as operators and the application call it.
pub struct Authority<'a> {
    world: &'a World,
}

/// A world with mutual TLS and [`ROUTES`].
pub fn world() -> World {
    setup().start()
}

/// Begins a world.
pub fn setup() -> Setup {
    Setup {
        routes: ROUTES.to_owned(),
        is_secure: true,
        edge: String::new(),
        central_has_application: true,
        has_standby: false,
        origins: HashMap::new(),
    }
}

impl Setup {
    /// Other routes.
    pub fn routes(mut self, toml: &str) -> Setup {
        toml.clone_into(&mut self.routes);
        self
    }

    /// Further routes.
    pub fn and_routes(mut self, toml: &str) -> Setup {
        self.routes.push_str(toml);
        self
    }

    /// Plain peer doors, as loopback permits: for stories that look into what edges say to each other.
    pub fn plain(mut self) -> Setup {
        self.is_secure = false;
        self
    }

    /// Further tables of every edge's own file.
    pub fn and_edge(mut self, toml: &str) -> Setup {
        self.edge.push_str(toml);
        self
    }

    /// The origin of a place is the story's own, at this URL.
    pub fn with_origin(mut self, place: &'static str, url: String) -> Setup {
        self.origins.insert(place, url);
        self
    }

    /// The edges know the address of a standby too.
    pub fn with_standby(mut self) -> Setup {
        self.has_standby = true;
        self
    }

    /// Starts everything, and waits until all edges follow Central.
    pub fn start(self) -> World {
        let world = self.start_unsynced();
        world.synced();
        world
    }

    /// Starts everything.
    pub fn start_unsynced(self) -> World {
        let mut world = self.build();
        world.start_central();
        for name in EDGES {
            world.start_edge(name);
        }
        world
    }

    /// Writes all files and starts nothing but the origins.
    pub fn build(self) -> World {
        let folder = folder::new();
        let issuer = certs::issuer();
        let central = Place::new(CENTRAL, &self);
        let standby = Place::new(CENTRAL, &self);
        let edges: Vec<Edge> = EDGES
            .iter()
            .map(|name| Edge {
                place: Place::new(name, &self),
                to_central: Relay::to(central.peer),
                is_isolated: AtomicBool::new(false),
            })
            .collect();
        folder.write("ca.pem", issuer.ca_pem());
        let own = ["127.0.0.1".to_owned()];
        certs::write(&folder, CENTRAL, &issuer.central(&own).expect("a certificate"));
        for name in EDGES {
            certs::write(&folder, name, &issuer.edge(name, &own).expect("a certificate"));
        }
        folder.write("routes.toml", &self.routes);
        let world =
            World { central, standby, edges, seen: Mutex::default(), is_secure: self.is_secure, issuer, folder };
        world.folder.write("central.toml", world.central_toml(&world.central, "data-central", &self));
        world.folder.write("standby.toml", world.central_toml(&world.standby, "data-standby", &self));
        for edge in &world.edges {
            world.folder.write(&format!("{}.toml", edge.place.name), world.edge_toml(edge, &self));
        }
        world
    }
}

impl World {
    /// An edge.
    pub fn edge(&self, name: &str) -> &Edge {
        self.edges.iter().find(|edge| edge.place.name == name).expect("an edge of the world")
    }

    /// Central.
    pub fn central(&self) -> Authority<'_> {
        Authority { world: self }
    }

    /// The origin of a place.
    pub fn origin(&self, place: &str) -> &Origin {
        let place = if place == CENTRAL { &self.central } else { &self.edge(place).place };
        place.origin.as_ref().expect("a place with a scripted origin")
    }

    /// All requests that reached any origin since the last call, with the place, whole ones and others.
    pub fn landed(&self) -> Vec<(&'static str, Seen)> {
        let mut known = self.seen.lock().expect("nobody panics under this lock");
        let mut landed = Vec::new();
        for place in self.places() {
            let Some(origin) = &place.origin else { continue };
            let seen = origin.seen();
            let from = known.insert(place.name, seen.len()).unwrap_or_default();
            landed.extend(seen.into_iter().skip(from).map(|seen| (place.name, seen)));
        }
        landed
    }

    /// The one request that reached any origin since the last call: it must have been at `place`, and whole.
    #[track_caller]
    pub fn one_at(&self, place: &str) -> Seen {
        let mut landed = self.landed();
        let summary: Vec<_> =
            landed.iter().map(|(at, seen)| format!("{} {} at {at}", seen.method, seen.target)).collect();
        assert_eq!(landed.len(), 1, "exactly one request was to land, at {place}: {summary:?}");
        let (at, seen) = landed.remove(0);
        assert_eq!(at, place, "{summary:?}");
        assert!(seen.is_complete(), "{seen:?}");
        seen
    }

    /// No request has reached any origin since the last call.
    #[track_caller]
    pub fn none_landed(&self) {
        let landed: Vec<_> =
            self.landed().iter().map(|(at, seen)| format!("{} {} at {at}", seen.method, seen.target)).collect();
        assert!(landed.is_empty(), "nothing was to land: {landed:?}");
    }

    /// Waits until every running edge that can reach Central has all that Central has.
    #[track_caller]
    pub fn synced(&self) {
        let head = self.central().head();
        for edge in
            self.edges.iter().filter(|edge| edge.place.running.is_some() && !edge.is_isolated.load(Ordering::Relaxed))
        {
            edge.reached(head);
        }
    }

    /// Stops Central as a power cut does; its port refuses.
    pub fn cut_central(&mut self) {
        self.edges.iter().for_each(|edge| edge.to_central.cut());
        self.central.running = None;
    }

    /// Starts Central where it was.
    pub fn restore_central(&mut self) {
        self.start_central();
    }

    /// Takes the origin of a place down: its port refuses.
    pub fn down(&mut self, place: &str) {
        let place = if place == CENTRAL { &mut self.central } else { self.place(place) };
        let origin = place.origin.take().expect("a place with a scripted origin");
        let address = origin.address;
        drop(origin);
        wait::until("the origin's port to refuse", || TcpStream::connect(address).is_ok(), |connects| !connects);
    }

    /// Cuts the wire between an edge and Central until [`World::rejoin`], and waits until the edge has noticed.
    #[track_caller]
    pub fn isolate(&self, edge: &str) {
        let edge = self.edge(edge);
        edge.is_isolated.store(true, Ordering::Relaxed);
        edge.to_central.cut();
        if edge.place.running.is_some() {
            edge.is_alone();
        }
    }

    /// Mends what [`World::isolate`] cut.
    pub fn rejoin(&self, edge: &str) {
        let edge = self.edge(edge);
        edge.is_isolated.store(false, Ordering::Relaxed);
        edge.to_central.mend();
    }

    /// Stops an edge.
    pub fn stop(&mut self, edge: &str) {
        self.place(edge).running = None;
    }

    /// Starts an edge where it was.
    pub fn restart(&mut self, edge: &'static str) {
        self.stop(edge);
        self.start_edge(edge);
    }

    /// Takes everything that an edge has on its disk.
    pub fn lose_disk(&mut self, edge: &str) {
        self.stop(edge);
        std::fs::remove_dir_all(self.folder.join(&format!("data-{edge}"))).expect("the folder can be removed");
    }

    /// Starts Central.
    pub fn start_central(&mut self) {
        self.central.running = None;
        let file = self.folder.join("central.toml");
        self.central.running = Some(launch(&file, load::central, Running::central));
        self.edges
            .iter()
            .filter(|edge| !edge.is_isolated.load(Ordering::Relaxed))
            .for_each(|edge| edge.to_central.mend());
    }

    /// Starts Central, and says that its data is a copy.
    pub fn start_restored_central(&mut self) {
        self.central.running = None;
        let file = self.folder.join("central.toml");
        self.central.running = Some(launch(&file, load::central, Running::restored_central));
        self.edges
            .iter()
            .filter(|edge| !edge.is_isolated.load(Ordering::Relaxed))
            .for_each(|edge| edge.to_central.mend());
    }

    /// Starts a standby of Central in this process, with a folder and a door of its own.
    pub fn start_standby(&mut self) {
        let leader = format!("{}://{}", self.scheme(), self.central.peer);
        let leader = coordinator::config::door_url(&leader).expect("a URL");
        let file = self.folder.join("standby.toml");
        let run = |plan, read| Running::standby(plan, read, leader);
        self.standby.running = Some(launch(&file, load::central, run));
    }

    /// Asks the API of the standby as an operator.
    #[track_caller]
    pub fn ask_standby(&self, method: &str, path: &str, body: &str) -> Answer {
        self.call(self.standby.peer, Party::Operator("test")).ask(method, path, &[], body.as_bytes())
    }

    /// Copies Central's data as it is now to a folder of this name, which [`World::set_back`] takes it from.
    pub fn copy_central(&self, name: &str) {
        copy_files(&self.folder.join("data-central"), &self.folder.join(name));
    }

    /// Puts an old copy in the place of Central's data. Central must not run.
    pub fn set_back(&self, name: &str) {
        let data = self.folder.join("data-central");
        std::fs::remove_dir_all(&data).expect("Central's data can be removed");
        copy_files(&self.folder.join(name), &data);
    }

    /// Starts an edge.
    pub fn start_edge(&mut self, name: &str) {
        let file = self.folder.join(&format!("{name}.toml"));
        self.place(name).running = Some(launch(&file, load::edge, Running::edge));
    }

    /// Moves a user as a move's commit will one day: an entry with the next epoch in Central's log. Central is stopped
    /// for it and comes back.
    ///
    /// The edge of old must hear of it through the feed before it serves again: only a story knows that it does.
    pub fn move_home(&mut self, space: &str, key: &str, to: &str) {
        let epoch = self.central().home(space, key).map_or(0, |(_, epoch)| epoch) + 1;
        self.write_home(space, key, to, epoch);
    }

    /// Writes an entry into Central's log, behind Central's back.
    pub fn write_home(&mut self, space: &str, key: &str, to: &str, epoch: u32) {
        self.cut_central();
        self.append_home(space, key, to, epoch);
        self.restore_central();
    }

    /// The same while Central does not run.
    pub fn append_home(&self, space: &str, key: &str, to: &str, epoch: u32) {
        self.append_homes(space, &[key.to_owned()], to, epoch);
    }

    /// The same for many keys.
    pub fn append_homes(&self, space: &str, keys: &[String], to: &str, epoch: u32) {
        let data = self.folder.join("data-central");
        let mut log = Log::open(&data, "central", [0; 16], 1, |_, _| {}).expect("Central's log is free");
        let first = log.next();
        for (s, key) in (first..).zip(keys) {
            let (h, k) = (to.to_owned(), format!("{space}:{key}"));
            let event = Event { c: "move".to_owned(), e: epoch, h, k, s, st: State::Active, x: 0 };
            log.append(&serde_json::to_vec(&event).expect("an event is JSON")).expect("the log takes it");
        }
        log.commit().expect("the log is durable");
    }

    /// A certificate of this deployment.
    pub fn certificate(&self, party: Party<'_>) -> Issued {
        self.issuer.issue(party, &["127.0.0.1".to_owned()]).expect("a certificate")
    }

    /// A TLS configuration that trusts this deployment, showing `own`.
    pub fn tls(&self, alpn: &[&str], own: Option<&Issued>) -> Arc<rustls::ClientConfig> {
        certs::client_config(self.issuer.ca_pem(), alpn, own)
    }

    /// A connection to a door of the deployment, as somebody. On plain doors everybody is the same.
    pub fn call(&self, address: SocketAddr, party: Party<'_>) -> Client {
        if !self.is_secure {
            return Client::plain(address);
        }
        let own = self.certificate(party);
        Client::tls(address, self.tls(&["http/1.1"], Some(&own)), "127.0.0.1").expect("TLS is agreed")
    }

    /// The folder of all files.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    fn place(&mut self, name: &str) -> &mut Place {
        &mut self.edges.iter_mut().find(|edge| edge.place.name == name).expect("an edge of the world").place
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        self.edges.iter().map(|edge| &edge.place).chain([&self.central])
    }

    fn scheme(&self) -> &'static str {
        if self.is_secure { "https" } else { "http" }
    }

    fn peer_toml(&self, place: &Place) -> String {
        let mut toml = format!("[peer]\naddress = \"{}\"\n", place.peer);
        if self.is_secure {
            toml += &format!("chain = \"{0}.pem\"\nkey = \"{0}.key\"\nca = \"ca.pem\"\n", place.name);
        }
        toml
    }

    fn central_toml(&self, place: &Place, data: &str, setup: &Setup) -> String {
        let mut toml = format!(
            "[central]\ndata = \"{data}\"\ndeployment = \"shop\"\nworkers = 1\n\n{}\n[admin]\naddress = \"127.0.0.1:0\"\nfaults = true\n\n\
             [log]\naccess = false\n",
            self.peer_toml(place)
        );
        if setup.central_has_application {
            toml += &local_toml(place, setup);
        }
        for Edge { place, .. } in &self.edges {
            toml += &format!("\n[edges.{}]\npeer = \"{}://{}\"\n", place.name, self.scheme(), place.peer);
        }
        toml
    }

    fn central_urls(&self, edge: &Edge, setup: &Setup) -> String {
        let mut urls = format!("\"{}://{}\"", self.scheme(), edge.to_central.address);
        if setup.has_standby {
            urls += &format!(", \"{}://{}\"", self.scheme(), self.standby.peer);
        }
        urls
    }

    fn edge_toml(&self, edge: &Edge, setup: &Setup) -> String {
        let name = edge.place.name;
        format!(
            "include = [\"routes.toml\"]\n\n[edge]\nname = \"{name}\"\ndeployment = \"shop\"\ndata = \"data-{name}\"\n\
             workers = 1\n\n[[listen]]\naddress = \"127.0.0.1:0\"\n\n{}\n[admin]\naddress = \"127.0.0.1:0\"\nfaults = true\n\n\
             [log]\naccess = false\n\n[central]\nurl = [{}]\n{}\n{}",
            self.peer_toml(&edge.place),
            self.central_urls(edge, setup),
            local_toml(&edge.place, setup),
            setup.edge,
        )
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Edges first: they would only complain that Central has gone.
        for edge in &mut self.edges {
            edge.place.running = None;
        }
    }
}

impl Edge {
    /// `GET path` on a connection of its own, answered.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.client().get(path)
    }

    /// A request on a connection of its own, answered.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Answer {
        self.client().ask(method, path, fields, body)
    }

    /// A connection to the public door.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::plain(self.address())
    }

    /// An HTTP/2 connection to the public door.
    pub fn h2(&self) -> h2::Client {
        h2::Client::plain(self.address())
    }

    /// The public door.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        self.running().address(Door::Public).expect("every edge has a public door")
    }

    /// The wire to Central, for those who ask of nobody to notice.
    pub fn wire(&self) -> &Relay {
        &self.to_central
    }

    /// The peer door.
    pub fn peer_door(&self) -> SocketAddr {
        self.place.peer
    }

    /// The edge as it runs.
    #[track_caller]
    pub fn running(&self) -> &Running {
        self.place.running.as_ref().expect("the edge runs")
    }

    /// What it knows of homes.
    #[track_caller]
    pub fn homes(&self) -> &Arc<Homes> {
        self.running().homes().expect("every edge follows Central")
    }

    /// What it knows of one user.
    #[track_caller]
    pub fn home(&self, key: &str) -> Home {
        self.homes().look("user", key)
    }

    /// Waits until it has noticed that Central is out of reach.
    #[track_caller]
    pub fn is_alone(&self) {
        let connected = || self.status()["feed"]["connected"].as_bool();
        wait::until("the edge to notice that it is alone", connected, |connected| *connected == Some(false));
    }

    /// Waits until its feed has reached `seq`.
    #[track_caller]
    pub fn reached(&self, seq: u64) {
        wait::until(&format!("{} to reach {seq}", self.place.name), || self.homes().cursor().seq, |now| *now >= seq);
    }

    /// What its admin door tells.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.admin("GET", "/status").json()
    }

    /// Asks its admin door.
    #[track_caller]
    pub fn admin(&self, method: &str, path: &str) -> Answer {
        ask_admin(self.running(), method, path)
    }
}

#[track_caller]
fn ask_admin(running: &Running, method: &str, path: &str) -> Answer {
    let doors = running.doors();
    let (_, admin) = doors.iter().find(|(name, _)| name == "admin").expect("every place has an admin door");
    // The door answers to its own names only, so that no page in an operator's browser can ask it.
    Client::plain(admin.parse().expect("an address")).ask(method, path, &[("Host", admin)], b"")
}

impl Authority<'_> {
    /// Gives a user a home, as the application does when it adopts its users, and waits until all edges know.
    #[track_caller]
    pub fn put_home(&self, space: &str, key: &str, home: &str) {
        let answer =
            self.ask("PUT", &format!("/v1/homes/{space}/{}", escape(key)), &json!({ "home": home }).to_string());
        assert_eq!(answer.status, 201, "{answer:?}");
        self.world.synced();
    }

    /// The home and the epoch of a key.
    #[track_caller]
    pub fn home(&self, space: &str, key: &str) -> Option<(String, u32)> {
        let answer = self.ask("GET", &format!("/v1/homes/{space}/{}", escape(key)), "");
        if answer.status == 404 {
            return None;
        }
        assert_eq!(answer.status, 200, "{answer:?}");
        let home = answer.json();
        let epoch = home["epoch"].as_u64().and_then(|epoch| u32::try_from(epoch).ok()).expect("an epoch");
        Some((home["home"].as_str().expect("a home").to_owned(), epoch))
    }

    /// The last seq.
    #[track_caller]
    pub fn head(&self) -> u64 {
        self.ask("GET", "/v1/status", "").json()["head"].as_u64().expect("the status names the head")
    }

    /// Asks the API as an operator.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.ask_as(Party::Operator("test"), method, path, body)
    }

    /// Asks the API as somebody.
    #[track_caller]
    pub fn ask_as(&self, party: Party<'_>, method: &str, path: &str, body: &str) -> Answer {
        self.world.call(self.address(), party).ask(method, path, &[], body.as_bytes())
    }

    /// Asks its admin door.
    #[track_caller]
    pub fn admin(&self, method: &str, path: &str) -> Answer {
        ask_admin(self.world.central.running.as_ref().expect("Central runs"), method, path)
    }

    /// Its door.
    pub fn address(&self) -> SocketAddr {
        self.world.central.peer
    }
}

impl Place {
    fn new(name: &'static str, setup: &Setup) -> Place {
        let (held, peer) = held_port();
        let origin = (!setup.origins.contains_key(name)).then(Origin::start);
        if let Some(origin) = &origin {
            origin.always(origin::Answer::ok(&format!("{{\"at\":\"{name}\"}}")));
        }
        Place { name, origin, peer, _held: held, running: None }
    }
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for file in std::fs::read_dir(from).expect("a folder") {
        let file = file.expect("a file").path();
        std::fs::copy(&file, to.join(file.file_name().expect("a name"))).expect("a copy");
    }
}

fn local_toml(place: &Place, setup: &Setup) -> String {
    let own = place.origin.as_ref().map(Origin::url);
    let url = own.or_else(|| setup.origins.get(place.name).cloned()).expect("a place has an origin");
    format!("\n[local]\norigins = [\"{url}\"]\n")
}
