//! Structured fields, as much of RFC 9651 as Coordinator speaks: dictionaries of integers, strings, tokens and booleans
//! with parameters, and strings and tokens to write.
//!
//! Stricter than the RFC: a key that stands twice, an inner list, a decimal, a date or a byte sequence is refused, as no
//! peer of ours sends them. Reading is total and bounded; what is written can always be read.

use super::method::is_tchar;
use std::fmt;

/// The longest text that is read.
pub const LEN_MAX: usize = 4096;
/// Members and parameters together that are read at most.
pub const ITEMS_MAX: usize = 64;
/// Integers have at most 15 digits (RFC 9651 section 3.3.1).
pub const INTEGER_MAX: u64 = 999_999_999_999_999;

/// A bare item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bare {
    /// An integer.
    Integer(i64),
    /// A string or a token: which of both makes no difference to us.
    Text(String),
    /// A boolean.
    Boolean(bool),
}

/// A member of a dictionary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Bare,
    /// Its parameters.
    pub parameters: Vec<(String, Bare)>,
}

impl Bare {
    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        if let Bare::Text(text) = self { Some(text) } else { None }
    }

    /// The number, if it is a non-negative integer.
    pub fn number(&self) -> Option<u64> {
        if let Bare::Integer(number) = self { u64::try_from(*number).ok() } else { None }
    }
}

impl Member {
    /// The value of a parameter.
    pub fn parameter(&self, key: &str) -> Option<&Bare> {
        self.parameters.iter().find(|(own, _)| own == key).map(|(_, value)| value)
    }
}

/// Reads a dictionary; `None` if it is none, or more than we read.
pub fn parse(text: &[u8]) -> Option<Vec<Member>> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= LEN_MAX && text.is_ascii())?;
    let mut reader = Reader { left: text.trim_matches(' '), items: 0 };
    let mut members: Vec<Member> = Vec::new();
    while !reader.left.is_empty() {
        if !members.is_empty() {
            reader.skip(&[' ', '\t']);
            reader.take(',')?;
            reader.skip(&[' ', '\t']);
        }
        let member = reader.member()?;
        if members.iter().any(|other| other.key == member.key) {
            return None;
        }
        members.push(member);
    }
    Some(members)
}

struct Reader<'t> {
    left: &'t str,
    items: usize,
}

impl<'t> Reader<'t> {
    fn member(&mut self) -> Option<Member> {
        let (key, value) = self.pair()?;
        let mut parameters: Vec<(String, Bare)> = Vec::new();
        while self.take(';').is_some() {
            self.skip(&[' ']);
            let parameter = self.pair()?;
            if parameters.iter().any(|(own, _)| *own == parameter.0) {
                return None;
            }
            parameters.push(parameter);
        }
        Some(Member { key, value, parameters })
    }

    fn pair(&mut self) -> Option<(String, Bare)> {
        self.items += 1;
        if self.items > ITEMS_MAX || !self.left.starts_with(|c: char| c.is_ascii_lowercase() || c == '*') {
            return None;
        }
        let is_key = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.' | '*');
        let key = self.while_is(is_key).to_owned();
        let value = if self.take('=').is_some() { self.bare()? } else { Bare::Boolean(true) };
        Some((key, value))
    }

    fn bare(&mut self) -> Option<Bare> {
        match self.left.chars().next()? {
            '"' => self.string(),
            '?' => {
                self.take('?')?;
                if self.take('1').is_some() {
                    Some(Bare::Boolean(true))
                } else {
                    self.take('0').map(|()| Bare::Boolean(false))
                }
            }
            '-' | '0'..='9' => self.integer(),
            c if c.is_ascii_alphabetic() || c == '*' => Some(Bare::Text(self.while_is(is_token_char).to_owned())),
            _ => None,
        }
    }

    fn integer(&mut self) -> Option<Bare> {
        let negative = self.take('-').is_some();
        let digits = self.while_is(|c| c.is_ascii_digit());
        if digits.is_empty() || digits.len() > 15 || self.left.starts_with('.') {
            return None;
        }
        let number: i64 = digits.parse().ok()?;
        Some(Bare::Integer(if negative { -number } else { number }))
    }

