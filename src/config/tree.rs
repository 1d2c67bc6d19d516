//! A TOML document as values with their places, and how several documents become one.
//!
//! The tree knows no key. It is made by toml's recovering parser, so that one slip does not hide the next, and keeps the
//! order of the file. Merging follows DESIGN 3: tables merge, arrays of tables append, anything else set twice is an error.

use super::problem::{Place, Problem, Sources};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// The kinds of TOML values.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(Text),
    /// `None` = beyond 64 bits.
    Integer(Option<i64>),
    Float,
    Flag(bool),
    Date,
    List(Vec<Node>),
    Table(Table),
}

/// A string and what became of its references.
#[derive(Debug, Clone)]
pub(super) struct Text {
    pub(super) value: String,
    pub(super) origin: Origin,
}

/// How a string came to its value; the worst of its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// As written.
    Written,
    /// With variables filled in.
    Variable,
    /// With the content of a file: never shown.
    Secret,
    /// A variable is not set (in `check`), so its value is unknown and not worth a complaint.
    Unset,
}

/// The entries of a table in the order of the file.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub(super) entries: Vec<Entry>,
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_place: Place,
    pub(super) node: Node,
}

impl Value {
    /// The kind with its article, for sentences.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float => "a float",
            Value::Flag(_) => "a boolean",
            Value::Date => "a date",
            Value::List(_) => "an array",
            Value::Table(_) => "a table",
        }
    }
}

impl Table {
    /// Takes an entry out.
    pub(super) fn take(&mut self, key: &str) -> Option<Entry> {
        let at = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.remove(at))
    }

    /// Whether a key is there.
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Takes in another document's table.
    pub(super) fn merge(&mut self, other: Table, problems: &mut Vec<Problem>) {
        for entry in other.entries {
            match self.entries.iter_mut().find(|own| own.key == entry.key) {
                None => self.entries.push(entry),
                Some(own) => own.merge(entry, problems),
            }
        }
    }
}

impl Entry {
    fn merge(&mut self, other: Entry, problems: &mut Vec<Problem>) {
        match (&mut self.node.value, other.node.value) {
            (Value::Table(own), Value::Table(other)) => own.merge(other, problems),
            (Value::List(own), Value::List(other)) if of_tables(own) && of_tables(&other) => own.extend(other),
            _ => problems.push(
                Problem::at(other.key_place, format!("`{}` is set twice", self.key))
                    .label("set again here")
                    .spot(self.key_place, "first set here")
                    .help("a key belongs into one file only; remove one of them"),
            ),
        }
    }
}

fn of_tables(list: &[Node]) -> bool {
    !list.is_empty() && list.iter().all(|node| matches!(node.value, Value::Table(_)))
}

/// Fills in the references of a string value; `None` if that failed, which is then already reported.
pub(super) type Expand<'a> = dyn FnMut(&str, Place, &Sources) -> Option<Text> + 'a;

/// Parses a source that was added to `sources`. Every syntax error becomes a problem; the table is what could be read.
pub(super) fn parse(source: usize, sources: &Sources, expand: &mut Expand<'_>, problems: &mut Vec<Problem>) -> Table {
    let text = sources.get(source).map_or("", |source| &source.text);
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let place = at(source, error.span().unwrap_or(0..0));
        problems.push(Problem::at(place, format!("this is not TOML: {}", error.message())));
    }
    Grower { source, sources, expand }.table(root.into_inner())
}

struct Grower<'a, 'b> {
    source: usize,
    sources: &'a Sources,
    expand: &'a mut Expand<'b>,
}

impl Grower<'_, '_> {
    fn table(&mut self, table: DeTable<'_>) -> Table {
        let mut entries: Vec<Entry> = Vec::with_capacity(table.len());
        for (key, value) in table {
            let key_place = at(self.source, key.span());
            if let Some(node) = self.node(value) {
                entries.push(Entry { key: key.into_inner().into_owned(), key_place, node });
            }
        }
        entries.sort_by_key(|entry| entry.key_place);
        Table { entries }
    }

    fn node(&mut self, value: Spanned<DeValue<'_>>) -> Option<Node> {
        let place = at(self.source, value.span());
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Text((self.expand)(&text, place, self.sources)?),
            DeValue::Integer(number) => Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok()),
            DeValue::Float(_) => Value::Float,
            DeValue::Boolean(flag) => Value::Flag(flag),
            DeValue::Datetime(_) => Value::Date,
            DeValue::Array(list) => Value::List(list.into_iter().filter_map(|item| self.node(item)).collect()),
            DeValue::Table(table) => Value::Table(self.table(table)),
        };
        Some(Node { place, value })
    }
}

fn at(source: usize, span: Range<usize>) -> Place {
    Place { source, start: span.start, end: span.end }
}
