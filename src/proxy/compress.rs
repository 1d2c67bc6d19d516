//! Which answers are compressed for a client, and what their heads say then (RFC 9110 sections 8.4, 8.8 and 12.5).
//!
//! Only answers that leave by a public door come here. Between places they pass as the origin gave them: the edge that
//! faces the client alone knows what this client takes, its route says what is worth it, and what is compressed twice is
//! compressed in vain. Accept-Encoding goes to origins unchanged, so an origin that compresses keeps doing so.
//!
//! Invariant: an answer that somebody vouches for octet by octet (a digest, a signature, a range) passes as it came.

use crate::body::encode::{Encoded, Encoders};
use crate::body::{Body, Response};
use crate::config::plan::{Compress, RouteSettings};
use crate::message::accept::{self, Coding};
use crate::message::{Fields, Method, Name, RequestHead, ResponseHead, media};
use crate::record::{Coded, Record};
use std::rc::Rc;
use std::sync::Arc;

/// Fields whose makers vouch for the octets, or sign a head that we would change. Dropping them would let the answer be
/// compressed and take away what they were sent for.
const VOUCHING: [&str; 6] = ["content-digest", "repr-digest", "digest", "content-md5", "signature", "signature-input"];

/// What becomes of the coding of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nobody would get it in another coding.
    AsItIs,
    /// Others would, so caches must tell them apart.
    Negotiable,
    /// This client gets it in this coding.
    In(Coding),
}

/// Compresses the answer to `request` if its route says so and the client takes it.
pub(super) fn response(
    encoders: &Rc<Encoders>,
    settings: &RouteSettings,
    request: &RequestHead,
    response: &mut Response,
    record: &mut Record,
) {
    let Some(rules) = settings.compress.as_ref().filter(|_| response.tunnel.is_none()) else { return };
    if response.head.status == 304 {
        return not_modified(rules, request, &mut response.head);
    }
    match verdict(rules, request, &response.head, length(response, request)) {
        Verdict::AsItIs => {}
        Verdict::Negotiable => vary(&mut response.head.fields),
        Verdict::In(coding) => {
            vary(&mut response.head.fields);
            encode(encoders, rules, coding, request, response, record);
        }
    }
}

/// The length of the content that a GET would get, where it is known.
fn length(response: &Response, request: &RequestHead) -> Option<u64> {
    match &response.body {
        Body::Full(_) | Body::Lent(_) => response.body.length(),
        _ if request.method == Method::Head => crate::wire::framing::stated_length(&response.head.fields),
        body => body.length(),
    }
}

fn verdict(rules: &Compress, request: &RequestHead, head: &ResponseHead, length: Option<u64>) -> Verdict {
    let has_content = !matches!(head.status, 100..=199 | 204 | 205 | 206 | 304);
    let worth_it = length.is_none_or(|length| length > 0 && length >= rules.min_size);
    if !has_content || !worth_it || !is_listed(rules, head) || !may_change(request, head) {
        return Verdict::AsItIs;
    }
    // A client that asked for a part counts octets of what it has; another coding would shift them.
    if request.fields.has(Name::Range) || forbids_change(&request.fields) {
        return Verdict::Negotiable;
    }
    accept::choose(&request.fields, &rules.codings).map_or(Verdict::Negotiable, Verdict::In)
}

/// Whether the answer leaves its coding to us.
fn may_change(request: &RequestHead, head: &ResponseHead) -> bool {
    let fields = &head.fields;
    let is_partial = fields.named("content-range").next().is_some();
    let vouched = |name: &str| fields.named(name).next().is_some();
    let announced = |name: &[u8]| VOUCHING.iter().any(|own| name.eq_ignore_ascii_case(own.as_bytes()));
    request.method != Method::Connect
        && !fields.has(Name::ContentEncoding)
        && !is_partial
        && !forbids_change(fields)
        && !VOUCHING.iter().any(|name| vouched(name))
        && !fields.elements(Name::Trailer).any(announced)
}

