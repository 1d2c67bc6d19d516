//! Central as its API shows it: what is granted, what is refused and why, what survives a restart.

use coordinator::body::{Body, Door, Downstream, Identity, Piece, Request, Response};
use coordinator::central::{Begun, Central};
use coordinator::config::plan::BearerToken;
use coordinator::home::event::{Event, Frame, Received};
use coordinator::home::snapshot::{Decoder, Part};
use coordinator::message::{Method, Name, RequestHead, Scheme};
use serde_json::{Value, json};
use std::cell::OnceCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const BACKLOG: u64 = 1000;

pub fn open(data: &Path) -> Arc<Central> {
    try_open(data, &["fr", "de"]).unwrap()
}

/// A Central of whose data its operator says that they are a copy.
pub fn open_restored(data: &Path) -> Arc<Central> {
    Central::start_as(data, &named(&["fr", "de"]), BACKLOG, Begun::Restored).unwrap()
}

fn try_open(data: &Path, edges: &[&str]) -> Result<Arc<Central>, String> {
    Central::start(data, &named(edges), BACKLOG)
}

fn named(edges: &[&str]) -> Vec<(String, Option<String>)> {
    edges.iter().map(|name| (name.to_string(), Some(format!("https://{name}.test:8444")))).collect()
}

/// Someone who calls Central.
struct Caller {
    central: Arc<Central>,
    identity: Identity,
    fields: Vec<(&'static str, String)>,
    tokens: Vec<BearerToken>,
}

impl Caller {
    fn new(central: &Arc<Central>, identity: Identity) -> Caller {
        Caller { central: central.clone(), identity, fields: Vec::new(), tokens: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: &str) -> Caller {
        self.fields.push((name, value.to_owned()));
        self
    }

    async fn send(&self, line: &str, body: impl Into<Body>) -> Response {
        let (method, target) = line.split_once(' ').unwrap();
        let mut head = RequestHead::new(Method::parse(method.as_bytes()).unwrap(), target);
        self.fields.iter().for_each(|(name, value)| head.fields.push(name.as_bytes(), value.as_bytes()));
        let address = "127.0.0.1:1".parse().unwrap();
        let from = Rc::new(Downstream {
            client: address,
            scheme: Scheme::Https,
            sni: None,
            door: Door::Central,
            identity: self.identity.clone(),
            logged: OnceCell::new(),
        });
        self.central.call(Request { head: head.into(), body: body.into(), interim: None, from }, &self.tokens).await
    }

    /// Status and JSON of the answer.
    async fn ask(&self, line: &str, body: &str) -> (u16, Value) {
        let response = self.send(line, body.to_owned()).await;
        let status = response.head.status;
        let text = response.body.collect(1 << 20).await.unwrap().unwrap();
        (status, serde_json::from_slice(&text).unwrap_or(Value::Null))
    }

    async fn put(&self, key: &str, home: &str) -> (u16, Value) {
        self.ask(&format!("PUT /v1/homes/user/{key}"), &json!({ "home": home }).to_string()).await
    }

    async fn claim(&self, key: &str, edge: &str) -> (u16, Value) {
        let claim = json!({ "space": "user", "key": key, "edge": edge, "id": "1" });
        self.ask("POST /v1/claims", &claim.to_string()).await
    }
}

struct World {
    _data: TempDir,
    central: Arc<Central>,
    app: Caller,
}

fn world() -> World {
    let data = tempfile::tempdir().unwrap();
    let central = open(data.path());
    let app = Caller::new(&central, Identity::App);
    World { _data: data, central, app }
}

fn edge(world: &World, name: &str) -> Caller {
    Caller::new(&world.central, Identity::Edge(name.to_owned()))
}

/// The members of an answer that a test names.
fn pick(value: &Value, names: &[&str]) -> Value {
    Value::Object(names.iter().filter_map(|name| Some((name.to_string(), value.get(name)?.clone()))).collect())
}

#[tokio::test]
async fn homes_are_created_and_never_changed() {
    let world = world();
    let app = &world.app;
    let (status, put) = app.put("448", "fr").await;
    assert_eq!((status, pick(&put, &["home", "epoch", "seq"])), (201, json!({ "home": "fr", "epoch": 1, "seq": 3 })));
    assert_eq!(app.put("448", "fr").await.0, 200);
    let (status, refused) = app.put("448", "de").await;
    assert_eq!((status, pick(&refused, &["home", "epoch"])), (409, json!({ "home": "fr", "epoch": 1 })));
    assert!(refused["detail"].as_str().unwrap().contains("moves are not built yet"), "{refused}");
    let (status, refused) = app.ask("DELETE /v1/homes/user/448", "").await;
    assert_eq!((status, pick(&refused, &["home", "epoch"])), (409, json!({ "home": "fr", "epoch": 1 })));
    assert_eq!(app.ask("DELETE /v1/homes/user/449", "").await.0, 404);
    assert_eq!(app.ask("DELETE /v1/homes/user/448?force=fenced", "").await.0, 501);
    assert_eq!(app.put("449", "mars").await.0, 422);
    let (status, home) = app.ask("GET /v1/homes/user/448", "").await;
    let expected = json!({ "home": "fr", "epoch": 1, "state": "active", "seq": 3 });
    assert_eq!((status, pick(&home, &["home", "epoch", "state", "seq"])), (200, expected));
    let (status, none) = app.ask("GET /feed/v1/user/user:449", "").await;
    assert_eq!((status, &none["seq"]), (404, &json!(3)));
}

#[tokio::test]
async fn malformed_requests_are_told_what_is_wrong() {
    let world = world();
    let long = format!("PUT /v1/homes/user/{}", "k".repeat(256));
    let huge = format!(r#"{{"home":"{}"}}"#, "x".repeat(70_000));
    for (line, body, status) in [
        ("GET /", "", 404),
        ("GET /v1", "", 404),
        ("GET /feed/v1/user", "", 404),
        ("GET /v1/homes/user/448/x", "", 404),
        ("POST /v1/moves", "{}", 501),
        ("POST /v1/homes/user/448", "", 405),
        ("PATCH /v1/homes", "", 405),
        ("GET /v1/claims", "", 405),
        ("PUT /v1/homes/user/448", "", 400),
        ("PUT /v1/homes/user/448", "[]", 400),
        ("PUT /v1/homes/user/448", r#"{"home":"fr","hom":1}"#, 400),
        ("PUT /v1/homes/user/448", &huge, 413),
        ("PUT /v1/homes/USER/448", r#"{"home":"fr"}"#, 400),
        ("PUT /v1/homes/user/", r#"{"home":"fr"}"#, 400),
        ("PUT /v1/homes/user/%0a", r#"{"home":"fr"}"#, 400),
        ("PUT /v1/homes/user/%ff", r#"{"home":"fr"}"#, 400),
        ("PUT /v1/homes/user/%zz", r#"{"home":"fr"}"#, 400),
        (&long, r#"{"home":"fr"}"#, 400),
        ("PUT /v1/homes/user/a%2Fb%20c", r#"{"home":"fr"}"#, 201),
        ("GET /v1/homes/user/a%2fb%20c", "", 200),
        ("GET /feed/v1/user/user:a%2fb%20c", "", 200),
        ("GET /feed/v1/user/user", "", 400),
        ("GET /v1/homes?space=US%20ER", "", 400),
    ] {
        let response = world.app.send(line, body.to_owned()).await;
        assert_eq!(response.head.status, status, "{line}");
        assert_eq!(response.head.fields.has(Name::Allow), status == 405, "{line}");
        if status >= 400 {
            assert_eq!(response.head.fields.text(Name::ContentType), Some("application/problem+json"), "{line}");
            let text = response.body.collect(1 << 16).await.unwrap().unwrap();
            let problem: Value = serde_json::from_slice(&text).unwrap();
            assert!(problem["status"] == status && !problem["detail"].as_str().unwrap().is_empty(), "{problem}");
        }
    }
    assert!(world.app.send("HEAD /v1/status", Body::Empty).await.body.is_empty());
}

#[tokio::test]
async fn the_first_claim_wins_and_a_repeated_one_is_the_same() {
    let world = world();
    let (fr, de) = (edge(&world, "fr"), edge(&world, "de"));
    let names = ["result", "home", "epoch", "seq"];
    let granted = json!({ "result": "granted", "home": "fr", "epoch": 1, "seq": 3 });
    for _ in 0..2 {
        let (status, claim) = fr.claim("448", "fr").await;
        assert_eq!((status, pick(&claim, &names)), (200, granted.clone()));
    }
    let (status, claim) = de.claim("448", "de").await;
    assert_eq!((status, &claim["result"], &claim["home"]), (200, &json!("exists"), &json!("fr")));
    assert_eq!(world.central.head(), 3);
    let claim = json!({ "key": "7", "edge": "fr", "feed": "0".repeat(32), "at": 0 });
    assert_eq!(fr.ask("POST /v1/claims", &claim.to_string()).await.0, 409);
    let claim = json!({ "key": "7", "edge": "fr", "feed": world.central.feed_id(), "at": 4 });
    assert_eq!(fr.ask("POST /v1/claims", &claim.to_string()).await.0, 409);
    let claim = json!({ "key": "7", "edge": "fr", "feed": world.central.feed_id(), "at": 3 });
    assert_eq!(fr.ask("POST /v1/claims", &claim.to_string()).await.0, 200);
}

#[tokio::test]
async fn of_many_claims_at_once_one_is_granted() {
    let world = world();
    let (fr, de) = (edge(&world, "fr"), edge(&world, "de"));
    let claims = (0..200).map(|n| {
        let (caller, name) = if n % 2 == 0 { (&fr, "fr") } else { (&de, "de") };
        async move { (n / 20, name, caller.claim(&format!("{}", n / 20), name).await.1) }
    });
    let answers = futures_util::future::join_all(claims).await;
    for key in 0..10 {
        let mut of_key = answers.iter().filter(|(n, ..)| *n == key);
        let home = answers.iter().find(|(n, ..)| *n == key).unwrap().2["home"].clone();
        assert!(of_key.all(|(_, name, answer)| {
            answer["home"] == home && (answer["result"] == "granted") == (answer["home"] == **name)
        }));
    }
    assert_eq!(world.central.head(), 12);
}

#[tokio::test]
async fn everybody_may_do_only_what_the_certificate_says() {
    let world = world();
    world.app.put("1", "fr").await;
    let feed = world.central.feed_id();
    let stream = format!("GET /feed/v1/stream?feed={feed}&from=1");
    let claim = |edge: &str| format!(r#"{{"key":"1","edge":"{edge}"}}"#);
    let ack = |edge: &str| format!(r#"{{"edge":"{edge}","applied":3}}"#);
    let put = r#"{"home":"fr"}"#.to_owned();
    let requests = [
        ("GET /v1/homes/user/1", String::new()),
        ("PUT /v1/homes/user/1", put),
        ("POST /v1/homes", String::new()),
        (&stream, String::new()),
        ("GET /feed/v1/snapshot", String::new()),
        ("POST /v1/claims", claim("fr")),
        ("POST /v1/claims", claim("de")),
        ("POST /feed/v1/ack", ack("fr")),
        ("POST /feed/v1/ack", ack("de")),
        ("GET /v1/status", String::new()),
    ];
    for (caller, expected) in [
        (Caller::new(&world.central, Identity::Edge("fr".into())), [200, 403, 403, 200, 200, 200, 403, 204, 403, 200]),
        (Caller::new(&world.central, Identity::Edge("xx".into())), [200, 403, 403, 200, 200, 403, 403, 403, 403, 200]),
        (Caller::new(&world.central, Identity::App), [200, 200, 200, 200, 403, 403, 403, 403, 403, 200]),
        (Caller::new(&world.central, Identity::Operator), [200, 200, 200, 200, 403, 403, 403, 403, 403, 200]),
        (Caller::new(&world.central, Identity::Central), [200, 403, 403, 200, 200, 403, 403, 403, 403, 200]),
        (Caller::new(&world.central, Identity::Anyone), [403; 10]),
        (Caller::new(&world.central, Identity::Loopback), [200, 200, 200, 200, 200, 200, 200, 204, 204, 200]),
        (
            Caller::new(&world.central, Identity::Loopback).with("coordinator-edge", "fr"),
            [200, 200, 200, 200, 200, 200, 403, 204, 403, 200],
        ),
        // A certificate is believed, a field beside it is not.
        (
            Caller::new(&world.central, Identity::Edge("de".into())).with("coordinator-edge", "fr"),
            [200, 403, 403, 200, 200, 403, 200, 403, 204, 200],
        ),
    ] {
        for ((line, body), status) in requests.iter().zip(expected) {
            let got = caller.send(line, body.clone()).await.head.status;
            assert_eq!(got, status, "{:?} {:?} {line} {body}", caller.identity, caller.fields);
        }
    }
}

#[tokio::test]
async fn what_was_answered_survives_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let central = open(data.path());
    let feed = central.feed_id().to_owned();
    let app = Caller::new(&central, Identity::App);
    for n in 0..300 {
        assert_eq!(app.put(&n.to_string(), if n % 3 == 0 { "de" } else { "fr" }).await.0, 201);
    }
    assert!(try_open(data.path(), &[]).err().unwrap().contains("another Central"));
    central.shutdown();
    assert_eq!(app.put("300", "fr").await.0, 503);
    drop((central, app));

    // What was being written when the power went was acknowledged to nobody.
    let log = std::fs::read_dir(data.path()).unwrap().map(|entry| entry.unwrap().path());
    let log = log.filter(|path| path.extension().is_some_and(|end| end == "log")).max().unwrap();
    let mut octets = std::fs::read(&log).unwrap();
    octets.extend_from_within(44..144);
    std::fs::write(&log, octets).unwrap();

    let central = try_open(data.path(), &["us", "fr"]).unwrap();
    assert_eq!((central.feed_id(), central.head()), (feed.as_str(), 303));
    let app = Caller::new(&central, Identity::App);
    assert_eq!(app.ask("GET /v1/homes/user/299", "").await.1["home"], "fr");
    assert_eq!(app.ask("GET /v1/homes/user/297", "").await.1["home"], "de");
    let (_, edges) = app.ask("GET /v1/edges", "").await;
    let names: Vec<_> = edges["edges"].as_array().unwrap().iter().map(|edge| edge["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["fr", "de", "us"]);
    assert_eq!(app.put("300", "us").await.1["seq"], 304);
}

#[tokio::test]
async fn damage_to_what_was_durable_stops_central() {
    let data = tempfile::tempdir().unwrap();
    let central = open(data.path());
    let app = Caller::new(&central, Identity::App);
    for n in 0..5 {
        app.put(&n.to_string(), "fr").await;
    }
    central.shutdown();
    let log = std::fs::read_dir(data.path()).unwrap().map(|entry| entry.unwrap().path());
    let log = log.filter(|path| path.extension().is_some_and(|end| end == "log")).max().unwrap();
    let mut octets = std::fs::read(&log).unwrap();
    octets[100] ^= 1;
    std::fs::write(&log, octets).unwrap();
    let why = try_open(data.path(), &[]).err().unwrap();
    assert!(why.contains("damaged") && why.contains("copy"), "{why}");
}

/// A stream as its follower reads it.
struct Follower {
    body: Body,
    held: Vec<u8>,
}

impl Follower {
    async fn open(caller: &Caller, from: u64) -> Follower {
        let line = format!("GET /feed/v1/stream?feed={}&term=1&from={from}", caller.central.feed_id());
        let response = caller.send(&line, Body::Empty).await;
        assert_eq!(response.head.status, 200);
        Follower { body: response.body, held: Vec::new() }
    }

    /// The next frame; `None` at the end.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(end) = self.held.iter().position(|&octet| octet == b'\n') {
                let line: Vec<u8> = self.held.drain(..=end).collect();
                let Received::Whole(frame) = Frame::read(&line).unwrap() else { panic!("poison") };
                return Some(frame);
            }
            let piece = tokio::time::timeout(Duration::from_secs(5), self.body.next()).await.unwrap();
            match piece?.unwrap() {
                Piece::Data(octets) => self.held.extend_from_slice(&octets),
                Piece::Trailers(_) => {}
            }
        }
    }

    /// The events until `last`, each batch continuing the one before it.
    async fn until(&mut self, mut cursor: u64, until: u64) -> Vec<Event> {
        let mut events = Vec::new();
        while cursor < until {
            if let Some(Frame::Batch { first, last, ev, .. }) = self.next().await {
                assert_eq!(first, cursor + 1);
                assert!(ev.iter().all(|event| event.s >= first && event.s <= last));
                cursor = last;
                events.extend(ev);
            }
        }
        events
    }
}

#[tokio::test]
async fn a_stream_starts_with_the_edges_and_goes_on_live() {
    let world = world();
    for n in 0..5 {
        world.app.put(&n.to_string(), "fr").await;
    }
    let mut stream = Follower::open(&edge(&world, "fr"), 1).await;
    let Some(Frame::Edges { s: 2, edges }) = stream.next().await else { panic!() };
    assert_eq!(edges.iter().map(|edge| (edge.idx, edge.name.as_str())).collect::<Vec<_>>(), [(0, "fr"), (1, "de")]);
    let events = stream.until(0, 7).await;
    assert_eq!(
        events.iter().map(|event| event.k.as_str()).collect::<Vec<_>>().join(" "),
        "user:0 user:1 user:2 user:3 user:4"
    );

    // A second follower, later and further on; the first one has not read for a while.
    let mut late = Follower::open(&edge(&world, "de"), 8).await;
    world.app.put("5", "de").await;
    for (stream, cursor) in [(&mut late, 7), (&mut stream, 7)] {
        let events = stream.until(cursor, 8).await;
        assert_eq!((events.len(), events[0].h.as_str(), events[0].c.as_str()), (1, "de", "put"));
    }
    let beat = loop {
        if let Some(Frame::Hb { head, oldest, .. }) = stream.next().await {
            break (head, oldest);
        }
    };
    assert_eq!(beat, (8, 1));
    world.central.shutdown();
    let bye = loop {
        match stream.next().await {
            Some(Frame::Bye { .. }) => break stream.next().await,
            Some(_) => {}
            None => panic!("no bye"),
        }
    };
    assert_eq!(bye, None);
}

#[tokio::test]
async fn a_stream_that_cannot_start_says_why() {
    let world = world();
    let rows: String = (0..2 * BACKLOG).map(|n| format!("user,{n},fr\n")).collect();
    let import = Caller::new(&world.central, Identity::App).with("content-type", "text/csv");
    assert_eq!(import.ask("POST /v1/homes", &rows).await.1["created"], 2 * BACKLOG);
    let (feed, head) = (world.central.feed_id().to_owned(), world.central.head());
    let oldest = head - BACKLOG + 1;
    let other = "0".repeat(32);
    let fr = edge(&world, "fr");
    for (query, status) in [
        (format!("feed={feed}&term=1&from={oldest}"), 200),
        (format!("feed={feed}&from={}", head + 1), 200),
        (format!("feed={feed}&term=1&from={}", head + 2), 416),
        (format!("feed={feed}&term=1&from={}", u64::MAX), 416),
        (format!("feed={feed}&term=1&from={}", oldest - 1), 410),
        (format!("feed={feed}&term=2&from={oldest}"), 409),
        (format!("feed={other}&term=1&from=1"), 409),
        ("from=1".to_owned(), 409),
        (format!("feed={feed}&term=1&from=0"), 400),
        (format!("feed={feed}&term=1&from=-1"), 400),
        (format!("feed={feed}&term=1"), 400),
    ] {
        let response = fr.send(&format!("GET /feed/v1/stream?{query}"), Body::Empty).await;
        assert_eq!(response.head.status, status, "{query}");
        if [409, 410, 416].contains(&status) {
            let text = response.body.collect(1 << 16).await.unwrap().unwrap();
            let problem: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!((problem["oldest"].as_u64(), problem["head"].as_u64()), (Some(oldest), Some(head)), "{query}");
        }
    }
}

#[tokio::test]
async fn a_snapshot_holds_everything_plain_and_packed() {
    let world = world();
    let rows: String = (0..20_000).map(|n| format!("user,{n},{}\n", if n % 4 == 0 { "de" } else { "fr" })).collect();
    let import = Caller::new(&world.central, Identity::App).with("content-type", "text/csv");
    import.ask("POST /v1/homes", &rows).await;
    let mut seen = Vec::new();
    for coding in ["identity", "gzip, zstd;q=0.5", "zstd;q=0"] {
        let caller = edge(&world, "fr").with("accept-encoding", coding);
        let response = caller.send("GET /feed/v1/snapshot", Body::Empty).await;
        assert_eq!(response.head.fields.named("feed-seq").next(), Some(&b"20002"[..]));
        let packed = response.head.fields.has(Name::ContentEncoding);
        assert_eq!(packed, coding.contains("q=0.5"), "{coding}");
        let mut octets = response.body.collect(10 << 20).await.unwrap().unwrap().to_vec();
        if packed {
            use tokio::io::AsyncReadExt;
            let mut unpacked = Vec::new();
            let mut decoder = async_compression::tokio::bufread::ZstdDecoder::new(&octets[..]);
            decoder.read_to_end(&mut unpacked).await.unwrap();
            octets = unpacked;
        }
        let (mut decoder, mut parts) = (Decoder::default(), Vec::new());
        decoder.push(&octets, &mut parts).unwrap();
        let Some(Part::Header(header)) = parts.first() else { panic!() };
        assert_eq!((header.feed.to_string().as_str(), header.seq), (world.central.feed_id(), 20_002));
        assert_eq!(parts.last(), Some(&Part::End(20_000)));
        let homes = parts.iter().flat_map(|part| match part {
            Part::Rows(rows) => rows.iter().map(|row| usize::from(row.home)).collect(),
            _ => Vec::new(),
        });
        assert_eq!(homes.sum::<usize>(), 5_000);
        seen.push(octets);
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test]
async fn many_homes_go_in_and_come_out() {
    let world = world();
    let lines = [
        r#"{"key":"a","home":"fr"}"#,
        r#"{"space":"shop","key":"ü,\"","home":"de","epoch":9}"#,
        "",
        r#"{"key":"b","home":"mars"}"#,
        r#"{"key":"a","home":"de"}"#,
        r#"{"key":"a","home":"fr"}"#,
        r#"{"key":"a"}"#,
        r#"{"key":"","home":"fr"}"#,
        "nonsense",
        &"x".repeat(10_000),
        r#"{"key":"last","home":"fr"}"#,
    ];
    let (status, answer) = world.app.ask("POST /v1/homes", &lines.join("\n")).await;
    assert_eq!(status, 200, "{answer}");
    let counts = json!({ "created": 3, "same": 1, "refused_count": 6 });
    assert_eq!(pick(&answer, &["created", "same", "refused_count"]), counts, "{answer}");
    let refused: Vec<_> =
        answer["refused"].as_array().unwrap().iter().map(|line| line["line"].as_u64().unwrap()).collect();
    assert_eq!(refused, [4, 5, 7, 8, 9, 10]);

    let csv = Caller::new(&world.central, Identity::App).with("content-type", "text/csv; charset=utf-8");
    let (_, answer) = csv.ask("POST /v1/homes", "space,key,home\r\n,c,de\r\nuser,a,fr\r\nuser,x\r\n").await;
    let counts = json!({ "created": 1, "same": 1, "refused_count": 1 });
    assert_eq!(pick(&answer, &["created", "same", "refused_count"]), counts, "{answer}");

    let export = world.app.send("GET /v1/homes", Body::Empty).await.body.collect(1 << 20).await.unwrap().unwrap();
    assert_eq!(export.iter().filter(|&&octet| octet == b'\n').count(), 4);
    let only =
        world.app.send("GET /v1/homes?space=shop", Body::Empty).await.body.collect(1 << 20).await.unwrap().unwrap();
    let only: Value = serde_json::from_slice(&only).unwrap();
    assert_eq!(only, json!({ "space": "shop", "key": "ü,\"", "home": "de", "epoch": 1 }));

    let other = self::world();
    let (_, answer) = other.app.ask("POST /v1/homes", std::str::from_utf8(&export).unwrap()).await;
    assert_eq!(pick(&answer, &["created", "refused_count"]), json!({ "created": 4, "refused_count": 0 }));
    let again = other.app.send("GET /v1/homes", Body::Empty).await.body.collect(1 << 20).await.unwrap().unwrap();
    assert_eq!(again, export);

    let pictures = Caller::new(&world.central, Identity::App).with("content-type", "image/png");
    assert_eq!(pictures.ask("POST /v1/homes", "x").await.0, 415);
}

#[tokio::test]
async fn refused_lines_are_listed_to_a_bound_and_counted_beyond() {
    let world = world();
    let rows = "nonsense\n".repeat(5_000);
    let (_, answer) = world.app.ask("POST /v1/homes", &rows).await;
    assert_eq!((answer["refused"].as_array().unwrap().len(), &answer["refused_count"]), (1000, &json!(5000)));
}

#[tokio::test]
async fn the_status_shows_how_far_each_edge_is() {
    let world = world();
    let fr = edge(&world, "fr");
    assert_eq!(
        fr.ask("POST /feed/v1/ack", r#"{"edge":"fr","inst":"i1","applied":2,"durable":1,"more":1}"#).await.0,
        204
    );
    let (_, status) = world.app.ask("GET /v1/status", "").await;
    assert_eq!((&status["head"], &status["feed"]), (&json!(2), &json!(world.central.feed_id())));
    let ack = pick(&status["edges"][0]["ack"], &["inst", "applied", "durable"]);
    assert_eq!(ack, json!({ "inst": "i1", "applied": 2, "durable": 1 }));
    assert_eq!(status["edges"][1]["ack"], Value::Null);
}

#[tokio::test]
async fn what_an_instance_understands_is_known_once_it_opens_a_stream() {
    let world = world();
    let feed = world.central.feed_id();
    let open = async |name: &str, inst: &str, features: &str| {
        let caller = edge(&world, name).with("coordinator-instance", inst).with("coordinator-features", features);
        caller.send(&format!("GET /feed/v1/stream?feed={feed}&term=1&from=3"), Body::Empty).await
    };
    let ours = coordinator::home::event::FEATURES.join(",");
    let _streams = [open("fr", "a", &ours).await, open("fr", "b", "chain, digest").await, open("de", "c", &ours).await];
    let (_, status) = world.app.ask("GET /v1/status", "").await;
    let told: Vec<_> = status["edges"][0]["instances"].as_array().unwrap().iter().map(|one| &one["inst"]).collect();
    assert_eq!(told, ["a", "b"]);
    assert_eq!(status["edges"][0]["instances"][1]["features"], json!(["chain", "digest"]));
    assert_eq!(status["features"], json!(["chain", "digest"]), "what every instance understands");
    assert_eq!(world.central.reach().1, Some(0), "how far its disk is, only an acknowledgement says");
}

#[tokio::test]
async fn the_log_is_kept_for_the_slowest_edge_and_for_a_lost_one_within_a_bound() {
    let world = world();
    let import = Caller::new(&world.central, Identity::App).with("content-type", "text/csv");
    let homes = async |range: std::ops::Range<u64>| {
        let rows: String = range.map(|n| format!("user,{n},fr\n")).collect();
        assert_eq!(import.ask("POST /v1/homes", &rows).await.0, 200);
    };
    let (fr, de) = (edge(&world, "fr"), edge(&world, "de"));
    let ack = async |caller: &Caller, name: &str, seq: u64| {
        let ack = json!({ "edge": name, "inst": "i", "applied": seq, "durable": seq, "term": 1 });
        assert_eq!(caller.ask("POST /feed/v1/ack", &ack.to_string()).await.0, 204);
    };
    let stream = async |caller: &Caller, from: u64| {
        let feed = world.central.feed_id();
        caller.send(&format!("GET /feed/v1/stream?feed={feed}&term=1&from={from}"), Body::Empty).await.head.status
    };
    homes(0..600).await;
    ack(&fr, "fr", world.central.head()).await;
    homes(600..700).await;
    assert_eq!(world.central.reach(), (1, Some(0), 0), "nobody knows where the other edge is");
    ack(&de, "de", 400).await;
    homes(700..701).await;
    assert_eq!(world.central.reach(), (401, Some(400), 0));
    assert_eq!((stream(&de, 401).await, stream(&de, 400).await), (200, 410), "it cannot be further back than its disk");
    ack(&de, "de", world.central.head()).await;
    homes(701..1000).await;
    // The slowest has 602 on disk, and a quarter of the bound is kept for whoever follows without being registered.
    assert_eq!(world.central.reach().0, 603);
    homes(1000..2500).await;
    let oldest = world.central.head() - BACKLOG + 1;
    assert_eq!(world.central.reach(), (oldest, Some(602), 1), "fr is lost, and holds back no more than that");
    assert_eq!(stream(&fr, 603).await, 410);
    let (_, status) = world.app.ask("GET /v1/status", "").await;
    let told = pick(&status, &["oldest", "slowest", "sent_to_snapshots"]);
    assert_eq!(told, json!({ "oldest": oldest, "slowest": 602, "sent_to_snapshots": 2 }));
}

#[tokio::test]
async fn a_snapshot_that_was_cut_goes_on_where_it_was() {
    let world = world();
    let rows: String = (0..20_000).map(|n| format!("user,{n},fr\n")).collect();
    let import = Caller::new(&world.central, Identity::App).with("content-type", "text/csv");
    import.ask("POST /v1/homes", &rows).await;
    for coding in ["identity", "zstd"] {
        let caller = || edge(&world, "fr").with("accept-encoding", coding);
        let whole = caller().send("GET /feed/v1/snapshot", Body::Empty).await;
        let tag = String::from_utf8(whole.head.fields.named("etag").next().unwrap().to_vec()).unwrap();
        let whole = whole.body.collect(10 << 20).await.unwrap().unwrap();
        for (range, if_range, expected) in [
            ("bytes=1-", &*tag, Some(1)),
            ("bytes=5000-", &tag, Some(5000)),
            ("bytes=5000-", "\"other\"", None),
            ("bytes=0-", &tag, None),
            ("bytes=-5", &tag, None),
            ("bytes=99999999-", &tag, None),
        ] {
            let rest = caller().with("range", range).with("if-range", if_range);
            let rest = rest.send("GET /feed/v1/snapshot", Body::Empty).await;
            assert_eq!(rest.head.status, if expected.is_some() { 206 } else { 200 }, "{coding} {range} {if_range}");
            let from = expected.unwrap_or(0);
            if expected.is_some() {
                let range = format!("bytes {from}-{}/{}", whole.len() - 1, whole.len());
                assert_eq!(rest.head.fields.named("content-range").next(), Some(range.as_bytes()));
            }
            assert!(rest.body.collect(10 << 20).await.unwrap().unwrap() == whole[from..], "{coding} {range}");
        }
    }
}

#[tokio::test]
async fn a_packed_stream_says_each_line_when_it_is_written() {
    use tokio::io::AsyncWriteExt;
    let world = world();
    let target = format!("GET /feed/v1/stream?feed={}&from=1", world.central.feed_id());
    let response = edge(&world, "fr").with("accept-encoding", "zstd").send(&target, Body::Empty).await;
    assert_eq!(response.head.fields.text(Name::ContentEncoding), Some("zstd"));
    let (mut body, mut said) = (response.body, Vec::new());
    let mut decoder = async_compression::tokio::write::ZstdDecoder::new(Vec::new());
    for round in 0..3 {
        let head = world.app.put(&format!("k{round}"), "fr").await.1["seq"].clone();
        let wanted = format!("\"last\":{head}");
        while !String::from_utf8_lossy(&said).contains(&wanted) {
            let Some(Ok(Piece::Data(octets))) = body.next().await else { panic!("the stream ended") };
            decoder.write_all(&octets).await.unwrap();
            decoder.flush().await.unwrap();
            said = decoder.get_ref().clone();
        }
    }
    assert!(String::from_utf8(said).unwrap().lines().all(|line| Frame::read(line.as_bytes()).is_ok()));
}
