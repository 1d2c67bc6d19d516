//! Writing: what is forwarded is serialised anew from what was parsed, never copied raw.
//!
//! Owns the framing and connection fields of what leaves: those among the given fields are left out, and the ones that
//! `Framing` and `Connection` ask for are written. Which end-to-end and nominated fields go is `message::hop`'s.
//! Invariant: whatever strings a head is made of, one head is written and no more: no octet of a target, an authority
//! or a name can end a line.

use super::glance;
use super::{Framing, trailers};
use crate::base::decimal::Decimal;
use crate::message::{Fields, Method, Name, Names, RequestHead, ResponseHead, status};
use std::io::Write as _;

/// What the writer says of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection<'a> {
    /// Nothing: it stays open by default (for an HTTP/1.0 client: `keep-alive`).
    Keep,
    /// `close`.
    Close,
    /// `upgrade`, with the protocol in `Upgrade`.
    Upgrade(&'a str),
}

/// Appends a request head: request line, `host` from `head.authority`, the fields without any framing or connection
/// field, then those that `framing` and `connection` ask for.
///
/// A request without content whose method expects some says `content-length: 0` (RFC 9110 section 8.6); a `TE` that the
/// fields still hold is named in `connection` (section 10.1.4).
/// Panics: on `UntilClose`, with which a request cannot be framed.
pub fn request_head(out: &mut Vec<u8>, head: &RequestHead, framing: Framing, connection: Connection<'_>) {
    assert!(framing != Framing::UntilClose, "a request ends by its length or its last chunk");
    put_method(out, &head.method);
    put_visible(out, &head.target);
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    put_visible(out, &head.authority);
    out.extend_from_slice(b"\r\n");
    head.fields.pieces_without(WRITERS_AND_HOST, |piece| out.extend_from_slice(piece));
    let expects = matches!(head.method, Method::Post | Method::Put | Method::Patch);
    match framing {
        Framing::None if expects => put_framing(out, Framing::Length(0)),
        framing => put_framing(out, framing),
    }
    let te = head.fields.has(Name::Te);
    match connection {
        Connection::Keep if te => out.extend_from_slice(b"connection: te\r\n"),
        Connection::Keep => {}
        Connection::Close if te => out.extend_from_slice(b"connection: close, te\r\n"),
        Connection::Close => out.extend_from_slice(b"connection: close\r\n"),
        Connection::Upgrade(protocol) => {
            out.extend_from_slice(if te { b"connection: upgrade, te\r\n" } else { b"connection: upgrade\r\n" });
            put_upgrade(out, protocol);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a response head in the version of the client. `framing` is that of the body that follows; for HEAD and 304,
/// `length` is what Content-Length says although no body follows (`None` = no such field).
///
/// `Length(0)` writes `content-length: 0`; a 1xx and a 204 carry no framing field whatever is asked; a body that ends
/// with the connection closes it whatever is asked. `None` without `length` is for answers that have no content by
/// their status or method: after any other the client would wait.
/// Panics: on `Chunked` to an HTTP/1.0 client, which could not read it.
pub fn response_head(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    framing: Framing,
    length: Option<u64>,
    connection: Connection<'_>,
    to_http10: bool,
) {
    assert!(!(to_http10 && framing == Framing::Chunked), "an HTTP/1.0 client gets no chunks");
    put_status_line(out, head.status, to_http10);
    head.fields.pieces_without(WRITERS, |piece| out.extend_from_slice(piece));
    if head.status >= 200 && head.status != 204 {
        match (framing, length) {
            (Framing::None, Some(length)) => put_framing(out, Framing::Length(length)),
            _ => put_framing(out, framing),
        }
    }
    match connection {
        _ if framing == Framing::UntilClose => out.extend_from_slice(b"connection: close\r\n"),
        Connection::Keep if to_http10 => out.extend_from_slice(b"connection: keep-alive\r\n"),
        Connection::Keep => {}
        Connection::Close => out.extend_from_slice(b"connection: close\r\n"),
        Connection::Upgrade(protocol) => {
            out.extend_from_slice(b"connection: upgrade\r\n");
            put_upgrade(out, protocol);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends one chunk header for `length` octets; the caller writes the content and then `b"\r\n"`.
///
/// Panics: on 0, which would end the body where its content does not.
pub fn chunk_start(out: &mut Vec<u8>, length: usize) {
    assert!(length > 0, "a chunk holds content; only the last one is empty");
    put_number(out, format_args!("{length:x}\r\n"));
}

/// Appends the last chunk and the trailer section; fields that must not stand in trailers are left out (RFC 9110 6.5.1).
pub fn last_chunk(out: &mut Vec<u8>, trailers: Option<&Fields>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(fields) = trailers {
        fields.pieces(|field| trailers::may_stand(&field), |piece| out.extend_from_slice(piece));
    }
    out.extend_from_slice(b"\r\n");
}

/// Fields that only the writer may state.
const WRITERS: Names = Names::of(&[
    Name::Connection,
    Name::KeepAlive,
    Name::ProxyConnection,
    Name::TransferEncoding,
    Name::ContentLength,
    Name::Upgrade,
    Name::Http2Settings,
]);

/// The same in a request.
const WRITERS_AND_HOST: Names = WRITERS.and(Name::Host);

/// Appends a method and the space behind it.
fn put_method(out: &mut Vec<u8>, method: &Method) {
    if let Method::Get = method {
        return out.extend_from_slice(b"GET ");
    }
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
}

fn put_status_line(out: &mut Vec<u8>, status: u16, to_http10: bool) {
    if let (Some(line), false) = (status::line(status), to_http10) {
        return out.extend_from_slice(line);
    }
    out.extend_from_slice(if to_http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(Decimal::of(u64::from(status)).as_bytes());
    out.push(b' ');
    out.extend_from_slice(status::phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn put_framing(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => put_length(out, length),
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
}

/// Appends Content-Length, made beforehand so that it is appended at once.
fn put_length(out: &mut Vec<u8>, length: u64) {
    const START: &[u8] = b"content-length: ";
    let digits = Decimal::of(length);
    let digits = digits.as_bytes();
    let (mut line, end) = ([0; START.len() + Decimal::LENGTH_MAX + 2], START.len() + digits.len());
    line[..START.len()].copy_from_slice(START);
    line[START.len()..end].copy_from_slice(digits);
    line[end..end + 2].copy_from_slice(b"\r\n");
    out.extend_from_slice(&line[..end + 2]);
}

fn put_upgrade(out: &mut Vec<u8>, protocol: &str) {
    out.extend_from_slice(b"upgrade: ");
    put_visible(out, protocol);
    out.extend_from_slice(b"\r\n");
}

/// Appends text with `#` and every octet that is not visible ASCII percent-encoded; what our engine has read has none.
fn put_visible(out: &mut Vec<u8>, text: &str) {
    match glance::target_run(text.as_bytes()) {
        plain if plain == text.len() => out.extend_from_slice(text.as_bytes()),
        _ => put_escaped(out, text),
    }
}

#[cold]
fn put_escaped(out: &mut Vec<u8>, text: &str) {
    for octet in text.bytes() {
        match octet {
            b'#' | ..=b' ' | 0x7f.. => put_number(out, format_args!("%{octet:02X}")),
            _ => out.push(octet),
        }
    }
}

/// It grows, so writing to it cannot fail.
fn put_number(out: &mut Vec<u8>, number: std::fmt::Arguments<'_>) {
    out.write_fmt(number).unwrap_or_default();
}
