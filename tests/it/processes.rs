//! The real binary, four times: Central and three edges with mutual TLS, killed without warning, and right afterwards.

use crate::harness::app::BIG;
use crate::harness::client::Client;
use crate::harness::deployment::Deployment;
use crate::harness::process::Process;
use crate::harness::seed::{Random, random};
use crate::harness::wait;
use crate::harness::world::{CENTRAL, EDGES};
use coordinator::tls::issue::Party;
use std::collections::HashMap;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// For how long places are killed while users register and read.
const STORM: Duration = Duration::from_secs(15);

/// How long everything may take to be right again once nobody is killed any more.
const CALM: Duration = Duration::from_secs(20);

/// Registers users at an edge until told to stop; those whose 201 arrived were promised.
fn register(deployment: &Deployment, edge: &str, over: &AtomicBool, promised: &Mutex<Vec<String>>) {
    while !over.load(Ordering::Relaxed) {
        let answer = deployment.try_ask(edge, "POST", "/v1/users");
        let user = answer.filter(|answer| answer.status == 201).and_then(|answer| {
            answer.field("location").and_then(|location| location.strip_prefix("/v1/users/")).map(str::to_owned)
        });
        if let Some(user) = user {
            promised.lock().unwrap().push(user);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reads users anywhere: whatever fails, nobody but the home may answer.
fn roam(deployment: &Deployment, mut random: Random, over: &AtomicBool, promised: &Mutex<Vec<String>>) -> usize {
    let mut served = 0;
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(10));
        let user = {
            let promised = promised.lock().unwrap();
            if promised.is_empty() { continue } else { random.pick(&promised).clone() }
        };
        let edge = *random.pick(&EDGES);
        let method = *random.pick(&["GET", "PUT"]);
        let Some(answer) = deployment.try_ask(edge, method, &format!("/v1/users/{user}/x")) else { continue };
        match answer.status {
            200 => {
                assert!(user.starts_with(answer.json()["at"].as_str().unwrap()), "{user} at {edge}: {answer:?}");
                served += 1;
            }
            404 | 502 | 503 | 504 => {}
            _ => panic!("{user} at {edge}: {answer:?}"),
        }
    }
    served
}

/// Kills a place, leaves it dead for a moment, starts it again; and again.
fn storm(deployment: &Deployment, random: &mut Random) -> usize {
    let (began, mut kills) = (Instant::now(), 0);
    while began.elapsed() < STORM {
        std::thread::sleep(Duration::from_millis(100 + random.below(900)));
        let place = *random.pick(&["fr", "us", "jp", CENTRAL, CENTRAL]);
        deployment.kill(place);
        kills += 1;
        std::thread::sleep(Duration::from_millis(random.below(800)));
        deployment.launch(place);
    }
    kills
}

#[test]
fn homes_are_right_after_everybody_was_killed_at_any_moment() {
    let mut random = random("processes");
    let deployment = Deployment::start();
    let (over, promised) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let (kills, served) = std::thread::scope(|scope| {
        for edge in EDGES {
            let (deployment, over, promised) = (&deployment, &over, &promised);
            scope.spawn(move || register(deployment, edge, over, promised));
        }
        let roamers: Vec<_> = (0..2)
            .map(|_| {
                let (deployment, over, promised, random) = (&deployment, &over, &promised, Random::new(random.next()));
                scope.spawn(move || roam(deployment, random, over, promised))
            })
            .collect();
        let kills = storm(&deployment, &mut random);
        over.store(true, Ordering::Relaxed);
        (kills, roamers.into_iter().map(|roamer| roamer.join().unwrap()).sum::<usize>())
    });
    let promised = promised.into_inner().unwrap();
    println!("{} users promised, {served} requests served, {kills} kills", promised.len());
    assert!(promised.len() > 50 && served > 50, "the storm must leave something to check");

    let answer = |edge: &str, user: &str| {
        let path = format!("/v1/users/{user}/x");
        deployment.try_ask(edge, "PUT", &path).map(|answer| (answer.status, answer.text()))
    };
    for user in &promised {
        let minter = user.split('-').next().unwrap();
        for edge in EDGES {
            let (status, body) = wait::within(
                CALM,
                "a promised user to be served",
                || answer(edge, user),
                |answer| matches!(answer, Some((200, _))),
            )
            .unwrap();
            assert!(status == 200 && body.contains(&format!("\"at\":\"{minter}\"")), "{user} at {edge}: {body}");
        }
    }
    one_owner_each(&deployment, &promised);
}

/// Every promised user is in Central's list once, at the edge that minted it; and no user was ever served at two places.
fn one_owner_each(deployment: &Deployment, promised: &[String]) {
    let list = deployment.ask_central("GET", "/v1/homes?space=user", "").text();
    let mut homes = HashMap::new();
    for line in list.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(row["epoch"], 1, "{line}");
        let (key, home) = (row["key"].as_str().unwrap().to_owned(), row["home"].as_str().unwrap().to_owned());
        assert!(key.starts_with(&format!("{home}-")), "{line}");
        assert_eq!(homes.insert(key, home), None, "{line} stands twice");
    }
    for user in promised {
        assert!(homes.contains_key(user), "{user} was promised and is unknown to Central");
    }
    for (place, app) in &deployment.apps {
        for key in app.served() {
            assert!(key.starts_with(&format!("user:{place}-")), "{key} was served at {place}");
        }
    }
}

