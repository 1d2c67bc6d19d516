//! Claims and their outbox across crashes.

use super::*;
use std::sync::mpsc as channel;

fn row(key: &str) -> ClaimRow {
    ClaimRow { space: "user".into(), key: key.into(), id: format!("id-{key}"), lost: None }
}

/// Writes and waits for the outcome.
fn claim(store: &Durable, key: &str) -> bool {
    let (tell, told) = channel::channel();
    let done = Box::new(move |stored| tell.send(stored).unwrap());
    store.send_blocking(Write::Claim { row: row(key), done }) && told.recv().unwrap()
}

fn reopen(path: &Path, store: Durable, thread: StoreThread) -> (Durable, StoreThread, Found) {
    drop(store);
    thread.join();
    Durable::open(path, QUEUE).unwrap()
}

#[test]
fn claims_are_there_again_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("claims.sqlite");
    let (store, thread, found) = Durable::open(&path, QUEUE).unwrap();
    assert!(found.claims.is_empty() && found.set_aside.is_empty());
    for key in ["c", "a", "b", "d"] {
        assert!(claim(&store, key));
    }
    assert!(claim(&store, "a"), "a second claim of a key changes nothing");
    store.send_blocking(Write::Settle { space: "user".into(), key: "a".into() });
    store.send_blocking(Write::Lose { space: "user".into(), key: "d".into(), to: 7, epoch: u32::MAX });
    let (store, thread, found) = reopen(&path, store, thread);
    let lost = ClaimRow { lost: Some((7, u32::MAX)), ..row("d") };
    assert_eq!(found.claims, [row("c"), row("b"), lost]);
    drop(store);
    thread.join();
    let outbox: i64 =
        Connection::open(&path).unwrap().query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)).unwrap();
    assert_eq!(outbox, 2, "of what is settled or lost, nothing is delivered any more");
}

#[test]
fn an_unreadable_store_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("claims.sqlite");
    let (store, thread, _) = Durable::open(&path, QUEUE).unwrap();
    assert!(claim(&store, "a"));
    drop(store);
    thread.join();
    let mut octets = std::fs::read(&path).unwrap();
    octets[..100].fill(0x5A);
    std::fs::write(&path, octets).unwrap();
    let (_store, _thread, found) = Durable::open(&path, QUEUE).unwrap();
    assert!(found.claims.is_empty());
    assert!(found.set_aside[0].to_str().unwrap().contains("claims.sqlite.corrupt-"));
}

#[test]
fn a_full_queue_and_a_held_file_are_refusals() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("claims.sqlite");
    let (store, thread, _) = Durable::open(&path, 1).unwrap();
    let holder = Connection::open(&path).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (tell, told) = channel::channel();
    let offer = || {
        let tell = tell.clone();
        store.offer(Write::Probe { done: Box::new(move |stored| tell.send(stored).unwrap()) })
    };
    // The thread holds at most a group of two that waits for the file, and the queue one: the fourth has no place.
    let taken = (0..GROUP_MAX + 2).take_while(|_| offer()).count();
    assert!(taken <= GROUP_MAX + 1, "the queue is bounded");
    assert!(taken > 0 && (0..taken).all(|_| !told.recv().unwrap()), "what could not be written is told");
    holder.execute_batch("ROLLBACK").unwrap();
    assert!(claim(&store, "a"), "and then it goes on");
    drop(store);
    thread.join();
}
