//! The field section of a message: one buffer and an index of lines.
//!
//! Order, repetition and the sender's spelling are kept; well-known names carry a small id, so a look-up compares one
//! octet. This is not a hash map on purpose: a proxy edits a few lines and passes the rest (DESIGN 8). The engines
//! beneath may change how the buffer is filled without touching what stands on it.

use super::method::is_token;
use crate::base::swar;
use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::mem;
use std::ops::Range;

macro_rules! names {
    ($($variant:ident = $text:literal),+ $(,)?) => {
        /// A well-known field name; `Other` is any that is not listed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs)]
        #[repr(u8)]
        pub enum Name { $($variant,)+ Other }

        impl Name {
            /// All but `Other`; `id as usize` is the place of each.
            pub const KNOWN: &[Name] = &[$(Name::$variant,)+];

            /// The name in lower case; empty for `Other`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Name::$variant => $text,)+ Name::Other => "" }
            }

            /// How a line with the name in lower case begins.
            const fn start(self) -> &'static str {
                match self { $(Name::$variant => concat!($text, ": "),)+ Name::Other => ": " }
            }

            /// Finds the id of a name in any case. Cost: a look at the few names that are as long.
            pub fn of(text: &[u8]) -> Name {
                let as_long = BY_LENGTH.get(text.len()).map_or(&[][..], |(count, ids)| &ids[..*count]);
                let first = text.first().map_or(0, u8::to_ascii_lowercase);
                let is = |id: Name| {
                    // As nearly all write it, in HTTP/1.1 and in HTTP/2; then in any case.
                    let (lower, title) = (id.as_str().as_bytes(), TITLES[id as usize].get(..text.len()));
                    title == Some(text) || lower == text || text.eq_ignore_ascii_case(lower)
                };
                let found = as_long.iter().find(|(initial, id)| *initial == first && is(*id));
                found.map_or(Name::Other, |(_, id)| *id)
            }
        }

        /// The names with a capital at the start of each word.
        const TITLES: &[[u8; LENGTH_MAX]] = &[$(title($text.as_bytes()),)+];

        /// The names of each length: how many, and which, with their first letters.
        const BY_LENGTH: [(usize, [(u8, Name); SAME_LENGTH_MAX]); LENGTH_MAX + 1] = {
            let mut all = [(0, [(0, Name::Other); SAME_LENGTH_MAX]); LENGTH_MAX + 1];
            $(
                let (count, ids) = &mut all[$text.len()];
                ids[*count] = ($text.as_bytes()[0], Name::$variant);
                *count += 1;
            )+
            all
        };
    };
}

/// The longest name below; a longer one stops the build.
const LENGTH_MAX: usize = 19;

const fn title(name: &[u8]) -> [u8; LENGTH_MAX] {
    let (mut out, mut at) = ([0; LENGTH_MAX], 0);
    while at < name.len() {
        let starts = at == 0 || name[at - 1] == b'-';
        out[at] = if starts { name[at].to_ascii_uppercase() } else { name[at] };
        at += 1;
    }
    out
}

/// At most so many names below are equally long; more stop the build.
const SAME_LENGTH_MAX: usize = 8;

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
    WwwAuthenticate = "www-authenticate",
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

/// Where a line stands among the octets.
#[derive(Debug, Clone, Copy)]
struct Line {
    id: Name,
    at: u32,
    name_len: u32,
    value_len: u32,
}

/// What stands between a name and its value, and what ends a line.
const COLON: &[u8] = b": ";
const END: &[u8] = b"\r\n";

impl Line {
    /// The octets of the whole line, its end included.
    fn span(&self) -> Range<usize> {
        let at = self.at as usize;
        at..at + self.name_len as usize + COLON.len() + self.value_len as usize + END.len()
    }
}

/// An ordered list of field lines.
///
/// The octets hold each line as it is written, `name: value CRLF`, so that lines which follow each other are written in
/// one piece.
#[derive(Default)]
pub struct Fields {
    octets: Vec<u8>,
    lines: Vec<Line>,
    seen: Seen,
}

/// What has ever been among the lines: most questions are about what is not there, and end here.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// One bit for each well-known name.
    names: u64,
    /// One bit for the first letter of each other name; the last one for everything that is no letter.
    initials: u32,
    /// Whether any name holds `_`.
    underscore: bool,
    /// Whether any name is no token.
    nameless: bool,
}

