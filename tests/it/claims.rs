//! New users: made ours before anybody hears of them, known everywhere soon after, and never owned twice.

use crate::harness::client::Answer;
use crate::harness::origin;
use crate::harness::wait;
use crate::harness::world::{Setup, World, setup, world};
use coordinator::home::Home;
use coordinator::tls::issue::Party;
use std::time::{Duration, Instant};

/// A second way to register: by JSON, and only with Central's word.
const STRICT: &str = r#"
[[route]]
match = "POST /v1/accounts"
to = "local"
claim = { space = "user", key = "response.json:/account/id", wait = "300ms", on_timeout = "fail" }

[[route]]
match = "POST /v1/patient"
to = "local"
claim = { space = "user", key = "response.header:X-User", wait = "5s" }
"#;

fn strict() -> Setup {
    setup().and_routes(STRICT)
}

/// The origin's answer to a registration.
fn minted(id: &str) -> origin::Answer {
    origin::Answer::bytes(format!(
        "HTTP/1.1 201 Created\r\nLocation: /v1/users/{id}\r\nX-User: {id}\r\nContent-Length: 2\r\n\r\nhi"
    ))
}

/// Registers a user at an edge, whose origin mints this id.
#[track_caller]
fn register(world: &World, edge: &str, id: &str) -> Answer {
    world.origin(edge).next(minted(id));
    let answer = world.edge(edge).ask("POST", "/v1/users", &[], b"{\"name\":\"Kim\"}");
    let seen = world.one_at(edge);
    assert_eq!(seen.field("coordinator"), Some(format!("edge={edge}, as=local").as_str()));
    answer
}

/// Writes for a user at an edge; where it landed.
#[track_caller]
fn put(world: &World, edge: &str, user: &str) -> String {
    let answer = world.edge(edge).ask("PUT", &format!("/v1/users/{user}/x"), &[], b"x");
    assert_eq!(answer.status, 200, "{user} at {edge}: {answer:?}");
    let at = answer.json()["at"].as_str().expect("the origin says who it is").to_owned();
    let told = format!("edge={edge}, key=\"user:{user}\", home={at}, epoch=1, as=home");
    assert_eq!(world.one_at(&at).field("coordinator"), Some(told.as_str()));
    at
}

#[test]
fn a_new_user_lives_where_they_registered() {
    let world = world();
    let answer = register(&world, "jp", "kim");
    assert_eq!((answer.status, answer.field("location"), answer.text().as_str()), (201, Some("/v1/users/kim"), "hi"));
    assert_eq!(world.central().home("user", "kim"), Some(("jp".to_owned(), 1)), "granted before the answer");
    world.synced();
    for edge in ["jp", "fr", "us"] {
        assert_eq!(put(&world, edge, "kim"), "jp");
    }
    assert_eq!(world.edge("jp").home("kim"), Home::Ours { epoch: 1, provisional: false });
    assert_eq!(world.edge("jp").homes().figures().outbox, 0);
}

#[test]
fn a_new_user_may_roam_before_the_feed_has_told_of_them() {
    let world = world();
    for n in 0..5 {
        let id = format!("kim-{n}");
        assert_eq!(register(&world, "jp", &id).status, 201);
        // No waiting: an edge that does not know yet asks.
        assert_eq!(put(&world, "fr", &id), "jp");
    }
}

#[test]
fn a_registration_without_central_is_answered_served_and_survives() {
    let mut world = strict().start();
    world.cut_central();
    world.edge("jp").is_alone();
    let began = Instant::now();
    assert_eq!(register(&world, "jp", "kim").status, 201);
    world.origin("jp").next(minted("lee"));
    assert_eq!(world.edge("jp").ask("POST", "/v1/patient", &[], b"x").status, 201);
    world.one_at("jp");
    assert!(began.elapsed() < Duration::from_secs(2), "nobody waits for a Central that is away: {:?}", began.elapsed());
    assert_eq!(put(&world, "jp", "kim"), "jp");
    assert_eq!(world.edge("jp").home("kim"), Home::Ours { epoch: 1, provisional: true });
    // Elsewhere nobody knows, and nobody guesses.
    let answer = world.edge("fr").get("/v1/users/kim/x");
    assert_eq!((answer.status, answer.field("retry-after").is_some()), (503, true), "{answer:?}");
    world.none_landed();

    world.restart("jp");
    assert_eq!(put(&world, "jp", "kim"), "jp");
    assert_eq!(put(&world, "jp", "lee"), "jp");

    world.restore_central();
    wait::until("the claims to be delivered", || world.edge("jp").homes().figures().provisional, |left| *left == 0);
    world.synced();
    for edge in ["fr", "us", "jp"] {
        assert_eq!(put(&world, edge, "kim"), "jp");
        assert_eq!(put(&world, edge, "lee"), "jp");
    }
    assert_eq!(world.central().home("user", "lee"), Some(("jp".to_owned(), 1)));
}

