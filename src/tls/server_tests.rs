//! Certificates chosen, swapped and identified.

use super::*;
use rcgen::{CertificateParams, KeyPair, SanType};

/// Writes a self-signed certificate for these names; gives its files.
fn write(folder: &Path, file: &str, names: &[&str]) -> CertificateFiles {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    let files = CertificateFiles { chain: folder.join(format!("{file}.pem")), key: folder.join(format!("{file}.key")) };
    std::fs::write(&files.chain, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

#[test]
fn certificates_are_chosen_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let list = [
        write(folder.path(), "first", &["fr.example"]),
        write(folder.path(), "wild", &["*.shop.example", "shop.example"]),
        write(folder.path(), "late", &["fr.example", "a.shop.example"]),
    ];
    let shelf = Shelf::load(&list).unwrap();
    let at = |sni| {
        let got = shelf.pick(sni);
        list.iter().position(|files| got.cert == chain(&files.chain).unwrap()).unwrap()
    };
    for (sni, expected) in [
        (None, 0),
        (Some("unknown.example"), 0),
        (Some("fr.example"), 0),
        (Some("SHOP.example"), 1),
        (Some("b.shop.example"), 1),
        (Some("a.shop.example"), 2),
        (Some("a.b.shop.example"), 0),
    ] {
        assert_eq!(at(sni), expected, "{sni:?}");
    }
}

#[test]
fn changed_files_are_taken_and_broken_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let files = write(folder.path(), "a", &["a.example"]);
    let tls = ServerTls::public(std::slice::from_ref(&files), &TlsSettings::default()).unwrap();
    assert_eq!(tls.refresh(), None);
    let before = tls.config();
    std::fs::write(&files.key, "nonsense").unwrap();
    assert!(tls.refresh().unwrap().unwrap_err().contains("a.key"));
    assert!(Arc::ptr_eq(&before, &tls.config()), "the last good one stays");
    assert_eq!(tls.refresh(), None, "one change is told once");
    write(folder.path(), "a", &["a.example"]);
    assert_eq!(tls.refresh(), Some(Ok(())));
    assert!(!Arc::ptr_eq(&before, &tls.config()));
    assert!(Arc::ptr_eq(&before.ticketer, &tls.config().ticketer), "resumption survives a swap");
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (write(folder.path(), "a", &["a.example"]), write(folder.path(), "b", &["b.example"]));
    let mixed = CertificateFiles { chain: a.chain, key: b.key };
    let error = ServerTls::public(&[mixed], &TlsSettings::default()).unwrap_err();
    assert!(error.contains("do not belong together"), "{error}");
}

fn identity_of(uris: &[&str]) -> Option<Identity> {
    let mut params = CertificateParams::new(vec!["x.example".to_owned()]).unwrap();
    params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
    let cert = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    identity(cert.der(), "shop")
}

#[test]
fn identities_are_read_from_uri_names() {
    for (uris, expected) in [
        (&["spiffe://shop/edge/fr"][..], Some(Identity::Edge("fr".into()))),
        (&["spiffe://shop/central"], Some(Identity::Central)),
        (&["spiffe://shop/central/c1"], Some(Identity::Central)),
        (&["spiffe://shop/operator/ann"], Some(Identity::Operator)),
        (&["spiffe://shop/app/outbox"], Some(Identity::App)),
        (&["https://shop.example/", "spiffe://shop/edge/fr"], Some(Identity::Edge("fr".into()))),
        (&["spiffe://shop/edge/fr", "spiffe://shop/edge/de"], None),
        (&["spiffe://shop/edge/"], None),
        (&["spiffe://shop/edge/fr/x"], None),
        (&["spiffe://shopper/edge/fr"], None),
        (&["spiffe://other/edge/fr"], None),
        (&["spiffe://shop/operator/"], None),
        (&["spiffe://shop/king"], None),
        (&[], None),
    ] {
        assert_eq!(identity_of(uris), expected, "{uris:?}");
    }
}
