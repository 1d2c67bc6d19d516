//! Eight octets at a time, in one word: where is the first that is out of the ordinary?
//!
//! Source: H. S. Warren, "Hacker's Delight", section 6-1; S. E. Anderson, "Bit Twiddling Hacks", "Determine if a word has a
//! byte less than n".

/// Each octet of a word set to the same.
const fn each(octet: u8) -> u64 {
    u64::from_ne_bytes([octet; 8])
}

/// Marks, by its highest bit, each octet below `least` (at most 128). Above the lowest mark, marks may be wrong.
#[inline]
pub fn below(word: u64, least: u8) -> u64 {
    word.wrapping_sub(each(least)) & !word & each(0x80)
}

/// Marks each octet that is `octet`; as far as [`below`] can be trusted.
#[inline]
pub fn equal(word: u64, octet: u8) -> u64 {
    below(word ^ each(octet), 1)
}

/// Marks each octet of 128 and more.
#[inline]
pub fn high(word: u64) -> u64 {
    word & each(0x80)
}

/// Marks exactly each octet that is neither a letter nor `-`.
#[inline]
pub fn unlike_name(word: u64) -> u64 {
    let low = word & each(0x7f);
    // No octet of these sums carries into the next.
    let lower = low | each(0x20);
    let letter = lower.wrapping_add(each(0x80 - b'a')) & !lower.wrapping_add(each(0x7f - b'z'));
    let dash = !(low ^ each(b'-')).wrapping_add(each(0x7f));
    high(word | !(letter | dash))
}

/// How many octets from the start are certainly not marked: whole words of them, and those before the lowest mark.
#[inline]
pub fn skip(octets: &[u8], marks: impl Fn(u64) -> u64) -> usize {
    let (words, _) = octets.as_chunks();
    for (at, word) in words.iter().enumerate() {
        let marked = marks(u64::from_le_bytes(*word));
        if marked != 0 {
            return at * 8 + marked.trailing_zeros() as usize / 8;
        }
    }
    words.len() * 8
}

/// Whether any octet is marked.
#[inline]
pub fn any(octets: &[u8], marks: impl Fn(u64) -> u64) -> bool {
    let marked = |word: &[u8; 8]| marks(u64::from_le_bytes(*word)) != 0;
    match octets.last_chunk() {
        // The last word may hold octets of the one before: better looked at twice than one by one.
        Some(last) => octets.as_chunks().0.iter().any(marked) || marked(last),
        None => octets.iter().any(|octet| marks(each(*octet)) != 0),
    }
}

/// The place of the first octet that `odd` is true of; `marks` marks every octet that it may be true of.
#[inline]
pub fn find(octets: &[u8], marks: impl Fn(u64) -> u64, odd: impl Fn(u8) -> bool) -> Option<usize> {
    let mut at = 0;
    loop {
        at += skip(octets.get(at..)?, &marks);
        // What is marked and not odd, and what is left behind the last word.
        if odd(*octets.get(at)?) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_letters_and_dashes() {
        for octet in 0..=255u8 {
            for beside in [0, b'-', b'z', 255] {
                let marked = unlike_name(u64::from_le_bytes([beside, octet, beside, 0, 255, octet, b'a', b'-']));
                let expected = if octet.is_ascii_alphabetic() || octet == b'-' { 0 } else { 0x80 };
                assert_eq!((marked.to_le_bytes()[1], marked.to_le_bytes()[5]), (expected, expected), "{octet}");
                assert_eq!(marked >> 48, 0);
            }
        }
    }

    #[test]
    fn finds_what_a_loop_finds() {
        for octet in 0..=255u8 {
            for at in 0..20 {
                let mut text = vec![b'a'; 24];
                text[at] = octet;
                for (least, same) in [(b' ', b'#'), (1, 0x7f), (128, 0)] {
                    let odd = |octet: u8| octet < least || octet == same || octet >= 0xf0;
                    let marks = |word| below(word, least) | equal(word, same) | high(word);
                    assert_eq!(find(&text, marks, odd), text.iter().position(|&octet| odd(octet)), "{octet} at {at}");
                    let exact = |word| below(word, least) | equal(word, same);
                    let expected = |text: &[u8]| text.iter().any(|octet| *octet < least || *octet == same);
                    (0..24).for_each(|end| {
                        assert_eq!(any(&text[..end], exact), expected(&text[..end]), "{octet} at {at}")
                    });
                }
            }
        }
        assert_eq!(find(b"", |_| 0, |_| true), None);
    }
}
