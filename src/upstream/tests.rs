//! Scripted origins over real sockets: what each kind of death, lie and delay becomes.

mod http2;
mod tls;

use super::endpoint::{Kind as Side, Spec};
use super::*;
use crate::body::{Interim, InterimLine, Piece};
use crate::config::plan::{Balance, Url, UrlScheme};
use crate::error::{Again, Error, Kind};
use crate::message::{Method, Name};
use bytes::Bytes;
use std::future::Future;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

const LIMITS: HeadLimits = HeadLimits { head: 4096, fields: 20, uri: 1024 };

/// Runs a test on one thread; a test that hangs fails.
pub(super) fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let set = tokio::task::LocalSet::new();
    let bounded = async { tokio::time::timeout(Duration::from_secs(20), test).await.expect("the test hangs") };
    set.block_on(&runtime, bounded);
}

/// The origin's end of a connection.
pub(super) struct Peer {
    pub(super) socket: TcpStream,
    inbox: Vec<u8>,
}

impl Peer {
    /// Reads up to and with `mark`; what came before the end if it never comes.
    async fn until(&mut self, mark: &str) -> String {
        loop {
            if let Some(at) = self.inbox.windows(mark.len()).position(|window| window == mark.as_bytes()) {
                let rest = self.inbox.split_off(at + mark.len());
                return String::from_utf8(std::mem::replace(&mut self.inbox, rest)).unwrap();
            }
            if self.socket.read_buf(&mut self.inbox).await.unwrap_or(0) == 0 {
                return String::from_utf8(std::mem::take(&mut self.inbox)).unwrap();
            }
        }
    }

    async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    async fn say(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.unwrap();
    }

    /// Waits until the other side closes.
    async fn closed(&mut self) {
        while self.socket.read_buf(&mut self.inbox).await.unwrap_or(0) > 0 {}
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

pub(super) fn endpoint(scheme: UrlScheme, address: SocketAddr, kind: Side) -> Arc<Endpoint> {
    let url = Url { scheme, host: address.ip().to_string(), port: address.port(), base: String::new() };
    Arc::new(Endpoint::new(Spec { kind, url, trust: None, connections_max: 4 }, Ok(None)))
}

/// An origin that runs `script` with the number of each connection.
async fn origin<F, S>(script: F) -> Arc<Endpoint>
where
    F: Fn(usize, Peer) -> S + 'static,
    S: Future<Output = ()> + 'static,
{
    let (listener, address) = listen().await;
    spawn_local(async move {
        for number in 0.. {
            let Ok((socket, _)) = listener.accept().await else { return };
            spawn_local(script(number, Peer { socket, inbox: Vec::new() }));
        }
    });
    endpoint(UrlScheme::Http, address, Side::Origin)
}

/// An origin that answers each request head with the same octets, and closes if `close`.
async fn answers(text: &'static str, close: bool) -> Arc<Endpoint> {
    origin(move |_, mut peer| async move {
        while !peer.head().await.is_empty() {
            peer.say(text).await;
            if close {
                return;
            }
        }
    })
    .await
}

pub(super) fn waits() -> Timeouts {
    let short = Duration::from_millis(400);
    Timeouts { connect: short, first_byte: short, between: short, ..Timeouts::default() }
}

pub(super) fn get(path: &str) -> Outgoing<'static> {
    outgoing(Method::Get, path, Body::Empty)
}

fn outgoing(method: Method, path: &str, body: Body) -> Outgoing<'static> {
    let mut head = RequestHead::new(method, path);
    head.authority = "site.example".to_owned();
    Outgoing { head: Shaped::Made(Box::new(head)), body, interim: None, upgrade: None }
}

/// The head of a request that a test made.
pub(super) fn made<'a>(request: &'a mut Outgoing<'_>) -> &'a mut RequestHead {
    let Shaped::Made(head) = &mut request.head else { panic!("tests make their heads") };
    head
}

