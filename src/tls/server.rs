//! TLS where we are the server: certificates by SNI, swapped when their files change; mutual TLS of the deployment.
//!
//! Knows files and names, nothing of connections. Invariant: a handshake sees one whole set of certificates, and a
//! broken file never replaces a good one. Public doors resume sessions by stateless tickets whose keys outlive every
//! reload; doors of the deployment never resume, so that a withdrawn certificate is worth nothing at once (DESIGN 10).

use crate::body::Identity;
use crate::config::check::not_after;
use crate::config::plan::{CertificateFiles, MutualTls, TlsSettings};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider, sign::any_supported_type};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, RootCertStore, ServerConfig, SupportedProtocolVersion};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

/// TLS 1.3 tickets after a handshake: one is enough for a client that keeps connections, and the second costs a tenth of
/// the handshake.
const TICKETS: usize = 1;

/// The TLS of one door; shared by all workers.
#[derive(Debug)]
pub struct ServerTls {
    files: Files,
    config: RwLock<Arc<ServerConfig>>,
    seen: Mutex<Vec<Stamp>>,
    ends: Mutex<Vec<(PathBuf, Duration)>>,
}

/// What a door is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Files {
    Public { certificates: Vec<CertificateFiles>, only_13: bool },
    Mutual { files: MutualTls, deployment: String, guests: bool },
}

/// What tells whether a file changed: when it was written, and how long it is. `None` = it cannot be read.
type Stamp = Option<(SystemTime, u64, Vec<u8>)>;

impl ServerTls {
    /// A public door. Errors: what is wrong with which file.
    pub fn public(certificates: &[CertificateFiles], settings: &TlsSettings) -> Result<Arc<ServerTls>, String> {
        ServerTls::open(Files::Public { certificates: certificates.to_vec(), only_13: settings.only_13 })
    }

    /// A door that only certificates of the deployment may enter; sessions are never resumed.
    pub fn mutual(files: &MutualTls, deployment: &str) -> Result<Arc<ServerTls>, String> {
        ServerTls::open(Files::Mutual { files: files.clone(), deployment: deployment.to_owned(), guests: false })
    }

    /// The same, but who has no certificate at all comes in as [`Identity::Anyone`], to show a token. A wrong certificate
    /// is refused as ever.
    pub fn with_guests(files: &MutualTls, deployment: &str) -> Result<Arc<ServerTls>, String> {
        ServerTls::open(Files::Mutual { files: files.clone(), deployment: deployment.to_owned(), guests: true })
    }

    fn open(files: Files) -> Result<Arc<ServerTls>, String> {
        let seen = files.stamps();
        let config = RwLock::new(files.load()?);
        let ends = Mutex::new(files.ends());
        Ok(Arc::new(ServerTls { files, config, seen: Mutex::new(seen), ends }))
    }

    /// When what is in use expires, since the Unix epoch, by file: the first of each file's certificates.
    pub fn ends(&self) -> Vec<(PathBuf, Duration)> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn config(&self) -> Arc<ServerConfig> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the next handshake goes by, and where it leaves the name that the client asks for: rustls tells that only to
    /// who picks the certificate.
    pub fn next(&self) -> (Arc<ServerConfig>, Arc<Asked>) {
        let common = self.config();
        let asked = Arc::new(Asked { shelf: common.cert_resolver.clone(), name: OnceLock::new() });
        let mut own = ServerConfig::clone(&common);
        own.cert_resolver = asked.clone();
        (Arc::new(own), asked)
    }

    /// Whether both stand for the same files and settings, so that one may go on in the place of the other.
    pub fn same_as(&self, other: &ServerTls) -> bool {
        self.files == other.files
    }

    /// Looks at the files and takes them over if they changed: `None` = they did not. On an error the last good ones
    /// stay, and it is told once per change. Cost: reads every file; to be called from the control thread.
    pub fn refresh(&self) -> Option<Result<(), String>> {
        let now = self.files.stamps();
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == now {
                return None;
            }
            *seen = now;
        }
        Some(self.files.load().map(|config| {
            *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
            *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = self.files.ends();
        }))
    }

    /// Who a verified client is; `None` = nobody whom this door lets in.
    pub fn identify(&self, chain: Option<&[CertificateDer<'_>]>) -> Option<Identity> {
        match &self.files {
            Files::Public { .. } => Some(Identity::Anyone),
            Files::Mutual { guests: true, .. } if chain.is_none_or(<[_]>::is_empty) => Some(Identity::Anyone),
            Files::Mutual { deployment, .. } => identity(chain?.first()?, deployment),
        }
    }
}

