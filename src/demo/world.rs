//! A whole deployment in one process: Central, three edges and their sample applications, on real sockets with mutual TLS.
//!
//! It is configured as an operator would do it, by TOML files in a folder of its own, and starts the way `run` does. The
//! folder goes when the world goes. Instead of the samples, an application of one's own may stand behind the edges.

use super::distance::{Distances, Relays};
use super::origin::{self, CENTRAL};
use super::own::{self, Own, Try};
use crate::config;
use crate::config::load::{self, Strictness};
use crate::config::plan::{CertificateFiles, Edge, MutualTls, Plan};
use crate::edge::{ReadPlan, Running};
use crate::feed::client::{Call, Line};
use crate::tls::client::{Alpn, Client, Trust};
use crate::tls::issue::{Issued, Issuer};
use socket2::{Domain, Socket, Type};
use std::fs;
use std::io::{self, IsTerminal};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// The edges of the demo.
pub const EDGES: [&str; 3] = ["fr", "us", "jp"];

/// Users who exist from the start, with their homes.
pub(super) const USERS: [(&str, &str); 3] = [("448", "fr"), ("449", "us"), ("450", "jp")];

/// The routes that all edges share.
const ROUTES: &str = include_str!("routes.toml");

/// The doors of one edge.
#[derive(Debug, Clone)]
pub struct EdgeDoors {
    /// The edge's name.
    pub name: String,
    /// HTTP for clients.
    pub http: SocketAddr,
    /// HTTPS for clients.
    pub https: SocketAddr,
    /// The admin door.
    pub admin: SocketAddr,
    /// The access log.
    pub log: PathBuf,
}

/// A running deployment.
pub struct World {
    /// The edges, in the order of [`EDGES`].
    pub edges: [EdgeDoors; 3],
    /// Central's door.
    pub central: SocketAddr,
    /// Central's admin door.
    pub central_admin: SocketAddr,
    /// How far the places are from each other.
    pub distances: Distances,
    /// The deployment's CA, which also signed the certificates of the HTTPS doors.
    pub ca: PathBuf,
    /// The folder with the certificates and configurations.
    pub folder: PathBuf,
    /// What to try where the routes are one's own.
    pub own: Option<Shown>,
    running: Vec<Running>,
    _relays: Relays,
    _samples: Option<Samples>,
    _ports: Ports,
    _folder: Folder,
}

/// What is told of one's own routes.
pub struct Shown {
    /// A command for each route, up to a number.
    pub tries: Vec<Try>,
    /// The routes without one.
    pub left: usize,
    /// The key spaces.
    pub spaces: Vec<String>,
    /// What there is to note in the routes, as people read it.
    pub notes: String,
}

/// Why there is no world.
pub enum Refused {
    /// One's own routes, or what they are included by, have problems: rendered.
    Routes(String),
    /// Something could not be started.
    Start(String),
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Refused::Start(why)
    }
}

/// Starts everything: Central first, then the edges. Errors: what could not be started.
///
/// `base` is the first of the ports to try: a block of them is taken, there or in the first free place above.
pub fn start(base: u16, distances: Distances, own: Option<&Own>) -> Result<World, Refused> {
    let folder = Folder::make().map_err(|error| format!("no folder for the demo's files could be made: {error}"))?;
    let at = folder.0.clone();
    certificates(&at)?;
    let mut ports = Ports::claim(base)?;
    let samples = if own.is_none() { Some(Samples::start()?) } else { None };
    let origins = origins(own, samples.as_ref());
    let (central, central_admin) = (ports.next(), ports.next());
    let edges = EDGES.map(|name| Seats::take(name, &mut ports));
    let ways = Ways::start(&edges, central, &distances)?;
    let routes = routes(&at, own)?;
    write(&at.join("central.toml"), &central_config(&at, [central, central_admin], &origins[EDGES.len()], &edges))?;
    for (edge, origin) in edges.iter().zip(&origins) {
        let text = edge_config(&at, &routes, edge, origin, &ways);
        write(&at.join(format!("{}.toml", edge.doors.name)), &text)?;
    }
    let shown = own.map(|own| look(own, &at)).transpose()?;
    let mut running = vec![launch(&at.join("central.toml"), central_plan, Running::central)?];
    for edge in &edges {
        running.push(launch(&at.join(format!("{}.toml", edge.doors.name)), load::edge, Running::edge)?);
    }
    let edges = edges.map(|edge| EdgeDoors { log: at.join(format!("{}.log", edge.doors.name)), ..edge.doors });
    Ok(World {
        edges,
        central,
        central_admin,
        distances,
        ca: at.join("ca.pem"),
        folder: at,
        own: shown,
        running,
        _relays: ways.relays,
        _samples: samples,
        _ports: ports,
        _folder: folder,
    })
}

