//! A scripted origin: answers what it is told, however wrong, and records every octet that reached it.

use super::client::{Stream, show};
use super::message::{Body, End, Fields, Framing, Reader, is_chunked, length, values};
use super::{PATIENCE, wait, ws};
use std::collections::VecDeque;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// An origin on a port of its own. Gone, with all its connections, when dropped.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

/// What the origin does about one request.
#[derive(Clone)]
pub struct Answer {
    when: When,
    steps: Vec<Step>,
}

/// How much of a request the origin reads before it answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Head,
    Whole,
}

#[derive(Clone)]
enum Step {
    Send(Vec<u8>),
    Plain(u16, String),
    Wait(Duration),
    Hold(Gate),
    Echo,
    Tunnel,
    WebSocket,
    HearOut,
    Stall,
    Close,
    Reset,
}

/// Something that a test opens and an origin waits for.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

/// A request that reached the origin.
#[derive(Debug, Clone)]
pub struct Seen {
    /// On which of the origin's connections, counted from 1.
    pub connection: usize,
    /// The method.
    pub method: String,
    /// The target, as it was on the wire.
    pub target: String,
    /// `HTTP/1.1`.
    pub version: String,
    /// The fields, in order.
    pub fields: Fields,
    /// The content.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: Fields,
    /// How it ended; `None` while it is still coming.
    pub end: Option<End>,
    /// How the end of the body was marked.
    pub framing: Framing,
    /// Its octets on the wire.
    pub raw: Vec<u8>,
}

struct Shared {
    state: Mutex<State>,
    stopping: AtomicBool,
    tls: Option<Arc<rustls::ServerConfig>>,
}

#[derive(Default)]
struct State {
    script: VecDeque<Answer>,
    otherwise: Option<Answer>,
    seen: Vec<Seen>,
    /// How many answers have been said to their end.
    said: usize,
    /// A handle of each connection; `None` once it is over.
    connections: Vec<Option<TcpStream>>,
    garbled: Vec<String>,
}

impl Origin {
    /// An origin that answers `200` with an empty JSON object until told otherwise.
    pub fn start() -> Origin {
        Origin::at("127.0.0.1:0".parse().expect("an address"), None)
    }

    /// An origin behind TLS.
    pub fn tls(config: Arc<rustls::ServerConfig>) -> Origin {
        Origin::at("127.0.0.1:0".parse().expect("an address"), Some(config))
    }

    /// An origin at a given address: for one that comes back where it was.
    pub fn at(address: SocketAddr, tls: Option<Arc<rustls::ServerConfig>>) -> Origin {
        let listener = listen(address).expect("the address is free");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared { state: Mutex::default(), stopping: AtomicBool::new(false), tls });
        let theirs = shared.clone();
        thread::spawn(move || accept(&listener, &theirs));
        Origin { address, shared }
    }

    /// As the configuration writes it.
    pub fn url(&self) -> String {
        format!("http{}://{}", if self.shared.tls.is_some() { "s" } else { "" }, self.address)
    }

    /// Adds an answer for the next request that has none yet.
    pub fn next(&self, answer: Answer) -> &Origin {
        self.shared.lock().script.push_back(answer);
        self
    }

    /// The answer to all requests beyond the script.
    pub fn always(&self, answer: Answer) -> &Origin {
        self.shared.lock().otherwise = Some(answer);
        self
    }

    /// All requests that have reached it, whole or not.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.lock().seen.clone()
    }

    /// Waits for the `n`th request (from 1) to be over, and gives it.
    #[track_caller]
    pub fn request(&self, n: usize) -> Seen {
        let over = || self.shared.lock().seen.get(n - 1).filter(|seen| seen.end.is_some()).cloned();
        wait::some(&format!("request {n} at the origin"), over)
    }

    /// Waits until so many answers have been said to their end, and so have left for whoever asked.
    #[track_caller]
    pub fn has_said(&self, answers: usize) {
        wait::until("the origin's answers", || self.shared.lock().said, |said| *said >= answers);
    }

    /// Waits for the head of the `n`th request.
    #[track_caller]
    pub fn head(&self, n: usize) -> Seen {
        wait::some(&format!("the head of request {n}"), || self.shared.lock().seen.get(n - 1).cloned())
    }

    /// How many connections it ever accepted.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections.len()
    }

    /// How many of them are open.
    pub fn open(&self) -> usize {
        self.shared.lock().connections.iter().flatten().count()
    }

    /// What reached it that is no request.
    pub fn garbled(&self) -> Vec<String> {
        self.shared.lock().garbled.clone()
    }

    /// Ends all its connections, as a restarted server does.
    pub fn hang_up(&self) {
        for connection in self.shared.lock().connections.iter().flatten() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then drops the listener.
        let _ = TcpStream::connect_timeout(&self.address, PATIENCE);
        self.hang_up();
    }
}

impl Answer {
    /// An answer that does nothing yet, given once the whole request is there.
    pub fn new() -> Answer {
        Answer { when: When::Whole, steps: Vec::new() }
    }

    /// These octets, exactly.
    pub fn bytes(octets: impl AsRef<[u8]>) -> Answer {
        Answer::new().send(octets)
    }

