//! What is wrong with a configuration: where, what, and how to mend it.
//!
//! A problem points at octets of a source that was read; it never holds the value of a `${file:…}` reference (`load`
//! sees to that). Rendering is annotate-snippets', in the form that rustc made familiar.

use annotate_snippets::{AnnotationKind, Group, Level as Title, Renderer, Snippet, renderer::DecorStyle};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Some octets of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// The index of the source in [`Sources`].
    pub source: usize,
    /// The first octet.
    pub start: usize,
    /// One behind the last octet.
    pub end: usize,
}

/// A text that was read.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name as problems show it.
    pub name: String,
    /// The text.
    pub text: String,
    /// The same as it may be shown.
    shown: String,
    /// The folder that relative paths in it count from.
    pub folder: PathBuf,
    /// Where its lines begin.
    lines: Vec<usize>,
}

impl Source {
    /// A text by its name, and the folder that relative paths in it count from.
    pub fn new(name: impl Into<String>, text: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        let text = text.into();
        let ends = text.bytes().enumerate().filter(|(_, octet)| *octet == b'\n');
        let lines = [0].into_iter().chain(ends.map(|(at, _)| at + 1)).collect();
        let shown = without_logins(&text);
        Source { name: name.into(), text, shown, folder: folder.into(), lines }
    }

    /// The number of the line that holds an octet, from 1.
    fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at).max(1)
    }

    /// The octets of some lines, without the last line end. A byte order mark is no part of the first line.
    fn lines(&self, first: usize, last: usize) -> Range<usize> {
        let start = self.lines.get(first - 1).copied().unwrap_or(self.text.len());
        let start = if start == 0 && self.text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { start };
        let end = self.lines.get(last).map_or(self.text.len(), |next| next - 1);
        let end = if self.text[..end].ends_with('\r') { end - 1 } else { end };
        start..end.max(start)
    }
}

/// A text in which logins of URLs and passwords of connection strings are stars, octet by octet: who writes a secret into
/// the file itself does not find it in a log.
pub(super) fn without_logins(text: &str) -> String {
    let is_end = |octet: &u8| octet.is_ascii_whitespace() || matches!(octet, b'"' | b'\'' | b'`');
    let mut shown = text.as_bytes().to_vec();
    let mut star = |range: Range<usize>| shown[range].fill(b'*');
    for (begin, mark) in text.match_indices("://") {
        let from = begin + mark.len();
        let rest = &text.as_bytes()[from..];
        let authority = rest.iter().position(|octet| is_end(octet) || *octet == b'/').unwrap_or(rest.len());
        if let Some(at) = rest[..authority].iter().rposition(|octet| *octet == b'@') {
            star(from..from + at);
        }
    }
    for (begin, mark) in text.match_indices("password=") {
        let from = begin + mark.len();
        let rest = &text.as_bytes()[from..];
        star(from..from + rest.iter().position(is_end).unwrap_or(rest.len()));
    }
    // Whole characters were replaced: the marks around them are ASCII.
    String::from_utf8_lossy(&shown).into_owned()
}

/// All texts that were read, the file that was asked for first.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    list: Vec<Source>,
}

impl Sources {
    /// Adds a text; its index.
    pub fn add(&mut self, source: Source) -> usize {
        self.list.push(source);
        self.list.len() - 1
    }

    /// The source of a place.
    pub fn get(&self, index: usize) -> Option<&Source> {
        self.list.get(index)
    }

    /// The octets of a place; empty if there is no such place.
    pub fn text(&self, place: Place) -> &str {
        self.get(place.source).and_then(|source| source.text.get(place.start..place.end)).unwrap_or("")
    }

    /// The folder that relative paths at a place count from.
    pub fn folder(&self, place: Place) -> &Path {
        self.get(place.source).map_or(Path::new(""), |source| &source.folder)
    }

