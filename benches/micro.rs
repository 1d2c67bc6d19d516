//! What the steps of a request cost by themselves: time and allocations for each.
//!
//! `cargo bench --bench micro [-- --smoke] [--json FILE] [NAME]`. Times are for comparing two commits on one quiet machine;
//! the minimum is what the code costs, the median what the machine made of it. Nothing is asserted.

// Benchmarks are outside the rules for clocks and threads that `clippy.toml` sets for the data path.
#![allow(clippy::disallowed_methods)]

#[path = "support/alloc.rs"]
mod alloc;
#[path = "support/facts.rs"]
mod facts;
#[path = "support/report.rs"]
mod report;

use coordinator::base::id::EdgeId;
use coordinator::config::load::{self, Kind, Strictness};
use coordinator::config::plan::Plan;
use coordinator::home::Home;
use coordinator::home::cursor::FeedId;
use coordinator::home::event::{EdgeRow, EdgeState, Event, State};
use coordinator::home::hash::key_hash;
use coordinator::homes::{Homes, SnapshotRow};
use coordinator::message::{Fields, Method, Scheme, request};
use coordinator::proxy::explain::{Knowledge, Source, explain, question};
use coordinator::route::Place;
use coordinator::route::decide::{Asked as AskedCentral, Facts, decide};
use coordinator::route::table::Query;
use coordinator::wire::write::{Connection, request_head};
use coordinator::wire::{Framing, HeadLimits, Parsed, head};
use report::{Asked, Report};
use serde_json::json;
use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// Runs of each step; the figures are the least and the middle of them.
const RUNS: usize = 31;

/// How long one run lasts: long against the clock's own cost, short against what else the machine does.
const RUN: Duration = Duration::from_millis(5);

const FEED: FeedId = FeedId([7; 16]);

/// A browser's request, as most are.
const HEAD: &[u8] = b"GET /v1/users/448/wishlist.json?page=2 HTTP/1.1\r\n\
Host: shop.example.com\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
Accept-Language: en-US,en;q=0.5\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
Connection: keep-alive\r\n\
\r\n";

fn main() {
    let asked = Asked::read();
    let mut bench = Bench { report: Report::begin("micro: steps of a request"), asked };
    println!("{:<24} {:>12} {:>12} {:>12}", "step", "min ns", "median ns", "allocations");
    routes(&mut bench);
    heads(&mut bench);
    homes(&mut bench);
    let Bench { report, asked } = bench;
    report.end(&asked);
}

struct Bench {
    report: Report,
    asked: Asked,
}

impl Bench {
    /// Measures `step`, which does `each` things of the kind that is counted.
    fn measure<T>(&mut self, name: &str, each: u64, mut step: impl FnMut() -> T) {
        if !self.asked.wants(name) {
            return;
        }
        let (runs, times) = if self.asked.smoke { (1, 1) } else { (RUNS, calibrate(&mut step)) };
        let mut nanos = Vec::with_capacity(runs);
        let before = alloc::count();
        for _ in 0..runs {
            let start = Instant::now();
            for _ in 0..times {
                black_box(step());
            }
            nanos.push(start.elapsed().as_nanos() as f64 / (times * each) as f64);
        }
        let allocations = (alloc::count() - before) as f64 / (runs as u64 * times * each) as f64;
        nanos.sort_by(f64::total_cmp);
        let (min, median) = (nanos[0], nanos[runs / 2]);
        println!("{name:<24} {min:>12.1} {median:>12.1} {allocations:>12.2}");
        self.report.row(json!({ "step": name, "min_ns": min, "median_ns": median, "allocations": allocations }));
    }
}

/// How often a step fits into one run.
fn calibrate<T>(step: &mut impl FnMut() -> T) -> u64 {
    let mut times = 1;
    loop {
        let start = Instant::now();
        for _ in 0..times {
            black_box(step());
        }
        let took = start.elapsed();
        if took >= RUN / 4 {
            return (times as f64 * RUN.as_secs_f64() / took.as_secs_f64()).ceil() as u64;
        }
        times *= 2;
    }
}

/// A table as a shop has it: a few kinds of routes for each of some services.
fn plan() -> Plan {
    let mut text = String::from(
        "[edge]\nname = \"fr\"\ndata = \"unused\"\n[[listen]]\naddress = \"127.0.0.1:0\"\n\
         [peer]\naddress = \"127.0.0.1:0\"\n[local]\norigins = [\"http://127.0.0.1:1\"]\n\
         [central]\nurl = \"http://127.0.0.1:2\"\n[edges.us]\npeer = \"http://127.0.0.1:3\"\n[homes.user]\n",
    );
    let mut route = |pattern: &str, to: &str| {
        writeln!(text, "[[route]]\nmatch = \"{pattern}\"\nto = \"{to}\"").expect("memory takes it");
    };
    route("/v1/users/{user}/", "home:user");
    for service in 0..50 {
        route(&format!("GET /v1/service{service}/{{id}}.json"), "local");
        route(&format!("/v1/service{service}/"), "central");
    }
    let outcome = load::from_text(Kind::Edge, "micro.toml", &text, &|_| None, Strictness::Check);
    let shown = outcome.render(false);
    outcome.plan.unwrap_or_else(|| panic!("{shown}"))
}

