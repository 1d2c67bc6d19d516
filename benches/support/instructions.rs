//! User-space instructions of one request, counted by callgrind: the same on a busy machine as on a quiet one.
//!
//! A subject runs twice under the emulator, with few and with more requests; the difference is free of what it does at
//! start and at its end. The kernel's part is not in it. Repeatable to about 1 %.

use super::drive::{Drive, Load};
use super::scenario::Scenario;
use super::subject::{Place, Which};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Requests of the two runs.
const FEW: u64 = 500;
const MORE: u64 = 2_500;

/// Whether the emulator is installed.
pub fn installed() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Instructions of a request. Errors: what went wrong.
pub fn each(place: &Place, which: &Which, scenario: &Scenario) -> Result<f64, String> {
    let few = run(place, which, scenario, FEW)?;
    let more = run(place, which, scenario, MORE)?;
    Ok((more as f64 - few as f64) / (MORE - FEW) as f64)
}

fn run(place: &Place, which: &Which, scenario: &Scenario, requests: u64) -> Result<u64, String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = format!("--callgrind-out-file={}/out", folder.path().display());
    let program = ["valgrind", "-q", "--tool=callgrind", &out].map(str::to_owned);
    let mut subject = place.start_under(&program, which)?;
    let outcome = Drive::new(scenario.way(&subject)).run(Load { requests, rate: None });
    // It writes what it counted when the subject ends by itself.
    subject.stop();
    outcome.failure.map_or_else(|| counted(folder.path()), Err)
}

fn counted(folder: &Path) -> Result<u64, String> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    let counts = texts.filter_map(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("summary: ").or(line.strip_prefix("totals: ")))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    counts.max().ok_or_else(|| "the emulator left no count".to_owned())
}
