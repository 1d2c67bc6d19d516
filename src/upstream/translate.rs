//! Heads between our own form and that of the `h2` crate. Pure.

use crate::error::{Error, Kind, Result};
use crate::message::{Field, Fields, Method, Name, RequestHead, ResponseHead, Version};
use crate::wire::{HeadLimits, framing, trailers};
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY};
use std::borrow::Cow;

/// A request for HTTP/2: connection fields left out, `content-length` as `length` says, `:protocol` for an `upgrade`.
///
/// Errors: `HttpRequestError` for a target, authority or method that HTTP/2 cannot say.
pub(super) fn request(head: &RequestHead, length: Option<u64>, upgrade: Option<&str>) -> Result<http::Request<()>> {
    let refused = |what: &'static str| Error::new(Kind::HttpRequestError, what);
    let method = if upgrade.is_some() { "CONNECT" } else { head.method.as_str() };
    if head.target.contains('#') {
        // `http` would drop a fragment in silence.
        return Err(refused("the target holds a fragment"));
    }
    let uri = http::Uri::builder()
        .scheme(head.scheme.as_str())
        .authority(head.authority.as_str())
        .path_and_query(target(&head.target).as_ref())
        .build()
        .map_err(|_| refused("the target cannot be sent over HTTP/2"))?;
    let mut message = http::Request::new(());
    *message.method_mut() = http::Method::from_bytes(method.as_bytes()).map_err(|_| refused("an odd method"))?;
    *message.uri_mut() = uri;
    *message.version_mut() = http::Version::HTTP_2;
    *message.headers_mut() = headers(&head.fields);
    let expected = matches!(head.method, Method::Post | Method::Put | Method::Patch);
    if let Some(length) = length.filter(|length| *length > 0 || expected) {
        message.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    if let Some(protocol) = upgrade {
        // The stream itself is the proof that HTTP/1.1 has the key for (RFC 8441 section 5).
        message.headers_mut().remove(SEC_WEBSOCKET_KEY);
        message.extensions_mut().insert(h2::ext::Protocol::from(protocol));
    }
    Ok(message)
}

/// The target, with the few octets escaped that HTTP/1.1 clients send raw against RFC 3986 and `http` refuses.
fn target(target: &str) -> Cow<'_, str> {
    if !target.contains(['"', '<', '>', '`']) {
        return Cow::Borrowed(target);
    }
    let escaped = [("\"", "%22"), ("<", "%3C"), (">", "%3E"), ("`", "%60")];
    Cow::Owned(escaped.iter().fold(target.to_owned(), |target, (raw, escape)| target.replace(raw, escape)))
}

/// The trailer section of a request, without what may not stand there.
pub(super) fn trailers(fields: &Fields) -> HeaderMap {
    headers_where(fields, trailers::may_stand)
}

/// The trailer section of an answer in our form, without what may not stand there.
pub(super) fn trailer_fields(map: &HeaderMap) -> Fields {
    let mut fields = fields(map);
    fields.retain(|field| trailers::may_stand(&field));
    fields
}

/// Fields without those that only mean the connection (RFC 9113 section 8.2.2) or are said otherwise in HTTP/2.
fn headers(fields: &Fields) -> HeaderMap {
    headers_where(fields, |field| travels(field.id, field.value))
}

fn headers_where(fields: &Fields, keep: impl Fn(&Field<'_>) -> bool) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields.iter().filter(keep) {
        let (name, value) = (HeaderName::from_bytes(field.name), HeaderValue::from_bytes(field.value));
        // What is no field cannot come from an engine; it is left out, as in HTTP/1.1.
        if let (Ok(name), Ok(mut value)) = (name, value) {
            value.set_sensitive(matches!(field.id, Name::Authorization | Name::Cookie));
            map.append(name, value);
        }
    }
    map
}

fn travels(id: Name, value: &[u8]) -> bool {
    match id {
        Name::Connection
        | Name::KeepAlive
        | Name::ProxyConnection
        | Name::TransferEncoding
        | Name::Upgrade
        | Name::Http2Settings
        | Name::ContentLength
        | Name::Host => false,
        Name::Te => value.eq_ignore_ascii_case(b"trailers"),
        _ => true,
    }
}

/// A response head in our form.
///
/// Errors: `HttpProtocolError` for 101, which HTTP/2 does not have, and for a length that is none;
/// `HttpResponseHeaderSectionSize` for too many fields.
pub(super) fn response(head: http::response::Parts, limits: &HeadLimits) -> Result<ResponseHead> {
    let status = head.status.as_u16();
    if status == 101 {
        return Err(Error::new(Kind::HttpProtocolError, "a 101 over HTTP/2"));
    }
    if head.headers.len() > limits.fields {
        return Err(Error::new(Kind::HttpResponseHeaderSectionSize, "too many fields"));
    }
    let fields = fields(&head.headers);
    if fields.has(Name::ContentLength) && framing::stated_length(&fields).is_none() {
        return Err(Error::new(Kind::HttpProtocolError, "malformed Content-Length"));
    }
    Ok(ResponseHead { status, version: Version::Http2, fields })
}

