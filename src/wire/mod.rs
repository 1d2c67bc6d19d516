//! The HTTP/1.1 engine, sans-IO: octets in, heads and pieces out; and back. Strict by construction: a message has one
//! framing or it is refused (RFC 9112). Both sides of the proxy stand on it.

mod chunked;
pub mod framing;
mod glance;
pub mod head;
mod lately;
mod section;
pub mod trailers;
pub mod write;

#[cfg(test)]
mod probe;
#[cfg(test)]
mod tests;

pub use framing::{Decoded, Decoder, Framing};
pub use head::{HeadLimits, HeadReader, Parsed};

/// Why octets are no message; the connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind in the catalogue: `HttpRequestError`, `HeadTooLarge`, `UriTooLong`, `VersionNotSupported`,
    /// `MethodNotImplemented` for requests; `HttpProtocolError`, `HttpResponseIncomplete`,
    /// `HttpResponseHeaderSectionSize`, `HttpResponseTransferCoding` for responses.
    pub kind: crate::error::Kind,
    /// What is wrong, for the client and the log.
    pub detail: &'static str,
}

impl From<Refusal> for crate::error::Error {
    fn from(refusal: Refusal) -> Self {
        crate::error::Error::new(refusal.kind, refusal.detail)
    }
}
