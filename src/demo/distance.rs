//! Distances between the places of the demo: relays on loopback that hand on what they hear, but later.
//!
//! Owns the delay and nothing else: octets pass unread, in order, and each direction takes half of the round trip. A new
//! connection costs a round trip before its first octet, as TCP's handshake does; a connection that ends on one side ends
//! on the other. Invariant: what is under way is bounded by `UNDER_WAY` chunks per direction; then the sender waits.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Chunks under way in one direction: with [`CHUNK`] some 130 Mbit/s over a quarter of a second.
const UNDER_WAY: usize = 256;
/// Octets read at once.
const CHUNK: usize = 16 << 10;
/// A failed accept (out of descriptors) is tried again after this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The longest round trip: twice the way to a geostationary satellite.
const RTT_MAX: Duration = Duration::from_secs(1);

/// Round trips between pairs of places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distances(BTreeMap<(String, String), Duration>);

impl Distances {
    /// What the demo starts with: about what light in glass and routers need, with Central near fr.
    pub fn usual() -> Distances {
        let all = [
            ("fr", "us", 80),
            ("fr", "jp", 220),
            ("us", "jp", 150),
            ("central", "fr", 20),
            ("central", "us", 90),
            ("central", "jp", 230),
        ];
        let all = all.map(|(one, other, ms)| (pair(one, other), Duration::from_millis(ms)));
        Distances(all.into())
    }

    /// Takes `fr-us=80ms`, or `all=0ms`. Errors: what is wrong with it.
    pub fn set(&mut self, text: &str) -> Result<(), String> {
        let example = "write it as fr-us=80ms, central-jp=230ms or all=0ms";
        let (places, rtt) = text.split_once('=').ok_or_else(|| format!("`{text}` is no distance; {example}"))?;
        let rtt = crate::base::units::duration(rtt)?;
        if rtt > RTT_MAX {
            return Err(format!("{} ms is too far: at most {} ms", rtt.as_millis(), RTT_MAX.as_millis()));
        }
        if places == "all" {
            self.0.values_mut().for_each(|known| *known = rtt);
            return Ok(());
        }
        let known = places.split_once('-').and_then(|(one, other)| self.0.get_mut(&pair(one, other)));
        *known.ok_or_else(|| format!("`{places}` are no two places of the demo; {example}"))? = rtt;
        Ok(())
    }

    /// The round trip between two places.
    pub fn between(&self, one: &str, other: &str) -> Duration {
        self.0.get(&pair(one, other)).copied().unwrap_or_default()
    }
}

impl fmt::Display for Distances {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, ((one, other), rtt)) in self.0.iter().enumerate() {
            write!(out, "{}{one}-{other} {} ms", if at == 0 { "" } else { ", " }, rtt.as_millis())?;
        }
        Ok(())
    }
}

/// The same for both orders.
fn pair(one: &str, other: &str) -> (String, String) {
    let (first, second) = if one <= other { (one, other) } else { (other, one) };
    (first.to_owned(), second.to_owned())
}

/// Running relays, on a thread of their own; all ends when this is dropped.
#[derive(Debug)]
pub struct Relays {
    addresses: Vec<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Relays {
    /// One relay for each destination and round trip.
    pub fn start(ways: &[(SocketAddr, Duration)]) -> io::Result<Relays> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut relays = Vec::new();
        for (to, rtt) in ways {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            relays.push((listener, *to, *rtt));
        }
        let addresses = relays.iter().map(|(listener, ..)| listener.local_addr()).collect::<io::Result<_>>()?;
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            runtime.block_on(async {
                let mut all = JoinSet::new();
                for (listener, to, rtt) in relays {
                    if let Ok(listener) = TcpListener::from_std(listener) {
                        all.spawn(relay(listener, to, rtt));
                    }
                }
                // The sender is dropped to stop; either way it is the end.
                let _ = stopped.await;
            });
        };
        let thread = std::thread::Builder::new().name("distances".to_owned()).spawn(run)?;
        Ok(Relays { addresses, stop: Some(stop), thread: Some(thread) })
    }

    /// Where each listens, in the order asked for.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by its own hook; there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

