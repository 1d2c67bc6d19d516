//! Patterns: `[METHOD ][HOST]/PATH`, in the spirit of Go's ServeMux (DESIGN 3, Rules of the table).
//!
//! Owns reading them and what one pattern takes out of a request; which of several wins is the table's. Patterns are
//! about normalised paths: their literals are brought into the same one spelling when they are read, and what no
//! normalised path can hold is an error instead of a rule that never matches.

use super::shape::{Domain, Segment, Shape, Tail};
use crate::base::swar;
use crate::message::{Method, path};
use smallvec::SmallVec;
use std::ops::Range;

/// The longest pattern, in octets. Bounds the work of comparing two of them.
pub const LEN_MAX: usize = 1024;
/// The most segments of a pattern. Bounds the depth of the table.
pub const SEGMENTS_MAX: usize = 64;

/// What the names of a pattern took: name and value, in the order of the pattern; values are still percent-encoded.
pub type Captures<'plan, 'req> = SmallVec<[(&'plan str, &'req str); 4]>;

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// As written.
    pub text: String,
    pub(super) method: Option<Method>,
    /// Labels from the right; everything if the pattern names no host.
    pub(super) host: Shape,
    pub(super) path: Shape,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError {
    /// The octets of the text at fault.
    pub span: Range<usize>,
    /// What is wrong.
    pub wrong: String,
    /// How to mend it.
    pub remedy: String,
}

type Parse<T> = Result<T, PatternError>;

impl Pattern {
    /// Reads a pattern. Errors: the octet range at fault, what is wrong and how to mend it.
    pub fn parse(text: &str) -> Result<Pattern, PatternError> {
        if text.len() > LEN_MAX {
            return Err(error(0..text.len(), "the pattern is too long", format!("at most {LEN_MAX} octets")));
        }
        let (method, target_at) = method(text)?;
        let target = &text[target_at..];
        let Some(slash) = target.find('/') else {
            let remedy = format!("end it with a path: `{text}/` is everything there");
            return Err(error(target_at..text.len(), "the pattern has no path", remedy));
        };
        let path_at = target_at + slash;
        let host = host(text, target_at..path_at)?;
        let path = path_shape(text, path_at)?;
        let pattern = Pattern { text: text.to_owned(), method, host, path };
        pattern.refuse_twins(target_at)?;
        Ok(pattern)
    }

    /// The names of all captures, in order.
    pub fn names(&self) -> Vec<&str> {
        let host = self.host.segments.iter().rev().flat_map(|label| &label.names);
        let path = self.path.segments.iter().flat_map(|segment| &segment.names);
        let rest = match &self.path.tail {
            Tail::Rest(Some(name)) => Some(name),
            _ => None,
        };
        host.chain(path).chain(rest).map(String::as_str).collect()
    }

    /// The one method that it matches (GET stands for HEAD as well); `None` = any.
    pub fn method(&self) -> Option<&Method> {
        self.method.as_ref()
    }

    /// What the names take of a host (lower-case, without port) and a normalised path; `None` if they do not match.
    pub fn capture<'plan, 'req>(&'plan self, host: &'req str, path: &'req str) -> Option<Captures<'plan, 'req>> {
        let mut captures = Captures::new();
        self.host.capture(labels(host), Domain::Hosts, &mut captures)?;
        captures.reverse();
        self.path.capture(path.strip_prefix('/'), Domain::Paths, &mut captures)?;
        Some(captures)
    }

    fn refuse_twins(&self, from: usize) -> Parse<()> {
        let names = self.names();
        for (at, name) in names.iter().enumerate() {
            if names[..at].contains(name) {
                let at = self.text.rfind(&format!("{{{name}")).unwrap_or(from) + 1;
                let wrong = format!("the name `{name}` stands twice in the pattern");
                return Err(error(at..at + name.len(), wrong, "give each capture a name of its own"));
            }
        }
        Ok(())
    }
}

/// What a shape is matched on: a host's labels, from the right. An IPv6 address is one label.
pub(super) fn labels(host: &str) -> Option<&str> {
    (!host.is_empty()).then_some(host)
}

/// Takes one segment of a path (or one label of a host) off `left`; the rest is `None` at the end without a slash.
pub(super) fn cut(left: &str, domain: Domain) -> (&str, Option<&str>) {
    match domain {
        Domain::Paths => match swar::find_near(left.as_bytes(), b'/') {
            Some(slash) => (&left[..slash], Some(&left[slash + 1..])),
            None => (left, None),
        },
        Domain::Hosts if left.starts_with('[') => (left, None),
        // Octet by octet: the last label is short.
        Domain::Hosts => match left.bytes().rposition(|octet| octet == b'.') {
            Some(dot) => (&left[dot + 1..], Some(&left[..dot])),
            None => (left, None),
        },
    }
}

