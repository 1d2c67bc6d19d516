//! Every key that exists, as the files write it. Knows no meaning; `check` does.
//!
//! `config/edge.toml` shows each of these keys with its default and reason; a test holds both together. Keys of DESIGN 3
//! that are not built yet parse all the same, so that a file written for a later version says what it lacks.

use super::leaf::{
    AnswerKey, Door, FeedFrom, FieldLine, FieldName, FieldValue, FilePath, Key, MediaType, Name, Origin, Percent,
    Postgres, Publish, RequestPath, Size, Target, Time, Words,
};
use super::plan::{Address, Network};
use super::read::{At, Count, Either, Named, OneOrMany, table, words};
use crate::route::pattern::Pattern;
use std::net::SocketAddr;

table! {
    /// The configuration of an edge.
    EdgeFile("the file") {
        /// Further files, relative to this one; tables merge, arrays of tables append.
        "include" include: Vec<At<FilePath>>;
        /// Who this edge is.
        "edge" edge: Edge = required;
        /// The public doors.
        "listen" listen: Vec<At<Listen>> = required;
        /// The private door for other edges and Central.
        "peer" peer: Peer;
        /// The read-only door: health and metrics.
        "observe" observe: Observe;
        /// The operator's door.
        "admin" admin: Admin;
        /// This place's default cluster.
        "local" local: Cluster;
        /// Further clusters of this place, by name.
        "clusters" clusters: Named<Name, Cluster>;
        /// How Central is reached.
        "central" central: Central;
        /// Other edges, by name.
        "edges" edges: Named<Name, OtherEdge>;
        /// The key spaces, by name.
        "homes" homes: Named<Name, Homes>;
        /// The routes; their order means nothing.
        "route" route: Vec<At<Route>>;
        /// Bounds.
        "limits" limits: Limits;
        /// Waits.
        "timeouts" timeouts: Timeouts;
        /// Further attempts.
        "retry" retry: Retry;
        /// Compression of answers to clients; absent = none, unless a route says so.
        "compress" compress: Compress;
        /// The store of the cache.
        "cache" cache: CacheStore;
        /// Logs.
        "log" log: Log;
        /// Which hops before us are believed.
        "trust" trust: Trust;
        /// TLS of the public doors.
        "tls" tls: Tls;
        /// Traces.
        "trace" trace: Trace;
    }

    /// The configuration of Central.
    CentralFile("the file") {
        /// Further files, relative to this one; tables merge, arrays of tables append.
        "include" include: Vec<At<FilePath>>;
        /// Central itself.
        "central" central: CentralOwn = required;
        /// The door for edges and operators; the application too, if `[local]` is there.
        "peer" peer: Peer = required;
        /// The read-only door: health and metrics.
        "observe" observe: Observe;
        /// The operator's door.
        "admin" admin: Admin;
        /// Central's application, reached by the edges through the peer door.
        "local" local: Cluster;
        /// Further clusters of this place, by name.
        "clusters" clusters: Named<Name, Cluster>;
        /// The edges, by name.
        "edges" edges: Named<Name, OtherEdge>;
        /// Bearer tokens for the homes API, by name.
        "tokens" tokens: Named<Name, Token>;
        /// Bounds.
        "limits" limits: Limits;
        /// Waits.
        "timeouts" timeouts: Timeouts;
        /// Further attempts.
        "retry" retry: Retry;
        /// Logs.
        "log" log: Log;
    }

    /// Who this edge is.
    Edge("[edge]") {
        /// Its name, the same in certificates and in the edge table.
        "name" name: Name = required;
        /// The name of the whole system: the CDN-Loop token and the trust domain of certificates.
        "deployment" deployment: Name = "coordinator";
        /// The folder of ledger, home map, journal; created 0700.
        "data" data: FilePath;
        /// The peer doors of this edge's other instances.
        "siblings" siblings: Vec<At<Door>>;
        /// Worker threads; 0 = one per core.
        "workers" workers: Count<0, 1024> = 0;
        /// Tells clients in a `Coordinator` field of every answer what was decided, and why.
        "tell_decision" tell_decision: bool = false;
    }

    /// Central itself.
    CentralOwn("[central]") {
        /// The folder of the log and the homes; created 0700.
        "data" data: FilePath = required;
        /// The name of the whole system: the trust domain of certificates.
        "deployment" deployment: Name = "coordinator";
        /// Worker threads; 0 = one per core.
        "workers" workers: Count<0, 1024> = 0;
        /// The database whose table `coordinator_outbox` is taken over, in the order of its commits.
        "outbox" outbox: Postgres;
        /// The CA of that database's certificate, where its URL says `sslmode=require`; absent = the system's roots.
        "outbox_ca" outbox_ca: FilePath;
        /// The stream that the feed is published to.
        "publish" publish: Publish;
    }

    /// A bearer token: for callers of Central's homes API that have no certificate of the deployment.
    Token("[tokens.NAME]") {
        /// The file with the token, or with `sha256:` and its digest in hexadecimal.
        "file" file: FilePath = required;
        /// Whether its bearer may write homes; reading is always permitted.
        "write" write: bool = false;
    }

    /// A public door.
    Listen("[[listen]]") {
        /// Where; `[::]` takes IPv4 too.
        "address" address: SocketAddr = required;
        /// Certificates, chosen by SNI, the first for everybody else; none = plain HTTP.
        "certificate" certificate: Vec<At<Certificate>>;
        /// Answers every request by a redirect.
        "redirect" redirect: Redirect;
    }

    /// A certificate and its key.
    Certificate("[[listen.certificate]]") {
        /// The PEM chain, leaf first.
        "chain" chain: FilePath = required;
        /// The PEM private key.
        "key" key: FilePath = required;
    }

    /// The private door.
    Peer("[peer]") {
        /// Where.
        "address" address: SocketAddr = required;
        /// Our certificate within the deployment, PEM, leaf first.
        "chain" chain: FilePath;
        /// Its private key, PEM.
        "key" key: FilePath;
        /// The deployment's CA, PEM.
        "ca" ca: FilePath;
        /// Permits a door without TLS on an address other than loopback.
        "insecure" insecure: bool = false;
    }

    /// The read-only door.
    Observe("[observe]") {
        /// Where.
        "address" address: Address = required;
    }

    /// The operator's door.
    Admin("[admin]") {
        /// Where: loopback or a unix socket.
        "address" address: Address = required;
        /// Permits faults on purpose.
        "faults" faults: bool = false;
    }

    /// A named set of endpoints.
    Cluster("a cluster") {
        /// Its origins.
        "origins" origins: Vec<At<Origin>> = required;
        /// How one is picked.
        "balance" balance: Balance = "p2c";
        /// Active checks; absent = none.
        "health" health: Health;
        /// A private CA for `https` origins, PEM; absent = the system's roots.
        "ca" ca: FilePath;
        /// Connections to one endpoint at most, per worker.
        "connections" connections: Count<1, 1_000_000> = 256;
    }

    /// Active health checks.
    Health("`health`") {
        /// What is asked for with GET; 2xx and 3xx are healthy.
        "path" path: RequestPath = required;
        /// How often.
        "every" every: Time = "2s";
        /// How long one may take.
        "timeout" timeout: Time = "1s";
        /// Successes in a row until up.
        "rise" rise: Count<1, 100> = 2;
        /// Failures in a row until down.
        "fall" fall: Count<1, 100> = 3;
    }

    /// How Central is reached.
    Central("[central]") {
        /// Central's doors: application, feed and claims in one.
        "url" url: OneOrMany<Door>;
        /// The application elsewhere, where no Coordinator stands before it.
        "origins" origins: Vec<At<Origin>>;
        /// The feed from elsewhere: a file of homes, or the stream that Central publishes to.
        "feed" feed: FeedFrom;
        /// Permits plain http to an address other than loopback.
        "insecure" insecure: bool = false;
    }

    /// Another edge.
    OtherEdge("an edge of [edges]") {
        /// Its peer door.
        "peer" peer: Door = required;
        /// Permits plain http to an address other than loopback.
        "insecure" insecure: bool = false;
    }

    /// A key space.
    Homes("a key space of [homes]") {
        /// Who may claim a key that nobody owns.
        "claim" claim: Regime = "registration";
        /// What becomes of a request for such a key.
        "unknown" unknown: UnknownKey = "reject";
        /// How many keys one source may claim in a minute; 0 is no bound.
        "claims_per_minute" claims_per_minute: Count<0, 1_000_000> = 0;
    }

    /// A rule of the table.
    Route("[[route]]") {
        /// The pattern: `[METHOD ][HOST]/PATH`.
        "match" pattern: Pattern = required;
        /// What else must hold.
        "when" when: When;
        /// The place, or places in order.
        "to" to: OneOrMany<Target>;
        /// Statuses on which a list goes on to its next place.
        "next_on" next_on: Vec<At<Count<200, 599>>>;
        /// Answers by itself instead of `to`.
        "reply" reply: Reply;
        /// Where the key of a `home:` route is, unless it is the capture of the space's name.
        "key" key: Key;
        /// Claims the key that a 2xx answer mints.
        "claim" claim: Claim;
        /// What else than an unsafe method may claim in a first-touch space.
        "claim_if" claim_if: Key;
        /// Caching of answers; absent = none.
        "cache" cache: Cache;
        /// What becomes of requests whose place is out of reach.
        "on_partition" on_partition: OneOrMany<OnPartition>;
        /// `queued`: 202 at once, delivered in order later.
        "deliver" deliver: Deliver;
        /// Overrides `[timeouts]`; a duration alone is `total`.
        "timeout" timeout: Either<Time, RouteTimeouts>;
        /// Overrides `[retry]`.
        "retry" retry: RouteRetry;
        /// Compression of this route: overrides `[compress]`; `false` switches it off, `true` on.
        "compress" compress: Either<bool, Compress>;
        /// Overrides `[limits]`.
        "limits" limits: RouteLimits;
        /// What is shed first under overload.
        "priority" priority: Priority = "normal";
        /// Field edits.
        "headers" headers: Headers;
        /// The path that the origin sees, as a template over the captures.
        "rewrite" rewrite: RequestPath;
        /// Which pool of the place that was decided; absent = its `[local]`.
        "cluster" cluster: Name;
        /// What Host the origin sees.
        "host" host: Host = "keep";
    }

    /// A narrowing condition.
    When("`when`") {
        /// A field line that the request must hold.
        "header" header: FieldLine = required;
    }

    /// An answer of our own.
    Reply("`reply`") {
        /// The status.
        "status" status: Count<200, 599> = required;
        /// The Location; `{path}`, `{query}`, `{host}` and captures are filled in.
        "location" location: FieldValue;
        /// The content.
        "body" body: Words = "";
        /// Its type.
        "content_type" content_type: FieldValue = "text/plain; charset=utf-8";
    }

    /// A claim on 2xx answers.
    Claim("`claim`") {
        /// The key space.
        "space" space: Name = required;
        /// Where the answer holds the key.
        "key" key: AnswerKey = required;
        /// How the key is taken out of that value; absent = it is the value.
        "pattern" pattern: Pattern;
        /// How long the answer waits for Central's grant.
        "wait" wait: Time = "1s";
        /// What happens then.
        "on_timeout" on_timeout: OnTimeout = "release";
    }

    /// Caching of answers (RFC 9111).
    Cache("`cache`") {
        /// Freshness where the answer says none.
        "fresh" fresh: Time;
        /// How long a stale answer serves while it is refreshed behind.
        "stale_while_revalidate" stale_while_revalidate: Time;
        /// How long a stale answer serves while its place is out of reach.
        "stale_if_error" stale_if_error: Time;
        /// Heuristic freshness: the share of an answer's age.
        "heuristic" heuristic: Percent;
    }

    /// Overrides of `[timeouts]`.
    RouteTimeouts("`timeout`") {
        /// Between two reads of request content.
        "body" body: Time;
        /// Connecting to an endpoint.
        "connect" connect: Time;
        /// From the request sent to the first octet of the answer.
        "first_byte" first_byte: Time;
        /// Between two reads of answer content.
        "between" between: Time;
        /// The whole exchange.
        "total" total: Time;
        /// An idle tunnel.
        "tunnel" tunnel: Time;
    }

    /// Overrides of `[retry]`.
    RouteRetry("`retry`") {
        /// Attempts at most, the first included.
        "attempts" attempts: Count<1, 10>;
        /// Statuses that are worth another attempt of an idempotent request.
        "statuses" statuses: Vec<At<Count<400, 599>>>;
        /// Whether requests that are not idempotent may be sent again.
        "unsafe_methods" unsafe_methods: bool;
    }

    /// Overrides of `[limits]`.
    RouteLimits("`limits`") {
        /// The longest request content.
        "body" body: Size;
    }

    /// Field edits.
    Headers("`headers`") {
        /// On requests to origins.
        "request" request: Edit;
        /// On responses to clients.
        "response" response: Edit;
    }

    /// Edits of one field section: removals, then sets.
    Edit("a field edit") {
        /// Names to remove.
        "remove" remove: Vec<At<FieldName>>;
        /// Names and values to set.
        "set" set: Named<FieldName, FieldValue>;
    }

    /// Bounds on what clients and origins may send.
    Limits("[limits]") {
        /// Octets of a head, start line included (431).
        "head" head: Size = "64KiB";
        /// Lines of a field section (431).
        "fields" fields: Count<8, 10_000> = 100;
        /// Octets of a request target (414).
        "uri" uri: Size = "16KiB";
        /// Octets of request content (413); absent = unlimited.
        "body" body: Size;
        /// Downstream connections; absent = what the descriptor limit allows.
        "connections" connections: Count<1, 10_000_000>;
        /// Concurrent streams of one HTTP/2 connection.
        "streams" streams: Count<1, 10_000> = 100;
    }

    /// All waits.
    Timeouts("[timeouts]") {
        /// From the first octet of a request head to its last (408), and the TLS handshake.
        "head" head: Time = "10s";
        /// Between two reads of request content (408).
        "body" body: Time = "30s";
        /// An idle keep-alive connection of a client.
        "idle" idle: Time = "1m";
        /// Between two writes that a client must take.
        "send" send: Time = "30s";
        /// Connecting to an endpoint, TLS included (504).
        "connect" connect: Time = "2s";
        /// From the request sent to the first octet of the answer (504).
        "first_byte" first_byte: Time = "30s";
        /// Between two reads of answer content.
        "between" between: Time = "1m";
        /// The whole exchange (504); absent = unlimited.
        "total" total: Time;
        /// An idle tunnel (WebSocket), in both directions.
        "tunnel" tunnel: Time = "1h";
        /// An idle upstream connection.
        "pool_idle" pool_idle: Time = "4s";
        /// How long readiness is false before doors close on a drain.
        "drain_wait" drain_wait: Time = "0s";
        /// How long requests may take to finish on a drain.
        "drain" drain: Time = "10s";
    }

    /// Further attempts.
    Retry("[retry]") {
        /// Attempts at most, the first included.
        "attempts" attempts: Count<1, 10> = 2;
        /// Statuses that are worth another attempt of an idempotent request.
        "statuses" statuses: Vec<At<Count<400, 599>>>;
        /// Whether requests that are not idempotent may be sent again after a pooled connection died.
        "unsafe_methods" unsafe_methods: bool = false;
        /// Retries in flight at most, as a share of active requests, and never fewer than 3.
        "budget" budget: Percent = "20%";
    }

    /// Compression of answers.
    Compress("[compress]") {
        /// The codings in order of preference.
        "codings" codings: Vec<At<Coding>>;
        /// The level of gzip.
        "gzip_level" gzip_level: Count<1, 9> = 4;
        /// The level of br.
        "br_level" br_level: Count<0, 11> = 4;
        /// The level of zstd; those above 19 need more memory than an answer is worth.
        "zstd_level" zstd_level: Count<1, 19> = 1;
        /// The smallest answer that is compressed, where its length is known.
        "min_size" min_size: Size = "1KiB";
        /// The media types that are compressed.
        "types" types: Vec<At<MediaType>>;
    }

    /// The store of the cache.
    CacheStore("[cache]") {
        /// Memory, over all workers.
        "memory" memory: Size;
        /// Disk, under `data`.
        "disk" disk: Size;
    }

    /// Logs.
    Log("[log]") {
        /// Whether each request leaves a line.
        "access" access: bool = true;
        /// Where lines go; absent = standard output.
        "file" file: FilePath;
        /// The form of events; access lines are always JSON.
        "format" format: LogFormat = "json";
        /// Which events: a level, or a filter by module.
        "level" level: Words = "info";
    }

    /// Which hops before us are believed.
    Trust("[trust]") {
        /// Networks whose Forwarded and X-Forwarded-* are believed.
        "forwarded" forwarded: Vec<At<Network>>;
        /// Whether Forwarded (RFC 7239) is sent to origins as well.
        "send_forwarded" send_forwarded: bool = false;
        /// Networks that must begin with a PROXY protocol header.
        "proxy_protocol" proxy_protocol: Vec<At<Network>>;
    }

    /// TLS of the public doors.
    Tls("[tls]") {
        /// The lowest version.
        "min_version" min_version: TlsVersion = "1.2";
        /// Session ticket keys shared by an edge's instances.
        "ticket_keys" ticket_keys: FilePath;
    }

    /// Traces.
    Trace("[trace]") {
        /// The OTLP collector.
        "otlp" otlp: Origin;
        /// The share of requests that are traced.
        "sample" sample: Percent;
    }
}

