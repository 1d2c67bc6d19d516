//! The routes: each by itself, then as a table in which no two may tie.

use super::places::Clusters;
use super::{Common, Found, compress, not_zero, set};
use crate::base::id::{RouteId, SpaceId};
use crate::config::leaf::{FieldName, Target, Time};
use crate::config::plan::{
    self, ClaimRule, Edges, HeaderEdit, HostRule, OnTimeout, Regime, Reply, RouteSettings, Space,
};
use crate::config::problem::{Level, Place as Spot, Problem};
use crate::config::raw::{self, EdgeFile};
use crate::config::read::{At, Count, Either, Field, Named, within};
use crate::route::pattern::Pattern;
use crate::route::table::{Conflict, Table};
use crate::route::{Action, KeySource, Place, Rule, When};
use std::time::Duration;

/// How long a registration waits for its grant where nothing is written.
const CLAIM_WAIT: Duration = Duration::from_secs(1);
/// And the longest: clients and the proxies before us give up about then.
const CLAIM_WAIT_MAX: Duration = Duration::from_secs(60);

/// What the routes are judged by.
struct Judge<'a, 'f> {
    file: &'a EdgeFile,
    clusters: &'a Clusters,
    spaces: &'a [Space],
    edges: &'a Edges,
    common: &'a Common,
    found: &'a mut Found<'f>,
    /// The first route that needs homes, and by which word.
    needs_homes: Option<(Spot, String)>,
    /// Keys that parse and have no effect yet, by what happens instead.
    later: Vec<(&'static str, &'static str, Vec<Spot>)>,
}

/// The table and what each route says; `None` if a route cannot be read or two tie.
pub(super) fn routes(
    file: &EdgeFile,
    clusters: &Clusters,
    spaces: &[Space],
    edges: &Edges,
    common: &Common,
    found: &mut Found<'_>,
) -> Option<(Table, Vec<RouteSettings>)> {
    let written = file.route.get().map_or(&[][..], Vec::as_slice);
    if let Some(route) = written.get(usize::from(u16::MAX)) {
        found.report(Problem::at(route.place, "there are more routes than can be numbered").help("65535 is the most"));
        return None;
    }
    let mut judge = Judge { file, clusters, spaces, edges, common, found, needs_homes: None, later: Vec::new() };
    let mut built = Vec::with_capacity(written.len());
    for route in written {
        built.extend(judge.route(route, built.len()).map(|(rule, settings)| (route, rule, settings)));
    }
    judge.homes_are_served();
    judge.report_later();
    let complete = built.len() == written.len();
    let places: Vec<_> = built.iter().map(|(route, _, _)| route.value.pattern.at()).collect();
    let (rules, settings): (Vec<_>, Vec<_>) = built.into_iter().map(|(_, rule, settings)| (rule, settings)).unzip();
    match Table::build(rules) {
        Ok(table) => Some((table, settings)).filter(|_| complete),
        Err(conflicts) => {
            conflicts.iter().for_each(|conflict| tie(conflict, &places, found));
            None
        }
    }
}

/// Reports two patterns of which neither is more specific, at both.
fn tie(conflict: &Conflict, places: &[Option<&At<Pattern>>], found: &mut Found<'_>) {
    let pattern = |index: usize| places.get(index).copied().flatten();
    let (Some(first), Some(second)) = (pattern(conflict.pair.0), pattern(conflict.pair.1)) else { return };
    let remedy = "make one narrower, or add a pattern for exactly what both match; order in the file means nothing";
    let problem = Problem::at(second.place, conflict.why.clone()).spot(first.place, "the other pattern");
    found.report(problem.label("this pattern").help(remedy));
}

/// The statuses of a list.
pub(super) fn statuses<const MIN: u32, const MAX: u32>(list: &[At<Count<MIN, MAX>>]) -> Vec<u16> {
    list.iter().filter_map(|at| u16::try_from(at.value.0).ok()).collect()
}

