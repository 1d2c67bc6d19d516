//! The access log's way out: workers hand over buffers, one thread writes them.
//!
//! Invariant: a worker never waits for the disk. When the writing thread cannot keep up, whole buffers are dropped,
//! counted, and the count is logged once there is room again.

use crate::base::clock;
use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A buffer is handed over when it holds this much.
const BUFFER: usize = 32 << 10;

/// What it has room for beyond that: the line that fills it.
const LINE: usize = 4 << 10;

/// ... or when its first line is this old.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// Buffers on their way to the disk: 256 × 32 KiB, about 40 000 lines.
const QUEUE: usize = 256;

/// How long the end waits for the lines that were handed over: what a disk needs for a full queue, with room to spare.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The log of the process; owns the writing thread. When the last handle is dropped, what was handed over is written.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    queue: Option<SyncSender<Chunk>>,
    thread: Option<JoinHandle<()>>,
    /// Closed by the writer when it is done.
    over: Mutex<Receiver<()>>,
}

#[derive(Debug)]
struct Shared {
    path: Option<PathBuf>,
    reopen: AtomicBool,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Chunk {
    octets: Vec<u8>,
    lines: u64,
}

impl AccessLog {
    /// Opens `path` for appending, or standard output.
    pub fn open(path: Option<&Path>) -> io::Result<Arc<AccessLog>> {
        let sink = Sink::open(path)?;
        AccessLog::start(sink, path, QUEUE)
    }

    fn start(sink: Sink, path: Option<&Path>, bound: usize) -> io::Result<Arc<AccessLog>> {
        let (queue, chunks) = mpsc::sync_channel(bound);
        let shared = Arc::new(Shared {
            path: path.map(Path::to_owned),
            reopen: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        });
        let theirs = shared.clone();
        let (done, over) = mpsc::channel();
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            write(sink, &chunks, &theirs);
            drop(done);
        })?;
        Ok(Arc::new(AccessLog { shared, queue: Some(queue), thread: Some(thread), over: Mutex::new(over) }))
    }

    /// A buffer for a worker; to be called on its runtime, because it flushes itself from a task there.
    pub fn buffer(self: &Arc<Self>) -> AccessBuffer {
        let inner = Rc::new(Inner {
            log: self.clone(),
            octets: RefCell::new(Vec::with_capacity(BUFFER + LINE)),
            lines: Cell::new(0),
            filled: tokio::sync::Notify::new(),
        });
        let theirs = inner.clone();
        // Ends with its runtime; what the buffer still holds is handed over when it is dropped.
        tokio::task::spawn_local(async move {
            loop {
                theirs.filled.notified().await;
                tokio::time::sleep(FLUSH_AFTER).await;
                theirs.hand_over();
            }
        });
        AccessBuffer(inner)
    }

    /// Opens the file anew before the next line is written (SIGUSR1), for log rotation.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
    }

    /// Lines lost because the disk was slower than the requests.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    fn send(&self, chunk: Chunk) {
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(chunk) | TrySendError::Disconnected(chunk)) = queue.try_send(chunk) {
            self.shared.dropped.fetch_add(chunk.lines, Ordering::Relaxed);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.queue = None;
        let Some(thread) = self.thread.take() else { return };
        // The writer drops its end once the queue is empty. A reader of a pipe that has stopped reading would hold it
        // for ever: then the lines are lost, and the process must not be.
        if self.over.get_mut().unwrap_or_else(PoisonError::into_inner).recv_timeout(LAST_LINES)
            == Err(RecvTimeoutError::Timeout)
        {
            tracing::error!("the access log takes nothing; its last lines are lost");
            return;
        }
        // Its panic would already be on standard error.
        let _ = thread.join();
    }
}

/// One worker's buffer.
#[derive(Debug, Clone)]
pub struct AccessBuffer(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    log: Arc<AccessLog>,
    octets: RefCell<Vec<u8>>,
    lines: Cell<u64>,
    filled: tokio::sync::Notify,
}

impl AccessBuffer {
    /// Adds one line: `write` appends it with its newline.
    pub fn line(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut octets = self.0.octets.borrow_mut();
        write(&mut octets);
        let is_full = octets.len() >= BUFFER;
        drop(octets);
        let lines = self.0.lines.get() + 1;
        self.0.lines.set(lines);
        if is_full {
            self.0.hand_over();
        } else if lines == 1 {
            self.0.filled.notify_one();
        }
    }
}

