//! One frame of `top`: figures in, text out. Pure; never wider or higher than it may be.

use super::figures::{Figures, Traffic};
use crate::cli::progress::{duration, size};
use serde_json::Value;
use std::time::Duration;

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Characters of a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

impl Size {
    /// For what is no terminal.
    pub const UNBOUNDED: Size = Size { columns: usize::MAX, rows: usize::MAX };

    /// The terminal's, as it is at this moment; one line is kept for trouble.
    pub fn of_terminal() -> Size {
        let (columns, rows) = terminal_size::terminal_size().map_or((80, 24), |(width, height)| (width.0, height.0));
        Size { columns: columns.into(), rows: usize::from(rows).saturating_sub(1) }
    }
}

/// The routes' share of the lines is never less.
const ROUTES_MIN: usize = 3;
/// The width of a route's column, as the terminal allows it; longer routes are cut.
const ROUTE_WIDTH: std::ops::RangeInclusive<usize> = 16..=40;
/// What the other columns of a route take, and one more: some terminals wrap a line that is full.
const ROUTE_REST: usize = 55;

/// Draws a frame: rates and latencies since `before`, or since the process started.
pub fn draw(now: &Figures, before: Option<&Figures>, size: Size, address: &str) -> String {
    let (since, took) = now.since(before);
    let head = head(now, &since, took, address);
    let places = places(&now.status);
    let room = size.rows.saturating_sub(head.len() + places.len()).max(ROUTES_MIN);
    let period =
        if before.is_none() { "since the start".to_owned() } else { format!("over {:.1} s", took.as_secs_f64()) };
    let routes = routes(&since, took, &period, (size.columns, room));
    let lines = head.into_iter().chain(routes).chain(places);
    lines.take(size.rows).map(|line| fit(&line, size.columns) + "\n").collect()
}

fn fit(line: &str, columns: usize) -> String {
    clean(line).trim_end().chars().take(columns).collect()
}

/// Text without what a terminal would obey.
pub fn clean(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or("-")
}

fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or(0)
}

fn yes(value: &Value, name: &str) -> bool {
    value.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn head(now: &Figures, since: &Figures, took: Duration, address: &str) -> Vec<String> {
    let status = &now.status;
    let uptime = duration(number(status, "uptime_ms") as f64 / 1000.0);
    let mut lines = vec![format!(
        "{} of {}   version {}   up {uptime}   {}   at {address}",
        text(status, "name"),
        text(status, "deployment"),
        text(status, "version"),
        readiness(status)
    )];
    let mut all = Traffic::default();
    since.routes.values().for_each(|one| all.add(one));
    let (asked, answered) = since.asked;
    let yielded = if asked == 0 { "-".to_owned() } else { format!("{:.2} %", answered as f64 / asked as f64 * 100.0) };
    lines.push(format!(
        "{} connections, {} requests/s, yield {yielded}, in {}/s, out {}/s",
        number(status, "connections"),
        rate(all.requests, took),
        size(per_second(since.octets.0, took) as u64),
        size(per_second(since.octets.1, took) as u64)
    ));
    lines.extend(feed(status));
    lines.push(String::new());
    lines
}

fn readiness(status: &Value) -> String {
    if yes(status, "ready") {
        return "ready".to_owned();
    }
    let why: Vec<_> = list(status, "not_ready").iter().filter_map(Value::as_str).collect();
    format!("NOT READY: {}", why.join(", "))
}

/// The feed and the homes at an edge, the log at Central.
fn feed(status: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(feed) = status.get("feed").filter(|feed| feed.is_object()) {
        let lag = feed.get("lag_ms").and_then(Value::as_u64).map(|ms| format!(", {ms} ms")).unwrap_or_default();
        let state = if yes(feed, "connected") { "followed" } else { "NOT CONNECTED" };
        let trouble = feed.get("trouble").and_then(Value::as_str).map(|why| format!("   {why}")).unwrap_or_default();
        let (applied, behind) = (number(feed, "applied"), number(feed, "lag_events"));
        lines.push(format!("feed {state}, at event {applied}, {behind} behind{lag}{trouble}"));
    }
    if let Some(homes) = status.get("homes").filter(|homes| homes.is_object()) {
        lines.push(format!(
            "homes {} keys, {} owned here, {} claims on their way",
            number(homes, "map_keys"),
            number(homes, "owned"),
            number(homes, "outbox")
        ));
    }
    if let Some(central) = status.get("central").filter(|central| central.is_object()) {
        lines.push(format!("Central's log at event {}   feed {}", number(central, "head"), text(central, "feed")));
    }
    lines
}

/// The busiest first.
fn routes(since: &Figures, took: Duration, period: &str, (columns, room): (usize, usize)) -> Vec<String> {
    let width = columns.saturating_sub(ROUTE_REST).clamp(*ROUTE_WIDTH.start(), *ROUTE_WIDTH.end());
    let mut lines = vec![format!(
        "{:width$} {:8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        format!("ROUTE, {period}"),
        "DECISION",
        "REQ/S",
        "5XX/S",
        "P50",
        "P90",
        "P99"
    )];
    let mut rows: Vec<_> = since.routes.iter().collect();
    rows.sort_by_key(|(name, traffic)| (std::cmp::Reverse(traffic.requests), *name));
    // The header, what is left out, and the empty line at the end.
    let shown = if rows.len() + 2 <= room { rows.len() } else { room.saturating_sub(3) };
    for ((route, decision), traffic) in rows.iter().take(shown) {
        let route: String = route.chars().take(width).collect();
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|share| time(traffic.quantile(share)));
        lines.push(format!(
            "{route:width$} {decision:8} {:>8} {:>8} {p50:>8} {p90:>8} {p99:>8}",
            rate(traffic.requests, took),
            rate(traffic.failed, took)
        ));
    }
    match rows.len() - shown {
        0 if rows.is_empty() => lines.push("no requests yet".to_owned()),
        0 => {}
        more => lines.push(format!("… and {more} more")),
    }
    lines.push(String::new());
    lines
}

