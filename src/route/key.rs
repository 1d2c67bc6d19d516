//! Keys: where a request names the user (or team, or shop) that its home route is about (DESIGN 10, Keys).
//!
//! A key is percent-decoded exactly once, wherever it stands, so that path, cookie, JSON and Location yield the same
//! string; `+` is a plus everywhere, also in a query. Invariant: a request has one key or it is refused; where two
//! values stand, an origin might read the other one.

use super::KeySource;
use super::pattern::Pattern;
use super::table::Matched;
use crate::error::{Error, Kind, Result};
use crate::message::{Name, RequestHead, authority, path};

/// Octets of a key.
pub const KEY_LEN_MAX: usize = 255;

/// The key of a request. Errors: `NoKey` (400) if it is missing, ambiguous or none.
pub fn key(source: &KeySource, matched: &Matched<'_, '_>, head: &RequestHead) -> Result<String> {
    let raw = match source {
        KeySource::Capture(name) | KeySource::HostLabel(name) => matched.capture(name).map(str::to_owned),
        KeySource::Header(name) => one(head.fields.named(name), false)?,
        KeySource::Cookie(name) => one(cookies(head, name), true)?,
        KeySource::Query(name) => one(parameters(head, name), true)?,
    };
    match raw.as_deref().map(decoded) {
        Some(Some(key)) => Ok(key),
        Some(None) => Err(no_key(source, "is not 1 to 255 octets of text")),
        None => Err(no_key(source, "is missing")),
    }
}

