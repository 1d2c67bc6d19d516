//! Admission: from a head as an engine read it to the only form of it that the proxy sees (RFC 9112 section 3, RFC 9113
//! section 8, DESIGN 10).
//!
//! Owns what makes a request ambiguous although its octets parse: who it is for, which path it means, what it expects,
//! what it wants to become. Framing is the engine's. Invariant: what is admitted has one meaning for us and for every
//! origin behind us, or it is refused here.

use super::authority;
use super::fields::Fields;
use super::head::{RequestHead, Scheme, Version};
use super::method::{Method, is_tchar, is_token};
use super::name::{Name, Names};
use super::path;
use crate::base::swar;
use crate::error::{Error, Kind, Result};
use std::borrow::Cow;

/// Brings a head into the form that the proxy sees: `authority` set and in its one spelling, no Host field, `target` a
/// normalised path with its query untouched (or `*`), `scheme` the door's, an HTTP/2 Cookie in one line.
///
/// The scheme of an absolute target or of `:scheme` is not believed: it would let a client claim TLS. An HTTP/1.0
/// request without Host is admitted with an empty authority, which only rules without a host match.
///
/// Errors: 400 for every ambiguity, 417 for an expectation other than `100-continue`, 501 for CONNECT (an extended one,
/// RFC 8441, is admitted) and for TRACE, which would show a client what we and others added to its request.
pub fn admit(head: &mut RequestHead, door_scheme: Scheme) -> Result<()> {
    judge_method(head)?;
    if head.version == Version::Http2 {
        check_h2_fields(&head.fields)?;
        join_cookies(&mut head.fields);
    }
    let target = Target::read(head)?;
    if !put_only_host(head, &target)? {
        settle_authority(head, target.authority, door_scheme)?;
    }
    if let Some(spelt) = target.spelt {
        head.target = spelt;
    }
    head.scheme = door_scheme;
    head.fields.remove(Name::Host);
    judge_expectation(head)?;
    judge_upgrade(head)
}

/// Checks what HTTP/2 forbids in a field section (RFC 9113 sections 8.2 and 8.3); also for trailers. That content has
/// the length that Content-Length says is for whoever counts it.
pub fn check_h2_fields(fields: &Fields) -> Result<()> {
    for field in fields.iter() {
        if !field.name.iter().all(|&octet| is_tchar(octet) && !octet.is_ascii_uppercase()) || field.name.is_empty() {
            return Err(Error::bad_request("a field name that HTTP/2 does not allow"));
        }
        if field.value.first().into_iter().chain(field.value.last()).any(|octet| matches!(octet, b' ' | b'\t')) {
            return Err(Error::bad_request("a field value with whitespace around it"));
        }
        let allowed = match field.id {
            Name::Connection
            | Name::KeepAlive
            | Name::ProxyConnection
            | Name::TransferEncoding
            | Name::Upgrade
            | Name::Http2Settings => false,
            Name::Te => field.value.eq_ignore_ascii_case(b"trailers"),
            Name::ContentLength => !field.value.is_empty() && field.value.iter().all(u8::is_ascii_digit),
            _ => true,
        };
        if !allowed {
            return Err(Error::bad_request(format!("a {} field that HTTP/2 does not allow", field.id.as_str())));
        }
    }
    if fields.all(Name::ContentLength).count() > 1 {
        return Err(Error::bad_request("more than one Content-Length"));
    }
    Ok(())
}

/// The request target, read.
struct Target {
    /// The authority within it, in its one spelling, and the default port of its scheme.
    authority: Option<(String, u16)>,
    /// Normalised path and query, or `*`; `None` where it came so.
    spelt: Option<String>,
}

impl Target {
    fn read(head: &RequestHead) -> Result<Target> {
        let raw = head.target.as_str();
        if raw == "*" {
            return match head.method {
                Method::Options => Ok(Target { authority: None, spelt: None }),
                _ => Err(Error::bad_request("the target * is for OPTIONS only")),
            };
        }
        if raw.starts_with('/') {
            return Ok(Target { authority: None, spelt: spell(raw)? });
        }
        let absolute = absolute(raw).filter(|_| head.version != Version::Http2);
        let Some((default_port, rest)) = absolute else {
            return Err(Error::bad_request("the request target has none of the forms of HTTP"));
        };
        let (authority, local) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let authority = authority::normalise(authority.as_bytes()).map_err(Error::bad_request)?;
        let spelt = match local {
            "" if head.method == Method::Options => "*".to_owned(),
            _ if local.starts_with('/') => spell(local)?.unwrap_or_else(|| local.to_owned()),
            _ => {
                let local = format!("/{local}");
                spell(&local)?.unwrap_or(local)
            }
        };
        Ok(Target { authority: Some((authority, default_port)), spelt: Some(spelt) })
    }
}

/// The default port of the scheme, and what follows `scheme://`.
fn absolute(raw: &str) -> Option<(u16, &str)> {
    let (scheme, rest) = raw.split_once("://")?;
    match scheme.to_ascii_lowercase().as_str() {
        "http" => Some((80, rest)),
        "https" => Some((443, rest)),
        _ => None,
    }
}

