//! One address that is called, with what is believed of it.

/// One address that is called.
pub struct Endpoint {}

impl Endpoint {
    /// Its number, unique in the process: what `pick` takes as tried.
    pub fn id(&self) -> usize {
        unimplemented!()
    }

    /// `host:port`, for logs and for `host = "origin"`.
    pub fn authority(&self) -> &str {
        unimplemented!()
    }

    /// Requests in flight, over all workers.
    pub fn in_flight(&self) -> usize {
        unimplemented!()
    }

    /// Whether it is believed up.
    pub fn is_up(&self) -> bool {
        unimplemented!()
    }
}
