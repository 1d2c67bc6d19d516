//! HTTP/2 in front.

use super::script::{World, door, plan, until, world, world_of};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{Method, Request, Response};
use std::io::{Read, Write};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

type Client = SendRequest<Bytes>;

/// Runs a client; it must end within some time.
pub(super) fn run<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    let bounded = async { tokio::time::timeout(Duration::from_secs(30), body).await.expect("in time") };
    runtime.unwrap().block_on(bounded)
}

pub(super) async fn client_over(io: impl AsyncRead + AsyncWrite + Unpin + 'static) -> Client {
    let (client, connection) = h2::client::handshake(io).await.unwrap();
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    client.ready().await.unwrap()
}

async fn client(world: &World) -> Client {
    client_over(tokio::net::TcpStream::connect(world.address).await.unwrap()).await
}

pub(super) fn request(method: Method, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://shop.example{path}")).body(()).unwrap()
}

pub(super) async fn get(client: &mut Client, path: &str) -> Result<Response<RecvStream>, h2::Error> {
    let (response, _) = client.clone().ready().await?.send_request(request(Method::GET, path), true)?;
    response.await
}

/// The content, and how it ended.
pub(super) async fn content(response: Response<RecvStream>) -> (String, Result<http::HeaderMap, h2::Error>) {
    let (mut body, mut all) = (response.into_body(), Vec::new());
    while let Some(octets) = body.data().await {
        match octets {
            Ok(octets) => {
                all.extend_from_slice(&octets);
                let _ = body.flow_control().release_capacity(octets.len());
            }
            Err(error) => return (String::from_utf8(all).unwrap(), Err(error)),
        }
    }
    let trailers = body.trailers().await.map(Option::unwrap_or_default);
    (String::from_utf8(all).unwrap(), trailers)
}

#[test]
fn prior_knowledge_is_recognised_and_streams_are_served() {
    let world = world();
    run(async {
        let mut client = client(&world).await;
        let response = get(&mut client, "/hello").await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-length"], "5");
        assert!(response.headers().contains_key("date"));
        assert_eq!(content(response).await.0, "hello");
        let big = content(get(&mut client, "/big").await.unwrap()).await;
        assert_eq!((big.0.len(), big.1.is_ok()), (3 << 20, true));
        assert_eq!(get(&mut client, "/no-content").await.unwrap().status(), 204);
    });
    assert_eq!(world.recorded(3), [(200, ""), (200, ""), (204, "")]);
    let records = world.records.lock().unwrap();
    let summary = records[0].1.as_ref().unwrap();
    assert_eq!((summary.authority(), summary.version.as_str()), ("shop.example", "2"));
}

#[test]
fn content_and_trailers_go_both_ways() {
    let world = world();
    run(async {
        let mut client = client(&world).await;
        let (response, mut send) = client.send_request(request(Method::POST, "/echo"), false).unwrap();
        let whole = "x".repeat(600 << 10);
        let mut left = Bytes::from(whole.clone());
        while !left.is_empty() {
            send.reserve_capacity(left.len());
            let room = std::future::poll_fn(|cx| send.poll_capacity(cx)).await.unwrap().unwrap();
            send.send_data(left.split_to(room.min(left.len())), false).unwrap();
        }
        send.send_trailers([(http::HeaderName::from_static("x-sum"), "7".parse().unwrap())].into_iter().collect())
            .unwrap();
        let answer = content(response.await.unwrap()).await.0;
        assert_eq!(answer, format!("{whole}|[x-sum: 7]"));
        let trailers = content(get(&mut client, "/trailers").await.unwrap()).await;
        assert_eq!(trailers.0, "data");
        let trailers = trailers.1.unwrap();
        assert_eq!((trailers.len(), &trailers["grpc-status"]), (1, &"0".parse().unwrap()));
    });
    assert_eq!(world.recorded(1)[0], (200, ""));
    assert_eq!(world.records.lock().unwrap()[0].0.received, 600 << 10);
}

#[test]
fn head_has_fields_and_no_content() {
    let world = world();
    run(async {
        let mut client = client(&world).await;
        let (response, _) = client.send_request(request(Method::HEAD, "/head"), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers()["content-length"], "1234");
        assert!(response.body().is_end_stream());
    });
}

#[test]
fn an_incomplete_body_ends_with_a_reset() {
    let world = world();
    run(async {
        let mut client = client(&world).await;
        for path in ["/cut", "/short", "/long"] {
            // The engine may take back what it has not yet sent, down to the head.
            let end = match get(&mut client, path).await {
                Ok(response) => content(response).await.1.unwrap_err(),
                Err(error) => error,
            };
            assert_eq!(end.reason(), Some(Reason::INTERNAL_ERROR), "{path}");
        }
        assert_eq!(content(get(&mut client, "/hello").await.unwrap()).await.0, "hello", "the connection goes on");
    });
    assert_eq!(world.recorded(3)[..3], [(200, "http_response_incomplete"); 3]);
}

