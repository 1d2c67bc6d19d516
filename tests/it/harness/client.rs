//! A client that sends exactly what it is told and reports exactly what came back.

use super::PATIENCE;
use super::message::{End, Fields, Framing, Head, Reader, Stop, is_chunked, length, values};
use rustls::pki_types::ServerName;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

/// A connection, plain or within TLS.
pub trait Stream: Read + Write + Send {
    /// The TCP connection beneath.
    fn tcp(&self) -> &TcpStream;

    /// Ends our half in order.
    fn finish(&mut self) {
        let _ = self.tcp().shutdown(Shutdown::Write);
    }
}

impl Stream for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

/// Of a client and of a server.
impl<C, S> Stream for rustls::StreamOwned<C, TcpStream>
where
    C: Send + DerefMut + Deref<Target = rustls::ConnectionCommon<S>>,
    S: rustls::SideData,
{
    fn tcp(&self) -> &TcpStream {
        &self.sock
    }

    fn finish(&mut self) {
        self.conn.send_close_notify();
        let _ = self.flush();
        let _ = self.sock.shutdown(Shutdown::Write);
    }
}

/// One client connection.
pub struct Client {
    reader: Reader<Box<dyn Stream>>,
    /// What TLS settled on by ALPN.
    pub alpn: Option<String>,
}

/// A response, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// `HTTP/1.1`.
    pub version: String,
    /// The status.
    pub status: u16,
    /// The reason phrase.
    pub reason: String,
    /// The fields.
    pub fields: Fields,
    /// The content, decoded.
    pub body: Vec<u8>,
    /// The trailers of a chunked body.
    pub trailers: Fields,
    /// Whether the body was complete by its own framing.
    pub end: End,
    /// How the end of the body was marked.
    pub framing: Framing,
    /// The 1xx heads that came before, with their status.
    pub interim: Vec<(u16, Fields)>,
}

impl Client {
    /// Connects without TLS.
    #[track_caller]
    pub fn plain(address: SocketAddr) -> Client {
        Client::over(Box::new(connect(address)), None)
    }

    /// Connects with TLS, calling the server `name`. Errors: the handshake failed.
    pub fn tls(address: SocketAddr, config: Arc<rustls::ClientConfig>, name: &str) -> Result<Client, std::io::Error> {
        Client::over_tls(connect(address), config, name)
    }

    /// The same where nobody may listen, or whoever does may say nothing for `limit`.
    pub fn try_tls(
        address: SocketAddr,
        config: Arc<rustls::ClientConfig>,
        name: &str,
        limit: Duration,
    ) -> Result<Client, std::io::Error> {
        let tcp = TcpStream::connect_timeout(&address, limit)?;
        tcp.set_read_timeout(Some(limit))?;
        Client::over_tls(tcp, config, name)
    }

