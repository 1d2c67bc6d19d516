//! Worker threads: each a single-threaded runtime with its own listeners, service and counters.
//!
//! The control side binds sockets and sends orders; a worker obeys. Nothing else is shared but atomics.

use super::conn::Desk;
use super::drain::{Drain, Open, Phase};
use super::listen::{self, OpenDoor};
use super::{DoorSpec, Service};
use crate::base::clock;
use crate::body::Door;
use crate::metrics::Metrics;
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, mpsc as thread_mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};

/// Orders that a worker has not yet read; it reads them at once, so more means that it hangs.
const ORDERS: usize = 256;

/// What requests at the doors of the deployment may take beyond the last public connection: edges retry elsewhere, and a
/// feed never ends by itself (DESIGN 10: they never hold the exit).
const PEER_GRACE: Duration = Duration::from_secs(1);

/// After the deadline, how long cut connections may take to be counted out.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// What tells one door from another in a reload: the address as configured, and which door it is.
type Key = (Door, SocketAddr);

/// The running workers. Dropping it closes everything at once.
pub struct Workers {
    threads: Vec<Thread>,
    doors: Mutex<Vec<(Key, SocketAddr)>>,
    open: Arc<Open>,
}

struct Thread {
    orders: mpsc::Sender<Order>,
    handle: Option<JoinHandle<()>>,
}

/// What a worker is told.
enum Order {
    Open(Key, TcpListener, DoorSpec),
    Change(Key, DoorSpec),
    Close(Vec<Key>, oneshot::Sender<()>),
    Phase(Phase),
    /// To be answered: a worker that hangs does not.
    Alive(oneshot::Sender<()>),
    Stop,
}

/// What a drain came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections at public doors, open when the doors closed.
    pub open: usize,
    /// Those of them that the deadline cut.
    pub cut: usize,
}

