//! TLS where we call: whom we trust, which certificate we show, and both read again when their files change.
//!
//! Between edges the host name is not enough: the other side must also prove, by the URI name of its certificate, that
//! it is the very edge (or Central) that we mean to reach (DESIGN 3, rights by certificate).

use crate::config::plan::MutualTls;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// Whom a call trusts, and who we are to the other side.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The system's roots.
    System,
    /// The roots of a PEM file.
    Private(PathBuf),
    /// The deployment's CA, mutually; the other side must bear this URI name.
    Deployment {
        /// Our certificate and the CA.
        files: MutualTls,
        /// Such as `spiffe://shop/edge/fr`.
        name: String,
    },
}

/// Which protocols are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// Only HTTP/1.1.
    Http1,
    /// Only HTTP/2.
    Http2,
    /// HTTP/2, else HTTP/1.1.
    Either,
}

/// The TLS configuration of one kind of call, replaceable while connections use it.
pub struct Client {
    trust: Trust,
    current: RwLock<Current>,
}

struct Current {
    configs: Result<[Arc<ClientConfig>; 3], String>,
    seen: u64,
}

impl Client {
    /// Reads the files. What fails is told by [`Client::config`], at each call, until a reload mends it.
    pub fn new(trust: Trust) -> Self {
        let (configs, seen) = match read(&trust) {
            Ok(files) => (configure(&trust, &files), files.digest()),
            Err(error) => (Err(error), 0),
        };
        Client { trust, current: RwLock::new(Current { configs, seen }) }
    }

    /// Whom it trusts.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The configuration for a new connection. Errors: why there is none.
    pub fn config(&self, alpn: Alpn) -> Result<Arc<ClientConfig>, String> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.configs.as_ref().map(|all| Arc::clone(&all[alpn as usize])).map_err(Clone::clone)
    }

    /// Reads the files again; whether they had changed. Errors: why the old ones stay in use. Cost: file reads.
    pub fn reload(&self) -> Result<bool, String> {
        let files = read(&self.trust)?;
        let seen = files.digest();
        if self.current.read().unwrap_or_else(PoisonError::into_inner).seen == seen {
            return Ok(false);
        }
        let configs = configure(&self.trust, &files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Current { configs: Ok(configs), seen };
        Ok(true)
    }
}

/// What to do about a failed handshake between places, from the first TLS error in the chain of causes; empty where
/// there is nothing better to say than the error itself.
pub fn remedy(error: &(dyn std::error::Error + 'static)) -> &'static str {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return words(tls);
        }
        // The h2 crate keeps only the text of what broke its connection.
        if error.downcast_ref::<h2::Error>().is_some_and(|error| error.to_string().contains("CertificateRequired")) {
            return words(&rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired));
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = inner.map(|inner| inner as &(dyn std::error::Error + 'static)).or_else(|| error.source());
    }
    ""
}

fn words(error: &rustls::Error) -> &'static str {
    use rustls::AlertDescription as Alert;
    match error {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate is from another CA than our `ca` file: both must come from one `coordinator certs` folder"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired: delete its .pem there and run `coordinator certs` again"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet: compare the clocks of both machines"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another place or host: make it with `coordinator certs --host NAME=HOST`"
            }
            _ => "",
        },
        rustls::Error::AlertReceived(Alert::UnknownCA | Alert::BadCertificate | Alert::DecryptError) => {
            "it does not trust our certificate: both must come from one `coordinator certs` folder"
        }
        rustls::Error::AlertReceived(Alert::CertificateRequired) => {
            "it asks for a certificate of the deployment: give `chain` and `key` in [peer], or --cert and --key"
        }
        rustls::Error::AlertReceived(Alert::CertificateExpired) => {
            "our certificate has expired: delete its .pem and run `coordinator certs` again"
        }
        rustls::Error::InvalidMessage(_) => "it does not speak TLS on this port: is its door plain, or the port wrong?",
        _ => "",
    }
}

/// The contents of the files that a trust names; empty where it names none.
#[derive(Default)]
struct Files {
    roots: Vec<u8>,
    chain: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.roots, &self.chain, &self.key).hash(&mut hasher);
        hasher.finish()
    }
}

fn read(trust: &Trust) -> Result<Files, String> {
    let file = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    Ok(match trust {
        Trust::System => Files::default(),
        Trust::Private(roots) => Files { roots: file(roots)?, ..Files::default() },
        Trust::Deployment { files, .. } => {
            Files { roots: file(&files.ca)?, chain: file(&files.own.chain)?, key: file(&files.own.key)? }
        }
    })
}

/// One configuration for each [`Alpn`], in the order of its variants.
fn configure(trust: &Trust, files: &Files) -> Result<[Arc<ClientConfig>; 3], String> {
    let base = base(trust, files).map_err(|error| format!("{}: {error}", named(trust)))?;
    Ok([&[&b"http/1.1"[..]][..], &[b"h2"], &[b"h2", b"http/1.1"]].map(|offered| {
        let mut config = base.clone();
        config.alpn_protocols = offered.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }))
}

/// The files of a trust, for whoever must mend them.
fn named(trust: &Trust) -> String {
    match trust {
        Trust::System => "the system's roots".to_owned(),
        Trust::Private(roots) => roots.display().to_string(),
        Trust::Deployment { files, .. } => {
            let own = &files.own;
            format!("{}, {} and {}", own.chain.display(), own.key.display(), files.ca.display())
        }
    }
}

fn base(trust: &Trust, files: &Files) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::System => Arc::new(rustls_platform_verifier::Verifier::new(provider.clone()).map_err(text)?),
        Trust::Private(_) => roots(&files.roots, &provider)?,
        Trust::Deployment { name, .. } => {
            Arc::new(Named { inner: roots(&files.roots, &provider)?, name: name.clone() })
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(text)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Trust::Deployment { .. } = trust else { return Ok(builder.with_no_client_auth()) };
    let key = PrivateKeyDer::from_pem_slice(&files.key).map_err(|error| format!("the private key: {error}"))?;
    let mut config = builder.with_client_auth_cert(certificates(&files.chain)?, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => "certificate and key do not belong together".to_owned(),
        other => other.to_string(),
    })?;
    // A resumed session would outlive the certificate that opened it (DESIGN 10).
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn roots(pem: &[u8], provider: &Arc<rustls::crypto::CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem)? {
        store.add(certificate).map_err(text)?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone()).build().map_err(text)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(text)?;
    if all.is_empty() { Err("no certificate in the file".to_owned()) } else { Ok(all) }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Verifies as usual, then asks for the URI name as well.
#[derive(Debug)]
struct Named {
    inner: Arc<WebPkiServerVerifier>,
    name: String,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        if bears(end_entity, &self.name) { Ok(verified) } else { Err(CertificateError::NotValidForName.into()) }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Whether a certificate has exactly this URI among its names.
fn bears(certificate: &CertificateDer<'_>, name: &str) -> bool {
    webpki::EndEntityCert::try_from(certificate).is_ok_and(|cert| cert.valid_uri_names().any(|uri| uri == name))
}