impl Judge<'_, '_> {
    fn route(&mut self, at: &At<raw::Route>, index: usize) -> Option<(Rule, RouteSettings)> {
        let raw = &at.value;
        self.not_built(raw);
        let pattern = raw.pattern.get();
        let action = self.action(at);
        let key = self.key(raw);
        let cluster = self.cluster(raw);
        let claim = raw.claim.get().and_then(|claim| self.claim(claim));
        self.claim_is_met(raw);
        self.claim_if(raw);
        let settings = RouteSettings {
            name: pattern.map_or_else(String::new, |pattern| pattern.text.clone()),
            at: self.found.sources.line(at.place),
            next_on: raw.next_on.get().map_or_else(Vec::new, |list| statuses(list)),
            reply: raw.reply.at().and_then(|reply| self.reply(reply, raw)),
            claim,
            claim_if: raw.claim_if.get().map(|key| key.0.clone()),
            cluster,
            host: if raw.host.get() == Some(&raw::Host::Origin) { HostRule::Origin } else { HostRule::Keep },
            timeouts: self.timeouts(raw),
            retry: self.retry(raw),
            body_max: raw
                .limits
                .get()
                .and_then(|limits| limits.body.get())
                .map(|size| size.0)
                .or(self.common.limits.body),
            request_headers: self.edit(raw.headers.get().map(|headers| &headers.request)),
            response_headers: self.edit(raw.headers.get().map(|headers| &headers.response)),
            rewrite: self.rewrite(raw),
            compress: compress::route(self.common.compress.as_ref(), &raw.compress, self.found),
        };
        let when = raw.when.get().and_then(|when| when.header.get());
        let when = when.map(|line| When { name: line.0.to_ascii_lowercase(), value: line.1.clone() });
        let id = RouteId(u16::try_from(index).ok()?);
        Some((Rule { id, pattern: pattern?.clone(), when, action: action?, key }, settings))
    }

    /// Either places or an answer of our own.
    fn action(&mut self, at: &At<raw::Route>) -> Option<Action> {
        let raw = &at.value;
        match (raw.to.place(), raw.reply.place()) {
            (Some(to), Some(reply)) => {
                let problem = Problem::at(reply, "a route either sends requests on or answers them itself");
                self.found.report(problem.spot(to, "sends them on").help("remove `to` or `reply`"));
                None
            }
            (None, None) => {
                let problem = Problem::at(at.place, "this route says neither `to` nor `reply`");
                self.found.report(
                    problem.help("add to = \"local\", \"central\", \"home:SPACE\", or reply = { status = 404 }"),
                );
                None
            }
            (None, Some(_)) => {
                self.idle_beside_reply(raw);
                Some(Action::Reply)
            }
            (Some(_), None) => self.places(raw),
        }
    }

    /// What has no effect where nothing is sent on.
    fn idle_beside_reply(&mut self, raw: &raw::Route) {
        let idle = [
            ("next_on", raw.next_on.place()),
            ("key", raw.key.place()),
            ("claim", raw.claim.place()),
            ("claim_if", raw.claim_if.place()),
            ("cluster", raw.cluster.place()),
            ("host", raw.host.place()),
            ("rewrite", raw.rewrite.place()),
            ("retry", raw.retry.place()),
            ("cache", raw.cache.place()),
        ];
        for (key, place) in idle.into_iter().filter_map(|(key, place)| Some((key, place?))) {
            self.found.report(Problem::at(place, format!("`{key}` has no effect beside `reply`")).help("remove it"));
        }
    }

