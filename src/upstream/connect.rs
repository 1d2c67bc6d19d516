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
use futures_util::stream::{FuturesUnordered, StreamExt};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};

/// Addresses of one name that are tried; more would each get too little of the time.
const ADDRESSES_MAX: usize = 8;
/// An address is tried alone for so long: RFC 8305 section 5 recommends it.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

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
    let outcome = match tokio::time::timeout(wait, connect(endpoint, alpn, &step)).await {
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

async fn connect(endpoint: &Endpoint, alpn: Alpn, step: &Cell<Step>) -> Result<Connected> {
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
    let socket = tcp(&addresses).await?;
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

/// Races the addresses (RFC 8305 section 5): the next one is tried when the last has failed, or for a while has neither
/// failed nor come about, and the first connection wins. So a family that leads nowhere costs a quarter of a second, not a
/// request. Bounded by the caller's time, and by `ADDRESSES_MAX` sockets at once.
async fn tcp(addresses: &[SocketAddr]) -> Result<TcpStream> {
    let mut waiting = in_turn(addresses).into_iter();
    let mut trying = FuturesUnordered::new();
    let mut last = Error::new(Kind::DnsError, "the name has no address");
    loop {
        trying.extend(waiting.next().map(TcpStream::connect));
        let outcome = match waiting.len() {
            0 => trying.next().await,
            _ => match tokio::time::timeout(ATTEMPT_DELAY, trying.next()).await {
                Ok(outcome) => outcome,
                Err(_) => continue,
            },
        };
        match outcome {
            Some(Ok(socket)) => {
                tune(&socket);
                return Ok(socket);
            }
            Some(Err(error)) => last = refused(error),
            None => return Err(last),
        }
    }
}

/// The addresses with their families in turn, beginning with that of the first, which the system prefers (RFC 8305
/// section 4).
fn in_turn(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, others): (Vec<_>, Vec<_>) = addresses.iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut others = others.into_iter();
    let mut turns: Vec<SocketAddr> =
        preferred.into_iter().flat_map(|one| [Some(one), others.next()]).flatten().collect();
    turns.extend(others);
    turns
}

/// No delay for small writes; a peer that vanished is noticed within half a minute even when nothing is sent.
fn tune(socket: &TcpStream) {
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(15)).with_interval(Duration::from_secs(5)).with_retries(3);
    // Neither can fail on a connected socket in a way that matters: the connection works without.
    let _ = socket.set_nodelay(true);
    let _ = SockRef::from(socket).set_tcp_keepalive(&keepalive);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn listener(address: &str) -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// An address at which connecting neither fails nor comes about: its queue is full, and nobody accepts.
    fn silent() -> (socket2::Socket, SocketAddr, Vec<socket2::Socket>) {
        let stream = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let socket = stream();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(1).unwrap();
        let address = socket.local_addr().unwrap();
        let fill = |_| {
            let one = stream();
            one.set_nonblocking(true).unwrap();
            let _ = one.connect(&address);
            one
        };
        let filling = (0..8).map(fill).collect();
        (socket, address.as_socket().unwrap(), filling)
    }

    async fn reached(addresses: &[SocketAddr]) -> std::result::Result<SocketAddr, Kind> {
        let connecting = tokio::time::timeout(Duration::from_secs(20), tcp(addresses)).await.expect("in time");
        connecting.map(|socket| socket.peer_addr().unwrap()).map_err(|error| error.kind())
    }

    #[tokio::test]
    async fn an_address_that_is_silent_holds_up_the_next_for_a_moment_only() {
        let ((_held, nowhere, _filling), (_listener, there)) = (silent(), listener("127.0.0.1:0"));
        let began = clock::now();
        assert_eq!(reached(&[nowhere, there]).await, Ok(there));
        assert!(clock::now() - began >= ATTEMPT_DELAY, "the first has its time alone");
    }

    #[tokio::test]
    async fn an_address_that_refuses_holds_up_nobody() {
        let (closed, refusing) = listener("127.0.0.1:0");
        drop(closed);
        let (_listener, there) = listener("127.0.0.1:0");
        let began = clock::now();
        assert_eq!(reached(&[refusing, refusing, there]).await, Ok(there));
        assert!(clock::now() - began < 2 * ATTEMPT_DELAY, "nobody waited for two that refused");
        assert_eq!(reached(&[refusing, refusing]).await, Err(Kind::ConnectionRefused));
        assert_eq!(reached(&[]).await, Err(Kind::DnsError));
    }

    #[test]
    fn families_take_turns() {
        let turns = |text: &str| {
            let addresses: Vec<SocketAddr> = text.split(' ').map(|one| one.parse().unwrap()).collect();
            in_turn(&addresses).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(turns("[::1]:1 [::2]:1 1.1.1.1:1 2.2.2.2:1"), "[::1]:1 1.1.1.1:1 [::2]:1 2.2.2.2:1");
        assert_eq!(turns("1.1.1.1:1 [::1]:1 [::2]:1 [::3]:1"), "1.1.1.1:1 [::1]:1 [::2]:1 [::3]:1");
        assert_eq!(turns("1.1.1.1:1 2.2.2.2:1"), "1.1.1.1:1 2.2.2.2:1");
    }
}