/// Looks after the files of some doors for ever, once a second; `tell` hears of every change that was taken or refused.
pub async fn watch(doors: impl Fn() -> Vec<Arc<ServerTls>>, tell: impl Fn(Result<(), String>)) {
    const EVERY: std::time::Duration = std::time::Duration::from_secs(1);
    loop {
        tokio::time::sleep(EVERY).await;
        doors().iter().filter_map(|door| door.refresh()).for_each(&tell);
    }
}

impl Files {
    fn paths(&self) -> Vec<&PathBuf> {
        match self {
            Files::Public { certificates, .. } => {
                certificates.iter().flat_map(|each| [&each.chain, &each.key]).collect()
            }
            Files::Mutual { files, .. } => vec![&files.own.chain, &files.own.key, &files.ca],
        }
    }

    /// The end of each file of certificates that can be read.
    fn ends(&self) -> Vec<(PathBuf, Duration)> {
        let files: Vec<&PathBuf> = match self {
            Files::Public { certificates, .. } => certificates.iter().map(|each| &each.chain).collect(),
            Files::Mutual { files, .. } => vec![&files.own.chain, &files.ca],
        };
        let end = |path: &Path| chain(path).ok()?.iter().filter_map(|one| not_after(one)).min();
        files.into_iter().filter_map(|path| Some((path.clone(), end(path)?))).collect()
    }

    fn stamps(&self) -> Vec<Stamp> {
        self.paths().into_iter().map(|path| stamp(path)).collect()
    }

    fn load(&self) -> Result<Arc<ServerConfig>, String> {
        match self {
            Files::Public { certificates, only_13 } => public_config(certificates, *only_13),
            Files::Mutual { files, guests, .. } => mutual_config(files, *guests),
        }
    }
}

/// The content is part of the stamp: a file that is replaced within the clock's grain by one of the same length (as
/// tests and eager renewers do) must not be missed. Certificates are a few KiB.
fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len(), std::fs::read(path).ok()?))
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = default_provider();
        provider.cipher_suites.sort_by_key(|suite| !is_cheapest(suite.suite()));
        Arc::new(provider)
    });
    PROVIDER.clone()
}

/// AES-128 is as safe as anything on offer, and costs a quarter less than AES-256, which most clients name first.
fn is_cheapest(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

/// The ticket keys of the process: made once, so that resumption survives every reload.
fn ticketer() -> Result<Arc<dyn ProducesTickets>, String> {
    static KEYS: OnceLock<Arc<dyn ProducesTickets>> = OnceLock::new();
    if let Some(keys) = KEYS.get() {
        return Ok(keys.clone());
    }
    let fresh = Ticketer::new().map_err(|error| format!("no ticket keys: {error}"))?;
    Ok(KEYS.get_or_init(|| fresh).clone())
}

fn public_config(certificates: &[CertificateFiles], only_13: bool) -> Result<Arc<ServerConfig>, String> {
    static ONLY_13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
    let versions = if only_13 { ONLY_13 } else { rustls::DEFAULT_VERSIONS };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shelf::load(certificates)?));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ticketer()?;
    config.ignore_client_order = true;
    config.send_tls13_tickets = TICKETS;
    Ok(Arc::new(config))
}

