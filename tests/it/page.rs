//! The page's facts and its faults over real sockets: what is shown is so, and what is cut is cut until it ends.

use crate::harness::client::Client;
use crate::harness::edge;
use crate::harness::wait;
use crate::harness::world::{World, setup, world};
use serde_json::Value;

fn live(world: &World, edge: &str) -> Value {
    world.edge(edge).admin("GET", "/live").json()
}

fn place(live: &Value, name: &str) -> Value {
    let places = live["places"].as_array().expect("a list of places");
    places.iter().find(|place| place["name"] == name).unwrap_or_else(|| panic!("no {name}: {live:#}")).clone()
}

fn decision(live: &Value, name: &str) -> Value {
    let rows = live["decisions"]["rows"].as_array().expect("a list of decisions");
    rows.iter().find(|row| row["decision"] == name).expect("every decision has a row").clone()
}

#[test]
fn it_shows_places_decisions_and_the_last_requests() {
    let world = world();
    world.central().put_home("user", "448", "us");
    assert_eq!(world.edge("fr").get("/v1/users/448/x?token=secret").status, 200);
    assert_eq!(world.edge("fr").get("/nothing/here").status, 404);
    let told = wait::until(
        "both requests, and the round trips",
        || live(&world, "fr"),
        |told| {
            let measured = |name: &str| place(told, name)["rtt_us"].as_u64().is_some();
            told["recent"].as_array().is_some_and(|all| all.len() == 2) && measured("us") && measured("central")
        },
    );
    let (refused, home) = (&told["recent"][0], &told["recent"][1]);
    assert_eq!((refused["status"].as_u64(), refused["failure"].as_str()), (Some(404), Some("no_route")), "{told:#}");
    assert_eq!((home["decision"].as_str(), home["reason"].as_str()), (Some("remote"), Some("home_elsewhere")));
    assert_eq!((home["home"].as_str(), home["path"].as_str()), (Some("us"), Some("/v1/users/448/x")));
    assert!(!told.to_string().contains("secret"), "queries are not shown");
    let us = place(&told, "us");
    assert_eq!(
        (us["state"].as_str(), us["requests"].as_u64(), us["kind"].as_str()),
        (Some("up"), Some(1), Some("edge"))
    );
    assert_eq!(decision(&told, "remote")["total"], 1);
    assert!(decision(&told, "remote")["p50_us"].as_u64().is_some_and(|p50| p50 > 0), "{told:#}");
    assert_eq!(
        (told["feed"]["connected"].as_bool(), told["feed"]["applied"].as_u64()),
        (Some(true), told["feed"]["head"].as_u64())
    );
}

#[test]
fn central_shows_who_follows_it_and_how_far() {
    // Central comes last: what an edge says each second does not hang on who was there first.
    let mut world = setup().build();
    world.start_edge("fr");
    world.start_central();
    let told = wait::until(
        "fr's word",
        || world.central().admin("GET", "/live").json(),
        |told| place(told, "fr")["state"] == "up" && place(told, "fr")["rtt_us"].as_u64().is_some(),
    );
    assert_eq!(told["role"], "central");
    assert_eq!(place(&told, "us")["state"], "down");
    assert_eq!(place(&told, "fr")["applied"], told["feed"]["head"]);
}

#[test]
fn a_cut_link_refuses_until_it_is_mended() {
    let world = world();
    world.central().put_home("user", "448", "us");
    let fr = world.edge("fr");
    assert_eq!(fr.get("/v1/users/448/x").status, 200);
    world.one_at("us");
    let made = fr.admin("POST", "/faults?place=us&do=cut&for=1h");
    assert_eq!((made.status, made.json()["faults"][0]["place"].as_str()), (200, Some("us")), "{made:?}");
    assert!(made.json()["faults"][0]["fault"]["cut_left_ms"].as_u64().is_some_and(|left| left > 3_500_000), "{made:?}");
    for _ in 0..5 {
        assert!(fr.ask("PUT", "/v1/users/448/x", &[], b"x").status >= 502);
    }
    // In the other direction nothing passes either.
    world.central().put_home("user", "449", "fr");
    assert_eq!(world.edge("us").get("/v1/users/449/x").status, 503);
    world.none_landed();
    assert_eq!(fr.status()["faults"][0]["place"], "us");
    assert_eq!(place(&live(&world, "fr"), "us")["state"], "down");
    let metrics = fr.admin("GET", "/metrics").text();
    assert!(metrics.contains("coordinator_fault_on{place=\"us\"} 1.0"), "{metrics}");
    assert!(metrics.contains("coordinator_faults_made_total{place=\"us\"} 1"), "{metrics}");
    assert!(metrics.contains("coordinator_link_rtt_seconds{place=\"us\""), "{metrics}");

    assert_eq!(fr.admin("POST", "/faults?place=us&do=mend").json()["faults"], Value::Array(vec![]));
    wait::until("us to be reached again", || fr.get("/v1/users/448/x").status, |status| *status == 200);
}

