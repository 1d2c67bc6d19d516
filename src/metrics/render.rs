//! Prometheus text (OpenMetrics 1.0), made from the sums over all workers.

use super::cells::{
    BUCKETS, Cells, ClusterCells, Count, Cut, DecisionLabel, DoorLabel, Handshake, Histogram, RouteCells, SIDES,
    StatusLabel,
};
use super::{Metrics, Shared, lock};
use crate::error::KINDS;
use crate::message::accept::Coding;
use crate::record::Plain;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// The content type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The content type of [`classic`].
pub const CLASSIC_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The same page for readers that do not ask for OpenMetrics: there HELP and TYPE of a counter name its `_total`, and
/// nothing marks the end.
pub fn classic(open: &str) -> String {
    let counter = |line: &str| Some(line.strip_prefix("# TYPE ")?.strip_suffix(" counter")?.to_owned());
    let counters: HashSet<String> = open.lines().filter_map(counter).collect();
    let mut out = String::with_capacity(open.len());
    for line in open.lines().filter(|line| *line != "# EOF") {
        let about = ["# HELP ", "# TYPE "].into_iter().find_map(|start| Some((start, line.strip_prefix(start)?)));
        match about.and_then(|(start, rest)| Some((start, rest.split_once(' ')?))) {
            Some((start, (name, rest))) if counters.contains(name) => {
                out.extend([start, name, "_total ", rest, "\n"]);
            }
            _ => out.extend([line, "\n"]),
        }
    }
    out
}

/// Label names and values of one line.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// Where metrics are written while a page is made.
pub struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Page<'_> {
    /// Writes a counter; its name without `_total`.
    pub fn counter(&mut self, name: &str, help: &str, lines: &[(Labels<'_>, u64)]) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in lines {
            each(&mut metric, labels, |line| line.encode_counter::<NoLabelSet, u64, f64>(value, None))?;
        }
        Ok(())
    }

    /// Writes a gauge.
    pub fn gauge(&mut self, name: &str, help: &str, lines: &[(Labels<'_>, f64)]) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in lines {
            each(&mut metric, labels, |line| line.encode_gauge(value))?;
        }
        Ok(())
    }

    /// Writes a histogram of seconds.
    fn histogram(&mut self, name: &str, help: &str, lines: &[(Labels<'_>, Durations)]) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, sum) in lines {
            let bounds = BUCKETS.iter().copied().chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(sum.buckets).collect();
            let seconds = sum.micros as f64 / 1e6;
            each(&mut metric, labels, |line| {
                line.encode_histogram::<NoLabelSet>(seconds, sum.buckets.iter().sum(), &buckets, None)
            })?;
        }
        Ok(())
    }
}

fn each(
    metric: &mut MetricEncoder<'_>,
    labels: Labels<'_>,
    write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    if labels.is_empty() { write(metric) } else { write(&mut metric.encode_family(&labels)?) }
}

/// The page of everything.
pub fn text(metrics: &Arc<Metrics>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Summed(metrics.clone())));
    let mut out = String::new();
    // Writing to a String fails only if one of our own encoders says so; a partial page is then better than none.
    if prometheus_client::encoding::text::encode(&mut out, &registry).is_err() {
        tracing::error!("a metric could not be written");
    }
    out
}

#[derive(Debug)]
struct Summed(Arc<Metrics>);

impl Collector for Summed {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let workers: Vec<Arc<Shared>> = lock(&self.0.workers).clone();
        let mut page = Page { encoder };
        connections(&mut page, &workers)?;
        failures(&mut page, &workers)?;
        coded(&mut page, &workers)?;
        routes(&mut page, &workers)?;
        clusters(&mut page, &workers)?;
        for extra in lock(&self.0.extras).iter() {
            extra(&mut page)?;
        }
        Ok(())
    }
}

/// The sum of one cell over all workers.
fn sum(workers: &[Arc<Shared>], cell: impl Fn(&Cells) -> &Count) -> u64 {
    workers.iter().map(|worker| cell(&worker.cells).load()).sum()
}