/// A body that is fed by the test through a channel; dropping the sender ends it.
struct Fed(tokio::sync::mpsc::UnboundedReceiver<Result<Piece>>);

impl crate::body::Pull for Fed {
    fn poll_piece(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Result<Piece>>> {
        self.0.poll_recv(cx)
    }

    fn length(&self) -> Option<u64> {
        None
    }
}

fn fed() -> (tokio::sync::mpsc::UnboundedSender<Result<Piece>>, Body) {
    let (feed, body) = tokio::sync::mpsc::unbounded_channel();
    (feed, Body::Pulled(Box::new(Fed(body))))
}

fn data(text: impl Into<Bytes>) -> Result<Piece> {
    Ok(Piece::Data(text.into()))
}

/// The content, trailers in brackets, then `.` for a complete end or the kind of the failure.
pub(super) async fn read(body: &mut Body) -> String {
    let mut text = String::new();
    loop {
        match body.next().await {
            Some(Ok(Piece::Data(octets))) => text += std::str::from_utf8(&octets).unwrap(),
            Some(Ok(Piece::Trailers(fields))) => text += &format!("{fields:?}"),
            Some(Err(error)) => return text + "!" + error.kind().name(),
            None => return text + ".",
        }
    }
}

async fn exchange(upstream: &Upstream, endpoint: &Arc<Endpoint>, mut request: Outgoing<'_>) -> Result<Answer> {
    upstream.exchange(endpoint, &mut request, &waits(), &mut Record::start()).await
}

/// The answer, and whether it came over a connection that had been used before.
async fn pooled(upstream: &Upstream, endpoint: &Arc<Endpoint>) -> (Answer, bool) {
    let mut record = Record::start();
    let answer = upstream.exchange(endpoint, &mut get("/"), &waits(), &mut record).await.unwrap();
    (answer, record.connect == Duration::ZERO)
}

/// Status, content and end; or the kind of the failure and what may follow.
pub(super) async fn outcome(upstream: &Upstream, endpoint: &Arc<Endpoint>, request: Outgoing<'_>) -> String {
    match exchange(upstream, endpoint, request).await {
        Ok(mut answer) => format!("{} {}", answer.head.status, read(&mut answer.body).await),
        Err(error) => format!("{} {:?}", error.kind().name(), error.may_retry()),
    }
}

fn idle(upstream: &Upstream, endpoint: &Arc<Endpoint>) -> usize {
    upstream.door(endpoint).pool.idle()
}

#[test]
fn answers_end_where_their_framing_says() {
    // (what the origin sends, whether it then closes, what we make of it, connections kept)
    let table: &[(&str, bool, &str, usize)] = &[
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", false, "200 hello.", 1),
        ("HTTP/1.1 204 No Content\r\n\r\n", false, "204 .", 1),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", false, "304 .", 1),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello", false, "200 hello.", 0),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false, "200 hello.", 1),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n",
            false,
            "200 hi[x-sum: 7].",
            1,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nuntil close", true, "200 until close.", 0),
        ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi", false, "200 hi.", 0),
        ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nhi", false, "200 hi.", 1),
        ("HTTP/1.0 200 OK\r\n\r\nold", true, "200 old.", 0),
        // Deaths.
        ("", true, "connection_terminated IfIdempotent", 0),
        ("HTTP/1.1 200 OK\r\ncontent", true, "http_response_incomplete Never", 0),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", true, "200 hello!http_response_incomplete", 0),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
            true,
            "200 hello!http_response_incomplete",
            0,
        ),
        // Lies.
        ("SSH-2.0-OpenSSH_9.2\r\n", false, "http_protocol_error Never", 0),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
            false,
            "http_protocol_error Never",
            0,
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n", false, "200 hi.", 0),
        ("HTTP/1.1 204 No Content\r\n\r\nexcess", false, "204 .", 0),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", false, "200 !http_response_transfer_coding", 0),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nxx", false, "http_response_transfer_coding Never", 0),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n", false, "http_protocol_error Never", 0),
        // Delays.
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", false, "200 hello!connection_read_timeout", 0),
        ("HTTP/1.1 200 OK\r\ncont", false, "http_response_timeout Never", 0),
    ];
    for (text, close, expected, kept) in table {
        local(async {
            let (upstream, endpoint) = (Upstream::new(LIMITS), answers(text, *close).await);
            assert_eq!(outcome(&upstream, &endpoint, get("/")).await, *expected, "{text:?}");
            assert_eq!(idle(&upstream, &endpoint), *kept, "{text:?}");
            assert_eq!(endpoint.in_flight(), 0, "{text:?}");
        });
    }
}

