//! What the steps of `micro` were measured to cost, as JSON where asked for.

use super::facts;
use serde_json::Value;
use std::path::PathBuf;

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
        let facts = facts::tell(what);
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