impl Inner {
    fn hand_over(&self) {
        let lines = self.lines.replace(0);
        if lines > 0 {
            let octets = std::mem::replace(&mut *self.octets.borrow_mut(), Vec::with_capacity(BUFFER + LINE));
            self.log.send(Chunk { octets, lines });
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.hand_over();
    }
}

/// Where lines end up.
#[derive(Debug)]
enum Sink {
    Out,
    File(File),
    #[cfg(test)]
    Slow(Arc<std::sync::Mutex<Vec<u8>>>),
}

impl Sink {
    fn open(path: Option<&Path>) -> io::Result<Sink> {
        match path {
            None => Ok(Sink::Out),
            Some(path) => Ok(Sink::File(OpenOptions::new().create(true).append(true).open(path)?)),
        }
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        match self {
            Sink::Out => io::stdout().lock().write_all(octets).and_then(|()| io::stdout().flush()),
            Sink::File(file) => file.write_all(octets),
            #[cfg(test)]
            Sink::Slow(out) => {
                out.lock().unwrap().extend_from_slice(octets);
                Ok(())
            }
        }
    }
}

/// The writing thread.
fn write(mut sink: Sink, chunks: &Receiver<Chunk>, shared: &Shared) {
    let mut told = 0;
    while let Ok(chunk) = chunks.recv() {
        if shared.reopen.swap(false, Ordering::AcqRel) {
            match Sink::open(shared.path.as_deref()) {
                Ok(fresh) => sink = fresh,
                Err(error) => tracing::error!(%error, "the access log could not be opened anew; the old file is kept"),
            }
        }
        let dropped = shared.dropped.load(Ordering::Relaxed);
        if dropped > told && sink.write(&lost(dropped - told)).is_ok() {
            told = dropped;
        }
        if sink.write(&chunk.octets).is_err() {
            shared.dropped.fetch_add(chunk.lines, Ordering::Relaxed);
        }
    }
}

/// The line that says how many lines are missing.
fn lost(lines: u64) -> Vec<u8> {
    format!("{{\"time\":\"{}\",\"event\":\"access_lines_dropped\",\"lines\":{lines}}}\n", clock::rfc3339(clock::wall()))
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_local<T>(body: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
        runtime.expect("a runtime").block_on(body)
    }

    #[test]
    fn lines_arrive_without_more_lines_and_survive_a_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = AccessLog::open(Some(&path)).unwrap();
        on_local(async {
            let buffer = log.buffer();
            buffer.line(|out| out.extend_from_slice(b"one\n"));
            wait_for(&path, "one\n").await;
            std::fs::rename(&path, folder.path().join("old")).unwrap();
            log.reopen();
            buffer.line(|out| out.extend_from_slice(b"two\n"));
            wait_for(&path, "two\n").await;
        });
        assert_eq!(std::fs::read_to_string(folder.path().join("old")).unwrap(), "one\n");
        assert_eq!(log.dropped(), 0);
    }

    async fn wait_for(path: &Path, content: &str) {
        let start = clock::now();
        while std::fs::read_to_string(path).unwrap_or_default() != content {
            assert!(clock::now().duration_since(start) < Duration::from_secs(10), "the line did not arrive");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[test]
    fn a_slow_disk_costs_lines_not_time_and_says_how_many() {
        let out = Arc::new(Mutex::new(Vec::new()));
        let held = out.lock().unwrap();
        let log = AccessLog::start(Sink::Slow(out.clone()), None, 1).unwrap();
        // One chunk is in the hands of the writer, one waits in the queue, the others find no room.
        let start = clock::now();
        while log.dropped() < 20 {
            log.send(Chunk { octets: b"x\n".to_vec(), lines: 1 });
            assert!(clock::now().duration_since(start) < Duration::from_secs(10));
        }
        drop(held);
        let start = clock::now();
        while !String::from_utf8_lossy(&out.lock().unwrap()).contains("access_lines_dropped") {
            assert!(clock::now().duration_since(start) < Duration::from_secs(10));
            log.send(Chunk { octets: b"y\n".to_vec(), lines: 1 });
        }
        drop(log);
    }

    #[test]
    fn a_log_that_takes_nothing_does_not_hold_the_exit() {
        let out = Arc::new(Mutex::new(Vec::new()));
        let held = out.lock().unwrap();
        let log = AccessLog::start(Sink::Slow(out.clone()), None, 8).unwrap();
        log.send(Chunk { octets: b"x\n".to_vec(), lines: 1 });
        let (told, ended) = mpsc::channel();
        let dropping = std::thread::spawn(move || {
            drop(log);
            let _ = told.send(());
        });
        let in_time = ended.recv_timeout(Duration::from_secs(20));
        drop(held);
        dropping.join().unwrap();
        assert!(in_time.is_ok(), "it waits for a reader that is stuck");
    }
}
