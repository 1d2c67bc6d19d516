//! Opening a connection: name, address, TCP or unix socket, TLS.
//!
//! Every failure here is before the first octet of a request, so any method may be tried again. The outcome feeds the
//! endpoint's breaker.

use super::endpoint::{Endpoint, Speaks};
use crate::base::clock;
use crate::body::io::Stream;
use crate::config::plan::UrlScheme;
use crate::error::{Again, Error, Kind, Result};
use crate::tls::client::Alpn;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::net::{TcpStream, UnixStream};

/// Addresses of one name that are tried; more would each get too little of the time.
const ADDRESSES_MAX: usize = 8;
/// An address gets at least this long before the next one is tried.
const ADDRESS_WAIT_MIN: Duration = Duration::from_millis(250);

/// A fresh connection.
pub(super) struct Connected {
    pub(super) stream: Stream,
    /// Whether HTTP/2 is spoken on it.
    pub(super) http2: bool,
}

/// How far connecting has come; names the timeout.
#[derive(Debug, Clone, Copy)]
enum Step {
    Name,
    Socket,
}

/// Connects within `wait`. Errors: all `Again::Unsent`.
pub(super) async fn open(endpoint: &Endpoint, alpn: Alpn, wait: Duration) -> Result<Connected> {
    let step = Cell::new(Step::Name);
    let deadline = clock::now() + wait;
    let outcome = match tokio::time::timeout(wait, connect(endpoint, alpn, deadline, &step)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(match step.get() {
            Step::Name => Error::new(Kind::DnsTimeout, "the name was not resolved in time"),
            Step::Socket => Error::new(Kind::ConnectionTimeout, "no connection in time"),
        }),
    };
    match &outcome {
        Ok(_) => endpoint.breaker.connected(),
        // What we cannot even try says nothing of the other side.
        Err(error) if error.kind() == Kind::ProxyConfigurationError => {}
        Err(_) => endpoint.breaker.failed(clock::now()),
    }
    outcome.map_err(|error| error.again(Again::Unsent))
}

async fn connect(endpoint: &Endpoint, alpn: Alpn, deadline: Instant, step: &Cell<Step>) -> Result<Connected> {
    let url = endpoint.url();
    if url.scheme == UrlScheme::Unix {
        step.set(Step::Socket);
        let socket = UnixStream::connect(&url.host).await.map_err(refused)?;
        return Ok(Connected { stream: Stream::Unix(socket), http2: false });
    }
    let tls = endpoint.tls().map_err(misconfigured)?;
    let config = tls.map(|client| client.config(alpn)).transpose().map_err(misconfigured)?;
    let addresses = addresses(endpoint).await?;
    step.set(Step::Socket);
    let socket = tcp(&addresses, deadline).await?;
    let Some(config) = config else {
        return Ok(Connected { stream: Stream::Tcp(socket), http2: endpoint.speaks() == Speaks::Http2 });
    };
    let name = ServerName::try_from(url.host.clone()).map_err(|_| misconfigured("no host name for TLS"))?;
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, socket).await.map_err(handshake)?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if !http2 && alpn == Alpn::Http2 {
        return Err(Error::new(Kind::TlsProtocolError, "the other side does not speak HTTP/2"));
    }
    Ok(Connected { stream: Stream::TlsClient(Box::new(stream)), http2 })
}

fn misconfigured(why: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Kind::ProxyConfigurationError, why)
}

fn refused(error: io::Error) -> Error {
    Error::new(Kind::ConnectionRefused, error.to_string())
}

fn handshake(error: io::Error) -> Error {
    let kind = match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => Kind::TlsCertificateError,
        _ => Kind::TlsProtocolError,
    };
    Error::new(kind, error.to_string())
}

/// The addresses of an endpoint: resolved, not long ago, or the last known ones when resolving fails.
async fn addresses(endpoint: &Endpoint) -> Result<Vec<SocketAddr>> {
    let (url, now) = (endpoint.url(), clock::now());
    if let Ok(address) = url.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, url.port)]);
    }
    if let Some(known) = endpoint.addresses(now) {
        return Ok(known);
    }
    let found = match tokio::net::lookup_host((url.host.as_str(), url.port)).await {
        Ok(found) => found.take(ADDRESSES_MAX).collect::<Vec<_>>(),
        Err(error) => {
            let last = endpoint.addresses_last();
            return last.ok_or_else(|| Error::new(Kind::DnsError, error.to_string()));
        }
    };
    if found.is_empty() {
        return Err(Error::new(Kind::DnsError, "the name has no address"));
    }
    endpoint.resolved(now, found.clone());
    Ok(found)
}

/// Tries the addresses in order, each with a fair share of the time that is left.
async fn tcp(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream> {
    let mut last = Error::new(Kind::ConnectionTimeout, "no connection in time");
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(clock::now());
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        match tokio::time::timeout(share.max(ADDRESS_WAIT_MIN), TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                tune(&socket);
                return Ok(socket);
            }
            Ok(Err(error)) => last = refused(error),
            Err(_) => last = Error::new(Kind::ConnectionTimeout, "no connection in time"),
        }
    }
    Err(last)
}

/// No delay for small writes; a peer that vanished is noticed within half a minute even when nothing is sent.
fn tune(socket: &TcpStream) {
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(15)).with_interval(Duration::from_secs(5)).with_retries(3);
    // Neither can fail on a connected socket in a way that matters: the connection works without.
    let _ = socket.set_nodelay(true);
    let _ = SockRef::from(socket).set_tcp_keepalive(&keepalive);
}
