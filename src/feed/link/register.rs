//! Before anything is followed: this incarnation of the edge registers with Central (HOMES 2.1).

use super::super::client::{Line, content};
use super::super::source::{Begun, End};
use super::{Target, call, refused, stands_at, with_detail};
use crate::homes::Homes;
use http::Method;
use serde::Deserialize;
use serde_json::json;

/// The longest answer that is read.
const ANSWER_MAX: usize = 16 << 10;

/// Central's word, or its refusal.
#[derive(Debug, Default, Deserialize)]
struct Answer {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    term: u64,
    #[serde(default)]
    detail: String,
}

/// Registers, at each connect: we may have been replaced while we were cut off. From where this incarnation counts, or
/// `None` if that can wait: a ledger that is complete does not depend on it, and goes on unless it was replaced, or
/// Central's log was set back, to which nothing is to be added.
///
/// Errors: nothing may be followed before Central has agreed.
pub(super) async fn register(homes: &Homes, line: &mut Line, target: &Target) -> Result<Option<Begun>, End> {
    let feed = homes.cursor().feed.map(|feed| feed.to_string());
    let incarnation = homes.incarnation();
    let asked = json!({
        "edge": target.edge, "boot": incarnation.boot, "replaces": incarnation.replaces, "beside": incarnation.beside,
        "feed": feed,
    });
    let cursor = homes.cursor();
    let stands = if homes.is_founded() && cursor.feed.is_some() { stands_at(&cursor) } else { String::new() };
    let mut call = call(format!("/v1/incarnations{stands}"), &target.edge);
    call.method = Method::POST;
    call.fields.push(("content-type", "application/json".to_owned()));
    call.content = asked.to_string().into();
    let answer = line.send(call).await.map_err(End::Broken)?;
    let (status, ended) = (answer.status().as_u16(), refused(&answer));
    let text = content(answer.into_body(), ANSWER_MAX).await.map_err(End::Broken)?;
    let answer: Answer = serde_json::from_slice(&text).unwrap_or_default();
    if let Some(end @ End::Recover(_)) = ended {
        // A restored Central asks for our report, whatever we follow it by.
        return Err(end);
    }
    match status {
        200 => Ok(Some(Begun { boot: incarnation.boot, seq: answer.seq, term: answer.term })),
        410 => {
            homes.replaced();
            Err(End::Later(answer.detail, target.pace.alarmed))
        }
        416 => Err(ended.map_or_else(
            || End::Later(answer.detail.clone(), target.pace.alarmed),
            |end| with_detail(end, &answer.detail),
        )),
        _ if homes.is_founded() => {
            tracing::warn!(status, why = answer.detail, "Central does not register this incarnation");
            Ok(None)
        }
        409 => Err(End::Later(answer.detail, target.pace.alarmed)),
        _ => Err(ended.unwrap_or(End::Later(answer.detail, target.pace.alarmed))),
    }
}
