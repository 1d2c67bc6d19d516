//! What a run of a benchmark must say of itself: machine, kernel, commit and date.

use serde_json::{Value, json};
use std::process::Command;

/// Finds the facts of this run and prints them.
pub fn tell(what: &str) -> Value {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let facts = json!({
        "what": what,
        "machine": format!("{}, {cores} cores", processor()),
        "kernel": said("uname", &["-sr"]),
        "commit": said("git", &["describe", "--always", "--dirty"]),
        "date": said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
    });
    for name in ["what", "machine", "kernel", "commit", "date"] {
        println!("{name:<8} {}", facts[name].as_str().unwrap_or_default());
    }
    facts
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.to_owned())
}

/// What a command prints, or `unknown`.
fn said(command: &str, words: &[&str]) -> String {
    let output = Command::new(command).args(words).output().ok().filter(|output| output.status.success());
    output.map_or_else(|| "unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
