//! The file `overrides`: the keys that are filed under another hash than their own. Absent as long as there is none.

use std::io;
use std::path::{Path, PathBuf};

use crate::home::cursor::FeedId;
use crate::home::hash::{Override, Overrides};
use crate::store::files;
use crate::store::frame::{self, Frames, Salt, Step};

pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("overrides")
}

/// Writes them, durably.
pub(super) fn save(dir: &Path, feed: FeedId, overrides: &Overrides) -> io::Result<()> {
    let mut out = Vec::new();
    frame::encode(salt(feed), 0, 0, &serde_json::to_vec(&overrides.list())?, &mut out);
    files::write_whole(&path(dir), &out)
}

/// Reads them; `None` if the file is there and unreadable, or of another feed.
pub(super) fn restore(dir: &Path, feed: FeedId) -> io::Result<Option<Overrides>> {
    let file = match std::fs::File::open(path(dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Overrides::default())),
        other => other?,
    };
    let mut frames = Frames::new(file, salt(feed), 0);
    if frames.read()? != Step::Frame {
        return Ok(None);
    }
    let Ok(list) = serde_json::from_slice::<Vec<Override>>(frames.payload()) else { return Ok(None) };
    let mut overrides = Overrides::default();
    for Override { k, x } in &list {
        overrides.insert(k, *x);
    }
    Ok(Some(overrides))
}

fn salt(feed: FeedId) -> Salt {
    Salt(feed.0.last_chunk::<8>().map_or(0, |octets| u64::from_le_bytes(*octets)))
}
