//! A NATS client, as far as the feed needs one: core messages, and JetStream's API by request and reply.
//!
//! One connection, owned by one task; what arrives while a reply is awaited waits in its turn. A line of the protocol that
//! makes no sense ends the connection: whoever follows has a cursor of their own. Why not the kept crate: docs/decisions/0018.
//! Source: NATS client protocol and JetStream wire API, server 2.9.

use crate::base::backoff::random;
use crate::config::plan::NatsStream;
use crate::tls::client::{Alpn, Client as Tls, Trust};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long connecting may take, TLS and greeting included.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// How long a reply may take; a stored message is one too.
const REPLY_MAX: Duration = Duration::from_secs(5);
/// The longest line of the protocol: a server's greeting lists its cluster.
const LINE_MAX: u64 = 64 << 10;
/// The longest message that is taken: base64 of a frame, in JSON.
const MESSAGE_MAX: usize = 16 << 20;
/// Messages that may wait while a reply is awaited; more are a gap, which whoever follows notices.
const WAITING_MAX: usize = 4096;
/// The subscription to which replies come.
const REPLIES: u64 = 1;

/// A connection.
pub struct Nats {
    wire: BufReader<Box<dyn Wire>>,
    inbox: String,
    /// Counts requests, so that a late reply is no other one's.
    asked: u64,
    waiting: VecDeque<Message>,
    max_payload: usize,
}

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// A message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Where it was published.
    pub subject: String,
    /// Its header section, empty if there is none.
    pub headers: Vec<u8>,
    /// Its content.
    pub payload: Vec<u8>,
}

/// What a server says of itself.
#[derive(Debug, Deserialize)]
struct Info {
    #[serde(default)]
    max_payload: usize,
    #[serde(default)]
    headers: bool,
    #[serde(default)]
    tls_required: bool,
}

impl Nats {
    /// Connects. Errors: why not, for people.
    pub async fn connect(at: &NatsStream) -> Result<Nats, String> {
        match timeout(CONNECT_MAX, Nats::connect_at_leisure(at)).await {
            Ok(Ok(nats)) => Ok(nats),
            Ok(Err(why)) => Err(format!("{at} cannot be reached: {why}")),
            Err(_) => Err(format!("{at} cannot be reached within {} s", CONNECT_MAX.as_secs())),
        }
    }

    async fn connect_at_leisure(at: &NatsStream) -> Result<Nats, String> {
        let stream = TcpStream::connect((at.host.as_str(), at.port)).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let mut plain = BufReader::new(stream);
        let greeting = line(&mut plain).await?;
        let info = greeting.strip_prefix("INFO ").ok_or("it does not greet as a NATS server does")?;
        let info: Info = serde_json::from_str(info).map_err(|error| format!("its greeting: {error}"))?;
        if !info.headers {
            return Err("it is too old: it takes no headers".to_owned());
        }
        let wire: Box<dyn Wire> = match (at.tls, info.tls_required) {
            (true, _) => Box::new(secure(plain.into_inner(), &at.host).await?),
            (false, true) => return Err("it requires TLS: write tls:// instead of nats://".to_owned()),
            (false, false) => Box::new(plain.into_inner()),
        };
        let inbox = format!("_INBOX.{:016x}{:016x}", random(), random());
        let mut nats = Nats {
            wire: BufReader::new(wire),
            inbox,
            asked: 0,
            waiting: VecDeque::new(),
            max_payload: info.max_payload,
        };
        nats.greet(at).await?;
        Ok(nats)
    }

    async fn greet(&mut self, at: &NatsStream) -> Result<(), String> {
        let mut hello = json!({
            "verbose": false, "pedantic": false, "headers": true, "no_responders": true, "protocol": 1,
            "lang": "rust", "name": "coordinator", "version": env!("CARGO_PKG_VERSION"),
        });
        match at.login.as_ref().map(|login| login.split_once(':').ok_or(login)) {
            Some(Ok((user, password))) => (hello["user"], hello["pass"]) = (user.into(), password.into()),
            Some(Err(token)) => hello["auth_token"] = token.as_str().into(),
            None => {}
        }
        let text = format!("CONNECT {hello}\r\nPING\r\nSUB {}.* {REPLIES}\r\n", self.inbox);
        self.send(text.as_bytes()).await?;
        loop {
            match line(&mut self.wire).await?.as_str() {
                "PONG" => return Ok(()),
                other => match other.strip_prefix("-ERR ") {
                    Some(why) => return Err(format!("it refuses us: {why}")),
                    None => continue,
                },
            }
        }
    }

    /// The largest message that the server takes.
    pub fn max_payload(&self) -> usize {
        self.max_payload
    }

