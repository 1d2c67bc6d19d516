//! Users have one home, and every edge knows it: requests are served there, wherever they come in.

use crate::harness::message::{End, Framing};
use crate::harness::origin;
use crate::harness::seed::Random;
use crate::harness::wait;
use crate::harness::world::{CENTRAL, World, setup, world};
use coordinator::home::Home;
use coordinator::tls::issue::Party;
use std::time::Duration;

/// A world in which 448 lives at fr, 449 at us and 450 at jp.
fn three_users() -> World {
    let world = world();
    for (user, home) in [("448", "fr"), ("449", "us"), ("450", "jp")] {
        world.central().put_home("user", user, home);
    }
    world
}

/// What the origin at a home is told.
fn told(entry: &str, key: &str, home: &str, epoch: u32) -> String {
    format!("edge={entry}, key=\"{key}\", home={home}, epoch={epoch}, as=home")
}

#[test]
fn every_user_is_served_at_home_from_everywhere() {
    let world = three_users();
    for (user, home) in [("448", "fr"), ("449", "us"), ("450", "jp")] {
        for entry in ["fr", "us", "jp"] {
            for method in ["GET", "PUT", "DELETE"] {
                let path = format!("/v1/users/{user}/wishlist.json?page=2");
                let body: &[u8] = if method == "PUT" { b"[1,2,3]" } else { b"" };
                let answer = world.edge(entry).ask(method, &path, &[], body);
                assert_eq!(
                    (answer.status, answer.json()["at"].as_str()),
                    (200, Some(home)),
                    "{user} {entry}: {answer:?}"
                );
                assert!(answer.fields.iter().all(|(name, _)| !name.to_ascii_lowercase().starts_with("coordinator")));
                let seen = world.one_at(home);
                assert_eq!(
                    (seen.method.as_str(), seen.target.as_str(), seen.body.as_slice()),
                    (method, path.as_str(), body)
                );
                assert_eq!(seen.field("coordinator"), Some(told(entry, &format!("user:{user}"), home, 1).as_str()));
                assert_eq!((seen.field("coordinator-fwd"), seen.field("host")), (None, Some("shop.example")));
                assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
            }
        }
    }
}

#[test]
fn content_of_any_size_and_framing_reaches_a_home_far_away() {
    let world = three_users();
    let mut random = Random::new(5);
    let content: Vec<u8> = (0..5 << 20).map(|_| random.next() as u8).collect();
    let answer = world.edge("fr").ask("PUT", "/v1/users/450/photo", &[], &content);
    assert_eq!((answer.status, answer.json()["at"].as_str()), (200, Some("jp")), "{answer:?}");
    let seen = world.one_at("jp");
    assert_eq!(seen.framing, Framing::Length(5 << 20));
    assert!(seen.body == content, "5 MiB arrive as they were sent");

    let mut client = world.edge("fr").client();
    client.send("PUT /v1/users/450/photo HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n");
    for chunk in content.chunks(100_000) {
        client.send_chunk(chunk);
    }
    let answer = client.send("0\r\nX-Sum: 7\r\n\r\n").answer();
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = world.one_at("jp");
    assert_eq!(seen.framing, Framing::Chunked);
    assert!(seen.body == content && seen.trailers == [("x-sum".to_owned(), "7".to_owned())], "{:?}", seen.trailers);

    // The other way: a large answer, whole.
    let body: String = "x".repeat(3 << 20);
    world.origin("jp").next(origin::Answer::ok(&body));
    let answer = world.edge("us").get("/v1/users/450/photo");
    assert!(answer.end == End::Clean && answer.text() == body);
}

#[test]
fn an_answer_that_is_cut_at_home_is_complete_nowhere() {
    let world = three_users();
    for entry in ["jp", "fr"] {
        for content in ["Content-Length: 100\r\n\r\nonly this", "Transfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n"]
        {
            let cut = format!("HTTP/1.1 200 OK\r\n{content}");
            world.origin("jp").next(origin::Answer::bytes(cut).close());
            // No method that might be tried again.
            let answer = world.edge(entry).ask("POST", "/v1/users/450/photo", &[], b"x");
            // Whether the head was on its way before the cut was noticed is a matter of luck.
            assert!(matches!(answer.end, End::Cut(_)) || answer.status == 502, "{entry}: {answer:?}");
            world.one_at("jp");
        }
    }
}

