//! Content that is coded while it is pulled, and what a worker may spend on that.
//!
//! Owns the engines of a worker: used again after an answer, and bounded in memory. Refuses to know which answers are
//! worth coding. Invariants: the coded end is written only at the source's complete end, so a cut stays a cut; nothing
//! is held back from a stream whose source waits; one poll does a bounded amount of work.

mod engine;
#[cfg(test)]
mod tests;

use super::{Body, Piece, Pull};
use crate::base::clock;
use crate::base::load::Load;
use crate::error::{Error, Kind, Result, Side};
use crate::message::Fields;
use crate::message::accept::Coding;
use crate::record::Plain;
use bytes::Bytes;
use engine::{Engine, Step};
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// What all engines at work in one worker may hold: about 85 answers on their way at zstd 1, 64 at br 4, 430 at gzip.
/// An answer needs its engine only until its source has ended, so this many are slow ones.
const OPEN_MAX: usize = 128 << 20;

/// Engines kept for the next answers of a worker. One is enough for answers that come whole; more serve streams.
const IDLE_MAX: usize = 8;

/// Engines heavier than this are not kept: what a rare large level needs would be held for ever.
const IDLE_WEIGHT_MAX: usize = 2 << 20;

/// The share of a core above which answers go plain: a worker that is nearly out of CPU serves more clients by passing
/// octets on than by making fewer of them.
const BUSY_PERCENT: u32 = 90;

/// Content taken in by one poll, so that an answer of zeros does not hold up its worker.
const POLL_MAX: usize = 128 << 10;

/// Content given to an engine at once: what comes out of it is held until it is sent.
const FEED_MAX: usize = 32 << 10;

/// How long content of a stated length may wait in its engine when the source stalls. Flushing costs compression, so a
/// file is not flushed at every gap between two packets; but a client that sees nothing for long gives up.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// The engines of one worker.
pub struct Encoders {
    idle: RefCell<Vec<(Coding, u32, Engine)>>,
    /// Octets that the engines at work hold at most.
    open: Cell<usize>,
    load: RefCell<Load>,
}

impl Encoders {
    /// For the calling worker thread, whose CPU time it goes by.
    pub fn new() -> Rc<Encoders> {
        let load = RefCell::new(Load::new(clock::now(), clock::thread_cpu()));
        Rc::new(Encoders { idle: RefCell::default(), open: Cell::new(0), load })
    }

    /// An engine for content of this length, if that is known. Errors: why there is none now.
    pub fn lease(
        self: &Rc<Self>,
        coding: Coding,
        level: u32,
        length: Option<u64>,
    ) -> std::result::Result<Lease, Plain> {
        if self.load.borrow_mut().percent(clock::now(), clock::thread_cpu) >= BUSY_PERCENT {
            return Err(Plain::Busy);
        }
        self.lease_unless_full(coding, level, length)
    }

    fn lease_unless_full(
        self: &Rc<Self>,
        coding: Coding,
        level: u32,
        length: Option<u64>,
    ) -> std::result::Result<Lease, Plain> {
        let weight = engine::weight(coding, level);
        if self.open.get() + weight > OPEN_MAX {
            return Err(Plain::Full);
        }
        let mut engine = match self.take(coding, level) {
            Some(engine) => engine,
            None => Engine::new(coding, level).map_err(|_| Plain::Full)?,
        };
        engine.expect(length).map_err(|_| Plain::Full)?;
        self.open.set(self.open.get() + weight);
        Ok(Lease { engine: Some(engine), coding, level, weight, home: self.clone() })
    }

    fn take(&self, coding: Coding, level: u32) -> Option<Engine> {
        let mut idle = self.idle.borrow_mut();
        let at = idle.iter().position(|(own, at, _)| (*own, *at) == (coding, level))?;
        Some(idle.swap_remove(at).2)
    }

    /// Keeps an engine for the next answer. The oldest goes, so that no level of an old plan stays for ever.
    fn keep(&self, coding: Coding, level: u32, engine: Engine) {
        let Some(engine) = engine.again() else { return };
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= IDLE_MAX {
            idle.remove(0);
        }
        idle.push((coding, level, engine));
    }
}

/// An engine on loan; back with its owner when dropped.
pub struct Lease {
    engine: Option<Engine>,
    coding: Coding,
    level: u32,
    weight: usize,
    home: Rc<Encoders>,
}

