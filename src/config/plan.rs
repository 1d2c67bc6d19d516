//! The plan: configuration with every name resolved and every range proven.
//!
//! Impossible combinations have no representation here. A request holds one `Arc<Plan>` from its first step to its last.

use crate::base::id::{ClusterId, EdgeId, SpaceId};
use crate::message::Fields;
use crate::message::accept::Coding;
use crate::message::media::MediaRange;
use crate::route::table::Table;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that a running edge (or Central) goes by.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Who we are.
    pub own: Own,
    /// The public doors.
    pub listeners: Vec<Listener>,
    /// The door for other edges and Central.
    pub peer: Option<PeerDoor>,
    /// The read-only door.
    pub observe: Option<Address>,
    /// The operator's door.
    pub admin: Option<Address>,
    /// Whether the operator's door makes faults on purpose.
    pub faults: bool,
    /// All clusters of this place, `local` first where there is one, and Central's `origins` where written.
    pub clusters: Vec<Cluster>,
    /// `[local]`.
    pub local: Option<ClusterId>,
    /// `[central]` of an edge.
    pub central: Option<Central>,
    /// The edges known: from the configuration, overlaid by the feed.
    pub edges: Edges,
    /// Central: who may use the homes API without a certificate.
    pub tokens: Vec<BearerToken>,
    /// The key spaces, by `SpaceId`.
    pub spaces: Vec<Space>,
    /// The route table.
    pub routes: Table,
    /// What each route says beyond its pattern, by `RouteId`.
    pub settings: Vec<RouteSettings>,
    /// Bounds.
    pub limits: Limits,
    /// Waits.
    pub timeouts: Timeouts,
    /// Retries.
    pub retry: Retry,
    /// Logs.
    pub log: Log,
    /// Which proxies before us are believed.
    pub trust: Trust,
    /// TLS of the public doors.
    pub tls: TlsSettings,
    /// Central: what it relays.
    pub relays: Relays,
}

/// Who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// The name of this edge, or `central`.
    pub name: String,
    /// The name of the whole system.
    pub deployment: String,
    /// Where state lives; required once a route says `home:` or `queued`, and at Central.
    pub data: Option<PathBuf>,
    /// Worker threads; never 0.
    pub workers: usize,
    /// Other instances of this edge.
    pub siblings: Vec<Url>,
    /// Whether clients are told what was decided.
    pub tells_decision: bool,
}

/// A bearer token, known by its digest only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BearerToken {
    /// Its name in the configuration.
    pub name: String,
    /// SHA-256 of what its bearer sends.
    pub digest: [u8; 32],
    /// Whether its bearer may write homes.
    pub may_write: bool,
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP; `[::]` is dual-stack.
    Tcp(SocketAddr),
    /// A unix socket (`unix:/path`).
    Unix(PathBuf),
}

/// A public door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub address: SocketAddr,
    /// Certificates by SNI, the first for everybody else; empty = plain HTTP.
    pub certificates: Vec<CertificateFiles>,
    /// Whether every request is redirected to https.
    pub redirect_https: bool,
}

/// A certificate chain and its key, as files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// PEM chain, leaf first.
    pub chain: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
}

/// The files of mutual TLS within the deployment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MutualTls {
    /// Our certificate.
    pub own: CertificateFiles,
    /// The deployment's CA.
    pub ca: PathBuf,
}

/// The peer door (at Central: Central's door).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerDoor {
    /// Where.
    pub address: SocketAddr,
    /// `None` = plain, on loopback only (or `insecure = true`).
    pub tls: Option<MutualTls>,
}

/// An upstream URL: `http://`, `https://`, `h2c://` or `unix:`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Url {
    /// How to connect and which protocol to speak.
    pub scheme: UrlScheme,
    /// Host name or IP address without brackets; for unix sockets the path.
    pub host: String,
    /// The port; 0 for unix sockets.
    pub port: u16,
    /// A base path that API paths append to; no trailing slash, so empty for `/`. Only for `central.url`, `feed`, `peer`.
    pub base: String,
}

/// What an upstream URL's scheme says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UrlScheme {
    /// HTTP/1.1 over TCP.
    Http,
    /// TLS; ALPN chooses HTTP/2 or HTTP/1.1.
    Https,
    /// HTTP/2 with prior knowledge.
    H2c,
    /// HTTP/1.1 over a unix socket.
    Unix,
}

impl std::fmt::Display for Url {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match self.scheme {
            UrlScheme::Unix => write!(out, "unix:{}", self.host),
            UrlScheme::Http => write!(out, "http://{host}:{}{}", self.port, self.base),
            UrlScheme::Https => write!(out, "https://{host}:{}{}", self.port, self.base),
            UrlScheme::H2c => write!(out, "h2c://{host}:{}{}", self.port, self.base),
        }
    }
}

