//! The side that we call: clusters and their health, connections, and one attempt at a time.
//!
//! `Live` is shared by all threads and holds what is believed of clusters and endpoints; an [`Upstream`] belongs to one
//! worker and owns its connections. An attempt either gives an answer head or an error that says whether another attempt
//! may be made; deciding on it is the caller's. Knows nothing of routes, homes or decisions.
//!
//! Invariant: a response body ends with `None` only where its framing says that it is complete; everything else is an
//! error of the body.

mod alarm;
mod budget;
mod health;
pub mod endpoint;
pub mod cluster;
pub mod live;
pub mod probe;

pub use cluster::{Active, Cluster, Retrying};
pub use endpoint::Endpoint;
pub use live::Live;

use crate::body::{Body, Duplex, Interim};
use crate::config::plan::Timeouts;
use crate::error::Result;
use crate::message::{RequestHead, ResponseHead};
use crate::record::Record;
use crate::wire::HeadLimits;
use std::rc::Rc;
use std::sync::Arc;

/// A request as it goes to an endpoint.
pub struct Outgoing {
    /// The head with its final fields; `authority` is the Host to send. Framing and connection fields are written anew.
    pub head: RequestHead,
    /// The content.
    pub body: Body,
    /// Where interim responses go.
    pub interim: Option<Rc<dyn Interim>>,
    /// The protocol that the connection is asked to switch to, such as `websocket`.
    pub upgrade: Option<String>,
}

/// What an endpoint answered.
pub struct Answer {
    /// The final head, as received.
    pub head: ResponseHead,
    /// The content. Dropping it before its end closes the connection or resets the stream.
    pub body: Body,
    /// The switched connection: with 101, or 2xx to an extended CONNECT.
    pub tunnel: Option<Box<dyn Duplex>>,
    /// Whether it came over a connection that had been used before.
    pub pooled: bool,
}

/// The connections of one worker.
pub struct Upstream {}

impl Upstream {
    /// A worker's own; to be called inside its `LocalRuntime`, where it keeps a task that closes idle connections.
    pub fn new(_limits: HeadLimits) -> Rc<Upstream> {
        unimplemented!()
    }

    /// One attempt at one endpoint. Fills `attempts`, `endpoint`, `attempt_began`, `connect` and `first_byte` of `record`;
    /// the total deadline counts from `record.began`.
    ///
    /// Errors: `may_retry` says what may follow. An error of the request's own body comes back as it was.
    /// Cancel: dropping the future closes the connection or resets the stream.
    pub async fn exchange(
        &self,
        _endpoint: &Arc<Endpoint>,
        _request: Outgoing,
        _waits: &Timeouts,
        _record: &mut Record,
    ) -> Result<Answer> {
        unimplemented!()
    }
}