impl Lease {
    fn run(&mut self, input: &[u8], step: Step, out: &mut Vec<u8>) -> Result<()> {
        let engine = self.engine.as_mut().expect("the engine leaves only when the lease is dropped");
        let failed = |error| Error::new(Kind::ProxyInternalError, format!("compression failed: {error}")).on(Side::Own);
        engine.run(input, step, out).map_err(failed)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.home.open.set(self.home.open.get() - self.weight);
        if let Some(engine) = self.engine.take().filter(|_| self.weight <= IDLE_WEIGHT_MAX) {
            self.home.keep(self.coding, self.level, engine);
        }
    }
}

/// Content in another coding.
pub struct Encoded {
    source: Body,
    /// Whether the source states its length; one that does not may be a stream.
    stated: bool,
    /// None once the content has ended, or cannot end any more.
    lease: Option<Lease>,
    /// Content that has not been given to the engine.
    fresh: Bytes,
    out: Vec<u8>,
    /// Whether the engine holds content back.
    held: bool,
    /// Runs from the first stall since the last flush.
    flush: Option<Pin<Box<Sleep>>>,
    trailers: Option<Fields>,
    broken: bool,
    taken: Arc<AtomicU64>,
}

impl Encoded {
    /// Codes `source` by an engine that was leased for it. `taken` counts the octets before coding.
    pub fn new(source: Body, lease: Lease, taken: Arc<AtomicU64>) -> Self {
        Encoded {
            stated: source.length().is_some(),
            source,
            lease: Some(lease),
            fresh: Bytes::new(),
            out: Vec::new(),
            held: false,
            flush: None,
            trailers: None,
            broken: false,
            taken,
        }
    }

    /// Gives some of the fresh content to the engine.
    fn feed(&mut self) -> Result<usize> {
        let part = self.fresh.split_to(self.fresh.len().min(FEED_MAX));
        self.taken.fetch_add(part.len() as u64, Relaxed);
        self.step(&part, Step::More)?;
        self.held = true;
        Ok(part.len())
    }

    fn step(&mut self, input: &[u8], step: Step) -> Result<()> {
        match &mut self.lease {
            Some(lease) => lease.run(input, step, &mut self.out),
            None => Ok(()),
        }
    }

    /// The source has come to its complete end.
    fn end(&mut self, trailers: Option<Fields>) -> Result<()> {
        self.step(&[], Step::End)?;
        self.lease = None;
        self.source = Body::Empty;
        self.trailers = trailers;
        Ok(())
    }

    /// The source has nothing now: what the engine holds goes out, at once for a stream.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if !self.held {
            return Poll::Pending;
        }
        if self.stated {
            let flush = self.flush.get_or_insert_with(|| Box::pin(tokio::time::sleep(FLUSH_AFTER)));
            ready!(flush.as_mut().poll(cx));
        }
        (self.held, self.flush) = (false, None);
        Poll::Ready(self.step(&[], Step::Flush))
    }

    /// Works until there is something to give, at most `POLL_MAX` of content.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut fed = 0;
        while self.out.is_empty() && self.lease.is_some() {
            if fed >= POLL_MAX {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !self.fresh.is_empty() {
                fed += self.feed()?;
                continue;
            }
            match self.source.poll_piece(cx) {
                Poll::Ready(Some(Ok(Piece::Data(octets)))) => self.fresh = octets,
                Poll::Ready(Some(Ok(Piece::Trailers(trailers)))) => self.end(Some(trailers))?,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => self.end(None)?,
                Poll::Pending => ready!(self.poll_stalled(cx))?,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Pull for Encoded {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        if self.broken {
            let again = Error::new(Kind::HttpResponseIncomplete, "the content was cut before its end");
            return Poll::Ready(Some(Err(again)));
        }
        if let Err(error) = ready!(self.poll_out(cx)) {
            (self.broken, self.lease, self.source) = (true, None, Body::Empty);
            return Poll::Ready(Some(Err(error)));
        }
        if !self.out.is_empty() {
            let octets = Bytes::from(std::mem::take(&mut self.out));
            return Poll::Ready(Some(Ok(Piece::Data(octets))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Piece::Trailers(trailers))))
    }

    fn length(&self) -> Option<u64> {
        None
    }
}