impl Url {
    /// `host:port` as an authority, the port left out where it is the scheme's own.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.scheme, self.port) {
            (UrlScheme::Unix, _) => "localhost".to_owned(),
            (UrlScheme::Http | UrlScheme::H2c, 80) | (UrlScheme::Https, 443) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

/// A named set of endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// `local`, a name of `[clusters]`, or `central` for Central's own `origins`.
    pub name: String,
    /// Its origins; never empty.
    pub origins: Vec<Url>,
    /// How one is picked.
    pub balance: Balance,
    /// Active checks.
    pub health: Option<HealthCheck>,
    /// A private CA for `https` origins, else the system's roots.
    pub ca: Option<PathBuf>,
    /// Connections to one endpoint, per worker.
    pub connections_max: usize,
}

/// Balancing policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// The less loaded of two random ones.
    P2c,
    /// In turn.
    RoundRobin,
}

/// Active health checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked for with GET; 2xx and 3xx are healthy.
    pub path: String,
    /// How often.
    pub every: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Successes in a row until up.
    pub rise: u32,
    /// Failures in a row until down.
    pub fall: u32,
}

/// How an edge reaches Central.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Central {
    /// Central's doors: application, feed and claims; may be empty when both are overridden.
    pub urls: Vec<Url>,
    /// Where the feed is followed.
    pub feed: Feed,
    /// The application elsewhere, as a cluster.
    pub origins: Option<ClusterId>,
    /// The mutual TLS that `https` doors are called with: that of `[peer]`.
    pub tls: Option<MutualTls>,
}

/// Where the feed is followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Feed {
    /// At Central's own doors.
    #[default]
    Central,
    /// In a file of JSON lines.
    File(PathBuf),
    /// In a JetStream stream, which Central publishes to.
    Nats(NatsStream),
}

impl std::fmt::Display for Feed {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Feed::Central => out.write_str("central"),
            Feed::File(path) => write!(out, "file:{}", path.display()),
            Feed::Nats(stream) => stream.fmt(out),
        }
    }
}

/// A stream of NATS JetStream.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsStream {
    /// The server's host, or an IP address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether TLS is required.
    pub tls: bool,
    /// `USER:PASSWORD`, or a token.
    pub login: Option<String>,
    /// The name of the stream.
    pub stream: String,
}

impl std::fmt::Display for NatsStream {
    /// Without the login.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "tls" } else { "nats" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        write!(out, "{scheme}://{host}:{}/{}", self.port, self.stream)
    }
}

impl std::fmt::Debug for NatsStream {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, out)
    }
}

/// What Central does for others beside its door.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relays {
    /// The database whose outbox is taken over.
    pub outbox: Option<Database>,
    /// The stream that the feed is published to.
    pub publish: Option<NatsStream>,
}

/// How a PostgreSQL database is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct Database {
    /// A connection string, whose password is never shown.
    pub url: String,
    /// The PEM roots that its certificate must come from; `None` = the system's.
    pub ca: Option<PathBuf>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Database(…)")
    }
}

/// The edge table as of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edges {
    /// Our own id, once the feed (or the configuration) says it.
    pub own: Option<EdgeId>,
    by_id: HashMap<EdgeId, Edge>,
    by_name: HashMap<String, EdgeId>,
}

/// One edge of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Its id.
    pub id: EdgeId,
    /// Its name.
    pub name: String,
    /// Its peer door; `None` for an edge whose address nobody gave (only ourselves).
    pub peer: Option<Url>,
}

impl Edges {
    /// Adds or replaces an edge. An edge of the same name moves to the new id.
    pub fn insert(&mut self, edge: Edge) {
        if let Some(old) = self.by_name.insert(edge.name.clone(), edge.id) {
            self.by_id.remove(&old);
        }
        self.by_id.insert(edge.id, edge);
    }

    /// The edge with this id.
    pub fn get(&self, id: EdgeId) -> Option<&Edge> {
        self.by_id.get(&id)
    }

    /// The edge with this name.
    pub fn named(&self, name: &str) -> Option<&Edge> {
        self.by_name.get(name).and_then(|id| self.by_id.get(id))
    }

    /// The name of an edge, or `?` for one that no table lists.
    pub fn name(&self, id: EdgeId) -> &str {
        self.get(id).map_or("?", |edge| &edge.name)
    }

    /// All edges, by name.
    pub fn list(&self) -> Vec<&Edge> {
        let mut all: Vec<_> = self.by_id.values().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

/// A key space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// Its name, such as `user`.
    pub name: String,
    /// Who may claim an unknown key.
    pub claim: Regime,
    /// What becomes of a request for a key that nobody owns.
    pub unknown: UnknownKey,
    /// How many keys one source may claim here in a minute; 0 is no bound.
    pub claims_per_minute: u32,
}

/// The claim regimes (HOMES 2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Regime {
    /// Only the edge whose origin minted the key.
    Registration,
    /// The first edge that sees it, by Central's word.
    FirstTouch,
}

