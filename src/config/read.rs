//! The declarative reader: a table is declared once, and the declaration both reads it and describes it.
//!
//! `table!` makes a struct whose fields are [`Field`]s, a [`Read`] that collects every unknown key, wrong type and bad
//! value with its place instead of stopping at the first, and the table's JSON Schema. The two cannot disagree.
//! (A serde derive stops at the first error, and `flatten` and untagged enums lose the place.)

use super::problem::{Place, Problem, Sources, without_logins};
use super::tree::{Node, Origin, Table, Text, Value};
use serde_json::{Value as Json, json};
use std::ops::Range;

/// What stands under a key.
#[derive(Debug, Clone, Default)]
pub enum Field<T> {
    /// Nothing: the key is not written.
    #[default]
    Absent,
    /// Something unreadable, which is reported (or unknown, because a variable is not set).
    Faulty(Place),
    /// A value.
    Is(At<T>),
}

/// A value and its places.
#[derive(Debug, Clone)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where the value stands.
    pub place: Place,
    /// Where its key stands; for elements of an array the element.
    pub key: Place,
}

impl<T> Field<T> {
    /// Whether the key is written, readable or not.
    pub fn is_written(&self) -> bool {
        !matches!(self, Field::Absent)
    }

    /// The value with its places, if it is there and readable.
    pub fn at(&self) -> Option<&At<T>> {
        match self {
            Field::Is(at) => Some(at),
            _ => None,
        }
    }

    /// The value, if it is there and readable.
    pub fn get(&self) -> Option<&T> {
        self.at().map(|at| &at.value)
    }

    /// Where the key stands, if it is written.
    pub fn place(&self) -> Option<Place> {
        match self {
            Field::Absent => None,
            Field::Faulty(place) => Some(*place),
            Field::Is(at) => Some(at.key),
        }
    }
}

/// What can be read from a tree and described by a JSON Schema.
pub trait Read: Sized {
    /// Reads a value; `None` after reporting why not.
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self>;

    /// Its JSON Schema.
    fn schema() -> Json;
}

/// What is written as one string.
pub trait Leaf: Sized {
    /// What it is, with an example, to end the sentence "this is not …".
    const WHAT: &'static str;

    /// Reads it.
    fn parse(text: &str) -> Result<Self, Wrong>;

    /// Its JSON Schema beside `type` and `description`.
    fn narrow(_schema: &mut Json) {}
}

/// Why a string is not what it should be.
#[derive(Debug, Default)]
pub struct Wrong {
    /// The octets at fault; `None` = all.
    pub span: Option<Range<usize>>,
    /// What is wrong; empty = "this is not " and what it should be.
    pub wrong: String,
    /// How to mend it; may be empty.
    pub remedy: String,
}

impl Wrong {
    /// With a sentence and a remedy.
    pub fn new(wrong: impl Into<String>, remedy: impl Into<String>) -> Self {
        Wrong { span: None, wrong: wrong.into(), remedy: remedy.into() }
    }
}

