//! What is wrong, where, and how to mend it: texts in, complaints out.

use super::*;
use crate::config::check;
use crate::config::problem::{Level, Problem};
use proptest::prelude::*;
use std::fmt::Write;

/// What routes to homes need elsewhere in the file.
const HOMES: &str = r#"
[central]
url = "http://[::1]:1"
[peer]
address = "127.0.0.1:1"
[homes.user]
[homes.cart]
claim = "first-touch"
[[route]]
"#;

/// A Central that is right, to whose own keys tests add what is wrong.
const CENTRAL: &str = r#"
[peer]
address = "127.0.0.1:8440"
[central]
data = "/data"
"#;

/// One line per problem: `line:column text-at-fault | what is wrong | remedy`.
fn compact(problems: &[Problem], outcome: &Outcome) -> String {
    let mut out = String::new();
    for problem in problems {
        let place = problem.spots.first().map(|spot| spot.0);
        let text = place.map_or("", |place| outcome.sources.text(place));
        let line = place.map_or(String::new(), |place| {
            let before = &outcome.sources.get(place.source).unwrap().text[..place.start];
            let column = before.trim_start_matches('\u{feff}').rsplit('\n').next().unwrap().chars().count() + 1;
            format!("{}:{column} ", outcome.sources.line(place).rsplit(':').next().unwrap())
        });
        let level = if problem.level == Level::Error { "" } else { "(note) " };
        let remedy = problem.remedy.as_deref().map_or(String::new(), |remedy| format!(" | {remedy}"));
        writeln!(out, "{level}{line}{} | {}{remedy}", text.replace('\n', "⏎"), problem.wrong).unwrap();
    }
    out
}

fn all(outcome: &Outcome) -> String {
    compact(&outcome.notes, outcome) + &compact(&outcome.problems, outcome)
}

fn some_env(name: &str) -> Option<String> {
    (name == "SET").then(|| "5 apples".to_owned())
}

/// The cases of `problems.txt`: `--- PREFIX: title`, TOML, `=>`, complaints. `UPDATE_EXPECT=1` writes what is found; lines
/// count from the first line of the case's own TOML, those before it (of the prefix) are 0 and less.
#[test]
fn every_complaint_has_its_place_and_its_remedy() {
    let path = "src/config/tests/problems.txt";
    let cases = std::fs::read_to_string(path).unwrap();
    let mut found = String::new();
    for case in cases.split("--- ").skip(1) {
        let (title, rest) = case.split_once('\n').unwrap();
        let (toml, _) = rest.split_once("=>\n").unwrap();
        let prefix = match title.split_once(": ").unwrap().0 {
            "homes" => format!("{}{HOMES}", RIGHT.replace("[[listen]]", "data = \"/data\"\n[[listen]]")),
            "edge" => RIGHT.to_owned(),
            "central" => CENTRAL.to_owned(),
            _ => String::new(),
        };
        let kind = if title.starts_with("central: ") { Kind::Central } else { Kind::Edge };
        let outcome = load::from_text(kind, "x.toml", &format!("{prefix}{toml}"), &some_env, Strictness::Run);
        assert_eq!(outcome.plan.is_some(), outcome.problems.is_empty(), "{title}");
        for problem in &outcome.problems {
            assert!(problem.remedy.is_some() || problem.wrong.contains("not TOML"), "{title}: {problem:?}");
        }
        outcome.render(true);
        let before = prefix.lines().count();
        writeln!(found, "--- {title}\n{toml}=>\n{}", shift(&all(&outcome), before)).unwrap();
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        return std::fs::write(path, &found).unwrap();
    }
    for (expected, found) in cases.split("--- ").zip(found.split("--- ")) {
        assert_eq!(found, expected);
    }
}

/// Counts lines from behind the prefix.
fn shift(complaints: &str, before: usize) -> String {
    let line = |line: &str| {
        let (note, rest) = line.strip_prefix("(note) ").map_or(("", line), |rest| ("(note) ", rest));
        match rest.split_once(':').and_then(|(number, rest)| Some((number.parse::<i64>().ok()?, rest))) {
            Some((number, rest)) => format!("{note}{}:{rest}\n", number - before as i64),
            None => format!("{line}\n"),
        }
    };
    complaints.lines().map(line).collect()
}

