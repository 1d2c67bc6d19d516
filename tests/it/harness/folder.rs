//! A folder of a test's own, gone when the test is over.

use std::fs;
use std::path::{Path, PathBuf};

/// A temporary folder. Removed on drop; kept, and its path printed, when the test panics.
pub struct Folder {
    inside: Option<tempfile::TempDir>,
}

/// Makes a folder.
pub fn new() -> Folder {
    Folder { inside: Some(tempfile::Builder::new().prefix("coordinator-it-").tempdir().expect("a temporary folder")) }
}

impl Folder {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.inside.as_ref().expect("present until drop").path()
    }

    /// The path of a name in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file in it, with the folders that its name asks for.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("the folder can be made");
        fs::write(&path, content).expect("the file can be written");
        path
    }

    /// Reads a file in it.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.join(name)).expect("the file can be read")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(inside) = self.inside.take()
        {
            println!("kept for a look: {}", inside.keep().display());
        }
    }
}
