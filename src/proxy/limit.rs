//! A bound on request content that a route sets.

use crate::body::{Body, Piece, Pull};
use crate::error::{Error, Kind, Result};
use std::task::{Context, Poll, ready};

/// Bounds `body` to `max` octets. Errors: 413 at once where the length is stated, else at the first octet beyond it.
pub fn bound(body: &mut Body, max: Option<u64>) -> Result<()> {
    let Some(max) = max else { return Ok(()) };
    match body.length() {
        Some(length) if length > max => Err(too_large()),
        Some(_) => Ok(()),
        None => {
            *body = Body::Pulled(Box::new(Limited { body: std::mem::take(body), left: max }));
            Ok(())
        }
    }
}

fn too_large() -> Error {
    Error::new(Kind::BodyTooLarge, "the request content is larger than this route allows")
}

struct Limited {
    body: Body,
    left: u64,
}

impl Pull for Limited {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        let piece = ready!(self.body.poll_piece(cx));
        if let Some(Ok(Piece::Data(octets))) = &piece {
            match self.left.checked_sub(octets.len() as u64) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(too_large()))),
            }
        }
        Poll::Ready(piece)
    }

    fn length(&self) -> Option<u64> {
        self.body.length()
    }
}
