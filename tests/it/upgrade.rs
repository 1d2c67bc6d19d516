//! Upgrades through edges, between clients and origins of either version: WebSocket and other protocols, their refusal,
//! and every way in which a tunnel ends.

use crate::harness::client::Client;
use crate::harness::edge::{self, Edge};
use crate::harness::h2;
use crate::harness::origin::{Answer, Gate, Origin};
use crate::harness::process::Signal;
use crate::harness::{certs, folder, wait, ws};
use coordinator::tls::issue::Issuer;
use std::time::{Duration, Instant};

/// An edge called fr, before one origin.
fn before(origin: &str, more: &str) -> Edge {
    edge::start(&(edge::PLAIN.replace("http://${origin}", origin) + more))
}

/// The configuration of an edge with a peer door.
fn with_peer_door(name: &str, origin: &str) -> String {
    let doors = format!(
        "\n[peer]\naddress = \"127.0.0.1:0\"\nchain = \"{name}.pem\"\nkey = \"{name}.key\"\nca = \"ca.pem\"\n\n\
         [[route]]\nmatch = \"/at/{{edge}}/\"\nto = \"edge:{{edge}}\"\n"
    );
    let named = format!("name = \"{name}\"\ndeployment = \"shop\"");
    edge::PLAIN.replace("http://${origin}", origin).replace("name = \"fr\"", &named) + &doors
}

fn on_folder(issuer: &Issuer, name: &str, toml: &str) -> Edge {
    let folder = folder::new();
    folder.write("ca.pem", issuer.ca_pem());
    certs::write(&folder, name, &issuer.edge(name, &["127.0.0.1".to_owned()]).unwrap());
    edge::start_as("run", toml, folder)
}

/// Edges fr and us, with mutual TLS between them, and their origins.
fn two_edges(origin: &Origin) -> (Edge, Edge) {
    let issuer = certs::issuer();
    let us = on_folder(&issuer, "us", &with_peer_door("us", &origin.url()));
    let link = format!("\n[edges.us]\npeer = \"https://{}\"\n", us.door("peer"));
    let fr = on_folder(&issuer, "fr", &(with_peer_door("fr", "http://127.0.0.1:1") + &link));
    (fr, us)
}

fn close(tunnel: &mut h2::Tunnel<'_>) {
    tunnel.send(&ws::frame(ws::CLOSE, b"", Some([1, 2, 3, 4])));
    assert_eq!(tunnel.octets(2), ws::frame(ws::CLOSE, b"", None));
    assert_eq!(tunnel.closed(), (Vec::new(), None));
}

fn echoes(tunnel: &mut h2::Tunnel<'_>, text: &str) {
    tunnel.send(&ws::frame(ws::TEXT, text.as_bytes(), Some([9, 8, 7, 6])));
    let expected = ws::frame(ws::TEXT, text.as_bytes(), None);
    assert_eq!(tunnel.octets(expected.len()), expected);
}

const SOCKET: &[(&str, &str)] = &[("sec-websocket-version", "13"), ("origin", "https://shop.example")];

#[test]
fn a_websocket_passes_from_http1_to_http1_as_it_is() {
    let origin = Origin::start();
    origin.always(Answer::websocket());
    let edge = before(&origin.url(), "");
    let mut socket = ws::WebSocket::open(Client::plain(edge.address()), "/chat?room=1");
    socket.echoes("hello");
    socket.echoes(&"long ".repeat(30_000));
    let seen = origin.head(1);
    assert_eq!((&*seen.method, &*seen.target), ("GET", "/chat?room=1"));
    assert_eq!(seen.field("sec-websocket-key"), Some(ws::KEY));
    assert_eq!((seen.field("connection"), seen.field("upgrade")), (Some("upgrade"), Some("websocket")));
    assert!(seen.field("coordinator").is_some_and(|told| told.contains("as=local")), "{seen:?}");
    assert_eq!(socket.send(ws::CLOSE, b"").frame().opcode, ws::CLOSE);
    assert_eq!(socket.into_client().closed(), b"");
    wait::until("the origin's side to end", || origin.open(), |open| *open == 0);
}