fn routes(bench: &mut Bench) {
    let plan = plan();
    let fields = Fields::new();
    for (name, path) in
        [("find, home route", "/v1/users/448/wishlist.json"), ("find, one of 101", "/v1/service31/847.json")]
    {
        let query = Query { method: &Method::Get, host: "shop.example.com", path, fields: &fields };
        bench.measure(name, 1, || plan.routes.find(query, &|_| true).is_ok());
    }
    let home = Home::At { edge: EdgeId(2), epoch: 3 };
    let facts = Facts {
        own: Some(EdgeId(1)),
        home,
        asked: AskedCentral::NotYet,
        central_owns_unknown: false,
        may_claim: false,
        named: None,
    };
    let place = plan.routes.rules().iter().find_map(|rule| match &rule.action {
        coordinator::route::Action::To(places) => places.iter().find(|place| matches!(place, Place::Home(_))),
        coordinator::route::Action::Reply => None,
    });
    let place = place.expect("the plan has a home route");
    bench.measure("decide", 1, || decide(black_box(place), black_box(&facts)));
    bench.measure("explain", 1, || {
        let head = question("GET", "http://shop.example.com/v1/users/448/wishlist.json", &[]).expect("a request");
        let knowledge = Knowledge {
            home: &|_, _| home,
            reachable: &|_, _| Some(true),
            endpoints: &|_, _| Vec::new(),
            seq: Some(1),
            can_ask: None,
            by: Source::Running,
        };
        explain(&plan, head, &knowledge)
    });
}

fn heads(bench: &mut Bench) {
    let limits = HeadLimits { head: 64 << 10, fields: 100, uri: 16 << 10 };
    let parse = || match head::request(black_box(HEAD), Scheme::Http, &limits) {
        Ok(Parsed::Whole(head, _)) => head,
        other => panic!("the head is good: {other:?}"),
    };
    bench.measure("head, parse", 1, parse);
    bench.measure("head, parse and admit", 1, || {
        let mut head = parse();
        request::admit(&mut head, Scheme::Http).expect("the head is good");
        head
    });
    let head = parse();
    let mut out = Vec::with_capacity(4 << 10);
    bench.measure("head, write", 1, || {
        out.clear();
        request_head(&mut out, black_box(&head), Framing::None, Connection::Keep);
    });
}

fn homes(bench: &mut Bench) {
    let keys: u64 = if bench.asked.smoke { 10_000 } else { 1_000_000 };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (homes, mut applier, _asks) =
        Homes::open(folder.path(), "fr", vec!["user".to_owned()]).expect("the folder is fresh");
    let row = |idx, name: &str| EdgeRow { idx, name: name.to_owned(), peer: None, state: EdgeState::Active };
    let edges = [row(1, "fr"), row(2, "us"), row(3, "jp")];
    let mut rows: Vec<_> = (0..keys).map(|key| key_hash(FEED, "user", &key.to_string())).collect();
    rows.sort_unstable();
    let rows = rows.into_iter().map(|kh| SnapshotRow { kh, epoch: 1, home: 2, tomb: false });
    applier.registered(0, 1);
    applier.begin_feed(FEED, 1).expect("a first feed");
    applier.load(FEED, 1, 0, &edges, rows).expect("a sound snapshot");
    let names: Vec<String> = (0..4096).map(|at| (at * 7919 % keys).to_string()).collect();
    let mut at = 0;
    bench.measure("home look-up, known", 1, || {
        at = (at + 1) % names.len();
        homes.look("user", &names[at])
    });
    bench.measure("home look-up, unknown", 1, || homes.look("user", black_box("nobody")));
    let mut seq = 0;
    let batch: u64 = 256;
    bench.measure("event, apply in batches", batch, || {
        let events: Vec<Event> = (seq + 1..=seq + batch)
            .map(|s| {
                let (key, epoch) = (s % keys, 2 + (s / keys) as u32);
                Event {
                    c: "put".into(),
                    e: epoch,
                    h: "jp".into(),
                    k: format!("user:{key}"),
                    s,
                    st: State::Active,
                    x: 0,
                }
            })
            .collect();
        applier.apply(seq + 1, seq + batch, &events).expect("the next events");
        seq += batch;
    });
}