    fn places(&mut self, raw: &raw::Route) -> Option<Action> {
        let list = &raw.to.at()?.value.0;
        if list.is_empty() {
            let place = raw.to.at().map_or(Spot::default(), |at| at.place);
            self.found.report(Problem::at(place, "`to` names no place").help("such as to = \"local\""));
        }
        for (number, target) in list.iter().enumerate() {
            let home = |target: &Target| matches!(target, Target::Home(_));
            let before =
                |other: &&At<Target>| other.value == target.value || (home(&other.value) && home(&target.value));
            if let Some(other) = list[..number].iter().find(before) {
                let problem = Problem::at(target.place, "a list names a place, and a home, only once");
                self.found.report(problem.spot(other.place, "named here already").help("remove one"));
            }
        }
        if let (Some(place), true) = (raw.next_on.place(), list.len() == 1) {
            let problem = Problem::at(place, "`next_on` needs a next place");
            self.found.report(problem.help("name several in `to`, such as [\"local\", \"central\"]"));
        }
        let places: Vec<_> = list.iter().map(|target| self.place(target, raw)).collect();
        places.into_iter().collect::<Option<Vec<_>>>().filter(|places| !places.is_empty()).map(Action::To)
    }

    fn place(&mut self, target: &At<Target>, raw: &raw::Route) -> Option<Place> {
        match &target.value {
            Target::Local => {
                self.local_is_there(target, raw);
                Some(Place::Local)
            }
            Target::Central => {
                if !self.clusters.central_written {
                    let problem = Problem::at(target.place, "there is no [central] to send requests to");
                    self.found.report(problem.help("add [central] with `url`"));
                }
                Some(Place::Central)
            }
            Target::Home(space) => {
                self.local_is_there(target, raw);
                self.needs_homes.get_or_insert((target.place, format!("home:{space}")));
                self.space(space, target.place).map(|(id, _)| Place::Home(id))
            }
            Target::EdgeNamed(capture) => {
                self.local_is_there(target, raw);
                self.captured(capture, target.place, raw);
                Some(Place::EdgeNamed(capture.clone()))
            }
            Target::Edge(name) => {
                if self.edges.named(name).is_none() {
                    let wrong = format!("no edge is named `{name}` here");
                    let problem = Problem::at(target.place, wrong).level(Level::Note);
                    self.found
                        .report(problem.label("503 until the feed's edge table names it").help(self.known_edges()));
                }
                Some(Place::Edge(name.clone()))
            }
        }
    }

    fn known_edges(&self) -> String {
        let names: Vec<_> = self.edges.list().into_iter().map(|edge| edge.name.as_str()).collect();
        format!("the edges known here are {}", names.join(", "))
    }

    /// Every place that may turn out to be this one needs origins.
    fn local_is_there(&mut self, target: &At<Target>, raw: &raw::Route) {
        if !self.clusters.local_written && !raw.cluster.is_written() {
            let problem = Problem::at(target.place, "there is no [local] to serve requests here");
            self.found.report(problem.help("add [local] with `origins`, or name a `cluster` of [clusters]"));
        }
    }

    fn captured(&mut self, name: &str, place: Spot, raw: &raw::Route) {
        let Some(pattern) = raw.pattern.at() else { return };
        if !pattern.value.names().contains(&name) {
            let wrong = format!("the pattern has no capture `{name}`");
            let problem = Problem::at(place, wrong).spot(pattern.place, "this pattern");
            self.found.report(problem.help(format!("write {{{name}}} into the pattern")));
        }
    }

    fn captured_by_host(&mut self, name: &str, place: Spot, raw: &raw::Route) {
        let Some(pattern) = raw.pattern.at() else { return };
        let text = &pattern.value.text;
        if !text.split('/').next().is_some_and(|host| host.contains(&format!("{{{name}}}"))) {
            let problem = Problem::at(place, format!("the pattern's host has no capture `{name}`"));
            let problem = problem.spot(pattern.place, "this pattern");
            self.found.report(problem.help(format!("such as match = \"{{{name}}}.example.com/\"")));
        }
    }

