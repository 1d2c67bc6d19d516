//! What edges say to each other, and whom they believe: corrections are followed, lies and forgeries lead nowhere.

use crate::harness::client::{Answer, Client};
use crate::harness::h2;
use crate::harness::origin::{self, Gate, Origin};
use crate::harness::peer::{Peer, Says};
use crate::harness::world::{CENTRAL, World, setup, world};
use crate::harness::{certs, wait, ws};
use coordinator::home::Home;
use coordinator::tls::issue::Party;
use std::time::{Duration, Instant};

/// What one edge would send to another.
fn fwd(from: &str, to: &str, key: &str, epoch: u32) -> String {
    format!("v=1; from={from}; to={to}; key=\"{key}\"; epoch={epoch}; seq=1; id=test")
}

/// A world in which fr has not heard that 448 moved from us to jp.
fn stale() -> World {
    let mut world = world();
    world.central().put_home("user", "448", "us");
    world.isolate("fr");
    world.move_home("user", "448", "jp");
    world.synced();
    assert!(matches!(world.edge("fr").home("448"), Home::At { epoch: 1, .. }));
    world
}

/// A request of fr for 448 that nobody may serve now.
#[track_caller]
fn refused(world: &World, entry: &str) {
    let answer = world.edge(entry).ask("PUT", "/v1/users/448/x", &[], b"x");
    assert_eq!((answer.status, answer.error().as_deref()), (503, Some("destination_unavailable")), "{answer:?}");
    assert!(answer.field("retry-after").is_some(), "{answer:?}");
    world.none_landed();
}

#[test]
fn a_stale_edge_is_corrected_and_follows_once() {
    let world = stale();
    for method in ["GET", "POST", "PUT"] {
        let answer = world.edge("fr").ask(method, "/v1/users/448/x", &[], b"content");
        assert_eq!((answer.status, answer.json()["at"].as_str()), (200, Some("jp")), "{answer:?}");
        assert!(answer.fields.iter().all(|(name, _)| !name.starts_with("coordinator")), "{answer:?}");
        let seen = world.one_at("jp");
        assert_eq!(seen.field("coordinator"), Some("edge=fr, key=\"user:448\", home=jp, epoch=2, as=home"));
        assert_eq!(seen.body, b"content");
        // What it was told it remembers, ahead of its feed.
        assert!(matches!(world.edge("fr").home("448"), Home::At { epoch: 2, .. }));
    }
}

#[test]
fn a_large_upload_to_the_wrong_edge_arrives_whole_at_the_right_one() {
    let world = stale();
    let content: Vec<u8> = (0..20_u32 << 20).map(|n| (n / 1000) as u8).collect();
    let answer = world.edge("fr").ask("POST", "/v1/users/448/film", &[], &content);
    assert_eq!((answer.status, answer.json()["at"].as_str()), (200, Some("jp")), "{answer:?}");
    assert!(world.one_at("jp").body == content);
}

#[test]
fn two_hundred_mebibytes_to_the_wrong_edge_cost_one_more_round_trip() {
    const CHUNK: usize = 1 << 20;
    let world = stale();
    let mut client = world.edge("fr").client();
    let length = 200 * CHUNK;
    client.send(format!("POST /v1/users/448/film HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {length}\r\n\r\n"));
    for n in 0..200_u8 {
        client.send(vec![n; CHUNK]);
    }
    let answer = client.answer();
    assert_eq!((answer.status, answer.json()["at"].as_str()), (200, Some("jp")), "{answer:?}");
    let body = world.one_at("jp").body;
    assert_eq!(body.len(), length);
    assert!(body.chunks(CHUNK).zip(0..200_u8).all(|(chunk, n)| chunk.iter().all(|octet| *octet == n)));
}

