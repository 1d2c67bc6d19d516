//! The access log's way out: workers hand over buffers, one thread writes them.
//!
//! Invariant: a worker never waits for the disk. When the writing thread cannot keep up, a worker keeps its lines until its
//! buffer is full; then they are dropped, counted, and the count is logged once there is room again.
//!
//! Cost: a worker and the writer take turns with two buffers, and the writer is woken for a full one only, or after
//! `FLUSH_AFTER`.

use crate::base::clock;
use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A buffer is handed over when it holds this much. Measured: with 32 KiB the writer costs half as much again for each line,
/// because what the kernel needs for it has left the processor's cache by the next time; so it does with 200 KiB, because
/// then the lines have left it.
const BUFFER: usize = 128 << 10;

/// What it has room for beyond that: the line that fills it.
const LINE: usize = 4 << 10;

/// ... or when its first line is this old.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// Buffers on their way to the disk: 64 × 128 KiB, about 20 000 lines.
const QUEUE: usize = 64;

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

/// Whole lines on their way.
#[derive(Debug)]
struct Chunk {
    octets: Vec<u8>,
    lines: u64,
    /// Where the buffer goes when it is written.
    spare: Spare,
}

/// A buffer that was written, for its worker to fill again. Neither side waits for the other: it may be missing.
type Spare = Arc<Mutex<Option<Vec<u8>>>>;

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
        let filled = Rc::new(tokio::sync::Notify::new());
        let inner = Rc::new(Inner {
            log: self.clone(),
            octets: RefCell::new(empty()),
            lines: Cell::new(0),
            spare: Spare::default(),
            filled: filled.clone(),
        });
        tokio::task::spawn_local(flush(Rc::downgrade(&inner), filled));
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

    /// Hands a chunk to the writer, or gives it back: there is no room.
    fn send(&self, chunk: Chunk) -> Result<(), Chunk> {
        let Some(queue) = &self.queue else { return Err(chunk) };
        queue.try_send(chunk).map_err(|(TrySendError::Full(chunk) | TrySendError::Disconnected(chunk))| chunk)
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
    spare: Spare,
    /// Told of the first line, and of the end.
    filled: Rc<tokio::sync::Notify>,
}

/// Hands over what no further line has filled; ends with the buffer, which hands over its last lines itself.
async fn flush(buffer: Weak<Inner>, filled: Rc<tokio::sync::Notify>) {
    loop {
        filled.notified().await;
        loop {
            tokio::time::sleep(FLUSH_AFTER).await;
            match buffer.upgrade() {
                Some(buffer) if buffer.hand_over() => break,
                Some(_) => {}
                None => return,
            }
        }
    }
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
            self.0.hand_over_or_drop();
        } else if lines == 1 {
            self.0.filled.notify_one();
        }
    }
}

impl Inner {
    /// Hands over what there is. `false`: the writer has no room for it, so it is still here.
    fn hand_over(&self) -> bool {
        let lines = self.lines.get();
        if lines == 0 {
            return true;
        }
        let mut octets = self.octets.borrow_mut();
        let chunk = Chunk { octets: std::mem::take(&mut *octets), lines, spare: self.spare.clone() };
        match self.log.send(chunk) {
            Ok(()) => {
                *octets = self.spare.try_lock().ok().and_then(|mut spare| spare.take()).unwrap_or_else(empty);
                self.lines.set(0);
                true
            }
            Err(chunk) => {
                *octets = chunk.octets;
                false
            }
        }
    }

    fn hand_over_or_drop(&self) {
        if !self.hand_over() {
            self.log.shared.dropped.fetch_add(self.lines.replace(0), Ordering::Relaxed);
            self.octets.borrow_mut().clear();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.hand_over_or_drop();
        self.filled.notify_one();
    }
}

/// A buffer without lines.
fn empty() -> Vec<u8> {
    Vec::with_capacity(BUFFER + LINE)
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
        give_back(chunk);
    }
}

