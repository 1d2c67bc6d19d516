//! In which form our own errors go out (RFC 9110 section 12.5.1).

use super::list;

/// The forms of an error that we write ourselves, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `application/problem+json` (RFC 9457): also where nothing is asked for, or nothing that we have.
    Problem,
    /// `text/html`.
    Html,
    /// `text/plain`.
    Plain,
}

const FORMS: [(Form, &str, &str); 4] = [
    (Form::Problem, "application", "problem+json"),
    (Form::Problem, "application", "json"),
    (Form::Html, "text", "html"),
    (Form::Plain, "text", "plain"),
];

/// Ranges of an Accept that are looked at; browsers send about eight.
const RANGES_MAX: usize = 32;

/// The form that an Accept likes best; ties go to the better form, whatever is named before what is only allowed.
pub fn error_form(accept: Option<&[u8]>) -> Form {
    let Some(accept) = accept.and_then(|accept| std::str::from_utf8(accept).ok()) else { return Form::Problem };
    let ranges = list::split(accept, b',').unwrap_or_default();
    let ranges: Vec<_> = ranges.into_iter().take(RANGES_MAX).filter_map(range).collect();
    let mut best = (Form::Problem, (0, 0));
    for (form, kind, subtype) in FORMS {
        let liking = ranges.iter().filter_map(|range| range.likes(kind, subtype)).max().unwrap_or((0, 0));
        // How exactly a type was named decides which quality counts, and breaks ties between types.
        let liking = (liking.1, liking.0);
        if liking.0 > 0 && liking > best.1 {
            best = (form, liking);
        }
    }
    best.0
}

struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    /// 0 to 1000.
    quality: u16,
}

impl Range<'_> {
    /// How exactly the range names a type (1 to 3), and its quality.
    fn likes(&self, kind: &str, subtype: &str) -> Option<(u8, u16)> {
        let exact = match (self.kind, self.subtype) {
            ("*", "*") => 1,
            (own, "*") if own.eq_ignore_ascii_case(kind) => 2,
            (own, sub) if own.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subtype) => 3,
            _ => return None,
        };
        Some((exact, self.quality))
    }
}

fn range(text: &str) -> Option<Range<'_>> {
    let mut parts = text.split(';').map(str::trim);
    let (kind, subtype) = parts.next()?.split_once('/')?;
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    Some(Range { kind, subtype, quality: weight.map_or(Some(1000), quality)? })
}

/// Reads a qvalue (RFC 9110 section 12.4.2) as thousandths.
pub(super) fn quality(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.len() <= 3 && fraction.bytes().all(|octet| octet.is_ascii_digit());
    let thousandths: u16 = format!("{fraction:0<3}").parse().ok().filter(|_| digits)?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_that_is_liked_best() {
        let chrome = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        for (accept, form) in [
            ("", Form::Problem),
            ("*/*", Form::Problem),
            ("application/json", Form::Problem),
            ("application/problem+json, text/html", Form::Problem),
            ("application/*, text/plain;q=0.9", Form::Problem),
            ("image/png", Form::Problem),
            ("image/png, */*;q=0.1", Form::Problem),
            (chrome, Form::Html),
            ("text/html", Form::Html),
            ("TEXT/HTML", Form::Html),
            ("text/*", Form::Html),
            ("text/html, application/json;q=0.5", Form::Html),
            ("text/html;q=0.5, application/json", Form::Problem),
            ("text/html;q=0, text/*", Form::Plain),
            ("text/plain", Form::Plain),
            ("text/plain, */*;q=0.5", Form::Plain),
            ("text/plain, */*", Form::Plain),
            ("text/plain;q=2", Form::Problem),
            ("text/plain;q=x, text/html;q=0.001", Form::Html),
            ("text/html;a=\"half", Form::Problem),
            ("garbage,,;;/", Form::Problem),
        ] {
            assert_eq!(error_form(Some(accept.as_bytes())), form, "{accept}");
        }
        assert_eq!(error_form(None), Form::Problem);
        assert_eq!(error_form(Some(b"\xff")), Form::Problem);
    }
}