    /// Looks a key space up, or reports that there is none.
    fn space(&mut self, name: &str, place: Spot) -> Option<(SpaceId, Regime)> {
        if let Some(at) = self.spaces.iter().position(|space| space.name == name) {
            return Some((SpaceId(u16::try_from(at).ok()?), self.spaces[at].claim));
        }
        // A space whose table is unreadable was reported there.
        if !matches!(self.file.homes, Field::Faulty(_)) {
            let known: Vec<_> = self.spaces.iter().map(|space| space.name.as_str()).collect();
            let remedy = match crate::config::read::nearest(name, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("add [homes.{name}]"),
            };
            self.found.report(Problem::at(place, format!("no key space is named `{name}`")).help(remedy));
        }
        None
    }

    /// Where the key of a home route is.
    fn key(&mut self, raw: &raw::Route) -> Option<KeySource> {
        let targets = raw.to.get().map_or(&[][..], |list| &list.0);
        let home = targets.iter().find_map(|target| match &target.value {
            Target::Home(space) => Some((space, target.place)),
            _ => None,
        });
        let Some((space, place)) = home else {
            if let (Some(key), false) = (raw.key.place(), raw.reply.is_written()) {
                let problem = Problem::at(key, "`key` has no effect: this route goes to no home");
                self.found.report(problem.help("remove it, or say to = \"home:SPACE\""));
            }
            return None;
        };
        if let Some(key) = raw.key.at() {
            if let KeySource::HostLabel(label) = &key.value.0 {
                self.captured_by_host(label, key.place, raw);
            }
            return Some(key.value.0.clone());
        }
        let pattern = raw.pattern.at()?;
        if !raw.key.is_written() && !pattern.value.names().contains(&space.as_str()) {
            let problem = Problem::at(place, format!("nothing says where the key of `home:{space}` is"));
            self.found.report(problem.spot(pattern.place, format!("no capture `{{{space}}}` here")).help(format!(
                "capture it in the pattern as {{{space}}}, or add key = \"header:NAME\", \"cookie:NAME\", \"query:NAME\" \
                 or \"host:LABEL\""
            )));
        }
        Some(KeySource::Capture(space.clone()))
    }

    fn cluster(&mut self, raw: &raw::Route) -> Option<crate::base::id::ClusterId> {
        let name = raw.cluster.at()?;
        let found = self.clusters.named(&name.value.0).filter(|_| name.value.0 != "central");
        if found.is_none() && !matches!(self.file.clusters, Field::Faulty(_)) {
            let known: Vec<_> = self.clusters.list.iter().map(|cluster| cluster.name.as_str()).collect();
            let remedy = match crate::config::read::nearest(&name.value.0, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("add [clusters.{}] with `origins`", name.value.0),
            };
            self.found.report(Problem::at(name.place, format!("no cluster is named `{}`", name.value.0)).help(remedy));
        }
        found
    }

    fn claim(&mut self, raw: &raw::Claim) -> Option<ClaimRule> {
        let space = raw.space.at()?;
        self.needs_homes.get_or_insert((space.place, "claim".to_owned()));
        let (id, regime) = self.space(&space.value.0, space.place)?;
        if self.clusters.feed_is_file {
            let remedy =
                "remove this and write new homes into the file, or follow Central: remove `feed` and add `url`";
            let problem = Problem::at(space.place, "a file of homes is read only: it grants no claim");
            self.found.report(problem.help(remedy));
        }
        if regime == Regime::FirstTouch {
            let wrong =
                format!("`{}` is a first-touch space: its keys are claimed by requests, not by answers", space.value.0);
            let remedy =
                "two regimes in one space would make two owners; say claim = \"registration\" there, or remove this";
            let problem = Problem::at(space.place, wrong).help(remedy);
            self.found.report(self.with_regime(problem, &space.value.0));
        }
        if let Some(pattern) = raw.pattern.at() {
            self.claim_pattern(pattern, &space.value.0);
        }
        if let (Some(key), false) = (raw.key.at(), raw.pattern.is_written())
            && matches!(&key.value.0, plan::ClaimKey::Header(name) if name == "location")
        {
            let problem = Problem::at(key.place, "the whole Location would be the key").level(Level::Warning);
            self.found.report(problem.help(format!("add pattern = \"/v1/…/{{{}}}\"", space.value.0)));
        }
        Some(ClaimRule {
            space: id,
            key: raw.key.get()?.0.clone(),
            pattern: raw.pattern.get().cloned(),
            wait: raw.wait.at().map_or(CLAIM_WAIT, |wait| self.patience(wait)),
            on_timeout: match raw.on_timeout.get() {
                Some(raw::OnTimeout::Fail) => OnTimeout::Fail,
                _ => OnTimeout::Release,
            },
        })
    }