    fn over_tls(mut tcp: TcpStream, config: Arc<rustls::ClientConfig>, name: &str) -> Result<Client, std::io::Error> {
        let name = ServerName::try_from(name.to_owned()).expect("a valid server name");
        let mut session = rustls::ClientConnection::new(config, name).map_err(std::io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut tcp)?;
        }
        let alpn = session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        Ok(Client::over(Box::new(rustls::StreamOwned::new(session, tcp)), alpn))
    }

    /// A client on a connection that stands already.
    pub fn over_plain(tcp: TcpStream) -> Client {
        let limited = tcp.set_read_timeout(Some(PATIENCE)).and_then(|()| tcp.set_write_timeout(Some(PATIENCE)));
        limited.and_then(|()| tcp.set_nodelay(true)).expect("a socket has timeouts");
        Client::over(Box::new(tcp), None)
    }

    fn over(stream: Box<dyn Stream>, alpn: Option<String>) -> Client {
        Client { reader: Reader::new(stream), alpn }
    }

    /// Sends octets as they are. A peer that has closed already is no failure here: what it answered counts.
    pub fn send(&mut self, octets: impl AsRef<[u8]>) -> &mut Client {
        let stream = self.reader.stream();
        let _ = stream.write_all(octets.as_ref()).and_then(|()| stream.flush());
        self
    }

    /// Sends one chunk of a chunked body; an empty one is the last, without trailers.
    pub fn send_chunk(&mut self, octets: &[u8]) -> &mut Client {
        let mut chunk = format!("{:x}\r\n", octets.len()).into_bytes();
        chunk.extend_from_slice(octets);
        chunk.extend_from_slice(b"\r\n");
        self.send(chunk)
    }

    /// `GET target` with a Host, answered.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Answer {
        self.ask("GET", target, &[], b"")
    }

    /// A whole request with Host and, where there is content, Content-Length; answered.
    #[track_caller]
    pub fn ask(&mut self, method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str("Host: shop.example\r\n");
        }
        for (name, value) in fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut octets = head.into_bytes();
        octets.extend_from_slice(body);
        self.send(octets).answer_to(method)
    }

    /// The next answer, to anything but HEAD.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    /// The next answer, read by the rules for `method`. Panics if none comes.
    #[track_caller]
    pub fn answer_to(&mut self, method: &str) -> Answer {
        match self.try_answer(method) {
            Ok(answer) => answer,
            Err(stop) => panic!("no answer to {method}: {stop:?}; what came: {:?}", show(&self.reader.record)),
        }
    }

    /// The next answer, or why there is none.
    pub fn try_answer(&mut self, method: &str) -> Result<Answer, Stop> {
        let mut interim = Vec::new();
        loop {
            let head = self.reader.head()?;
            let (version, status, reason) = status_line(&head.start)?;
            if (100..200).contains(&status) && status != 101 {
                interim.push((status, head.fields));
                continue;
            }
            let framing = framing(method, status, &head);
            let body = self.reader.body(framing);
            return Ok(Answer {
                version,
                status,
                reason,
                fields: head.fields,
                body: body.octets,
                trailers: body.trailers,
                end: body.end,
                framing,
                interim,
            });
        }
    }

    /// The next interim or final head alone, its body unread.
    #[track_caller]
    pub fn next_head(&mut self) -> (u16, Fields) {
        let head = self.reader.head().expect("a head comes");
        (status_line(&head.start).expect("it has a status").1, head.fields)
    }

    /// The next `count` octets as they come: after an upgrade, or of a body that is looked at in pieces.
    #[track_caller]
    pub fn octets(&mut self, count: usize) -> Vec<u8> {
        match self.reader.take(count) {
            Ok(octets) => octets,
            Err(stop) => panic!("{count} octets expected: {stop:?}; waiting: {:?}", show(&self.reader.waiting)),
        }
    }

    /// The next `count` octets, unless the connection ends or stays silent before.
    pub fn try_octets(&mut self, count: usize) -> Result<Vec<u8>, Stop> {
        self.reader.take(count)
    }

    /// Ends our half of the connection.
    pub fn half_close(&mut self) -> &mut Client {
        self.reader.stream().finish();
        self
    }

    /// Resets the connection.
    pub fn reset(mut self) {
        let _ = socket2::SockRef::from(self.reader.stream().tcp()).set_linger(Some(Duration::ZERO));
    }

    /// Waits for the end of the connection, however it comes; gives the octets that came before it.
    #[track_caller]
    pub fn closed(&mut self) -> Vec<u8> {
        loop {
            match self.reader.more() {
                Ok(()) => {}
                Err(Stop::Silent) => panic!("the connection stays open; waiting: {:?}", show(&self.reader.waiting)),
                Err(_) => return std::mem::take(&mut self.reader.waiting),
            }
        }
    }

    /// Whether nothing comes, and the connection stays, for `time`.
    pub fn is_silent(&mut self, time: Duration) -> bool {
        let limit = |client: &mut Client, time| {
            client.reader.stream().tcp().set_read_timeout(Some(time)).expect("a socket has timeouts");
        };
        if !self.reader.waiting.is_empty() {
            return false;
        }
        limit(self, time);
        let outcome = self.reader.more();
        limit(self, PATIENCE);
        outcome == Err(Stop::Silent)
    }

    /// Everything that ever came on this connection.
    pub fn record(&self) -> &[u8] {
        &self.reader.record
    }
}

impl Answer {
    /// The values of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        values(&self.fields, name)
    }

    /// The value of a field that stands once. Panics if it stands more often.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} stands {} times: {all:?}", all.len());
        all.first().copied()
    }

    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The content as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// The `error` token of Proxy-Status.
    pub fn error(&self) -> Option<String> {
        let status = self.all("proxy-status").join(",");
        let after = status.split("error=").nth(1)?;
        Some(after.chars().take_while(|sign| sign.is_ascii_alphanumeric() || *sign == '_').collect())
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect_timeout(&address, PATIENCE).unwrap_or_else(|error| panic!("{address}: {error}"));
    tcp.set_read_timeout(Some(PATIENCE)).expect("a socket has timeouts");
    tcp.set_write_timeout(Some(PATIENCE)).expect("a socket has timeouts");
    tcp.set_nodelay(true).expect("TCP has no-delay");
    tcp
}

fn status_line(line: &str) -> Result<(String, u16, String), Stop> {
    let garbled = || Stop::Garbled(format!("status line {line:?}"));
    let mut words = line.splitn(3, ' ');
    let version = words.next().filter(|word| word.starts_with("HTTP/")).ok_or_else(garbled)?;
    let status = words.next().and_then(|word| word.parse().ok()).ok_or_else(garbled)?;
    Ok((version.to_owned(), status, words.next().unwrap_or_default().to_owned()))
}

fn framing(method: &str, status: u16, head: &Head) -> Framing {
    if method == "HEAD" || matches!(status, 101 | 204 | 304) {
        Framing::None
    } else if is_chunked(&head.fields) {
        Framing::Chunked
    } else {
        length(&head.fields).map_or(Framing::UntilClose, Framing::Length)
    }
}

/// Octets as a test failure shows them.
pub fn show(octets: &[u8]) -> String {
    let text: String =
        octets.iter().take(4096).flat_map(|octet| std::ascii::escape_default(*octet)).map(char::from).collect();
    if octets.len() > 4096 { format!("{text}… ({} octets)", octets.len()) } else { text }
}