fn forbids_change(fields: &Fields) -> bool {
    fields.lists(Name::CacheControl, "no-transform")
}

/// Whether the type is one of those that are compressed. Events and gRPC messages are small and wait for nobody: each
/// would be flushed by itself, and every open stream would hold an engine.
fn is_listed(rules: &Compress, head: &ResponseHead) -> bool {
    let mut types = head.fields.all(Name::ContentType);
    let (Some(only), None) = (types.next(), types.next()) else { return false };
    let essence = media::essence(only);
    let is_grpc = essence.get(..16).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"));
    !is_grpc
        && !essence.eq_ignore_ascii_case(b"text/event-stream")
        && rules.types.iter().any(|range| range.holds(essence))
}

/// Puts the content in a coding. HEAD says what GET would have said, whatever the worker could afford just now.
fn encode(
    encoders: &Rc<Encoders>,
    rules: &Compress,
    coding: Coding,
    request: &RequestHead,
    response: &mut Response,
    record: &mut Record,
) {
    if request.method == Method::Head {
        response.body = Body::Empty;
    } else {
        let lease = match encoders.lease(coding, rules.level(coding), response.body.length()) {
            Ok(lease) => lease,
            Err(why) => {
                record.coded = Coded::Not(why);
                return;
            }
        };
        let taken = Arc::default();
        let source = std::mem::take(&mut response.body);
        response.body = Body::Pulled(Box::new(Encoded::new(source, lease, Arc::clone(&taken))));
        record.coded = Coded::By { coding, taken };
    }
    let fields = &mut response.head.fields;
    fields.add(Name::ContentEncoding, coding.as_str());
    fields.remove(Name::ContentLength);
    // Ranges count octets of one coding, and the next answer need not have the same.
    fields.retain(|field| !field.name.eq_ignore_ascii_case(b"accept-ranges"));
    weaken(fields);
}

/// Says that the answer depends on Accept-Encoding, once.
fn vary(fields: &mut Fields) {
    let says = |name: &[u8]| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding");
    if fields.elements(Name::Vary).any(says) {
        return;
    }
    // One line: there are caches that read only the first.
    let mut all = fields.all(Name::Vary).collect::<Vec<_>>().join(&b", "[..]);
    if !all.is_empty() {
        all.extend_from_slice(b", ");
    }
    all.extend_from_slice(b"accept-encoding");
    fields.set(Name::Vary, all);
}

/// Makes a strong ETag weak: the octets differ, the meaning does not (RFC 9110 section 8.8.1).
fn weaken(fields: &mut Fields) {
    let Some(strong) = fields.get(Name::Etag).filter(|tag| tag.starts_with(b"\"")) else { return };
    let weak = [b"W/", strong].concat();
    fields.set(Name::Etag, weak);
}

/// A 304 carries the Vary and the ETag of the 200 that it stands for. Which coding that had, the client tells: if it
/// asks by the weak form of the tag, it has what we made of the strong one; a cache that was told the strong one now
/// could not update what it stores (RFC 9111 section 4.3.4).
fn not_modified(rules: &Compress, request: &RequestHead, head: &mut ResponseHead) {
    let could = !head.fields.has(Name::ContentType) || is_listed(rules, head);
    if !could || !may_change(request, head) {
        return;
    }
    vary(&mut head.fields);
    let Some(tag) = head.fields.get(Name::Etag).filter(|tag| tag.starts_with(b"\"")) else { return };
    let weak = [b"W/", tag].concat();
    let asked = |form: &[u8]| request.fields.named("if-none-match").flat_map(tags).any(|own| own == form);
    if asked(&weak) && !asked(tag) {
        head.fields.set(Name::Etag, weak);
    }
}

/// The entity tags of a list; a comma may stand inside of one.
fn tags(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    let outside = move |octet: &u8| {
        quoted ^= *octet == b'"';
        *octet == b',' && !quoted
    };
    list.split(outside).map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests;