impl Regime {
    /// As it is written in the configuration, and said to Central.
    pub const fn word(self) -> &'static str {
        match self {
            Regime::Registration => "registration",
            Regime::FirstTouch => "first-touch",
        }
    }
}

/// What `unknown` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownKey {
    /// 404 when Central says unknown, 503 when it cannot be asked.
    Reject,
    /// Central owns it.
    Central,
}

/// What a route says beyond its pattern.
#[derive(Debug, Clone)]
pub struct RouteSettings {
    /// The pattern as written: the route's name in logs and metrics.
    pub name: String,
    /// Where it is written: `file:line`.
    pub at: String,
    /// Statuses on which a list goes on to its next place.
    pub next_on: Vec<u16>,
    /// The answer of a `reply` route.
    pub reply: Option<Reply>,
    /// A claim made on 2xx responses.
    pub claim: Option<ClaimRule>,
    /// First-touch spaces: what else than an unsafe method may claim.
    pub claim_if: Option<crate::route::KeySource>,
    /// Which pool of the place is used instead of `[local]`.
    pub cluster: Option<ClusterId>,
    /// What Host the origin sees.
    pub host: HostRule,
    /// Overrides.
    pub timeouts: Timeouts,
    /// Overrides.
    pub retry: Retry,
    /// The longest request content; `None` = unlimited.
    pub body_max: Option<u64>,
    /// Fields set on or removed from requests to origins.
    pub request_headers: HeaderEdit,
    /// Fields set on or removed from responses to clients.
    pub response_headers: HeaderEdit,
    /// `rewrite`: the path that the origin sees, as a template over the captures.
    pub rewrite: Option<String>,
    /// Compression of answers to clients; `None` = they pass as they are.
    pub compress: Option<Compress>,
}

/// Field edits in order: removals, then sets.
#[derive(Debug, Clone, Default)]
pub struct HeaderEdit {
    /// Names to remove, lower-case.
    pub remove: Vec<String>,
    /// Lines to set.
    pub set: Fields,
}

impl HeaderEdit {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty()
    }
}

/// `host = "keep" | "origin"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostRule {
    /// The client's.
    Keep,
    /// The endpoint's.
    Origin,
}

/// The answer of a `reply` route. `{path}`, `{host}`, `{query}` and captures are filled into `location`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The Location, as a template.
    pub location: Option<String>,
    /// The content.
    pub body: String,
    /// Its type.
    pub content_type: String,
}

/// `claim = { space, key, pattern, wait, on_timeout }` (DESIGN 10, Claims).
#[derive(Debug, Clone)]
pub struct ClaimRule {
    /// The key space.
    pub space: SpaceId,
    /// Where the answer holds the key.
    pub key: ClaimKey,
    /// How the key is taken out of a field value; the capture of the space's name is the key.
    pub pattern: Option<crate::route::pattern::Pattern>,
    /// How long the response waits for the grant.
    pub wait: Duration,
    /// What happens then.
    pub on_timeout: OnTimeout,
}

/// Where a response holds a freshly minted key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimKey {
    /// A response field.
    Header(String),
    /// A JSON pointer into the response content (RFC 6901); content up to 64 KiB.
    Json(String),
}

/// What happens to a registration whose grant does not come in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTimeout {
    /// The response goes out.
    Release,
    /// The client gets a 503.
    Fail,
}

/// Bounds on what clients and origins may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Octets of a head, start line included.
    pub head: usize,
    /// Lines of a field section.
    pub fields: usize,
    /// Octets of a request target.
    pub uri: usize,
    /// Octets of request content; `None` = unlimited.
    pub body: Option<u64>,
    /// Downstream connections; `None` = what the descriptor limit allows.
    pub connections: Option<usize>,
    /// Concurrent streams of one HTTP/2 connection.
    pub streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { head: 64 << 10, fields: 100, uri: 16 << 10, body: None, connections: None, streams: 100 }
    }
}