/// Users whom everybody knows: ten at each edge.
fn known_users(deployment: &Deployment) -> Vec<(String, &'static str)> {
    let users: Vec<_> =
        EDGES.into_iter().flat_map(|home| (0..10).map(move |n| (format!("{home}-k{n}"), home))).collect();
    for (user, home) in &users {
        let body = format!("{{\"home\":\"{home}\"}}");
        assert_eq!(deployment.ask_central("PUT", &format!("/v1/homes/user/{user}"), &body).status, 201);
    }
    for edge in EDGES {
        let seqs = || {
            let head = deployment.try_admin(CENTRAL, "GET", "/status")?["central"]["head"].as_u64()?;
            Some((head, deployment.try_admin(edge, "GET", "/status")?["homes"]["seq"].as_u64()?))
        };
        wait::until("the homes to be known", seqs, |seqs| matches!(seqs, Some((head, seq)) if head == seq));
    }
    users
}

/// Every one of these users is served through this edge at home, reads and writes, with no error at all.
#[track_caller]
fn serves(deployment: &Deployment, edge: &str, users: &[(String, &str)]) {
    for (user, home) in users {
        for method in ["GET", "PUT"] {
            let answer = deployment.try_ask(edge, method, &format!("/v1/users/{user}/x"));
            let answer = answer.unwrap_or_else(|| panic!("{method} of {user} through {edge} was not answered"));
            assert_eq!((answer.status, answer.json()["at"].as_str()), (200, Some(*home)), "{method} {user} at {edge}");
        }
    }
}

/// Of whom nothing is known nobody guesses a home: 503 with Retry-After, within the time of a try.
#[track_caller]
fn refuses(deployment: &Deployment, edge: &str, method: &str, path: &str) {
    let answer = deployment.try_ask(edge, method, path).expect("an answer in time");
    let why = answer.field("proxy-status").unwrap_or_default();
    assert!(answer.status == 503 && answer.field("retry-after").is_some(), "{method} {path} at {edge}: {answer:?}");
    assert!(why.contains("error=destination_unavailable"), "{method} {path} at {edge}: {why}");
}

#[test]
fn edges_that_restart_without_central_serve_everybody_whom_they_know() {
    let deployment = Deployment::start();
    let users = known_users(&deployment);
    deployment.kill(CENTRAL);
    // One after the other, as a release is rolled out; then all at once, as when the power fails.
    for edge in EDGES {
        deployment.kill(edge);
        deployment.launch(edge);
        EDGES.into_iter().for_each(|through| serves(&deployment, through, &users));
    }
    EDGES.into_iter().for_each(|edge| deployment.kill(edge));
    for edge in EDGES {
        deployment.launch(edge);
        let own: Vec<_> = users.iter().filter(|(_, home)| *home == edge).cloned().collect();
        serves(&deployment, edge, &own);
        let readiness = deployment.ready(edge);
        assert_eq!(readiness, 200, "{edge} is ready from its own disk");
    }
    EDGES.into_iter().for_each(|edge| serves(&deployment, edge, &users));

    // Unknown users, whoever may own them: at an edge, at first touch, at Central.
    for edge in EDGES {
        for path in ["/v1/users/nobody/x", "/v1/teams/nobody/x", "/v1/legacy/nobody/x"] {
            refuses(&deployment, edge, "GET", path);
            refuses(&deployment, edge, "PUT", path);
        }
    }
    // A new user is served where it registered, also by the next process there; elsewhere once Central has told.
    let answer = deployment.try_ask("fr", "POST", "/v1/users").expect("a registration needs no Central");
    let user = answer.field("location").and_then(|location| location.strip_prefix("/v1/users/")).map(str::to_owned);
    let newcomer = [(user.expect("a Location"), "fr")];
    deployment.kill("fr");
    deployment.launch("fr");
    serves(&deployment, "fr", &newcomer);
    refuses(&deployment, "us", "GET", &format!("/v1/users/{}/x", newcomer[0].0));
    deployment.launch(CENTRAL);
    let status =
        || deployment.try_ask("us", "GET", &format!("/v1/users/{}/x", newcomer[0].0)).map(|answer| answer.status);
    wait::within(CALM, "the newcomer to be known everywhere", status, |status| *status == Some(200));
    EDGES.into_iter().for_each(|edge| serves(&deployment, edge, &newcomer));
}

