//! The exact table against an ordinary map.

use super::*;
use std::collections::HashMap;

#[test]
fn it_is_a_map_that_grows() {
    let mut writer = Writer::with_room(0);
    let mut oracle = HashMap::new();
    let mut hash = 1u64;
    for value in 0..5000u64 {
        hash = hash.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = if value % 3 == 0 { value % 90 } else { hash };
        writer.set_or_grow(KeyHash(key), value);
        oracle.insert(key.max(1), value);
        // Hash 0 and hash 1 share a pair.
    }
    for (key, value) in &oracle {
        assert_eq!(writer.table().get(KeyHash(*key)), Some(*value));
    }
    assert_eq!(writer.table().pairs().count(), oracle.len());
    assert_eq!(writer.table().get(KeyHash(u64::MAX)), None);
}

#[test]
fn sorted_hashes_make_a_table_grow_as_seldom_as_others() {
    // As a snapshot brings them, with nothing known of their number.
    const KEYS: u64 = 2_000;
    let mut writer = Writer::with_room(0);
    let hash = |key: u64| KeyHash((key + 1) * (u64::MAX / (KEYS + 1)));
    let grown = (0..KEYS).filter(|key| writer.set_or_grow(hash(*key), *key)).count();
    assert!((0..KEYS).all(|key| writer.table().get(hash(key)) == Some(key)));
    assert!(grown <= 12, "the table grew {grown} times");
}
