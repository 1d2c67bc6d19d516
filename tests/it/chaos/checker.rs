//! The invariants of HOMES 3 that a history shows, as a pure function of what was told and what is there in the end.

use crate::harness::app::{List, Op};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Central's list: home and epoch, by `space:key`.
pub type Homes = BTreeMap<String, (String, u32)>;

/// What each place's application has, by place and `space:key`.
pub type Lists = HashMap<&'static str, HashMap<String, List>>;

/// What the sessions were told.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// By key, the operations that were acknowledged, in that order, with the session that asked for each.
    pub keys: BTreeMap<String, Vec<(u64, String)>>,
    /// Operations that were refused with the word that no origin saw them.
    pub refused: BTreeSet<String>,
    /// Operations by a method that must not be repeated.
    pub once: HashSet<String>,
}

/// Reads Central's list. Panics where a key stands twice (I5).
#[track_caller]
pub fn homes(lines: &str) -> Homes {
    let mut homes = Homes::new();
    for line in lines.lines() {
        let row: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
        let text = |name: &str| row[name].as_str().expect("a text").to_owned();
        let epoch = row["epoch"].as_u64().and_then(|epoch| u32::try_from(epoch).ok()).expect("an epoch");
        let key = format!("{}:{}", text("space"), text("key"));
        assert_eq!(homes.insert(key, (text("home"), epoch)), None, "I5: {line} stands twice");
    }
    homes
}

/// What is wrong; empty = nothing.
pub fn violations(homes: &Homes, lists: &Lists, told: &Told) -> Vec<String> {
    let mut wrong = Vec::new();
    let empty = List::default();
    let keys: BTreeSet<_> = lists.values().flat_map(HashMap::keys).chain(told.keys.keys()).collect();
    for key in keys {
        let lists: Vec<_> =
            lists.iter().map(|(place, lists)| (*place, &lists.get(key).unwrap_or(&empty).ops)).collect();
        let Some((home, epoch)) = homes.get(key) else {
            if told.keys.contains_key(key) || lists.iter().any(|(_, ops)| !ops.is_empty()) {
                wrong.push(format!("I2: {key} was served and is unknown to Central"));
            }
            continue;
        };
        let Some((_, kept)) = lists.iter().find(|(place, _)| place == home) else {
            wrong.push(format!("I5: {key} is at {home}, which is no place"));
            continue;
        };
        let found =
            [single_acceptor(kept, *epoch), elsewhere(&lists, kept), repeated(kept, told), lost(key, kept, told)];
        wrong.extend(found.into_iter().flatten().map(|what| format!("{key}: {what}")));
    }
    wrong.extend(seen_although_refused(lists, told));
    wrong
}

/// I1: epochs never decrease along the list, and one place accepts in each.
fn single_acceptor(kept: &[Op], last: u32) -> Vec<String> {
    let pairs = kept.windows(2).filter(|pair| match pair {
        [a, b] => a.epoch > b.epoch || (a.epoch == b.epoch) != (a.place == b.place),
        _ => false,
    });
    let beyond = kept.iter().filter(|op| op.epoch == 0 || op.epoch > last);
    pairs.map(|pair| format!("I1: {pair:?}")).chain(beyond.map(|op| format!("I1: {op:?} of {last}"))).collect()
}

/// I1 again: what other places have is what the home took over from them.
fn elsewhere(lists: &[(&str, &Vec<Op>)], kept: &[Op]) -> Vec<String> {
    let strange = lists.iter().filter(|(_, ops)| !kept.starts_with(ops));
    strange
        .map(|(place, ops)| {
            let first = ops.iter().zip(kept).take_while(|(a, b)| a == b).count();
            format!("I1: {place} alone has {:?}", &ops[first..])
        })
        .collect()
}

/// What must not be repeated stands once.
fn repeated(kept: &[Op], told: &Told) -> Vec<String> {
    let mut seen = HashSet::new();
    let twice = kept.iter().filter(|op| !seen.insert(&op.name) && told.once.contains(&op.name));
    twice.map(|op| format!("{} was done twice", op.name)).collect()
}

