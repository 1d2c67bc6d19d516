//! Inclusion and overlap against trying every text.

use super::*;
use crate::route::pattern::Pattern;
use proptest::prelude::*;

fn segment(text: &str) -> Segment {
    Pattern::parse(&format!("/{text}")).unwrap().path.segments.remove(0)
}

#[test]
fn mixed_segments_split_at_the_last_separator() {
    for (pattern, text, pieces) in [
        ("a", "a", Some(vec![])),
        ("a", "b", None),
        ("{x}", "a", Some(vec!["a"])),
        ("{x}", "", None),
        ("{x}.json", "1.json", Some(vec!["1"])),
        ("{x}.json", ".json", None),
        ("{x}.json", "1.json.json", Some(vec!["1.json"])),
        ("v{x}", "v1", Some(vec!["1"])),
        ("v{x}", "v", None),
        ("v{x}", "w1", None),
        ("{a}_{b}", "1_2", Some(vec!["1", "2"])),
        ("{a}_{b}", "1_2_3", Some(vec!["1_2", "3"])),
        ("{a}_{b}", "1__", Some(vec!["1", "_"])),
        ("{a}_{b}", "__1", Some(vec!["_", "1"])),
        ("{a}_{b}", "_1", None),
        ("{a}_{b}", "1_", None),
        ("{a}_{b}", "___", Some(vec!["_", "_"])),
        ("{a}_{b}.json", "8_4_de.json", Some(vec!["8_4", "de"])),
        ("{a}-{b}-{c}", "1-2-3-4", Some(vec!["1-2", "3", "4"])),
        ("{a}-{b}-{c}", "1-2", None),
        ("ab{x}ba", "aba", None),
        ("ab{x}ba", "abba", None),
        ("ab{x}ba", "ab1ba", Some(vec!["1"])),
        ("{a}--{b}", "1---2", Some(vec!["1-", "2"])),
        // A name never ends within an escape.
        ("{a}2{b}", "x%2Fy", None),
        ("{a}2{b}", "x2%2F", Some(vec!["x", "%2F"])),
        ("{a}F", "%2F", None),
        ("{a}2F", "%2F", None),
        ("{a}%2F{b}", "x%2Fy", Some(vec!["x", "y"])),
        ("{a}%2f", "x%2F", Some(vec!["x"])),
    ] {
        assert_eq!(segment(pattern).split(text).map(|pieces| pieces.to_vec()), pieces, "{pattern} {text}");
    }
}

#[test]
fn inclusion_and_overlap_are_exact() {
    // One, other, whether one is within the other, whether the other is within it, a text of both.
    for (one, other, within, back, meet) in [
        ("a", "a", true, true, Some("a")),
        ("a", "b", false, false, None),
        ("a", "{x}", true, false, Some("a")),
        ("{x}", "{y}", true, true, Some("a")),
        ("1.json", "{x}.json", true, false, Some("1.json")),
        (".json", "{x}.json", false, false, None),
        ("{x}.json", "{x}", true, false, None),
        ("{a}_{b}.json", "{x}.json", true, false, None),
        ("{a}_{b}", "{x}.json", false, false, None),
        ("{x}.tar.gz", "{x}.gz", true, false, None),
        ("{x}.gz", "{x}.json", false, false, None),
        ("a{x}", "b{x}", false, false, None),
        ("a{x}", "{x}b", false, false, None),
        ("a{x}b", "a{x}", true, false, None),
        ("a{x}b", "{y}b", true, false, None),
        ("{a}-{b}-{c}", "{a}-{b}", true, false, None),
        ("{a}_{b}-{c}", "{a}-{b}", true, false, None),
        ("{a}_{b}", "{a}-{b}", false, false, None),
        ("{a}--{b}", "{a}-{b}", true, false, None),
        ("{a}aa{b}", "{a}a{b}a{c}", false, false, None),
        ("{a}a{b}a{c}", "{a}a{b}", true, false, None),
        ("x{a}", "{a}%2F{b}", false, false, None),
        ("{a}F", "{a}%2F", false, false, None),
    ] {
        let (a, b) = (segment(one), segment(other));
        assert_eq!((a.is_within(&b), b.is_within(&a)), (within, back), "{one} {other}");
        if let Some(meet) = meet {
            assert_eq!(a.meet(&b).as_deref(), Some(meet), "{one} {other}");
        }
    }
    for (one, other, meets) in
        [("a{x}", "b{x}", false), ("{x}.gz", "{x}.json", false), ("a{x}", "{x}b", true), ("{a}F", "{a}%2F", false)]
    {
        assert_eq!(segment(one).meet(&segment(other)).is_some(), meets, "{one} {other}");
    }
}

/// All texts over a small alphabet, long enough to tell the small patterns apart.
fn all_texts() -> Vec<String> {
    let mut all = vec![String::new()];
    let mut last = all.clone();
    for _ in 0..8 {
        last = last.iter().flat_map(|text| ["a", "b", "c"].map(|symbol| format!("{text}{symbol}"))).collect();
        all.extend(last.iter().cloned());
    }
    all
}

fn small_segment() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]{1,3}", Just("{x}".to_owned()), "[ab]{0,2}\\{x\\}[ab]{0,2}", "[ab]?\\{x\\}[ab]{1,2}\\{y\\}[ab]?"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The automata agree with trying every text.
    #[test]
    fn inclusion_agrees_with_enumeration(one in small_segment(), other in small_segment()) {
        let (a, b) = (segment(&one), segment(&other));
        let (mut within, mut meets) = (true, false);
        for text in all_texts() {
            let (in_a, in_b) = (a.split(&text).is_some(), b.split(&text).is_some());
            within &= !in_a || in_b;
            meets |= in_a && in_b;
        }
        prop_assert_eq!(a.is_within(&b), within);
        prop_assert_eq!(a.meet(&b).is_some(), meets);
        if let Some(text) = a.meet(&b) {
            prop_assert!(a.split(&text).is_some() && b.split(&text).is_some(), "{}", text);
        }
        if within && !b.is_within(&a) {
            prop_assert!(a.rank() < b.rank());
        }
    }

    /// What the names took, put back between the literals, is the text.
    #[test]
    fn splitting_loses_nothing(pattern in small_segment(), text in "[abc]{0,8}") {
        let segment = segment(&pattern);
        if let Some(pieces) = segment.split(&text) {
            let mut whole = segment.literals[0].clone();
            for (piece, literal) in pieces.iter().zip(&segment.literals[1..]) {
                prop_assert!(!piece.is_empty());
                whole += &format!("{piece}{literal}");
            }
            prop_assert_eq!(whole, text.clone());
        }
    }
}
