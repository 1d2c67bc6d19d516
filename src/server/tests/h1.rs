//! HTTP/1.1 in front.

use super::script::{door, plan, read_to, rest, undated, until, world, world_of};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

fn last(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
}

#[test]
fn one_connection_serves_many_requests_in_order() {
    let world = world();
    let pipelined = get("/hello") + &get("/no-content") + &get("/length") + &last("/hello");
    let answer = undated(&world.talk(&pipelined));
    let expected = [
        HELLO,
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nonetwo",
        &HELLO.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n"),
    ];
    assert_eq!(answer, expected.concat());
    assert_eq!(world.recorded(4), [(200, ""), (204, ""), (200, ""), (200, "")]);
    let records = world.records.lock().unwrap();
    let (record, summary, from) = &records[2];
    assert_eq!((record.sent, record.received), (6, 0));
    assert_eq!(summary.as_ref().unwrap().target(), "/length");
    assert!(from.client.ip().is_loopback());
}

#[test]
fn every_answer_is_dated() {
    assert!(world().talk(&last("/hello")).contains("\r\ndate: "));
}

#[test]
fn content_is_read_in_every_framing() {
    let world = world();
    let chunked = "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n";
    let counted = "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nConnection: close\r\n\r\nxyz";
    let answer = world.talk(&format!("{chunked}{counted}"));
    assert!(answer.contains("abcde|[X-Sum: 5]"), "{answer}");
    assert!(answer.ends_with("xyz|[]"), "{answer}");
}

