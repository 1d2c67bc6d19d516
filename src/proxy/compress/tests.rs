//! What is compressed, what passes as it came, and what the head of either says.

use super::*;
use crate::metrics::tests::plan;
use std::io::Read;

const LONG: &str = "Content-Length: 5000";

fn fields(text: &str) -> Fields {
    text.split('|').filter_map(|line| line.split_once(": ")).collect()
}

/// The answer to a request: its content, if it has some, is 5000 times the letter a.
fn answered(method: Method, asked: &str, status: u16, told: &str) -> (Response, Record) {
    let mut request = RequestHead::new(method.clone(), "/");
    request.fields = fields(asked);
    let mut given = Response::new(status);
    given.head.fields = fields(told);
    if !given.head.is_bodiless(&method) {
        let length = crate::wire::framing::stated_length(&given.head.fields).unwrap_or(5000);
        given.body = "a".repeat(length as usize).into();
    }
    let mut settings = plan(&["/"]).settings.remove(0);
    settings.compress = Some(Compress::default());
    let mut record = Record::start();
    let mut answer = given;
    response(&Encoders::new(), &settings, &request, &mut answer, &mut record);
    (answer, record)
}

fn shown(response: &Response) -> String {
    let lines = response
        .head
        .fields
        .iter()
        .map(|field| format!("{}: {}", String::from_utf8_lossy(field.name), String::from_utf8_lossy(field.value)));
    lines.collect::<Vec<_>>().join("|")
}

#[test]
fn what_is_compressed_and_what_its_head_says() {
    let coded = "Content-Type: text/html|vary: accept-encoding|content-encoding: gzip";
    let plain = "Content-Type: text/html|vary: accept-encoding";
    for (asked, told, expected) in [
        // The client decides, and caches are told so either way.
        ("Accept-Encoding: gzip", "Content-Type: text/html", coded),
        ("Accept-Encoding: gzip;q=0", "Content-Type: text/html", plain),
        ("Accept-Encoding: identity;q=0", "Content-Type: text/html", plain),
        ("", "Content-Type: text/html", plain),
        (
            "Accept-Encoding: gzip",
            "Vary: Origin|Content-Type: text/html",
            "Content-Type: text/html|vary: Origin, accept-encoding|content-encoding: gzip",
        ),
        (
            "Accept-Encoding: gzip",
            "Vary: a|Vary: Accept-ENCODING|Content-Type: text/html",
            "Vary: a|Vary: Accept-ENCODING|Content-Type: text/html|content-encoding: gzip",
        ),
        (
            "Accept-Encoding: gzip",
            "Vary: *|Content-Type: text/html",
            "Vary: *|Content-Type: text/html|content-encoding: gzip",
        ),
        // What counted octets is gone or weak.
        (
            "Accept-Encoding: gzip",
            "Content-Length: 5000|Accept-Ranges: bytes|ETag: \"a\"|Content-Type: text/html",
            "Content-Type: text/html|vary: accept-encoding|content-encoding: gzip|etag: W/\"a\"",
        ),
        (
            "Accept-Encoding: gzip",
            "ETag: W/\"a\"|Content-Type: text/html",
            "ETag: W/\"a\"|Content-Type: text/html|vary: accept-encoding|content-encoding: gzip",
        ),
        (
            "Accept-Encoding: br",
            "Content-Length: 5000|ETag: \"a\"|Content-Type: image/svg+xml",
            "Content-Type: image/svg+xml|vary: accept-encoding|content-encoding: br|etag: W/\"a\"",
        ),
    ] {
        let (response, _) = answered(Method::Get, asked, 200, told);
        assert_eq!(shown(&response), expected, "{asked} {told}");
    }
}

#[test]
fn what_passes_as_it_came() {
    let all = "Accept-Encoding: gzip, br, zstd";
    for (asked, status, told) in [
        (all, 200, "Content-Type: image/png"),
        (all, 200, "Content-Type: text/event-stream"),
        (all, 200, "Content-Type: Text/Event-Stream; charset=utf-8"),
        (all, 200, "Content-Type: application/grpc"),
        (all, 200, "Content-Type: application/grpc-web+json"),
        (all, 200, "Content-Type: text/html|Content-Type: text/plain"),
        (all, 200, "X: no type"),
        (all, 200, "Content-Type: text/html|Content-Encoding: br"),
        (all, 200, "Content-Type: text/html|Content-Encoding: identity"),
        (all, 200, "Content-Type: text/html|Cache-Control: public, No-Transform"),
        (all, 200, "Content-Type: text/html|Content-Length: 1023"),
        (all, 200, "Content-Type: text/html|Content-Length: 0"),
        (all, 204, "Content-Type: text/html"),
        (all, 205, "Content-Type: text/html|Content-Length: 0"),
        (all, 206, "Content-Type: text/html|Content-Range: bytes 0-4999/9000"),
        (all, 416, "Content-Type: text/html|Content-Range: bytes */9000"),
        (all, 200, "Content-Type: text/html|Content-Digest: sha-256=:x:"),
        (all, 200, "Content-Type: text/html|Repr-Digest: sha-256=:x:"),
        (all, 200, "Content-Type: text/html|Content-MD5: x"),
        (all, 200, "Content-Type: text/html|Signature: x"),
        (all, 200, "Content-Type: text/html|Trailer: x, Content-Digest"),
    ] {
        let (response, record) = answered(Method::Get, asked, status, told);
        assert_eq!(shown(&response), told, "{status} {told}");
        assert!(matches!(record.coded, Coded::No) && !matches!(response.body, Body::Pulled(_)));
    }
    // These would be compressed for somebody else.
    for asked in ["Accept-Encoding: gzip|Range: bytes=0-", "Accept-Encoding: gzip|Cache-Control: no-transform"] {
        let (response, _) = answered(Method::Get, asked, 200, "Content-Type: text/html|ETag: \"a\"");
        assert_eq!(shown(&response), "Content-Type: text/html|ETag: \"a\"|vary: accept-encoding");
    }
    // Errors of origins are answers like any other.
    let (response, _) = answered(Method::Post, all, 500, "Content-Type: application/problem+json");
    assert!(response.head.fields.has(Name::ContentEncoding));
}