    /// How long an answer may be kept from a client who waits for it.
    fn patience(&mut self, wait: &At<Time>) -> Duration {
        if wait.value.0 > CLAIM_WAIT_MAX {
            let problem = Problem::at(wait.place, "no client waits so long for Central's grant");
            self.found
                .report(problem.help("write at most \"1m\"; what is not granted in time is claimed behind the answer"));
        }
        wait.value.0
    }

    /// Only the answers of this edge's own origin claim.
    fn claim_is_met(&mut self, raw: &raw::Route) {
        let (Some(place), false) = (raw.claim.place(), raw.reply.is_written()) else { return };
        let targets = raw.to.get().map_or(&[][..], |list| &list.0);
        if !targets.is_empty() && targets.iter().all(|to| to.value == Target::Central) {
            let problem = Problem::at(place, "`claim` has no effect: this edge's own origin never answers here");
            self.found.report(problem.help("remove it, or say to = \"local\""));
        }
    }

    fn claim_pattern(&mut self, pattern: &At<Pattern>, space: &str) {
        if !pattern.value.names().contains(&space) {
            let problem = Problem::at(pattern.place, format!("this pattern does not capture the key `{{{space}}}`"));
            self.found.report(problem.help(format!("such as \"/v1/{space}s/{{{space}}}\"")));
        }
        if !pattern.value.text.starts_with('/') {
            let problem = Problem::at(pattern.place, "a claim's pattern is a path without method or host");
            self.found.report(problem.help("only the path of the Location is matched"));
        }
    }

    /// Adds the line that says by which regime the keys of a space are claimed, if there is one.
    fn with_regime(&self, problem: Problem, space: &str) -> Problem {
        let named = self.file.homes.get().and_then(|homes| homes.0.iter().find(|(name, _)| name.value.0 == space));
        match named.and_then(|(_, homes)| homes.value.claim.place()) {
            Some(place) => problem.spot(place, "the regime of this key space"),
            None => problem,
        }
    }

    /// What else than an unsafe method may claim: a matter of first-touch spaces only.
    fn claim_if(&mut self, raw: &raw::Route) {
        let (Some(place), false) = (raw.claim_if.place(), raw.reply.is_written()) else { return };
        let targets = raw.to.get().map_or(&[][..], |list| &list.0);
        let spaces = || {
            let leads_to =
                |name: &str| targets.iter().any(|to| matches!(&to.value, Target::Home(home) if home == name));
            self.spaces.iter().filter(move |space| leads_to(&space.name))
        };
        if !spaces().any(|space| space.claim == Regime::FirstTouch) {
            let problem = Problem::at(place, "`claim_if` has no effect: this route goes to no first-touch home");
            let problem = problem.help("remove it, or say claim = \"first-touch\" in the key space");
            let problem = spaces().fold(problem, |problem, space| self.with_regime(problem, &space.name));
            self.found.report(problem);
        }
        if let Some(key) =
            raw.claim_if.at().filter(|key| !matches!(key.value.0, KeySource::Header(_) | KeySource::Cookie(_)))
        {
            let problem = Problem::at(key.place, "`claim_if` looks at a header or a cookie");
            self.found.report(problem.help("write \"header:NAME\" or \"cookie:NAME\""));
        }
    }

