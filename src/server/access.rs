//! The access line: one JSON object per request, made by hand because a general serialiser costs fifty times as much
//! (DEPENDENCIES, surprise 4).
//!
//! It says what was asked, what was decided and why, where the time went, and who ended it in which phase. Of the
//! request's fields only the target is logged, so no credential of a field can reach a log.

use super::Summary;
use crate::base::decimal::{self, dotted};
use crate::base::{clock, swar};
use crate::body::{Door, Downstream, Identity};
use crate::config::plan::Plan;
use crate::error::Side;
use crate::message::{Scheme, Version};
use crate::record::{Coded, Record};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// What stands before a number or an object.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}

/// What stands before a text, with its first quotation mark.
macro_rules! text_key {
    ($name:literal) => {
        concat!(",\"", $name, "\":\"")
    };
}

/// A text that is one of few, with its key.
macro_rules! whole_key {
    ($name:literal, $text:literal) => {
        concat!(",\"", $name, "\":\"", $text, "\"")
    };
}

/// As `text_key!`, before the first of an object.
macro_rules! first_text_key {
    ($name:literal) => {
        concat!("{\"", $name, "\":\"")
    };
}

/// Appends the line of a request that has ended, with its newline.
///
/// Times are milliseconds with three digits: `wait` until the last attempt began, `connect` of that attempt,
/// `first_byte` from that attempt's start to the response's head, `total` from the first octet to now.
pub fn line(out: &mut Vec<u8>, plan: &Plan, record: &Record, from: &Downstream, head: Option<&Summary>) {
    let now = clock::turn();
    let mut object = Object { out };
    object.quoted(first_text_key!("time"), |out| clock::put_rfc3339(out, record.at()));
    asked(&mut object, from, head);
    object.number(key!("status"), u64::from(record.status));
    object.number(key!("received"), record.received);
    object.number(key!("sent"), record.sent);
    if let Coded::By { coding, taken } = &record.coded {
        object.plain(text_key!("encoding"), coding.as_str());
        object.number(key!("unencoded"), taken.load(Relaxed));
    }
    decided(&mut object, plan, record);
    tried(&mut object, record);
    times(&mut object, record, now);
    ended(&mut object, record);
    object.out.extend_from_slice(b"}\n");
}

/// Who asks, and what.
fn asked(object: &mut Object<'_>, from: &Downstream, head: Option<&Summary>) {
    match head.and_then(|head| head.client) {
        Some(client) => caller(object, from, |out| address(out, client)),
        None => object.out.extend_from_slice(from.logged.get_or_init(|| connection(from))),
    }
    if let Some(head) = head {
        object.plain(text_key!("method"), head.method.as_str());
        match from.scheme {
            Scheme::Http => object.put(whole_key!("scheme", "http")),
            Scheme::Https => object.put(whole_key!("scheme", "https")),
        }
        object.text(text_key!("host"), head.authority());
        object.text(text_key!("target"), head.target());
        match head.version {
            Version::Http10 => object.put(whole_key!("version", "1.0")),
            Version::Http11 => object.put(whole_key!("version", "1.1")),
            Version::Http2 => object.put(whole_key!("version", "2")),
        }
    }
}

/// What the lines of a connection have in common.
fn connection(from: &Downstream) -> Box<[u8]> {
    let mut out = Vec::new();
    caller(&mut Object { out: &mut out }, from, |out| match from.client {
        SocketAddr::V4(client) => {
            address(out, (*client.ip()).into());
            out.push(b':');
            decimal::put(out, u64::from(client.port()));
        }
        // Writing to memory cannot fail.
        SocketAddr::V6(client) => write!(out, "{client}").unwrap_or_default(),
    });
    out.into()
}

fn caller(object: &mut Object<'_>, from: &Downstream, client: impl FnOnce(&mut Vec<u8>)) {
    object.quoted(text_key!("client"), client);
    object.plain(text_key!("door"), door(from.door));
    match &from.identity {
        Identity::Edge(name) => object.text(text_key!("peer"), name),
        Identity::Central => object.text(text_key!("peer"), "central"),
        Identity::Operator => object.text(text_key!("peer"), "operator"),
        Identity::App => object.text(text_key!("peer"), "app"),
        Identity::Anyone | Identity::Loopback => {}
    }
}

