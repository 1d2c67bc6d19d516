//! An HTTP/2 client, and an HTTP/2 origin for gRPC-like exchanges, on the `h2` crate and a runtime of their own.

use super::PATIENCE;
use super::message::Fields;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// One HTTP/2 connection.
pub struct Client {
    runtime: Runtime,
    send: h2::client::SendRequest<Bytes>,
    secure: bool,
}

/// A request to be sent.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// The method; GET if empty.
    pub method: String,
    /// The path and query.
    pub target: String,
    /// The fields.
    pub fields: Fields,
    /// The content; `None` ends the stream with the head.
    pub body: Option<Vec<u8>>,
    /// Trailers after the content.
    pub trailers: Fields,
}

/// A response, as it came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The status; 0 if the stream was reset before there was one.
    pub status: u16,
    /// The fields.
    pub fields: Fields,
    /// The content.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: Fields,
    /// The error code with which the stream or the connection ended, if it did not end in order.
    pub reset: Option<u32>,
    /// The failure in words.
    pub failure: String,
}

/// What an extended CONNECT has opened (RFC 8441).
pub struct Tunnel<'a> {
    runtime: &'a Runtime,
    send: h2::SendStream<Bytes>,
    receive: h2::RecvStream,
    waiting: Vec<u8>,
    /// The fields of the answer.
    pub fields: Fields,
}

/// An origin that speaks HTTP/2 with prior knowledge and answers every request with what it got: the same content,
/// the same fields under `echo-NAME`, the same trailers, some that no origin may send, and then `grpc-status: 0`.
pub struct Echo {
    /// Where it listens.
    pub address: SocketAddr,
    /// The requests that came: method, path, fields.
    pub seen: Arc<Mutex<Vec<(String, String, Fields)>>>,
    runtime: Option<Runtime>,
}

impl Client {
    /// Connects with prior knowledge.
    pub fn plain(address: SocketAddr) -> Client {
        let runtime = runtime();
        let send = runtime.block_on(async { hello(TcpStream::connect(address).await.expect("it listens")).await });
        Client { runtime, send, secure: false }
    }

    /// Connects with TLS; `config` must offer `h2`.
    pub fn tls(address: SocketAddr, config: Arc<rustls::ClientConfig>, name: &str) -> Client {
        let runtime = runtime();
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).expect("a valid server name");
        let send = runtime.block_on(async {
            let tcp = TcpStream::connect(address).await.expect("it listens");
            let tls = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await.expect("TLS is agreed");
            assert_eq!(tls.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()), "ALPN");
            hello(tls).await
        });
        Client { runtime, send, secure: true }
    }

    /// `GET target`, answered.
    pub fn get(&mut self, target: &str) -> Answer {
        self.ask(Ask { target: target.to_owned(), ..Ask::default() })
    }

    /// A request, answered.
    pub fn ask(&mut self, ask: Ask) -> Answer {
        self.all(vec![ask]).remove(0)
    }

    /// Requests at the same time on streams of their own, answered in their order.
    pub fn all(&mut self, asks: Vec<Ask>) -> Vec<Answer> {
        let exchanges: Vec<_> = asks.into_iter().map(|ask| exchange(self.send.clone(), ask, self.secure)).collect();
        let all = futures_util::future::join_all(exchanges);
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, all).await.expect("answers come in time") })
    }
}

impl Client {
    /// Asks for a tunnel. Errors: the answer that is none.
    pub fn tunnel(&mut self, target: &str, protocol: &str, fields: &[(&str, &str)]) -> Result<Tunnel<'_>, Answer> {
        let ask = Ask {
            method: "CONNECT".to_owned(),
            target: target.to_owned(),
            fields: fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..Ask::default()
        };
        let (mut request, ..) = request_of(ask, self.secure);
        request.extensions_mut().insert(h2::ext::Protocol::from(protocol));
        let send = self.send.clone();
        let opened = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, open(send, request)).await });
        let (head, send, receive) = opened.expect("an answer comes in time")?;
        Ok(Tunnel { runtime: &self.runtime, send, receive, waiting: Vec::new(), fields: fields_of(&head.headers) })
    }
}

