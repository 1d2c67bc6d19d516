//! Many homes at once: `POST /v1/homes` as JSON lines or CSV, and the export `GET /v1/homes` (DESIGN 3).
//!
//! Both directions stream: one line, one batch and a bounded list of refused lines are all that is held.

use super::api::{Refusal, ok, query_value, user};
use super::appender::read;
use super::feed::unfold;
use super::state::{Outcome, Want, Why};
use super::{BATCH_MAX, Central};
use crate::body::{Body, Piece, Request, Response};
use crate::error::Result;
use crate::home::{event, key};
use crate::message::Name;
use bytes::{Buf, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// The longest line of an import: a key of 255 octets, each escaped as `\uXXXX`, and two names.
const LINE_MAX: usize = 4 << 10;
/// Refused lines that the answer lists; the count goes on.
const REFUSED_MAX: usize = 1000;

impl Central {
    /// `POST /v1/homes`: creates homes, in the order of the lines. Repeating an import is safe.
    pub(super) async fn import(&self, request: Request) -> Result<Response, Refusal> {
        let csv = is_csv(request.head.fields.text(Name::ContentType))?;
        let mut lines = Lines::of(request.body);
        let mut tally = Tally::default();
        let mut batch: Vec<(u64, Want)> = Vec::with_capacity(BATCH_MAX);
        loop {
            let line = match lines.next().await {
                Ok(line) => line,
                Err(error) => return Err(tally.cut(Refusal::malformed(error.detail().to_owned()))),
            };
            let Some(line) = line else { break };
            match want(&line, lines.number, csv) {
                Ok(Some(want)) => batch.push((lines.number, want)),
                Ok(None) => {}
                Err(why) => tally.refuse(lines.number, why),
            }
            if batch.len() == BATCH_MAX {
                self.create(&mut batch, &mut tally).await.map_err(|refusal| tally.cut(refusal))?;
            }
        }
        self.create(&mut batch, &mut tally).await.map_err(|refusal| tally.cut(refusal))?;
        Ok(ok(tally.show()))
    }

    async fn create(&self, batch: &mut Vec<(u64, Want)>, tally: &mut Tally) -> Result<(), Refusal> {
        let (numbers, wants): (Vec<u64>, Vec<Want>) = batch.drain(..).unzip();
        if wants.is_empty() {
            return Ok(());
        }
        let outcomes = self.commit(wants).await?;
        let state = read(&self.state);
        for (number, outcome) in numbers.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Created(_) => tally.created += 1,
                Outcome::Same(_) => tally.same += 1,
                Outcome::Taken(home) => tally.refuse(
                    number,
                    format!("owned by `{}` (epoch {}): to change it is a move", state.edge_name(home.edge), home.epoch),
                ),
                Outcome::NoEdge => tally.refuse(number, "no such edge takes new homes".to_owned()),
                Outcome::Collision => tally.refuse(number, "another key has the same 64-bit hash".to_owned()),
                Outcome::Withheld(feature) => tally.refuse(number, self.withheld(feature).detail().to_owned()),
            }
        }
        Ok(())
    }

    /// `GET /v1/homes?space=user`: every home as a JSON line, in the order in which they came to be.
    pub(super) fn export(self: &Arc<Self>, query: Option<&str>) -> Result<Response, Refusal> {
        let space = query_value(query, "space")?;
        if let Some(space) = &space {
            key::check_name("key space", space).map_err(Refusal::malformed)?;
        }
        let export = Export { central: self.clone(), space, cursor: 0, until: self.head() };
        let mut response = Response::new(200);
        response.head.fields.add(Name::ContentType, "application/x-ndjson");
        response.head.fields.add(Name::CacheControl, "no-store");
        response.body = unfold(export, Export::next);
        Ok(response)
    }
}

/// An export on its way. A key that changes while it runs may be absent or appear with its newer home.
struct Export {
    central: Arc<Central>,
    space: Option<String>,
    cursor: u64,
    until: u64,
}

