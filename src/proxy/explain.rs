//! What would become of a request, and why: the very code that serves, without sending anything.

use super::course::{self, Course};
use super::serve;
use crate::config::plan::{Plan, Regime, RouteSettings, UnknownKey};
use crate::error::{Error, Kind};
use crate::home::Home;
use crate::message::{RequestHead, Scheme, request};
use crate::record::Record;
use crate::route::decide::{Asked, Decision, Facts, Step, decide};
use crate::route::{Action, Place};
use serde::Serialize;
use std::fmt::{self, Write};

/// An explained request.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Explanation {
    /// Method, scheme, host and normalised target.
    pub request: String,
    /// The pattern that won, and where it is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Where the route is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// `space:key` of a home route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What is known of the key's home.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// `local`, `central`, `remote fr`, `reply 308`, `ask central`, `claim at central`, or `refuse 404`.
    pub decision: String,
    /// The sentence for people.
    pub reason: String,
    /// The status, where we would answer by ourselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The RFC 9209 token, where we would refuse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How a refusal is mended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The edge that explains, and what it goes by: its running state, or a configuration alone.
    pub explained_by: String,
    /// The places of the route in order, with what follows for each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<Line>,
    /// The target that the origin sees, where the route rewrites it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewritten: Option<String>,
    /// The Location of a reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// The endpoints of the decision.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// The cursor of the map that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
}

/// One place of the route's list.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// As the route writes it.
    pub place: String,
    /// What follows.
    pub decision: String,
    /// Why.
    pub reason: String,
    /// Whether it is believed reachable; unknown offline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
}

/// What an explanation is made from beside the plan.
pub struct Knowledge<'a> {
    /// What is believed of a key.
    pub home: &'a dyn Fn(&str, &str) -> Home,
    /// Whether the target of a decision is believed reachable; `None` = not known here.
    pub reachable: &'a dyn Fn(Decision, &RouteSettings) -> Option<bool>,
    /// Endpoints of a decision, for a route with these settings.
    pub endpoints: &'a dyn Fn(Decision, &RouteSettings) -> Vec<String>,
    /// The cursor of the map.
    pub seq: Option<u64>,
    /// Whether Central can be asked for a home now; `None` = not known here.
    pub can_ask: Option<bool>,
    /// Where all this is known from.
    pub by: Source,
}

/// Where the knowledge of an explanation comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A running process.
    Running,
    /// A configuration, with a list of homes.
    FileAndHomes,
    /// A configuration alone: every home is unknown.
    File,
}

/// Who explains: a reader of the text elsewhere must be able to tell.
fn explainer(plan: &Plan, by: Source) -> String {
    let name = &plan.own.name;
    match by {
        Source::Running => format!("edge {name}, coordinator {}", env!("CARGO_PKG_VERSION")),
        Source::FileAndHomes => format!("the configuration of edge {name} and the homes given, without a running edge"),
        Source::File => {
            format!(
                "the configuration of edge {name} alone: every home is unknown (--homes gives some, --admin asks a running edge)"
            )
        }
    }
}

/// Explains a request as a client would send it: `head` is not admitted yet.
pub fn explain(plan: &Plan, mut head: RequestHead, knowledge: &Knowledge<'_>) -> Explanation {
    let mut out =
        Explanation { seq: knowledge.seq, explained_by: explainer(plan, knowledge.by), ..Explanation::default() };
    let scheme = head.scheme;
    if let Err(error) = request::admit(&mut head, scheme) {
        out.request = format!("{} {}", head.method, head.target);
        return refused(out, &error);
    }
    out.request = format!("{} {}://{}{}", head.method, head.scheme.as_str(), head.authority, head.target);
    if serve::is_for_us(&mut head) {
        out.decision = "reply 204".to_owned();
        out.reason = "OPTIONS asks about the proxy itself".to_owned();
        out.status = Some(204);
        return out;
    }
    let mut record = Record::start();
    match course::find(plan, &head, &mut record) {
        Err(error) => {
            name_route(&mut out, plan, &record);
            refused(out, &error)
        }
        Ok(course) => {
            name_route(&mut out, plan, &record);
            out.key = record.key;
            (out.rewritten, out.location) = (course.rewritten.clone(), course.location.clone());
            follow(out, plan, &course, &head, knowledge)
        }
    }
}

