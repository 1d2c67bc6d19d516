//! The pages of docs/reference against the code: nothing is missing there, and nothing is there that does not exist.
//!
//! Tables that the code can spell are generated between two marks; `UPDATE_EXPECT=1` writes them. The others are
//! compared by their first column. Links between pages must lead somewhere.

use crate::harness::client::Client;
use crate::harness::origin::{Answer, Origin};
use crate::harness::{edge, process, wait};
use coordinator::error::KINDS;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const BEGIN: &str = "<!-- generated: UPDATE_EXPECT=1 cargo test reference -->\n";
const END: &str = "<!-- end -->\n";

fn page(name: &str) -> PathBuf {
    root().join("docs/reference").join(name)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compares what stands between the marks of a page with what the code says, or writes it.
#[track_caller]
fn expect(name: &str, made: &str) {
    let path = page(name);
    let text = read(&path);
    let begin = text.find(BEGIN).expect("the page has the first mark") + BEGIN.len();
    let end = begin + text[begin..].find(END).expect("the page has the second mark");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let new = format!("{}{made}{}", &text[..begin], &text[end..]);
        return fs::write(&path, new).expect("the page can be written");
    }
    let (is, made): (Vec<_>, Vec<_>) = (text[begin..end].lines().collect(), made.lines().collect());
    let missing: Vec<_> = made.iter().filter(|line| !is.contains(line)).collect();
    let outdated: Vec<_> = is.iter().filter(|line| !made.contains(line)).collect();
    assert!(is == made, "{name}: run with UPDATE_EXPECT=1\nmissing: {missing:#?}\noutdated: {outdated:#?}");
}

/// The `names` in the first column of all tables of a page.
fn first_column(name: &str) -> BTreeSet<String> {
    let rows = read(&page(name));
    rows.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name.to_owned())).collect()
}

#[track_caller]
fn same(name: &str, code: &BTreeSet<String>) {
    let told = first_column(name);
    let missing: Vec<_> = code.difference(&told).collect();
    let invented: Vec<_> = told.difference(code).collect();
    assert!(missing.is_empty() && invented.is_empty(), "{name}: missing {missing:?}, not in the code {invented:?}");
}

#[test]
fn every_error_is_told() {
    let mut made = "| kind | status | token | cause | remedy |\n|---|---|---|---|---|\n".to_owned();
    for kind in KINDS {
        let (name, status, token) = (kind.name(), kind.status(), kind.token());
        made += &format!("| `{name}` | {status} | `{token}` | {} | {} |\n", kind.cause(), kind.remedy());
    }
    expect("errors.md", &made);
}

