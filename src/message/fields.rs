//! The field section of a message: one buffer and an index of lines.
//!
//! Order, repetition and the sender's spelling are kept; well-known names carry a small id, so a look-up compares one
//! octet. This is not a hash map on purpose: a proxy edits a few lines and passes the rest (DESIGN 8). The engines
//! beneath may change how the buffer is filled without touching what stands on it.

use super::method::is_token;
use super::name::{Name, Names};
use crate::base::swar;
use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::ops::Range;

/// One line of a field section, borrowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The id of the name.
    pub id: Name,
    /// The name as the sender spelt it.
    pub name: &'a [u8],
    /// The value without surrounding whitespace.
    pub value: &'a [u8],
}

impl fmt::Debug for Field<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.name.escape_ascii(), self.value.escape_ascii())
    }
}

/// Where a line stands among the octets.
#[derive(Debug, Clone, Copy)]
struct Line {
    id: Name,
    at: u32,
    name_len: u32,
    value_len: u32,
}

/// What stands between a name and its value, and what ends a line.
const COLON: &[u8] = b": ";
const END: &[u8] = b"\r\n";

impl Line {
    /// The octets of the whole line, its end included.
    fn span(&self) -> Range<usize> {
        let at = self.at as usize;
        at..at + self.name_len as usize + COLON.len() + self.value_len as usize + END.len()
    }
}

/// An ordered list of field lines.
///
/// The octets hold each line as it is written, `name: value CRLF`, so that lines which follow each other are written in
/// one piece.
/// Behind one pointer, because a head changes hands many times; `None` while there has been no line.
#[derive(Default)]
pub struct Fields(Option<Box<Section>>);

/// What a field section consists of.
#[derive(Default)]
struct Section {
    octets: Vec<u8>,
    lines: Vec<Line>,
    seen: Seen,
}

/// What a section is before its first line.
static NOTHING: Section = Section { octets: Vec::new(), lines: Vec::new(), seen: Seen::NOTHING };

/// What is among the lines: most questions are about what is not there, and end here. All but `names` may still tell of
/// lines that are gone.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    names: Names,
    /// One bit for the first letter of each other name; the last one for everything that is no letter.
    initials: u32,
    /// Whether any name holds `_`.
    underscore: bool,
    /// Whether any name is no token.
    nameless: bool,
}

impl Seen {
    const NOTHING: Seen = Seen { names: Names::of(&[]), initials: 0, underscore: false, nameless: false };

    #[inline]
    fn note(&mut self, id: Name, name: &[u8]) {
        self.names.insert(id);
        if id == Name::Other {
            self.note_other(name);
        }
    }

    fn note_other(&mut self, name: &[u8]) {
        self.initials |= initial(name.first().copied().unwrap_or_default());
        // Letters and dashes, as in nearly all names, are neither.
        if swar::is_free(name, swar::unlike_name) != Some(true) {
            self.underscore |= name.contains(&b'_');
            self.nameless |= !is_token(name);
        }
    }
}

/// The bit of a first letter, in any case.
fn initial(octet: u8) -> u32 {
    let place = octet.to_ascii_lowercase().wrapping_sub(b'a');
    1 << if place < 26 { place } else { 26 }
}

impl Fields {
    /// No lines.
    pub fn new() -> Self {
        Fields::default()
    }

    /// No lines, with room for those of most messages and `octets` of names and values: in memory that a message left
    /// behind which is gone, if there is some.
    pub fn with_room(octets: usize) -> Self {
        let mut section = taken();
        section.lines.reserve(LINES);
        section.octets.reserve(octets.max(OCTETS));
        Fields(Some(section))
    }

    #[inline]
    fn section(&self) -> &Section {
        self.0.as_deref().unwrap_or(&NOTHING)
    }

    #[inline]
    fn section_mut(&mut self) -> &mut Section {
        self.0.get_or_insert_with(taken)
    }

