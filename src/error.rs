//! The one catalogue of what goes wrong with a request.
//!
//! Outward a failure is a status and an RFC 9209 `error` token; inward a detail goes to the log once. `status` and
//! `token` are two total matches side by side; the codes are those that RFC 9209 section 2.3 recommends unless a comment
//! argues otherwise. Whose fault it was and whether another attempt may help travel with the error.

mod words;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// The result of a step of a request.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. Boxed inside, so that `Result` stays small.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    side: Side,
    again: Again,
    detail: Cow<'static, str>,
    retry_after: Option<Duration>,
    allow: String,
}

/// The kinds of failure: those of RFC 9209, and what only a router can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    DnsTimeout,
    DnsError,
    DestinationNotFound,
    DestinationUnavailable,
    ConnectionRefused,
    ConnectionTerminated,
    ConnectionTimeout,
    ConnectionReadTimeout,
    ConnectionWriteTimeout,
    ConnectionLimitReached,
    TlsProtocolError,
    TlsCertificateError,
    HttpRequestError,
    HttpRequestDenied,
    HttpResponseIncomplete,
    HttpResponseHeaderSectionSize,
    HttpResponseTransferCoding,
    HttpResponseTimeout,
    HttpUpgradeFailed,
    HttpProtocolError,
    ProxyInternalError,
    ProxyConfigurationError,
    ProxyLoopDetected,
    /// No route matches: 404.
    NoRoute,
    /// A route matches, but not with this method: 405 with Allow.
    NoMethod,
    /// The key that the route names is missing or malformed: 400.
    NoKey,
    /// The home map and Central know no such key: 404.
    UnknownKey,
    /// On the peer door: this edge does not own the key, and says who does or that it does not know: 421.
    Misdirected,
    /// The request head is too large: 431.
    HeadTooLarge,
    /// The request target is too long: 414.
    UriTooLong,
    /// The request content is too large: 413.
    BodyTooLarge,
    /// The client was too slow: 408.
    RequestTimeout,
    /// The source asks for more than it may in this time: 429 with Retry-After.
    RateLimited,
    /// A version that we do not speak: 505.
    VersionNotSupported,
    /// A method that we refuse to carry, such as CONNECT: 501.
    MethodNotImplemented,
    /// An expectation that we cannot meet: 417.
    ExpectationFailed,
    /// The client went away: nobody reads the status, logs say 499.
    ClientClosed,
    /// We are stopping or out of room: 503.
    Overloaded,
}

/// Every kind, for documentation and metrics.
pub const KINDS: [Kind; 38] = [
    Kind::DnsTimeout,
    Kind::DnsError,
    Kind::DestinationNotFound,
    Kind::DestinationUnavailable,
    Kind::ConnectionRefused,
    Kind::ConnectionTerminated,
    Kind::ConnectionTimeout,
    Kind::ConnectionReadTimeout,
    Kind::ConnectionWriteTimeout,
    Kind::ConnectionLimitReached,
    Kind::TlsProtocolError,
    Kind::TlsCertificateError,
    Kind::HttpRequestError,
    Kind::HttpRequestDenied,
    Kind::HttpResponseIncomplete,
    Kind::HttpResponseHeaderSectionSize,
    Kind::HttpResponseTransferCoding,
    Kind::HttpResponseTimeout,
    Kind::HttpUpgradeFailed,
    Kind::HttpProtocolError,
    Kind::ProxyInternalError,
    Kind::ProxyConfigurationError,
    Kind::ProxyLoopDetected,
    Kind::NoRoute,
    Kind::NoMethod,
    Kind::NoKey,
    Kind::UnknownKey,
    Kind::Misdirected,
    Kind::HeadTooLarge,
    Kind::UriTooLong,
    Kind::BodyTooLarge,
    Kind::RequestTimeout,
    Kind::RateLimited,
    Kind::VersionNotSupported,
    Kind::MethodNotImplemented,
    Kind::ExpectationFailed,
    Kind::ClientClosed,
    Kind::Overloaded,
];

/// Whose side failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The client's.
    Downstream,
    /// The server's that we called.
    Upstream,
    /// Ours.
    Own,
}

/// Whether another attempt may be made (DESIGN 5, Attempts).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Never: response octets were seen, or the request itself is at fault.
    Never,
    /// The request may have been acted upon: only idempotent methods, or those with an Idempotency-Key.
    IfIdempotent,
    /// Provably nothing was sent: any method.
    Unsent,
}

