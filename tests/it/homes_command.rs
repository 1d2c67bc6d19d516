//! `coordinator homes` against a real Central.

use crate::central::open;
use crate::door::TestDoor;
use clap::Parser;
use coordinator::cli::homes;
use std::process::ExitCode;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: homes::Args,
}

/// Runs a command line; its exit code.
fn run(line: &[&str]) -> String {
    let parsed = match Line::try_parse_from([&["homes"], line].concat()) {
        Ok(line) => homes::run(&line.args),
        Err(_) => ExitCode::from(2),
    };
    format!("{parsed:?}").chars().filter(char::is_ascii_digit).collect()
}

#[test]
fn homes_from_a_shell() {
    let data = tempfile::tempdir().unwrap();
    let central = open(&data.path().join("central"));
    let door = TestDoor::open(central.clone(), None);
    let url = door.url();
    let at = ["--central", &url];
    let file = |name: &str| data.path().join(name).to_str().unwrap().to_owned();
    let (csv, bad, out) = (file("in.csv"), file("bad.jsonl"), file("out.jsonl"));
    let rows: String = (0..25_000).map(|n| format!("user,{n},fr\n")).collect();
    std::fs::write(&csv, format!("space,key,home\n{rows}")).unwrap();
    std::fs::write(&bad, "{\"key\":\"x\",\"home\":\"de\"}\n{\"key\":\"1\",\"home\":\"de\"}\n").unwrap();

    for (line, code) in [
        (&["get", "448"][..], "1"),
        (&["set", "448", "de"], "0"),
        (&["set", "448", "de"], "0"),
        (&["set", "448", "fr"], "1"),
        (&["get", "448"], "0"),
        (&["get", "448", "--space", "shop"], "1"),
        (&["get", "a b/c"], "1"),
        (&["get", ""], "2"),
        (&["get", "1", "--space", "S"], "2"),
        (&["get"], "2"),
        (&["get", "1", "--cert", "x"], "2"),
        (&["import", "/nowhere"], "2"),
        (&["import", &csv], "1"),
        (&["import", &bad], "1"),
        (&["export", &out], "0"),
    ] {
        assert_eq!(run(&[line, &at].concat()), code, "{line:?}");
    }
    let exported = std::fs::read_to_string(&out).unwrap();
    assert_eq!(exported.lines().count(), 25_001);
    assert_eq!(run(&["import", &out, "--central", &url]), "0");
    assert_eq!(run(&["get", "1", "--central", "http://192.0.2.1:1"]), "2");
    assert_eq!(run(&["get", "1", "--central", "https://127.0.0.1:1"]), "2");
    drop(door);
    assert_eq!(run(&["get", "448", "--central", &url]), "1");
}