#[test]
fn a_panic_costs_one_stream() {
    let world = world();
    run(async {
        let mut client = client(&world).await;
        assert_eq!(get(&mut client, "/panic").await.unwrap().status(), 500);
        assert_eq!(get(&mut client, "/hello").await.unwrap().status(), 200);
    });
}

#[test]
fn interim_responses_are_relayed() {
    let world = world();
    run(async {
        let mut client = client(&world).await;
        let (mut response, _) = client.send_request(request(Method::GET, "/early"), true).unwrap();
        let hints = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!((hints.status().as_u16(), &hints.headers()["link"]), (103, &"</style.css>".parse().unwrap()));
        assert_eq!(content(response.await.unwrap()).await.0, "late");
    });
}

#[test]
fn content_that_waits_for_leave_gets_it_once_it_is_wanted() {
    let world = world();
    run(async {
        let mut client = client(&world).await;
        let mut asks = request(Method::POST, "/echo");
        asks.headers_mut().insert("expect", "100-continue".parse().unwrap());
        let (mut response, mut content_of) = client.send_request(asks, false).unwrap();
        let leave = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!(leave.status(), 100);
        content_of.send_data("hi".into(), true).unwrap();
        assert!(std::future::poll_fn(|cx| response.poll_informational(cx)).await.is_none(), "leave is given once");
        assert_eq!(content(response.await.unwrap()).await.0, "hi|[]");
    });
}

#[test]
fn what_cannot_be_admitted_is_refused() {
    let mut small = plan();
    small.limits.uri = 512;
    small.limits.body = Some(10);
    small.limits.fields = 8;
    let world = world_of(small, door());
    let ask = |path: &str| request(Method::GET, path);
    let mut many = ask("/hello");
    for at in 0..9 {
        many.headers_mut().insert(http::HeaderName::try_from(format!("x-{at}")).unwrap(), "1".parse().unwrap());
    }
    let mut hosts = ask("/hello");
    hosts.headers_mut().insert("host", "other.example".parse().unwrap());
    let mut expects = ask("/hello");
    expects.headers_mut().insert("expect", "cake".parse().unwrap());
    let mut large = request(Method::POST, "/echo");
    large.headers_mut().insert("content-length", "11".parse().unwrap());
    let connect = Request::builder().method(Method::CONNECT).uri("shop.example:443").body(()).unwrap();
    let cases = [
        (ask(&format!("/{}", "x".repeat(600))), 414),
        (many, 431),
        (hosts, 400),
        (expects, 417),
        (connect, 501),
        (large, 413),
    ];
    run(async {
        let mut client = client(&world).await;
        for (request, status) in cases {
            let shown = format!("{request:?}");
            let end = request.method() != Method::POST;
            let (response, _body) = client.send_request(request, end).unwrap();
            assert_eq!(response.await.unwrap().status(), status, "{shown}");
        }
        // More than announced is the engine's to refuse, more than allowed is ours.
        let (response, mut body) = client.send_request(request(Method::POST, "/echo"), false).unwrap();
        body.send_data("hello hello".into(), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 413);
    });
}