impl Export {
    async fn next(mut self) -> Option<(Result<Bytes>, Export)> {
        while self.cursor < self.until {
            let (last, events) = read(&self.central.state).after(self.cursor, BATCH_MAX);
            self.cursor = last;
            let mut lines = Vec::new();
            for event in events.iter().filter(|event| event.st == event::State::Active) {
                let (space, key) = key::split(&event.k);
                if self.space.as_deref().is_none_or(|wanted| wanted == space) {
                    let line = json!({ "space": space, "key": key, "home": event.h, "epoch": event.e });
                    lines.extend_from_slice(line.to_string().as_bytes());
                    lines.push(b'\n');
                }
            }
            if !lines.is_empty() {
                return Some((Ok(lines.into()), self));
            }
            // A space of its own may be rare among millions of others: let the worker breathe.
            tokio::task::yield_now().await;
        }
        None
    }
}

/// What an import did so far.
#[derive(Default)]
struct Tally {
    created: u64,
    same: u64,
    refused: u64,
    listed: Vec<Value>,
}

impl Tally {
    fn refuse(&mut self, line: u64, why: String) {
        self.refused += 1;
        if self.listed.len() < REFUSED_MAX {
            self.listed.push(json!({ "line": line, "why": why }));
        }
    }

    fn show(&mut self) -> Value {
        // What a line says is refused before what the log says of an earlier one.
        self.listed.sort_by_key(|refused| refused.get("line").and_then(Value::as_u64));
        json!({ "created": self.created, "same": self.same, "refused_count": self.refused, "refused": self.listed })
    }

    /// A refusal in the middle of an import says what was done before it.
    fn cut(&self, refusal: Refusal) -> Refusal {
        refusal
            .with("created", json!(self.created))
            .with("same", json!(self.same))
            .with("refused_count", json!(self.refused))
    }
}

/// Which of the two forms the content has. Errors: neither.
fn is_csv(content_type: Option<&str>) -> Result<bool, Refusal> {
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "text/csv" => Ok(true),
        ""
        | "application/x-ndjson"
        | "application/jsonl"
        | "application/json"
        | "text/plain"
        | "application/octet-stream"
        | "application/x-www-form-urlencoded" => Ok(false),
        _ => Err(Refusal::new(
            415,
            "Unknown form",
            "send JSON lines as application/x-ndjson, or `space,key,home` as text/csv",
        )),
    }
}

/// A line as its reader found it.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Whole(Vec<u8>),
    TooLong,
}

/// Splits content into lines, holding at most one of them and one piece.
struct Lines {
    body: Body,
    held: BytesMut,
    /// Whether the rest of an over-long line is being passed over.
    skipping: bool,
    ended: bool,
    /// The number of the line given last, from 1.
    number: u64,
}

impl Lines {
    fn of(body: Body) -> Lines {
        Lines { body, held: BytesMut::new(), skipping: false, ended: false, number: 0 }
    }

    /// The next line; `None` at the end of the content. Errors: the content was cut.
    async fn next(&mut self) -> Result<Option<Line>> {
        loop {
            if let Some(line) = self.split() {
                self.number += 1;
                return Ok(Some(line));
            }
            if self.ended {
                return Ok(None);
            }
            match self.body.next().await.transpose()? {
                Some(Piece::Data(octets)) => self.held.extend_from_slice(&octets),
                Some(Piece::Trailers(_)) => {}
                None => self.ended = true,
            }
        }
    }

    fn split(&mut self) -> Option<Line> {
        if let Some(end) = memchr::memchr(b'\n', &self.held) {
            let line = self.held.split_to(end);
            self.held.advance(1);
            return Some(self.judge(&line));
        }
        if self.held.len() > LINE_MAX {
            self.held.clear();
            self.skipping = true;
        }
        let last = self.ended && (self.skipping || !self.held.is_empty());
        let line = last.then(|| self.held.split())?;
        Some(self.judge(&line))
    }

    fn judge(&mut self, line: &[u8]) -> Line {
        let too_long = std::mem::take(&mut self.skipping) || line.len() > LINE_MAX;
        if too_long { Line::TooLong } else { Line::Whole(line.strip_suffix(b"\r").unwrap_or(line).to_vec()) }
    }
}

