//! Where a request came from, as far as it may be believed: X-Forwarded-For, -Proto, -Host and Forwarded (RFC 7239).
//!
//! Every hop that we trust is known to write the address it was called from at the right end. So the list is read from
//! the right for as long as hops are trusted; the first address that is not is the client, and whatever stands left of
//! it is the client's own invention and is dropped. Invariant: nothing that an untrusted peer wrote goes on.

use super::authority;
use super::fields::Fields;
use super::head::Scheme;
use super::list;
use super::name::{Name, Names};
use crate::base::decimal::dotted;
use smallvec::{SmallVec, smallvec};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Hops that are read at most, from the right.
pub const HOPS_MAX: usize = 32;

/// What is believed of the way that a request came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Believed {
    /// The client.
    pub client: IpAddr,
    /// How it reached the first trusted hop.
    pub scheme: Scheme,
    /// The host that it asked that hop for, if a trusted hop says so.
    pub host: Option<String>,
    /// The client and the trusted hops after it, the one that called us last.
    chain: SmallVec<[IpAddr; 2]>,
    /// Whether who called us is trusted.
    by_trusted: bool,
}

/// One hop as a list tells it.
#[derive(Default)]
struct Hop {
    address: Option<IpAddr>,
    scheme: Option<Scheme>,
    host: Option<String>,
}

/// Reads the way of a request. `peer` is who called us, `door` how.
///
/// Where both X-Forwarded-For and Forwarded stand, the former counts: it is what nearly every proxy writes, and a list
/// that the trusted hop did not write would be the client's. IPv4-mapped addresses count as IPv4.
pub fn client_of(fields: &Fields, peer: IpAddr, door: Scheme, is_trusted: &dyn Fn(IpAddr) -> bool) -> Believed {
    let peer = peer.to_canonical();
    let by_trusted = is_trusted(peer);
    let mut believed = Believed { client: peer, scheme: door, host: None, chain: smallvec![peer], by_trusted };
    if by_trusted {
        believed.read(fields, is_trusted);
    }
    believed
}

/// The fields that are written anew.
const OURS: Names = Names::of(&[Name::XForwardedFor, Name::XForwardedProto, Name::XForwardedHost, Name::Forwarded]);

/// Writes the fields anew: X-Forwarded-For, -Proto and -Host always, Forwarded when asked for. `authority` is what the
/// request itself names.
pub fn rebuild(fields: &mut Fields, believed: &Believed, authority: &str, also_forwarded: bool) {
    if fields.has_any(OURS) || fields.may_begin(b'x') {
        fields.retain(|field| !OURS.hold(field.id) && (believed.by_trusted || !claims_origin(field.name)));
    }
    let host = believed.host.as_deref().unwrap_or(authority);
    match believed.chain[..] {
        [IpAddr::V4(address)] => fields.plain(Name::XForwardedFor, dotted(address.octets(), &mut [0; 16])),
        ref chain => fields.put(Name::XForwardedFor, Chain(chain)),
    }
    fields.add_line(Name::XForwardedProto, proto(believed.scheme));
    if !host.is_empty() {
        fields.add(Name::XForwardedHost, host);
    }
    if also_forwarded {
        fields.add(Name::Forwarded, believed.forwarded(host));
    }
}

/// The line of X-Forwarded-Proto.
fn proto(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Http => "x-forwarded-proto: http\r\n",
        Scheme::Https => "x-forwarded-proto: https\r\n",
    }
}

/// Addresses as X-Forwarded-For lists them.
struct Chain<'a>(&'a [IpAddr]);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(at, address)| {
            out.write_str(if at > 0 { ", " } else { "" })?;
            address.fmt(out)
        })
    }
}

impl Believed {
    /// Reads what trusted hops say, from the one that called us on.
    fn read(&mut self, fields: &Fields, is_trusted: &dyn Fn(IpAddr) -> bool) {
        let hops = if fields.has(Name::XForwardedFor) || !fields.has(Name::Forwarded) {
            hops_of_x(fields)
        } else {
            hops_of_forwarded(fields)
        };
        for hop in hops.into_iter().rev().take(HOPS_MAX) {
            self.scheme = hop.scheme.unwrap_or(self.scheme);
            self.host = hop.host.or(self.host.take());
            let Some(address) = hop.address else { break };
            self.chain.push(address);
            self.client = address;
            if !is_trusted(address) {
                break;
            }
        }
        self.chain.reverse();
    }

    fn forwarded(&self, host: &str) -> String {
        let mut out = String::new();
        for (at, address) in self.chain.iter().enumerate() {
            out += if at > 0 { ", " } else { "" };
            out += &match address {
                IpAddr::V4(address) => format!("for={address}"),
                IpAddr::V6(address) => format!("for=\"[{address}]\""),
            };
            if at == 0 {
                out += &format!(";proto={}", self.scheme.as_str());
                if !host.is_empty() {
                    // An authority holds nothing that a quoted string would have to escape.
                    out += &format!(";host=\"{host}\"");
                }
            }
        }
        out
    }
}