    /// Appends a line. CR, LF and NUL in the value become spaces, so that nothing that we build can split a message; a line
    /// whose name is no token is never written.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let section = self.section_mut();
        let at = section.octets.len();
        section.octets.reserve(name.len() + COLON.len() + value.len() + END.len());
        section.octets.extend_from_slice(name);
        section.octets.extend_from_slice(COLON);
        section.octets.extend_from_slice(value);
        section.clean(at + name.len() + COLON.len());
        section.close(Name::of(name), name, at, value.len());
    }

    /// Appends a line whose grammar an engine has checked: the name is a token, and nothing in the value ends a line.
    pub(crate) fn pass(&mut self, name: &[u8], value: &[u8]) {
        debug_assert!(is_token(name) && !value.iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0)), "checked");
        let section = self.section_mut();
        let at = section.octets.len();
        section.octets.reserve(name.len() + COLON.len() + value.len() + END.len());
        section.octets.extend_from_slice(name);
        section.octets.extend_from_slice(COLON);
        section.octets.extend_from_slice(value);
        section.close(Name::of(name), name, at, value.len());
    }

    /// Appends a line under a well-known name in its lower-case spelling.
    ///
    /// Inlined, because callers name the name: how the line begins is then a constant.
    #[inline]
    pub fn add(&mut self, id: Name, value: impl AsRef<[u8]>) {
        let (start, value, section) = (id.start().as_bytes(), value.as_ref(), self.section_mut());
        let at = section.octets.len();
        section.octets.reserve(start.len() + value.len() + END.len());
        section.octets.extend_from_slice(start);
        section.octets.extend_from_slice(value);
        section.clean(at + start.len());
        section.close(id, id.as_str().as_bytes(), at, value.len());
    }

    /// Appends a whole line as it is written, which is known to be one.
    pub(crate) fn add_line(&mut self, id: Name, line: &'static str) {
        debug_assert!(line.strip_prefix(id.start()).is_some_and(|rest| rest.find("\r\n") == Some(rest.len() - 2)));
        let (name, section) = (id.as_str(), self.section_mut());
        let at = section.octets.len();
        section.octets.extend_from_slice(line.as_bytes());
        section.note(id, name.as_bytes(), at, line.len() - name.len() - COLON.len() - END.len());
    }

    /// Appends a line that was made before.
    pub fn add_ready(&mut self, ready: &Ready) {
        let section = self.section_mut();
        let at = section.octets.len() as u32;
        section.octets.extend_from_slice(&ready.octets);
        section.seen.names.insert(ready.line.id);
        section.lines.push(Line { at, ..ready.line });
    }

    /// Appends a line under a well-known name, its value known to hold no control octet.
    #[inline]
    pub(crate) fn plain(&mut self, id: Name, value: &[u8]) {
        debug_assert!(!value.iter().any(u8::is_ascii_control), "known to be plain");
        let (start, section) = (id.start().as_bytes(), self.section_mut());
        let at = section.octets.len();
        section.octets.reserve(start.len() + value.len() + END.len());
        section.octets.extend_from_slice(start);
        section.octets.extend_from_slice(value);
        section.close(id, id.as_str().as_bytes(), at, value.len());
    }

    /// Appends a line under a well-known name, its value written in place: nothing is allocated but room for it.
    pub fn put(&mut self, id: Name, value: impl fmt::Display) {
        let (start, section) = (id.start().as_bytes(), self.section_mut());
        let at = section.octets.len();
        section.octets.extend_from_slice(start);
        let written = write!(Value(&mut section.octets), "{value}");
        debug_assert!(written.is_ok(), "memory takes everything");
        section.clean(at + start.len());
        let value_len = section.octets.len() - at - start.len();
        section.close(id, id.as_str().as_bytes(), at, value_len);
    }

    /// The lines as an engine reads them, of which there are none yet.
    pub(crate) fn reading(&mut self) -> Reading<'_> {
        debug_assert!(self.is_empty(), "a section is read once");
        Reading(self.section_mut())
    }

    /// Replaces all lines of a well-known name by one.
    pub fn set(&mut self, id: Name, value: impl AsRef<[u8]>) {
        self.remove(id);
        self.add(id, value);
    }

    /// The first value of a well-known name.
    pub fn get(&self, id: Name) -> Option<&[u8]> {
        self.all(id).next()
    }

    /// The first value of a well-known name, if it is UTF-8.
    pub fn text(&self, id: Name) -> Option<&str> {
        self.get(id).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All values of a well-known name, in order. Cost: nothing, if there never was one.
    pub fn all(&self, id: Name) -> impl Iterator<Item = &[u8]> {
        let section = self.section();
        let lines = if section.seen.names.hold(id) { &section.lines[..] } else { &[] };
        lines.iter().filter(move |line| line.id == id).map(|line| borrow(&section.octets, line).value)
    }

    /// All values of any name, in any case.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes())).map(|field| field.value)
    }

    /// Whether a well-known name occurs. Cost: a look at one word.
    #[inline]
    pub fn has(&self, id: Name) -> bool {
        self.section().seen.names.hold(id)
    }

    /// Whether any of these names occurs. Cost: a look at one word.
    #[inline]
    pub fn has_any(&self, names: Names) -> bool {
        self.section().seen.names.meet(names)
    }

    /// Whether a name that is not well known, and begins with this letter in any case, may occur.
    pub fn may_begin(&self, letter: u8) -> bool {
        self.section().seen.initials & initial(letter) != 0
    }

    /// Whether a name with `_` may occur.
    pub fn may_hold_underscore(&self) -> bool {
        self.section().seen.underscore
    }

    /// The elements of a comma-separated list over all lines of a name, trimmed, empty ones left out (RFC 9110 5.6.1).
    ///
    /// Not for fields whose elements hold quoted commas, nor for Set-Cookie.
    pub fn elements(&self, id: Name) -> impl Iterator<Item = &[u8]> {
        self.all(id)
            .flat_map(|value| value.split(|&c| c == b','))
            .map(|part| part.trim_ascii())
            .filter(|p| !p.is_empty())
    }

    /// Whether an element of the lists of a name is this, in any case. Cost: a look at one word, if there is no such line.
    #[inline]
    pub fn lists(&self, id: Name, what: &str) -> bool {
        self.has(id) && self.elements(id).any(|element| element.eq_ignore_ascii_case(what.as_bytes()))
    }

    /// Removes all lines of a well-known name; whether there were any.
    #[inline]
    pub fn remove(&mut self, id: Name) -> bool {
        let had = self.has(id);
        if had {
            let section = self.section_mut();
            section.lines.retain(|line| line.id != id);
            section.seen.names.remove(id);
        }
        had
    }

    /// Keeps the lines for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        let Some(Section { octets, lines, seen }) = self.0.as_deref_mut() else { return };
        seen.names = Names::default();
        lines.retain(|line| {
            let stays = keep(borrow(octets, line));
            if stays {
                seen.names.insert(line.id);
            }
            stays
        });
    }

    /// Removes the lines from number `count` on: what was added since there were so many.
    pub fn truncate(&mut self, count: usize) {
        let Some(Section { octets, lines, seen }) = self.0.as_deref_mut() else { return };
        if let Some(line) = lines.get(count) {
            octets.truncate(line.at as usize);
            lines.truncate(count);
            seen.names = Names::default();
            lines.iter().for_each(|line| seen.names.insert(line.id));
        }
    }

    /// All lines in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> + Clone {
        let section = self.section();
        section.lines.iter().map(|line| borrow(&section.octets, line))
    }

    /// All lines but those with these names, in order.
    pub fn iter_without(&self, names: Names) -> impl Iterator<Item = Field<'_>> + Clone {
        let section = self.section();
        section.lines.iter().filter(move |line| !names.hold(line.id)).map(|line| borrow(&section.octets, line))
    }

    /// The lines for which `keep` says so, as they are written, in as few pieces as they lie in.
    pub fn pieces(&self, mut keep: impl FnMut(Field<'_>) -> bool, piece: impl FnMut(&[u8])) {
        let section = self.section();
        section.pieces_of(piece, |line| {
            let field = borrow(&section.octets, line);
            keep(field) && (!section.seen.nameless || is_token(field.name))
        });
    }

    /// All lines but those with these names, as [`Fields::pieces`] gives them.
    pub fn pieces_without(&self, names: Names, piece: impl FnMut(&[u8])) {
        let section = self.section();
        if section.seen.nameless {
            return self.pieces(|field| !names.hold(field.id), piece);
        }
        section.pieces_of(piece, |line| !names.hold(line.id));
    }

    /// How many lines.
    pub fn len(&self) -> usize {
        self.section().lines.len()
    }

    /// Whether there are no lines.
    pub fn is_empty(&self) -> bool {
        self.section().lines.is_empty()
    }
}

