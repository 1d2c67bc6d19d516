//! Central's API: which resource a request names, who may use it, and what it answers (DESIGN 3, DESIGN 10).

use super::Central;
use super::appender::read;
use super::rights::Who;
use super::state::{Home, Outcome, Want, Why};
use crate::base::clock;
use crate::body::{Body, Request, Response};
use crate::config::plan::BearerToken;
use crate::home::{event, key};
use crate::message::{Method, Name};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::sync::Arc;

/// The longest content of a single claim, home or acknowledgement.
const CONTENT_MAX: usize = 64 << 10;
/// The longest claim id.
const ID_MAX: usize = 128;

/// A resource of the API.
#[derive(Debug, PartialEq, Eq)]
enum Resource {
    Snapshot,
    Stream,
    User(String),
    Ack,
    Claims,
    Home(String),
    Homes,
    Edges,
    Incarnations,
    Replace(String),
    Fence(String),
    Recover,
    Log,
    Promote,
    Superseded,
    Status,
}

impl Resource {
    /// Reads a path. Errors: no such resource, or a key that cannot be.
    fn of(path: &str) -> Result<Resource, Refusal> {
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        Ok(match segments[..] {
            ["feed", "v1", "snapshot"] => Resource::Snapshot,
            ["feed", "v1", "stream"] => Resource::Stream,
            ["feed", "v1", "user", full] => {
                let full = unescaped(full)?;
                key::check_full(&full).map_err(Refusal::malformed)?;
                Resource::User(full)
            }
            ["feed", "v1", "log"] => Resource::Log,
            ["v1", "promote"] => Resource::Promote,
            ["v1", "superseded"] => Resource::Superseded,
            ["feed", "v1", "recover"] => Resource::Recover,
            ["feed", "v1", "ack"] => Resource::Ack,
            ["v1", "claims"] => Resource::Claims,
            ["v1", "homes"] => Resource::Homes,
            ["v1", "homes", space, key] => {
                Resource::Home(key::full(&unescaped(space)?, &unescaped(key)?).map_err(Refusal::malformed)?)
            }
            ["v1", "edges"] => Resource::Edges,
            ["v1", "edges", name, "replace"] => Resource::Replace(unescaped(name)?),
            ["v1", "edges", name, "fence"] => Resource::Fence(unescaped(name)?),
            ["v1", "incarnations"] => Resource::Incarnations,
            ["v1", "status"] => Resource::Status,
            ["v1", "moves", ..] => {
                return Err(Refusal::new(501, "Not built yet", "moves are not built yet: homes can be created only"));
            }
            _ => {
                return Err(Refusal::new(
                    404,
                    "No such resource",
                    "Central's API is /v1/homes, /v1/homes/{space}/{key}, /v1/edges, /v1/edges/{name}/replace, /v1/edges/{name}/fence, /v1/incarnations, /v1/status, /v1/claims and /feed/v1/…",
                ));
            }
        })
    }

    /// Whether it is refused by a Central that waits for reports, was superseded or only copies.
    fn needs_an_open_central(&self) -> bool {
        !matches!(
            self,
            Resource::Status
                | Resource::Recover
                | Resource::Fence(_)
                | Resource::Replace(_)
                | Resource::Log
                | Resource::Promote
                | Resource::Superseded
        )
    }

    fn methods(&self) -> &'static [Method] {
        match self {
            Resource::Snapshot
            | Resource::Stream
            | Resource::Log
            | Resource::User(_)
            | Resource::Edges
            | Resource::Status => &[Method::Get, Method::Head],
            Resource::Ack
            | Resource::Claims
            | Resource::Incarnations
            | Resource::Replace(_)
            | Resource::Fence(_)
            | Resource::Recover
            | Resource::Promote
            | Resource::Superseded => &[Method::Post],
            Resource::Homes => &[Method::Get, Method::Head, Method::Post],
            Resource::Home(_) => &[Method::Get, Method::Head, Method::Put, Method::Delete],
        }
    }
}

