//! The one spelling of a path (RFC 3986 section 6.2.2, DESIGN 10).
//!
//! Owns how a path is normalised before anything is matched. What is matched is what is forwarded, so an origin never
//! sees a path that the table did not judge. Knows no routes. Invariant: normalising twice changes nothing more.

use std::borrow::Cow;

/// Why a path is refused, in words for the client.
pub type Wrong = &'static str;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Brings the path of a request into its one spelling: escapes of unreserved octets decoded, all others in upper case,
/// dot segments removed, `//` merged. `%2F` and `%5C` stay as they are and never separate. Visible octets that no path
/// may hold (`|`, `"`, `{`, ...) are escaped, because browsers send them and `%7C` must not be a second name for `|`.
///
/// Errors: `%00`, an escape that is none, a backslash (some origins take it for `/`), a fragment, a control octet,
/// whitespace or anything that is not ASCII. `path` starts with `/`, else that is an error too.
/// Cost: nothing is allocated for a path that is already normal; one pass otherwise.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, Wrong> {
    if !path.starts_with('/') {
        return Err("the path does not start with /");
    }
    if is_normal(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    Ok(Cow::Owned(remove_dots(&spell(path)?)))
}

/// Brings the escapes of a piece of a path into their one spelling, separators untouched.
pub fn spell(text: &str) -> Result<String, Wrong> {
    let octets = text.as_bytes();
    let mut out = String::with_capacity(octets.len());
    let mut at = 0;
    while let Some(&octet) = octets.get(at) {
        match octet {
            b'%' => {
                put(unescape(octets, at)?, &mut out);
                at += 2;
            }
            b'/' => out.push('/'),
            _ if is_plain(octet) => out.push(char::from(octet)),
            b'\\' => return Err("the path holds a backslash"),
            b'#' => return Err("the request target holds a fragment"),
            0x21..=0x7e => escape(octet, &mut out),
            _ => return Err("the path holds an octet that must be percent-encoded"),
        }
        at += 1;
    }
    Ok(out)
}

/// Decodes every escape of `text` once. `None` if one is none, or the result is not UTF-8.
pub fn decode(text: &str) -> Option<String> {
    let octets = text.as_bytes();
    let mut out = Vec::with_capacity(octets.len());
    let mut at = 0;
    while let Some(&octet) = octets.get(at) {
        if octet == b'%' {
            out.push(hex(octets.get(at + 1))? << 4 | hex(octets.get(at + 2))?);
            at += 3;
        } else {
            out.push(octet);
            at += 1;
        }
    }
    String::from_utf8(out).ok()
}

/// Appends `%XX`.
pub fn escape(octet: u8, out: &mut String) {
    out.push('%');
    out.push(char::from(HEX[usize::from(octet >> 4)]));
    out.push(char::from(HEX[usize::from(octet & 15)]));
}

/// Unreserved octets: those whose escape means the same as themselves (RFC 3986 section 2.3).
pub fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~')
}

/// Octets that stand for themselves in a segment: pchar without escapes (RFC 3986 section 3.3).
fn is_plain(octet: u8) -> bool {
    is_unreserved(octet) || b"!$&'()*+,;=:@".contains(&octet)
}

/// The quick look that nearly every request passes: nothing in it could change.
fn is_normal(path: &[u8]) -> bool {
    let mut before = 0;
    for &octet in path {
        let segment_starts = before == b'/';
        let plain = if octet == b'/' { !segment_starts } else { is_plain(octet) && !(segment_starts && octet == b'.') };
        if !plain {
            return false;
        }
        before = octet;
    }
    true
}

fn unescape(octets: &[u8], at: usize) -> Result<u8, Wrong> {
    match (hex(octets.get(at + 1)), hex(octets.get(at + 2))) {
        (Some(0), Some(0)) => Err("the path holds %00"),
        (Some(high), Some(low)) => Ok(high << 4 | low),
        _ => Err("the path holds a % without two hexadecimal digits"),
    }
}

fn hex(octet: Option<&u8>) -> Option<u8> {
    char::from(*octet?).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn put(octet: u8, out: &mut String) {
    if is_unreserved(octet) { out.push(char::from(octet)) } else { escape(octet, out) }
}

/// Removes dot segments, then empty ones; in this order, so that `..` takes away what the client wrote before it
/// (RFC 3986 section 5.2.4). What climbs above the root stays at the root.
fn remove_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_slash = false;
    for segment in path.split('/').skip(1) {
        ends_in_slash = matches!(segment, "" | "." | "..");
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            other => kept.push(other),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in kept.iter().filter(|segment| !segment.is_empty()) {
        out.push('/');
        out.push_str(segment);
    }
    if ends_in_slash || out.is_empty() {
        out.push('/');
    }
    out
}

#[cfg(test)]
mod tests;
