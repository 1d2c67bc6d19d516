//! A Central that was set back while edges are ahead, the brake, and a map that is not Central's: over real sockets.

use super::harness::wait;
use super::harness::world::{EDGES, World, setup, world};
use coordinator::home::Home;
use coordinator::store::rows::{Row, Rows};
use serde_json::{Value, json};
use std::path::PathBuf;

fn status(world: &World) -> Value {
    world.central().ask("GET", "/v1/status", "").json()
}

#[track_caller]
fn opened(world: &World, term: u64) {
    let open = || {
        let status = status(world);
        status["term"] == json!(term) && status["awaited"].is_null()
    };
    wait::until("Central to be open again", open, |open| *open);
    world.synced();
    for name in EDGES {
        let followed = || world.edge(name).homes().cursor().term;
        wait::until("the edge to follow the new term", followed, |now| *now == term);
    }
}

/// A world in which Central has granted `early`, was copied, and then granted `late` to fr and `later` to us.
fn ahead() -> World {
    let world = world();
    world.central().put_home("user", "early", "fr");
    world.copy_central("copy");
    world.central().put_home("user", "late", "fr");
    world.central().put_home("user", "later", "us");
    world
}

#[track_caller]
fn nothing_was_lost(world: &World) {
    for (key, home) in [("early", "fr"), ("late", "fr"), ("later", "us")] {
        assert_eq!(world.central().home("user", key), Some((home.to_owned(), 1)), "{key}");
        assert!(matches!(world.edge(home).home(key), Home::Ours { epoch: 1, .. }), "{key}");
        let elsewhere = if home == "fr" { "us" } else { "fr" };
        assert!(matches!(world.edge(elsewhere).home(key), Home::At { epoch: 1, .. }), "{key}");
        let other = json!({ "home": elsewhere }).to_string();
        assert_eq!(world.central().ask("PUT", &format!("/v1/homes/user/{key}"), &other).status, 409, "{key}");
    }
    world.central().put_home("user", "new", "jp");
}

#[test]
fn a_central_that_says_it_was_restored_gets_what_it_lost_from_the_edges() {
    let mut world = ahead();
    world.cut_central();
    world.set_back("copy");
    world.start_restored_central();
    opened(&world, 2);
    nothing_was_lost(&world);
    world.cut_central();
    world.restore_central();
    opened(&world, 2);
}

#[test]
fn a_central_that_was_set_back_is_noticed_although_it_has_grown_again() {
    let mut world = ahead();
    world.cut_central();
    world.set_back("copy");
    let others: Vec<String> = (0..20).map(|n| format!("other-{n}")).collect();
    world.append_homes("user", &others, "jp", 1);
    world.restore_central();
    opened(&world, 2);
    nothing_was_lost(&world);
    assert!(matches!(world.edge("jp").home("other-7"), Home::Ours { epoch: 1, .. }));
}