#[test]
fn head_and_long_heads() {
    local(async {
        let upstream = Upstream::new(LIMITS);
        let head = answers("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n", false).await;
        let mut answer = exchange(&upstream, &head, outgoing(Method::Head, "/", Body::Empty)).await.unwrap();
        assert_eq!(answer.head.fields.text(Name::ContentLength), Some("500"));
        assert_eq!(read(&mut answer.body).await, ".");
        assert_eq!(idle(&upstream, &head), 1);
        let long: &'static str = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(5000)).leak();
        let long = answers(long, false).await;
        assert_eq!(outcome(&upstream, &long, get("/")).await, "http_response_header_section_size Never");
    });
}

#[test]
fn connections_are_reused_newest_first_until_idle_for_too_long() {
    local(async {
        let endpoint = origin(|number, mut peer| async move {
            while !peer.head().await.is_empty() {
                // In chunks: an answer of a length that is all there gives its connection back before it is read.
                let chunks = format!("1\r\n{number}\r\n0\r\n\r\n");
                peer.say(&format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}")).await;
            }
        })
        .await;
        let upstream = Upstream::new(LIMITS);
        let (first, second) = (pooled(&upstream, &endpoint).await, pooled(&upstream, &endpoint).await);
        for (mut answer, pooled) in [first, second] {
            assert!(!pooled);
            read(&mut answer.body).await;
        }
        let (third, pooled) = pooled(&upstream, &endpoint).await;
        assert!(pooled);
        assert_eq!(read(&mut { third.body }).await, "1.");
        let waits = Timeouts { pool_idle: Duration::from_millis(1), ..waits() };
        let answer = upstream.exchange(&endpoint, &mut get("/"), &waits, &mut Record::start()).await.unwrap();
        assert_eq!(read(&mut { answer.body }).await, "1.");
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(outcome(&upstream, &endpoint, get("/")).await, "200 0.", "1 has expired");
    });
}

#[test]
fn a_body_that_is_not_read_to_its_end_closes_the_connection() {
    local(async {
        let (told, mut closed) = tokio::sync::mpsc::unbounded_channel();
        let endpoint = origin(move |_, mut peer| {
            let told = told.clone();
            async move {
                peer.head().await;
                peer.say("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart").await;
                peer.closed().await;
                told.send(()).unwrap();
            }
        })
        .await;
        let upstream = Upstream::new(LIMITS);
        let answer = exchange(&upstream, &endpoint, get("/")).await.unwrap();
        drop(answer);
        closed.recv().await.unwrap();
        assert_eq!((idle(&upstream, &endpoint), endpoint.in_flight()), (0, 0));
    });
}

#[test]
fn an_idle_connection_that_ended_or_spoke_is_not_used() {
    for last_words in ["", "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"] {
        local(async {
            let (listener, address) = listen().await;
            let endpoint = endpoint(UrlScheme::Http, address, Side::Origin);
            let upstream = Upstream::new(LIMITS);
            let serve = async {
                let mut peer = Peer { socket: listener.accept().await.unwrap().0, inbox: Vec::new() };
                peer.head().await;
                peer.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                peer
            };
            let (mut peer, first) = tokio::join!(serve, outcome(&upstream, &endpoint, get("/")));
            assert_eq!((first.as_str(), idle(&upstream, &endpoint)), ("200 ok.", 1));
            // Loopback delivers before `write` and `shutdown` return, so the next check-out must see it: any event from the
            // kernel, as that which brings the next request, brings this one too.
            if last_words.is_empty() {
                peer.socket.shutdown().await.unwrap()
            } else {
                peer.say(last_words).await
            }
            turn().await;
            let again = async {
                let mut peer = Peer { socket: listener.accept().await.unwrap().0, inbox: Vec::new() };
                peer.head().await;
                peer.say("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnew").await;
            };
            let ((), second) = tokio::join!(again, outcome(&upstream, &endpoint, get("/")));
            assert_eq!(second, "200 new.", "{last_words:?}");
        });
    }
}

