//! What a forwarded request costs in allocations, held as ratchets: lower a number when it falls; raise it only with a
//! reason in the commit. An own binary with one test, because the allocator counts the whole process.

// Tests are outside the rules for clocks and threads that `clippy.toml` sets for the data path.
#![allow(clippy::disallowed_methods)]

#[path = "../benches/support/alloc.rs"]
mod alloc;
#[path = "../benches/support/http1.rs"]
mod http1;
#[path = "../benches/support/http2.rs"]
mod http2;
#[path = "../benches/support/origin.rs"]
mod origin;

use coordinator::body::Door;
use coordinator::config::load::{self, Kind, Strictness};
use coordinator::config::plan::Plan;
use coordinator::edge::Running;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// Allocations of one GET over kept connections, both sides HTTP/1.1, answered by 512 octets, no access log.
const FORWARDED_MAX: u64 = 0;

/// The same, answered by 16 KiB.
const MIDDLE_MAX: u64 = 0;

/// The same as a POST of 4 KiB.
const POST_MAX: u64 = 4;

/// Allocations of one GET over a kept HTTP/2 connection, one stream at a time, answered by 512 octets over HTTP/1.1.
const HTTP2_MAX: u64 = 12;

/// Requests that fill pools, tables and caches before any is counted.
const WARM: u64 = 200;

/// Requests that are counted: many enough that what happens once a second vanishes in the division.
const COUNTED: u64 = 2_000;

/// As browsers ask, more or less.
const REQUEST: &[u8] = b"GET /small HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: test\r\n\
Accept: */*\r\nAccept-Encoding: gzip\r\nCookie: session=0123456789abcdef\r\n\r\n";

#[test]
fn forwarded_requests_stay_within_their_allocations() {
    let edge = edge(origin::start());
    let door = edge.address(Door::Public).expect("a door");
    let http1 = |request, answer| Client::http1(door, http1::Session::new(request, answer)).allocations();
    let cases = [
        ("HTTP/1.1, GET, 512 octets", http1(REQUEST.into(), 512), FORWARDED_MAX),
        ("HTTP/1.1, GET, 16 KiB", http1(http1::request("/16k", 0), 16 << 10), MIDDLE_MAX),
        ("HTTP/1.1, POST of 4 KiB", http1(http1::request("/small", 4 << 10), 512), POST_MAX),
        ("HTTP/2, GET, 512 octets", Client::http2(door, "/small", 512).allocations(), HTTP2_MAX),
    ];
    for (name, each, most) in cases {
        println!("{name}: {each} allocations for each forwarded request, {most} are allowed");
    }
    let over: Vec<&str> = cases.iter().filter(|(_, each, most)| each > most).map(|(name, ..)| *name).collect();
    assert!(over.is_empty(), "more allocations than are allowed: {over:?}");
}

/// An edge without an access log before this origin.
fn edge(origin: SocketAddr) -> Running {
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
    Running::edge(plan, Box::new(read)).expect("the edge starts")
}

/// A client on one kept connection; it allocates nothing itself once it is warm.
struct Client {
    stream: TcpStream,
    session: Session,
    out: Vec<u8>,
    done: Vec<Instant>,
    buffer: Box<[u8]>,
}

enum Session {
    Http1(http1::Session),
    Http2(http2::Session),
}

impl Client {
    fn http1(door: SocketAddr, session: http1::Session) -> Client {
        Client::open(door, Session::Http1(session), Vec::new())
    }

    fn http2(door: SocketAddr, path: &'static str, answer: usize) -> Client {
        let mut out = Vec::new();
        let session = http2::Session::new(path, answer, &mut out);
        Client::open(door, Session::Http2(session), out)
    }

    fn open(door: SocketAddr, session: Session, out: Vec<u8>) -> Client {
        let stream = TcpStream::connect(door).expect("the door is open");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket has timeouts");
        Client { stream, session, out, done: Vec::with_capacity(1), buffer: vec![0; 64 << 10].into() }
    }

    /// What one request costs the edge and the origin, which allocates nothing.
    fn allocations(mut self) -> u64 {
        (0..WARM).for_each(|_| self.ask());
        let before = alloc::count();
        (0..COUNTED).for_each(|_| self.ask());
        (alloc::count() - before) / COUNTED
    }

    fn ask(&mut self) {
        let now = Instant::now();
        match &mut self.session {
            Session::Http1(session) => session.ask(now, &mut self.out),
            Session::Http2(session) => session.ask(now, &mut self.out),
        }
        while self.done.pop().is_none() {
            self.stream.write_all(&self.out).expect("the edge takes it");
            self.out.clear();
            let got = self.stream.read(&mut self.buffer).expect("the edge answers");
            assert!(got > 0, "the edge closed the connection");
            let octets = &self.buffer[..got];
            let sound = match &mut self.session {
                Session::Http1(session) => session.take(octets, &mut self.done),
                Session::Http2(session) => session.take(octets, &mut self.out, &mut self.done),
            };
            sound.expect("the answer is whole");
        }
    }
}
