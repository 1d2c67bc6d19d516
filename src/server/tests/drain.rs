//! Leaving, and reloads of doors.

use super::h2 as client_h2;
use super::script::{World, door, plan, read_to, rest, until, world, world_of};
use crate::base::clock;
use crate::body::Door;
use crate::server::DoorSpec;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const HELLO: &[u8] = b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n";

/// Drains on another thread, while the test is the client.
fn draining(world: World, deadline: Duration) -> std::thread::JoinHandle<(crate::server::Drained, World)> {
    std::thread::spawn(move || {
        let drained = client_h2::run(async { world.workers.drain(deadline).await });
        (drained, world)
    })
}

fn kept_alive(world: &World) -> TcpStream {
    let mut tcp = world.connect();
    tcp.write_all(HELLO).unwrap();
    read_to(&mut tcp, "hello");
    tcp
}

#[test]
fn a_drain_lets_requests_finish_and_closes_what_is_idle() {
    let world = world();
    let address = world.address;
    let mut idle = kept_alive(&world);
    let mut busy = world.connect();
    busy.write_all(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab").unwrap();
    let mut silent = world.connect();
    until("all to be in", || world.workers.connections() == 3);
    let start = clock::now();
    let drain = draining(world, Duration::from_secs(4));
    until("the doors to close", || TcpStream::connect(address).is_err());
    busy.write_all(b"cd").unwrap();
    let answer = rest(&mut busy);
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("abcd|[]"), "{answer}");
    // Idle ones stay for half of the time: a request that is on its way is still answered.
    idle.write_all(HELLO).unwrap();
    let answer = rest(&mut idle);
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("hello"), "{answer}");
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    assert!(clock::now().duration_since(start) >= Duration::from_secs(2));
    let (drained, _) = drain.join().unwrap();
    // Our knocking at the closing door may have been let in, too.
    assert!(drained.open >= 3 && drained.cut == 0, "{drained:?}");
    assert!(clock::now().duration_since(start) < Duration::from_secs(4), "it does not wait for the deadline");
}