/// Appends an address; that of version 4 without the formatter of the standard library, which costs ten times as much.
fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.extend_from_slice(dotted(address.octets(), &mut [0; 16])),
        IpAddr::V6(address) => write!(out, "{address}").unwrap_or_default(),
    }
}

fn door(door: Door) -> &'static str {
    match door {
        Door::Public => "public",
        Door::Peer => "peer",
        Door::Central => "central",
    }
}

fn decided(object: &mut Object<'_>, plan: &Plan, record: &Record) {
    if let Some(settings) = record.route.and_then(|id| plan.settings.get(id.index())) {
        object.text(text_key!("route"), &settings.name);
    }
    object.known(text_key!("bearer"), record.bearer.as_deref().unwrap_or_default());
    if !record.decision.is_empty() {
        object.plain(text_key!("decision"), record.decision);
    }
    if !record.reason.is_empty() {
        object.plain(text_key!("reason"), record.reason);
    }
    object.known(text_key!("home"), record.home.as_deref().unwrap_or_default());
    object.known(text_key!("key"), record.key.as_deref().unwrap_or_default());
    if let Some(epoch) = record.epoch {
        object.number(key!("epoch"), u64::from(epoch));
    }
}

fn tried(object: &mut Object<'_>, record: &Record) {
    object.known(text_key!("cluster"), record.cluster.as_deref().unwrap_or_default());
    object.known(text_key!("endpoint"), record.endpoint.as_deref().unwrap_or_default());
    object.number(key!("attempts"), u64::from(record.attempts));
    if record.corrections > 0 {
        object.number(key!("corrections"), u64::from(record.corrections));
    }
}

fn times(object: &mut Object<'_>, record: &Record, now: Instant) {
    let (mut total, mut last) = (Duration::ZERO, record.began);
    if let Some(began) = record.attempt_began {
        total = between(record.began, began);
        last = began;
        object.time(key!("wait"), total);
        object.time(key!("connect"), record.connect);
        if let Some(first) = record.first_byte {
            let waited = between(began, first);
            total = total.saturating_add(waited);
            last = first;
            object.time(key!("first_byte"), waited);
        }
    }
    object.time(key!("total"), total.saturating_add(between(last, now)));
}

/// The time between two moments, which are often those of the same turn.
fn between(earlier: Instant, later: Instant) -> Duration {
    if earlier == later { Duration::ZERO } else { later.saturating_duration_since(earlier) }
}

fn ended(object: &mut Object<'_>, record: &Record) {
    let Some((kind, side, detail)) = &record.failure else { return };
    let by = match side {
        Side::Downstream => "client",
        Side::Upstream => "upstream",
        Side::Own => "us",
    };
    object.text(text_key!("ended_by"), by);
    object.text(text_key!("ended_in"), phase(record));
    object.raw(key!("failure"), |out| {
        let mut failure = Object { out };
        failure.text(first_text_key!("kind"), kind.name());
        failure.text(text_key!("error"), kind.token());
        failure.text(text_key!("detail"), detail);
        failure.out.push(b'}');
    });
}

/// The last phase that was reached.
fn phase(record: &Record) -> &'static str {
    match record {
        Record { first_byte: Some(_), .. } => "response",
        Record { attempt_began: Some(_), .. } => "exchange",
        Record { route: Some(_), .. } => "decide",
        _ => "request",
    }
}

/// A JSON object that is being written. What takes a key is inlined: the key is then a constant there.
struct Object<'a> {
    out: &'a mut Vec<u8>,
}