/// A field section in our form.
pub(super) fn fields(map: &HeaderMap) -> Fields {
    let mut fields = Fields::with_room(0);
    for (name, value) in map {
        fields.push(name.as_str().as_bytes(), value.as_bytes());
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(method: Method, target: &str, length: Option<u64>, upgrade: Option<&str>) -> String {
        let mut head = RequestHead::new(method, target);
        head.authority = "site.example:8080".to_owned();
        for (name, value) in [
            ("Accept", "a"),
            ("accept", "b"),
            ("Host", "evil"),
            ("Connection", "x"),
            ("TE", "gzip"),
            ("te", "trailers"),
            ("Content-Length", "99"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "h2c"),
            ("Sec-WebSocket-Key", "k"),
            ("bad name", "v"),
        ] {
            head.fields.push(name.as_bytes(), value.as_bytes());
        }
        match request(&head, length, upgrade) {
            Ok(message) => format!("{} {} {:?}", message.method(), message.uri(), message.headers()),
            Err(error) => error.kind().name().to_owned(),
        }
    }

    #[test]
    fn requests_say_the_same_in_http2() {
        let fields = r#""accept": "a", "accept": "b", "te": "trailers""#;
        let keyless = fields;
        let fields = format!(r#"{fields}, "sec-websocket-key": "k""#);
        for (method, target, length, upgrade, expected) in [
            (Method::Get, "/a?b", Some(0), None, format!("GET http://site.example:8080/a?b {{{fields}}}")),
            (
                Method::Get,
                "/{a}|^%5C<`>?\"'<{|}>`",
                None,
                None,
                format!("GET http://site.example:8080/{{a}}|^%5C%3C%60%3E?%22'%3C{{|}}%3E%60 {{{fields}}}"),
            ),
            (Method::Options, "*", Some(0), None, format!("OPTIONS http://site.example:8080* {{{fields}}}")),
            (Method::Get, "/a#b", None, None, "http_request_error".to_owned()),
            (Method::Get, "a", None, None, "http_request_error".to_owned()),
            (Method::Get, "/a b", None, None, "http_request_error".to_owned()),
            (
                Method::Post,
                "/",
                Some(0),
                None,
                format!("POST http://site.example:8080/ {{{fields}, \"content-length\": \"0\"}}"),
            ),
            (
                Method::Get,
                "/chat",
                None,
                Some("websocket"),
                format!("CONNECT http://site.example:8080/chat {{{keyless}}}"),
            ),
        ] {
            assert_eq!(shown(method, target, length, upgrade), expected);
        }
    }

    #[test]
    fn trailers_hold_only_what_may_stand_there() {
        let pairs = [
            ("grpc-status", "0"),
            ("grpc-message", "a%20b"),
            ("etag", "W"),
            ("Coordinator", "as=home"),
            ("Coordinator-Fwd", "v=1"),
            ("coordinator-moved", "us"),
            ("Coordinator_Home", "fr"),
            ("coordinator-of-tomorrow", "x"),
            ("content-length", "9"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("authorization", "x"),
            ("set-cookie", "a=b"),
            ("x-forwarded-for", "10.0.0.1"),
            ("sec-websocket-accept", "x"),
        ];
        let ours: Fields = pairs.into_iter().collect();
        let sent = trailers(&ours);
        let names: Vec<_> = sent.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["grpc-status", "grpc-message", "etag"]);
        let mut theirs = HeaderMap::new();
        for (name, value) in pairs {
            theirs.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static(value));
        }
        let received = format!("{:?}", trailer_fields(&theirs));
        assert_eq!(received, "[grpc-status: 0, grpc-message: a%20b, etag: W]");
    }

    #[test]
    fn responses_keep_order_and_repetition_within_bounds() {
        let limits = HeadLimits { head: 1000, fields: 3, uri: 0 };
        let answer = |status: u16, count: usize| {
            let mut builder = http::Response::builder().status(status);
            for at in 0..count {
                builder = builder.header("set-cookie", at);
            }
            let (head, ()) = builder.body(()).unwrap().into_parts();
            response(head, &limits).map(|head| format!("{:?}", head.fields)).map_err(|error| error.kind())
        };
        assert_eq!(answer(200, 3), Ok("[set-cookie: 0, set-cookie: 1, set-cookie: 2]".to_owned()));
        assert_eq!(answer(200, 4), Err(Kind::HttpResponseHeaderSectionSize));
        assert_eq!(answer(101, 0), Err(Kind::HttpProtocolError));
    }

    #[test]
    fn a_length_that_is_none_is_no_answer() {
        let limits = HeadLimits { head: 1000, fields: 9, uri: 0 };
        let answer = |lengths: &[&'static str]| {
            let head =
                lengths.iter().fold(http::Response::builder(), |head, length| head.header(CONTENT_LENGTH, *length));
            response(head.body(()).unwrap().into_parts().0, &limits).map(|_| ()).map_err(|error| error.kind())
        };
        for good in [&[][..], &["0"], &["17"]] {
            assert_eq!(answer(good), Ok(()), "{good:?}");
        }
        for bad in [&[""][..], &["x"], &["+1"], &["1, 1"], &["1", "1"], &["1", "2"]] {
            assert_eq!(answer(bad), Err(Kind::HttpProtocolError), "{bad:?}");
        }
    }
}
