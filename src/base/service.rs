//! The service manager's side of a process: what systemd is told, and what it hands over.
//!
//! Owns the protocols of sd_notify(3) and sd_listen_fds(3), which are a few words in the environment. Refuses to know
//! what is served. Outside a service manager all of it does nothing.

use sd_notify::NotifyState;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What the service manager is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State<'a> {
    /// The doors are open; also: a reload is over, with these words for `systemctl status`.
    Ready(&'a str),
    /// A reload begins.
    Reloading,
    /// A drain begins.
    Stopping,
    /// The process is alive.
    Alive,
}

/// Tells the service manager, if there is one. What cannot be told is logged: the service goes on without it.
pub fn tell(state: State<'_>) {
    let told = match state {
        State::Ready(words) => sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&one_line(words))]),
        // The time lets systemd tell this reload's end from an earlier one's.
        State::Reloading => NotifyState::monotonic_usec_now()
            .and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now, NotifyState::Status("reloading")])),
        State::Stopping => sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status("draining")]),
        State::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
    };
    if let Err(error) = told {
        tracing::warn!(%error, "the service manager cannot be told our state");
    }
}

/// A line feed would begin another assignment of the protocol.
fn one_line(words: &str) -> String {
    words.replace(char::is_control, " ")
}

/// How often [`State::Alive`] is to be told: half of what the service manager waits; `None` = it does not watch us.
pub fn alive_every() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|wait| wait / 2).filter(|every| !every.is_zero())
}

/// The sockets that were handed over. They stay open as long as the process lives: a door that closes leaves the queue of
/// its socket to the next process.
static HANDED: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());

/// Takes what the service manager handed over; to be called once, before anything else opens descriptors. The addresses.
///
/// Errors: something that is no listening TCP socket. Source: sd_listen_fds(3).
pub fn take_sockets() -> Result<Vec<SocketAddr>, String> {
    let numbers = sd_notify::listen_fds().map_err(|error| format!("LISTEN_FDS makes no sense: {error}"))?;
    let sockets = numbers.map(own).map(listener).collect::<Result<Vec<_>, _>>()?;
    let addresses = sockets.iter().map(TcpListener::local_addr).collect::<Result<_, _>>();
    handed().extend(sockets);
    addresses.map_err(|error| error.to_string())
}

/// Owns a descriptor of the protocol.
#[allow(unsafe_code)]
fn own(number: RawFd) -> OwnedFd {
    // SAFETY: sd_listen_fds(3) gives these descriptors to the process whose id is LISTEN_PID, which was checked to be ours;
    // nobody else in the process knows them, and `take_sockets` runs once.
    unsafe { OwnedFd::from_raw_fd(number) }
}

fn listener(descriptor: OwnedFd) -> Result<TcpListener, String> {
    let wrong = |why: String| format!("a descriptor that was handed over is no listening TCP socket: {why}");
    let socket = socket2::Socket::from(descriptor);
    let text = |error: std::io::Error| wrong(error.to_string());
    if socket.r#type().map_err(text)? != socket2::Type::STREAM || !socket.is_listener().map_err(text)? {
        return Err(wrong("use ListenStream= with a port".to_owned()));
    }
    if socket.local_addr().map_err(text)?.as_socket().is_none() {
        return Err(wrong("it is a unix socket, and no door of ours takes one over".to_owned()));
    }
    socket.set_nonblocking(true).map_err(text)?;
    // Inherited by accepted sockets, as by those that we bind.
    socket.set_tcp_nodelay(true).map_err(text)?;
    Ok(socket.into())
}

/// Another handle on the socket that was handed over for this address, if one was.
pub fn handed_socket(address: SocketAddr) -> Option<std::io::Result<TcpListener>> {
    let handed = handed();
    let socket = handed.iter().find(|socket| socket.local_addr().is_ok_and(|at| at == address))?;
    Some(socket.try_clone())
}

fn handed() -> std::sync::MutexGuard<'static, Vec<TcpListener>> {
    HANDED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn only_listening_tcp_sockets_are_taken() {
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(listener(listening.into()).is_ok());
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(listener(udp.into()).is_err());
        assert!(listener(UnixStream::pair().unwrap().0.into()).is_err());
        assert!(listener(std::fs::File::open("Cargo.toml").unwrap().into()).is_err());
        let folder = tempfile::tempdir().unwrap();
        let unix = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
        assert!(listener(unix.into()).unwrap_err().contains("unix socket"));
    }

    #[test]
    fn words_stay_on_one_line() {
        assert_eq!(one_line("a\nREADY=1"), "a READY=1");
    }
}
