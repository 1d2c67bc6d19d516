//! The edge table: which index of the feed is which edge, and where its peer door is. It rests in the file `edges`.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::id::EdgeId;
use crate::home::cursor::FeedId;
use crate::home::event::EdgeRow;
use crate::store::files;
use crate::store::frame::{self, Frames, Salt, Step};

/// Indices are 12 bits wide (HOMES 2.1).
const INDEX_MAX: u16 = 4095;

/// The longest name of an edge.
const NAME_MAX: usize = 255;

/// The table of one moment.
#[derive(Debug, Default)]
pub(super) struct Edges {
    rows: Vec<EdgeRow>,
    by_name: HashMap<String, EdgeId>,
}

impl Edges {
    /// The rows, by index.
    pub(super) fn rows(&self) -> &[EdgeRow] {
        &self.rows
    }

    /// The index of an edge.
    pub(super) fn id(&self, name: &str) -> Option<EdgeId> {
        self.by_name.get(name).copied()
    }

    /// The table after an announcement: whole tables are announced, but what was listed once is never forgotten, and an
    /// index or a name never comes to mean another edge. Gives the refused rows too.
    pub(super) fn announced(&self, announced: &[EdgeRow]) -> (Edges, usize) {
        let mut by_index: HashMap<u16, EdgeRow> = self.rows.iter().map(|row| (row.idx, row.clone())).collect();
        let mut by_name = self.by_name.clone();
        let mut refused = 0;
        for row in announced {
            let sound = row.idx <= INDEX_MAX
                && (1..=NAME_MAX).contains(&row.name.len())
                && by_index.get(&row.idx).is_none_or(|known| known.name == row.name)
                && by_name.get(&row.name).is_none_or(|known| known.0 == row.idx);
            if sound {
                by_name.insert(row.name.clone(), EdgeId(row.idx));
                by_index.insert(row.idx, row.clone());
            } else {
                refused += 1;
            }
        }
        let mut rows: Vec<EdgeRow> = by_index.into_values().collect();
        rows.sort_unstable_by_key(|row| row.idx);
        (Edges { rows, by_name }, refused)
    }

    /// Writes the table, durably.
    pub(super) fn save(&self, dir: &Path, feed: FeedId) -> io::Result<()> {
        let mut out = Vec::new();
        frame::encode(salt(feed), 0, 0, &serde_json::to_vec(&self.rows)?, &mut out);
        files::write_whole(&path(dir), &out)
    }

    /// Reads the table; an unreadable one, or one of another feed, is set aside: the feed will announce it again.
    pub(super) fn restore(dir: &Path, feed: FeedId) -> io::Result<(Edges, Option<PathBuf>)> {
        let file = match std::fs::File::open(path(dir)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Edges::default(), None)),
            other => other?,
        };
        let mut frames = Frames::new(file, salt(feed), 0);
        let whole = frames.read()? == Step::Frame;
        match serde_json::from_slice::<Vec<EdgeRow>>(frames.payload()) {
            Ok(rows) if whole => Ok((Edges::default().announced(&rows).0, None)),
            _ => Ok((Edges::default(), Some(files::set_aside(&path(dir))?))),
        }
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("edges")
}

fn salt(feed: FeedId) -> Salt {
    Salt(feed.0.first_chunk::<8>().map_or(0, |octets| u64::from_le_bytes(*octets)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::event::EdgeState;

    fn row(idx: u16, name: &str) -> EdgeRow {
        EdgeRow { idx, name: name.into(), peer: None, state: EdgeState::Active }
    }

    #[test]
    fn names_and_indices_stay_what_they_were() {
        let (edges, refused) = Edges::default().announced(&[row(2, "us"), row(1, "fr"), row(4096, "x"), row(3, "")]);
        assert_eq!((edges.rows(), refused), (&[row(1, "fr"), row(2, "us")][..], 2));
        let moved = EdgeRow { peer: Some("https://fr:8444".into()), state: EdgeState::Draining, ..row(1, "fr") };
        let (edges, refused) = edges.announced(&[moved.clone(), row(2, "de"), row(5, "us"), row(6, "jp")]);
        assert_eq!((edges.rows(), refused), (&[moved, row(2, "us"), row(6, "jp")][..], 2));
        assert_eq!((edges.id("us"), edges.id("de")), (Some(EdgeId(2)), None));
    }

    #[test]
    fn the_table_is_there_again_or_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let (edges, _) = Edges::default().announced(&[row(1, "fr")]);
        edges.save(dir.path(), FeedId([1; 16])).unwrap();
        assert_eq!(Edges::restore(dir.path(), FeedId([1; 16])).unwrap().0.rows(), edges.rows());
        let (empty, aside) = Edges::restore(dir.path(), FeedId([2; 16])).unwrap();
        assert!(empty.rows().is_empty() && aside.unwrap().exists());
        assert!(Edges::restore(dir.path(), FeedId([1; 16])).unwrap().1.is_none());
    }
}
