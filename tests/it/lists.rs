//! Where requests without an owner go: near, to Central, down a list, to an edge by name, nowhere; and how a client tells
//! these apart.

use crate::harness::client::Answer;
use crate::harness::world::{CENTRAL, World, world};
use crate::harness::{origin, wait};

/// The failure as all ways of telling it agree on: status, token, and problem document.
#[track_caller]
fn failed(answer: &Answer, status: u16, token: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.error().as_deref(), Some(token), "{answer:?}");
    assert_eq!(answer.field("content-type"), Some("application/problem+json"), "{answer:?}");
    let problem = answer.json();
    assert_eq!((&problem["status"], &problem["token"]), (&status.into(), &token.into()), "{problem}");
    assert_eq!(answer.field("cache-control"), Some("no-store"), "{answer:?}");
}

/// A link that is down: the first requests say what happened to them, and from then on it is 503 at once, with when to
/// come back.
#[track_caller]
fn is_away(world: &World, mut ask: impl FnMut() -> Answer) {
    for _ in 0..20 {
        let answer = ask();
        if answer.status == 503 {
            failed(&answer, 503, "destination_unavailable");
            assert!(answer.field("retry-after").is_some(), "{answer:?}");
            return world.none_landed();
        }
        assert!(answer.error().is_some_and(|token| token.starts_with("connection_")), "{answer:?}");
        assert_eq!(answer.status, 502, "{answer:?}");
    }
    panic!("a link that refuses every connection never counts as down");
}

#[test]
fn near_data_is_answered_near() {
    let world = world();
    let answer = world.edge("fr").ask("POST", "/v1/near/x?y=%2F", &[("X-Any", "1")], b"hello");
    assert_eq!((answer.status, answer.json()["at"].as_str()), (200, Some("fr")), "{answer:?}");
    let seen = world.one_at("fr");
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str(), seen.body.as_slice()),
        ("POST", "/v1/near/x?y=%2F", &b"hello"[..])
    );
    assert_eq!(seen.field("coordinator"), Some("edge=fr, as=local"));
    assert_eq!((seen.field("host"), seen.field("x-any")), (Some("shop.example"), Some("1")));
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
}

#[test]
fn consistent_data_is_written_at_central() {
    let world = world();
    let answer = world.edge("jp").ask("POST", "/v1/items/847.json", &[], b"{\"price\":5}");
    assert_eq!((answer.status, answer.json()["at"].as_str()), (200, Some(CENTRAL)), "{answer:?}");
    let seen = world.one_at(CENTRAL);
    assert_eq!(seen.field("coordinator"), Some("edge=jp, as=central"));
    assert_eq!((seen.target.as_str(), seen.body.as_slice()), ("/v1/items/847.json", &b"{\"price\":5}"[..]));
    assert_eq!((seen.field("host"), seen.field("coordinator-fwd")), (Some("shop.example"), None));
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"), "the client, not the edge");
}

#[test]
fn what_has_not_been_fed_yet_comes_from_central() {
    let world = world();
    assert_eq!(world.edge("us").get("/v1/items/1.json").json()["at"], "us");
    assert_eq!(world.one_at("us").field("coordinator"), Some("edge=us, as=local"));

    world.origin("us").next(origin::Answer::status(404, "not here yet"));
    let answer = world.edge("us").get("/v1/items/2.json");
    assert_eq!((answer.status, answer.json()["at"].as_str()), (200, Some(CENTRAL)), "{answer:?}");
    let landed: Vec<_> = world.landed().into_iter().map(|(place, seen)| (place, seen.target)).collect();
    let item = "/v1/items/2.json".to_owned();
    assert_eq!(landed, [("us", item.clone()), (CENTRAL, item)]);

    // Neither has it: the client gets the last word, which is Central's.
    world.origin("us").next(origin::Answer::status(404, "not here"));
    world.origin(CENTRAL).next(origin::Answer::status(404, "nowhere"));
    let answer = world.edge("us").get("/v1/items/3.json");
    assert_eq!((answer.status, answer.text().as_str()), (404, "nowhere"));
    assert_eq!(answer.error(), None, "an origin's own answer is untouched");
    assert_eq!(world.landed().len(), 2);

    // Another failure of the origin is its answer, not a reason to go on.
    world.origin("us").next(origin::Answer::status(500, "broken"));
    assert_eq!(world.edge("us").get("/v1/items/4.json").status, 500);
    world.one_at("us");
}

#[test]
fn a_list_goes_on_when_its_first_place_is_down() {
    let mut world = world();
    world.down("fr");
    for n in 0..6 {
        let answer = world.edge("fr").get(&format!("/v1/items/{n}.json"));
        assert_eq!((answer.status, answer.json()["at"].as_str()), (200, Some(CENTRAL)), "{answer:?}");
        assert_eq!(world.one_at(CENTRAL).field("coordinator"), Some("edge=fr, as=central"));
    }
    // Central is down too: nothing is left, and the client is told when to come back.
    world.cut_central();
    let answer = world.edge("fr").get("/v1/items/9.json");
    assert_eq!(answer.status / 100, 5, "{answer:?}");
    assert!(answer.error().is_some(), "{answer:?}");
    world.none_landed();
}

