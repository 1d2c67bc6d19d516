//! Which coding of content a client takes (RFC 9110 sections 8.4.1, 12.4.2 and 12.5.3).
//!
//! Owns the codings that we can make and the reading of Accept-Encoding; which answers are worth it is the proxy's to
//! know. Invariant: a coding that the client forbids, or does not name, is never chosen.

use super::fields::Fields;
use super::name::Name;

/// The content codings that we can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// RFC 8878, within the window of RFC 9659.
    Zstd,
    /// RFC 7932.
    Br,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// All of them, best first: at the default levels zstd costs an eighth of the others' time and is as small.
    pub const ALL: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];

    /// As Content-Encoding writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd",
            Coding::Br => "br",
            Coding::Gzip => "gzip",
        }
    }

    /// Whether a name means this coding; `x-gzip` is gzip (RFC 9110 section 8.4.1.3).
    fn is_named(self, name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(self.as_str().as_bytes())
            || (self == Coding::Gzip && name.eq_ignore_ascii_case(b"x-gzip"))
    }
}

/// Elements that are looked at; browsers send four.
const ELEMENTS_MAX: usize = 32;

/// The coding that a request likes best among `offered`; what is liked equally goes by the order of `offered`. `None`:
/// the content goes as it is, also where the client would rather have nothing than that (`identity;q=0`), because a
/// plain answer serves it better than a 406 (RFC 9110 section 12.5.3 leaves the choice to us).
///
/// Without the field any coding would be allowed, but whoever sends none is mostly unable to read any. An element with
/// a malformed weight is left out. A coding that is named twice gets its lower weight.
pub fn choose(fields: &Fields, offered: &[Coding]) -> Option<Coding> {
    let liked: Vec<_> = fields.elements(Name::AcceptEncoding).take(ELEMENTS_MAX).filter_map(element).collect();
    let weight =
        |is: &dyn Fn(&[u8]) -> bool| liked.iter().filter(|(name, _)| is(name)).map(|(_, weight)| *weight).min();
    let any = weight(&|name| name == b"*");
    let identity = weight(&|name| name.eq_ignore_ascii_case(b"identity")).or(any).unwrap_or(0);
    let mut best = None;
    let mut most = identity.max(1);
    for coding in offered {
        let liking = weight(&|name| coding.is_named(name)).or(any).unwrap_or(0);
        if liking > most || (liking == most && best.is_none()) {
            (best, most) = (Some(*coding), liking);
        }
    }
    best
}

/// A coding and its weight in thousandths; `None` if it is not `name` or `name;q=weight`.
fn element(text: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = text.split(|octet| *octet == b';').map(<[u8]>::trim_ascii);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let weight = match parts.next() {
        None => 1000,
        Some(weight) => {
            super::negotiate::quality(std::str::from_utf8(weight).ok()?.strip_prefix(['q', 'Q'])?.strip_prefix('=')?)?
        }
    };
    parts.next().is_none().then_some((name, weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(lines: &[&str], offered: &[Coding]) -> &'static str {
        let fields: Fields = lines.iter().map(|line| ("Accept-Encoding", *line)).collect();
        choose(&fields, offered).map_or("identity", Coding::as_str)
    }

    #[test]
    fn the_coding_that_is_liked_best() {
        for (line, coding) in [
            ("", "identity"),
            (",, ,", "identity"),
            ("gzip", "gzip"),
            ("GZIP", "gzip"),
            ("x-gzip", "gzip"),
            ("X-GZip;q=0.5", "gzip"),
            ("gzip, deflate, br, zstd", "zstd"),
            ("gzip, deflate, br", "br"),
            ("gzip, deflate", "gzip"),
            ("deflate, compress, dcz", "identity"),
            ("gzip;q=1, br;q=0.9, zstd;q=0.8", "gzip"),
            ("gzip;q=0.8, br;q=0.8", "br"),
            ("gzip;q=0.801, br;q=0.8", "gzip"),
            ("gzip;q=0", "identity"),
            ("gzip;q=0.000, br;q=0.001", "br"),
            ("*", "zstd"),
            ("*;q=0", "identity"),
            ("*;q=0, gzip", "gzip"),
            ("zstd;q=0, *", "br"),
            ("*;q=0.5, gzip", "gzip"),
            ("gzip;q=0.5, *;q=0.4", "gzip"),
            // Who prefers the content as it is gets it so; who forbids that and takes nothing else gets it too.
            ("identity", "identity"),
            ("identity, gzip;q=0.5", "identity"),
            ("identity;q=0.5, gzip;q=0.5", "gzip"),
            ("identity;q=0.5, gzip;q=0.6", "gzip"),
            ("identity;q=0, gzip;q=0.1", "gzip"),
            ("identity;q=0", "identity"),
            ("identity;q=0, *;q=0", "identity"),
            ("gzip;q=0.5, *", "zstd"),
            // What is said twice counts as the lower, and what is malformed not at all.
            ("gzip, gzip;q=0", "identity"),
            ("gzip;q=0, x-gzip", "identity"),
            ("gzip;q=1.001", "identity"),
            ("gzip;q=2, br", "br"),
            ("gzip;q=-1", "identity"),
            ("gzip;q=", "identity"),
            ("gzip;q=0.1234", "identity"),
            ("gzip;q=x, br;q=0.1", "br"),
            ("gzip;level=9", "identity"),
            ("gzip;q=1;q=0", "identity"),
            ("gzip;", "identity"),
            (";q=1", "identity"),
            ("gzip ; q=0.5", "gzip"),
            ("gzip;Q=0.5", "gzip"),
            ("gz ip", "identity"),
            ("\u{fc}ber, gzip", "gzip"),
            ("gzip;q=\u{fc}", "identity"),
        ] {
            assert_eq!(chosen(&[line], &Coding::ALL), coding, "{line}");
        }
    }

    #[test]
    fn the_order_of_the_server_decides_on_ties_and_lines_are_one_list() {
        use Coding::{Br, Gzip, Zstd};
        for (lines, offered, coding) in [
            (&["br, gzip, zstd"][..], &[Gzip, Br][..], "gzip"),
            (&["zstd;q=0.9, br, gzip"], &[Zstd, Gzip, Br], "gzip"),
            (&["zstd"], &[Gzip, Br], "identity"),
            (&["gzip", "br"], &[Br, Gzip], "br"),
            (&["gzip;q=0.1", "br;q=0"], &[Br, Gzip], "gzip"),
            (&["gzip"], &[], "identity"),
            (&[], &[Zstd, Br, Gzip], "identity"),
        ] {
            assert_eq!(chosen(lines, offered), coding, "{lines:?} {offered:?}");
        }
    }

    #[test]
    fn a_hostile_list_is_cut() {
        let long = "a,".repeat(ELEMENTS_MAX) + "gzip";
        assert_eq!(chosen(&[&long], &Coding::ALL), "identity");
    }
}
