//! Certificates are read back with webpki and used in real handshakes: what we make must satisfy what we verify with.

use super::*;
use rustls::pki_types::{PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use std::sync::Arc;
use webpki::{EndEntityCert, KeyUsage};

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn hosts(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Whether `leaf` chains to `ca` for the usage, at `days` from now.
fn chains(leaf: &str, ca: &str, usage: KeyUsage, days: u64) -> Result<(), webpki::Error> {
    let (leaf, ca) = (der(leaf), der(ca));
    let anchors = [webpki::anchor_from_trusted_cert(&ca).unwrap()];
    let time = UnixTime::since_unix_epoch(clock::wall() + Duration::from_secs(days * 86_400));
    EndEntityCert::try_from(&leaf)
        .unwrap()
        .verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &[], time, usage, None, None)
        .map(drop)
}

fn valid_for(pem: &str, host: &str) -> bool {
    let der = der(pem);
    let name = ServerName::try_from(host).unwrap();
    EndEntityCert::try_from(&der).unwrap().verify_is_valid_for_subject_name(&name).is_ok()
}

fn uris(pem: &str) -> Vec<String> {
    let der = der(pem);
    EndEntityCert::try_from(&der).unwrap().valid_uri_names().map(str::to_owned).collect()
}

#[test]
fn an_edge_is_named_and_reachable() {
    let issuer = Issuer::new("shop").unwrap();
    let fr = issuer.edge("fr", &hosts(&["fr.edge.example.com", "10.0.0.3", "[2001:db8::1]"])).unwrap();
    assert_eq!(uris(&fr.chain_pem), ["spiffe://shop/edge/fr"]);
    for host in ["fr", "localhost", "127.0.0.1", "::1", "fr.edge.example.com", "10.0.0.3", "2001:db8::1"] {
        assert!(valid_for(&fr.chain_pem, host), "{host}");
    }
    for host in ["de", "edge.example.com", "127.0.0.2"] {
        assert!(!valid_for(&fr.chain_pem, host), "{host}");
    }
    for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
        chains(&fr.chain_pem, issuer.ca_pem(), usage, 0).unwrap();
    }
}

#[test]
fn every_party_has_its_one_uri_and_only_its_uses() {
    let issuer = Issuer::new("shop").unwrap();
    let table = [
        (Party::Central, "spiffe://shop/central", true),
        (Party::Edge("de"), "spiffe://shop/edge/de", true),
        (Party::Operator("admin"), "spiffe://shop/operator/admin", false),
        (Party::App("app"), "spiffe://shop/app/app", false),
    ];
    for (party, uri, serves) in table {
        let made = issuer.issue(party, &[]).unwrap();
        assert_eq!(uris(&made.chain_pem), [uri]);
        chains(&made.chain_pem, issuer.ca_pem(), KeyUsage::client_auth(), 0).unwrap();
        let server = chains(&made.chain_pem, issuer.ca_pem(), KeyUsage::server_auth(), 0);
        assert_eq!(server.is_ok(), serves, "{party:?}");
    }
    let door = issuer.public(&hosts(&["shop.example", "*.shop.example", "127.0.0.1"])).unwrap();
    assert!(uris(&door.chain_pem).is_empty(), "a public door is nobody inside");
    assert!(valid_for(&door.chain_pem, "www.shop.example"));
    assert!(chains(&door.chain_pem, issuer.ca_pem(), KeyUsage::client_auth(), 0).is_err());
}

#[test]
fn certificates_end_and_foreign_ones_do_not_chain() {
    let issuer = Issuer::new("shop").unwrap().holding(30).unwrap();
    let fr = issuer.edge("fr", &[]).unwrap();
    let server = KeyUsage::server_auth;
    chains(&fr.chain_pem, issuer.ca_pem(), server(), 29).unwrap();
    let late = chains(&fr.chain_pem, issuer.ca_pem(), server(), 31);
    assert!(matches!(late, Err(webpki::Error::CertExpired { .. })), "{late:?}");
    let other = Issuer::new("shop").unwrap();
    assert!(chains(&fr.chain_pem, other.ca_pem(), server(), 0).is_err());
}

