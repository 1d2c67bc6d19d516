//! The configuration as operators meet it: files in, problems or plans out.

use super::load::{self, Kind, Outcome, Strictness};
use super::problem;
use super::tree::{self, Node, Origin, Table, Text, Value};
use serde_json::Value as Json;
use std::path::Path;

mod problems;
mod samples;

fn no_env(_: &str) -> Option<String> {
    None
}

fn edge(text: &str) -> Outcome {
    load::from_text(Kind::Edge, "edge.toml", text, &no_env, Strictness::Run)
}

/// An edge that is right, to which tests add what is wrong.
const RIGHT: &str = r#"
[edge]
name = "fr"
[[listen]]
address = "127.0.0.1:8080"
[local]
origins = ["http://127.0.0.1:3000"]
"#;
