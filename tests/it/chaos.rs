//! Real processes under a nemesis: Central and three edges are killed, stopped, cut off, given other certificates and
//! robbed of users, while sessions register users, touch teams, write operations that exist once, read, and roam. In the
//! end everything heals, and the lists that the applications kept are held against what the sessions were told.
//!
//! It takes its time and the machine, so it is not among the ordinary tests: `cargo test --features external --test it chaos::`.
//! `CHAOS_SECONDS=120` lasts longer than the ordinary run; `CHAOS_SEED=7` repeats the choices of a run, though not the
//! moments at which processes take them.

mod checker;
mod nemesis;
mod session;

use crate::harness::client::Answer;
use crate::harness::deployment::Deployment;
use crate::harness::seed::{self, Random};
use crate::harness::wait;
use crate::harness::world::{CENTRAL, EDGES};
use checker::{Homes, Lists};
use nemesis::Nemesis;
use session::{History, Session};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long an ordinary run lasts before everything heals.
const STORM_SECONDS: u64 = 12;

/// How long everything may take to be right again once all is healed: the longest back-off, and a loaded machine.
const CALM: Duration = Duration::from_secs(20);

/// Clients at work at once: more than the processes have threads, few enough for a machine with two cores.
const SESSIONS: u64 = 6;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a whole number")))
}

#[test]
fn nothing_acknowledged_is_lost_and_nobody_is_served_twice_whatever_happens_to_processes_and_links() {
    let mut random = number("CHAOS_SEED").map_or_else(|| seed::random("chaos"), Random::new);
    println!("chaos: CHAOS_SEED={}", random.seed);
    let storm = Duration::from_secs(number("CHAOS_SECONDS").unwrap_or(STORM_SECONDS));
    let deployment = Deployment::start();
    let (history, over) = (History::default(), AtomicBool::new(false));
    let mut nemesis = Nemesis::new(&deployment, &history, Random::new(random.next()));
    std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|number| Session::new(number, &deployment, &history, Random::new(random.next())))
            .map(|session| scope.spawn(|| session.run(&over)))
            .collect();
        nemesis.rage(storm, || sessions.iter().any(std::thread::ScopedJoinHandle::is_finished));
        over.store(true, Ordering::Relaxed);
    });
    println!("chaos: {}; {}", nemesis.report(), history.report());
    assert!(history.acked() > 4 * storm.as_secs() as usize, "the storm must leave something to check");

    nemesis.heal();
    let homes = settled(&deployment);
    every_edge_agrees(&deployment, &homes);
    everybody_is_served(&deployment, &history, &homes);
    let lists: Lists = deployment.apps.iter().map(|(place, app)| (*place, app.lists())).collect();
    let wrong = checker::violations(&homes, &lists, &history.told());
    assert!(wrong.is_empty(), "{} violations:\n{}", wrong.len(), wrong.join("\n"));
}

/// Waits until no claim is on its way any more and every edge has all that Central has; Central's list of homes.
fn settled(deployment: &Deployment) -> Homes {
    for edge in EDGES {
        let at_rest = || {
            let head = deployment.try_admin(CENTRAL, "GET", "/status")?["central"]["head"].as_u64()?;
            let status = deployment.try_admin(edge, "GET", "/status")?;
            let (seq, left) = (status["homes"]["seq"].as_u64()?, status["homes"]["provisional"].as_u64()?);
            Some((head, seq, left, status["feed"].to_string()))
        };
        wait::within(CALM, &format!("{edge} to come to rest"), at_rest, |seen| {
            seen.as_ref().is_some_and(|(head, seq, left, _)| head == seq && *left == 0)
        });
    }
    let list = |space: &str| deployment.ask_central("GET", &format!("/v1/homes?space={space}"), "").text();
    checker::homes(&(list("user") + &list("team")))
}

/// At equal seq, every edge says of every key what Central says.
fn every_edge_agrees(deployment: &Deployment, homes: &Homes) {
    for edge in EDGES {
        for (key, (home, epoch)) in homes {
            let (space, name) = key.split_once(':').expect("a key has a space");
            let told = deployment.try_admin(edge, "GET", &format!("/homes/{space}/{name}")).expect("the edge answers");
            let told = told["home"].as_str().expect("a text").to_owned();
            let own = if home == edge { " (this edge)" } else { "" };
            assert_eq!(told, format!("{home}{own}, epoch {epoch}"), "I9: what {edge} says of {key}");
        }
    }
}

/// Every key that anybody was promised is served at its home, whichever edge is asked.
fn everybody_is_served(deployment: &Deployment, history: &History, homes: &Homes) {
    for key in history.told().keys.keys() {
        let (home, _) = homes.get(key).unwrap_or_else(|| panic!("{key} was promised and is unknown to Central"));
        let served = |answer: &Option<Answer>| {
            answer.as_ref().is_some_and(|answer| answer.status == 200 && answer.json()["at"] == home.as_str())
        };
        for edge in EDGES {
            let read = || deployment.try_ask(edge, "GET", &format!("{}/ops", session::path(key)));
            wait::within(CALM, &format!("{edge} to serve {key} at {home}"), read, served);
        }
    }
}
