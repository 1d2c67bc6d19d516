//! A wire that a test can cut: TCP from one port to another, octet by octet, with nothing understood.

use super::launch::held_port;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// A wire. Gone, with all that runs over it, when dropped.
pub struct Relay {
    /// Where it begins.
    pub address: SocketAddr,
    to: SocketAddr,
    shared: Arc<Shared>,
    /// Holds the port while the wire is cut.
    _held: socket2::Socket,
}

struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Absent while the wire is cut.
    listener: Option<Arc<TcpListener>>,
    /// What runs over it now, both ends of each connection.
    ends: Vec<TcpStream>,
    /// Connections that stay open and carry nothing any more.
    frozen: Vec<u64>,
    count: u64,
}

impl Relay {
    /// A wire to `to`.
    pub fn to(to: SocketAddr) -> Relay {
        let (held, address) = held_port();
        let relay = Relay { address, to, shared: Arc::new(Shared { state: Mutex::default() }), _held: held };
        relay.mend();
        relay
    }

    /// Cuts it: what runs over it ends, and whoever connects is refused.
    pub fn cut(&self) {
        let mut state = self.shared.lock();
        if let Some(listener) = state.listener.take() {
            // Ends its state and wakes the accepting thread.
            let _ = socket2::SockRef::from(&*listener).shutdown(Shutdown::Both);
        }
        state.hang_up();
    }

    /// Mends it.
    pub fn mend(&self) {
        let mut state = self.shared.lock();
        if state.listener.is_some() {
            return;
        }
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).and_then(|()| socket.set_reuse_port(true)).expect("ports can be shared");
        socket.bind(&self.address.into()).and_then(|()| socket.listen(128)).expect("the port is ours");
        let listener: Arc<TcpListener> = Arc::new(socket.into());
        state.listener = Some(listener.clone());
        let (to, shared) = (self.to, self.shared.clone());
        thread::spawn(move || accept(&listener, to, &shared));
    }

    /// What runs over it now stays open and carries nothing any more, as when a router forgets it; new connections work.
    pub fn freeze(&self) {
        let mut state = self.shared.lock();
        state.frozen = (0..state.count).collect();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics under this lock")
    }
}

impl State {
    fn hang_up(&mut self) {
        for end in self.ends.drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, to: SocketAddr, shared: &Arc<Shared>) {
    while let Ok((near, _)) = listener.accept() {
        let Ok(far) = TcpStream::connect_timeout(&to, Duration::from_secs(2)) else { continue };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let number = {
            let mut state = shared.lock();
            if state.listener.is_none() {
                return;
            }
            state.ends.extend([near.try_clone(), far.try_clone()].into_iter().flatten());
            state.count += 1;
            state.count - 1
        };
        for (from, to) in [(near.try_clone(), far.try_clone()), (Ok(far), Ok(near))] {
            let (Ok(from), Ok(to)) = (from, to) else { continue };
            let shared = shared.clone();
            thread::spawn(move || carry(from, to, number, &shared));
        }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, number: u64, shared: &Shared) {
    let mut space = [0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut space) {
        if shared.lock().frozen.contains(&number) {
            continue;
        }
        if to.write_all(&space[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