/// Collects what is wrong while a tree is read.
#[derive(Debug)]
pub struct Reader<'a> {
    sources: &'a Sources,
    /// What is wrong with what is there.
    pub problems: Vec<Problem>,
    /// What is not there but must be.
    pub missing: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// A reader that knows the texts that places point into.
    pub fn new(sources: &'a Sources) -> Self {
        Reader { sources, problems: Vec::new(), missing: Vec::new() }
    }

    /// The folder that relative paths of a value count from.
    pub(super) fn folder(&self, node: &Node) -> &std::path::Path {
        self.sources.folder(node.place)
    }

    /// Reports a value of the wrong kind.
    pub(super) fn mismatch<T>(&mut self, node: &Node, expected: &str, remedy: &str) -> Option<T> {
        let wrong = format!("expected {expected}, found {}", node.value.kind());
        self.problems.push(Problem::at(node.place, wrong).help(remedy));
        None
    }

    /// The string at a node, or a report.
    pub(super) fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n Text> {
        match &node.value {
            Value::Text(text) => Some(text),
            _ => self.mismatch(node, "a string", &format!("write {what}")),
        }
    }

    /// Reports a string that is not what it should be, without showing what came from a file.
    pub(super) fn wrong<T>(&mut self, node: &Node, text: &Text, what: &str, wrong: Wrong) -> Option<T> {
        let whole = Wrong::new(format!("this is not {what}"), "");
        let wrong = match text.origin {
            Origin::Unset => return None,
            Origin::Secret => whole,
            _ if wrong.wrong.is_empty() => Wrong { wrong: whole.wrong, ..wrong },
            _ => wrong,
        };
        let place = wrong.span.map_or(node.place, |span| within(self.sources, node.place, &text.value, span));
        let mut problem = Problem::at(place, wrong.wrong);
        if text.origin == Origin::Variable {
            problem = problem.label(format!("here `{}`", without_logins(&text.value)));
        }
        self.problems.push(problem.help(if wrong.remedy.is_empty() { format!("write {what}") } else { wrong.remedy }));
        None
    }
}

/// The place of some octets of a string value: exact where the source spells the value out, else the whole string.
pub(super) fn within(sources: &Sources, place: Place, value: &str, span: Range<usize>) -> Place {
    let raw = sources.text(place);
    let quotes = if raw.starts_with("\"\"\"") || raw.starts_with("'''") { 3 } else { 1 };
    let inner = raw.len().checked_sub(quotes).and_then(|end| raw.get(quotes..end));
    if inner != Some(value) || span.end > value.len() {
        return place;
    }
    let start = place.start + quotes;
    Place { start: start + span.start, end: start + span.end.max(span.start), ..place }
}

impl<T: Leaf> Read for T {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(node, T::WHAT)?;
        T::parse(&text.value).or_else(|wrong| reader.wrong(node, text, T::WHAT, wrong).ok_or(())).ok()
    }

    fn schema() -> Json {
        let mut schema = json!({ "type": "string", "description": T::WHAT });
        T::narrow(&mut schema);
        schema
    }
}

impl Read for bool {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match node.value {
            Value::Flag(flag) => Some(flag),
            _ => reader.mismatch(node, "a boolean", "write true or false"),
        }
    }

    fn schema() -> Json {
        json!({ "type": "boolean" })
    }
}

/// A whole number within bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count<const MIN: u32, const MAX: u32>(pub u32);

impl<const MIN: u32, const MAX: u32> Read for Count<MIN, MAX> {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::Integer(number) = node.value else {
            return reader.mismatch(node, "an integer", &format!("write a number from {MIN} to {MAX}"));
        };
        let number = number.and_then(|number| u32::try_from(number).ok()).filter(|number| (MIN..=MAX).contains(number));
        if number.is_none() {
            let wrong = "this number is out of range";
            reader.problems.push(Problem::at(node.place, wrong).help(format!("write a number from {MIN} to {MAX}")));
        }
        number.map(Count)
    }

    fn schema() -> Json {
        json!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

impl<T: Read> Read for Vec<At<T>> {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::List(items) = &node.value else {
            return reader.mismatch(node, "an array", "write it in brackets, [ … ], and tables of it as [[name]]");
        };
        Some(items.iter().filter_map(|item| element(item, reader)).collect())
    }

    fn schema() -> Json {
        json!({ "type": "array", "items": T::schema() })
    }
}

/// One value, or an array of them.
#[derive(Debug, Clone)]
pub struct OneOrMany<T>(pub Vec<At<T>>);

impl<T: Read> Read for OneOrMany<T> {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::List(_) => Vec::read(node, reader).map(OneOrMany),
            _ => Some(OneOrMany(vec![element(node, reader)?])),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [T::schema(), { "type": "array", "items": T::schema(), "minItems": 1 }] })
    }
}