/// The origin of each edge, then Central's, as configurations write them.
fn origins(own: Option<&Own>, samples: Option<&Samples>) -> Vec<String> {
    match own {
        Some(own) => own.origins().map(|(_, url)| url.to_string()).collect(),
        None => samples.iter().flat_map(|all| &all.addresses).map(|address| format!("http://{address}")).collect(),
    }
}

/// The file with the routes that all edges include.
fn routes(at: &Path, own: Option<&Own>) -> Result<PathBuf, String> {
    match own {
        Some(own) => Ok(own.routes.clone()),
        None => write(&at.join("routes.toml"), ROUTES).map(|()| at.join("routes.toml")),
    }
}

/// Looks at one's own routes as the first edge will have them, before anything starts.
fn look(own: &Own, at: &Path) -> Result<Shown, Refused> {
    let outcome = load::edge(&at.join(format!("{}.toml", EDGES[0])), &load::process_env, Strictness::Run);
    let shown = outcome.render(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    let Some(plan) = outcome.plan else {
        return Err(Refused::Routes(format!("{shown}{}", own.help())));
    };
    let (tries, left) = own::tries(&plan);
    Ok(Shown { tries, left, spaces: plan.spaces.iter().map(|space| space.name.clone()).collect(), notes: shown })
}

/// Makes Central know the users who exist from the start, the way an operator would: through its homes API.
pub async fn fill(world: &World) -> Result<(), String> {
    let own = CertificateFiles { chain: world.folder.join("operator.pem"), key: world.folder.join("operator.key") };
    let files = MutualTls { own, ca: world.ca.clone() };
    let client = Client::new(Trust::Deployment { files, name: "spiffe://demo/central".to_owned() });
    let central = format!("https://{}", world.central);
    let url = config::door_url(&central).ok_or_else(|| format!("{central} is no URL"))?;
    let mut line = Line::connect(&url, Some(&client.config(Alpn::Either)?)).await?;
    for (user, home) in USERS {
        let content = format!("{{\"home\":\"{home}\"}}").into();
        let target = format!("/v1/homes/user/{user}");
        let fields = vec![("content-type", "application/json".to_owned())];
        let answer = line.send(Call { method: http::Method::PUT, target, fields, content, ..Call::default() }).await?;
        if !answer.status().is_success() {
            return Err(format!("Central did not take user {user}: {}", answer.status()));
        }
    }
    Ok(())
}

impl World {
    /// Whether every edge follows Central; else who does not, and why.
    pub fn ready(&self) -> Result<(), Vec<String>> {
        let waiting: Vec<String> = self.running.iter().filter_map(|one| one.ready().err()).flatten().collect();
        if waiting.is_empty() { Ok(()) } else { Err(waiting) }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Edges first: they would only complain that Central has gone.
        while self.running.pop().is_some() {}
    }
}

/// The ways between places, each with its length: an edge calls another place at the near end of the way to it.
struct Ways {
    relays: Relays,
    ends: Vec<(String, String)>,
}

impl Ways {
    fn start(edges: &[Seats], central: SocketAddr, distances: &Distances) -> Result<Ways, String> {
        let doors = edges.iter().map(|edge| (edge.doors.name.as_str(), edge.peer)).chain([(CENTRAL, central)]);
        let doors: Vec<_> = doors.collect();
        let (mut ends, mut lengths) = (Vec::new(), Vec::new());
        for from in EDGES {
            for (to, door) in doors.iter().filter(|(to, _)| *to != from) {
                ends.push((from.to_owned(), (*to).to_owned()));
                lengths.push((*door, distances.between(from, to)));
            }
        }
        let relays = Relays::start(&lengths);
        Ok(Ways { relays: relays.map_err(|error| format!("no distance could be simulated: {error}"))?, ends })
    }

    /// The places that an edge calls, each with where it does.
    fn from<'a>(&'a self, edge: &'a str) -> impl Iterator<Item = (&'a str, SocketAddr)> {
        let all = self.ends.iter().zip(self.relays.addresses());
        all.filter(move |((from, _), _)| from == edge).map(|((_, to), near)| (to.as_str(), *near))
    }
}

