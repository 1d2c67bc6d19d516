//! What an operator finds out first: an edge driven as in the field, and what its commands say of it.

use crate::harness::client::Client;
use crate::harness::origin::{Answer, Origin};
use crate::harness::{edge, process};
use serde_json::Value;

const ROUTES: &str = r#"
[edge]
name = "fr"

[[listen]]
address = "127.0.0.1:0"

[admin]
address = "127.0.0.1:0"

[local]
origins = ["http://127.0.0.1:9"]

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
    let toml = ROUTES.replace("${origin}", &origin.address.to_string());
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