/// Waits for an event of the kernel.
async fn turn() {
    let (listener, address) = listen().await;
    let (mut one, two) = tokio::join!(async { TcpStream::connect(address).await.unwrap() }, listener.accept());
    let mut two = two.unwrap().0;
    two.write_all(b"x").await.unwrap();
    one.read_u8().await.unwrap();
}

#[test]
fn a_pooled_connection_that_dies_at_the_request_may_be_retried_if_idempotent() {
    local(async {
        let endpoint = origin(|_, mut peer| async move {
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            peer.head().await;
        })
        .await;
        let upstream = Upstream::new(LIMITS);
        assert_eq!(outcome(&upstream, &endpoint, get("/")).await, "200 ok.");
        assert_eq!(outcome(&upstream, &endpoint, get("/")).await, "connection_terminated IfIdempotent");
        assert_eq!(idle(&upstream, &endpoint), 0);
    });
}

#[test]
fn refused_and_silent() {
    local(async {
        let (listener, address) = listen().await;
        drop(listener);
        let upstream = Upstream::new(LIMITS);
        let nobody = endpoint(UrlScheme::Http, address, Side::Origin);
        for _ in 0..3 {
            assert!(nobody.is_up());
            assert_eq!(outcome(&upstream, &nobody, get("/")).await, "connection_refused Unsent");
        }
        assert!(!nobody.is_up());
        let silent = origin(|_, mut peer| async move { peer.closed().await }).await;
        let mut record = Record::start();
        let error = upstream.exchange(&silent, &mut get("/"), &waits(), &mut record).await.err().unwrap();
        assert_eq!((error.kind(), error.may_retry(), record.attempts), (Kind::HttpResponseTimeout, Again::Never, 1));
        assert_eq!(record.endpoint.as_deref(), Some(silent.authority()));
        let mut url = silent.url().clone();
        url.host = "no-such-host.invalid".to_owned();
        let spec = Spec { kind: Side::Origin, url, trust: None, connections_max: 1 };
        let unnamed = Arc::new(Endpoint::new(spec, Ok(None)));
        let slow = Timeouts { connect: Duration::from_secs(10), ..waits() };
        let error = upstream.exchange(&unnamed, &mut get("/"), &slow, &mut Record::start()).await.err().unwrap();
        assert!(matches!(error.kind(), Kind::DnsError | Kind::DnsTimeout) && error.may_retry() == Again::Unsent);
    });
}