/// What is kept for a correction is bounded by HTTP/2's windows, so peers speak nothing else (docs/decisions/0002).
#[test]
fn a_peer_that_speaks_http1_alone_gets_no_octet_of_a_request() {
    for alpn in [&["http/1.1"][..], &[]] {
        let mut world = setup().build();
        world.start_central();
        world.start_edge("fr");
        world.central().put_home("user", "448", "us");
        let config = certs::server_config(&world.certificate(Party::Edge("us")), alpn);
        let old = Origin::at(world.edge("us").peer_door(), Some(config));
        let answer = world.edge("fr").ask("PUT", "/v1/users/448/x", &[], b"x");
        assert_eq!((answer.status, answer.error().as_deref()), (502, Some("tls_protocol_error")), "{answer:?}");
        assert!(old.seen().is_empty() && old.garbled().is_empty(), "{:?}", old.seen());
    }
}

#[test]
fn one_that_lags_behind_the_sender_waits_for_its_feed() {
    let world = setup().plain().start();
    world.central().put_home("user", "449", "us");
    world.synced();
    let head = world.central().head();
    let ask = |seq: u64, key: &str| {
        let fwd = format!("v=1; from=fr; to=us; key=\"{key}\"; epoch=1; seq={seq}; id=test");
        Client::plain(world.edge("us").peer_door()).ask("PUT", "/v1/users/1/x", &[("Coordinator-Fwd", &fwd)], b"x")
    };
    // The owner serves, whatever the sender has seen.
    assert_eq!(ask(head + 9, "user:449").status, 200);
    world.one_at("us");
    // Nobody knows of it: with an equal cursor at once, else once the feed had its chance and Central was asked.
    let began = Instant::now();
    assert_eq!(ask(head, "user:450").field("coordinator-unknown"), Some("1"), "after the wait");
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    // The feed brings it while the request is parked.
    let (central, parked) = (world.central(), std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            parked.store(true, std::sync::atomic::Ordering::Release);
            ask(head + 1, "user:451")
        });
        wait::until("the request to be sent", || parked.load(std::sync::atomic::Ordering::Acquire), |sent| *sent);
        central.put_home("user", "451", "us");
        let answer = asking.join().unwrap();
        assert_eq!((answer.status, answer.json()["at"].as_str()), (200, Some("us")), "{answer:?}");
    });
    world.one_at("us");
    // Without feed and Central the wait is bounded, and nobody is served.
    world.isolate("us");
    let began = Instant::now();
    let answer = ask(head + 99, "user:452");
    assert_eq!((answer.status, answer.field("coordinator-unknown")), (421, Some("1")), "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    world.none_landed();
}

#[test]
fn an_edge_that_moved_away_without_hearing_of_it_sends_its_own_user_on() {
    let mut world = world();
    world.central().put_home("user", "448", "fr");
    world.move_home("user", "448", "jp");
    world.synced();
    // Its own ledger says so now; and one who still believes the old home is corrected by it.
    assert_eq!(world.edge("fr").get("/v1/users/448/x").json()["at"], "jp");
    world.one_at("jp");
    let mut client = world.call(world.edge("fr").peer_door(), Party::Edge("us"));
    let answer = client.ask("GET", "/v1/users/448/x", &[("Coordinator-Fwd", &fwd("us", "fr", "user:448", 1))], b"");
    assert_eq!(answer.status, 421, "{answer:?}");
    let moved = answer.field("coordinator-moved").unwrap_or_default();
    assert!(moved.starts_with("edge=jp; epoch=2; seq="), "{moved}");
    world.none_landed();
}