/// Links and clusters with their endpoints: a link is the cluster of another place.
fn places(status: &Value) -> Vec<String> {
    let mut lines = vec![format!("{:16} {:5} {:36} {:5} {:>9}", "CLUSTER", "STATE", "ENDPOINT", "STATE", "IN FLIGHT")];
    for cluster in list(status, "clusters") {
        let mut first = (text(cluster, "name"), state(yes(cluster, "reachable")));
        for endpoint in list(cluster, "endpoints") {
            lines.push(format!(
                "{:16} {:5} {:36} {:5} {:>9}",
                first.0,
                first.1,
                text(endpoint, "address"),
                state(yes(endpoint, "up")),
                number(endpoint, "in_flight")
            ));
            first = ("", "");
        }
    }
    lines
}

fn state(up: bool) -> &'static str {
    if up { "up" } else { "DOWN" }
}

fn per_second(count: u64, took: Duration) -> f64 {
    if took.is_zero() { 0.0 } else { count as f64 / took.as_secs_f64() }
}

fn rate(count: u64, took: Duration) -> String {
    let rate = per_second(count, took);
    if rate > 0.0 && rate < 10.0 { format!("{rate:.2}") } else { format!("{rate:.0}") }
}

/// Seconds as what one reads at a glance.
fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds.is_infinite() => "> 30 s".to_owned(),
        Some(seconds) if seconds < 0.001 => format!("{:.0} us", seconds * 1e6),
        Some(seconds) if seconds < 0.01 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock;

    const STATUS: &str = r#"{"name":"fr","deployment":"shop","version":"1.0.0","uptime_ms":10000,"ready":false,
        "not_ready":["draining"],"connections":3,
        "feed":{"connected":true,"applied":88,"lag_events":2,"lag_ms":7,"trouble":null},
        "homes":{"map_keys":100,"owned":40,"outbox":1},"central":null,
        "clusters":[{"name":"local","reachable":true,"endpoints":[{"address":"10.0.0.1:80","up":true,"in_flight":4},
        {"address":"10.0.0.2:80\u001b[2J","up":false,"in_flight":0}]}]}"#;

    fn figures(routes: usize) -> Figures {
        let metrics: String = (0..routes)
            .map(|n| {
                let labels = format!(r#"route="/r{n}",decision="local""#);
                format!(
                    "coordinator_requests_total{{{labels},status=\"2xx\"}} {}\n\
                     coordinator_request_duration_seconds_bucket{{le=\"0.001\",{labels}}} 0\n\
                     coordinator_request_duration_seconds_bucket{{le=\"+Inf\",{labels}}} 1\n",
                    n * 100
                )
            })
            .collect();
        Figures::read(clock::now(), STATUS, &metrics).unwrap()
    }

    #[test]
    fn a_frame_tells_everything_at_a_glance() {
        let frame = draw(&figures(2), None, Size::UNBOUNDED, "127.0.0.1:9900");
        let expected = "\
fr of shop   version 1.0.0   up 10 s   NOT READY: draining   at 127.0.0.1:9900
3 connections, 10 requests/s, yield -, in 0 B/s, out 0 B/s
feed followed, at event 88, 2 behind, 7 ms
homes 100 keys, 40 owned here, 1 claims on their way

ROUTE, since the start                   DECISION    REQ/S    5XX/S      P50      P90      P99
/r1                                      local          10        0   > 30 s   > 30 s   > 30 s
/r0                                      local           0        0   > 30 s   > 30 s   > 30 s

CLUSTER          STATE ENDPOINT                             STATE IN FLIGHT
local            up    10.0.0.1:80                          up            4
                       10.0.0.2:80\u{fffd}[2J                      DOWN          0
";
        assert_eq!(frame, expected);
    }

    #[test]
    fn a_frame_fits_its_terminal() {
        for (columns, rows) in [(80, 24), (40, 10), (1, 1), (0, 0), (200, 14)] {
            let frame = draw(&figures(50), None, Size { columns, rows }, "x");
            assert!(frame.lines().count() <= rows, "{columns}x{rows}:\n{frame}");
            assert!(frame.lines().all(|line| line.chars().count() <= columns), "{columns}x{rows}:\n{frame}");
        }
        let frame = draw(&figures(50), None, Size { columns: 80, rows: 24 }, "x");
        assert!(frame.contains("… and 37 more"), "{frame}");
        assert!(frame.lines().all(|line| line.chars().count() < 80), "nothing is cut at 80 columns:\n{frame}");
        assert!(frame.ends_with("DOWN          0\n"), "the places are not pushed out:\n{frame}");
        assert!(draw(&figures(0), None, Size::UNBOUNDED, "x").contains("no requests yet"));
    }
}