#[test]
fn a_websocket_passes_to_another_edge_over_http2() {
    let origin = Origin::start();
    origin.always(Answer::websocket());
    let (fr, _us) = two_edges(&origin);
    for at in 1..=2 {
        // The second one shares the link.
        let mut socket = ws::WebSocket::open(Client::plain(fr.address()), "/at/us/chat");
        socket.echoes("over the sea");
        socket.echoes(&"long ".repeat(100_000));
        let seen = origin.head(at);
        assert_eq!((&*seen.method, &*seen.target, &*seen.version), ("GET", "/at/us/chat", "HTTP/1.1"));
        let key = seen.field("sec-websocket-key").unwrap();
        assert!(key != ws::KEY && key.len() == 24, "a key of the second edge's own: {key}");
        assert_eq!(seen.field("sec-websocket-version"), Some("13"));
        assert!(seen.field("coordinator").is_some_and(|told| told.contains("edge=fr")), "{seen:?}");
        assert_eq!(socket.send(ws::CLOSE, b"").frame().opcode, ws::CLOSE);
        assert_eq!(socket.into_client().closed(), b"");
    }
    wait::until("the origin's side to end", || origin.open(), |open| *open == 0);
}

#[test]
fn an_http2_client_reaches_origins_of_either_version() {
    let origin = Origin::start();
    origin.always(Answer::websocket());
    let edge = before(&origin.url(), "");
    let mut client = h2::Client::plain(edge.address());
    let mut tunnel = client.tunnel("/chat", "websocket", SOCKET).unwrap();
    assert!(!tunnel.fields.iter().any(|(name, _)| name.starts_with("sec-websocket")), "{:?}", tunnel.fields);
    echoes(&mut tunnel, "hello");
    echoes(&mut tunnel, &"long ".repeat(13_000));
    close(&mut tunnel);
    let seen = origin.head(1);
    assert_eq!((&*seen.method, seen.field("upgrade")), ("GET", Some("websocket")));
    assert_eq!(seen.field("origin"), Some("https://shop.example"));

    let (fr, _us) = two_edges(&origin);
    let mut client = h2::Client::plain(fr.address());
    let mut tunnel = client.tunnel("/at/us/chat", "websocket", SOCKET).unwrap();
    echoes(&mut tunnel, "over two links");
    close(&mut tunnel);

    let origin = h2::Echo::tunnelling();
    let edge = before(&format!("h2c://{}", origin.address), "");
    let mut client = h2::Client::plain(edge.address());
    let mut tunnel = client.tunnel("/chat", "websocket", SOCKET).unwrap();
    assert_eq!(tunnel.send(b"any octets").octets(10), b"any octets");
    assert_eq!(tunnel.end().closed(), (Vec::new(), None));
    let mut socket = ws::WebSocket::open(Client::plain(edge.address()), "/chat").into_client();
    assert_eq!(socket.send("others").octets(6), b"others");
    assert_eq!(socket.half_close().closed(), b"");
    let seen = origin.seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 2);
    for (method, target, fields) in seen {
        assert_eq!((&*method, &*target), ("CONNECT", "/chat"));
        let gone = ["sec-websocket-key", "connection", "upgrade"];
        assert!(!fields.iter().any(|(name, _)| gone.contains(&name.as_str())), "{fields:?}");
        assert!(fields.contains(&("sec-websocket-version".to_owned(), "13".to_owned())), "{fields:?}");
    }
}

#[test]
fn refusals_are_answers() {
    let origin = Origin::start();
    let (fr, us) = two_edges(&origin);
    for (status, over_http2) in [(200, 502), (400, 400), (403, 403), (426, 426)] {
        origin.always(Answer::status(status, "not today"));
        let mut client = Client::plain(us.address());
        for _ in 0..2 {
            let answer = client.send(ws::request("/chat")).answer();
            assert_eq!((answer.status, &*answer.text()), (status, "not today"), "the connection goes on as HTTP");
        }
        let far = Client::plain(fr.address()).send(ws::request("/at/us/chat")).answer();
        assert_eq!(far.status, over_http2);
        let refused = h2::Client::plain(us.address()).tunnel("/chat", "websocket", SOCKET).err().unwrap();
        assert_eq!(refused.status, over_http2, "{refused:?}");
        match over_http2 {
            502 => assert_eq!(refused.error().as_deref(), Some("http_upgrade_failed")),
            _ => assert_eq!(refused.body, b"not today"),
        }
    }
    let keyless = ws::request("/chat").replace("Sec-WebSocket-Key", "X-Key");
    assert_eq!(Client::plain(us.address()).send(keyless).answer().status, 400);
}