/// The one spelling of path and query; `None` if that is how `target` is spelt.
fn spell(target: &str) -> Result<Option<String>> {
    let (path, query) = match swar::find_near(target.as_bytes(), b'?') {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    };
    let path = path::normalise(path).map_err(Error::bad_request)?;
    if query.is_some_and(|query| query.bytes().any(|octet| !octet.is_ascii_graphic() || octet == b'#')) {
        return Err(Error::bad_request("the query holds an octet that must be percent-encoded"));
    }
    Ok(match (path, query) {
        (Cow::Borrowed(_), _) => None,
        (Cow::Owned(path), None) => Some(path),
        (Cow::Owned(path), Some(query)) => Some(format!("{path}?{query}")),
    })
}

fn judge_method(head: &RequestHead) -> Result<()> {
    let extended = head.version == Version::Http2 && head.protocol.is_some();
    match (&head.method, extended) {
        (Method::Connect, false) => Err(Error::new(Kind::MethodNotImplemented, "CONNECT is not carried")),
        (Method::Trace, false) => Err(Error::new(Kind::MethodNotImplemented, "TRACE is not carried")),
        (Method::Connect, true) | (_, false) => Ok(()),
        (_, true) => Err(Error::bad_request(":protocol is for CONNECT only")),
    }
}

/// Sets the authority where one Host alone says it, as nearly always; whether it does.
fn put_only_host(head: &mut RequestHead, target: &Target) -> Result<bool> {
    let RequestHead { fields, authority, .. } = head;
    let mut hosts = fields.all(Name::Host);
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if target.authority.is_none() && authority.is_empty() => {
            authority::put(host, authority).map(|()| true).map_err(Error::bad_request)
        }
        _ => Ok(false),
    }
}

/// Sets who the request is for, when its target, `:authority` and Host agree.
fn settle_authority(head: &mut RequestHead, in_target: Option<(String, u16)>, door: Scheme) -> Result<()> {
    let host = one_host(&head.fields)?;
    let default_port = match in_target {
        Some((authority, port)) => {
            head.authority = authority;
            Some(port)
        }
        None if head.authority.is_empty() => None,
        None => {
            authority::respell(&mut head.authority).map_err(Error::bad_request)?;
            Some(if door == Scheme::Https { 443 } else { 80 })
        }
    };
    match (default_port, host) {
        (Some(port), Some(host)) if !authority::is_same(&head.authority, &host, port) => {
            Err(Error::bad_request("Host names another host than the request target"))
        }
        (Some(_), None) if head.version == Version::Http11 => Err(Error::bad_request("Host is missing")),
        (None, Some(host)) => {
            head.authority = host;
            Ok(())
        }
        (None, None) if head.version != Version::Http10 => Err(Error::bad_request("Host is missing")),
        _ => Ok(()),
    }
}

fn one_host(fields: &Fields) -> Result<Option<String>> {
    let mut hosts = fields.all(Name::Host);
    match (hosts.next(), hosts.next()) {
        (None, _) => Ok(None),
        (Some(host), None) => authority::normalise(host).map(Some).map_err(Error::bad_request),
        _ => Err(Error::bad_request("more than one Host")),
    }
}

/// HTTP/1.0 knows no expectations: they are ignored there (RFC 9110 section 10.1.1).
fn judge_expectation(head: &mut RequestHead) -> Result<()> {
    if !head.fields.has(Name::Expect) {
        return Ok(());
    }
    if head.version == Version::Http10 {
        head.fields.remove(Name::Expect);
    }
    if head.fields.all(Name::Expect).any(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
        return Err(Error::new(Kind::ExpectationFailed, "an expectation other than 100-continue"));
    }
    Ok(())
}

/// The fields that ask for another protocol.
const UPGRADES: Names = Names::of(&[Name::Upgrade, Name::Http2Settings]);

/// An upgrade to HTTP/2 in clear text would carry requests past the route table if an origin took it; clients that want
/// HTTP/2 here use TLS or prior knowledge, so it is refused and not just ignored.
fn judge_upgrade(head: &mut RequestHead) -> Result<()> {
    if head.protocol.is_none() && !head.fields.has_any(UPGRADES) {
        return Ok(());
    }
    head.fields.remove(Name::Http2Settings);
    if head.version == Version::Http10 {
        head.fields.remove(Name::Upgrade);
    }
    let asked = head.fields.elements(Name::Upgrade).chain(head.protocol.as_deref().map(str::as_bytes));
    for protocol in asked {
        let name = protocol.split(|&octet| octet == b'/').next().unwrap_or_default();
        if name.eq_ignore_ascii_case(b"h2c") || name.eq_ignore_ascii_case(b"h2") {
            return Err(Error::bad_request("an upgrade to HTTP/2: use TLS or prior knowledge"));
        }
        if !protocol.split(|&octet| octet == b'/').all(is_token) {
            return Err(Error::bad_request("an upgrade to something that is no protocol"));
        }
    }
    Ok(())
}

/// HTTP/2 may split Cookie into crumbs; everyone else knows one line (RFC 9113 section 8.2.3).
fn join_cookies(fields: &mut Fields) {
    let crumbs: Vec<&[u8]> = fields.all(Name::Cookie).collect();
    if crumbs.len() > 1 {
        let whole = crumbs.join(&b"; "[..]);
        fields.set(Name::Cookie, whole);
    }
}

#[cfg(test)]
mod tests;
