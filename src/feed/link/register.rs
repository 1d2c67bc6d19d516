//! Before anything is followed: this incarnation of the edge registers with Central (HOMES 2.1).

use super::super::client::{Line, content};
use super::{End, Follower, Target, call, refused, stands_at, with_detail};
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

impl Follower {
    /// Registers, at each connect: it may have been replaced while it was cut off. How the attempt ends if nothing may be
    /// followed before Central has agreed. A ledger that is complete does not depend on it: it goes on, unless it was
    /// replaced, or Central's log was set back, to which nothing is to be added.
    pub(super) async fn register(&mut self, line: &mut Line, target: &Target) -> Option<End> {
        let homes = self.applier.as_ref()?.homes().clone();
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
        let answer = match line.send(call).await {
            Ok(answer) => answer,
            Err(why) => return Some(End::Broken(why)),
        };
        let (status, ended) = (answer.status().as_u16(), refused(&answer));
        let text = match content(answer.into_body(), ANSWER_MAX).await {
            Ok(text) => text,
            Err(why) => return Some(End::Broken(why)),
        };
        let answer: Answer = serde_json::from_slice(&text).unwrap_or_default();
        match status {
            200 => {
                let (boot, at, term) = (incarnation.boot, answer.seq, answer.term);
                self.work(move |applier| {
                    applier.registered_as(boot, at, term);
                    Ok(())
                })
                .await
                .err()
            }
            410 => {
                homes.replaced();
                Some(End::Later(answer.detail, target.pace.alarmed))
            }
            416 => ended.map(|end| with_detail(end, &answer.detail)),
            _ if homes.is_founded() => {
                tracing::warn!(status, why = answer.detail, "Central does not register this incarnation");
                None
            }
            409 => Some(End::Later(answer.detail, target.pace.alarmed)),
            _ => ended.or(Some(End::Later(answer.detail, target.pace.alarmed))),
        }
    }
}
