//! The rules by which homes come to be: first in the log wins, nothing but creation, dense order.

use super::*;

fn state(edges: &[&str]) -> State {
    let mut state = State::new(FeedId([7; 16]));
    for name in edges {
        let entry = state.plan_edge(name, None).unwrap().unwrap();
        state.apply(entry).unwrap();
    }
    state
}

fn want(key: &str, edge: &str) -> Want {
    Want { key: key.into(), edge: edge.into(), why: Why::Put }
}

/// Plans wants as one group, applies what they make, and tells each outcome in a word.
fn run(state: &mut State, wants: &[Want]) -> Vec<String> {
    let mut draft = state.draft();
    let outcomes: Vec<Outcome> = wants.iter().map(|want| state.plan(&mut draft, want)).collect();
    for entry in draft.entries {
        state.apply(entry).unwrap();
    }
    let told = |word: &str, home: Home| format!("{word} {} {} {}", state.edge_name(home.edge), home.epoch, home.seq);
    outcomes
        .into_iter()
        .map(|outcome| match outcome {
            Outcome::Created(home) => told("created", home),
            Outcome::Same(home) => told("same", home),
            Outcome::Taken(home) => told("taken", home),
            Outcome::NoEdge => "no edge".into(),
            Outcome::Collision => "collision".into(),
            Outcome::Withheld(feature) => format!("withheld {feature}"),
        })
        .collect()
}

#[test]
fn the_first_in_the_log_wins_also_within_a_group() {
    let mut state = state(&["fr", "de"]);
    let group = [want("user:1", "fr"), want("user:1", "de"), want("user:1", "fr"), want("user:2", "xx")];
    assert_eq!(run(&mut state, &group), ["created fr 1 3", "taken fr 1 3", "same fr 1 3", "no edge"]);
    assert_eq!(run(&mut state, &[want("user:1", "de"), want("shop:1", "de")]), ["taken fr 1 3", "created de 1 4"]);
    assert_eq!((state.head(), state.keys()), (4, 2));
}

#[test]
fn entries_are_dense_and_continue_their_keys() {
    let mut state = state(&["fr", "de"]);
    run(&mut state, &[want("user:1", "fr")]);
    let event = |s, k: &str, h: &str, e| {
        Entry::Home(Event { c: "x".into(), e, h: h.into(), k: k.into(), s, st: event::State::Active, x: 0 })
    };
    for (entry, why) in [
        (event(3, "user:2", "fr", 1), "entry 3 follows 3"),
        (event(5, "user:2", "fr", 1), "entry 5 follows 3"),
        (event(4, "user:1", "de", 1), "entry 4 does not continue its key"),
        (event(4, "user:2", "us", 1), "entry 4 names an unknown edge"),
        (event(4, "user:", "fr", 1), "the key is empty"),
    ] {
        assert_eq!(state.apply(entry), Err(why.to_owned()));
        assert_eq!(state.head(), 3);
    }
    state.apply(event(4, "user:1", "de", 2)).unwrap();
    assert_eq!(state.home("user:1").map(|home| (home.edge, home.epoch)), Some((1, 2)));
}

#[test]
fn a_key_claimed_after_its_tombstone_goes_on_in_epochs() {
    let mut state = state(&["fr"]);
    run(&mut state, &[want("user:1", "fr")]);
    let tomb = Event { c: String::new(), e: 2, h: "fr".into(), k: "user:1".into(), s: 3, st: event::State::Tomb, x: 0 };
    state.apply(Entry::Home(tomb)).unwrap();
    assert_eq!(run(&mut state, &[want("user:1", "fr")]), ["created fr 3 4".to_owned()]);
}

