//! The access line: one JSON object per request, made by hand because a general serialiser costs fifty times as much
//! (DEPENDENCIES, surprise 4).
//!
//! It says what was asked, what was decided and why, where the time went, and who ended it in which phase. Of the
//! request's fields only the target is logged, so no credential of a field can reach a log.

use super::Summary;
use crate::base::decimal::{Decimal, dotted};
use crate::base::{clock, swar};
use crate::body::{Door, Downstream, Identity};
use crate::config::plan::Plan;
use crate::error::Side;
use crate::record::{Coded, Record};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// What stands before a value.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}

/// The same, before the first of an object.
macro_rules! first_key {
    ($name:literal) => {
        concat!("{\"", $name, "\":")
    };
}

/// Appends the line of a request that has ended, with its newline.
///
/// Times are milliseconds with three digits: `wait` until the last attempt began, `connect` of that attempt,
/// `first_byte` from that attempt's start to the response's head, `total` from the first octet to now.
pub fn line(out: &mut Vec<u8>, plan: &Plan, record: &Record, from: &Downstream, head: Option<&Summary>) {
    let now = clock::turn();
    let mut object = Object { out };
    object.raw(first_key!("time"), |out| {
        out.push(b'"');
        clock::put_rfc3339(out, record.at());
        out.push(b'"');
    });
    asked(&mut object, from, head);
    object.number(key!("status"), u64::from(record.status));
    object.number(key!("received"), record.received);
    object.number(key!("sent"), record.sent);
    if let Coded::By { coding, taken } = &record.coded {
        object.plain(key!("encoding"), coding.as_str());
        object.number(key!("unencoded"), taken.load(Relaxed));
    }
    decided(&mut object, plan, record);
    tried(&mut object, record);
    times(&mut object, record, now);
    ended(&mut object, record);
    object.out.extend_from_slice(b"}\n");
}

fn asked(object: &mut Object<'_>, from: &Downstream, head: Option<&Summary>) {
    object.raw(key!("client"), |out| {
        out.push(b'"');
        match head.and_then(|head| head.client) {
            Some(client) => address(out, client),
            None => caller(out, from.client),
        }
        out.push(b'"');
    });
    object.plain(key!("door"), door(from.door));
    match &from.identity {
        Identity::Edge(name) => object.text(key!("peer"), name),
        Identity::Central => object.text(key!("peer"), "central"),
        Identity::Operator => object.text(key!("peer"), "operator"),
        Identity::App => object.text(key!("peer"), "app"),
        Identity::Anyone | Identity::Loopback => {}
    }
    if let Some(head) = head {
        object.plain(key!("method"), head.method.as_str());
        object.plain(key!("scheme"), from.scheme.as_str());
        object.text(key!("host"), &head.authority);
        object.text(key!("target"), &head.target);
        object.plain(key!("version"), head.version.as_str());
    }
}

/// Appends an address; that of version 4 without the formatter of the standard library, which costs ten times as much.
fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.extend_from_slice(dotted(address.octets(), &mut [0; 16])),
        // Writing to memory cannot fail.
        IpAddr::V6(address) => write!(out, "{address}").unwrap_or_default(),
    }
}

fn caller(out: &mut Vec<u8>, caller: SocketAddr) {
    match caller {
        SocketAddr::V4(_) => {
            address(out, caller.ip());
            out.push(b':');
            digits(out, u64::from(caller.port()));
        }
        SocketAddr::V6(_) => write!(out, "{caller}").unwrap_or_default(),
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
        object.text(key!("route"), &settings.name);
    }
    object.known(key!("bearer"), record.bearer.as_deref().unwrap_or_default());
    if !record.decision.is_empty() {
        object.plain(key!("decision"), record.decision);
    }
    if !record.reason.is_empty() {
        object.plain(key!("reason"), record.reason);
    }
    object.known(key!("home"), record.home.as_deref().unwrap_or_default());
    object.known(key!("key"), record.key.as_deref().unwrap_or_default());
    if let Some(epoch) = record.epoch {
        object.number(key!("epoch"), u64::from(epoch));
    }
}

fn tried(object: &mut Object<'_>, record: &Record) {
    object.known(key!("cluster"), record.cluster.as_deref().unwrap_or_default());
    object.known(key!("endpoint"), record.endpoint.as_deref().unwrap_or_default());
    object.number(key!("attempts"), u64::from(record.attempts));
    if record.corrections > 0 {
        object.number(key!("corrections"), u64::from(record.corrections));
    }
}

