//! TLS where we are the server: certificates by SNI, swapped when their files change; mutual TLS of the deployment.

use crate::body::Identity;
use crate::config::plan::{CertificateFiles, MutualTls, TlsSettings};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use std::sync::Arc;

/// The TLS of one door; shared by all workers.
#[derive(Debug)]
pub struct ServerTls {}

impl ServerTls {
    /// A public door. Errors: what is wrong with which file.
    pub fn public(_certificates: &[CertificateFiles], _settings: &TlsSettings) -> Result<Arc<ServerTls>, String> {
        unimplemented!()
    }

    /// A door that only certificates of the deployment may enter; sessions are never resumed.
    pub fn mutual(_files: &MutualTls, _deployment: &str) -> Result<Arc<ServerTls>, String> {
        unimplemented!()
    }

    /// What the next handshake goes by.
    pub fn config(&self) -> Arc<ServerConfig> {
        unimplemented!()
    }

    /// Looks at the files and takes them over if they changed: `None` = they did not. On an error the last good ones stay.
    pub fn refresh(&self) -> Option<Result<(), String>> {
        unimplemented!()
    }

    /// Who a verified client is; `None` = nobody whom this door lets in.
    pub fn identify(&self, _chain: Option<&[CertificateDer<'_>]>) -> Option<Identity> {
        unimplemented!()
    }
}
