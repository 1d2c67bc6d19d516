//! From a request at one of the two doors to its answer.

use super::{Ask, Kind, Make, Order, Panel, Refused, Unreleased, page};
use crate::base::fault::LASTS_MAX;
use crate::base::units;
use crate::metrics::render;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN};
use http::{Method, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use std::net::IpAddr;
use std::time::Duration;

/// A finished answer.
pub(super) type Answer = http::Response<Full<Bytes>>;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Why there are no faults here.
const FAULTS_OFF: &str = "faults on purpose are not permitted here\nhelp: set `faults = true` under `[admin]` in the configuration, and reload\n";

/// What a path is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Look,
    Act,
    /// Both, by the method.
    Either,
}

impl Purpose {
    fn allows(self, method: &Method) -> bool {
        let look = *method == Method::GET || *method == Method::HEAD;
        match self {
            Purpose::Look => look,
            Purpose::Act => *method == Method::POST,
            Purpose::Either => look || *method == Method::POST,
        }
    }

    fn allow(self) -> &'static str {
        match self {
            Purpose::Look => "GET, HEAD",
            Purpose::Act => "POST",
            Purpose::Either => "GET, HEAD, POST",
        }
    }
}

/// Answers one request. `checked` = it came over TCP, where web pages can reach.
pub(super) async fn answer<B>(request: http::Request<B>, kind: Kind, checked: bool, panel: &dyn Panel) -> Answer {
    let path = request.uri().path();
    let Some(purpose) = purpose(path, kind) else { return text(StatusCode::NOT_FOUND, no_page(kind)) };
    if kind == Kind::Admin && checked && !is_local(request.headers()) {
        return text(
            StatusCode::MISDIRECTED_REQUEST,
            "Host must be localhost or an IP address: a web page could bring its own name here\n",
        );
    }
    if !purpose.allows(request.method()) {
        let allow = purpose.allow();
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, format!("not with this method: use {allow}\n"));
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        return answer;
    }
    let acts = request.method() == Method::POST;
    if let Some(refusal) = foreign(request.headers()).filter(|_| acts) {
        return refusal;
    }
    match path {
        "/faults" => faults(request.uri().query().unwrap_or_default(), acts, panel),
        "/reload" => reloaded(panel.reload().await),
        "/release" => release(request.uri().query().unwrap_or_default(), panel),
        "/drain" => json(StatusCode::OK, &panel.drain().await),
        "/metrics" => metrics(request.headers(), panel),
        _ => look(path, request.uri().query().unwrap_or_default(), panel),
    }
}

fn purpose(path: &str, kind: Kind) -> Option<Purpose> {
    match path {
        "/health/live" | "/health/ready" | "/metrics" => Some(Purpose::Look),
        _ if kind == Kind::Observe => None,
        "/" | "/page.css" | "/page.js" | "/live" | "/status" | "/explain" => Some(Purpose::Look),
        "/faults" => Some(Purpose::Either),
        "/reload" | "/drain" | "/release" => Some(Purpose::Act),
        _ => path.starts_with("/homes/").then_some(Purpose::Look),
    }
}

/// What there is instead of a page that there is not.
fn no_page(kind: Kind) -> &'static str {
    match kind {
        Kind::Observe => {
            "there is no such page; this door has /health/live, /health/ready and /metrics, the admin door has the rest\n"
        }
        Kind::Admin => {
            "there is no such page; there are / (for a browser), /status, /explain?url=…, /homes/SPACE/KEY, /live, /faults, /reload, /drain, /release, /metrics and /health/…\n"
        }
    }
}

fn look(path: &str, query: &str, panel: &dyn Panel) -> Answer {
    match path {
        "/health/live" => text(StatusCode::OK, "live\n"),
        "/health/ready" => match panel.ready() {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(reasons) => text(StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n"),
        },
        "/status" => json(StatusCode::OK, &panel.status()),
        "/live" => json(StatusCode::OK, &panel.live()),
        "/" | "/page.css" | "/page.js" => page::part(path),
        "/explain" => explain(query, panel),
        _ => home(path, panel),
    }
}

/// Lets pass what the brake holds under the id that is named.
fn release(query: &str, panel: &dyn Panel) -> Answer {
    let id = query.split('&').find_map(|pair| pair.strip_prefix("id=")).unwrap_or_default();
    match panel.release(id) {
        Ok(told) => json(StatusCode::OK, &told),
        Err(Unreleased::Other(held)) => text(StatusCode::CONFLICT, held + "\n"),
        Err(Unreleased::NoBrake) => text(StatusCode::NOT_FOUND, "this process keeps no home map: ask an edge\n"),
    }
}

/// OpenMetrics for those who ask for it, as Prometheus does; the older Prometheus text for all others.
fn metrics(headers: &HeaderMap, panel: &dyn Panel) -> Answer {
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let page = panel.metrics();
    if accepted.any(|value| value.contains("application/openmetrics-text")) {
        return typed(StatusCode::OK, render::CONTENT_TYPE, page);
    }
    typed(StatusCode::OK, render::CLASSIC_TYPE, render::classic(&page))
}

fn faults(query: &str, acts: bool, panel: &dyn Panel) -> Answer {
    let order = match acts.then(|| order(query)).transpose() {
        Ok(order) => order,
        Err(wrong) => return text(StatusCode::BAD_REQUEST, wrong + "\n"),
    };
    match panel.faults(order) {
        Ok(faults) => json(StatusCode::OK, &faults),
        Err(Refused::Off) => text(StatusCode::FORBIDDEN, FAULTS_OFF),
        Err(Refused::Wrong(why)) => text(StatusCode::BAD_REQUEST, why + "\n"),
    }
}

/// Reads `place=us&do=cut&for=30s`, `place=us&do=delay&by=200ms&for=30s`, `place=us&do=mend`.
fn order(query: &str) -> Result<Order, String> {
    let (mut place, mut what, mut by, mut lasts) = (None, None, None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value).ok_or_else(|| format!("`{name}` is not percent-encoded UTF-8"))?;
        match name {
            "place" => place = Some(value),
            "do" => what = Some(value),
            "by" => by = Some(units::duration(&value)?),
            "for" => lasts = Some(units::duration(&value)?),
            other => return Err(format!("`{other}` is not asked for; there are place, do, by and for")),
        }
    }
    let place = place.ok_or("place is missing: `central`, or the name of an edge")?;
    let what = match what.as_deref() {
        Some("cut") => Make::Cut,
        Some("delay") => Make::Delay(by.ok_or("by is missing: how long each request waits, such as by=200ms")?),
        Some("mend") => return Ok(Order { place, what: Make::Mend, lasts: Duration::ZERO }),
        _ => return Err("do is cut, delay or mend: POST /faults?place=us&do=cut&for=30s".to_owned()),
    };
    let lasts = lasts.filter(|lasts| !lasts.is_zero() && *lasts <= LASTS_MAX);
    let lasts = lasts.ok_or_else(|| format!("for is how long it lasts: from 1ms to {} s", LASTS_MAX.as_secs()))?;
    Ok(Order { place, what, lasts })
}

