//! `coordinator homes get|set|move|import|export|watch`: homes at Central, from a shell.
//!
//! Owns the arguments and what is printed; Central decides everything. Invariant: an import never holds more than one
//! part of its file, and repeating it, whole or from the middle, changes nothing that it has done already.

mod door;
mod watch;

use super::progress::Progress;
use crate::base::backoff::{Backoff, random};
use crate::feed::client::{Call, content};
use crate::home::key;
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub use door::CentralDoor;
pub use watch::Watch;

/// Exit code for bad usage or configuration.
const BAD_USAGE: u8 = 2;
/// Lines and octets of a file that are sent at once.
const PART_LINES: usize = 10_000;
const PART_OCTETS: usize = 1 << 20;
/// The longest line of an import; Central refuses shorter ones by itself, with its line number.
const LINE_MAX: u64 = 1 << 20;
/// How often a part is sent before the import gives up.
const TRIES: u32 = 8;
/// The longest answer that is read whole: the refused lines of one part.
const ANSWER_MAX: usize = 8 << 20;

/// Look up, create, import, export and watch homes at Central
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do with homes.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print where a key lives
    Get {
        /// The key, such as 448
        key: String,
        /// Where Central is
        #[command(flatten)]
        central: At,
    },
    /// Give a key a home; a key that has another one keeps it
    Set {
        /// The key, such as 448
        key: String,
        /// The name of the edge, such as fr
        home: String,
        /// Where Central is
        #[command(flatten)]
        central: At,
    },
    /// Move a key to another home, with its data (not built yet)
    Move {
        /// The key, such as 448
        key: String,
        /// The name of the edge, such as fr
        home: String,
        /// Where Central is
        #[command(flatten)]
        central: At,
    },
    /// Create homes from JSON lines or CSV (`space,key,home`); refused lines go to standard error
    Import {
        /// The file: CSV if its name ends in .csv, else JSON lines; `-` is standard input
        file: PathBuf,
        /// Read CSV whatever the name
        #[arg(long)]
        csv: bool,
        /// Where Central is
        #[command(flatten)]
        central: At,
    },
    /// Write all homes of a key space as JSON lines
    Export {
        /// The file, replaced when the export is complete; `-` is standard output
        file: PathBuf,
        /// Where Central is
        #[command(flatten)]
        central: At,
    },
    /// Print every change of a home as it happens; needs an operator's or the application's certificate, or a token
    Watch(Watch),
}

impl Command {
    fn door(&self) -> &CentralDoor {
        match self {
            Command::Get { central, .. }
            | Command::Set { central, .. }
            | Command::Move { central, .. }
            | Command::Import { central, .. }
            | Command::Export { central, .. } => &central.door,
            Command::Watch(watch) => &watch.door,
        }
    }
}

/// Where Central is, and of which keys to speak.
#[derive(Debug, clap::Args)]
pub struct At {
    /// Central's door
    #[command(flatten)]
    pub door: CentralDoor,
    /// The key space
    #[arg(long, default_value = "user")]
    pub space: String,
}

/// Tells Central one thing, and prints its answer. Exit code 0; 1 if Central refuses or fails; 2 for bad usage.
pub(super) fn tell(door: &CentralDoor, path: &str) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return say(1, &format!("no runtime: {error}")),
    };
    match runtime.block_on(door.ask(Method::POST, path, Value::Null)) {
        Ok((200, answer)) => {
            print(&answer.to_string());
            ExitCode::SUCCESS
        }
        Ok((status, answer)) => say(1, &told(status, &answer)),
        Err(Failure { code, why }) => say(code, &why),
    }
}

/// Arguments of `promote`.
#[derive(Debug, clap::Args)]
pub struct PromoteArgs {
    /// The door of the standby
    #[command(flatten)]
    pub central: CentralDoor,
}

/// Promotes a standby. Exit code 0; 1 if it refuses or cannot be reached; 2 for bad usage.
pub fn promote(args: &PromoteArgs) -> ExitCode {
    tell(&args.central, "/v1/promote")
}

/// Does it. Exit code 0; 1 if there is no such home, a line was refused or Central failed; 2 for bad usage.
pub fn run(args: &Args) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return say(1, &format!("no runtime: {error}")),
    };
    door::warn(args.command.door());
    let done = runtime.block_on(async {
        match &args.command {
            Command::Get { key, central } => get(key, central).await,
            Command::Set { key, home, central } => set(key, home, central).await,
            Command::Move { key, home, .. } => Err(no_moves(key, home)),
            Command::Import { file, csv, central } => import(file, *csv, central).await,
            Command::Export { file, central } => export(file, central).await,
            Command::Watch(args) => watch::watch(args).await,
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, why }) => say(code, &why),
    }
}

