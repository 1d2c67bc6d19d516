//! What is written as one string: durations, sizes, addresses, URLs, names, patterns, places, keys.
//!
//! Each reads exactly one form and says what is wrong with any other. Knows no table.

use super::plan::{Address, Database, Feed, NatsStream, Network, Url, UrlScheme};
use super::read::{Leaf, Read, Reader, Wrong, nearest};
use super::tree::Node;
use crate::base::units::{self, ByteSize};
use crate::message::media::MediaRange;
use crate::message::method::is_token;
use crate::route::KeySource;
use crate::route::pattern::Pattern;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The longest name of an edge, a key space or a cluster.
const NAME_MAX: usize = 63;

/// Any text.
#[derive(Debug, Clone)]
pub struct Words(pub String);

impl Leaf for Words {
    const WHAT: &'static str = "text";

    fn parse(text: &str) -> Result<Self, Wrong> {
        Ok(Words(text.to_owned()))
    }
}

/// A name: it appears in certificates, header fields, metrics and file names.
#[derive(Debug, Clone)]
pub struct Name(pub String);

impl Leaf for Name {
    const WHAT: &'static str = "a name, such as \"fr\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let right = text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(fits);
        if !right || text.len() > NAME_MAX {
            let remedy = "names are 1 to 63 letters, digits, `-`, `_` or `.`, beginning with a letter or digit";
            return Err(Wrong::new(format!("`{text}` is not a name"), remedy));
        }
        Ok(Name(text.to_owned()))
    }

    fn narrow(schema: &mut serde_json::Value) {
        schema["pattern"] = "^([A-Za-z0-9][A-Za-z0-9._-]{0,62}|.*\\$\\{.*)$".into();
    }
}

/// A duration.
#[derive(Debug, Clone, Copy)]
pub struct Time(pub Duration);

impl Leaf for Time {
    const WHAT: &'static str = "a duration, such as \"250ms\" or \"1h30m\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        units::duration(text).map(Time).map_err(|wrong| split_remedy(&wrong))
    }
}

/// A size in octets.
#[derive(Debug, Clone, Copy)]
pub struct Size(pub u64);

impl Leaf for Size {
    const WHAT: &'static str = "a size, such as \"64KiB\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        ByteSize::parse(text).map(|size| Size(size.0)).map_err(|wrong| split_remedy(&wrong))
    }
}

/// `base::units` says what is wrong and how to mend it in one sentence.
fn split_remedy(text: &str) -> Wrong {
    match text.split_once("; ") {
        Some((wrong, remedy)) => Wrong::new(wrong, remedy),
        None => Wrong::new(text, ""),
    }
}

/// A share.
#[derive(Debug, Clone, Copy)]
pub struct Percent(pub u32);

impl Leaf for Percent {
    const WHAT: &'static str = "a share, such as \"20%\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let number = text.strip_suffix('%').and_then(|number| number.parse().ok()).filter(|share| *share <= 100);
        number.map(Percent).ok_or_else(|| Wrong::new(format!("`{text}` is not a share"), "write \"0%\" to \"100%\""))
    }
}

/// A path of the file system; relative ones count from the folder of the file that says them.
#[derive(Debug, Clone)]
pub struct FilePath(pub PathBuf);

impl Read for FilePath {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let what = "a path";
        let text = reader.text(node, what)?;
        if text.value.is_empty() || text.value.contains('\0') {
            return reader.wrong(node, text, what, Wrong::default());
        }
        Some(FilePath(reader.folder(node).join(&text.value)))
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "type": "string", "description": "a path; relative ones count from this file's folder" })
    }
}

impl Leaf for SocketAddr {
    const WHAT: &'static str = "an address with a port, such as \"127.0.0.1:8080\" or \"[::]:443\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let hint = match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => "add a port, such as \"127.0.0.1:8080\"",
            Ok(IpAddr::V6(_)) => "IPv6 addresses stand in brackets, with a port: \"[::]:443\"",
            Err(_) => "write an IP address and a port, such as \"127.0.0.1:8080\" or \"[::]:443\"",
        };
        text.parse().map_err(|_| Wrong::new(format!("`{text}` is not an address to listen on"), hint))
    }
}