impl Central {
    /// Answers a request of the API, of whoever its connection or one of the `tokens` says. Refusals are answers too: `application/problem+json` with what to do about it.
    ///
    /// Cancel: a dropped future leaves a command that was already sent to be carried out; repeating it is safe.
    pub async fn call(self: &Arc<Self>, request: Request, tokens: &[BearerToken]) -> Response {
        let bodiless = request.head.method == Method::Head;
        let mut response = match self.answer(request, tokens).await {
            Ok(response) => response,
            Err(refusal) => refusal.response(),
        };
        if bodiless {
            response.body = Body::Empty;
        }
        response
    }

    async fn answer(self: &Arc<Self>, request: Request, tokens: &[BearerToken]) -> Result<Response, Refusal> {
        let who = Who::of(&request.from, &request.head.fields, tokens)?;
        let resource = Resource::of(request.head.path())?;
        if !resource.methods().contains(&request.head.method) {
            return Err(Refusal::no_method(resource.methods()));
        }
        // While reports are awaited: who reports and what an operator says, and nothing that follows from homes.
        if resource.needs_an_open_central() {
            self.must_be_open()?;
        }
        match resource {
            Resource::Snapshot => self.snapshot(&who, &request.head).await,
            Resource::Stream => self.stream(&who, &request.head).await,
            Resource::Recover => {
                self.must_lead()?;
                self.recover(&who, request).await
            }
            Resource::Log => self.log(&who, &request.head),
            Resource::Promote => self.promote(&who).await,
            Resource::Superseded => self.superseded(&who, &request.head),
            Resource::Fence(edge) => self.fence(&who, edge).await,
            Resource::User(full) => self.home_of(&full),
            Resource::Ack => self.ack(&who, request.body).await,
            Resource::Claims => self.claim(&who, request.body).await,
            Resource::Home(full) => match request.head.method {
                Method::Put => self.put(&who, full, request).await,
                Method::Delete => self.delete(&who, &full, request.head.query()),
                _ => self.home_of(&full),
            },
            Resource::Homes if request.head.method == Method::Post => {
                who.must_write_homes()?;
                self.import(request).await
            }
            Resource::Homes => self.export(request.head.query()),
            Resource::Edges => Ok(self.edges()),
            Resource::Incarnations => self.incarnation(&who, request.head.query(), request.body).await,
            Resource::Replace(edge) => self.replace(&who, edge).await,
            Resource::Status => Ok(self.status()),
        }
    }

    /// `{home, epoch, state, seq}`: what holds as of `seq`.
    fn home_of(&self, full: &str) -> Result<Response, Refusal> {
        let state = read(&self.state);
        let (seq, term) = (state.head(), state.term());
        match state.home(full) {
            Some(home) if home.state == event::State::Active => Ok(ok(json!({
                "home": state.edge_name(home.edge), "epoch": home.epoch, "state": "active", "seq": seq,
                "feed": self.feed_id, "term": term,
            }))),
            other => {
                let refusal =
                    Refusal::new(404, "No home", format!("`{}` has no home as of seq {seq}", key::shown(full)));
                let refusal =
                    refusal.with("seq", json!(seq)).with("feed", json!(self.feed_id)).with("term", json!(term));
                Err(match other {
                    Some(tomb) => refusal.with("epoch", json!(tomb.epoch)).with("state", json!("tomb")),
                    None => refusal,
                })
            }
        }
    }