#[test]
fn one_who_does_not_know_sends_us_to_central() {
    let mut world = setup().plain().build();
    world.start_central();
    for edge in ["fr", "jp"] {
        world.start_edge(edge);
    }
    world.central().put_home("user", "448", "us");
    let gate = Gate::new();
    let us = Peer::at(world.edge("us").peer_door());
    us.next(Says { hold: Some(gate.clone()), ..Says::unknown() });
    world.isolate("fr");
    let entry = world.edge("fr").address();
    let asking = std::thread::spawn(move || Client::plain(entry).ask("PUT", "/v1/users/448/x", &[], b"x"));
    wait::until("the request at us", || us.got().len(), |got| *got == 1);
    world.move_home("user", "448", "jp");
    world.edge("jp").reached(world.central().head());
    world.rejoin("fr");
    gate.open();
    let answer = asking.join().unwrap();
    assert_eq!((answer.status, answer.json()["at"].as_str()), (200, Some("jp")), "{answer:?}");
    let told = "edge=fr, key=\"user:448\", home=jp, epoch=2, as=home";
    assert_eq!(world.one_at("jp").field("coordinator"), Some(told));
    assert_eq!(us.got().len(), 1);
}

#[test]
fn a_peer_that_lies_leads_nowhere() {
    let mut world = setup().plain().build();
    world.start_central();
    for edge in ["fr", "jp"] {
        world.start_edge(edge);
    }
    world.central().put_home("user", "448", "us");
    let us = Peer::at(world.edge("us").peer_door());
    for (lie, what) in [
        (Says::moved("jp", 1), "the same epoch"),
        (Says::moved("jp", 0), "an older epoch"),
        (Says::moved("us", 1), "itself"),
        (Says::moved("mars", 9), "an edge that does not exist"),
        (Says::with(421, "coordinator-moved", "edge=jp".to_owned()), "half a correction"),
        (Says::with(421, "coordinator-moved", "edge=jp; epoch=99999999999; seq=1".to_owned()), "a huge epoch"),
        (Says::unknown(), "that it does not know"),
    ] {
        let before = us.got().len();
        us.next(lie);
        refused(&world, "fr");
        assert_eq!(us.got().len(), before + 1, "it says {what}, and is not asked again");
        assert!(matches!(world.edge("fr").home("448"), Home::At { epoch: 1, .. }), "it says {what}");
    }
    // A 421 that is no correction is an answer.
    let before = us.got().len();
    us.next(Says { status: 421, ..Says::default() });
    let answer = world.edge("fr").ask("PUT", "/v1/users/448/x", &[], b"x");
    assert_eq!((answer.status, us.got().len()), (421, before + 1), "{answer:?}");

    // One who names an edge that owns nothing: that edge finds no newer home anywhere, and refuses.
    us.next(Says::moved("jp", 7));
    refused(&world, "fr");
}

#[test]
fn edges_that_send_us_round_are_visited_three_times_at_most() {
    let mut world = setup().plain().build();
    world.start_central();
    world.start_edge("fr");
    world.central().put_home("user", "448", "us");
    let (us, jp) = (Peer::at(world.edge("us").peer_door()), Peer::at(world.edge("jp").peer_door()));
    us.next(Says::moved("jp", 2)).next(Says::moved("jp", 4)).next(Says::moved("jp", 6));
    jp.next(Says::moved("us", 3)).next(Says::moved("us", 5)).next(Says::moved("us", 7));
    refused(&world, "fr");
    assert_eq!((us.got().len(), jp.got().len()), (2, 1));
    let said: Vec<_> = us
        .got()
        .into_iter()
        .chain(jp.got())
        .map(|got| {
            got.fields
                .into_iter()
                .find(|(name, _)| name == "coordinator-fwd")
                .map(|(_, value)| value)
                .unwrap_or_default()
        })
        .collect();
    for (said, (to, epoch)) in said.iter().zip([("us", 1), ("us", 3), ("jp", 2)]) {
        assert!(said.starts_with(&format!("v=1; from=fr; to={to}; key=\"user:448\"; epoch={epoch}; seq=")), "{said}");
    }
}