impl Kind {
    /// The status that the client gets.
    pub fn status(self) -> u16 {
        match self {
            Kind::NoKey | Kind::HttpRequestError => 400,
            Kind::HttpRequestDenied => 403,
            // RFC 9209 recommends 500 for an unknown destination; here it is a key that does not exist.
            Kind::NoRoute | Kind::UnknownKey => 404,
            Kind::NoMethod => 405,
            Kind::RequestTimeout => 408,
            Kind::BodyTooLarge => 413,
            Kind::UriTooLong => 414,
            Kind::ExpectationFailed => 417,
            Kind::Misdirected => 421,
            // RFC 9209 recommends 403 for what a policy denies; this one allows it a little later (RFC 6585 4).
            Kind::RateLimited => 429,
            Kind::HeadTooLarge => 431,
            Kind::ClientClosed => 499,
            Kind::DestinationNotFound | Kind::ProxyInternalError | Kind::ProxyConfigurationError => 500,
            Kind::MethodNotImplemented => 501,
            Kind::DnsError
            | Kind::ConnectionRefused
            | Kind::ConnectionTerminated
            | Kind::TlsProtocolError
            | Kind::TlsCertificateError
            | Kind::HttpResponseIncomplete
            | Kind::HttpResponseHeaderSectionSize
            | Kind::HttpResponseTransferCoding
            | Kind::HttpUpgradeFailed
            | Kind::HttpProtocolError
            | Kind::ProxyLoopDetected => 502,
            Kind::DestinationUnavailable | Kind::ConnectionLimitReached | Kind::Overloaded => 503,
            Kind::DnsTimeout
            | Kind::ConnectionTimeout
            | Kind::ConnectionReadTimeout
            | Kind::ConnectionWriteTimeout
            | Kind::HttpResponseTimeout => 504,
            Kind::VersionNotSupported => 505,
        }
    }

    /// The RFC 9209 error type, on the answer, in logs and in metrics.
    pub fn token(self) -> &'static str {
        match self {
            Kind::DnsTimeout => "dns_timeout",
            Kind::DnsError => "dns_error",
            Kind::DestinationNotFound | Kind::NoRoute | Kind::UnknownKey => "destination_not_found",
            Kind::DestinationUnavailable => "destination_unavailable",
            Kind::ConnectionRefused => "connection_refused",
            Kind::ConnectionTerminated => "connection_terminated",
            Kind::ConnectionTimeout => "connection_timeout",
            Kind::ConnectionReadTimeout => "connection_read_timeout",
            Kind::ConnectionWriteTimeout => "connection_write_timeout",
            Kind::ConnectionLimitReached | Kind::Overloaded => "connection_limit_reached",
            Kind::TlsProtocolError => "tls_protocol_error",
            Kind::TlsCertificateError => "tls_certificate_error",
            Kind::HttpRequestError
            | Kind::NoMethod
            | Kind::NoKey
            | Kind::Misdirected
            | Kind::HeadTooLarge
            | Kind::UriTooLong
            | Kind::BodyTooLarge
            | Kind::RequestTimeout
            | Kind::VersionNotSupported
            | Kind::MethodNotImplemented
            | Kind::ExpectationFailed
            | Kind::ClientClosed => "http_request_error",
            Kind::HttpRequestDenied | Kind::RateLimited => "http_request_denied",
            Kind::HttpResponseIncomplete => "http_response_incomplete",
            Kind::HttpResponseHeaderSectionSize => "http_response_header_section_size",
            Kind::HttpResponseTransferCoding => "http_response_transfer_coding",
            Kind::HttpResponseTimeout => "http_response_timeout",
            Kind::HttpUpgradeFailed => "http_upgrade_failed",
            Kind::HttpProtocolError => "http_protocol_error",
            Kind::ProxyInternalError => "proxy_internal_error",
            Kind::ProxyConfigurationError => "proxy_configuration_error",
            Kind::ProxyLoopDetected => "proxy_loop_detected",
        }
    }

    /// The name of the kind in our own catalogue: finer than the token, e.g. `no_route` under `destination_not_found`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::NoRoute => "no_route",
            Kind::NoMethod => "no_method",
            Kind::NoKey => "no_key",
            Kind::UnknownKey => "unknown_key",
            Kind::Misdirected => "misdirected",
            Kind::HeadTooLarge => "head_too_large",
            Kind::UriTooLong => "uri_too_long",
            Kind::BodyTooLarge => "body_too_large",
            Kind::RequestTimeout => "request_timeout",
            Kind::RateLimited => "rate_limited",
            Kind::VersionNotSupported => "version_not_supported",
            Kind::MethodNotImplemented => "method_not_implemented",
            Kind::ExpectationFailed => "expectation_failed",
            Kind::ClientClosed => "client_closed",
            Kind::Overloaded => "overloaded",
            other => other.token(),
        }
    }

    /// Whose fault it is unless the maker of the error says otherwise.
    fn side(self) -> Side {
        match self {
            Kind::NoRoute
            | Kind::NoMethod
            | Kind::NoKey
            | Kind::UnknownKey
            | Kind::Misdirected
            | Kind::HeadTooLarge
            | Kind::UriTooLong
            | Kind::BodyTooLarge
            | Kind::RequestTimeout
            | Kind::RateLimited
            | Kind::VersionNotSupported
            | Kind::MethodNotImplemented
            | Kind::ExpectationFailed
            | Kind::HttpRequestError
            | Kind::HttpRequestDenied
            | Kind::ProxyLoopDetected
            | Kind::ClientClosed => Side::Downstream,
            Kind::ProxyInternalError | Kind::ProxyConfigurationError | Kind::Overloaded => Side::Own,
            _ => Side::Upstream,
        }
    }
}

