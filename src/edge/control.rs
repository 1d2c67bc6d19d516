//! The control thread: everything that runs beside the requests.

use super::panel::PanelOf;
use super::{Feeding, Shared};
use crate::admin::{AdminDoor, Kind};
use crate::base::service;
use crate::central::outbox::Outbox;
use crate::central::publish::Publisher;
use crate::config::plan::{Address, Feed, Plan};
use crate::feed::link;
use crate::feed::siblings;
use crate::feed::source::file::{File, KnownEdges};
use crate::feed::source::nats::Stream;
use crate::feed::status::LinkStatus;
use crate::tls;
use crate::upstream::{probe, pulse};
use std::sync::{Arc, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// How long a door that a reload has moved may take to answer that reload.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// How often the certificate files towards other places are looked at.
const LINKS_EVERY: Duration = Duration::from_secs(2);

/// The running thread.
pub(crate) struct Control {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
    doors: Vec<(String, String)>,
}

impl Control {
    /// Starts the thread, and opens the observe and admin doors on it. Errors: a door that cannot be opened.
    pub(crate) fn start(shared: Arc<Shared>, feeding: Option<Feeding>) -> Result<Control, String> {
        let (stop, stopped) = watch::channel(false);
        let (opened, doors) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || run(shared, feeding, stopped, &opened))
            .map_err(|error| format!("the control thread could not be started: {error}"))?;
        let doors = doors.recv().map_err(|_| "the control thread ended at its start".to_owned())??;
        Ok(Control { stop, thread, doors })
    }

    /// The open doors and where they are.
    pub(crate) fn doors(&self) -> Vec<(String, String)> {
        self.doors.clone()
    }

    /// Stops the thread and waits for it.
    pub(crate) fn stop(self) {
        self.stop.send_replace(true);
        // A panic of the thread has been reported by its own hook; there is nothing left to stop.
        let _ = self.thread.join();
    }
}

type Opened = mpsc::Sender<Result<Vec<(String, String)>, String>>;

fn run(shared: Arc<Shared>, feeding: Option<Feeding>, stopped: watch::Receiver<bool>, opened: &Opened) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return drop(opened.send(Err(format!("the control runtime could not be started: {error}")))),
    };
    runtime.block_on(async {
        let doors = match open_doors(&shared).await {
            Ok(doors) => {
                let _ = opened.send(Ok(doors.iter().map(shown).collect()));
                doors
            }
            Err(why) => return drop(opened.send(Err(why))),
        };
        tasks(&shared, feeding, stopped.clone());
        let mut stopped = stopped;
        tokio::select! {
            () = follow_doors(&shared, doors) => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
    });
}

/// Opens the observe and admin doors anew where a reload has moved them; the other one is not touched.
async fn follow_doors(shared: &Arc<Shared>, mut doors: Vec<(Kind, AdminDoor)>) {
    let mut sites = shared.site.reader();
    let mut open = addresses(&sites.load().plan);
    while sites.changed().await {
        let wanted = addresses(&sites.load().plan);
        for ((kind, old), (_, new)) in open.iter_mut().zip(wanted) {
            if *old != new && move_door(shared, *kind, old.as_ref(), new.as_ref(), &mut doors).await {
                *old = new;
            }
        }
    }
}

/// Moves one door; false where it could not be opened, and then the old one stays open.
async fn move_door(
    shared: &Arc<Shared>,
    kind: Kind,
    old: Option<&Address>,
    new: Option<&Address>,
    doors: &mut Vec<(Kind, AdminDoor)>,
) -> bool {
    let panel = Arc::new(PanelOf(shared.clone()));
    let at = doors.iter().position(|(known, _)| *known == kind);
    let mut leaving = at.map(|at| doors.swap_remove(at));
    let Some(new) = new else {
        retire(leaving);
        return true;
    };
    let mut opened = AdminDoor::open(new, kind, panel.clone()).await;
    if opened.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse) && leaving.take().is_some() {
        // The new address may be the old one under another name, such as 0.0.0.0 for 127.0.0.1.
        tokio::task::yield_now().await;
        opened = AdminDoor::open(new, kind, panel.clone()).await;
    }
    match opened {
        Ok(door) => {
            tracing::info!(door = name(kind), address = %show(door.address()), "listening");
            retire(leaving);
            doors.push((kind, door));
            true
        }
        Err(error) => {
            if leaving.is_none()
                && let Some(old) = old
            {
                leaving = AdminDoor::open(old, kind, panel).await.ok().map(|door| (kind, door));
            }
            doors.extend(leaving);
            let stays = doors.iter().any(|(known, _)| *known == kind);
            tracing::error!(door = name(kind), stays, "a door could not be moved: {error}");
            false
        }
    }
}

/// Closes a door, but not before it has answered the very reload that moved it.
fn retire(door: Option<(Kind, AdminDoor)>) {
    tokio::task::spawn_local(async move {
        tokio::time::sleep(LAST_ANSWER).await;
        drop(door);
    });
}

fn addresses(plan: &Plan) -> [(Kind, Option<Address>); 2] {
    [(Kind::Observe, plan.observe.clone()), (Kind::Admin, plan.admin.clone())]
}