#[test]
fn one_that_says_we_own_a_user_is_not_believed_without_the_feed() {
    let mut world = setup().plain().build();
    world.start_central();
    world.start_edge("fr");
    world.central().put_home("user", "448", "us");
    let us = Peer::at(world.edge("us").peer_door());
    us.always(Says::moved("fr", 2));
    let began = Instant::now();
    refused(&world, "fr");
    assert!(began.elapsed() < Duration::from_secs(3), "bounded: {:?}", began.elapsed());
    assert_eq!(us.got().len(), 1);
}

#[test]
fn an_owner_that_was_superseded_never_serves() {
    let mut world = setup().plain().start();
    world.central().put_home("user", "449", "us");
    let ask = |world: &World, epoch| {
        let mut client = Client::plain(world.edge("us").peer_door());
        client.ask("PUT", "/v1/users/449/x", &[("Coordinator-Fwd", &fwd("fr", "us", "user:449", epoch))], b"x")
    };
    let answer = ask(&world, 1);
    assert_eq!((answer.status, answer.field("coordinator-home")), (200, None), "{answer:?}");
    assert_eq!(world.one_at("us").field("coordinator"), Some("edge=fr, key=\"user:449\", home=us, epoch=1, as=home"));
    let answer = ask(&world, 0);
    let home = answer.field("coordinator-home").unwrap_or_default();
    assert!(answer.status == 200 && home.starts_with("edge=us; epoch=1; seq="), "{answer:?}");
    world.one_at("us");

    // Somebody knows of a later owner: until the feed says who, nobody is served; nor without Central.
    let answer = ask(&world, 2);
    assert_eq!((answer.status, answer.field("retry-after").is_some()), (503, true), "{answer:?}");
    world.isolate("us");
    world.move_home("user", "449", "jp");
    let answer = ask(&world, 2);
    assert_eq!((answer.status, answer.field("retry-after").is_some()), (503, true), "{answer:?}");
    world.none_landed();
    // Then it knows, and says who, to those who do not know themselves.
    world.rejoin("us");
    world.synced();
    let answer = ask(&world, 1);
    assert!(
        answer.field("coordinator-moved").is_some_and(|moved| moved.starts_with("edge=jp; epoch=2;")),
        "{answer:?}"
    );
    let answer = ask(&world, 2);
    assert_eq!((answer.status, answer.field("coordinator-unknown")), (421, Some("1")), "{answer:?}");
    world.none_landed();
}

#[test]
fn the_key_decides_at_the_peer_door_not_the_route() {
    let world = setup().plain().start();
    world.central().put_home("user", "449", "us");
    let ask = |line: &str, to: &str, key: &str| {
        let mut client = Client::plain(world.edge("us").peer_door());
        let (method, target) = line.split_once(' ').unwrap();
        client.ask(method, target, &[("Coordinator-Fwd", &fwd("fr", to, key, 1))], b"")
    };
    // Neither 404 nor 405: the sender has matched already.
    for line in [
        "GET /nothing/here",
        "DELETE /v1/readonly",
        "POST /v1/users",
        "GET /v1/users/someone-else/x",
        "GET /old/x",
        "GET /v1/items/1_jp.json",
    ] {
        let answer = ask(line, "us", "user:449");
        assert_eq!((answer.status, answer.json()["at"].as_str()), (200, Some("us")), "{line}: {answer:?}");
        assert_eq!(
            world.one_at("us").field("coordinator"),
            Some("edge=fr, key=\"user:449\", home=us, epoch=1, as=home")
        );
    }
    // Not for us, or a key that we do not have.
    for (to, key) in [("jp", "user:449"), ("us", "user:stranger"), ("us", "planet:449"), ("us", "team:449")] {
        let answer = ask("GET /v1/users/449/x", to, key);
        assert_eq!((answer.status, answer.field("coordinator-unknown")), (421, Some("1")), "{to} {key}: {answer:?}");
    }
    world.none_landed();
}