/// Why the command failed, and its exit code.
struct Failure {
    code: u8,
    why: String,
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Failure { code: 1, why }
    }
}

fn usage(why: impl Into<String>) -> Failure {
    Failure { code: BAD_USAGE, why: why.into() }
}

fn say(code: u8, why: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "error: {why}");
    ExitCode::from(code)
}

/// Prints a line to standard output; nobody may be left to read it.
fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

async fn get(name: &str, at: &At) -> Result<(), Failure> {
    let (status, answer) = at.door.ask(Method::GET, &at.path(name)?, Value::Null).await?;
    if status != 200 {
        return Err(told(status, &answer).into());
    }
    print(&answer.to_string());
    Ok(())
}

async fn set(name: &str, home: &str, at: &At) -> Result<(), Failure> {
    let (status, answer) = at.door.ask(Method::PUT, &at.path(name)?, json!({ "home": home })).await?;
    if !(200..300).contains(&status) {
        return Err(told(status, &answer).into());
    }
    print(&answer.to_string());
    Ok(())
}

/// Said here and not by Central, so that nobody waits for it.
fn no_moves(key: &str, home: &str) -> Failure {
    usage(format!(
        "moves are not built yet, so `{}` was not moved to `{}`: a home, once given, stays\nhelp: `homes get` says where it is; `homes set` gives a home to a key that has none",
        key::shown(key),
        key::shown(home)
    ))
}

impl At {
    fn path(&self, name: &str) -> Result<String, Failure> {
        key::full(&self.space, name).map_err(usage)?;
        Ok(format!("/v1/homes/{}/{}", self.space, key::escape(name)))
    }
}

/// What an answer says that is not what was asked for.
fn told(status: u16, answer: &Value) -> String {
    match answer.get("detail").and_then(Value::as_str) {
        Some(detail) => detail.to_owned(),
        None => format!("Central answered {status}"),
    }
}

/// What an import did.
#[derive(Default)]
struct Sum {
    created: u64,
    same: u64,
    refused: u64,
}

async fn import(file: &Path, csv: bool, at: &At) -> Result<(), Failure> {
    let csv = csv || file.extension().is_some_and(|end| end.eq_ignore_ascii_case("csv"));
    let (mut input, whole) = open(file)?;
    let (mut sum, mut before, mut octets) = (Sum::default(), 0, 0);
    let mut progress = Progress::start("import", "lines", whole);
    loop {
        let (part, lines) = part(&mut input).map_err(|error| format!("line {}: {error}", before + 1))?;
        if lines == 0 {
            break;
        }
        let answer = send_part(&part, csv, at).await.map_err(|failure| Failure {
            why: format!(
                "line {} on was not imported (those before were; the same import again is safe): {}",
                before + 1,
                failure.why
            ),
            ..failure
        })?;
        if sum.add(&answer) > 0 {
            progress.clear();
            tell_refused(&answer, before);
        }
        before += lines as u64;
        octets += part.len() as u64;
        progress.at(before, octets);
    }
    drop(progress);
    print(&format!("created {}, same {}, refused {}", sum.created, sum.same, sum.refused));
    if sum.refused > 0 { Err(format!("{} lines were refused", sum.refused).into()) } else { Ok(()) }
}

/// The input, and its size if it is a file.
fn open(file: &Path) -> Result<(Box<dyn BufRead>, Option<u64>), Failure> {
    if file == Path::new("-") {
        return Ok((Box::new(BufReader::new(io::stdin())), None));
    }
    let open = File::open(file).map_err(|error| usage(format!("{}: {error}", file.display())))?;
    let whole = open.metadata().ok().filter(std::fs::Metadata::is_file).map(|known| known.len());
    Ok((Box::new(BufReader::new(open)), whole))
}

/// The next lines of the input, whole, and how many they are.
fn part(input: &mut dyn BufRead) -> io::Result<(Vec<u8>, usize)> {
    let (mut part, mut lines) = (Vec::new(), 0);
    while lines < PART_LINES && part.len() < PART_OCTETS {
        let read = input.take(LINE_MAX).read_until(b'\n', &mut part)?;
        if read == 0 {
            break;
        }
        if read as u64 == LINE_MAX && part.last() != Some(&b'\n') {
            return Err(io::Error::other(format!("longer than {LINE_MAX} octets")));
        }
        lines += 1;
    }
    Ok((part, lines))
}