fn name_route(out: &mut Explanation, plan: &Plan, record: &Record) {
    if let Some(settings) = record.route.and_then(|id| plan.settings.get(id.index())) {
        out.route = Some(settings.name.clone());
        out.at = Some(settings.at.clone());
    }
}

fn refused(mut out: Explanation, error: &Error) -> Explanation {
    out.decision = format!("refuse {}", error.status());
    out.reason = error.detail().to_owned();
    refusing(out, error.kind())
}

/// Adds what belongs to a refusal.
fn refusing(mut out: Explanation, kind: Kind) -> Explanation {
    out.status = Some(kind.status());
    out.error = Some(kind.token().to_owned());
    out.help = Some(kind.remedy().to_owned());
    out
}

fn follow(
    mut out: Explanation,
    plan: &Plan,
    course: &Course<'_>,
    head: &RequestHead,
    known: &Knowledge<'_>,
) -> Explanation {
    let Some(Action::To(places)) = course.rule.map(|rule| &rule.action) else {
        let status = course.settings.reply.as_ref().map_or(500, |reply| reply.status);
        out.decision = format!("reply {status}");
        out.reason = "the route answers by itself".to_owned();
        out.status = Some(status);
        return out;
    };
    let mut chosen = None;
    for place in places {
        let home = match (place, &course.key) {
            (Place::Home(_), Some((space, key))) => (known.home)(&space.name, key),
            _ => Home::Unknown,
        };
        if matches!(place, Place::Home(_)) {
            out.home = Some(describe(plan, home));
        }
        let asked = if known.can_ask == Some(false) { Asked::Unreachable } else { Asked::NotYet };
        let step = decide(place, &Facts { asked, ..facts(plan, course, head, home) });
        let reachable =
            if let Step::Go(decision, _) = step { (known.reachable)(decision, course.settings) } else { None };
        let (decision, reason) = words(plan, step);
        if chosen.is_none() && reachable != Some(false) {
            chosen = Some((step, decision.clone(), reason));
        }
        out.places.push(Line { place: written(plan, place), decision, reason: reason.to_owned(), reachable });
    }
    conclude(out, chosen, course.settings, known)
}