/// A metric as the page of a running process shows it.
#[derive(Default)]
struct Metric {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

/// Reads OpenMetrics text.
fn metrics(text: &str) -> BTreeMap<String, Metric> {
    let mut found: BTreeMap<String, Metric> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            found.entry(name.to_owned()).or_default().help = help.trim_end_matches('.').to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            found.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if let Some((name, rest)) = line.split_once('{') {
            let metric = ["", "_total", "_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| found.contains_key(name.strip_suffix(end)?).then(|| &name[..name.len() - end.len()]));
            let labels = rest.split_once('}').map_or("", |(labels, _)| labels).split(',');
            let names = labels.filter_map(|label| label.split_once("=\"").map(|(name, _)| name.to_owned()));
            let metric = metric.unwrap_or_else(|| panic!("{line} belongs to nothing")).to_owned();
            found.entry(metric).or_default().labels.extend(names.filter(|name| name != "le"));
        }
    }
    found
}

#[test]
fn every_metric_is_told() {
    let origin = Origin::start();
    origin.always(Answer::ok("hi"));
    let toml = edge::PLAIN.replace("${origin}", &origin.address.to_string());
    let edge = edge::start(&format!(
        "{}\n[central]\nurl = \"http://127.0.0.1:9\"\n[observe]\naddress = \"127.0.0.1:0\"\n[homes.user]\n[[route]]\nmatch = \"GET /only\"\nto = \"local\"\n",
        toml.replace("name = \"fr\"", "name = \"fr\"\ndata = \"data\"")
    ));
    assert_eq!(Client::plain(edge.address()).ask("GET", "/", &[], b"").status, 200);
    // A request that fails, so that every metric has a line with its labels.
    assert_eq!(Client::plain(edge.address()).ask("CONNECT", "a:1", &[], b"").status, 501);
    // A request is counted when its record closes, which may be after its answer was read.
    let page = || {
        let fields = [("Accept", "application/openmetrics-text")];
        Client::plain(edge.door("observe")).ask("GET", "/metrics", &fields, b"").text()
    };
    let text = wait::until("both requests to be counted", page, |text| {
        ["coordinator_failures_total{", "coordinator_upstream_attempts_total{"].iter().all(|line| text.contains(line))
    });
    let mut made = "| metric | type | labels | what it counts or shows |\n|---|---|---|---|\n".to_owned();
    for (name, Metric { kind, help, labels }) in metrics(&text) {
        // OpenMetrics names a counter without its ending, Prometheus text with it.
        let ends = kind == "counter" && !name.ends_with("_total");
        let name = if ends { format!("{name}_total") } else { name };
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        made += &format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "));
    }
    expect("metrics.md", &made);
}

/// What stands in double quotes after each `before` in the code of a file, its tests left out.
fn quoted(path: &str, before: &[&str]) -> BTreeSet<String> {
    let text = read(&root().join(path));
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let after =
        |mark: &str| code.split(mark).skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect();
    before.iter().flat_map(|mark| -> Vec<String> { after(mark) }).collect()
}

#[test]
fn every_field_of_the_access_log_is_told() {
    let fields = quoted("src/server/access.rs", &["key!(\""]);
    assert!(fields.len() > 20, "the fields are found: {fields:?}");
    same("log.md", &fields);
}

#[test]
fn every_endpoint_is_told() {
    let admin = read(&root().join("src/admin/answer.rs"));
    let purpose = admin.split("fn purpose(").nth(1).and_then(|rest| rest.split("\n}\n").next()).expect("fn purpose");
    let mut found: BTreeSet<String> =
        purpose.split('"').skip(1).step_by(2).map(|path| path.replace("/homes/", "/homes/{space}/{key}")).collect();
    let api = read(&root().join("src/central/api.rs"));
    let of = api.split("fn of(path").nth(1).and_then(|rest| rest.split("\n    }\n").next()).expect("fn of");
    for arm in of.lines().filter_map(|line| line.trim().strip_prefix('[')?.split_once("] =>").map(|(arm, _)| arm)) {
        let parts = arm.split(", ").map(|part| match part.strip_prefix('"') {
            Some(literal) => literal.trim_end_matches('"').to_owned(),
            None if part == ".." => "…".to_owned(),
            None => format!("{{{}}}", if part == "full" { "key" } else { part }),
        });
        found.insert(parts.fold(String::new(), |path, part| path + "/" + &part));
    }
    assert!(found.len() > 14, "the endpoints are found: {found:?}");
    same("endpoints.md", &found);
}

/// The help of a command, and of those below it.
fn help(words: &[&str], out: &mut String) {
    let output = process::run(&[words, &["--help"]].concat());
    let text = String::from_utf8(output.stdout).expect("help is text");
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let name = [&["coordinator"], words].concat().join(" ");
    let (level, lines) = ("#".repeat(words.len() + 2), lines.join("\n"));
    *out += &format!("{level} {name}\n\n```text\n{}\n```\n\n", lines.trim_end());
    let below = text.split("Commands:\n").nth(1).unwrap_or_default().lines();
    let names =
        below.take_while(|line| !line.is_empty()).filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    for name in names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        help(&[words, &[name]].concat(), out);
    }
}

#[test]
fn every_command_is_told() {
    let mut made = String::new();
    help(&[], &mut made);
    assert!(made.contains("coordinator homes import"), "commands below commands are found");
    expect("commands.md", &made);
}

/// All pages of the project.
fn pages() -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("docs can be listed").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|end| end == "md") {
                all.push(entry);
            }
        }
    }
    all.extend(["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(|name| root().join(name)));
    all
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for path in pages() {
        let text = read(&path);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            let near = path.parent().expect("a page has a folder").join(file);
            if !target.starts_with("http") && !file.is_empty() && !near.exists() {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
