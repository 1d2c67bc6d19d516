//! Frame by frame: what is applied, what is passed over, what ends the stream.

use super::*;
use crate::home::event::{EdgeState, State};

fn at(seq: u64) -> Cursor {
    Cursor { seq, ..Cursor::default() }
}

fn event(s: u64) -> Event {
    Event { c: String::new(), e: 1, h: "fr".into(), k: format!("user:{s}"), s, st: State::Active, x: 0 }
}

fn batch_of(first: u64, last: u64, seqs: &[u64]) -> Received {
    Received::Whole(Frame::batch(first, last, seqs.iter().map(|s| event(*s)).collect()))
}

/// The step in short: `apply 6-9: 6 9`, `pass`, `resume`.
fn told(step: Step) -> String {
    match step {
        Step::Apply { first, last, events } => {
            let seqs: Vec<String> = events.iter().map(|event| event.s.to_string()).collect();
            format!("apply {first}-{last}: {}", seqs.join(" "))
        }
        Step::Edges(edges) => format!("edges {}", edges.len()),
        Step::Beat { head } => format!("beat {head}"),
        Step::Pass => "pass".into(),
        Step::Resume(_) => "resume".into(),
        Step::Bye { after, .. } => format!("bye {}", after.as_millis()),
    }
}

#[test]
fn batches_are_judged_by_what_they_cover() {
    for (cursor, first, last, seqs, expected) in [
        (5, 6, 9, &[6, 9][..], "apply 6-9: 6 9"),
        (5, 6, 9, &[], "apply 6-9: "),
        (0, 1, 1, &[1], "apply 1-1: 1"),
        (5, 3, 7, &[3, 5, 6, 7], "apply 3-7: 6 7"),
        (5, 1, 5, &[1, 2, 5], "pass"),
        (5, 7, 9, &[7], "resume"),
        (5, 6, 5, &[], "resume"),
        (5, 0, 9, &[6], "resume"),
        (5, 6, 9, &[9, 6], "resume"),
        (5, 6, 9, &[6, 6], "resume"),
        (5, 6, 9, &[10], "resume"),
        (5, 6, 9, &[5], "resume"),
        (u64::MAX, u64::MAX, u64::MAX, &[u64::MAX], "pass"),
    ] {
        assert_eq!(
            told(step(&at(cursor), batch_of(first, last, seqs)).0),
            expected,
            "{cursor}: {first}-{last} {seqs:?}"
        );
    }
}

#[test]
fn an_unreadable_key_spares_the_others() {
    let mut bad = [event(6), event(7), event(8), event(9)];
    bad[1].k = "nobody".into();
    bad[2].e = 0;
    let (step, poison) = step(&at(5), Received::Whole(Frame::batch(6, 9, bad.into())));
    assert_eq!(told(step), "apply 6-9: 6 9");
    assert_eq!(poison.iter().map(|(s, _)| *s).collect::<Vec<_>>(), [Some(7), Some(8)]);
}

#[test]
fn other_frames() {
    let edge = |idx, name: &str| EdgeRow { idx, name: name.into(), peer: None, state: EdgeState::Active };
    let edges = |edges: &[EdgeRow]| Frame::Edges { s: 1, edges: edges.to_vec() };
    for (frame, expected) in [
        (edges(&[edge(0, "fr"), edge(1, "de")]), "edges 2"),
        (edges(&[]), "edges 0"),
        (edges(&[edge(0, "fr"), edge(0, "de")]), "resume"),
        (edges(&[edge(0, "fr"), edge(1, "fr")]), "resume"),
        (edges(&[edge(4096, "fr")]), "resume"),
        (edges(&[edge(0, "")]), "resume"),
        (Frame::Hb { head: 5, oldest: 1, ms: 0, dig: None }, "beat 5"),
        (Frame::Hb { head: 4, oldest: 1, ms: 0, dig: None }, "resume"),
        (Frame::Bye { why: String::new(), retry_ms: 800 }, "bye 800"),
        (Frame::Bye { why: String::new(), retry_ms: u64::MAX }, "bye 60000"),
        (Frame::Other, "pass"),
    ] {
        assert_eq!(told(step(&at(5), Received::Whole(frame.clone())).0), expected, "{frame:?}");
    }
}

#[test]
fn statuses() {
    for (status, leader, retry, expected) in [
        (200, None, None, Verdict::Stream),
        (410, None, None, Verdict::Snapshot),
        (409, None, None, Verdict::Alarm(Alarm::OtherFeed)),
        (416, None, None, Verdict::Alarm(Alarm::LostHistory)),
        (503, Some("https://c2"), Some("5"), Verdict::Leader("https://c2".into())),
        (503, None, Some("5"), Verdict::Later(Some(Duration::from_secs(5)))),
        (503, None, Some("99999999999"), Verdict::Later(Some(RETRY_MAX))),
        (429, None, Some("soon"), Verdict::Later(None)),
        (403, Some("https://c2"), None, Verdict::Later(None)),
        (204, None, None, Verdict::Later(None)),
    ] {
        assert_eq!(verdict(status, leader, retry), expected, "{status}");
    }
}

#[test]
fn lines_come_whole_from_pieces_of_any_size() {
    let text = b"one\n\nthree\nfour";
    for piece in 1..=text.len() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for octets in text.chunks(piece) {
            lines.push(octets);
            while let Some(line) = lines.next(5).unwrap() {
                seen.push(line);
            }
        }
        assert_eq!(seen, [&b"one"[..], b"", b"three"], "pieces of {piece}");
    }
    let mut lines = Lines::default();
    lines.push(b"123456");
    assert!(lines.next(5).is_err());
}
