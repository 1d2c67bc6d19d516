//! Bearer tokens at Central's door, as the `homes` commands and callers without a certificate meet it.

use crate::harness::client::{Answer, Client};
use crate::harness::process::run;
use crate::harness::wait;
use crate::harness::world::{World, world};
use aws_lc_rs::digest::{SHA256, digest};
use coordinator::tls::issue::Party;
use std::os::unix::fs::PermissionsExt;

const WRITER: &str = "writer-0123456789abcdef0123456789abcdef";
const READER: &str = "reader-0123456789abcdef0123456789abcdef";
const OTHER: &str = "other-0123456789abcdef0123456789abcdef";

const TOKENS: &str = "\n[tokens.shop]\nfile = \"writer\"\nwrite = true\n\n[tokens.report]\nfile = \"reader\"\n";

/// A world whose Central has taken [`TOKENS`] over: the writer's as it is, the reader's as its digest.
fn with_tokens() -> World {
    let world = world();
    keep(&world, "writer", WRITER);
    let hex: String = digest(&SHA256, READER.as_bytes()).as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
    world.folder().write("reader", format!("sha256:{hex}\n"));
    for (name, token) in [("r.token", READER), ("other.token", OTHER), ("w.token", WRITER)] {
        keep(&world, name, token);
    }
    let plain = world.folder().read("central.toml");
    world.folder().write("central.toml", plain + TOKENS);
    reload(&world);
    world
}

