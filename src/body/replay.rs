//! A body of which the beginning is kept, so that it can be sent again (HOMES 2.5, Body replay).
//!
//! Invariant: what is given out is the whole body from its first octet, or nothing; and the failure of the source stays
//! the source's, at whichever attempt it is met.

use super::{Body, Piece, Pull};
use crate::error::{Error, Kind, Result, Side};
use crate::message::Fields;
use crate::metrics::cells::Held;
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// What keeping one piece costs beside its octets: a body of tiny pieces must not cost many times what it holds.
const PIECE_COST: usize = 64;
/// Pieces that are kept of one body; only a sender of specks has more within the bound.
const PIECES_MAX: usize = 4096;

/// What the replay memory of a worker may hold; shared by all its requests.
pub struct ReplayBudget {
    max: usize,
    left: Cell<usize>,
    held: Arc<Held>,
}

impl ReplayBudget {
    /// At most `max` octets; `held` says how many, for others to see.
    pub fn new(max: usize, held: Arc<Held>) -> Rc<ReplayBudget> {
        Rc::new(ReplayBudget { max, left: Cell::new(max), held })
    }

    /// Octets that are free.
    pub fn left(&self) -> usize {
        self.left.get()
    }

    /// Takes `count` for a request that then holds `all`.
    fn take(&self, count: usize, all: usize) -> bool {
        let Some(left) = self.left.get().checked_sub(count) else { return false };
        self.left.set(left);
        self.held.set(self.max - left, all);
        true
    }

    fn give(&self, count: usize) {
        let left = self.left.get() + count;
        self.left.set(left);
        self.held.set(self.max.saturating_sub(left), 0);
    }
}

/// A body that can be sent again until more than its bound has been pulled.
pub struct Replay {
    inner: Source,
}

enum Source {
    /// All there is, at hand.
    Whole(Option<Bytes>),
    Pulled(Rc<RefCell<Kept>>),
}

struct Kept {
    source: Body,
    budget: Rc<ReplayBudget>,
    max: usize,
    /// The beginning, as far as it has been pulled; complete while `keeping`.
    pieces: VecDeque<Bytes>,
    octets: usize,
    keeping: bool,
    pulled: bool,
    /// How the source ended, once it has.
    end: Option<End>,
    /// Which view may pull.
    view: u64,
}

#[derive(Clone)]
enum End {
    Complete(Option<Fields>),
    Failed(Kind, Side, String),
}

impl Replay {
    /// Keeps up to `max` octets of `body`, within `budget`.
    pub fn new(body: Body, max: usize, budget: &Rc<ReplayBudget>) -> Replay {
        let inner = match body {
            Body::Empty => Source::Whole(None),
            Body::Full(octets) => Source::Whole(Some(octets)),
            Body::Lent(octets) => Source::Whole(Some(octets.into())),
            source @ Body::Pulled(_) => Source::Pulled(Rc::new(RefCell::new(Kept {
                source,
                budget: budget.clone(),
                max,
                pieces: VecDeque::new(),
                octets: 0,
                keeping: true,
                pulled: false,
                end: None,
                view: 0,
            }))),
        };
        Replay { inner }
    }

    /// The whole body from its start; `None` once its beginning is gone or its source has failed. Only the newest body
    /// given out can be pulled.
    pub fn body(&self) -> Option<Body> {
        let kept = match &self.inner {
            Source::Whole(None) => return Some(Body::Empty),
            Source::Whole(Some(octets)) => return Some(Body::Full(octets.clone())),
            Source::Pulled(kept) => kept,
        };
        let mut inner = kept.borrow_mut();
        if !inner.is_whole() {
            return None;
        }
        inner.view += 1;
        let view = View { kept: Rc::clone(kept), at: 0, view: inner.view, over: false };
        Some(Body::Pulled(Box::new(view)))
    }

    /// Whether the whole body could be given out once more.
    pub fn is_replayable(&self) -> bool {
        match &self.inner {
            Source::Whole(_) => true,
            Source::Pulled(kept) => kept.borrow().is_whole(),
        }
    }

    /// Whether nothing has been pulled from the source yet.
    pub fn untouched(&self) -> bool {
        match &self.inner {
            Source::Whole(_) => true,
            Source::Pulled(kept) => !kept.borrow().pulled,
        }
    }

    /// The failure of the source, which is the client's and never worth a retry.
    pub fn failure(&self) -> Option<Error> {
        let Source::Pulled(kept) = &self.inner else { return None };
        match &kept.borrow().end {
            Some(End::Failed(kind, side, detail)) => Some(Error::new(*kind, detail.clone()).on(*side)),
            _ => None,
        }
    }

