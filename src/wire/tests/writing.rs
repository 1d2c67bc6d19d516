//! What is written, to the octet.

use crate::message::{Fields, Method, RequestHead, ResponseHead};
use crate::wire::write::{self, Connection};
use crate::wire::{Framing, probe};

fn request(method: Method, fields: &[(&str, &str)], framing: Framing, connection: Connection<'_>) -> String {
    let mut head = RequestHead::new(method, "/a?b");
    head.authority = "h:1".to_owned();
    head.fields = fields.iter().copied().collect();
    let mut out = Vec::new();
    write::request_head(&mut out, &head, framing, connection);
    out.escape_ascii().to_string().replace("\\r\\n", "|")
}

fn response(status: u16, framing: Framing, length: Option<u64>, connection: Connection<'_>, to_http10: bool) -> String {
    let mut head = ResponseHead::new(status);
    head.fields = [("A", "b"), ("Content-Length", "7"), ("Transfer-Encoding", "gzip")].into_iter().collect();
    let mut out = Vec::new();
    write::response_head(&mut out, &head, framing, length, connection, to_http10);
    out.escape_ascii().to_string().replace("\\r\\n", "|")
}

#[test]
fn requests() {
    let plain = |method, framing| request(method, &[], framing, Connection::Keep);
    assert_eq!(plain(Method::Get, Framing::None), "GET /a?b HTTP/1.1|host: h:1||");
    assert_eq!(plain(Method::Post, Framing::None), "POST /a?b HTTP/1.1|host: h:1|content-length: 0||");
    assert_eq!(plain(Method::Get, Framing::Length(3)), "GET /a?b HTTP/1.1|host: h:1|content-length: 3||");
    assert_eq!(plain(Method::Put, Framing::Chunked), "PUT /a?b HTTP/1.1|host: h:1|transfer-encoding: chunked||");
    assert_eq!(
        request(Method::Get, &[("TE", "trailers")], Framing::None, Connection::Close),
        "GET /a?b HTTP/1.1|host: h:1|TE: trailers|connection: close, te||"
    );
    assert_eq!(
        request(Method::Get, &[], Framing::None, Connection::Upgrade("websocket")),
        "GET /a?b HTTP/1.1|host: h:1|connection: upgrade|upgrade: websocket||"
    );
}

#[test]
fn fields_of_the_connection_are_the_writers() {
    let fields = [
        ("Host", "evil"),
        ("Connection", "x"),
        ("Keep-Alive", "x"),
        ("Proxy-Connection", "x"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "9"),
        ("Upgrade", "x"),
        ("HTTP2-Settings", "x"),
        ("Trailer", "kept"),
        ("X-Own", "kept"),
    ];
    assert_eq!(
        request(Method::Get, &fields, Framing::None, Connection::Keep),
        "GET /a?b HTTP/1.1|host: h:1|Trailer: kept|X-Own: kept||"
    );
}

#[test]
fn responses() {
    let keep = |status, framing, length| response(status, framing, length, Connection::Keep, false);
    assert_eq!(keep(200, Framing::Length(3), None), "HTTP/1.1 200 OK|A: b|content-length: 3||");
    assert_eq!(keep(200, Framing::Length(0), None), "HTTP/1.1 200 OK|A: b|content-length: 0||");
    assert_eq!(keep(200, Framing::None, Some(9)), "HTTP/1.1 200 OK|A: b|content-length: 9||");
    assert_eq!(keep(304, Framing::None, None), "HTTP/1.1 304 Not Modified|A: b||");
    assert_eq!(keep(404, Framing::Chunked, None), "HTTP/1.1 404 Not Found|A: b|transfer-encoding: chunked||");
    assert_eq!(keep(200, Framing::UntilClose, None), "HTTP/1.1 200 OK|A: b|connection: close||");
    assert_eq!(keep(799, Framing::Length(1), None), "HTTP/1.1 799 |A: b|content-length: 1||");
    let close = |framing| response(503, framing, None, Connection::Close, true);
    assert_eq!(
        close(Framing::Length(1)),
        "HTTP/1.0 503 Service Unavailable|A: b|content-length: 1|connection: close||"
    );
    assert_eq!(
        response(200, Framing::Length(1), None, Connection::Keep, true),
        "HTTP/1.0 200 OK|A: b|content-length: 1|connection: keep-alive||"
    );
    assert_eq!(
        response(101, Framing::None, None, Connection::Upgrade("websocket"), false),
        "HTTP/1.1 101 Switching Protocols|A: b|connection: upgrade|upgrade: websocket||"
    );
}

#[test]
fn interim_and_204_carry_no_framing() {
    for (status, text) in [(103, "103 Early Hints"), (204, "204 No Content")] {
        for framing in [Framing::None, Framing::Length(0), Framing::Length(5), Framing::Chunked] {
            let written = response(status, framing, Some(4), Connection::Keep, false);
            assert_eq!(written, format!("HTTP/1.1 {text}|A: b||"));
        }
    }
}

#[test]
fn chunks() {
    let mut out = Vec::new();
    write::chunk_start(&mut out, 0x1af);
    let trailers: Fields =
        [("A", "b"), ("Content-Length", "1"), ("set-cookie", "x"), ("bad name", "x")].into_iter().collect();
    write::last_chunk(&mut out, Some(&trailers));
    write::last_chunk(&mut out, None);
    assert_eq!(&out[..], b"1af\r\n0\r\nA: b\r\n\r\n0\r\n\r\n");
}

#[test]
#[should_panic(expected = "only the last one is empty")]
fn an_empty_chunk_would_end_the_body() {
    write::chunk_start(&mut Vec::new(), 0);
}

#[test]
fn nothing_that_a_head_is_made_of_splits_it() {
    for evil in ["/\r\nX: y", "/ HTTP/1.1\r\n\r\nGET /", "/\0", "/é", "\n", " "] {
        probe::write_anything(evil, b"name", b"value");
        probe::write_anything("/", evil.as_bytes(), b"value");
        probe::write_anything("/", b"name", evil.as_bytes());
        probe::write_anything("/", b"Content-Length", evil.as_bytes());
    }
}
