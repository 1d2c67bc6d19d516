//! A deployment's own certificate authority: makes the certificates with which its edges, Central, operators and
//! application know each other (DESIGN 3, rights by certificate).
//!
//! Works in memory and knows no files; `cli/certs` writes what it makes, tests and `demo` use it as it is.
//! Invariant: a certificate names exactly one party, by one URI SAN `spiffe://<deployment>/<path>`, and is signed by the
//! one CA of that deployment. Keys are ECDSA P-256: every TLS stack has it, and its signature is the cheapest to make.
//! Source: RFC 5280; the SPIFFE X.509-SVID standard for the URI.

use crate::base::clock;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Usage, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// How long a certificate holds unless told otherwise.
pub const DAYS: u32 = 365;

/// How long the authority itself holds: changing it means touching every machine.
const CA_DAYS: u32 = 3650;

/// The most days that may be asked for, so that dates stay within four-digit years.
const DAYS_MAX: u32 = 36_500;

/// Certificates are valid from this long before they are made, for machines whose clocks are behind.
const BACKDATED: Duration = Duration::from_secs(86_400);

/// A label of DNS is at most this long (RFC 1035 section 2.3.4), and so is a name of ours.
const NAME_MAX: usize = 63;

/// What stands behind the deployment's name in the authority's subject.
const CA_SUFFIX: &str = " CA";