const _: () = assert!((Name::Other as u32) < u64::BITS, "one bit for each name");

impl Seen {
    fn note(&mut self, id: Name, name: &[u8]) {
        self.names |= 1 << id as u32;
        if id == Name::Other {
            self.initials |= initial(name.first().copied().unwrap_or_default());
            self.underscore |= name.contains(&b'_');
        }
    }

    fn has(&self, id: Name) -> bool {
        self.names & (1 << id as u32) != 0
    }

    fn join(&mut self, other: Seen) {
        self.names |= other.names;
        self.initials |= other.initials;
        self.underscore |= other.underscore;
        self.nameless |= other.nameless;
    }
}

/// A set of well-known names.
#[derive(Debug, Clone, Copy)]
pub struct Names(u64);

impl Names {
    /// These.
    pub const fn of(ids: &[Name]) -> Names {
        let (mut all, mut at) = (0, 0);
        while at < ids.len() {
            all |= 1 << ids[at] as u32;
            at += 1;
        }
        Names(all)
    }

    /// Whether a name is among them.
    pub const fn hold(self, id: Name) -> bool {
        self.0 & (1 << id as u32) != 0
    }
}

/// The bit of a first letter, in any case.
fn initial(octet: u8) -> u32 {
    let place = octet.to_ascii_lowercase().wrapping_sub(b'a');
    1 << if place < 26 { place } else { 26 }
}

impl Fields {
    /// No lines.
    pub fn new() -> Self {
        Fields::default()
    }

    /// No lines, with room for those of most messages and `octets` of names and values: in memory that a message left
    /// behind which is gone, if there is some.
    pub fn with_room(octets: usize) -> Self {
        let kept = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
        let mut fields = kept.unwrap_or_default();
        fields.lines.reserve(LINES);
        fields.octets.reserve(octets.max(OCTETS));
        fields
    }

