//! Two instances of one edge, on disks of their own: what one of them registered, the other serves before the feed says it.

use crate::harness::app::App;
use crate::harness::certs;
use crate::harness::client::{Answer, Client};
use crate::harness::edge::{self, Edge};
use crate::harness::folder::{self, Folder};
use crate::harness::launch::held_port;
use crate::harness::wait;
use coordinator::tls::issue::{Issuer, Party};
use std::net::SocketAddr;

/// Whether the private doors are plain or take mutual TLS.
struct Site {
    issuer: Option<Issuer>,
    app: App,
}

impl Site {
    fn scheme(&self) -> &'static str {
        if self.issuer.is_some() { "https" } else { "http" }
    }

    /// A folder with the certificate of a party, and the `[peer]` section that goes with it.
    fn peer(&self, party: Party<'_>, address: SocketAddr) -> (Folder, String) {
        let (folder, mut toml) = (folder::new(), format!("[peer]\naddress = \"{address}\"\n"));
        if let Some(issuer) = &self.issuer {
            let issued = issuer.issue(party, &["127.0.0.1".to_owned()]).expect("a certificate");
            certs::write(&folder, "own", &issued);
            folder.write("ca.pem", issuer.ca_pem());
            toml += "chain = \"own.pem\"\nkey = \"own.key\"\nca = \"ca.pem\"\n";
        }
        (folder, toml)
    }

    /// Central, which knows the edge by one of its peer doors.
    fn central(&self, address: SocketAddr, edge: SocketAddr) -> Edge {
        let (folder, peer) = self.peer(Party::Central, address);
        let scheme = self.scheme();
        let toml = format!(
            "[central]\ndata = \"data\"\ndeployment = \"shop\"\nworkers = 1\n\n{peer}\n[edges.fr]\npeer = \"{scheme}://{edge}\"\n"
        );
        edge::start_as("central", &toml, folder)
    }

    /// An instance of fr with its peer door at `address`, which knows one other by its.
    fn instance(&self, address: SocketAddr, other: SocketAddr, central: SocketAddr) -> Edge {
        let (folder, peer) = self.peer(Party::Edge("fr"), address);
        let (scheme, origin) = (self.scheme(), self.app.address);
        let toml = format!(
            r#"
[edge]
name = "fr"
deployment = "shop"
data = "data"
workers = 1
siblings = ["{scheme}://{other}"]

[[listen]]
address = "127.0.0.1:0"

{peer}
[observe]
address = "127.0.0.1:0"

[admin]
address = "127.0.0.1:0"

[central]
url = "{scheme}://{central}"

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
"#
        );
        edge::start_as("run", &toml, folder)
    }
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
    serve_by_word(&Site { issuer: None, app: App::start("fr") });
}

#[test]
fn siblings_know_each_other_by_the_certificate_of_their_edge() {
    serve_by_word(&Site { issuer: Some(certs::issuer()), app: App::start("fr") });
}

fn serve_by_word(site: &Site) {
    let ports = [held_port(), held_port(), held_port()];
    let [central_at, first_at, second_at] = [0, 1, 2].map(|at| ports[at].1);
    let central = site.central(central_at, first_at);
    let first = site.instance(first_at, second_at, central_at);
    is_ready(&first);
    // Its disk is another than the first one's: it registers beside it, and nobody has to say that the first is gone.
    let second = site.instance(second_at, first_at, central_at);
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
    // Only who is of this edge is answered.
    let target = "/.well-known/coordinator/sibling/user:1";
    let stranger = match &site.issuer {
        None => Client::plain(first_at).ask("GET", target, &[("Coordinator-Edge", "us")], b""),
        Some(issuer) => {
            let us = issuer.issue(Party::Edge("us"), &[]).expect("a certificate");
            let config = certs::client_config(issuer.ca_pem(), &["http/1.1"], Some(&us));
            let mut client = Client::tls(first_at, config, "127.0.0.1").expect("a handshake");
            client.ask("GET", target, &[("Coordinator-Edge", "fr")], b"")
        }
    };
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
