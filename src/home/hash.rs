//! The 64-bit keyed hash under which maps and ledgers know a key.
//!
//! SipHash-2-4 keyed by the feed id, over space, 0x00, key (DESIGN 10): whoever chooses user ids cannot choose buckets,
//! and two histories never share a hash. Central finds the rare collisions when it grants (HOMES 2.1).

use super::cursor::FeedId;
use siphasher::sip::SipHasher24;
use std::hash::Hasher;

/// The hash of one key in one history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash(pub u64);

/// Hashes a key for a feed.
pub fn key_hash(feed: FeedId, space: &str, key: &str) -> KeyHash {
    let mut hasher = SipHasher24::new_with_key(&feed.0);
    hasher.write(space.as_bytes());
    hasher.write(&[0]);
    hasher.write(key.as_bytes());
    KeyHash(hasher.finish())
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
    fn keys_are_split_at_the_first_colon() {
        assert_eq!(split_key("user:448"), Some(("user", "448")));
        assert_eq!(split_key("shop:a:b"), Some(("shop", "a:b")));
        for wrong in ["448", ":448", "user:", "user:a\0b", "user:\u{85}", &format!("user:{}", "a".repeat(256))] {
            assert_eq!(split_key(wrong), None, "{wrong}");
        }
        assert!(split_key(&format!("user:{}", "a".repeat(255))).is_some());
    }
}
