//! Claims on the response: the user that the own origin has just registered is made ours, durably, before the client
//! learns of it (HOMES 2.6, DESIGN 10).

use super::course::Course;
use super::obtain::Sending;
use super::{Proxy, RETRY_AFTER, Site};
use crate::body::{Body, Piece, Pull, Request, Response};
use crate::config::plan::{ClaimKey, ClaimRule, OnTimeout};
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::homes::Registered;
use crate::message::{RequestHead, forwarded};
use crate::record::Record;
use crate::route::key;
use bytes::{Bytes, BytesMut};
use std::task::{Context, Poll};

/// The content in which a key is looked for.
const JSON_MAX: usize = 64 << 10;

impl Proxy {
    /// Whether the source of a request that is about to claim a key may still do so: one that registers, or one that
    /// touches a key which nobody is known to own.
    pub(super) fn within_claim_rate(
        &self,
        site: &Site,
        course: &Course<'_>,
        request: &Request,
        may_claim: bool,
    ) -> Result<()> {
        let space = match (&course.settings.claim, &course.key) {
            (Some(rule), _) => &site.plan.spaces[rule.space.index()],
            (None, Some((space, key))) if may_claim && self.homes()?.look(&space.name, key) == Home::Unknown => space,
            _ => return Ok(()),
        };
        let is_trusted = |address| site.plan.trust.forwarded.iter().any(|network| network.holds(address));
        let (fields, from) = (&request.head.fields, &request.from);
        let source = forwarded::client_of(fields, from.client.ip(), from.scheme, &is_trusted).client;
        self.homes()?.take_claim(&space.name, source, space.claims_per_minute).map_err(|wait| {
            Error::new(Kind::RateLimited, "this source has claimed too many new keys").retry_after(wait)
        })
    }

    /// Registers the key of a 2xx answer of our own origin. What fails after the origin answered is alarmed and
    /// retried, and the answer released: the user exists, whatever we know of it.
    pub(super) async fn claim(
        &self,
        rule: &ClaimRule,
        sending: &Sending<'_>,
        mut response: Response,
        record: &mut Record,
    ) -> Result<Response> {
        let (site, course, base) = (sending.site, sending.course, &sending.head);
        if !(200..300).contains(&response.head.status) {
            return Ok(response);
        }
        let space = &site.plan.spaces[rule.space.index()].name;
        let Some(key) = minted(rule, space, base, &mut response).await? else {
            tracing::error!(route = %course.settings.name, "a registration was answered without a key to claim: no home will be known for it");
            return Ok(response);
        };
        record.key = Some(format!("{space}:{key}"));
        record.home = Some(site.plan.own.name.clone());
        let homes = self.homes()?;
        match homes.register(space, &key, rule.wait).await {
            Registered::Granted => record.epoch = Some(1),
            Registered::Pending if rule.on_timeout == OnTimeout::Release => record.epoch = Some(1),
            Registered::Pending => {
                return Err(Error::unavailable("the new user is not confirmed by Central yet", RETRY_AFTER));
            }
            Registered::Refused { home, epoch } => {
                let home = site.plan.edges.name(home);
                tracing::error!(%space, %key, home, epoch, "the origin minted a key that another edge owns: it is not served here");
            }
            Registered::NotStored => {
                tracing::error!(%space, %key, "a new key could not be stored durably: its home is not known to survive a restart");
            }
        }
        Ok(response)
    }
}

async fn minted(rule: &ClaimRule, space: &str, base: &RequestHead, response: &mut Response) -> Result<Option<String>> {
    match &rule.key {
        ClaimKey::Header(name) => {
            let value = response.head.fields.named(name).next();
            let value = value.and_then(|value| std::str::from_utf8(value).ok());
            Ok(value.and_then(|value| match &rule.pattern {
                Some(pattern) => key::from_location(pattern, space, value, base),
                None => checked(value),
            }))
        }
        ClaimKey::Json(pointer) => {
            let Some(content) = peek(response).await? else { return Ok(None) };
            let value: Option<serde_json::Value> = serde_json::from_slice(&content).ok();
            Ok(value.as_ref().and_then(|value| value.pointer(pointer)).and_then(|found| match found {
                serde_json::Value::String(text) => checked(text),
                serde_json::Value::Number(number) => checked(&number.to_string()),
                _ => None,
            }))
        }
    }
}

fn checked(text: &str) -> Option<String> {
    key::is_key(text).then(|| text.to_owned())
}

/// Reads the whole content, if it is small enough, and puts it back.
async fn peek(response: &mut Response) -> Result<Option<Bytes>> {
    let mut rest = std::mem::take(&mut response.body);
    let mut first = BytesMut::new();
    let mut trailers = None;
    let mut is_whole = false;
    while first.len() <= JSON_MAX {
        match rest.next().await {
            Some(Ok(Piece::Data(octets))) => first.extend_from_slice(&octets),
            Some(Ok(Piece::Trailers(fields))) => trailers = Some(fields),
            Some(Err(error)) => return Err(error),
            None => {
                is_whole = true;
                break;
            }
        }
    }
    let first = first.freeze();
    let rest = if is_whole { Body::Empty } else { rest };
    response.body = Body::Pulled(Box::new(Again { first: first.clone(), trailers, rest }));
    Ok(is_whole.then_some(first))
}

/// Content that was read ahead, then what follows it.
struct Again {
    first: Bytes,
    trailers: Option<crate::message::Fields>,
    rest: Body,
}

impl Pull for Again {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(Piece::Data(std::mem::take(&mut self.first)))));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Piece::Trailers(trailers))));
        }
        self.rest.poll_piece(cx)
    }

    /// None with trailers, which only content of no stated length can carry.
    fn length(&self) -> Option<u64> {
        let rest = self.rest.length().filter(|_| self.trailers.is_none())?;
        Some(rest + self.first.len() as u64)
    }
}
