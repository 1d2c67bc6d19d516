//! Lists whose elements may hold quoted strings (RFC 9110 section 5.6): Forwarded, CDN-Loop, Accept.

/// The parts of `text` between separators that stand outside quotes, trimmed, empty ones left out.
/// `None` if a quote is never closed.
pub fn split(text: &str, separator: u8) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (at, octet) in text.bytes().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if octet == separator && !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    let trimmed = parts.into_iter().map(|part| part.trim_matches([' ', '\t'])).filter(|part| !part.is_empty());
    (!quoted).then(|| trimmed.collect())
}

/// The text of a token or of a quoted string, its escapes resolved; `None` if it is half a quoted string.
pub fn unquote(text: &str) -> Option<String> {
    let Some(inner) = text.strip_prefix('"') else { return Some(text.to_owned()) };
    let inner = inner.strip_suffix('"')?;
    let mut out = String::with_capacity(inner.len());
    let mut octets = inner.chars();
    while let Some(octet) = octets.next() {
        out.push(if octet == '\\' { octets.next()? } else { octet });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hide_separators() {
        for (text, parts) in [
            ("a, b ,,\tc", Some(vec!["a", "b", "c"])),
            ("", Some(vec![])),
            ("a=\"x,y\", b", Some(vec!["a=\"x,y\"", "b"])),
            ("a=\"x\\\",y\", b", Some(vec!["a=\"x\\\",y\"", "b"])),
            ("a=\"x, b", None),
            ("a=\"x\\\", b", None),
        ] {
            assert_eq!(split(text, b','), parts, "{text}");
        }
        assert_eq!(unquote("\"a\\\"b\\\\\"").as_deref(), Some("a\"b\\"));
        assert_eq!(unquote("a"), Some("a".to_owned()));
        assert_eq!(unquote("\"a"), None);
        assert_eq!(unquote("\""), None);
        assert_eq!(unquote("\"a\\\""), None);
    }
}