impl Workers {
    /// Binds every door, then starts `count` threads, each of which makes its own service by its number from 0.
    /// `connections` is `limits.connections`.
    ///
    /// Errors: a door that cannot be bound, by its address; nothing is left running.
    pub fn start<S, F>(
        count: usize,
        doors: Vec<DoorSpec>,
        connections: Option<usize>,
        metrics: Arc<Metrics>,
        make: F,
    ) -> io::Result<Workers>
    where
        S: Service,
        F: Fn(usize) -> S + Send + Clone + 'static,
    {
        let open = Arc::new(Open::default());
        let count = count.max(1);
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let seat = Seat { number, open: open.clone(), metrics: metrics.clone() };
            threads.push(Thread::start(seat, make.clone())?);
        }
        let workers = Workers { threads, doors: Mutex::default(), open };
        workers.reload(doors, connections)?;
        Ok(workers)
    }

    /// The doors that are open, with the addresses that they really have.
    pub fn doors(&self) -> Vec<(Door, SocketAddr)> {
        self.list().iter().map(|((door, _), actual)| (*door, *actual)).collect()
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<(Key, SocketAddr)>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens and closes doors until they are those of `doors`; what did not change is not touched, and connections of a
    /// closed door live on. `connections` is `limits.connections`. Errors: a door that cannot be bound; then nothing has
    /// changed.
    pub fn reload(&self, doors: Vec<DoorSpec>, connections: Option<usize>) -> io::Result<()> {
        let mut list = self.list();
        let fresh = |spec: &&DoorSpec| !list.iter().any(|(known, _)| *known == key(spec));
        let mut bound = Vec::new();
        for spec in doors.iter().filter(fresh) {
            let (sockets, actual) = listen::bind(spec.address, self.threads.len())?;
            bound.push((spec.clone(), sockets, actual));
        }
        self.open.cap.store(listen::connections_cap(connections), Ordering::Relaxed);
        let is_alone = doors.iter().all(|spec| spec.door != Door::Public);
        self.open.private_cap.store(listen::private_cap(is_alone), Ordering::Relaxed);
        let gone: Vec<Key> = list
            .iter()
            .map(|(known, _)| *known)
            .filter(|known| !doors.iter().any(|spec| key(spec) == *known))
            .collect();
        for spec in doors.iter().filter(|spec| !fresh(spec)) {
            self.tell(|| Order::Change(key(spec), spec.clone()))?;
        }
        for (spec, sockets, actual) in bound {
            let mut sockets = sockets.into_iter();
            self.tell_some(|| sockets.next().map(|socket| Order::Open(key(&spec), socket, spec.clone())))?;
            list.push((key(&spec), actual));
        }
        list.retain(|(known, _)| !gone.contains(known));
        self.tell(|| Order::Close(gone.clone(), oneshot::channel().0))
    }

    fn tell(&self, mut order: impl FnMut() -> Order) -> io::Result<()> {
        self.tell_some(|| Some(order()))
    }

    fn tell_some(&self, mut order: impl FnMut() -> Option<Order>) -> io::Result<()> {
        for thread in &self.threads {
            let Some(order) = order() else { return Ok(()) };
            thread.orders.try_send(order).map_err(|_| io::Error::other("a worker does not take orders"))?;
        }
        Ok(())
    }

    /// Returns once every worker has answered; never, if one hangs or is dead.
    pub async fn alive(&self) {
        for thread in &self.threads {
            let (told, answer) = oneshot::channel();
            if thread.orders.send(Order::Alive(told)).await.is_err() || answer.await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Open connections at public doors.
    pub fn connections(&self) -> usize {
        self.open.count(Door::Public)
    }

    /// Closes the doors (accepting what has already arrived), lets requests finish for at most `deadline`, then cuts.
    /// Readiness and `drain_wait` come before it and are the caller's.
    pub async fn drain(&self, deadline: Duration) -> Drained {
        let start = clock::now();
        // First: no answer may promise to keep a connection once there is no door to come back through.
        self.reach(Phase::Draining);
        self.close_doors().await;
        let open = self.connections();
        if !self.empty(deadline / 2).await {
            self.reach(Phase::HalfTime);
            self.empty(deadline.saturating_sub(clock::now().saturating_duration_since(start))).await;
        }
        let cut = self.connections();
        self.reach(Phase::Cut);
        self.empty(CUT_GRACE).await;
        Drained { open, cut }
    }

    async fn close_doors(&self) {
        let keys: Vec<Key> = self.list().drain(..).map(|(key, _)| key).collect();
        let mut answers = Vec::new();
        for thread in &self.threads {
            let (told, answer) = oneshot::channel();
            if thread.orders.send(Order::Close(keys.clone(), told)).await.is_ok() {
                answers.push(answer);
            }
        }
        for answer in answers {
            // A worker that died has no doors.
            let _ = answer.await;
        }
    }

    fn reach(&self, phase: Phase) {
        if self.tell(|| Order::Phase(phase)).is_err() {
            tracing::error!(?phase, "a worker does not hear that we are leaving");
        }
    }

    /// Waits until nothing is left that is worth waiting for; false when that took longer than `wait`.
    async fn empty(&self, wait: Duration) -> bool {
        let wanted = async {
            self.fallen(Door::Public).await;
            let _ = tokio::time::timeout(PEER_GRACE, self.fallen(Door::Peer)).await;
        };
        tokio::time::timeout(wait, wanted).await.is_ok()
    }

    async fn fallen(&self, door: Door) {
        loop {
            let mut emptied = std::pin::pin!(self.open.emptied.notified());
            // Before looking, so that what falls between looking and waiting is heard.
            emptied.as_mut().enable();
            if self.open.count(door) == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Stops the threads at once and waits for them.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for thread in &self.threads {
            // A full queue is a hanging worker: dropping the sender below ends it as soon as it looks.
            let _ = thread.orders.try_send(Order::Stop);
        }
        for Thread { orders, handle } in self.threads.drain(..) {
            drop(orders);
            if handle.is_some_and(|handle| handle.join().is_err()) {
                tracing::error!("a worker had panicked");
            }
        }
    }
}

fn key(spec: &DoorSpec) -> Key {
    (spec.door, spec.address)
}

/// What a worker starts with.
struct Seat {
    number: usize,
    open: Arc<Open>,
    metrics: Arc<Metrics>,
}

impl Thread {
    fn start<S, F>(seat: Seat, make: F) -> io::Result<Thread>
    where
        S: Service,
        F: Fn(usize) -> S + Send + 'static,
    {
        let (orders, inbox) = mpsc::channel(ORDERS);
        let (started, answer) = thread_mpsc::sync_channel(1);
        let name = format!("worker-{}", seat.number);
        let handle = std::thread::Builder::new().name(name).spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => {
                    let _ = started.send(Ok(()));
                    runtime.block_on(run(seat, make, inbox));
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        })?;
        answer.recv().map_err(|_| io::Error::other("a worker died at its start"))??;
        Ok(Thread { orders, handle: Some(handle) })
    }
}

/// A worker's life. When it returns, its runtime drops every task that is left.
async fn run<S: Service>(seat: Seat, make: impl FnOnce(usize) -> S, mut orders: mpsc::Receiver<Order>) {
    let desk = Rc::new(Desk {
        // Consumed: what it holds may own these very workers, which would then never be dropped.
        service: make(seat.number),
        seats: Default::default(),
        streams: Default::default(),
        numbers: seat.metrics.worker(),
        drain: Drain::new(),
        open: seat.open,
    });
    let mut doors: HashMap<Key, OpenDoor> = HashMap::new();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Open(key, socket, spec) => match listen::open(&desk, socket, spec) {
                Ok(door) => drop(doors.insert(key, door)),
                Err(error) => tracing::error!(%error, address = %key.1, "a worker cannot listen"),
            },
            Order::Change(key, spec) => {
                if let Some(door) = doors.get(&key) {
                    *door.spec.borrow_mut() = Rc::new(spec);
                }
            }
            Order::Close(keys, told) => {
                close(keys.iter().filter_map(|key| doors.remove(key))).await;
                // Nobody waits for the closing of a reload.
                let _ = told.send(());
            }
            Order::Phase(phase) => desk.drain.reach(phase),
            Order::Alive(told) => {
                // Whoever asked may have stopped waiting.
                let _ = told.send(());
            }
            Order::Stop => return,
        }
    }
}

async fn close(doors: impl Iterator<Item = OpenDoor>) {
    for door in doors {
        let (told, closed) = oneshot::channel();
        if door.close.send(told).is_ok() {
            // The accept loop ends with its answer, or has ended by a panic.
            let _ = closed.await;
        }
    }
}
