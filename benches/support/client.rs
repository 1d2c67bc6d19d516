//! Clients that load an edge: HTTP/1.1 and HTTP/2, plain and over TLS, in a closed loop or at a fixed rate.
//!
//! At a fixed rate each client owns every n-th moment of one schedule. A request that could not be sent at its moment,
//! because the one before it was still open, counts from that moment: waiting is part of the latency (what Gil Tene calls
//! coordinated omission is avoided). One that was sent late only because the timer woke late counts from its sending.

use super::histogram::Histogram;
use bytes::Bytes;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How a client speaks.
#[derive(Clone)]
pub struct Way {
    /// Where to.
    pub address: SocketAddr,
    /// The path it asks for.
    pub path: String,
    /// TLS, where the door has it.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// HTTP/2, with so many streams on each connection.
    pub streams: Option<usize>,
}

/// How long and how hard.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Requests under way at the same time.
    pub clients: usize,
    /// How long.
    pub time: Duration,
    /// Requests in a second; `None` = each client sends its next one when it has its answer.
    pub rate: Option<f64>,
}

/// What came of it.
pub struct Outcome {
    /// Latencies of the requests that were answered by 200 and the whole content.
    pub latency: Histogram,
    /// Those that were not.
    pub failed: u64,
    /// The first failure.
    pub failure: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// What a client trusts: the CA in this file. `protocol` is what ALPN asks for.
pub fn trusting(ca: &Path, protocol: &[u8]) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("the CA was made")).expect("the CA is sound");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config.expect("the provider knows TLS").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

/// Loads an edge. Connections are opened before the clock starts.
pub async fn run(way: &Way, load: Load) -> Outcome {
    let mut clients = Vec::new();
    while clients.len() < load.clients {
        clients.extend(Client::open(way, load.clients - clients.len()).await.expect("the edge takes connections"));
    }
    let start = Instant::now();
    let tasks: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(at, client)| tokio::task::spawn_local(one(client, at, load, start)))
        .collect();
    let mut whole = Outcome { latency: Histogram::new(), failed: 0, failure: None, took: Duration::ZERO };
    for task in tasks {
        let (times, failure) = task.await.expect("a client does not panic");
        times.into_iter().for_each(|time| whole.latency.record(time));
        whole.failed += u64::from(failure.is_some());
        whole.failure = whole.failure.or(failure);
    }
    whole.took = start.elapsed();
    whole
}

/// One client's life: until the time is over or a request fails.
async fn one(mut client: Client, at: usize, load: Load, start: Instant) -> (Vec<Duration>, Option<String>) {
    let mut times = Vec::new();
    let mut turn = at;
    loop {
        let due = load.rate.map(|rate| start + Duration::from_secs_f64(turn as f64 / rate));
        let mut from = Instant::now();
        if let Some(due) = due {
            if due > from {
                tokio::time::sleep_until(due.into()).await;
                from = Instant::now();
            } else {
                from = due;
            }
        }
        if start.elapsed() >= load.time {
            return (times, None);
        }
        match client.ask().await {
            Ok(()) => times.push(from.elapsed()),
            Err(error) => return (times, Some(error.to_string())),
        }
        turn += load.clients;
    }
}

enum Client {
    Http1 { stream: Box<dyn Stream>, request: Vec<u8>, buffer: Vec<u8> },
    Http2 { send: h2::client::SendRequest<Bytes>, url: String },
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

impl Client {
    /// Opens one connection: one client of HTTP/1.1, or up to `most` that share one of HTTP/2.
    async fn open(way: &Way, most: usize) -> io::Result<Vec<Client>> {
        let tcp = TcpStream::connect(way.address).await?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &way.tls {
            None => Box::new(tcp),
            Some(config) => {
                let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST).into());
                Box::new(TlsConnector::from(config.clone()).connect(name, tcp).await?)
            }
        };
        let Some(streams) = way.streams else {
            let request = format!(
                "GET {} HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench\r\nAccept: */*\r\n\
                 Accept-Encoding: identity\r\n\r\n",
                way.path
            );
            return Ok(vec![Client::Http1 { stream, request: request.into_bytes(), buffer: vec![0; 16 << 10] }]);
        };
        let (send, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
        tokio::task::spawn_local(async move {
            // Its end shows in the requests that it fails.
            let _ = connection.await;
        });
        let url = format!("https://bench.example{}", way.path);
        Ok((0..streams.min(most)).map(|_| Client::Http2 { send: send.clone(), url: url.clone() }).collect())
    }

    /// One request. Errors: anything but 200 with the whole content.
    async fn ask(&mut self) -> io::Result<()> {
        match self {
            Client::Http1 { stream, request, buffer } => {
                stream.write_all(request).await?;
                answered(stream, buffer).await
            }
            Client::Http2 { send, url } => {
                let request = http::Request::get(url.as_str()).body(()).map_err(io::Error::other)?;
                let (answer, _) = send.send_request(request, true).map_err(io::Error::other)?;
                let answer = answer.await.map_err(io::Error::other)?;
                sound(answer.status().as_u16())?;
                let mut body = answer.into_body();
                let mut got = 0;
                while let Some(octets) = body.data().await {
                    let octets = octets.map_err(io::Error::other)?;
                    got += octets.len();
                    body.flow_control().release_capacity(octets.len()).map_err(io::Error::other)?;
                }
                whole(got)
            }
        }
    }
}

/// Reads one answer to its end.
async fn answered(stream: &mut Box<dyn Stream>, buffer: &mut [u8]) -> io::Result<()> {
    let mut have = 0;
    loop {
        let got = stream.read(&mut buffer[have..]).await?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        have += got;
        let Some(end) = buffer[..have].windows(4).position(|octets| octets == b"\r\n\r\n") else { continue };
        let status = std::str::from_utf8(&buffer[9..12]).ok().and_then(|status| status.parse().ok());
        sound(status.unwrap_or_default())?;
        if have >= end + 4 + super::origin::CONTENT {
            return whole(have - end - 4);
        }
    }
}

fn sound(status: u16) -> io::Result<()> {
    if status == 200 { Ok(()) } else { Err(io::Error::other(format!("answered by {status}"))) }
}

fn whole(length: usize) -> io::Result<()> {
    if length == super::origin::CONTENT { Ok(()) } else { Err(io::Error::other(format!("{length} octets of content"))) }
}