impl Leaf for Address {
    const WHAT: &'static str = "an address with a port or \"unix:/path\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text.strip_prefix("unix:") {
            Some(path) => unix_path(path).map(|path| Address::Unix(PathBuf::from(path))),
            None => <SocketAddr as Leaf>::parse(text).map(Address::Tcp),
        }
    }
}

/// The longest path of a unix socket: `sun_path` less its final NUL.
const UNIX_PATH_MAX: usize = 107;

fn unix_path(path: &str) -> Result<&str, Wrong> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(Wrong::new("a unix socket needs an absolute path", "write \"unix:/run/name.sock\""));
    }
    if path.len() > UNIX_PATH_MAX {
        return Err(Wrong::new(
            "this path is too long for a unix socket",
            "107 octets are the most that the system takes",
        ));
    }
    Ok(path)
}

impl Leaf for Network {
    const WHAT: &'static str = "a network, such as \"10.0.0.0/8\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        Network::parse(text)
            .ok_or_else(|| Wrong::new(format!("`{text}` is not a network"), "write \"10.0.0.0/8\" or \"::1/128\""))
    }
}

/// The URL of an origin: no path.
#[derive(Debug, Clone)]
pub struct Origin(pub Url);

impl Leaf for Origin {
    const WHAT: &'static str =
        "the URL of a server, such as \"http://127.0.0.1:3000\", https://…, h2c://… or unix:/path";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let url = url(text)?;
        if !url.base.is_empty() {
            let remedy = "requests keep their own path; use `rewrite` in a route to change it";
            return Err(Wrong { span: path_of(text), ..Wrong::new("an origin has no path", remedy) });
        }
        Ok(Origin(url))
    }
}

/// The URL of a Coordinator's private door: it may have a base path.
#[derive(Debug, Clone)]
pub struct Door(pub Url);

impl Leaf for Door {
    const WHAT: &'static str = "the URL of a peer door, such as \"https://de.edge.example.com:8444\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let url = url(text)?;
        match url.scheme {
            UrlScheme::Http | UrlScheme::Https => Ok(Door(url)),
            _ => Err(Wrong::new("peer doors speak http or https", "write https://host:port")),
        }
    }
}

impl Door {
    /// Whether the door is on this machine, where plain http needs no permission.
    pub fn is_loopback(&self) -> bool {
        let host = self.0.host.as_str();
        host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: IpAddr| loopback(ip))
    }
}

/// Where the feed comes from: a file, relative to the folder of the file that says so, or a stream.
#[derive(Debug, Clone)]
pub struct FeedFrom(pub Feed);

impl Read for FeedFrom {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let what = "a source, such as \"file:homes.jsonl\" or \"nats://127.0.0.1:4222\"";
        let text = reader.text(node, what)?;
        let read = match text.value.strip_prefix("file:") {
            Some("") => Err(Wrong::new("the file has no name", "write it, such as \"file:homes.jsonl\"")),
            Some(path) => Ok(Feed::File(reader.folder(node).join(path))),
            None if text.value.contains("://") => nats(&text.value).map(Feed::Nats),
            None => Err(Wrong::new("this is neither a file nor a NATS server", "write file:PATH, or nats://HOST:PORT")),
        };
        match read {
            Ok(feed) => Some(FeedFrom(feed)),
            Err(wrong) => reader.wrong(node, text, what, wrong),
        }
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "type": "string", "pattern": "^(file:.+|(nats|tls)://.+|.*\\$\\{.*)$", "description": "file:PATH, or nats://HOST:PORT/STREAM" })
    }
}

/// A stream to publish to.
#[derive(Debug, Clone)]
pub struct Publish(pub NatsStream);

impl Leaf for Publish {
    const WHAT: &'static str = "a stream, such as \"nats://127.0.0.1:4222\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        nats(text).map(Publish)
    }
}

/// The stream where none is named.
const STREAM: &str = "COORDINATOR";

