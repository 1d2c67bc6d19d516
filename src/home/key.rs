//! Keys, and the names of key spaces and edges, as Central admits them and as URLs spell them (DESIGN 10, Keys).

/// The longest key in octets.
pub const KEY_MAX: usize = 255;
/// The longest name of a key space or an edge.
pub const NAME_MAX: usize = 63;

/// The full key `space:key` of a key in a space. Errors: what is wrong with either, for people.
pub fn full(space: &str, key: &str) -> Result<String, String> {
    check_name("key space", space)?;
    check_key(key)?;
    Ok(format!("{space}:{key}"))
}

/// Checks a full key, such as `user:448`. Errors: what is wrong with it, for people.
pub fn check_full(full: &str) -> Result<(), String> {
    let (space, key) = split(full);
    check_name("key space", space)?;
    check_key(key)
}

/// A full key's space and key. A space holds no colon, so the first one separates.
pub fn split(full: &str) -> (&str, &str) {
    full.split_once(':').unwrap_or((full, ""))
}

/// Checks the name of a key space or an edge: `[a-z][a-z0-9_-]*`. Errors: what is wrong with it, for people.
pub fn check_name(what: &str, name: &str) -> Result<(), String> {
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
    let goes_on = name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_' || c == b'-');
    if starts && goes_on && name.len() <= NAME_MAX {
        return Ok(());
    }
    Err(format!(
        "`{}` is no name of a {what}: write a lower-case letter, then letters, digits, `_` or `-`, at most {NAME_MAX}",
        shown(name)
    ))
}

fn check_key(key: &str) -> Result<(), String> {
    if key.is_empty() {
        return Err("the key is empty".to_owned());
    }
    if key.len() > KEY_MAX {
        return Err(format!("the key has {} octets; at most {KEY_MAX} are allowed", key.len()));
    }
    if key.chars().any(char::is_control) {
        return Err(format!("the key `{}` holds a control character", shown(key)));
    }
    Ok(())
}

/// Foreign text made fit for a message: short and without controls.
pub fn shown(text: &str) -> String {
    text.chars().take(80).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Decodes `%XX` in a path segment or a query value. `None` for a bad escape or what is not UTF-8.
pub fn unescape(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(if octet == b'%' { nibble(rest.next()?)? << 4 | nibble(rest.next()?)? } else { octet });
    }
    String::from_utf8(octets).ok()
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Encodes what may not stand plainly in a path segment.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~:@".contains(&octet) {
            out.push(char::from(octet));
        } else {
            out.push_str(&format!("%{octet:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_checked() {
        assert_eq!(full("user", "448"), Ok("user:448".to_owned()));
        assert_eq!(split("user:a:b"), ("user", "a:b"));
        for good in ["user:é", "u:x y", "a-b_9:1", "user:%2F/", &format!("u:{}", "k".repeat(255))] {
            assert_eq!(check_full(good), Ok(()), "{good}");
        }
        for bad in ["", "user", "user:", ":x", "User:1", "9u:1", "u ser:1", "user:a\nb", "user:\u{85}", "user:\0"] {
            assert!(check_full(bad).is_err(), "{bad:?}");
        }
        assert!(full("user", &"k".repeat(256)).is_err());
        assert!(full(&"s".repeat(64), "k").is_err());
        assert!(full("user:x", "k").is_err());
    }

    #[test]
    fn escapes_go_both_ways() {
        for key in ["448", "a b/c?d", "é:%", "user:1"] {
            assert_eq!(unescape(&escape(key)).as_deref(), Some(key));
        }
        for bad in ["%", "%4", "%zz", "%+1", "%ff"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
    }
}