words! {
    /// What a redirecting door redirects to.
    Redirect {
        /// The same URL with https.
        "https" Https,
    }

    /// Balancing policies.
    Balance {
        /// The less loaded of two random ones.
        "p2c" P2c,
        /// In turn.
        "round_robin" RoundRobin,
        /// The least requests in flight.
        "least_request" LeastRequest,
        /// The same key to the same endpoint.
        "hash" Hash,
        /// The lowest expected latency.
        "ewma" Ewma,
    }

    /// The claim regimes.
    Regime {
        /// Only the edge whose origin minted the key.
        "registration" Registration,
        /// The first edge that sees it, by Central's word.
        "first-touch" FirstTouch,
    }

    /// What becomes of keys that nobody owns.
    UnknownKey {
        /// 404.
        "reject" Reject,
        /// Central owns them.
        "central" Central,
    }

    /// What becomes of requests whose place is out of reach.
    OnPartition {
        /// Safe methods: a cached answer.
        "stale" Stale,
        /// Unsafe methods: the journal and 202.
        "queue" Queue,
    }

    /// How requests are delivered.
    Deliver {
        /// 202 at once, delivered in order later.
        "queued" Queued,
    }

    /// What happens to a registration whose grant does not come in time.
    OnTimeout {
        /// The answer goes out.
        "release" Release,
        /// The client gets a 503.
        "fail" Fail,
    }

    /// What Host the origin sees.
    Host {
        /// The client's.
        "keep" Keep,
        /// The endpoint's.
        "origin" Origin,
    }

    /// What is shed first under overload.
    Priority {
        /// First.
        "low" Low,
        /// Then.
        "normal" Normal,
        /// Last.
        "high" High,
    }

    /// Content codings.
    Coding {
        /// RFC 8878.
        "zstd" Zstd,
        /// RFC 7932.
        "br" Br,
        /// RFC 1952.
        "gzip" Gzip,
    }

    /// The form of events in the log.
    LogFormat {
        /// One JSON object per line.
        "json" Json,
        /// For people.
        "text" Text,
    }

    /// TLS versions.
    TlsVersion {
        /// RFC 5246.
        "1.2" V12,
        /// RFC 8446.
        "1.3" V13,
    }
}
