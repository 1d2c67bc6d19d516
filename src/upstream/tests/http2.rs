//! HTTP/2 origins and links: streams that end, are cut, are refused, or become tunnels.

use super::*;
use ::h2::server::{Builder, SendResponse};
use ::h2::{Reason, RecvStream};
use http::{Response, StatusCode};
use std::future::poll_fn;

/// One request at the other side.
struct Stream {
    head: http::request::Parts,
    body: RecvStream,
    respond: SendResponse<Bytes>,
}

impl Stream {
    fn answer(&mut self, status: u16, ends: bool) -> ::h2::SendStream<Bytes> {
        let head = Response::builder().status(status).body(()).unwrap();
        self.respond.send_response(head, ends).unwrap()
    }

    /// The next content; empty at the end.
    async fn data(&mut self) -> Bytes {
        let Some(octets) = self.body.data().await else { return Bytes::new() };
        let octets = octets.unwrap();
        self.body.flow_control().release_capacity(octets.len()).unwrap();
        octets
    }

    /// Waits until our side resets the stream.
    async fn reset(&mut self) -> Reason {
        poll_fn(|cx| self.respond.poll_reset(cx)).await.unwrap()
    }
}

/// An HTTP/2 server that runs `script` for each stream and counts connections.
async fn h2c<F, S>(kind: Side, builder: Builder, script: F) -> (Arc<Endpoint>, Rc<Cell<usize>>)
where
    F: Fn(Stream) -> S + 'static,
    S: Future<Output = ()> + 'static,
{
    let (listener, address) = listen().await;
    let connections = Rc::new(Cell::new(0));
    let (count, script) = (connections.clone(), Rc::new(script));
    spawn_local(async move {
        while let Ok((socket, _)) = listener.accept().await {
            count.set(count.get() + 1);
            let (builder, script) = (builder.clone(), script.clone());
            spawn_local(async move {
                let mut connection = builder.handshake::<_, Bytes>(socket).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    let (head, body) = request.into_parts();
                    spawn_local(script(Stream { head, body, respond }));
                }
            });
        }
    });
    let scheme = if kind == Side::Link { UrlScheme::Http } else { UrlScheme::H2c };
    (endpoint(scheme, address, kind), connections)
}

#[test]
fn content_and_trailers_pass_both_ways() {
    local(async {
        let (endpoint, _) = h2c(Side::Origin, Builder::new(), |mut stream| async move {
            assert_eq!(stream.head.uri, "http://site.example/echo?x");
            assert!(!stream.head.headers.contains_key("connection") && !stream.head.headers.contains_key("host"));
            let mut send = stream.answer(200, false);
            loop {
                let octets = stream.data().await;
                if octets.is_empty() {
                    break;
                }
                send.send_data(octets, false).unwrap();
            }
            send.send_trailers(stream.body.trailers().await.unwrap().unwrap()).unwrap();
        })
        .await;
        let upstream = Upstream::new(LIMITS);
        let (feed, body) = fed();
        let mut request = outgoing(Method::Post, "/echo?x", body);
        made(&mut request).fields.push(b"Connection", b"keep-alive");
        made(&mut request).fields.push(b"TE", b"trailers");
        for piece in [data("ab"), data("cd"), Ok(Piece::Trailers([("grpc-status", "0")].into_iter().collect()))] {
            feed.send(piece).unwrap();
        }
        assert_eq!(outcome(&upstream, &endpoint, request).await, "200 abcd[grpc-status: 0].");
        assert_eq!(endpoint.in_flight(), 0);
    });
}

#[test]
fn streams_share_one_connection_even_when_they_start_together() {
    local(async {
        let (endpoint, connections) = h2c(Side::Link, Builder::new(), |mut stream| async move {
            stream.answer(204, true);
        })
        .await;
        let upstream = Upstream::new(LIMITS);
        let call = || outcome(&upstream, &endpoint, get("/"));
        let answers = tokio::join!(call(), call(), call());
        assert_eq!(answers, ("204 .".to_owned(), "204 .".to_owned(), "204 .".to_owned()));
        assert!(pooled(&upstream, &endpoint).await.1);
        assert_eq!(connections.get(), 1);
    });
}

