//! The observe door (read only) and the admin door.

use crate::config::plan::Address;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

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

/// What the doors show and do; the running edge (or Central) implements it.
pub trait Panel: Send + Sync + 'static {
    /// Whether requests are welcome; else the reasons why not.
    fn ready(&self) -> Result<(), Vec<String>>;
    /// Prometheus text.
    fn metrics(&self) -> String;
    /// The state of everything.
    fn status(&self) -> serde_json::Value;
    /// What would happen to a request; Errors: what is wrong with the question.
    fn explain(&self, ask: Ask) -> Result<String, String>;
    /// The home of a key; `None` = there is no such key.
    fn home(&self, space: &str, key: &str) -> Option<serde_json::Value>;
    /// Reads the configuration again: what changed, or why it was refused.
    fn reload(&self) -> Later<Result<String, String>>;
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

/// An open door; dropping it closes it.
#[derive(Debug)]
pub struct AdminDoor {}

impl AdminDoor {
    /// Opens a door and serves it on the current runtime. A unix socket gets mode 0600.
    pub async fn open(_address: &Address, _kind: Kind, _panel: Arc<dyn Panel>) -> io::Result<AdminDoor> {
        unimplemented!()
    }

    /// Where it is; with the port that port 0 became.
    pub fn address(&self) -> &Address {
        unimplemented!()
    }
}