    /// `status` with content and its Content-Length; to HEAD, its length alone.
    pub fn status(status: u16, body: &str) -> Answer {
        Answer::new().then(Step::Plain(status, body.to_owned()))
    }

    /// `200` with content and its Content-Length.
    pub fn ok(body: &str) -> Answer {
        Answer::status(200, body)
    }

    /// `200` with what the request looked like here, as JSON: `method`, `target`, `version`, `fields` (a list of pairs),
    /// `body_length`, `body_crc32`, `trailers`, `connection`, `complete`.
    pub fn echo() -> Answer {
        Answer::new().then(Step::Echo)
    }

    /// Accepts a WebSocket and echoes its messages.
    pub fn websocket() -> Answer {
        Answer::new().then(Step::WebSocket)
    }

    /// More 1xx answers than any client should have to read, and then `200`.
    pub fn storm(interims: usize) -> Answer {
        Answer::bytes("HTTP/1.1 102 Processing\r\n\r\n".repeat(interims))
            .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    }

    /// Answers as soon as the head is there, before the content.
    pub fn early(mut self) -> Answer {
        self.when = When::Head;
        self
    }

    /// Then sends these octets.
    pub fn send(self, octets: impl AsRef<[u8]>) -> Answer {
        self.then(Step::Send(octets.as_ref().to_vec()))
    }

    /// Then waits; a [`Gate`] is better wherever order is meant.
    pub fn wait(self, time: Duration) -> Answer {
        self.then(Step::Wait(time))
    }

    /// Then waits until the test opens the gate.
    pub fn hold(self, gate: &Gate) -> Answer {
        self.then(Step::Hold(gate.clone()))
    }

    /// Then echoes octets until the other side ends: what follows an upgrade.
    pub fn tunnel(self) -> Answer {
        self.then(Step::Tunnel)
    }

    /// Then listens until the other side ends its half.
    pub fn hear_out(self) -> Answer {
        self.then(Step::HearOut)
    }

    /// Then does nothing more, with the connection open, until the other side gives up.
    pub fn stall(self) -> Answer {
        self.then(Step::Stall)
    }

    /// Then ends the connection.
    pub fn close(self) -> Answer {
        self.then(Step::Close)
    }

    /// Then resets the connection.
    pub fn reset(self) -> Answer {
        self.then(Step::Reset)
    }

    fn then(mut self, step: Step) -> Answer {
        self.steps.push(step);
        self
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Gate {
        Gate::default()
    }

    /// Lets everybody through, now and later.
    pub fn open(&self) {
        *self.0.0.lock().expect("nobody panics under this lock") = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open, at most for [`PATIENCE`].
    pub fn pass(&self) {
        let open = self.0.0.lock().expect("nobody panics under this lock");
        let _ = self.0.1.wait_timeout_while(open, PATIENCE, |open| !*open);
    }
}

impl Seen {
    /// The value of a field that stands once. Panics if it stands more often.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let all = values(&self.fields, name);
        assert!(all.len() < 2, "{name} stands {} times: {all:?}", all.len());
        all.first().copied()
    }

    /// Whether it came whole.
    pub fn is_complete(&self) -> bool {
        self.end == Some(End::Clean)
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "method": self.method,
            "target": self.target,
            "version": self.version,
            "fields": self.fields,
            "body_length": self.body.len(),
            "body_crc32": crc32fast::hash(&self.body),
            "trailers": self.trailers,
            "connection": self.connection,
            "complete": self.is_complete(),
        })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics under this lock")
    }

    /// Registers a request; its place in the register.
    fn note(&self, seen: Seen) -> usize {
        let mut state = self.lock();
        state.seen.push(seen);
        state.seen.len() - 1
    }

    /// Forgets a connection's handle.
    fn over(&self, number: usize) {
        self.lock().connections[number - 1] = None;
    }

    /// Takes the answer to the next request.
    fn answer(&self) -> Answer {
        let mut state = self.lock();
        let scripted = state.script.pop_front();
        scripted.or_else(|| state.otherwise.clone()).unwrap_or_else(|| Answer::ok("{}"))
    }
}

/// Listens, also where the port is held by a socket that does not listen, as those of a world's doors are.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(address.port() != 0)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    Ok(socket.into())
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for tcp in listener.incoming() {
        let Ok(tcp) = tcp else { continue };
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let _ = tcp.set_nodelay(true);
        let number = {
            let mut state = shared.lock();
            state.connections.push(tcp.try_clone().ok());
            state.connections.len()
        };
        let shared = shared.clone();
        thread::spawn(move || {
            let Some(mut stream) = enter(tcp, shared.tls.clone()) else { return shared.over(number) };
            let ending = converse(&mut stream, number, &shared);
            match ending {
                Ending::Close => close(stream.as_mut(), || shared.over(number)),
                Ending::Reset => {
                    let _ = socket2::SockRef::from(stream.tcp()).set_linger(Some(Duration::ZERO));
                    // The reset is sent when the last handle goes: this one, once the register's is gone.
                    shared.over(number);
                }
            }
        });
    }
}

/// How the script leaves a connection.
enum Ending {
    Close,
    Reset,
}

