//! The heads of requests and responses, independent of the version that carried them.

use super::fields::Fields;
use super::method::Method;
use super::name::Name;
use std::cell::RefCell;

/// The version a message came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Version {
    Http10,
    Http11,
    Http2,
}

impl Version {
    /// As Via and logs write it: `1.0`, `1.1`, `2`.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "1.0",
            Version::Http11 => "1.1",
            Version::Http2 => "2",
        }
    }
}

/// How the client reached the first door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// As a URL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// The head of a request.
///
/// Two stages of one type: as the engine read it, then as `message::request::admit` has made it, which is the only form
/// that the proxy sees. After `admit`: `authority` is set and lower-case, the Host field is gone from `fields` (writers
/// make it anew from `authority`), `target` is origin-form with a normalised path, or `*` for OPTIONS.
#[derive(Debug, Clone)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The version of the connection it came over.
    pub version: Version,
    /// `http` or `https`: the door's until `admit`, then the client's.
    pub scheme: Scheme,
    /// `host` or `host:port`. From an engine: the `:authority` of HTTP/2, or empty.
    pub authority: String,
    /// Path and query. From an engine: the request target as received (any of the four forms of RFC 9112 section 3.2).
    pub target: String,
    /// `:protocol` of an extended CONNECT (RFC 8441), such as `websocket`.
    pub protocol: Option<String>,
    /// The field section.
    pub fields: Fields,
}

impl RequestHead {
    /// A head with no fields, for requests that we make ourselves.
    pub fn new(method: Method, target: impl Into<String>) -> Self {
        RequestHead {
            method,
            version: Version::Http11,
            scheme: Scheme::Http,
            authority: String::new(),
            target: target.into(),
            protocol: None,
            fields: Fields::new(),
        }
    }

    /// A head with no fields and no texts, for an engine to fill: in memory that one left behind which is gone, if there is
    /// some.
    pub(crate) fn spare() -> Box<RequestHead> {
        let kept = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
        kept.unwrap_or_else(|| Box::new(RequestHead::new(Method::Get, String::new())))
    }

    /// Keeps the memory of a head that nobody needs any more, unless there is enough.
    pub(crate) fn put_aside(mut self: Box<Self>) {
        if self.target.capacity().max(self.authority.capacity()) > SPARE_TEXT_MAX {
            return;
        }
        // All of them, so that none is forgotten.
        let RequestHead { method, version, scheme, authority, target, protocol, fields } = &mut *self;
        (*method, *version, *scheme) = (Method::Get, Version::Http11, Scheme::Http);
        (*protocol, *fields) = (None, Fields::new());
        authority.clear();
        target.clear();
        // At the end of a thread there is nobody left to keep it for.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                spare.push(self);
            }
        });
    }

    /// The path part of `target`.
    pub fn path(&self) -> &str {
        self.query_at().map_or(&self.target, |at| &self.target[..at])
    }

    /// The query part of `target`, without its `?`.
    pub fn query(&self) -> Option<&str> {
        self.query_at().map(|at| &self.target[at + 1..])
    }

    /// Where `?` stands in the target.
    fn query_at(&self) -> Option<usize> {
        memchr::memchr(b'?', self.target.as_bytes())
    }

    /// The host part of `authority`.
    pub fn host(&self) -> &str {
        // A port is short: from the end it is found at once, or that there is none.
        let digits = self.authority.bytes().rev().take_while(u8::is_ascii_digit).count();
        let before = &self.authority[..self.authority.len() - digits];
        before.strip_suffix(':').unwrap_or(&self.authority)
    }

    /// The token that this request asks to upgrade to: HTTP/1.1 `Upgrade` with `Connection: upgrade`, or `:protocol`.
    pub fn upgrade(&self) -> Option<&str> {
        if let Some(protocol) = &self.protocol {
            return Some(protocol);
        }
        let asked = self.version == Version::Http11
            && self.fields.has(Name::Upgrade)
            && self.fields.lists(Name::Connection, "upgrade");
        if asked { self.fields.text(Name::Upgrade) } else { None }
    }
}

/// Heads of requests that a worker keeps the memory of, 80 KiB together at most: enough for those of a busy moment.
const SPARE_MAX: usize = 128;

/// A longer target or authority goes back to the system.
const SPARE_TEXT_MAX: usize = 256;

thread_local! {
    // The pointers are what is handed on.
    #[allow(clippy::vec_box)]
    static SPARE: RefCell<Vec<Box<RequestHead>>> = const { RefCell::new(Vec::new()) };
}

/// The head of a final or interim response.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// 100 to 999.
    pub status: u16,
    /// The version of the connection it came over.
    pub version: Version,
    /// The field section.
    pub fields: Fields,
}

impl ResponseHead {
    /// A head with no fields.
    pub fn new(status: u16) -> Self {
        ResponseHead { status, version: Version::Http11, fields: Fields::new() }
    }

    /// Whether it is a 1xx that is not 101.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// Whether a response with this status to `method` has no content, whatever its fields say (RFC 9112 section 6.3).
    pub fn is_bodiless(&self, method: &Method) -> bool {
        *method == Method::Head || self.status < 200 || self.status == 204 || self.status == 304
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_and_nothing_that_stood_in_it() {
        let mut head = RequestHead::spare();
        (head.method, head.version, head.scheme) = (Method::Put, Version::Http10, Scheme::Https);
        head.authority.push_str("shop.example");
        head.target.push_str("/cart");
        head.protocol = Some("websocket".to_owned());
        head.fields.add(Name::Accept, "*/*");
        let memory = head.target.as_ptr();
        head.put_aside();
        let again = RequestHead::spare();
        assert_eq!(format!("{again:?}"), format!("{:?}", RequestHead::new(Method::Get, "")));
        assert_eq!(again.target.as_ptr(), memory);
        let mut long = RequestHead::spare();
        long.target.push_str(&"a".repeat(SPARE_TEXT_MAX + 1));
        long.put_aside();
        assert_eq!(SPARE.with_borrow(Vec::len), 0, "not too much");
    }
}
