//! Doors: listening, connections in both versions, workers, drain and reload.

pub mod access;
mod alarm;
mod conn;
mod drain;
mod h1;
mod h2;
pub mod listen;
mod seat;
mod tunnel;
pub mod worker;
#[cfg(test)]
mod tests;

pub use listen::{DoorSpec, doors};
pub use worker::{Drained, Workers};

use crate::body::{Downstream, Request, Response};
use crate::config::plan::Plan;
use crate::error::Error;
use crate::message::{Method, RequestHead, Version};
use crate::record::Record;
use std::net::IpAddr;
use std::sync::Arc;

/// What answers requests behind a door. One per worker; nothing of it need be `Send`.
pub trait Service: 'static {
    /// The plan by which a connection works: limits and timers. Taken once per request.
    fn plan(&self) -> Arc<Plan>;

    /// Answers a request; failures are answers too. The request stays where it is: it is large, and what answers it is
    /// many calls deep. Dropping the future cancels the exchange.
    fn call(&self, request: &mut Request, record: &mut Record) -> impl Future<Output = Response>;

    /// The answer to what could not even be read as a request, or could not be admitted.
    fn refuse(&self, error: &Error, head: Option<&RequestHead>, from: &Downstream) -> Response;

    /// Whether `finish` wants to know what was asked.
    fn wants_summary(&self) -> bool {
        true
    }

    /// The request is over: log and count it.
    fn finish(&self, record: &Record, from: &Downstream, head: Option<&Summary>);
}

/// What logs say of a request, kept while its head is consumed.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The method.
    pub method: Method,
    /// The version.
    pub version: Version,
    /// The client as a trusted proxy before us names it; `None` = who called us.
    pub client: Option<IpAddr>,
    /// The authority, and behind it path and query: one allocation for both.
    texts: String,
    authority: usize,
}

impl Summary {
    /// What logs say of `head`.
    pub fn new(head: &RequestHead, client: Option<IpAddr>) -> Summary {
        let authority = head.authority.len();
        let mut texts = String::with_capacity(authority + head.target.len());
        texts.push_str(&head.authority);
        texts.push_str(&head.target);
        Summary { method: head.method.clone(), version: head.version, client, texts, authority }
    }

    /// The authority.
    pub fn authority(&self) -> &str {
        &self.texts[..self.authority]
    }

    /// Path and query.
    pub fn target(&self) -> &str {
        &self.texts[self.authority..]
    }
}