    async fn claim(&self, who: &Who, body: Body) -> Result<Response, Refusal> {
        let claim: Claim = parsed(body, r#"{"space":"user","key":"448","edge":"fr","id":"…"}"#).await?;
        who.must_be(&claim.edge)?;
        if claim.id.len() > ID_MAX {
            return Err(Refusal::malformed(format!("`id` is longer than {ID_MAX} octets")));
        }
        if claim.feed.as_ref().is_some_and(|feed| *feed != self.feed_id) || claim.at > self.head() {
            let detail =
                "you follow another history than this Central's, or more of it than it has: it grants you nothing";
            return Err(Refusal::new(409, "Another feed", detail).with("feed", json!(self.feed_id)));
        }
        if let Some(term) = claim.term.filter(|term| *term > u64::from(self.term())) {
            self.is_superseded(term);
            return Err(Refusal::new(409, "Another term", "you follow a higher term: this Central grants you nothing"));
        }
        self.one_regime(&claim)?;
        let full = key::full(&claim.space, &claim.key).map_err(Refusal::malformed)?;
        let outcome = self.commit_one(Want { key: full, edge: claim.edge, why: Why::Claim }).await?;
        let (result, home) = match outcome {
            Outcome::Created(home) | Outcome::Same(home) => ("granted", home),
            Outcome::Taken(home) => ("exists", home),
            Outcome::NoEdge => return Err(Refusal::no_edge(&self.edge_names())),
            Outcome::Collision => return Err(Refusal::collision()),
            Outcome::Withheld(feature) => return Err(self.withheld(feature)),
        };
        let name = read(&self.state).edge_name(home.edge).to_owned();
        Ok(ok(
            json!({ "result": result, "home": name, "epoch": home.epoch, "seq": home.seq, "feed": self.feed_id, "term": self.term() }),
        ))
    }

    /// Errors: the claim is one at first touch, and another edge's origin mints keys of that space.
    fn one_regime(&self, claim: &Claim) -> Result<(), Refusal> {
        let minters = self.fleet.minters_beside(&claim.edge, &claim.space, read(&self.state).edges());
        if minters.is_empty() {
            return Ok(());
        }
        let Claim { space, edge, .. } = claim;
        let detail = format!(
            "{edge} claims `{space}` at first touch, and at {minters} an answer does (registration): make `claim` of `[homes.{space}]` the same everywhere",
            minters = minters.join(", ")
        );
        if self.mixed.is_due(clock::now()) {
            tracing::error!(detail, "the edges differ in how keys are claimed: claims are refused");
        }
        Err(Refusal::new(409, "Mixed claims", detail).with("registration_at", json!(minters)))
    }

    async fn put(&self, who: &Who, full: String, request: Request) -> Result<Response, Refusal> {
        who.must_write_homes()?;
        no_force(request.head.query())?;
        let put: Put = parsed(request.body, r#"{"home":"fr"}"#).await?;
        let outcome = self.commit_one(Want { key: full, edge: put.home, why: Why::Put }).await?;
        let (status, home) = match outcome {
            Outcome::Created(home) => (201, home),
            Outcome::Same(home) => (200, home),
            Outcome::Taken(home) => return Err(self.owned(home, "to change an owned home is a move")),
            Outcome::NoEdge => return Err(Refusal::no_edge(&self.edge_names())),
            Outcome::Collision => return Err(Refusal::collision()),
            Outcome::Withheld(feature) => return Err(self.withheld(feature)),
        };
        let name = read(&self.state).edge_name(home.edge).to_owned();
        Ok(answer(status, json!({ "home": name, "epoch": home.epoch, "state": "active", "seq": home.seq })))
    }

    fn delete(&self, who: &Who, full: &str, query: Option<&str>) -> Result<Response, Refusal> {
        who.must_write_homes()?;
        no_force(query)?;
        let home = read(&self.state).home(full).filter(|home| home.state == event::State::Active);
        match home {
            Some(home) => Err(self.owned(home, "to delete an owned home is a move to nobody")),
            None => self.home_of(full),
        }
    }

    /// 409: the owner must release the key first, and that needs moves.
    fn owned(&self, home: Home, what: &str) -> Refusal {
        let name = read(&self.state).edge_name(home.edge).to_owned();
        let detail = format!(
            "the key lives at `{name}` (epoch {}); {what}, which needs the owner's release: moves are not built yet, so nothing was changed",
            home.epoch
        );
        Refusal::new(409, "Owned", detail).with("home", json!(name)).with("epoch", json!(home.epoch))
    }

    async fn commit_one(&self, want: Want) -> Result<Outcome, Refusal> {
        let outcomes = self.commit(vec![want]).await?;
        outcomes.first().copied().ok_or_else(|| Refusal::unavailable("Central gave no outcome"))
    }

    pub(super) fn edge_names(&self) -> String {
        let state = read(&self.state);
        state.edges().iter().map(|edge| edge.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn edges(&self) -> Response {
        let state = read(&self.state);
        ok(json!({ "seq": state.edges_seq(), "edges": state.edges() }))
    }

    /// What every edge understands of the feed, so that it may be sent.
    fn understood(&self, edges: &[String]) -> Vec<&'static str> {
        event::FEATURES.iter().copied().filter(|feature| self.fleet.all_know(edges, feature)).collect()
    }

    fn status(&self) -> Response {
        let (head, keys, edges) = {
            let state = read(&self.state);
            (state.head(), state.keys(), state.edges().to_vec())
        };
        let now = clock::now();
        let names: Vec<String> = edges.iter().map(|edge| edge.name.clone()).collect();
        let edges: Vec<Value> = edges
            .into_iter()
            .map(|edge| {
                let instances = self.fleet.show(&edge.name, now);
                json!({ "name": edge.name, "idx": edge.idx, "state": edge.state, "ack": instances.last(), "instances": instances })
            })
            .collect();
        ok(json!({
            "feed": self.feed_id, "term": self.term(), "awaited": self.awaited(), "standby_of": self.standby_of(), "head": head, "oldest": self.oldest(), "slowest": self.reach().1, "sent_to_snapshots": self.reach().2, "keys": keys,
            "up_seconds": now.saturating_duration_since(self.began).as_secs(), "edges": edges,
            "trouble": *super::lock(&self.trouble), "features": self.understood(&names),
        }))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    #[serde(default = "user")]
    space: String,
    key: String,
    edge: String,
    #[serde(default)]
    id: String,
    /// The feed that the claimant follows, and how far: a claim that another history, or one that has lost entries,
    /// would grant is refused.
    #[serde(default)]
    feed: Option<String>,
    #[serde(default)]
    at: u64,
    /// The term that it obeys.
    #[serde(default)]
    term: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Put {
    home: String,
}

/// The key space where none is named.
pub(super) fn user() -> String {
    "user".to_owned()
}

/// Reads small JSON content. Errors: too long, cut, or not what `example` shows.
pub(super) async fn parsed<T: for<'a> Deserialize<'a>>(body: Body, example: &str) -> Result<T, Refusal> {
    let content = body.collect(CONTENT_MAX).await.map_err(|error| Refusal::malformed(error.detail().to_owned()))?;
    let content = content.ok_or_else(|| Refusal::too_long(CONTENT_MAX))?;
    serde_json::from_slice(&content)
        .map_err(|error| Refusal::malformed(format!("{error}; send JSON such as {example}")))
}

/// A value of the query, unescaped. Errors: a bad escape.
pub(super) fn query_value(query: Option<&str>, name: &str) -> Result<Option<String>, Refusal> {
    let mut pairs = query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| unescaped(value)).transpose()
}

fn unescaped(text: &str) -> Result<String, Refusal> {
    key::unescape(text)
        .ok_or_else(|| Refusal::malformed(format!("`{}` is not percent-encoded UTF-8", key::shown(text))))
}

fn no_force(query: Option<&str>) -> Result<(), Refusal> {
    match query_value(query, "force")? {
        None => Ok(()),
        Some(_) => Err(Refusal::new(501, "Not built yet", "`force` is not built yet: homes can be created only")),
    }
}

/// 200 with JSON.
pub(super) fn ok(value: Value) -> Response {
    answer(200, value)
}

fn answer(status: u16, value: Value) -> Response {
    let mut text = value.to_string();
    text.push('\n');
    let mut response = Response::with(status, "application/json", text);
    response.head.fields.add(Name::CacheControl, "no-store");
    response
}

/// Why a request is refused: a problem document (RFC 9457) in the making.
#[derive(Debug)]
pub struct Refusal {
    status: u16,
    title: &'static str,
    detail: Cow<'static, str>,
    members: Map<String, Value>,
    fields: Vec<(Name, String)>,
    others: Vec<(&'static str, String)>,
}

impl Refusal {
    /// Its status.
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// A refusal; `detail` says what to do about it.
    pub fn new(status: u16, title: &'static str, detail: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { status, title, detail: detail.into(), members: Map::new(), fields: Vec::new(), others: Vec::new() }
    }

    /// What to do about it.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// Adds a member to the document.
    pub fn with(mut self, name: &str, value: Value) -> Refusal {
        self.members.insert(name.to_owned(), value);
        self
    }

    /// Adds a field to the answer.
    pub fn field(mut self, name: &'static str, value: String) -> Refusal {
        self.others.push((name, value));
        self
    }

    /// 400.
    pub fn malformed(detail: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(400, "Malformed request", detail)
    }

    /// 403.
    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(403, "Not allowed", detail)
    }

    /// 401: who asks did not prove to be anybody.
    pub fn unknown(detail: impl Into<Cow<'static, str>>) -> Refusal {
        let mut refusal = Refusal::new(401, "Not known", detail);
        refusal.fields.push((Name::WwwAuthenticate, "Bearer".to_owned()));
        refusal
    }

    /// 503 with Retry-After.
    pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Refusal {
        let mut refusal = Refusal::new(503, "Not now", detail);
        refusal.fields.push((Name::RetryAfter, "1".to_owned()));
        refusal
    }

    /// 503: Central ends.
    pub fn stopping() -> Refusal {
        Refusal::unavailable("Central is stopping")
    }

    fn too_long(max: usize) -> Refusal {
        Refusal::new(413, "Too long", format!("at most {max} octets are taken here; POST /v1/homes takes many homes"))
    }

    fn no_method(allowed: &[Method]) -> Refusal {
        let allow = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        let mut refusal = Refusal::new(405, "No such method", format!("this resource takes {allow}"));
        refusal.fields.push((Name::Allow, allow));
        refusal
    }

    pub(super) fn no_edge(known: &str) -> Refusal {
        let detail =
            format!("no such edge takes new homes; Central knows: {known}. Add `[edges.NAME]` to its configuration");
        Refusal::new(422, "No such edge", detail)
    }

    /// 409: events of this kind are not written while an instance that follows could not read them.
    pub(super) fn not_read(feature: &str, lacking: &[String]) -> Refusal {
        let detail = format!(
            "this takes an event that needs `{feature}`, which not every edge reads: {}; upgrade these, then try again",
            lacking.join(", ")
        );
        Refusal::new(409, "Not read by every edge", detail)
            .with("feature", json!(feature))
            .with("lacking", json!(lacking))
    }

    fn collision() -> Refusal {
        Refusal::new(
            409,
            "Hash collision",
            "another key has the same 64-bit hash in this feed, so the two cannot be told apart; choose another key",
        )
    }

    /// The answer.
    pub fn response(self) -> Response {
        let mut document = Map::new();
        document.insert("status".to_owned(), json!(self.status));
        document.insert("title".to_owned(), json!(self.title));
        document.insert("detail".to_owned(), json!(self.detail));
        document.extend(self.members);
        let mut text = Value::Object(document).to_string();
        text.push('\n');
        let mut response = Response::with(self.status, "application/problem+json", text);
        response.head.fields.add(Name::CacheControl, "no-store");
        for (name, value) in self.fields {
            response.head.fields.add(name, value);
        }
        for (name, value) in self.others {
            response.head.fields.push(name.as_bytes(), value.as_bytes());
        }
        response
    }
}
