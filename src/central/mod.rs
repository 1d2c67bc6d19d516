//! Central: the single authority over homes (HOMES 2). One appender, one log, many readers.
//!
//! Owns the log, the state that it spells, and the API over both. Knows nothing of doors: [`Central::call`] answers
//! requests that somebody else accepted. Invariant: nothing is visible, by look-up or by stream, that is not on disk.

pub mod api;
pub mod appender;
pub mod bulk;
pub mod feed;
pub mod fleet;
mod incarnations;
pub mod outbox;
pub mod publish;
mod recover;
pub mod rights;
pub mod standby;
pub mod state;

use crate::base::backoff::random;
use crate::base::fault::Fault;
use crate::base::seldom::Seldom;
use crate::base::{clock, mend};
use crate::config::plan::Plan;
use crate::home::cursor::FeedId;
use crate::home::{event, key};
use crate::store::files;
use crate::store::log::{Log, LogError, LogReader};
use api::Refusal;
use appender::{Appender, Command, QUEUE_MAX, read};
use feed::Images;
use fleet::{Fleet, Reach};
use state::{Outcome, State, Want};
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// How long a caller waits for the log: room in the queue and the fsync.
const COMMIT_WAIT: Duration = Duration::from_secs(5);
/// Between two lines that say that the edges differ in how keys are claimed.
const MIXED_EVERY: Duration = Duration::from_secs(10);
/// How many events an edge that is lost, or slow, may hold back: a week of a million registrations a day, and 32 MiB of
/// checksums. Further back the stream does not reach, and 410 sends to the snapshot.
const HELD_MAX: u64 = 8_000_000;

/// Events of one batch of the stream, and homes of one commit of an import: some 80 KiB each.
const BATCH_MAX: usize = 1024;
/// The name of the log in the data folder.
const LOG: &str = "central";

/// Central, shared by all workers of its door.
pub struct Central {
    feed: FeedId,
    feed_id: String,
    reach: Arc<Reach>,
    /// Registered edges that were sent to a snapshot.
    gone: AtomicU64,
    began: Instant,
    state: Arc<RwLock<State>>,
    head: watch::Sender<u64>,
    stopping: watch::Sender<bool>,
    trouble: Arc<Mutex<Option<String>>>,
    commands: Mutex<Option<mpsc::Sender<Command>>>,
    appender: Mutex<Option<JoinHandle<()>>>,
    images: Images,
    fleet: Arc<Fleet>,
    /// Names this process's wait for reports: an edge reports once to each.
    round: u64,
    /// The log, for standbys.
    reader: LogReader,
    /// Whom this Central copies, while it is a standby.
    standby_of: Mutex<Option<String>>,
    promoted: watch::Sender<bool>,
    /// The higher term that an edge was seen to follow: another Central has taken over.
    superseded: Mutex<Option<u64>>,
    /// That the edges differ in how keys are claimed.
    mixed: Seldom,
    /// Cut = this Central is stopped on purpose.
    stop: Fault,
}

/// What the data folder of a Central is, by what its operator says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun<'a> {
    /// Its own log, whole.
    Here,
    /// A copy, older than what the edges may have seen (HOMES 2.2, Restore).
    Restored,
    /// The copy of a leader's log, which goes on being copied.
    Standby {
        /// The leader's door.
        of: &'a str,
        /// Its feed.
        feed: FeedId,
    },
}

impl Central {
    /// Opens Central by its plan: reads the log in `[central] data`, registers its `[edges]`, starts the appender.
    ///
    /// Errors: why it cannot start, for people. Cost: reads the whole log.
    pub fn open(plan: &Plan) -> Result<Arc<Central>, String> {
        Central::open_as(plan, Begun::Here)
    }

    /// The same; `begun` says what its data is.
    pub fn open_as(plan: &Plan, begun: Begun<'_>) -> Result<Arc<Central>, String> {
        let data = plan.own.data.as_deref().ok_or("Central needs `data` in `[central]`: a folder for its log")?;
        let edges: Vec<(String, Option<String>)> = plan
            .edges
            .list()
            .into_iter()
            .map(|edge| (edge.name.clone(), edge.peer.as_ref().map(ToString::to_string)))
            .collect();
        Central::start_as(data, &edges, HELD_MAX, begun)
    }

    /// The same from its parts. A lost edge holds back at most `held` events.
    pub fn start(data: &Path, edges: &[(String, Option<String>)], held: u64) -> Result<Arc<Central>, String> {
        Central::start_as(data, edges, held, Begun::Here)
    }

