//! Heads of responses as the engine takes them, made after the like of those that were sent lately.
//!
//! The engine wants a hash map of each head. Most answers of an application have the same names in the same order, and
//! share some values: a copy of such a map, in which the values that differ are replaced, costs a third of a new one.
//!
//! Invariant: what is kept of a message are names, and values of such names as say nothing of who asked.

use crate::message::{Field, Name, Names};
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;
use std::cell::RefCell;
use std::sync::LazyLock;

/// How many shapes a worker keeps: an application has few, and each is compared with in turn.
const KEPT_MAX: usize = 8;

/// Larger sections, names and values are not kept: these bound what a worker keeps to some 40 KiB.
const LINES_MAX: usize = 24;
const NAME_MAX: usize = 48;
const VALUE_MAX: usize = 96;

/// Of so many sections that are like none that is kept, one is: where all differ, keeping them would cost more than it
/// saves.
const KEPT_OF: usize = 8;

/// Names whose values are the same for all who ask.
const COMMON: Names = Names::of(&[
    Name::Server,
    Name::Date,
    Name::Via,
    Name::ContentType,
    Name::ContentEncoding,
    Name::CacheControl,
    Name::Vary,
]);

thread_local! {
    static RECENT: RefCell<Recent> = const { RefCell::new(Recent { shapes: Vec::new(), unlike: 0 }) };
}

/// A section of these lines, which can be gone through more than once. A line that the `http` crate does not take cannot
/// have come from an engine, and is left out; so is what is more than its map can hold.
pub(super) fn section<'a>(lines: impl Iterator<Item = Field<'a>> + Clone) -> HeaderMap {
    RECENT.with_borrow_mut(|recent| recent.like(lines.clone())).unwrap_or_else(|| {
        let map = fresh(lines.clone());
        RECENT.with_borrow_mut(|recent| recent.note(lines, &map));
        map
    })
}

/// A section that is made line by line.
pub(super) fn fresh<'a>(lines: impl Iterator<Item = Field<'a>> + Clone) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(lines.clone().count());
    for field in lines {
        if let (Some(name), Ok(value)) = (name(&field), HeaderValue::from_bytes(field.value)) {
            let _ = map.try_append(name, value);
        }
    }
    map
}

/// The name of a line; well-known ones are not parsed.
fn name(field: &Field<'_>) -> Option<HeaderName> {
    static KNOWN: LazyLock<Vec<HeaderName>> =
        LazyLock::new(|| Name::KNOWN.iter().map(|id| HeaderName::from_static(id.as_str())).collect());
    match KNOWN.get(field.id as usize) {
        Some(name) => Some(name.clone()),
        None => HeaderName::from_bytes(field.name).ok(),
    }
}

/// The shapes that a worker has seen.
struct Recent {
    shapes: Vec<Shape>,
    unlike: usize,
}

/// A section of which no name occurs twice.
struct Shape {
    lines: Vec<Kept>,
    /// The same names and values in the same order.
    map: HeaderMap,
}

/// What is kept of a line.
struct Kept {
    id: Name,
    /// As the name was spelt, where it is not well known.
    name: Box<[u8]>,
    /// Empty, if it is not common.
    value: HeaderValue,
}

impl Recent {
    fn like<'a>(&mut self, lines: impl Iterator<Item = Field<'a>> + Clone) -> Option<HeaderMap> {
        self.shapes.iter_mut().find_map(|shape| shape.cast(lines.clone()))
    }

    /// Keeps one of [`KEPT_OF`], in the place of the oldest.
    fn note<'a>(&mut self, lines: impl Iterator<Item = Field<'a>> + Clone, map: &HeaderMap) {
        let due = self.unlike.is_multiple_of(KEPT_OF);
        self.unlike = self.unlike.wrapping_add(1);
        if due && let Some(shape) = Shape::of(lines, map) {
            self.shapes.truncate(KEPT_MAX - 1);
            self.shapes.insert(0, shape);
        }
    }
}