#[test]
fn certificates_tell_when_they_expire() {
    let world = world();
    let left = |metrics: &str, door: &str, file: &str| {
        let labels = format!("coordinator_certificate_expiry_seconds{{door=\"{door}\",file=\"");
        let ours = |line: &&str| line.starts_with(&labels) && line.contains(&format!("{file}\"}} "));
        let line = metrics.lines().find(ours).unwrap_or_else(|| panic!("{door} {file}: {metrics}"));
        line.rsplit(' ').next().and_then(|left| left.parse::<f64>().ok()).expect("a number")
    };
    let (fr, central) = (world.edge("fr").admin("GET", "/metrics"), world.central().admin("GET", "/metrics"));
    for (page, door, files) in
        [(fr.text(), "peer", ["fr.pem", "ca.pem"]), (central.text(), "central", ["central.pem", "ca.pem"])]
    {
        for file in files {
            let left = left(&page, door, file);
            // No certificate is made for less than a day, or for more than a century.
            assert!((86_400.0..3.2e9).contains(&left), "{file}: {left}");
        }
    }
}

#[test]
fn a_fault_ends_by_itself() {
    let world = world();
    let fr = world.edge("fr");
    assert_eq!(fr.admin("POST", "/faults?place=central&do=cut&for=300ms").status, 200);
    wait::until("the end of the feed", || live(&world, "fr")["feed"]["connected"].clone(), |up| *up == false);
    wait::until("the feed again", || live(&world, "fr")["feed"]["connected"].clone(), |up| *up == true);
    assert_eq!(fr.status()["faults"], Value::Array(vec![]));
}

#[test]
fn a_delayed_link_is_slow_but_right() {
    let world = world();
    world.central().put_home("user", "448", "us");
    assert_eq!(world.edge("fr").admin("POST", "/faults?place=us&do=delay&by=400ms&for=1h").status, 200);
    let began = std::time::Instant::now();
    assert_eq!(world.edge("fr").get("/v1/users/448/x").status, 200);
    assert!(began.elapsed().as_millis() >= 400);
}

#[test]
fn a_stopped_central_is_missed_by_those_who_need_it_only() {
    let world = world();
    world.central().put_home("user", "448", "us");
    assert_eq!(world.central().admin("POST", "/faults?place=central&do=cut&for=1h").status, 200);
    wait::until("fr to notice", || live(&world, "fr")["feed"]["connected"].clone(), |up| *up == false);
    assert_eq!(world.edge("fr").get("/v1/users/448/x").status, 200, "homes are served as they are known");
    let answer = world.central().ask("PUT", "/v1/homes/user/450", "{\"home\":\"fr\"}");
    assert_eq!((answer.status, answer.field("retry-after").is_some()), (503, true), "{answer:?}");
    assert_eq!(world.central().admin("POST", "/faults?place=central&do=mend").status, 200);
    wait::until("fr to follow", || live(&world, "fr")["feed"]["connected"].clone(), |up| *up == true);
}

#[test]
fn what_cannot_be_is_refused_with_its_remedy() {
    let world = world();
    for (query, says) in [
        ("place=mars&do=cut&for=1s", "there are central, jp, us"),
        ("place=us&do=cut", "for is how long"),
        ("place=us&do=cut&for=2h", "3600 s"),
        ("place=us&do=cut&for=0s", "for is how long"),
        ("place=us&do=delay&for=1s", "by is missing"),
        ("place=us&do=burn&for=1s", "cut, delay or mend"),
        ("do=cut&for=1s", "place is missing"),
        ("place=us&do=cut&for=1s&x=1", "`x` is not asked for"),
    ] {
        let answer = world.edge("fr").admin("POST", &format!("/faults?{query}"));
        assert_eq!((answer.status, answer.text().contains(says)), (400, true), "{query}: {answer:?}");
    }
}

#[test]
fn without_leave_there_are_no_faults() {
    let edge = edge::start(
        "[edge]\nname = \"fr\"\n\n[[listen]]\naddress = \"127.0.0.1:0\"\n\n[admin]\naddress = \"127.0.0.1:0\"\n\n\
         [local]\norigins = [\"http://127.0.0.1:9\"]\n\n[[route]]\nmatch = \"/\"\nto = \"local\"\n",
    );
    let at = edge.door("admin");
    let ask = |method: &str, path: &str| Client::plain(at).ask(method, path, &[("Host", &at.to_string())], b"");
    for method in ["GET", "POST"] {
        let answer = ask(method, "/faults?place=central&do=cut&for=1s");
        assert_eq!((answer.status, answer.text().contains("faults = true")), (403, true), "{answer:?}");
    }
    assert_eq!(ask("GET", "/live").json()["faults_permitted"], false);
    for path in ["/", "/page.css", "/page.js"] {
        let answer = ask("GET", path);
        let policy = answer.field("content-security-policy").unwrap_or_default();
        assert!(answer.status == 200 && policy.starts_with("default-src 'none'"), "{answer:?}");
    }
}