#[test]
fn the_deadline_cuts_what_is_left() {
    let world = world();
    let mut never = world.connect();
    never.write_all(b"GET /never HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut endless = world.connect();
    endless.write_all(b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    read_to(&mut endless, "tick\r\n");
    let mut tunnel = world.connect();
    tunnel.write_all(b"GET /upgrade HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").unwrap();
    read_to(&mut tunnel, "\r\n\r\n");
    let (drained, world) = draining(world, Duration::from_millis(300)).join().unwrap();
    assert_eq!((drained.open, drained.cut), (3, 3));
    assert_eq!((rest(&mut never), rest(&mut endless), rest(&mut tunnel)), Default::default());
    let mut ends = world.recorded(3);
    ends.sort_unstable();
    assert_eq!(ends, [(101, "overloaded"), (200, "overloaded"), (503, "overloaded")]);
    until("the count", || world.metric("coordinator_connections_open{door=\"public\"}") == 0);
}

#[test]
fn http2_hears_goodbye_and_finishes_its_streams() {
    let world = world();
    let address = world.address;
    let mut idle = kept_alive(&world);
    let (asked, begun) = std::sync::mpsc::channel();
    let (counted, go_on) = tokio::sync::oneshot::channel();
    let client = std::thread::spawn(move || {
        client_h2::run(async {
            let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
            let mut client = client_h2::client_over(tcp).await;
            let request = http::Request::post("http://h/echo").body(()).unwrap();
            let (response, mut body) = client.send_request(request, false).unwrap();
            body.send_data("ab".into(), false).unwrap();
            client_h2::get(&mut client, "/hello").await.unwrap();
            asked.send(()).unwrap();
            // The GOAWAY: no new stream, the old one goes on.
            let refused = loop {
                match client_h2::get(&mut client, "/hello").await {
                    Ok(_) => tokio::time::sleep(Duration::from_millis(2)).await,
                    Err(error) => break error,
                }
            };
            assert!(refused.is_go_away() || refused.is_reset(), "{refused:?}");
            go_on.await.unwrap();
            body.send_data("cd".into(), true).unwrap();
            client_h2::content(response.await.unwrap()).await.0
        })
    });
    begun.recv().unwrap();
    let leaving = draining(world, Duration::from_secs(6));
    // Idle connections close at half time, which is after the open ones were counted.
    assert_eq!(rest(&mut idle), "");
    counted.send(()).unwrap();
    let (drained, _) = leaving.join().unwrap();
    assert_eq!((drained.open, drained.cut), (2, 0));
    assert_eq!(client.join().unwrap(), "abcd|[]");
}

#[test]
fn peers_never_hold_the_exit() {
    let world = world_of(plan(), DoorSpec { door: Door::Peer, ..door() });
    let mut feed = world.connect();
    feed.write_all(b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    read_to(&mut feed, "tick\r\n");
    let start = clock::now();
    let (drained, _) = draining(world, Duration::from_secs(20)).join().unwrap();
    assert_eq!((drained.open, drained.cut), (0, 0));
    assert!(clock::now().duration_since(start) < Duration::from_secs(10), "{:?}", clock::now().duration_since(start));
    assert_eq!(rest(&mut feed), "");
}

#[test]
fn a_reload_changes_doors_and_leaves_connections() {
    let world = world();
    let mut kept = kept_alive(&world);
    let second = DoorSpec { address: ([127, 0, 0, 1], 0).into(), door: Door::Peer, ..door() };
    world.workers.reload(vec![door(), second.clone()], None).unwrap();
    let doors = world.workers.doors();
    assert_eq!((doors.len(), doors[0].1), (2, world.address), "the first is untouched");
    assert!(TcpStream::connect(doors[1].1).is_ok());
    // The same door with another setting: new connections only.
    let redirecting = DoorSpec { redirect_https: true, ..door() };
    world.workers.reload(vec![redirecting.clone()], None).unwrap();
    until("the second to close", || TcpStream::connect(doors[1].1).is_err());
    let last = "GET /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    until("the setting", || world.talk(last).starts_with("HTTP/1.1 308"));
    kept.write_all(HELLO).unwrap();
    assert!(read_to(&mut kept, "hello").starts_with("HTTP/1.1 200"));
    let taken = DoorSpec { address: ([192, 0, 2, 1], 80).into(), ..door() };
    let error = world.workers.reload(vec![taken], None).unwrap_err();
    assert!(error.to_string().contains("192.0.2.1:80"), "{error}");
    assert_eq!(world.workers.doors().len(), 1, "a failed reload changes nothing");
    assert!(world.talk(last).starts_with("HTTP/1.1 308"));
}

#[test]
fn workers_share_a_port() {
    let metrics = crate::metrics::Metrics::new();
    let records = super::script::Records::default();
    let world = super::script::world_on(4, plan(), door(), None, records, metrics);
    let clients: Vec<_> = (0..32).map(|_| kept_alive(&world)).collect();
    assert_eq!(world.workers.connections(), 32);
    until("the count", || world.metric("coordinator_connections_accepted_total{door=\"public\"}") == 32);
    drop(clients);
    until("all to leave", || world.workers.connections() == 0);
}

#[test]
fn a_plan_says_which_doors_there_are() {
    let mut plan = plan();
    let address = ([127, 0, 0, 1], 80).into();
    let listener = |certificates| crate::config::plan::Listener { address, certificates, redirect_https: true };
    plan.listeners = vec![listener(vec![])];
    plan.peer = Some(crate::config::plan::PeerDoor { address: ([127, 0, 0, 1], 8444).into(), tls: None });
    let doors = crate::server::doors(&plan, Door::Central).unwrap();
    let shown: Vec<_> = doors.iter().map(|spec| (spec.door, spec.address.port(), spec.redirect_https)).collect();
    assert_eq!(shown, [(Door::Central, 8444, false), (Door::Public, 80, true)]);
    let missing = crate::config::plan::CertificateFiles { chain: "/nowhere.pem".into(), key: "/nowhere.key".into() };
    plan.listeners = vec![listener(vec![missing.clone()]), listener(vec![missing])];
    let wrong = crate::server::doors(&plan, Door::Peer).unwrap_err();
    assert!(wrong.len() == 2 && wrong[0].contains("/nowhere.pem"), "{wrong:?}");
}
