//! What was asked for on the command line.

use super::scenario::{self, Scenario};
use super::subject::Which;
use clap::Parser;
use std::path::PathBuf;

/// The daemon under load: CPU time for each request, and latency on a schedule, beside other proxies.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench load --", disable_version_flag = true)]
pub struct Asked {
    /// Only scenarios whose names hold one of these (`--list` tells them)
    names: Vec<String>,
    /// Tell the scenarios, and measure nothing
    #[arg(long)]
    pub list: bool,
    /// A moment of each scenario, beside whatever is installed: proves that every request succeeds, measures nothing
    #[arg(long)]
    pub smoke: bool,
    /// Measure these beside the daemon, where installed: nginx, haproxy, or the path of another build of the daemon
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    against: Vec<String>,
    /// Measure the daemon with its access log on as well
    #[arg(long)]
    pub access_log: bool,
    /// How often each subject has its turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Multiplies the number of requests, and the time of each schedule
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Count the user-space instructions of a request in this scenario (needs valgrind), and measure nothing else
    #[arg(long, value_name = "SCENARIO")]
    pub instr: Option<String>,
    /// Write all figures as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a plot of the latencies on a schedule
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Said by cargo to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What smoke mode leaves of the numbers of requests.
const SMOKE: f64 = 0.01;

impl Asked {
    /// The scenarios to run.
    pub fn scenarios(&self) -> Vec<Scenario> {
        let wanted = |name: &str| self.names.is_empty() || self.names.iter().any(|part| name.contains(part.as_str()));
        scenario::all().into_iter().filter(|scenario| wanted(scenario.name)).collect()
    }

    /// How often each subject has its turn.
    pub fn rounds(&self) -> usize {
        if self.smoke { 1 } else { self.rounds.max(1) }
    }

    /// What numbers of requests are multiplied by.
    pub fn scale(&self) -> f64 {
        if self.smoke { SMOKE } else { self.scale }
    }

    /// The subjects that every scenario is for: the daemon first. What is not installed is told and left out.
    pub fn subjects(&self) -> Vec<Which> {
        let mut subjects = vec![Which::Own { access_log: false }];
        subjects.extend(self.access_log.then_some(Which::Own { access_log: true }));
        let installed = ["nginx", "haproxy"].map(str::to_owned);
        let against = if self.smoke && self.against.is_empty() { &installed[..] } else { &self.against };
        for name in against {
            let which = peer(name);
            match which.version() {
                Some(version) => println!("beside   {name}: {version}"),
                None => println!("NOT INSTALLED: {name} is left out"),
            }
            subjects.extend(which.version().map(|_| which));
        }
        subjects
    }
}

/// A peer by its name; anything else is the path of a daemon.
fn peer(name: &str) -> Which {
    match name {
        "nginx" => Which::Nginx,
        "haproxy" => Which::Haproxy,
        path => Which::Build(PathBuf::from(path)),
    }
}