#[test]
fn large_bodies_pass_both_windows() {
    local(async {
        let (endpoint, _) = h2c(Side::Origin, Builder::new(), |mut stream| async move {
            let mut count = 0;
            loop {
                let octets = stream.data().await;
                if octets.is_empty() {
                    break;
                }
                count += octets.len();
            }
            let mut send = stream.answer(200, false);
            send.reserve_capacity(count);
            while count > 0 {
                let room = poll_fn(|cx| send.poll_capacity(cx)).await.unwrap().unwrap().min(count);
                send.send_data(vec![b'y'; room].into(), room == count).unwrap();
                count -= room;
            }
        })
        .await;
        let upstream = Upstream::new(LIMITS);
        let request = outgoing(Method::Put, "/", Body::from(vec![b'x'; 5 << 20]));
        let mut answer = exchange(&upstream, &endpoint, request).await.unwrap();
        let text = read(&mut answer.body).await;
        assert_eq!((text.len(), text.ends_with("yyy.")), ((5 << 20) + 1, true));
    });
}

#[test]
fn a_reader_that_rests_holds_the_sender_back() {
    local(async {
        let (told, mut sent) = tokio::sync::mpsc::unbounded_channel();
        let (endpoint, _) = h2c(Side::Origin, Builder::new(), move |mut stream| {
            let told = told.clone();
            async move {
                let mut send = stream.answer(200, false);
                let mut total = 0;
                send.reserve_capacity(usize::MAX);
                // Ends when no more window comes for a while.
                let more = Duration::from_millis(300);
                while let Ok(room) = tokio::time::timeout(more, poll_fn(|cx| send.poll_capacity(cx))).await {
                    let Some(Ok(room)) = room else { break };
                    send.send_data(vec![b'x'; room].into(), false).unwrap();
                    total += room;
                }
                told.send(total).unwrap();
            }
        })
        .await;
        let upstream = Upstream::new(LIMITS);
        let answer = exchange(&upstream, &endpoint, get("/")).await.unwrap();
        assert_eq!(sent.recv().await, Some(1 << 20), "one window and no more");
        drop(answer);
    });
}

#[test]
fn cuts_are_never_complete_answers() {
    // (what the script does after `part`, what we make of it)
    let table = [
        (Some(Reason::NO_ERROR), "200 part!http_response_incomplete"),
        (Some(Reason::CANCEL), "200 part!http_response_incomplete"),
        (Some(Reason::INTERNAL_ERROR), "200 part!http_response_incomplete"),
        (None, "200 part!connection_read_timeout"),
    ];
    for (reason, expected) in table {
        local(async {
            let (endpoint, _) = h2c(Side::Origin, Builder::new(), move |mut stream| async move {
                let mut send = stream.answer(200, false);
                send.send_data("part".into(), false).unwrap();
                // The window update shows that the part has arrived; a reset may overtake what is still queued.
                tokio::time::sleep(Duration::from_millis(20)).await;
                match reason {
                    Some(reason) => send.send_reset(reason),
                    None => drop(poll_fn(|cx| send.poll_reset(cx)).await),
                }
            })
            .await;
            let upstream = Upstream::new(LIMITS);
            assert_eq!(outcome(&upstream, &endpoint, get("/")).await, expected);
            assert_eq!(endpoint.in_flight(), 0);
        });
    }
}

#[test]
fn content_must_be_as_long_as_the_head_says() {
    for (length, complete) in [(4, true), (5, false), (3, false)] {
        local(async {
            let (endpoint, _) = h2c(Side::Origin, Builder::new(), move |mut stream| async move {
                let head = Response::builder().status(200).header("content-length", length).body(()).unwrap();
                let mut send = stream.respond.send_response(head, false).unwrap();
                let _ = send.send_data("part".into(), true);
            })
            .await;
            let answer = outcome(&Upstream::new(LIMITS), &endpoint, get("/")).await;
            assert_eq!(answer == "200 part.", complete, "{answer}");
            assert!(complete || answer.contains('!') || answer.contains("Never"), "{answer}");
        });
    }
}