#[test]
fn an_upload_of_any_size_to_the_wrong_edge_takes_little_memory() {
    const SIZE: usize = 200 << 20;
    /// The window of a peer's stream, a chunk, and room to spare (HOMES 2.5).
    const REPLAY: f64 = (2 << 20) as f64;
    let deployment = Deployment::start();
    assert_eq!(deployment.ask_central("PUT", "/v1/homes/user/448", "{\"home\":\"us\"}").status, 201);
    let at = |edge: &str, place: &str| {
        let edge = edge.to_owned();
        let place = format!("\"at\":\"{place}\"");
        wait::until(
            "the home to be known",
            || deployment.try_ask(&edge, "GET", "/v1/users/448/x").map(|answer| answer.text()),
            |text| text.as_ref().is_some_and(|text| text.contains(&place)),
        );
    };
    EDGES.into_iter().for_each(|edge| at(edge, "us"));
    deployment.kill(CENTRAL);
    deployment.world.isolate("fr");
    deployment.world.append_home("user", "448", "jp", 2);
    deployment.launch(CENTRAL);
    at("us", "jp");

    let before = ["fr", "us", "jp"].map(|edge| deployment.memory(edge));
    let mut tcp = TcpStream::connect(deployment.door("fr").unwrap()).unwrap();
    let head = format!("PUT /v1/users/448/film HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {SIZE}\r\n\r\n");
    tcp.write_all(head.as_bytes()).unwrap();
    let piece = vec![7; 1 << 20];
    for _ in 0..SIZE >> 20 {
        tcp.write_all(&piece).unwrap();
    }
    let answer = Client::over_plain(tcp).answer();
    assert_eq!((answer.status, answer.text()), (200, format!("{{\"at\":\"jp\",\"length\":{SIZE}}}")));
    // The request's record is closed behind the last octet that its client saw.
    let corrections = || deployment.metric("fr", "coordinator_corrections_total");
    wait::until("one further round trip", corrections, |count| *count == 1.0);
    let kept = deployment.metric("fr", "coordinator_replay_most_bytes");
    assert!(0.0 < kept && kept <= REPLAY, "{kept} octets were kept of an upload of 200 MiB");
    assert_eq!(deployment.metric("fr", "coordinator_replay_bytes"), 0.0, "and are let go");
    let after = ["fr", "us", "jp"].map(|edge| deployment.memory(edge));
    for (edge, (before, after)) in EDGES.iter().zip(before.iter().zip(after)) {
        assert!(after < before + (10 << 10), "{edge} grew from {before} to {after} KiB for an upload of 200 MiB");
    }
    assert_eq!(deployment.apps["us"].served().len(), 1, "the wrong edge's application saw the early reads alone");
}

#[test]
fn a_client_that_reads_slowly_holds_up_the_home_far_away_and_nobody_else() {
    let deployment = Deployment::start();
    assert_eq!(deployment.ask_central("PUT", "/v1/homes/user/448", "{\"home\":\"jp\"}").status, 201);
    let far = || deployment.try_ask("fr", "GET", "/v1/users/448/x").map(|answer| answer.status);
    wait::until("the home to be known", far, |status| *status == Some(200));
    let before = ["fr", "us", "jp"].map(|edge| deployment.memory(edge));
    let mut client = Client::plain(deployment.door("fr").unwrap());
    client.send("GET /v1/users/448/big HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
    assert_eq!(client.next_head().0, 200);
    // As much as can be in flight is in flight when others are served; the same link carries them.
    for _ in 0..20 {
        assert_eq!(far(), Some(200));
        std::thread::sleep(Duration::from_millis(50));
    }
    for _ in 0..BIG >> 20 {
        client.octets(1 << 20);
    }
    let after = ["fr", "us", "jp"].map(|edge| deployment.memory(edge));
    for (edge, (before, after)) in EDGES.iter().zip(before.iter().zip(after)) {
        assert!(after < before + (10 << 10), "{edge} grew from {before} to {after} KiB for an answer of 96 MiB");
    }
}

#[test]
fn a_second_central_on_the_same_folder_is_refused() {
    let deployment = Deployment::start();
    let file = deployment.world.folder().join("central.toml");
    let mut second = Process::start(&["central", "--config", file.to_str().unwrap()]);
    assert_eq!(second.end(), Some(1), "{:?}", second.lines());
    assert!(second.lines().iter().any(|line| line.contains("another Central runs on")), "{:?}", second.lines());
    let answer = deployment.world.central().ask_as(Party::App("shop"), "PUT", "/v1/homes/user/1", "{\"home\":\"fr\"}");
    assert_eq!(answer.status, 201);
}
