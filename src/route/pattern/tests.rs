//! Patterns that are read and refused, as tables.

use super::*;

/// What a pattern takes out of a host and path: `-` for nothing matched, else `name=value ...`.
fn taken(pattern: &str, target: &str) -> String {
    let pattern = Pattern::parse(pattern).unwrap_or_else(|error| panic!("{pattern}: {error:?}"));
    let (host, path) = target.split_at(target.find('/').unwrap());
    match pattern.capture(host, path) {
        None => "-".to_owned(),
        Some(captures) => captures.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "),
    }
}

#[test]
fn what_a_pattern_matches() {
    let rows = [
        // Exactly here.
        ("/a", "/a", ""),
        ("/a", "/a/", "-"),
        ("/a", "/ab", "-"),
        ("/a", "/A", "-"),
        ("/a", "/a/b", "-"),
        ("/a", "/", "-"),
        ("/a/b", "/a/b", ""),
        ("/a%2fb", "/a%2Fb", ""),
        ("/%61", "/a", ""),
        ("/a|b", "/a%7Cb", ""),
        ("/*", "/*", ""),
        // The node and everything below.
        ("/", "/", ""),
        ("/", "/a", ""),
        ("/", "/a/b/", ""),
        ("/a/", "/a", ""),
        ("/a/", "/a/", ""),
        ("/a/", "/a/b", ""),
        ("/a/", "/a/b/c/", ""),
        ("/a/", "/ab", "-"),
        ("/a/", "/", "-"),
        ("/{x}/", "/a", "x=a"),
        ("/{x}/", "/a/", "x=a"),
        ("/{x}/", "/a/b", "x=a"),
        ("/{x}/", "/", "-"),
        // Only the slash.
        ("/{$}", "/", ""),
        ("/{$}", "/a", "-"),
        ("/a/{$}", "/a/", ""),
        ("/a/{$}", "/a", "-"),
        ("/a/{$}", "/a/b", "-"),
        ("/{x}/{$}", "/a/", "x=a"),
        // One segment.
        ("/{x}", "/a", "x=a"),
        ("/{x}", "/", "-"),
        ("/{x}", "/a/", "-"),
        ("/{x}", "/a/b", "-"),
        ("/{x}", "/a%2Fb", "x=a%2Fb"),
        ("/a/{x}/b", "/a/1/b", "x=1"),
        ("/a/{x}/{y}", "/a/1/2", "x=1 y=2"),
        // The rest.
        ("/{x...}", "/", "x="),
        ("/{x...}", "/a", "x=a"),
        ("/{x...}", "/a/b/", "x=a/b/"),
        ("/a/{x...}", "/a/", "x="),
        ("/a/{x...}", "/a", "-"),
        ("/a/{x...}", "/a/b/c", "x=b/c"),
        ("/{x}/{y...}", "/a/b/c", "x=a y=b/c"),
        // Mixed segments.
        ("/{id}.json", "/1.json", "id=1"),
        ("/{id}.json", "/.json", "-"),
        ("/{id}.json", "/1.json/", "-"),
        ("/{id}_{edge}.json", "/8_4_de.json", "id=8_4 edge=de"),
        ("/v{major}.{minor}/", "/v1.2.3/x", "major=1.2 minor=3"),
        // Hosts.
        ("a.example/", "a.example/x", ""),
        ("A.Example/", "a.example/x", ""),
        ("a.example/", "b.a.example/x", "-"),
        ("a.example/", "/x", "-"),
        ("*.example/", "a.example/x", ""),
        ("*.example/", "b.a.example/x", ""),
        ("*.example/", "example/x", "-"),
        ("*.example/", "aexample/x", "-"),
        ("{t}.example/", "acme.example/x", "t=acme"),
        ("{t}.example/", "b.acme.example/x", "-"),
        ("{t}.example/", "example/x", "-"),
        ("*.{t}.example/", "b.acme.example/x", "t=acme"),
        ("{a}.{b}.example/{c}", "x.y.example/z", "a=x b=y c=z"),
        ("{a}-{b}.example/", "x-y-z.example/", "a=x-y b=z"),
        ("[::1]/", "[::1]/x", ""),
        ("[::1]/", "/x", "-"),
        ("10.0.0.1/", "10.0.0.1/x", ""),
        ("{x}/a", "localhost/a", "x=localhost"),
    ];
    for (pattern, target, expected) in rows {
        assert_eq!(taken(pattern, target), expected, "{pattern} on {target}");
    }
}

