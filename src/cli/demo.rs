//! `coordinator demo`: a deployment to look at, in this terminal.

use crate::demo::world::{self, World};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How long the edges may take to follow Central at the start.
const SYNC: Duration = Duration::from_secs(20);

/// How often the logs are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Run Central, three edges and sample origins in this terminal, to see it work
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The first port to try; each edge takes four of the free ones from here on
    #[arg(long, value_name = "PORT", default_value_t = 8100)]
    pub port: u16,
}

/// Runs the demo until Ctrl-C.
pub fn run(args: &Args) -> ExitCode {
    super::run::events_at("warn");
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    match runtime.block_on(show(args.port)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => failed(&why),
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("error: {}", why.trim_end());
    ExitCode::from(1)
}

async fn show(port: u16) -> Result<(), String> {
    // Asked for first: a Ctrl-C while things start must not leave files behind either.
    let mut interrupt =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).map_err(|e| e.to_string())?;
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(|e| e.to_string())?;
    let world = world::start(port)?;
    tokio::select! {
        synced = synced(&world) => synced?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    }
    world::fill(&world).await?;
    print(&introduction(&world))?;
    tokio::select! {
        followed = follow(&world) => followed,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
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

fn introduction(world: &World) -> String {
    let mut text = "Central and three edges are running.\n\n".to_owned();
    text += &format!("  central  https://{}  (mutual TLS: its feed, claims and homes)\n", world.central);
    for edge in &world.edges {
        text += &format!(
            "  {}       http://{}   https://{}   admin http://{}\n",
            edge.name, edge.http, edge.https, edge.admin
        );
    }
    text += "\nTry these in another terminal; each request shows up below.\n";
    let (fr, us, jp) = (world.edges[0].http, world.edges[1].http, world.edges[2].http);
    let lines: [(&str, String); 11] = [
        ("a read, from the edge's own copy: local, served by fr", format!("curl -i http://{fr}/v1/items/847.json")),
        (
            "a write to shared data: Central",
            format!("curl -i -X POST -d '{{\"name\":\"lamp\"}}' http://{fr}/v1/items/901.json"),
        ),
        (
            "that item has not reached jp, so the list goes on: Central",
            format!("curl -i http://{jp}/v1/items/901.json"),
        ),
        (
            "user 448 lives at fr, and we ask there: home, served by fr",
            format!("curl -i http://{fr}/v1/users/448/wishlist.json"),
        ),
        ("the same user from jp: passed to fr", format!("curl -i http://{jp}/v1/users/448/wishlist.json")),
        (
            "a write for that user from us: accepted at fr alone",
            format!("curl -i -X PUT -d '[\"lamp\"]' http://{us}/v1/users/448/wishlist.json"),
        ),
        (
            "a new user belongs to the edge that saw them first: see Location",
            format!("curl -i -X POST -d '{{}}' http://{jp}/v1/users"),
        ),
        ("the place is written in the id: jp", format!("curl -i http://{fr}/v1/items/847_jp.json")),
        (
            "a user that nobody knows: 404, said by Central",
            format!("curl -i http://{fr}/v1/users/nobody/wishlist.json"),
        ),
        (
            "over TLS and HTTP/2",
            format!("curl -i --cacert {} https://{}/v1/items/847.json", world.ca.display(), world.edges[0].https),
        ),
        ("why?", format!("coordinator explain --admin {} GET /v1/users/448/wishlist.json", world.edges[2].admin)),
    ];
    for (what, command) in lines {
        text += &format!("\n  # {what}\n  {command}\n");
    }
    text + "\nCtrl-C ends it and leaves nothing behind.\n\n"
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
    let text = |name: &str| value[name].as_str().unwrap_or("-").to_owned();
    let to = match value["home"].as_str() {
        Some(home) if text("decision") == "remote" => format!("remote {home}"),
        _ => text("decision"),
    };
    let key = value["key"].as_str().map(|key| format!("  {key}")).unwrap_or_default();
    format!("{edge}  {} {} -> {to} ({})  {}{key}\n", text("method"), text("target"), text("reason"), value["status"])
}
