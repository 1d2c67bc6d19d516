//! `coordinator run` and `coordinator central`: start, wait for signals, drain.

use super::signals::Caught;
use crate::base::service::{self, State};
use crate::config::load::{self, Outcome, Strictness};
use crate::config::plan::{Log, Plan, Url};
use crate::edge::{ReadPlan, Running, Source};
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::runtime::Runtime;
use tokio::signal::unix::SignalKind;
use tracing_subscriber::EnvFilter;

/// Arguments of `run` and `central`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Arguments of `central`.
#[derive(Debug, clap::Args)]
pub struct CentralArgs {
    /// What every place has
    #[command(flatten)]
    pub common: Args,
    /// Its data is a copy that may be older than what the edges have seen: grant nothing before every edge has reported
    #[arg(long)]
    pub restored: bool,
    /// Copy the log of the Central at this URL and answer nothing, until `coordinator promote` says otherwise
    #[arg(long, value_name = "URL", value_parser = url, conflicts_with = "restored")]
    pub standby: Option<Url>,
}

fn url(text: &str) -> Result<Url, String> {
    crate::config::door_url(text).ok_or_else(|| "a URL such as https://central.example.com:8444".to_owned())
}

type Load = fn(&Path, load::Env<'_>, Strictness) -> Outcome;

/// Runs an edge until it is told to stop.
pub fn edge(args: &Args) -> ExitCode {
    start(args, load::edge, Running::edge)
}

/// Runs Central until it is told to stop.
pub fn central(args: &CentralArgs) -> ExitCode {
    match &args.standby {
        Some(leader) => start(&args.common, load::central, |plan, read| Running::standby(plan, read, leader.clone())),
        None if args.restored => start(&args.common, load::central, Running::restored_central),
        None => start(&args.common, load::central, Running::central),
    }
}

fn start(args: &Args, load: Load, run: impl FnOnce(Plan, ReadPlan) -> Result<Running, String>) -> ExitCode {
    // Before anything opens descriptors of its own.
    let handed = match service::take_sockets() {
        Ok(handed) => handed,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::from(1);
        }
    };
    let plan = match read(&args.config, load) {
        Ok(plan) => plan,
        Err(problems) => {
            eprint!("{problems}");
            return ExitCode::from(2);
        }
    };
    let level = events(&plan.log);
    let source = File { path: args.config.clone(), load, level };
    let (signals, running) = match Signals::around(|| run(plan, Box::new(source))) {
        Ok(started) => started,
        Err(why) => {
            eprint!("{}", could_not_start(&args.config, &why));
            return ExitCode::from(1);
        }
    };
    for (door, address) in running.doors() {
        tracing::info!(%door, %address, "listening");
    }
    warn_of_idle(&handed, &running);
    service::tell(State::Ready("serving"));
    signals.until_stopped(&running);
    ExitCode::SUCCESS
}

/// A socket that was handed over and no door uses holds its clients for ever.
fn warn_of_idle(handed: &[SocketAddr], running: &Running) {
    let doors = running.doors();
    for address in handed.iter().map(SocketAddr::to_string) {
        if !doors.iter().any(|(_, at)| *at == address) {
            tracing::warn!(%address, "a socket was handed over that no `[[listen]]` or `[peer]` asks for by this address");
        }
    }
}

/// Like the problems of a configuration: text for people, whatever the form of the events. What starts the process keeps
/// what it says.
fn could_not_start(config: &Path, why: &str) -> String {
    let mut text = String::new();
    for (at, line) in why.lines().enumerate() {
        match line.strip_prefix("help: ") {
            Some(help) => text += &format!("  = help: {help}\n"),
            None if at == 0 => text += &format!("error: could not start: {line}\n --> {}\n", config.display()),
            None => text += &format!("error: {line}\n"),
        }
    }
    text
}

/// A configuration file, and the level of events that follows it.
struct File {
    path: PathBuf,
    load: Load,
    level: Level,
}

impl Source for File {
    fn read(&self) -> Result<Plan, String> {
        read(&self.path, self.load)
    }

    fn adopted(&self, plan: &Plan) {
        (self.level)(&plan.log.level);
    }
}