    fn reply(&mut self, at: &At<raw::Reply>, route: &raw::Route) -> Option<Reply> {
        let raw = &at.value;
        let status = u16::try_from(raw.status.get()?.0).ok()?;
        if matches!(status, 301 | 302 | 303 | 307 | 308) && !raw.location.is_written() {
            let problem = Problem::at(at.place, format!("a redirect with {status} needs a `location`"));
            self.found.report(problem.help("such as location = \"https://example.com{path}\""));
        }
        if let (204 | 205 | 304, Some(body)) = (status, raw.body.place()) {
            let problem = Problem::at(body, format!("an answer with {status} has no content (RFC 9110)"));
            self.found.report(problem.help("remove `body`, or use another status"));
        }
        if let Some(location) = raw.location.at() {
            self.template(location.place, &location.value.0, &["path", "query", "host"], route);
        }
        Some(Reply {
            status,
            location: raw.location.get().map(|location| location.0.clone()),
            body: raw.body.get().map_or_else(String::new, |body| body.0.clone()),
            content_type: raw
                .content_type
                .get()
                .map_or_else(|| "text/plain; charset=utf-8".to_owned(), |t| t.0.clone()),
        })
    }

    fn rewrite(&mut self, raw: &raw::Route) -> Option<String> {
        let at = raw.rewrite.at()?;
        self.template(at.place, &at.value.0, &[], raw);
        Some(at.value.0.clone())
    }

    /// Every `{name}` of a template must be a capture or one of `more`.
    fn template(&mut self, place: Spot, text: &str, more: &[&str], route: &raw::Route) {
        let Some(pattern) = route.pattern.get() else { return };
        let known: Vec<&str> = pattern.names().into_iter().chain(more.iter().copied()).collect();
        let mut at = 0;
        while let Some(found) = text[at..].find(['{', '}']) {
            let open = at + found;
            let close = text[open..].find('}').map(|close| open + close).filter(|close| *close > open);
            let name = close.map(|close| &text[open + 1..close]);
            if !name.is_some_and(|name| known.contains(&name)) {
                let end = close.map_or(open + 1, |close| close + 1);
                let wrong = name
                    .map_or_else(|| "this brace has no partner".to_owned(), |n| format!("nothing is named `{n}` here"));
                let place = within(self.found.sources, place, text, open..end);
                self.found.report(Problem::at(place, wrong).help(format!("known here: {}", known.join(", "))));
            }
            at = close.map_or(open + 1, |close| close + 1);
        }
    }

    fn timeouts(&mut self, raw: &raw::Route) -> plan::Timeouts {
        let mut to = self.common.timeouts.clone();
        match raw.timeout.at() {
            None => {}
            Some(At { value: Either::Short(total), place, key }) => {
                to.total = Some(total.0);
                not_zero(&Field::Is(At { value: *total, place: *place, key: *key }), self.found);
            }
            Some(At { value: Either::Table(raw), .. }) => {
                let waits = [
                    (&raw.body, &mut to.body),
                    (&raw.connect, &mut to.connect),
                    (&raw.first_byte, &mut to.first_byte),
                    (&raw.between, &mut to.between),
                    (&raw.tunnel, &mut to.tunnel),
                ];
                for (field, target) in waits {
                    set(target, field, |time| time.0);
                    not_zero(field, self.found);
                }
                not_zero(&raw.total, self.found);
                set(&mut to.total, &raw.total, |time| Some(time.0));
            }
        }
        to
    }

    fn retry(&self, raw: &raw::Route) -> plan::Retry {
        let mut retry = self.common.retry.clone();
        if let Some(raw) = raw.retry.get() {
            set(&mut retry.attempts, &raw.attempts, |count| count.0);
            set(&mut retry.statuses, &raw.statuses, |list| statuses(list));
            set(&mut retry.unsafe_methods, &raw.unsafe_methods, |flag| *flag);
        }
        retry
    }