#[test]
fn what_is_no_pattern() {
    let rows = [
        // Pattern, what the span covers, a word of what is wrong.
        ("", "", "no path"),
        ("a.example", "a.example", "no path"),
        ("GET a.example", "a.example", "no path"),
        ("GET  ", "", "no path"),
        (" /a", "", "not a method"),
        ("GET /a b", " b", "whitespace"),
        ("GET /a ", " ", "whitespace"),
        ("G{T /a", "G{T", "not a method"),
        ("get /a", "get", "upper case"),
        ("CONNECT /a", "CONNECT", "CONNECT"),
        ("https://a.example/", "https:", "scheme"),
        ("a.example:80/", "a.example:80", "port"),
        ("a.*/", "a.*", "`*`"),
        ("a*.example/", "a*.example", "`*`"),
        ("*/", "*", "`*`"),
        ("*./", "*.", "empty label"),
        ("a..b/", "a..b", "empty label"),
        (".a/", ".a", "empty label"),
        ("[::z]/", "[::z]", "IPv6"),
        ("a b.example/", "a", "upper case"),
        ("caf\u{e9}.example/", "caf\u{e9}", "host"),
        ("a%2e.example/", "a%2e", "host"),
        ("{a}{b}.example/", "{b}", "side by side"),
        ("{a...}.example/", "{a...}.example", "for paths"),
        ("/a//b", "//", "empty segment"),
        ("//", "//", "empty segment"),
        ("/a/./b", ".", "dot segment"),
        ("/a/..", "..", "dot segment"),
        ("/a/%2e%2E/b", "%2e%2E", "dot segment"),
        ("/{$}/a", "{$}", "at the end"),
        ("/{x...}/a", "{x...}", "at the end"),
        ("/a{$}", "$", "whole segment"),
        ("/a{x...}", "x...", "whole segment"),
        ("/{x}{y}", "{y}", "side by side"),
        ("/{x", "{x", "without its `}`"),
        ("/x}", "}", "without its `{`"),
        ("/{a/b}", "{a", "without its `}`"),
        ("/{}", "{}", "without a name"),
        ("/{...}", "{...}", "without a name"),
        ("/{1x}", "{1x}", "not a name"),
        ("/{x y}", "{x", "not a method"),
        ("/{x-y}", "{x-y}", "not a name"),
        ("/{x}/{x}", "x", "twice"),
        ("/{x}/{x...}", "x", "twice"),
        ("{x}.example/{x}", "x", "twice"),
        ("/a?b", "a?b", "query"),
        ("/a#b", "a#b", "fragment"),
        ("/a\\b", "a\\b", "backslash"),
        ("/a%", "a%", "hexadecimal"),
        ("/a%4{x}", "a%4", "hexadecimal"),
        ("/%00", "%00", "%00"),
        ("/caf\u{e9}", "caf\u{e9}", "percent-encoded"),
    ];
    for (text, span, wrong) in rows {
        let error = Pattern::parse(text).expect_err(text);
        assert!(error.wrong.contains(wrong), "{text}: {error:?}");
        assert!(!error.remedy.is_empty(), "{text}: {error:?}");
        let covered = text.get(error.span.clone()).unwrap_or_else(|| panic!("{text}: {error:?}"));
        if !wrong.contains("method") {
            assert_eq!(covered, span, "{text}: {error:?}");
        }
    }
    assert_eq!(Pattern::parse("/caf\u{e9}").unwrap_err().remedy, "write `caf%C3%A9`");
}

#[test]
fn what_is_large_is_refused() {
    assert!(Pattern::parse(&"/a".repeat(SEGMENTS_MAX)).is_ok());
    assert!(Pattern::parse(&"/a".repeat(SEGMENTS_MAX + 1)).is_err());
    assert!(Pattern::parse(&format!("/{}", "a".repeat(LEN_MAX))).is_err());
    assert!(Pattern::parse(&format!("/{}", "\u{e9}".repeat(LEN_MAX))).is_err());
    assert!(Pattern::parse(&format!("{}b/", "a.".repeat(100))).is_err());
}

#[test]
fn names_stand_in_the_order_of_the_pattern() {
    let pattern = Pattern::parse("GET {b}.{a}.example/{c}/{d}-{e}/{f...}").unwrap();
    assert_eq!(pattern.names(), ["b", "a", "c", "d", "e", "f"]);
    assert_eq!(pattern.method(), Some(&Method::Get));
    let captures = pattern.capture("x.y.example", "/1/2-3/4/5").unwrap();
    assert_eq!(captures.iter().map(|(name, _)| *name).collect::<Vec<_>>(), pattern.names());
}

proptest::proptest! {
    #[test]
    fn reading_never_panics(text in "[A-Z ]{0,4}[a-z.*{}:\\[\\]]{0,8}/?[a-z{}.$%/?#*\u{e9} ]{0,20}") {
        if let Err(error) = Pattern::parse(&text) {
            proptest::prop_assert!(text.get(error.span.clone()).is_some(), "{:?}", error);
        }
    }
}