#[test]
fn a_user_whom_nobody_knows_is_404_by_centrals_word_and_503_without_it() {
    let mut world = world();
    for method in ["GET", "PUT"] {
        let answer = world.edge("fr").ask(method, "/v1/users/nobody/wishlist.json", &[], b"");
        assert_eq!((answer.status, answer.error().as_deref()), (404, Some("destination_not_found")), "{answer:?}");
    }
    world.none_landed();
    // A user who comes to be is known at once, although the edge has just heard that there is none.
    world.central().put_home("user", "nobody", "us");
    assert_eq!(world.edge("fr").get("/v1/users/nobody/wishlist.json").json()["at"], "us");
    world.one_at("us");

    world.cut_central();
    let answer = world.edge("fr").ask("PUT", "/v1/users/stranger/wishlist.json", &[], b"x");
    assert_eq!((answer.status, answer.error().as_deref()), (503, Some("destination_unavailable")), "{answer:?}");
    assert!(answer.field("retry-after").is_some(), "{answer:?}");
    world.none_landed();
    // Those who are known are served meanwhile, near and far, read and written.
    assert_eq!(world.edge("fr").ask("PUT", "/v1/users/nobody/x", &[], b"x").json()["at"], "us");
    assert_eq!(world.edge("us").ask("PUT", "/v1/users/nobody/x", &[], b"x").json()["at"], "us");
}

#[test]
fn a_space_may_leave_its_unclaimed_users_to_central() {
    let mut world = world();
    world.central().put_home("legacy", "7", "jp");
    assert_eq!(world.edge("fr").get("/v1/legacy/7/x").json()["at"], "jp");
    assert_eq!(world.one_at("jp").field("coordinator"), Some(told("fr", "legacy:7", "jp", 1).as_str()));
    for method in ["GET", "PUT"] {
        let answer = world.edge("fr").ask(method, "/v1/legacy/8/x", &[], b"");
        assert_eq!((answer.status, answer.json()["at"].as_str()), (200, Some(CENTRAL)), "{answer:?}");
        assert_eq!(world.one_at(CENTRAL).field("coordinator"), Some("edge=fr, key=\"legacy:8\", as=central"));
    }
    // Not knowing is not knowing that nobody owns it.
    world.cut_central();
    let answer = world.edge("us").get("/v1/legacy/9/x");
    assert_eq!((answer.status, answer.field("retry-after").is_some()), (503, true), "{answer:?}");
    world.none_landed();
}

#[test]
fn the_key_may_be_anywhere_in_the_request() {
    let world = world();
    world.central().put_home("user", "acme", "us");
    world.central().put_home("user", "a/b é", "jp");
    for (path, fields, key, home) in [
        ("/by/header", vec![("X-User", "acme")], "user:acme", "us"),
        ("/by/header", vec![("X-User", "a%2Fb%20%C3%A9")], "user:a%2Fb%20%C3%A9", "jp"),
        ("/by/cookie", vec![("Cookie", "theme=dark; sid=acme")], "user:acme", "us"),
        ("/by/query?x=1&u=acme", vec![], "user:acme", "us"),
        ("/by/query?u=a%2fb%20%c3%a9", vec![], "user:a%2Fb%20%C3%A9", "jp"),
        ("/by/host", vec![("Host", "acme.tenants.example")], "user:acme", "us"),
        ("/by/host", vec![("Host", "ACME.tenants.example:80")], "user:acme", "us"),
        ("/v1/users/a%2fb%20%c3%a9/x", vec![], "user:a%2Fb%20%C3%A9", "jp"),
    ] {
        for entry in ["fr", "us", "jp"] {
            let answer = world.edge(entry).ask("GET", path, &fields, b"");
            assert_eq!(
                (answer.status, answer.json()["at"].as_str()),
                (200, Some(home)),
                "{path} {fields:?}: {answer:?}"
            );
            let seen = world.one_at(home);
            assert_eq!(seen.field("coordinator"), Some(told(entry, key, home, 1).as_str()), "{path} {fields:?}");
        }
    }
}