#[test]
fn the_total_deadline_cuts_what_never_stalls() {
    local(async {
        let endpoint = origin(|_, mut peer| async move {
            peer.head().await;
            let _ = peer.socket.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            while peer.socket.write_all(b"1\r\nx\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let upstream = Upstream::new(LIMITS);
        let waits = Timeouts { total: Some(Duration::from_millis(300)), ..waits() };
        let mut answer = upstream.exchange(&endpoint, &mut get("/"), &waits, &mut Record::start()).await.unwrap();
        let text = read(&mut answer.body).await;
        assert!(text.starts_with("xxx") && text.ends_with("!http_response_timeout"), "{text}");
    });
}

#[test]
fn connections_are_bounded_and_waited_for() {
    local(async {
        let endpoint = answers("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", false).await;
        let upstream = Upstream::new(LIMITS);
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(upstream.door(&endpoint).pool.enter(Duration::ZERO).await.unwrap());
        }
        assert_eq!(outcome(&upstream, &endpoint, get("/")).await, "connection_limit_reached Unsent");
        let later = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            held.pop();
        };
        let (answer, ()) = tokio::join!(outcome(&upstream, &endpoint, get("/")), later);
        assert_eq!(answer, "200 ok.");
    });
}

#[test]
fn requests_are_framed_by_what_is_known_of_their_content() {
    local(async {
        let endpoint = origin(|_, mut peer| async move {
            loop {
                let head = peer.head().await;
                let body = match head.contains("chunked") {
                    true => peer.until("0\r\n").await + &peer.until("\r\n").await,
                    false if head.contains("content-length: 5") => peer.until("hello").await,
                    false => String::new(),
                };
                let text = format!("{head}{body}").replace("\r\n", "|");
                peer.say(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())).await;
            }
        })
        .await;
        let upstream = Upstream::new(LIMITS);
        let sent = async |method, body| outcome(&upstream, &endpoint, outgoing(method, "/p?q", body)).await;
        assert_eq!(sent(Method::Get, Body::Empty).await, "200 GET /p?q HTTP/1.1|host: site.example||.");
        assert_eq!(
            sent(Method::Post, Body::Empty).await,
            "200 POST /p?q HTTP/1.1|host: site.example|content-length: 0||."
        );
        assert_eq!(
            sent(Method::Put, Body::from("hello")).await,
            "200 PUT /p?q HTTP/1.1|host: site.example|content-length: 5||hello."
        );
        let (feed, body) = fed();
        for piece in [data("ab"), data("cde"), Ok(Piece::Trailers([("x-sum", "5")].into_iter().collect()))] {
            feed.send(piece).unwrap();
        }
        assert_eq!(
            sent(Method::Post, body).await,
            "200 POST /p?q HTTP/1.1|host: site.example|transfer-encoding: chunked||2|ab|3|cde|0|x-sum: 5|."
        );
    });
}

#[test]
fn a_failing_client_is_not_the_origins_fault() {
    local(async {
        let endpoint = origin(|_, mut peer| async move { peer.closed().await }).await;
        let upstream = Upstream::new(LIMITS);
        let (feed, body) = fed();
        feed.send(data("ab")).unwrap();
        feed.send(Err(Error::new(Kind::ClientClosed, "gone"))).unwrap();
        let error = exchange(&upstream, &endpoint, outgoing(Method::Put, "/", body)).await.err().unwrap();
        assert_eq!(
            (error.kind(), error.side(), error.may_retry()),
            (Kind::ClientClosed, crate::error::Side::Downstream, Again::Never)
        );
        assert_eq!(idle(&upstream, &endpoint), 0);
    });
}

#[test]
fn a_slow_client_does_not_run_out_the_origins_clock() {
    local(async {
        let endpoint = origin(|_, mut peer| async move {
            peer.until("0\r\n\r\n").await;
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            peer.closed().await;
        })
        .await;
        let upstream = Upstream::new(LIMITS);
        let (feed, body) = fed();
        let slowly = async move {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(200)).await;
                feed.send(data("x")).unwrap();
            }
        };
        let (answer, ()) = tokio::join!(outcome(&upstream, &endpoint, outgoing(Method::Post, "/", body)), slowly);
        assert_eq!(answer, "200 ok.");
        assert_eq!(idle(&upstream, &endpoint), 1);
    });
}

#[test]
fn an_early_refusal_stops_the_upload() {
    local(async {
        let endpoint = origin(|_, mut peer| async move {
            peer.head().await;
            peer.say("HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig").await;
            peer.closed().await;
        })
        .await;
        let upstream = Upstream::new(LIMITS);
        let (feed, body) = fed();
        feed.send(data("ab")).unwrap();
        assert_eq!(outcome(&upstream, &endpoint, outgoing(Method::Post, "/", body)).await, "413 big.");
        assert_eq!(idle(&upstream, &endpoint), 0, "half a request is on it");
        assert!(feed.is_closed(), "nobody reads the rest");
    });
}

