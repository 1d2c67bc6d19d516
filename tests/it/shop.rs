//! The shop of examples/, as real processes behind the demo: what its README promises. Needs python3.

use crate::demo::{doors, introduced};
use crate::harness::client::{Answer, Client};
use crate::harness::folder::{self, Folder};
use crate::harness::process::{Process, Signal};
use crate::harness::wait;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

const PLACES: [&str; 4] = ["central", "fr", "us", "jp"];

/// One instance of the shop, with a data file of its own, and its URL.
fn shop(folder: &Folder, name: &str, more: &[&str]) -> (Process, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/shop/shop.py");
    let data = folder.join(&format!("{name}.db"));
    let mut command = Command::new("python3");
    command.arg(script).args(["--port", "0", "--name", name, "--data"]).arg(data).args(more).stdin(Stdio::null());
    let mut shop = Process::spawn(&mut command);
    let line = shop.line(" listens on ");
    let url = line.split_once(" listens on ").expect("just seen").1.to_owned();
    (shop, url)
}

/// The shop at every place, behind the demo's edges.
struct World {
    shops: BTreeMap<&'static str, (Process, String)>,
    doors: BTreeMap<String, [SocketAddr; 2]>,
    demo: Process,
    folder: Folder,
}

impl World {
    /// An instance at each place.
    fn start() -> World {
        let folder = folder::new();
        let central = shop(&folder, "central", &[]);
        let copy = ["--copy-from", &central.1];
        let mut shops: BTreeMap<_, _> = PLACES[1..].iter().map(|name| (*name, shop(&folder, name, &copy))).collect();
        shops.insert("central", central);
        World::behind(folder, shops)
    }

    /// One instance for all of them.
    fn of_one() -> World {
        let folder = folder::new();
        let one = shop(&folder, "shop", &[]);
        World::behind(folder, [("", one)].into())
    }

    fn behind(folder: Folder, shops: BTreeMap<&'static str, (Process, String)>) -> World {
        let routes = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/shop/routes.toml");
        let origin = |(place, (_, url)): (&&str, &(Process, String))| match *place {
            "" => url.clone(),
            place => format!("{place}={url}"),
        };
        let origins: Vec<String> = shops.iter().map(origin).collect();
        let mut words = vec!["demo", "--port", "21600", "--rtt", "all=0ms", "--routes", routes];
        origins.iter().for_each(|origin| words.extend(["--origin", origin]));
        let mut demo = Process::start_with_temporary(folder.path(), &words);
        let doors = doors(&introduced(&mut demo));
        assert_eq!(doors.len(), 3, "{:#?}", demo.lines());
        World { shops, doors, demo, folder }
    }

    fn ask(&self, edge: &str, method: &str, target: &str, content: &str) -> Answer {
        self.with(edge, method, target, &[("Content-Type", "application/json")], content)
    }

    fn with(&self, edge: &str, method: &str, target: &str, fields: &[(&str, &str)], content: &str) -> Answer {
        Client::plain(self.doors[edge][0]).ask(method, target, fields, content.as_bytes())
    }

    fn get(&self, edge: &str, target: &str) -> Answer {
        self.ask(edge, "GET", target, "")
    }

