//! `coordinator explain`: what would become of a request, from a configuration or from a running process.

use super::admin;
use crate::base::id::ClusterId;
use crate::config::load::{self, Strictness};
use crate::config::plan::{Plan, RouteSettings};
use crate::home::Home;
use crate::proxy::explain::{Knowledge, Source, explain, question};
use crate::route::decide::Decision;
use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Tell what would become of a request, and why
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Explain by this configuration, without a running process
    #[arg(long, value_name = "FILE", required_unless_present = "admin", conflicts_with = "admin")]
    pub config: Option<PathBuf>,
    /// Ask the running process at this admin door: HOST:PORT or unix:/path
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// Homes to go by, with --config: JSON lines {"space":"user","key":"448","home":"fr"}
    #[arg(long, value_name = "FILE", requires = "config")]
    pub homes: Option<PathBuf>,
    /// A request field, such as -H 'Host: example.com'; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = field)]
    pub headers: Vec<(String, String)>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The method
    #[arg(value_name = "METHOD")]
    pub method: String,
    /// The URL, or only its path
    #[arg(value_name = "URL")]
    pub url: String,
}

fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as 'Name: value'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Runs the command: 0 explained, 1 the process could not be asked, 2 wrong usage or configuration.
pub fn run(args: &Args) -> ExitCode {
    let outcome = match (&args.config, &args.admin) {
        (Some(config), _) => offline(args, config),
        (None, Some(admin)) => live(args, admin),
        (None, None) => Err((2, "say --config FILE or --admin ADDR".to_owned())),
    };
    match outcome {
        Ok(text) => {
            println!("{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err((code, why)) => {
            eprintln!("{}", why.trim_end());
            ExitCode::from(code)
        }
    }
}

type Outcome = Result<String, (u8, String)>;

fn live(args: &Args, address: &str) -> Outcome {
    let mut query = format!("/explain?method={}&url={}", escape(&args.method), escape(&args.url));
    for (name, value) in &args.headers {
        query += &format!("&header={}", escape(&format!("{name}: {value}")));
    }
    if args.json {
        query += "&format=json";
    }
    match admin::call(address, "GET", &query) {
        Ok((200, text)) => Ok(text),
        Ok((_, text)) => Err((2, format!("error: {text}"))),
        Err(why) => Err((1, format!("error: {why}"))),
    }
}

fn offline(args: &Args, config: &Path) -> Outcome {
    let outcome = load::edge(config, &load::process_env, Strictness::Check);
    let shown = outcome.render(std::io::stderr().is_terminal());
    let plan = outcome.plan.ok_or((2, shown))?;
    let homes = args.homes.as_deref().map(read_homes).transpose().map_err(|why| (2, why))?;
    let head = question(&args.method, &args.url, &args.headers).map_err(|why| (2, format!("error: {why}")))?;
    let home = |space: &str, key: &str| look(&plan, homes.as_ref(), space, key);
    let endpoints = |decision, settings: &RouteSettings| endpoints(&plan, settings, decision);
    let by = if homes.is_some() { Source::FileAndHomes } else { Source::File };
    let explanation = explain(
        &plan,
        head,
        &Knowledge { home: &home, reachable: &|_, _| None, endpoints: &endpoints, seq: None, can_ask: None, by },
    );
    if args.json {
        return serde_json::to_string_pretty(&explanation).map_err(|error| (1, error.to_string()));
    }
    Ok(explanation.to_string())
}

/// `space:key` to the name of its home.
type Names = HashMap<String, String>;

#[derive(serde::Deserialize)]
struct Row {
    #[serde(default = "default_space")]
    space: String,
    key: String,
    home: String,
}

fn default_space() -> String {
    "user".to_owned()
}

fn read_homes(path: &Path) -> Result<Names, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("error: {}: {error}", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| {
            let row: Row = serde_json::from_str(line).map_err(|error| {
                format!("error: {}:{}: {error}\nhelp: write one {{\"space\":\"user\",\"key\":\"448\",\"home\":\"fr\"}} a line", path.display(), at + 1)
            })?;
            Ok((format!("{}:{}", row.space, row.key), row.home))
        })
        .collect()
}

fn look(plan: &Plan, homes: Option<&Names>, space: &str, key: &str) -> Home {
    let Some(name) = homes.and_then(|homes| homes.get(&format!("{space}:{key}"))) else { return Home::Unknown };
    match plan.edges.named(name) {
        _ if *name == plan.own.name => Home::Ours { epoch: 1, provisional: false },
        Some(edge) => Home::At { edge: edge.id, epoch: 1 },
        None => Home::Unknown,
    }
}

fn endpoints(plan: &Plan, settings: &RouteSettings, decision: Decision) -> Vec<String> {
    let origins = |id: ClusterId| plan.clusters.get(id.index()).map(|cluster| cluster.origins.clone());
    let urls = match decision {
        Decision::Local => settings.cluster.or(plan.local).and_then(origins).unwrap_or_default(),
        Decision::Central => {
            let central = plan.central.as_ref();
            let own = central.and_then(|central| central.origins).and_then(origins);
            own.or(central.map(|central| central.urls.clone())).unwrap_or_default()
        }
        Decision::Remote(edge) => plan.edges.get(edge).and_then(|edge| edge.peer.clone()).into_iter().collect(),
    };
    urls.iter().map(ToString::to_string).collect()
}

/// Percent-encodes everything but unreserved octets.
fn escape(text: &str) -> String {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~".contains(&octet);
    text.bytes()
        .map(|octet| if plain(octet) { char::from(octet).to_string() } else { format!("%{octet:02X}") })
        .collect()
}