    /// `file:line`, as logs and `explain` name a place.
    pub fn line(&self, place: Place) -> String {
        let Some(source) = self.get(place.source) else { return String::new() };
        format!("{}:{}", source.name, source.line(place.start))
    }
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// No plan is made.
    Error,
    /// The plan is made, but probably not what was meant.
    Warning,
    /// Worth knowing, such as what is not built yet.
    Note,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub level: Level,
    /// What is wrong, in one sentence.
    pub wrong: String,
    /// Where, with a few words each; the first is the place at fault, and none means the whole file or process.
    pub spots: Vec<(Place, String)>,
    /// How to mend it.
    pub remedy: Option<String>,
}

impl Problem {
    /// An error without a place.
    pub fn new(wrong: impl Into<String>) -> Self {
        Problem { level: Level::Error, wrong: wrong.into(), spots: Vec::new(), remedy: None }
    }

    /// An error at a place.
    pub fn at(place: Place, wrong: impl Into<String>) -> Self {
        Problem::new(wrong).spot(place, "")
    }

    /// Adds a place with a few words.
    pub fn spot(mut self, place: Place, label: impl Into<String>) -> Self {
        self.spots.push((place, label.into()));
        self
    }

    /// Puts a few words at the place at fault.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        if let Some(first) = self.spots.first_mut() {
            first.1 = label.into();
        }
        self
    }

    /// Says how to mend it.
    pub fn help(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Changes how bad it is.
    pub fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// Takes a secret out of every word of the problem.
    pub(super) fn redact(&mut self, secret: &str) {
        let words = self.spots.iter_mut().map(|(_, label)| label).chain(&mut self.remedy).chain([&mut self.wrong]);
        for text in words {
            *text = text.replace(secret, "(secret)");
        }
    }
}

/// Prints problems for people, in the order given; `colour` for terminals.
///
/// Cost: one pass over the lines between the first and the last place of each problem.
pub fn render(problems: &[Problem], sources: &Sources, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
    let mut out = String::new();
    for problem in problems {
        out.push_str(&renderer.render(&[group(problem, sources)]));
        out.push_str("\n\n");
    }
    out
}

fn group<'a>(problem: &'a Problem, sources: &'a Sources) -> Group<'a> {
    let title = match problem.level {
        Level::Error => Title::ERROR,
        Level::Warning => Title::WARNING,
        Level::Note => Title::NOTE,
    };
    let title = title.primary_title(printable(&problem.wrong));
    let mut group =
        if problem.spots.is_empty() { Group::with_title(title) } else { title.elements(snippets(problem, sources)) };
    if let Some(remedy) = &problem.remedy {
        group = group.element(Title::HELP.message(printable(remedy)));
    }
    group
}

/// One snippet per source that the problem points at, the one at fault first.
fn snippets<'a>(problem: &'a Problem, sources: &'a Sources) -> Vec<Snippet<'a, annotate_snippets::Annotation<'a>>> {
    let mut order: Vec<usize> = Vec::new();
    for (place, _) in &problem.spots {
        if !order.contains(&place.source) {
            order.push(place.source);
        }
    }
    order.into_iter().filter_map(|index| Some(snippet(problem, index, sources.get(index)?))).collect()
}

fn snippet<'a>(
    problem: &'a Problem,
    index: usize,
    source: &'a Source,
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let spots = || problem.spots.iter().enumerate().filter(|(_, (place, _))| place.source == index);
    let first = spots().map(|(_, (place, _))| source.line(place.start)).min().unwrap_or(1);
    let last = spots().map(|(_, (place, _))| source.line(place.end.max(place.start + 1) - 1)).max().unwrap_or(1);
    let octets = source.lines(first, last);
    let shown = source.shown.get(octets.clone()).unwrap_or("");
    let annotations = spots().map(|(number, (place, label))| {
        let kind = if number == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
        let span = clip(shown, place.start.saturating_sub(octets.start)..place.end.saturating_sub(octets.start));
        kind.span(span).label(printable(label))
    });
    Snippet::source(shown).path(&source.name).line_start(first).annotations(annotations)
}

/// A range that lies within the text, on character boundaries.
fn clip(text: &str, range: Range<usize>) -> Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(range.start);
    start..floor(range.end).max(start)
}

/// Control characters would let a value write to the reader's terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