/// Fields by which applications learn where a request came from, beyond those that we write.
fn claims_origin(name: &[u8]) -> bool {
    let starts =
        |lower: &str| name.get(..lower.len()).is_some_and(|start| start.eq_ignore_ascii_case(lower.as_bytes()));
    starts("x-forwarded-") || name.eq_ignore_ascii_case(b"x-real-ip")
}

/// Proto and Host are lists as long as For, one value for each hop, or whatever the last hop says.
fn hops_of_x(fields: &Fields) -> Vec<Hop> {
    let texts = |name| fields.elements(name).map(|part| String::from_utf8_lossy(part)).collect::<Vec<_>>();
    let (addresses, schemes, hosts) =
        (texts(Name::XForwardedFor), texts(Name::XForwardedProto), texts(Name::XForwardedHost));
    let count = addresses.len().max(1);
    let at = |all: &[std::borrow::Cow<'_, str>], hop: usize| match all.len() {
        length if length == count => all.get(hop).map(ToString::to_string),
        _ if hop + 1 == count => all.last().map(ToString::to_string),
        _ => None,
    };
    let hop = |hop: usize| Hop {
        address: at(&addresses, hop).as_deref().and_then(address),
        scheme: at(&schemes, hop).as_deref().and_then(scheme),
        host: at(&hosts, hop).as_deref().and_then(host),
    };
    (0..count).map(hop).collect()
}

fn hops_of_forwarded(fields: &Fields) -> Vec<Hop> {
    let mut hops = Vec::new();
    for line in fields.all(Name::Forwarded) {
        let line = String::from_utf8_lossy(line);
        match list::split(&line, b',') {
            Some(elements) => hops.extend(elements.into_iter().map(hop)),
            // Half a quoted string: nothing in this line can be told apart, so nothing left of it is believed.
            None => hops.push(Hop::default()),
        }
    }
    hops
}

fn hop(element: &str) -> Hop {
    let mut hop = Hop::default();
    for pair in list::split(element, b';').unwrap_or_default() {
        let Some((name, value)) = pair.split_once('=') else { continue };
        let Some(value) = list::unquote(value.trim()) else { continue };
        match name.trim().to_ascii_lowercase().as_str() {
            "for" => hop.address = address(&value),
            "proto" => hop.scheme = scheme(&value),
            "host" => hop.host = host(&value),
            _ => {}
        }
    }
    hop
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches('"');
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let whole = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))?;
    Some(IpAddr::to_canonical(&whole))
}

fn scheme(text: &str) -> Option<Scheme> {
    match text.to_ascii_lowercase().as_str() {
        "http" | "ws" => Some(Scheme::Http),
        "https" | "wss" => Some(Scheme::Https),
        _ => None,
    }
}