/// Whether a text can be a key: 1 to 255 octets, no control characters.
pub fn is_key(text: &str) -> bool {
    (1..=KEY_LEN_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// The key that `pattern` takes out of a Location (absolute, or relative to the request `base`) by the capture `name`.
/// `None` if it does not match, or is no key.
pub fn from_location(pattern: &Pattern, name: &str, location: &str, base: &RequestHead) -> Option<String> {
    let location = location.trim_ascii();
    let end = location.find(['?', '#']).unwrap_or(location.len());
    let (host, raw) = resolve(location.get(..end)?, base)?;
    let path = path::normalise(&raw).ok()?;
    let captures = pattern.capture(&host, &path)?;
    let (_, value) = captures.iter().find(|(own, _)| *own == name)?;
    decoded(value)
}

/// Host and path of a reference without query (RFC 3986 section 5.2).
fn resolve(reference: &str, base: &RequestHead) -> Option<(String, String)> {
    let schemes = ["http:", "https:"];
    let local = schemes.iter().find_map(|scheme| {
        let (start, rest) = reference.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    if let Some(rest) = local.unwrap_or(reference).strip_prefix("//") {
        let (named, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let mut other = RequestHead::new(crate::message::Method::Get, "/");
        other.authority = authority::normalise(named.as_bytes()).ok()?;
        let path = if path.is_empty() { "/" } else { path };
        return Some((other.host().to_owned(), path.to_owned()));
    }
    let first = reference.split('/').next().unwrap_or_default();
    if local.is_some() || first.contains(':') {
        return None;
    }
    let path = match reference {
        "" => base.path().to_owned(),
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => format!("{}/{relative}", base.path().rsplit_once('/').map_or("", |(folder, _)| folder)),
    };
    Some((base.host().to_owned(), path))
}

fn decoded(raw: &str) -> Option<String> {
    path::decode(raw).filter(|key| is_key(key))
}

fn no_key(source: &KeySource, what: &str) -> Error {
    let place = match source {
        KeySource::Capture(name) => format!("`{name}` in the path"),
        KeySource::HostLabel(name) => format!("`{name}` in the host"),
        KeySource::Header(name) => format!("field `{name}`"),
        KeySource::Cookie(name) => format!("cookie `{name}`"),
        KeySource::Query(name) => format!("parameter `{name}`"),
    };
    Error::new(Kind::NoKey, format!("the key, {place}, {what}"))
}

/// The only value; where `same` values may repeat, repetition is no ambiguity.
fn one<'a>(mut values: impl Iterator<Item = &'a [u8]>, same: bool) -> Result<Option<String>> {
    let Some(first) = values.next() else { return Ok(None) };
    if values.any(|other| !same || other != first) {
        return Err(Error::new(Kind::NoKey, "the key stands more than once"));
    }
    let text = std::str::from_utf8(first).map_err(|_| Error::new(Kind::NoKey, "the key is not UTF-8"))?;
    Ok(Some(text.to_owned()))
}

/// The values of a cookie (RFC 6265 section 5.4 writes it, 4.1.1 is its grammar), without quotes around them.
pub fn cookies<'a>(head: &'a RequestHead, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let pairs = head.fields.all(Name::Cookie).flat_map(|line| line.split(|&octet| octet == b';'));
    pairs.filter_map(move |pair| {
        let pair = pair.trim_ascii();
        let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(value.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(value))
    })
}

/// The values of a query parameter, still encoded. Names are compared decoded, as origins do.
fn parameters<'a>(head: &'a RequestHead, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let pairs = head.query().unwrap_or_default().split('&');
    pairs.filter_map(move |pair| {
        let (own, value) = pair.split_once('=').unwrap_or((pair, ""));
        (path::decode(own)? == name).then_some(value.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::RouteId;
    use crate::message::{Fields, Method};
    use crate::route::table::{Query, Table};
    use crate::route::{Action, Place, Rule};

    fn asked(source: &KeySource, authority: &str, target: &str, fields: Fields) -> String {
        let pattern = Pattern::parse("{tenant}.example.com/u/{user}/").unwrap();
        let action = Action::To(vec![Place::Local]);
        let table = Table::build(vec![Rule { id: RouteId(0), pattern, when: None, action, key: None }]).unwrap();
        let mut head = RequestHead::new(Method::Get, target);
        head.authority = authority.to_owned();
        head.fields = fields;
        let query = Query { method: &head.method, host: head.host(), path: head.path(), fields: &head.fields };
        let matched = table.find(query, &|_| false).unwrap();
        match key(source, &matched, &head) {
            Ok(key) => key,
            Err(error) => format!("{}", error.status()),
        }
    }

    #[test]
    fn a_request_has_one_key() {
        let long = "x".repeat(255);
        let (capture, query) = (KeySource::Capture("user".into()), KeySource::Query("u".into()));
        let (cookie, header) = (KeySource::Cookie("sid".into()), KeySource::Header("x-user".into()));
        let rows: Vec<(&KeySource, String, &str, &str, &str)> = vec![
            (&capture, "/u/448/a".into(), "", "", "448"),
            (&capture, "/u/a%2Fb%20c".into(), "", "", "a/b c"),
            (&capture, "/u/%2541".into(), "", "", "%41"),
            (&capture, "/u/caf%C3%A9".into(), "", "", "caf\u{e9}"),
            (&capture, "/u/a+b".into(), "", "", "a+b"),
            (&capture, "/u/%C3".into(), "", "", "400"),
            (&capture, "/u/%0A".into(), "", "", "400"),
            (&capture, "/u/%C2%85".into(), "", "", "400"),
            (&capture, format!("/u/{long}"), "", "", &long),
            (&capture, format!("/u/{long}x"), "", "", "400"),
            (&query, "/u/1?u=448".into(), "", "", "448"),
            (&query, "/u/1?a=1&u=a%20b&c".into(), "", "", "a b"),
            (&query, "/u/1?%75=5".into(), "", "", "5"),
            (&query, "/u/1?u=5&u=5".into(), "", "", "5"),
            (&query, "/u/1?u=5&u=6".into(), "", "", "400"),
            (&query, "/u/1?u=5&%75=6".into(), "", "", "400"),
            (&query, "/u/1?u=a+b".into(), "", "", "a+b"),
            (&query, "/u/1?u=".into(), "", "", "400"),
            (&query, "/u/1?u".into(), "", "", "400"),
            (&query, "/u/1?u=%zz".into(), "", "", "400"),
            (&query, "/u/1?uu=5".into(), "", "", "400"),
            (&query, "/u/1".into(), "", "", "400"),
            (&cookie, "/u/1".into(), "cookie", "a=1; sid=448; b=2", "448"),
            (&cookie, "/u/1".into(), "Cookie", "sid=\"448\"", "448"),
            (&cookie, "/u/1".into(), "cookie", "sid=a%3Db=c", "a=b=c"),
            (&cookie, "/u/1".into(), "cookie", "sid=1; sid=1", "1"),
            (&cookie, "/u/1".into(), "cookie", "sid=1; sid=2", "400"),
            (&cookie, "/u/1".into(), "cookie", "xsid=1; SID=2; sid", "400"),
            (&cookie, "/u/1".into(), "cookie", "sid=", "400"),
            (&header, "/u/1".into(), "X-User", "448", "448"),
            (&header, "/u/1".into(), "X-User", "a%20b", "a b"),
            (&header, "/u/1".into(), "X-User", "", "400"),
            (&header, "/u/1".into(), "X-Other", "448", "400"),
        ];
        for (source, target, name, value, expected) in rows {
            let fields = [(name, value)].into_iter().filter(|(name, _)| !name.is_empty()).collect();
            assert_eq!(asked(source, "acme.example.com:81", &target, fields), expected, "{source:?} {target} {value}");
        }
        let label = KeySource::HostLabel("tenant".into());
        assert_eq!(asked(&label, "acme.example.com:81", "/u/1", Fields::new()), "acme");
        let twice: Fields = [("x-user", "1"), ("X-User", "1")].into_iter().collect();
        assert_eq!(asked(&header, "a.example.com", "/u/1", twice), "400");
        let two: Fields = [("cookie", "sid=1"), ("cookie", "sid=2")].into_iter().collect();
        assert_eq!(asked(&cookie, "a.example.com", "/u/1", two), "400");
        let mut raw = Fields::new();
        raw.push(b"x-user", b"\xff");
        assert_eq!(asked(&header, "a.example.com", "/u/1", raw), "400");
    }

    #[test]
    fn a_location_names_the_new_key() {
        let pattern = Pattern::parse("/v1/users/{user}").unwrap();
        let mut base = RequestHead::new(Method::Post, "/v1/users?x=/y/");
        base.authority = "shop.example".to_owned();
        for (location, expected) in [
            ("/v1/users/448", Some("448")),
            ("/v1/users/448?a=b", Some("448")),
            ("/v1/users/448#frag", Some("448")),
            ("/v1/users/a%2fb", Some("a/b")),
            ("/v1/./users//448", Some("448")),
            (" /v1/users/448 ", Some("448")),
            ("https://shop.example/v1/users/448", Some("448")),
            ("HTTP://other.example:81/v1/users/448", Some("448")),
            ("//other.example/v1/users/448", Some("448")),
            ("users/448", Some("448")),
            ("./users/448", Some("448")),
            ("../v1/users/448", Some("448")),
            ("/v1/users/448/", None),
            ("/v1/users/", None),
            ("/v2/users/448", None),
            ("448", None),
            ("", None),
            ("https:/v1/users/448", None),
            ("https://u@a/v1/users/448", None),
            ("mailto:v1/users/448", None),
            ("javascript:/v1/users/448", None),
            ("/v1/users/%00", None),
            ("/v1/users/%0a", None),
            ("/v1/users/caf\u{e9}", None),
        ] {
            assert_eq!(from_location(&pattern, "user", location, &base).as_deref(), expected, "{location}");
        }
        assert_eq!(from_location(&pattern, "id", "/v1/users/448", &base), None);
        let hosted = Pattern::parse("{user}.shop.example/").unwrap();
        assert_eq!(from_location(&hosted, "user", "https://Acme.shop.example/x", &base).as_deref(), Some("acme"));
        assert_eq!(from_location(&hosted, "user", "/x", &base), None);
    }
}