impl Shape {
    fn capture<'plan, 'req>(
        &'plan self,
        mut left: Option<&'req str>,
        domain: Domain,
        captures: &mut Captures<'plan, 'req>,
    ) -> Option<()> {
        for segment in &self.segments {
            let (text, rest) = cut(left?, domain);
            let pieces = segment.split(text).filter(|_| !text.is_empty())?;
            let pairs = segment.names.iter().map(String::as_str).zip(pieces);
            // Hosts are read from the right and turned round at the end.
            match domain {
                Domain::Paths => captures.extend(pairs),
                Domain::Hosts => captures.extend(pairs.rev()),
            }
            left = rest;
        }
        match (&self.tail, left) {
            (Tail::Exact, None) | (Tail::Slash, Some("")) | (Tail::Below, _) | (Tail::Rest(None), Some(_)) => {}
            (Tail::Rest(Some(name)), Some(rest)) => captures.push((name, rest)),
            _ => return None,
        }
        Some(())
    }
}

fn method(text: &str) -> Parse<(Option<Method>, usize)> {
    let Some(space) = text.find([' ', '\t']) else { return Ok((None, 0)) };
    let target_at = text.len() - text[space..].trim_start_matches([' ', '\t']).len();
    if let Some(at) = text[target_at..].find(char::is_whitespace) {
        let at = target_at + at;
        return Err(error(at..text.len(), "whitespace within the pattern", "write `METHOD HOST/PATH` with one space"));
    }
    let word = &text[..space];
    let known = Method::parse(word.as_bytes());
    match known {
        Some(Method::Connect) => {
            Err(error(0..space, "CONNECT is never routed", "a WebSocket, also over HTTP/2, matches `GET`"))
        }
        Some(Method::Other(_)) if word.bytes().any(|c| c.is_ascii_lowercase()) => {
            let remedy = format!("write `{}`", word.to_ascii_uppercase());
            Err(error(0..space, "methods are case-sensitive and in upper case", remedy))
        }
        Some(known) => Ok((Some(known), target_at)),
        None => Err(error(0..space, format!("`{word}` is not a method"), "write `METHOD HOST/PATH`, such as `GET /a`")),
    }
}

fn host(text: &str, range: Range<usize>) -> Parse<Shape> {
    let host = &text[range.clone()];
    if host.is_empty() {
        return Ok(Shape::everything());
    }
    let Err((wrong, remedy)) = judge_host(host) else {
        let (tail, labels_at) = match host.strip_prefix("*.") {
            Some(_) => (Tail::Rest(None), range.start + 2),
            None => (Tail::Exact, range.start),
        };
        let mut segments = Vec::new();
        let mut end = range.end;
        let mut left = Some(&text[labels_at..range.end]);
        while let Some(labels) = left {
            let (label, rest) = cut(labels, Domain::Hosts);
            segments.push(segment(text, end - label.len()..end, Domain::Hosts)?);
            end = (end - label.len()).saturating_sub(1);
            left = rest;
        }
        return bounded(Shape { segments, tail }, range);
    };
    Err(error(range, wrong, remedy))
}

fn judge_host(host: &str) -> Result<(), (&'static str, &'static str)> {
    let is_address = host.starts_with('[') && host.ends_with(']');
    let plain = host.strip_prefix("*.").unwrap_or(host);
    if host.ends_with(':') {
        return Err(("a pattern has no scheme", "leave it out: a route serves http and https alike"));
    }
    if !is_address && host.contains(':') {
        return Err(("a pattern's host has no port", "leave the port out: hosts are compared without it"));
    }
    if plain.contains('*') {
        return Err((
            "`*` may only be the first label of a host",
            "write `*.example.com/` or name the label: `{tenant}`",
        ));
    }
    if host.contains("...}") {
        return Err(("`{name...}` is for paths", "write `*.` for one label or more"));
    }
    if plain.split('.').any(str::is_empty) {
        return Err(("the host has an empty label", "write it like `example.com`, with one dot between labels"));
    }
    if is_address && host[1..host.len() - 1].parse::<std::net::Ipv6Addr>().is_err() {
        return Err(("what stands in brackets is not an IPv6 address", "write it like `[::1]/`"));
    }
    Ok(())
}

fn path_shape(text: &str, at: usize) -> Parse<Shape> {
    let mut segments = Vec::new();
    let mut start = at + 1;
    loop {
        let end = text[start..].find('/').map_or(text.len(), |slash| start + slash);
        let part = &text[start..end];
        let tail = match part {
            "" => Some(Tail::Below),
            "{$}" => Some(Tail::Slash),
            _ => rest_name(text, start..end)?.map(|name| Tail::Rest(Some(name))),
        };
        if let Some(tail) = tail {
            return finish(text, segments, tail, start..end);
        }
        segments.push(segment(text, start..end, Domain::Paths)?);
        if end == text.len() {
            return bounded(Shape { segments, tail: Tail::Exact }, at..end);
        }
        start = end + 1;
    }
}

