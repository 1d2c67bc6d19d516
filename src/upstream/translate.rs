//! Heads between our own form and that of the `h2` crate. Pure.

use crate::error::{Error, Kind, Result};
use crate::message::{Fields, Method, Name, RequestHead, ResponseHead, Version};
use crate::wire::HeadLimits;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};

/// A request for HTTP/2: connection fields left out, `content-length` as `length` says, `:protocol` for an `upgrade`.
///
/// Errors: `HttpRequestError` for a target, authority or method that HTTP/2 cannot say.
pub(super) fn request(head: &RequestHead, length: Option<u64>, upgrade: Option<&str>) -> Result<http::Request<()>> {
    let refused = |what: &'static str| Error::new(Kind::HttpRequestError, what);
    let method = if upgrade.is_some() { "CONNECT" } else { head.method.as_str() };
    let uri = http::Uri::builder()
        .scheme(head.scheme.as_str())
        .authority(head.authority.as_str())
        .path_and_query(head.target.as_str())
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
        message.extensions_mut().insert(h2::ext::Protocol::from(protocol));
    }
    Ok(message)
}

/// The trailer section of a request.
pub(super) fn trailers(fields: &Fields) -> HeaderMap {
    headers(fields)
}

/// Fields without those that only mean the connection (RFC 9113 section 8.2.2) or are said otherwise in HTTP/2.
fn headers(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields.iter().filter(|field| travels(field.id, field.value)) {
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
/// Errors: `HttpProtocolError` for 101, which HTTP/2 does not have; `HttpResponseHeaderSectionSize` for too many fields.
pub(super) fn response(head: http::response::Parts, limits: &HeadLimits) -> Result<ResponseHead> {
    let status = head.status.as_u16();
    if status == 101 {
        return Err(Error::new(Kind::HttpProtocolError, "a 101 over HTTP/2"));
    }
    if head.headers.len() > limits.fields {
        return Err(Error::new(Kind::HttpResponseHeaderSectionSize, "too many fields"));
    }
    Ok(ResponseHead { status, version: Version::Http2, fields: fields(&head.headers) })
}

/// A field section in our form.
pub(super) fn fields(map: &HeaderMap) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in map {
        fields.push(name.as_str().as_bytes(), value.as_bytes());
    }
    fields
}
