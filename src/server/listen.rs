//! Listening sockets: one per worker and door, all on the same port.

use crate::body::Door;
use crate::tls::server::ServerTls;
use std::net::SocketAddr;
use std::sync::Arc;

/// A door as the plan wants it open.
#[derive(Debug, Clone)]
pub struct DoorSpec {
    /// Where to listen; `[::]` is dual-stack, port 0 is any free one.
    pub address: SocketAddr,
    /// Which door it is.
    pub door: Door,
    /// TLS; `None` = plain.
    pub tls: Option<Arc<ServerTls>>,
    /// Whether every request is redirected to https.
    pub redirect_https: bool,
}
