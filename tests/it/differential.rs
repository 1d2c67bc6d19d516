//! The engine against hyper: what we accept, hyper must understand the same; what hyper refuses, we refuse.
//!
//! Whole connections are compared, message by message, so that a hidden request would show as one that only one of the
//! two sees. We are stricter for the reasons in `STRICTER`, which is therefore also the list of what hyper lets pass. We
//! are looser in one thing: hyper refuses targets that are no URI by its own reckoning (such as `/<`); whether a target
//! makes sense is decided after the engine, in `message::request`.

#[path = "../../src/wire/tests/requests.rs"]
mod requests;
#[path = "../../src/wire/tests/responses.rs"]
mod responses;

use bytes::{Bytes, BytesMut};
use coordinator::error::Kind;
use coordinator::message::{Fields, Method, Name, RequestHead, ResponseHead, Scheme, Version};
use coordinator::wire::framing::{self, Sender};
use coordinator::wire::{Decoded, Decoder, HeadLimits, Parsed, Refusal, head};
use http_body_util::{BodyExt, Empty};
use hyper::{HeaderMap, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Wide, since hyper has other limits.
const LIMITS: HeadLimits = HeadLimits { head: 16 << 10, fields: 90, uri: 8 << 10 };

/// Details of refusals of messages that hyper accepts.
const STRICTER: [&str; 12] = [
    "CONNECT is not carried",
    "Transfer-Encoding is not exactly `chunked`",
    "bare LF",
    "both Content-Length and Transfer-Encoding",
    "chunk size too long",
    "control octet in a chunk extension",
    "empty lines before the request line",
    "fragment in the request target",
    "malformed chunk size",
    "method too long",
    "more than one Content-Length",
    "request target holds an octet that must be percent-encoded",
];

/// What one side made of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    /// Method and target, or status.
    start: String,
    /// Names in lower case, sorted; the order of one name's values kept.
    fields: Vec<(String, Vec<u8>)>,
    /// `None`: it was cut or malformed.
    content: Option<Vec<u8>>,
}

fn request_start(method: &str, target: &str) -> String {
    // `Uri` prints an empty path as `/`.
    format!("{method} {}", target.parse::<Uri>().map_or(target.to_owned(), |uri| uri.to_string()))
}

