//! The access log's way out: workers hand over buffers, one thread writes them. A worker never waits for it.

use std::io;
use std::path::Path;
use std::sync::Arc;

/// The log of the process; owns the writing thread.
#[derive(Debug)]
pub struct AccessLog {}

/// One worker's buffer.
#[derive(Debug)]
pub struct AccessBuffer {}

impl AccessLog {
    /// Opens `path` for appending, or standard output.
    pub fn open(_path: Option<&Path>) -> io::Result<Arc<AccessLog>> {
        unimplemented!()
    }

    /// A buffer for a worker; to be called on its runtime.
    pub fn buffer(self: &Arc<Self>) -> AccessBuffer {
        unimplemented!()
    }

    /// Opens the file anew (SIGUSR1), for log rotation.
    pub fn reopen(&self) {
        unimplemented!()
    }

    /// Lines lost because the disk was slower than the requests.
    pub fn dropped(&self) -> u64 {
        unimplemented!()
    }
}

impl AccessBuffer {
    /// Adds one line: `write` appends it with its newline.
    pub fn line(&self, _write: impl FnOnce(&mut Vec<u8>)) {
        unimplemented!()
    }
}
