//! The 64-bit keyed hash under which maps and ledgers know a key.
//!
//! SipHash-2-4 keyed by the feed id, over space, 0x00, key (DESIGN 10): whoever chooses user ids cannot choose buckets,
//! and two histories never share a hash. Central finds the rare collisions when it grants: of two keys with one hash the
//! later is filed under another hash, and everybody is told so ([`Override`]; docs/decisions/0014).

use super::cursor::FeedId;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;
use std::collections::HashMap;
use std::hash::Hasher;

/// The hash of one key in one history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash(pub u64);

/// Hashes a key for a feed.
pub fn key_hash(feed: FeedId, space: &str, key: &str) -> KeyHash {
    other_hash(feed, space, key, 0)
}

/// A further hash of a key, for when the one before is taken by another; number 0 is the key's own.
pub fn other_hash(feed: FeedId, space: &str, key: &str, number: u32) -> KeyHash {
    if let Some(hash) = nameless_hash(space, key) {
        return hash;
    }
    let mut hasher = SipHasher24::new_with_key(&feed.0);
    hasher.write(space.as_bytes());
    hasher.write(&[0]);
    hasher.write(key.as_bytes());
    if number > 0 {
        // Keys hold no controls, so this is no other key's input.
        hasher.write(&[0]);
        hasher.write(&number.to_le_bytes());
    }
    KeyHash(hasher.finish())
}

/// The space of keys of which only the hash is known, `#:0123456789abcdef`: a Central that was restored learns from the
/// edges' ledgers of keys whose names it has lost (docs/decisions/0020). No configured space can be called so.
pub const NAMELESS: &str = "#";

/// A key of which only the hash is known, in full.
pub fn nameless(hash: KeyHash) -> String {
    format!("{NAMELESS}:{:016x}", hash.0)
}

/// The hash that such a key is.
pub fn nameless_hash(space: &str, key: &str) -> Option<KeyHash> {
    let is_hash = space == NAMELESS && key.len() == 16 && key.bytes().all(|octet| octet.is_ascii_hexdigit());
    if is_hash { u64::from_str_radix(key, 16).ok().map(KeyHash) } else { None }
}

/// A key whose own hash was another key's already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// `space:key`.
    pub k: String,
    /// Under which of its hashes it is filed; at least 1.
    pub x: u32,
}

/// At most so many keys are filed under another hash. Among a thousand million keys one is expected in 37 histories.
pub const OVERRIDES_MAX: usize = 4096;

/// All keys that are filed under another hash than their own. Nearly always none, which costs a look-up one comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides(HashMap<String, u32>);

impl Overrides {
    /// The hash under which a key is filed.
    pub fn hash(&self, feed: FeedId, space: &str, key: &str) -> KeyHash {
        let number = if self.0.is_empty() { 0 } else { self.number(&format!("{space}:{key}")) };
        other_hash(feed, space, key, number)
    }

    /// Under which of its hashes a full key is filed.
    pub fn number(&self, full_key: &str) -> u32 {
        self.0.get(full_key).copied().unwrap_or(0)
    }

    /// Files a full key under another hash; false if it is so already, or if there are too many.
    pub fn insert(&mut self, full_key: &str, number: u32) -> bool {
        if number == 0 || self.number(full_key) == number || self.0.len() >= OVERRIDES_MAX {
            return false;
        }
        self.0.insert(full_key.to_owned(), number);
        true
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Them all, sorted.
    pub fn list(&self) -> Vec<Override> {
        let mut list: Vec<Override> = self.0.iter().map(|(k, x)| Override { k: k.clone(), x: *x }).collect();
        list.sort_by(|a, b| a.k.cmp(&b.k));
        list
    }
}

/// The longest key (DESIGN 10).
pub const KEY_MAX: usize = 255;

/// Splits `user:448` into space and key; `None` if it is not a key that may exist: 1 to 255 octets, no controls, in a
/// space with a name.
pub fn split_key(text: &str) -> Option<(&str, &str)> {
    let (space, key) = text.split_once(':')?;
    let sound = |part: &str| (1..=KEY_MAX).contains(&part.len()) && !part.chars().any(char::is_control);
    (sound(space) && sound(key)).then_some((space, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_key_and_feed_all_count() {
        let feed = FeedId([1; 16]);
        let known = key_hash(feed, "user", "448");
        assert_eq!(known, key_hash(feed, "user", "448"));
        for other in
            [key_hash(feed, "user4", "48"), key_hash(feed, "user", "449"), key_hash(FeedId([2; 16]), "user", "448")]
        {
            assert_ne!(known, other);
        }
    }

    #[test]
    fn the_hash_is_siphash_and_stays_so() {
        // The reference vector of SipHash-2-4: key 00..0f, input 00 01 02 ... would need octets below 0x20; ours pins
        // the composition instead, so that an upgrade of the crate cannot move every key on disk.
        let feed = FeedId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        let mut reference = SipHasher24::new_with_keys(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        reference.write(b"user\x00448");
        assert_eq!(key_hash(feed, "user", "448").0, reference.finish());
    }

    #[test]
    fn an_overridden_key_is_filed_elsewhere_and_no_other_is() {
        let feed = FeedId([1; 16]);
        let mut overrides = Overrides::default();
        assert!(overrides.insert("user:448", 1) && !overrides.insert("user:448", 1) && !overrides.insert("user:1", 0));
        assert_eq!(overrides.hash(feed, "user", "448"), other_hash(feed, "user", "448", 1));
        assert_ne!(overrides.hash(feed, "user", "448"), key_hash(feed, "user", "448"));
        assert_eq!(overrides.hash(feed, "user", "449"), key_hash(feed, "user", "449"));
        assert_ne!(other_hash(feed, "user", "448", 1), other_hash(feed, "user", "448", 2));
        assert_eq!(overrides.list(), [Override { k: "user:448".into(), x: 1 }]);
    }

    #[test]
    fn a_nameless_key_is_its_hash_in_every_history() {
        let hash = key_hash(FeedId([1; 16]), "user", "448");
        let name = nameless(hash);
        let (space, key) = split_key(&name).unwrap();
        assert_eq!(key_hash(FeedId([2; 16]), space, key), hash);
        for other in ["#:", "#:+123456789abcdef", "#:0123456789abcde", "user:0123456789abcdef"] {
            let (space, key) = other.split_once(':').unwrap();
            assert_eq!(nameless_hash(space, key), None, "{other}");
        }
    }

    #[test]
    fn keys_are_split_at_the_first_colon() {
        assert_eq!(split_key("user:448"), Some(("user", "448")));
        assert_eq!(split_key("shop:a:b"), Some(("shop", "a:b")));
        for wrong in ["448", ":448", "user:", "user:a\0b", "user:\u{85}", &format!("user:{}", "a".repeat(256))] {
            assert_eq!(split_key(wrong), None, "{wrong}");
        }
        assert!(split_key(&format!("user:{}", "a".repeat(255))).is_some());
    }
}
