//! From a request to its course: the route that matched, the key, the edge it names. Nothing re-reads the path later.

use super::Site;
use crate::base::id::EdgeId;
use crate::config::plan::{HeaderEdit, HostRule, Plan, RouteSettings, Space};
use crate::error::{Error, Kind, Result};
use crate::message::{Method, RequestHead};
use crate::record::Record;
use crate::route::table::{Matched, Miss, Query};
use crate::route::{Action, Place, Rule, key};

/// What matching has found out; borrows the plan, not the request.
#[derive(Debug)]
pub struct Course<'plan> {
    /// The rule; none for a request from another place that no route of ours matches.
    pub rule: Option<&'plan Rule>,
    /// Its settings.
    pub settings: &'plan RouteSettings,
    /// The key space and the key, for home routes.
    pub key: Option<(&'plan Space, String)>,
    /// The edge that the request or the rule names.
    pub named: Option<EdgeId>,
    /// The target that origins get instead of the request's, where the route rewrites.
    pub rewritten: Option<String>,
    /// The Location of a `reply`, filled in.
    pub location: Option<String>,
}

/// Finds the route. Errors: `NoRoute`, `NoMethod`, `NoKey`.
pub fn find<'plan>(plan: &'plan Plan, head: &RequestHead, record: &mut Record) -> Result<Course<'plan>> {
    let query = Query { method: &head.method, host: head.host(), path: head.path(), fields: &head.fields };
    let matched = plan.routes.find(query, &|name| plan.edges.named(name).is_some()).map_err(missed)?;
    record.route = Some(matched.rule.id);
    let settings = &plan.settings[matched.rule.id.index()];
    let places: &[Place] = match &matched.rule.action {
        Action::To(places) => places,
        Action::Reply => &[],
    };
    Ok(Course {
        rule: Some(matched.rule),
        settings,
        key: home_key(plan, places, &matched, head, record)?,
        named: named(plan, places, &matched),
        rewritten: settings.rewrite.as_ref().map(|template| with_query(fill(template, &matched, head), head)),
        location: settings.reply.as_ref().and_then(|reply| reply.location.as_ref()).map(|t| fill(t, &matched, head)),
    })
}

/// The course of a request that another place has decided upon: our route gives only its settings, and that there is
/// none, or none for this method, is no reason to refuse (DESIGN 10, Forwarding).
pub fn received<'site>(site: &'site Site, head: &RequestHead, record: &mut Record) -> Course<'site> {
    let plan = &site.plan;
    let query = Query { method: &head.method, host: head.host(), path: head.path(), fields: &head.fields };
    let matched = plan.routes.find(query, &|name| plan.edges.named(name).is_some()).ok();
    record.route = matched.as_ref().map(|matched| matched.rule.id);
    let settings = record.route.and_then(|id| plan.settings.get(id.index()));
    let template = settings.and_then(|settings| settings.rewrite.as_ref());
    let rewritten =
        template.zip(matched.as_ref()).map(|(template, matched)| with_query(fill(template, matched, head), head));
    Course {
        rule: matched.map(|matched| matched.rule),
        settings: settings.unwrap_or(&site.fallback),
        key: None,
        named: None,
        rewritten,
        location: None,
    }
}

/// The settings of a request that no route matches.
pub fn fallback(plan: &Plan) -> RouteSettings {
    RouteSettings {
        name: String::new(),
        at: String::new(),
        next_on: Vec::new(),
        reply: None,
        claim: None,
        claim_if: None,
        cluster: None,
        host: HostRule::Keep,
        timeouts: plan.timeouts.clone(),
        retry: plan.retry.clone(),
        body_max: plan.limits.body,
        request_headers: HeaderEdit::default(),
        response_headers: HeaderEdit::default(),
        rewrite: None,
        compress: None,
    }
}

fn missed(miss: Miss) -> Error {
    match miss {
        Miss::NoRoute => Error::new(Kind::NoRoute, "no route matches this host and path"),
        Miss::NoMethod(allow) => {
            let allow: Vec<_> = allow.iter().map(Method::as_str).collect();
            Error::new(Kind::NoMethod, "a route matches this path, but not with this method").allow(allow.join(", "))
        }
    }
}

fn home_key<'plan>(
    plan: &'plan Plan,
    places: &[Place],
    matched: &Matched<'_, '_>,
    head: &RequestHead,
    record: &mut Record,
) -> Result<Option<(&'plan Space, String)>> {
    let Some(space) = places.iter().find_map(|place| if let Place::Home(id) = place { Some(*id) } else { None }) else {
        return Ok(None);
    };
    let source = matched.rule.key.as_ref();
    let source = source.ok_or_else(|| Error::new(Kind::ProxyConfigurationError, "the home route names no key"))?;
    let space = &plan.spaces[space.index()];
    let key = key::key(source, matched, head)?;
    record.key = Some(format!("{}:{key}", space.name));
    Ok(Some((space, key)))
}

fn named(plan: &Plan, places: &[Place], matched: &Matched<'_, '_>) -> Option<EdgeId> {
    let name = places.iter().find_map(|place| match place {
        Place::EdgeNamed(capture) => matched.capture(capture),
        Place::Edge(name) => Some(name.as_str()),
        _ => None,
    })?;
    plan.edges.named(name).map(|edge| edge.id)
}

/// Fills `{path}`, `{host}`, `{query}` and captures into a template. Captures stay percent-encoded, as they came.
fn fill(template: &str, matched: &Matched<'_, '_>, head: &RequestHead) -> String {
    let mut filled = String::with_capacity(template.len() + head.target.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            filled.push('{');
            rest = after;
            continue;
        };
        match name {
            "path" => filled.push_str(head.path()),
            "host" => filled.push_str(&head.authority),
            "query" => filled.push_str(&head.query().map(|query| format!("?{query}")).unwrap_or_default()),
            capture => filled.push_str(matched.capture(capture).unwrap_or_default()),
        }
        rest = after;
    }
    filled + rest
}

/// A rewritten path keeps the query, unless the template has its own.
fn with_query(path: String, head: &RequestHead) -> String {
    match head.query() {
        Some(query) if !path.contains('?') => format!("{path}?{query}"),
        _ => path,
    }
}
