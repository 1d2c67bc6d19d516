//! The doorway: one connection from its accept to its end. Chooses the version, knows who is there, and gives both
//! versions their way to the service.
//!
//! Invariant: every request that was read leaves exactly one record, also when its task is dropped or panics.

use super::drain::{Drain, Open, Phase, Watcher};
use super::seat::Seats;
use super::{DoorSpec, Service, Summary, alarm::Alarm, h1, h2};
use crate::base::clock;
use crate::body::io::{Io, Stream};
use crate::body::tls::Tls;
use crate::body::{Door, Downstream, Identity, Request, Response};
use crate::config::plan::Plan;
use crate::error::{Error, Kind};
use crate::message::{Name, RequestHead, Scheme, forwarded, request};
use crate::metrics::{self, Cut, DoorLabel, Handshake};
use crate::record::Record;
use crate::tls::server::ServerTls;
use std::cell::{OnceCell, RefCell};
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use tokio::net::TcpStream;

/// What the connections of one worker share.
pub(super) struct Desk<S> {
    pub(super) service: S,
    /// Where requests of HTTP/1.1 are answered.
    pub(super) seats: Seats<h1::Job<S>, h1::Next>,
    /// Where streams of HTTP/2 are answered.
    pub(super) streams: Seats<h2::Job<S>, ()>,
    pub(super) numbers: metrics::Local,
    pub(super) drain: Drain,
    pub(super) open: Arc<Open>,
}

/// A connection that is counted; it is counted out when this is dropped.
pub(super) struct Entry<S> {
    desk: Rc<Desk<S>>,
    door: Door,
}

impl<S> Entry<S> {
    /// Lets a connection in, unless the doors of its kind are full.
    pub(super) fn new(desk: &Rc<Desk<S>>, door: Door) -> Option<Entry<S>> {
        if !desk.open.connect(door) {
            desk.numbers.cells().cut(Cut::Limit);
            return None;
        }
        desk.numbers.cells().accepted[label(door) as usize].add(1);
        Some(Entry { desk: desk.clone(), door })
    }
}

impl<S> Drop for Entry<S> {
    fn drop(&mut self) {
        let cells = self.desk.numbers.cells();
        cells.ended[label(self.door) as usize].add(1);
        if std::thread::panicking() {
            cells.cut(Cut::Panic);
        }
        // Last: whoever waits for the last connection may look at the numbers next.
        self.desk.open.disconnect(self.door);
    }
}

/// The door as metrics name it.
pub(super) fn label(door: Door) -> DoorLabel {
    match door {
        Door::Public => DoorLabel::Public,
        Door::Peer => DoorLabel::Peer,
        Door::Central => DoorLabel::Central,
    }
}

/// A connection whose other side is known.
pub(super) struct Visit<S> {
    pub(super) desk: Rc<Desk<S>>,
    pub(super) from: Rc<Downstream>,
    redirect_https: bool,
}

impl<S: Service> Visit<S> {
    /// The client of a request that a trusted proxy sent to a public door.
    fn client_behind(&self, head: &RequestHead, plan: &Plan) -> Option<IpAddr> {
        let trusted = &plan.trust.forwarded;
        if trusted.is_empty() || !self.is_public() {
            return None;
        }
        let is_trusted = |address| trusted.iter().any(|network| network.holds(address));
        let caller = self.from.client.ip();
        let believed = forwarded::client_of(&head.fields, caller, self.from.scheme, &is_trusted);
        (believed.client != caller.to_canonical()).then_some(believed.client)
    }
}

/// A connection whose version is known, being served to its end.
type Talk = Pin<Box<dyn Future<Output = ()>>>;

/// Serves one connection to its end.
pub(super) fn serve<S: Service>(
    entry: Entry<S>,
    tcp: TcpStream,
    client: SocketAddr,
    spec: Rc<DoorSpec>,
) -> impl Future<Output = ()> {
    // A box for each stage, made outside of the future: the state of the handshake goes when it is over, and an idle
    // connection's task is no larger than these.
    let arrival = Box::pin(arrive(entry.desk.clone(), tcp, client, spec));
    async move {
        let _entry = entry;
        if let Some(talk) = arrival.await {
            clock::in_turns(talk).await;
        }
    }
}