fn read(path: &Path, load: Load) -> Result<Plan, String> {
    let outcome = load(path, &load::process_env, Strictness::Run);
    let colour = std::io::stderr().is_terminal();
    match outcome.plan {
        Some(_) if !outcome.problems.is_empty() => Err(outcome.render(colour)),
        Some(plan) => Ok(plan),
        None => Err(outcome.render(colour)),
    }
}

/// Shows events of this level and above, as text; for commands that run places beside their own output.
pub(super) fn events_at(level: &str) {
    drop(events(&Log { access: false, file: None, json: false, level: level.to_owned() }));
}

/// Changes the level of events.
type Level = Box<dyn Fn(&str) + Send + Sync>;

/// Events go to standard error, so that standard output is the access log's alone.
fn events(log: &Log) -> Level {
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false);
    // A second start in one process keeps the first one's events; only tests do that.
    if log.json {
        let builder = builder.json().with_env_filter(filter(&log.level)).with_filter_reloading();
        let handle = builder.reload_handle();
        let _ = builder.try_init();
        Box::new(move |level| drop(handle.reload(filter(level))))
    } else {
        let builder = builder.with_ansi(std::io::stderr().is_terminal());
        let builder = builder.with_env_filter(filter(&log.level)).with_filter_reloading();
        let handle = builder.reload_handle();
        let _ = builder.try_init();
        Box::new(move |level| drop(handle.reload(filter(level))))
    }
}

/// The level as configured, but of the h2 crate only errors unless it is named: it warns of every hostile connection,
/// which our own numbers count, and a client could fill the disk by it.
fn filter(level: &str) -> EnvFilter {
    EnvFilter::try_new(format!("h2=error,{level}")).unwrap_or_else(|_| EnvFilter::new("h2=error,info"))
}

/// The signals of a running place.
struct Signals {
    runtime: Runtime,
    hangup: Caught,
    reopen: Caught,
    ends: Caught,
}

impl Signals {
    /// Catches them around `start`: those that end nothing before it, for uncaught even a rotation of logs would end it;
    /// the others after it, so that a start can be ended at once.
    fn around<T>(start: impl FnOnce() -> Result<T, String>) -> Result<(Signals, T), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("no runtime to wait for signals: {error}"))?;
        let catch = |kinds: &[SignalKind]| {
            let _entered = runtime.enter();
            Caught::of(kinds)
        };
        let (hangup, reopen) = (catch(&[SignalKind::hangup()])?, catch(&[SignalKind::user_defined1()])?);
        let started = start()?;
        let ends = catch(&[SignalKind::terminate(), SignalKind::interrupt()])?;
        Ok((Signals { runtime, hangup, reopen, ends }, started))
    }

    /// SIGHUP reloads, SIGUSR1 opens the access log anew, SIGTERM and SIGINT drain; a second one of those stops at once.
    fn until_stopped(self, running: &Running) {
        let Signals { runtime, mut hangup, mut reopen, mut ends } = self;
        runtime.block_on(async {
            loop {
                tokio::select! {
                    () = hangup.any() => reload(running),
                    () = reopen.any() => running.reopen_log(),
                    () = ends.any() => break,
                }
            }
            service::tell(State::Stopping);
            tracing::info!("draining; a second signal stops at once");
            tokio::select! {
                said = running.drain() => tracing::info!("drained: {said}"),
                () = ends.any() => tracing::warn!("stopped before all requests had finished"),
            }
        });
    }
}

/// What came of it is logged and counted where it happens.
fn reload(running: &Running) {
    service::tell(State::Reloading);
    let outcome = running.reload();
    service::tell(State::Ready(match &outcome {
        Ok(_) => "serving",
        Err(_) => "serving by the last good configuration: the reload was refused, see the log",
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_start_says_what_where_and_how_to_mend_it() {
        let text = could_not_start(Path::new("fr.toml"), "cannot listen on [::]:80: in use\nhelp: stop the other");
        let expected =
            "error: could not start: cannot listen on [::]:80: in use\n --> fr.toml\n  = help: stop the other\n";
        assert_eq!(text, expected);
    }
}