/// The authority of one deployment.
pub struct Issuer {
    deployment: String,
    ca_pem: String,
    authority: rcgen::Issuer<'static, KeyPair>,
    days: u32,
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Issued {
    /// The chain without the CA: one certificate.
    pub chain_pem: String,
    /// The private key, PKCS #8.
    pub key_pem: String,
}

/// Who a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party<'a> {
    /// The edge of this name.
    Edge(&'a str),
    /// Central.
    Central,
    /// A person or a tool that may use the homes API, moves and purges.
    Operator(&'a str),
    /// The application.
    App(&'a str),
}

/// Why nothing was issued, in words for whoever asked.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A name that cannot stand in a certificate.
    #[error(
        "`{0}` cannot be the name of {1}: write 1 to 63 lower-case letters, digits and `-`, neither first nor last a `-`"
    )]
    Name(String, &'static str),
    /// A host that is neither a DNS name nor an IP address.
    #[error("`{0}` is neither a host name nor an IP address")]
    Host(String),
    /// A number of days that makes no sense.
    #[error("{0} days: a certificate holds from 1 to {DAYS_MAX} days")]
    Days(u32),
    /// The CA's certificate or key cannot be used.
    #[error("this is not a CA made by `coordinator certs`: {0}")]
    NotOurs(&'static str),
    /// The library refused.
    #[error("certificate generation failed: {0}")]
    Library(#[from] rcgen::Error),
}

impl Issuer {
    /// A new authority for `deployment`. Cost: one key generation, well below a millisecond.
    pub fn new(deployment: &str) -> Result<Issuer, IssueError> {
        check_name(deployment, "a deployment")?;
        let params = ca_params(deployment);
        let key = KeyPair::generate()?;
        let ca_pem = params.self_signed(&key)?.pem();
        Ok(Issuer::over(deployment, ca_pem, key))
    }

    /// The authority that an earlier `new` made, from its PEM certificate and key.
    ///
    /// Errors: [`IssueError::NotOurs`] when the two do not belong together or were not made here: certificates that the
    /// deployment's machines would refuse are better not made.
    pub fn load(ca_pem: &str, key_pem: &str) -> Result<Issuer, IssueError> {
        let cert = CertificateDer::from_pem_slice(ca_pem.as_bytes())
            .map_err(|_| IssueError::NotOurs("its certificate is not PEM"))?;
        let key = KeyPair::from_pem(key_pem).map_err(|_| IssueError::NotOurs("its key is not PEM of a private key"))?;
        let deployment = deployment_of(&cert).ok_or(IssueError::NotOurs("its subject names no deployment"))?;
        if !belongs(&cert, &deployment, &key)? {
            return Err(IssueError::NotOurs("certificate and key do not belong together"));
        }
        Ok(Issuer::over(&deployment, ca_pem.to_owned(), key))
    }

    fn over(deployment: &str, ca_pem: String, key: KeyPair) -> Issuer {
        let authority = rcgen::Issuer::new(ca_params(deployment), key);
        Issuer { deployment: deployment.to_owned(), ca_pem, authority, days: DAYS }
    }

    /// Makes certificates that hold for `days` from now on.
    pub fn holding(mut self, days: u32) -> Result<Issuer, IssueError> {
        if days == 0 || days > DAYS_MAX {
            return Err(IssueError::Days(days));
        }
        self.days = days;
        Ok(self)
    }

    /// The deployment's name.
    pub fn deployment(&self) -> &str {
        &self.deployment
    }

    /// The authority's certificate, which every party trusts.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The authority's private key, which only the maker of certificates keeps.
    pub fn ca_key_pem(&self) -> String {
        self.authority.key().serialize_pem()
    }

    /// The certificate of an edge, as server and client of other edges and Central; valid for its name, for this
    /// machine's own addresses, and for `hosts` (DNS names and IP addresses).
    pub fn edge(&self, name: &str, hosts: &[String]) -> Result<Issued, IssueError> {
        self.issue(Party::Edge(name), hosts)
    }

    /// The certificate of Central.
    pub fn central(&self, hosts: &[String]) -> Result<Issued, IssueError> {
        self.issue(Party::Central, hosts)
    }

    /// The certificate of any party, with a fresh key.
    pub fn issue(&self, party: Party<'_>, hosts: &[String]) -> Result<Issued, IssueError> {
        self.certify(party, hosts, KeyPair::generate()?)
    }

    /// A certificate for a key that exists: how a certificate is renewed without touching its key.
    pub fn renew(&self, party: Party<'_>, hosts: &[String], key_pem: &str) -> Result<Issued, IssueError> {
        self.certify(party, hosts, KeyPair::from_pem(key_pem)?)
    }

    /// A certificate for a public door: names no party, so it opens nothing inside the deployment.
    pub fn public(&self, hosts: &[String]) -> Result<Issued, IssueError> {
        let first = hosts.first().map_or("localhost", String::as_str);
        let mut params = self.leaf(first, vec![Usage::ServerAuth]);
        params.subject_alt_names = sans_of(hosts)?;
        self.sign(params, KeyPair::generate()?)
    }

    fn certify(&self, party: Party<'_>, hosts: &[String], key: KeyPair) -> Result<Issued, IssueError> {
        check_name(party.name(), party.kind())?;
        let uri = party.uri(&self.deployment);
        let mut params = self.leaf(party.name(), party.usages());
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into()?)];
        if party.serves() {
            params.subject_alt_names.extend(sans_of(&[party.name().to_owned()])?);
            params.subject_alt_names.extend(own_addresses()?);
        }
        for san in sans_of(hosts)? {
            if !params.subject_alt_names.contains(&san) {
                params.subject_alt_names.push(san);
            }
        }
        self.sign(params, key)
    }

    /// What all certificates of parties and doors have in common.
    fn leaf(&self, name: &str, usages: Vec<Usage>) -> CertificateParams {
        let mut params = dated(self.days);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        params
    }

    fn sign(&self, params: CertificateParams, key: KeyPair) -> Result<Issued, IssueError> {
        let chain_pem = params.signed_by(&key, &self.authority)?.pem();
        Ok(Issued { chain_pem, key_pem: key.serialize_pem() })
    }
}

impl Party<'_> {
    /// The name within its kind.
    pub fn name(&self) -> &str {
        match self {
            Party::Edge(name) | Party::Operator(name) | Party::App(name) => name,
            Party::Central => "central",
        }
    }

