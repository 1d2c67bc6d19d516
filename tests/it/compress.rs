//! Compression over sockets: what a client decodes is what the origin sent, whole or visibly cut; streams are not held
//! back; what must not be touched is not.

use crate::harness::client::{Answer, Client};
use crate::harness::message::{End, Framing};
use crate::harness::origin::{self, Gate, Origin};
use crate::harness::world::setup;
use crate::harness::{edge, h2, wait};
use coordinator::tls::issue::Party;
use std::io::{Read, Write};

/// An edge that compresses everything it may, before this origin.
fn before(origin: &Origin) -> edge::Edge {
    let more = "\n[compress]\n\n[observe]\naddress = \"127.0.0.1:0\"\n\n[[route]]\nmatch = \"/plain/\"\nto = \"local\"\n\
                compress = false\n\n[[route]]\nmatch = \"/page\"\nreply = { status = 200, content_type = \"text/html\", \
                body = \"";
    let page = "page ".repeat(500);
    edge::start(&(edge::PLAIN.replace("${origin}", &origin.address.to_string()) + more + &page + "\" }\n"))
}

/// Text of this length that compresses well, and nowhere repeats at once.
fn text(length: usize) -> String {
    let mut text: String = (0..length / 16).map(|n| format!("line {:>9} \n", n * 7919 % 1_000_003)).collect();
    text.push_str(&" ".repeat(length - text.len()));
    text
}

