//! Heads that came whole and plain, which is nearly all: read in one pass, several octets at a time.
//!
//! Invariant: what is accepted here the automaton of `head` and `section` accepts too, with the same outcome. Whatever is
//! unfinished, unusual or wrong is none of this file's business: `None`, and the automaton judges it octet by octet.

use super::head::HeadLimits;
use super::lately::Lately;
use crate::base::swar;
use crate::message::fields::Reading;
use crate::message::{Fields, Method, RequestHead, ResponseHead, Scheme, Version};

/// Reads a request head at the start of `buffer`; how many octets it took.
pub(super) fn request(buffer: &[u8], scheme: Scheme, limits: &HeadLimits) -> Option<(Box<RequestHead>, usize)> {
    let within = buffer.get(..limits.head).unwrap_or(buffer);
    let space = swar::find_near(within.get(..=Method::LEN_MAX).unwrap_or(within), b' ')?;
    let (method, rest) = within.split_at_checked(space)?;
    let method = Method::parse(method).filter(|method| *method != Method::Connect)?;
    let rest = rest.get(1..)?;
    let (target, rest) = rest.split_at_checked(target_run(rest))?;
    if target.is_empty() || target.len() > limits.uri {
        return None;
    }
    let ([b' ', version @ .., b'\r', b'\n'], rest) = rest.split_first_chunk::<11>()? else { return None };
    let version = version_of(version)?;
    let (fields, left) = fields(rest, limits)?;
    let (target, mut head) = (std::str::from_utf8(target).ok()?, RequestHead::spare());
    (head.method, head.version, head.scheme, head.fields) = (method, version, scheme, fields);
    head.target.push_str(target);
    Some((head, within.len() - left))
}

