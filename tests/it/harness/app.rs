//! An application that mints users, remembers whom it served, and keeps a list of operations for each key: for tests that
//! make thousands of requests, and uploads that nobody wants to keep.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

/// The length of a big answer.
pub const BIG: usize = 96 << 20;

/// The application of one place. It outlives what stands before it, and ends with the test's process.
pub struct App {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    place: String,
    minted: AtomicU64,
    /// The keys for which it was asked as their home.
    served: Mutex<BTreeSet<String>>,
    /// By `space:key`.
    lists: Mutex<HashMap<String, List>>,
}

/// An operation that an application has carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// What the client calls it.
    pub name: String,
    /// Where it was carried out.
    pub place: String,
    /// In which epoch of its key; 0 where the application was not asked as the key's home.
    pub epoch: u32,
}

/// What belongs to one key: operations are appended and never taken back.
#[derive(Debug, Clone, Default)]
pub struct List {
    /// The operations, in the order in which they were carried out.
    pub ops: Vec<Op>,
    /// Requests of an epoch below are refused: the fence that an application can keep by itself.
    floor: u32,
}

/// What of a request matters here.
#[derive(Default)]
struct Heard {
    method: String,
    target: String,
    coordinator: String,
    length: u64,
    is_chunked: bool,
}

impl App {
    /// Starts the application of `place`.
    ///
    /// `/<kind>/<key>/ops/<name>` carries out an operation and `GET /<kind>/<key>/ops` tells their names, an array of JSON;
    /// any other `POST` gives `201` with `Location: /v1/users/<place>-<n>`, each number once; a path that ends in `/big` gives
    /// [`BIG`] octets; everything else gives `{"at":"<place>","length":<octets of content>}`.
    pub fn start(place: &str) -> App {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let place = place.to_owned();
        let shared = Arc::new(Shared { place, ..Shared::default() });
        let theirs = shared.clone();
        thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let shared = theirs.clone();
                thread::spawn(move || {
                    let _ = converse(&tcp, &shared);
                    let _ = tcp.shutdown(Shutdown::Both);
                });
            }
        });
        App { address, shared }
    }

    /// As the configuration writes it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The keys for which it was asked as their home, as `space:key`.
    pub fn served(&self) -> BTreeSet<String> {
        self.shared.served.lock().expect("nobody panics under this lock").clone()
    }

    /// What belongs to each key here, by `space:key`.
    pub fn lists(&self) -> HashMap<String, List> {
        self.shared.lists().clone()
    }

    /// Refuses a key's requests of an epoch below `floor` from now on, and gives what belongs to the key.
    pub fn fence(&self, key: &str, floor: u32) -> List {
        let mut lists = self.shared.lists();
        let list = lists.entry(key.to_owned()).or_default();
        list.floor = floor;
        list.clone()
    }

    /// Takes what another application has fenced: it replaces what belongs to the key here.
    pub fn import(&self, key: &str, list: List) {
        self.shared.lists().insert(key.to_owned(), list);
    }
}

impl List {
    /// A list of these.
    pub fn of(ops: &[Op]) -> List {
        List { ops: ops.to_vec(), floor: 0 }
    }
}

impl Shared {
    fn lists(&self) -> MutexGuard<'_, HashMap<String, List>> {
        self.lists.lock().expect("nobody panics under this lock")
    }

    /// Carries out an operation, or tells them all: status and content.
    fn operate(&self, heard: &Heard, name: Option<&str>) -> (String, String) {
        let (key, epoch) = (heard.key().unwrap_or_default(), heard.epoch());
        let mut lists = self.lists();
        let list = lists.entry(key.to_owned()).or_default();
        if epoch < list.floor {
            return ("503 Service Unavailable".to_owned(), format!("epoch {epoch} is over"));
        }
        if let Some(name) = name {
            list.ops.push(Op { name: name.to_owned(), place: self.place.clone(), epoch });
        }
        let names: Vec<_> = list.ops.iter().map(|op| &op.name).collect();
        ("200 OK".to_owned(), serde_json::json!({ "at": self.place, "epoch": epoch, "ops": names }).to_string())
    }
}

impl Heard {
    /// The key that it was asked for, as `space:key`.
    fn key(&self) -> Option<&str> {
        self.coordinator.split("key=\"").nth(1)?.split('"').next()
    }

    /// The epoch in which it was asked as the key's home; 0 if it was not.
    fn epoch(&self) -> u32 {
        let text = self.coordinator.split("epoch=").nth(1).and_then(|rest| rest.split(',').next());
        text.filter(|_| self.coordinator.contains("as=home")).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// The operation that it asks for: `Some(None)` = to tell them all.
    fn op(&self) -> Option<Option<&str>> {
        let mut parts = self.target.split('/').skip(4);
        (parts.next()? == "ops").then(|| parts.next())
    }
}

fn send_big(mut tcp: &TcpStream) -> std::io::Result<()> {
    tcp.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n").as_bytes())?;
    let piece = [7; 64 << 10];
    (0..BIG / piece.len()).try_for_each(|_| tcp.write_all(&piece))
}

/// Answers until the connection ends.
fn converse(tcp: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(64 << 10, tcp);
    while let Some(heard) = head(&mut reader)? {
        let length = if heard.is_chunked { skip_chunks(&mut reader)? } else { skip(&mut reader, heard.length)? };
        if let Some(key) = heard.key() {
            shared.served.lock().expect("nobody panics under this lock").insert(key.to_owned());
        }
        if heard.target.ends_with("/big") {
            send_big(tcp)?;
            continue;
        }
        let place = &shared.place;
        let (status, body) = if let Some(name) = heard.op() {
            shared.operate(&heard, name)
        } else if heard.method == "POST" {
            let number = shared.minted.fetch_add(1, Ordering::Relaxed) + 1;
            (format!("201 Created\r\nLocation: /v1/users/{place}-{number}"), "{}".to_owned())
        } else {
            ("200 OK".to_owned(), format!("{{\"at\":\"{place}\",\"length\":{length}}}"))
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        (&mut &*tcp).write_all(answer.as_bytes())?;
    }
    Ok(())
}

fn head(reader: &mut impl BufRead) -> std::io::Result<Option<Heard>> {
    let (mut heard, mut line) = (Heard::default(), String::new());
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ').map(str::to_owned);
    (heard.method, heard.target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { return Ok(Some(heard)) };
        match name.to_ascii_lowercase().as_str() {
            "coordinator" => value.trim().clone_into(&mut heard.coordinator),
            "content-length" => heard.length = value.trim().parse().map_err(std::io::Error::other)?,
            "transfer-encoding" => heard.is_chunked = true,
            _ => {}
        }
    }
}

/// Reads so many octets and keeps none.
fn skip(reader: &mut impl Read, length: u64) -> std::io::Result<u64> {
    let read = std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    if read == length { Ok(read) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

fn skip_chunks(reader: &mut impl BufRead) -> std::io::Result<u64> {
    let (mut whole, mut line) = (0, String::new());
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
        whole += skip(reader, size)?;
        // The end of a chunk's line, or of an empty trailer section.
        line.clear();
        reader.read_line(&mut line)?;
        if size == 0 {
            return Ok(whole);
        }
    }
}
