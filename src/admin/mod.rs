//! The observe door (read only) and the admin door, served by hyper on the control thread.
//!
//! Knows paths, methods and who may ask; what is shown and done is the [`Panel`]'s. A web page must not be able to use
//! the admin door of the machine that it is read on: names other than localhost are refused in Host (DNS rebinding), as
//! are requests that a browser says come from another origin, and the content types that a form can send.

mod answer;
mod door;
mod page;
#[cfg(test)]
mod tests;

pub use door::AdminDoor;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// An answer that takes a while.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What an operator asks `explain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The method.
    pub method: String,
    /// The URL, absolute or only a path.
    pub url: String,
    /// Request fields.
    pub headers: Vec<(String, String)>,
    /// Whether the answer is JSON, else text.
    pub json: bool,
}

/// A fault that an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// `central`, or an edge.
    pub place: String,
    /// What.
    pub what: Make,
    /// For how long.
    pub lasts: Duration,
}

/// What is done to the way to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// Nothing passes.
    Cut,
    /// Requests wait for so long before they go.
    Delay(Duration),
    /// What was made before ends.
    Mend,
}

/// Why a fault is not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The configuration does not permit faults.
    Off,
    /// The order is wrong, and how.
    Wrong(String),
}

/// Why nothing was released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreleased {
    /// There is no brake here.
    NoBrake,
    /// That is not what is held; what is, and how to release it.
    Other(String),
}

/// What the doors show and do; the running edge (or Central) implements it.
pub trait Panel: Send + Sync + 'static {
    /// Whether requests are welcome; else the reasons why not.
    fn ready(&self) -> Result<(), Vec<String>>;
    /// Prometheus text.
    fn metrics(&self) -> String;
    /// The state of everything.
    fn status(&self) -> serde_json::Value;
    /// What the page shows: small, and made once a second for each that looks.
    fn live(&self) -> serde_json::Value;
    /// Makes a fault, or takes it back; then, as for `None`, the faults that there are.
    fn faults(&self, order: Option<Order>) -> Result<serde_json::Value, Refused>;
    /// What would happen to a request; Errors: what is wrong with the question.
    fn explain(&self, ask: Ask) -> Result<String, String>;
    /// The home of a key; `None` = there is no such key.
    fn home(&self, space: &str, key: &str) -> Option<serde_json::Value>;
    /// Reads the configuration again: what changed, or why it was refused.
    fn reload(&self) -> Later<Result<String, String>>;
    /// An operator lets the mass change of homes pass that the brake holds back under this id. Errors: see [`Unreleased`].
    fn release(&self, id: &str) -> Result<serde_json::Value, Unreleased>;
    /// Drains the process; answers when it is done.
    fn drain(&self) -> Later<serde_json::Value>;
}

/// Which of the two doors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `/health/*` and `/metrics`.
    Observe,
    /// Everything.
    Admin,
}