#[test]
fn an_answer_followed_by_no_error_is_complete() {
    local(async {
        let (endpoint, _) = h2c(Side::Origin, Builder::new(), |mut stream| async move {
            let mut send = stream.answer(413, false);
            send.send_data("big".into(), true).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            send.send_reset(Reason::NO_ERROR);
        })
        .await;
        let upstream = Upstream::new(LIMITS);
        let (feed, body) = fed();
        feed.send(data("ab")).unwrap();
        assert_eq!(outcome(&upstream, &endpoint, outgoing(Method::Post, "/", body)).await, "413 big.");
        assert!(feed.is_closed());
    });
}

#[test]
fn resets_before_the_head_say_what_may_follow() {
    let table = [
        (Reason::REFUSED_STREAM, "connection_terminated Unsent"),
        (Reason::CANCEL, "connection_terminated IfIdempotent"),
        (Reason::INTERNAL_ERROR, "connection_terminated IfIdempotent"),
    ];
    for (reason, expected) in table {
        local(async {
            let script = move |mut stream: Stream| async move { stream.respond.send_reset(reason) };
            let (endpoint, _) = h2c(Side::Origin, Builder::new(), script).await;
            assert_eq!(outcome(&Upstream::new(LIMITS), &endpoint, get("/")).await, expected);
        });
    }
}

/// Frames as octets: settings, their acknowledgement, and GOAWAY with a last id and NO_ERROR.
fn goaway(last: u8) -> Vec<u8> {
    let mut frames = vec![0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0];
    frames.extend([0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last, 0, 0, 0, 0]);
    frames
}