    /// Registers somebody at an edge: the path of the new user, which all edges know when this returns.
    fn register(&self, edge: &str) -> String {
        let answer = self.ask(edge, "POST", "/v1/users", r#"{"name":"Ada"}"#);
        assert_eq!((answer.status, answer.json()["home"].as_str()), (201, Some(edge)), "{}", answer.text());
        let user = answer.field("location").expect("says who").to_owned();
        for edge in self.doors.keys() {
            wait::until("all edges to know the home", || self.get(edge, &user).status, |status| *status == 200);
        }
        user
    }

    fn fault(&self, edge: &str, query: &str) {
        let answer =
            Client::plain(self.doors[edge][1]).ask("POST", &format!("/faults?{query}"), &[("Host", "localhost")], b"");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Stops everything: the demo as Ctrl-C does, the shops as a service manager does, with connections open.
    fn end(mut self) {
        let mut idle = Client::plain(self.doors["fr"][0]);
        assert_eq!(idle.get("/healthz").status, 200);
        for (shop, _) in self.shops.values_mut() {
            shop.signal(Signal::Term);
            assert_eq!(shop.end(), Some(0), "{:#?}", shop.lines());
            assert!(!shop.lines().iter().any(|line| line.contains("Traceback")), "{:#?}", shop.lines());
        }
        self.demo.signal(Signal::Int);
        assert_eq!(self.demo.end(), Some(0));
    }
}

fn served_by(answer: &Answer) -> String {
    answer.json()["served_by"].as_str().unwrap_or("nobody").to_owned()
}

#[test]
fn a_user_lives_at_one_edge_and_is_served_through_all() {
    let world = World::start();
    let user = world.register("jp");
    let list = format!("{user}/wishlist");
    let written = world.ask("us", "PUT", &list, r#"["lamp"]"#);
    assert_eq!((written.status, served_by(&written).as_str()), (200, "jp"), "{}", written.text());
    let said = written.field("coordinator").expect("the demo tells").to_owned();
    assert!(said.starts_with("edge=us, decision=remote, to=jp, reason=home_elsewhere, key=\"user:"), "{said}");
    for edge in ["fr", "us", "jp"] {
        let read = world.get(edge, &list);
        assert_eq!((read.json()["wishlist"][0].as_str(), served_by(&read).as_str()), (Some("lamp"), "jp"));
        assert_eq!(read.json()["epoch"], 1);
    }

    // The link from fr to jp is cut: a prompt refusal there, nobody else writes, and other edges reach jp.
    world.fault("fr", "place=jp&do=cut&for=60s");
    let refused = || world.ask("fr", "PUT", &list, r#"["sofa"]"#);
    let refused = wait::until("fr to give the link up", refused, |refused| refused.status == 503);
    assert!(refused.field("retry-after").is_some());
    assert_eq!(world.get("us", &list).json()["wishlist"][0], "lamp");
    world.fault("fr", "place=jp&do=mend");
    wait::until("the link", || world.ask("fr", "PUT", &list, r#"["sofa"]"#).status, |status| *status == 200);
    assert_eq!(world.get("jp", &list).json()["wishlist"][0], "sofa");
    world.end();
}

#[test]
fn items_are_written_at_central_and_read_near() {
    let world = World::start();
    let written = world.ask("jp", "PUT", "/v1/items/7", r#"{"name":"lamp"}"#);
    assert_eq!((written.status, served_by(&written).as_str()), (200, "central"), "{}", written.text());
    for edge in ["fr", "us", "jp"] {
        // At once, from wherever it is; soon after, from the edge's own copy.
        assert_eq!(world.get(edge, "/v1/items/7").json()["item"]["name"], "lamp");
        let near = wait::until("the copy", || world.get(edge, "/v1/items/7"), |near| served_by(near) == edge);
        assert_eq!(near.field("coordinator"), Some(&*format!("edge={edge}, decision=local, to={edge}, reason=route")));
    }
    assert_eq!(world.get("fr", "/v1/items/8").status, 404);

    // A like that is sent twice counts once; the same key for something else is refused.
    let like = |item: &str| {
        let fields = [("Idempotency-Key", "like-1"), ("Content-Type", "application/json")];
        world.with("us", "POST", &format!("/v1/items/{item}/likes"), &fields, "")
    };
    assert_eq!((like("7").json()["likes"].as_u64(), like("7").json()["likes"].as_u64()), (Some(1), Some(1)));
    assert_eq!(like("8").status, 422);

    // Without Central: copies are read, nothing shared is written.
    world.fault("fr", "place=central&do=cut&for=60s");
    let refused = || world.ask("fr", "PUT", "/v1/items/7", "{}").status;
    wait::until("fr to give the link up", refused, |status| *status == 503);
    assert_eq!(served_by(&world.get("fr", "/v1/items/7")), "fr");
    world.end();
}

#[test]
fn one_instance_serves_all_places() {
    let world = World::of_one();
    let user = world.register("us");
    let list = format!("{user}/wishlist");
    assert_eq!(world.ask("fr", "PUT", &list, r#"["lamp"]"#).status, 200);
    assert_eq!(world.get("jp", &list).json()["wishlist"][0], "lamp");
    assert_eq!(world.ask("fr", "PUT", "/v1/items/7", r#"{"name":"lamp"}"#).status, 200);
    let near = world.get("jp", "/v1/items/7");
    assert_eq!((near.json()["item"]["name"].as_str(), served_by(&near).as_str()), (Some("lamp"), "shop"));
    world.end();
}

#[test]
fn it_writes_nothing_that_it_was_not_asked_for_in_the_right_role() {
    let folder = folder::new();
    let (_shop, url) = shop(&folder, "fr", &[]);
    let at: SocketAddr = url.strip_prefix("http://").and_then(|at| at.parse().ok()).expect("an address");
    let ask = |method: &str, target: &str, said: &str, content: &[u8]| {
        Client::plain(at).ask(method, target, &[("Coordinator", said)], content).status
    };
    let (home, other) =
        (|epoch: u32| format!("edge=fr, key=\"user:7\", home=fr, epoch={epoch}, as=home"), "edge=fr, as=local");
    for (method, target, said, content, status) in [
        ("PUT", "/v1/items/7", "edge=fr, as=central", "{}", 200),
        ("PUT", "/v1/items/7", other, "{}", 403),
        ("PUT", "/v1/users/7/wishlist", &home(2), "[]", 200),
        ("PUT", "/v1/users/7/wishlist", &home(1), "[]", 409),
        ("PUT", "/v1/users/7/wishlist", &home(2), "{}", 422),
        ("PUT", "/v1/users/8/wishlist", &home(2), "[]", 403),
        ("PUT", "/v1/users/7/wishlist", other, "[]", 403),
        ("GET", "/v1/users/7", other, "", 403),
        ("POST", "/v1/users", "edge=fr, as=central", "{}", 403),
        ("POST", "/v1/users", other, "no JSON", 400),
        ("DELETE", "/v1/items/7", "edge=fr, as=central", "", 405),
        ("BREW", "/v1/items/7", other, "", 501),
        ("GET", "/v2", other, "", 404),
    ] {
        assert_eq!(ask(method, target, said, content.as_bytes()), status, "{method} {target} {said} {content}");
    }
    assert_eq!(ask("PUT", "/v1/items/7", "edge=fr, as=central", &[b' '; 70_000]), 413);
    // Framings: chunked content is read to its end, on a connection that goes on; lengths that are none are refused.
    let mut client = Client::plain(at);
    for _ in 0..2 {
        client.send(
            "PUT /v1/items/9 HTTP/1.1\r\nHost: h\r\nCoordinator: as=central\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        client.send("1\r\n{\r\n1;x=y\r\n}\r\n0\r\nTrailer: t\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    }
    client.send("PUT /v1/items/9 HTTP/1.1\r\nHost: h\r\nContent-Length: -5\r\n\r\n");
    assert_eq!(client.answer().status, 400);
}