fn keep(world: &World, name: &str, token: &str) {
    let path = world.folder().write(name, format!("{token}\n"));
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[track_caller]
fn reload(world: &World) {
    let answer = world.central().admin("POST", "/reload");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// `coordinator homes WORDS` with a token or none: the exit code, and what was said.
fn homes(world: &World, words: &[&str], token: Option<&str>) -> (i32, String) {
    let (url, ca) = (format!("https://{}", world.central().address()), world.folder().join("ca.pem"));
    let mut line = [&["homes"], words, &["--central", &url, "--ca", ca.to_str().unwrap()]].concat();
    let file = token.map(|name| world.folder().join(name));
    if let Some(file) = &file {
        line.extend(["--token-file", file.to_str().unwrap()]);
    }
    let output = run(&line);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    for token in [WRITER, READER, OTHER] {
        assert!(!said.contains(token), "{said}");
    }
    (output.status.code().unwrap(), said)
}

/// A request without a certificate.
fn ask(world: &World, line: &str, fields: &[(&str, &str)], body: &str) -> Answer {
    let (method, target) = line.split_once(' ').unwrap();
    let config = world.tls(&["http/1.1"], None);
    let client = Client::tls(world.central().address(), config, "127.0.0.1");
    client.expect("the door is open").ask(method, target, fields, body.as_bytes())
}

#[test]
fn a_token_does_what_its_rights_say() {
    let world = with_tokens();
    for (words, token, code, says) in [
        (&["set", "7", "fr"][..], Some("w.token"), 0, "\"home\":\"fr\""),
        (&["get", "7"], Some("w.token"), 0, "\"home\":\"fr\""),
        (&["get", "7"], Some("r.token"), 0, "\"home\":\"fr\""),
        (&["export", "-"], Some("r.token"), 0, "\"key\":\"7\""),
        (&["set", "8", "fr"], Some("r.token"), 1, "may only read: say `write = true` in its `[tokens.NAME]`"),
        (&["get", "7"], Some("other.token"), 1, "knows no such token: compare the file with the one that"),
        (&["get", "7"], None, 1, "bearers of its tokens (`--token-file FILE`)"),
        (&["get", "7"], Some("reader"), 2, "a digest (`sha256:…`) is for Central only"),
        (&["get", "7"], Some("nowhere"), 2, "No such file"),
    ] {
        let (got, said) = homes(&world, words, token);
        assert!(got == code && said.contains(says), "{words:?} {token:?}: {got} {said}");
    }
    assert_eq!(world.central().home("user", "8"), None);

    // What others can read is used, but not without a word.
    std::fs::set_permissions(world.folder().join("r.token"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, said) = homes(&world, &["get", "7"], Some("r.token"));
    assert!(code == 0 && said.contains("warning: others than its owner can read"), "{said}");
}

#[test]
fn a_token_opens_nothing_else() {
    let world = with_tokens();
    let bearer = format!("Bearer {WRITER}");
    let own = [("Authorization", bearer.as_str())];
    for (line, body, status) in [
        ("GET /v1/status", "", 200),
        ("GET /feed/v1/snapshot", "", 403),
        ("POST /feed/v1/ack", r#"{"edge":"fr","applied":1}"#, 403),
        ("POST /v1/claims", r#"{"key":"1","edge":"fr"}"#, 403),
    ] {
        assert_eq!(ask(&world, line, &own, body).status, status, "{line}");
    }
    // The application behind Central is for edges, and `Authorization` is the client's there.
    let fwd = ("Coordinator-Fwd", "v=1; from=fr; to=central; epoch=0; seq=1; id=x");
    assert_eq!(ask(&world, "GET /shop", &[own[0], fwd], "").status, 403);
    world.none_landed();

    for wrong in ["", "Bearer", "Bearer ", "Basic dTpw", &format!("Bearer{WRITER}"), &format!("Bearer {WRITER}x")] {
        let answer = ask(&world, "GET /v1/status", &[("Authorization", wrong)], "");
        assert_eq!((answer.status, answer.field("www-authenticate")), (401, Some("Bearer")), "{wrong}");
    }
    assert_eq!(ask(&world, "GET /v1/status", &[own[0], own[0]], "").status, 401);
    assert_eq!(
        ask(&world, "GET /v1/status", &[("Authorization", &bearer.replace("Bearer", "bearer"))], "").status,
        200
    );
    assert_eq!(ask(&world, "GET /v1/status", &[], "").status, 401);

    // Certificates go on as before, but not beside a token that is wrong.
    let certified = || world.call(world.central().address(), Party::App("shop"));
    assert_eq!(certified().ask("GET", "/v1/status", &[], b"").status, 200);
    assert_eq!(certified().ask("GET", "/v1/status", &[("Authorization", "Bearer x")], b"").status, 401);
}

#[test]
fn the_log_names_the_bearer_and_tells_no_token() {
    let world = with_tokens();
    let toml = world.folder().read("central.toml").replace("access = false", "access = true\nfile = \"access.log\"");
    world.folder().write("central.toml", toml);
    reload(&world);
    for (token, target) in [(READER, "/v1/status?1"), (OTHER, "/v1/status?2"), (WRITER, "/v1/status?3")] {
        ask(&world, &format!("GET {target}"), &[("Authorization", &format!("Bearer {token}"))], "");
    }
    let log = || std::fs::read_to_string(world.folder().join("access.log")).unwrap_or_default();
    let log = wait::until("the lines", log, |text| text.contains("status?3"));
    let bearer = |target: &str| {
        let line = log.lines().find(|line| line.contains(target)).expect("a line for each request");
        let line: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
        (line["status"].as_u64().expect("a status"), line["bearer"].as_str().map(str::to_owned))
    };
    assert_eq!(bearer("status?1"), (200, Some("report".to_owned())));
    assert_eq!(bearer("status?2"), (401, None));
    assert_eq!(bearer("status?3"), (200, Some("shop".to_owned())));
    assert!([WRITER, READER, OTHER].iter().all(|token| !log.contains(token)), "{log}");
}

#[test]
fn a_reload_takes_tokens_over_and_withdraws_them() {
    let world = with_tokens();
    assert_eq!(homes(&world, &["set", "7", "fr"], Some("w.token")).0, 0);
    keep(&world, "writer", OTHER);
    assert_eq!(homes(&world, &["get", "7"], Some("w.token")).0, 0, "nothing changes before the reload");
    reload(&world);
    assert_eq!(homes(&world, &["get", "7"], Some("w.token")).0, 1);
    assert_eq!(homes(&world, &["get", "7"], Some("other.token")).0, 0);

    // A file that holds none refuses the reload, shows nothing of it, and changes nothing.
    keep(&world, "writer", "not a token");
    let refused = world.central().admin("POST", "/reload");
    assert!(refused.status >= 400 && refused.text().contains("holds no token"), "{}", refused.text());
    assert!(!refused.text().contains("not a token"), "{}", refused.text());
    assert_eq!(homes(&world, &["get", "7"], Some("other.token")).0, 0);

    // Without tokens the door is for certificates again.
    let toml = world.folder().read("central.toml").replace(TOKENS, "");
    world.folder().write("central.toml", toml);
    reload(&world);
    let (code, said) = homes(&world, &["get", "7"], Some("other.token"));
    assert!(code == 1 && !said.contains("no such token"), "{said}");
}
