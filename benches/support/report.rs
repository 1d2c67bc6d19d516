//! What a benchmark says of itself: machine, commit and date above a table, and all of it as JSON where asked for.

use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;

/// What was asked for on the command line.
pub struct Asked {
    /// A second or less for each part; proves that everything works and measures nothing.
    pub smoke: bool,
    /// Where to write the figures as JSON.
    pub json: Option<PathBuf>,
    /// How many users, for benchmarks that ask.
    #[allow(dead_code)]
    pub users: Option<u64>,
    /// Only parts whose name holds this.
    pub only: Option<String>,
}

impl Asked {
    /// Reads the command line: `[--smoke] [--json FILE] [--users 100m] [NAME]`.
    pub fn read() -> Asked {
        let mut asked = Asked { smoke: false, json: None, users: None, only: None };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--smoke" => asked.smoke = true,
                "--json" => asked.json = words.next().map(PathBuf::from),
                "--users" => asked.users = words.next().as_deref().and_then(millions),
                // cargo says it to every benchmark.
                "--bench" => {}
                name if !name.starts_with('-') => asked.only = Some(name.to_owned()),
                other => {
                    eprintln!(
                        "error: unknown option {other}; there are --smoke, --json FILE, --users 100m and the name of a part"
                    );
                    std::process::exit(2);
                }
            }
        }
        asked
    }

    /// Whether a part is to run.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }
}

/// A number, or one of millions such as `100m`.
fn millions(text: &str) -> Option<u64> {
    match text.strip_suffix(['m', 'M']) {
        Some(millions) => Some(millions.parse::<u64>().ok()? * 1_000_000),
        None => text.parse().ok(),
    }
}

/// Rows of figures under the facts of the run.
pub struct Report {
    facts: Value,
    rows: Vec<Value>,
}

impl Report {
    /// Prints the facts of this run.
    pub fn begin(what: &str) -> Report {
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
        println!();
        Report { facts, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, row: Value) {
        self.rows.push(row);
    }

    /// Writes the JSON, if it was asked for.
    pub fn end(self, asked: &Asked) {
        let Some(path) = &asked.json else { return };
        let mut whole = self.facts;
        whole["smoke"] = asked.smoke.into();
        whole["rows"] = self.rows.into();
        let text = serde_json::to_string_pretty(&whole).expect("figures are JSON");
        std::fs::write(path, text + "\n").expect("the JSON file can be written");
    }
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