#[test]
fn responses_are_framed_by_what_is_known() {
    let world = world();
    let chunks = world.talk(&last("/chunks"));
    assert!(chunks.contains("transfer-encoding: chunked\r\n"), "{chunks}");
    assert!(chunks.ends_with("\r\n\r\n3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n"), "{chunks}");
    let trailers = world.talk(&last("/trailers"));
    assert!(trailers.ends_with("4\r\ndata\r\n0\r\ngrpc-status: 0\r\n\r\n"), "{trailers}");
    let big = world.talk(&last("/big"));
    assert!(big.ends_with(&"x".repeat(3 << 20)));
    let mirrored = world.talk(
        "POST /mirror HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
    assert!(mirrored.ends_with("\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), "{mirrored}");
}

#[test]
fn head_has_the_fields_of_get_and_no_content() {
    let world = world();
    let ask = |path: &str| format!("HEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    let answer = world.talk(&(ask("/hello") + &ask("/head") + &ask("/chunks") + &last("/hello")));
    let heads: Vec<_> = answer.split("HTTP/1.1 200 OK\r\n").skip(1).collect();
    assert_eq!(heads.len(), 4, "{answer}");
    assert!(heads[0].contains("content-length: 5\r\n") && heads[0].ends_with("\r\n\r\n"));
    assert!(heads[1].contains("content-length: 1234\r\n") && heads[1].ends_with("\r\n\r\n"));
    assert!(!heads[2].contains("content-length") && !heads[2].contains("chunked"));
    assert!(heads[3].ends_with("hello"));
}

#[test]
fn http_10_gets_no_chunks_and_keeps_alive_only_when_asked() {
    let world = world();
    let kept = "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /chunks HTTP/1.0\r\nHost: h\r\n\r\n";
    let answer = undated(&world.talk(kept));
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\r\nconnection: keep-alive\r\n"), "{answer}");
    assert!(answer.ends_with("connection: close\r\n\r\nonetwothree"), "{answer}");
}

#[test]
fn a_half_closed_client_is_answered() {
    let world = world();
    let mut tcp = world.connect();
    tcp.write_all(get("/early").as_bytes()).unwrap();
    tcp.shutdown(Shutdown::Write).unwrap();
    assert!(rest(&mut tcp).ends_with("late"));
}

#[test]
fn content_that_came_whole_is_served_although_its_client_has_ended_its_side() {
    let world = world();
    for (content, expected) in [
        ("Content-Length: 3\r\n\r\nxyz", "xyz"),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n", "xyz"),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n", "http_request_error"),
        ("Content-Length: 4\r\n\r\nxyz", ""),
    ] {
        let mut tcp = world.connect();
        tcp.write_all(format!("POST /late-echo HTTP/1.1\r\nHost: h\r\n{content}").as_bytes()).unwrap();
        tcp.shutdown(Shutdown::Write).unwrap();
        let answer = rest(&mut tcp);
        assert_eq!(answer.rsplit("\r\n").next().unwrap_or_default(), expected, "{content:?}: {answer}");
    }
}

#[test]
fn interim_responses_are_relayed_to_those_who_know_them() {
    let world = world();
    let answer = undated(&world.talk(&last("/early")));
    assert!(
        answer.starts_with("HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\nHTTP/1.1 200 OK\r\n"),
        "{answer}"
    );
    assert!(world.talk("GET /early HTTP/1.0\r\nHost: h\r\n\r\n").starts_with("HTTP/1.0 200"));
}

#[test]
fn content_is_asked_for_only_when_somebody_reads_it() {
    let world = world();
    let head = |path| format!("POST {path} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    let mut tcp = world.connect();
    tcp.write_all(head("/echo").as_bytes()).unwrap();
    assert_eq!(read_to(&mut tcp, "\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    tcp.write_all(b"text").unwrap();
    assert!(read_to(&mut tcp, "text|[]").starts_with("HTTP/1.1 200"));
    // The connection goes on; the next content is not wanted, and never asked for.
    tcp.write_all(head("/ignore").as_bytes()).unwrap();
    let refused = rest(&mut tcp);
    assert!(refused.starts_with("HTTP/1.1 200") && refused.contains("connection: close\r\n"), "{refused}");
}

#[test]
fn little_unread_content_is_passed_over_and_much_closes() {
    let world = world();
    let post = |length: usize| format!("POST /ignore HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
    let answer = world.talk(&(post(1000) + &"x".repeat(1000) + &last("/hello")));
    assert!(answer.contains("ignored") && answer.ends_with("hello"), "{answer}");
    let mut tcp = world.connect();
    tcp.write_all((post(100 << 10) + &get("/hello")).as_bytes()).unwrap();
    let answer = rest(&mut tcp);
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("ignored"), "{answer}");
}

#[test]
fn an_incomplete_body_is_never_a_complete_response() {
    let world = world();
    for (path, end) in [("/cut", "4\r\nsome\r\n"), ("/short", "one"), ("/long", "one")] {
        let answer = world.talk(&get(path));
        assert!(answer.ends_with(end), "{path}: {answer}");
    }
    assert!(world.recorded(3).iter().all(|each| *each == (200, "http_response_incomplete")));
    // Without chunks only a reset tells the client.
    let mut tcp = world.connect();
    tcp.write_all(b"GET /cut HTTP/1.0\r\nHost: h\r\n\r\n").unwrap();
    let mut all = Vec::new();
    let error = tcp.read_to_end(&mut all).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{}", String::from_utf8_lossy(&all));
}

#[test]
fn what_is_no_request_is_refused_and_the_connection_closed() {
    let mut small = plan();
    small.limits.head = 1024;
    small.limits.uri = 512;
    small.limits.body = Some(10);
    let world = world_of(small, door());
    let long = "x".repeat(600);
    let huge = "x".repeat(1100);
    let cases = [
        ("GET /hello HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400),
        ("GET /hello HTTP/1.1\nHost: a\n\n".to_owned(), 400),
        ("\x16\x03\x01\x02\x00\x01\x00".to_owned(), 400),
        ("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), 400),
        ("GET /hello HTTP/2.0\r\nHost: h\r\n\r\n".to_owned(), 505),
        ("CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 501),
        ("POST /echo HTTP/1.1\r\nHost: h\r\nExpect: cake\r\nContent-Length: 1\r\n\r\n".to_owned(), 417),
        (format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: h\r\nX: {huge}\r\n\r\n"), 431),
        ("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\nhello hello".to_owned(), 413),
        (
            "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello hello\r\n0\r\n\r\n"
                .to_owned(),
            413,
        ),
    ];
    for (at, (octets, status)) in cases.iter().enumerate() {
        // What follows must never be served.
        let answer = world.talk(&(octets.clone() + &get("/hello")));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{octets:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{octets:?}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{octets:?}: {answer}");
        assert_eq!(world.recorded(at + 1)[at].0, *status);
    }
    assert_eq!(world.records.lock().unwrap().len(), cases.len());
}

#[test]
fn slow_clients_run_out_of_time() {
    let mut hasty = plan();
    hasty.timeouts.head = Duration::from_millis(200);
    hasty.timeouts.body = Duration::from_millis(200);
    hasty.timeouts.idle = Duration::from_millis(200);
    let world = world_of(hasty, door());
    assert!(world.talk("GET /hel").starts_with("HTTP/1.1 408 "));
    assert_eq!(world.recorded(1), [(408, "request_timeout")]);
    let body = world.talk("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabc");
    assert!(body.starts_with("HTTP/1.1 408 "), "{body}");
    assert_eq!(world.recorded(2)[1], (408, "request_timeout"));
    assert_eq!(world.talk(""), "", "an idle connection closes without a word");
    let kept = world.talk(&get("/hello"));
    assert!(kept.ends_with("hello"));
    until("the count", || world.metric("coordinator_connections_cut_total{reason=\"idle\"}") == 2);
    until("the count", || world.metric("coordinator_connections_cut_total{reason=\"slow_head\"}") == 1);
}

#[test]
fn a_client_that_takes_nothing_is_cut() {
    let mut hasty = plan();
    hasty.timeouts.send = Duration::from_millis(200);
    let world = world_of(hasty, door());
    let mut clients: Vec<_> = (0..4).map(|_| world.connect()).collect();
    for tcp in &mut clients {
        // More than any socket buffer holds.
        tcp.write_all(get("/big").repeat(16).as_bytes()).unwrap();
    }
    until("the cut", || world.metric("coordinator_connections_cut_total{reason=\"slow_reader\"}") == 4);
}

#[test]
fn a_client_that_leaves_ends_its_request() {
    let world = world();
    let mut tcp = world.connect();
    // Content that can never be complete: the client is known to be gone.
    tcp.write_all(b"POST /never HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab").unwrap();
    drop(tcp);
    assert_eq!(world.recorded(1), [(499, "client_closed")]);
}

#[test]
fn protocols_are_switched_when_both_sides_agree() {
    let world = world();
    let ask = "GET /upgrade HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    let mut tcp = world.connect();
    // The first octets may come with the request.
    tcp.write_all(format!("{ask}early ").as_bytes()).unwrap();
    let head = read_to(&mut tcp, "\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: echo\r\n"), "{head}");
    tcp.write_all("bird".repeat(1000).as_bytes()).unwrap();
    tcp.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut tcp), format!("early {}", "bird".repeat(1000)));
    world.recorded(1);
    let records = world.records.lock().unwrap();
    assert_eq!((records[0].0.status, records[0].0.received, records[0].0.sent), (101, 4006, 4006));
    drop(records);
    let unasked = world.talk(&get("/upgrade"));
    assert!(unasked.starts_with("HTTP/1.1 502 "), "{unasked}");
}

#[test]
fn an_idle_tunnel_closes() {
    let mut hasty = plan();
    hasty.timeouts.tunnel = Duration::from_millis(100);
    let world = world_of(hasty, door());
    let mut tcp = world.connect();
    tcp.write_all(b"GET /upgrade HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").unwrap();
    assert!(rest(&mut tcp).starts_with("HTTP/1.1 101 "));
    assert_eq!(world.recorded(1), [(101, "connection_read_timeout")]);
}

#[test]
fn a_panic_costs_one_request() {
    let world = world();
    let answer = world.talk(&(get("/panic") + &last("/hello")));
    assert!(answer.starts_with("HTTP/1.1 500 ") && answer.ends_with("hello"), "{answer}");
    assert_eq!(world.recorded(2), [(500, "proxy_internal_error"), (200, "")]);
}

#[test]
fn a_redirecting_door_keeps_host_and_target() {
    let mut spec = door();
    spec.redirect_https = true;
    let world = world_of(plan(), spec);
    for (host, expected) in [("Shop.example:8080", "shop.example"), ("[::1]:80", "[::1]")] {
        let ask = format!("GET /a/b?c=d HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = world.talk(&ask);
        assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
        assert!(answer.contains(&format!("\r\nLocation: https://{expected}/a/b?c=d\r\n").to_lowercase()), "{answer}");
    }
    assert!(world.talk("GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 400 "));
    assert!(world.talk("GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 400 "));
}

#[test]
fn a_full_house_closes_new_connections() {
    let records = super::script::Records::default();
    let metrics = crate::metrics::Metrics::new();
    let full = super::script::world_with(plan(), door(), Some(1), records, metrics);
    let mut first = full.connect();
    first.write_all(get("/hello").as_bytes()).unwrap();
    read_to(&mut first, "hello");
    let mut second = full.connect();
    assert_eq!(second.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(full.metric("coordinator_connections_cut_total{reason=\"limit\"}"), 1);
    drop(first);
    until("room", || full.workers.connections() == 0);
    assert!(full.talk(&last("/hello")).ends_with("hello"));
}

#[test]
fn splitting_the_input_changes_nothing() {
    let world = world();
    let octets = "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_owned()
        + &last("/hello");
    let whole = undated(&world.talk(&octets));
    for at in 1..octets.len() {
        let mut tcp = world.connect();
        tcp.set_nodelay(true).unwrap();
        tcp.write_all(&octets.as_bytes()[..at]).unwrap();
        tcp.write_all(&octets.as_bytes()[at..]).unwrap();
        assert_eq!(undated(&rest(&mut tcp)), whole, "split at {at}");
    }
}
