//! The one spelling of `host[:port]` (RFC 9110 section 7.2, RFC 3986 section 3.2).
//!
//! Owns which hosts a request may name. Stricter than the RFC's reg-name on purpose: what no DNS name holds (escapes,
//! sub-delims, octets above ASCII) only serves to make two parsers differ. Underscores are common and harmless.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Why a host is refused, in words for the client.
pub type Wrong = &'static str;

/// The longest name (RFC 1035 section 2.3.4), without its final dot.
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// Checks `host` or `host:port` and gives it in lower case, without a final dot, an empty port or a long form of an
/// IPv6 address. `Example.com.` and `example.com` are one host to DNS, so they must be one host to the route table.
///
/// Errors: user information, an empty host, an address or a port that is none, what no DNS name holds.
pub fn normalise(text: &[u8]) -> Result<String, Wrong> {
    let mut spelt = String::new();
    put(text, &mut spelt).map(|()| spelt)
}

/// Appends what [`normalise`] gives. Errors: as its.
pub fn put(text: &[u8], out: &mut String) -> Result<(), Wrong> {
    if is_spelt(text) {
        *out += std::str::from_utf8(text).map_err(|_| "the host is not ASCII")?;
        return Ok(());
    }
    *out += &judge(text)?;
    Ok(())
}

/// Does the same where the text is, which stays what it was if it is refused.
pub fn respell(text: &mut String) -> Result<(), Wrong> {
    if !is_spelt(text.as_bytes()) {
        *text = judge(text.as_bytes())?;
    }
    Ok(())
}

fn judge(text: &[u8]) -> Result<String, Wrong> {
    // Neither may stand anywhere in what is spelt below: only a refusal asks which it was.
    spell(text).map_err(|wrong| match text {
        _ if !text.is_ascii() => "the host is not ASCII",
        _ if text.contains(&b'@') => "the host comes with user information",
        _ => wrong,
    })
}

/// The quick look that nearly every request passes: a name in lower case that ends in a letter and is no longer than a
/// label may be, or an IPv4 address, and perhaps a port that has its one spelling.
fn is_spelt(text: &[u8]) -> bool {
    let mut before = b'.';
    let end = text.iter().position(|&octet| {
        let fits = if octet == b'.' { before != b'.' } else { LOWER[usize::from(octet)] };
        before = if fits { octet } else { before };
        !fits
    });
    let (name, port) = text.split_at(end.unwrap_or(text.len()));
    let port_fits = match port {
        [] => true,
        [b':', first @ b'1'..=b'9', rest @ ..] => {
            rest.len() < 4 + usize::from(*first < b'6') && rest.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    };
    (before.is_ascii_lowercase() && name.len() <= LABEL_MAX || is_ipv4(name)) && port_fits
}

/// Whether this is an IPv4 address, which has one spelling.
fn is_ipv4(name: &[u8]) -> bool {
    let fits = |number: &[u8]| {
        matches!(
            number,
            [b'0'..=b'9']
                | [b'1'..=b'9', b'0'..=b'9']
                | [b'1', b'0'..=b'9', b'0'..=b'9']
                | [b'2', b'0'..=b'4', b'0'..=b'9']
                | [b'2', b'5', b'0'..=b'5']
        )
    };
    let mut numbers = name.split(|&octet| octet == b'.');
    (0..4).all(|_| numbers.next().is_some_and(fits)) && numbers.next().is_none()
}

/// What a label holds in its one spelling.
const LOWER: [bool; 256] = {
    let (mut table, mut octet) = ([false; 256], 0);
    while octet < table.len() {
        table[octet] = matches!(octet as u8, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        octet += 1;
    }
    table
};

fn spell(text: &[u8]) -> Result<String, Wrong> {
    let text = std::str::from_utf8(text).map_err(|_| "the host is not ASCII")?;
    let (host, port) = split(text)?;
    let mut spelt = String::with_capacity(text.len());
    if host.starts_with('[') {
        address(host, &mut spelt)?
    } else {
        name(host, &mut spelt)?
    };
    if let Some(port) = port.filter(|port| !port.is_empty()) {
        let number = number(port)?;
        spelt.push(':');
        match port.strip_prefix('0') {
            // Only with zeros before it has a number a second spelling.
            Some(_) => spelt += &number.to_string(),
            None => spelt += port,
        }
    }
    Ok(spelt)
}

/// Whether two normalised authorities are the same place when `default` is the port that need not be written.
pub fn is_same(one: &str, other: &str, default: u16) -> bool {
    let default = format!(":{default}");
    let bare = |text: &str| text.strip_suffix(&default).unwrap_or(text).len();
    one.get(..bare(one)) == other.get(..bare(other))
}

fn split(text: &str) -> Result<(&str, Option<&str>), Wrong> {
    if !text.starts_with('[') {
        // Shorter than a search is worth setting up for.
        let colon = text.bytes().position(|octet| octet == b':');
        return Ok(colon.map_or((text, None), |at| (&text[..at], Some(&text[at + 1..]))));
    }
    let end = text.find(']').ok_or("the host opens a bracket and does not close it")? + 1;
    let (host, rest) = text.split_at(end);
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Ok((host, None)),
        Some(port) => Ok((host, Some(port))),
        None => Err("something other than a port follows the address"),
    }
}

fn address(host: &str, out: &mut String) -> Result<(), Wrong> {
    let inner = host.trim_start_matches('[').trim_end_matches(']');
    let address: Ipv6Addr = inner.parse().map_err(|_| "the host is in brackets and not an IPv6 address")?;
    *out += &format!("[{address}]");
    Ok(())
}

fn name(host: &str, out: &mut String) -> Result<(), Wrong> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        return Err("the host is empty");
    }
    let (mut label, mut is_number, mut labels_fit) = (0, true, true);
    for octet in host.bytes() {
        match octet {
            b'.' => {
                labels_fit &= (1..=LABEL_MAX).contains(&label);
                (label, is_number) = (0, true);
                continue;
            }
            b'0'..=b'9' => {}
            b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' => is_number = false,
            _ => return Err("the host holds what no host may hold"),
        }
        label += 1;
    }
    if host.len() > NAME_MAX || !labels_fit || !(1..=LABEL_MAX).contains(&label) {
        return Err("the host has an empty or too long label");
    }
    // A name that ends in a number is an address to every client (WHATWG URL); half an address is none.
    if is_number && host.parse::<Ipv4Addr>().is_err() {
        return Err("the host looks like an IPv4 address and is none");
    }
    *out += host;
    out.make_ascii_lowercase();
    Ok(())
}