/// Reads a response head at the start of `buffer`; how many octets it took.
pub(super) fn response(buffer: &[u8], limits: &HeadLimits) -> Option<(ResponseHead, usize)> {
    let within = buffer.get(..limits.head).unwrap_or(buffer);
    let ([version @ .., b' ', hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9', b' '], rest) =
        within.split_first_chunk::<13>()?
    else {
        return None;
    };
    let version = version_of(version)?;
    let status = [*hundreds, *tens, *ones].iter().fold(0, |status, digit| status * 10 + u16::from(digit & 0x0f));
    let rest = rest.get(value_run(rest)..)?.strip_prefix(b"\r\n")?;
    let (fields, left) = fields(rest, limits)?;
    Some((ResponseHead { status, version, fields }, within.len() - left))
}

fn version_of(text: &[u8; 8]) -> Option<Version> {
    const HTTP11: u64 = u64::from_le_bytes(*b"HTTP/1.1");
    const HTTP10: u64 = u64::from_le_bytes(*b"HTTP/1.0");
    match u64::from_le_bytes(*text) {
        HTTP11 => Some(Version::Http11),
        HTTP10 => Some(Version::Http10),
        _ => None,
    }
}

/// Reads lines to the empty one; how many octets follow it.
fn fields(octets: &[u8], limits: &HeadLimits) -> Option<(Fields, usize)> {
    let mut fields = Fields::with_room(0);
    let left = Lately::with(|lately| lines(octets, limits, lately, fields.reading()))?;
    Some((fields, left))
}

fn lines(octets: &[u8], limits: &HeadLimits, mut lately: Lately<'_>, mut fields: Reading<'_>) -> Option<usize> {
    let mut rest = octets;
    loop {
        let at = octets.len() - rest.len();
        if let Some(after) = rest.strip_prefix(b"\r\n") {
            fields.end(octets.get(..at)?);
            return Some(after.len());
        }
        if fields.len() >= limits.fields {
            return None;
        }
        let length = match lately.find(rest) {
            Some(line) => {
                fields.known(line.id, at, line.name_len.into(), line.length.into());
                line.length.into()
            }
            None => {
                let (name, length) = line(rest)?;
                let id = fields.line(rest, at, name, length)?;
                lately.offer(rest, length, id, name);
                length
            }
        };
        rest = rest.get(length..)?;
    }
}

/// The lengths of the first name and of the whole line, if that is spelt as we would spell it, whatever the name holds.
fn line(rest: &[u8]) -> Option<(usize, usize)> {
    let name = swar::find_near(rest, b':')?;
    let value = rest.get(name..)?.strip_prefix(b": ")?;
    let (value, end) = value.split_at_checked(value_run(value))?;
    let plain = end.starts_with(b"\r\n") && value.first() != Some(&b' ') && value.last() != Some(&b' ');
    plain.then_some((name, name + value.len() + 4))
}

/// How many octets from the start may stand in a field value; HTAB may too, but hardly ever does.
fn value_run(octets: &[u8]) -> usize {
    let odd = |octet| octet < b' ' || octet == 0x7f;
    swar::find(octets, odd, |word| swar::below(word, b' ') | swar::equal(word, 0x7f)).unwrap_or(octets.len())
}

/// How many octets from the start may stand in a request target.
pub(super) fn target_run(octets: &[u8]) -> usize {
    let odd = |octet: u8| octet <= b' ' || octet >= 0x7f || octet == b'#';
    let marks = |word| swar::below(word, b'!') | swar::equal(word, 0x7f) | swar::equal(word, b'#') | swar::high(word);
    swar::find(octets, odd, marks).unwrap_or(octets.len())
}

#[cfg(test)]
mod tests {
    use super::super::section;
    use super::*;

    #[test]
    fn runs_end_at_the_first_octet_that_may_not_stand_there() {
        for octet in 0..=255u8 {
            for at in 0..20 {
                let mut text = vec![b'a'; 24];
                text[at] = octet;
                let usual = |octet| section::is_value(octet) && octet != b'\t';
                assert_eq!(value_run(&text), section::run(&text, usual), "{octet} at {at}");
                let graphic = |octet: u8| octet.is_ascii_graphic() && octet != b'#';
                assert_eq!(target_run(&text), section::run(&text, graphic), "{octet} at {at}");
            }
        }
        assert_eq!((value_run(b""), target_run(b"")), (0, 0));
    }

    #[test]
    fn what_is_unusual_is_left_alone() {
        let limits = HeadLimits { head: 64, fields: 2, uri: 8 };
        for (text, read) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\nrest", true),
            ("GET /234567 HTTP/1.0\r\n\r\n", true),
            ("GET /23456789 HTTP/1.1\r\n\r\n", false),
            ("GET / HTTP/1.1\r\na: 1\r\nb: 2\r\nc: 3\r\n\r\n", false),
            ("GET / HTTP/1.1\r\na:1\r\n\r\n", false),
            ("GET / HTTP/1.1\r\na:  1\r\n\r\n", false),
            ("GET / HTTP/1.1\r\na: 1 \r\n\r\n", false),
            ("GET / HTTP/1.1\r\na: \r\n\r\n", true),
            ("GET / HTTP/1.1\r\n: 1\r\n\r\n", false),
            ("GET / HTTP/1.1\r\na: 1\r\n", false),
            ("GET / HTTP/1.1\r\na: 1\n\r\n", false),
            ("GET  HTTP/1.1\r\n\r\n", false),
            ("CONNECT a:1 HTTP/1.1\r\n\r\n", false),
            ("\r\nGET / HTTP/1.1\r\n\r\n", false),
            ("GET / HTTP/1.2\r\n\r\n", false),
            ("GET / HTTP/1.1\r\na: 1234567890123456789012345678901234567890123456\r\n\r\n", false),
        ] {
            let got = request(text.as_bytes(), Scheme::Http, &limits);
            assert_eq!(got.is_some(), read, "{text:?}");
            for _ in 0..100 {
                let again = request(text.as_bytes(), Scheme::Http, &limits);
                assert_eq!(format!("{again:?}"), format!("{got:?}"), "its lines are known by and by");
            }
            if let Some((_, taken)) = got {
                assert_eq!(&text.as_bytes()[taken - 4..taken], b"\r\n\r\n");
            }
        }
        for (text, status) in [
            ("HTTP/1.1 200 OK\r\na: b\r\n\r\n", Some(200)),
            ("HTTP/1.0 599 \r\n\r\n", Some(599)),
            ("HTTP/1.1 200\r\n\r\n", None),
            ("HTTP/1.1 099 x\r\n\r\n", None),
            ("HTTP/2.0 200 OK\r\n\r\n", None),
            ("HTTP/1.1 200 O\x01K\r\n\r\n", None),
        ] {
            assert_eq!(response(text.as_bytes(), &limits).map(|(head, _)| head.status), status, "{text:?}");
        }
    }
}