/// Central's plan with the names of the edges only. Central calls no edge; if it told all of them one address of each,
/// which then wins over their configurations, there could not be a way of its own between each two.
fn central_plan(file: &Path, env: load::Env<'_>, strictness: Strictness) -> load::Outcome {
    let mut outcome = load::central(file, env, strictness);
    if let Some(plan) = &mut outcome.plan {
        for edge in plan.edges.list().into_iter().cloned().collect::<Vec<_>>() {
            plan.edges.insert(Edge { peer: None, ..edge });
        }
    }
    outcome
}

/// The addresses of an edge.
struct Seats {
    doors: EdgeDoors,
    peer: SocketAddr,
}

impl Seats {
    fn take(name: &str, ports: &mut Ports) -> Seats {
        let (http, https, admin, peer) = (ports.next(), ports.next(), ports.next(), ports.next());
        Seats { doors: EdgeDoors { name: name.to_owned(), http, https, admin, log: PathBuf::new() }, peer }
    }
}

/// A block of loopback ports, all free when it was claimed.
///
/// Public doors share their ports by SO_REUSEPORT, so a second demo could open the doors of the first and take half of
/// its requests. The last port of a block is held, bound without that option and without listening, as long as the
/// demo runs: two demos never have the same block, also when they start together.
struct Ports {
    next: u16,
    _held: Socket,
}

/// Central's two doors, four of each edge, and the port that is held.
const BLOCK: u16 = 2 + 4 * EDGES.len() as u16 + 1;

impl Ports {
    /// The first free block from `base` on.
    fn claim(base: u16) -> Result<Ports, String> {
        let mut first = base;
        while let Some(last) = first.checked_add(BLOCK - 1) {
            if let Ok(held) = hold(last)
                && (first..last).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
            {
                return Ok(Ports { next: first, _held: held });
            }
            let Some(above) = first.checked_add(BLOCK) else { break };
            first = above;
        }
        Err(format!("no {BLOCK} free ports in a row above {base}; try --port with a lower one"))
    }

    fn next(&mut self) -> SocketAddr {
        let port = self.next;
        self.next += 1;
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }
}

fn hold(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    Ok(socket)
}

