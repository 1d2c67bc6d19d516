//! Between the `http` crate's types, which the engine speaks, and ours.

use super::shape;
use crate::base::decimal::Decimal;
use crate::error::{Error, Result};
use crate::message::{Field, Fields, Method, Name, Names, RequestHead, ResponseHead, Scheme, Version};
use crate::wire::trailers;
use h2::ext::Protocol;
use http::HeaderMap;

/// The head of a request as received. Errors: what only this version can get wrong.
pub(super) fn request<B>(request: &http::Request<B>, scheme: Scheme) -> Result<Box<RequestHead>> {
    if !is_for_http(request) {
        return Err(Error::bad_request("the scheme is not one of HTTP"));
    }
    let method = Method::parse(request.method().as_str().as_bytes());
    let method = method.ok_or_else(|| Error::bad_request("the method is too long"))?;
    let (uri, protocol) = (request.uri(), request.extensions().get::<Protocol>());
    Ok(Box::new(RequestHead {
        method,
        version: Version::Http2,
        scheme,
        authority: uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default(),
        target: uri.path_and_query().map(|target| target.as_str().to_owned()).unwrap_or_default(),
        protocol: protocol.map(|protocol| protocol.as_str().to_owned()),
        fields: fields(request.headers()),
    }))
}

/// Whether `:scheme` is one of HTTP. The engine keeps it beside `:authority` only, and an empty one never.
fn is_for_http<B>(request: &http::Request<B>) -> bool {
    match request.uri().scheme_str() {
        Some(scheme) => scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"),
        None => request.uri().authority().is_none() || request.method() == http::Method::CONNECT,
    }
}

/// A field section as ours, with room for the lines that a proxy adds.
pub(super) fn fields(map: &HeaderMap) -> Fields {
    let mut fields = Fields::with_room(0);
    for (name, value) in map {
        fields.pass(name.as_str().as_bytes(), value.as_bytes());
    }
    fields
}

/// The head of a response as the engine takes it: without what belongs to a connection of HTTP/1 (RFC 9113 section
/// 8.2.2), with the length that is known.
pub(super) fn response(head: &ResponseHead, length: Option<u64>) -> http::Response<()> {
    let mut out = http::Response::new(());
    *out.status_mut() = http::StatusCode::from_u16(head.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let length = length.map(Decimal::of);
    let lines = head.fields.iter_without(HOP).chain(length.as_ref().map(length_line));
    *out.headers_mut() = shape::section(lines);
    out
}

/// What may not stand in a message of HTTP/2; and the length is ours to state.
const HOP: Names = Names::of(&[
    Name::Connection,
    Name::KeepAlive,
    Name::ProxyConnection,
    Name::TransferEncoding,
    Name::Upgrade,
    Name::ContentLength,
    Name::Te,
]);

/// The line that states it.
fn length_line(length: &Decimal) -> Field<'_> {
    let id = Name::ContentLength;
    Field { id, name: id.as_str().as_bytes(), value: length.as_bytes() }
}

/// A trailer section as the engine takes it.
pub(super) fn trailer_map(fields: &Fields) -> HeaderMap {
    shape::fresh(fields.iter().filter(trailers::may_stand))
}

/// A trailer section as ours, without what may not stand there.
pub(super) fn trailer_fields(map: &HeaderMap) -> Fields {
    let mut fields = fields(map);
    fields.retain(|field| trailers::may_stand(&field));
    fields
}
