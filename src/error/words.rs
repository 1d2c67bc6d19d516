//! What each kind of failure means, and how an operator mends it: for answers, and for docs/reference/errors.md.
//!
//! The sentences are constant, so nothing of the inside of a deployment can leak through them.

use super::Kind;

impl Kind {
    /// What happened, in general; the error's own detail says what happened this time.
    pub fn cause(self) -> &'static str {
        self.words().0
    }

    /// How it is mended: by the client for its own mistakes, else by whoever runs the deployment.
    pub fn remedy(self) -> &'static str {
        self.words().1
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Kind::DnsTimeout | Kind::DnsError => naming(self),
            Kind::DestinationNotFound
            | Kind::DestinationUnavailable
            | Kind::ConnectionRefused
            | Kind::ConnectionTerminated
            | Kind::ConnectionTimeout
            | Kind::ConnectionReadTimeout
            | Kind::ConnectionWriteTimeout
            | Kind::ConnectionLimitReached
            | Kind::TlsProtocolError
            | Kind::TlsCertificateError => reaching(self),
            Kind::HttpResponseIncomplete
            | Kind::HttpResponseHeaderSectionSize
            | Kind::HttpResponseTransferCoding
            | Kind::HttpResponseTimeout
            | Kind::HttpUpgradeFailed
            | Kind::HttpProtocolError => answering(self),
            Kind::ProxyInternalError | Kind::ProxyConfigurationError | Kind::ProxyLoopDetected | Kind::Overloaded => {
                ours(self)
            }
            Kind::NoRoute | Kind::NoMethod | Kind::NoKey | Kind::UnknownKey | Kind::Misdirected => routing(self),
            _ => asking(self),
        }
    }
}

/// Names of endpoints.
fn naming(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::DnsTimeout => (
            "The name of the endpoint was not resolved within `timeouts.connect`.",
            "Look at the resolvers in /etc/resolv.conf from the machine of the proxy, or write an IP address.",
        ),
        _ => (
            "The name of the endpoint does not resolve to an address.",
            "Correct the name in `origins`, `url` or `peer`, or add it to DNS.",
        ),
    }
}

/// Reaching an endpoint.
fn reaching(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::DestinationNotFound => (
            "The destination does not exist.",
            "Compare the request with the routes: `coordinator explain` says which one it takes.",
        ),
        Kind::DestinationUnavailable => (
            "The place that must answer is out of reach, or not known yet.",
            "Try again after Retry-After. `coordinator explain` names the place; /status on the admin door says what is down.",
        ),
        Kind::ConnectionRefused => (
            "Nothing listens at the endpoint's address.",
            "Start the server there, or correct its address in `origins`, `url` or `peer`.",
        ),
        Kind::ConnectionTerminated => (
            "The endpoint closed the connection before it answered.",
            "Look at the endpoint's own log at this time; keep `timeouts.pool_idle` below its idle timeout.",
        ),
        Kind::ConnectionTimeout => (
            "The endpoint did not accept a connection within `timeouts.connect`.",
            "Look for a firewall, a wrong address or a full accept queue between here and the endpoint.",
        ),
        Kind::ConnectionReadTimeout => (
            "The endpoint stopped sending for longer than `timeouts.between`, or a tunnel was idle for `timeouts.tunnel`.",
            "Find out why the endpoint stalls, or raise that timeout for the route.",
        ),
        Kind::ConnectionWriteTimeout => (
            "The other side did not take what was sent to it in time.",
            "A client was too slow for `timeouts.send`, or an endpoint reads too slowly: look at `ended_by` in the log.",
        ),
        Kind::ConnectionLimitReached => (
            "All connections to the endpoint are in use.",
            "Raise `connections` of the cluster if the endpoint can take more, or add endpoints.",
        ),
        Kind::TlsProtocolError => (
            "TLS with the endpoint failed before its certificate was judged.",
            "Check that the endpoint speaks TLS 1.2 or newer on that port, and HTTP/2 where that is asked for.",
        ),
        _ => (
            "The endpoint's certificate is not trusted, has expired, or is for another name.",
            "Renew the certificate, or name its issuer as `ca` of the cluster; between places, make both from one CA.",
        ),
    }
}