fn number(port: &str) -> Result<u16, Wrong> {
    let digits = port.len() <= 5 && port.bytes().all(|octet| octet.is_ascii_digit());
    match port.parse() {
        Ok(number) if digits && number > 0 => Ok(number),
        _ => Err("the port is not a number from 1 to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_or_refusal() {
        let rows = [
            ("example.com", Some("example.com")),
            ("EXAMPLE.com:8080", Some("example.com:8080")),
            ("example.com.", Some("example.com")),
            ("example.com.:81", Some("example.com:81")),
            ("example.com:", Some("example.com")),
            ("example.com:000081", None),
            ("example.com:0081", Some("example.com:81")),
            ("a_b.example", Some("a_b.example")),
            ("xn--caf-dma.example", Some("xn--caf-dma.example")),
            ("localhost", Some("localhost")),
            ("127.0.0.1:65535", Some("127.0.0.1:65535")),
            ("[::1]", Some("[::1]")),
            ("[0:0:0:0:0:0:0:1]:80", Some("[::1]:80")),
            ("[2001:DB8::1]", Some("[2001:db8::1]")),
            ("", None),
            (".", None),
            (":80", None),
            ("a..b", None),
            (".a", None),
            ("a..", None),
            ("a:0", None),
            ("a:65536", None),
            ("a:8o", None),
            ("a:+80", None),
            ("a:80:80", None),
            ("a:59999", Some("a:59999")),
            ("127.0.0.1:59999", Some("127.0.0.1:59999")),
            ("127.0.0.01", None),
            ("u@a", None),
            ("u:p@a", None),
            ("a b", None),
            ("a,b", None),
            ("a/b", None),
            ("a%2eb", None),
            ("a\\b", None),
            ("caf\u{e9}.example", None),
            ("127.1", None),
            ("1.2.3.256", None),
            ("2130706433", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[::1]]", None),
            ("[[::1]]", None),
            ("[fe80::1%25eth0]", None),
            ("[1.2.3.4]", None),
            ("[v1.a]", None),
            ("[]", None),
        ];
        for (text, spelt) in rows {
            assert_eq!(normalise(text.as_bytes()).ok().as_deref(), spelt, "{text}");
        }
        assert!(normalise("a.".repeat(127).as_bytes()).is_ok());
        assert!(normalise("a.".repeat(128).as_bytes()).is_err());
        assert!(normalise(&[b'a'; 64]).is_err());
    }

    #[test]
    fn the_quick_look_passes_only_what_is_spelt_so() {
        let (octets, mut passed) = (b"ab1.-:0AZ@[", 0);
        for number in 0..octets.len().pow(5) {
            let text: Vec<u8> = (0..5).map(|place| octets[number / octets.len().pow(place) % octets.len()]).collect();
            for text in (0..5).map(|from| &text[from..]).filter(|text| is_spelt(text)) {
                assert_eq!(spell(text).as_deref().map(str::as_bytes), Ok(text), "{}", text.escape_ascii());
                passed += 1;
            }
        }
        assert!(passed > 1000, "{passed}");
        for (text, usual) in [
            ("shop.example:8080", true),
            ("shop.example:59999", true),
            ("shop.example:65535", false),
            ("shop.example:123456", false),
            ("a.1", false),
            ("", false),
            ("127.0.0.1", true),
            ("192.168.249.255:8443", true),
            ("10.0.0.256", false),
            ("10.0.0.01", false),
            ("10.0.0", false),
            ("10.0.0.0.0", false),
            ("10.0.0.", false),
        ] {
            assert_eq!(is_spelt(text.as_bytes()), usual, "{text}");
        }
        for number in (0..=300).flat_map(|number| [format!("1.2.3.{number}"), format!("1.2.3.0{number}")]) {
            assert_eq!(is_spelt(number.as_bytes()), number.parse::<Ipv4Addr>().is_ok(), "{number}");
        }
        assert!(is_spelt(&[b'a'; LABEL_MAX]) && !is_spelt(&[b'a'; LABEL_MAX + 1]));
    }

    #[test]
    fn the_default_port_need_not_be_written() {
        for (one, other, same) in [
            ("a", "a", true),
            ("a:80", "a", true),
            ("a", "a:80", true),
            ("a:443", "a", false),
            ("a:8080", "a", false),
            ("a:80", "b:80", false),
        ] {
            assert_eq!(is_same(one, other, 80), same, "{one} {other}");
        }
    }
}