/// Reads `nats://[USER:PASSWORD@|TOKEN@]HOST[:PORT][/STREAM]`, or the same with `tls://`.
fn nats(text: &str) -> Result<NatsStream, Wrong> {
    let remedy = "write nats://HOST:PORT, or tls://HOST:PORT; a stream of its own name as /STREAM behind it";
    let (tls, rest) = match text.split_once("://") {
        Some(("nats", rest)) => (false, rest),
        Some(("tls", rest)) => (true, rest),
        _ => return Err(Wrong::new("this is no NATS server", remedy)),
    };
    let (place, stream) = rest.split_once('/').unwrap_or((rest, STREAM));
    let stream = if stream.is_empty() { STREAM } else { stream };
    let (login, place) = match place.rsplit_once('@') {
        Some((login, place)) => (Some(login.to_owned()), place),
        None => (None, place),
    };
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !stream.chars().all(named) || stream.len() > NAME_MAX {
        return Err(Wrong::new("this is not a name of a stream", "use letters, digits, `-` and `_`"));
    }
    // Where it stands is not told: a login may stand beside it.
    let (host, port) = authority(place, 4222).map_err(|wrong| Wrong { span: None, ..wrong })?;
    Ok(NatsStream { host, port, tls, login, stream: stream.to_owned() })
}

/// A database.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// How it is reached.
    pub database: Database,
    /// Whether over TLS.
    pub over_tls: bool,
}

impl Leaf for Postgres {
    const WHAT: &'static str = "a PostgreSQL database, such as \"postgres://coordinator@127.0.0.1/app\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        use tokio_postgres::config::{Config, Host, SslMode};
        let remedy = "write postgres://USER@HOST/DATABASE, or \"host=… user=… dbname=…\"";
        let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
        if !is_url && !text.contains('=') {
            return Err(Wrong::new("this names no PostgreSQL database", remedy));
        }
        let config: Config = text.parse().map_err(|error: tokio_postgres::Error| {
            // The cause names the option at fault, never its value.
            let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
            Wrong::new(format!("this names no PostgreSQL database{cause}"), remedy)
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(Wrong::new("this PostgreSQL database has no host", remedy));
        }
        let over_tls = config.get_ssl_mode() == SslMode::Require;
        if over_tls && config.get_hosts().iter().any(|host| matches!(host, Host::Unix(_))) {
            return Err(Wrong::new("no TLS is spoken over a unix socket", "remove `sslmode=require`, or name a host"));
        }
        Ok(Postgres { database: Database { url: text.to_owned(), ca: None }, over_tls })
    }
}

/// 127/8 or ::1, also as an IPv4-mapped address.
pub fn loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn path_of(text: &str) -> Option<std::ops::Range<usize>> {
    let host = text.find("://")? + 3;
    text[host..].find('/').map(|slash| host + slash..text.len())
}

const SCHEMES: [&str; 4] = ["http", "https", "h2c", "unix"];

/// Reads a URL as [`Url`] describes it.
fn url(text: &str) -> Result<Url, Wrong> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = unix_path(path.strip_prefix("//").unwrap_or(path))?;
        return Ok(Url { scheme: UrlScheme::Unix, host: path.to_owned(), port: 0, base: String::new() });
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(Wrong::new(
            format!("`{text}` is not a URL"),
            format!("write it in full, such as \"http://{text}\""),
        ));
    };
    let (scheme, port) = match scheme {
        "http" => (UrlScheme::Http, 80),
        "https" => (UrlScheme::Https, 443),
        "h2c" => (UrlScheme::H2c, 80),
        other => {
            let near = nearest(other, &SCHEMES).map_or(String::new(), |near| format!("did you mean `{near}`? "));
            let wrong =
                Wrong::new(format!("`{other}` is not a scheme that is spoken"), near + "use http, https, h2c or unix");
            return Err(Wrong { span: Some(0..other.len()), ..wrong });
        }
    };
    let cut = rest.find('/').unwrap_or(rest.len());
    let (host, port) = authority(&rest[..cut], port).map_err(|wrong| shift(wrong, text.len() - rest.len(), cut))?;
    let base = rest[cut..].trim_end_matches('/');
    if base.contains(['?', '#']) || base.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Wrong::new("a base URL has no query, fragment or spaces", "keep only scheme, host, port and path"));
    }
    Ok(Url { scheme, host, port, base: base.to_owned() })
}

/// Points a complaint about the authority at it.
fn shift(wrong: Wrong, by: usize, len: usize) -> Wrong {
    let span = wrong.span.map_or(0..len, |span| span);
    Wrong { span: Some(by + span.start..by + span.end), ..wrong }
}

