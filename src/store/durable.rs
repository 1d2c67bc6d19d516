//! The small transactional store: the claims that Central has not entered yet, with the outbox that delivers them.
//!
//! SQLite in WAL mode with synchronous FULL, on a thread of its own behind a bounded channel. What has queued up while
//! one transaction was being made durable goes into the next one together: that is the group commit. A caller whose
//! write did not get through is told so; nothing is half there, for a claim and its outbox entry are one transaction.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, TryRecvError, TrySendError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, Transaction, params};

use super::files;

/// Writes that may wait for the disk. At 4 ms a transaction this is well below a second of it; more would only make
/// callers wait for an answer that comes too late.
pub const QUEUE: usize = 1024;

/// Writes of one transaction. Bounds how long the first of a group waits for the last.
const GROUP_MAX: usize = 256;

/// How long SQLite waits for another holder of the file. There is none but a tool that someone runs by hand.
const BUSY: Duration = Duration::from_secs(1);

/// How long one rests before a write that failed, or found no room, is tried again.
const AGAIN: Duration = Duration::from_millis(100);

/// A claim at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRow {
    /// The key space.
    pub space: String,
    /// The key.
    pub key: String,
    /// The claim's id, the same at every delivery.
    pub id: String,
    /// The edge index and epoch to which it was lost; `None` while it waits.
    pub lost: Option<(u16, u32)>,
}

/// Told whether a write is durable, on the store's thread.
pub type Done = Box<dyn FnOnce(bool) + Send>;

/// A write.
pub enum Write {
    /// A new claim with its outbox entry; an existing one of the key stays as it is.
    Claim {
        /// The claim.
        row: ClaimRow,
        /// Told the outcome.
        done: Done,
    },
    /// The claim is over: it goes, and its outbox entry.
    Settle {
        /// The key space.
        space: String,
        /// The key.
        key: String,
    },
    /// The claim is lost to an edge at an epoch: its outbox entry goes.
    Lose {
        /// The key space.
        space: String,
        /// The key.
        key: String,
        /// The edge's index.
        to: u16,
        /// The epoch.
        epoch: u32,
    },
    /// Proves that the store can be written.
    Probe {
        /// Told the outcome.
        done: Done,
    },
}

impl std::fmt::Debug for Write {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Write::Claim { .. } => "Claim",
            Write::Settle { .. } => "Settle",
            Write::Lose { .. } => "Lose",
            Write::Probe { .. } => "Probe",
        })
    }
}

/// The store could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}", path = path.display())]
pub struct DurableError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub why: String,
}

/// What stood in the store when it was opened.
#[derive(Debug, Default)]
pub struct Found {
    /// All claims, in the order in which they were made.
    pub claims: Vec<ClaimRow>,
    /// What was unreadable and set aside.
    pub set_aside: Vec<PathBuf>,
}

/// The channel to the store's thread; clone it freely. The thread ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Durable {
    writes: mpsc::SyncSender<Write>,
}

/// The store's thread.
#[derive(Debug)]
pub struct StoreThread(JoinHandle<()>);

impl StoreThread {
    /// Waits until all writes are done; the last [`Durable`] must have been dropped.
    pub fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the store's thread has panicked");
        }
    }
}

impl Durable {
    /// Opens or creates the store in `path`. An unreadable one is set aside, and a new one begun.
    pub fn open(path: &Path, queue: usize) -> Result<(Durable, StoreThread, Found), DurableError> {
        let fail = |why: String| DurableError { path: path.to_path_buf(), why };
        let mut set_aside = Vec::new();
        let opened = match connect(path) {
            Err(error) if is_damage(&error) => {
                set_aside = set_all_aside(path).map_err(|error| fail(error.to_string()))?;
                connect(path)
            }
            other => other,
        };
        let (connection, claims) = opened.map_err(|error| fail(error.to_string()))?;
        let (writes, queued) = mpsc::sync_channel(queue);
        let thread = std::thread::Builder::new().name("store".into()).spawn(move || run(connection, queued));
        let thread = thread.map_err(|error| fail(error.to_string()))?;
        Ok((Durable { writes }, StoreThread(thread), Found { claims, set_aside }))
    }

    /// Queues a write without waiting; false if the queue is full: then nothing will happen.
    pub fn offer(&self, write: Write) -> bool {
        self.writes.try_send(write).is_ok()
    }