/// Gives a buffer to its worker; one that a long line has made grow goes back to the system.
fn give_back(Chunk { mut octets, spare, .. }: Chunk) {
    if octets.capacity() <= BUFFER + LINE
        && let Ok(mut spare) = spare.try_lock()
    {
        octets.clear();
        *spare = Some(octets);
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

    /// Waits for a level that another thread brings about.
    async fn until(mut what: impl FnMut() -> bool) {
        let start = clock::now();
        while !what() {
            assert!(clock::now().duration_since(start) < Duration::from_secs(10), "in vain");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[test]
    fn a_slow_disk_costs_lines_not_time_and_says_how_many() {
        let out = Arc::new(Mutex::new(Vec::new()));
        let held = out.lock().unwrap();
        let log = AccessLog::start(Sink::Slow(out.clone()), None, 1).unwrap();
        let line = [[b'x'; BUFFER / 8].as_slice(), b"\n"].concat();
        let mut offered = 0;
        on_local(async {
            let buffer = log.buffer();
            // One chunk is in the hands of the writer, one waits in the queue, the others find no room.
            while log.dropped() < 20 {
                buffer.line(|out| out.extend_from_slice(&line));
                offered += 1;
                assert!(offered < 100, "nothing is dropped");
            }
            drop(held);
            until(|| {
                buffer.line(|out| out.extend_from_slice(&line));
                offered += 1;
                String::from_utf8_lossy(&out.lock().unwrap()).contains("access_lines_dropped")
            })
            .await;
        });
        let dropped = log.dropped();
        drop(log);
        let text = String::from_utf8(std::mem::take(&mut *out.lock().unwrap())).unwrap();
        let written = text.lines().filter(|line| line.len() == BUFFER / 8).count() as u64;
        assert_eq!(written + dropped, offered, "each line is written or counted");
    }

    #[test]
    fn lines_wait_for_room_while_their_buffer_has_some() {
        let out = Arc::new(Mutex::new(Vec::new()));
        let held = out.lock().unwrap();
        let log = AccessLog::start(Sink::Slow(out.clone()), None, 1).unwrap();
        on_local(async {
            let buffer = log.buffer();
            let mut offered = 1;
            buffer.line(|out| out.extend_from_slice(b"x\n"));
            while buffer.0.hand_over() {
                buffer.line(|out| out.extend_from_slice(b"x\n"));
                offered += 1;
            }
            drop(held);
            until(|| out.lock().unwrap().len() == offered * 2).await;
        });
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn a_worker_and_the_writer_take_turns_with_two_buffers() {
        let out = Arc::new(Mutex::new(Vec::new()));
        let log = AccessLog::start(Sink::Slow(out.clone()), None, 1).unwrap();
        on_local(async {
            let buffer = log.buffer();
            let inner = &buffer.0;
            let first = inner.octets.borrow().as_ptr();
            buffer.line(|out| out.extend_from_slice(b"x\n"));
            assert!(inner.hand_over());
            until(|| inner.spare.lock().unwrap().is_some()).await;
            // This one is too large to be kept.
            buffer.line(|out| out.resize(2 * BUFFER, b'x'));
            assert_eq!((inner.octets.borrow().as_ptr(), inner.octets.borrow().len()), (first, 0));
            until(|| Arc::strong_count(&inner.spare) == 1).await;
            assert!(inner.spare.lock().unwrap().is_none());
        });
    }

    #[test]
    fn a_log_ends_with_its_last_buffer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = AccessLog::open(Some(&path)).unwrap();
        on_local(async {
            let buffer = log.buffer();
            buffer.line(|out| out.extend_from_slice(b"last\n"));
            drop(buffer);
            until(|| Arc::strong_count(&log) == 1).await;
        });
        drop(log);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "last\n");
    }

    #[test]
    fn a_log_that_takes_nothing_does_not_hold_the_exit() {
        let out = Arc::new(Mutex::new(Vec::new()));
        let held = out.lock().unwrap();
        let log = AccessLog::start(Sink::Slow(out.clone()), None, 8).unwrap();
        log.send(Chunk { octets: b"x\n".to_vec(), lines: 1, spare: Spare::default() }).unwrap();
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