#[test]
fn an_early_welcome_lets_the_upload_go_on() {
    local(async {
        let endpoint = origin(|_, mut peer| async move {
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            for _ in 0..3 {
                let chunk = peer.until("\r\n").await + &peer.until("\r\n").await;
                peer.say(&chunk).await;
            }
            peer.until("0\r\n\r\n").await;
            peer.say("0\r\n\r\n").await;
            peer.closed().await;
        })
        .await;
        let upstream = Upstream::new(LIMITS);
        let (feed, body) = fed();
        let mut answer = exchange(&upstream, &endpoint, outgoing(Method::Post, "/", body)).await.unwrap();
        for letter in ["a", "b", "c"] {
            feed.send(data(letter)).unwrap();
            match answer.body.next().await {
                Some(Ok(Piece::Data(octets))) => assert_eq!(octets, letter),
                other => panic!("{other:?}"),
            }
        }
        drop(feed);
        assert_eq!(read(&mut answer.body).await, ".");
        assert_eq!(idle(&upstream, &endpoint), 1);
    });
}

#[test]
fn a_complete_early_answer_waits_for_the_rest_of_its_request() {
    local(async {
        let endpoint = origin(|_, mut peer| async move {
            peer.head().await;
            peer.say("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
            assert!(peer.until("0\r\n\r\n").await.ends_with("rest\r\n0\r\n\r\n"));
            peer.closed().await;
        })
        .await;
        let upstream = Upstream::new(LIMITS);
        let (feed, body) = fed();
        let mut answer = exchange(&upstream, &endpoint, outgoing(Method::Post, "/", body)).await.unwrap();
        feed.send(data("rest")).unwrap();
        drop(feed);
        assert_eq!(read(&mut answer.body).await, ".");
        assert_eq!(idle(&upstream, &endpoint), 0, "who answers unheard may take the rest for the next request");
    });
}

#[test]
fn an_origin_that_takes_nothing_runs_out_of_time() {
    local(async {
        let endpoint = origin(|_, peer| async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(peer);
        })
        .await;
        let upstream = Upstream::new(LIMITS);
        let body = Body::from(vec![b'x'; 64 << 20]);
        let answer = outcome(&upstream, &endpoint, outgoing(Method::Put, "/", body)).await;
        assert_eq!(answer, "connection_write_timeout Never");
    });
}

/// Collects interim responses.
#[derive(Default)]
struct Heard(RefCell<Vec<u16>>);

impl Interim for Heard {
    fn send(&self, _request: u64, head: &ResponseHead) {
        self.0.borrow_mut().push(head.status);
    }
}

