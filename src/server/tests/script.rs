//! The service that does what the path says, and the door before it.

use crate::base::clock;
use crate::body::{Body, Door, Downstream, Piece, Pull, Request, Response};
use crate::config::plan::Plan;
use crate::error::{Error, Kind, Result};
use crate::message::{Fields, Name, RequestHead, ResponseHead};
use crate::metrics::Metrics;
use crate::record::Record;
use crate::server::{DoorSpec, Service, Summary, Workers};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

/// What the service has recorded.
pub(super) type Records = Arc<Mutex<Vec<(Record, Option<Summary>, Downstream)>>>;

pub(super) struct Script {
    plan: Arc<Plan>,
    records: Records,
}

/// Content without end, as fast as it is taken.
struct Flood;

impl Pull for Flood {
    fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        Poll::Ready(Some(Ok(Piece::Data(Bytes::from_static(&[b'x'; 16 << 10])))))
    }

    fn length(&self) -> Option<u64> {
        None
    }
}

/// A body with these pieces; at the end `None`, or it never comes.
struct Pieces {
    list: VecDeque<Result<Piece>>,
    length: Option<u64>,
    endless: bool,
}

impl Pull for Pieces {
    fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        match self.list.pop_front() {
            None if self.endless => Poll::Pending,
            piece => Poll::Ready(piece),
        }
    }

    fn length(&self) -> Option<u64> {
        self.length
    }
}

