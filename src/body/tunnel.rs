//! A stream of HTTP/2 as a plain stream of octets: what an extended CONNECT becomes (RFC 8441), on either side.

use bytes::Bytes;

/// Both directions of one HTTP/2 stream.
pub struct Tunnel {}

impl Tunnel {
    /// Joins the halves of a stream whose heads have been exchanged.
    pub fn new(_send: h2::SendStream<Bytes>, _receive: h2::RecvStream) -> Self {
        unimplemented!()
    }
}