#[test]
fn interim_responses_are_passed_on_until_they_storm() {
    for (count, expected) in [(0, "200 ok."), (8, "200 ok."), (9, "http_protocol_error Never")] {
        local(async {
            let endpoint = origin(move |_, mut peer| async move {
                peer.head().await;
                peer.say(&"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(count)).await;
                peer.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                peer.closed().await;
            })
            .await;
            let (upstream, heard) = (Upstream::new(LIMITS), Rc::new(Heard::default()));
            let line = InterimLine::new(heard.clone(), 1);
            let request = Outgoing { interim: Some(line), ..get("/") };
            assert_eq!(outcome(&upstream, &endpoint, request).await, expected, "{count}");
            assert_eq!(*heard.0.borrow(), vec![103; count.min(9)]);
        });
    }
}

#[test]
fn content_waits_for_100_but_not_for_ever() {
    for asks in [true, false] {
        local(async {
            let endpoint = origin(move |_, mut peer| async move {
                assert!(peer.head().await.contains("expect: 100-continue"));
                if asks {
                    peer.say("HTTP/1.1 100 Continue\r\n\r\n").await;
                }
                peer.until("hello").await;
                peer.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                peer.closed().await;
            })
            .await;
            let (upstream, heard) = (Upstream::new(LIMITS), Rc::new(Heard::default()));
            let mut request = outgoing(Method::Put, "/", Body::from("hello"));
            made(&mut request).fields.add(Name::Expect, "100-continue");
            request.interim = Some(InterimLine::new(heard.clone(), 1));
            let waits = Timeouts { first_byte: Duration::from_secs(3), ..waits() };
            let before = clock::now();
            let answer = upstream.exchange(&endpoint, &mut request, &waits, &mut Record::start()).await.unwrap();
            assert_eq!(answer.head.status, 200);
            assert_eq!(*heard.0.borrow(), if asks { vec![100] } else { vec![] });
            assert_eq!(clock::now().duration_since(before) >= upload::CONTINUE_WAIT, !asks);
        });
    }
}

#[test]
fn a_refused_expectation_sends_no_content() {
    local(async {
        let endpoint = origin(|_, mut peer| async move {
            peer.head().await;
            peer.say("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await;
            peer.closed().await;
            assert!(peer.inbox.is_empty());
        })
        .await;
        let upstream = Upstream::new(LIMITS);
        let mut request = outgoing(Method::Put, "/", Body::from("hello"));
        made(&mut request).fields.add(Name::Expect, "100-continue");
        assert_eq!(outcome(&upstream, &endpoint, request).await, "401 .");
        assert_eq!(idle(&upstream, &endpoint), 0);
    });
}

#[test]
fn an_upgrade_becomes_a_tunnel_only_as_asked() {
    for (protocol, works) in [("websocket", true), ("WebSocket", true), ("h2c", false), ("websocket, h2c", false)] {
        local(async {
            let endpoint = origin(move |_, mut peer| async move {
                let head = peer.head().await;
                assert!(head.contains("connection: upgrade\r\nupgrade: websocket\r\n"), "{head}");
                let answer = format!("HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\r\nfirst");
                peer.say(&answer).await;
                let said = peer.until("ping").await;
                peer.say(&said).await;
            })
            .await;
            let upstream = Upstream::new(LIMITS);
            let request = Outgoing { upgrade: Some("websocket".to_owned()), ..get("/chat") };
            let answer = exchange(&upstream, &endpoint, request).await;
            if !works {
                assert_eq!(answer.err().unwrap().kind(), Kind::HttpUpgradeFailed, "{protocol}");
                return;
            }
            let mut tunnel = answer.unwrap().tunnel.unwrap();
            tunnel.write_all(b"ping").await.unwrap();
            let mut text = String::new();
            tunnel.read_to_string(&mut text).await.unwrap();
            assert_eq!((text.as_str(), endpoint.in_flight()), ("firstping", 1));
            drop(tunnel);
            assert_eq!(endpoint.in_flight(), 0);
        });
    }
}

#[test]
fn unix_sockets() {
    local(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        spawn_local(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            for _ in 0..2 {
                let mut head = [0; 512];
                let _ = socket.read(&mut head).await.unwrap();
                socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            }
        });
        let host = path.to_str().unwrap().to_owned();
        let url = Url { scheme: UrlScheme::Unix, host, port: 0, base: String::new() };
        let spec = Spec { kind: Side::Origin, url, trust: None, connections_max: 4 };
        let (upstream, endpoint) = (Upstream::new(LIMITS), Arc::new(Endpoint::new(spec, Ok(None))));
        assert_eq!(outcome(&upstream, &endpoint, get("/")).await, "200 ok.");
        assert_eq!(outcome(&upstream, &endpoint, get("/")).await, "200 ok.");
    });
}

fn cluster(kind: Side, balance: Balance, count: u16) -> Cluster {
    let endpoints = (1..=count).map(|port| endpoint(UrlScheme::Http, SocketAddr::from(([127, 0, 0, 1], port)), kind));
    Cluster::new("test", kind, balance, None, endpoints.collect(), None)
}