/// An answer with its length stated.
fn stated(content_type: &str, more: &str, body: &str) -> origin::Answer {
    origin::Answer::bytes(format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{more}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// The head of a chunked answer and its chunks.
fn chunked(content_type: &str, chunks: &[&str]) -> origin::Answer {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n");
    chunks.iter().fold(origin::Answer::bytes(head), |answer, text| answer.send(chunk(text)))
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// By decoders that refuse what is cut.
fn decoded(coding: &str, octets: &[u8]) -> std::io::Result<String> {
    let mut plain = String::new();
    match coding {
        "gzip" => flate2::read::GzDecoder::new(octets).read_to_string(&mut plain)?,
        "br" => brotli::Decompressor::new(octets, 4096).read_to_string(&mut plain)?,
        "zstd" => tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
            let mut decoder = async_compression::tokio::bufread::ZstdDecoder::new(octets);
            tokio::io::AsyncReadExt::read_to_string(&mut decoder, &mut plain).await
        })?,
        other => panic!("a coding that nobody asked for: {other}"),
    };
    Ok(plain)
}

fn asking(coding: &str) -> h2::Ask {
    let fields = vec![("accept-encoding".to_owned(), coding.to_owned())];
    h2::Ask { target: "/".to_owned(), fields, ..h2::Ask::default() }
}

fn get(edge: &edge::Edge, path: &str, coding: &str) -> Answer {
    Client::plain(edge.address()).ask("GET", path, &[("Accept-Encoding", coding)], b"")
}

#[test]
fn every_coding_over_both_versions() {
    let origin = Origin::start();
    let edge = before(&origin);
    let plain = text(100_000);
    let trailing = chunked("application/json", &[&plain[..70_000], &plain[70_000..]]).send("0\r\nx-sum: 7\r\n\r\n");
    for (n, coding) in ["gzip", "br", "zstd"].into_iter().enumerate() {
        let tagged = "ETag: \"v1\"\r\nAccept-Ranges: bytes\r\nVary: Origin\r\n";
        origin.next(stated("text/html", tagged, &plain)).next(stated("text/html", tagged, &plain));
        origin.next(trailing.clone()).next(trailing.clone());

        let answer = get(&edge, "/", coding);
        assert_eq!((answer.status, &answer.end, answer.framing), (200, &End::Clean, Framing::Chunked), "{coding}");
        assert_eq!(answer.all("content-encoding"), [coding]);
        assert_eq!(answer.all("vary"), ["Origin, accept-encoding"]);
        assert_eq!((answer.field("etag"), answer.field("content-length")), (Some("W/\"v1\""), None));
        assert_eq!(answer.field("accept-ranges"), None);
        assert!(answer.body.len() < plain.len() / 2, "{coding}: {}", answer.body.len());
        assert!(decoded(coding, &answer.body).unwrap() == plain, "{coding}");
        assert_eq!(
            origin.request(4 * n + 1).field("accept-encoding"),
            Some(coding),
            "origins are told what clients take"
        );

        let answer = h2::Client::plain(edge.address()).ask(asking(coding));
        assert_eq!((answer.status, answer.reset), (200, None), "{coding}");
        assert_eq!((answer.all("content-encoding"), answer.all("etag")), (vec![coding], vec!["W/\"v1\""]));
        assert!(answer.all("content-length").is_empty() && decoded(coding, &answer.body).unwrap() == plain);

        let answer = get(&edge, "/", coding);
        assert_eq!(answer.trailers, [("x-sum".to_owned(), "7".to_owned())]);
        assert!(decoded(coding, &answer.body).unwrap() == plain, "{coding}");
        let answer = h2::Client::plain(edge.address()).ask(asking(coding));
        assert_eq!(answer.trailers, [("x-sum".to_owned(), "7".to_owned())]);
        assert!(decoded(coding, &answer.body).unwrap() == plain, "{coding}");
    }
}

#[test]
fn the_client_chooses_and_the_route_decides() {
    let origin = Origin::start();
    let plain = text(5000);
    origin.always(stated("text/html", "", &plain));
    let edge = before(&origin);
    for (path, asked, coding, vary) in [
        ("/", "gzip, deflate, br, zstd", "zstd", "accept-encoding"),
        ("/", "gzip, deflate, br", "br", "accept-encoding"),
        ("/", "br;q=0.5, gzip;q=0.8, zstd;q=0", "gzip", "accept-encoding"),
        ("/", "deflate", "", "accept-encoding"),
        ("/", "identity;q=0", "", "accept-encoding"),
        ("/", "gzip;q=x", "", "accept-encoding"),
        ("/plain/", "gzip", "", ""),
        ("/page", "gzip", "gzip", "accept-encoding"),
        ("/page", "", "", "accept-encoding"),
    ] {
        let answer = get(&edge, path, asked);
        assert_eq!(answer.field("content-encoding").unwrap_or_default(), coding, "{path} {asked}");
        assert_eq!(answer.field("vary").unwrap_or_default(), vary, "{path} {asked}");
        if path != "/page" {
            assert_eq!(origin.seen().last().unwrap().field("accept-encoding"), Some(asked));
            let body = if coding.is_empty() { answer.text() } else { decoded(coding, &answer.body).unwrap() };
            assert!(body == plain, "{path} {asked}");
        }
    }
}

#[test]
fn an_old_client_gets_it_until_the_connection_ends() {
    let origin = Origin::start();
    origin.always(stated("text/html", "", &text(5000)));
    let edge = before(&origin);
    let mut client = Client::plain(edge.address());
    let answer =
        client.send("GET / HTTP/1.0\r\nHost: h\r\nAccept-Encoding: gzip\r\nConnection: keep-alive\r\n\r\n").answer();
    assert_eq!((answer.framing, answer.field("connection")), (Framing::UntilClose, Some("close")));
    assert!(decoded("gzip", &answer.body).unwrap() == text(5000));
    client.closed();
}

#[test]
fn answers_without_whole_content_keep_their_fields() {
    let origin = Origin::start();
    let edge = before(&origin);
    let mut client = Client::plain(edge.address());
    let accept = ("Accept-Encoding", "gzip");

    origin.next(origin::Answer::bytes(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nETag: \"a\"\r\nContent-Length: 5000\r\n\r\n",
    ));
    let head = client.ask("HEAD", "/", &[accept], b"");
    assert_eq!((head.field("content-encoding"), head.field("etag")), (Some("gzip"), Some("W/\"a\"")));
    assert_eq!((head.field("content-length"), head.field("vary")), (None, Some("accept-encoding")));

    origin.next(origin::Answer::bytes("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n"));
    let unchanged = client.ask("GET", "/", &[accept, ("If-None-Match", "W/\"a\"")], b"");
    assert_eq!((unchanged.status, unchanged.field("etag")), (304, Some("W/\"a\"")));
    assert_eq!((unchanged.field("vary"), unchanged.field("content-encoding")), (Some("accept-encoding"), None));

    let part = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Type: text/html\r\nContent-Range: bytes 0-4999/9000\r\nETag: \"a\"\r\nContent-Length: 5000\r\n\r\n{}",
        text(5000)
    );
    origin.next(origin::Answer::bytes(part));
    let part = client.ask("GET", "/", &[accept, ("Range", "bytes=0-4999")], b"");
    assert_eq!((part.status, part.field("content-encoding"), part.field("vary")), (206, None, None));
    assert_eq!((part.field("etag"), part.text() == text(5000)), (Some("\"a\""), true));

    origin.next(origin::Answer::bytes("HTTP/1.1 204 No Content\r\nContent-Type: text/html\r\n\r\n"));
    let nothing = client.ask("GET", "/", &[accept], b"");
    assert_eq!((nothing.status, nothing.field("content-encoding"), nothing.field("vary")), (204, None, None));
}