#[test]
fn a_client_that_resets_ends_its_request() {
    let world = world();
    run(async {
        let mut client = client(&world).await;
        let (response, mut body) = client.send_request(request(Method::POST, "/never"), false).unwrap();
        body.send_data("x".into(), false).unwrap();
        let (endless, _) = client.send_request(request(Method::GET, "/endless"), true).unwrap();
        let endless = endless.await.unwrap();
        body.send_reset(Reason::CANCEL);
        drop((response, endless));
        let wait = async {
            while world.records.lock().unwrap().len() < 2 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        wait.await;
    });
    let mut ends = world.recorded(2);
    ends.sort_unstable();
    assert_eq!(ends, [(200, "client_closed"), (499, "client_closed")]);
}

#[test]
fn a_client_that_leaves_ends_its_requests() {
    let world = world();
    run(async {
        let mut client = client(&world).await;
        let (response, _) = client.send_request(request(Method::GET, "/never"), true).unwrap();
        // Requests begin in order: the first is being answered once the second has been.
        get(&mut client, "/hello").await.unwrap();
        drop(response);
    });
    let mut ends = world.recorded(2);
    ends.sort_unstable();
    assert_eq!(ends, [(200, ""), (499, "client_closed")]);
    until("the end", || world.workers.connections() == 0);
}

#[test]
fn an_extended_connect_is_a_tunnel() {
    let world = world();
    run(async {
        let mut client = client(&world).await;
        // The server's SETTINGS allow it; an answered request shows that they have come.
        get(&mut client, "/hello").await.unwrap();
        assert!(client.is_extended_connect_protocol_enabled());
        let mut ask = request(Method::CONNECT, "/upgrade");
        ask.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        let (response, mut send) = client.send_request(ask, false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        send.send_data("ping".into(), true).unwrap();
        assert_eq!(content(response).await.0, "ping");
    });
    assert_eq!(world.recorded(2)[1], (200, ""));
}

#[test]
fn a_stalled_reader_is_reset() {
    let mut hasty = plan();
    hasty.timeouts.send = Duration::from_millis(150);
    let world = world_of(hasty, door());
    run(async {
        let mut client = client(&world).await;
        let response = get(&mut client, "/big").await.unwrap();
        let mut body = response.into_body();
        // The window is never given back.
        let end = loop {
            match body.data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("a complete response"),
            }
        };
        assert_eq!(end.reason(), Some(Reason::INTERNAL_ERROR));
    });
    assert_eq!(world.recorded(1), [(200, "connection_write_timeout")]);
}

#[test]
fn slow_content_runs_out_of_time() {
    let mut hasty = plan();
    hasty.timeouts.body = Duration::from_millis(150);
    let world = world_of(hasty, door());
    run(async {
        let mut client = client(&world).await;
        let (response, mut body) = client.send_request(request(Method::POST, "/echo"), false).unwrap();
        body.send_data("x".into(), false).unwrap();
        assert_eq!(response.await.unwrap().status(), 408);
    });
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Sends raw octets; gives the kind, the flags and the payload of each frame until the server closes.
fn frames(world: &World, octets: &[u8]) -> Vec<(u8, u8, Vec<u8>)> {
    let mut tcp = world.connect();
    // A server that has seen enough may close while we still write.
    let _ = tcp.write_all(octets);
    let (mut all, mut frames) = (Vec::new(), Vec::new());
    let _ = tcp.read_to_end(&mut all);
    let mut rest = &all[..];
    while rest.len() >= 9 {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        frames.push((rest[3], rest[4], rest.get(9..9 + length).unwrap_or_default().to_vec()));
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    frames
}

/// Sends raw octets; gives the error code of the GOAWAY that the server closes with, if any.
fn farewell(world: &World, octets: &[u8]) -> Option<u32> {
    let mut goaways = frames(world, octets).into_iter().filter(|(kind, ..)| *kind == 7);
    goaways.next_back().map(|(_, _, payload)| u32::from_be_bytes(payload[4..8].try_into().unwrap()))
}

#[test]
fn the_end_of_a_known_length_is_said_with_its_last_octets() {
    let mut hasty = plan();
    hasty.timeouts.idle = Duration::from_millis(100);
    let world = world_of(hasty, door());
    let data = |path: &[u8]| {
        let block = [b"\x82\x86\x04", &[path.len() as u8][..], path, b"\x41\x01h"].concat();
        let frames = frames(&world, &[PREFACE, &headers(1, &block)].concat());
        let data = frames.into_iter().filter(|(kind, ..)| *kind == 0);
        data.map(|(_, flags, payload)| (flags, String::from_utf8(payload).unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(data(b"/hello"), [(1, "hello".into())]);
    assert_eq!(data(b"/length"), [(0, "one".into()), (1, "two".into())]);
    assert_eq!(data(b"/chunks").last(), Some(&(1, String::new())), "an end that was not known");
}

#[test]
fn a_header_block_that_never_ends_closes_the_connection() {
    let mut hasty = plan();
    hasty.timeouts.head = Duration::from_millis(200);
    let world = world_of(hasty, door());
    // HEADERS without END_HEADERS, then one CONTINUATION, then silence.
    let block = [PREFACE, b"\0\0\x01\x01\0\0\0\0\x01\x82", b"\0\0\x01\x09\0\0\0\0\x01\x87"].concat();
    assert_eq!(farewell(&world, &block), Some(Reason::ENHANCE_YOUR_CALM.into()));
    assert_eq!(farewell(&world, b"PRI * HTTP/2.0\r\n\r\n"), None, "a preface that never ends");
    assert_eq!(farewell(&world, &PREFACE[..24]), Some(Reason::ENHANCE_YOUR_CALM.into()), "SETTINGS that never come");
    assert_eq!(farewell(&world, &PREFACE[..30]), Some(Reason::ENHANCE_YOUR_CALM.into()), "SETTINGS that never end");
    until("the count", || world.metric("coordinator_connections_cut_total{reason=\"slow_head\"}") == 4);
}

#[test]
fn floods_close_the_connection() {
    let world = world();
    let ping = b"\0\0\x08\x06\0\0\0\0\0pingping".repeat(1200);
    assert_eq!(farewell(&world, &[PREFACE, &ping].concat()), Some(Reason::ENHANCE_YOUR_CALM.into()));
    until("the count", || world.metric("coordinator_connections_cut_total{reason=\"flood_control\"}") == 1);
    // Rapid reset: each stream is opened (GET, http, /) and cancelled at once.
    let mut resets = PREFACE.to_vec();
    for stream in 0..3000u32 {
        let id = (stream * 2 + 1).to_be_bytes();
        resets.extend([b"\0\0\x03\x01\x05", &id[..], b"\x82\x86\x84"].concat());
        resets.extend([b"\0\0\x04\x03\x00", &id[..], b"\0\0\0\x08"].concat());
    }
    assert!(farewell(&world, &resets).is_some_and(|code| code != 0));
    until("the close", || world.workers.connections() == 0);
}

#[test]
fn what_makes_us_reset_is_a_flood_too() {
    let world = world();
    // A window that grows beyond what a number holds is a fault of its stream, which we have to reset (MadeYouReset, CVE-2025-8671).
    let mut faults = PREFACE.to_vec();
    for stream in 0..3000u32 {
        let id = (stream * 2 + 1).to_be_bytes();
        faults.extend([b"\0\0\x03\x01\x05", &id[..], b"\x82\x86\x84"].concat());
        faults.extend([b"\0\0\x04\x08\x00", &id[..], b"\x7f\xff\xff\xff"].concat());
    }
    assert_eq!(farewell(&world, &faults), Some(Reason::ENHANCE_YOUR_CALM.into()));
    until("the count", || world.metric("coordinator_connections_cut_total{reason=\"flood_reset\"}") == 1);
    until("the close", || world.workers.connections() == 0);
}

#[test]
fn a_header_block_in_too_many_frames_is_a_flood() {
    let world = world();
    let block = [PREFACE, b"\0\0\x01\x01\0\0\0\0\x01\x82", &b"\0\0\0\x09\0\0\0\0\x01".repeat(2000)].concat();
    assert_eq!(farewell(&world, &block), Some(Reason::ENHANCE_YOUR_CALM.into()));
    until("the count", || world.metric("coordinator_connections_cut_total{reason=\"flood_head\"}") == 1);
}

#[test]
fn an_idle_connection_says_goodbye() {
    let mut hasty = plan();
    hasty.timeouts.idle = Duration::from_millis(150);
    let world = world_of(hasty, door());
    assert_eq!(farewell(&world, PREFACE), Some(Reason::NO_ERROR.into()));
    until("the count", || world.metric("coordinator_connections_cut_total{reason=\"idle\"}") == 1);
}

/// HEADERS that end their stream, with this block.
fn headers(stream: u32, block: &[u8]) -> Vec<u8> {
    let length = u32::try_from(block.len()).unwrap().to_be_bytes();
    [&length[1..], b"\x01\x05", &stream.to_be_bytes(), block].concat()
}

#[test]
fn a_small_block_that_means_a_large_head_is_refused_and_recorded() {
    let world = world();
    // One field of 3900 octets goes into the table; each further octet repeats it.
    let length = 3900u32 - 127;
    let long = [0x7f, (length & 0x7f) as u8 | 0x80, (length >> 7) as u8];
    let field = [&b"\x82\x86\x84\x41\x01h\x40\x01x"[..], &long, &[b'a'; 3900]].concat();
    let bomb = |repeats: usize| [PREFACE, &headers(1, &[&field[..], &vec![0xbe; repeats]].concat())].concat();
    assert!(farewell(&world, &bomb(4300)).is_some_and(|code| code != 0), "16 MiB of head in 8 KiB");
    until("the close", || world.workers.connections() == 0);
    let mut tcp = world.connect();
    tcp.write_all(&bomb(plan().limits.head / 3900 + 1)).unwrap();
    let ends = world.recorded(1);
    assert_eq!(ends, [(400, "http_request_error")]);
    // The connection, and its table, are as good as ever.
    tcp.write_all(&headers(3, b"\x82\x86\x84\x41\x01h")).unwrap();
    until("the next", || world.recorded(2).len() == 2);
}

#[test]
fn a_client_that_opens_no_window_is_cut_and_holds_little() {
    let mut hasty = plan();
    hasty.timeouts.send = Duration::from_millis(300);
    let world = world_of(hasty, door());
    let mut tcp = world.connect();
    // SETTINGS_INITIAL_WINDOW_SIZE 0: every answer waits for a window that never comes.
    let settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";
    let streams: Vec<u8> =
        (0..50u32).flat_map(|each| headers(2 * each + 1, b"\x82\x86\x04\x06/hello\x41\x01h")).collect();
    tcp.write_all(&[&settings[..], &streams].concat()).unwrap();
    assert!(world.recorded(50).iter().all(|end| *end == (200, "connection_write_timeout")));
    until("the count", || world.metric("coordinator_connections_cut_total{reason=\"slow_reader\"}") == 50);
}
