//! An application that mints users and remembers whom it served: for tests that make thousands of requests, and uploads
//! that nobody wants to keep.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// The length of a big answer.
pub const BIG: usize = 96 << 20;

/// The application of one place. It outlives what stands before it, and ends with the test's process.
pub struct App {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    place: String,
    minted: AtomicU64,
    /// The keys for which it was asked as their home.
    served: Mutex<BTreeSet<String>>,
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
    /// `POST` gives `201` with `Location: /v1/users/<place>-<n>`, each number once; a path that ends in `/big` gives
    /// [`BIG`] octets; everything else gives `{"at":"<place>","length":<octets of content>}`.
    pub fn start(place: &str) -> App {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared { place: place.to_owned(), minted: AtomicU64::new(0), served: Mutex::default() });
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
        if let Some(key) = heard.coordinator.split("key=\"").nth(1).and_then(|rest| rest.split('"').next()) {
            shared.served.lock().expect("nobody panics under this lock").insert(key.to_owned());
        }
        if heard.target.ends_with("/big") {
            send_big(tcp)?;
            continue;
        }
        let place = &shared.place;
        let (status, body) = if heard.method == "POST" {
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