    fn edit(&mut self, raw: Option<&Field<raw::Edit>>) -> HeaderEdit {
        let mut edit = HeaderEdit::default();
        let Some(raw) = raw.and_then(Field::get) else { return edit };
        for name in raw.remove.get().into_iter().flatten() {
            self.editable(name);
            edit.remove.push(name.value.0.to_ascii_lowercase());
        }
        for (name, value) in pairs(&raw.set) {
            self.editable(name);
            edit.set.push(name.value.0.as_bytes(), value.value.0.as_bytes());
        }
        edit
    }

    /// Fields that say how a message is framed, or who speaks, are not for editing.
    fn editable(&mut self, name: &At<FieldName>) {
        const OURS: [&str; 11] = [
            "connection",
            "content-length",
            "transfer-encoding",
            "te",
            "trailer",
            "upgrade",
            "keep-alive",
            "proxy-connection",
            "via",
            "cdn-loop",
            "expect",
        ];
        let lower = name.value.0.to_ascii_lowercase().replace('_', "-");
        let remedy = match lower.as_str() {
            "host" => "say host = \"keep\" or \"origin\" in the route",
            "coordinator" => "it tells origins who asks and is always set by us",
            own if own.starts_with("coordinator-") => "names that begin with `Coordinator-` are ours",
            own if OURS.contains(&own) => "it belongs to the connection and is made anew for every message",
            _ => return,
        };
        self.found.report(Problem::at(name.place, format!("`{}` cannot be edited", name.value.0)).help(remedy));
    }

    fn not_built(&mut self, raw: &raw::Route) {
        for at in raw.on_partition.get().map_or(&[][..], |list| &list.0) {
            let effect = match at.value {
                raw::OnPartition::Stale => "no stale answer would be there",
                raw::OnPartition::Queue => "writes would be refused instead of kept",
            };
            self.found.later_at(at.place, Level::Error, effect);
        }
        self.found.later(&raw.deliver, Level::Error, "requests would wait instead of being queued");
        let ranked = raw.priority.get() != Some(&raw::Priority::Normal);
        self.note_later("cache", "answers are not stored", raw.cache.place());
        self.note_later("priority", "all requests are equal", raw.priority.place().filter(|_| ranked));
    }

    fn note_later(&mut self, key: &'static str, effect: &'static str, place: Option<Spot>) {
        let Some(place) = place else { return };
        match self.later.iter_mut().find(|(other, _, _)| *other == key) {
            Some((_, _, places)) => places.push(place),
            None => self.later.push((key, effect, vec![place])),
        }
    }

    /// One note per key, however many routes say it.
    fn report_later(&mut self) {
        for (key, effect, places) in std::mem::take(&mut self.later) {
            let label = match places.len() - 1 {
                0 => effect.to_owned(),
                more => format!("{effect}; also in {more} more of the routes"),
            };
            let problem = Problem::at(places[0], format!("`{key}` is not built yet")).level(Level::Note);
            self.found.report(problem.label(label));
        }
    }

    /// What a route with homes needs elsewhere in the file.
    fn homes_are_served(&mut self) {
        let Some((place, word)) = self.needs_homes.take() else { return };
        if let Some(edge) = self.file.edge.at().filter(|edge| !edge.value.data.is_written()) {
            let problem = Problem::at(edge.place, "`data` is missing in [edge]").label("no folder for homes");
            self.found.report(
                problem.spot(place, format!("`{word}` needs one")).help("such as data = \"/var/lib/coordinator\""),
            );
        }
        if !self.clusters.url_written && !self.clusters.feed_is_file {
            let problem = Problem::at(place, format!("`{word}` needs Central, which owns the order of homes"));
            self.found.report(problem.help("add [central] with `url`"));
        }
        if !self.file.peer.is_written() {
            let problem = Problem::at(place, "other edges cannot reach the users who live here").level(Level::Warning);
            self.found.report(problem.label("homes, but no [peer] door").help("add [peer]"));
        }
    }
}

fn pairs<K, T>(field: &Field<Named<K, T>>) -> impl Iterator<Item = &(At<K>, At<T>)> {
    field.get().into_iter().flat_map(|named| &named.0)
}