#[test]
fn head_says_what_get_would_say() {
    for (asked, told) in [
        ("Accept-Encoding: gzip", "Content-Type: text/html|Content-Length: 5000|ETag: \"a\""),
        ("Accept-Encoding: gzip", "Content-Type: text/html"),
        ("Accept-Encoding: gzip", "Content-Type: text/html|Content-Length: 10"),
        ("", "Content-Type: text/html|Content-Length: 5000"),
        ("Accept-Encoding: gzip", "Content-Type: image/png|Content-Length: 5000"),
    ] {
        let (head, _) = answered(Method::Head, asked, 200, told);
        let (get, _) = answered(Method::Get, asked, 200, told);
        assert_eq!(shown(&head), shown(&get), "{asked} {told}");
        assert!(matches!(head.body, Body::Empty));
    }
}

#[test]
fn a_304_stands_for_the_200_that_the_client_has() {
    let told = "ETag: \"a\"";
    for (asked, told, expected) in [
        ("If-None-Match: W/\"a\"", told, "vary: accept-encoding|etag: W/\"a\""),
        ("If-None-Match: \"b,\" , W/\"a\"", told, "vary: accept-encoding|etag: W/\"a\""),
        ("If-None-Match: \"a\"", told, "ETag: \"a\"|vary: accept-encoding"),
        ("If-None-Match: W/\"a\", \"a\"", told, "ETag: \"a\"|vary: accept-encoding"),
        ("If-None-Match: \"W/\"a\"\"", told, "ETag: \"a\"|vary: accept-encoding"),
        ("If-None-Match: *", told, "ETag: \"a\"|vary: accept-encoding"),
        ("If-None-Match: W/\"a\"", "ETag: \"a\"|Content-Type: image/png", "ETag: \"a\"|Content-Type: image/png"),
        ("If-None-Match: W/\"a\"", "ETag: \"a\"|Content-Encoding: br", "ETag: \"a\"|Content-Encoding: br"),
        ("If-Modified-Since: x", "Date: y", "Date: y|vary: accept-encoding"),
    ] {
        let (response, _) = answered(Method::Get, asked, 304, told);
        assert_eq!(shown(&response), expected, "{asked} {told}");
    }
}

#[test]
fn off_is_off_and_a_tunnel_is_no_answer() {
    let settings = plan(&["/"]).settings.remove(0);
    let mut request = RequestHead::new(Method::Get, "/");
    request.fields = fields("Accept-Encoding: gzip");
    let given = || {
        let mut given = Response::with(200, "text/html", "a".repeat(5000));
        given.head.fields.push(b"X", LONG.as_bytes());
        given
    };
    let before = shown(&given());
    let mut answer = given();
    response(&Encoders::new(), &settings, &request, &mut answer, &mut Record::start());
    assert_eq!(shown(&answer), before);
    let mut on = settings;
    on.compress = Some(Compress::default());
    let tunnel = Response { tunnel: Some(Box::new(tokio::io::empty())), ..given() };
    let mut answer = tunnel;
    response(&Encoders::new(), &on, &request, &mut answer, &mut Record::start());
    assert_eq!(shown(&answer), before);
}

#[tokio::test]
async fn the_content_is_that_of_the_origin() {
    let (answer, record) = answered(Method::Get, "Accept-Encoding: gzip", 200, "Content-Type: text/html");
    let Coded::By { coding: Coding::Gzip, taken } = record.coded else { panic!("{record:?}") };
    let octets = answer.body.collect(1 << 20).await.unwrap().unwrap();
    let mut plain = String::new();
    flate2::read::GzDecoder::new(&*octets).read_to_string(&mut plain).unwrap();
    assert_eq!((plain, taken.load(std::sync::atomic::Ordering::Relaxed)), ("a".repeat(5000), 5000));
}
