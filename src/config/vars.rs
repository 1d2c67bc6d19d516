//! `${VAR}`, `${VAR:-default}` and `${file:/path}` inside string values, after parsing.
//!
//! Only values, never keys or raw text: a variable cannot add a table or end a string. `$${` stands for `${`.

use std::ops::Range;

/// What a string value is made of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// As written.
    Plain(&'a str),
    /// A variable of the environment, and what stands for it when it is unset or empty.
    Variable { name: &'a str, default: Option<&'a str>, span: Range<usize> },
    /// The content of a file, without the line end at its end.
    File { path: &'a str, span: Range<usize> },
}

/// Why a reference cannot be read; the octets of the text at fault.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadReference {
    pub(super) span: Range<usize>,
    pub(super) wrong: &'static str,
}

/// Splits a string value at its references. Errors: the first reference that is not closed or has no right name.
pub(super) fn split(text: &str) -> Result<Vec<Piece<'_>>, BadReference> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find("${") {
        let open = at + found;
        if text[..open].ends_with('$') && open > at {
            pieces.push(Piece::Plain(&text[at..open - 1]));
            pieces.push(Piece::Plain("${"));
            at = open + 2;
            continue;
        }
        pieces.push(Piece::Plain(&text[at..open]));
        let close = text[open..].find('}').map(|close| open + close);
        let close = close.ok_or(BadReference { span: open..text.len(), wrong: "this `${` is never closed by `}`" })?;
        pieces.push(reference(&text[open + 2..close], open..close + 1)?);
        at = close + 1;
    }
    pieces.push(Piece::Plain(&text[at..]));
    Ok(pieces)
}

fn reference(inner: &str, span: Range<usize>) -> Result<Piece<'_>, BadReference> {
    if let Some(path) = inner.strip_prefix("file:") {
        return match path {
            "" => Err(BadReference { span, wrong: "`${file:…}` names no file" }),
            path => Ok(Piece::File { path, span }),
        };
    }
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(BadReference { span, wrong: "this is not the name of a variable" });
    }
    Ok(Piece::Variable { name, default, span })
}
