//! Numbers: counted per worker without locks, summed when somebody looks.
//!
//! Labels come from the configuration and from closed sets only, never from a request. Routes and clusters are told
//! apart by name, so their numbers survive a reload; those that left the configuration stay until a restart.

pub mod cells;
pub mod log;
pub mod recent;
pub mod render;
pub mod window;
#[cfg(test)]
pub(crate) mod tests;

use crate::base::clock;
use crate::config::plan::Plan;
use crate::error::{Kind, Side};
use crate::record::Record;
use cells::{Cells, ClusterCells, DecisionLabel, RouteCells, StatusLabel};
pub use cells::{Cut, DoorLabel, Handshake};
use recent::{Recent, Ring};
pub use render::Page;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use window::Look;

/// Names at most, over all reloads; further ones are counted under `_other`, so that no series of reloads fills the
/// memory.
const NAMES_MAX: usize = 20_000;

/// The name of what has no route or cluster.
const NONE: &str = "_none";

/// What is written when a page is made.
type Extra = Box<dyn Fn(&mut Page<'_>) -> fmt::Result + Send + Sync>;

/// All numbers of the process.
#[derive(Default)]
pub struct Metrics {
    workers: Mutex<Vec<Arc<Shared>>>,
    extras: Mutex<Vec<Extra>>,
}

/// What a worker shares with whoever sums it up.
#[derive(Debug, Default)]
struct Shared {
    cells: Cells,
    routes: Mutex<HashMap<String, Arc<RouteCells>>>,
    clusters: Mutex<HashMap<String, Arc<ClusterCells>>>,
    recent: Ring,
}

/// The numbers of one worker thread. Cloning gives another handle to the same numbers.
#[derive(Debug, Clone)]
pub struct Local {
    shared: Arc<Shared>,
    found: Rc<RefCell<Found>>,
}

/// The cells that a plan's ids stand for, found once per plan.
#[derive(Debug, Default)]
struct Found {
    plan: Option<Arc<Plan>>,
    routes: Vec<Option<Arc<RouteCells>>>,
    clusters: HashMap<Arc<str>, Arc<ClusterCells>, foldhash::fast::RandomState>,
    /// The cluster that was asked for last: mostly the next one too.
    cluster: Option<(Arc<str>, Arc<ClusterCells>)>,
    no_route: Option<Arc<RouteCells>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Metrics")
    }
}

impl Metrics {
    /// No numbers yet.
    pub fn new() -> Arc<Metrics> {
        Arc::new(Metrics::default())
    }

    /// The cells of a further worker.
    pub fn worker(&self) -> Local {
        let shared = Arc::new(Shared::default());
        lock(&self.workers).push(shared.clone());
        Local { shared, found: Rc::default() }
    }

    /// Adds what is computed at the time of looking: feed lag, map size, peers.
    pub fn extra(&self, write: impl Fn(&mut Page<'_>) -> fmt::Result + Send + Sync + 'static) {
        lock(&self.extras).push(Box::new(write));
    }

    /// The durations by decision, over all workers and routes.
    pub fn look(&self) -> Look {
        let mut look = Look::default();
        for worker in lock(&self.workers).iter() {
            for route in lock(&worker.routes).values() {
                for (sum, decision) in look.iter_mut().zip(&route.decisions) {
                    sum.iter_mut().zip(&decision.total.buckets).for_each(|(sum, count)| *sum += count.load());
                }
            }
        }
        look
    }

    /// The last requests of all workers, the newest first and at most `max`, and how many were left out so far.
    pub fn recent(&self, max: usize) -> (Vec<Recent>, u64) {
        let workers = lock(&self.workers).clone();
        let mut all: Vec<_> = workers.iter().flat_map(|worker| worker.recent.kept()).collect();
        all.sort_by_key(|one| std::cmp::Reverse(one.at_ms));
        all.truncate(max);
        (all, workers.iter().map(|worker| worker.recent.left_out()).sum())
    }

    /// Everything as Prometheus text.
    pub fn render(self: &Arc<Self>) -> String {
        render::text(self)
    }
}

impl Local {
    /// The cells of this worker.
    pub fn cells(&self) -> &Cells {
        &self.shared.cells
    }

    /// Counts a request that has ended.
    pub fn observe(&self, plan: &Arc<Plan>, record: &Record) {
        let found = &mut *self.found.borrow_mut();
        found.look_at(plan);
        let route = found.route(&self.shared, plan, record);
        let gave_up = matches!(record.failure, Some((Kind::ClientClosed, ..)));
        let failed = matches!(record.failure, Some((_, Side::Upstream | Side::Own, _)));
        let decision = &route.decisions[DecisionLabel::of(record.decision) as usize];
        decision.statuses[StatusLabel::of(record.status) as usize].add(1);
        decision.total.observe(clock::turn().saturating_duration_since(record.began));
        if !gave_up {
            route.asked.add(1);
            route.answered.add(u64::from(!failed && (100..500).contains(&record.status)));
        }
        if let Some(cluster) = found.cluster(&self.shared, record) {
            cluster.attempts.add(u64::from(record.attempts));
            cluster.retries.add(u64::from(record.attempts.saturating_sub(1)));
        }
        self.observe_rest(record);
    }

    /// Keeps a request that has ended for people to see, if this second still has room for one.
    pub fn note(&self, record: &Record, method: &str, target: &str) {
        self.shared.recent.note(record, clock::turn(), method, target);
    }

    fn observe_rest(&self, record: &Record) {
        let cells = &self.shared.cells;
        cells.received.add(record.received);
        cells.sent.add(record.sent);
        cells.coded(&record.coded, record.sent);
        cells.corrections.add(u64::from(record.corrections));
        if let Some((kind, side, _)) = &record.failure {
            cells.failed(*kind, *side);
        }
    }
}

impl Found {
    fn route(&mut self, shared: &Shared, plan: &Plan, record: &Record) -> &RouteCells {
        let named = record.route.and_then(|id| Some((id.index(), plan.settings.get(id.index())?)));
        let (slot, name) = match named {
            Some((at, settings)) => (&mut self.routes[at], settings.name.as_str()),
            None => (&mut self.no_route, NONE),
        };
        slot.get_or_insert_with(|| cell(&shared.routes, name))
    }

    fn cluster(&mut self, shared: &Shared, record: &Record) -> Option<&ClusterCells> {
        let name = record.cluster.as_ref()?;
        if self.cluster.as_ref().is_none_or(|(last, _)| !Arc::ptr_eq(last, name)) {
            let fresh = || cell(&shared.clusters, name);
            let cells = self.clusters.entry(name.clone()).or_insert_with(fresh);
            self.cluster = Some((name.clone(), cells.clone()));
        }
        self.cluster.as_ref().map(|(_, cells)| &**cells)
    }

    fn look_at(&mut self, plan: &Arc<Plan>) {
        if self.plan.as_ref().is_some_and(|known| Arc::ptr_eq(known, plan)) {
            return;
        }
        self.plan = Some(plan.clone());
        self.routes = vec![None; plan.settings.len()];
        self.clusters.clear();
        self.cluster = None;
    }
}

/// The cell under a name, made when new.
fn cell<T: Default>(map: &Mutex<HashMap<String, Arc<T>>>, name: &str) -> Arc<T> {
    let mut map = lock(map);
    let name = if map.len() < NAMES_MAX || map.contains_key(name) { name } else { "_other" };
    map.entry(name.to_owned()).or_default().clone()
}

/// A lock whose holder panicked still guards whole values here: each is a list that is only pushed to.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