#[derive(Deserialize)]
struct Row {
    #[serde(default = "user")]
    space: String,
    key: String,
    home: String,
}

/// What a line wants; nothing for an empty line and the head of a CSV. Errors: why it is refused.
fn want(line: &Line, number: u64, csv: bool) -> std::result::Result<Option<Want>, String> {
    let Line::Whole(line) = line else { return Err(format!("longer than {LINE_MAX} octets")) };
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let row = if csv { csv_row(line)? } else { serde_json::from_slice(line).map_err(|error| error.to_string())? };
    if csv && number == 1 && (row.space.as_str(), row.key.as_str(), row.home.as_str()) == ("space", "key", "home") {
        return Ok(None);
    }
    Ok(Some(Want { key: key::full(&row.space, &row.key)?, edge: row.home, why: Why::Import }))
}

fn csv_row(line: &[u8]) -> std::result::Result<Row, String> {
    let text = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
    let fields = csv_fields(text).ok_or("a quote is out of place")?;
    let [space, key, home]: [String; 3] = fields
        .try_into()
        .map_err(|fields: Vec<String>| format!("{} fields instead of space,key,home", fields.len()))?;
    Ok(Row { space: if space.is_empty() { user() } else { space }, key, home })
}

/// The fields of one CSV line (RFC 4180; a key holds no line break, so no field does). `None`: a stray quote.
fn csv_fields(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => csv_quoted(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (field, after) = rest.split_at(end);
                if field.contains('"') {
                    return None;
                }
                (field.to_owned(), after)
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return after.is_empty().then_some(fields),
        }
    }
}

/// A quoted field, from behind its opening quote, and what follows its closing one.
fn csv_quoted(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"')?;
        field.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Some((field, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(line: &str) -> Option<Vec<String>> {
        csv_fields(line)
    }

    #[test]
    fn csv_is_read_as_rfc_4180_says() {
        for (line, expected) in [
            ("user,448,fr", Some(vec!["user", "448", "fr"])),
            (",448,fr", Some(vec!["", "448", "fr"])),
            (r#"user,"a,""b""",fr"#, Some(vec!["user", r#"a,"b""#, "fr"])),
            (r#""","",""#, None),
            (r#""user"x,1,fr"#, None),
            (r#"us"er,1,fr"#, None),
            (r#"user,"1,fr"#, None),
            ("", Some(vec![""])),
            ("a,b,", Some(vec!["a", "b", ""])),
        ] {
            let expected = expected.map(|list| list.into_iter().map(str::to_owned).collect());
            assert_eq!(fields(line), expected, "{line}");
        }
    }

    struct Pieces(Vec<Bytes>);

    impl crate::body::Pull for Pieces {
        fn poll_piece(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Option<Result<Piece>>> {
            std::task::Poll::Ready(self.0.pop().map(|octets| Ok(Piece::Data(octets))))
        }
        fn length(&self) -> Option<u64> {
            None
        }
    }

    async fn lines(content: &[u8], piece: usize) -> Vec<Line> {
        let pieces = content.chunks(piece).rev().map(Bytes::copy_from_slice).collect();
        let mut lines = Lines::of(Body::Pulled(Box::new(Pieces(pieces))));
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line);
        }
        assert_eq!(lines.number, all.len() as u64);
        all
    }

    #[tokio::test(flavor = "current_thread")]
    async fn lines_are_the_same_in_pieces_of_any_size() {
        let long = "x".repeat(3 * LINE_MAX);
        let content = format!("a\r\n\n{long}\nb\n{long}");
        let whole = |text: &str| Line::Whole(text.as_bytes().to_vec());
        for piece in [1, 2, 3, 1000, LINE_MAX, 1 << 20] {
            let expected = [whole("a"), whole(""), Line::TooLong, whole("b"), Line::TooLong];
            assert_eq!(lines(content.as_bytes(), piece).await, expected, "pieces of {piece}");
        }
        assert_eq!(lines(b"", 1).await, []);
        assert_eq!(lines(b"x", 1).await, [whole("x")]);
    }
}
