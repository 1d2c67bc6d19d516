//! `coordinator demo`: a deployment to look at, in this terminal.

use super::signals::Caught;
use crate::demo::distance::Distances;
use crate::demo::own::Own;
use crate::demo::world::{self, Refused, Shown, World};
use crate::demo::{tour, traffic};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::SignalKind;

/// How long the edges may take to follow Central at the start.
const SYNC: Duration = Duration::from_secs(20);

/// How often the logs are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Exit code for bad usage or configuration.
const BAD_USAGE: u8 = 2;

/// Run Central, three edges and sample origins in this terminal, to see it work
///
/// With --routes and --origin, an application of your own stands behind the edges instead of the samples.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Your own routes, for all edges: a TOML file with routes and key spaces; needs --origin
    #[arg(long, value_name = "FILE", requires = "origin")]
    pub routes: Option<PathBuf>,
    /// Where your application listens, such as http://localhost:3000; fr=URL (us, jp, central) is for one place
    #[arg(long, value_name = "[PLACE=]URL", requires = "routes")]
    pub origin: Vec<String>,
    /// The first port to try: fifteen in a row are taken, here or in the first free block above
    #[arg(long, value_name = "PORT", default_value_t = 8100)]
    pub port: u16,
    /// A round trip between two places, such as fr-us=80ms or central-jp=230ms; all=0ms sets every one
    #[arg(long, value_name = "PLACES=TIME")]
    pub rtt: Vec<String>,
    /// Send no requests of its own (with --origin it sends none anyway)
    #[arg(long)]
    pub no_traffic: bool,
    /// Print no requests
    #[arg(long)]
    pub quiet: bool,
}

impl Args {
    fn distances(&self) -> Result<Distances, String> {
        let mut distances = Distances::usual();
        self.rtt.iter().try_for_each(|rtt| distances.set(rtt))?;
        Ok(distances)
    }

    fn own(&self) -> Result<Option<Own>, String> {
        self.routes.as_deref().map(|routes| Own::read(routes, &self.origin)).transpose()
    }

    /// One's own application gets the requests of its owner only.
    fn has_traffic(&self) -> bool {
        !self.no_traffic && self.routes.is_none()
    }
}

/// Runs the demo until Ctrl-C.
pub fn run(args: &Args) -> ExitCode {
    super::run::events_at("warn");
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    let read = args.distances().map_err(|why| format!("--rtt: {why}"));
    let (distances, own) = match read.and_then(|distances| Ok((distances, args.own()?))) {
        Ok(read) => read,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::from(BAD_USAGE);
        }
    };
    match runtime.block_on(show(args, distances, own.as_ref())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Refused::Start(why)) => failed(&why),
        Err(Refused::Routes(problems)) => {
            eprint!("{problems}");
            ExitCode::from(BAD_USAGE)
        }
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("error: {}", why.trim_end());
    ExitCode::from(1)
}

async fn show(args: &Args, distances: Distances, own: Option<&Own>) -> Result<(), Refused> {
    // Asked for first: a Ctrl-C while things start must not leave files behind either.
    let mut ends = ends()?;
    let world = world::start(args.port, distances, own)?;
    tokio::select! {
        over = run_in(&world, args, own) => Ok(over?),
        () = ends.any() => Ok(()),
    }
}

async fn run_in(world: &World, args: &Args, own: Option<&Own>) -> Result<(), String> {
    synced(world).await?;
    match own {
        Some(own) => warn(world, own).await,
        None => world::fill(world).await?,
    }
    print(&introduction(world, args))?;
    let traffic = async {
        if args.has_traffic() {
            traffic::run(world).await;
        }
        std::future::pending().await
    };
    let follow = async { if args.quiet { std::future::pending().await } else { follow(world).await } };
    tokio::select! {
        over = follow => over,
        over = traffic => over,
    }
}

/// Says what is worth knowing of one's own application before the first request.
async fn warn(world: &World, own: &Own) {
    if let Some(shown) = &world.own {
        eprint!("{}", shown.notes);
    }
    for why in own.silent().await {
        eprintln!("warning: {why}\n  = help: start it; until then requests there get 502, or 503 with Retry-After\n");
    }
}

/// What ends the demo: Ctrl-C, a stop from outside, or the terminal that closes.
fn ends() -> Result<Caught, String> {
    Caught::of(&[SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()])
}

async fn synced(world: &World) -> Result<(), String> {
    let wait = async {
        while world.ready().is_err() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let synced = tokio::time::timeout(SYNC, wait).await;
    synced
        .map_err(|_| format!("the edges did not follow Central within {} s: {:?}", SYNC.as_secs(), world.ready().err()))
}

fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| error.to_string())
}