#[test]
fn a_request_without_a_usable_key_is_refused() {
    let world = world();
    let long = format!("/v1/users/{}/x", "k".repeat(256));
    for (path, fields) in [
        ("/by/header", vec![]),
        ("/by/header", vec![("X-User", "")]),
        ("/by/header", vec![("X-User", "a"), ("X-User", "b")]),
        ("/by/cookie", vec![("Cookie", "sid=a; sid=b")]),
        ("/by/query?u=a&u=b", vec![]),
        ("/v1/users/a%0ab/x", vec![]),
        ("/v1/users/%ff/x", vec![]),
        (long.as_str(), vec![]),
    ] {
        let answer = world.edge("fr").ask("GET", path, &fields, b"");
        assert_eq!(
            (answer.status, answer.error().as_deref()),
            (400, Some("http_request_error")),
            "{path} {fields:?}: {answer:?}"
        );
        world.none_landed();
    }
}

#[test]
fn an_edge_serves_whom_it_knows_after_a_restart_without_central() {
    let mut world = three_users();
    world.cut_central();
    for edge in ["fr", "us", "jp"] {
        world.restart(edge);
    }
    for (user, home) in [("448", "fr"), ("449", "us"), ("450", "jp")] {
        for entry in ["fr", "us", "jp"] {
            let answer = world.edge(entry).ask("PUT", &format!("/v1/users/{user}/x"), &[], b"x");
            assert_eq!((answer.status, answer.json()["at"].as_str()), (200, Some(home)), "{answer:?}");
            let seen = world.one_at(home);
            assert_eq!(seen.field("coordinator"), Some(told(entry, &format!("user:{user}"), home, 1).as_str()));
        }
    }
    assert!(world.edge("fr").running().ready().is_ok());
    // Central comes back, and with it what is new.
    world.restore_central();
    world.central().put_home("user", "451", "us");
    assert_eq!(world.edge("fr").get("/v1/users/451/x").json()["at"], "us");
}

#[test]
fn an_edge_that_never_met_central_serves_what_has_no_owner() {
    let mut world = setup().build();
    world.start_edge("fr");
    let fr = world.edge("fr");
    assert!(fr.running().ready().is_err(), "not ready");
    assert_eq!(fr.get("/v1/near/x").status, 200);
    world.one_at("fr");
    let answer = fr.get("/v1/users/448/x");
    assert_eq!((answer.status, answer.error().as_deref()), (503, Some("destination_unavailable")), "{answer:?}");
    assert!(answer.field("retry-after").is_some(), "{answer:?}");
    world.none_landed();
    world.start_central();
    world.central().put_home("user", "448", "fr");
    assert!(world.edge("fr").running().ready().is_ok(), "ready once it has synced");
    assert_eq!(world.edge("fr").get("/v1/users/448/x").json()["at"], "fr");
}

#[test]
fn an_edge_that_lost_its_disk_owns_nobody_until_central_has_told_it() {
    let mut world = three_users();
    world.cut_central();
    world.lose_disk("jp");
    world.start_edge("jp");
    let answer = world.edge("jp").ask("PUT", "/v1/users/450/x", &[], b"x");
    assert_eq!((answer.status, answer.field("retry-after").is_some()), (503, true), "{answer:?}");
    let answer = world.edge("fr").ask("PUT", "/v1/users/450/x", &[], b"x");
    assert_eq!((answer.status, answer.field("retry-after").is_some()), (503, true), "{answer:?}");
    world.none_landed();
    world.restore_central();
    // Nobody but an operator can know that the old disk is gone for good, and not only cut off.
    wait::until(
        "jp to say what it needs",
        || world.edge("jp").status().to_string(),
        |said| said.contains("coordinator edge replace jp"),
    );
    let answer = world.edge("fr").ask("PUT", "/v1/users/450/x", &[], b"x");
    assert_eq!(answer.status, 503, "{answer:?}");
    world.none_landed();
    assert_eq!(world.central().ask("POST", "/v1/edges/jp/replace", "").status, 200);
    for entry in ["fr", "jp"] {
        wait::within(
            Duration::from_secs(20),
            "jp to own its user again",
            || world.edge(entry).get("/v1/users/450/x").status,
            |status| *status == 200,
        );
    }
    assert!(matches!(world.edge("jp").home("450"), Home::Ours { epoch: 1, .. }));
    // What only the lost disk knew, the application still has: an import brings it back, and takes nobody from another.
    let listed = ["450", "lost", "448"].map(|key| format!("{{\"key\":\"{key}\",\"home\":\"jp\"}}\n")).concat();
    let imported = world.central().ask("POST", "/v1/homes", &listed).json();
    let told = ["created", "same", "refused_count"].map(|name| imported[name].as_u64());
    assert_eq!(told, [Some(1), Some(1), Some(1)], "{imported}");
    wait::until(
        "the lost user to be served at home again",
        || world.edge("fr").get("/v1/users/lost/x"),
        |answer| answer.status == 200 && answer.json()["at"] == "jp",
    );
    assert_eq!(world.edge("jp").get("/v1/users/448/x").json()["at"], "fr");
}

