//! The sockets of the observe and admin doors.

use super::answer::answer;
use super::{Kind, Panel};
use crate::base::mend;
use crate::config::plan::Address;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Socket, Type};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Connections at once: a few scrapers and operators. More wait in the kernel's queue.
const CONNECTIONS: usize = 128;

/// From a connection's start, or the end of an answer, to the next request's head.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// How long to wait when there are no descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// An open door; dropping it closes it and its connections.
#[derive(Debug)]
pub struct AdminDoor {
    address: Address,
    task: JoinHandle<()>,
}

impl AdminDoor {
    /// Opens a door and serves it on the current runtime. A unix socket gets mode 0600.
    ///
    /// Errors: an address in use, or a path that is no socket of ours to replace.
    pub async fn open(address: &Address, kind: Kind, panel: Arc<dyn Panel>) -> io::Result<AdminDoor> {
        let named = |error: io::Error| {
            let wrong = format!("cannot listen on {}: {error}", show(address));
            io::Error::new(error.kind(), mend::told(wrong, mend::listen(&error)))
        };
        match address {
            Address::Tcp(wanted) => {
                let listener = TcpListener::bind(wanted).await.map_err(named)?;
                let address = Address::Tcp(listener.local_addr()?);
                let accept = move |cx: &mut Context<'_>| listener.poll_accept(cx).map_ok(|(tcp, _)| tcp);
                let task = tokio::spawn(serve(kind, true, panel, accept));
                Ok(AdminDoor { address, task })
            }
            Address::Unix(path) => {
                let listener = bind_unix(path).map_err(named)?;
                let accept = move |cx: &mut Context<'_>| listener.poll_accept(cx).map_ok(|(unix, _)| unix);
                let task = tokio::spawn(serve(kind, false, panel, accept));
                Ok(AdminDoor { address: address.clone(), task })
            }
        }
    }

    /// Where it is; with the port that port 0 became.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl Drop for AdminDoor {
    fn drop(&mut self) {
        self.task.abort();
        if let Address::Unix(path) = &self.address {
            // Gone already is as good.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn show(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// Binds a socket that only its owner may use: its mode is set before it listens, so nobody slips in between. A socket
/// that nobody serves any more is replaced.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if let Ok(known) = std::fs::symlink_metadata(path)
        && known.file_type().is_socket()
        && std::os::unix::net::UnixStream::connect(path).is_err()
    {
        std::fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    socket.set_nonblocking(true)?;
    socket.listen(CONNECTIONS as i32)?;
    UnixListener::from_std(socket.into())
}

/// Accepts for ever. The connections end with the door, because their tasks are its children.
async fn serve<T>(
    kind: Kind,
    checked: bool,
    panel: Arc<dyn Panel>,
    accept: impl Fn(&mut Context<'_>) -> Poll<io::Result<T>>,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = room.clone().acquire_owned().await else { return };
        match poll_fn(&accept).await {
            Ok(stream) => {
                let panel = panel.clone();
                connections.spawn(async move {
                    connection(stream, kind, checked, panel).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn connection<T>(stream: T, kind: Kind, checked: bool, panel: Arc<dyn Panel>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let panel = panel.clone();
        async move { Ok::<_, Infallible>(answer(request, kind, checked, &*panel).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).half_close(true);
    // A client's mistake or departure is its own affair.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}
