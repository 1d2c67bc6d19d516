//! Between the `http` crate's types, which the engine speaks, and ours.

use crate::error::{Error, Result};
use crate::message::{Fields, Method, Name, RequestHead, ResponseHead, Scheme, Version};
use crate::wire::trailers;
use bytes::Bytes;
use h2::ext::Protocol;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The head of a request as received. Errors: what only this version can get wrong.
pub(super) fn request(parts: &http::request::Parts, scheme: Scheme) -> Result<RequestHead> {
    let method = Method::parse(parts.method.as_str().as_bytes());
    let method = method.ok_or_else(|| Error::bad_request("the method is too long"))?;
    let target = parts.uri.path_and_query().map(|target| target.as_str().to_owned());
    let head = RequestHead {
        method,
        version: Version::Http2,
        scheme,
        authority: parts.uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default(),
        target: target.unwrap_or_default(),
        protocol: parts.extensions.get::<Protocol>().map(|protocol| protocol.as_str().to_owned()),
        fields: fields(&parts.headers),
    };
    Ok(head)
}

/// A field section as ours.
pub(super) fn fields(map: &HeaderMap) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in map {
        fields.push(name.as_str().as_bytes(), value.as_bytes());
    }
    fields
}

/// The head of a response as the engine takes it: without what belongs to a connection of HTTP/1 (RFC 9113 section
/// 8.2.2), with the length that is known.
pub(super) fn response(head: &ResponseHead, length: Option<u64>) -> http::Response<()> {
    let mut out = http::Response::new(());
    *out.status_mut() = http::StatusCode::from_u16(head.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let keep = |id: Name| {
        !matches!(
            id,
            Name::Connection
                | Name::KeepAlive
                | Name::ProxyConnection
                | Name::TransferEncoding
                | Name::Upgrade
                | Name::ContentLength
                | Name::Te
        )
    };
    copy(&head.fields, out.headers_mut(), |field| keep(field.id));
    if let Some(length) = length {
        out.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    out
}

/// A trailer section as the engine takes it.
pub(super) fn trailer_map(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::new();
    copy(fields, &mut map, trailers::may_stand);
    map
}

/// A trailer section as ours, without what may not stand there.
pub(super) fn trailer_fields(map: &HeaderMap) -> Fields {
    let mut fields = fields(map);
    fields.retain(|field| trailers::may_stand(&field));
    fields
}

/// Copies lines. One that the `http` crate does not take cannot have come from an engine, and is left out; so is what
/// is more than its map can hold.
fn copy(fields: &Fields, map: &mut HeaderMap, keep: impl Fn(&crate::message::Field<'_>) -> bool) {
    for field in fields.iter().filter(keep) {
        let name = HeaderName::from_bytes(field.name);
        let value = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(field.value));
        if let (Ok(name), Ok(value)) = (name, value) {
            let _ = map.try_append(name, value);
        }
    }
}
