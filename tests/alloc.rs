//! What a forwarded request costs in allocations, held as a ratchet: lower the number when it falls; raise it only with a
//! reason in the commit. An own binary, because the allocator counts the whole process.

// Tests are outside the rules for clocks and threads that `clippy.toml` sets for the data path.
#![allow(clippy::disallowed_methods)]

#[path = "../benches/support/alloc.rs"]
mod alloc;

use coordinator::body::Door;
use coordinator::config::load::{self, Kind, Strictness};
use coordinator::config::plan::Plan;
use coordinator::edge::Running;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// Allocations of one GET over kept connections, both sides HTTP/1.1, answered by 512 octets, no access log.
const FORWARDED_MAX: u64 = 13;

/// Requests that fill pools, tables and caches before any is counted.
const WARM: u64 = 200;

/// Requests that are counted: many enough that what happens once a second vanishes in the division.
const COUNTED: u64 = 2_000;

const REQUEST: &[u8] = b"GET /v1/items/847.json HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: test\r\n\
Accept: */*\r\nAccept-Encoding: gzip\r\nCookie: session=0123456789abcdef\r\n\r\n";

#[test]
fn a_forwarded_request_stays_within_its_allocations() {
    let origin = origin();
    let text = format!(
        "[edge]\nname = \"fr\"\nworkers = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\n\
         [local]\norigins = [\"http://{origin}\"]\n[log]\naccess = false\n[[route]]\nmatch = \"/\"\nto = \"local\"\n"
    );
    let read = move || -> Result<Plan, String> {
        let outcome = load::from_text(Kind::Edge, "alloc.toml", &text, &|_| None, Strictness::Run);
        let shown = outcome.render(false);
        outcome.plan.ok_or(shown)
    };
    let plan = read().expect("the configuration is sound");
    let running = Running::edge(plan, Box::new(read)).expect("the edge starts");
    let mut client = TcpStream::connect(running.address(Door::Public).expect("a door")).expect("it is open");
    ask(&mut client, WARM);
    let before = alloc::count();
    ask(&mut client, COUNTED);
    let each = (alloc::count() - before) / COUNTED;
    println!("{each} allocations for each forwarded request");
    assert!(each <= FORWARDED_MAX, "{each} allocations for each request, {FORWARDED_MAX} are allowed");
}

/// Asks so many times; allocates nothing itself.
fn ask(client: &mut TcpStream, times: u64) {
    let mut buffer = [0; 4 << 10];
    for _ in 0..times {
        client.write_all(REQUEST).expect("the edge takes it");
        let mut have = 0;
        while !buffer[..have].ends_with(b"the end") {
            let got = client.read(&mut buffer[have..]).expect("the edge answers");
            assert!(got > 0, "the edge closed the connection");
            have += got;
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200 "), "{}", buffer[..have].escape_ascii());
    }
}

/// An origin that allocates nothing once its connection is open.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let head = "HTTP/1.1 200 OK\r\nServer: test\r\nContent-Type: text/plain\r\nContent-Length: 512\r\n\
                ETag: \"1\"\r\nCache-Control: max-age=60\r\n\r\n";
    let answer = [head.as_bytes(), &[b'x'; 505], b"the end"].concat();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the edge connects");
        let (mut buffer, mut have) = ([0; 4 << 10], 0);
        while let Ok(got @ 1..) = stream.read(&mut buffer[have..]) {
            have += got;
            if buffer[..have].ends_with(b"\r\n\r\n") {
                stream.write_all(&answer).expect("the edge reads");
                have = 0;
            }
        }
    });
    address
}
