//! What is admitted and what is refused, as tables.

use super::*;

/// Reads `VERSION METHOD TARGET|Name: value|...`; `:authority` and `:protocol` are HTTP/2's.
fn head(line: &str) -> RequestHead {
    let mut parts = line.split('|');
    let mut start = parts.next().unwrap().splitn(3, ' ');
    let version = match start.next() {
        Some("1.0") => Version::Http10,
        Some("1.1") => Version::Http11,
        _ => Version::Http2,
    };
    let method = Method::parse(start.next().unwrap().as_bytes()).unwrap();
    let mut head = RequestHead::new(method, start.next().unwrap());
    head.version = version;
    for part in parts {
        let (name, value) = part.rsplit_once(": ").or_else(|| part.split_once(':')).unwrap();
        match name {
            ":authority" => head.authority = value.to_owned(),
            ":protocol" => head.protocol = Some(value.to_owned()),
            _ => head.fields.push(name.as_bytes(), value.as_bytes()),
        }
    }
    head
}

/// `authority target` of what is admitted, or the status.
fn verdict(line: &str) -> String {
    let mut head = head(line);
    match admit(&mut head, Scheme::Http) {
        Ok(()) => format!("{} {}", head.authority, head.target),
        Err(error) => error.status().to_string(),
    }
}

const ROWS: [(&str, &str); 96] = [
    // Origin form and Host.
    ("1.1 GET /|Host: example.com", "example.com /"),
    ("1.1 GET /a?b=c|host: Example.COM:8080", "example.com:8080 /a?b=c"),
    ("1.1 GET /|Host: example.com.", "example.com /"),
    ("1.1 GET /|Host: [::1]:8080", "[::1]:8080 /"),
    ("1.1 GET /|Host: 127.0.0.1", "127.0.0.1 /"),
    ("1.1 GET /", "400"),
    ("1.1 GET /|Host:", "400"),
    ("1.1 GET /|Host: a|Host: a", "400"),
    ("1.1 GET /|Host: a|host: b", "400"),
    ("1.1 GET /|Host: a, b", "400"),
    ("1.1 GET /|Host: a b", "400"),
    ("1.1 GET /|Host: a/b", "400"),
    ("1.1 GET /|Host: http://a", "400"),
    ("1.1 GET /|Host: u@a", "400"),
    ("1.1 GET /|Host: a:99999", "400"),
    ("1.1 GET /|Host: a:b", "400"),
    ("1.1 GET /|Host: a\\b", "400"),
    ("1.1 GET /|Host: a#b", "400"),
    ("1.1 GET /|Host: a?b", "400"),
    ("1.1 GET /|Host: a%2f", "400"),
    ("1.1 GET /|Host: \u{e9}.example", "400"),
    // HTTP/1.0 may lack Host.
    ("1.0 GET /", " /"),
    ("1.0 GET /|Host: a", "a /"),
    ("1.0 GET /|Host:", "400"),
    ("1.0 GET /|Host: a|Host: a", "400"),
    ("1.0 GET http://a/b", "a /b"),
    ("1.0 GET /|Expect: 200-maybe", " /"),
    // Paths.
    ("1.1 GET /a/../b|Host: a", "a /b"),
    ("1.1 GET /%2e%2e/b|Host: a", "a /b"),
    ("1.1 GET //evil.example/b|Host: a", "a /evil.example/b"),
    ("1.1 GET /a%2fb|Host: a", "a /a%2Fb"),
    ("1.1 GET /%00|Host: a", "400"),
    ("1.1 GET /%zz|Host: a", "400"),
    ("1.1 GET /a\\b|Host: a", "400"),
    ("1.1 GET /a#b|Host: a", "400"),
    ("1.1 GET /\u{e9}|Host: a", "400"),
    // Queries are untouched, or refused.
    ("1.1 GET /?|Host: a", "a /?"),
    ("1.1 GET /a?%2e./..//%zz?\\{}|Host: a", "a /a?%2e./..//%zz?\\{}"),
    ("1.1 GET /%61?/../b|Host: a", "a /a?/../b"),
    ("1.1 GET /?a b|Host: a", "400"),
    ("1.1 GET /?\u{7f}|Host: a", "400"),
    ("1.1 GET /?\u{e9}|Host: a", "400"),
    ("1.1 GET /?a#b|Host: a", "400"),
    // Absolute form.
    ("1.1 GET http://a/b?c|Host: a", "a /b?c"),
    ("1.1 GET HTTP://A/b|Host: a", "a /b"),
    ("1.1 GET https://a/b|Host: a", "a /b"),
    ("1.1 GET http://a|Host: a", "a /"),
    ("1.1 GET http://a?b|Host: a", "a /?b"),
    ("1.1 GET http://a:80/|Host: a", "a:80 /"),
    ("1.1 GET http://a/|Host: a:80", "a /"),
    ("1.1 GET https://a/|Host: a:443", "a /"),
    ("1.1 GET https://a/|Host: a:80", "400"),
    ("1.1 GET http://a/../b|Host: a", "a /b"),
    ("1.1 GET http://a/|Host: b", "400"),
    ("1.1 GET http://a/|Host: a:81", "400"),
    ("1.1 GET http://a/", "400"),
    ("1.1 GET http://u@a/|Host: a", "400"),
    ("1.1 GET http:///b|Host: a", "400"),
    ("1.1 GET http:/b|Host: a", "400"),
    ("1.1 GET ftp://a/|Host: a", "400"),
    ("1.1 GET http://a\\b/|Host: a", "400"),
    ("1.1 GET http://a#b|Host: a", "400"),
    ("1.1 GET a/b|Host: a", "400"),
    ("1.1 GET ?a|Host: a", "400"),
    ("1.1 GET a:80|Host: a", "400"),
    // Asterisk form.
    ("1.1 OPTIONS *|Host: a", "a *"),
    ("1.1 OPTIONS http://a|Host: a", "a *"),
    ("1.1 OPTIONS http://a/|Host: a", "a /"),
    ("1.1 GET *|Host: a", "400"),
    ("1.1 OPTIONS **|Host: a", "400"),
    ("1.1 OPTIONS *?a|Host: a", "400"),
    // Methods.
    ("1.1 CONNECT a:443|Host: a:443", "501"),
    ("1.1 CONNECT /|Host: a", "501"),
    ("1.1 TRACE /|Host: a", "501"),
    ("1.1 BREW /|Host: a", "a /"),
    // Expectations.
    ("1.1 PUT /|Host: a|Expect: 100-Continue", "a /"),
    ("1.1 PUT /|Host: a|Expect: 200-maybe", "417"),
    ("1.1 PUT /|Host: a|Expect: 100-continue, x", "417"),
    ("1.1 PUT /|Host: a|Expect:", "417"),
    // Upgrades.
    ("1.1 GET /|Host: a|Connection: upgrade|Upgrade: websocket", "a /"),
    ("1.1 GET /|Host: a|Connection: Upgrade, HTTP2-Settings|Upgrade: h2c|HTTP2-Settings: AAMAAABkAAQAoAAA", "400"),
    ("1.1 GET /|Host: a|Upgrade: H2C", "400"),
    ("1.1 GET /|Host: a|Connection: upgrade|Upgrade: websocket, h2c", "400"),
    ("1.1 GET /|Host: a|Connection: upgrade|Upgrade: h2c/1", "400"),
    ("1.1 GET /|Host: a|Connection: upgrade|Upgrade: web socket", "400"),
    ("1.0 GET /|Host: a|Connection: upgrade|Upgrade: h2c", "a /"),
    // HTTP/2.
    ("2 GET /a|:authority: a", "a /a"),
    ("2 GET /a|:authority: A.example:8443|host: a.example:8443", "a.example:8443 /a"),
    ("2 GET /a|host: a", "a /a"),
    ("2 GET /a", "400"),
    ("2 GET /a|:authority: a|host: b", "400"),
    ("2 GET /a|:authority: u@a", "400"),
    ("2 GET http://a/b|:authority: a", "400"),
    ("2 CONNECT /chat|:authority: a|:protocol: websocket", "a /chat"),
    ("2 CONNECT a:443|:authority: a:443", "501"),
    ("2 GET /chat|:authority: a|:protocol: websocket", "400"),
];