    /// The identity that doors read from a certificate.
    pub fn uri(&self, deployment: &str) -> String {
        match self {
            Party::Edge(name) => format!("spiffe://{deployment}/edge/{name}"),
            Party::Central => format!("spiffe://{deployment}/central"),
            Party::Operator(name) => format!("spiffe://{deployment}/operator/{name}"),
            Party::App(name) => format!("spiffe://{deployment}/app/{name}"),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Party::Edge(_) => "an edge",
            Party::Central => "Central",
            Party::Operator(_) => "an operator",
            Party::App(_) => "an application",
        }
    }

    /// Whether others connect to it; operators and the application only call.
    fn serves(&self) -> bool {
        matches!(self, Party::Edge(_) | Party::Central)
    }

    fn usages(&self) -> Vec<Usage> {
        if self.serves() { vec![Usage::ServerAuth, Usage::ClientAuth] } else { vec![Usage::ClientAuth] }
    }
}

/// Refuses names that would not be one DNS label and one segment of a URI.
pub fn check_name(name: &str, of: &'static str) -> Result<(), IssueError> {
    let plain = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
    let fits = (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(plain);
    if fits && !name.starts_with('-') && !name.ends_with('-') {
        return Ok(());
    }
    Err(IssueError::Name(name.to_owned(), of))
}

/// Certificate parameters with a validity of `days` from now.
fn dated(days: u32) -> CertificateParams {
    let now = clock::wall();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + now.saturating_sub(BACKDATED);
    params.not_after = epoch + (now + Duration::from_secs(u64::from(days) * 86_400));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

fn ca_params(deployment: &str) -> CertificateParams {
    let mut params = dated(CA_DAYS);
    params.distinguished_name.push(DnType::CommonName, format!("{deployment}{CA_SUFFIX}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// The deployment that a CA certificate names.
///
/// Shape: the subject that `ca_params` writes is one attribute, so its DER is eleven octets of headers (SET, SEQUENCE,
/// the OID of the common name, UTF8String; each length below 128) and the text. Anything else gives no deployment, and
/// what is read here is proven by [`belongs`], which builds the whole subject anew.
fn deployment_of(cert: &CertificateDer<'_>) -> Option<String> {
    const HEADERS: usize = 11;
    let anchor = webpki::anchor_from_trusted_cert(cert).ok()?;
    let text = std::str::from_utf8(anchor.subject.as_ref().get(HEADERS..)?).ok()?;
    let deployment = text.strip_suffix(CA_SUFFIX)?;
    check_name(deployment, "a deployment").ok()?;
    Some(deployment.to_owned())
}

/// Whether subject and public key of `cert` are those of an authority of `deployment` over `key`.
fn belongs(cert: &CertificateDer<'_>, deployment: &str, key: &KeyPair) -> Result<bool, IssueError> {
    let twin = ca_params(deployment).self_signed(key)?;
    let read = |der| webpki::anchor_from_trusted_cert(der).map_err(|_| IssueError::NotOurs("it cannot be read"));
    let (theirs, ours) = (read(cert)?, read(twin.der())?);
    Ok(theirs.subject == ours.subject && theirs.subject_public_key_info == ours.subject_public_key_info)
}

/// What every serving party answers to on its own machine.
fn own_addresses() -> Result<[SanType; 3], IssueError> {
    Ok([
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ])
}

fn sans_of(hosts: &[String]) -> Result<Vec<SanType>, IssueError> {
    hosts.iter().map(|host| san(host)).collect()
}

/// A host as a SAN; one `*.` in front is allowed, as public doors may have it.
fn san(host: &str) -> Result<SanType, IssueError> {
    if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse() {
        return Ok(SanType::IpAddress(address));
    }
    let bad = || IssueError::Host(host.to_owned());
    let labels = host.strip_prefix("*.").unwrap_or(host);
    let label = |label: &str| {
        (1..=NAME_MAX).contains(&label.len())
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_')
    };
    if host.len() > 253 || !labels.split('.').all(label) {
        return Err(bad());
    }
    Ok(SanType::DnsName(host.try_into().map_err(|_| bad())?))
}

#[cfg(test)]
mod tests;