/// A line under a well-known name that is made once for many messages.
#[derive(Debug, Clone)]
pub struct Ready {
    line: Line,
    octets: Box<[u8]>,
}

impl Ready {
    /// The line with this value, as [`Fields::put`] writes it.
    pub fn new(id: Name, value: impl fmt::Display) -> Ready {
        debug_assert!(id != Name::Other, "a well-known name");
        let mut fields = Fields::new();
        fields.put(id, value);
        let octets: Box<[u8]> = fields.section().octets.as_slice().into();
        let (name_len, value_len) = (id.as_str().len() as u32, (octets.len() - id.start().len() - END.len()) as u32);
        Ready { line: Line { id, at: 0, name_len, value_len }, octets }
    }
}

/// A section that an engine reads: it says where each line stands behind the start of the section, then brings the octets
/// of all of them. Each is `name: value CRLF`.
pub(crate) struct Reading<'a>(&'a mut Section);

impl Reading<'_> {
    /// Notes the line that `octets` begin with, `at` octets behind the start, which has a name and altogether so many; which
    /// name that is. `None`: it is no token. That is for the engine to judge, as the value is; these lines are of no use then.
    #[inline]
    pub(crate) fn line(&mut self, octets: &[u8], at: usize, name_len: usize, length: usize) -> Option<Name> {
        let id = Name::at_start(octets, name_len);
        self.known(id, at, name_len, length);
        if id == Name::Other {
            self.0.seen.note_other(octets.get(..name_len)?);
        }
        (!self.0.seen.nameless).then_some(id)
    }

    /// The same of a line whose name is known to be this one.
    #[inline]
    pub(crate) fn known(&mut self, id: Name, at: usize, name_len: usize, length: usize) {
        let value_len = length - name_len - COLON.len() - END.len();
        self.0.seen.names.insert(id);
        self.0.lines.push(Line { id, at: at as u32, name_len: name_len as u32, value_len: value_len as u32 });
    }

    /// How many lines there are so far.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.lines.len()
    }

    /// Brings their octets.
    pub(crate) fn end(self, octets: &[u8]) {
        self.0.octets.extend_from_slice(octets);
    }
}

