//! Paths and their one spelling, as a table.

use super::*;
use proptest::prelude::*;

const NORMAL: [(&str, &str); 66] = [
    ("/", "/"),
    ("/a", "/a"),
    ("/a/", "/a/"),
    ("/a/b", "/a/b"),
    ("/A/b", "/A/b"),
    ("/a-b_c.d~e", "/a-b_c.d~e"),
    ("/!$&'()*+,;=:@", "/!$&'()*+,;=:@"),
    // Escapes: one spelling.
    ("/%61", "/a"),
    ("/%41%5a%30%39", "/AZ09"),
    ("/%2D%2d%5F%5f%7E%7e", "/--__~~"),
    ("/%2e", "/"),
    ("/%c3%a9", "/%C3%A9"),
    ("/%C3%a9", "/%C3%A9"),
    ("/%20", "/%20"),
    ("/%25", "/%25"),
    ("/%2525", "/%2525"),
    ("/%252e%252e", "/%252e%252e"),
    ("/%3a%40", "/%3A%40"),
    ("/%0a%0d", "/%0A%0D"),
    ("/%ff", "/%FF"),
    ("/a%3fb", "/a%3Fb"),
    ("/a%23b", "/a%23b"),
    // Encoded separators never separate.
    ("/a%2fb", "/a%2Fb"),
    ("/a%2Fb", "/a%2Fb"),
    ("/a%5cb", "/a%5Cb"),
    ("/a%2f..%2fb", "/a%2F..%2Fb"),
    ("/..%2fa", "/..%2Fa"),
    ("/a/..%5cb", "/a/..%5Cb"),
    ("/%2f/a", "/%2F/a"),
    ("/%2f%2f", "/%2F%2F"),
    // Dot segments, also once their dots are decoded.
    ("/.", "/"),
    ("/..", "/"),
    ("/./", "/"),
    ("/../", "/"),
    ("/./a", "/a"),
    ("/a/.", "/a/"),
    ("/a/./b", "/a/b"),
    ("/a/..", "/"),
    ("/a/../", "/"),
    ("/a/../b", "/b"),
    ("/a/b/..", "/a/"),
    ("/a/b/../..", "/"),
    ("/a/b/../../c", "/c"),
    ("/a/../../../b", "/b"),
    ("/../../etc/passwd", "/etc/passwd"),
    ("/a/%2e%2e/b", "/b"),
    ("/a/%2E./b", "/b"),
    ("/a/.%2e/b", "/b"),
    ("/a/%2e/b", "/a/b"),
    ("/%2e%2e/%2e%2e/b", "/b"),
    ("/...", "/..."),
    ("/a/.../b", "/a/.../b"),
    ("/.a", "/.a"),
    ("/..a", "/..a"),
    ("/a..", "/a.."),
    ("/.well-known/acme", "/.well-known/acme"),
    ("/a/..;x/b", "/a/..;x/b"),
    // Empty segments.
    ("//", "/"),
    ("///", "/"),
    ("//a", "/a"),
    ("/a//b", "/a/b"),
    ("/a//", "/a/"),
    ("//example.com/a", "/example.com/a"),
    ("/a//../b", "/a/b"),
    // What no path may hold and browsers send.
    ("/a|b[c]^`{d}\"<e>", "/a%7Cb%5Bc%5D%5E%60%7Bd%7D%22%3Ce%3E"),
    ("/%7c", "/%7C"),
];

const REFUSED: [&str; 22] = [
    "",
    "a",
    "*",
    "a/b",
    ".",
    "/%",
    "/%4",
    "/%4g",
    "/%g4",
    "/%%",
    "/%%41",
    "/%u0041",
    "/%+1",
    "/%00",
    "/a%00b",
    "/a\\b",
    "/\\..\\a",
    "/a b",
    "/a\tb",
    "/a\u{7f}",
    "/caf\u{e9}",
    "/a#b",
];

#[test]
fn one_spelling() {
    for (raw, spelt) in NORMAL {
        assert_eq!(normalise(raw).as_deref(), Ok(spelt), "{raw}");
        assert_eq!(normalise(spelt).as_deref(), Ok(spelt), "{raw} twice");
    }
}

#[test]
fn refused() {
    for raw in REFUSED {
        assert!(normalise(raw).is_err(), "{raw}");
    }
}

#[test]
fn a_normal_path_costs_no_allocation() {
    assert!(matches!(normalise("/v1/users/448/wishlist.json"), Ok(Cow::Borrowed(_))));
}

#[test]
fn decoding_happens_once() {
    for (text, decoded) in [
        ("a", Some("a")),
        ("%41%2F%25", Some("A/%")),
        ("%2541", Some("%41")),
        ("caf%C3%A9", Some("caf\u{e9}")),
        ("a+b", Some("a+b")),
        ("%C3", None),
        ("%", None),
        ("%4", None),
        ("%zz", None),
    ] {
        assert_eq!(decode(text).as_deref(), decoded, "{text}");
    }
}

/// A path of many thousand segments costs its length, not its square.
#[test]
fn hostile_paths_stay_linear() {
    let climbing = "/a/..".repeat(200_000);
    assert_eq!(normalise(&climbing).as_deref(), Ok("/"));
    let slashes = "/".repeat(1_000_000);
    assert_eq!(normalise(&slashes).as_deref(), Ok("/"));
}

proptest! {
    #[test]
    fn normal_form_is_a_fixed_point(raw in "/([a./%\\\\|25eEfF]|%2[eEfF]|%5[cC]|\\.\\.|//){0,24}") {
        if let Ok(spelt) = normalise(&raw) {
            let again = normalise(&spelt);
            prop_assert_eq!(again.as_deref(), Ok(&*spelt));
            prop_assert!(spelt.starts_with('/') && !spelt.contains("//"));
            prop_assert!(!spelt.split('/').any(|segment| segment == "." || segment == ".."));
            prop_assert!(!spelt.contains("%2e") && !spelt.contains("%2E") && !spelt.contains("%2f"));
        }
    }
}
