//! Reads a configuration: files, includes and variables; then `raw`, `check` and a plan, or every problem at once.
//!
//! The only part of `config` that touches files and the environment, besides the reading of certificates by `check`.

use super::check;
use super::plan::Plan;
use super::problem::{self, Level, Place, Problem, Source, Sources};
use super::read::{Read, Reader};
use super::tree::{self, Node, Origin, Table, Text, Value};
use super::vars::{self, Piece};
use super::{leaf, raw};
use crate::base::clock;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// The largest file that is read: ten times a table of 100 000 routes.
const FILE_MAX: u64 = 64 << 20;

/// The deepest chain of includes; deeper ones are a mistake.
const DEPTH_MAX: usize = 16;

/// Which process a file configures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An edge (`run`).
    Edge,
    /// Central (`central`).
    Central,
}

/// What an unset variable is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// An error: the process is about to run with it.
    Run,
    /// A warning: `check` may run elsewhere than the process will.
    Check,
}

/// What came of a configuration.
#[derive(Debug)]
pub struct Outcome {
    /// The plan, if there is no problem (and in `check` no needed variable is unset).
    pub plan: Option<Plan>,
    /// The errors.
    pub problems: Vec<Problem>,
    /// Warnings, and notes such as what is not built yet.
    pub notes: Vec<Problem>,
    /// The files that were read: the one asked for, includes, and those of `${file:…}`.
    pub files: Vec<PathBuf>,
    /// The texts that problems point into.
    pub sources: Sources,
}

impl Outcome {
    /// Notes, then problems, as people read them.
    pub fn render(&self, colour: bool) -> String {
        problem::render(&self.notes, &self.sources, colour) + &problem::render(&self.problems, &self.sources, colour)
    }
}

/// The environment: a variable's value by its name.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The environment of this process.
pub fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads an edge's configuration.
pub fn edge(path: &Path, env: Env<'_>, strictness: Strictness) -> Outcome {
    file(Some(Kind::Edge), path, env, strictness).1
}

/// Reads Central's configuration.
pub fn central(path: &Path, env: Env<'_>, strictness: Strictness) -> Outcome {
    file(Some(Kind::Central), path, env, strictness).1
}

/// Reads a configuration and tells whose it is: Central's says `data` in `[central]` and has no `[edge]`.
pub fn either(path: &Path, env: Env<'_>, strictness: Strictness) -> (Kind, Outcome) {
    file(None, path, env, strictness)
}

/// Reads a configuration that is not in a file. Relative paths count from the working directory.
pub fn from_text(kind: Kind, name: &str, text: &str, env: Env<'_>, strictness: Strictness) -> Outcome {
    let mut loader = Loader::new(env, strictness);
    let source = Source::new(name, text, PathBuf::new());
    let root = loader.source(source, &mut Vec::new());
    loader.finish(Some(kind), root).1
}

fn file(kind: Option<Kind>, path: &Path, env: Env<'_>, strictness: Strictness) -> (Kind, Outcome) {
    let mut loader = Loader::new(env, strictness);
    let root = loader.file(path, None, &mut Vec::new());
    loader.finish(kind, root)
}

/// What is wrong when an edge is started on Central's configuration, or the other way round.
fn other_kind(asked: Kind, guess: Kind, root: &Table) -> Option<Problem> {
    let (table, wrong, help) = match (asked, guess) {
        (Kind::Edge, Kind::Central) => (
            "central",
            "this is Central's configuration, not an edge's",
            "run it with `coordinator central --config FILE`",
        ),
        (Kind::Central, Kind::Edge) if root.get("edge").is_some() => {
            ("edge", "this is an edge's configuration, not Central's", "run it with `coordinator run --config FILE`")
        }
        _ => return None,
    };
    let place = root.get(table).map(|entry| entry.node.place);
    Some(place.map_or_else(|| Problem::new(wrong), |place| Problem::at(place, wrong)).help(help))
}

struct Loader<'a> {
    env: Env<'a>,
    strictness: Strictness,
    sources: Sources,
    files: Vec<PathBuf>,
    problems: Vec<Problem>,
    /// Problems of syntax: after one, the tree is not what was meant, and only what it says by itself is judged.
    broken: bool,
    secrets: Vec<String>,
}