/// Does the handshake, and finds out which version the client speaks; `None` = it left, or was sent away.
async fn arrive<S: Service>(desk: Rc<Desk<S>>, tcp: TcpStream, client: SocketAddr, spec: Rc<DoorSpec>) -> Option<Talk> {
    let (mut io, from, alpn) = enter(&desk, tcp, client, &spec).await?;
    let visit = Rc::new(Visit { desk, from: Rc::new(from), redirect_https: spec.redirect_https });
    let alpn = if alpn == Alpn::Unsaid { peek(&visit, &mut io).await? } else { alpn };
    Some(match alpn {
        Alpn::Http2 => Box::pin(h2::serve(visit, io)),
        _ => Box::pin(h1::serve(visit, io)),
    })
}

/// What the handshake said of the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alpn {
    Http2,
    Http1,
    Unsaid,
}

/// Does the TLS handshake, where the door asks for one; `None` = it failed, and is counted.
async fn enter<S: Service>(
    desk: &Desk<S>,
    tcp: TcpStream,
    client: SocketAddr,
    spec: &DoorSpec,
) -> Option<(Io, Downstream, Alpn)> {
    let (door, scheme) = (spec.door, Scheme::Http);
    let identity = if door == Door::Public { Identity::Anyone } else { Identity::Loopback };
    let mut from = Downstream { client, scheme, sni: None, door, identity, logged: OnceCell::new() };
    let Some(tls) = &spec.tls else { return Some((Io::new(Stream::Tcp(tcp)), from, Alpn::Unsaid)) };
    let shaken = handshake(desk, tcp, tls).await;
    let how = shaken.as_ref().map_or_else(|how| *how, |_| Handshake::Done);
    desk.numbers.cells().handshake(label(door), how);
    let (tls, identity, name) = shaken.ok()?;
    from.scheme = Scheme::Https;
    from.sni = name;
    from.identity = identity;
    let alpn = match tls.agreed().alpn_protocol() {
        Some(b"h2") => Alpn::Http2,
        Some(_) => Alpn::Http1,
        None => Alpn::Unsaid,
    };
    Some((Io::new(Stream::TlsServer(Box::new(tls))), from, alpn))
}

/// The handshake, within `timeouts.head`; who was at the other side, and for which name it asked.
async fn handshake<S: Service>(
    desk: &Desk<S>,
    tcp: TcpStream,
    door: &ServerTls,
) -> Result<(Tls, Identity, Option<String>), Handshake> {
    let (config, asked) = door.next();
    let accept = Tls::accept(tcp, config);
    let accepted = tokio::time::timeout(desk.service.plan().timeouts.head, accept).await;
    let tls = accepted.map_err(|_| Handshake::Late)?.map_err(|_| Handshake::Failed)?;
    let Some(identity) = door.identify(tls.agreed().peer_certificates()) else {
        // Only holders of a certificate of our CA get here: a mistake of the operator's, who must be able to find it.
        let client = tls.tcp().peer_addr().ok();
        tracing::warn!(?client, "a certificate of our CA names no party of this deployment; connection closed");
        return Err(Handshake::Stranger);
    };
    Ok((tls, identity, asked.name()))
}

