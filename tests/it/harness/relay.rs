//! A wire that a test can cut: TCP from one port to another, octet by octet, with nothing understood.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// A wire. Gone, with all that runs over it, when dropped.
pub struct Relay {
    /// Where it begins.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_cut: bool,
    is_over: bool,
    /// What runs over it now, both ends of each connection.
    ends: Vec<TcpStream>,
    /// Connections that stay open and carry nothing any more.
    frozen: Vec<u64>,
    count: u64,
}

impl Relay {
    /// A wire to `to`.
    pub fn to(to: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared { state: Mutex::default() });
        let theirs = shared.clone();
        thread::spawn(move || accept(&listener, to, &theirs));
        Relay { address, shared }
    }

    /// Cuts it: what runs over it ends, and whoever connects is hung up on at once.
    pub fn cut(&self) {
        let mut state = self.shared.lock();
        state.is_cut = true;
        state.hang_up();
    }

    /// Mends it.
    pub fn mend(&self) {
        self.shared.lock().is_cut = false;
    }

    /// What runs over it now stays open and carries nothing any more, as when a router forgets it; new connections work.
    pub fn freeze(&self) {
        let mut state = self.shared.lock();
        state.frozen = (0..state.count).collect();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.is_over = true;
            state.hang_up();
        }
        // Wakes the accepting thread.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
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
    for near in listener.incoming() {
        let Ok(near) = near else { continue };
        {
            let state = shared.lock();
            if state.is_over {
                return;
            }
            if state.is_cut {
                continue;
            }
        }
        let Ok(far) = TcpStream::connect_timeout(&to, Duration::from_secs(2)) else { continue };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let number = {
            let mut state = shared.lock();
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