#[test]
fn a_login_in_the_file_is_not_shown() {
    let wrong = [
        "feed = \"nats://app:hunter2@127.0.0.1:99999\"",
        "feed = \"nats://hunter2@127.0.0.1\" # hunter2 beside is the writer's own",
        "url = [\"http://ä:hunter2@c.example\", \"http://u:hunter2@d.example\"]",
        "origins = [\"http://127.0.0.1:1\", \"http://u:hunter2@a\"]",
    ];
    for wrong in wrong {
        let shown = edge(&format!("{RIGHT}[central]\n{wrong}\n")).render(false);
        assert!(!shown.replace("# hunter2 beside", "").contains("hunter2") && shown.contains("://**"), "{shown}");
    }
    for wrong in ["postgres://u:hunter2@127.0.0.1:0x/a", "host= password=hunter2 usr=x"] {
        let text = format!("{CENTRAL}outbox = \"{wrong}\"\n");
        let shown = load::from_text(Kind::Central, "x.toml", &text, &no_env, Strictness::Run).render(false);
        assert!(!shown.contains("hunter2") && shown.contains("outbox = "), "{shown}");
    }
    let env = |_: &str| Some("nats://app:hunter2@x:0".to_owned());
    let text = format!("{RIGHT}[central]\nfeed = \"${{NATS}}\"\n");
    let shown = load::from_text(Kind::Edge, "x.toml", &text, &env, Strictness::Run).render(false);
    assert!(!shown.contains("hunter2") && shown.contains("here `nats://"), "{shown}");
}

#[test]
fn an_edge_s_file_is_not_central_s() {
    let text =
        "[edge]\nname = \"fr\"\n[[listen]]\naddress = \"127.0.0.1:80\"\n[central]\nurl = \"http://127.0.0.1:1\"\n";
    let outcome = load::from_text(Kind::Central, "fr.toml", text, &some_env, Strictness::Run);
    let expected =
        "1:1 [edge] | this is an edge's configuration, not Central's | run it with `coordinator run --config FILE`\n";
    assert_eq!(all(&outcome), expected);
}