impl Shape {
    /// `None` where a name occurs twice, a line was left out, or there is too much of it.
    fn of<'a>(lines: impl Iterator<Item = Field<'a>> + Clone, map: &HeaderMap) -> Option<Shape> {
        let small = |field: Field<'_>| field.name.len() <= NAME_MAX;
        let count = lines.clone().count();
        if count > LINES_MAX || map.keys_len() != count || !lines.clone().all(small) {
            return None;
        }
        let empty = HeaderValue::from_static("");
        let kept = |field: Field<'a>| {
            let name = if field.id == Name::Other { field.name.into() } else { Box::default() };
            Kept { id: field.id, name, value: empty.clone() }
        };
        let map = map.keys().map(|name| (name.clone(), empty.clone())).collect();
        Some(Shape { lines: lines.map(kept).collect(), map })
    }

    /// A map of lines that have the same names in the same order; `None` where they have not, or one of them is not to be
    /// sent.
    fn cast<'a>(&mut self, lines: impl Iterator<Item = Field<'a>>) -> Option<HeaderMap> {
        let (mut count, mut differ) = (0, SmallVec::<[(usize, &'a [u8]); 8]>::new());
        for field in lines {
            let kept = self.lines.get(count).filter(|kept| kept.has_name(&field))?;
            if kept.value.as_bytes() != field.value {
                differ.push((count, field.value));
            }
            count += 1;
        }
        if count < self.lines.len() {
            return None;
        }
        let mut map = self.map.clone();
        let (mut values, mut passed) = (map.values_mut(), 0);
        for &(at, octets) in &differ {
            let value = HeaderValue::from_bytes(octets).ok()?;
            self.keep(at, &value);
            *values.nth(at - passed)? = value;
            passed = at + 1;
        }
        Some(map)
    }

    /// Keeps the value of the line at this place, if it is common.
    fn keep(&mut self, at: usize, value: &HeaderValue) {
        if let Some(kept) = self.lines.get_mut(at)
            && COMMON.hold(kept.id)
            && value.len() <= VALUE_MAX
            && let Some(place) = self.map.values_mut().nth(at)
        {
            (kept.value, *place) = (value.clone(), value.clone());
        }
    }
}

impl Kept {
    fn has_name(&self, field: &Field<'_>) -> bool {
        field.id == self.id && (field.id != Name::Other || field.name == &*self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Fields;

    /// What the engine would send.
    fn sent(map: &HeaderMap) -> String {
        let line = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}={}; ", value.to_str().unwrap());
        map.iter().map(line).collect()
    }

    fn fields(lines: &[(&str, &str)]) -> Fields {
        lines.iter().copied().collect()
    }

    /// Sends sections one after the other; each must be as if it were the only one.
    #[test]
    fn a_section_is_the_same_whatever_was_sent_before() {
        let plain = [("Server", "s"), ("Date", "1"), ("X-Id", "7"), ("Set-Cookie", "a=1")];
        let mut other = plain;
        (other[1].1, other[2].1, other[3].1) = ("2", "", "b=2");
        let mut misspelt = plain;
        misspelt[2].0 = "x-id";
        let twice = [("Set-Cookie", "a"), ("X", "1"), ("set-cookie", "b")];
        let sections =
            [&plain[..], &other, &plain, &plain[..3], &plain[..0], &twice, &twice, &misspelt, &[("X-Id", "7")], &other];
        for _ in 0..2 * KEPT_OF {
            for lines in sections {
                let fields = fields(lines);
                assert_eq!(sent(&section(fields.iter())), sent(&fresh(fields.iter())), "{lines:?}");
            }
        }
        RECENT.with_borrow(|recent| assert!((1..=KEPT_MAX).contains(&recent.shapes.len())));
    }

    #[test]
    fn only_common_values_are_kept() {
        let long = "l".repeat(VALUE_MAX + 1);
        for _ in 0..2 {
            let lines =
                [("Server", "s"), ("Vary", &*long), ("Set-Cookie", "secret"), ("Location", "secret"), ("X", "secret")];
            section(fields(&lines).iter());
        }
        let kept = RECENT.with_borrow(|recent| sent(&recent.shapes[0].map));
        assert_eq!(kept, "server=s; vary=; set-cookie=; location=; x=; ");
    }

    #[test]
    fn what_cannot_be_sent_is_left_out() {
        let good = fields(&[("X", "fine"), ("Server", "s")]);
        let mut bad = Fields::new();
        bad.push(b"X", b"\x01");
        bad.push(b"Server", b"s");
        for _ in 0..3 {
            assert_eq!(sent(&section(good.iter())), "x=fine; server=s; ");
            assert_eq!(sent(&section(bad.iter())), "server=s; ");
        }
        bad.push(b"no name", b"v");
        assert_eq!(sent(&section(bad.iter())), "server=s; ");
    }

    #[test]
    fn what_is_large_or_new_each_time_is_not_kept() {
        let name = "n".repeat(NAME_MAX + 1);
        let many: Vec<_> = (0..=LINES_MAX).map(|number| format!("n{number}")).collect();
        let many: Vec<_> = many.iter().map(|name| (&**name, "v")).collect();
        section(fields(&[(&name, "v")]).iter());
        (0..KEPT_OF - 1).for_each(|number| drop(section(fields(&[(&format!("x{number}"), "v")]).iter())));
        section(fields(&many).iter());
        RECENT.with_borrow(|recent| assert_eq!(recent.shapes.len(), 0));
        (0..100 * KEPT_OF).for_each(|number| drop(section(fields(&[(&format!("y{number}"), "v")]).iter())));
        RECENT.with_borrow(|recent| assert_eq!(recent.shapes.len(), KEPT_MAX));
    }
}
