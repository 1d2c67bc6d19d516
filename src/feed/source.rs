//! Where homes come from, behind one trait: Central, NATS JetStream, or a file (HOMES 2.2, Sources).
//!
//! A source gives all homes as of one seq, and the frames that came after a cursor; some also take claims. Everything that
//! makes following safe stands on this side of the trait and is the same for all: which history may be followed, what a
//! frame means, that a gap ends the stream, that a batch is durable before it counts.

use super::follow::Alarm;
use super::link::Pace;
use crate::home::cursor::{Cursor, FeedId};
use crate::home::event::EdgeRow;
use crate::home::hash::Override;
use crate::home::snapshot::{Header, Row};
use crate::home::standing::Boot;
use crate::homes::{AskReceiver, Homes, Report};
use std::future::Future;
use std::time::Duration;
use tokio::sync::mpsc;

pub mod file;
pub mod nats;

/// How an attempt to follow ended.
#[derive(Debug)]
pub enum End {
    /// The connection failed or broke; try again, the next address first.
    Broken(String),
    /// The source or nonsense ended it; the same again from the cursor.
    Resume(String),
    /// The source ended it or is busy: come back after this time.
    Later(String, Duration),
    /// Too far behind.
    Gone,
    /// We have what a snapshot gave.
    Loaded,
    /// The map is not Central's, although it should be: take all of it anew.
    Diverged(String),
    /// Central was restored, and waits for our report.
    Recover(super::link::recover::Call),
    /// Nothing may be applied.
    Alarm(Alarm, String),
    /// Another address leads.
    Leader(String),
    /// The homes cannot be written any more.
    Fatal(String),
}

/// From where this incarnation of the edge counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// The incarnation.
    pub boot: Boot,
    /// The seq.
    pub seq: u64,
    /// The term of who said so.
    pub term: u64,
}

/// A snapshot: what it says of itself, and its homes, which may still be on their way.
#[derive(Debug)]
pub struct Image {
    /// Of which history, and as of when.
    pub header: Header,
    /// The checksum of the log up to there; 0 if it is not known.
    pub chain: u32,
    /// The edge table.
    pub edges: Vec<EdgeRow>,
    /// The keys that are filed under another hash than their own.
    pub overrides: Vec<Override>,
    /// The homes, in rising order of their hashes.
    pub rows: Rows,
}

/// Pieces of a snapshot that are held: some 64 KiB of homes each at most, so that neither side waits for the other's every
/// move.
const PIECES_MAX: usize = 64;

/// The homes of a snapshot as they come, each checked. An error is the last, and says why the rest will not come.
///
/// Blocks while the next ones are on their way: for a thread that may.
#[derive(Debug)]
pub struct Rows {
    at_hand: std::vec::IntoIter<Row>,
    more: Option<mpsc::Receiver<Piece>>,
}

/// A piece of a snapshot on its way.
#[derive(Debug)]
pub enum Piece {
    /// The next homes.
    Rows(Vec<Row>),
    /// There are no more: all have come.
    End,
    /// The rest will not come.
    Cut(String),
}

impl Rows {
    /// Homes that are there.
    pub fn held(rows: Vec<Row>) -> Rows {
        Rows { at_hand: rows.into_iter(), more: None }
    }

    /// Homes that come through a channel, whose other end is given too. Dropped before its `End`, it cuts them.
    pub fn arriving() -> (mpsc::Sender<Piece>, Rows) {
        let (give, more) = mpsc::channel(PIECES_MAX);
        (give, Rows { at_hand: Vec::new().into_iter(), more: Some(more) })
    }
}

impl Iterator for Rows {
    type Item = Result<Row, String>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.at_hand.next() {
                return Some(Ok(row));
            }
            let piece = self.more.as_mut()?.blocking_recv();
            match piece.unwrap_or_else(|| Piece::Cut("nobody fetches the snapshot any more".to_owned())) {
                Piece::Rows(rows) => self.at_hand = rows.into_iter(),
                Piece::End => self.more = None,
                Piece::Cut(why) => {
                    self.more = None;
                    return Some(Err(why));
                }
            }
        }
    }
}

/// A place where homes come from.
pub trait Source {
    /// Its stream.
    type Lines: Lines;

    /// Its name in logs.
    const NAME: &'static str;

    /// How long things may take.
    fn pace(&mut self) -> Pace {
        Pace::default()
    }

    /// Reaches the source, and has it enter this incarnation of the edge; `None` if that can wait.
    fn greet(&mut self, homes: &Homes) -> impl Future<Output = Result<Option<Begun>, End>>;

    /// All homes as of one seq, which is not below `least`; they may come while they are taken.
    fn snapshot(&mut self, least: u64) -> impl Future<Output = Result<Image, End>>;

    /// What came after a cursor in the history that we hold, and which history and term the source is in.
    fn stream(&mut self, from: Cursor) -> impl Future<Output = Result<((FeedId, u64), Self::Lines), End>>;

    /// Brings our ledger to a Central that was restored and asks for it.
    fn report(&mut self, _report: Report) -> impl Future<Output = Result<(), End>> {
        std::future::ready(Err(End::Broken("this source has no use for a report".to_owned())))
    }

    /// Answers look-ups and claims until nobody can ask any more. A source that takes no claims leaves them unanswered;
    /// that none is ever made there is the configuration's business.
    fn submit(&self, asks: AskReceiver) -> impl Future<Output = ()> + use<Self>;

    /// Turns to a leader that was named; what to say about it.
    fn turn_to(&mut self, leader: &str) -> String {
        format!("another address leads: {leader}")
    }
}

/// A stream of frames.
pub trait Lines {
    /// The next frame, as a line without its line feed. Errors: how the stream ended.
    ///
    /// Cancel: nothing is lost that was not given out.
    fn next(&mut self) -> impl Future<Output = Result<Vec<u8>, End>>;
}