#[test]
fn an_edge_whose_ledger_is_damaged_needs_nobodys_word() {
    let mut world = three_users();
    world.stop("jp");
    let data = world.folder().join("data-jp");
    let folder =
        std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    for file in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
        if file.file_name().unwrap().to_string_lossy().starts_with("ledger") {
            std::fs::write(&file, vec![7; 300]).unwrap();
        }
    }
    // The lock of the folder that holds the damaged ledger proves that its process has ended.
    world.start_edge("jp");
    wait::until("jp to own its user again", || world.edge("jp").home("450"), |home| matches!(home, Home::Ours { .. }));
    assert_eq!(world.edge("fr").ask("PUT", "/v1/users/450/x", &[], b"x").json()["at"], "jp");
}

#[test]
fn an_old_disk_that_comes_back_after_it_was_replaced_accepts_nobody() {
    let world = three_users();
    assert_eq!(world.edge("jp").ask("PUT", "/v1/users/450/x", &[], b"x").status, 200);
    world.one_at("jp");
    // Cut off, it is taken for dead, and another disk takes its place.
    world.isolate("jp");
    let central = world.central();
    let other = r#"{"edge":"jp","boot":"00000000000000aa"}"#;
    assert_eq!(central.ask_as(Party::Edge("jp"), "POST", "/v1/incarnations", other).status, 409);
    assert_eq!(central.ask_as(Party::Edge("jp"), "POST", "/v1/edges/jp/replace", "").status, 403, "an operator's word");
    assert_eq!(central.ask("POST", "/v1/edges/jp/replace", "").status, 200);
    assert_eq!(central.ask("POST", "/v1/edges/mars/replace", "").status, 422);
    assert_eq!(central.ask_as(Party::Edge("us"), "POST", "/v1/incarnations", other).status, 403);
    for _ in 0..2 {
        let answer = central.ask_as(Party::Edge("jp"), "POST", "/v1/incarnations", other);
        assert_eq!((answer.status, answer.json()["seq"].as_u64()), (200, Some(central.head())), "{answer:?}");
    }
    world.rejoin("jp");
    wait::until("jp to hear of it", || world.edge("jp").home("450"), |home| *home == Home::Disputed);
    for entry in ["jp", "fr"] {
        let answer = world.edge(entry).ask("PUT", "/v1/users/450/x", &[], b"x");
        assert_eq!((answer.status, answer.field("retry-after").is_some()), (503, true), "{answer:?}");
    }
    world.none_landed();
}

#[test]
fn a_moved_user_is_served_at_the_new_home_only() {
    let mut world = three_users();
    world.move_home("user", "448", "jp");
    world.synced();
    for entry in ["fr", "us", "jp"] {
        assert_eq!(world.edge(entry).ask("PUT", "/v1/users/448/x", &[], b"x").json()["at"], "jp");
        assert_eq!(world.one_at("jp").field("coordinator"), Some(told(entry, "user:448", "jp", 2).as_str()));
    }
    // And back, over restarts of everybody.
    world.move_home("user", "448", "fr");
    world.synced();
    world.cut_central();
    for edge in ["fr", "us", "jp"] {
        world.restart(edge);
    }
    for entry in ["fr", "us", "jp"] {
        assert_eq!(world.edge(entry).ask("PUT", "/v1/users/448/x", &[], b"x").json()["at"], "fr");
        assert_eq!(world.one_at("fr").field("coordinator"), Some(told(entry, "user:448", "fr", 3).as_str()));
    }
}