fn own_fields(fields: &Fields) -> Vec<(String, Vec<u8>)> {
    let name = |name: &[u8]| String::from_utf8_lossy(name).to_ascii_lowercase();
    let mut all: Vec<_> = fields.iter().map(|field| (name(field.name), field.value.to_vec())).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn hyper_fields(fields: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = fields.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// The content from the front of `buffer`; a refusal if it is malformed or cut.
fn own_content(mut decoder: Decoder, buffer: &mut BytesMut) -> Result<Vec<u8>, Refusal> {
    let mut content = Vec::new();
    loop {
        match decoder.decode(buffer)? {
            Decoded::Data(data) => content.extend_from_slice(&data),
            Decoded::End(_) => return Ok(content),
            Decoded::More => decoder.eof()?,
        }
    }
}

/// The requests of a connection up to the end, the first refusal or one that closes it.
fn own_requests(octets: &[u8]) -> (Vec<Seen>, Option<Refusal>) {
    let mut buffer = BytesMut::from(octets);
    let mut seen = Vec::new();
    loop {
        let head = match head::request(&buffer, Scheme::Http, &LIMITS) {
            Ok(Parsed::Partial) => return (seen, None),
            Err(refusal) => return (seen, Some(refusal)),
            Ok(Parsed::Whole(head, taken)) => {
                let _ = buffer.split_to(taken);
                head
            }
        };
        let content = framing::of_request(&head)
            .and_then(|framing| own_content(Decoder::new(framing, Sender::Client, 4096), &mut buffer));
        match content {
            Err(refusal) => return (seen, Some(refusal)),
            Ok(content) => seen.push(Seen {
                start: request_start(head.method.as_str(), &head.target),
                fields: own_fields(&head.fields),
                content: Some(content),
            }),
        }
        if closes(&head) {
            return (seen, None);
        }
    }
}

/// Whether hyper may stop after this request.
fn closes(head: &RequestHead) -> bool {
    head.version == Version::Http10 || head.fields.has(Name::Connection) || head.fields.has(Name::Upgrade)
}

/// The requests that hyper hands to its service.
async fn hyper_requests(octets: &[u8]) -> Vec<Seen> {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let service = hyper::service::service_fn({
        let seen = seen.clone();
        move |request: Request<hyper::body::Incoming>| {
            let seen = seen.clone();
            async move {
                let start = format!("{} {}", request.method(), request.uri());
                let fields = hyper_fields(request.headers());
                let content = request.into_body().collect().await.ok().map(|body| body.to_bytes().to_vec());
                seen.borrow_mut().push(Seen { start, fields, content });
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        }
    });
    client.write_all(octets).await.expect("room");
    client.shutdown().await.expect("open");
    let served =
        hyper::server::conn::http1::Builder::new().half_close(true).serve_connection(TokioIo::new(server), service);
    let (_, _) = tokio::join!(served, drain(client));
    seen.take()
}

async fn drain(mut stream: DuplexStream) {
    let mut ignored = Vec::new();
    let _ = stream.read_to_end(&mut ignored).await;
}

/// What a comparison of many connections found.
#[derive(Default)]
struct Tally {
    /// Messages that both sides understood the same.
    agreed: usize,
    /// Why we refuse what hyper accepts, with an example each.
    stricter: BTreeMap<&'static str, String>,
}

/// Compares one connection, message by message.
async fn compare_requests(octets: &[u8], tally: &mut Tally) {
    let (ours, refusal) = own_requests(octets);
    let theirs = hyper_requests(octets).await;
    let shown = || format!("{}\n ours: {ours:?} {refusal:?}\nhyper: {theirs:?}", octets.escape_ascii());
    for (at, seen) in ours.iter().enumerate() {
        match theirs.get(at) {
            Some(other) => assert_eq!(seen, other, "{}", shown()),
            None => {
                let target = seen.start.split_once(' ').map_or("", |(_, target)| target);
                assert!(target.parse::<Uri>().is_err(), "hyper refuses what we accept: {}", shown());
                return;
            }
        }
        tally.agreed += 1;
    }
    let accepted = theirs.get(ours.len()).is_some_and(|seen| seen.content.is_some());
    if let Some(refusal) = refusal.filter(|_| accepted) {
        tally.stricter.entry(refusal.detail).or_insert_with(|| octets.escape_ascii().to_string());
    }
}

fn run(comparison: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(comparison);
}

fn all_requests() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = requests::REFUSED.iter().map(|row| row.0.to_vec()).collect();
    all.extend(requests::READ.iter().map(|row| row.0.to_vec()));
    all.extend(requests::PARTIAL.iter().map(|row| row.to_vec()));
    let chunked = &b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"[..];
    all.extend(requests::BAD_CHUNKS.iter().map(|body| [chunked, body].concat()));
    all
}

/// The seed of the changed messages; `SEED=n` tries another.
fn seed() -> u64 {
    let seed = std::env::var("SEED").map_or(1, |text| text.parse().expect("SEED is a number"));
    println!("SEED={seed}");
    seed
}

/// `count` messages that are rows with a few octets changed, put in or left out.
fn changed(rows: &[Vec<u8>], count: usize) -> Vec<Vec<u8>> {
    const OCTETS: &[u8] = b"\r\n\t :;,\"\\0123afxA/\0\x7f\x80";
    let mut state = seed();
    let mut below = move |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    let change = |_| {
        let mut row = rows[below(rows.len())].clone();
        for _ in 0..1 + below(3) {
            let (at, octet) = (below(row.len() + 1), OCTETS[below(OCTETS.len())]);
            match below(3) {
                0 => row.insert(at, octet),
                1 if at < row.len() => row[at] = octet,
                _ if at < row.len() => drop(row.remove(at)),
                _ => {}
            }
        }
        row
    };
    (0..count).map(change).collect()
}

#[test]
fn requests_mean_the_same_to_hyper() {
    run(async {
        let rows = all_requests();
        let read: Vec<Vec<u8>> = requests::READ.iter().map(|row| row.0.to_vec()).collect();
        let of_rows = compare_all(&rows).await;
        let of_changed = compare_all(&[changed(&rows, 2000), changed(&read, 8000)].concat()).await;
        assert!(of_rows.agreed > 50 && of_changed.agreed > 1000, "too few were accepted to mean anything");
        let found = of_rows.stricter.iter().chain(&of_changed.stricter);
        let news: Vec<_> = found.filter(|(detail, _)| !STRICTER.contains(detail)).collect();
        assert!(news.is_empty(), "hyper accepts what we refuse, and STRICTER does not say so: {news:#?}");
        let old: Vec<_> = STRICTER.iter().filter(|detail| !of_rows.stricter.contains_key(**detail)).collect();
        assert!(old.is_empty(), "hyper refuses these by now, or no row shows it: {old:?}");
    });
}

/// Compares each connection, alone and with a second request behind it.
async fn compare_all(connections: &[Vec<u8>]) -> Tally {
    let mut tally = Tally::default();
    for octets in connections {
        compare_requests(octets, &mut tally).await;
        let followed = [octets, &b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"[..]].concat();
        compare_requests(&followed, &mut tally).await;
    }
    tally
}

/// What hyper's client makes of one answer to GET.
async fn hyper_response(octets: &[u8]) -> Option<Seen> {
    let (client, mut server) = tokio::io::duplex(1 << 20);
    let answer = async move {
        server.read_u8().await.expect("a request");
        server.write_all(octets).await.expect("room");
        server.shutdown().await.expect("open");
        drain(server).await;
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client)).await.expect("a client");
    let exchange = async move {
        let request = Request::get("/").body(Empty::<Bytes>::new()).expect("a request");
        let response = sender.send_request(request).await.ok()?;
        let (start, fields) = (response.status().as_u16().to_string(), hyper_fields(response.headers()));
        let content = response.into_body().collect().await.ok().map(|body| body.to_bytes().to_vec());
        Some(Seen { start, fields, content })
    };
    tokio::join!(connection, exchange, answer).1
}

/// The first final answer; `None` if there is none.
fn own_response(octets: &[u8]) -> Result<Option<Seen>, Refusal> {
    let mut buffer = BytesMut::from(octets);
    loop {
        let Parsed::Whole(head, taken) = head::response(&buffer, &LIMITS)? else { return Ok(None) };
        let _ = buffer.split_to(taken);
        let framing = framing::of_response(&head, &Method::Get)?;
        if !head.is_interim() {
            return own_answer(&head, Decoder::new(framing, Sender::Origin, 4096), &mut buffer).map(Some);
        }
    }
}

fn own_answer(head: &ResponseHead, decoder: Decoder, buffer: &mut BytesMut) -> Result<Seen, Refusal> {
    let mut decoder = decoder;
    let content = if framing::of_response(head, &Method::Get)? == framing::Framing::UntilClose {
        decoder.eof()?;
        buffer.split().to_vec()
    } else {
        own_content(decoder, buffer)?
    };
    Ok(Seen { start: head.status.to_string(), fields: own_fields(&head.fields), content: Some(content) })
}

#[test]
fn responses_mean_the_same_to_hyper() {
    run(async {
        let mut rows: Vec<Vec<u8>> = responses::REFUSED.iter().map(|row| row.0.to_vec()).collect();
        rows.extend(responses::READ.iter().map(|row| row.0.to_vec()));
        let chunked = &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..];
        rows.extend(requests::BAD_CHUNKS.iter().map(|body| [chunked, body].concat()));
        let read: Vec<Vec<u8>> = responses::READ.iter().map(|row| row.0.to_vec()).collect();
        let mut agreed = 0;
        for octets in rows.iter().chain(&changed(&rows, 2000)).chain(&changed(&read, 8000)) {
            let Ok(Some(ours)) = own_response(octets) else { continue };
            let theirs = hyper_response(octets).await;
            assert_eq!(theirs.as_ref(), Some(&ours), "{}", octets.escape_ascii());
            agreed += 1;
        }
        assert!(agreed > 500, "too few were accepted to mean anything");
    });
}