/// A table, or a short form of it.
#[derive(Debug, Clone)]
pub enum Either<S, T> {
    /// The short form.
    Short(S),
    /// The table.
    Table(T),
}

impl<S: Read, T: Read> Read for Either<S, T> {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match node.value {
            Value::Table(_) => T::read(node, reader).map(Either::Table),
            _ => S::read(node, reader).map(Either::Short),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [S::schema(), T::schema()] })
    }
}

/// Tables (or strings) under names of the operator's choice.
#[derive(Debug, Clone)]
pub struct Named<K, T>(pub Vec<(At<K>, At<T>)>);

impl<K: Leaf, T: Read> Read for Named<K, T> {
    fn read(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::Table(table) = &node.value else {
            return reader.mismatch(node, "a table", "write it as [section.NAME] or in braces: { … }");
        };
        let pairs = table.entries.iter().filter_map(|entry| {
            let text = Text { value: entry.key.clone(), origin: Origin::Written };
            let node = Node { place: entry.key_place, value: Value::Text(text) };
            let name = K::read(&node, reader);
            let value = T::read(&entry.node, reader)?;
            let at = At { value, place: entry.node.place, key: entry.key_place };
            Some((At { value: name?, place: entry.key_place, key: entry.key_place }, at))
        });
        Some(Named(pairs.collect()))
    }

    fn schema() -> Json {
        json!({ "type": "object", "additionalProperties": T::schema() })
    }
}

fn element<T: Read>(node: &Node, reader: &mut Reader<'_>) -> Option<At<T>> {
    Some(At { value: T::read(node, reader)?, place: node.place, key: node.place })
}

/// One table being read: keys are taken by name, and what remains is unknown.
pub(super) struct Keys {
    table: Table,
    place: Place,
    name: &'static str,
}

impl Keys {
    pub(super) fn open(node: &Node, name: &'static str, reader: &mut Reader<'_>) -> Option<Keys> {
        match &node.value {
            Value::Table(table) => Some(Keys { table: table.clone(), place: node.place, name }),
            _ => reader.mismatch(node, "a table", &format!("{name} has keys of its own: see `coordinator schema`")),
        }
    }

    pub(super) fn field<T: Read>(&mut self, key: &str, reader: &mut Reader<'_>) -> Field<T> {
        let Some(entry) = self.table.take(key) else { return Field::Absent };
        match T::read(&entry.node, reader) {
            Some(value) => Field::Is(At { value, place: entry.node.place, key: entry.key_place }),
            None => Field::Faulty(entry.key_place),
        }
    }

    pub(super) fn require<T>(&self, field: &Field<T>, key: &str, reader: &mut Reader<'_>) {
        if !field.is_written() {
            let wrong = format!("`{key}` is missing in {}", self.name);
            let problem =
                if self.place == Place::default() { Problem::new(wrong) } else { Problem::at(self.place, wrong) };
            reader
                .missing
                .push(problem.help(format!("add `{key}`; `coordinator schema` and config/edge.toml list every key")));
        }
    }

    /// Reports what nobody took.
    pub(super) fn close(self, known: &[&str], reader: &mut Reader<'_>) {
        for entry in self.table.entries {
            let wrong = format!("`{}` is not a key of {}", entry.key, self.name);
            let remedy = match nearest(&entry.key, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the keys here are {}", known.join(", ")),
            };
            reader.problems.push(Problem::at(entry.key_place, wrong).label("unknown key").help(remedy));
        }
    }
}

/// The known word that a misspelt one was probably meant to be.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let distance = |near: &str| strsim::damerau_levenshtein(&word.to_lowercase(), near);
    let best = known.iter().copied().min_by_key(|near| distance(near))?;
    (distance(best) <= (word.chars().count().max(best.len()) / 3).max(1)).then_some(best)
}