#[test]
fn admitted_or_refused() {
    for (line, expected) in ROWS {
        assert_eq!(verdict(line), expected, "{line}");
    }
}

const H2: [(&str, bool); 22] = [
    ("a: 1", true),
    ("te: trailers", true),
    ("te: Trailers", true),
    ("te: gzip", false),
    ("te: trailers, gzip", false),
    ("connection: close", false),
    ("connection: keep-alive", false),
    ("keep-alive: a", false),
    ("proxy-connection: a", false),
    ("transfer-encoding: chunked", false),
    ("upgrade: websocket", false),
    ("http2-settings: a", false),
    ("Accept: a", false),
    ("x y: a", false),
    ("x:y: a", false),
    (":path: /", false),
    (":status: 200", false),
    ("content-length: 5", true),
    ("content-length: +5", false),
    ("content-length: 5, 5", false),
    ("content-length: 5|content-length: 5", false),
    ("a:  x", false),
];

#[test]
fn what_http2_forbids() {
    for (lines, fine) in H2 {
        let head = head(&format!("2 GET /|{lines}"));
        let mut fields = head.fields;
        for pseudo in [":path", ":status"] {
            if lines.starts_with(pseudo) {
                fields.push(pseudo.as_bytes(), b"/");
            }
        }
        assert_eq!(check_h2_fields(&fields).is_ok(), fine, "{lines}");
        let mut whole = RequestHead::new(Method::Get, "/");
        whole.version = Version::Http2;
        whole.authority = "a".to_owned();
        whole.fields = fields;
        assert_eq!(admit(&mut whole, Scheme::Https).is_ok(), fine, "{lines} admitted");
    }
}

#[test]
fn the_form_that_the_proxy_sees() {
    let mut seen = head("2 GET /%61/?b|:authority: Example.com|cookie: a=1|x: y|cookie: b=2");
    admit(&mut seen, Scheme::Https).unwrap();
    assert_eq!((seen.authority.as_str(), seen.target.as_str()), ("example.com", "/a/?b"));
    assert_eq!(seen.scheme, Scheme::Https);
    assert_eq!(format!("{:?}", seen.fields), "[x: y, cookie: a=1; b=2]");

    let mut seen = head("1.1 GET https://a/|Host: a|HTTP2-Settings: x|Accept: b");
    admit(&mut seen, Scheme::Http).unwrap();
    assert_eq!(seen.scheme, Scheme::Http, "a client does not say how it came");
    assert_eq!(format!("{:?}", seen.fields), "[Accept: b]");
}

#[test]
fn admitting_twice_changes_nothing() {
    for (line, _) in ROWS {
        let mut once = head(line);
        if admit(&mut once, Scheme::Http).is_err() || once.authority.is_empty() {
            continue;
        }
        let mut twice = once.clone();
        if twice.version != Version::Http2 {
            twice.fields.add(Name::Host, twice.authority.clone());
        }
        admit(&mut twice, Scheme::Http).unwrap();
        assert_eq!((once.authority, once.target), (twice.authority, twice.target), "{line}");
    }
}