const BRACKETS: &str = "IPv6 addresses stand in brackets, such as [::1]:3000";

fn authority(text: &str, default: u16) -> Result<(String, u16), Wrong> {
    if text.contains('@') {
        return Err(Wrong::new("a URL holds no user or password here", "remove what stands before the `@`"));
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (ip, after) = rest.split_once(']').ok_or_else(|| Wrong::new("the bracket is not closed", BRACKETS))?;
            let ip: Ipv6Addr = ip.parse().map_err(|_| Wrong::new("this is not an IPv6 address", BRACKETS))?;
            (ip.to_string(), after)
        }
        None if text.matches(':').count() > 1 => return Err(Wrong::new("this is not host and port", BRACKETS)),
        None => {
            let cut = text.find(':').unwrap_or(text.len());
            (host_name(&text[..cut])?, &text[cut..])
        }
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| bad_port(text, port))?,
        None if port.is_empty() => default,
        None => return Err(Wrong::new("this is not host and port", "write host:port")),
    };
    Ok((host, port))
}

fn bad_port(authority: &str, port: &str) -> Wrong {
    let span = Some(authority.len() - port.len()..authority.len());
    Wrong { span, ..Wrong::new("this is not a port", "ports are 1 to 65535") }
}

fn host_name(text: &str) -> Result<String, Wrong> {
    let label = |label: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        !label.is_empty() && label.len() <= 63 && label.chars().all(fits)
    };
    let trimmed = text.strip_suffix('.').unwrap_or(text);
    let numeric = trimmed.chars().all(|c| c.is_ascii_digit() || c == '.');
    if text.is_empty() {
        return Err(Wrong::new("this URL names no host", "write scheme://host:port"));
    }
    if trimmed.len() > 253 || !trimmed.split('.').all(label) || (numeric && trimmed.parse::<Ipv4Addr>().is_err()) {
        return Err(Wrong::new(format!("`{text}` is not a host name or address"), "write a DNS name or an IP address"));
    }
    Ok(text.to_ascii_lowercase())
}

/// A route's pattern.
impl Leaf for Pattern {
    const WHAT: &'static str = "a pattern, such as \"GET /v1/items/{id}.json\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        Pattern::parse(text).map_err(|error| Wrong { span: Some(error.span), wrong: error.wrong, remedy: error.remedy })
    }
}

/// A place of `to`, its names not yet looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `local`
    Local,
    /// `central`
    Central,
    /// `home:SPACE`
    Home(String),
    /// `edge:{capture}`
    EdgeNamed(String),
    /// `edge:NAME`
    Edge(String),
}

impl Leaf for Target {
    const WHAT: &'static str = "a place: \"local\", \"central\", \"home:SPACE\", \"edge:NAME\" or \"edge:{capture}\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let capture = |text: &str| Some(text.strip_prefix('{')?.strip_suffix('}')?.to_owned());
        let target = match text.split_once(':') {
            Some(("home", space)) if !space.is_empty() => Some(Target::Home(space.to_owned())),
            Some(("edge", edge)) if !edge.is_empty() => Some(match capture(edge) {
                Some(name) => Target::EdgeNamed(name),
                None => Target::Edge(edge.to_owned()),
            }),
            None if text == "local" => Some(Target::Local),
            None if text == "central" => Some(Target::Central),
            _ => None,
        };
        target.ok_or_else(|| {
            let near = nearest(text, &["local", "central"]).map(|near| format!("did you mean \"{near}\"? "));
            let remedy = near.unwrap_or_default()
                + "write \"local\", \"central\", \"home:SPACE\", \"edge:NAME\" or \"edge:{capture}\"";
            Wrong::new(format!("`{text}` is not a place"), remedy)
        })
    }
}

/// Where a request holds a key: `header:`, `cookie:`, `query:` or `host:`.
#[derive(Debug, Clone)]
pub struct Key(pub KeySource);