    /// Appends a line. CR, LF and NUL in the value become spaces, so that nothing that we build can split a message; a line
    /// whose name is no token is never written.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.seen.nameless |= !is_token(name);
        self.push_as(Name::of(name), name, value);
    }

    /// Appends a line whose grammar an engine has checked: the name is a token, and nothing in the value ends a line.
    pub(crate) fn pass(&mut self, name: &[u8], value: &[u8]) {
        debug_assert!(is_token(name) && !value.iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0)), "checked");
        let at = self.octets.len();
        self.octets.reserve(name.len() + COLON.len() + value.len() + END.len());
        self.octets.extend_from_slice(name);
        self.octets.extend_from_slice(COLON);
        self.octets.extend_from_slice(value);
        self.close(Name::of(name), name, at, value.len());
    }

    /// Appends a line under a well-known name in its lower-case spelling.
    pub fn add(&mut self, id: Name, value: impl AsRef<[u8]>) {
        self.push_as(id, id.as_str().as_bytes(), value.as_ref());
    }

    /// Appends a line under a well-known name, its value made of parts that we know to hold no control octet.
    pub(crate) fn join(&mut self, id: Name, parts: &[&[u8]]) {
        debug_assert!(parts.iter().all(|part| !part.iter().any(u8::is_ascii_control)), "known to be plain");
        let (start, at) = (id.start().as_bytes(), self.octets.len());
        let value_len: usize = parts.iter().map(|part| part.len()).sum();
        self.octets.reserve(start.len() + value_len + END.len());
        self.octets.extend_from_slice(start);
        parts.iter().for_each(|part| self.octets.extend_from_slice(part));
        self.close(id, id.as_str().as_bytes(), at, value_len);
    }

    /// Appends a line under a well-known name, its value written in place: nothing is allocated but room for it.
    pub fn put(&mut self, id: Name, value: impl fmt::Display) {
        let (name, at) = (id.as_str().as_bytes(), self.octets.len());
        self.octets.extend_from_slice(name);
        self.octets.extend_from_slice(COLON);
        let value_at = self.octets.len();
        let written = write!(Value(&mut self.octets), "{value}");
        debug_assert!(written.is_ok(), "memory takes everything");
        self.clean(value_at);
        self.close(id, name, at, self.octets.len() - value_at);
    }

    /// Notes a line as an engine has read it, of which `fill` then brings the octets: it stands `at` octets behind the
    /// start of its section, and is `name: value CRLF`, its grammar checked, `length` octets together.
    pub(crate) fn index(&mut self, name: &[u8], at: usize, length: usize) {
        let (id, value_len) = (Name::of(name), length - name.len() - COLON.len() - END.len());
        self.seen.note(id, name);
        self.lines.push(Line { id, at: at as u32, name_len: name.len() as u32, value_len: value_len as u32 });
    }

    /// Brings the octets of all lines that were noted; there are no others yet.
    pub(crate) fn fill(&mut self, section: &[u8]) {
        debug_assert!(self.octets.is_empty(), "a section is read once");
        self.octets.extend_from_slice(section);
    }

    /// Appends all lines of others, which were made once for many messages.
    pub(crate) fn append(&mut self, others: &Fields) {
        let behind = self.octets.len() as u32;
        self.octets.extend_from_slice(&others.octets);
        self.lines.extend(others.lines.iter().map(|line| Line { at: behind + line.at, ..*line }));
        self.seen.join(others.seen);
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

    /// All values of a well-known name, in order. Cost: nothing, if there never was one.
    pub fn all(&self, id: Name) -> impl Iterator<Item = &[u8]> {
        let lines = if self.seen.has(id) { &self.lines[..] } else { &[] };
        lines.iter().filter(move |line| line.id == id).map(|line| borrow(&self.octets, line).value)
    }

    /// All values of any name, in any case.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes())).map(|field| field.value)
    }

    /// Whether a well-known name occurs.
    pub fn has(&self, id: Name) -> bool {
        self.seen.has(id) && self.lines.iter().any(|line| line.id == id)
    }

    /// Whether any of these names may occur. Cost: a look at one word.
    pub fn may_have(&self, names: Names) -> bool {
        self.seen.names & names.0 != 0
    }

    /// Whether a name that is not well known, and begins with this letter in any case, may occur.
    pub fn may_begin(&self, letter: u8) -> bool {
        self.seen.initials & initial(letter) != 0
    }

    /// Whether a name with `_` may occur.
    pub fn may_hold_underscore(&self) -> bool {
        self.seen.underscore
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
        if !self.seen.has(id) {
            return false;
        }
        let before = self.lines.len();
        self.lines.retain(|line| line.id != id);
        self.seen.names &= !(1 << id as u32);
        self.lines.len() != before
    }

    /// Keeps the lines for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        let octets = &self.octets;
        self.lines.retain(|line| keep(borrow(octets, line)));
    }

    /// Removes the lines from number `count` on: what was added since there were so many.
    pub fn truncate(&mut self, count: usize) {
        if let Some(line) = self.lines.get(count) {
            self.octets.truncate(line.at as usize);
            self.lines.truncate(count);
        }
    }

    /// All lines in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> + Clone {
        self.lines.iter().map(|line| borrow(&self.octets, line))
    }

    /// The lines for which `keep` says so, as they are written, in as few pieces as they lie in.
    pub fn pieces(&self, mut keep: impl FnMut(Field<'_>) -> bool, mut piece: impl FnMut(&[u8])) {
        let mut span = 0..0;
        for line in &self.lines {
            let field = borrow(&self.octets, line);
            if !keep(field) || (self.seen.nameless && !is_token(field.name)) {
                continue;
            }
            let next = line.span();
            if next.start != span.end {
                piece(&self.octets[span]);
                span = next.start..next.start;
            }
            span.end = next.end;
        }
        piece(&self.octets[span]);
    }

    /// How many lines.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are no lines.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    fn push_as(&mut self, id: Name, name: &[u8], value: &[u8]) {
        let at = self.octets.len();
        self.octets.reserve(name.len() + COLON.len() + value.len() + END.len());
        self.octets.extend_from_slice(name);
        self.octets.extend_from_slice(COLON);
        let value_at = self.octets.len();
        self.octets.extend_from_slice(value);
        self.clean(value_at);
        self.close(id, name, at, value.len());
    }

    /// Makes spaces of what could end a line before its end.
    fn clean(&mut self, from: usize) {
        let odd = |octet| matches!(octet, b'\r' | b'\n' | 0);
        while let Some(at) = swar::find(&self.octets[from..], |word| swar::below(word, b' '), odd) {
            self.octets[from + at] = b' ';
        }
    }

    /// Ends the line that begins at `at`.
    fn close(&mut self, id: Name, name: &[u8], at: usize, value_len: usize) {
        self.octets.extend_from_slice(END);
        self.seen.note(id, name);
        self.lines.push(Line { id, at: at as u32, name_len: name.len() as u32, value_len: value_len as u32 });
    }
}