impl Section {
    /// Makes spaces of what could end a line before its end.
    fn clean(&mut self, from: usize) {
        let odd = |octet| octet == b'\r' || octet == b'\n' || octet == 0;
        let marks = |word| swar::equal(word, b'\r') | swar::equal(word, b'\n') | swar::equal(word, 0);
        while let Some(at) = swar::find(&self.octets[from..], odd, marks) {
            self.octets[from + at] = b' ';
        }
    }

    /// Ends the line that begins at `at`.
    #[inline]
    fn close(&mut self, id: Name, name: &[u8], at: usize, value_len: usize) {
        self.octets.extend_from_slice(END);
        self.note(id, name, at, value_len);
    }

    #[inline]
    fn note(&mut self, id: Name, name: &[u8], at: usize, value_len: usize) {
        self.seen.note(id, name);
        self.lines.push(Line { id, at: at as u32, name_len: name.len() as u32, value_len: value_len as u32 });
    }

    #[inline]
    fn pieces_of(&self, mut piece: impl FnMut(&[u8]), mut keep: impl FnMut(&Line) -> bool) {
        let mut span = 0..0;
        for line in self.lines.iter().filter(|line| keep(line)) {
            let next = line.span();
            if next.start != span.end {
                piece(&self.octets[span]);
                span = next.start..next.start;
            }
            span.end = next.end;
        }
        piece(&self.octets[span]);
    }
}

/// Room for the lines of most messages, and for their octets, those included that a proxy adds.
const LINES: usize = 24;
const OCTETS: usize = 1000;

/// What a worker keeps of the memory of messages that are gone: 256 KiB, enough for those of a busy moment.
const SPARE_MAX: usize = 128;

/// Memory that has grown beyond this goes back to the system.
const SPARE_OCTETS_MAX: usize = 2 * OCTETS;

thread_local! {
    // The pointers are what is handed on.
    #[allow(clippy::vec_box)]
    static SPARE: RefCell<Vec<Box<Section>>> = const { RefCell::new(Vec::new()) };
}

/// An empty section, in memory that a message left behind which is gone, if there is some.
fn taken() -> Box<Section> {
    SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten().unwrap_or_default()
}

impl Section {
    /// Whether its memory is worth keeping.
    fn is_usual(&self) -> bool {
        (OCTETS..=SPARE_OCTETS_MAX).contains(&self.octets.capacity()) && self.lines.capacity() <= 2 * LINES
    }
}

impl Drop for Fields {
    /// The memory is used again while the processor's cache still has it.
    fn drop(&mut self) {
        let Some(mut section) = self.0.take().filter(|section| section.is_usual()) else { return };
        section.octets.clear();
        section.lines.clear();
        section.seen = Seen::NOTHING;
        // At the end of a thread there is nobody left to keep it for.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                spare.push(section);
            }
        });
    }
}