fn introduction(world: &World, args: &Args) -> String {
    let mut text = "Central and three edges are running.\n\n".to_owned();
    text += &format!("  central  https://{}  (mutual TLS: its feed, claims and homes)\n", world.central);
    for edge in &world.edges {
        text += &format!(
            "  {}       http://{}   https://{}   admin http://{}\n",
            edge.name, edge.http, edge.https, edge.admin
        );
    }
    text += &format!(
        "\nRound trips between them, simulated: {}.\n(--rtt fr-us=10ms sets one, --rtt all=0ms all of them.)\n",
        world.distances
    );
    text += &pages(world, args);
    text += "\nTry these in another terminal, from the top";
    text += if args.quiet { ".\n" } else { "; each request shows up below.\n" };
    let program = std::env::current_exe().map_or_else(|_| "coordinator".to_owned(), |path| path.display().to_string());
    match &world.own {
        Some(shown) => text += &own_routes(world, args, shown, &program),
        None => tour::stops(world, &program).iter().for_each(|stop| text += &format!("\n{stop}")),
    }
    text + "\nCtrl-C ends it and leaves nothing behind.\n\n"
}

/// A command for each of one's own routes, over all edges in turn, and what else helps with them.
fn own_routes(world: &World, args: &Args, shown: &Shown, program: &str) -> String {
    let mut text =
        "Fill in what is in capitals. Each answer says in its field `Coordinator` what was decided.\n".to_owned();
    for (one, edge) in shown.tries.iter().zip(world.edges.iter().cycle()) {
        text += &format!("\n{}", one.at(edge));
    }
    if shown.left > 0 {
        text += &format!("\n  # … and {} more routes\n", shown.left);
    }
    let [fr, ..] = &world.edges;
    text += &format!(
        "\n  # why? (explain runs the code that serves)\n  {program} explain --admin {} GET /PATH\n",
        fr.admin
    );
    let folder = world.folder.display();
    for space in &shown.spaces {
        text += &format!(
            "\n  # a {space} that your application has already: give it a home\n  {program} homes set KEY fr --space {space} \
             --central https://{} --ca {folder}/ca.pem --cert {folder}/operator.pem --key {folder}/operator.key\n",
            world.central
        );
    }
    let file = args.routes.as_deref().unwrap_or(Path::new("FILE")).display();
    text += &format!("\n  # {file} has changed: take it over, edge by edge\n");
    for edge in &world.edges {
        text += &format!("  {program} reload --admin {}\n", edge.admin);
    }
    text
}

/// Where to look, and what there is to see.
fn pages(world: &World, args: &Args) -> String {
    let mut text =
        format!("\nWatch it in a browser, and cut links there:\n\n  central  http://{}/\n", world.central_admin);
    for edge in &world.edges {
        text += &format!("  {}       http://{}/\n", edge.name, edge.admin);
    }
    if args.has_traffic() {
        text += "\nA trickle of requests flows; it is on the pages only, not below. --no-traffic leaves it out.\n";
    }
    text
}

/// Prints each request of each edge as it ends.
async fn follow(world: &World) -> Result<(), String> {
    let mut logs = Vec::new();
    for edge in &world.edges {
        logs.push((edge.name.clone(), open(&edge.log)?, String::new()));
    }
    loop {
        for (name, log, line) in &mut logs {
            while log.read_line(line).map_err(|error| error.to_string())? > 0 && line.ends_with('\n') {
                print(&told(name, line))?;
                line.clear();
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn open(path: &Path) -> Result<BufReader<File>, String> {
    File::open(path).map(BufReader::new).map_err(|error| format!("{}: {error}", path.display()))
}

/// One request in one line, for people.
fn told(edge: &str, line: &str) -> String {
    let Ok(value) = serde_json::from_str::<Value>(line) else { return String::new() };
    if value["target"].as_str().is_some_and(|target| target.ends_with(&format!("?{}", traffic::MARK))) {
        return String::new();
    }
    let text = |name: &str| value[name].as_str().unwrap_or("-").to_owned();
    let to = match (value["decision"].as_str(), value["home"].as_str()) {
        (Some("remote"), Some(home)) => format!("remote {home} ({})", text("reason")),
        (Some(decision), _) => format!("{decision} ({})", text("reason")),
        (None, _) => format!("refused ({})", value["failure"]["kind"].as_str().unwrap_or("-")),
    };
    let key = value["key"].as_str().map(|key| format!("  {key}")).unwrap_or_default();
    format!("{edge}  {} {} -> {to}  {}{key}\n", text("method"), text("target"), value["status"])
}