#[test]
fn problems_are_printed_as_rustc_does() {
    let outcome = edge(
        "[edge]\nname = \"fr\"\n[[listen]]\naddress = \"127.0.0.1:80\"\n[local]\norigins = [\"http://ä.example\"]\n\
         [timeouts]\nhed = \"1s\"\n[[route]]\nmatch = \"/{a}\"\nto = \"local\"\n\n\n[[route]]\nmatch = \"/{b}\"\nto = \"local\"\n",
    );
    let expected = "\
error: `ä.example` is not a host name or address
 --> edge.toml:6:20
  |
6 | origins = [\"http://ä.example\"]
  |                    ^^^^^^^^^
  |
  = help: write a DNS name or an IP address

error: `hed` is not a key of [timeouts]
 --> edge.toml:8:1
  |
8 | hed = \"1s\"
  | ^^^ unknown key
  |
  = help: did you mean `head`?

error: `/{a}` and `/{b}` both match `GET /a`, and they match the same requests
  --> edge.toml:15:9
   |
10 | match = \"/{a}\"
   |         ------ the other pattern
...
15 | match = \"/{b}\"
   |         ^^^^^^ this pattern
   |
   = help: make one narrower, or add a pattern for exactly what both match; order in the file means nothing

";
    assert_eq!(outcome.render(false), expected);
    assert!(outcome.render(true).contains("\u{1b}["));
}

#[test]
fn line_ends_and_byte_order_marks_move_no_place() {
    let text = format!("{RIGHT}[timeouts]\nhed = \"ä\"\nbody = \"5\"\n");
    let plain = all(&edge(&text));
    assert!(plain.contains("9:1 hed |") && plain.contains("10:8 \"5\" |"), "{plain}");
    let crlf = text.replace('\n', "\r\n");
    for other in [crlf.clone(), format!("\u{feff}{text}"), format!("\u{feff}{crlf}")] {
        let outcome = edge(&other);
        assert_eq!(all(&outcome), plain, "{other:?}");
        assert_eq!(outcome.render(false), edge(&text).render(false), "{other:?}");
    }
    let complaints = all(&edge("\u{feff}[edg]\n"));
    assert!(complaints.contains("\n1:2 edg | `edg` is not a key of the file | did you mean `edge`?\n"), "{complaints}");
}

#[test]
fn unset_variables_stop_a_run_and_warn_a_check() {
    let text = RIGHT.replace("\"fr\"", "\"${EDGE}\"").replace("3000", "${PORT:-3000}");
    let run = edge(&text);
    assert_eq!(all(&run), "3:9 ${EDGE} | the variable `EDGE` is not set | set it, or write ${EDGE:-default}\n");
    let check = load::from_text(Kind::Edge, "edge.toml", &text, &no_env, Strictness::Check);
    assert!(check.problems.is_empty() && check.plan.is_none(), "{}", check.render(false));
    assert_eq!(check.notes.len(), 1);
    assert_eq!(check.notes[0].level, Level::Warning);
    let env = |name: &str| Some(if name == "EDGE" { "us\"\n[x]" } else { "" }.to_owned());
    let injected = load::from_text(Kind::Edge, "edge.toml", &text, &env, Strictness::Run);
    assert_eq!(injected.problems.len(), 1, "{}", injected.render(false));
    let env = |name: &str| Some(if name == "EDGE" { "us" } else { "" }.to_owned());
    let plan = load::from_text(Kind::Edge, "edge.toml", &text, &env, Strictness::Run).plan.unwrap();
    assert_eq!((plan.own.name.as_str(), plan.clusters[0].origins[0].port), ("us", 3000));
}

#[test]
fn secrets_are_used_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s"), "hunter2\n").unwrap();
    let path = folder.path().join("edge.toml");
    for (right, wrong) in [
        ("\"fr\"", "\"${file:s}/${file:s}\""),
        ("\"127.0.0.1:8080\"", "\"${file:s}\""),
        ("\"http://127.0.0.1:3000\"", "\"http://u:${file:s}@a:99999\""),
        ("[local]", "[timeouts]\nhead = \"${file:s}\"\n[local]"),
        ("[local]", "[[route]]\nmatch = \"/${file:s}/{\"\nto = \"${file:s}\"\n[local]"),
        ("[local]", "[[route]]\nmatch = \"/\"\nto = \"edge:${file:s}\"\ncluster = \"${file:s}\"\n[local]"),
        (
            "[local]",
            "[[route]]\nmatch = \"/\"\nto = \"home:${file:s}\"\nreply = { status = 301, location = \"{${file:s}}\" }\n[local]",
        ),
        ("[local]", "[log]\nlevel = \"${file:s}=${file:s}\"\n[local]"),
    ] {
        std::fs::write(&path, RIGHT.replace(right, wrong)).unwrap();
        let outcome = load::edge(&path, &no_env, Strictness::Run);
        assert!(!outcome.problems.is_empty(), "{wrong}");
        let shown = outcome.render(false) + &format!("{:?}{:?}", outcome.problems, outcome.notes);
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    std::fs::write(&path, RIGHT.replace("\"fr\"", "\"${file:s}\"")).unwrap();
    let outcome = load::edge(&path, &no_env, Strictness::Run);
    assert_eq!(outcome.plan.unwrap().own.name, "hunter2");
    assert!(outcome.files.iter().any(|file| file.ends_with("s")), "{:?}", outcome.files);
}

/// Writes files into a folder and loads `edge.toml`.
fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Outcome) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let outcome = load::edge(&folder.path().join("edge.toml"), &no_env, Strictness::Run);
    (folder, outcome)
}