impl Object<'_> {
    /// What is written already.
    #[inline(always)]
    fn put(&mut self, written: &'static str) {
        self.out.extend_from_slice(written.as_bytes());
    }

    /// `key` is `key!`.
    #[inline(always)]
    fn raw(&mut self, key: &'static str, value: impl FnOnce(&mut Vec<u8>)) {
        self.put(key);
        value(self.out);
    }

    /// What `value` writes stands between quotation marks. `key` is `text_key!` or `first_text_key!`, here and below.
    #[inline(always)]
    fn quoted(&mut self, key: &'static str, value: impl FnOnce(&mut Vec<u8>)) {
        self.raw(key, value);
        self.out.push(b'"');
    }

    /// A text that holds nothing that JSON would have to escape: one of ours, or a token.
    #[inline(always)]
    fn plain(&mut self, key: &'static str, value: &str) {
        self.quoted(key, |out| out.extend_from_slice(value.as_bytes()));
    }

    #[inline(always)]
    fn text(&mut self, key: &'static str, value: &str) {
        self.quoted(key, |out| escaped(out, value));
    }

    /// A text that is left out where it is not known.
    #[inline(always)]
    fn known(&mut self, key: &'static str, value: &str) {
        if !value.is_empty() {
            self.text(key, value);
        }
    }

    #[inline(always)]
    fn number(&mut self, key: &'static str, value: u64) {
        self.raw(key, |out| decimal::put(out, value));
    }

    #[inline(always)]
    fn time(&mut self, key: &'static str, value: Duration) {
        self.raw(key, |out| millis(out, value));
    }
}

/// Appends a duration in milliseconds with three digits behind the point.
#[inline(always)]
fn millis(out: &mut Vec<u8>, value: Duration) {
    if value.is_zero() { out.extend_from_slice(b"0.000") } else { put_millis(out, value) }
}

#[inline(never)]
fn put_millis(out: &mut Vec<u8>, value: Duration) {
    let micros = value.subsec_micros();
    decimal::put(out, value.as_secs().saturating_mul(1000).saturating_add(u64::from(micros / 1000)));
    let [a, b, c] = decimal::three(micros);
    out.extend_from_slice(&[b'.', a, b, c]);
}