fn host(text: &str) -> Option<String> {
    authority::normalise(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "10.0.0.9";

    /// Trusted are 10/8 and `fd00::1`. Answers with what goes on, one field after the other.
    fn rebuilt(peer: &str, lines: &str) -> String {
        let mut fields: Fields = lines.split('|').filter_map(|line| line.split_once(": ")).collect();
        let is_trusted = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets()[0] == 10,
            IpAddr::V6(address) => address.to_string() == "fd00::1",
        };
        let believed = client_of(&fields, peer.parse().unwrap(), Scheme::Http, &is_trusted);
        rebuild(&mut fields, &believed, "shop.example", true);
        let all: Vec<_> = fields.iter().map(|field| String::from_utf8_lossy(field.value).into_owned()).collect();
        assert_eq!(fields.text(Name::XForwardedFor).unwrap().split(", ").next().unwrap(), believed.client.to_string());
        all.join(" | ")
    }

    #[test]
    fn a_stranger_is_not_believed() {
        let own = "192.0.2.1 | http | shop.example | for=192.0.2.1;proto=http;host=\"shop.example\"";
        for lines in [
            "",
            "X-Forwarded-For: 1.1.1.1|X-Forwarded-Proto: https|X-Forwarded-Host: evil",
            "x-forwarded-for: 10.0.0.1",
            "Forwarded: for=1.1.1.1;proto=https",
            "X-Forwarded-Port: 443|X-Forwarded-Prefix: /x|X-Real-IP: 1.1.1.1|x-forwarded-: a",
        ] {
            assert_eq!(rebuilt("192.0.2.1", lines), own, "{lines}");
        }
        assert!(rebuilt("::ffff:192.0.2.1", "").starts_with("192.0.2.1 | "));
    }

    #[test]
    fn trusted_hops_are_believed_from_the_right() {
        let rows = [
            ("", "10.0.0.9 | http | shop.example"),
            ("X-Forwarded-For: 1.1.1.1", "1.1.1.1, 10.0.0.9 | http | shop.example"),
            ("X-Forwarded-For: 1.1.1.1:55, 10.0.0.1", "1.1.1.1, 10.0.0.1, 10.0.0.9 | http | shop.example"),
            ("X-Forwarded-For: 6.6.6.6, 1.1.1.1, 10.0.0.1", "1.1.1.1, 10.0.0.1, 10.0.0.9 | http | shop.example"),
            ("X-Forwarded-For: 6.6.6.6|X-Forwarded-For: 1.1.1.1", "1.1.1.1, 10.0.0.9 | http | shop.example"),
            ("X-Forwarded-For: 10.0.0.1, 10.0.0.2", "10.0.0.1, 10.0.0.2, 10.0.0.9 | http | shop.example"),
            ("X-Forwarded-For: 1.1.1.1, unknown", "10.0.0.9 | http | shop.example"),
            ("X-Forwarded-For: 1.1.1.1, unknown, 10.0.0.1", "10.0.0.1, 10.0.0.9 | http | shop.example"),
            ("X-Forwarded-For: [2001:db8::1]:443", "2001:db8::1, 10.0.0.9 | http | shop.example"),
            ("X-Forwarded-For: 2001:db8::1, fd00::1", "2001:db8::1, fd00::1, 10.0.0.9 | http | shop.example"),
            ("X-Forwarded-For: ::ffff:1.1.1.1", "1.1.1.1, 10.0.0.9 | http | shop.example"),
            ("X-Forwarded-Proto: https", "10.0.0.9 | https | shop.example"),
            (
                "X-Forwarded-For: 1.1.1.1|X-Forwarded-Proto: HTTPS|X-Forwarded-Host: Www.Example",
                "1.1.1.1, 10.0.0.9 | https | www.example",
            ),
            (
                "X-Forwarded-For: 6.6.6.6, 1.1.1.1|X-Forwarded-Proto: https, http",
                "1.1.1.1, 10.0.0.9 | http | shop.example",
            ),
            (
                "X-Forwarded-For: 1.1.1.1, 10.0.0.1|X-Forwarded-Proto: https, http",
                "1.1.1.1, 10.0.0.1, 10.0.0.9 | https | shop.example",
            ),
            (
                "X-Forwarded-For: 1.1.1.1|X-Forwarded-Proto: gopher|X-Forwarded-Host: a b",
                "1.1.1.1, 10.0.0.9 | http | shop.example",
            ),
            ("X-Forwarded-Port: 8443|X-Forwarded-For: 1.1.1.1", "8443 | 1.1.1.1, 10.0.0.9 | http | shop.example"),
            ("Forwarded: for=1.1.1.1;proto=https;host=www.example", "1.1.1.1, 10.0.0.9 | https | www.example"),
            (
                "Forwarded: For=\"[2001:db8::1]:80\";Host=\"a.example:81\", for=10.0.0.1;by=x",
                "2001:db8::1, 10.0.0.1, 10.0.0.9 | http | a.example:81",
            ),
            ("Forwarded: for=6.6.6.6, for=1.1.1.1, for=_hidden", "10.0.0.9 | http | shop.example"),
            (
                "Forwarded: for=6.6.6.6|Forwarded: for=1.1.1.1, for=10.0.0.1",
                "1.1.1.1, 10.0.0.1, 10.0.0.9 | http | shop.example",
            ),
            ("Forwarded: for=6.6.6.6, for=\"1.1.1.1", "10.0.0.9 | http | shop.example"),
            ("Forwarded: for=6.6.6.6;proto=https|X-Forwarded-For: 1.1.1.1", "1.1.1.1, 10.0.0.9 | http | shop.example"),
        ];
        for (lines, expected) in rows {
            let all = rebuilt(PEER, lines);
            assert_eq!(all.rsplit_once(" | ").unwrap().0, expected, "{lines}");
        }
    }

    #[test]
    fn forwarded_says_the_same() {
        let all = rebuilt(PEER, "X-Forwarded-For: 2001:db8::1, 10.0.0.1|X-Forwarded-Proto: https");
        let expected = "for=\"[2001:db8::1]\";proto=https;host=\"shop.example\", for=10.0.0.1, for=10.0.0.9";
        assert_eq!(all.rsplit_once(" | ").unwrap().1, expected);
    }

    #[test]
    fn a_long_list_is_cut() {
        let list = vec!["10.0.0.1"; 5000].join(", ");
        let all = rebuilt(PEER, &format!("X-Forwarded-For: {list}"));
        assert_eq!(all.split(" | ").next().unwrap().split(", ").count(), HOPS_MAX + 1);
    }
}