/// Sends a part until Central has taken it. Errors: refused as a whole, or Central failed too often.
async fn send_part(part: &[u8], csv: bool, at: &At) -> Result<Value, Failure> {
    let form = if csv { "text/csv" } else { "application/x-ndjson" };
    let content = Bytes::copy_from_slice(part);
    let mut backoff = Backoff::links();
    let mut tries = 1;
    loop {
        let fields = vec![("content-type", form.to_owned())];
        let call = Call {
            method: Method::POST,
            target: "/v1/homes".to_owned(),
            fields,
            content: content.clone(),
            ..Call::default()
        };
        let failure = match at.door.exchange(call).await {
            Ok((200, answer)) => return Ok(answer),
            Ok((status, answer)) if status < 500 => return Err(told(status, &answer).into()),
            Ok((status, answer)) => told(status, &answer).into(),
            Err(failure) => failure,
        };
        if failure.code == BAD_USAGE || tries == TRIES {
            return Err(failure);
        }
        tries += 1;
        tokio::time::sleep(backoff.next(random())).await;
    }
}

impl Sum {
    /// Adds what Central says of a part; how many of its lines it refused.
    fn add(&mut self, answer: &Value) -> u64 {
        self.created += number(answer, "created");
        self.same += number(answer, "same");
        let refused = number(answer, "refused_count");
        self.refused += refused;
        refused
    }
}

fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or(0)
}

/// Prints the lines of a part that Central refused; `before` were in the parts before it.
fn tell_refused(answer: &Value, before: u64) {
    let listed = answer.get("refused").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut err = io::stderr().lock();
    for line in listed {
        let why = line.get("why").and_then(Value::as_str).unwrap_or("refused");
        let _ = writeln!(err, "line {}: {why}", before + number(line, "line"));
    }
    let more = number(answer, "refused_count").saturating_sub(listed.len() as u64);
    if more > 0 {
        let _ = writeln!(err, "… and {more} more lines after line {before}");
    }
}

async fn export(file: &Path, at: &At) -> Result<(), Failure> {
    key::check_name("key space", &at.space).map_err(usage)?;
    let mut line = at.door.connect().await?;
    let target = format!("/v1/homes?space={}", at.space);
    let answer = at.door.send(&mut line, Call { target, ..Call::default() }).await?;
    let status = answer.status().as_u16();
    if status != 200 {
        let text = content(answer.into_body(), ANSWER_MAX).await?;
        return Err(told(status, &serde_json::from_slice(&text).unwrap_or(Value::Null)).into());
    }
    let body = answer.into_body();
    if file == Path::new("-") {
        return copy(body, &mut io::stdout().lock()).await;
    }
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(".part");
    let shown = |error: io::Error| format!("{}: {error}", file.display());
    let mut out = File::create(&temporary).map_err(shown)?;
    copy(body, &mut out).await?;
    out.sync_all().and_then(|()| std::fs::rename(&temporary, file)).map_err(shown)?;
    Ok(())
}

async fn copy(mut body: hyper::body::Incoming, out: &mut dyn Write) -> Result<(), Failure> {
    let mut progress = Progress::start("export", "homes", None);
    let (mut homes, mut octets) = (0, 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the export was cut: {error}"))?;
        if let Some(piece) = frame.data_ref() {
            homes += memchr::memchr_iter(b'\n', piece).count() as u64;
            octets += piece.len() as u64;
            progress.at(homes, octets);
            out.write_all(piece).map_err(|error| format!("the export cannot be written: {error}"))?;
        }
    }
    out.flush().map_err(|error| format!("the export cannot be written: {error}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_ends_with_a_line() {
        let text = "x\n".repeat(PART_LINES + 5) + "last";
        let mut input = text.as_bytes();
        assert_eq!(part(&mut input).map(|(part, lines)| (part.len(), lines)).unwrap(), (2 * PART_LINES, PART_LINES));
        assert_eq!(part(&mut input).map(|(part, lines)| (part.len(), lines)).unwrap(), (14, 6));
        assert_eq!(part(&mut input).unwrap().1, 0);
        let long = vec![b'x'; 3 << 20];
        assert!(part(&mut long.as_slice()).is_err());
    }
}
