//! Media types and ranges of them (RFC 9110 section 8.3.1), as far as a list of types goes.

/// A set of media types: `text/html`, `text/*`, `application/*+json`, `*/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaRange {
    /// Lower-case; `None` = any.
    kind: Option<Box<str>>,
    subtype: Subtype,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Subtype {
    Any,
    /// Lower-case, with its `+`.
    Suffix(Box<str>),
    /// Lower-case.
    Exactly(Box<str>),
}

impl MediaRange {
    /// Reads a range; `None` if it is none. Parameters have no place in it.
    pub fn parse(text: &str) -> Option<MediaRange> {
        let (kind, subtype) = text.split_once('/')?;
        let kind = match kind {
            "*" if subtype == "*" => None,
            kind => Some(name(kind)?),
        };
        let subtype = match subtype.strip_prefix('*') {
            Some("") => Subtype::Any,
            Some(suffix) => {
                name(suffix.strip_prefix('+')?)?;
                Subtype::Suffix(suffix.to_ascii_lowercase().into())
            }
            None => Subtype::Exactly(name(subtype)?),
        };
        Some(MediaRange { kind, subtype })
    }

    /// Whether the range holds a type as [`essence`] gives it, in any case.
    pub fn holds(&self, essence: &[u8]) -> bool {
        let Some(slash) = essence.iter().position(|octet| *octet == b'/') else { return false };
        let (kind, subtype) = (&essence[..slash], &essence[slash + 1..]);
        let kind_fits = self.kind.as_ref().is_none_or(|own| own.as_bytes().eq_ignore_ascii_case(kind));
        kind_fits
            && match &self.subtype {
                Subtype::Any => true,
                Subtype::Exactly(own) => own.as_bytes().eq_ignore_ascii_case(subtype),
                Subtype::Suffix(own) => subtype
                    .len()
                    .checked_sub(own.len())
                    .is_some_and(|at| at > 0 && subtype[at..].eq_ignore_ascii_case(own.as_bytes())),
            }
    }
}

/// The type and subtype of a Content-Type, without its parameters.
pub fn essence(content_type: &[u8]) -> &[u8] {
    content_type.split(|octet| *octet == b';').next().unwrap_or_default().trim_ascii()
}

/// A type name in lower case (RFC 6838 section 4.2).
fn name(text: &str) -> Option<Box<str>> {
    let fits = |octet: u8| octet.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&octet);
    (!text.is_empty() && text.bytes().all(fits)).then(|| text.to_ascii_lowercase().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_their_types() {
        for (range, content_type, held) in [
            ("text/*", "text/html; charset=utf-8", true),
            ("text/*", "TEXT/Plain", true),
            ("text/*", "texts/plain", false),
            ("text/html", "text/html", true),
            ("Text/HTML", "text/html ;a=b", true),
            ("text/html", "text/htm", false),
            ("application/*+json", "application/problem+json", true),
            ("application/*+json", "application/json", false),
            ("application/*+json", "application/+json", false),
            ("application/*+json", "image/x+json", false),
            ("*/*", "a/b", true),
            ("*/*", "a", false),
            ("*/*", "", false),
            ("text/*", "", false),
        ] {
            let parsed = MediaRange::parse(range).unwrap();
            assert_eq!(parsed.holds(essence(content_type.as_bytes())), held, "{range} {content_type}");
        }
        for wrong in
            ["", "text", "text/", "/html", "*/html", "text/*json", "text/*+", "a b/c", "text/html; a=b", "text/ä"]
        {
            assert_eq!(MediaRange::parse(wrong), None, "{wrong}");
        }
    }
}