fn tasks(shared: &Arc<Shared>, feeding: Option<Feeding>, stopped: watch::Receiver<bool>) {
    tokio::task::spawn_local(probe::run(shared.live.reader()));
    tokio::task::spawn_local(certificates(shared.clone()));
    tokio::task::spawn_local(alive(shared.clone()));
    tokio::task::spawn_local(looks(shared.clone()));
    if let (Some(leader), Some(central)) = (&shared.leader, &shared.central) {
        tokio::task::spawn_local(central.clone().copy(leader.clone()));
    }
    // Central calls no edge: each edge measures its way to Central, and tells.
    if shared.central.is_none() {
        tokio::task::spawn_local(pulse::run(shared.live.reader()));
    }
    relays(shared);
    if let (Some(feeding), Some(homes), Some(status)) = (feeding, &shared.homes, &shared.link) {
        tokio::task::spawn_local(edges(shared.clone(), homes.edges_watch()));
        tokio::task::spawn_local(homes.clone().deliver());
        tokio::task::spawn_local(siblings::run(homes.clone(), homes.sibling_asks(), shared.family.reader()));
        tokio::task::spawn_local(follow(feeding, shared.clone(), status.clone(), stopped));
    }
}

/// What Central relays beside its door.
fn relays(shared: &Arc<Shared>) {
    let Some(central) = &shared.central else { return };
    let written = shared.written.lock().unwrap_or_else(PoisonError::into_inner);
    let (relays, data) = (written.relays.clone(), written.own.data.clone().unwrap_or_default());
    drop(written);
    if let (Some(database), Some(status)) = (relays.outbox, &shared.outbox) {
        let outbox = Outbox::new(central.clone(), database, &data, status.clone());
        tokio::task::spawn_local(outbox.run());
    }
    if let (Some(stream), Some(status)) = (relays.publish, &shared.publish) {
        let publisher = Publisher::new(central.clone(), stream, status.clone());
        tokio::task::spawn_local(publisher.run());
    }
}

/// Tells the service manager that this thread and all workers are alive, if it wants to know: a place that hangs is
/// started anew.
async fn alive(shared: Arc<Shared>) {
    let Some(every) = service::alive_every() else { return };
    loop {
        shared.workers().alive().await;
        service::tell(service::State::Alive);
        tokio::time::sleep(every).await;
    }
}

/// Looks at the counters once a second, so that the page can tell of the last minute.
async fn looks(shared: Arc<Shared>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        second.tick().await;
        let look = shared.metrics.look();
        shared.window.lock().unwrap_or_else(PoisonError::into_inner).push(look);
    }
}

async fn follow(feeding: Feeding, shared: Arc<Shared>, status: Arc<LinkStatus>, stopped: watch::Receiver<bool>) {
    let Feeding { applier, asks, feed, dir } = feeding;
    let followed = match feed {
        Feed::File(path) => {
            let source = File::new(path, &dir, known_edges(shared), status.clone());
            link::run_from(source, applier, asks, status, stopped).await
        }
        Feed::Nats(at) => {
            let source = Stream::new(at, shared.target.reader(), status.clone());
            link::run_from(source, applier, asks, status, stopped).await
        }
        Feed::Central => link::run(applier, asks, shared.target.reader(), status, stopped).await,
    };
    if let Err(why) = followed {
        tracing::error!("the homes can no longer be written, and are served as they are until a restart: {why}");
    }
}

/// The edges that the configuration names, ours included: those that a file may give homes to.
fn known_edges(shared: Arc<Shared>) -> KnownEdges {
    Arc::new(move || {
        let written = shared.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.edges.list().into_iter().map(|edge| edge.name.clone()).collect()
    })
}

/// Lays the feed's edge table over the plan whenever it changes.
async fn edges(shared: Arc<Shared>, mut changed: watch::Receiver<u64>) {
    while changed.changed().await.is_ok() {
        shared.edges_changed();
    }
}

/// Takes over certificate files that have changed; on a broken one the last good ones stay.
async fn certificates(shared: Arc<Shared>) {
    let doors = || {
        let doors = shared.doors.lock().unwrap_or_else(PoisonError::into_inner);
        doors.iter().filter_map(|door| door.tls.clone()).collect()
    };
    let tell = |outcome| match outcome {
        Ok(()) => tracing::info!("a door's certificate files have changed and were taken over"),
        Err(why) => tracing::error!("a door's certificate files have changed, but the old ones stay in use: {why}"),
    };
    tokio::join!(tls::server::watch(doors, tell), links(&shared));
}

/// The same for the files with which other places are called.
async fn links(shared: &Shared) {
    loop {
        tokio::time::sleep(LINKS_EVERY).await;
        for why in shared.live.load().reload_certificates() {
            tracing::error!(
                "the certificate files towards other places cannot be used, the last good ones stay: {why}"
            );
        }
        shared.central_tls_changed();
    }
}

async fn open_doors(shared: &Arc<Shared>) -> Result<Vec<(Kind, AdminDoor)>, String> {
    let plan = shared.site.load().plan.clone();
    let panel = Arc::new(PanelOf(shared.clone()));
    let mut doors = Vec::new();
    for (kind, address) in addresses(&plan) {
        if let Some(address) = address {
            let door = AdminDoor::open(&address, kind, panel.clone()).await;
            doors.push((kind, door.map_err(|error| error.to_string())?));
        }
    }
    Ok(doors)
}

fn shown((kind, door): &(Kind, AdminDoor)) -> (String, String) {
    (name(*kind).to_owned(), show(door.address()))
}

fn name(kind: Kind) -> &'static str {
    if kind == Kind::Observe { "observe" } else { "admin" }
}

fn show(address: &Address) -> String {
    match address {
        Address::Tcp(at) => at.to_string(),
        Address::Unix(path) => format!("unix:{}", path.display()),
    }
}