/// What a copy has room for beyond its original: it is made for a proxy to add its own lines.
const ROOM: usize = 256;

impl Clone for Fields {
    fn clone(&self) -> Self {
        let original = self.section();
        let mut copy = Fields::with_room(original.octets.len() + ROOM);
        let section = copy.section_mut();
        section.octets.extend_from_slice(&original.octets);
        section.lines.extend_from_slice(&original.lines);
        section.seen = original.seen;
        copy
    }
}

/// The end of the buffer, as text is written to it.
struct Value<'a>(&'a mut Vec<u8>);

impl fmt::Write for Value<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Each part by itself, so that nothing is done for one that nobody looks at.
#[inline]
fn borrow<'a>(octets: &'a [u8], line: &Line) -> Field<'a> {
    let at = line.at as usize;
    let value_at = at + line.name_len as usize + COLON.len();
    let part = |at: usize, length: u32| octets.get(at..at + length as usize).unwrap_or_default();
    Field { id: line.id, name: part(at, line.name_len), value: part(value_at, line.value_len) }
}

impl fmt::Debug for Fields {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Fields {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let mut fields = Fields::new();
        for (name, value) in pairs {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_spelling_and_repetition() {
        let mut fields: Fields =
            [("Set-Cookie", "a=1"), ("X-Own", "v"), ("set-cookie", "b=2"), ("Host", "h")].into_iter().collect();
        assert_eq!(fields.all(Name::SetCookie).collect::<Vec<_>>(), [b"a=1", b"b=2"]);
        assert_eq!(fields.named("x-OWN").next(), Some(&b"v"[..]));
        assert!(fields.remove(Name::Host));
        assert!(!fields.remove(Name::Host));
        fields.set(Name::SetCookie, "c=3");
        assert_eq!(format!("{fields:?}"), "[X-Own: v, set-cookie: c=3]");
    }

    #[test]
    fn memory_is_used_again_and_nothing_that_stood_in_it() {
        let mut fields = Fields::with_room(100);
        fields.push(b"a_b", b"1");
        let memory = fields.section().octets.as_ptr();
        drop(fields);
        let again = Fields::with_room(100);
        assert_eq!((again.section().octets.as_ptr(), again.len(), again.may_hold_underscore()), (memory, 0, false));
        drop(Fields::with_room(SPARE_OCTETS_MAX + 1));
        drop(Fields::new());
        assert_eq!(SPARE.with_borrow(Vec::len), 0, "neither too much nor too little");
    }

    #[test]
    fn nothing_that_is_pushed_splits_a_message() {
        let mut fields = Fields::new();
        fields.push(b"x", b"a\r\nEvil: 1\0");
        fields.add(Name::Location, "/\r\n\0");
        assert_eq!(fields.get(Name::Location), Some(&b"/   "[..]));
        fields.put(Name::Via, format_args!("{}\n{}", 1, "b\r\0"));
        assert_eq!(fields.named("x").next(), Some(&b"a  Evil: 1 "[..]));
        assert_eq!(fields.get(Name::Via), Some(&b"1 b  "[..]));
    }

    #[test]
    fn names_that_are_gone_are_not_there() {
        let mut fields: Fields = [("Host", "h"), ("TE", "a"), ("Via", "1"), ("te", "b")].into_iter().collect();
        fields.retain(|field| field.value != b"1");
        assert!(!fields.has(Name::Via) && fields.has(Name::Te) && fields.has(Name::Host));
        fields.retain(|field| field.value != b"a");
        assert!(fields.has(Name::Te), "one is left");
        fields.truncate(1);
        assert!(!fields.has(Name::Te) && fields.has_any(Names::of(&[Name::Host, Name::Te])));
        assert!(fields.remove(Name::Host) && !fields.has_any(Names::of(Name::KNOWN)));
    }

    #[test]
    fn lists_span_lines() {
        let fields: Fields = [("TE", "trailers, gzip"), ("te", " , x")].into_iter().collect();
        assert_eq!(fields.elements(Name::Te).collect::<Vec<_>>(), [&b"trailers"[..], b"gzip", b"x"]);
        assert!(fields.lists(Name::Te, "GZIP") && !fields.lists(Name::Te, "gz") && !fields.lists(Name::Via, "x"));
    }
}
