//! Many octets at a time: where is the first that is out of the ordinary?
//!
//! Whether one is among sixteen is asked by a plain loop that the compiler makes into a few vector instructions, so a kind
//! of octets is best told by comparisons. Where it stands is asked eight at a time, in one word.
//! Source: H. S. Warren, "Hacker's Delight", section 6-1; S. E. Anderson, "Bit Twiddling Hacks", "Determine if a word has a
//! byte less than n".

/// Each octet of a word set to the same.
#[inline]
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

/// Whether nothing is marked in octets that are a word or longer; `None` where they are shorter.
#[inline]
pub fn is_free(octets: &[u8], marks: impl Fn(u64) -> u64) -> Option<bool> {
    let (words, _) = octets.as_chunks();
    let last = octets.last_chunk()?;
    Some(words.iter().chain([last]).all(|word| marks(u64::from_le_bytes(*word)) == 0))
}

/// How many octets are asked about together.
const STEP: usize = 16;

/// The place of the first octet that `odd` is true of. `marks` marks the first of these in a word, and none before it.
#[inline]
pub fn find(octets: &[u8], odd: impl Fn(u8) -> bool, marks: impl Fn(u64) -> u64) -> Option<usize> {
    let mut rest = octets;
    while let Some((step, after)) = rest.split_first_chunk::<STEP>() {
        if step.iter().fold(false, |any, octet| any | odd(*octet)) {
            let (words, _) = step.as_chunks();
            let place = first(&words[0], &marks).or_else(|| Some(8 + first(&words[1], &marks)?));
            return place.map(|place| octets.len() - rest.len() + place);
        }
        rest = after;
    }
    find_short(rest, odd, marks).map(|place| octets.len() - rest.len() + place)
}

/// The same among the last octets, fewer than two words. On its own, so that nothing is made ready for it before.
#[inline(never)]
fn find_short(octets: &[u8], odd: impl Fn(u8) -> bool, marks: impl Fn(u64) -> u64) -> Option<usize> {
    let (Some(start), Some(end)) = (octets.first_chunk(), octets.last_chunk()) else {
        return octets.iter().position(|&octet| odd(octet));
    };
    // What is in both is not odd, if it comes to the second.
    first(start, &marks).or_else(|| Some(octets.len() - 8 + first(end, &marks)?))
}

/// The place of the first mark in a word.
#[inline]
fn first(word: &[u8; 8], marks: impl Fn(u64) -> u64) -> Option<usize> {
    let marked = marks(u64::from_le_bytes(*word));
    (marked != 0).then(|| marked.trailing_zeros() as usize / 8)
}

/// The place of the first `octet`, where it is likely to be near.
#[inline]
pub fn find_near(octets: &[u8], octet: u8) -> Option<usize> {
    let (mut rest, marks) = (octets, |word| equal(word, octet));
    while let Some((word, after)) = rest.split_first_chunk() {
        if let Some(place) = first(word, marks) {
            return Some(octets.len() - rest.len() + place);
        }
        rest = after;
    }
    let place = find_short(rest, |other| other == octet, marks);
    place.map(|place| octets.len() - rest.len() + place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_a_loop_finds() {
        for octet in 0..=255u8 {
            for (at, length) in (0..40).flat_map(|length| (0..length).map(move |at| (at, length))) {
                let mut text = vec![b'a'; length];
                text[at] = octet;
                for (least, same) in [(b' ', b'#'), (1, 0x7f), (128, 0)] {
                    let odd = |octet: u8| octet < least || octet == same || octet >= 128;
                    let marks = |word| below(word, least) | equal(word, same) | high(word);
                    assert_eq!(find(&text, odd, marks), text.iter().position(|&octet| odd(octet)), "{octet} at {at}");
                }
            }
        }
        assert_eq!(find(b"", |_| true, |_| 0), None);
    }

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
        for (text, free) in [("abcdefg", None), ("abcdefgh", Some(true)), ("abcdefghi_", Some(false))] {
            assert_eq!(is_free(text.as_bytes(), unlike_name), free);
        }
        for at in 0..20 {
            let mut text = [b'a'; 20];
            text[at] = b'_';
            assert_eq!(is_free(&text, unlike_name), Some(false), "{at}");
        }
    }

    #[test]
    fn the_first_of_several_counts() {
        let text = b"0123456789abcdef0123456789abcdef0123";
        for from in 0..text.len() {
            let (text, three) = (&text[from..], |octet| octet == b'3');
            let place = text.iter().position(|&octet| three(octet));
            assert_eq!(find(text, three, |word| equal(word, b'3')), place);
            assert_eq!(find_near(text, b'3'), place);
        }
    }
}