fn times(object: &mut Object<'_>, record: &Record, now: Instant) {
    if let Some(began) = record.attempt_began {
        object.time(key!("wait"), began.saturating_duration_since(record.began));
        object.time(key!("connect"), record.connect);
        if let Some(first) = record.first_byte {
            object.time(key!("first_byte"), first.saturating_duration_since(began));
        }
    }
    object.time(key!("total"), now.saturating_duration_since(record.began));
}

fn ended(object: &mut Object<'_>, record: &Record) {
    let Some((kind, side, detail)) = &record.failure else { return };
    let by = match side {
        Side::Downstream => "client",
        Side::Upstream => "upstream",
        Side::Own => "us",
    };
    object.text(key!("ended_by"), by);
    object.text(key!("ended_in"), phase(record));
    object.raw(key!("failure"), |out| {
        let mut failure = Object { out };
        failure.text(first_key!("kind"), kind.name());
        failure.text(key!("error"), kind.token());
        failure.text(key!("detail"), detail);
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
    /// `key` is one of `key!`, or `first_key!`.
    #[inline]
    fn raw(&mut self, key: &'static str, value: impl FnOnce(&mut Vec<u8>)) {
        self.out.extend_from_slice(key.as_bytes());
        value(self.out);
    }

    /// A text that holds nothing that JSON would have to escape: one of ours, or a token.
    #[inline]
    fn plain(&mut self, key: &'static str, value: &str) {
        self.raw(key, |out| {
            out.push(b'"');
            out.extend_from_slice(value.as_bytes());
            out.push(b'"');
        });
    }

    #[inline]
    fn text(&mut self, key: &'static str, value: &str) {
        self.raw(key, |out| quote(out, value));
    }

    /// A text that is left out where it is not known.
    #[inline]
    fn known(&mut self, key: &'static str, value: &str) {
        if !value.is_empty() {
            self.text(key, value);
        }
    }

    #[inline]
    fn number(&mut self, key: &'static str, value: u64) {
        self.raw(key, |out| digits(out, value));
    }

    #[inline]
    fn time(&mut self, key: &'static str, value: Duration) {
        self.raw(key, |out| millis(out, value));
    }
}

/// Appends a duration in milliseconds with three digits behind the point.
fn millis(out: &mut Vec<u8>, value: Duration) {
    let micros = value.subsec_micros();
    digits(out, value.as_secs().saturating_mul(1000).saturating_add(u64::from(micros / 1000)));
    let [a, b, c] = [micros / 100, micros / 10, micros].map(|digit| b'0' + (digit % 10) as u8);
    out.extend_from_slice(&[b'.', a, b, c]);
}

/// Appends a number in decimal.
fn digits(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(Decimal::of(value).as_bytes());
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

/// Appends a JSON string.
fn quote(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let marks = |word| swar::below(word, b' ') | swar::equal(word, b'"') | swar::equal(word, b'\\');
    match swar::is_free(text.as_bytes(), marks) {
        Some(true) => out.extend_from_slice(text.as_bytes()),
        // A few octets, or one to be escaped among them.
        _ => escape(out, text.as_bytes()),
    }
    out.push(b'"');
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
    use crate::message::{Method, Scheme, Version};

    #[test]
    fn strings_are_escaped_as_serde_json_does() {
        let mut all: String = (0..0x250).filter_map(char::from_u32).collect();
        all.push_str("\u{2028}\u{fffd}😀");
        for text in [all.as_str(), "", "plain", "\"", "a\\b\"c\u{0}"] {
            let mut out = Vec::new();
            quote(&mut out, text);
            assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(text).unwrap());
        }
    }

    #[test]
    fn numbers_are_decimal() {
        for value in [0, 7, 10, 999, 1000, u64::MAX] {
            let mut out = Vec::new();
            digits(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }
    }

    fn from() -> Downstream {
        let address = "192.0.2.1:4711".parse().unwrap();
        let identity = Identity::Anyone;
        Downstream { client: address, scheme: Scheme::Https, sni: None, door: Door::Public, identity }
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
        let head = Summary {
            method: Method::Get,
            authority: "shop.example".into(),
            target: "/v1/users/448/x?q=\"1\"".into(),
            version: Version::Http2,
            client: None,
        };
        let behind = Summary { client: Some("2001:db8::7".parse().unwrap()), ..head.clone() };
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
    fn what_could_not_be_read_leaves_a_line_too() {
        let mut record = Record::start();
        record.status = 400;
        record.failed(&Error::bad_request("bare LF"));
        let value = parsed(&record, None);
        assert_eq!((&value["ended_by"], &value["ended_in"]), (&"client".into(), &"request".into()));
        assert_eq!(value.get("method"), None);
    }
}
