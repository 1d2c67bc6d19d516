//! Latencies as an SVG: a panel for each scenario, a line for each subject and rate.
//!
//! The axis of shares is logarithmic in what is left above them, as HdrHistogram's plots have it: 90 %, 99 % and 99.9 % are
//! as far apart, so the tail is as wide as the rest. Written by hand, so that nothing needs to be installed to get it.

use super::figures::{Open, Table};
use serde_json::Value;
use std::fmt::Write;

/// One panel, and the space around it.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 64.0;
const GAP: f64 = 84.0;

/// Room for the names of lines.
const NAMES: f64 = 220.0;

/// Marks on the axis of shares.
const SHARES: [(&str, f64); 7] = [
    ("0", 0.0),
    ("50 %", 0.5),
    ("90 %", 0.9),
    ("99 %", 0.99),
    ("99.9 %", 0.999),
    ("99.99 %", 0.9999),
    ("99.999 %", 0.99999),
];

/// Nines that the axis of shares ends at.
const NINES: f64 = 5.0;

/// Colours that hold on light and on dark, and apart for most who see colours differently.
const COLOURS: [&str; 6] = ["#d55e00", "#0284c7", "#0f9d74", "#b4569b", "#a8860a", "#808890"];

const STYLE: &str = "\
text { font: 12px system-ui, sans-serif; fill: #24292f; } .title { font-size: 14px; font-weight: 600; } .mark { text-anchor: middle; } \
.paper { fill: #ffffff; } .grid { stroke: #d0d7de; stroke-width: 1; } .line { fill: none; stroke-width: 2; } \
@media (prefers-color-scheme: dark) { text { fill: #d5dbe1; } .paper { fill: #0d1117; } .grid { stroke: #30363d; } }";

/// Draws all scenarios that have latencies on a schedule.
pub fn svg(facts: &Value, tables: &[Table]) -> String {
    let drawn: Vec<&Table> = tables.iter().filter(|table| table.rows.iter().any(|row| !row.open.is_empty())).collect();
    let height = TOP + drawn.len() as f64 * (HEIGHT + GAP);
    let width = LEFT + WIDTH + NAMES;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\n\
         <style>{STYLE}</style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n"
    );
    let fact = |name: &str| facts[name].as_str().unwrap_or_default().to_owned();
    let about = format!("{} · {} · commit {} · {}", fact("machine"), fact("kernel"), fact("commit"), fact("date"));
    text(&mut out, LEFT, 24.0, "", &about);
    for (at, table) in drawn.into_iter().enumerate() {
        panel(&mut out, TOP + at as f64 * (HEIGHT + GAP), table);
    }
    out + "</svg>\n"
}

/// What a panel's latencies reach, as decades of microseconds.
struct Scale {
    low: f64,
    high: f64,
    top: f64,
}

impl Scale {
    fn of(table: &Table, top: f64) -> Scale {
        let all = || table.rows.iter().flat_map(|row| &row.open).map(|open| &open.latency);
        let least =
            all().filter_map(|latency| latency.curve().first().map(|(_, micros)| *micros)).fold(f64::MAX, f64::min);
        let most = all().map(|latency| latency.micros(1.0)).fold(1.0, f64::max);
        let low = least.max(1.0).log10().floor();
        Scale { low, high: most.log10().ceil().max(low + 1.0), top }
    }

    fn y(&self, micros: f64) -> f64 {
        let share = (micros.max(1.0).log10() - self.low) / (self.high - self.low);
        self.top + HEIGHT * (1.0 - share.clamp(0.0, 1.0))
    }
}

/// Where a share below 1 stands: by the nines that it has.
fn x(share: f64) -> f64 {
    let nines = -(1.0 - share).log10();
    LEFT + WIDTH * nines.min(NINES) / NINES
}

fn panel(out: &mut String, top: f64, table: &Table) {
    let scale = Scale::of(table, top);
    text(out, LEFT, top - 12.0, "title", &format!("{}: {}", table.scenario.name, table.scenario.about));
    for (name, share) in SHARES {
        rule(out, (x(share), top), (x(share), top + HEIGHT));
        text(out, x(share), top + HEIGHT + 18.0, "mark", name);
    }
    for decade in scale.low as i32..=scale.high as i32 {
        let micros = 10_f64.powi(decade);
        rule(out, (LEFT, scale.y(micros)), (LEFT + WIDTH, scale.y(micros)));
        text(out, 8.0, scale.y(micros) + 4.0, "", &time(micros));
    }
    lines(out, &scale, table);
}

/// The lines of a panel, and beside it which is whose.
fn lines(out: &mut String, scale: &Scale, table: &Table) {
    let mut names = scale.top + 12.0;
    for (at, row) in table.rows.iter().enumerate() {
        for (rank, open) in row.open.iter().enumerate() {
            // The lowest rate is dotted, the highest is drawn through.
            let dashes = if rank + 1 == row.open.len() { "none" } else { "2 4" };
            let stroke = format!("stroke=\"{}\" stroke-dasharray=\"{dashes}\"", COLOURS[at % COLOURS.len()]);
            curve(out, scale, open, &stroke);
            let from = LEFT + WIDTH + 12.0;
            let _ = writeln!(out, "<path class=\"line\" {stroke} d=\"M{from} {}h24\"/>", names - 4.0);
            text(out, from + 32.0, names, "", &format!("{}, {:.0}/s", row.which.name(), open.rate));
            names += 18.0;
        }
    }
}

fn curve(out: &mut String, scale: &Scale, open: &Open, stroke: &str) {
    let mut path = String::new();
    // A line ends where its requests end: of a thousand, the slowest stands beyond 99.9 % and tells nothing of 99.99 %.
    let last = 1.0 - 0.5 / open.latency.total().max(1) as f64;
    for (at, (share, micros)) in open.latency.curve().into_iter().enumerate() {
        let _ = write!(path, "{}{:.1} {:.1}", if at == 0 { "M" } else { "L" }, x(share.min(last)), scale.y(micros));
    }
    let _ = writeln!(out, "<path class=\"line\" {stroke} d=\"{path}\"/>");
}

fn rule(out: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(out, "<path class=\"grid\" d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\"/>");
}

fn text(out: &mut String, x: f64, y: f64, class: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(out, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>");
}

fn time(micros: f64) -> String {
    match micros {
        s if s >= 1e6 => format!("{:.0} s", s / 1e6),
        ms if ms >= 1e3 => format!("{:.0} ms", ms / 1e3),
        us => format!("{us:.0} µs"),
    }
}