impl Leaf for Key {
    const WHAT: &'static str =
        "where a request holds the key: \"header:NAME\", \"cookie:NAME\", \"query:NAME\" or \"host:LABEL\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let remedy = "write \"header:NAME\", \"cookie:NAME\", \"query:NAME\" or \"host:LABEL\"";
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        let token = is_token(name.as_bytes());
        match kind {
            "header" if token => Ok(Key(KeySource::Header(name.to_ascii_lowercase()))),
            "cookie" if token => Ok(Key(KeySource::Cookie(name.to_owned()))),
            "query" if !name.is_empty() => Ok(Key(KeySource::Query(name.to_owned()))),
            "host" if !name.is_empty() => Ok(Key(KeySource::HostLabel(name.to_owned()))),
            "jwt" => Err(Wrong::new("keys from tokens are not built yet", remedy)),
            _ => Err(Wrong::new(format!("`{text}` does not say where the key is"), remedy)),
        }
    }
}

/// Where an answer holds a freshly minted key: `response.header:NAME` or `response.json:/pointer`.
#[derive(Debug, Clone)]
pub struct AnswerKey(pub super::plan::ClaimKey);

impl Leaf for AnswerKey {
    const WHAT: &'static str = "where an answer holds the key: \"response.header:NAME\" or \"response.json:/POINTER\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        use super::plan::ClaimKey;
        let remedy = "write \"response.header:NAME\" or \"response.json:/POINTER\" (RFC 6901)";
        match text.split_once(':') {
            Some(("response.header", name)) if is_token(name.as_bytes()) => {
                Ok(AnswerKey(ClaimKey::Header(name.to_ascii_lowercase())))
            }
            Some(("response.json", pointer)) if pointer.starts_with('/') => {
                Ok(AnswerKey(ClaimKey::Json(pointer.to_owned())))
            }
            _ => Err(Wrong::new(format!("`{text}` does not say where the answer holds the key"), remedy)),
        }
    }
}

/// A field line: `NAME: value`.
#[derive(Debug, Clone)]
pub struct FieldLine(pub String, pub String);

impl Leaf for FieldLine {
    const WHAT: &'static str = "a field line, such as \"X-Beta: yes\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let (name, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.trim();
        if !text.contains(':') || !is_token(name.as_bytes()) || !is_field_value(value) {
            return Err(Wrong::new(format!("`{text}` is not a field line"), "write \"NAME: value\""));
        }
        Ok(FieldLine(name.to_owned(), value.to_owned()))
    }
}

/// A media type, or a range of them.
#[derive(Debug, Clone)]
pub struct MediaType(pub MediaRange);

impl Leaf for MediaType {
    const WHAT: &'static str = "a media type, such as \"application/json\", \"text/*\" or \"application/*+json\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let remedy = "write \"type/subtype\", \"type/*\" or \"type/*+suffix\", without parameters";
        let range = MediaRange::parse(text).map(MediaType);
        range.ok_or_else(|| Wrong::new(format!("`{text}` is not a media type"), remedy))
    }
}

/// The name of a field.
#[derive(Debug, Clone)]
pub struct FieldName(pub String);

impl Leaf for FieldName {
    const WHAT: &'static str = "the name of a field, such as \"X-Beta\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if !is_token(text.as_bytes()) {
            return Err(Wrong::new(format!("`{text}` is not the name of a field"), "letters, digits and `-`"));
        }
        Ok(FieldName(text.to_owned()))
    }
}

/// The value of a field.
#[derive(Debug, Clone)]
pub struct FieldValue(pub String);

impl Leaf for FieldValue {
    const WHAT: &'static str = "the value of a field";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if !is_field_value(text) {
            return Err(Wrong::new("a field value holds no control characters", "write it on one line"));
        }
        Ok(FieldValue(text.to_owned()))
    }
}

/// RFC 9110 section 5.5, without obs-text: what every recipient takes.
fn is_field_value(text: &str) -> bool {
    text.chars().all(|c| c == '\t' || !c.is_control())
}

/// A path of a request: it begins with a slash.
#[derive(Debug, Clone)]
pub struct RequestPath(pub String);

impl Leaf for RequestPath {
    const WHAT: &'static str = "a path, such as \"/healthz\"";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if !text.starts_with('/') || !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err(Wrong::new(format!("`{text}` is not a path"), "it begins with `/` and holds no spaces"));
        }
        Ok(RequestPath(text.to_owned()))
    }
}