fn connections(page: &mut Page<'_>, workers: &[Arc<Shared>]) -> fmt::Result {
    let doors: Vec<_> = DoorLabel::ALL.iter().map(|door| [("door", door.as_str())]).collect();
    let accepted: Vec<_> = (0..doors.len()).map(|at| sum(workers, |cells| &cells.accepted[at])).collect();
    let ended: Vec<_> = (0..doors.len()).map(|at| sum(workers, |cells| &cells.ended[at])).collect();
    let lines: Vec<_> = (0..doors.len()).map(|at| (&doors[at][..], accepted[at])).collect();
    page.counter("coordinator_connections_accepted", "Downstream connections accepted", &lines)?;
    let open = |at: usize| accepted[at].saturating_sub(ended[at]) as f64;
    let lines: Vec<_> = (0..doors.len()).map(|at| (&doors[at][..], open(at))).collect();
    page.gauge("coordinator_connections_open", "Downstream connections open", &lines)?;
    let cuts: Vec<_> = Cut::ALL.iter().map(|why| [("reason", why.as_str())]).collect();
    let lines: Vec<_> =
        cuts.iter().enumerate().map(|(at, label)| (&label[..], sum(workers, |cells| &cells.cuts[at]))).collect();
    page.counter("coordinator_connections_cut", "Downstream connections that we refused or closed early", &lines)?;
    handshakes(page, workers)
}

fn handshakes(page: &mut Page<'_>, workers: &[Arc<Shared>]) -> fmt::Result {
    let mut lines = Vec::new();
    for (row, door) in DoorLabel::ALL.iter().enumerate() {
        for (column, how) in Handshake::ALL.iter().enumerate() {
            let labels = [("door", door.as_str()), ("result", how.as_str())];
            lines.push((labels, sum(workers, |cells| &cells.handshakes[row][column])));
        }
    }
    let lines: Vec<_> = lines.iter().map(|(labels, value)| (&labels[..], *value)).collect();
    page.counter("coordinator_tls_handshakes", "TLS handshakes at our doors", &lines)
}

fn failures(page: &mut Page<'_>, workers: &[Arc<Shared>]) -> fmt::Result {
    let mut lines = Vec::new();
    for (row, kind) in KINDS.iter().enumerate() {
        for (column, (_, side)) in SIDES.iter().enumerate() {
            let value = sum(workers, |cells| &cells.failures[row][column]);
            if value > 0 {
                lines.push(([("error", kind.token()), ("kind", kind.name()), ("side", *side)], value));
            }
        }
    }
    let lines: Vec<_> = lines.iter().map(|(labels, value)| (&labels[..], *value)).collect();
    page.counter("coordinator_failures", "Requests that failed, by RFC 9209 token and our own kind", &lines)?;
    let count = |cell: fn(&Cells) -> &Count| [(&[][..], sum(workers, cell))];
    page.counter("coordinator_received_bytes", "Request content", &count(|cells| &cells.received))?;
    page.counter("coordinator_sent_bytes", "Response content", &count(|cells| &cells.sent))?;
    page.counter(
        "coordinator_corrections",
        "421 answers of peers that were followed",
        &count(|cells| &cells.corrections),
    )?;
    replay(page, workers)
}

fn replay(page: &mut Page<'_>, workers: &[Arc<Shared>]) -> fmt::Result {
    let held = || workers.iter().map(|worker| &worker.cells.replay);
    let now: u64 = held().map(|held| held.now()).sum();
    let most = held().map(|held| held.most()).max().unwrap_or(0);
    let help = "Request content kept in case another edge corrects us";
    page.gauge("coordinator_replay_bytes", help, &[(&[], now as f64)])?;
    let help = "The most that was kept of one request since the start";
    page.gauge("coordinator_replay_most_bytes", help, &[(&[], most as f64)])
}

fn coded(page: &mut Page<'_>, workers: &[Arc<Shared>]) -> fmt::Result {
    let labels: Vec<_> = Coding::ALL.iter().map(|coding| [("coding", coding.as_str())]).collect();
    for (side, name, help) in [
        (0, "coordinator_compress_in_bytes", "Response content before compression"),
        (1, "coordinator_compress_out_bytes", "Response content after compression"),
    ] {
        let value = |at: usize| sum(workers, |cells| &cells.coded[at][side]);
        let lines: Vec<_> = labels.iter().enumerate().map(|(at, label)| (&label[..], value(at))).collect();
        page.counter(name, help, &lines)?;
    }
    let labels: Vec<_> = Plain::ALL.iter().map(|why| [("reason", why.as_str())]).collect();
    let lines: Vec<_> =
        labels.iter().enumerate().map(|(at, label)| (&label[..], sum(workers, |cells| &cells.plain[at]))).collect();
    page.counter("coordinator_compress_skipped", "Responses sent plain for want of CPU or memory", &lines)
}

