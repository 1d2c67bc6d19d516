//! Every order in which a writer and a reader of the exact table can meet, under the memory model (loom).

use super::*;
use crate::home::memory::model::{Line, lines};
use loom::sync::Arc;
use loom::thread;

const A: KeyHash = KeyHash(5);
const B: KeyHash = KeyHash(6);

#[test]
fn a_pair_is_seen_whole_and_never_goes_back() {
    loom::model(|| {
        let buckets: Arc<Vec<Line>> = lines(1);
        let reader = {
            let buckets = buckets.clone();
            thread::spawn(move || {
                let first = [get(&buckets, B), get(&buckets, A)];
                (first, get(&buckets, A))
            })
        };
        for (hash, value) in [(A, 10), (B, 20), (A, 11)] {
            set(&buckets, hash, value, true).unwrap();
        }
        let ([b, a], later) = reader.join().unwrap();
        assert!([None, Some(20)].contains(&b) && [None, Some(10), Some(11)].contains(&a));
        assert!(later >= a, "{a:?}, then {later:?}");
        assert!(b.is_none() || a.is_some(), "B was written after A, and seen before it");
        assert_eq!((get(&buckets, A), get(&buckets, B)), (Some(11), Some(20)));
    });
}