impl Tunnel<'_> {
    /// Sends octets.
    pub fn send(&mut self, octets: &[u8]) -> &mut Self {
        self.send.send_data(Bytes::copy_from_slice(octets), false).expect("the stream is open");
        self
    }

    /// Ends our half.
    pub fn end(&mut self) -> &mut Self {
        self.send.send_data(Bytes::new(), true).expect("the stream is open");
        self
    }

    /// Resets the stream.
    pub fn reset(mut self) {
        self.send.send_reset(h2::Reason::CANCEL);
    }

    /// The next `count` octets. Panics if the tunnel ends before.
    #[track_caller]
    pub fn octets(&mut self, count: usize) -> Vec<u8> {
        while self.waiting.len() < count {
            match self.piece() {
                Some(Ok(octets)) => self.waiting.extend_from_slice(&octets),
                other => panic!("{count} octets expected, {:?} came, then {other:?}", self.waiting),
            }
        }
        self.waiting.drain(..count).collect()
    }

    /// Waits for the end: what came before it, and the code of a reset.
    #[track_caller]
    pub fn closed(&mut self) -> (Vec<u8>, Option<u32>) {
        loop {
            match self.piece() {
                Some(Ok(octets)) => self.waiting.extend_from_slice(&octets),
                Some(Err(error)) => {
                    return (std::mem::take(&mut self.waiting), Some(error.reason().map_or(u32::MAX, u32::from)));
                }
                None => return (std::mem::take(&mut self.waiting), None),
            }
        }
    }

    #[track_caller]
    fn piece(&mut self) -> Option<Result<Bytes, h2::Error>> {
        let receive = &mut self.receive;
        let piece = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, receive.data()).await });
        let piece = piece.expect("octets or an end come in time");
        if let Some(Ok(octets)) = &piece {
            let _ = self.receive.flow_control().release_capacity(octets.len());
        }
        piece
    }
}

impl Answer {
    /// The `error` token of Proxy-Status.
    pub fn error(&self) -> Option<String> {
        let status = self.all("proxy-status").join(",");
        let after = status.split("error=").nth(1)?;
        Some(after.chars().take_while(|sign| sign.is_ascii_alphanumeric() || *sign == '_').collect())
    }

    /// The values of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        super::message::values(&self.fields, name)
    }
}

impl Echo {
    /// Starts it.
    pub fn start() -> Echo {
        Echo::with(h2::server::Builder::new())
    }

    /// The same, which also takes extended CONNECT and echoes through the tunnel.
    pub fn tunnelling() -> Echo {
        let mut builder = h2::server::Builder::new();
        builder.enable_connect_protocol();
        Echo::with(builder)
    }

