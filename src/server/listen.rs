//! Listening sockets: one per worker and door, all on the same port, and their accept loops.

use super::Service;
use super::conn::{self, Desk, Entry};
use crate::base::{mend, service};
use crate::body::Door;
use crate::config::plan::{MutualTls, Plan};
use crate::metrics::Cut;
use crate::tls::server::ServerTls;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Connections that may wait for `accept`; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How long a listener waits when there are no descriptors left: trying again at once would only burn the core.
const PAUSE: Duration = Duration::from_millis(50);

/// Descriptors kept from clients: for upstream connections, files and the doors of the deployment. A quarter of all, and
/// at least this many.
const RESERVE_MIN: u64 = 256;

/// A door as the plan wants it open.
#[derive(Debug, Clone)]
pub struct DoorSpec {
    /// Where to listen; `[::]` is dual-stack, port 0 is any free one.
    pub address: SocketAddr,
    /// Which door it is.
    pub door: Door,
    /// TLS; `None` = plain.
    pub tls: Option<Arc<ServerTls>>,
    /// Whether every request is redirected to https.
    pub redirect_https: bool,
}

/// The doors of a plan, the private one first (DESIGN 10). `private` says whose it is: an edge's or Central's.
///
/// Errors: every door whose certificates cannot be used.
pub fn doors(plan: &Plan, private: Door) -> Result<Vec<DoorSpec>, Vec<String>> {
    let tls = |files: &MutualTls| match plan.tokens.is_empty() {
        true => ServerTls::mutual(files, &plan.own.deployment),
        false => ServerTls::with_guests(files, &plan.own.deployment),
    };
    let peer = plan.peer.iter().map(|peer| {
        let tls = peer.tls.as_ref().map(tls).transpose()?;
        Ok(DoorSpec { address: peer.address, door: private, tls, redirect_https: false })
    });
    let public = plan.listeners.iter().map(|listener| {
        let plain = listener.certificates.is_empty();
        let tls = (!plain).then(|| ServerTls::public(&listener.certificates, &plan.tls)).transpose()?;
        let redirect_https = listener.redirect_https;
        Ok(DoorSpec { address: listener.address, door: Door::Public, tls, redirect_https })
    });
    let (specs, wrong): (Vec<_>, Vec<_>) = peer.chain(public).partition(Result::is_ok);
    if wrong.is_empty() {
        Ok(specs.into_iter().flatten().collect())
    } else {
        Err(wrong.into_iter().filter_map(Result::err).collect())
    }
}

/// Raises the process's descriptor limit as far as it may go, and says how many connections clients may have.
/// `wanted` is `limits.connections`.
pub fn connections_cap(wanted: Option<usize>) -> usize {
    wanted.unwrap_or_else(|| shares().0)
}

/// How many connections the doors of the deployment may have: half of what is kept from clients, the other half being for
/// upstream connections and files. Where there are no public doors, as at Central, it is what clients would have.
pub fn private_cap(is_alone: bool) -> usize {
    let (clients, reserve) = shares();
    if is_alone { clients } else { (reserve / 2).max(1) }
}

/// The descriptors for clients, and those that are kept from them.
fn shares() -> (usize, usize) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let limit = if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    let reserve = (limit / 4).max(RESERVE_MIN);
    let count = |descriptors: u64| usize::try_from(descriptors.max(1)).unwrap_or(usize::MAX);
    (count(limit.saturating_sub(reserve)), count(reserve))
}

/// Binds `count` sockets to one address; gives them, and the address that they really have. A socket that the service
/// manager handed over for this address is used instead, by all workers together.
///
/// Errors: the first that cannot be bound; none stays open.
pub(super) fn bind(address: SocketAddr, count: usize) -> io::Result<(Vec<StdListener>, SocketAddr)> {
    let named = |error: io::Error| {
        let wrong = format!("cannot listen on {address}: {error}");
        io::Error::new(error.kind(), mend::told(wrong, mend::listen(&error)))
    };
    if let Some(first) = service::handed_socket(address) {
        let first = first.map_err(named)?;
        let rest = (1..count).map(|_| first.try_clone()).collect::<io::Result<Vec<_>>>().map_err(named)?;
        return Ok(([first].into_iter().chain(rest).collect(), address));
    }
    let first = bind_one(address).map_err(named)?;
    let actual = first.local_addr()?;
    let rest = (1..count).map(|_| bind_one(actual)).collect::<io::Result<Vec<_>>>().map_err(named)?;
    Ok(([first].into_iter().chain(rest).collect(), actual))
}

fn bind_one(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Inherited by accepted sockets, which saves a system call for each.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// One worker's side of an open door.
pub(super) struct OpenDoor {
    /// What a new connection goes by; replaced by a reload.
    pub(super) spec: Rc<RefCell<Rc<DoorSpec>>>,
    /// Told to close; it answers when nothing waits for `accept` any more.
    pub(super) close: oneshot::Sender<oneshot::Sender<()>>,
}

/// Opens one worker's side of a door.
pub(super) fn open<S: Service>(desk: &Rc<Desk<S>>, socket: StdListener, spec: DoorSpec) -> io::Result<OpenDoor> {
    let listener = TcpListener::from_std(socket)?;
    let spec = Rc::new(RefCell::new(Rc::new(spec)));
    let (close, closing) = oneshot::channel();
    let accepting = Accepting { desk: desk.clone(), spec: spec.clone() };
    tokio::task::spawn_local(async move { accepting.run(listener, closing).await });
    Ok(OpenDoor { spec, close })
}

struct Accepting<S> {
    desk: Rc<Desk<S>>,
    spec: Rc<RefCell<Rc<DoorSpec>>>,
}

impl<S: Service> Accepting<S> {
    async fn run(&self, listener: TcpListener, mut closing: oneshot::Receiver<oneshot::Sender<()>>) {
        let told = loop {
            tokio::select! {
                biased;
                told = &mut closing => break told,
                accepted = listener.accept() => match accepted {
                    Ok((tcp, client)) => self.enter(tcp, client),
                    Err(error) => self.failed(&error).await,
                },
            }
        };
        self.finish(listener);
        if let Ok(told) = told {
            // Whoever asked may have stopped waiting.
            let _ = told.send(());
        }
    }

    /// Here a connection could be handed to a less loaded worker (DESIGN 10, Sockets).
    fn enter(&self, tcp: TcpStream, client: SocketAddr) {
        let spec = self.spec.borrow().clone();
        if let Some(entry) = Entry::new(&self.desk, spec.door) {
            tokio::task::spawn_local(conn::serve(entry, tcp, client, spec));
        }
    }

    /// Out of descriptors or memory: a pause. Anything else is one client's bad luck (`ECONNABORTED` and its like).
    async fn failed(&self, error: &io::Error) {
        let short = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
        if error.raw_os_error().is_some_and(|code| short.contains(&Errno::from_raw(code))) {
            self.desk.numbers.cells().cut(Cut::Descriptors);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Accepts what has already arrived: a connection in the queue of a closed socket would be reset.
    fn finish(&self, listener: TcpListener) {
        let Ok(socket) = listener.into_std() else { return };
        while let Ok((tcp, client)) = socket.accept() {
            let Ok(()) = tcp.set_nonblocking(true) else { continue };
            if let Ok(tcp) = TcpStream::from_std(tcp) {
                self.enter(tcp, client);
            }
        }
    }
}