/// All waits of a request, each with its own answer when it runs out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first octet of a request head to its last (408), and the TLS handshake.
    pub head: Duration,
    /// Between two reads of request content (408).
    pub body: Duration,
    /// An idle keep-alive connection of a client.
    pub idle: Duration,
    /// Between two writes that a client must take (connection closed).
    pub send: Duration,
    /// Connecting to an endpoint, TLS included (504).
    pub connect: Duration,
    /// From the request sent to the first octet of the response (504).
    pub first_byte: Duration,
    /// Between two reads of response content (504, or the response is cut).
    pub between: Duration,
    /// The whole exchange (504, or the response is cut); `None` = unlimited.
    pub total: Option<Duration>,
    /// An idle tunnel (WebSocket), in both directions.
    pub tunnel: Duration,
    /// An idle upstream connection in the pool; below the 5 s after which many servers close.
    pub pool_idle: Duration,
    /// How long readiness is false before doors close on a drain.
    pub drain_wait: Duration,
    /// How long requests may take to finish on a drain.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            send: Duration::from_secs(30),
            connect: Duration::from_secs(2),
            first_byte: Duration::from_secs(30),
            between: Duration::from_secs(60),
            total: None,
            tunnel: Duration::from_secs(3600),
            pool_idle: Duration::from_secs(4),
            drain_wait: Duration::ZERO,
            drain: Duration::from_secs(10),
        }
    }
}

/// When another attempt is made (DESIGN 5, Attempts).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Attempts at most, the first included.
    pub attempts: u32,
    /// Statuses of origins that are worth another attempt of an idempotent request.
    pub statuses: Vec<u16>,
    /// Whether requests that are not idempotent may be sent again after a pooled connection died.
    pub unsafe_methods: bool,
    /// Retries in flight at most, as a share of active requests in percent, and never fewer than 3.
    pub budget_percent: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Retry { attempts: 2, statuses: Vec::new(), unsafe_methods: false, budget_percent: 20 }
    }
}

/// Which answers are compressed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compress {
    /// The codings that are offered, in order of preference; never empty, each once.
    pub codings: Vec<Coding>,
    /// The level of gzip.
    pub gzip_level: u32,
    /// The level of br.
    pub br_level: u32,
    /// The level of zstd.
    pub zstd_level: u32,
    /// The smallest content that is compressed, where its length is known.
    pub min_size: u64,
    /// The media types that are compressed; never empty.
    pub types: Vec<MediaRange>,
}

impl Compress {
    /// The media types of the default: what is text in some form, and the binary forms that browsers get uncompressed.
    pub const TYPES: [&str; 14] = [
        "text/*",
        "application/json",
        "application/*+json",
        "application/xml",
        "application/*+xml",
        "application/javascript",
        "application/x-javascript",
        "application/x-ndjson",
        "application/wasm",
        "application/vnd.ms-fontobject",
        "font/ttf",
        "font/otf",
        "image/svg+xml",
        "image/x-icon",
    ];

    /// The level of a coding.
    pub fn level(&self, coding: Coding) -> u32 {
        match coding {
            Coding::Zstd => self.zstd_level,
            Coding::Br => self.br_level,
            Coding::Gzip => self.gzip_level,
        }
    }
}

impl Default for Compress {
    fn default() -> Self {
        Compress {
            codings: Coding::ALL.to_vec(),
            gzip_level: 4,
            br_level: 4,
            zstd_level: 1,
            min_size: 1 << 10,
            types: Compress::TYPES.iter().filter_map(|text| MediaRange::parse(text)).collect(),
        }
    }
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Whether each request leaves a line.
    pub access: bool,
    /// Where lines go; `None` = standard output.
    pub file: Option<PathBuf>,
    /// `json` or `text`, for events; access lines are always JSON.
    pub json: bool,
    /// A filter of events as tracing-subscriber reads it.
    pub level: String,
}

/// Which hops before us are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Networks whose Forwarded and X-Forwarded-* are believed.
    pub forwarded: Vec<Network>,
    /// Whether `Forwarded` (RFC 7239) is sent as well.
    pub send_forwarded: bool,
}

/// A CIDR block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// The network address.
    pub address: std::net::IpAddr,
    /// Its prefix length.
    pub prefix: u8,
}

impl Network {
    /// Reads `10.0.0.0/8`, `::1/128` or a single address.
    pub fn parse(text: &str) -> Option<Network> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address.parse().ok()?, Some(prefix.parse().ok()?)),
            None => (text.parse().ok()?, None),
        };
        let max = if matches!(address, std::net::IpAddr::V4(_)) { 32 } else { 128 };
        let prefix = prefix.unwrap_or(max);
        (prefix <= max).then_some(Network { address, prefix })
    }

    /// Whether the block holds an address; IPv4-mapped IPv6 addresses count as IPv4.
    pub fn holds(&self, address: std::net::IpAddr) -> bool {
        use std::net::IpAddr::{V4, V6};
        match (self.address, address.to_canonical()) {
            (V4(net), V4(ip)) => {
                (u32::from(net) ^ u32::from(ip)).checked_shr(32 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (V6(net), V6(ip)) => {
                (u128::from(net) ^ u128::from(ip)).checked_shr(128 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// TLS of the public doors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// The lowest version: false = TLS 1.2.
    pub only_13: bool,
}
