//! How state files come to be: private to us, whole or not at all, and never thrown away when unreadable.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::base::clock;

/// Creates `dir` and its parents, readable by nobody else (0700); an existing one is left as it is.
pub fn create_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Makes names that were created, renamed or removed in `dir` survive a crash.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A new or emptied file for writing, readable by nobody else (0600).
pub fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(true).read(true).write(true).mode(0o600).open(path)
}

/// Puts a finished temporary file in place of `path`: after a crash there is the old one or the new one.
pub fn put_in_place(temporary: &Path, path: &Path) -> io::Result<()> {
    std::fs::rename(temporary, path)?;
    sync_dir(folder(path))
}

/// Writes a small file whole: after a crash there is the old content or the new one.
pub fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    let mut file = create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    put_in_place(&temporary, path)
}

/// The name under which a file is prepared before it takes the place of `path`.
pub fn temporary(path: &Path) -> PathBuf {
    suffixed(path, ".tmp")
}

/// Renames an unreadable file to `*.corrupt-<milliseconds>` (DESIGN 10): it is evidence, and may hold what nobody else
/// has.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = suffixed(path, &format!(".corrupt-{}", clock::wall().as_millis()));
    std::fs::rename(path, &aside)?;
    sync_dir(folder(path))?;
    Ok(aside)
}

/// The folder that `path` stands in.
pub fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}
