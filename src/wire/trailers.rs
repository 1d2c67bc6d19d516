//! Which fields may stand in a trailer section (RFC 9110 section 6.5.1).
//!
//! A field that frames, routes, authenticates or describes the content must be known before the content; in a trailer
//! it could only mislead whoever merges trailers into the head. Such fields are dropped on the way in and never written.

use crate::message::{Field, Name};

/// Names, other than well-known ones, that may not stand in trailers.
const FORBIDDEN: [&str; 24] = [
    "authentication-info",
    "content-language",
    "content-location",
    "content-range",
    "expires",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "max-forwards",
    "origin",
    "pragma",
    "proxy-authentication-info",
    "referer",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "strict-transport-security",
    "warning",
    "www-authenticate",
    "x-forwarded-port",
    "x-real-ip",
];

/// Whether a field may stand in a trailer section.
pub fn may_stand(field: &Field<'_>) -> bool {
    match field.id {
        Name::Etag | Name::ProxyStatus => true,
        Name::Other => !is_forbidden(field.name),
        // The other well-known names are well known because heads are decided by them.
        _ => false,
    }
}

/// `_` counts as `-`: what stands behind us may map both to one variable (CGI).
fn is_forbidden(name: &[u8]) -> bool {
    let spelt: Vec<u8> = name.iter().map(|&c| if c == b'_' { b'-' } else { c.to_ascii_lowercase() }).collect();
    let text = spelt.as_slice();
    let known = Name::of(text) != Name::Other;
    known || text.starts_with(b"coordinator-") || FORBIDDEN.iter().any(|forbidden| forbidden.as_bytes() == text)
}