    /// No further attempt will be made: what is kept goes as it is read.
    pub fn settle(&self) {
        if let Source::Pulled(kept) = &self.inner {
            kept.borrow_mut().settle();
        }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.settle();
    }
}

impl Kept {
    /// Whether what is kept and what the source still has are the whole body.
    fn is_whole(&self) -> bool {
        (!self.pulled || self.keeping) && !matches!(self.end, Some(End::Failed(..)))
    }

    /// Stops keeping. What the newest view has already read is let go by its next read.
    fn settle(&mut self) {
        self.keeping = false;
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.end.is_some() {
            return Poll::Ready(None);
        }
        self.pulled = true;
        match ready!(self.source.poll_piece(cx)) {
            Some(Ok(Piece::Data(octets))) => {
                self.keep(&octets);
                return Poll::Ready(Some(octets));
            }
            Some(Ok(Piece::Trailers(fields))) => self.end = Some(End::Complete(Some(fields))),
            None => self.end = Some(End::Complete(None)),
            Some(Err(error)) => {
                self.end = Some(End::Failed(error.kind(), error.side(), error.detail().to_owned()));
                self.forget(self.pieces.len());
            }
        }
        self.source = Body::Empty;
        Poll::Ready(None)
    }

    fn keep(&mut self, octets: &Bytes) {
        if !self.keeping {
            return;
        }
        let all = self.octets.saturating_add(octets.len());
        let fits = all <= self.max && self.pieces.len() < PIECES_MAX;
        if !fits || !self.budget.take(octets.len() + PIECE_COST, all) {
            self.keeping = false;
            self.forget(self.pieces.len());
            return;
        }
        self.octets = all;
        self.pieces.push_back(octets.clone());
    }

    /// Lets the first pieces go.
    fn forget(&mut self, count: usize) {
        let freed: usize = self.pieces.drain(..count).map(|piece| piece.len()).sum();
        self.octets -= freed;
        self.budget.give(freed + count * PIECE_COST);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.forget(self.pieces.len());
    }
}

/// One reading of the body from its start.
struct View {
    kept: Rc<RefCell<Kept>>,
    /// Kept pieces already read.
    at: usize,
    view: u64,
    over: bool,
}