#[test]
fn a_place_in_the_id_is_where_the_request_goes() {
    let world = world();
    for (from, path, at) in [
        ("fr", "/v1/items/847_jp.json", "jp"),
        ("jp", "/v1/items/847_jp.json", "jp"),
        ("us", "/v1/items/8_4_7_fr.json", "fr"),
        ("us", "/v1/tokyo/time", "jp"),
        ("jp", "/v1/tokyo/time", "jp"),
    ] {
        let answer = world.edge(from).get(path);
        assert_eq!((answer.status, answer.json()["at"].as_str()), (200, Some(at)), "{path} from {from}: {answer:?}");
        let seen = world.one_at(at);
        assert_eq!((seen.target.as_str(), seen.field("coordinator-fwd")), (path, None));
        assert_eq!(seen.field("coordinator"), Some(format!("edge={from}, as=local").as_str()), "{path} from {from}");
    }
    // No edge has this name: the next pattern takes it as an item like any other.
    assert_eq!(world.edge("fr").get("/v1/items/847_mars.json").json()["at"], "fr");
    world.one_at("fr");
    // An unsafe method is no part of that route, and belongs to Central.
    world.edge("fr").ask("PUT", "/v1/items/847_jp.json", &[], b"x");
    world.one_at(CENTRAL);
}

#[test]
fn an_edge_that_is_down_is_told_apart_from_everything_else() {
    let mut world = world();
    world.stop("jp");
    let answer = world.edge("fr").get("/v1/items/847_jp.json");
    assert!([502, 503].contains(&answer.status), "{answer:?}");
    assert!(
        answer.error().is_some_and(|token| token.starts_with("connection_") || token == "destination_unavailable"),
        "{answer:?}"
    );
    world.none_landed();
    world.restart("jp");
    world.synced();
    wait::until(
        "jp to be reached again",
        || world.edge("fr").get("/v1/items/847_jp.json").status,
        |status| *status == 200,
    );
    world.one_at("jp");
}

#[test]
fn answers_of_our_own_ask_nobody() {
    let world = world();
    let answer = world.edge("fr").get("/old/shop?a=b");
    assert_eq!((answer.status, answer.field("location")), (308, Some("https://example.com/old/shop")), "{answer:?}");
    let answer = world.edge("fr").ask("DELETE", "/gone", &[], b"");
    assert_eq!((answer.status, answer.text().as_str()), (410, "no more\n"));
    world.none_landed();
}

#[test]
fn no_route_no_method_and_nobody_there_are_three_answers() {
    let mut world = world();
    let fr = world.edge("fr");
    failed(&fr.get("/nothing/here"), 404, "destination_not_found");

    let answer = fr.ask("POST", "/v1/readonly", &[], b"x");
    failed(&answer, 405, "http_request_error");
    let allowed: Vec<_> = answer.field("allow").unwrap_or_default().split(", ").map(str::to_owned).collect();
    assert_eq!(allowed, ["GET", "HEAD"], "{answer:?}");
    assert_eq!(fr.ask("HEAD", "/v1/readonly", &[], b"").status, 200);
    world.one_at("fr");

    let proxy_status = fr.get("/nothing").all("proxy-status").join(",");
    assert!(proxy_status.starts_with("fr;") || proxy_status.starts_with("\"fr\";"), "who says so: {proxy_status}");

    world.down("fr");
    // The first failures say what happened; once nobody is there to be tried it is 503 and when to come back.
    let answer = world.edge("fr").get("/v1/near/x");
    assert!(matches!(answer.status, 502 | 503) && answer.error().is_some(), "{answer:?}");
    world.none_landed();
    // A browser gets a page, curl a problem document.
    let page = world.edge("fr").ask("GET", "/nothing", &[("Accept", "text/html,*/*;q=0.1")], b"");
    assert!(page.text().starts_with("<!doctype html>"), "{page:?}");
}

#[test]
fn central_down_is_said_of_central_alone() {
    let mut world = world();
    world.cut_central();
    assert_eq!(world.edge("fr").get("/v1/items/1.json").status, 200);
    world.one_at("fr");
    is_away(&world, || world.edge("fr").ask("POST", "/v1/items/1.json", &[], b"x"));
    world.restore_central();
    world.synced();
    // A link that is down is tried a few times a second only.
    let ask = || world.edge("fr").ask("POST", "/v1/items/1.json", &[], b"x").status;
    wait::until("Central to be reached again", ask, |status| *status == 200);
    world.one_at(CENTRAL);
}

#[test]
fn a_loop_through_our_own_deployment_is_cut() {
    let world = world();
    for value in ["shop", "other, shop; e=us"] {
        let answer = world.edge("fr").ask("GET", "/v1/near/x", &[("CDN-Loop", value)], b"");
        failed(&answer, 502, "proxy_loop_detected");
        world.none_landed();
    }
    let answer = world.edge("fr").ask("GET", "/v1/near/x", &[("CDN-Loop", "another; v=1, shopping")], b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    world.landed();
    // And what we send names us, so that the loop will be seen.
    world.edge("fr").ask("PUT", "/v1/items/1.json", &[("CDN-Loop", "another")], b"x");
    let said = world.one_at(CENTRAL);
    let hops: Vec<_> = said
        .fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("cdn-loop"))
        .map(|(_, value)| value.clone())
        .collect();
    assert!(hops.join(", ").contains("another") && hops.join(", ").contains("shop"), "{hops:?}");
}

#[test]
fn a_place_that_is_dropped_is_gone_at_once() {
    let mut world = world();
    let fr = world.edge("fr").address();
    world.stop("fr");
    world.cut_central();
    assert!(std::net::TcpStream::connect(fr).is_err(), "the public door is closed");
    assert!(std::net::TcpStream::connect(world.central().address()).is_err(), "Central's door is closed");
    world.start_central();
    world.start_edge("fr");
    world.synced();
    assert_eq!(world.edge("fr").get("/v1/near/x").status, 200);
}