#[test]
fn a_cut_answer_is_never_whole() {
    let origin = Origin::start();
    let edge = before(&origin);
    let half = text(60_000);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 100000\r\n\r\n";
    let short = origin::Answer::bytes(head).send(&half).close();
    let unended = chunked("text/html", &[&half]).close();
    for coding in ["gzip", "br", "zstd"] {
        for cut in [&short, &unended] {
            origin.next(cut.clone()).next(cut.clone());
            let answer = get(&edge, "/", coding);
            assert_eq!((answer.status, answer.field("content-encoding")), (200, Some(coding)));
            assert!(matches!(answer.end, End::Cut(_)), "{coding} {:?}", answer.end);
            assert!(decoded(coding, &answer.body).is_err(), "{coding}: a cut answer decodes as whole");
            let answer = h2::Client::plain(edge.address()).ask(asking(coding));
            assert!(answer.reset.is_some(), "{coding} {answer:?}");
            assert!(decoded(coding, &answer.body).is_err(), "{coding}: a cut answer decodes as whole");
        }
    }
}

#[test]
fn streams_are_not_held_back() {
    let origin = Origin::start();
    let edge = before(&origin);
    let gate = Gate::new();
    origin
        .next(chunked("text/event-stream", &["data: 1\n\n"]).hold(&gate).send(chunk("data: 2\n\n")).send("0\r\n\r\n"));
    let mut client = Client::plain(edge.address());
    client.send("GET / HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip, br, zstd\r\n\r\n");
    let (status, fields) = client.next_head();
    assert_eq!(status, 200);
    assert!(!fields.iter().any(|(name, _)| name == "content-encoding" || name == "vary"), "{fields:?}");
    assert_eq!(client.octets(14), b"9\r\ndata: 1\n\n\r\n");
    gate.open();
    assert_eq!(client.octets(19), b"9\r\ndata: 2\n\n\r\n0\r\n\r\n");

    // Lines of JSON are compressed, and each goes out when it comes.
    let gate = Gate::new();
    origin.next(
        chunked("application/x-ndjson", &["{\"n\":1}\n"]).hold(&gate).send(chunk("{\"n\":2}\n")).send("0\r\n\r\n"),
    );
    let mut client = Client::plain(edge.address());
    client.send("GET / HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n");
    let (_, fields) = client.next_head();
    assert!(fields.contains(&("content-encoding".to_owned(), "gzip".to_owned())), "{fields:?}");
    let mut decoder = flate2::write::GzDecoder::new(Vec::new());
    let mut take_chunk = |decoder: &mut flate2::write::GzDecoder<Vec<u8>>| {
        let mut size = Vec::new();
        while !size.ends_with(b"\r\n") {
            size.extend(client.octets(1));
        }
        let size = usize::from_str_radix(std::str::from_utf8(&size).unwrap().trim(), 16).unwrap();
        decoder.write_all(&client.octets(size)).and_then(|()| decoder.flush()).unwrap();
        client.octets(2);
        size
    };
    while decoder.get_ref() != b"{\"n\":1}\n" {
        take_chunk(&mut decoder);
    }
    gate.open();
    while take_chunk(&mut decoder) > 0 {}
    assert_eq!(decoder.finish().unwrap(), b"{\"n\":1}\n{\"n\":2}\n");
}