#[test]
fn edges_keep_their_index_and_change_their_address() {
    let mut state = state(&["fr", "de"]);
    assert_eq!(state.plan_edge("fr", None), Ok(None));
    let moved = state.plan_edge("fr", Some("https://fr:8444")).unwrap().unwrap();
    state.apply(moved).unwrap();
    let rows: Vec<_> = state.edges().iter().map(|edge| (edge.idx, edge.name.as_str(), edge.peer.is_some())).collect();
    assert_eq!(rows, [(0, "fr", true), (1, "de", false)]);
    assert_eq!((state.edges_seq(), state.head()), (3, 3));
    let stolen = EdgeRow { idx: 0, name: "us".into(), peer: None, state: EdgeState::Active };
    assert!(state.apply(Entry::Edge { s: 4, edge: stolen }).is_err());
}

#[test]
fn the_stream_covers_every_seq_once_whatever_its_steps() {
    let mut state = state(&["fr", "de"]);
    for n in 0..50 {
        run(&mut state, &[want(&format!("user:{n}"), "fr")]);
    }
    let change = state.plan_edge("us", None).unwrap().unwrap();
    state.apply(change).unwrap();
    for n in (0..50).step_by(2) {
        let s = state.head() + 1;
        let event =
            Event { c: String::new(), e: 2, h: "de".into(), k: format!("user:{n}"), s, st: event::State::Active, x: 0 };
        state.apply(Entry::Home(event)).unwrap();
    }
    for max in [1, 3, 1000] {
        let (mut cursor, mut homes, mut rows) = (0, HashMap::new(), Vec::new());
        while cursor < state.head() {
            let (last, events) = state.after(cursor, max);
            assert!(last > cursor && events.iter().all(|event| event.s > cursor && event.s <= last));
            events.into_iter().for_each(|event| assert!(homes.insert(event.k, event.h).is_none()));
            cursor = last;
        }
        let mut cursor = 0;
        while cursor < state.head() {
            let (last, some) = state.rows_after(cursor, max);
            assert!(last > cursor);
            rows.extend(some);
            cursor = last;
        }
        assert_eq!((homes.len(), rows.len()), (50, 50));
        assert!(homes.iter().all(|(key, home)| state.home(key).map(|home| state.edge_name(home.edge)) == Some(home)));
    }
}

#[test]
fn superseded_rows_are_swept_out() {
    let mut state = state(&["fr", "de"]);
    run(&mut state, &[want("user:1", "fr"), want("user:2", "de")]);
    for epoch in 2..10_000 {
        let s = state.head() + 1;
        let event =
            Event { c: String::new(), e: epoch, h: "de".into(), k: "user:1".into(), s, st: event::State::Active, x: 0 };
        state.apply(Entry::Home(event)).unwrap();
    }
    assert!(state.rows.len() <= 2 * SWEEP_MIN);
    assert_eq!(state.home("user:1").map(|home| home.epoch), Some(9_999));
    assert_eq!(state.home("user:2").map(|home| home.epoch), Some(1));
    assert_eq!(state.after(0, 10_000).1.len(), 2);
}

/// A true collision takes 2^32 keys to find: here every key's own hash is that of one of two.
fn colliding(feed: FeedId, space: &str, key: &str, number: u32) -> KeyHash {
    let parity = key.bytes().last().map_or("", |last| if last % 2 == 0 { "even" } else { "odd" });
    other_hash(feed, space, if number == 0 { parity } else { key }, number)
}

