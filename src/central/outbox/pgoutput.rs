//! What PostgreSQL's own output plugin says of committed transactions: protocol version 1, as far as an outbox needs it.
//!
//! A transaction comes whole and in the order of commits; what was rolled back, sub-transactions included, does not come.
//! Pure and total: no input panics it. Source: PostgreSQL 15, "Logical Replication Message Formats".

use std::collections::HashMap;

/// The columns of the table that are read.
const COLUMNS: [&str; 5] = ["id", "kind", "space", "key", "value"];
/// The most columns that a table may have.
const COLUMNS_MAX: u16 = 1600;

/// A place in the database's log.
pub(super) type Lsn = u64;

/// A row that was inserted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) kind: String,
    pub(super) space: String,
    pub(super) key: String,
    pub(super) value: Option<String>,
}

/// What a message says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// A transaction begins; its commit stands at `commit`.
    Begin { commit: Lsn },
    /// It inserted this into the outbox.
    Insert(Row),
    /// It ends; the next one stands at or after `end`.
    Commit { end: Lsn },
    /// Nothing that matters here.
    Other,
}

/// Reads messages; it knows the tables that were described.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// Where in a row each of [`COLUMNS`] stands, by table.
    tables: HashMap<u32, [Option<usize>; COLUMNS.len()]>,
}

impl Decoder {
    /// Reads one message. Errors: it is not what the protocol says.
    pub(super) fn read(&mut self, message: &[u8]) -> Result<Said, &'static str> {
        let (kind, rest) = message.split_first().ok_or("an empty message")?;
        let mut rest = Rest(rest);
        Ok(match kind {
            b'B' => Said::Begin { commit: rest.u64()? },
            b'C' => {
                rest.take(1 + 8)?;
                Said::Commit { end: rest.u64()? }
            }
            b'R' => {
                self.table(&mut rest)?;
                Said::Other
            }
            b'I' => self.insert(&mut rest)?,
            _ => Said::Other,
        })
    }

    fn table(&mut self, rest: &mut Rest<'_>) -> Result<(), &'static str> {
        let table = rest.u32()?;
        let (_, name) = (rest.text()?, rest.text()?);
        rest.take(1)?;
        let columns = rest.u16()?;
        if columns > COLUMNS_MAX {
            return Err("a table with too many columns");
        }
        let mut places = [None; COLUMNS.len()];
        for at in 0..usize::from(columns) {
            rest.take(1)?;
            let column = rest.text()?;
            rest.take(4 + 4)?;
            if let Some(known) = COLUMNS.iter().position(|known| known.as_bytes() == column) {
                places[known] = Some(at);
            }
        }
        if name == super::NAME.as_bytes() {
            self.tables.insert(table, places);
        }
        Ok(())
    }

    fn insert(&self, rest: &mut Rest<'_>) -> Result<Said, &'static str> {
        let Some(places) = self.tables.get(&rest.u32()?) else { return Ok(Said::Other) };
        if rest.take(1)? != b"N" {
            return Err("an insertion without a row");
        }
        let columns = rest.u16()?;
        let mut texts = Vec::new();
        for _ in 0..columns.min(COLUMNS_MAX) {
            texts.push(rest.column()?);
        }
        let text =
            |column: usize| places.get(column).copied().flatten().and_then(|at| texts.get(at).cloned().flatten());
        let [id, kind, space, key, value] = [0, 1, 2, 3, 4].map(text);
        let id = id.and_then(|id| id.parse().ok()).ok_or("a row without an id")?;
        let [kind, space, key] = [kind, space, key].map(Option::unwrap_or_default);
        Ok(Said::Insert(Row { id, kind, space, key, value }))
    }
}

/// What is left of a message.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("a message that was cut")?;
        self.0 = rest;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        self.take(N)?.try_into().map_err(|_| "a message that was cut")
    }

    fn u16(&mut self) -> Result<u16, &'static str> {
        self.number().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, &'static str> {
        self.number().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, &'static str> {
        self.number().map(u64::from_be_bytes)
    }

    /// Octets up to a zero.
    fn text(&mut self) -> Result<&'a [u8], &'static str> {
        let end = memchr::memchr(0, self.0).ok_or("a name without an end")?;
        let text = self.take(end)?;
        self.take(1)?;
        Ok(text)
    }

    fn column(&mut self) -> Result<Option<String>, &'static str> {
        match self.take(1)? {
            b"n" | b"u" => Ok(None),
            b"t" => {
                let length = usize::try_from(self.u32()?).map_err(|_| "a column that is too long")?;
                let text = std::str::from_utf8(self.take(length)?).map_err(|_| "a column that is not UTF-8")?;
                Ok(Some(text.to_owned()))
            }
            _ => Err("a column of an unknown form"),
        }
    }
}