/// A cheap sequence of random numbers. Source: Steele et al., "Fast Splittable Pseudorandom Number Generators" (2014).
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[test]
fn p2c_spreads_evenly_and_avoids_the_busiest() {
    let (cluster, now, mut seed) = (cluster(Side::Origin, Balance::P2c, 4), clock::now(), 7);
    let mut spread = |busy: Option<usize>| {
        let _flights: Vec<_> = busy.map(|at| InFlight::enter(&cluster.endpoints()[at])).into_iter().collect();
        let mut counts = [0; 4];
        for _ in 0..8000 {
            let picked = cluster.pick(&[], random(&mut seed), now).unwrap();
            counts[cluster.endpoints().iter().position(|endpoint| Arc::ptr_eq(endpoint, picked)).unwrap()] += 1;
        }
        counts
    };
    let even = spread(None);
    assert!(even.iter().all(|count| (1800..2200).contains(count)), "{even:?}");
    let uneven = spread(Some(2));
    assert_eq!(uneven[2], 0, "it loses every comparison: {uneven:?}");
}

#[test]
fn round_robin_takes_turns_and_retries_go_elsewhere() {
    let (cluster, now) = (cluster(Side::Origin, Balance::RoundRobin, 3), clock::now());
    let ids: Vec<_> = (0..6).map(|_| cluster.pick(&[], 0, now).unwrap().id()).collect();
    assert_eq!(ids[..3], ids[3..]);
    let others: Vec<_> = (0..4).map(|_| cluster.pick(&ids[..2], 0, now).unwrap().id()).collect();
    assert_eq!(others, [ids[2]; 4]);
    assert!(cluster.pick(&ids[..3], 0, now).is_some(), "better the same again than none");
}

#[test]
fn a_dead_member_gets_turns_but_the_last_one_everything() {
    let (cluster, now) = (cluster(Side::Origin, Balance::P2c, 2), clock::now());
    let [dead, alive] = cluster.endpoints() else { panic!() };
    (0..3).for_each(|_| dead.breaker.failed(now));
    for seed in 0..20 {
        assert_eq!(cluster.pick(&[], seed << 40, now).unwrap().id(), alive.id());
    }
    let later = now + Duration::from_millis(250);
    let picked: Vec<_> = (0..5).map(|_| cluster.pick(&[], 0, later).unwrap().id()).collect();
    assert_eq!(picked, [dead.id(), alive.id(), alive.id(), alive.id(), alive.id()]);
    (0..3).for_each(|_| alive.breaker.failed(later));
    assert!(cluster.is_reachable(later) && cluster.pick(&[], 0, later).is_some(), "origins are never all ejected");
}

#[test]
fn a_dead_link_is_down_but_for_one_request_in_a_while() {
    let (cluster, now) = (cluster(Side::Link, Balance::P2c, 1), clock::now());
    let link = &cluster.endpoints()[0];
    assert!(cluster.is_reachable(now));
    (0..3).for_each(|_| link.breaker.failed(now));
    assert!(!cluster.is_reachable(now) && cluster.pick(&[], 0, now).is_none());
    let later = now + Duration::from_millis(250);
    assert!(cluster.is_reachable(later) && cluster.pick(&[], 0, later).is_some());
    assert!(!cluster.is_reachable(later) && cluster.pick(&[], 0, later).is_none());
    link.breaker.connected();
    assert!(cluster.is_reachable(later) && cluster.pick(&[], 0, later).is_some());
}

#[test]
fn retries_are_counted_against_the_active() {
    let cluster = cluster(Side::Origin, Balance::P2c, 1);
    let active: Vec<_> = (0..20).map(|_| cluster.begin()).collect();
    let retrying: Vec<_> = std::iter::from_fn(|| cluster.retry(20)).collect();
    assert_eq!((active.len(), cluster.active(), retrying.len()), (20, 20, 4));
    drop((active, retrying));
    assert_eq!((cluster.active(), std::iter::from_fn(|| cluster.retry(20)).take(9).collect::<Vec<_>>().len()), (0, 3));
}