    /// Has messages of a subject come to [`Nats::next`].
    pub async fn subscribe(&mut self, subject: &str) -> Result<(), String> {
        self.send(format!("SUB {subject} {}\r\n", REPLIES + 1).as_bytes()).await
    }

    /// Publishes, and does not wait.
    pub async fn publish(&mut self, subject: &str, headers: &[(&str, &str)], payload: &[u8]) -> Result<(), String> {
        let text = written(subject, "", headers, payload);
        self.send(&text).await
    }

    /// The next message of what was subscribed to. Errors: the connection is of no more use.
    ///
    /// Cancel: the connection is of no more use either.
    pub async fn next(&mut self) -> Result<Message, String> {
        if let Some(message) = self.waiting.pop_front() {
            return Ok(message);
        }
        loop {
            if let Some((sid, message)) = self.read().await?
                && sid != REPLIES
            {
                return Ok(message);
            }
        }
    }

    /// Publishes, and waits for the reply.
    pub async fn request(
        &mut self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: &[u8],
    ) -> Result<Message, String> {
        self.asked += 1;
        let reply = format!("{}.{}", self.inbox, self.asked);
        let text = written(subject, &reply, headers, payload);
        self.send(&text).await?;
        let replied = timeout(REPLY_MAX, self.reply(&reply)).await;
        let reply = replied.map_err(|_| format!("no reply from {subject} in time"))??;
        if reply.headers.starts_with(b"NATS/1.0 503") {
            return Err("nobody answers there: is JetStream switched on in the server?".to_owned());
        }
        Ok(reply)
    }

    /// Waits for what comes to an inbox; what else comes waits in its turn.
    async fn reply(&mut self, inbox: &str) -> Result<Message, String> {
        loop {
            match self.read().await? {
                Some((REPLIES, message)) if message.subject == inbox => return Ok(message),
                Some((sid, message)) if sid != REPLIES && self.waiting.len() < WAITING_MAX => {
                    self.waiting.push_back(message);
                }
                _ => {}
            }
        }
    }

    /// Asks JetStream's API: its answer, or its error.
    pub async fn api(&mut self, what: &str, asked: Value) -> Result<Value, ApiError> {
        let asked = if asked.is_null() { Vec::new() } else { asked.to_string().into_bytes() };
        let reply = self.request(&format!("$JS.API.{what}"), &[], &asked).await.map_err(ApiError::broken)?;
        answer(&reply.payload)
    }

    /// Takes one line of the protocol; a message with the number of its subscription if it is one.
    async fn read(&mut self) -> Result<Option<(u64, Message)>, String> {
        let head = line(&mut self.wire).await?;
        let mut words = head.split_ascii_whitespace();
        match words.next() {
            Some("PING") => self.send(b"PONG\r\n").await.map(|()| None),
            Some("-ERR") => Err(format!("the server says {head}")),
            Some(kind @ ("MSG" | "HMSG")) => {
                let (subject, sid, headers, all) = sizes(kind, &words.collect::<Vec<_>>()).ok_or_else(|| odd(&head))?;
                let mut octets = vec![0; all + 2];
                self.wire.read_exact(&mut octets).await.map_err(|error| error.to_string())?;
                octets.truncate(all);
                let payload = octets.split_off(headers);
                Ok(Some((sid, Message { subject: subject.to_owned(), headers: octets, payload })))
            }
            Some("PONG" | "INFO" | "+OK") => Ok(None),
            _ => Err(odd(&head)),
        }
    }

    async fn send(&mut self, octets: &[u8]) -> Result<(), String> {
        let sent = async {
            self.wire.get_mut().write_all(octets).await?;
            self.wire.get_mut().flush().await
        };
        match timeout(REPLY_MAX, sent).await {
            Ok(sent) => sent.map_err(|error| error.to_string()),
            Err(_) => Err("the server takes nothing more".to_owned()),
        }
    }
}

/// Why JetStream did not do something.
#[derive(Debug)]
pub struct ApiError {
    /// Its number for it; 0 if the connection broke.
    pub code: u64,
    /// In words.
    pub why: String,
}

impl ApiError {
    fn broken(why: String) -> ApiError {
        ApiError { code: 0, why }
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.why)
    }
}

/// Reads a JSON answer of JetStream's.
pub fn answer(payload: &[u8]) -> Result<Value, ApiError> {
    let value: Value = serde_json::from_slice(payload).map_err(|error| ApiError::broken(error.to_string()))?;
    match value.get("error") {
        None => Ok(value),
        Some(error) => {
            let why = error.get("description").and_then(Value::as_str).unwrap_or("JetStream refused").to_owned();
            Err(ApiError { code: error.get("err_code").and_then(Value::as_u64).unwrap_or(1), why })
        }
    }
}

