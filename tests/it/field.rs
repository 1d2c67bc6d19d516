//! What an operator finds out first: an edge driven as in the field, and what its commands say of it.

use crate::harness::client::Client;
use crate::harness::edge::{ALONE, PLAIN};
use crate::harness::origin::{Answer, Origin};
use crate::harness::{edge, process, wait};
use serde_json::Value;
use std::net::{TcpListener, TcpStream};

const ROUTES: &str = r#"
[clusters.chat]
origins = ["http://${origin}"]

[[route]]
match = "/chat/{rest...}"
to = "local"
cluster = "chat"
rewrite = "/v2/{rest}"

[[route]]
match = "GET /only"
to = "local"

[[route]]
match = "/old/"
reply = { status = 308, location = "https://example.com{path}" }
"#;

fn explained(words: &[&str]) -> Value {
    let output = process::run(words);
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words:?}: {error}: {output:?}"))
}

#[test]
fn explain_says_live_and_offline_what_happens() {
    let origin = Origin::start();
    origin.always(Answer::ok("hi"));
    let toml = (ALONE.to_owned() + ROUTES).replace("${origin}", &origin.address.to_string());
    let edge = edge::start(&toml);
    let (admin, config) = (edge.door("admin").to_string(), edge.folder().join("config.toml"));
    for (method, target, decision, status) in [
        ("GET", "/chat/a?b=c", "local", 200),
        ("GET", "/old/a", "reply 308", 308),
        ("POST", "/only", "refuse 405", 405),
        ("GET", "/nowhere", "refuse 404", 404),
        ("OPTIONS", "*", "reply 204", 204),
    ] {
        let live = explained(&["explain", "--admin", &admin, "--json", method, target]);
        let offline = explained(&["explain", "--config", config.to_str().unwrap(), "--json", method, target]);
        assert_eq!(live["decision"], decision, "{method} {target}: {live}");
        for fact in ["request", "route", "decision", "reason", "status", "error", "rewritten", "location"] {
            assert_eq!(live[fact], offline[fact], "{method} {target}: {fact}");
        }
        assert_eq!(Client::plain(edge.address()).ask(method, target, &[], b"").status, status, "{method} {target}");
    }
    let live = explained(&["explain", "--admin", &admin, "--json", "GET", "/chat/a?b=c"]);
    let offline = explained(&["explain", "--config", config.to_str().unwrap(), "--json", "GET", "/chat/a?b=c"]);
    assert_eq!(live["endpoints"][0], origin.address.to_string(), "the route's own cluster");
    assert_eq!(offline["endpoints"][0], format!("http://{}", origin.address));
    assert_eq!(live["rewritten"], "/v2/a?b=c");
    assert_eq!(origin.request(1).target, "/v2/a?b=c");
}

#[test]
fn a_list_goes_to_the_application_of_central_where_no_coordinator_stands_before_it() {
    let origin = Origin::start();
    origin.always(Answer::ok("central"));
    let edge = edge::start(&format!(
        r#"
[edge]
name = "fr"

[[listen]]
address = "127.0.0.1:0"

[local]
origins = ["http://127.0.0.1:9"]

[central]
origins = ["{}"]

[[route]]
match = "/"
to = ["central", "local"]
"#,
        origin.url()
    ));
    let answer = Client::plain(edge.address()).get("/");
    assert_eq!((answer.status, answer.text().as_str()), (200, "central"));
}

#[test]
fn a_reload_moves_the_observe_and_admin_doors_and_keeps_those_that_cannot_move() {
    let with = |observe: &str, admin: &str| {
        PLAIN.replace("${origin}", "127.0.0.1:9")
            + &format!("[observe]\naddress = \"{observe}\"\n[admin]\naddress = \"{admin}\"\n")
    };
    let spare = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (observe, admin, moved) = (spare(), spare(), spare());
    let edge = edge::start(&with(&observe.to_string(), &admin.to_string()));
    assert_eq!(Client::plain(observe).get("/health/live").status, 200);

    edge.folder().write("config.toml", with(&observe.to_string(), &moved.to_string()));
    let answer = Client::plain(admin).ask("POST", "/reload", &[("Host", "localhost")], b"");
    assert_eq!(answer.status, 200, "the door that is left still answers: {answer:?}");
    wait::until("the new door", || TcpStream::connect(moved).is_ok(), |open| *open);
    wait::until("the old door to close", || TcpStream::connect(admin).is_err(), |closed| *closed);
    assert_eq!(Client::plain(moved).ask("GET", "/status", &[("Host", "localhost")], b"").status, 200);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    edge.folder().write("config.toml", with(&taken.local_addr().unwrap().to_string(), &moved.to_string()));
    Client::plain(moved).ask("POST", "/reload", &[("Host", "localhost")], b"");
    let mut edge = edge;
    edge.process().line("could not be moved");
    assert_eq!(Client::plain(observe).get("/health/live").status, 200);
}

#[test]
fn clients_are_not_told_the_addresses_of_origins() {
    let edge = edge::start(&PLAIN.replace("${origin}", "127.0.0.1:9"));
    let answer = Client::plain(edge.address()).get("/");
    assert_eq!(answer.status, 502);
    let status = answer.field("proxy-status").unwrap();
    assert!(status.starts_with("fr; error=connection_refused"), "{status}");
    assert!(!format!("{answer:?}").contains("127.0.0.1:9"), "{answer:?}");
}

/// Behind a load balancer the log names its clients, not the balancer.
#[test]
fn the_log_names_the_client_behind_a_trusted_proxy() {
    let origin = Origin::start();
    origin.always(Answer::ok("hi"));
    let folder = crate::harness::folder::new();
    let log = folder.join("access.log");
    let plain = edge::PLAIN.replace("${origin}", &origin.address.to_string());
    let clients = |trust: &str, fields: &[(&str, &str)]| {
        let _ = std::fs::remove_file(&log);
        let edge = edge::start(&format!("{plain}\n[log]\nfile = \"{}\"\n{trust}", log.display()));
        assert_eq!(Client::plain(edge.address()).ask("GET", "/", fields, b"").status, 200);
        let line =
            wait::until("the line", || std::fs::read_to_string(&log).unwrap_or_default(), |text| text.ends_with('\n'));
        let line: serde_json::Value = serde_json::from_str(&line).expect("one line of JSON");
        line["client"].as_str().expect("it is always there").to_owned()
    };
    let trusting = "[trust]\nforwarded = [\"127.0.0.0/8\"]\n";
    let told = [("X-Forwarded-For", "6.6.6.6, 192.0.2.7")];
    assert_eq!(clients(trusting, &told), "192.0.2.7");
    assert_eq!(clients(trusting, &[("Forwarded", "for=\"[2001:db8::7]\"")]), "2001:db8::7");
    for own in [clients("", &told), clients(trusting, &[])] {
        assert!(own.starts_with("127.0.0.1:"), "{own}");
    }
}
