//! `coordinator homes get|set|import|export`: homes at Central, from a shell.
//!
//! Owns the arguments and what is printed; Central decides everything. Invariant: an import never holds more than one
//! part of its file, and repeating it, whole or from the middle, changes nothing that it has done already.

use crate::base::backoff::{Backoff, random};
use crate::config::plan::{Url, UrlScheme};
use crate::feed::client::{Call, Line, content};
use crate::home::key;
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

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

/// Look up, create, import and export homes at Central
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
}

/// Where Central is, and as whom to call it.
#[derive(Debug, clap::Args)]
pub struct At {
    /// Central's door, such as `https://central.example.com:8444`
    #[arg(long = "central", value_name = "URL", value_parser = url)]
    pub url: Url,
    /// The key space
    #[arg(long, default_value = "user")]
    pub space: String,
    /// Certificate of an operator or the application (PEM)
    #[arg(long, value_name = "FILE", requires = "key_file")]
    pub cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long = "key", id = "key_file", value_name = "FILE", requires = "cert")]
    pub key_file: Option<PathBuf>,
    /// The deployment's CA (PEM); needed for https
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// Does it. Exit code 0; 1 if there is no such home, a line was refused or Central failed; 2 for bad usage.
pub fn run(args: &Args) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return say(1, &format!("no runtime: {error}")),
    };
    let done = runtime.block_on(async {
        match &args.command {
            Command::Get { key, central } => get(key, central).await,
            Command::Set { key, home, central } => set(key, home, central).await,
            Command::Import { file, csv, central } => import(file, *csv, central).await,
            Command::Export { file, central } => export(file, central).await,
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
    let (status, answer) = at.ask(Method::GET, &at.path(name)?, Value::Null).await?;
    if status != 200 {
        return Err(told(status, &answer).into());
    }
    print(&answer.to_string());
    Ok(())
}

async fn set(name: &str, home: &str, at: &At) -> Result<(), Failure> {
    let (status, answer) = at.ask(Method::PUT, &at.path(name)?, json!({ "home": home })).await?;
    if !(200..300).contains(&status) {
        return Err(told(status, &answer).into());
    }
    print(&answer.to_string());
    Ok(())
}

impl At {
    fn path(&self, name: &str) -> Result<String, Failure> {
        key::full(&self.space, name).map_err(usage)?;
        Ok(format!("/v1/homes/{}/{}", self.space, key::escape(name)))
    }

    async fn connect(&self) -> Result<Line, Failure> {
        let tls = match self.url.scheme {
            UrlScheme::Https => Some(Arc::new(self.tls()?)),
            _ if is_loopback(&self.url) => None,
            _ => return Err(usage("plain http is for loopback addresses only; use https with --ca, --cert and --key")),
        };
        Ok(Line::connect(&self.url, tls.as_ref()).await?)
    }

    fn tls(&self) -> Result<rustls::ClientConfig, Failure> {
        let ca = self.ca.as_deref().ok_or_else(|| usage("https needs --ca FILE: the deployment's CA"))?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates(ca)? {
            roots.add(certificate).map_err(|error| usage(format!("{}: {error}", ca.display())))?;
        }
        let config = rustls::ClientConfig::builder().with_root_certificates(roots);
        let mut config = match (&self.cert, &self.key_file) {
            (Some(chain), Some(key)) => {
                let private = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| usage(format!("{}: no private key: {error}", key.display())))?;
                config
                    .with_client_auth_cert(certificates(chain)?, private)
                    .map_err(|error| usage(format!("{}: {error}", chain.display())))?
            }
            _ => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    async fn ask(&self, method: Method, target: &str, content: Value) -> Result<(u16, Value), Failure> {
        let content = if content.is_null() { Bytes::new() } else { content.to_string().into() };
        let fields = vec![("content-type", "application/json".to_owned())];
        self.exchange(Call { method, target: target.to_owned(), fields, content }).await
    }

    async fn exchange(&self, call: Call) -> Result<(u16, Value), Failure> {
        let mut line = self.connect().await?;
        let answer = line.send(call).await?;
        let status = answer.status().as_u16();
        let text = content(answer.into_body(), ANSWER_MAX).await?;
        let value = serde_json::from_slice(&text).unwrap_or(Value::Null);
        Ok((status, value))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let wrong = |error: &dyn std::fmt::Display| usage(format!("{}: no certificate: {error}", path.display()));
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?.collect();
    let found = found.map_err(|error| wrong(&error))?;
    if found.is_empty() { Err(wrong(&"the file holds none")) } else { Ok(found) }
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
    let mut input: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(BufReader::new(io::stdin()))
    } else {
        let open = File::open(file).map_err(|error| usage(format!("{}: {error}", file.display())))?;
        Box::new(BufReader::new(open))
    };
    let (mut sum, mut before) = (Sum::default(), 0);
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
        sum.add(&answer, before);
        before += lines as u64;
    }
    print(&format!("created {}, same {}, refused {}", sum.created, sum.same, sum.refused));
    if sum.refused > 0 { Err(format!("{} lines were refused", sum.refused).into()) } else { Ok(()) }
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
        let call = Call { method: Method::POST, target: "/v1/homes".to_owned(), fields, content: content.clone() };
        let failure = match at.exchange(call).await {
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
    /// Adds what Central says of a part, and prints the lines that it refused.
    fn add(&mut self, answer: &Value, before: u64) {
        let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_u64).unwrap_or(0);
        self.created += number(answer, "created");
        self.same += number(answer, "same");
        let refused = number(answer, "refused_count");
        self.refused += refused;
        let listed = answer.get("refused").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut err = io::stderr().lock();
        for line in listed {
            let why = line.get("why").and_then(Value::as_str).unwrap_or("refused");
            let _ = writeln!(err, "line {}: {why}", before + number(line, "line"));
        }
        if refused > listed.len() as u64 {
            let _ = writeln!(err, "… and {} more lines after line {before}", refused - listed.len() as u64);
        }
    }
}

async fn export(file: &Path, at: &At) -> Result<(), Failure> {
    key::check_name("key space", &at.space).map_err(usage)?;
    let mut line = at.connect().await?;
    let target = format!("/v1/homes?space={}", at.space);
    let answer = line.send(Call { target, ..Call::default() }).await?;
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
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the export was cut: {error}"))?;
        if let Some(octets) = frame.data_ref() {
            out.write_all(octets).map_err(|error| format!("the export cannot be written: {error}"))?;
        }
    }
    out.flush().map_err(|error| format!("the export cannot be written: {error}").into())
}

fn is_loopback(url: &Url) -> bool {
    url.scheme == UrlScheme::Unix
        || url.host == "localhost"
        || url.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Reads `https://host[:port][/base]` or the same with http.
fn url(text: &str) -> Result<Url, String> {
    let wrong = || format!("`{text}` is not a URL such as https://central.example.com:8444");
    let uri: http::Uri = text.parse().map_err(|_| wrong())?;
    let (scheme, port) = match uri.scheme_str() {
        Some("https") => (UrlScheme::Https, 443),
        Some("http") => (UrlScheme::Http, 80),
        _ => return Err(wrong()),
    };
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    if uri.query().is_some() || host.is_empty() {
        return Err(wrong());
    }
    let base = uri.path().trim_end_matches('/').to_owned();
    Ok(Url { scheme, host, port: authority.port_u16().unwrap_or(port), base })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        for (text, expected) in [
            ("https://c.example.com:8444", "https://c.example.com:8444"),
            ("https://c.example.com/", "https://c.example.com:443"),
            ("http://127.0.0.1:1/base/", "http://127.0.0.1:1/base"),
            ("http://[::1]:9", "http://[::1]:9"),
        ] {
            assert_eq!(url(text).map(|url| url.to_string()).as_deref(), Ok(expected));
        }
        for text in ["", "c.example.com", "ftp://c", "https://u@c", "https://c?x=1", "/x"] {
            assert!(url(text).is_err(), "{text}");
        }
        assert!(is_loopback(&url("http://[::1]:9").unwrap()));
        assert!(!is_loopback(&url("http://10.0.0.1:9").unwrap()));
    }

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