#[test]
fn what_clients_and_origins_say_in_our_name_is_heard_by_nobody() {
    let world = world();
    world.central().put_home("user", "450", "jp");
    world.central().put_home("user", "449", "us");
    let forged = [
        ("Coordinator", "edge=xx, key=\"user:1\", home=xx, epoch=9, as=home"),
        ("COORDINATOR-FWD", "v=1; from=us; to=fr; key=\"user:449\"; epoch=9; seq=9; id=x"),
        ("coordinator_fwd", "v=1; from=us; to=fr; epoch=9; seq=9; id=x"),
        ("Coordinator_Home", "edge=us; epoch=9; seq=9"),
        ("Coordinator-Edge", "us"),
        ("Coordinator-Moved", "edge=us; epoch=9; seq=9"),
        ("X_Forwarded_For", "6.6.6.6"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("Connection", "coordinator, x-forwarded-for"),
    ];
    for (path, at) in
        [("/v1/users/450/x", "jp"), ("/v1/near/x", "fr"), ("/v1/items/1.json", "fr"), ("/v1/tokyo/x", "jp")]
    {
        let answer = world.edge("fr").ask("GET", path, &forged, b"");
        assert_eq!((answer.status, answer.json()["at"].as_str()), (200, Some(at)), "{path}: {answer:?}");
        let seen = world.one_at(at);
        let ours: Vec<_> = seen
            .fields
            .iter()
            .filter(|(name, _)| name.to_ascii_lowercase().contains("oordinator") || name.contains('_'))
            .collect();
        assert_eq!(ours.len(), 1, "{path}: {ours:?}");
        assert!(ours[0].1.starts_with("edge=fr") && !ours[0].1.contains("xx"), "{ours:?}");
        assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"), "{path}");
    }
    // Nor in trailers, which some servers fold into the fields.
    for (path, at) in [("/v1/users/450/x", "jp"), ("/v1/near/x", "fr")] {
        let mut client = world.edge("fr").client();
        let head = format!("PUT {path} HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n");
        let answer = client
            .send(head)
            .send_chunk(b"x")
            .send("0\r\nCoordinator: forged\r\ncoordinator_fwd: x\r\nX-Sum: 1\r\n\r\n")
            .answer();
        assert_eq!(answer.status, 200, "{answer:?}");
        let trailers = world.one_at(at).trailers;
        let names: Vec<_> = trailers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        assert_eq!(names, ["x-sum"], "{path}");
    }
    // An origin's own 421 is its answer; its words to edges reach nobody.
    for entry in ["jp", "fr"] {
        for status in [421, 200] {
            let said = format!(
                "HTTP/1.1 {status} X\r\nCoordinator-Moved: edge=us; epoch=9; seq=9\r\nCoordinator-Unknown: 1\r\n\
                 Coordinator-Home: edge=us; epoch=9; seq=9\r\nCoordinator: x\r\ncoordinator_home: x\r\nX-Own: 1\r\nContent-Length: 2\r\n\r\nhi"
            );
            world.origin("jp").next(origin::Answer::bytes(said));
            let answer = world.edge(entry).get("/v1/users/450/x");
            assert_eq!((answer.status, answer.field("x-own"), answer.text().as_str()), (status, Some("1"), "hi"));
            assert!(
                answer.fields.iter().all(|(name, _)| !name.to_ascii_lowercase().contains("oordinator")),
                "{answer:?}"
            );
            world.one_at("jp");
        }
    }
    assert!(matches!(world.edge("fr").home("450"), Home::At { epoch: 1, .. }));
}

#[test]
fn the_peer_door_opens_to_edges_that_speak_for_themselves() {
    let world = world();
    world.central().put_home("user", "449", "us");
    let door = world.edge("us").peer_door();
    let said = fwd("fr", "us", "user:449", 1);
    let ask =
        |party: Party<'_>, fields: &[(&str, &str)]| world.call(door, party).ask("GET", "/v1/users/449/x", fields, b"");
    assert_eq!(ask(Party::Edge("fr"), &[("Coordinator-Fwd", &said)]).status, 200);
    world.one_at("us");
    for (party, what) in [
        (Party::Edge("jp"), "an edge that speaks for another"),
        (Party::App("shop"), "the application"),
        (Party::Operator("kim"), "an operator"),
        (Party::Central, "Central"),
    ] {
        let answer = ask(party, &[("Coordinator-Fwd", &said)]);
        assert_eq!(
            (answer.status, answer.error().as_deref()),
            (403, Some("http_request_denied")),
            "{what}: {answer:?}"
        );
    }
    for (fields, what) in [
        (vec![], "nothing said"),
        (vec![("Coordinator-Fwd", "v=2; from=fr; to=us; epoch=1; seq=1; id=x")], "another version"),
        (vec![("Coordinator-Fwd", said.as_str()), ("Coordinator-Fwd", said.as_str())], "said twice"),
        (vec![("coordinator_fwd", said.as_str())], "misspelt"),
    ] {
        let answer = ask(Party::Edge("fr"), &fields);
        assert_eq!((answer.status, answer.error().as_deref()), (400, Some("http_request_error")), "{what}: {answer:?}");
    }
    world.none_landed();

    // Whoever shows no certificate, or one of another authority with the right name in it, does not get in.
    let stranger = certs::issuer().edge("fr", &["127.0.0.1".to_owned()]).unwrap();
    let public = certs::public(&certs::issuer(), &["127.0.0.1"]);
    for own in [None, Some(&stranger), Some(&public)] {
        let Ok(mut client) = Client::tls(door, world.tls(&["http/1.1"], own), "127.0.0.1") else { continue };
        client.send(format!("GET /v1/users/449/x HTTP/1.1\r\nHost: a\r\nCoordinator-Fwd: {said}\r\n\r\n"));
        assert!(client.try_answer("GET").is_err());
    }
    world.none_landed();
}

#[test]
fn centrals_door_knows_who_may_do_what() {
    let world = world();
    let central = world.central();
    let claim =
        |key: &str, edge: &str| format!("{{\"space\":\"user\",\"key\":\"{key}\",\"edge\":\"{edge}\",\"id\":\"1\"}}");
    for (party, method, path, body, status) in [
        (Party::Operator("kim"), "PUT", "/v1/homes/user/1", "{\"home\":\"fr\"}".to_owned(), 201),
        (Party::App("shop"), "PUT", "/v1/homes/user/2", "{\"home\":\"fr\"}".to_owned(), 201),
        (Party::App("shop"), "PUT", "/v1/homes/user/2", "{\"home\":\"us\"}".to_owned(), 409),
        (Party::Edge("fr"), "PUT", "/v1/homes/user/3", "{\"home\":\"fr\"}".to_owned(), 403),
        (Party::Edge("fr"), "POST", "/v1/homes", "{\"key\":\"3\",\"home\":\"fr\"}".to_owned(), 403),
        (Party::Edge("fr"), "POST", "/v1/claims", claim("3", "jp"), 403),
        (Party::App("shop"), "POST", "/v1/claims", claim("3", "fr"), 403),
        (Party::Operator("kim"), "GET", "/feed/v1/snapshot", String::new(), 403),
        (Party::Edge("fr"), "POST", "/v1/claims", claim("3", "fr"), 200),
        (Party::Edge("us"), "GET", "/v1/homes/user/3", String::new(), 200),
    ] {
        let answer = central.ask_as(party, method, path, &body);
        assert_eq!(answer.status, status, "{party:?} {method} {path} {body}: {answer:?}");
    }
    let nobody = Client::tls(central.address(), world.tls(&["http/1.1"], None), "127.0.0.1");
    if let Ok(mut client) = nobody {
        client.send("GET /v1/homes/user/1 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(client.try_answer("GET").is_err());
    }
    world.none_landed();
}

#[test]
fn centrals_application_and_its_api_stand_behind_one_door_and_never_meet() {
    let world = world();
    // A client's request goes to the application, whatever its path.
    for (method, body) in [("GET", ""), ("PUT", "{\"home\":\"fr\"}")] {
        let answer = world.edge("fr").ask(method, "/v1/homes/user/9", &[("Coordinator-Edge", "fr")], body.as_bytes());
        assert_eq!((answer.status, answer.json()["at"].as_str()), (200, Some(CENTRAL)), "{answer:?}");
        assert_eq!(world.one_at(CENTRAL).field("coordinator"), Some("edge=fr, as=central"));
    }
    assert_eq!(world.central().home("user", "9"), None);
    // The application is reached by edges alone, each under its own name.
    let said = "v=1; from=fr; to=central; epoch=0; seq=1; id=x";
    for (party, status) in
        [(Party::Edge("fr"), 200), (Party::Edge("us"), 403), (Party::Operator("kim"), 403), (Party::App("a"), 403)]
    {
        let answer = world.call(world.central().address(), party).ask(
            "GET",
            "/v1/items/1.json",
            &[("Coordinator-Fwd", said)],
            b"",
        );
        assert_eq!(answer.status, status, "{party:?}: {answer:?}");
        assert_eq!(world.landed().len(), usize::from(status == 200));
    }
}

#[test]
fn a_websocket_reaches_a_home_far_away() {
    let world = world();
    world.central().put_home("user", "450", "jp");
    for entry in ["jp", "fr"] {
        world.origin("jp").next(origin::Answer::websocket());
        let mut socket = ws::WebSocket::open(world.edge(entry).client(), "/v1/users/450/chat");
        socket.echoes("hello");
        socket.echoes(&"x".repeat(100_000));
        let pong = socket.send(ws::PING, b"are you there").frame();
        assert_eq!((pong.opcode, pong.payload.as_slice()), (ws::PONG, &b"are you there"[..]));
        assert_eq!(socket.send(ws::CLOSE, &[3, 232]).frame().opcode, ws::CLOSE);
        let seen = world.one_at("jp");
        assert_eq!(
            seen.field("coordinator"),
            Some(format!("edge={entry}, key=\"user:450\", home=jp, epoch=1, as=home").as_str())
        );
    }
    // One that is refused is refused.
    world.origin("jp").next(origin::Answer::status(403, "no"));
    let answer = world.edge("fr").client().send(ws::request("/v1/users/450/chat")).answer();
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"), "{answer:?}");
}

#[test]
fn events_pass_two_hops_as_they_happen() {
    let world = world();
    world.central().put_home("user", "450", "jp");
    let gate = Gate::new();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    world.origin("jp").next(
        origin::Answer::bytes(head).send("9\r\ndata: 1\n\n\r\n").hold(&gate).send("9\r\ndata: 2\n\n\r\n0\r\n\r\n"),
    );
    let mut client = world.edge("fr").client();
    client.send("GET /v1/users/450/events HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    let (status, _) = client.next_head();
    assert_eq!(status, 200);
    let first = client.octets(14);
    assert!(String::from_utf8_lossy(&first).contains("data: 1"), "before the second happens: {first:?}");
    gate.open();
    let rest = client.octets(14 + 5);
    assert!(String::from_utf8_lossy(&rest).contains("data: 2"), "{rest:?}");
}

#[test]
fn grpc_reaches_a_home_far_away_with_its_trailers() {
    let echo = h2::Echo::start();
    let world = setup().with_origin("jp", format!("h2c://{}", echo.address)).start();
    world.central().put_home("user", "450", "jp");
    for entry in ["jp", "fr"] {
        let mut client = world.edge(entry).h2();
        let answer = client.ask(h2::Ask {
            method: "POST".to_owned(),
            target: "/v1/users/450/Greeter".to_owned(),
            fields: vec![
                ("content-type".to_owned(), "application/grpc".to_owned()),
                ("te".to_owned(), "trailers".to_owned()),
            ],
            body: Some(vec![7; 300_000]),
            trailers: vec![("x-client".to_owned(), "done".to_owned())],
        });
        assert_eq!(
            (answer.status, answer.reset, answer.body.len()),
            (200, None, 300_000),
            "{entry}: {}",
            answer.failure
        );
        assert_eq!(answer.all("echo-te"), ["trailers"]);
        let expected = format!("edge={entry}, key=\"user:450\", home=jp, epoch=1, as=home");
        assert_eq!(answer.all("echo-coordinator"), [expected.as_str()]);
        let mut trailers = answer.trailers.clone();
        trailers.sort();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(trailers, [pair("grpc-status", "0"), pair("x-client", "done")], "{entry}");
    }
}

#[test]
fn interim_answers_come_from_far_away() {
    let world = world();
    world.central().put_home("user", "450", "jp");
    let hints =
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nCoordinator-Moved: edge=us; epoch=9; seq=1\r\n\r\n";
    for entry in ["jp", "fr"] {
        world.origin("jp").next(origin::Answer::bytes(hints).send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"));
        let answer = world.edge(entry).get("/v1/users/450/page");
        assert_eq!((answer.status, answer.text().as_str()), (200, "hi"));
        let (status, fields) = answer.interim.first().expect("the hint");
        assert_eq!(*status, 103);
        assert!(fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("link")), "{fields:?}");
        assert!(!fields.iter().any(|(name, _)| name.to_ascii_lowercase().contains("oordinator")), "{fields:?}");
    }
    // Whoever waits to be told to go on is told.
    let mut client = world.edge("fr").client();
    client.send("PUT /v1/users/450/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.next_head().0, 100);
    assert_eq!(client.send("hello").answer().status, 200);
}

#[test]
fn a_client_that_goes_away_frees_the_home_far_away() {
    let world = world();
    world.central().put_home("user", "450", "jp");
    for entry in ["jp", "fr"] {
        world.origin("jp").next(origin::Answer::new().stall());
        let mut client = world.edge(entry).client();
        client.send("GET /v1/users/450/x HTTP/1.1\r\nHost: a\r\n\r\n");
        wait::until("the request at the home", || world.landed().len(), |landed| *landed == 1);
        client.reset();
        wait::until("the origin to be let go", || world.origin("jp").open(), |open| *open == 0);

        // In the middle of an answer, and in the middle of content.
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this";
        world.origin("jp").next(origin::Answer::bytes(head).stall());
        let mut client = world.edge(entry).client();
        client.send("GET /v1/users/450/x HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.next_head().0, 200);
        client.reset();
        wait::until("the origin to be let go", || world.origin("jp").open(), |open| *open == 0);
        world.landed();
        let mut client = world.edge(entry).client();
        client.send("PUT /v1/users/450/x HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nonly this");
        wait::until("the request at the home", || world.landed().len(), |landed| *landed == 1);
        client.reset();
        wait::until("the origin to be let go", || world.origin("jp").open(), |open| *open == 0);
        let cut = world.origin("jp").seen().pop().unwrap();
        assert!(!cut.is_complete(), "content that was cut is complete nowhere: {cut:?}");
    }
}

#[test]
fn a_home_that_comes_back_is_reached_again() {
    let mut world = world();
    world.central().put_home("user", "450", "jp");
    assert_eq!(world.edge("fr").get("/v1/users/450/x").status, 200);
    world.one_at("jp");
    world.stop("jp");
    let answer: Answer = world.edge("fr").ask("PUT", "/v1/users/450/x", &[], b"x");
    assert!(answer.status >= 502 && answer.error().is_some(), "{answer:?}");
    world.none_landed();
    world.start_edge("jp");
    let post = || world.edge("fr").ask("POST", "/v1/users/450/x", &[], b"x").status;
    wait::until("jp to be reached again", post, |status| *status == 200);
    world.one_at("jp");
}