#[test]
fn an_origin_that_did_not_read_the_handshake_is_refused() {
    let origin = Origin::start();
    let edge = before(&origin.url(), "");
    let switched = |accept: &str, protocol: &str| {
        Answer::bytes(format!(
            "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        ))
        .tunnel()
    };
    for (accept, protocol) in [(ws::ACCEPT, "websocket"), ("", "websocket"), (ws::ACCEPT, "h2c")] {
        origin.always(switched(accept, protocol));
        let refused = h2::Client::plain(edge.address()).tunnel("/chat", "websocket", SOCKET).err().unwrap();
        assert_eq!((refused.status, refused.error().as_deref()), (502, Some("http_upgrade_failed")), "{refused:?}");
        wait::until("the connection to the origin to end", || origin.open(), |open| *open == 0);
    }
    let answer = Client::plain(edge.address()).send(ws::request("/chat")).answer();
    assert_eq!((answer.status, answer.error().as_deref()), (502, Some("http_upgrade_failed")));
}

#[test]
fn an_upstream_without_extended_connect_is_no_way_for_upgrades() {
    let origin = h2::Echo::start();
    let edge = before(&format!("h2c://{}", origin.address), "");
    let answer = Client::plain(edge.address()).send(ws::request("/chat")).answer();
    assert_eq!((answer.status, answer.error().as_deref()), (502, Some("http_upgrade_failed")));
    let refused = h2::Client::plain(edge.address()).tunnel("/chat", "websocket", SOCKET).err().unwrap();
    assert_eq!((refused.status, refused.error().as_deref()), (502, Some("http_upgrade_failed")));
    assert_eq!(Client::plain(edge.address()).get("/").status, 200);
    assert_eq!(origin.seen.lock().unwrap().len(), 1);
}

#[test]
fn other_protocols_pass_and_content_goes_before_them() {
    let origin = Origin::start();
    let (fr, us) = two_edges(&origin);
    let switched = || Answer::bytes("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n").tunnel();
    let ask = |method: &str, target: &str, body: &str| {
        format!(
            "{method} {target} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for (address, target, method, body, status) in [
        (us.address(), "/attach", "GET", "", 101),
        (us.address(), "/attach", "POST", "", 101),
        (us.address(), "/attach", "POST", "content", 101),
        (fr.address(), "/at/us/attach", "GET", "", 101),
        (fr.address(), "/at/us/attach", "POST", "", 502),
        (fr.address(), "/at/us/attach", "GET", "content", 502),
    ] {
        let before = origin.seen().len();
        origin.always(switched());
        let mut client = Client::plain(address);
        client.send(ask(method, target, body));
        let (got, fields) = client.next_head();
        assert_eq!(got, status, "{method} {target} {body}");
        if status != 101 {
            assert_eq!(origin.seen().len(), before, "nothing of it was sent");
            continue;
        }
        assert!(fields.contains(&("upgrade".to_owned(), "tcp".to_owned())), "{fields:?}");
        assert_eq!(client.send("ping").octets(4), b"ping");
        assert_eq!(origin.request(before + 1).body, body.as_bytes(), "content is the request's, not the tunnel's");
        assert_eq!(client.half_close().closed(), b"");
    }
}

#[test]
fn a_switch_before_the_end_of_the_request_is_refused() {
    let origin = Origin::start();
    let edge = before(&origin.url(), "");
    let switched = Answer::bytes("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n").early().tunnel();
    origin.always(switched);
    let mut client = Client::plain(edge.address());
    client.send("POST / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 90\r\n\r\npart");
    let answer = client.answer();
    assert_eq!((answer.status, answer.error().as_deref()), (502, Some("http_upgrade_failed")));
    client.closed();
}

#[test]
fn each_half_ends_by_itself() {
    let origin = Origin::start();
    let (fr, us) = two_edges(&origin);
    let switched = Answer::bytes("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
    let ask = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
    for (address, target) in [(us.address(), "/x"), (fr.address(), "/at/us/x")] {
        // The client ends its half first; what the origin still says arrives.
        origin.next(switched.clone().hear_out().send("last words").close());
        let mut client = Client::plain(address);
        assert_eq!(client.send(ask(target)).next_head().0, 101);
        assert_eq!(client.send("abc").half_close().closed(), b"last words");

        // The origin ends first.
        origin.next(switched.clone().send("bye").close());
        let mut client = Client::plain(address);
        assert_eq!(client.send(ask(target)).next_head().0, 101);
        assert_eq!(client.octets(3), b"bye");
        assert_eq!(client.half_close().closed(), b"");

        // The origin breaks.
        let gate = Gate::new();
        origin.next(switched.clone().send("cut").hold(&gate).reset());
        let mut client = Client::plain(address);
        assert_eq!(client.send(ask(target)).next_head().0, 101);
        assert_eq!(client.octets(3), b"cut");
        gate.open();
        client.closed();
        wait::until("no connection to the origin to stay", || origin.open(), |open| *open == 0);
    }
    let mut client = h2::Client::plain(us.address());
    origin.next(switched.clone().hear_out().send("last words").close());
    let mut tunnel = client.tunnel("/x", "tcp", &[]).unwrap();
    assert_eq!(tunnel.send(b"abc").end().closed(), (b"last words".to_vec(), None));

    origin.next(switched.clone().send("bye").close());
    let mut tunnel = client.tunnel("/x", "tcp", &[]).unwrap();
    assert_eq!(tunnel.end().closed(), (b"bye".to_vec(), None));

    let gate = Gate::new();
    origin.next(switched.clone().send("cut").hold(&gate).reset());
    let mut tunnel = client.tunnel("/x", "tcp", &[]).unwrap();
    assert_eq!(tunnel.octets(3), b"cut");
    gate.open();
    assert!(matches!(tunnel.closed(), (_, Some(_))), "a cut is a reset");

    origin.next(switched.tunnel());
    let mut tunnel = client.tunnel("/x", "tcp", &[]).unwrap();
    assert_eq!(tunnel.send(b"abc").octets(3), b"abc");
    tunnel.reset();
    wait::until("the client's reset to reach the origin", || origin.open(), |open| *open == 0);
    origin.always(Answer::ok("alive"));
    assert_eq!(client.get("/").body, b"alive", "the connection outlives its tunnels");
}

#[test]
fn an_idle_tunnel_ends() {
    let origin = Origin::start();
    origin.always(Answer::websocket());
    let edge = before(&origin.url(), "\n[timeouts]\ntunnel = \"400ms\"\n");
    let mut socket = ws::WebSocket::open(Client::plain(edge.address()), "/chat");
    let mut client = h2::Client::plain(edge.address());
    let mut tunnel = client.tunnel("/chat", "websocket", SOCKET).unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(900) {
        socket.echoes("alive");
        echoes(&mut tunnel, "alive");
    }
    assert_eq!(socket.into_client().closed(), b"");
    assert!(matches!(tunnel.closed(), (_, Some(_))), "an end for idleness is not one in order");
    wait::until("the origin's side to end", || origin.open(), |open| *open == 0);
}

#[test]
fn a_drain_lets_tunnels_live_until_its_deadline() {
    let origin = Origin::start();
    origin.always(Answer::websocket());
    let mut edge = before(&origin.url(), "\n[timeouts]\ndrain = \"1500ms\"\n");
    let mut socket = ws::WebSocket::open(Client::plain(edge.address()), "/chat");
    let mut client = h2::Client::plain(edge.address());
    let mut tunnel = client.tunnel("/chat", "websocket", SOCKET).unwrap();
    let began = Instant::now();
    edge.process().signal(Signal::Term);
    edge.process().line("draining");
    socket.echoes("still here");
    echoes(&mut tunnel, "still here");
    assert_eq!(socket.into_client().closed(), b"");
    tunnel.closed();
    assert!(began.elapsed() >= Duration::from_millis(1400), "{:?}", began.elapsed());
    assert_eq!(edge.process().end(), Some(0));
    wait::until("the origin's side to end", || origin.open(), |open| *open == 0);
}
