//! What is wrong, where, and how to mend it: texts in, complaints out.

use super::*;
use crate::config::check;
use crate::config::problem::{Level, Problem};
use std::fmt::Write;

/// One line per problem: `line:column text-at-fault | what is wrong | remedy`.
fn compact(problems: &[Problem], outcome: &Outcome) -> String {
    let mut out = String::new();
    for problem in problems {
        let place = problem.spots.first().map(|spot| spot.0);
        let text = place.map_or("", |place| outcome.sources.text(place));
        let line = place.map_or(String::new(), |place| {
            let before = &outcome.sources.get(place.source).unwrap().text[..place.start];
            let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
            format!("{}:{column} ", outcome.sources.line(place))
        });
        let level = if problem.level == Level::Error { "" } else { "(note) " };
        let remedy = problem.remedy.as_deref().map_or(String::new(), |remedy| format!(" | {remedy}"));
        writeln!(out, "{level}{line}{text} | {}{remedy}", problem.wrong).unwrap();
    }
    out
}

fn all(outcome: &Outcome) -> String {
    compact(&outcome.notes, outcome) + &compact(&outcome.problems, outcome)
}

/// Checks `extra` behind a file that is right (whose last line is 7), and expects one line per problem.
#[track_caller]
fn expect(extra: &str, expected: &[&str]) {
    let outcome = edge(&format!("{RIGHT}{extra}"));
    let found = all(&outcome);
    let lines: Vec<_> = found.lines().map(|line| line.trim_start_matches("edge.toml:")).map(short).collect();
    let expected: Vec<_> = expected.iter().map(|line| (*line).to_owned()).collect();
    assert_eq!(lines, expected, "\n{extra}\n{}", outcome.render(false));
    assert_eq!(outcome.plan.is_some(), outcome.problems.is_empty());
}

/// A remedy is asserted by its beginning: the first six words.
fn short(line: &str) -> String {
    let line = line.replace("(note) edge.toml:", "(note) ");
    match line.split(" | ").collect::<Vec<_>>()[..] {
        [at, wrong, remedy] => {
            let words: Vec<_> = remedy.split(' ').collect();
            let more = if words.len() > 6 { " …" } else { "" };
            format!("{at} | {wrong} | {}{more}", words[..words.len().min(6)].join(" "))
        }
        _ => line,
    }
}

#[test]
fn what_is_right_is_silent() {
    expect("", &[]);
}

#[test]
fn x() {
    for extra in [
        "[timeout]\nhead = \"1s\"\n",
        "[timeouts]\nhed = \"1s\"\nbody = 5\nidle = \"5\"\nsend = true\n",
        "[limits]\nhead = \"64\"\nfields = 1\nuri = \"1MiB\"\nconnections = 99999999999999999999\n",
        "[limits]\nxyzzyplugh = 1\n",
    ] {
        let outcome = edge(&format!("{RIGHT}{extra}"));
        println!("{}\n{}", all(&outcome), outcome.render(false));
    }
}
