//! Writing: what is forwarded is serialised anew from what was parsed, never copied raw.

use super::Framing;
use crate::message::{Fields, RequestHead, ResponseHead};
use bytes::BytesMut;

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
pub fn request_head(_out: &mut BytesMut, _head: &RequestHead, _framing: Framing, _connection: Connection<'_>) {
    unimplemented!()
}

/// Appends a response head in the version of the client. `framing` is that of the body that follows; for HEAD and 304,
/// `length` is what Content-Length says although no body follows (`None` = no such field).
pub fn response_head(
    _out: &mut BytesMut,
    _head: &ResponseHead,
    _framing: Framing,
    _length: Option<u64>,
    _connection: Connection<'_>,
    _to_http10: bool,
) {
    unimplemented!()
}

/// Appends one chunk header for `length` octets; the caller writes the content and then `b"\r\n"`.
pub fn chunk_start(_out: &mut BytesMut, _length: usize) {
    unimplemented!()
}

/// Appends the last chunk and the trailer section; fields that must not stand in trailers are left out (RFC 9110 6.5.1).
pub fn last_chunk(_out: &mut BytesMut, _trailers: Option<&Fields>) {
    unimplemented!()
}
