//! One connection of the driver: a non-blocking socket, TLS where the door has it, and the HTTP that is spoken on it.

use super::{http1, http2};
use mio::net::TcpStream;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnection, Resumption};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// What is spoken on a connection.
pub enum Speech {
    Http1(http1::Session),
    Http2(http2::Session),
}

/// A connection.
pub struct Line {
    /// For the poll.
    pub socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    speech: Speech,
    out: Vec<u8>,
    sent: usize,
}

/// Room for reads, shared by all connections: octets as they come, and as TLS gives them out.
pub struct Room {
    raw: Vec<u8>,
    plain: Vec<u8>,
}

impl Room {
    /// Enough to take a long answer in few reads.
    pub fn new() -> Room {
        Room { raw: vec![0; 256 << 10], plain: vec![0; 32 << 10] }
    }
}

impl Line {
    /// Begins to connect. `out` is what `speech` begins with.
    pub fn open(
        address: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
        speech: Speech,
        out: Vec<u8>,
    ) -> Result<Line, String> {
        let socket = TcpStream::connect(address).map_err(|error| error.to_string())?;
        socket.set_nodelay(true).map_err(|error| error.to_string())?;
        let tls = tls.map(|config| {
            let name = ServerName::try_from(http2::AUTHORITY).expect("it is a name");
            let mut tls = ClientConnection::new(config.clone(), name).expect("the configuration is sound");
            tls.set_buffer_limit(None);
            Box::new(tls)
        });
        Ok(Line { socket, tls, speech, out, sent: 0 })
    }

    /// Puts a request behind what is to be sent.
    pub fn ask(&mut self, due: Instant) {
        match &mut self.speech {
            Speech::Http1(session) => session.ask(due, &mut self.out),
            Speech::Http2(session) => session.ask(due, &mut self.out),
        }
    }

    /// Sends what the socket takes of it.
    pub fn flush(&mut self) -> Result<(), String> {
        let sent = match &mut self.tls {
            Some(tls) => send_tls(tls, &mut self.socket, &mut self.out),
            None => send(&mut self.socket, &mut self.out, &mut self.sent),
        };
        match sent {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            sent => sent.map_err(|error| format!("cannot send: {error}")),
        }
    }

    /// Reads all that came. Each finished answer adds the moment its request was due to `done`.
    pub fn hear(&mut self, room: &mut Room, done: &mut Vec<Instant>) -> Result<(), String> {
        loop {
            let got = match self.socket.read(&mut room.raw) {
                Ok(0) => return Err("the connection was closed".to_owned()),
                Ok(got) => got,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
                Err(error) => return Err(format!("cannot read: {error}")),
            };
            match self.tls.take() {
                Some(mut tls) => {
                    self.decrypt(&mut tls, &room.raw[..got], &mut room.plain, done)?;
                    self.tls = Some(tls);
                }
                None => self.take(&room.raw[..got], done)?,
            }
            // A short read emptied the socket: the poll tells when there is more.
            if got < room.raw.len() {
                return Ok(());
            }
        }
    }

    fn decrypt(
        &mut self,
        tls: &mut ClientConnection,
        mut raw: &[u8],
        plain: &mut [u8],
        done: &mut Vec<Instant>,
    ) -> Result<(), String> {
        while !raw.is_empty() {
            tls.read_tls(&mut raw).map_err(|error| error.to_string())?;
            let state = tls.process_new_packets().map_err(|error| format!("TLS: {error}"))?;
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                let got = tls.reader().read(plain).map_err(|error| error.to_string())?;
                self.take(&plain[..got], done)?;
                left -= got;
            }
        }
        Ok(())
    }

    fn take(&mut self, octets: &[u8], done: &mut Vec<Instant>) -> Result<(), String> {
        match &mut self.speech {
            Speech::Http1(session) => session.take(octets, done),
            Speech::Http2(session) => session.take(octets, &mut self.out, done),
        }
    }

    /// Whether the TLS handshake was a resumed one.
    pub fn is_resumed(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    /// Whether the other side holds an idle connection open.
    pub fn is_open(&self) -> bool {
        match self.socket.peek(&mut [0]) {
            Ok(got) => got > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }
}

fn send(socket: &mut TcpStream, out: &mut Vec<u8>, sent: &mut usize) -> std::io::Result<()> {
    while *sent < out.len() {
        *sent += socket.write(&out[*sent..])?;
    }
    out.clear();
    *sent = 0;
    Ok(())
}

fn send_tls(tls: &mut ClientConnection, socket: &mut TcpStream, out: &mut Vec<u8>) -> std::io::Result<()> {
    if !out.is_empty() {
        tls.writer().write_all(out)?;
        out.clear();
    }
    while tls.wants_write() {
        tls.write_tls(socket)?;
    }
    Ok(())
}

/// What the driver offers: TLS 1.3 with X25519 and AES-128-GCM, which every subject can do, so that all do the same work.
pub fn tls(protocol: &[u8], resume: bool) -> Arc<ClientConfig> {
    use rustls::crypto::aws_lc_rs;
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let unchecked = Arc::new(Unchecked(provider.signature_verification_algorithms.supported_schemes()));
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider knows TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(unchecked)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = if resume { Resumption::in_memory_sessions(8) } else { Resumption::disabled() };
    Arc::new(config)
}

/// Believes every certificate: checking one costs the driver what making the signature costs the subject.
#[derive(Debug)]
struct Unchecked(Vec<SignatureScheme>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