fn conclude(
    mut out: Explanation,
    chosen: Option<(Step, String, &'static str)>,
    settings: &RouteSettings,
    known: &Knowledge<'_>,
) -> Explanation {
    match chosen {
        Some((step, decision, reason)) => {
            if let Step::Go(decision, _) = step {
                out.endpoints = (known.endpoints)(decision, settings);
            }
            out.decision = decision;
            out.reason = reason.to_owned();
            match step {
                Step::NoSuchKey => refusing(out, Kind::UnknownKey),
                Step::Unavailable(_) => refusing(out, Kind::DestinationUnavailable),
                Step::Go(..) | Step::Ask | Step::Claim => out,
            }
        }
        None => {
            out.decision = "refuse 503".to_owned();
            out.reason = "no place of the route can be reached".to_owned();
            refusing(out, Kind::DestinationUnavailable)
        }
    }
}

fn facts(plan: &Plan, course: &Course<'_>, head: &RequestHead, home: Home) -> Facts {
    let space = course.key.as_ref().map(|(space, _)| *space);
    Facts {
        own: plan.edges.own,
        home,
        asked: Asked::NotYet,
        central_owns_unknown: space.is_some_and(|space| space.unknown == UnknownKey::Central),
        may_claim: space.is_some_and(|space| space.claim == Regime::FirstTouch) && !head.method.is_safe(),
        named: course.named,
    }
}

fn words(plan: &Plan, step: Step) -> (String, &'static str) {
    match step {
        Step::Go(Decision::Remote(edge), reason) => (format!("remote {}", plan.edges.name(edge)), reason.sentence()),
        Step::Go(decision, reason) => (decision.as_str().to_owned(), reason.sentence()),
        Step::Ask => {
            ("ask central".to_owned(), "the home is not known here; Central is asked before anything is decided")
        }
        Step::Claim => ("claim at central".to_owned(), "nobody is known to own the key, and this request may claim it"),
        Step::NoSuchKey => ("refuse 404".to_owned(), "Central knows no such key"),
        Step::Unavailable(reason) => ("refuse 503".to_owned(), reason.sentence()),
    }
}

/// What is believed of a home, in words.
pub fn describe(plan: &Plan, home: Home) -> String {
    match home {
        Home::Ours { epoch, provisional: false } => format!("{} (this edge), epoch {epoch}", plan.own.name),
        Home::Ours { epoch, provisional: true } => {
            format!("{} (this edge), epoch {epoch}, awaiting Central", plan.own.name)
        }
        Home::Leaving { epoch, .. } => format!("{} (this edge), epoch {epoch}, about to leave", plan.own.name),
        Home::At { edge, epoch } => format!("{}, epoch {epoch}", plan.edges.name(edge)),
        Home::Disputed => format!("{} by the map, but not in its ledger", plan.own.name),
        Home::Unknown => "unknown".to_owned(),
        Home::Unsynced => "unknown: no map yet".to_owned(),
    }
}

/// A place as the route writes it.
pub fn written(plan: &Plan, place: &Place) -> String {
    match place {
        Place::Local => "local".to_owned(),
        Place::Central => "central".to_owned(),
        Place::Home(space) => format!("home:{}", plan.spaces[space.index()].name),
        Place::EdgeNamed(capture) => format!("edge:{{{capture}}}"),
        Place::Edge(name) => format!("edge:{name}"),
    }
}

/// A request head from a method, a URL (absolute, or a path) and field lines. Errors: what is wrong with them.
pub fn question(method: &str, url: &str, headers: &[(String, String)]) -> Result<RequestHead, String> {
    let parsed = crate::message::Method::parse(method.as_bytes());
    let method = parsed.ok_or_else(|| format!("`{method}` is not a method; write one such as GET"))?;
    let mut head = RequestHead::new(method, url);
    let (scheme, rest) = match url.split_once("://") {
        Some(("https", rest)) => (Scheme::Https, rest),
        Some(("http", rest)) => (Scheme::Http, rest),
        Some((other, _)) => {
            return Err(format!("`{other}` is not a scheme that this proxy serves; write http or https"));
        }
        None if url.starts_with('/') || url == "*" => (Scheme::Http, ""),
        None => return Err(format!("`{url}` is neither an absolute URL nor a path that starts with `/`")),
    };
    head.scheme = scheme;
    let mut host = "localhost";
    if !rest.is_empty() {
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        host = &rest[..at];
        head.target = if rest[at..].starts_with('/') { rest[at..].to_owned() } else { format!("/{}", &rest[at..]) };
    }
    let mut has_host = false;
    for (name, value) in headers {
        has_host |= name.eq_ignore_ascii_case("host");
        head.fields.push(name.as_bytes(), value.as_bytes());
    }
    if !has_host {
        head.fields.push(b"host", host.as_bytes());
    }
    Ok(head)
}

impl fmt::Display for Explanation {
    /// One fact a line, `decision:` and `reason:` on lines of their own, good to paste into an incident channel.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| writeln!(text, "{name}: {value}");
        line("request", &self.request)?;
        if let Some(route) = &self.route {
            line("route", &format!("{route}  ({})", self.at.as_deref().unwrap_or("?")))?;
        }
        for (name, value) in [("key", &self.key), ("home", &self.home)] {
            if let Some(value) = value {
                line(name, value)?;
            }
        }
        if self.places.len() > 1 || self.places.iter().any(|place| place.reachable == Some(false)) {
            for place in &self.places {
                let state = match place.reachable {
                    Some(true) => ", reachable",
                    Some(false) => ", not reachable",
                    None => "",
                };
                line("place", &format!("{} -> {}: {}{state}", place.place, place.decision, place.reason))?;
            }
        }
        line("decision", &self.decision)?;
        line("reason", &self.reason)?;
        for (name, value) in
            [("error", &self.error), ("help", &self.help), ("rewritten", &self.rewritten), ("location", &self.location)]
        {
            if let Some(value) = value {
                line(name, value)?;
            }
        }
        if !self.endpoints.is_empty() {
            line("endpoints", &self.endpoints.join(", "))?;
        }
        if let Some(seq) = self.seq {
            line("map", &format!("seq {seq}"))?;
        }
        line("explained by", &self.explained_by)?;
        out.write_str(&text)
    }
}