async fn relay(listener: TcpListener, to: SocketAddr, rtt: Duration) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((near, _)) => { connections.spawn(connect(near, to, rtt)); }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn connect(near: TcpStream, to: SocketAddr, rtt: Duration) {
    tokio::time::sleep(rtt).await;
    // Where nobody listens, dropping ours tells as much.
    let Ok(far) = TcpStream::connect(to).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let half = rtt / 2;
    // A connection that broke is dropped on both sides; one that only ended in one direction goes on in the other.
    let _ = tokio::try_join!(carry(near_read, far_write, half), carry(far_read, near_write, rtt - half));
}

/// Hands on one direction, each chunk `delay` after it came.
async fn carry(from: OwnedReadHalf, to: OwnedWriteHalf, delay: Duration) -> io::Result<()> {
    let (send, receive) = mpsc::channel(UNDER_WAY);
    tokio::try_join!(hear(from, send, delay), say(to, receive)).map(drop)
}

async fn hear(mut from: OwnedReadHalf, send: mpsc::Sender<(Instant, Vec<u8>)>, delay: Duration) -> io::Result<()> {
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let ended = from.read_buf(&mut chunk).await? == 0;
        if send.send((Instant::now() + delay, chunk)).await.is_err() || ended {
            return Ok(());
        }
    }
}

async fn say(mut to: OwnedWriteHalf, mut receive: mpsc::Receiver<(Instant, Vec<u8>)>) -> io::Result<()> {
    while let Some((due, chunk)) = receive.recv().await {
        tokio::time::sleep_until(due).await;
        to.write_all(&chunk).await?;
    }
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock;
    use std::io::{Read, Write};
    use std::net::{TcpListener as Listener, TcpStream as Stream};

    #[test]
    fn distances_are_read_and_shown() {
        let mut distances = Distances::usual();
        distances.set("us-fr=10ms").unwrap();
        assert_eq!(distances.between("fr", "us"), Duration::from_millis(10));
        assert!(distances.to_string().starts_with("central-fr 20 ms, "), "{distances}");
        distances.set("all=0ms").unwrap();
        assert_eq!(distances.between("jp", "central"), Duration::ZERO);
        for wrong in ["fr-us", "fr-mars=1ms", "fr-us=80", "fr-us=2s", "=1ms"] {
            assert!(distances.set(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn octets_come_whole_and_late_and_ends_are_handed_on() {
        const RTT: Duration = Duration::from_millis(40);
        let listener = Listener::bind("127.0.0.1:0").unwrap();
        let relays = Relays::start(&[(listener.local_addr().unwrap(), RTT)]).unwrap();
        let echo = std::thread::spawn(move || {
            let (mut far, _) = listener.accept().unwrap();
            let mut heard = Vec::new();
            far.read_to_end(&mut heard).unwrap();
            far.write_all(&heard).unwrap();
        });
        let sent: Vec<u8> = (0..300_000_u32).map(|at| at as u8).collect();
        let began = clock::now();
        let mut near = Stream::connect(relays.addresses()[0]).unwrap();
        near.write_all(&sent).unwrap();
        near.shutdown(std::net::Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        near.read_to_end(&mut heard).unwrap();
        // The handshake and one exchange.
        assert!(clock::now() - began >= 2 * RTT);
        assert!(heard == sent);
        echo.join().unwrap();
    }

    #[test]
    fn dropping_them_ends_all_connections() {
        let listener = Listener::bind("127.0.0.1:0").unwrap();
        let relays = Relays::start(&[(listener.local_addr().unwrap(), Duration::ZERO)]).unwrap();
        let address = relays.addresses()[0];
        let mut near = Stream::connect(address).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        drop(relays);
        assert!(matches!(near.read(&mut [0]), Ok(0) | Err(_)) && matches!(far.read(&mut [0]), Ok(0) | Err(_)));
        assert!(Stream::connect(address).is_err());
    }
}
