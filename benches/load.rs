//! The daemon under load: an edge as its own process on its own core, driver and origin on the other.
//!
//! `cargo bench --bench load [-- --smoke] [--json FILE] [SCENARIO]`. Each scenario runs twice: in a closed loop, which shows
//! what a request costs when the core is busy, and at half that rate on a fixed schedule, which shows latency as clients
//! of a proxy that is not overloaded see it. Figures are told, never asserted; only failed requests fail the run.

// Benchmarks are outside the rules for clocks and threads that `clippy.toml` sets for the data path.
#![allow(clippy::disallowed_methods)]

#[path = "support/client.rs"]
mod client;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/histogram.rs"]
mod histogram;
#[path = "support/origin.rs"]
mod origin;
#[path = "support/report.rs"]
mod report;

use client::{Load, Outcome, Way};
use daemon::Deployment;
use report::{Asked, Report};
use serde_json::json;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

/// Requests under way at the same time.
const CLIENTS: usize = 64;

/// Streams on each connection of HTTP/2.
const STREAMS: usize = 16;

/// The share of the closed loop's rate that the fixed rate is.
const SHARE: f64 = 0.5;

/// How long each part runs, and how long connections, caches and predictors warm up before.
const TIME: Duration = Duration::from_secs(5);
const WARM: Duration = Duration::from_secs(1);

/// The same in smoke mode, which proves that all of it works.
const SMOKE_TIME: Duration = Duration::from_secs(1);
const SMOKE_WARM: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let asked = Asked::read();
    let pinned = daemon::stay_aside();
    let mut report = Report::begin("load: the daemon as a process of its own");
    if !pinned {
        println!("NOT PINNED: one core only, or no taskset; CPU times hold, the others say little\n");
    }
    let deployment = Deployment::start(start_origin(), pinned);
    println!(
        "{:<10} {:<7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>7}",
        "scenario", "loop", "req/s", "p50 us", "p90 us", "p99 us", "p99.9 us", "max us", "CPU us", "RSS MB"
    );
    let runtime = runtime();
    let mut failed = false;
    for (name, way) in scenarios(&deployment).into_iter().filter(|(name, _)| asked.wants(name)) {
        failed |= !runtime.block_on(scenario(name, &way, &deployment, &asked, &mut report));
    }
    report.end(&asked);
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn scenarios(deployment: &Deployment) -> Vec<(&'static str, Way)> {
    let plain = |path: &str| Way { address: deployment.plain, path: path.to_owned(), tls: None, streams: None };
    let secure = |protocol: &[u8], streams| {
        let tls = Some(client::trusting(&deployment.ca, protocol));
        Way { address: deployment.tls, path: daemon::LOCAL.to_owned(), tls, streams }
    };
    vec![
        ("local", plain(daemon::LOCAL)),
        ("central", plain(daemon::CENTRAL)),
        ("remote", plain(daemon::REMOTE)),
        ("local-tls", secure(b"http/1.1", None)),
        ("local-h2", secure(b"h2", Some(STREAMS))),
    ]
}

/// One scenario in both loops; whether every request succeeded.
async fn scenario(name: &str, way: &Way, deployment: &Deployment, asked: &Asked, report: &mut Report) -> bool {
    let (warm, time) = if asked.smoke { (SMOKE_WARM, SMOKE_TIME) } else { (WARM, TIME) };
    client::run(way, Load { clients: CLIENTS, time: warm, rate: None }).await;
    let mut rate = None;
    let mut sound = true;
    for kind in ["closed", "open"] {
        let before = deployment.cpu();
        let outcome = client::run(way, Load { clients: CLIENTS, time, rate }).await;
        let cpu = (deployment.cpu() - before).as_secs_f64() * 1e6 / outcome.latency.total().max(1) as f64;
        rate = Some(outcome.latency.total() as f64 / outcome.took.as_secs_f64() * SHARE);
        sound &= tell(name, kind, &outcome, cpu, deployment.rss_kib(), report);
    }
    sound
}

fn tell(name: &str, kind: &str, outcome: &Outcome, cpu: f64, rss_kib: u64, report: &mut Report) -> bool {
    let rate = outcome.latency.total() as f64 / outcome.took.as_secs_f64();
    let [p50, p90, p99, p999, max] = [0.5, 0.9, 0.99, 0.999, 1.0].map(|share| outcome.latency.micros(share));
    println!(
        "{name:<10} {kind:<7} {rate:>9.0} {p50:>9.0} {p90:>9.0} {p99:>9.0} {p999:>9.0} {max:>9.0} {cpu:>8.1} {:>7.1}",
        rss_kib as f64 / 1024.0
    );
    report.row(json!({
        "scenario": name, "loop": kind, "requests": outcome.latency.total(), "failed": outcome.failed,
        "requests_per_second": rate, "p50_us": p50, "p90_us": p90, "p99_us": p99, "p99.9_us": p999, "max_us": max,
        "cpu_us_per_request": cpu, "rss_kib": rss_kib,
    }));
    let sound = outcome.failed == 0 && outcome.latency.total() > 0;
    if !sound {
        let why = outcome.failure.as_deref().unwrap_or("nothing was answered");
        println!("{name}: {} clients failed, the first because: {why}", outcome.failed);
    }
    sound
}

/// Starts the origin on a thread of its own; it ends with the process.
fn start_origin() -> SocketAddr {
    let (told, address) = mpsc::channel();
    std::thread::spawn(move || {
        runtime().block_on(async {
            told.send(origin::start().await).expect("the driver waits for it");
            std::future::pending::<()>().await;
        });
    });
    address.recv().expect("the origin starts")
}

fn runtime() -> LocalRuntime {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).expect("a runtime")
}
