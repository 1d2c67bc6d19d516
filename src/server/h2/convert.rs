//! Between the `http` crate's types, which the engine speaks, and ours.

use crate::error::{Error, Result};
use crate::message::{Field, Fields, Method, Name, RequestHead, ResponseHead, Scheme, Version};
use crate::wire::trailers;
use bytes::BytesMut;
use h2::ext::Protocol;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::sync::LazyLock;

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

/// A field section as ours, with room for the lines that a proxy adds.
pub(super) fn fields(map: &HeaderMap) -> Fields {
    let mut fields = Fields::with_room(0);
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
    *out.headers_mut() = map(&head.fields, |field| is_end_to_end(field.id));
    if let Some(length) = length {
        out.headers_mut().insert(http::header::CONTENT_LENGTH, decimal(length));
    }
    out
}

fn is_end_to_end(id: Name) -> bool {
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
}

/// A number as a value, without the two pieces of memory that `HeaderValue::from` makes.
fn decimal(number: u64) -> HeaderValue {
    let mut text = [0; 20];
    let mut rest = text.len();
    let mut left = number;
    loop {
        rest -= 1;
        text[rest] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    HeaderValue::from_bytes(&text[rest..]).expect("digits are a value")
}

/// A trailer section as the engine takes it.
pub(super) fn trailer_map(fields: &Fields) -> HeaderMap {
    map(fields, trailers::may_stand)
}

/// A trailer section as ours, without what may not stand there.
pub(super) fn trailer_fields(map: &HeaderMap) -> Fields {
    let mut fields = fields(map);
    fields.retain(|field| trailers::may_stand(&field));
    fields
}

/// The lines of a section that are to be kept. All values share one piece of memory. A line that the `http` crate does
/// not take cannot have come from an engine, and is left out; so is what is more than its map can hold.
fn map(fields: &Fields, keep: impl Fn(&Field<'_>) -> bool) -> HeaderMap {
    let total = fields.iter().map(|field| field.value.len()).sum();
    let mut values = BytesMut::with_capacity(total);
    fields.iter().for_each(|field| values.extend_from_slice(field.value));
    let mut values = values.freeze();
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields.iter() {
        let value = values.split_to(field.value.len());
        if !keep(&field) {
            continue;
        }
        if let (Some(name), Ok(value)) = (name(&field), HeaderValue::from_maybe_shared(value)) {
            let _ = map.try_append(name, value);
        }
    }
    map
}

/// The name of a line; well-known ones are not parsed.
fn name(field: &Field<'_>) -> Option<HeaderName> {
    static KNOWN: LazyLock<Vec<HeaderName>> =
        LazyLock::new(|| Name::KNOWN.iter().map(|id| HeaderName::from_static(id.as_str())).collect());
    match KNOWN.get(field.id as usize) {
        Some(name) => Some(name.clone()),
        None => HeaderName::from_bytes(field.name).ok(),
    }
}