/// What an HTTP/2 client begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until it is clear whether the client speaks HTTP/2 with prior knowledge. No octet is consumed.
async fn peek<S: Service>(visit: &Visit<S>, io: &mut Io) -> Option<Alpn> {
    let plan = visit.desk.service.plan();
    let (mut alarm, watcher) = (Alarm::default(), visit.desk.drain.watch());
    alarm.set(plan.timeouts.idle);
    poll_fn(|cx| {
        loop {
            let known = io.inbox.len().min(PREFACE.len());
            if io.inbox[..known] != PREFACE[..known] {
                return Poll::Ready(Some(Alpn::Http1));
            }
            if known == PREFACE.len() {
                return Poll::Ready(Some(Alpn::Http2));
            }
            match io.poll_fill(cx) {
                Poll::Ready(Ok(0)) if known > 0 => return Poll::Ready(Some(Alpn::Http1)),
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(None),
                Poll::Ready(Ok(_)) if known == 0 => alarm.set(plan.timeouts.head),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        let late = alarm.poll(cx).is_ready();
        if late {
            visit.cut(if io.inbox.is_empty() { Cut::Idle } else { Cut::SlowHead });
        }
        // A connection that has not yet asked for anything is idle: it goes when idle connections go.
        let leave = late || watcher.poll(cx, Phase::HalfTime).is_ready();
        if leave { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

impl<S: Service> Visit<S> {
    /// Counts that we ended the connection.
    pub(super) fn cut(&self, why: Cut) {
        self.desk.numbers.cells().cut(why);
    }

    /// The plan for the next request.
    pub(super) fn plan(&self) -> Arc<Plan> {
        self.desk.service.plan()
    }

    /// Whether the other side is served by a public door.
    pub(super) fn is_public(&self) -> bool {
        self.from.door == Door::Public
    }

    /// What waits for the steps of a drain.
    pub(super) fn watcher(&self) -> Watcher {
        self.desk.drain.watch()
    }

    /// Makes the head what the service may see: checked, normalised.
    pub(super) fn admit(&self, head: &mut RequestHead, plan: &Plan) -> Result<(), Error> {
        if head.target.len() > plan.limits.uri {
            return Err(Error::new(Kind::UriTooLong, "the request target is too long"));
        }
        if head.fields.len() > plan.limits.fields {
            return Err(Error::new(Kind::HeadTooLarge, "too many fields"));
        }
        request::admit(head, self.from.scheme)?;
        if self.redirect_https && head.authority.is_empty() {
            return Err(Error::bad_request("without a Host there is nowhere to redirect to"));
        }
        Ok(())
    }

    /// The service's answer. A panic of the service ends this request only: the connection's own state is not the
    /// service's.
    pub(super) async fn answer(&self, request: &mut Request, record: &mut Record) -> Response {
        if self.redirect_https {
            record.decision = "reply";
            record.reason = "https";
            return redirect(&request.head);
        }
        let answered = unpanicked(pin!(self.desk.service.call(request, record))).await;
        let error = match answered {
            Some(response) if !response.head.is_interim() => return response,
            Some(_) => Error::new(Kind::HttpProtocolError, "an interim response in the place of the final one"),
            None => {
                self.cut(Cut::Panic);
                Error::new(Kind::ProxyInternalError, "an invariant was broken")
            }
        };
        record.failed(&error);
        self.desk.service.refuse(&error, None, &self.from)
    }
}

/// Runs a future where it is, for it is large; `None` if it panicked, which the panic hook has told.
fn unpanicked<T>(mut future: Pin<&mut impl Future<Output = T>>) -> impl Future<Output = Option<T>> {
    poll_fn(move |cx| match std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
}

fn redirect(head: &RequestHead) -> Response {
    let mut response = Response::new(308);
    let target = if head.target.starts_with('/') { head.target.as_str() } else { "/" };
    response.head.fields.add(Name::Location, format!("https://{}{target}", head.host()));
    response
}

/// The record of one request. It is closed (logged and counted) when this is dropped.
pub(super) struct Account<S: Service> {
    visit: Rc<Visit<S>>,
    record: Record,
    summary: Option<Summary>,
}

impl<S: Service> Account<S> {
    /// Opens the account of a request that began to arrive at `began`.
    pub(super) fn open(visit: &Rc<Visit<S>>, began: std::time::Instant) -> Account<S> {
        if !visit.is_public() {
            visit.desk.open.enter(visit.from.door);
        }
        Account { visit: visit.clone(), record: Record::of(began), summary: None }
    }

    /// Notes what the log says of the head, if there is a log.
    pub(super) fn head(&mut self, head: &RequestHead, plan: &Plan) {
        if self.visit.desk.service.wants_summary() {
            self.summary = Some(Summary::new(head, self.visit.client_behind(head, plan)));
        }
    }

    /// The record.
    pub(super) fn record(&mut self) -> &mut Record {
        &mut self.record
    }
}

impl<S: Service> Drop for Account<S> {
    fn drop(&mut self) {
        if !self.visit.is_public() {
            self.visit.desk.open.leave(self.visit.from.door);
        }
        self.visit.desk.service.finish(&self.record, &self.visit.from, self.summary.as_ref());
    }
}

/// Adds `Date` where it is missing (RFC 9110 section 6.6.1); the text is made once a second.
pub(super) fn date(response: &mut Response) {
    thread_local! {
        static LAST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    if response.head.fields.has(Name::Date) || response.head.status < 200 {
        return;
    }
    let now = clock::wall();
    LAST.with_borrow_mut(|(second, text)| {
        if *second != now.as_secs() {
            (*second, *text) = (now.as_secs(), clock::imf_fixdate(now));
        }
        response.head.fields.add(Name::Date, &*text);
    });
}

/// The length that a response without content states: its own, or that of the content that HEAD leaves out.
pub(super) fn stated_length(response: &Response) -> Option<u64> {
    let own = crate::wire::framing::stated_length(&response.head.fields);
    own.or_else(|| response.body.at_hand().map(|octets| octets.len() as u64))
}