#[test]
fn grpc_and_what_is_vouched_for_are_untouched() {
    let origin = Origin::start();
    let edge = before(&origin);
    let plain = text(5000);
    origin.next(chunked("application/grpc+json", &[&plain]).send("0\r\ngrpc-status: 0\r\n\r\n"));
    let answer = h2::Client::plain(edge.address()).ask(asking("gzip, br, zstd"));
    assert_eq!((answer.status, answer.body == plain.as_bytes()), (200, true));
    assert_eq!(answer.trailers, [("grpc-status".to_owned(), "0".to_owned())]);
    assert!(answer.all("content-encoding").is_empty() && answer.all("vary").is_empty());
    for more in [
        "Content-Digest: sha-256=:x:\r\n",
        "Content-MD5: x\r\n",
        "Content-Encoding: br\r\n",
        "Cache-Control: no-transform\r\n",
    ] {
        origin.next(stated("text/html", &format!("ETag: \"a\"\r\n{more}"), &plain));
        let answer = get(&edge, "/", "gzip, br, zstd");
        let (name, value) = more.trim().split_once(": ").unwrap();
        assert_eq!(answer.all(name), [value]);
        assert_eq!((answer.field("etag"), answer.field("content-length")), (Some("\"a\""), Some("5000")), "{more}");
        assert!(answer.text() == plain, "{more}");
    }
}

/// Peak memory of a process, in octets.
fn peak(edge: &mut edge::Edge) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", edge.process().id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says it");
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[test]
fn a_large_answer_takes_little_memory() {
    const LENGTH: usize = 64 << 20;
    let origin = Origin::start();
    let mut edge = before(&origin);
    // Octets that do not compress: what goes out is as much as what comes in, so a slow reader holds both back.
    let mut seed = 1_u64;
    let octets: Vec<u8> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b' ' + ((seed >> 33) % 95) as u8
    })
    .take(LENGTH)
    .collect();
    let content = String::from_utf8(octets).unwrap();
    origin.always(stated("text/plain", "", &content));
    get(&edge, "/page", "gzip");
    let before = peak(&mut edge);
    let mut client = Client::plain(edge.address());
    client.send("GET / HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n");
    let sent = wait::some("the edge to stop for a client that reads nothing", || {
        let first = peak(&mut edge);
        std::thread::sleep(std::time::Duration::from_millis(300));
        (peak(&mut edge) == first).then_some(first)
    });
    assert!(sent - before < 16 << 20, "{before} octets grew to {sent}");
    let answer = client.answer();
    assert_eq!((&answer.end, answer.field("content-encoding")), (&End::Clean, Some("gzip")));
    assert!(decoded("gzip", &answer.body).unwrap() == content);
    let after = peak(&mut edge);
    assert!(after - before < 16 << 20, "{before} octets grew to {after}");
}

#[test]
fn between_edges_answers_are_plain_and_the_client_gets_them_compressed_once() {
    let world = setup().and_edge("[compress]\nmin_size = \"1B\"\n").start();
    world.central().put_home("user", "448", "us");
    world.synced();
    let accept = ("Accept-Encoding", "gzip");
    for (entry, home) in [("fr", "us"), ("us", "us")] {
        let answer = world.edge(entry).ask("GET", "/v1/users/448/x", &[accept], b"");
        assert_eq!((answer.status, answer.all("content-encoding")), (200, vec!["gzip"]), "{answer:?}");
        let plain: serde_json::Value = serde_json::from_str(&decoded("gzip", &answer.body).unwrap()).unwrap();
        assert_eq!(plain["at"], home);
        assert_eq!(world.one_at(home).field("accept-encoding"), Some("gzip"));
    }
    let fwd = ("Coordinator-Fwd", "v=1; from=fr; to=us; key=\"user:448\"; epoch=1; seq=1; id=test");
    let mut peer = world.call(world.edge("us").peer_door(), Party::Edge("fr"));
    let answer = peer.ask("GET", "/v1/users/448/x", &[fwd, accept], b"");
    assert_eq!(
        (answer.status, answer.field("content-encoding"), answer.json()["at"].as_str()),
        (200, None, Some("us"))
    );
}

#[test]
fn log_and_metrics_say_what_was_saved() {
    let origin = Origin::start();
    origin.always(stated("text/html", "", &text(50_000)));
    let mut edge = before(&origin);
    let answer = get(&edge, "/", "br");
    let line = edge.process().line("\"encoding\":\"br\"");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["unencoded"], &line["sent"]), (&50_000.into(), &answer.body.len().into()));
    let metrics = Client::plain(edge.door("observe")).get("/metrics").text();
    for (name, coding, value) in [("in", "br", 50_000), ("out", "br", answer.body.len()), ("in", "zstd", 0)] {
        let line = format!("coordinator_compress_{name}_bytes_total{{coding=\"{coding}\"}} {value}\n");
        assert!(metrics.contains(&line), "{line} is missing in\n{metrics}");
    }
}