#[test]
fn of_two_keys_with_one_hash_the_later_is_filed_under_another() {
    let mut state = state(&["fr", "de"]);
    state.hasher = colliding;
    let created = run(&mut state, &[want("user:1", "fr"), want("user:3", "de"), want("user:2", "fr")]);
    assert_eq!(created, ["created fr 1 3", "created de 1 4", "created fr 1 5"]);
    assert_eq!(
        run(&mut state, &[want("user:3", "de"), want("user:5", "fr"), want("user:5", "de")]),
        ["same de 1 4", "created fr 1 6", "taken fr 1 6"]
    );
    assert_eq!(
        state.overrides().iter().map(|other| (&*other.k, other.x)).collect::<Vec<_>>(),
        [("user:3", 1), ("user:5", 1)]
    );
    let mut cautious = state.draft_of_own_hashes();
    let planned = ["user:9", "user:3"].map(|key| state.plan(&mut cautious, &want(key, "de")));
    assert!(matches!(planned, [Outcome::Withheld(event::OTHER_HASH), Outcome::Same(_)]), "{planned:?}");
    assert!(cautious.entries.is_empty());
    // Whoever reads the log comes to the same.
    let (_, events) = state.after(0, 100);
    assert_eq!(
        events.iter().map(|event| (&*event.k, event.x)).collect::<Vec<_>>(),
        [("user:1", 0), ("user:3", 1), ("user:2", 0), ("user:5", 1)]
    );
    let home = |key: &str| state.home(key).map(|home| state.edge_name(home.edge).to_owned());
    assert_eq!(
        ["user:1", "user:3", "user:5", "user:7"].map(home),
        [Some("fr".to_owned()), Some("de".to_owned()), Some("fr".to_owned()), None]
    );
    let mut hashes: Vec<_> = state.rows_after(0, 100).1.iter().map(|row| row.kh).collect();
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), 4);
}

#[test]
fn what_everybody_has_passed_is_let_go_of_and_homes_are_not() {
    let mut state = State::new(FeedId([1; 16]));
    let edge = state.plan_edge("fr", None).unwrap().unwrap();
    state.apply(edge).unwrap();
    state.chained(b"edge");
    for s in (2..200).step_by(2) {
        let mut draft = state.draft();
        state.plan(&mut draft, &want(&format!("user:{s}"), "fr"));
        draft.entries.into_iter().for_each(|entry| state.apply(entry).unwrap());
        state.chained(b"home");
        state.apply(Entry::Purge { s: s + 1, tag: "t".into() }).unwrap();
        state.chained(b"purge");
    }
    let chains = [99, 100, 199].map(|seq| state.chain_at(seq));
    state.compact(100);
    assert_eq!([99, 100, 199].map(|seq| state.chain_at(seq)), [None, chains[1], chains[2]]);
    assert_eq!((state.compacted(), state.after(0, 1000).1.len()), (100, 99 + 50));
    state.compact(50);
    assert_eq!(state.compacted(), 100, "what is gone does not come back");
    state.compact(u64::MAX);
    assert_eq!((state.compacted(), state.chain_at(199)), (199, chains[2]), "an edge that is level is still compared");
}

#[test]
fn purges_stand_among_the_homes_and_who_is_too_far_behind_is_told() {
    let mut state = State::new(FeedId([1; 16]));
    let edge = state.plan_edge("fr", None).unwrap().unwrap();
    state.apply(edge).unwrap();
    let mut draft = state.draft();
    state.plan(&mut draft, &want("user:1", "fr"));
    draft.entries.into_iter().for_each(|entry| state.apply(entry).unwrap());
    state.apply(Entry::Purge { s: 3, tag: "a b".into() }).unwrap();
    let keys = |cursor, max| {
        let (last, events) = state.after(cursor, max);
        (last, events.into_iter().map(|event| (event.s, event.k)).collect::<Vec<_>>())
    };
    assert_eq!(keys(0, 9), (3, vec![(2, "user:1".to_owned()), (3, "tag:a b".to_owned())]));
    assert_eq!(keys(2, 9), (3, vec![(3, "tag:a b".to_owned())]));
    assert_eq!((keys(3, 9), state.purges_gone()), ((3, vec![]), 0));
    assert_eq!(state.rows_after(0, 9).1.len(), 1, "a snapshot has homes only");
    for s in 4..=PURGES_MAX as u64 + 4 {
        state.apply(Entry::Purge { s, tag: "t".into() }).unwrap();
    }
    assert_eq!((state.purges_gone(), state.after(4, 9).1.len()), (4, PURGES_MAX));
    assert!(state.apply(Entry::Purge { s: PURGES_MAX as u64 + 5, tag: "\n".into() }).is_err());
}
