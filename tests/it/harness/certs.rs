//! Certificates for tests, made by the code that makes them for operators.

use super::folder::Folder;
use coordinator::tls::issue::{Issued, Issuer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::PathBuf;
use std::sync::Arc;

/// A pair of files.
pub struct Files {
    /// The certificate.
    pub chain: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A deployment's authority called `shop`.
pub fn issuer() -> Issuer {
    Issuer::new("shop").expect("a CA can be made")
}

/// A certificate for a public door under `hosts`.
pub fn public(issuer: &Issuer, hosts: &[&str]) -> Issued {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    issuer.public(&hosts).expect("a certificate can be made")
}

/// Writes a pair as `<name>.pem` and `<name>.key`.
pub fn write(folder: &Folder, name: &str, issued: &Issued) -> Files {
    Files {
        chain: folder.write(&format!("{name}.pem"), &issued.chain_pem),
        key: folder.write(&format!("{name}.key"), &issued.key_pem),
    }
}

/// A client's TLS settings that trust `ca_pem` alone, offer `alpn`, and show `own` where given.
pub fn client_config(ca_pem: &str, alpn: &[&str], own: Option<&Issued>) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).expect("the CA is PEM")).expect("the CA is a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has both versions")
        .with_root_certificates(roots);
    let mut config = match own {
        Some(own) => {
            builder.with_client_auth_cert(vec![der(own)], key(own)).expect("certificate and key belong together")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A server's TLS settings with one certificate and no client authentication.
pub fn server_config(own: &Issued, alpn: &[&str]) -> Arc<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has both versions")
        .with_no_client_auth()
        .with_single_cert(vec![der(own)], key(own))
        .expect("certificate and key belong together");
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

fn der(issued: &Issued) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(issued.chain_pem.as_bytes()).expect("a certificate of ours is PEM")
}

fn key(issued: &Issued) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).expect("a key of ours is PEM")
}