type Load = fn(&Path, load::Env<'_>, Strictness) -> load::Outcome;

fn launch(file: &Path, load: Load, run: fn(Plan, ReadPlan) -> Result<Running, String>) -> Result<Running, String> {
    let path = file.to_owned();
    let read = move || {
        let outcome = load(&path, &load::process_env, Strictness::Run);
        let shown = outcome.render(false);
        outcome.plan.ok_or(shown)
    };
    run(read()?, Box::new(read))
}

/// The sample applications of all places, on a thread of their own; it ends when this is dropped.
struct Samples {
    addresses: Vec<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Samples {
    fn start() -> Result<Samples, String> {
        let failed = |error: io::Error| format!("a sample application could not be started: {error}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let names: Vec<&str> = EDGES.iter().copied().chain([CENTRAL]).collect();
        let bind = |_: &&str| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true).map(|()| listener)
        };
        let listeners = names.iter().map(bind).collect::<io::Result<Vec<_>>>().map_err(failed)?;
        let addresses = listeners.iter().map(|one| one.local_addr()).collect::<io::Result<_>>().map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            runtime.block_on(async {
                let tokio = listeners.into_iter().flat_map(tokio::net::TcpListener::from_std);
                let all = names.iter().zip(tokio).map(|(name, listener)| origin::start(name, listener));
                let all = futures_util::future::join_all(all);
                tokio::select! {
                    _ = all => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("samples".to_owned()).spawn(serve).map_err(failed)?;
        Ok(Samples { addresses, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Samples {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by its own hook; there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

fn certificates(at: &Path) -> Result<(), String> {
    let failed = |error: crate::tls::issue::IssueError| error.to_string();
    let issuer = Issuer::new("demo").map_err(failed)?;
    write(&at.join("ca.pem"), issuer.ca_pem())?;
    let here = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let files = |name: &str, issued: Issued| {
        write(&at.join(format!("{name}.pem")), &issued.chain_pem)?;
        secret(&at.join(format!("{name}.key")), &issued.key_pem)
    };
    files("central", issuer.central(&here).map_err(failed)?)?;
    files("public", issuer.public(&here).map_err(failed)?)?;
    files("operator", issuer.issue(crate::tls::issue::Party::Operator("demo"), &[]).map_err(failed)?)?;
    for name in EDGES {
        files(&format!("peer-{name}"), issuer.edge(name, &here).map_err(failed)?)?;
    }
    Ok(())
}

fn central_config(at: &Path, [door, admin]: [SocketAddr; 2], origin: &str, edges: &[Seats]) -> String {
    let at = at.display();
    let mut text = format!(
        "[central]\ndeployment = \"demo\"\ndata = \"{at}/central\"\n\n[log]\naccess = false\n\n\
         [peer]\naddress = \"{door}\"\nchain = \"{at}/central.pem\"\nkey = \"{at}/central.key\"\nca = \"{at}/ca.pem\"\n\n\
         [admin]\naddress = \"{admin}\"\nfaults = true\n\n[local]\norigins = [{origin:?}]\n"
    );
    for edge in edges {
        text += &format!("\n[edges.{}]\npeer = \"https://{}\"\n", edge.doors.name, edge.peer);
    }
    text
}

fn edge_config(at: &Path, routes: &Path, edge: &Seats, origin: &str, ways: &Ways) -> String {
    let (at, name) = (at.display(), &edge.doors.name);
    let places = ways.from(name).map(|(to, near)| match to {
        CENTRAL => format!("[central]\nurl = [\"https://{near}\"]\n\n"),
        edge => format!("[edges.{edge}]\npeer = \"https://{near}\"\n\n"),
    });
    let places: String = places.collect();
    format!(
        "include = [{routes:?}]\n\n[edge]\nname = \"{name}\"\ndeployment = \"demo\"\ndata = \"{at}/{name}\"\nworkers = 1\n\
         tell_decision = true\n\n\
         [[listen]]\naddress = \"{}\"\n\n[[listen]]\naddress = \"{}\"\n[[listen.certificate]]\nchain = \"{at}/public.pem\"\n\
         key = \"{at}/public.key\"\n\n[peer]\naddress = \"{}\"\nchain = \"{at}/peer-{name}.pem\"\nkey = \"{at}/peer-{name}.key\"\n\
         ca = \"{at}/ca.pem\"\n\n[admin]\naddress = \"{}\"\nfaults = true\n\n[local]\norigins = [{origin:?}]\n\n\
         {places}[log]\nfile = \"{at}/{name}.log\"\n",
        edge.doors.http, edge.doors.https, edge.peer, edge.doors.admin
    )
}

/// How often the removal of the folder is tried.
const REMOVALS: u32 = 10;

/// Between two of these.
const REMOVAL_PAUSE: Duration = Duration::from_millis(20);

/// A folder of our own that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn make() -> io::Result<Folder> {
        let path = std::env::temp_dir().join(format!("coordinator-demo-{:016x}", crate::base::backoff::random()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    // The demo is over: no worker of it is left to be held up.
    #[allow(clippy::disallowed_methods)]
    fn drop(&mut self) {
        // A thread that is still ending may write a last file into a folder that is being emptied. What cannot be
        // removed at all is in the system's folder for what may be removed.
        for _ in 0..REMOVALS {
            match fs::remove_dir_all(&self.0) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => std::thread::sleep(REMOVAL_PAUSE),
                _ => break,
            }
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn secret(path: &Path, text: &str) -> Result<(), String> {
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()));
    written.map_err(|error| format!("{}: {error}", path.display()))
}
