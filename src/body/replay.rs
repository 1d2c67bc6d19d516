//! A body of which the beginning is kept, so that it can be sent again.

use super::Body;
use std::rc::Rc;

/// What the replay memory of a worker may hold; shared by all its requests.
pub struct ReplayBudget {}

impl ReplayBudget {
    /// At most `max` octets.
    pub fn new(_max: usize) -> Rc<ReplayBudget> {
        unimplemented!()
    }
}

/// A body that can be sent again until more than its bound has been pulled.
pub struct Replay {}

impl Replay {
    /// Keeps up to `max` octets of `body`, within `budget`.
    pub fn new(_body: Body, _max: usize, _budget: Rc<ReplayBudget>) -> Replay {
        unimplemented!()
    }

    /// The whole body from its start; `None` once its beginning is gone or its source has failed. Only the newest body
    /// given out can be pulled.
    pub fn body(&self) -> Option<Body> {
        unimplemented!()
    }

    /// Whether nothing has been pulled from the source yet.
    pub fn untouched(&self) -> bool {
        unimplemented!()
    }

    /// The failure of the source, which is the client's and never worth a retry.
    pub fn failure(&self) -> Option<crate::error::Error> {
        unimplemented!()
    }

    /// No further attempt will be made: what is kept goes as it is read.
    pub fn settle(&self) {
        unimplemented!()
    }
}
