//! The file as people and tools write it: JSON lines, one home each.
//!
//! ```text
//! {"space":"user","key":"448","home":"fr","epoch":3}      `space` is "user" if absent, `epoch` what the record needs
//! # a comment, or nothing
//! ```

use crate::home::key;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, BufRead, Read};

/// The longest line: a key of 255 octets, each escaped as `\uXXXX`, and two names.
const LINE_MAX: u64 = 4 << 10;
/// The most homes of one file: they are held in memory, some 200 octets each.
const HOMES_MAX: usize = 4_000_000;
/// The broken lines that are told of; the others are counted with them.
const BROKEN_MAX: usize = 1000;

/// A home that the file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Home {
    pub(super) edge: String,
    pub(super) epoch: Option<u32>,
    /// The number of its line.
    pub(super) line: u64,
}

/// A line that is kept out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) line: u64,
    pub(super) why: String,
}

/// A version of the file.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// By full key.
    pub(super) homes: BTreeMap<String, Home>,
    pub(super) broken: Vec<Broken>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default = "user")]
    space: String,
    key: String,
    home: String,
    #[serde(default)]
    epoch: Option<u32>,
}

fn user() -> String {
    "user".to_owned()
}

/// Reads a version of the file; `is_edge` knows the edges that may be named. Errors: the file cannot be read.
pub(super) fn read(mut file: impl BufRead, is_edge: &dyn Fn(&str) -> bool) -> io::Result<Listed> {
    let mut listed = Listed::default();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        // One octet more than allowed tells a long line from one that fits.
        if file.by_ref().take(LINE_MAX + 1).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let taken = if line.len() as u64 > LINE_MAX {
            skip_line(&mut file)?;
            Err(format!("it is longer than {LINE_MAX} octets"))
        } else {
            listed.take(number, line.trim_ascii(), is_edge)
        };
        if let Err(why) = taken
            && listed.broken.len() < BROKEN_MAX
        {
            listed.broken.push(Broken { line: number, why });
        }
    }
    Ok(listed)
}

fn skip_line(file: &mut impl BufRead) -> io::Result<()> {
    loop {
        let held = file.fill_buf()?;
        let end = memchr::memchr(b'\n', held);
        let used = end.map_or(held.len(), |at| at + 1);
        file.consume(used);
        if used == 0 || end.is_some() {
            return Ok(());
        }
    }
}

impl Listed {
    fn take(&mut self, number: u64, line: &[u8], is_edge: &dyn Fn(&str) -> bool) -> Result<(), String> {
        if line.is_empty() || line.starts_with(b"#") {
            return Ok(());
        }
        let said: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let full = key::full(&said.space, &said.key)?;
        if !is_edge(&said.home) {
            return Err(format!("`{}` is no edge: [edges] does not list it", key::shown(&said.home)));
        }
        if said.epoch == Some(0) {
            return Err("epochs begin at 1".to_owned());
        }
        if self.homes.len() >= HOMES_MAX {
            return Err(format!("there are more than {HOMES_MAX} homes: so many are for Central"));
        }
        match self.homes.entry(full) {
            Entry::Vacant(vacant) => {
                vacant.insert(Home { edge: said.home, epoch: said.epoch, line: number });
                Ok(())
            }
            // The key is listed, so it is not taken for removed.
            Entry::Occupied(first) => {
                Err(format!("`{}` stands in line {} already", key::shown(first.key()), first.get().line))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_lines_are_told_with_their_numbers() {
        let long = "x".repeat(3 * LINE_MAX as usize);
        let text = format!(
            "# homes\n\n{{\"key\":\"1\",\"home\":\"fr\"}}\n{{\"space\":\"shop\",\"key\":\"1\",\"home\":\"de\",\"epoch\":3}}\r\n\
             {{\"key\":\"1\",\"home\":\"de\"}}\n{{\"key\":\"2\",\"home\":\"xx\"}}\n{{\"key\":\"\",\"home\":\"fr\"}}\n\
             {{\"key\":\"3\",\"home\":\"fr\",\"epoch\":0}}\n{{\"key\":\"3\",\"home\":\"fr\",\"epcoh\":1}}\n{long}\n\u{0}\n{{\"key\":\"4\",\"home\":\"fr\"}}"
        );
        let listed = read(text.as_bytes(), &|edge| edge != "xx").unwrap();
        assert_eq!(listed.homes.keys().collect::<Vec<_>>(), ["shop:1", "user:1", "user:4"]);
        assert_eq!(listed.homes["shop:1"], Home { edge: "de".into(), epoch: Some(3), line: 4 });
        let lines: Vec<u64> = listed.broken.iter().map(|broken| broken.line).collect();
        assert_eq!(lines, [5, 6, 7, 8, 9, 10, 11], "{:?}", listed.broken);
        assert!(listed.broken[0].why.contains("line 3"), "{:?}", listed.broken[0]);
    }
}
