//! Central's door as the `homes` commands call it: where it is, as whom to call, and what a refusal says.

use super::{ANSWER_MAX, Failure, usage};
use crate::config::plan::{Url, UrlScheme};
use crate::feed::client::{Call, Line, content};
use bytes::Bytes;
use http::{Method, Response};
use hyper::body::Incoming;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where Central is, and as whom to call it.
#[derive(Debug, clap::Args)]
pub struct CentralDoor {
    /// Central's door, such as `https://central.example.com:8444`
    #[arg(long = "central", value_name = "URL", value_parser = url)]
    pub url: Url,
    /// Certificate of an operator or the application (PEM)
    #[arg(long, value_name = "FILE", requires = "key_file")]
    pub cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long = "key", id = "key_file", value_name = "FILE", requires = "cert")]
    pub key_file: Option<PathBuf>,
    /// A file with a bearer token that Central knows, instead of a certificate
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cert", "key_file"])]
    pub token_file: Option<PathBuf>,
    /// The deployment's CA (PEM); needed for https
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

impl CentralDoor {
    /// A connection. Errors: bad usage, or Central cannot be reached.
    pub(super) async fn connect(&self) -> Result<Line, Failure> {
        let tls = match self.url.scheme {
            UrlScheme::Https => Some(Arc::new(self.tls()?)),
            _ if is_loopback(&self.url) => None,
            _ => {
                return Err(usage(
                    "plain http is for loopback addresses only; use https with --ca, and --cert and --key or --token-file",
                ));
            }
        };
        Ok(Line::connect(&self.url, tls.as_ref()).await?)
    }

    fn tls(&self) -> Result<rustls::ClientConfig, Failure> {
        let ca = self.ca.as_deref().ok_or_else(|| usage("https needs --ca FILE: the deployment's CA"))?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates(ca)? {
            roots.add(certificate).map_err(|error| usage(format!("{}: {error}", ca.display())))?;
        }
        let config = rustls::ClientConfig::builder().with_root_certificates(roots);
        let mut config = match (&self.cert, &self.key_file) {
            (Some(chain), Some(key)) => {
                let private = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| usage(format!("{}: no private key: {error}", key.display())))?;
                config
                    .with_client_auth_cert(certificates(chain)?, private)
                    .map_err(|error| usage(mismatch(&error, chain, key)))?
            }
            _ => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// One request with JSON content: status and answer.
    pub(super) async fn ask(&self, method: Method, target: &str, content: Value) -> Result<(u16, Value), Failure> {
        let content = if content.is_null() { Bytes::new() } else { content.to_string().into() };
        let fields = vec![("content-type", "application/json".to_owned())];
        self.exchange(Call { method, target: target.to_owned(), fields, content, ..Call::default() }).await
    }

    /// Sends over a connection, with the token if there is one. Errors: bad usage, or the connection is of no more use.
    pub(super) async fn send(&self, line: &mut Line, mut call: Call) -> Result<Response<Incoming>, Failure> {
        if let Some(file) = &self.token_file {
            call.fields.push(("authorization", format!("Bearer {}", token(file)?)));
        }
        Ok(line.send(call).await?)
    }

    /// One request on a connection of its own: status and answer, null where that is no JSON.
    pub(super) async fn exchange(&self, call: Call) -> Result<(u16, Value), Failure> {
        let mut line = self.connect().await?;
        let answer = self.send(&mut line, call).await?;
        let status = answer.status().as_u16();
        let text = content(answer.into_body(), ANSWER_MAX).await?;
        let value = serde_json::from_slice(&text).unwrap_or(Value::Null);
        Ok((status, value))
    }
}

/// The token in a file. It is read anew each time: a watch goes on with the token of today. What is wrong with it is told
/// without a word of what it holds.
fn token(file: &Path) -> Result<String, Failure> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| usage(format!("--token-file: {shown}: {error}")))?;
    let token = text.trim_end();
    if token.is_empty() || !token.bytes().all(|octet| octet.is_ascii_graphic()) || token.starts_with("sha256:") {
        return Err(usage(format!(
            "--token-file: {shown} holds no token in one line\nhelp: `openssl rand -hex 32` makes one; a digest (`sha256:…`) is for Central only"
        )));
    }
    Ok(token.to_owned())
}

/// Warns once, before anything is sent, if others can read the token.
pub(super) fn warn(door: &CentralDoor) {
    let Some(file) = &door.token_file else { return };
    if std::fs::metadata(file).is_ok_and(|meta| meta.mode() & 0o077 != 0) {
        let shown = file.display();
        let _ = writeln!(io::stderr(), "warning: others than its owner can read {shown}\nhelp: chmod 600 {shown}");
    }
}

/// Why a certificate and a key cannot be used together.
fn mismatch(error: &rustls::Error, chain: &Path, key: &Path) -> String {
    let (chain, key) = (chain.display(), key.display());
    match error {
        rustls::Error::InconsistentKeys(_) => format!(
            "{chain} and {key} do not belong together\nhelp: `coordinator certs` writes both with one name, such as operator.pem and operator.key"
        ),
        other => format!("{chain}: {other}"),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let wrong = |error: &dyn std::fmt::Display| usage(format!("{}: no certificate: {error}", path.display()));
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?.collect();
    let found = found.map_err(|error| wrong(&error))?;
    if found.is_empty() { Err(wrong(&"the file holds none")) } else { Ok(found) }
}

fn is_loopback(url: &Url) -> bool {
    url.scheme == UrlScheme::Unix
        || url.host == "localhost"
        || url.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Reads `https://host[:port][/base]` or the same with http.
fn url(text: &str) -> Result<Url, String> {
    let wrong = || format!("`{text}` is not a URL such as https://central.example.com:8444");
    let uri: http::Uri = text.parse().map_err(|_| wrong())?;
    let (scheme, port) = match uri.scheme_str() {
        Some("https") => (UrlScheme::Https, 443),
        Some("http") => (UrlScheme::Http, 80),
        _ => return Err(wrong()),
    };
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    if uri.query().is_some() || host.is_empty() {
        return Err(wrong());
    }
    let base = uri.path().trim_end_matches('/').to_owned();
    Ok(Url { scheme, host, port: authority.port_u16().unwrap_or(port), base })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        for (text, expected) in [
            ("https://c.example.com:8444", "https://c.example.com:8444"),
            ("https://c.example.com/", "https://c.example.com:443"),
            ("http://127.0.0.1:1/base/", "http://127.0.0.1:1/base"),
            ("http://[::1]:9", "http://[::1]:9"),
        ] {
            assert_eq!(url(text).map(|url| url.to_string()).as_deref(), Ok(expected));
        }
        for text in ["", "c.example.com", "ftp://c", "https://u@c", "https://c?x=1", "/x"] {
            assert!(url(text).is_err(), "{text}");
        }
        assert!(is_loopback(&url("http://[::1]:9").unwrap()));
        assert!(!is_loopback(&url("http://10.0.0.1:9").unwrap()));
    }
}
