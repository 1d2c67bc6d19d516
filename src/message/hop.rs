//! What ends at one connection and what must never come from outside (RFC 9110 section 7.6, DESIGN 10, Forwarding).
//!
//! Owns the removal of fields. The upgrade token is read by the caller before (`RequestHead::upgrade`), framing fields
//! are the engines' to write. Invariant: no field that Coordinator itself speaks with survives a public door.

use super::fields::{Field, Fields};
use super::head::RequestHead;
use super::method::Method;
use super::name::{Name, Names};

/// Fields that a Connection option cannot take away. They are meant for every recipient, and a client that could have
/// them removed would remove what a proxy before us relies on (RFC 9110 section 7.6.1 forbids senders to list them).
const END_TO_END: Names = Names::of(&[
    Name::Host,
    Name::ContentLength,
    Name::ContentType,
    Name::ContentEncoding,
    Name::Date,
    Name::Accept,
    Name::AcceptEncoding,
    Name::Authorization,
    Name::Cookie,
    Name::SetCookie,
    Name::CacheControl,
    Name::Etag,
    Name::Vary,
    Name::Location,
    Name::Expect,
    Name::Trailer,
    Name::Via,
    Name::Forwarded,
    Name::CdnLoop,
    Name::MaxForwards,
    Name::Range,
    Name::RetryAfter,
    Name::Allow,
    Name::Age,
    Name::IdempotencyKey,
    Name::ProxyStatus,
    Name::Traceparent,
    Name::UserAgent,
]);

/// Fields that are for one connection whatever Connection lists.
const FOR_CONNECTION: Names = Names::of(&[
    Name::Connection,
    Name::KeepAlive,
    Name::ProxyConnection,
    Name::Te,
    Name::TransferEncoding,
    Name::Upgrade,
    Name::Http2Settings,
    Name::ProxyAuthenticate,
    Name::ProxyAuthorization,
]);

/// The fields that Coordinator speaks with, as far as they have an id.
const INTERNAL: Names = Names::of(&[
    Name::Coordinator,
    Name::CoordinatorFwd,
    Name::CoordinatorEdge,
    Name::CoordinatorHome,
    Name::CoordinatorMoved,
    Name::CoordinatorUnknown,
    Name::CoordinatorLeader,
]);

/// Removes what was meant for this connection only from a request or a response: the fields that Connection lists and
/// those that always are. `TE: trailers` is kept alone, if it was asked for; Trailer is kept.
///
/// Credentials for a proxy go too: we ask for none, so they are nobody's behind us.
pub fn strip_connection(fields: &mut Fields) {
    if !fields.has_any(FOR_CONNECTION) {
        return;
    }
    let listed = listed(fields);
    let wants_trailers = fields.lists(Name::Te, "trailers");
    fields.retain(|field| {
        let goes = !listed.is_empty()
            && !is_protected(field)
            && listed.binary_search(&field.name.to_ascii_lowercase()).is_ok();
        !goes && !is_for_connection(field.id)
    });
    if wants_trailers {
        fields.add(Name::Te, "trailers");
    }
}

/// Removes `Coordinator` and every `Coordinator-*`, also spelt with `_`, from a public request or an origin's answer,
/// heads and trailers alike.
pub fn strip_internal(fields: &mut Fields) {
    if !fields.has_any(INTERNAL) && !fields.may_begin(b'c') {
        return;
    }
    fields.retain(|field| !is_internal(field.name));
}

/// Removes what could pose as another field at an origin: names with `_`, which CGI-like servers (WSGI, Rack, PHP) fold
/// with `-` into one variable, so that `X_Forwarded_For` would pass for ours; and `Proxy`, which the same servers turn
/// into the variable that names an outgoing proxy.
pub fn strip_aliases(fields: &mut Fields) {
    if !fields.may_hold_underscore() && !fields.may_begin(b'p') {
        return;
    }
    fields.retain(|field| !field.name.contains(&b'_') && !field.name.eq_ignore_ascii_case(b"proxy"));
}

/// Spends one hop of the Max-Forwards of an OPTIONS request (RFC 9110 section 7.6.2). `false`: none is left, and we are
/// the one to answer. A value that is no number is ignored, as for any other method.
pub fn spend_forward(head: &mut RequestHead) -> bool {
    if head.method != Method::Options {
        return true;
    }
    match head.fields.text(Name::MaxForwards).and_then(|text| text.parse::<u32>().ok()) {
        Some(0) => false,
        Some(left) => {
            head.fields.set(Name::MaxForwards, (left - 1).to_string());
            true
        }
        None => true,
    }
}

