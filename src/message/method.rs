//! Request methods (RFC 9110 section 9, RFC 5789).

use std::fmt;

/// A request method. Case-sensitive; unknown ones are kept and forwarded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Trace,
    Patch,
    Connect,
    /// Any other token, at most [`Method::LEN_MAX`] octets.
    Other(Box<str>),
}

impl Method {
    /// The longest method that is accepted.
    pub const LEN_MAX: usize = 32;

    /// Reads a method; `None` if it is not a token (RFC 9110 section 5.6.2) or too long.
    pub fn parse(text: &[u8]) -> Option<Method> {
        Some(match text {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"PATCH" => Method::Patch,
            b"CONNECT" => Method::Connect,
            other if other.len() <= Method::LEN_MAX && is_token(other) => {
                Method::Other(std::str::from_utf8(other).ok()?.into())
            }
            _ => return None,
        })
    }

    /// The method as written on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
            Method::Trace => "TRACE",
            Method::Patch => "PATCH",
            Method::Connect => "CONNECT",
            Method::Other(text) => text,
        }
    }

    /// Whether the method is essentially read-only (RFC 9110 section 9.2.1).
    pub fn is_safe(&self) -> bool {
        matches!(self, Method::Get | Method::Head | Method::Options | Method::Trace)
    }

    /// Whether several identical requests intend the effect of one (RFC 9110 section 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        self.is_safe() || matches!(self, Method::Put | Method::Delete)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// Whether `text` is a token: one or more tchar (RFC 9110 section 5.6.2).
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&octet| is_tchar(octet))
}

/// Whether an octet may stand in a token.
pub fn is_tchar(octet: u8) -> bool {
    TCHAR[usize::from(octet)]
}

/// One look-up instead of a dozen comparisons: every octet of every field name is asked for.
const TCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let (mut octet, others) = (0, b"!#$%&'*+-.^_`|~");
    while octet < table.len() {
        table[octet] = (octet as u8).is_ascii_alphanumeric();
        octet += 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};