/// Room for the lines of most messages, and for their octets, those included that a proxy adds.
const LINES: usize = 24;
const OCTETS: usize = 1000;

/// What a worker keeps of the memory of messages that are gone: 256 KiB, enough for those of a busy moment.
const SPARE_MAX: usize = 128;

/// Memory that has grown beyond this goes back to the system.
const SPARE_OCTETS_MAX: usize = 2 * OCTETS;

thread_local! {
    static SPARE: RefCell<Vec<Fields>> = const { RefCell::new(Vec::new()) };
}

impl Drop for Fields {
    /// The memory is used again while the processor's cache still has it.
    fn drop(&mut self) {
        if !(OCTETS..=SPARE_OCTETS_MAX).contains(&self.octets.capacity()) || self.lines.capacity() > 2 * LINES {
            return;
        }
        // At the end of a thread there is nobody left to keep it for.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                let (mut octets, mut lines) = (mem::take(&mut self.octets), mem::take(&mut self.lines));
                octets.clear();
                lines.clear();
                spare.push(Fields { octets, lines, seen: Seen::default() });
            }
        });
    }
}

/// What a copy has room for beyond its original: it is made for a proxy to add its own lines.
const ROOM: usize = 256;

impl Clone for Fields {
    fn clone(&self) -> Self {
        let mut copy = Fields::with_room(self.octets.len() + ROOM);
        copy.octets.extend_from_slice(&self.octets);
        copy.lines.extend_from_slice(&self.lines);
        copy.seen = self.seen;
        copy
    }
}

/// The end of the buffer, as text is written to it.
struct Value<'a>(&'a mut Vec<u8>);

impl fmt::Write for Value<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn borrow<'a>(octets: &'a [u8], line: &Line) -> Field<'a> {
    let whole = &octets[line.span()];
    let (name, rest) = whole.split_at(line.name_len as usize);
    Field { id: line.id, name, value: &rest[COLON.len()..rest.len() - END.len()] }
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
    fn memory_is_used_again_and_nothing_that_stood_in_it() {
        let mut fields = Fields::with_room(100);
        fields.push(b"a_b", b"1");
        let memory = fields.octets.as_ptr();
        drop(fields);
        let again = Fields::with_room(100);
        assert_eq!((again.octets.as_ptr(), again.len(), again.may_hold_underscore()), (memory, 0, false));
        drop(Fields::with_room(SPARE_OCTETS_MAX + 1));
        drop(Fields::new());
        assert_eq!(SPARE.with_borrow(Vec::len), 0, "neither too much nor too little");
    }

    #[test]
    fn nothing_that_is_pushed_splits_a_message() {
        let mut fields = Fields::new();
        fields.push(b"x", b"a\r\nEvil: 1\0");
        fields.put(Name::Via, format_args!("{}\n{}", 1, "b\r\0"));
        assert_eq!(fields.named("x").next(), Some(&b"a  Evil: 1 "[..]));
        assert_eq!(fields.get(Name::Via), Some(&b"1 b  "[..]));
    }

    #[test]
    fn names_are_found_in_any_case() {
        for id in [Name::Te, Name::Host, Name::Location, Name::CoordinatorUnknown, Name::ProxyAuthorization] {
            assert_eq!(Name::of(id.as_str().as_bytes()), id);
            assert_eq!(Name::of(id.as_str().to_ascii_uppercase().as_bytes()), id);
        }
        for other in ["", "x", "hosts", "locatioN2", "coordinator-unknown-and-more"] {
            assert_eq!(Name::of(other.as_bytes()), Name::Other, "{other}");
        }
    }

    #[test]
    fn lists_span_lines() {
        let fields: Fields = [("TE", "trailers, gzip"), ("te", " , x")].into_iter().collect();
        assert_eq!(fields.elements(Name::Te).collect::<Vec<_>>(), [&b"trailers"[..], b"gzip", b"x"]);
    }
}