#[test]
fn a_loaded_authority_goes_on_where_the_first_left_off() {
    let first = Issuer::new("shop").unwrap();
    let again = Issuer::load(first.ca_pem(), &first.ca_key_pem()).unwrap();
    assert_eq!(again.deployment(), "shop");
    let us = again.edge("us", &[]).unwrap();
    chains(&us.chain_pem, first.ca_pem(), KeyUsage::server_auth(), 0).unwrap();
    let renewed = again.renew(Party::Edge("us"), &[], &us.key_pem).unwrap();
    assert_eq!(renewed.key_pem, us.key_pem);
    handshake(&first, &renewed, &us).unwrap();
}

#[test]
fn a_pair_that_does_not_belong_together_is_refused() {
    let (a, b) = (Issuer::new("shop").unwrap(), Issuer::new("shop").unwrap());
    let fr = a.edge("fr", &[]).unwrap();
    let table = [
        (a.ca_pem(), b.ca_key_pem(), "belong together"),
        (&fr.chain_pem, fr.key_pem.clone(), "names no deployment"),
        ("", a.ca_key_pem(), "not PEM"),
        (a.ca_pem(), "x".to_owned(), "not PEM of a private key"),
    ];
    for (cert, key, says) in table {
        let error = Issuer::load(cert, &key).err().unwrap().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn names_and_hosts_are_checked() {
    let issuer = Issuer::new("shop").unwrap();
    for name in ["", "FR", "fr.", "a_b", "-a", "a-", "é", "a/b", &"x".repeat(64)] {
        assert!(matches!(issuer.edge(name, &[]), Err(IssueError::Name(..))), "{name}");
        assert!(matches!(Issuer::new(name), Err(IssueError::Name(..))), "{name}");
    }
    for host in ["", "a b", "a..b", "http://a", "a:80", "*.*.a", "é.fr", &"x".repeat(64)] {
        assert!(matches!(issuer.edge("fr", &hosts(&[host])), Err(IssueError::Host(_))), "{host}");
    }
    let longest = "x".repeat(63);
    assert_eq!(
        Issuer::load(Issuer::new(&longest).unwrap().ca_pem(), &Issuer::new("shop").unwrap().ca_key_pem())
            .err()
            .unwrap()
            .to_string(),
        "this is not a CA made by `coordinator certs`: certificate and key do not belong together"
    );
    assert!(matches!(Issuer::new("shop").unwrap().holding(0), Err(IssueError::Days(0))));
}

#[test]
fn two_edges_shake_hands_and_strangers_do_not() {
    let issuer = Issuer::new("shop").unwrap();
    let (fr, de) = (issuer.edge("fr", &[]).unwrap(), issuer.edge("de", &[]).unwrap());
    handshake(&issuer, &fr, &de).unwrap();
    let stranger = Issuer::new("shop").unwrap().edge("de", &[]).unwrap();
    assert!(handshake(&issuer, &fr, &stranger).is_err());
}

/// A mutual handshake in memory, `client` calling `server` as localhost.
fn handshake(issuer: &Issuer, server: &Issued, client: &Issued) -> Result<(), rustls::Error> {
    let key = |made: &Issued| PrivateKeyDer::from_pem_slice(made.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(der(issuer.ca_pem())).unwrap();
    let roots = Arc::new(roots);
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build().unwrap();
    let of_server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![der(&server.chain_pem)], key(server))?;
    let of_client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![der(&client.chain_pem)], key(client))?;
    let mut left = ClientConnection::new(Arc::new(of_client), ServerName::try_from("localhost").unwrap())?;
    let mut right = ServerConnection::new(Arc::new(of_server))?;
    while left.is_handshaking() || right.is_handshaking() {
        let mut wire = Vec::new();
        while left.wants_write() {
            left.write_tls(&mut wire).unwrap();
        }
        right.read_tls(&mut wire.as_slice()).unwrap();
        right.process_new_packets()?;
        let mut wire = Vec::new();
        while right.wants_write() {
            right.write_tls(&mut wire).unwrap();
        }
        left.read_tls(&mut wire.as_slice()).unwrap();
        left.process_new_packets()?;
    }
    Ok(())
}
