//! TLS to the database of an outbox, in the form that `tokio-postgres` asks for.
//!
//! Whom it trusts is decided by `tls::client`: a certificate is always verified, also its name, which libpq does for
//! `sslmode=verify-full` only. No channel is bound: who holds the certificate's key may be a proxy before the database.

use crate::config::plan::Database;
use crate::tls::client::{Alpn, Client, Trust};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as Sealed;

/// The one protocol that a database may be offered (PostgreSQL 17 and newer refuse any other).
const PROTOCOL: &[u8] = b"postgresql";

/// Makes TLS connections to a database.
#[derive(Clone)]
pub(super) struct Secure(Arc<ClientConfig>);

impl Secure {
    /// As the database is to be trusted. Errors: its CA cannot be read.
    pub(super) fn to(database: &Database) -> Result<Secure, String> {
        let trust = database.ca.clone().map_or(Trust::System, Trust::Private);
        let mut config = ClientConfig::clone(&*Client::new(trust).config(Alpn::Http1)?);
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Secure(Arc::new(config)))
    }
}

impl MakeTlsConnect<Socket> for Secure {
    type Stream = Stream;
    type TlsConnect = Handshake;
    type Error = rustls::pki_types::InvalidDnsNameError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, Self::Error> {
        Ok(Handshake { config: self.0.clone(), name: ServerName::try_from(host.to_owned())? })
    }
}

/// A handshake to be made with the holder of a name.
pub(super) struct Handshake {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        let connecting = TlsConnector::from(self.config).connect(self.name, socket);
        Box::pin(async { connecting.await.map(|sealed| Stream(Box::new(sealed))) })
    }
}

/// A connection under TLS.
pub(super) struct Stream(Box<Sealed<Socket>>);

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