/// What an octet becomes inside a JSON string: itself (0), `\u00XX` (`u`), or a backslash and this (RFC 8259 section 7).
const ESCAPE: [u8; 256] = {
    let mut table = [0; 256];
    let mut octet = 0;
    while octet < 0x20 {
        table[octet] = b'u';
        octet += 1;
    }
    table[0x08] = b'b';
    table[b'\t' as usize] = b't';
    table[b'\n' as usize] = b'n';
    table[0x0c] = b'f';
    table[b'\r' as usize] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// Appends what stands between the quotation marks of a JSON string.
#[inline]
fn escaped(out: &mut Vec<u8>, text: &str) {
    let octets = text.as_bytes();
    let marks = |word| swar::below(word, b' ') | swar::equal(word, b'"') | swar::equal(word, b'\\');
    let free =
        swar::is_free(octets, marks).unwrap_or_else(|| octets.iter().all(|octet| ESCAPE[usize::from(*octet)] == 0));
    if free { out.extend_from_slice(octets) } else { escape(out, octets) }
}

#[cold]
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for octet in text {
        match ESCAPE[usize::from(*octet)] {
            0 => out.push(*octet),
            b'u' => {
                let (high, low) = (HEX[usize::from(octet >> 4)], HEX[usize::from(octet & 15)]);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
            letter => out.extend_from_slice(&[b'\\', letter]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Kind};
    use crate::message::{Method, RequestHead};
    use std::cell::OnceCell;

    #[test]
    fn strings_are_escaped_as_serde_json_does() {
        let mut all: String = (0..0x250).filter_map(char::from_u32).collect();
        all.push_str("\u{2028}\u{fffd}😀");
        for text in [all.as_str(), "", "plain", "\"", "a\\b\"c\u{0}"] {
            let mut out = Vec::new();
            escaped(&mut out, text);
            let quoted = format!("\"{}\"", String::from_utf8(out).unwrap());
            assert_eq!(quoted, serde_json::to_string(text).unwrap());
        }
    }

    #[test]
    fn times_are_milliseconds_with_three_digits() {
        for (micros, expected) in
            [(0, "0.000"), (7, "0.007"), (1_234, "1.234"), (51_000, "51.000"), (3_723_004_005, "3723004.005")]
        {
            let mut out = Vec::new();
            millis(&mut out, Duration::from_micros(micros));
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    fn from() -> Downstream {
        let address = "192.0.2.1:4711".parse().unwrap();
        let identity = Identity::Anyone;
        Downstream {
            client: address,
            scheme: Scheme::Https,
            sni: None,
            door: Door::Public,
            identity,
            logged: OnceCell::new(),
        }
    }

    fn parsed(record: &Record, head: Option<&Summary>) -> serde_json::Value {
        let plan = crate::metrics::tests::plan(&["/v1/users/{user}/"]);
        let mut out = Vec::new();
        line(&mut out, &plan, record, &from(), head);
        assert_eq!(out.iter().filter(|octet| **octet == b'\n').count(), 1);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn a_line_holds_the_facts_and_is_json() {
        let mut record = Record::start();
        record.began -= Duration::from_millis(100);
        record.attempt_began = Some(record.began + Duration::from_micros(1_234));
        record.first_byte = Some(record.began + Duration::from_micros(51_234));
        record.route = Some(crate::base::id::RouteId(0));
        (record.decision, record.reason, record.epoch) = ("remote", "home", Some(3));
        (record.status, record.attempts, record.sent) = (502, 2, 17);
        record.cluster = Some("de".into());
        record.coded = Coded::By { coding: crate::message::accept::Coding::Br, taken: std::sync::Arc::new(99.into()) };
        record.failed(&Error::new(Kind::HttpResponseIncomplete, "cut \"off\""));
        let mut head = RequestHead::new(Method::Get, "/v1/users/448/x?q=\"1\"");
        (head.authority, head.version) = ("shop.example".into(), Version::Http2);
        let behind = Summary::new(&head, Some("2001:db8::7".parse().unwrap()));
        let head = Summary::new(&head, None);
        assert_eq!(parsed(&record, Some(&behind))["client"], "2001:db8::7");
        let value = parsed(&record, Some(&head));
        for (pointer, expected) in [
            ("/client", serde_json::json!("192.0.2.1:4711")),
            ("/method", "GET".into()),
            ("/target", "/v1/users/448/x?q=\"1\"".into()),
            ("/status", 502.into()),
            ("/encoding", "br".into()),
            ("/unencoded", 99.into()),
            ("/route", "/v1/users/{user}/".into()),
            ("/decision", "remote".into()),
            ("/epoch", 3.into()),
            ("/cluster", "de".into()),
            ("/attempts", 2.into()),
            ("/wait", 1.234.into()),
            ("/first_byte", 50.0.into()),
            ("/ended_by", "upstream".into()),
            ("/ended_in", "response".into()),
            ("/failure/kind", "http_response_incomplete".into()),
            ("/failure/detail", "cut \"off\"".into()),
        ] {
            assert_eq!(value.pointer(pointer), Some(&expected), "{pointer} in {value}");
        }
        assert!(value["total"].as_f64().unwrap() >= 100.0);
    }

    #[test]
    fn the_lines_of_a_connection_tell_the_same_of_it() {
        let plan = crate::metrics::tests::plan(&["/"]);
        let identity = Identity::Edge("us".to_owned());
        let from = Downstream { client: "[2001:db8::7]:443".parse().unwrap(), door: Door::Peer, identity, ..from() };
        let head = Summary::new(&RequestHead::new(Method::Get, "/"), None);
        for head in [None, Some(&head)] {
            let mut out = Vec::new();
            line(&mut out, &plan, &Record::start(), &from, head);
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            let told = [&value["client"], &value["door"], &value["peer"]];
            assert_eq!(told, ["[2001:db8::7]:443", "peer", "us"]);
        }
    }

    #[test]
    fn what_could_not_be_read_leaves_a_line_too() {
        let mut record = Record::start();
        record.status = 400;
        record.failed(&Error::bad_request("bare LF"));
        let value = parsed(&record, None);
        assert_eq!((&value["ended_by"], &value["ended_in"]), (&"client".into(), &"request".into()));
        assert_eq!(value.get("method"), None);
    }
}