impl Pull for View {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        let mut kept = self.kept.borrow_mut();
        if self.over {
            return Poll::Ready(None);
        }
        if kept.view != self.view {
            return Poll::Ready(Some(Err(Error::new(Kind::ProxyInternalError, "another attempt reads this body now"))));
        }
        if !kept.keeping {
            let read = self.at.min(kept.pieces.len());
            kept.forget(read);
            self.at = 0;
        }
        if let Some(octets) = kept.pieces.get(self.at).cloned() {
            self.at += 1;
            return Poll::Ready(Some(Ok(Piece::Data(octets))));
        }
        if let Some(octets) = ready!(kept.poll_source(cx)) {
            self.at = kept.pieces.len();
            return Poll::Ready(Some(Ok(Piece::Data(octets))));
        }
        match kept.end.clone() {
            Some(End::Failed(kind, side, detail)) => Poll::Ready(Some(Err(Error::new(kind, detail).on(side)))),
            Some(End::Complete(trailers)) => {
                self.over = true;
                Poll::Ready(trailers.map(|fields| Ok(Piece::Trailers(fields))))
            }
            None => Poll::Ready(None),
        }
    }

    fn length(&self) -> Option<u64> {
        let kept = self.kept.borrow();
        let unread: u64 = kept.pieces.iter().skip(self.at).map(|piece| piece.len() as u64).sum();
        kept.source.length().filter(|_| kept.end.is_none()).map(|left| left + unread).or_else(|| {
            // The source is over: what is kept is all there is, unless trailers make it a chunked body.
            matches!(kept.end, Some(End::Complete(None))).then_some(unread)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    /// Gives what it holds, then an end or a failure.
    struct Scripted(VecDeque<Result<Piece>>);

    impl Pull for Scripted {
        fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
            Poll::Ready(self.0.pop_front())
        }

        fn length(&self) -> Option<u64> {
            None
        }
    }

    fn replay(pieces: &[&'static str], max: usize, budget: &Rc<ReplayBudget>) -> Replay {
        let pieces = pieces.iter().map(|piece| match *piece {
            "!" => Err(Error::new(Kind::ClientClosed, "gone")),
            piece => Ok(Piece::Data(Bytes::from_static(piece.as_bytes()))),
        });
        Replay::new(Body::Pulled(Box::new(Scripted(pieces.collect()))), max, budget)
    }

    /// Pulls at most `count` pieces, as text; `.` is the end.
    fn pull(body: &mut Body, count: usize) -> String {
        let mut text = String::new();
        for _ in 0..count {
            match body.poll_piece(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(Ok(Piece::Data(octets)))) => text += std::str::from_utf8(&octets).unwrap(),
                Poll::Ready(Some(Ok(Piece::Trailers(_)))) => text.push('+'),
                Poll::Ready(Some(Err(error))) => text += error.kind().name(),
                Poll::Ready(None) => return text + ".",
                Poll::Pending => return text + "?",
            }
        }
        text
    }

    #[test]
    fn a_short_body_can_be_sent_again_and_again() {
        let budget = ReplayBudget::new(1000, Arc::default());
        let replay = replay(&["ab", "cd", "ef"], 6, &budget);
        assert!(replay.untouched());
        let mut first = replay.body().unwrap();
        assert_eq!(pull(&mut first, 2), "abcd");
        assert!(!replay.untouched());
        let mut second = replay.body().unwrap();
        assert_eq!(pull(&mut first, 1), "proxy_internal_error");
        assert_eq!(pull(&mut second, 9), "abcdef.");
        let mut third = replay.body().unwrap();
        assert_eq!((third.length(), pull(&mut third, 9)), (Some(6), "abcdef.".to_owned()));
        drop((first, second, third, replay));
        assert_eq!(budget.left(), 1000);
    }

    #[test]
    fn what_is_too_long_passes_once_and_frees_its_memory() {
        for (max, budget) in [(4, 1000), (100, 150)] {
            let budget = ReplayBudget::new(budget, Arc::default());
            let all = budget.left();
            let replay = replay(&["ab", "cd", "ef"], max, &budget);
            let mut body = replay.body().unwrap();
            assert_eq!(pull(&mut body, 2), "abcd");
            assert!(replay.body().is_some(), "still whole at {max}");
            let mut body = replay.body().unwrap();
            assert_eq!(pull(&mut body, 3), "abcdef");
            assert!(replay.body().is_none());
            assert_eq!(budget.left(), all);
            assert_eq!(pull(&mut body, 1), ".");
        }
    }

    #[test]
    fn what_is_held_and_the_most_of_one_body_can_be_seen() {
        let held = Arc::new(Held::default());
        let budget = ReplayBudget::new(1000, held.clone());
        let (first, second) = (replay(&["abc", "de"], 100, &budget), replay(&["f", "ghi"], 3, &budget));
        assert_eq!(pull(&mut first.body().unwrap(), 2), "abcde");
        assert_eq!(pull(&mut second.body().unwrap(), 1), "f");
        assert_eq!((held.now(), held.most()), (6 + 3 * PIECE_COST as u64, 5));
        assert_eq!(pull(&mut second.body().unwrap(), 2), "fghi");
        assert_eq!((held.now(), held.most()), (5 + 2 * PIECE_COST as u64, 5), "what is too long is let go");
        drop((first, second));
        assert_eq!((held.now(), held.most()), (0, 5));
    }

    #[test]
    fn settling_lets_go_of_what_is_read() {
        let budget = ReplayBudget::new(1000, Arc::default());
        let replay = replay(&["ab", "cd", "ef"], 100, &budget);
        assert_eq!(pull(&mut replay.body().unwrap(), 2), "abcd");
        let mut body = replay.body().unwrap();
        assert_eq!(pull(&mut body, 1), "ab");
        drop(replay);
        assert_eq!(pull(&mut body, 9), "cdef.");
        assert_eq!(budget.left(), 1000);
    }

    #[test]
    fn the_failure_of_the_source_is_the_clients_and_stays() {
        let budget = ReplayBudget::new(1000, Arc::default());
        let replay = replay(&["ab", "!"], 100, &budget);
        let mut body = replay.body().unwrap();
        assert_eq!(pull(&mut body, 3), "abclient_closedclient_closed");
        assert!(replay.body().is_none());
        let failure = replay.failure().unwrap();
        assert_eq!((failure.kind(), failure.side()), (Kind::ClientClosed, Side::Downstream));
        assert_eq!(budget.left(), 1000);
    }

    #[test]
    fn specks_do_not_cost_more_than_the_budget() {
        let budget = ReplayBudget::new(10_000, Arc::default());
        let specks = vec!["x"; 1000];
        let replay = replay(&specks, 100_000, &budget);
        assert_eq!(pull(&mut replay.body().unwrap(), 2000).len(), 1001);
        assert!(replay.body().is_none());
        assert_eq!(budget.left(), 10_000);
    }
}