    /// Queues a write that must not be forgotten, waiting for room. False if the thread is gone.
    pub async fn send(&self, mut write: Write) -> bool {
        loop {
            match self.writes.try_send(write) {
                Ok(()) => return true,
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(back)) => write = back,
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// As [`Durable::send`], for a thread that may block.
    pub fn send_blocking(&self, write: Write) -> bool {
        self.writes.send(write).is_ok()
    }
}

fn connect(path: &Path) -> rusqlite::Result<(Connection, Vec<ClaimRow>)> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
            Some(check),
        ));
    }
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS claim (
             n INTEGER PRIMARY KEY AUTOINCREMENT, space TEXT NOT NULL, key TEXT NOT NULL, id TEXT NOT NULL,
             lost_to INTEGER, lost_epoch INTEGER, UNIQUE (space, key)) STRICT;
         CREATE TABLE IF NOT EXISTS outbox (
             n INTEGER PRIMARY KEY AUTOINCREMENT, space TEXT NOT NULL, key TEXT NOT NULL, UNIQUE (space, key)) STRICT;
         CREATE TABLE IF NOT EXISTS proof (one INTEGER PRIMARY KEY, count INTEGER NOT NULL) STRICT;
         INSERT OR IGNORE INTO proof VALUES (1, 0);",
    )?;
    let claims = read_claims(&connection)?;
    Ok((connection, claims))
}

fn read_claims(connection: &Connection) -> rusqlite::Result<Vec<ClaimRow>> {
    let mut statement = connection.prepare("SELECT space, key, id, lost_to, lost_epoch FROM claim ORDER BY n")?;
    let rows = statement.query_map([], |row| {
        let (to, epoch): (Option<u16>, Option<u32>) = (row.get(3)?, row.get(4)?);
        Ok(ClaimRow { space: row.get(0)?, key: row.get(1)?, id: row.get(2)?, lost: to.zip(epoch) })
    })?;
    rows.collect()
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode;
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || matches!(error, rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::FromSqlConversionFailure(..))
}

/// SQLite's file and its two companions belong together.
fn set_all_aside(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut aside = Vec::new();
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_os_string();
        name.push(suffix);
        if Path::new(&name).exists() {
            aside.push(files::set_aside(Path::new(&name))?);
        }
    }
    Ok(aside)
}

fn run(mut connection: Connection, queued: mpsc::Receiver<Write>) {
    let mut group = Vec::with_capacity(GROUP_MAX);
    loop {
        if group.is_empty() {
            let Ok(first) = queued.recv() else { return };
            group.push(first);
        } else {
            group.extend(queued.recv_timeout(AGAIN));
        }
        let is_last = gather(&queued, &mut group);
        match write(&mut connection, &group) {
            Ok(()) => group.drain(..).for_each(|write| tell(write, true)),
            Err(error) => {
                tracing::error!(%error, writes = group.len(), "the store could not be written");
                refuse(&mut group);
                if is_last {
                    return;
                }
            }
        }
    }
}

/// Takes along what has queued up while the last group was being written; waits for nobody. True if nothing can come
/// any more.
fn gather(queued: &mpsc::Receiver<Write>, group: &mut Vec<Write>) -> bool {
    while group.len() < GROUP_MAX {
        match queued.try_recv() {
            Ok(write) => group.push(write),
            Err(error) => return error == TryRecvError::Disconnected,
        }
    }
    false
}

/// After a failure: who waits is told, and what must not be forgotten (nobody waits for it) is tried again.
fn refuse(group: &mut Vec<Write>) {
    let (told, kept): (Vec<_>, Vec<_>) =
        group.drain(..).partition(|write| matches!(write, Write::Claim { .. } | Write::Probe { .. }));
    told.into_iter().for_each(|write| tell(write, false));
    *group = kept;
}

fn tell(write: Write, stored: bool) {
    if let Write::Claim { done, .. } | Write::Probe { done } = write {
        done(stored);
    }
}

fn write(connection: &mut Connection, group: &[Write]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    group.iter().try_for_each(|write| execute(&transaction, write))?;
    transaction.commit()
}

fn execute(transaction: &Transaction<'_>, write: &Write) -> rusqlite::Result<()> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| transaction.prepare_cached(sql)?.execute(values).map(drop);
    match write {
        Write::Claim { row, .. } => {
            run("INSERT OR IGNORE INTO claim (space, key, id) VALUES (?, ?, ?)", params![row.space, row.key, row.id])?;
            run("INSERT OR IGNORE INTO outbox (space, key) VALUES (?, ?)", params![row.space, row.key])
        }
        Write::Settle { space, key } => {
            run("DELETE FROM claim WHERE space = ? AND key = ?", params![space, key])?;
            run("DELETE FROM outbox WHERE space = ? AND key = ?", params![space, key])
        }
        Write::Lose { space, key, to, epoch } => {
            run(
                "UPDATE claim SET lost_to = ?, lost_epoch = ? WHERE space = ? AND key = ?",
                params![to, epoch, space, key],
            )?;
            run("DELETE FROM outbox WHERE space = ? AND key = ?", params![space, key])
        }
        Write::Probe { .. } => run("UPDATE proof SET count = count + 1", &[]),
    }
}

#[cfg(test)]
mod tests;