impl<'a> Loader<'a> {
    fn new(env: Env<'a>, strictness: Strictness) -> Self {
        let (sources, files, problems, secrets) = Default::default();
        Loader { env, strictness, sources, files, problems, broken: false, secrets }
    }

    /// Reads a file and what it includes. `at` is the include that asked for it, `open` the files being read.
    fn file(&mut self, path: &Path, at: Option<Place>, open: &mut Vec<PathBuf>) -> Table {
        let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let refused = if open.contains(&whole) {
            Some("includes itself, directly or through others")
        } else if self.files.contains(&whole) {
            Some("is included twice")
        } else if open.len() >= DEPTH_MAX {
            Some("is included too deeply")
        } else {
            None
        };
        let read = refused.map_or_else(|| read(path), |why| Err(why.to_owned()));
        let text = match read {
            Ok(text) => text,
            Err(why) => {
                self.broken = true;
                let wrong = format!("`{}` {why}", path.display());
                self.problems.push(match at {
                    Some(at) => {
                        Problem::at(at, wrong).help("name each file once, relative to the file that includes it")
                    }
                    None => Problem::new(wrong).help("give the path of a configuration in TOML"),
                });
                return Table::default();
            }
        };
        self.files.push(whole.clone());
        open.push(whole);
        let folder = path.parent().map_or_else(PathBuf::new, Path::to_owned);
        let table = self.source(Source::new(path.display().to_string(), text, folder), open);
        open.pop();
        table
    }

    fn source(&mut self, source: Source, open: &mut Vec<PathBuf>) -> Table {
        let index = self.sources.add(source);
        let mut problems = Vec::new();
        let mut reported = Vec::new();
        let sources = std::mem::take(&mut self.sources);
        let mut expand = |text: &str, place, sources: &Sources| self.expand(text, place, sources, &mut reported);
        let mut table = tree::parse(index, &sources, &mut expand, &mut problems);
        self.sources = sources;
        self.broken |= !problems.is_empty();
        self.problems.extend(problems);
        self.problems.extend(reported);
        for (path, place) in self.includes(&mut table) {
            let included = self.file(&path, Some(place), open);
            table.merge(included, &mut self.problems);
        }
        table
    }

    /// Takes `include` out of a document.
    fn includes(&mut self, table: &mut Table) -> Vec<(PathBuf, Place)> {
        let Some(entry) = table.take("include") else { return Vec::new() };
        let mut reader = Reader::new(&self.sources);
        let list = <Vec<super::read::At<leaf::FilePath>>>::read(&entry.node, &mut reader).unwrap_or_default();
        self.broken |= !reader.problems.is_empty();
        self.problems.append(&mut reader.problems);
        list.into_iter().map(|at| (at.value.0, at.place)).collect()
    }

    /// Fills in the references of one string.
    fn expand(&mut self, text: &str, place: Place, sources: &Sources, reported: &mut Vec<Problem>) -> Option<Text> {
        let within = |span| super::read::within(sources, place, text, span);
        let pieces = match vars::split(text) {
            Ok(pieces) => pieces,
            Err(bad) => {
                let remedy = "write ${NAME}, ${NAME:-default} or ${file:/path}; $${ stands for a plain ${";
                reported.push(Problem::at(within(bad.span), bad.wrong).help(remedy));
                return None;
            }
        };
        let (mut value, mut origin, mut failed) = (String::new(), Origin::Written, false);
        for piece in pieces {
            let (part, its) = match piece {
                Piece::Plain(part) => (Ok(part.to_owned()), Origin::Written),
                Piece::Variable { name, default, span } => self.variable(name, default, within(span), reported),
                Piece::File { path, span } => {
                    (self.secret(&sources.folder(place).join(path), within(span)), Origin::Secret)
                }
            };
            origin = origin.max(its);
            match part {
                Ok(part) => value.push_str(&part),
                Err(problem) => {
                    failed = true;
                    reported.push(*problem);
                }
            }
        }
        // A string that could not be made stays as something that is there but unknown: one cause, one problem.
        Some(Text { value, origin: if failed { Origin::Unset } else { origin } })
    }