    fn with(builder: h2::server::Builder) -> Echo {
        let runtime = runtime();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let seen: Arc<Mutex<Vec<(String, String, Fields)>>> = Arc::default();
        let theirs = seen.clone();
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(serve(tcp, builder.clone(), theirs.clone()));
            }
        });
        Echo { address, seen, runtime: Some(runtime) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

async fn hello<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> h2::client::SendRequest<Bytes> {
    let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2 is spoken");
    tokio::spawn(connection);
    send
}

async fn open(
    mut send: h2::client::SendRequest<Bytes>,
    request: http::Request<()>,
) -> Result<(http::response::Parts, h2::SendStream<Bytes>, h2::RecvStream), Answer> {
    while !send.is_extended_connect_protocol_enabled() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let failed = |error: h2::Error| Answer { failure: error.to_string(), ..Answer::default() };
    send = send.ready().await.map_err(failed)?;
    let (response, send) = send.send_request(request, false).map_err(failed)?;
    let (head, mut receive) = response.await.map_err(failed)?.into_parts();
    if head.status.is_success() {
        return Ok((head, send, receive));
    }
    let mut answer = Answer { status: head.status.as_u16(), fields: fields_of(&head.headers), ..Answer::default() };
    while let Some(piece) = receive.data().await {
        answer.body.extend_from_slice(&piece.map_err(failed)?);
    }
    Err(answer)
}

async fn exchange(send: h2::client::SendRequest<Bytes>, ask: Ask, secure: bool) -> Answer {
    let mut answer = Answer::default();
    if let Err(error) = converse(send, ask, secure, &mut answer).await {
        answer.reset = Some(error.reason().map_or(u32::MAX, u32::from));
        answer.failure = error.to_string();
    }
    answer
}

async fn converse(
    send: h2::client::SendRequest<Bytes>,
    ask: Ask,
    secure: bool,
    answer: &mut Answer,
) -> Result<(), h2::Error> {
    let (request, body, trailers) = request_of(ask, secure);
    let ends = body.is_none() && trailers.is_empty();
    let (response, mut stream) = send.ready().await?.send_request(request, ends)?;
    if !ends {
        // A peer that answers early may reset our half; its answer still counts, so sending never decides.
        let _ = stream.send_data(Bytes::from(body.unwrap_or_default()), trailers.is_empty());
        if !trailers.is_empty() {
            let _ = stream.send_trailers(trailers);
        }
    }
    let (head, mut body) = response.await?.into_parts();
    answer.status = head.status.as_u16();
    answer.fields = fields_of(&head.headers);
    while let Some(piece) = body.data().await {
        let piece = piece?;
        answer.body.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len())?;
    }
    if let Some(trailers) = body.trailers().await? {
        answer.trailers = fields_of(&trailers);
    }
    Ok(())
}

fn request_of(ask: Ask, secure: bool) -> (http::Request<()>, Option<Vec<u8>>, http::HeaderMap) {
    let scheme = if secure { "https" } else { "http" };
    let method = if ask.method.is_empty() { "GET" } else { &ask.method };
    let mut request = http::Request::builder()
        .method(method)
        .uri(format!("{scheme}://shop.example{}", ask.target))
        .version(http::Version::HTTP_2);
    for (name, value) in &ask.fields {
        request = request.header(name, value);
    }
    let mut trailers = http::HeaderMap::new();
    for (name, value) in &ask.trailers {
        let name: http::HeaderName = name.parse().expect("a valid name");
        trailers.append(name, value.parse().expect("a valid value"));
    }
    (request.body(()).expect("a valid request"), ask.body, trailers)
}

fn fields_of(map: &http::HeaderMap) -> Fields {
    map.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect()
}

async fn serve(tcp: TcpStream, builder: h2::server::Builder, seen: Arc<Mutex<Vec<(String, String, Fields)>>>) {
    let Ok(mut connection) = builder.handshake(tcp).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let fields = fields_of(request.headers());
        let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        let heard = (request.method().to_string(), target, fields);
        seen.lock().expect("nobody panics under this lock").push(heard);
        tokio::spawn(echo(request, respond));
    }
}

async fn echo(request: http::Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) -> Option<()> {
    let (head, mut body) = request.into_parts();
    let mut response = http::Response::builder().status(200);
    for (name, value) in &head.headers {
        response = response.header(format!("echo-{name}"), value);
    }
    let mut stream = respond.send_response(response.body(()).ok()?, false).ok()?;
    while let Some(Ok(piece)) = body.data().await {
        let _ = body.flow_control().release_capacity(piece.len());
        stream.send_data(piece, false).ok()?;
    }
    let mut trailers = body.trailers().await.ok()?.unwrap_or_default();
    if head.method == http::Method::CONNECT {
        return stream.send_data(Bytes::new(), true).ok();
    }
    for name in ["coordinator-moved", "coordinator", "set-cookie"] {
        trailers.insert(name, http::HeaderValue::from_static("forged"));
    }
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    stream.send_trailers(trailers).ok()
}
