//! Tables of what is read and what is refused; and that the cut of the octets into reads never matters.

mod properties;
pub mod requests;
pub mod responses;
mod writing;

use super::probe::{self, LIMITS, Outcome};
use super::*;
use crate::error::Kind;
use crate::message::{Method, Scheme};

/// The content of `Transfer-Encoding: chunked` after its head.
fn chunked_request(body: &[u8]) -> Vec<u8> {
    [b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", body].concat()
}

fn get(pieces: Vec<&[u8]>) -> Outcome {
    probe::response(pieces, &Method::Get)
}

#[test]
fn refused_requests() {
    for (octets, kind) in requests::REFUSED {
        let outcome = probe::request([*octets]);
        assert_eq!(outcome.kind(), Some(*kind), "{}: {outcome:?}", octets.escape_ascii());
    }
}

#[test]
fn read_requests() {
    for (octets, words) in requests::READ {
        let outcome = probe::request([*octets]);
        assert_eq!((outcome.words().as_str(), &outcome.refused), (*words, &None), "{}", octets.escape_ascii());
        probe::rewrite_request(octets);
    }
}

#[test]
fn partial_requests_wait() {
    for octets in requests::PARTIAL {
        let parsed = head::request(octets, Scheme::Http, &LIMITS);
        assert!(matches!(parsed, Ok(Parsed::Partial)), "{}: {parsed:?}", octets.escape_ascii());
    }
}

#[test]
fn refused_responses() {
    for (octets, kind) in responses::REFUSED {
        let outcome = get(vec![octets]);
        assert_eq!(outcome.kind(), Some(*kind), "{}: {outcome:?}", octets.escape_ascii());
    }
}

#[test]
fn read_responses() {
    for (octets, words) in responses::READ {
        let outcome = get(vec![octets]);
        assert_eq!((outcome.words().as_str(), &outcome.refused), (*words, &None), "{}", octets.escape_ascii());
        probe::rewrite_response(octets);
    }
}

#[test]
fn answers_to_head_have_no_body_but_sane_fields() {
    let head = |octets: &[u8]| probe::response([octets], &Method::Head);
    assert_eq!(
        head(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHTTP").words(),
        "200 1.1 [Content-Length: 9] None  [] +HTTP"
    );
    assert_eq!(
        head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").words(),
        "200 1.1 [Transfer-Encoding: chunked] None  [] +"
    );
    for octets in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Length: 8\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        assert_eq!(head(octets).kind(), Some(Kind::HttpProtocolError));
    }
}

#[test]
fn bad_chunks_are_refused_from_either_side() {
    for body in requests::BAD_CHUNKS {
        let outcome = probe::request([chunked_request(body).as_slice()]);
        assert_eq!(outcome.kind(), Some(Kind::HttpRequestError), "{}", body.escape_ascii());
        let outcome = probe::chunked([*body]);
        assert_eq!(outcome.kind(), Some(Kind::HttpResponseTransferCoding), "{}", body.escape_ascii());
    }
}

/// Each row of each table, cut at each octet, and octet by octet.
#[test]
fn where_reads_are_cut_changes_nothing() {
    let chunked: Vec<Vec<u8>> = requests::BAD_CHUNKS.iter().map(|body| chunked_request(body)).collect();
    let refused = requests::REFUSED.iter().map(|row| row.0);
    let read = requests::READ.iter().map(|row| row.0);
    for octets in refused.chain(read).chain(chunked.iter().map(Vec::as_slice)) {
        every_cut(octets, |pieces| probe::request(pieces));
    }
    let refused = responses::REFUSED.iter().map(|row| row.0);
    for octets in refused.chain(responses::READ.iter().map(|row| row.0)) {
        every_cut(octets, get);
    }
}

fn every_cut(octets: &[u8], run: impl Fn(Vec<&[u8]>) -> Outcome) {
    let whole = run(vec![octets]);
    for at in 0..=octets.len() {
        let (front, back) = octets.split_at(at);
        assert_eq!(run(vec![front, back]), whole, "{} | {}", front.escape_ascii(), back.escape_ascii());
    }
    assert_eq!(run(octets.chunks(1).collect()), whole, "octet by octet: {}", octets.escape_ascii());
}

/// A head is refused at the octet that spoils it, not when its sender cares to end it.
#[test]
fn refusals_are_early() {
    let first_refused =
        |octets: &[u8]| (0..=octets.len()).find(|&end| head::request(&octets[..end], Scheme::Http, &LIMITS).is_err());
    for (octets, spoilt_at) in [
        (&b"\r\n\r\n"[..], 3),
        (b"G@", 2),
        (b"GET \x80", 5),
        (b"GET / HTTX", 10),
        (b"GET / HTTP/2.0", 14),
        (b"GET / HTTP/1.1\n", 15),
        (b"GET / HTTP/1.1\r\n ", 17),
        (b"GET / HTTP/1.1\r\nA :", 18),
        (b"GET / HTTP/1.1\r\nA: \0", 20),
        (b"GET / HTTP/1.1\r\nA: b\rc", 22),
        (b"GET / HTTP/1.1\r\nA: b\r\n\t", 23),
    ] {
        assert_eq!(first_refused(octets), Some(spoilt_at), "{}", octets.escape_ascii());
    }
}

#[test]
fn limits_hold_to_the_octet() {
    let head = b"GET /abc HTTP/1.1\r\nA: b\r\nC: d\r\n\r\n";
    let exact = HeadLimits { head: head.len(), fields: 2, uri: 4 };
    let kind = |limits: HeadLimits| head::request(head, Scheme::Http, &limits).err().map(|refusal| refusal.kind);
    assert_eq!(kind(exact), None);
    assert_eq!(kind(HeadLimits { head: head.len() - 1, ..exact }), Some(Kind::HeadTooLarge));
    assert_eq!(kind(HeadLimits { fields: 1, ..exact }), Some(Kind::HeadTooLarge));
    assert_eq!(kind(HeadLimits { uri: 3, ..exact }), Some(Kind::UriTooLong));
    assert_eq!(kind(HeadLimits { head: 6, ..exact }), Some(Kind::UriTooLong));
    // As soon as the limit leaves no room, not one octet later.
    let short = head::request(&head[..20], Scheme::Http, &HeadLimits { head: 20, ..exact });
    assert_eq!(short.err().map(|refusal| refusal.kind), Some(Kind::HeadTooLarge));
    let response = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n";
    let limits = HeadLimits { head: response.len() - 1, ..exact };
    let refused = head::response(response, &limits).err().map(|refusal| refusal.kind);
    assert_eq!(refused, Some(Kind::HttpResponseHeaderSectionSize));
}

#[test]
fn trailers_are_bounded() {
    let long = format!("0\r\nA: {}\r\n\r\n", "b".repeat(probe::TRAILER_MAX));
    assert_eq!(probe::request([chunked_request(long.as_bytes()).as_slice()]).kind(), Some(Kind::HeadTooLarge));
    assert_eq!(probe::chunked([long.as_bytes()]).kind(), Some(Kind::HttpResponseHeaderSectionSize));
    let exact = format!("0\r\nA: {}\r\n\r\n", "b".repeat(probe::TRAILER_MAX - 7));
    assert_eq!(probe::chunked([exact.as_bytes()]).kind(), None);
    every_cut(long.as_bytes(), |pieces| probe::chunked(pieces));
    let mut decoder = Decoder::new(Framing::Chunked, framing::Sender::Client, 1 << 20);
    let mut many = bytes::BytesMut::from(format!("0\r\n{}", "a:\r\n".repeat(101)).as_bytes());
    let refused = decoder.decode(&mut many).err().map(|refusal| refusal.kind);
    assert_eq!(refused, Some(Kind::HeadTooLarge), "a hundred lines at most, whatever the octets");
}

#[test]
fn extensions_are_bounded_over_the_whole_body() {
    let chunk = |length: usize| format!("1;{}\r\nx\r\n", "e".repeat(length));
    let body = |length: usize| format!("{}0\r\n\r\n", chunk(length).repeat(16));
    assert_eq!(probe::chunked([body(255).as_bytes()]).kind(), None);
    assert_eq!(probe::chunked([body(256).as_bytes()]).kind(), Some(Kind::HttpResponseTransferCoding));
}

#[test]
fn huge_sizes_do_not_overflow() {
    let cut = probe::chunked([&b"ffffffffffffffff\r\nabc"[..]]);
    assert_eq!((cut.content.as_slice(), cut.kind()), (&b"abc"[..], Some(Kind::HttpResponseIncomplete)));
    let cut = get(vec![b"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\nabc"]);
    assert_eq!((cut.content.as_slice(), cut.kind()), (&b"abc"[..], Some(Kind::HttpResponseIncomplete)));
}

/// 64 KiB in single octets: quadratic work would be two thousand million steps.
#[test]
fn slow_heads_cost_no_more_than_fast_ones() {
    let head = format!("GET / HTTP/1.1\r\n{}\r\n", format!("a: {}\r\n", "b".repeat(650)).repeat(99));
    let limits = HeadLimits { head: 64 << 10, fields: 100, uri: 100 };
    let mut reader = HeadReader::default();
    let start = crate::base::clock::now();
    for end in 0..head.len() {
        assert!(matches!(reader.request(&head.as_bytes()[..end], Scheme::Http, &limits), Ok(Parsed::Partial)));
    }
    assert!(matches!(reader.request(head.as_bytes(), Scheme::Http, &limits), Ok(Parsed::Whole(_, _))));
    assert!(
        crate::base::clock::now().duration_since(start) < std::time::Duration::from_secs(1),
        "took {:?}",
        crate::base::clock::now().duration_since(start)
    );
}

#[test]
fn a_reader_begins_anew_after_each_head() {
    let mut reader = HeadReader::default();
    for _ in 0..2 {
        assert!(matches!(reader.request(b"GET /", Scheme::Http, &LIMITS), Ok(Parsed::Partial)));
        assert!(matches!(reader.request(b"GET / HTTP/1.1\r\n\r\n", Scheme::Http, &LIMITS), Ok(Parsed::Whole(_, 18))));
        assert!(reader.request(b"GET\0", Scheme::Http, &LIMITS).is_err());
    }
}

#[test]
fn a_stated_length_is_one_valid_number() {
    let length = |text: &str| {
        let octets = format!("HTTP/1.1 304 x\r\n{text}\r\n\r\n");
        match head::response(octets.as_bytes(), &LIMITS) {
            Ok(Parsed::Whole(head, _)) => framing::stated_length(&head.fields),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(length("Content-Length: 12"), Some(12));
    assert_eq!(length("Content-Length: 12\r\nContent-Length: 12"), None);
    assert_eq!(length("Content-Length: +12"), None);
    assert_eq!(length("A: b"), None);
}

/// Every file of the fuzz corpus goes through what the fuzz targets do.
#[test]
fn the_fuzz_corpus_holds() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let run = |name: &str, target: fn(&[u8])| {
        let files: Vec<_> = std::fs::read_dir(root.join(name)).expect("a corpus").flatten().collect();
        assert!(files.len() >= 5, "{name} has a corpus");
        for file in files {
            println!("{}", file.path().display());
            target(&std::fs::read(file.path()).expect("a readable file"));
        }
    };
    run("request_head", probe::fuzz_request);
    run("response_head", probe::fuzz_response);
    run("chunked", probe::fuzz_chunked);
    run("roundtrip", probe::fuzz_round_trip);
}