/// The names that Connection lists, sorted, without those that go anyway: nearly always none. Sorted, because a hostile
/// head may list tens of thousands.
fn listed(fields: &Fields) -> Vec<Vec<u8>> {
    let goes_anyway = |option: &[u8]| option.eq_ignore_ascii_case(b"close") || is_for_connection(Name::of(option));
    let options = fields.elements(Name::Connection).filter(|option| !goes_anyway(option));
    let mut listed: Vec<_> = options.map(<[u8]>::to_ascii_lowercase).collect();
    listed.sort_unstable();
    listed
}

fn is_for_connection(id: Name) -> bool {
    FOR_CONNECTION.hold(id)
}

fn is_protected(field: Field<'_>) -> bool {
    END_TO_END.hold(field.id)
        || is_internal(field.name)
        || starts_with(field.name, b"x-forwarded-")
        || starts_with(field.name, b"content-")
        || starts_with(field.name, b"access-control-")
        || field.name.eq_ignore_ascii_case(b"x-real-ip")
}

fn is_internal(name: &[u8]) -> bool {
    let Some((stem, rest)) = name.split_at_checked(b"coordinator".len()) else { return false };
    stem.eq_ignore_ascii_case(b"coordinator") && matches!(rest.first(), None | Some(b'-' | b'_'))
}

fn starts_with(name: &[u8], lower: &[u8]) -> bool {
    name.get(..lower.len()).is_some_and(|start| start.eq_ignore_ascii_case(lower))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        text.split('|').filter_map(|line| line.split_once(": ")).collect()
    }

    fn names(fields: &Fields) -> String {
        fields.iter().map(|field| String::from_utf8_lossy(field.name).into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_ends_here() {
        let rows = [
            ("Accept: a|Connection: close|X: 1", "Accept X"),
            ("Connection: X-A, x-b|x-a: 1|X-B: 2|X-C: 3", "X-C"),
            ("Connection: x-a|Connection: ,, x-b ,|x-a: 1|x-b: 2", ""),
            ("Keep-Alive: 1|Proxy-Connection: 1|Transfer-Encoding: chunked|Upgrade: a|HTTP2-Settings: a|a: 1", "a"),
            ("Proxy-Authorization: a|Proxy-Authenticate: b", ""),
            ("TE: gzip|a: 1", "a"),
            ("TE: gzip, Trailers|Connection: TE|a: 1", "a te"),
            ("Trailer: x|Connection: trailer", "Trailer"),
            (
                "Connection: host, content-length, authorization, cookie|Cookie: a|Authorization: b|Content-Length: 1",
                "Cookie Authorization Content-Length",
            ),
            (
                "Connection: X-Forwarded-For, X-Forwarded-Proto, coordinator-fwd, forwarded|X-Forwarded-For: 1|x-forwarded-proto: a|coordinator-fwd: x|forwarded: b",
                "X-Forwarded-For x-forwarded-proto coordinator-fwd forwarded",
            ),
            (
                "Connection: set-cookie, cache-control, content-range, via|Set-Cookie: a|Cache-Control: b|Content-Range: c|Via: d",
                "Set-Cookie Cache-Control Content-Range Via",
            ),
        ];
        for (lines, left) in rows {
            let mut fields = fields(lines);
            strip_connection(&mut fields);
            assert_eq!(names(&fields), left, "{lines}");
        }
    }

    #[test]
    fn what_is_ours_alone() {
        let rows = [
            ("Coordinator: a|COORDINATOR-FWD: b|Coordinator_Home: c|coordinator-x_y: d|a: 1", "a"),
            (
                "coordinators: a|Coordinato: b|x-coordinator: c|coordinator.x: d",
                "coordinators Coordinato x-coordinator coordinator.x",
            ),
        ];
        for (lines, left) in rows {
            let mut fields = fields(lines);
            strip_internal(&mut fields);
            assert_eq!(names(&fields), left, "{lines}");
        }
        let mut aliases = fields("X_Forwarded_For: 1|a_b: 2|Proxy: x|proxy-a: y|_: z|a: 1");
        strip_aliases(&mut aliases);
        assert_eq!(names(&aliases), "proxy-a a");
    }

    #[test]
    fn forwards_are_spent_on_options_only() {
        for (method, value, goes_on, left) in [
            (Method::Options, "0", false, "0"),
            (Method::Options, "3", true, "2"),
            (Method::Options, "x", true, "x"),
            (Method::Options, "-1", true, "-1"),
            (Method::Get, "0", true, "0"),
        ] {
            let mut head = RequestHead::new(method, "/");
            head.fields.add(Name::MaxForwards, value);
            assert_eq!(spend_forward(&mut head), goes_on, "{value}");
            assert_eq!(head.fields.text(Name::MaxForwards), Some(left));
        }
    }
}