    /// The same; `begun` says what `data` is.
    pub fn start_as(
        data: &Path,
        edges: &[(String, Option<String>)],
        held: u64,
        begun: Begun<'_>,
    ) -> Result<Arc<Central>, String> {
        let folder = Folder::lock(data)?;
        let (log, state) = replay(data, begun)?;
        let (feed, reader) = (FeedId(log.label()), log.reader());
        let state = Arc::new(RwLock::new(state));
        let head = watch::Sender::new(read(&state).head());
        let trouble = Arc::new(Mutex::new(None));
        edges.iter().try_for_each(|(name, _)| key::check_name("edge", name))?;
        let reach = Arc::new(Reach::new(held));
        let fleet = Arc::new(Fleet::default());
        let mut appender = Appender {
            log,
            state: state.clone(),
            head: head.clone(),
            edges: edges.to_vec(),
            fleet: fleet.clone(),
            reach: reach.clone(),
            trouble: trouble.clone(),
        };
        appender.compact();
        if begun == Begun::Restored {
            appender.restore(0)?.ok_or("Central's log cannot be written")?;
        }
        if read(&state).recovery().is_some() {
            // Indices are given out again only once the edges have said which are taken.
            appender.await_configured();
        } else if !matches!(begun, Begun::Standby { .. }) {
            register_edges(&mut appender)?;
        }
        let (commands, queue) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new().name("central-log".into()).spawn(move || {
            let _held_while_appending = folder;
            if let Err(why) = appender.run(queue) {
                tracing::error!(why, "Central appends nothing more until it is restarted");
            }
        });
        let thread = thread.map_err(|error| format!("Central's log thread cannot be started: {error}"))?;
        let standby_of = match begun {
            Begun::Standby { of, feed: theirs } if theirs == feed => Some(of.to_owned()),
            Begun::Standby { of, .. } => {
                return Err(format!("{} is the log of another feed than that of {of}", data.display()));
            }
            Begun::Here | Begun::Restored => None,
        };
        Ok(Arc::new(Central {
            feed,
            feed_id: feed.to_string(),
            reach,
            gone: AtomicU64::new(0),
            mixed: Seldom::new(MIXED_EVERY),
            began: clock::now(),
            state,
            head,
            stopping: watch::Sender::new(false),
            trouble,
            commands: Mutex::new(Some(commands)),
            appender: Mutex::new(Some(thread)),
            images: Images::default(),
            fleet,
            round: random(),
            reader,
            standby_of: Mutex::new(standby_of),
            promoted: watch::Sender::new(false),
            superseded: Mutex::new(None),
            stop: Fault::default(),
        }))
    }

    /// Ends all streams with a `bye`, takes no more commands, and returns when those taken are durable.
    pub fn shutdown(&self) {
        self.stopping.send_replace(true);
        let commands = lock(&self.commands).take();
        drop(commands);
        if let Some(thread) = lock(&self.appender).take()
            && thread.join().is_err()
        {
            tracing::error!("Central's log thread panicked");
        }
    }

    /// The id of the feed, in hexadecimal.
    pub fn feed_id(&self) -> &str {
        &self.feed_id
    }

    /// The term.
    pub fn term(&self) -> u32 {
        read(&self.state).term()
    }

    /// The edges that are awaited after a restore; `None` if this Central is open.
    pub fn awaited(&self) -> Option<Vec<String>> {
        let is_waiting = read(&self.state).recovery().is_some();
        is_waiting.then(|| appender::awaited(&self.state))
    }

