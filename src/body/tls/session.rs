//! A TLS session without its socket: octets that came are opened where they lie, octets that leave are sealed.
//!
//! rustls checks and decides everything (RFC 8446, RFC 5246); here is only what its unbuffered interface leaves to its
//! caller. Invariant: what has come and is not understood yet is less than a record or a message of the handshake, and
//! bounded; whatever rustls wants to say is said, also where it ends the session.

use super::super::buffers;
use bytes::{Buf, BytesMut};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{CommonState, Error, ServerConfig};
use std::io;
use std::sync::Arc;

/// What has come and is not understood yet may be as long: a handshake's message of 64 KiB, as rustls allows it where it
/// does the reading itself. A record is 18 KiB at most.
const CAME_MAX: usize = 64 << 10;

/// Room for `close_notify`, and for an answer to a key update before it.
const CLOSE_ROOM: usize = 256;

type Traffic<'c> = WriteTraffic<'c, ServerConnectionData>;

pub(super) struct Session {
    tls: UnbufferedServerConnection,
    /// What has come and is not understood yet. Holds memory only while it holds octets.
    came: BytesMut,
    /// What the session says of itself: its handshake, tickets, alerts. To be sent after all that was sealed before, and
    /// before all that is sealed next. rustls bounds how much a client can make it say.
    pub(super) said: Vec<u8>,
    ended: bool,
}

/// What a state of the session was.
#[derive(PartialEq, Eq)]
enum Step {
    /// Content; there may be more.
    Content,
    /// Something of its own.
    Own,
    /// It waits: for the client, or for us.
    Rests,
}

impl Session {
    /// A session that waits for its client's first words.
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Session, Error> {
        let tls = UnbufferedServerConnection::new(config)?;
        Ok(Session { tls, came: BytesMut::new(), said: Vec::new(), ended: false })
    }

    pub(super) fn agreed(&self) -> &CommonState {
        &self.tls
    }

    /// Whether the client has ended its direction in order.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Where the next read goes. [`Session::open`] is to be called when there is something, [`Session::rest`] if not.
    pub(super) fn room(&mut self) -> io::Result<&mut BytesMut> {
        if self.came.len() >= CAME_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of the handshake is too long"));
        }
        if self.came.capacity() == 0 {
            self.came = buffers::spare();
        }
        buffers::make_room(&mut self.came);
        Ok(&mut self.came)
    }

    /// Nothing came: an empty buffer goes to whoever needs it next.
    pub(super) fn rest(&mut self) {
        if self.came.is_empty() {
            buffers::put_aside(&mut self.came);
        }
    }

    /// Understands what has come, and gives its content to `take`. After an error nothing more is understood.
    pub(super) fn open(&mut self, mut take: impl FnMut(&[u8])) -> Result<(), Error> {
        let mut step = self.step(&mut take, &mut |_| ())?;
        if step == Step::Content && self.came.is_empty() && !self.tls.wants_write() {
            // One record, as most requests are: rustls need not be asked what it would do next.
            step = Step::Rests;
        }
        while step != Step::Rests {
            step = self.step(&mut take, &mut |_| ())?;
        }
        if self.ended {
            // What follows the end is ignored (RFC 8446 section 6.1).
            self.came.clear();
        }
        self.rest();
        Ok(())
    }

    /// Whether nothing of what came is held, nor memory for it.
    #[cfg(test)]
    pub(super) fn holds_nothing(&self) -> bool {
        self.came.capacity() == 0
    }

    /// Seals octets into `room`, behind what the session may want to say first; the length of all that.
    pub(super) fn seal(&mut self, octets: &[u8], room: &mut [u8]) -> io::Result<usize> {
        if octets.is_empty() {
            return Ok(0);
        }
        self.write(|mut traffic| traffic.encrypt(octets, room))
    }

    /// Says `close_notify`.
    pub(super) fn close(&mut self) -> io::Result<()> {
        let mut room = [0; CLOSE_ROOM];
        let length = self.write(|mut traffic| traffic.queue_close_notify(&mut room))?;
        self.said.extend_from_slice(room.get(..length).unwrap_or_default());
        Ok(())
    }

    /// Goes on to where the session can send.
    pub(super) fn write(&mut self, act: impl FnOnce(Traffic<'_>) -> Result<usize, EncryptError>) -> io::Result<usize> {
        let (mut act, mut written) = (Some(act), None);
        let mut write = |traffic: Traffic<'_>| written = act.take().map(|act| act(traffic));
        debug_assert!(!self.tls.wants_write(), "what it has to say is said when something comes, and leaves first");
        let mut take = |_: &[u8]| debug_assert!(false, "content is opened when it comes");
        while self.step(&mut take, &mut write).map_err(io::Error::other)? != Step::Rests {}
        written.ok_or(io::ErrorKind::BrokenPipe)?.map_err(io::Error::other)
    }

    /// One state of the session: content is given to `take`, and where it could send, `write` is called.
    fn step(&mut self, take: &mut impl FnMut(&[u8]), write: &mut impl FnMut(Traffic<'_>)) -> Result<Step, Error> {
        // Always with all that has come: rustls remembers where in it a part of a message lies.
        let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(&mut self.came);
        let step = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    take(record.payload);
                }
                Step::Content
            }
            Ok(ConnectionState::EncodeTlsData(data)) => {
                say(&mut self.said, data)?;
                Step::Own
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                // From here on it is our promise to send it in its turn.
                data.done();
                Step::Own
            }
            Ok(ConnectionState::PeerClosed) => {
                self.ended = true;
                Step::Own
            }
            Ok(ConnectionState::WriteTraffic(traffic)) => {
                write(traffic);
                Step::Rests
            }
            // It waits for the client, or is at its end. Early data, which nothing offers, would be neither read nor kept.
            Ok(_) => Step::Rests,
            Err(error) => return Err(self.fail(error)),
        };
        self.came.advance(discard.min(self.came.len()));
        Ok(step)
    }

    /// Takes rustls' last word, an alert, where it has one.
    #[cold]
    fn fail(&mut self, error: Error) -> Error {
        self.came = BytesMut::new();
        // What it wants to say comes before it looks at what has come, so it needs none of that.
        while self.tls.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(data)) = self.tls.process_tls_records(&mut []).state else { break };
            if say(&mut self.said, data).is_err() {
                break;
            }
        }
        error
    }
}

/// Notes what the session says.
fn say(said: &mut Vec<u8>, mut data: EncodeTlsData<'_, ServerConnectionData>) -> Result<(), Error> {
    let start = said.len();
    let Err(EncodeError::InsufficientSize(needed)) = data.encode(&mut []) else { return Ok(()) };
    said.resize(start + needed.required_size, 0);
    let room = said.get_mut(start..).unwrap_or_default();
    data.encode(room).map(drop).map_err(|error| Error::General(error.to_string()))
}