/// Whether a HEADERS frame has come behind the preface.
fn has_headers(seen: &[u8]) -> bool {
    let mut rest = seen.get(24..).unwrap_or_default();
    while let [a, b, c, kind, ..] = rest {
        if *kind == 1 {
            return true;
        }
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    false
}

#[test]
fn goaway_frees_only_streams_above_its_last_id() {
    for (last, expected) in [(0, "connection_terminated Unsent"), (1, "connection_terminated IfIdempotent")] {
        local(async {
            let (listener, address) = listen().await;
            let endpoint = endpoint(UrlScheme::H2c, address, Side::Origin);
            let upstream = Upstream::new(LIMITS);
            let serve = async {
                for _ in 0..2 {
                    let (mut socket, _) = listener.accept().await.unwrap();
                    let mut seen = Vec::new();
                    while !has_headers(&seen) {
                        socket.read_buf(&mut seen).await.unwrap();
                    }
                    socket.write_all(&goaway(last)).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            let calls = async {
                let first = outcome(&upstream, &endpoint, get("/")).await;
                (first, outcome(&upstream, &endpoint, get("/")).await)
            };
            let ((), (first, second)) = tokio::join!(serve, calls);
            assert_eq!((first.as_str(), second.as_str()), (expected, expected), "each on a link of its own");
        });
    }
}

/// Settings, an answer on the first stream with these fields as literals, and content that ends it.
fn answer(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let literal = |(name, value): &(&str, &str)| [vec![0], text(name), text(value)].concat();
    let block: Vec<u8> = fields.iter().flat_map(literal).collect();
    let head = [0, 0, block.len() as u8, 1, 4, 0, 0, 0, 1];
    [&[0, 0, 0, 4, 0, 0, 0, 0, 0], &head[..], &block, &[0, 0, 2, 0, 1, 0, 0, 0, 1], b"hi"].concat()
}

#[test]
fn what_is_no_answer_in_http2_is_never_passed_on() {
    let ok = (":status", "200");
    let bad: &[&[(&str, &str)]] = &[
        &[("a", "b")],
        &[(":status", "2")],
        &[(":status", "099")],
        &[(":status", "abc")],
        &[(":status", "1000")],
        &[(":status", "101")],
        &[(":status", "103")],
        &[ok, ok],
        &[("a", "b"), ok],
        &[ok, (":evil", "1")],
        &[ok, ("X-Upper", "1")],
        &[ok, ("", "1")],
        &[ok, ("a b", "1")],
        &[ok, ("a\r\nb", "1")],
        &[ok, ("a", "1\r\nset-cookie: evil")],
        &[ok, ("a", "1\n2")],
        &[ok, ("a", "1\0")],
        &[ok, ("connection", "close")],
        &[ok, ("transfer-encoding", "chunked")],
        &[ok, ("keep-alive", "1")],
        &[ok, ("upgrade", "h2c")],
        &[ok, ("content-length", "")],
        &[ok, ("content-length", "+2")],
        &[ok, ("content-length", "2, 2")],
        &[ok, ("content-length", "2"), ("content-length", "3")],
    ];
    let good = [ok, ("content-length", "2")];
    let rows = bad.iter().map(|fields| (*fields, false)).chain([(&good[..], true)]);
    for (fields, good) in rows {
        local(async {
            let (listener, address) = listen().await;
            let endpoint = endpoint(UrlScheme::H2c, address, Side::Origin);
            let serve = async {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut seen = Vec::new();
                while !has_headers(&seen) {
                    socket.read_buf(&mut seen).await.unwrap();
                }
                socket.write_all(&answer(fields)).await.unwrap();
                std::future::pending::<()>().await;
            };
            let upstream = Upstream::new(LIMITS);
            let told = tokio::select! {
                told = outcome(&upstream, &endpoint, get("/")) => told,
                () = serve => unreachable!("it stays open"),
            };
            assert_eq!(told == "200 hi.", good, "{fields:?}: {told}");
            assert!(good || told.starts_with("http_protocol_error "), "{fields:?}: {told}");
        });
    }
}

#[test]
fn a_client_that_goes_away_resets_the_stream() {
    local(async {
        let (told, mut resets) = tokio::sync::mpsc::unbounded_channel();
        let (endpoint, _) = h2c(Side::Origin, Builder::new(), move |mut stream| {
            let told = told.clone();
            async move {
                if stream.head.uri.path() == "/started" {
                    let mut send = stream.answer(200, false);
                    send.send_data("part".into(), false).unwrap();
                    told.send(poll_fn(|cx| send.poll_reset(cx)).await.unwrap()).unwrap();
                } else {
                    told.send(stream.reset().await).unwrap();
                }
            }
        })
        .await;
        let upstream = Upstream::new(LIMITS);
        let answer = exchange(&upstream, &endpoint, get("/started")).await.unwrap();
        drop(answer);
        assert_eq!(resets.recv().await, Some(Reason::CANCEL));
        let silent = tokio::time::timeout(Duration::from_millis(50), exchange(&upstream, &endpoint, get("/silent")));
        assert!(silent.await.is_err());
        assert_eq!(resets.recv().await, Some(Reason::CANCEL));
        assert_eq!(endpoint.in_flight(), 0);
    });
}

#[test]
fn interim_responses_pass_and_storms_end() {
    for (count, expected) in [(2, "200 ok."), (9, "http_protocol_error Never")] {
        local(async {
            let (endpoint, _) = h2c(Side::Origin, Builder::new(), move |mut stream| async move {
                for _ in 0..count {
                    let hints = Response::builder().status(StatusCode::EARLY_HINTS).body(()).unwrap();
                    let _ = stream.respond.send_informational(hints);
                }
                let mut send = stream.answer(200, false);
                let _ = send.send_data("ok".into(), true);
            })
            .await;
            let (upstream, heard) = (Upstream::new(LIMITS), Rc::new(Heard::default()));
            let line = InterimLine::new(heard.clone(), 1);
            let request = Outgoing { interim: Some(line), ..get("/") };
            assert_eq!(outcome(&upstream, &endpoint, request).await, expected);
            assert_eq!(*heard.0.borrow(), vec![103; count]);
        });
    }
}

#[test]
fn streams_are_bounded_by_what_the_other_side_allows() {
    local(async {
        let mut builder = Builder::new();
        builder.max_concurrent_streams(1);
        let (endpoint, _) = h2c(Side::Origin, builder, |mut stream| async move {
            let mut send = stream.answer(200, false);
            if stream.head.uri.path() == "/long" {
                send.send_data("part".into(), false).unwrap();
                poll_fn(|cx| send.poll_reset(cx)).await.unwrap();
            } else {
                send.send_data("ok".into(), true).unwrap();
            }
        })
        .await;
        let upstream = Upstream::new(LIMITS);
        let held = exchange(&upstream, &endpoint, get("/long")).await.unwrap();
        assert_eq!(outcome(&upstream, &endpoint, get("/")).await, "connection_limit_reached Unsent");
        let later = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(held);
        };
        let (answer, ()) = tokio::join!(outcome(&upstream, &endpoint, get("/")), later);
        assert_eq!(answer, "200 ok.");
    });
}

#[test]
fn an_extended_connect_becomes_a_tunnel_where_it_is_taken() {
    for (enabled, status, expected) in [(true, 200, "tunnel"), (true, 403, "403 ."), (false, 200, "refused")] {
        local(async {
            let mut builder = Builder::new();
            if enabled {
                builder.enable_connect_protocol();
            }
            let (endpoint, _) = h2c(Side::Link, builder, move |mut stream| async move {
                assert_eq!((stream.head.method.as_str(), stream.head.uri.path()), ("CONNECT", "/chat"));
                assert_eq!(stream.head.extensions.get::<::h2::ext::Protocol>().unwrap().as_str(), "websocket");
                let mut send = stream.answer(status, status != 200);
                if status == 200 {
                    let said = stream.data().await;
                    send.send_data(said, false).unwrap();
                    assert!(stream.data().await.is_empty());
                    send.send_data(Bytes::new(), true).unwrap();
                }
            })
            .await;
            let upstream = Upstream::new(LIMITS);
            let request = Outgoing { upgrade: Some("websocket".to_owned()), ..get("/chat") };
            let answer = exchange(&upstream, &endpoint, request).await;
            let seen = match answer {
                Err(error) => {
                    assert_eq!((error.kind(), error.may_retry()), (Kind::HttpUpgradeFailed, Again::Unsent));
                    "refused".to_owned()
                }
                Ok(Answer { tunnel: Some(mut tunnel), .. }) => {
                    tunnel.write_all(b"ping").await.unwrap();
                    tunnel.shutdown().await.unwrap();
                    let mut text = String::new();
                    tunnel.read_to_string(&mut text).await.unwrap();
                    assert_eq!(text, "ping");
                    "tunnel".to_owned()
                }
                Ok(mut answer) => format!("{} {}", answer.head.status, read(&mut answer.body).await),
            };
            assert_eq!(seen, expected);
        });
    }
}

#[test]
fn a_silent_link_is_found_dead() {
    local(async {
        let (listener, address) = listen().await;
        let endpoint = endpoint(UrlScheme::Http, address, Side::Link);
        let upstream = Upstream::new(LIMITS);
        let waits = Timeouts { first_byte: Duration::from_secs(15), ..waits() };
        let mut record = Record::start();
        // It accepts and never says a word: not even settings.
        let mut request = get("/");
        let call = upstream.exchange(&endpoint, &mut request, &waits, &mut record);
        let before = clock::now();
        let (error, _socket) = tokio::join!(call, listener.accept());
        let error = error.err().unwrap();
        assert_eq!((error.kind(), error.may_retry()), (Kind::ConnectionTerminated, Again::IfIdempotent));
        assert!(clock::now().duration_since(before) < Duration::from_secs(10));
    });
}

#[test]
fn a_failing_client_resets_its_stream_and_no_other() {
    local(async {
        let (told, mut resets) = tokio::sync::mpsc::unbounded_channel();
        let (endpoint, connections) = h2c(Side::Origin, Builder::new(), move |mut stream| {
            let told = told.clone();
            async move {
                if stream.head.method == http::Method::PUT {
                    told.send(stream.reset().await).unwrap();
                } else {
                    stream.answer(204, true);
                }
            }
        })
        .await;
        let upstream = Upstream::new(LIMITS);
        let (feed, body) = fed();
        feed.send(data("ab")).unwrap();
        feed.send(Err(Error::new(Kind::ClientClosed, "gone"))).unwrap();
        let answer = outcome(&upstream, &endpoint, outgoing(Method::Put, "/", body)).await;
        assert_eq!(answer, "client_closed Never");
        assert_eq!(resets.recv().await, Some(Reason::CANCEL));
        assert_eq!(outcome(&upstream, &endpoint, get("/")).await, "204 .");
        assert_eq!(connections.get(), 1);
    });
}