/// Ends our half in order, and lets the other side end its own, so that the kernel has no reason for a reset.
fn close(stream: &mut dyn Stream, over: impl FnOnce()) {
    stream.finish();
    let _ = stream.tcp().set_read_timeout(Some(Duration::from_secs(1)));
    let mut rest = [0; 4096];
    while matches!(stream.read(&mut rest), Ok(count) if count > 0) {}
    over();
}

/// The connection, after its TLS handshake where there is one.
fn enter(mut tcp: TcpStream, tls: Option<Arc<rustls::ServerConfig>>) -> Option<Box<dyn Stream>> {
    let Some(config) = tls else { return Some(Box::new(tcp)) };
    let mut session = rustls::ServerConnection::new(config).ok()?;
    while session.is_handshaking() {
        session.complete_io(&mut tcp).ok()?;
    }
    Some(Box::new(rustls::StreamOwned::new(session, tcp)))
}

/// Answers the requests of one connection until it or the script ends it.
fn converse(stream: &mut Box<dyn Stream>, number: usize, shared: &Shared) -> Ending {
    let mut reader = Reader::new(stream);
    loop {
        let from = reader.record.len() - reader.waiting.len();
        let Ok(head) = reader.head() else {
            let rest = &reader.record[from..];
            if !rest.is_empty() {
                shared.lock().garbled.push(show(rest));
            }
            return Ending::Close;
        };
        let mut seen = first_sight(number, &head.start, head.fields);
        let place = shared.note(seen.clone());
        let answer = shared.answer();
        let early = if answer.when == When::Head { perform(&answer, &seen, &mut reader) } else { None };
        match early {
            None => {
                let body = reader.body(seen.framing);
                finish(&mut seen, body);
            }
            Some(_) => seen.end = Some(End::Cut("the script ended the connection".to_owned())),
        }
        seen.raw = reader.record[from..reader.record.len() - reader.waiting.len()].to_vec();
        shared.lock().seen[place] = seen.clone();
        let late = if answer.when == When::Whole { perform(&answer, &seen, &mut reader) } else { None };
        shared.lock().said += 1;
        if let Some(ending) = early.or(late) {
            return ending;
        }
    }
}

fn first_sight(connection: usize, start: &str, fields: Fields) -> Seen {
    let mut words = start.split(' ').map(str::to_owned);
    let framing = if is_chunked(&fields) {
        Framing::Chunked
    } else {
        length(&fields).filter(|count| *count > 0).map_or(Framing::None, Framing::Length)
    };
    Seen {
        connection,
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        version: words.next().unwrap_or_default(),
        fields,
        body: Vec::new(),
        trailers: Fields::new(),
        end: None,
        framing,
        raw: Vec::new(),
    }
}

fn finish(seen: &mut Seen, body: Body) {
    seen.body = body.octets;
    seen.trailers = body.trailers;
    seen.end = Some(body.end);
}

/// Does the steps; `None` if the connection goes on afterwards.
fn perform(answer: &Answer, seen: &Seen, reader: &mut Reader<&mut Box<dyn Stream>>) -> Option<Ending> {
    for step in &answer.steps {
        match step {
            Step::Send(octets) if !write(reader, octets) => return Some(Ending::Close),
            Step::Plain(status, body) if !write(reader, &plain(*status, body, seen)) => return Some(Ending::Close),
            Step::Echo if !write(reader, &plain(200, &seen.to_json().to_string(), seen)) => return Some(Ending::Close),
            Step::Send(_) | Step::Plain(..) | Step::Echo => {}
            Step::Wait(time) => thread::sleep(*time),
            Step::Hold(gate) => gate.pass(),
            Step::HearOut => while reader.more().is_ok() {},
            Step::Stall => {
                while reader.more().is_ok() {}
                return Some(Ending::Close);
            }
            Step::Tunnel => {
                tunnel(reader);
                return Some(Ending::Close);
            }
            Step::WebSocket => {
                ws::serve(seen, reader);
                return Some(Ending::Close);
            }
            Step::Close => return Some(Ending::Close),
            Step::Reset => return Some(Ending::Reset),
        }
    }
    None
}

/// An honest answer.
fn plain(status: u16, body: &str, seen: &Seen) -> Vec<u8> {
    let kind = if body.starts_with('{') { "Content-Type: application/json\r\n" } else { "" };
    let sent = if seen.method == "HEAD" { "" } else { body };
    format!("HTTP/1.1 {status} X\r\n{kind}Content-Length: {}\r\n\r\n{sent}", body.len()).into_bytes()
}

/// Whether the octets could be sent.
pub(super) fn write(reader: &mut Reader<&mut Box<dyn Stream>>, octets: &[u8]) -> bool {
    let stream = reader.stream();
    stream.write_all(octets).and_then(|()| stream.flush()).is_ok()
}

fn tunnel(reader: &mut Reader<&mut Box<dyn Stream>>) {
    loop {
        let octets = std::mem::take(&mut reader.waiting);
        if !octets.is_empty() && !write(reader, &octets) {
            return;
        }
        if reader.more().is_err() {
            return;
        }
    }
}