/// A histogram summed.
#[derive(Clone, Copy, Default)]
struct Durations {
    buckets: [u64; BUCKETS.len() + 1],
    micros: u64,
}

impl Durations {
    fn add(&mut self, more: &Histogram) {
        for (sum, cell) in self.buckets.iter_mut().zip(&more.buckets) {
            *sum += cell.load();
        }
        self.micros += more.micros.load();
    }
}

/// A route summed.
#[derive(Clone, Default)]
struct RouteSum {
    statuses: [[u64; StatusLabel::ALL.len()]; DecisionLabel::ALL.len()],
    totals: [Durations; DecisionLabel::ALL.len()],
    asked: u64,
    answered: u64,
}

impl RouteSum {
    fn add(&mut self, more: &RouteCells) {
        for (at, decision) in more.decisions.iter().enumerate() {
            for (sum, cell) in self.statuses[at].iter_mut().zip(&decision.statuses) {
                *sum += cell.load();
            }
            self.totals[at].add(&decision.total);
        }
        self.asked += more.asked.load();
        self.answered += more.answered.load();
    }
}

fn routes(page: &mut Page<'_>, workers: &[Arc<Shared>]) -> fmt::Result {
    let mut sums: BTreeMap<String, RouteSum> = BTreeMap::new();
    for worker in workers {
        for (name, cells) in lock(&worker.routes).iter() {
            sums.entry(name.clone()).or_default().add(cells);
        }
    }
    requests(page, &sums)?;
    let labels: Vec<_> = sums.iter().map(|(name, sum)| ([("route", name.as_str())], sum)).collect();
    let asked: Vec<_> = labels.iter().map(|(label, sum)| (&label[..], sum.asked)).collect();
    page.counter("coordinator_asked_requests", "Requests not given up by their client: the yield's divisor", &asked)?;
    let answered: Vec<_> = labels.iter().map(|(label, sum)| (&label[..], sum.answered)).collect();
    page.counter("coordinator_answered_requests", "Requests with a real answer: the yield's dividend", &answered)
}

fn requests(page: &mut Page<'_>, sums: &BTreeMap<String, RouteSum>) -> fmt::Result {
    let (mut counts, mut totals) = (Vec::new(), Vec::new());
    for (route, sum) in sums {
        for (row, decision) in DecisionLabel::ALL.iter().enumerate() {
            let pair = [("route", route.as_str()), ("decision", decision.as_str())];
            for (column, status) in StatusLabel::ALL.iter().enumerate() {
                if sum.statuses[row][column] > 0 {
                    let labels = [pair[0], pair[1], ("status", status.as_str())];
                    counts.push((labels, sum.statuses[row][column]));
                }
            }
            if sum.totals[row].buckets.iter().any(|count| *count > 0) {
                totals.push((pair, sum.totals[row]));
            }
        }
    }
    let counts: Vec<_> = counts.iter().map(|(labels, value)| (&labels[..], *value)).collect();
    page.counter("coordinator_requests", "Requests by route, decision and class of status", &counts)?;
    let totals: Vec<_> = totals.iter().map(|(labels, value)| (&labels[..], *value)).collect();
    page.histogram("coordinator_request_duration_seconds", "From the first octet of a request to its end", &totals)
}

fn clusters(page: &mut Page<'_>, workers: &[Arc<Shared>]) -> fmt::Result {
    let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for worker in workers {
        for (name, cells) in lock(&worker.clusters).iter() {
            let ClusterCells { attempts, retries } = &**cells;
            let sum = sums.entry(name.clone()).or_default();
            *sum = (sum.0 + attempts.load(), sum.1 + retries.load());
        }
    }
    let labels: Vec<_> = sums.iter().map(|(name, sum)| ([("cluster", name.as_str())], sum)).collect();
    let attempts: Vec<_> = labels.iter().map(|(label, sum)| (&label[..], sum.0)).collect();
    page.counter("coordinator_upstream_attempts", "Attempts to reach an endpoint", &attempts)?;
    let retries: Vec<_> = labels.iter().map(|(label, sum)| (&label[..], sum.1)).collect();
    page.counter("coordinator_upstream_retries", "Attempts beyond a request's first", &retries)
}