#[test]
fn nothing_is_granted_before_every_edge_has_reported() {
    let mut world = ahead();
    world.cut_central();
    world.set_back("copy");
    world.isolate("us");
    world.start_restored_central();
    wait::until("all but one to report", || status(&world)["awaited"].clone(), |awaited| *awaited == json!(["us"]));
    for (method, path, body) in [
        ("PUT", "/v1/homes/user/later", r#"{"home":"fr"}"#),
        ("GET", "/v1/homes/user/later", ""),
        ("GET", "/feed/v1/snapshot", ""),
        ("GET", "/v1/homes", ""),
        ("POST", "/v1/homes", ""),
    ] {
        assert_eq!(world.central().ask(method, path, body).status, 503, "{method} {path}");
    }
    // Who owns a user goes on with it, and so does who forwards.
    assert!(matches!(world.edge("fr").home("late"), Home::Ours { .. }));
    assert!(matches!(world.edge("us").home("later"), Home::Ours { .. }));
    world.rejoin("us");
    opened(&world, 2);
    nothing_was_lost(&world);
}

#[test]
fn an_edge_that_is_gone_for_good_is_fenced_and_its_old_disk_is_refused() {
    let mut world = ahead();
    world.cut_central();
    world.set_back("copy");
    world.stop("us");
    world.start_restored_central();
    wait::until("all but one to report", || status(&world)["awaited"].clone(), |awaited| *awaited == json!(["us"]));
    assert_eq!(world.central().ask("POST", "/v1/edges/mars/fence", "").status, 422);
    assert_eq!(world.central().ask("POST", "/v1/edges/us/fence", "").status, 200);
    wait::until("Central to be open", || status(&world)["awaited"].clone(), Value::is_null);
    assert_eq!(world.central().home("user", "late"), Some(("fr".to_owned(), 1)));
    world.start_edge("us");
    let refused = || matches!(world.edge("us").home("later"), Home::Ours { .. });
    wait::until("the fenced disk to accept nobody", refused, |accepts| !accepts);
}

#[test]
fn a_copy_that_is_restored_twice_is_in_a_term_of_its_own() {
    let mut world = ahead();
    for term in [2, 3] {
        world.cut_central();
        world.set_back("copy");
        world.start_restored_central();
        opened(&world, term);
        assert_eq!(world.central().home("user", "later"), Some(("us".to_owned(), 1)));
    }
    nothing_was_lost(&world);
}

#[test]
fn a_central_that_was_superseded_grants_nothing_once_an_edge_has_told() {
    let mut world = ahead();
    world.cut_central();
    world.copy_central("old");
    world.start_restored_central();
    opened(&world, 2);
    world.cut_central();
    world.set_back("old");
    world.restore_central();
    let superseded = || world.central().ask("PUT", "/v1/homes/user/x", r#"{"home":"fr"}"#).status;
    wait::until("the old Central to learn of the new term", superseded, |status| *status == 503);
    assert_eq!(world.edge("fr").homes().cursor().term, 2);
    assert!(matches!(world.edge("fr").home("late"), Home::Ours { .. }));
}

#[test]
fn a_mass_change_of_homes_waits_for_an_operator() {
    let mut world = setup().start();
    let keys: Vec<String> = (0..1500).map(|n| n.to_string()).collect();
    let lines: String = keys.iter().map(|key| format!("{{\"key\":\"{key}\",\"home\":\"us\"}}\n")).collect();
    assert_eq!(world.central().ask("POST", "/v1/homes", &lines).json()["created"], 1500);
    world.synced();
    world.cut_central();
    world.append_homes("user", &keys, "jp", 2);
    world.restore_central();
    for name in EDGES {
        let alarm = || world.edge(name).status()["feed"]["alarm"].clone();
        wait::until("the brake", alarm, |alarm| *alarm == json!("MassChange"));
    }
    let brake = world.edge("us").status()["brake"].clone();
    assert_eq!((&brake["on"], &brake["stops"]), (&json!(true), &json!(1)), "{brake}");
    // The feed brings two batches, and they come together.
    assert!((1001..1500).contains(&brake["changes"].as_u64().unwrap()), "one batch is held: {brake}");
    assert!(matches!(world.edge("us").home("1499"), Home::Ours { epoch: 1, .. }), "the last good is served");
    let other = world.edge("us").admin("POST", "/release?id=0000000000000007");
    assert_eq!(other.status, 409, "{other:?}");
    for name in EDGES {
        let id = world.edge(name).status()["brake"]["id"].as_str().unwrap().to_owned();
        assert!(name != "us" || other.text().contains(&format!("coordinator release {id}")), "{other:?}");
        assert_eq!(world.edge(name).admin("POST", &format!("/release?id={id}")).status, 200);
        assert_eq!(world.edge(name).admin("POST", &format!("/release?id={id}")).status, 409, "once");
    }
    world.synced();
    assert!(matches!(world.edge("jp").home("1499"), Home::Ours { epoch: 2, .. }));
    assert_eq!(world.edge("us").status()["brake"]["on"], json!(false));
}

/// The folder of the one process of an edge.
fn instance(world: &World, edge: &str) -> PathBuf {
    let data = world.folder().join(&format!("data-{edge}"));
    let mut all = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    all.find(|path| path.is_dir()).expect("an instance")
}

#[test]
fn a_map_that_is_not_centrals_is_found_by_its_digest_and_taken_anew() {
    let mut world = world();
    world.central().put_home("user", "1", "jp");
    world.central().put_home("user", "2", "us");
    world.stop("fr");
    let (mut rows, cold) = Rows::open(&instance(&world, "fr"), "map").unwrap().unwrap();
    let row = cold.sorted().next().unwrap().unwrap();
    rows.append(rows.mark(), &[Row { value: 1, epoch: row.epoch + 1, ..row }]).unwrap();
    drop((rows, cold));
    world.start_edge("fr");
    let mismatches = || world.edge("fr").status()["feed"]["digest_mismatches"].clone();
    wait::until("the mismatch to be found", mismatches, |count| *count == json!(1));
    let equal = || world.edge("fr").status()["feed"]["digest_ok"].clone();
    wait::until("the map to be Central's again", equal, |equal| *equal == json!(true));
    assert!(matches!((world.edge("fr").home("1"), world.edge("fr").home("2")), (Home::At { .. }, Home::At { .. })));
    let told =
        || status(&world)["edges"].as_array().unwrap().iter().all(|edge| edge["ack"]["digest_ok"] == json!(true));
    wait::until("all edges to say so", told, |told| *told);
    assert_eq!(status(&world)["features"], json!(coordinator::home::event::FEATURES));
}

#[test]
fn a_standby_is_promoted_while_the_old_central_still_runs() {
    let mut world = setup().with_standby().start();
    world.central().put_home("user", "early", "fr");
    world.start_standby();
    world.central().put_home("user", "late", "us");
    let head = world.central().head();
    let copied = || world.ask_standby("GET", "/v1/status", "").json()["head"].clone();
    wait::until("the log to be copied", copied, |copied| *copied == json!(head));
    assert_eq!(world.ask_standby("GET", "/v1/homes/user/late", "").status, 503);
    assert_eq!(world.central().ask("POST", "/v1/promote", "").status, 409, "it leads already");
    let promoted = world.ask_standby("POST", "/v1/promote", "");
    assert_eq!((promoted.status, &promoted.json()["term"]), (200, &json!(2)));
    let open = || world.ask_standby("GET", "/v1/status", "").json()["awaited"].clone();
    wait::until("all edges to report to the promoted one", open, Value::is_null);
    for name in EDGES {
        let followed = || world.edge(name).homes().cursor().term;
        wait::until("the edge to follow the new term", followed, |now| *now == 2);
    }
    assert_eq!(world.central().ask("PUT", "/v1/homes/user/new", r#"{"home":"fr"}"#).status, 503, "superseded");
    assert_eq!(world.ask_standby("PUT", "/v1/homes/user/new", r#"{"home":"jp"}"#).status, 201);
    let home = || matches!(world.edge("jp").home("new"), Home::Ours { epoch: 1, .. });
    wait::until("the new user's home to arrive", home, |is_ours| *is_ours);
    assert!(matches!(world.edge("us").home("late"), Home::Ours { epoch: 1, .. }));
    assert!(matches!(world.edge("fr").home("late"), Home::At { epoch: 1, .. }));
}