/// A tail is the last thing of a path.
fn finish(text: &str, segments: Vec<Segment>, tail: Tail, range: Range<usize>) -> Parse<Shape> {
    if range.end == text.len() {
        return bounded(Shape { segments, tail }, 0..text.len());
    }
    Err(match tail {
        Tail::Below => {
            error(range.start - 1..range.end + 1, "an empty segment: `//`", "write one `/`: paths are merged")
        }
        Tail::Slash => error(range, "`{$}` may only stand at the end", "remove what follows, or write `%7B$%7D`"),
        _ => error(range, "`{name...}` may only stand at the end", "take one segment with `{name}` instead"),
    })
}

fn bounded(shape: Shape, range: Range<usize>) -> Parse<Shape> {
    if shape.segments.len() > SEGMENTS_MAX {
        let remedy = format!("at most {SEGMENTS_MAX}; end it with `/` to match all that lies below");
        return Err(error(range, "the pattern has too many segments", remedy));
    }
    Ok(shape)
}

/// The name of `{name...}`, if that is what the segment is.
fn rest_name(text: &str, range: Range<usize>) -> Parse<Option<String>> {
    let inner = text[range.clone()].strip_prefix('{').and_then(|part| part.strip_suffix("...}"));
    match inner {
        Some(name) => named(name, range.start + 1).map(Some).map_err(|error| PatternError { span: range, ..error }),
        None => Ok(None),
    }
}

fn segment(text: &str, range: Range<usize>, domain: Domain) -> Parse<Segment> {
    let mut segment = Segment { literals: Vec::new(), names: Vec::new() };
    let mut at = range.start;
    while let Some(open) = text[at..range.end].find('{').map(|open| at + open) {
        let Some(close) = text[open..range.end].find('}').map(|close| open + close) else {
            return Err(error(open..range.end, "a `{` without its `}`", "close the name, or write `%7B` for the sign"));
        };
        if open == at && !segment.names.is_empty() {
            let remedy = "put a literal between them, such as `{a}-{b}`: nothing says where one ends";
            return Err(error(at..close + 1, "two names side by side", remedy));
        }
        segment.literals.push(literal(text, at..open, domain)?);
        segment.names.push(named(&text[open + 1..close], open + 1)?);
        at = close + 1;
    }
    segment.literals.push(literal(text, at..range.end, domain)?);
    if domain == Domain::Paths && matches!(segment.as_literal(), Some("." | "..")) {
        let remedy = "write the path as it is after dot segments are removed";
        return Err(error(range, "a dot segment never matches", remedy));
    }
    Ok(segment)
}

fn named(name: &str, at: usize) -> Parse<String> {
    let range = at..at + name.len();
    if name == "$" || name.ends_with("...") {
        let wrong = "`{$}` and `{name...}` must be a whole segment at the end of the path";
        return Err(error(range, wrong, "write them after the last `/`"));
    }
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_') {
        return Ok(name.to_owned());
    }
    let wrong = if name.is_empty() { "a capture without a name".to_owned() } else { format!("`{name}` is not a name") };
    Err(error(at - 1..range.end + 1, wrong, "a name is a letter or `_`, then letters, digits and `_`: `{user}`"))
}

fn literal(text: &str, range: Range<usize>, domain: Domain) -> Parse<String> {
    let part = &text[range.clone()];
    if let Some(at) = part.find('}') {
        let at = range.start + at;
        return Err(error(at..at + 1, "a `}` without its `{`", "remove it, or write `%7D` for the sign"));
    }
    match domain {
        Domain::Paths => path_literal(part, range),
        Domain::Hosts => host_literal(part, range),
    }
}

fn path_literal(part: &str, range: Range<usize>) -> Parse<String> {
    if part.contains('?') {
        let remedy = "leave the query out; a key may come from it: `key = \"query:NAME\"`";
        return Err(error(range, "a pattern has no query", remedy));
    }
    path::spell(part).map_err(|wrong| {
        let mut escaped = String::new();
        for octet in part.bytes() {
            let keeps = octet.is_ascii_graphic() && !matches!(octet, b'%' | b'\\' | b'#');
            if keeps { escaped.push(char::from(octet)) } else { path::escape(octet, &mut escaped) }
        }
        error(range, wrong.replace("request target", "pattern"), format!("write `{escaped}`"))
    })
}

fn host_literal(part: &str, range: Range<usize>) -> Parse<String> {
    let is_address = part.starts_with('[');
    let strange = |octet: u8| !(octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.'));
    if !is_address && part.bytes().any(strange) {
        let remedy = "letters, digits, `-` and `_`; international names in their `xn--` form";
        return Err(error(range, "the host holds what no host may hold", remedy));
    }
    Ok(part.to_ascii_lowercase())
}

fn error(span: Range<usize>, wrong: impl Into<String>, remedy: impl Into<String>) -> PatternError {
    PatternError { span, wrong: wrong.into(), remedy: remedy.into() }
}

#[cfg(test)]
mod tests;