    fn variable(
        &self,
        name: &str,
        default: Option<&str>,
        place: Place,
        reported: &mut Vec<Problem>,
    ) -> (Result<String, Box<Problem>>, Origin) {
        let set = (self.env)(name).filter(|value| default.is_none() || !value.is_empty());
        if let Some(value) = set.or_else(|| default.map(str::to_owned)) {
            return (Ok(value), Origin::Variable);
        }
        let problem = Problem::at(place, format!("the variable `{name}` is not set"))
            .help(format!("set it, or write ${{{name}:-default}}"));
        if self.strictness == Strictness::Run {
            return (Err(Box::new(problem)), Origin::Unset);
        }
        reported.push(problem.level(Level::Warning));
        (Ok(format!("${{{name}}}")), Origin::Unset)
    }

    fn secret(&mut self, path: &Path, place: Place) -> Result<String, Box<Problem>> {
        let text = read(path).map_err(|why| {
            let problem = Problem::at(place, format!("`{}` {why}", path.display()));
            Box::new(problem.help("relative paths count from the folder of the file that says them"))
        })?;
        self.files.push(path.to_owned());
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        self.secrets.push(text.to_owned());
        Ok(text.to_owned())
    }

    fn finish(mut self, kind: Option<Kind>, root: Table) -> (Kind, Outcome) {
        let has = |table: &Table, key: &str| matches!(table.get(key).map(|entry| &entry.node.value), Some(Value::Table(table)) if table.get("data").is_some());
        let guess = if root.get("edge").is_none() && has(&root, "central") { Kind::Central } else { Kind::Edge };
        let other = kind.and_then(|kind| other_kind(kind, guess, &root));
        let kind = kind.unwrap_or(guess);
        let mut plan = match other {
            // Judged as what it is not, it would be wrong in every line.
            Some(problem) => {
                self.problems.push(problem);
                None
            }
            None => self.judge(kind, root),
        };
        // In the order of the files, as they are read and mended.
        self.problems.sort_by_key(|problem| problem.spots.first().map(|spot| spot.0));
        self.problems.dedup();
        for secret in self.secrets.iter().filter(|secret| !secret.is_empty()) {
            self.problems.iter_mut().for_each(|problem| problem.redact(secret));
        }
        let (problems, notes): (Vec<_>, Vec<_>) =
            self.problems.into_iter().partition(|problem| problem.level == Level::Error);
        if !problems.is_empty() {
            plan = None;
        }
        (kind, Outcome { plan, problems, notes, files: self.files, sources: self.sources })
    }

    /// Reads the tree into tables, and those into a plan.
    fn judge(&mut self, kind: Kind, root: Table) -> Option<Plan> {
        let node = Node { place: Place::default(), value: Value::Table(root) };
        let mut reader = Reader::new(&self.sources);
        let now = clock::wall();
        let (plan, problems) = match kind {
            Kind::Edge => {
                let file = raw::EdgeFile::read(&node, &mut reader);
                self.checked(&mut reader, file, |file, sources| check::edge(&file, sources, now))
            }
            Kind::Central => {
                let file = raw::CentralFile::read(&node, &mut reader);
                self.checked(&mut reader, file, |file, sources| check::central(&file, sources, now))
            }
        };
        self.problems.extend(problems);
        plan
    }

    /// Judges what was read, unless the syntax is broken: then much would be missed that is there.
    fn checked<T>(
        &self,
        reader: &mut Reader<'_>,
        file: Option<T>,
        check: impl FnOnce(T, &Sources) -> (Option<Plan>, Vec<Problem>),
    ) -> (Option<Plan>, Vec<Problem>) {
        let mut problems = std::mem::take(&mut reader.problems);
        if self.broken {
            // A line that is no TOML says nothing else that is worth telling.
            let line = |problem: &Problem| problem.spots.first().map(|(place, _)| self.sources.line(*place));
            let torn: HashSet<_> = self.problems.iter().filter_map(line).collect();
            problems.retain(|problem| line(problem).is_none_or(|line| !torn.contains(&line)));
            return (None, problems);
        }
        problems.append(&mut reader.missing);
        let (plan, more) = match file {
            Some(file) => check(file, &self.sources),
            None => (None, Vec::new()),
        };
        problems.extend(more);
        (plan, problems)
    }
}

/// Reads a text file. Errors: why not, in words.
fn read(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?.len();
    if size > FILE_MAX {
        return Err(format!("is larger than {}", crate::base::units::ByteSize(FILE_MAX)));
    }
    let octets = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    String::from_utf8(octets).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].iter().filter(|&&octet| octet == b'\n').count() + 1;
        format!("is not UTF-8 text: line {line} holds other octets")
    })
}