    /// The last seq that is durable.
    pub fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// The same, and each later one as it is published: once for each group that was made durable.
    pub fn heads(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// The fault that stops this Central on purpose: while it is cut, streams end and every request is refused.
    pub fn stop(&self) -> &Fault {
        &self.stop
    }

    /// The registered edges by name, with what each that follows has said of itself.
    pub fn followers(&self) -> Vec<(String, Option<fleet::Follower>)> {
        let names: Vec<_> = read(&self.state).edges().iter().map(|edge| edge.name.clone()).collect();
        let now = clock::now();
        names.into_iter().map(|name| (name.clone(), self.fleet.follower(&name, now))).collect()
    }

    /// The oldest seq from which a stream may start; the one that every registered edge has on disk, if that is known; how
    /// often a registered edge was sent to a snapshot, since the start.
    pub fn reach(&self) -> (u64, Option<u64>, u64) {
        let slowest = Some(self.reach.slowest()).filter(|slowest| *slowest < u64::MAX);
        (self.oldest(), slowest, self.gone.load(Ordering::Relaxed))
    }

    /// The oldest seq from which a stream may start.
    fn oldest(&self) -> u64 {
        self.oldest_in(&read(&self.state))
    }

    /// The same for who holds the state already.
    fn oldest_in(&self, state: &State) -> u64 {
        state.compacted().max(state.purges_gone()) + 1
    }

    /// Sends the appender a command that has one answer, and returns that once it is durable.
    async fn order<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Refusal> {
        let commands = lock(&self.commands).clone().ok_or_else(Refusal::stopping)?;
        let (answer, told) = oneshot::channel();
        let done = async {
            commands.send(make(answer)).await.ok()?;
            drop(commands);
            told.await.ok()
        };
        match tokio::time::timeout(COMMIT_WAIT, done).await {
            Ok(Some(told)) => Ok(told),
            Ok(None) => Err(Refusal::unavailable("Central's log takes no entries now: see `trouble` in /v1/status")),
            Err(_) => Err(Refusal::unavailable("Central's log is too slow now; the same request again is safe")),
        }
    }

    /// Tells all who follow that what is cached under a tag is stale: its seq, once durable, or why not every one would
    /// read it. Errors: the log takes nothing now; the same again is safe.
    async fn purge(&self, tag: String) -> Result<Result<u64, Refusal>, String> {
        let purged = self.order(|answer| Command::Purge { tag, answer }).await;
        let purged = purged.map_err(|refusal| refusal.detail().to_owned())?;
        Ok(purged.map_err(|lacking| Refusal::not_read(event::PURGE, &lacking)))
    }

    /// Why a kind of event is not written: who could not read it.
    fn withheld(&self, feature: &'static str) -> Refusal {
        Refusal::not_read(feature, &self.fleet.lacking(feature, clock::now()))
    }

    /// Asks for homes, and returns what became of each once that is durable.
    async fn commit(&self, wants: Vec<Want>) -> Result<Vec<Outcome>, Refusal> {
        self.order(|answer| Command::Homes { wants, answer }).await
    }
}

/// Enters the edges of the configuration that the log does not have, or has with another address.
fn register_edges(appender: &mut Appender) -> Result<(), String> {
    for (name, peer) in appender.edges.clone() {
        let entry = read(&appender.state).plan_edge(&name, peer.as_deref())?;
        appender.append(entry.into_iter().collect()).map_err(|failure| failure.to_string())?;
    }
    Ok(())
}

/// The data folder, ours alone: two appenders on one log would give one seq twice.
struct Folder {
    _lock: File,
}

impl Folder {
    fn lock(data: &Path) -> Result<Folder, String> {
        let shown = data.display();
        files::create_dir(data).map_err(|error| {
            mend::told(format!("`data` of [central] cannot be made: {shown}: {error}"), mend::write(&error))
        })?;
        let file = File::options().create(true).truncate(false).write(true).open(data.join("lock"));
        let file = file.map_err(|error| {
            mend::told(format!("`data` of [central] cannot be used: {shown}/lock: {error}"), mend::write(&error))
        })?;
        match file.try_lock() {
            Ok(()) => Ok(Folder { _lock: file }),
            Err(TryLockError::WouldBlock) => Err(mend::told(
                format!("another Central runs on {shown}: two would number their events alike"),
                "stop the other one, or give this one a `data` of its own",
            )),
            Err(TryLockError::Error(error)) => Err(format!("{shown}/lock cannot be locked: {error}")),
        }
    }
}

/// Reads the log, or begins one under a new feed id.
fn replay(data: &Path, begun: Begun<'_>) -> Result<(Log, State), String> {
    let fail = |error: LogError| {
        format!(
            "Central's log cannot be read, and is left as it is (restore it from a copy, or move it away to start over): {error}"
        )
    };
    let mut fresh = [0; 16];
    getrandom::fill(&mut fresh).map_err(|error| format!("the system gives no random octets: {error}"))?;
    if let Begun::Standby { feed, .. } = begun {
        fresh = feed.0;
    }
    let log = Log::open(data, LOG, fresh, 1, |_, _| {}).map_err(fail)?;
    // A second pass: the label that keys the hashes is known only now.
    let mut state = State::new(FeedId(log.label()));
    for entry in log.reader().read(1).map_err(fail)? {
        let (seq, payload) = entry.map_err(fail)?;
        let applied = appender::decode(&payload).and_then(|entry| state.apply(entry));
        state.chained(&payload);
        applied.map_err(|why| format!("Central's log makes no sense at entry {seq}: {why}"))?;
    }
    Ok((log, state))
}

/// Locks; a holder that panicked leaves nothing half done here, since every critical section is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kind_of_event_is_withheld_while_somebody_who_follows_cannot_read_it() {
        let data = tempfile::tempdir().unwrap();
        let central = Central::start(data.path(), &[("fr".into(), None), ("de".into(), None)], 1000).unwrap();
        let features = |known: &[&str]| fleet::Hello {
            features: known.iter().map(|feature| (*feature).to_owned()).collect(),
            ..fleet::Hello::default()
        };
        central.fleet.greet(("fr", "a"), 2, features(event::FEATURES), clock::now());
        assert_eq!(central.purge("first".into()).await.unwrap().unwrap(), 3);
        central.fleet.greet(("de", "old"), 3, features(&["chain", "digest"]), clock::now());
        let refusal = central.purge("second".into()).await.unwrap().unwrap_err();
        assert_eq!((refusal.status(), central.head()), (409, 3), "nothing was written");
        assert!(refusal.detail().contains("`purge`") && refusal.detail().contains("de (instance old"), "{refusal:?}");
        central.fleet.greet(("de", "old"), 3, features(event::FEATURES), clock::now());
        assert_eq!(central.purge("second".into()).await.unwrap().unwrap(), 4);
        central.shutdown();
    }
}