/// I2: what was acknowledged is there; I3: in the order in which its session asked.
fn lost(key: &str, kept: &[Op], told: &Told) -> Vec<String> {
    let mut first = HashMap::new();
    for (at, op) in kept.iter().enumerate() {
        first.entry(op.name.as_str()).or_insert(at);
    }
    let (mut wrong, mut last) = (Vec::new(), HashMap::new());
    for (session, name) in told.keys.get(key).into_iter().flatten() {
        match first.get(name.as_str()) {
            None => wrong.push(format!("I2: {name} was acknowledged and is lost")),
            Some(at) if last.insert(session, at).is_some_and(|before| before >= at) => {
                wrong.push(format!("I3: {name} stands before what its session had done earlier"));
            }
            Some(_) => {}
        }
    }
    wrong
}

/// I11: what was refused with 421 or 404 is nowhere.
fn seen_although_refused(lists: &Lists, told: &Told) -> Vec<String> {
    let ops = lists
        .iter()
        .flat_map(|(place, keys)| keys.values().flat_map(move |list| list.ops.iter().map(move |op| (place, op))));
    let seen = ops.filter(|(_, op)| told.refused.contains(&op.name));
    seen.map(|(place, op)| format!("I11: {} was refused, and {place} has it", op.name)).collect()
}

/// A history in which user:1 registered at fr, wrote, and was taken over by us.
fn sound() -> (Homes, Lists, Told) {
    let op = |name: &str, place: &str, epoch| Op { name: name.to_owned(), place: place.to_owned(), epoch };
    let list = |ops: &[Op]| HashMap::from([("user:1".to_owned(), List::of(ops))]);
    let all = [op("0-1", "fr", 1), op("1-1", "fr", 1), op("0-2", "us", 2)];
    let told = Told {
        keys: BTreeMap::from([("user:1".to_owned(), vec![(0, "0-1".to_owned()), (0, "0-2".to_owned())])]),
        refused: BTreeSet::from(["0-9".to_owned()]),
        once: HashSet::from(["1-1".to_owned()]),
    };
    let homes = Homes::from([("user:1".to_owned(), ("us".to_owned(), 2))]);
    (homes, HashMap::from([("fr", list(&all[..2])), ("us", list(&all)), ("jp", HashMap::new())]), told)
}

#[test]
fn the_checker_finds_each_kind_of_damage() {
    let (homes, lists, told) = sound();
    assert_eq!(violations(&homes, &lists, &told), Vec::<String>::new());
    let op = |name: &str, place: &str, epoch| Op { name: name.to_owned(), place: place.to_owned(), epoch };
    type Damage = fn(&mut Vec<Op>, Op);
    let damages: [(&str, &str, Op, Damage); 8] = [
        ("I1", "us", op("0-3", "us", 1), |ops, op| ops.push(op)),
        ("I1", "us", op("0-3", "fr", 2), |ops, op| ops.push(op)),
        ("I1", "us", op("0-3", "us", 3), |ops, op| ops.push(op)),
        ("I1", "fr", op("0-3", "fr", 1), |ops, op| ops.push(op)),
        ("I1", "jp", op("0-3", "jp", 1), |ops, op| ops.push(op)),
        ("I2", "us", op("0-3", "us", 2), |ops, op| *ops.last_mut().unwrap() = op),
        ("I11", "us", op("0-9", "us", 2), |ops, op| ops.push(op)),
        ("twice", "us", op("1-1", "us", 2), |ops, op| ops.push(op)),
    ];
    for (what, place, op, damage) in damages {
        let mut lists = lists.clone();
        let list = lists.get_mut(place).unwrap().entry("user:1".to_owned()).or_default();
        damage(&mut list.ops, op.clone());
        let found = violations(&homes, &lists, &told).join("\n");
        assert!(found.contains(what), "{what} of {op:?} at {place}: {found}");
    }
    let mut swapped = told.clone();
    swapped.keys.get_mut("user:1").unwrap().reverse();
    assert!(violations(&homes, &lists, &swapped).join("\n").contains("I3"));
    assert!(violations(&Homes::new(), &lists, &told).join("\n").contains("I2"));
}
