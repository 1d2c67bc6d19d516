//! Numbers as a page shows them, and plans for tests that need one.

use super::cells::{BUCKETS, Histogram};
use super::*;
use crate::config::plan::{
    Edges, HeaderEdit, HostRule, Limits, Log, Own, Retry, RouteSettings, Timeouts, TlsSettings, Trust,
};
use std::time::Duration;

/// A plan with nothing but routes of these names.
pub(crate) fn plan(routes: &[&str]) -> Plan {
    Plan {
        own: Own {
            name: "fr".into(),
            deployment: "shop".into(),
            data: None,
            workers: 1,
            siblings: vec![],
            tells_decision: false,
        },
        listeners: vec![],
        peer: None,
        observe: None,
        admin: None,
        faults: false,
        clusters: vec![],
        local: None,
        central: None,
        edges: Edges::default(),
        tokens: Vec::new(),
        spaces: vec![],
        routes: Default::default(),
        settings: routes.iter().map(|name| settings(name)).collect(),
        limits: Limits::default(),
        timeouts: Timeouts::default(),
        retry: Retry::default(),
        log: Log { access: true, file: None, json: true, level: "info".into() },
        trust: Trust::default(),
        tls: TlsSettings::default(),
        relays: Default::default(),
    }
}

fn settings(name: &str) -> RouteSettings {
    RouteSettings {
        name: name.to_owned(),
        at: String::new(),
        next_on: vec![],
        reply: None,
        claim: None,
        claim_if: None,
        cluster: None,
        host: HostRule::Keep,
        timeouts: Timeouts::default(),
        retry: Retry::default(),
        body_max: None,
        request_headers: HeaderEdit::default(),
        response_headers: HeaderEdit::default(),
        rewrite: None,
        compress: None,
    }
}

#[test]
fn workers_are_summed_under_the_names_of_the_configuration() {
    let metrics = Metrics::new();
    let plan = Arc::new(plan(&["GET /v1/items/", "/\"quoted\""]));
    for worker in [metrics.worker(), metrics.worker()] {
        let mut record = Record::start();
        record.route = Some(crate::base::id::RouteId(0));
        record.decision = "local";
        record.status = 200;
        (record.cluster, record.attempts) = (Some("central".into()), 2);
        worker.observe(&plan, &record);
    }
    let text = metrics.render();
    for line in [
        "coordinator_requests_total{route=\"GET /v1/items/\",decision=\"local\",status=\"2xx\"} 2\n",
        "coordinator_request_duration_seconds_count{route=\"GET /v1/items/\",decision=\"local\"} 2\n",
        "coordinator_upstream_attempts_total{cluster=\"central\"} 4\n",
        "coordinator_upstream_retries_total{cluster=\"central\"} 2\n",
        "coordinator_answered_requests_total{route=\"GET /v1/items/\"} 2\n",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn labels_and_bounds_are_read_as_they_are_written() {
    assert!(DecisionLabel::ALL.iter().all(|label| DecisionLabel::of(label.as_str()) == *label));
    let histogram = Histogram::default();
    BUCKETS.iter().for_each(|bound| histogram.observe(Duration::from_secs_f64(*bound)));
    histogram.observe(Duration::MAX);
    assert!(histogram.buckets.iter().all(|bucket| bucket.load() == 1), "each bound is in its own bucket");
}