/// Declares tables. Each field: documentation, key, name, type, and `= required` or `= "default"` for the schema.
macro_rules! table {
    (@required required) => { true };
    (@required $default:literal) => { false };
    (@default required) => { None };
    (@default $default:literal) => { Some(serde_json::Value::from($default)) };
    ($(
        $(#[doc = $doc:literal])*
        $name:ident($shown:literal) {
            $( $(#[doc = $field_doc:literal])* $key:literal $field:ident: $type:ty $(= $flag:tt)?; )*
        }
    )*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Default)]
        pub struct $name {
            $( $(#[doc = $field_doc])* pub $field: $crate::config::read::Field<$type>, )*
        }

        impl $crate::config::read::Read for $name {
            fn read(
                node: &$crate::config::tree::Node,
                reader: &mut $crate::config::read::Reader<'_>,
            ) -> Option<Self> {
                let mut keys = $crate::config::read::Keys::open(node, $shown, reader)?;
                let read = $name { $( $field: keys.field($key, reader), )* };
                $($( if table!(@required $flag) { keys.require(&read.$field, $key, reader); } )?)*
                keys.close(&[$($key),*], reader);
                Some(read)
            }

            fn schema() -> serde_json::Value {
                let mut shape = $crate::config::read::Shape::default();
                $(
                    #[allow(unused_mut, unused_assignments)]
                    let (mut required, mut default) = (false, None::<serde_json::Value>);
                    $( (required, default) = (table!(@required $flag), table!(@default $flag)); )?
                    shape.add::<$type>($key, concat!($($field_doc),*), required, default);
                )*
                shape.finish(concat!($($doc),*))
            }
        }
    )*};
}

/// Declares enumerations of words.
macro_rules! words {
    ($( $(#[doc = $doc:literal])* $name:ident { $( $(#[doc = $word_doc:literal])* $word:literal $variant:ident, )* } )*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $( $(#[doc = $word_doc])* $variant, )* }

        impl $crate::config::read::Leaf for $name {
            const WHAT: &'static str = concat!("one of" $(, " \"", $word, "\"")*);

            fn parse(text: &str) -> Result<Self, $crate::config::read::Wrong> {
                match text {
                    $( $word => Ok($name::$variant), )*
                    _ => Err($crate::config::read::unknown_word(text, &[$($word),*])),
                }
            }

            fn narrow(schema: &mut serde_json::Value) {
                schema["enum"] = serde_json::json!([$($word),*]);
            }
        }
    )*};
}

pub(super) use {table, words};

/// A word that is none of those allowed.
pub(super) fn unknown_word(text: &str, known: &[&str]) -> Wrong {
    let list = known.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    let remedy = match nearest(text, known) {
        Some(near) => format!("did you mean \"{near}\"? Allowed: {list}"),
        None => format!("allowed: {list}"),
    };
    Wrong::new(format!("`{text}` is not known here"), remedy)
}

/// A table's JSON Schema in the making.
#[derive(Debug, Default)]
pub(super) struct Shape {
    properties: serde_json::Map<String, Json>,
    required: Vec<&'static str>,
}

impl Shape {
    pub(super) fn add<T: Read>(&mut self, key: &'static str, doc: &str, required: bool, default: Option<Json>) {
        let mut schema = T::schema();
        let format = schema.get("description").and_then(Json::as_str).map(|what| format!(" ({what})"));
        schema["description"] = format!("{}{}", doc.trim(), format.unwrap_or_default()).into();
        if let Some(default) = default {
            schema["default"] = default;
        }
        if required {
            self.required.push(key);
        }
        self.properties.insert(key.to_owned(), schema);
    }

    pub(super) fn finish(self, doc: &str) -> Json {
        let mut schema = json!({
            "type": "object",
            "description": doc.trim(),
            "additionalProperties": false,
            "properties": self.properties,
        });
        if !self.required.is_empty() {
            schema["required"] = self.required.into();
        }
        schema
    }
}
