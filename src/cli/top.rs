//! `coordinator top --admin ADDR`: a running process, watched in a terminal.
//!
//! Owns the terminal while it runs, and the rhythm; what the figures are is in `figures`, how they look in `frame`.
//! Invariant: however it ends, by Ctrl-C, a signal or an error, the terminal is as it was.

mod figures;
mod frame;

use super::admin;
use super::signals::Caught;
use crate::base::clock;
use figures::Figures;
use frame::Size;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::SignalKind;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Watch a running process: requests, latencies, links, feed and endpoints
///
/// Ctrl-C ends it. Without a terminal, or with --once, it prints one frame of the figures since the process started.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The admin door: HOST:PORT or unix:/path
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9900")]
    pub admin: String,
    /// Print one frame and end
    #[arg(long)]
    pub once: bool,
    /// Seconds between two frames
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub every: u64,
}

/// Shows it. Exit code 0; 1 if the process cannot be asked at the start.
pub fn run(args: &Args) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    let shown = runtime.block_on(async {
        let first = ask(&args.admin).await?;
        if args.once || !io::stdout().is_terminal() {
            return print(&frame::draw(&first, None, Size::UNBOUNDED, &args.admin));
        }
        live(args, first).await
    });
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => failed(&why),
    }
}

fn failed(why: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "error: {why}");
    ExitCode::from(1)
}

fn print(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| error.to_string())
}

/// The figures of this moment.
async fn ask(address: &str) -> Result<Figures, String> {
    let mut texts = Vec::new();
    for path in ["/status", "/metrics"] {
        let asked = tokio::time::timeout(ANSWER, admin::ask(address, "GET", path)).await;
        match asked.map_err(|_| format!("the admin door at {address} does not answer"))?? {
            (200, text) => texts.push(text),
            (status, _) => {
                return Err(format!("{address} answered {status} to GET {path}\nhelp: is this the door of `[admin]`?"));
            }
        }
    }
    Figures::read(clock::now(), &texts[0], &texts[1])
}

/// Draws until a signal ends it. A process that does not answer for a while is waited for.
async fn live(args: &Args, mut last: Figures) -> Result<(), String> {
    let mut ends = Caught::of(&[SignalKind::interrupt(), SignalKind::terminate()])?;
    let mut resized = Caught::of(&[SignalKind::window_change()])?;
    let mut before = None;
    let mut beat = tokio::time::interval(Duration::from_secs(args.every));
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first tick comes at once.
    beat.tick().await;
    let screen = Screen::take()?;
    let mut trouble = None;
    loop {
        screen.show(&frame::draw(&last, before.as_ref(), Size::of_terminal(), &args.admin), trouble.as_deref())?;
        tokio::select! {
            () = ends.any() => return Ok(()),
            () = resized.any() => continue,
            _ = beat.tick() => {}
        }
        let asked = tokio::select! {
            () = ends.any() => return Ok(()),
            asked = ask(&args.admin) => asked,
        };
        match asked {
            Ok(now) => {
                trouble = None;
                before = Some(std::mem::replace(&mut last, now));
            }
            Err(why) => trouble = Some(why),
        }
    }
}

/// The terminal's second screen, ours until this is dropped.
struct Screen;

impl Screen {
    fn take() -> Result<Screen, String> {
        print("\x1b[?1049h\x1b[?25l").map(|()| Screen)
    }

    /// Draws over what stands there, so that nothing flickers, and clears what is left of an older frame.
    fn show(&self, frame: &str, trouble: Option<&str>) -> Result<(), String> {
        let mut text = "\x1b[H".to_owned();
        if let Some(trouble) = trouble.and_then(|trouble| trouble.lines().next()) {
            text += &format!("\x1b[7m{}\x1b[0m\x1b[K\r\n", frame::clean(trouble));
        }
        for line in frame.lines() {
            text += line;
            text += "\x1b[K\r\n";
        }
        // Without the last line feed, which would scroll a full screen.
        print(&format!("{}\x1b[J", text.trim_end_matches("\r\n")))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = print("\x1b[?25h\x1b[?1049l");
    }
}