#[test]
fn many_registrations_without_central_are_delivered_soon_after_it_is_back() {
    let mut world = world();
    world.cut_central();
    world.edge("jp").is_alone();
    let mut client = world.edge("jp").client();
    for n in 0..100 {
        world.origin("jp").next(minted(&format!("kim-{n}")));
        assert_eq!(client.ask("POST", "/v1/users", &[], b"x").status, 201);
    }
    assert_eq!(world.edge("jp").homes().figures().provisional, 100);
    world.restore_central();
    let left = || world.edge("jp").homes().figures().provisional;
    wait::within(Duration::from_secs(5), "all claims to be delivered", left, |left| *left == 0);
}

#[test]
fn a_route_may_insist_on_centrals_word() {
    let mut world = strict().start();
    let body = r#"{"account":{"id":4711,"name":"Kim"}}"#;
    world.origin("us").next(origin::Answer::status(201, body));
    let answer = world.edge("us").ask("POST", "/v1/accounts", &[], b"{}");
    assert_eq!((answer.status, answer.text().as_str()), (201, body), "the content passes although it was read");
    world.one_at("us");
    assert_eq!(world.central().home("user", "4711"), Some(("us".to_owned(), 1)));

    // Content whose length nobody stated passes as whole, and so do its trailers.
    for (id, end) in [("4712", "\r\n"), ("4713", "x-sum: 1\r\n\r\n")] {
        let body = format!("{{\"account\":{{\"id\":{id}}}}}");
        let chunk = format!(
            "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n{end}",
            body.len()
        );
        world.origin("us").next(origin::Answer::bytes(chunk));
        let answer = world.edge("us").ask("POST", "/v1/accounts", &[], b"{}");
        assert_eq!((answer.status, answer.text()), (201, body), "{answer:?}");
        world.one_at("us");
        assert_eq!(world.central().home("user", id), Some(("us".to_owned(), 1)));
    }

    world.cut_central();
    world.origin("us").next(origin::Answer::status(201, r#"{"account":{"id":"late"}}"#));
    let answer = world.edge("us").ask("POST", "/v1/accounts", &[], b"{}");
    assert_eq!((answer.status, answer.error().as_deref()), (503, Some("destination_unavailable")), "{answer:?}");
    assert!(answer.field("retry-after").is_some(), "{answer:?}");
    world.one_at("us");
    // The user exists all the same, and is claimed in the end.
    assert_eq!(put(&world, "us", "late"), "us");
    world.restore_central();
    wait::until("the claim to be delivered", || world.central().home("user", "late"), Option::is_some);
}

#[test]
fn what_is_no_registration_claims_nobody() {
    let world = strict().start();
    for answer in [
        "HTTP/1.1 409 Conflict\r\nLocation: /v1/users/x1\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 303 See Other\r\nLocation: /v1/users/x1\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 201 Created\r\nLocation: /v2/users/x1\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 201 Created\r\nLocation: /v1/users/x%00\r\nContent-Length: 0\r\n\r\n",
    ] {
        world.origin("us").next(origin::Answer::bytes(answer));
        let status: u16 = answer[9..12].parse().unwrap();
        assert_eq!(world.edge("us").ask("POST", "/v1/users", &[], b"x").status, status);
        world.one_at("us");
    }
    for body in ["{\"account\":{}}", "no json", "{\"account\":{\"id\":[1]}}"] {
        world.origin("us").next(origin::Answer::status(201, body));
        let answer = world.edge("us").ask("POST", "/v1/accounts", &[], b"x");
        assert_eq!((answer.status, answer.text().as_str()), (201, body));
        world.one_at("us");
    }
    assert_eq!(world.edge("us").homes().figures().provisional, 0);
    assert_eq!(world.central().home("user", "x1"), None);
    // An absolute Location is as good as a path.
    let absolute = "HTTP/1.1 201 Created\r\nLocation: https://shop.example/v1/users/x2\r\nContent-Length: 0\r\n\r\n";
    world.origin("us").next(origin::Answer::bytes(absolute));
    assert_eq!(world.edge("us").ask("POST", "/v1/users", &[], b"x").status, 201);
    assert_eq!(world.central().home("user", "x2"), Some(("us".to_owned(), 1)));
}

#[test]
fn an_edge_that_cannot_write_asks_no_origin_for_a_new_user() {
    let world = world();
    let data = world.folder().join("data-us");
    let store = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path().join("claims.sqlite"));
    let store = store.into_iter().find(|path| path.is_file()).expect("the store of the claims");
    let blocker = rusqlite::Connection::open(&store).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let answer = Answer { ..world.edge("us").ask("POST", "/v1/users", &[], b"x") };
    assert_eq!((answer.status, answer.error().as_deref()), (503, Some("destination_unavailable")), "{answer:?}");
    assert!(answer.field("retry-after").is_some(), "{answer:?}");
    world.none_landed();
    blocker.execute_batch("ROLLBACK").unwrap();
    drop(blocker);
    wait::until(
        "the store to be writable again",
        || {
            world.origin("us").next(minted("kim"));
            world.edge("us").ask("POST", "/v1/users", &[], b"x").status
        },
        |status| *status == 201,
    );
}

#[test]
fn an_id_that_another_edge_owns_is_not_served_where_it_was_minted_again() {
    let world = world();
    world.central().put_home("user", "448", "fr");
    // The origin of jp breaks its promise of unique ids. Its answer goes out: what it did is done.
    assert_eq!(register(&world, "jp", "448").status, 201);
    for edge in ["jp", "us", "fr"] {
        assert_eq!(put(&world, edge, "448"), "fr", "at {edge}");
    }
    assert_eq!(world.central().home("user", "448"), Some(("fr".to_owned(), 1)));
}

#[test]
fn a_clash_that_was_found_late_is_alarmed_and_ends() {
    let world = world();
    world.isolate("jp");
    let created = world.central().ask("PUT", "/v1/homes/user/448", "{\"home\":\"fr\"}");
    assert_eq!(created.status, 201);
    world.edge("fr").reached(world.central().head());
    assert_eq!(register(&world, "jp", "448").status, 201);
    world.rejoin("jp");
    let alarmed = || world.edge("jp").homes().figures().clashes;
    wait::until("the clash to be known", alarmed, |clashes| *clashes == 1);
    world.synced();
    for edge in ["jp", "us", "fr"] {
        assert_eq!(put(&world, edge, "448"), "fr", "at {edge}");
    }
    assert_eq!(world.edge("jp").status()["homes"]["clashes"], 1, "an operator sees it");
}

#[test]
fn the_first_write_gives_a_team_its_home() {
    let world = world();
    // Safe methods ask, and claim nothing.
    let answer = world.edge("us").get("/v1/teams/red/plan");
    assert_eq!((answer.status, answer.error().as_deref()), (404, Some("destination_not_found")), "{answer:?}");
    assert_eq!(world.central().home("team", "red"), None);
    world.none_landed();

    let answer = world.edge("us").ask("PUT", "/v1/teams/red/plan", &[], b"x");
    assert_eq!((answer.status, answer.json()["at"].as_str()), (200, Some("us")), "{answer:?}");
    let told = "edge=us, key=\"team:red\", home=us, epoch=1, as=home";
    assert_eq!(world.one_at("us").field("coordinator"), Some(told));
    for edge in ["fr", "jp"] {
        let answer = world.edge(edge).ask("PUT", "/v1/teams/red/plan", &[], b"x");
        assert_eq!(answer.json()["at"], "us", "{answer:?}");
        world.one_at("us");
    }

    // A safe request claims where the route says by what it is known to be a real visitor.
    assert_eq!(world.edge("jp").get("/v1/visits/blue").status, 404);
    let answer = world.edge("jp").ask("GET", "/v1/visits/blue", &[("X-Session", "7")], b"");
    assert_eq!(answer.json()["at"], "jp", "{answer:?}");
    world.one_at("jp");
}

#[test]
fn of_two_first_touches_one_wins_and_both_are_served_there() {
    let world = world();
    for round in 0..8 {
        let path = format!("/v1/teams/green-{round}/plan");
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let asked = ["fr", "us", "jp", "fr"].map(|edge| {
                let (world, path) = (&world, &path);
                scope.spawn(move || world.edge(edge).ask("PUT", path, &[], b"x"))
            });
            asked.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        let (home, epoch) = world.central().home("team", &format!("green-{round}")).expect("claimed");
        assert_eq!(epoch, 1);
        for answer in answers {
            assert_eq!((answer.status, answer.json()["at"].as_str()), (200, Some(home.as_str())), "{answer:?}");
        }
        let landed = world.landed();
        assert_eq!(landed.len(), 4);
        assert!(landed.iter().all(|(at, _)| *at == home));
    }
}

#[test]
fn nobody_is_claimed_without_central_at_first_touch() {
    let mut world = world();
    world.cut_central();
    let answer = world.edge("us").ask("PUT", "/v1/teams/red/plan", &[], b"x");
    assert_eq!((answer.status, answer.field("retry-after").is_some()), (503, true), "{answer:?}");
    world.none_landed();
    world.restore_central();
    wait::until(
        "the claim to go through",
        || world.edge("us").ask("PUT", "/v1/teams/red/plan", &[], b"x").status,
        |status| *status == 200,
    );
    world.one_at("us");
}

#[test]
fn edges_that_differ_in_how_keys_are_claimed_get_no_key_at_first_touch() {
    let visitors = |regime: &str| {
        format!(
            "[homes.visitor]\nclaim = \"{regime}\"\n\n[[route]]\nmatch = \"/v1/visitors/{{visitor}}/\"\nto = \"home:visitor\"\n"
        )
    };
    let says = |world: &World, word: &str| {
        let status = || world.central().ask("GET", "/v1/status", "").json();
        let jp = |status: &serde_json::Value| {
            status["edges"].as_array().unwrap().iter().any(|edge| {
                edge["name"] == "jp" && edge["ack"]["spaces"].as_array().is_some_and(|said| said.contains(&word.into()))
            })
        };
        wait::until("jp to say how it claims", status, jp);
    };
    let mut world = setup().and_routes(&visitors("first-touch")).start();
    let touch = |world: &World, n: u32| world.edge("us").ask("PUT", &format!("/v1/visitors/{n}/x"), &[], b"x");
    assert_eq!(touch(&world, 1).status, 200);
    world.one_at("us");

    // At jp the origin mints them from now on, and serves them before Central hears of it.
    let folder = world.folder();
    let (routes, own) = ("routes.toml", "jp.toml");
    let read = |name| std::fs::read_to_string(folder.join(name)).expect("a file of the world");
    folder.write("routes-jp.toml", read(routes).replace(&visitors("first-touch"), &visitors("registration")));
    folder.write(own, read(own).replace(routes, "routes-jp.toml"));
    world.restart("jp");
    says(&world, "visitor=registration");
    let answer = touch(&world, 2);
    assert_eq!((answer.status, answer.field("retry-after").is_some()), (503, true), "{answer:?}");
    assert_eq!(world.central().home("visitor", "2"), None);
    world.none_landed();
    let claim = r#"{"space":"visitor","key":"2","edge":"us"}"#;
    let refusal = world.central().ask_as(Party::Edge("us"), "POST", "/v1/claims", claim);
    assert_eq!((refusal.status, &refusal.json()["registration_at"]), (409, &serde_json::json!(["jp"])), "{refusal:?}");
    // Who has a home keeps it, and other spaces are as before.
    assert_eq!(touch(&world, 1).status, 200);
    world.one_at("us");
    assert_eq!(world.edge("us").ask("PUT", "/v1/teams/red/plan", &[], b"x").status, 200);
    world.one_at("us");

    // Mended.
    let folder = world.folder();
    let text = std::fs::read_to_string(folder.join(own)).expect("a file of the world");
    folder.write(own, text.replace("routes-jp.toml", routes));
    world.restart("jp");
    says(&world, "visitor=first-touch");
    assert_eq!(touch(&world, 2).status, 200);
    world.one_at("us");
}

#[test]
fn one_source_claims_no_more_than_its_space_allows() {
    let routes = r#"
[homes.visitor]
claim = "first-touch"
claims_per_minute = 3

[[route]]
match = "/v1/visitors/{visitor}/"
to = "home:visitor"
"#;
    let world = setup().and_routes(routes).start();
    let touch = |n: u32| world.edge("us").ask("PUT", &format!("/v1/visitors/{n}/x"), &[], b"x");
    for n in 0..3 {
        assert_eq!(touch(n).status, 200, "{n}");
        world.one_at("us");
    }
    let answer = touch(3);
    assert_eq!(answer.status, 429, "{answer:?}");
    assert!(
        answer.field("proxy-status").is_some_and(|field| field.contains("error=http_request_denied")),
        "{answer:?}"
    );
    // Three a minute are one in twenty seconds.
    let wait: u64 = answer.field("retry-after").and_then(|field| field.parse().ok()).expect("a Retry-After in seconds");
    assert!((1..=20).contains(&wait), "{wait}");
    let counted = r#"coordinator_failures_total{error="http_request_denied",kind="rate_limited",side="downstream"} 1"#;
    // The record is closed behind the last octet that the client saw.
    let metrics = || world.edge("us").admin("GET", "/metrics").text();
    wait::until("it to be counted", metrics, |text| text.contains(counted));
    assert_eq!(world.central().home("visitor", "3"), None);
    world.none_landed();
    // Those who have a home are not counted, nor are other spaces.
    assert_eq!(touch(1).status, 200);
    world.one_at("us");
    assert_eq!(world.edge("us").ask("PUT", "/v1/teams/red/plan", &[], b"x").status, 200);
    world.one_at("us");
}