fn explain(query: &str, panel: &dyn Panel) -> Answer {
    let ask = match ask(query) {
        Ok(ask) => ask,
        Err(wrong) => return text(StatusCode::BAD_REQUEST, wrong + "\n"),
    };
    let kind = if ask.json { JSON } else { TEXT };
    match panel.explain(ask) {
        Ok(told) => typed(StatusCode::OK, kind, told),
        Err(wrong) => text(StatusCode::BAD_REQUEST, wrong + "\n"),
    }
}

/// Reads `method=GET&url=/v1/items&header=Name:%20value&format=json`. A `+` stands for itself, as in URLs.
fn ask(query: &str) -> Result<Ask, String> {
    let mut ask = Ask { method: "GET".to_owned(), url: String::new(), headers: Vec::new(), json: false };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value).ok_or_else(|| format!("`{name}` is not percent-encoded UTF-8"))?;
        match name {
            "method" => ask.method = value,
            "url" => ask.url = value,
            "header" => {
                let (name, value) = value.split_once(':').ok_or("a header is `Name: value`")?;
                ask.headers.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            "format" => ask.json = value == "json",
            other => return Err(format!("`{other}` is not asked for; there are method, url, header and format")),
        }
    }
    if ask.url.is_empty() { Err("url is missing: /explain?method=GET&url=/v1/items".to_owned()) } else { Ok(ask) }
}

fn home(path: &str, panel: &dyn Panel) -> Answer {
    let named = path.strip_prefix("/homes/").and_then(|rest| rest.split_once('/'));
    let decoded = named.and_then(|(space, key)| Some((decode(space)?, decode(key)?)));
    let Some((space, key)) = decoded.filter(|(space, key)| !space.is_empty() && !key.is_empty()) else {
        return text(StatusCode::BAD_REQUEST, "a home is asked for as /homes/SPACE/KEY\n");
    };
    match panel.home(&space, &key) {
        Some(home) => json(StatusCode::OK, &home),
        None => {
            text(StatusCode::NOT_FOUND, "this process keeps no home map: ask Central, by `coordinator homes get KEY`\n")
        }
    }
}

fn reloaded(outcome: Result<String, String>) -> Answer {
    match outcome {
        Ok(told) => text(StatusCode::OK, told),
        Err(why) => text(StatusCode::UNPROCESSABLE_ENTITY, why),
    }
}

/// Whether Host is `localhost` or an address: a name that somebody else controls can be made to point here.
fn is_local(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|octet| octet.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// Refuses what only a web page sends. Command-line clients send neither Origin nor the content types of forms.
fn foreign(headers: &HeaderMap) -> Option<Answer> {
    let own = |origin: &HeaderValue| {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://")) == host && host.is_some()
    };
    if headers.get_all(ORIGIN).iter().any(|origin| !own(origin)) {
        return Some(text(
            StatusCode::FORBIDDEN,
            "a web page of another origin may not act here; use a command line\n",
        ));
    }
    let content = headers.get(CONTENT_TYPE).map(|value| value.as_bytes().to_ascii_lowercase());
    let forms = [&b"application/x-www-form-urlencoded"[..], b"multipart/form-data", b"text/plain"];
    let form = content.is_some_and(|content| forms.iter().any(|form| content.starts_with(form)));
    form.then(|| text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send no content, or application/json\n"))
}

fn text(status: StatusCode, text: impl Into<String>) -> Answer {
    typed(status, TEXT, text.into())
}

fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
    typed(status, JSON, format!("{value:#}\n"))
}

pub(super) fn typed(status: StatusCode, kind: &'static str, content: impl Into<hyper::body::Bytes>) -> Answer {
    let mut answer = http::Response::new(Full::new(content.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Undoes percent-encoding; `None` where it is broken or not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        if octet != b'%' {
            out.push(octet);
            continue;
        }
        let digit = |octet: u8| char::from(octet).to_digit(16);
        let (high, low) = (digit(octets.next()?)?, digit(octets.next()?)?);
        out.push((high * 16 + low) as u8);
    }
    String::from_utf8(out).ok()
}