fn in_folder(folder: &tempfile::TempDir, outcome: &Outcome) -> String {
    outcome.render(false).replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn includes_merge_tables_and_append_routes() {
    let (_folder, outcome) = folder(&[
        (
            "edge.toml",
            &format!(
                "include = [\"shared/a.toml\"]\n{RIGHT}[timeouts]\nhead = \"1s\"\n[[route]]\nmatch = \"/a\"\nto = \"local\"\n"
            ),
        ),
        (
            "shared/a.toml",
            "include = [\"b.toml\"]\n[timeouts]\nbody = \"2s\"\n[[route]]\nmatch = \"/b\"\nto = \"local\"\n",
        ),
        ("shared/b.toml", "[local]\nhealth = { path = \"/\" }\n[[route]]\nmatch = \"/c\"\nto = \"local\"\n"),
    ]);
    assert_eq!(outcome.render(false), "");
    let plan = outcome.plan.unwrap();
    assert_eq!((plan.timeouts.head.as_secs(), plan.timeouts.body.as_secs()), (1, 2));
    assert_eq!(plan.settings.iter().map(|route| route.name.as_str()).collect::<Vec<_>>(), ["/a", "/b", "/c"]);
    assert!(plan.settings[2].at.ends_with("shared/b.toml:3"), "{}", plan.settings[2].at);
    assert!(plan.clusters[0].health.is_some());
    assert_eq!(outcome.files.len(), 3);
}

#[test]
fn a_key_in_two_files_names_both_places() {
    let (folder, outcome) = folder(&[
        ("edge.toml", &format!("include = [\"b.toml\"]{RIGHT}[timeouts]\nhead = \"1s\"\n")),
        ("b.toml", "[local]\norigins = [\"http://b\"]\n[timeouts]\nhead = \"2s\"\nhed = 1\n"),
    ]);
    let expected = "\
error: `hed` is not a key of [timeouts]
 --> b.toml:5:1
  |
5 | hed = 1
  | ^^^ unknown key
  |
  = help: did you mean `head`?

error: `head` is set twice
 --> b.toml:4:1
  |
4 | head = \"2s\"
  | ^^^^ set again here
  |
 ::: edge.toml:9:1
  |
9 | head = \"1s\"
  | ---- first set here
  |
  = help: a key belongs into one file only; remove one of them

";
    let shown = in_folder(&folder, &outcome);
    assert!(expected.split("\n\n").all(|part| shown.contains(part)), "{shown}");
    assert_eq!(outcome.problems.len(), 3, "{shown}");
}

/// The space is written for one edge, the route is shared: whoever reads the complaint needs both lines.
#[test]
fn two_regimes_in_one_key_space_name_both_lines() {
    let homes = RIGHT.replace("[[listen]]", "data = \"/data\"\n[[listen]]");
    let central = "[central]\nurl = \"http://[::1]:1\"\n[peer]\naddress = \"127.0.0.1:1\"\n";
    let route = |claim: &str| format!("[[route]]\nmatch = \"/v1/carts/{{cart}}/\"\nto = \"home:cart\"\n{claim}\n");
    let mixed = |regime: &str, claim: &str| {
        let edge = format!("include = [\"routes.toml\"]\n{homes}{central}[homes.cart]\nclaim = \"{regime}\"\n");
        let (folder, outcome) = folder(&[("edge.toml", &edge), ("routes.toml", &route(claim))]);
        assert!(outcome.plan.is_none(), "{regime} with {claim} is refused");
        in_folder(&folder, &outcome)
    };
    let shown = mixed("first-touch", "claim = { space = \"cart\", key = \"response.header:X-Cart\" }");
    for part in [
        "error: `cart` is a first-touch space: its keys are claimed by requests, not by answers\n",
        "--> routes.toml:4:19",
        "edge.toml:15:1",
        "\"first-touch\"",
        "help: two regimes in one space would make two owners; say claim = \"registration\" there, or remove this",
    ] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    let shown = mixed("registration", "claim_if = \"cookie:session\"");
    for part in [
        "error: `claim_if` has no effect: this route goes to no first-touch home\n",
        "--> routes.toml:4:1\n",
        "edge.toml:15:1",
        "help: remove it, or say claim = \"first-touch\" in the key space",
    ] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
}

#[test]
fn includes_that_cannot_be() {
    let refused = |files: &[(&str, &str)]| {
        let (folder, outcome) = folder(files);
        assert!(outcome.plan.is_none());
        in_folder(&folder, &outcome).lines().filter(|line| line.starts_with("error")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(
        refused(&[("edge.toml", "include = [\"edge.toml\"]\n")]),
        "error: `edge.toml` includes itself, directly or through others"
    );
    assert_eq!(
        refused(&[("edge.toml", "include = [\"b.toml\"]\n"), ("b.toml", "include = [\"./edge.toml\"]\n")]),
        "error: `./edge.toml` includes itself, directly or through others"
    );
    assert_eq!(
        refused(&[("edge.toml", "include = [\"b.toml\", \"b.toml\"]\n"), ("b.toml", "")]),
        "error: `b.toml` is included twice"
    );
    assert_eq!(
        refused(&[("edge.toml", "include = [\"c.toml\"]\n")]),
        "error: `c.toml` cannot be read: No such file or directory (os error 2)"
    );
    assert_eq!(
        refused(&[("edge.toml", "include = \"c.toml\"\n")]).lines().next(),
        Some("error: expected an array, found a string")
    );
    let outcome = load::edge(Path::new("/nowhere/edge.toml"), &no_env, Strictness::Run);
    assert_eq!(outcome.problems.len(), 1);
    assert!(
        outcome.render(false).starts_with("error: `/nowhere/edge.toml` cannot be read"),
        "{}",
        outcome.render(false)
    );
}

#[test]
fn files_that_are_no_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edge.toml");
    std::fs::write(&path, b"[edge]\nname = \"\xff\"\n").unwrap();
    let outcome = load::edge(&path, &no_env, Strictness::Run);
    assert!(outcome.render(false).contains("is not UTF-8 text: line 2"), "{}", outcome.render(false));
    let outcome = load::edge(folder.path(), &no_env, Strictness::Run);
    assert_eq!(outcome.problems.len(), 1, "{}", outcome.render(false));
}

#[test]
fn certificates_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let named = |name: &str, year: i32, uris: &[&str]| {
        let mut params = rcgen::CertificateParams::new(vec!["fr.example".to_owned()]).unwrap();
        let uris = uris.iter().map(|uri| rcgen::SanType::URI((*uri).try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(folder.path().join(format!("{name}.pem")), params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(folder.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
    };
    let make = |name: &str, year: i32| named(name, year, &["https://fr.example", "spiffe://coordinator/edge/fr"]);
    make("a", 2090);
    make("old", 2020);
    named("us", 2090, &["spiffe://shop/edge/us"]);
    named("nobody", 2090, &[]);
    named("both", 2090, &["spiffe://coordinator/edge/fr", "spiffe://coordinator/edge/us"]);
    std::fs::write(folder.path().join("empty.pem"), "").unwrap();
    std::fs::write(folder.path().join("torn.pem"), "-----BEGIN CERTIFICATE-----\nMII").unwrap();
    let path = folder.path().join("edge.toml");
    let complaints = |chain: &str, key: &str, ca: &str| {
        let peer = format!("[peer]\naddress = \"0.0.0.0:1\"\nchain = \"{chain}\"\nkey = \"{key}\"\nca = \"{ca}\"\n");
        std::fs::write(&path, format!("{RIGHT}{peer}")).unwrap();
        let outcome = load::edge(&path, &no_env, Strictness::Run);
        let notes = outcome.notes.iter().map(|note| format!("({})", note.wrong));
        let all =
            notes.chain(outcome.problems.iter().map(|problem| problem.wrong.clone())).collect::<Vec<_>>().join("; ");
        all.replace(&format!("{}/", folder.path().display()), "")
    };
    assert_eq!(complaints("a.pem", "a.key", "a.pem"), "");
    assert_eq!(complaints("old.pem", "old.key", "a.pem"), "(this file holds a certificate that has expired)");
    for (name, wrong) in [
        ("us", "this certificate is that of `spiffe://shop/edge/us`"),
        ("nobody", "this certificate names no place of a deployment"),
        ("both", "this certificate is that of `spiffe://coordinator/edge/fr`, `spiffe://coordinator/edge/us`"),
    ] {
        assert_eq!(complaints(&format!("{name}.pem"), &format!("{name}.key"), "a.pem"), wrong);
    }
    assert_eq!(complaints("a.pem", "old.key", "a.pem"), "this key does not belong to the certificate");
    assert_eq!(
        complaints("empty.pem", "a.key", "torn.pem"),
        "`empty.pem` holds no PEM certificate; `torn.pem` is not a PEM file that can be read"
    );
    assert_eq!(
        complaints("a.key", "a.pem", "a.pem"),
        "`a.key` holds no PEM certificate; `a.pem` holds no PEM private key"
    );
}

#[test]
fn a_reload_may_not_change_who_we_are() {
    let plan = |text: &str| edge(text).plan.unwrap();
    let old = plan(RIGHT);
    assert_eq!(check::unchanged_or_problem(&old, &plan(&format!("{RIGHT}[limits]\nfields = 50\n"))), []);
    let new = RIGHT.replace("name = \"fr\"", "name = \"de\"\ndata = \"/d\"\ndeployment = \"shop\"\nworkers = 77");
    let problems = check::unchanged_or_problem(&old, &plan(&new));
    let keys: Vec<_> = problems.iter().map(|problem| problem.wrong.split('`').nth(1).unwrap()).collect();
    assert_eq!(keys, ["name", "deployment", "data", "workers"]);
    assert_eq!(problems[2].wrong, "`data` cannot change while running: none runs, /d is written");
    assert!(problem::render(&problems, &Default::default(), false).starts_with("error: `name` cannot change"));
}

#[test]
fn edges_are_numbered_downwards_by_name() {
    let more = "[edges.us]\npeer = \"http://[::1]:1/base/\"\n[edges.de]\npeer = \"http://127.0.0.1:2\"\n";
    let plan = edge(&format!("{RIGHT}{more}")).plan.unwrap();
    let list: Vec<_> = plan
        .edges
        .list()
        .into_iter()
        .map(|edge| (edge.name.as_str(), edge.id.0, edge.peer.as_ref().map(ToString::to_string)))
        .collect();
    let url = |text: &str| Some(text.to_owned());
    assert_eq!(
        list,
        [("de", 4095, url("http://127.0.0.1:2")), ("fr", 4094, None), ("us", 4093, url("http://[::1]:1/base"))]
    );
    assert_eq!(plan.edges.own.map(|id| id.0), Some(4094));
}

/// Prints how long many routes take; the table compares them pair by pair, so it gets fewer.
#[test]
fn many_routes() {
    let routes = |count: usize, to: &str| {
        let route =
            |number| format!("[[route]]\nmatch = \"GET /v1/r{number}/{{id}}.json\"\nto = \"{to}\"\ncache = {{}}\n");
        RIGHT.to_owned() + &(0..count).map(route).collect::<String>()
    };
    let start = crate::base::clock::now();
    let outcome = edge(&routes(2_000, "local"));
    println!("2 000 routes: {:?}", crate::base::clock::now().duration_since(start));
    assert_eq!((outcome.problems.len(), outcome.notes.len()), (0, 1));
    let start = crate::base::clock::now();
    let shown = edge(&routes(10_000, "loacl")).render(false);
    println!("10 000 problems, {} octets shown: {:?}", shown.len(), crate::base::clock::now().duration_since(start));
    assert_eq!(shown.matches("error: ").count(), 10_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever stands in a file is read without a panic, and every complaint can be printed.
    #[test]
    fn no_text_panics(at in 0usize..12_000, cut in 0usize..40, put in "[\\[\\]{}=\"'\\\\\n\r#,.a$é0\u{feff}\u{0}-]{0,6}") {
        let mut text = std::fs::read_to_string("config/edge.toml").unwrap();
        let floor = |text: &str, at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        let (start, end) = (floor(&text, at), floor(&text, at + cut));
        text.replace_range(start..end, &put);
        edge(&text).render(true);
    }

    /// Two mistakes in different lines are both found, whatever they are.
    #[test]
    fn all_at_once(first in 0usize..6, second in 0usize..6) {
        const WRONG: [&str; 6] = [
            "[limits]\nhead = 1\n", "[log]\nx = 1\n", "[admin]\naddress = \"x\"\n", "[retry]\nattempts = 99\n",
            "[homes.\"!\"]\n", "[tls]\nmin_version = \"1.1\"\n",
        ];
        let complaints = |text: &str| all(&edge(&format!("{RIGHT}{text}"))).lines().count();
        if first != second {
            let both = format!("{}{}", WRONG[first], WRONG[second]);
            prop_assert_eq!(complaints(&both), complaints(WRONG[first]) + complaints(WRONG[second]));
        }
    }
}