/// Reads `16/B374D848`; `None` if it is no place in a log.
pub(super) fn lsn(text: &str) -> Option<Lsn> {
    let (high, low) = text.split_once('/')?;
    let part = |part| u32::from_str_radix(part, 16).ok().map(u64::from);
    Some(part(high)? << 32 | part(low)?)
}

/// Writes a place as PostgreSQL does.
pub(super) fn show(lsn: Lsn) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(id: u32, name: &str, columns: &[&str]) -> Vec<u8> {
        let mut out = [b"R".as_slice(), &id.to_be_bytes(), b"public\0", name.as_bytes(), b"\0d"].concat();
        out.extend((columns.len() as u16).to_be_bytes());
        for column in columns {
            out.extend([b"\0".as_slice(), column.as_bytes(), b"\0", &25u32.to_be_bytes(), &[0xff; 4]].concat());
        }
        out
    }

    fn insert(id: u32, columns: &[Option<&str>]) -> Vec<u8> {
        let mut out = [b"I".as_slice(), &id.to_be_bytes(), b"N", &(columns.len() as u16).to_be_bytes()].concat();
        for column in columns {
            match column {
                None => out.push(b'n'),
                Some(text) => out.extend([b"t", &(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat()),
            }
        }
        out
    }

    #[test]
    fn rows_are_read_by_the_names_of_their_columns() {
        let mut decoder = Decoder::default();
        let names = ["value", "id", "more", "key", "kind", "space"];
        assert_eq!(decoder.read(&relation(7, "coordinator_outbox", &names)), Ok(Said::Other));
        decoder.read(&relation(8, "orders", &["id", "kind"])).unwrap();
        let row = [Some("fr"), Some("12"), None, Some("it's ü"), Some("home"), Some("user")];
        let expected =
            Row { id: 12, kind: "home".into(), space: "user".into(), key: "it's ü".into(), value: Some("fr".into()) };
        assert_eq!(decoder.read(&insert(7, &row)), Ok(Said::Insert(expected)));
        assert_eq!(decoder.read(&insert(8, &[Some("1"), Some("home")])), Ok(Said::Other));
        let begin = [b"B".as_slice(), &5u64.to_be_bytes(), &[0; 12]].concat();
        assert_eq!(decoder.read(&begin), Ok(Said::Begin { commit: 5 }));
        let commit = [b"C\0".as_slice(), &5u64.to_be_bytes(), &9u64.to_be_bytes(), &[0; 8]].concat();
        assert_eq!(decoder.read(&commit), Ok(Said::Commit { end: 9 }));
    }

    #[test]
    fn what_is_cut_is_refused() {
        let mut decoder = Decoder::default();
        let relation = relation(7, "coordinator_outbox", &COLUMNS);
        for cut in 0..relation.len() {
            assert!(decoder.read(&relation[..cut]).is_err(), "relation cut at {cut}");
        }
        decoder.read(&relation).unwrap();
        let insert = insert(7, &[Some("1"), Some("home"), Some("user"), Some("448"), Some("fr")]);
        for cut in 0..insert.len() {
            assert!(decoder.read(&insert[..cut]).is_err(), "row cut at {cut}");
        }
    }

    #[test]
    fn places_are_written_as_they_are_read() {
        for (text, number) in [("0/0", 0), ("16/B374D848", 0x16_B374_D848), ("FFFFFFFF/FFFFFFFF", u64::MAX)] {
            assert_eq!((lsn(text), show(number)), (Some(number), text.to_owned()));
        }
        for wrong in ["", "1", "/", "1/", "x/1", "1/100000000"] {
            assert_eq!(lsn(wrong), None, "{wrong}");
        }
    }
}