fn mutual_config(files: &MutualTls, guests: bool) -> Result<Arc<ServerConfig>, String> {
    let mut roots = RootCertStore::empty();
    for authority in chain(&files.ca)? {
        roots.add(authority).map_err(|error| format!("{}: {error}", files.ca.display()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let verifier = if guests { verifier.allow_unauthenticated() } else { verifier }
        .build()
        .map_err(|error| format!("{}: {error}", files.ca.display()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Shelf::load(std::slice::from_ref(&files.own))?));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The certificates of a door, by name.
#[derive(Debug)]
struct Shelf {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows `*.`; a star stands for one label (RFC 9525 section 6.3).
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    /// The first: for no SNI, and for names that no certificate has.
    first: Arc<CertifiedKey>,
}

impl Shelf {
    fn load(certificates: &[CertificateFiles]) -> Result<Shelf, String> {
        let mut keys = certificates.iter().map(certified).collect::<Result<Vec<_>, _>>()?.into_iter();
        let first = keys.next().ok_or("a TLS door needs a certificate")?;
        let mut shelf = Shelf { exact: HashMap::new(), wildcard: HashMap::new(), first: first.clone() };
        [first].into_iter().chain(keys).try_for_each(|key| shelf.put(key))?;
        Ok(shelf)
    }

    /// Where two certificates have the same name, the one that was listed first keeps it.
    fn put(&mut self, key: Arc<CertifiedKey>) -> Result<(), String> {
        let leaf = key.end_entity_cert().map_err(|error| error.to_string())?;
        let parsed = webpki::EndEntityCert::try_from(leaf).map_err(|error| error.to_string())?;
        for name in parsed.valid_dns_names() {
            let name = name.to_ascii_lowercase();
            match name.strip_prefix("*.") {
                Some(rest) => self.wildcard.entry(rest.to_owned()).or_insert_with(|| key.clone()),
                None => self.exact.entry(name).or_insert_with(|| key.clone()),
            };
        }
        Ok(())
    }

    fn pick(&self, sni: Option<&str>) -> Arc<CertifiedKey> {
        let Some(name) = sni.map(str::to_ascii_lowercase) else { return self.first.clone() };
        let wild = || name.split_once('.').and_then(|(_, rest)| self.wildcard.get(rest));
        self.exact.get(&name).or_else(wild).unwrap_or(&self.first).clone()
    }
}

impl ResolvesServerCert for Shelf {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.pick(hello.server_name()))
    }
}

/// What one client asks for, on its way to the certificates.
#[derive(Debug)]
pub struct Asked {
    shelf: Arc<dyn ResolvesServerCert>,
    name: OnceLock<String>,
}

impl Asked {
    /// The name in lower case, once the client has said which.
    pub fn name(&self) -> Option<String> {
        self.name.get().cloned()
    }
}

impl ResolvesServerCert for Asked {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(name) = hello.server_name() {
            // A second hello names no other server, or rustls refuses it.
            self.name.get_or_init(|| name.to_ascii_lowercase());
        }
        self.shelf.resolve(hello)
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: rustls::pki_types::pem::Error| format!("{}: {error}", path.display());
    let list: Vec<_> = CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<_, _>>().map_err(wrong)?;
    if list.is_empty() { Err(format!("{}: holds no certificate", path.display())) } else { Ok(list) }
}

fn certified(files: &CertificateFiles) -> Result<Arc<CertifiedKey>, String> {
    let chain = chain(&files.chain)?;
    let secret =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|error| format!("{}: {error}", files.key.display()))?;
    let signer = any_supported_type(&secret).map_err(|error| format!("{}: {error}", files.key.display()))?;
    let key = CertifiedKey::new(chain, signer);
    let pair = format!("{} and {}", files.chain.display(), files.key.display());
    key.keys_match().map_err(|error| format!("{pair} do not belong together: {error}"))?;
    let leaf = key.end_entity_cert().map_err(|error| format!("{pair}: {error}"))?;
    webpki::EndEntityCert::try_from(leaf).map_err(|error| format!("{}: {error}", files.chain.display()))?;
    Ok(Arc::new(key))
}

/// Who a certificate of the deployment names: exactly one `spiffe://<deployment>/…` URI of a known form.
fn identity(leaf: &CertificateDer<'_>, deployment: &str) -> Option<Identity> {
    let parsed = webpki::EndEntityCert::try_from(leaf).ok()?;
    let mut found = parsed.valid_uri_names().filter_map(|uri| named(uri, deployment));
    let identity = found.next()?;
    // Two identities in one certificate would let the reader choose: nobody.
    found.next().is_none().then_some(identity)
}

fn named(uri: &str, deployment: &str) -> Option<Identity> {
    let path = uri.strip_prefix("spiffe://")?.strip_prefix(deployment)?.strip_prefix('/')?;
    let (kind, rest) = path.split_once('/').unwrap_or((path, ""));
    match kind {
        "edge" if is_edge_name(rest) => Some(Identity::Edge(rest.to_owned())),
        "central" => Some(Identity::Central),
        "operator" if !rest.is_empty() => Some(Identity::Operator),
        "app" if !rest.is_empty() => Some(Identity::App),
        _ => None,
    }
}

fn is_edge_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet))
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