/// What an endpoint answers.
fn answering(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::HttpResponseIncomplete => (
            "The answer ended before its end, so it was cut here as well and never passed on as complete.",
            "Look for a crash or a kill at the endpoint at this time, and for a wrong Content-Length.",
        ),
        Kind::HttpResponseHeaderSectionSize => (
            "The head of the answer is too large.",
            "Let the application send fewer or shorter fields, such as cookies, or raise `limits.head` and `limits.fields`.",
        ),
        Kind::HttpResponseTransferCoding => (
            "The answer has a transfer coding other than `chunked`.",
            "Let the application leave Transfer-Encoding to its HTTP server.",
        ),
        Kind::HttpResponseTimeout => (
            "The answer did not begin within `timeouts.first_byte`, or did not end within `timeouts.total`.",
            "Find the slow work at the endpoint, or raise the timeout for the route.",
        ),
        Kind::HttpUpgradeFailed => (
            "The switch to another protocol, such as a WebSocket, did not come about.",
            "Check that the endpoint takes the upgrade on this path.",
        ),
        _ => (
            "The answer is not valid HTTP, or has no single meaning.",
            "Ask the endpoint directly with `curl -v --raw`; the log's `detail` says what is wrong with it.",
        ),
    }
}

/// What is with us.
fn ours(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::ProxyInternalError => (
            "The proxy broke a rule of its own.",
            "Report it with the line of the access log; this request alone is concerned.",
        ),
        Kind::ProxyConfigurationError => (
            "The configuration does not say how to serve this request, or a file that it names cannot be used.",
            "The log's `detail` names what is missing; `coordinator check` shows it before a start.",
        ),
        Kind::ProxyLoopDetected => (
            "The request has passed through this deployment before.",
            "An origin or a load balancer sends requests back to an edge: correct its address.",
        ),
        _ => (
            "The proxy is stopping, or has no room for more.",
            "Try again after Retry-After; if it is not being stopped, add capacity or raise `limits.connections`.",
        ),
    }
}

/// Routes, keys and homes.
fn routing(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::NoRoute => (
            "No route matches the host and path.",
            "Check the URL; a route with `match = \"/\"` takes what no other does.",
        ),
        Kind::NoMethod => (
            "A route matches the path, but not with this method.",
            "Use a method that Allow lists, or add a route for this one.",
        ),
        Kind::NoKey => (
            "The key that the route needs is missing, malformed or there twice.",
            "Send it where the route looks for it: one value, 1 to 255 octets of UTF-8 without control characters.",
        ),
        Kind::UnknownKey => (
            "Neither the home map nor Central knows this key.",
            "Check the key; `coordinator homes get KEY` asks Central; `unknown = \"central\"` adopts users who have no home yet.",
        ),
        _ => (
            "Another edge sent a request for a key that this edge does not own; that edge follows the correction by itself.",
            "None is needed. If many last, compare the feed cursors of both edges in /status.",
        ),
    }
}

/// What a client asks, and how.
fn asking(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::HttpRequestDenied => ("The request is not allowed.", "Ask whoever runs the deployment for access."),
        Kind::HeadTooLarge => (
            "The head of the request is larger than `limits.head`, or has more fields than `limits.fields`.",
            "Send fewer or shorter fields, such as cookies, or raise the limit.",
        ),
        Kind::UriTooLong => (
            "The request target is longer than `limits.uri`.",
            "Shorten the URL, send the data as content, or raise the limit.",
        ),
        Kind::BodyTooLarge => (
            "The content of the request is larger than `limits.body` of the route allows.",
            "Send less, or raise the limit of the route.",
        ),
        Kind::RequestTimeout => (
            "The request came more slowly than `timeouts.head` or `timeouts.body` allows.",
            "Send it again over a better connection, or raise the timeout.",
        ),
        Kind::RateLimited => (
            "The source has claimed more new keys in a minute than `claims_per_minute` of the key space allows.",
            "Try again after Retry-After. If many who are genuine share one address, raise the limit; if a proxy stands before \
             them, name it in `trust.forwarded`.",
        ),
        Kind::VersionNotSupported => ("The version of HTTP is not spoken here.", "Use HTTP/1.1 or HTTP/2."),
        Kind::MethodNotImplemented => {
            ("The method, such as CONNECT or TRACE, is never carried.", "Use another method; this is no forward proxy.")
        }
        Kind::ExpectationFailed => {
            ("The request expects something other than `100-continue`.", "Leave out the Expect field.")
        }
        Kind::ClientClosed => (
            "The client went away before the answer was complete; nobody sees this status but the log.",
            "None is needed. If many last, compare the client's timeout with the `total` times in the log.",
        ),
        _ => (
            "The request is not valid HTTP, or has no single meaning.",
            "The detail says what is wrong with it: correct the client.",
        ),
    }
}
