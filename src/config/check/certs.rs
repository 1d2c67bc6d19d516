//! Certificates and keys of the configuration: there, readable, belonging together, not expired.
//!
//! The one part of `check` that reads files; what the doors load later is the same, but an operator learns it here.

use super::Found;
use crate::config::leaf::FilePath;
use crate::config::problem::{Level, Problem};
use crate::config::read::At;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::time::Duration;

/// Checks a chain and its key.
pub(super) fn pair(chain: &At<FilePath>, key: &At<FilePath>, found: &mut Found<'_>) {
    let certificates = certificates(chain, found);
    let private = match PrivateKeyDer::from_pem_file(&key.value.0) {
        Ok(private) => private,
        Err(error) => return unreadable(key, "private key", &error, found),
    };
    let signing = match rustls::crypto::aws_lc_rs::sign::any_supported_type(&private) {
        Ok(signing) => signing,
        Err(_) => {
            let problem = Problem::at(key.place, "this private key is of a kind that is not supported");
            return found.report(problem.help("use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 bits or more"));
        }
    };
    let Some(certificates) = certificates else { return };
    // `Unknown` means that the key's kind cannot tell; the handshake will.
    if let Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) =
        CertifiedKey::new(certificates, signing).keys_match()
    {
        found.report(
            Problem::at(key.place, "this key does not belong to the certificate")
                .spot(chain.place, "this certificate")
                .help("the first certificate of the chain must be the one made for this key"),
        );
    }
}

/// Checks that a certificate of the deployment names the place that shows it: others would let nobody else in.
pub(super) fn names(chain: &At<FilePath>, identity: &str, found: &mut Found<'_>) {
    // What cannot be read has been reported.
    let leaf = CertificateDer::pem_file_iter(&chain.value.0).ok().and_then(|mut all| all.next()?.ok());
    let Some(parsed) = leaf.as_ref().and_then(|leaf| webpki::EndEntityCert::try_from(leaf).ok()) else { return };
    let named: Vec<&str> = parsed.valid_uri_names().filter(|uri| uri.starts_with("spiffe://")).collect();
    if named == [identity] {
        return;
    }
    let wrong = match named.as_slice() {
        [] => "this certificate names no place of a deployment".to_owned(),
        all => format!("this certificate is that of `{}`", all.join("`, `")),
    };
    let remedy =
        "correct `chain`, or `name` and `deployment`; `coordinator certs --deployment NAME` makes one for each place";
    found.report(Problem::at(chain.place, wrong).label(format!("not of `{identity}`")).help(remedy));
}

/// Checks a file of CA certificates.
pub(super) fn authority(ca: &At<FilePath>, found: &mut Found<'_>) {
    let Some(list) = certificates(ca, found) else { return };
    let mut roots = rustls::RootCertStore::empty();
    if list.into_iter().any(|certificate| roots.add(certificate).is_err()) {
        let problem = Problem::at(ca.place, "this file holds a certificate that cannot be read as a CA");
        found.report(problem.help("it must hold the PEM certificates of CAs and nothing else"));
    }
}

/// The certificates of a file, none expired; `None` after a report.
fn certificates(file: &At<FilePath>, found: &mut Found<'_>) -> Option<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(&file.value.0).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let list = match read {
        Ok(list) if !list.is_empty() => list,
        Ok(_) => {
            unreadable(file, "certificate", &pem::Error::NoItemsFound, found);
            return None;
        }
        Err(error) => {
            unreadable(file, "certificate", &error, found);
            return None;
        }
    };
    if list.iter().any(|certificate| not_after(certificate).is_some_and(|end| end < found.now)) {
        let problem = Problem::at(file.place, "this file holds a certificate that has expired").level(Level::Warning);
        found.report(problem.help("clients will refuse it; renew it (a running process takes new files as they come)"));
    }
    Some(list)
}

fn unreadable(file: &At<FilePath>, what: &str, error: &pem::Error, found: &mut Found<'_>) {
    let shown = file.value.0.display();
    let wrong = match error {
        pem::Error::NoItemsFound => format!("`{shown}` holds no PEM {what}"),
        pem::Error::Io(error) => format!("`{shown}` cannot be read: {error}"),
        _ => format!("`{shown}` is not a PEM file that can be read"),
    };
    found
        .report(Problem::at(file.place, wrong).help("relative paths count from the folder of the file that says them"));
}

/// When a certificate expires, since the Unix epoch; `None` if that cannot be read. webpki judges certificates but does
/// not tell their dates, which stand here (RFC 5280 section 4.1):
///
/// ```text
/// Certificate ::= { tbsCertificate { [0] version, serial, signature, issuer, validity { notBefore, notAfter }, … } }
/// ```
pub fn not_after(certificate: &[u8]) -> Option<Duration> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (tag, certificate, _) = element(certificate)?;
    let (_, mut rest, _) = element(certificate)?;
    if tag != SEQUENCE {
        return None;
    }
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.2;
    }
    for _serial_signature_issuer in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest)?;
    let (_, _, after) = element(validity)?;
    let (tag, time, _) = element(after)?;
    date(tag, std::str::from_utf8(time).ok()?)
}

/// One DER element: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (octets.iter().fold(0usize, |len, octet| len << 8 | usize::from(*octet)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

/// UTCTime `YYMMDDHHMMSSZ` or GeneralizedTime `YYYYMMDDHHMMSSZ` (RFC 5280 section 4.1.2.5).
fn date(tag: u8, text: &str) -> Option<Duration> {
    let (year, rest) = text.split_at_checked(if tag == 0x17 { 2 } else { 4 })?;
    let year: u64 = year.parse().ok()?;
    let year = match (tag, year) {
        (0x17, 0..50) => year + 2000,
        (0x17, _) => year + 1900,
        _ => year,
    };
    let part = |at: usize| rest.get(at..at + 2)?.parse::<u64>().ok();
    let (month, day) = (part(0)?.clamp(1, 12), part(2)?);
    let seconds = part(4)? * 3600 + part(6)? * 60 + part(8)?;
    // Days since 1970, counting years from March so that the leap day is the last (Hinnant, `days_from_civil`).
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = (year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day).checked_sub(719_469)?;
    Some(Duration::from_secs(days * 86_400 + seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_count_from_1970() {
        for (tag, text, days) in [
            (0x17, "700101000000Z", 0),
            (0x17, "991231000000Z", 10_956),
            (0x17, "240229000000Z", 19_782),
            (0x18, "20500101000000Z", 29_220),
        ] {
            assert_eq!(date(tag, text), Some(Duration::from_secs(days * 86_400)), "{text}");
        }
        for text in ["", "7", "7001", "70010100000", "é0101000000Z"] {
            assert_eq!(date(0x17, text), None, "{text}");
        }
    }

    #[test]
    fn a_certificate_tells_its_end_and_garbage_none() {
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2031, 5, 6);
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        assert_eq!(not_after(made.der()), Some(Duration::from_secs(1_935_792_000)));
        for cut in 0..made.der().len() {
            not_after(&made.der()[..cut]);
        }
    }
}
