//! The harness, tested on itself: client and origin talk to each other with nothing between them.

use crate::harness::client::Client;
use crate::harness::message::{End, Framing};
use crate::harness::origin::{Answer, Gate, Origin};
use crate::harness::process::{self, Process};
use crate::harness::{certs, edge, folder, frames, h2, seed, wait, ws};
use std::time::Duration;

#[test]
fn what_is_sent_is_what_is_seen() {
    let origin = Origin::start();
    origin.next(Answer::echo()).next(Answer::echo());
    let mut client = Client::plain(origin.address);
    let answer = client.ask("POST", "/a?b", &[("X-Odd", "1"), ("x-odd", "2")], b"hello");
    assert_eq!((answer.status, &answer.end), (200, &End::Clean));
    let json = answer.json();
    assert_eq!((json["method"].as_str(), json["target"].as_str()), (Some("POST"), Some("/a?b")));
    assert_eq!(json["body_crc32"], crc32fast::hash(b"hello"));
    assert_eq!(json["fields"][1], serde_json::json!(["X-Odd", "1"]));
    let seen = origin.request(1);
    assert!(seen.is_complete() && seen.raw.starts_with(b"POST /a?b HTTP/1.1\r\n") && seen.raw.ends_with(b"hello"));

    client
        .send("PUT /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        .send_chunk(b"ab")
        .send_chunk(b"c")
        .send_chunk(b"");
    assert_eq!(client.answer().json()["body_length"], 3);
    assert_eq!((origin.request(2).framing, origin.connections(), origin.open()), (Framing::Chunked, 1, 1));
}

#[test]
fn lies_and_cuts_are_told_apart_from_whole_answers() {
    let table: [(Answer, End, &str); 6] = [
        (Answer::bytes("HTTP/1.1 200 OK\r\n\r\nuntil the end").close(), End::Clean, "until the end"),
        (
            Answer::bytes("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort").close(),
            cut("Ended after 5 of 9 octets"),
            "short",
        ),
        (chunks("3\r\nabc\r\n0\r\nX: y\r\n\r\n"), End::Clean, "abc"),
        (chunks("3\r\nabc\r\n").close(), cut("Ended within a chunked body"), "abc"),
        (chunks("9\r\nabc").close(), cut("Ended within a chunked body"), "abc"),
        (chunks("zz\r\n").close(), cut("Garbled(\"chunk size \\\"zz\\\"\") within a chunked body"), ""),
    ];
    let origin = Origin::start();
    for (answer, end, body) in table {
        origin.next(answer);
        let answer = Client::plain(origin.address).get("/");
        assert_eq!((answer.end.clone(), answer.text().as_str()), (end, body), "{answer:?}");
    }
}

fn cut(how: &str) -> End {
    End::Cut(how.to_owned())
}

fn chunks(rest: &str) -> Answer {
    Answer::bytes("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").send(rest)
}

#[test]
fn an_origin_resets_stalls_storms_and_answers_early() {
    let origin = Origin::start();
    origin
        .next(Answer::bytes("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab").wait(Duration::from_millis(20)).reset());
    let mut client = Client::plain(origin.address);
    let answer = client.get("/");
    assert!(matches!(&answer.end, End::Cut(how) if how.contains("Broken")), "{:?}", answer.end);

    origin.next(Answer::storm(3));
    let answer = Client::plain(origin.address).get("/");
    assert_eq!((answer.interim.len(), answer.interim[0].0, answer.status), (3, 102, 200));

    origin.next(Answer::status(413, "").early().close());
    let mut client = Client::plain(origin.address);
    client.send("POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n");
    assert_eq!(client.answer().status, 413);
    assert_eq!(client.closed(), b"");
    assert!(!origin.request(3).is_complete());

    let gate = Gate::new();
    origin.next(Answer::new().hold(&gate).send("HTTP/1.1 204 No Content\r\n\r\n"));
    let mut client = Client::plain(origin.address);
    client.send("GET / HTTP/1.1\r\n\r\n");
    origin.request(4);
    assert!(client.is_silent(Duration::from_millis(20)));
    gate.open();
    assert_eq!(client.answer().status, 204);

    origin.next(Answer::new().stall());
    client.send("GET / HTTP/1.1\r\n\r\n");
    origin.request(5);
    client.half_close();
    assert_eq!(client.closed(), b"");
    wait::until("all connections to end", || origin.open(), |open| *open == 0);
}

#[test]
fn octets_that_are_no_request_are_kept() {
    let origin = Origin::start();
    let mut client = Client::plain(origin.address);
    client.send("GET / HTTP/1.1\r\n\r\nsmuggled").half_close();
    assert_eq!(client.answer().status, 200);
    wait::until("the rest", || origin.garbled(), |rest| *rest == ["smuggled"]);
}

#[test]
fn a_websocket_echoes() {
    let origin = Origin::start();
    origin.next(Answer::websocket());
    let mut socket = ws::WebSocket::open(Client::plain(origin.address), "/v1/chat");
    socket.echoes("hello");
    socket.echoes(&"x".repeat(70_000));
    assert_eq!(socket.send(ws::PING, b"p").frame(), ws::Frame { opcode: ws::PONG, payload: b"p".to_vec() });
    assert_eq!(socket.send(ws::CLOSE, &[3, 232]).frame().opcode, ws::CLOSE);
    assert_eq!(socket.into_client().closed(), b"");
}

#[test]
fn tls_is_spoken_on_both_sides() {
    let issuer = certs::issuer();
    let origin = Origin::tls(certs::server_config(&certs::public(&issuer, &["shop.example"]), &["http/1.1"]));
    let config = certs::client_config(issuer.ca_pem(), &["h2", "http/1.1"], None);
    let mut client = Client::tls(origin.address, config.clone(), "shop.example").unwrap();
    assert_eq!(client.alpn.as_deref(), Some("http/1.1"));
    assert_eq!(client.get("/").status, 200);
    origin.next(Answer::bytes("HTTP/1.1 200 OK\r\n\r\nall").close());
    assert_eq!(client.get("/").end, End::Clean);
    assert!(Client::tls(origin.address, config, "bank.example").is_err());
    assert!(origin.url().starts_with("https://"));
}

#[test]
fn http2_carries_content_trailers_and_resets() {
    let echo = h2::Echo::start();
    let mut client = h2::Client::plain(echo.address);
    let ask = h2::Ask {
        method: "POST".to_owned(),
        target: "/grpc".to_owned(),
        fields: vec![("te".to_owned(), "trailers".to_owned())],
        body: Some(b"message".to_vec()),
        trailers: vec![("x-sum".to_owned(), "7".to_owned())],
    };
    let answer = client.ask(ask);
    assert_eq!((answer.status, answer.body.as_slice(), answer.reset), (200, b"message".as_slice(), None));
    assert_eq!(answer.all("echo-te"), ["trailers"]);
    assert_eq!(answer.trailers.len(), 5);
    assert_eq!(echo.seen.lock().unwrap()[0].1, "/grpc");
    assert!(client.all(vec![h2::Ask::default(); 5]).iter().all(|answer| answer.status == 200));
}

#[test]
fn raw_frames_are_understood_by_a_library() {
    let echo = h2::Echo::start();
    let mut client = Client::plain(echo.address);
    let long = "x".repeat(300);
    let head = frames::headers(1, true, &frames::get("/raw", &[("x-long", &long)]));
    client.send(frames::hello()).send(head);
    let (came, _) = frames::listen(&mut client, |frame| frame.stream == 1 && frame.flags & 1 == 1);
    assert!(came.iter().any(|frame| frame.kind == frames::HEADERS));
    assert_eq!(echo.seen.lock().unwrap()[0].2, [("x-long".to_owned(), long)]);

    client.send(frames::headers(3, true, &frames::get("/", &[("Upper", "case")])));
    let (came, _) = frames::listen(&mut client, |frame| frame.code().is_some());
    assert_eq!(came.last().unwrap().code(), Some(1), "PROTOCOL_ERROR: {came:?}");
}

#[test]
fn a_process_is_watched_and_signalled() {
    let output = process::run(&["--no-such-option"]);
    assert!(!output.status.success());
    let mut ended = Process::start(&["--no-such-option"]);
    ended.end();
    assert!(ended.is_over());
    ended.signal(process::Signal::Kill);
}

#[test]
fn doors_are_read_from_lines() {
    let lines = [
        r#"{"level":"INFO","fields":{"message":"listening","door":"public","address":"127.0.0.1:4040"}}"#,
        r#"INFO listening door="public" address=127.0.0.1:4040"#,
        "listening door=public address=127.0.0.1:4040",
    ];
    for line in lines {
        assert_eq!(edge::door_in(line, "public"), Some("127.0.0.1:4040".parse().unwrap()), "{line}");
        assert_eq!(edge::door_in(line, "peer"), None, "{line}");
    }
}

#[test]
fn folders_and_seeds_do_what_they_say() {
    let folder = folder::new();
    folder.write("a/b.txt", "c");
    assert_eq!(folder.read("a/b.txt"), "c");
    let path = folder.path().to_owned();
    drop(folder);
    assert!(!path.exists());
    let (mut one, mut two) = (seed::Random::new(7), seed::Random::new(7));
    assert_eq!(one.next(), two.next());
    assert!(one.below(3) < 3 && [1, 2].contains(one.pick(&[1, 2])));
    assert_ne!(seed::random("folders_and_seeds").next(), 0);
}