impl Error {
    /// A failure that is not worth another attempt, with a detail for the log and, within [`Error::public_detail`], for
    /// the client.
    // Cold, as those below: what leads to a failure is kept out of the way of what does not.
    #[cold]
    #[inline(never)]
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Error(Box::new(Inner {
            kind,
            side: kind.side(),
            again: Again::Never,
            detail: detail.into(),
            retry_after: None,
            allow: String::new(),
        }))
    }

    /// A request that breaks the rules of HTTP: 400.
    #[cold]
    #[inline(never)]
    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Error::new(Kind::HttpRequestError, detail)
    }

    /// Nothing can serve this now: 503 with Retry-After.
    #[cold]
    #[inline(never)]
    pub fn unavailable(detail: impl Into<Cow<'static, str>>, retry_after: Duration) -> Self {
        Error::new(Kind::DestinationUnavailable, detail).retry_after(retry_after)
    }

    /// Says whether another attempt may be made.
    pub fn again(mut self, again: Again) -> Self {
        self.0.again = again;
        self
    }

    /// Says whose side failed.
    pub fn on(mut self, side: Side) -> Self {
        self.0.side = side;
        self
    }

    /// Adds a Retry-After.
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Adds an Allow: methods, as the field lists them.
    pub fn allow(mut self, allow: String) -> Self {
        self.0.allow = allow;
        self
    }

    /// What happened.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whose side failed.
    pub fn side(&self) -> Side {
        self.0.side
    }

    /// Whether another attempt may be made.
    pub fn may_retry(&self) -> Again {
        self.0.again
    }

    /// The detail.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The detail as a client may see it: what tells of addresses, files and certificates stays in the log.
    pub fn public_detail(&self) -> &str {
        match self.0.kind {
            Kind::ProxyConfigurationError
            | Kind::ProxyInternalError
            | Kind::DnsError
            | Kind::TlsProtocolError
            | Kind::TlsCertificateError => self.0.kind.cause(),
            _ => &self.0.detail,
        }
    }

    /// Whether whoever sent the request can mend it, as opposed to whoever runs the deployment.
    pub fn is_for_clients(&self) -> bool {
        self.0.kind.side() == Side::Downstream && self.0.kind != Kind::ProxyLoopDetected
    }

    /// The Retry-After, if the answer carries one.
    pub fn wait(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The methods that a 405 allows, as the field lists them.
    pub fn allowed(&self) -> &str {
        &self.0.allow
    }

    /// The status that the client gets.
    pub fn status(&self) -> u16 {
        self.0.kind.status()
    }

    /// The RFC 9209 error type.
    pub fn token(&self) -> &'static str {
        self.0.kind.token()
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}({}, {:?})", self.0.kind, self.0.detail, self.0.again)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.0.kind.name(), self.0.detail)
    }
}

impl std::error::Error for Error {}
