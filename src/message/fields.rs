//! The field section of a message: one buffer and an index of lines.
//!
//! Order, repetition and the sender's spelling are kept; well-known names carry a small id, so a look-up compares one
//! octet. This is not a hash map on purpose: a proxy edits a few lines and passes the rest (DESIGN 8). The engines
//! beneath may change how the buffer is filled without touching what stands on it.

use std::fmt;

macro_rules! names {
    ($($variant:ident = $text:literal),+ $(,)?) => {
        /// A well-known field name; `Other` is any that is not listed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs)]
        #[repr(u8)]
        pub enum Name { $($variant,)+ Other }

        impl Name {
            /// The name in lower case; empty for `Other`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Name::$variant => $text,)+ Name::Other => "" }
            }

            /// Finds the id of a name in any case.
            pub fn of(text: &[u8]) -> Name {
                $(if text.len() == $text.len() && text.eq_ignore_ascii_case($text.as_bytes()) { return Name::$variant; })+
                Name::Other
            }
        }
    };
}

names! {
    Host = "host",
    Connection = "connection",
    ContentLength = "content-length",
    TransferEncoding = "transfer-encoding",
    ContentType = "content-type",
    ContentEncoding = "content-encoding",
    Date = "date",
    Server = "server",
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    UserAgent = "user-agent",
    Authorization = "authorization",
    Cookie = "cookie",
    SetCookie = "set-cookie",
    CacheControl = "cache-control",
    Etag = "etag",
    Vary = "vary",
    Location = "location",
    Expect = "expect",
    Te = "te",
    Trailer = "trailer",
    Upgrade = "upgrade",
    KeepAlive = "keep-alive",
    ProxyConnection = "proxy-connection",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthorization = "proxy-authorization",
    Via = "via",
    Forwarded = "forwarded",
    XForwardedFor = "x-forwarded-for",
    XForwardedProto = "x-forwarded-proto",
    XForwardedHost = "x-forwarded-host",
    CdnLoop = "cdn-loop",
    MaxForwards = "max-forwards",
    Range = "range",
    RetryAfter = "retry-after",
    Allow = "allow",
    Age = "age",
    IdempotencyKey = "idempotency-key",
    ProxyStatus = "proxy-status",
    Traceparent = "traceparent",
    Http2Settings = "http2-settings",
    Coordinator = "coordinator",
    CoordinatorFwd = "coordinator-fwd",
    CoordinatorEdge = "coordinator-edge",
    CoordinatorHome = "coordinator-home",
    CoordinatorMoved = "coordinator-moved",
    CoordinatorUnknown = "coordinator-unknown",
    CoordinatorLeader = "coordinator-leader",
}

/// One line of a field section, borrowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The id of the name.
    pub id: Name,
    /// The name as the sender spelt it.
    pub name: &'a [u8],
    /// The value without surrounding whitespace.
    pub value: &'a [u8],
}

impl fmt::Debug for Field<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.name.escape_ascii(), self.value.escape_ascii())
    }
}

#[derive(Debug, Clone, Copy)]
struct Line {
    id: Name,
    name_at: u32,
    name_len: u32,
    value_at: u32,
    value_len: u32,
}

/// An ordered list of field lines.
#[derive(Clone, Default)]
pub struct Fields {
    octets: Vec<u8>,
    lines: Vec<Line>,
}

impl Fields {
    /// No lines.
    pub fn new() -> Self {
        Fields::default()
    }