impl Message {
    /// A field of the header section.
    pub fn header(&self, name: &str) -> Option<&str> {
        let text = std::str::from_utf8(&self.headers).ok()?;
        let mut fields = text.split("\r\n").skip(1).filter_map(|field| field.split_once(':'));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

async fn secure(stream: TcpStream, host: &str) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let config = Tls::new(Trust::System).config(Alpn::Http1)?;
    let name = rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| error.to_string())
}

async fn line(wire: &mut (impl AsyncBufReadExt + Unpin)) -> Result<String, String> {
    let mut line = Vec::new();
    let mut bounded = wire.take(LINE_MAX);
    let read = bounded.read_until(b'\n', &mut line).await.map_err(|error| error.to_string())?;
    if read == 0 {
        return Err("the server ended the connection".to_owned());
    }
    match line.strip_suffix(b"\r\n") {
        Some(line) => String::from_utf8(line.to_vec()).map_err(|_| "a line that is not UTF-8".to_owned()),
        None => Err("a line that was cut".to_owned()),
    }
}

/// The subject of a message, its subscription, the octets of its header section and of all of it.
fn sizes<'a>(kind: &str, words: &[&'a str]) -> Option<(&'a str, u64, usize, usize)> {
    let (subject, sid, sizes) = match (kind, words) {
        ("MSG", [subject, sid, size] | [subject, sid, _, size]) => (subject, sid, ("0", size)),
        ("HMSG", [subject, sid, head, all] | [subject, sid, _, head, all]) => (subject, sid, (*head, all)),
        _ => return None,
    };
    let (head, all) = (sizes.0.parse().ok()?, sizes.1.parse().ok()?);
    (head <= all && all <= MESSAGE_MAX).then_some((*subject, sid.parse().ok()?, head, all))
}

fn written(subject: &str, reply: &str, headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    if !headers.is_empty() {
        head.extend_from_slice(b"NATS/1.0\r\n");
        for (name, value) in headers {
            head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        head.extend_from_slice(b"\r\n");
    }
    let all = head.len() + payload.len();
    let line = match headers.is_empty() {
        true => format!("PUB {subject} {reply} {all}\r\n"),
        false => format!("HPUB {subject} {reply} {} {all}\r\n", head.len()),
    };
    [line.as_bytes(), &head, payload, b"\r\n"].concat()
}

fn odd(line: &str) -> String {
    format!("the server says what makes no sense: {}", crate::home::key::shown(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_messages_are_read_with_and_without_reply() {
        let read = |text: &'static str| {
            let mut words = text.split(' ');
            sizes(words.next().unwrap(), &words.collect::<Vec<_>>())
        };
        assert_eq!(read("MSG a.b 2 5"), Some(("a.b", 2, 0, 5)));
        assert_eq!(read("MSG a.b 2 _R.1 5"), Some(("a.b", 2, 0, 5)));
        assert_eq!(read("HMSG a.b 2 12 17"), Some(("a.b", 2, 12, 17)));
        assert_eq!(read("HMSG a.b 2 _R.1 12 17"), Some(("a.b", 2, 12, 17)));
        for wrong in ["MSG a.b 2", "MSG a.b x 5", "HMSG a 2 9 8", "MSG a 2 99999999999", "MSG a 2 -1", "XMSG a 2 1"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn messages_are_written_with_their_sizes_and_headers_are_found() {
        assert_eq!(written("a", "", &[], b"hi"), b"PUB a  2\r\nhi\r\n");
        let text = written("a", "r", &[("Feed-Id", "x: y"), ("B", "2")], b"hi");
        assert_eq!(text, b"HPUB a r 33 35\r\nNATS/1.0\r\nFeed-Id: x: y\r\nB: 2\r\n\r\nhi\r\n");
        let message = Message { headers: b"NATS/1.0\r\nFeed-Id: x: y\r\nB: 2\r\n\r\n".to_vec(), ..Message::default() };
        assert_eq!(
            (message.header("feed-id"), message.header("b"), message.header("c")),
            (Some("x: y"), Some("2"), None)
        );
    }

    #[test]
    fn an_error_of_jetstream_is_told_from_an_answer() {
        assert_eq!(answer(br#"{"seq":3}"#).unwrap()["seq"], 3);
        let error = answer(br#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 5"}}"#);
        assert_eq!(error.unwrap_err().code, 10071);
        assert_eq!(answer(b"x").unwrap_err().code, 0);
    }
}
