//! Heads: parsing, strict.

use super::Refusal;
use crate::message::{RequestHead, ResponseHead, Scheme};

/// Bounds of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Octets of start line and fields together.
    pub head: usize,
    /// Lines of the field section.
    pub fields: usize,
    /// Octets of the request target.
    pub uri: usize,
}

/// The outcome of parsing a buffer that may be short.
#[derive(Debug)]
pub enum Parsed<T> {
    /// The head is not complete yet.
    Partial,
    /// The head, and how many octets of the buffer it took.
    Whole(T, usize),
}

/// Reads a request head from the start of `buffer`.
///
/// The head is as received: `authority` empty, `target` raw, Host among the fields.
/// Errors: at the first octet that no completion can mend, so that a hostile client is refused early.
pub fn request(_buffer: &[u8], _scheme: Scheme, _limits: &HeadLimits) -> Result<Parsed<RequestHead>, Refusal> {
    unimplemented!()
}

/// Reads a response head from the start of `buffer`.
pub fn response(_buffer: &[u8], _limits: &HeadLimits) -> Result<Parsed<ResponseHead>, Refusal> {
    unimplemented!()
}
