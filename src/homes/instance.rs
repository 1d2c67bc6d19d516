//! The folder of one process: `data/<instance-id>/`, locked as long as the process lives (DESIGN 10).

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::base::backoff;
use crate::store::files;

/// The lock of a folder; the folder is ours until this is dropped.
#[derive(Debug)]
pub struct Instance {
    dir: PathBuf,
    /// The kernel lets go of the lock when it closes, however the process ends.
    lock: File,
}

impl Instance {
    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Notes that the folder is used now.
    fn used(self) -> io::Result<Instance> {
        self.lock.set_modified(std::time::UNIX_EPOCH + crate::base::clock::wall())?;
        Ok(self)
    }
}

/// Takes a folder below `data` that no living process holds, the one used last first, or makes a new one.
///
/// Errors: those of the file system, such as a `data` that may not be written.
pub fn take(data: &Path) -> io::Result<Instance> {
    files::create_dir(data)?;
    for dir in existing(data)? {
        if let Some(instance) = lock(dir)? {
            return instance.used();
        }
    }
    loop {
        let dir = data.join(format!("{:016x}", backoff::random()));
        files::create_dir(&dir)?;
        files::sync_dir(data)?;
        if let Some(instance) = lock(dir)? {
            return instance.used();
        }
    }
}

/// Takes all other folders below `data` that no living process holds: what they still owe is to be adopted.
pub fn abandoned(data: &Path) -> io::Result<Vec<Instance>> {
    existing(data)?.into_iter().filter_map(|dir| lock(dir).transpose()).collect()
}

/// The instance folders below `data`, the one used last first.
fn existing(data: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(data)? {
        let entry = entry?;
        let named = entry.file_name().to_str().is_some_and(|name| {
            name.len() == 16 && name.bytes().all(|octet| matches!(octet, b'0'..=b'9' | b'a'..=b'f'))
        });
        if named && entry.file_type()?.is_dir() {
            let used = entry.path().join(LOCK).metadata().and_then(|lock| lock.modified()).ok();
            found.push((used, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found.into_iter().rev().map(|(_, path)| path).collect())
}

const LOCK: &str = "lock";

fn lock(dir: PathBuf) -> io::Result<Option<Instance>> {
    let file = File::options().create(true).truncate(false).write(true).open(dir.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Instance { dir, lock: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_has_one_holder_and_is_taken_again() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path().join("made");
        let first = take(&data).unwrap();
        let second = take(&data).unwrap();
        assert_ne!(first.dir(), second.dir());
        let left = first.dir().to_path_buf();
        assert!(abandoned(&data).unwrap().is_empty());
        drop(first);
        assert_eq!(abandoned(&data).unwrap()[0].dir(), left);
        assert_eq!(take(&data).unwrap().dir(), left);
        for private in [&data, &left] {
            assert_eq!(private.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn of_several_free_folders_the_one_used_last_is_taken() {
        let data = tempfile::tempdir().unwrap();
        let (old, new) = (take(data.path()).unwrap(), take(data.path()).unwrap());
        old.lock.set_modified(std::time::UNIX_EPOCH).unwrap();
        let expected = new.dir().to_path_buf();
        drop((old, new));
        assert_eq!(take(data.path()).unwrap().dir(), expected);
    }
}