    fn string(&mut self) -> Option<Bare> {
        self.take('"')?;
        let mut out = String::new();
        let mut chars = self.left.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.left = self.left.get(at + 1..)?;
                    return Some(Bare::Text(out));
                }
                '\\' => out.push(chars.next().map(|(_, c)| c).filter(|c| matches!(c, '"' | '\\'))?),
                ' '..='~' => out.push(c),
                _ => return None,
            }
        }
        None
    }

    fn take(&mut self, c: char) -> Option<()> {
        self.left = self.left.strip_prefix(c)?;
        Some(())
    }

    fn skip(&mut self, set: &[char]) {
        self.left = self.left.trim_start_matches(set);
    }

    fn while_is(&mut self, is: impl Fn(char) -> bool) -> &'t str {
        let end = self.left.find(|c| !is(c)).unwrap_or(self.left.len());
        let (taken, left) = self.left.split_at(end);
        self.left = left;
        taken
    }
}

fn is_token_char(c: char) -> bool {
    matches!(c, ':' | '/') || u8::try_from(c).is_ok_and(is_tchar)
}

/// Writes a text as a string. What a string cannot hold becomes `?`.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'t>(pub &'t str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(out, "\\{c}")?,
                ' '..='~' => write!(out, "{c}")?,
                _ => out.write_str("?")?,
            }
        }
        out.write_str("\"")
    }
}

/// Writes a text as a token where it is one, else as a string.
#[derive(Debug, Clone, Copy)]
pub struct Shortest<'t>(pub &'t str);

impl fmt::Display for Shortest<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let starts = self.0.starts_with(|c: char| c.is_ascii_alphabetic() || c == '*');
        if starts && self.0.chars().all(is_token_char) { out.write_str(self.0) } else { Quoted(self.0).fmt(out) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> Option<String> {
        let bare = |value: &Bare| match value {
            Bare::Integer(number) => number.to_string(),
            Bare::Text(text) => format!("'{text}'"),
            Bare::Boolean(value) => format!("?{}", u8::from(*value)),
        };
        let members = parse(text.as_bytes())?;
        let shown = members.iter().map(|member| {
            let parameters: String =
                member.parameters.iter().map(|(key, value)| format!(";{key}={}", bare(value))).collect();
            format!("{}={}{parameters}", member.key, bare(&member.value))
        });
        Some(shown.collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn reads_what_we_speak_and_refuses_the_rest() {
        let rows = [
            ("", Some("")),
            ("a=1", Some("a=1")),
            ("a=1, b=2", Some("a=1, b=2")),
            ("a=1 ,\tb", Some("a=1, b=?1")),
            ("v=1; from=fr; key=\"user:448\"", Some("v=1;from='fr';key='user:448'")),
            ("a;b;c=?0", Some("a=?1;b=?1;c=?0")),
            ("a=\"x\\\"y\\\\\"", Some("a='x\"y\\'")),
            ("a=user:448/x", Some("a='user:448/x'")),
            ("a=*x", Some("a='*x'")),
            ("a=-5", Some("a=-5")),
            ("a=999999999999999", Some("a=999999999999999")),
            (" a=1 ", Some("a=1")),
            ("a=1000000000000000", None),
            ("a=1.5", None),
            ("a=-", None),
            ("a=", None),
            ("a=(1 2)", None),
            ("a=:YQ==:", None),
            ("a=@5", None),
            ("a=?2", None),
            ("a=\"x", None),
            ("a=\"\\x\"", None),
            ("a=\"\u{e9}\"", None),
            ("a=\"\t\"", None),
            ("A=1", None),
            ("1=1", None),
            ("a=1,", None),
            (",a=1", None),
            ("a=1,,b=2", None),
            ("a=1 b=2", None),
            ("a=1, a=2", None),
            ("a=1;b=1;b=2", None),
            ("a=1;", None),
            ("a =1", None),
            ("a= 1", None),
            ("a=1 ;b", None),
        ];
        for (text, expected) in rows {
            assert_eq!(shown(text).as_deref(), expected, "{text}");
        }
        assert!(parse(&vec![b'a'; LEN_MAX + 1]).is_none());
        let many: Vec<_> = (0..=ITEMS_MAX).map(|at| format!("a{at}")).collect();
        assert!(parse(many.join(",").as_bytes()).is_none());
        assert!(parse(many[1..].join(",").as_bytes()).is_some());
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(text in "[ -~]{0,40}") {
            for written in [format!("a={}", Quoted(&text)), format!("a={}", Shortest(&text))] {
                let read = parse(written.as_bytes());
                prop_assert_eq!(read.as_ref().and_then(|all| all[0].value.text()), Some(text.as_str()));
            }
        }

        #[test]
        fn reading_never_panics(octets in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&octets);
        }
    }
}
