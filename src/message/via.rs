//! Who has handled a message: Via (RFC 9110 section 7.6.3) and CDN-Loop (RFC 8586).
//!
//! Via is for people; loops are found by CDN-Loop alone, which nobody may strip. Our token there is the deployment: a
//! request that comes back to a public door of any of our edges has gone round.

use super::fields::{Fields, Ready};
use super::head::Version;
use super::list;
use super::method::{is_tchar, is_token};
use super::name::Name;
use std::fmt::{self, Write as _};

/// Who we are, as both fields say it: lines that are made once and appended to every message.
#[derive(Debug)]
pub struct Mark {
    /// Via, for each version that a message may have come in.
    via: [Ready; 3],
    cdn_loop: Ready,
}

impl Mark {
    /// The mark of an edge of a deployment.
    pub fn new(deployment: &str, edge: &str) -> Mark {
        let (deployment, edge) = (Token(deployment), Token(edge));
        let via = |received: Version| Ready::new(Name::Via, format_args!("{} {deployment}-{edge}", received.as_str()));
        Mark { via: VERSIONS.map(via), cdn_loop: Ready::new(Name::CdnLoop, format_args!("{deployment}; e={edge}")) }
    }

    /// Adds our line to Via: the version that the message came in, and who we are.
    pub fn add_via(&self, fields: &mut Fields, received: Version) {
        fields.add_ready(&self.via[received as usize]);
    }

    /// The same, and our line to CDN-Loop: for requests. Those of others stay.
    pub fn add_both(&self, fields: &mut Fields, received: Version) {
        self.add_via(fields, received);
        fields.add_ready(&self.cdn_loop);
    }
}

/// Each at its place as a number.
const VERSIONS: [Version; 3] = [Version::Http10, Version::Http11, Version::Http2];

/// Whether the request has passed an edge of this deployment before.
///
/// Each line is read by itself, and a line with half a quoted string is split at every comma, so that nothing that a
/// client writes before our element hides it.
pub fn has_passed(fields: &Fields, deployment: &str) -> bool {
    if !fields.has(Name::CdnLoop) {
        return false;
    }
    let own = Token(deployment).to_string();
    fields.all(Name::CdnLoop).any(|line| {
        let line = String::from_utf8_lossy(line);
        let elements = list::split(&line, b',').unwrap_or_else(|| line.split(',').collect());
        let mut ids = elements.into_iter().map(|element| element.split(';').next().unwrap_or_default().trim());
        ids.any(|id| id.eq_ignore_ascii_case(&own))
    })
}

/// A name as a token: what may not stand in one becomes `-`.
struct Token<'a>(&'a str);

impl fmt::Display for Token<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_token(self.0.as_bytes()) {
            return out.write_str(self.0);
        }
        if self.0.is_empty() {
            return out.write_char('-');
        }
        self.0.bytes().try_for_each(|octet| out.write_char(if is_tchar(octet) { char::from(octet) } else { '-' }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_are_added_after_those_of_others() {
        let mut fields: Fields = [("via", "1.0 x"), ("cdn-loop", "other; a=\"1,shop\"")].into_iter().collect();
        assert!(!has_passed(&fields, "shop"));
        let mark = Mark::new("shop", "fr");
        mark.add_both(&mut fields, Version::Http2);
        assert_eq!(fields.all(Name::Via).collect::<Vec<_>>(), [&b"1.0 x"[..], b"2 shop-fr"]);
        assert_eq!(fields.all(Name::CdnLoop).nth(1), Some(&b"shop; e=fr"[..]));
        assert!(has_passed(&fields, "shop"));
        mark.add_via(&mut fields, Version::Http10);
        assert_eq!(fields.all(Name::Via).nth(2), Some(&b"1.0 shop-fr"[..]));
    }

    #[test]
    fn loops_are_seen() {
        for (line, seen) in [
            ("shop", true),
            ("SHOP; e=fr", true),
            ("a, shop ;e=de, b", true),
            ("a; x=\"y, z\", shop", true),
            ("\"half, shop; e=fr", true),
            ("shopping", false),
            ("a; e=shop", false),
            ("a; x=\"1, shop, 2\"", false),
            ("", false),
        ] {
            let fields: Fields = [("CDN-Loop", line)].into_iter().collect();
            assert_eq!(has_passed(&fields, "shop"), seen, "{line}");
        }
    }

    #[test]
    fn a_strange_name_splits_nothing() {
        let mut fields = Fields::new();
        Mark::new("my shop, x", "").add_both(&mut fields, Version::Http11);
        assert_eq!(fields.text(Name::CdnLoop), Some("my-shop--x; e=-"));
        assert!(has_passed(&fields, "my shop, x"));
    }
}
