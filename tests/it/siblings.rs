//! Two instances of one edge, on disks of their own: what one of them registered, the other serves before the feed says it.

use crate::harness::app::App;
use crate::harness::client::{Answer, Client};
use crate::harness::edge::{self, Edge};
use crate::harness::folder;
use crate::harness::launch::held_port;
use crate::harness::wait;
use std::net::SocketAddr;

/// An instance of fr with its peer door at `peer`, which knows one other by its.
fn instance(peer: SocketAddr, other: SocketAddr, central: SocketAddr, app: &App) -> Edge {
    let toml = format!(
        r#"
[edge]
name = "fr"
data = "data"
workers = 1
siblings = ["http://{other}"]

[[listen]]
address = "127.0.0.1:0"

[peer]
address = "{peer}"

[observe]
address = "127.0.0.1:0"

[admin]
address = "127.0.0.1:0"

[central]
url = "http://{central}"

[local]
origins = ["http://{origin}"]

[homes.user]

[[route]]
match = "POST /v1/users"
to = "local"
claim = {{ space = "user", key = "response.header:Location", pattern = "/v1/users/{{user}}", wait = "50ms" }}

[[route]]
match = "/v1/users/{{user}}/"
to = "home:user"
"#,
        origin = app.address
    );
    edge::start_as("run", &toml, folder::new())
}

fn ask(edge: &Edge, door: &str, method: &str, target: &str) -> Answer {
    Client::plain(edge.door(door)).ask(method, target, &[], b"")
}

#[track_caller]
fn is_ready(edge: &Edge) {
    wait::until(
        "the instance to be ready",
        || ask(edge, "observe", "GET", "/health/ready").status,
        |status| *status == 200,
    );
}

/// A metric's value, by the beginning of its line.
fn metric(edge: &Edge, line: &str) -> u64 {
    let page = ask(edge, "observe", "GET", "/metrics").text();
    let value = page.lines().find_map(|found| found.strip_prefix(line)).unwrap_or_default();
    value.trim().parse::<f64>().unwrap_or(0.0) as u64
}

#[test]
fn a_user_whom_one_instance_registered_is_served_by_the_other_while_central_is_away() {
    let app = App::start("fr");
    let ports = [held_port(), held_port(), held_port()];
    let [central_at, first_at, second_at] = [0, 1, 2].map(|at| ports[at].1);
    let central_toml = format!(
        "[central]\ndata = \"data\"\nworkers = 1\n\n[peer]\naddress = \"{central_at}\"\n\n[edges.fr]\npeer = \"http://{first_at}\"\n"
    );
    let central = edge::start_central(&central_toml);
    let first = instance(first_at, second_at, central_at, &app);
    is_ready(&first);
    // Its disk is another than the first one's: it registers beside it, and nobody has to say that the first is gone.
    let second = instance(second_at, first_at, central_at, &app);
    is_ready(&second);
    is_ready(&first);
    drop(central.kill());

    let registered = ask(&first, "public", "POST", "/v1/users");
    assert_eq!(registered.status, 201, "{registered:?}");
    let path = format!("{}/x", registered.field("location").expect("the user's address"));
    assert_eq!(ask(&first, "public", "GET", &path).status, 200);
    for method in ["GET", "PUT"] {
        let served = wait::until(
            "the other instance to serve the user",
            || ask(&second, "public", method, &path),
            |answer| answer.status == 200,
        );
        assert_eq!(served.json()["at"].as_str(), Some("fr"), "{served:?}");
    }
    assert!(metric(&second, "coordinator_siblings_asked_total{outcome=\"found\"}") >= 2);
    // Nobody knows this one, and Central cannot be asked: it is not guessed.
    let unknown = ask(&second, "public", "GET", "/v1/users/nobody/x");
    assert!(matches!(unknown.status, 502 | 503), "{unknown:?}");
    assert!(metric(&second, "coordinator_siblings_asked_total{outcome=\"unknown\"}") >= 1);
    // Only who says that it is of this edge is answered.
    let target = "/.well-known/coordinator/sibling/user:1";
    let stranger = Client::plain(first_at).ask("GET", target, &[("Coordinator-Edge", "us")], b"");
    assert_eq!(stranger.status, 403, "{stranger:?}");

    // Without the first nobody can tell; with it back, from its disk, all is as before.
    let disk = first.kill();
    let lost = ask(&second, "public", "GET", &path);
    assert!(matches!(lost.status, 502 | 503), "{lost:?}");
    assert!(metric(&second, "coordinator_siblings_asked_total{outcome=\"silent\"}") >= 1);
    let toml = std::fs::read_to_string(disk.join("config.toml")).expect("its configuration");
    let _first = edge::start_as("run", &toml, disk);
    wait::until("its word to count again", || ask(&second, "public", "GET", &path).status, |status| *status == 200);
}