fn pieces(texts: &[&'static str], length: Option<u64>) -> Pieces {
    let list = texts.iter().map(|text| Ok(Piece::Data(Bytes::from_static(text.as_bytes())))).collect();
    Pieces { list, length, endless: false }
}

fn pulled(pieces: Pieces) -> Response {
    let mut response = Response::new(200);
    response.body = Body::Pulled(Box::new(pieces));
    response
}

impl Service for Script {
    fn plan(&self) -> Arc<Plan> {
        self.plan.clone()
    }

    async fn call(&self, request: &mut Request, record: &mut Record) -> Response {
        let path = request.head.path().to_owned();
        match path.as_str() {
            "/hello" => Response::with(200, "text/plain", "hello"),
            "/who" => Response::with(200, "text/plain", format!("{:?} {:?}", request.from.identity, request.from.sni)),
            "/no-content" => Response::new(204),
            "/head" => {
                let mut response = Response::new(200);
                response.head.fields.add(Name::ContentLength, "1234");
                response
            }
            "/echo" => match collect(std::mem::take(&mut request.body)).await {
                Ok((whole, trailers)) => Response::with(200, "text/plain", format!("{whole}|{trailers:?}")),
                Err(error) => {
                    record.failed(&error);
                    self.refuse(&error, None, &request.from)
                }
            },
            "/late-echo" => {
                // As long as a connection to an origin may take.
                tokio::time::sleep(Duration::from_millis(100)).await;
                match collect(std::mem::take(&mut request.body)).await {
                    Ok((whole, _)) => Response::with(200, "text/plain", whole),
                    Err(error) => self.refuse(&error, None, &request.from),
                }
            }
            "/mirror" => {
                let mut response = Response::new(200);
                response.body = std::mem::take(&mut request.body);
                response
            }
            "/ignore" => Response::with(200, "text/plain", "ignored"),
            "/chunks" => pulled(pieces(&["one", "two", "three"], None)),
            "/length" => pulled(pieces(&["one", "two"], Some(6))),
            "/short" => pulled(pieces(&["one"], Some(6))),
            "/long" => pulled(pieces(&["one", "two"], Some(5))),
            "/big" => Response::with(200, "text/plain", vec![b'x'; 3 << 20]),
            "/trailers" => {
                let mut body = pieces(&["data"], None);
                let trailers = [("grpc-status", "0"), ("content-length", "99")].into_iter().collect();
                body.list.push_back(Ok(Piece::Trailers(trailers)));
                pulled(body)
            }
            "/cut" => {
                let mut body = pieces(&["some"], None);
                body.list.push_back(Err(Error::new(Kind::HttpResponseIncomplete, "the origin died")));
                pulled(body)
            }
            "/flood" => {
                let mut response = Response::new(200);
                response.body = Body::Pulled(Box::new(Flood));
                response
            }
            "/endless" => {
                let mut body = pieces(&["tick"], None);
                body.endless = true;
                pulled(body)
            }
            "/early" => {
                let mut hints = ResponseHead::new(103);
                hints.fields.push(b"link", b"</style.css>");
                if let Some(interim) = &request.interim {
                    interim.send(&hints);
                }
                tokio::task::yield_now().await;
                Response::with(200, "text/plain", "late")
            }
            "/upgrade" => tunnel(),
            "/panic" => panic!("as the script says"),
            "/never" => std::future::pending().await,
            _ => Response::new(404),
        }
    }

    fn refuse(&self, error: &Error, _: Option<&RequestHead>, _: &Downstream) -> Response {
        Response::with(error.status(), "text/plain", error.kind().name())
    }

    fn finish(&self, record: &Record, from: &Downstream, head: Option<&Summary>) {
        self.records.lock().unwrap().push((record.clone(), head.cloned(), from.clone()));
    }
}

/// 101, and an upstream that says every octet back.
fn tunnel() -> Response {
    let (ours, mut theirs) = tokio::io::duplex(64);
    tokio::task::spawn_local(async move {
        let (mut read, mut write) = tokio::io::split(&mut theirs);
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    let mut response = Response::new(101);
    response.head.fields.add(Name::Upgrade, "echo");
    response.tunnel = Some(Box::new(ours));
    response
}

async fn collect(mut body: Body) -> Result<(String, Fields)> {
    let (mut whole, mut trailers) = (Vec::new(), Fields::new());
    while let Some(piece) = body.next().await {
        match piece? {
            Piece::Data(octets) => whole.extend_from_slice(&octets),
            Piece::Trailers(fields) => trailers = fields,
        }
    }
    Ok((String::from_utf8_lossy(&whole).into_owned(), trailers))
}

/// One worker with one door and a script.
pub(super) struct World {
    pub(super) workers: Workers,
    pub(super) address: SocketAddr,
    pub(super) records: Records,
    pub(super) metrics: Arc<Metrics>,
}

/// A public plain door.
pub(super) fn door() -> DoorSpec {
    DoorSpec { address: ([127, 0, 0, 1], 0).into(), door: Door::Public, tls: None, redirect_https: false }
}

/// The shortest waits that a loaded machine still meets where they must not run out.
pub(super) fn plan() -> Plan {
    let mut plan = crate::metrics::tests::plan(&[]);
    plan.timeouts.tunnel = Duration::from_secs(20);
    plan
}

pub(super) fn world_of(plan: Plan, spec: DoorSpec) -> World {
    world_with(plan, spec, None, Records::default(), Metrics::new())
}

pub(super) fn world_with(
    plan: Plan,
    spec: DoorSpec,
    connections: Option<usize>,
    records: Records,
    metrics: Arc<Metrics>,
) -> World {
    world_on(1, plan, spec, connections, records, metrics)
}

pub(super) fn world_on(
    workers: usize,
    plan: Plan,
    spec: DoorSpec,
    connections: Option<usize>,
    records: Records,
    metrics: Arc<Metrics>,
) -> World {
    let (theirs, plan) = (records.clone(), Arc::new(plan));
    let make = move |_| Script { plan: plan.clone(), records: theirs.clone() };
    let workers = Workers::start(workers, vec![spec], connections, metrics.clone(), make).unwrap();
    let address = workers.doors()[0].1;
    World { workers, address, records, metrics }
}

pub(super) fn world() -> World {
    world_of(plan(), door())
}

/// Waits for a level.
// It runs on the test's own thread, which is no worker.
#[allow(clippy::disallowed_methods)]
pub(super) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = clock::now();
    while !holds() {
        assert!(clock::now().duration_since(start) < Duration::from_secs(20), "{what} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl World {
    pub(super) fn connect(&self) -> TcpStream {
        let tcp = TcpStream::connect(self.address).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        tcp
    }

    /// Sends octets, and gives all that comes back until the server closes.
    pub(super) fn talk(&self, octets: &str) -> String {
        let mut tcp = self.connect();
        tcp.write_all(octets.as_bytes()).unwrap();
        rest(&mut tcp)
    }

    /// Waits for a number of records; gives status and name of the failure of each.
    pub(super) fn recorded(&self, count: usize) -> Vec<(u16, &'static str)> {
        until("the record", || self.records.lock().unwrap().len() >= count);
        let records = self.records.lock().unwrap();
        let short = |record: &Record| (record.status, record.failure.as_ref().map_or("", |(kind, ..)| kind.name()));
        records.iter().map(|(record, ..)| short(record)).collect()
    }

    /// The value of a line of metrics.
    pub(super) fn metric(&self, line: &str) -> u64 {
        let text = self.metrics.render();
        let found = text.lines().find_map(|each| each.strip_prefix(line)?.trim().parse::<f64>().ok());
        found.map(|value| value as u64).unwrap_or_else(|| panic!("{line} is not in\n{text}"))
    }
}

pub(super) fn rest(tcp: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let _ = tcp.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads until the text ends with `end`.
pub(super) fn read_to(tcp: &mut TcpStream, end: &str) -> String {
    let mut all = Vec::new();
    let mut octet = [0];
    while !all.ends_with(end.as_bytes()) {
        match tcp.read(&mut octet) {
            Ok(1) => all.push(octet[0]),
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&all)),
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Without the Date, which no test can know.
pub(super) fn undated(text: &str) -> String {
    text.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
}