    /// Appends a line. CR, LF and NUL in either part become spaces, so that nothing that we build can split a message.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_as(Name::of(name), name, value);
    }

    /// Appends a line under a well-known name in its lower-case spelling.
    pub fn add(&mut self, id: Name, value: impl AsRef<[u8]>) {
        self.push_as(id, id.as_str().as_bytes(), value.as_ref());
    }

    /// Replaces all lines of a well-known name by one.
    pub fn set(&mut self, id: Name, value: impl AsRef<[u8]>) {
        self.remove(id);
        self.add(id, value);
    }

    /// The first value of a well-known name.
    pub fn get(&self, id: Name) -> Option<&[u8]> {
        self.all(id).next()
    }

    /// The first value of a well-known name, if it is UTF-8.
    pub fn text(&self, id: Name) -> Option<&str> {
        self.get(id).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All values of a well-known name, in order.
    pub fn all(&self, id: Name) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().filter(move |line| line.id == id).map(|line| self.value(line))
    }

    /// All values of any name, in any case.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes())).map(|field| field.value)
    }

    /// Whether a well-known name occurs.
    pub fn has(&self, id: Name) -> bool {
        self.lines.iter().any(|line| line.id == id)
    }

    /// The elements of a comma-separated list over all lines of a name, trimmed, empty ones left out (RFC 9110 5.6.1).
    ///
    /// Not for fields whose elements hold quoted commas, nor for Set-Cookie.
    pub fn elements(&self, id: Name) -> impl Iterator<Item = &[u8]> {
        self.all(id)
            .flat_map(|value| value.split(|&c| c == b','))
            .map(|part| part.trim_ascii())
            .filter(|p| !p.is_empty())
    }

    /// Removes all lines of a well-known name; whether there were any.
    pub fn remove(&mut self, id: Name) -> bool {
        let before = self.lines.len();
        self.lines.retain(|line| line.id != id);
        self.lines.len() != before
    }

    /// Keeps the lines for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        let octets = &self.octets;
        self.lines.retain(|line| keep(borrow(octets, line)));
    }

    /// All lines in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.lines.iter().map(|line| borrow(&self.octets, line))
    }

    /// How many lines.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are no lines.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    fn value(&self, line: &Line) -> &[u8] {
        borrow(&self.octets, line).value
    }

    fn push_as(&mut self, id: Name, name: &[u8], value: &[u8]) {
        let name_at = self.append(name);
        let value_at = self.append(value);
        self.lines.push(Line { id, name_at, name_len: name.len() as u32, value_at, value_len: value.len() as u32 });
    }

    fn append(&mut self, part: &[u8]) -> u32 {
        let at = self.octets.len();
        self.octets.extend_from_slice(part);
        for octet in &mut self.octets[at..] {
            if matches!(*octet, b'\r' | b'\n' | 0) {
                *octet = b' ';
            }
        }
        at as u32
    }
}

fn borrow<'a>(octets: &'a [u8], line: &Line) -> Field<'a> {
    let part = |at: u32, len: u32| &octets[at as usize..at as usize + len as usize];
    Field { id: line.id, name: part(line.name_at, line.name_len), value: part(line.value_at, line.value_len) }
}

impl fmt::Debug for Fields {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Fields {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let mut fields = Fields::new();
        for (name, value) in pairs {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_spelling_and_repetition() {
        let mut fields: Fields =
            [("Set-Cookie", "a=1"), ("X-Own", "v"), ("set-cookie", "b=2"), ("Host", "h")].into_iter().collect();
        assert_eq!(fields.all(Name::SetCookie).collect::<Vec<_>>(), [b"a=1", b"b=2"]);
        assert_eq!(fields.named("x-OWN").next(), Some(&b"v"[..]));
        assert!(fields.remove(Name::Host));
        assert!(!fields.remove(Name::Host));
        fields.set(Name::SetCookie, "c=3");
        assert_eq!(format!("{fields:?}"), "[X-Own: v, set-cookie: c=3]");
    }

    #[test]
    fn nothing_that_is_pushed_splits_a_message() {
        let mut fields = Fields::new();
        fields.push(b"x", b"a\r\nEvil: 1\0");
        assert_eq!(fields.named("x").next(), Some(&b"a  Evil: 1 "[..]));
    }

    #[test]
    fn lists_span_lines() {
        let fields: Fields = [("TE", "trailers, gzip"), ("te", " , x")].into_iter().collect();
        assert_eq!(fields.elements(Name::Te).collect::<Vec<_>>(), [&b"trailers"[..], b"gzip", b"x"]);
    }
}
