//! TLS at our doors.

use super::h2 as client_h2;
use super::script::{World, door, plan, until, world_of};
use crate::base::clock;
use crate::body::Door;
use crate::config::plan::{CertificateFiles, MutualTls, TlsSettings};
use crate::server::DoorSpec;
use crate::tls::server::ServerTls;
use http::Method;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A CA, and what it signs.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { issuer, folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A certificate for a DNS name and, where given, a URI.
    fn sign(&self, name: &str, uri: Option<&str>) -> (CertificateDer<'static>, KeyPair) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.subject_alt_names.extend(uri.map(|uri| SanType::URI(uri.try_into().unwrap())));
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().der().clone(), key)
    }

    /// The same as files.
    fn files(&self, file: &str, name: &str, uri: Option<&str>) -> CertificateFiles {
        let (cert, key) = self.sign(name, uri);
        let files = CertificateFiles {
            chain: self.path().join(format!("{file}.pem")),
            key: self.path().join(format!("{file}.key")),
        };
        let pem = rustls_pem(&cert);
        std::fs::write(&files.chain, pem).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    fn client(&self, identity: Option<&str>, alpn: &[&str]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(uri) => {
                let (cert, key) = self.sign("client.example", Some(uri));
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|each| each.as_bytes().to_vec()).collect();
        config
    }
}

fn rustls_pem(der: &CertificateDer<'_>) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in der.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, octet| bits << 8 | u32::from(*octet)) << (8 * (3 - three.len()));
        for at in 0..4 {
            let sextet = (bits >> (18 - 6 * at)) & 63;
            text.push(if at <= three.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

async fn connect(
    world: &World,
    config: &Arc<ClientConfig>,
    name: &str,
) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
    let tcp = tokio::net::TcpStream::connect(world.address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(config.clone()).connect(name, tcp).await
}

/// The answer to a request over HTTP/1.1.
async fn ask(world: &World, config: &Arc<ClientConfig>, name: &str, path: &str) -> std::io::Result<String> {
    let mut tls = connect(world, config, name).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    tls.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    tls.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn public(authority: &Authority) -> (World, Arc<ServerTls>) {
    let files = [authority.files("a", "a.example", None), authority.files("b", "b.example", None)];
    let tls = ServerTls::public(&files, &TlsSettings::default()).unwrap();
    let spec = DoorSpec { tls: Some(tls.clone()), ..door() };
    (world_of(plan(), spec), tls)
}

#[test]
fn alpn_chooses_the_version() {
    let authority = Authority::new();
    let (world, _) = public(&authority);
    client_h2::run(async {
        for (alpn, version) in
            [(&["h2", "http/1.1"][..], Some(&b"h2"[..])), (&["http/1.1"], Some(b"http/1.1")), (&[], None)]
        {
            let config = Arc::new(authority.client(None, alpn));
            let tls = connect(&world, &config, "a.example").await.unwrap();
            assert_eq!(tls.get_ref().1.alpn_protocol(), version);
            if version == Some(b"h2") {
                let mut client = client_h2::client_over(tls).await;
                let response = client_h2::get(&mut client, "/who").await.unwrap();
                assert_eq!(client_h2::content(response).await.0, "Anyone Some(\"a.example\")");
            } else {
                let answer = ask(&world, &config, "a.example", "/hello").await.unwrap();
                assert!(answer.ends_with("hello"), "{answer}");
            }
        }
    });
    // The connection over which nothing was asked was looked at, too.
    assert!(world.metric("coordinator_tls_handshakes_total{door=\"public\",result=\"done\"}") >= 3);
    let plain = world.talk("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!plain.contains("HTTP/1.1"), "{plain}");
    until("the count", || world.metric("coordinator_tls_handshakes_total{door=\"public\",result=\"failed\"}") == 1);
}

#[test]
fn records_are_filled_across_frames_and_keep_their_order() {
    let authority = Authority::new();
    let (world, _) = public(&authority);
    let sent: String = (0..100_000).map(|number| format!("{number:08}")).collect();
    client_h2::run(async {
        let config = Arc::new(authority.client(None, &["h2"]));
        let tls = connect(&world, &config, "a.example").await.unwrap();
        let mut client = client_h2::client_over(tls).await;
        let (response, mut body) = client.send_request(client_h2::request(Method::POST, "/mirror"), false).unwrap();
        body.send_data(sent.clone().into(), true).unwrap();
        let (came, end) = client_h2::content(response.await.unwrap()).await;
        assert!(end.is_ok() && came == sent, "{} of {} octets came back", came.len(), sent.len());
    });
}

#[test]
fn the_certificate_follows_sni_and_its_files() {
    let authority = Authority::new();
    let (world, tls) = public(&authority);
    client_h2::run(async {
        // A client of its own each time: a resumed session shows no certificate.
        let fresh = || Arc::new(authority.client(None, &[]));
        for name in ["a.example", "b.example"] {
            let answer = ask(&world, &fresh(), name, "/who").await.unwrap();
            assert!(answer.ends_with(&format!("Some({name:?})")), "{answer}");
        }
        assert!(ask(&world, &fresh(), "c.example", "/who").await.is_err(), "the first is shown, and does not fit");
        authority.files("b", "c.example", None);
        assert_eq!(tls.refresh(), Some(Ok(())));
        assert!(ask(&world, &fresh(), "c.example", "/who").await.is_ok());
        assert!(ask(&world, &fresh(), "b.example", "/who").await.is_err());
    });
}

#[test]
fn sessions_are_resumed_across_a_swap_at_public_doors() {
    let authority = Authority::new();
    let (world, tls) = public(&authority);
    client_h2::run(async {
        let config = Arc::new(authority.client(None, &[]));
        ask(&world, &config, "a.example", "/hello").await.unwrap();
        authority.files("b", "b.example", None);
        assert_eq!(tls.refresh(), Some(Ok(())));
        let mut again = connect(&world, &config, "a.example").await.unwrap();
        assert_eq!(again.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
        again.shutdown().await.unwrap();
        let who = ask(&world, &config, "a.example", "/who").await.unwrap();
        assert!(who.ends_with("Some(\"a.example\")"), "the name is known without a certificate, too: {who}");
    });
}

#[test]
fn only_the_deployment_enters_a_peer_door() {
    let authority = Authority::new();
    let own = authority.files("own", "fr.example", Some("spiffe://shop/edge/fr"));
    let files = MutualTls { own, ca: authority.path().join("ca.pem") };
    let tls = ServerTls::mutual(&files, "shop").unwrap();
    let world = world_of(plan(), DoorSpec { tls: Some(tls), door: Door::Peer, ..door() });
    client_h2::run(async {
        for (uri, expected) in [
            ("spiffe://shop/edge/de", Some("Edge(\"de\")")),
            ("spiffe://shop/central", Some("Central")),
            ("spiffe://shop/operator/ann", Some("Operator")),
            ("spiffe://shop/nobody", None),
            ("spiffe://other/edge/de", None),
        ] {
            let config = Arc::new(authority.client(Some(uri), &["http/1.1"]));
            for _ in 0..2 {
                let answer = ask(&world, &config, "fr.example", "/who").await;
                let who = answer.ok().filter(|answer| !answer.is_empty());
                match expected {
                    Some(expected) => assert!(who.unwrap().contains(expected), "{uri}"),
                    None => assert_eq!(who, None, "{uri}"),
                }
            }
            // Twice asked, never resumed: a certificate is shown each time.
            if expected.is_some() {
                let again = connect(&world, &config, "fr.example").await.unwrap();
                assert_ne!(again.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
            }
        }
        let nobody = Arc::new(authority.client(None, &["http/1.1"]));
        assert!(ask(&world, &nobody, "fr.example", "/who").await.is_err(), "a certificate is asked for");
        let stranger = Authority::new();
        let mut foreign = stranger.client(Some("spiffe://shop/edge/de"), &["http/1.1"]);
        foreign.dangerous().set_certificate_verifier(authority_verifier(&authority));
        assert!(ask(&world, &Arc::new(foreign), "fr.example", "/who").await.is_err(), "another CA's word is nothing");
    });
    until("the count", || world.metric("coordinator_tls_handshakes_total{door=\"peer\",result=\"stranger\"}") == 4);
}

fn authority_verifier(authority: &Authority) -> Arc<dyn rustls::client::danger::ServerCertVerifier> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.issuer.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap()
}

#[test]
fn a_handshake_that_stalls_is_given_up() {
    let authority = Authority::new();
    let files = [authority.files("a", "a.example", None)];
    let tls = ServerTls::public(&files, &TlsSettings::default()).unwrap();
    let mut hasty = plan();
    hasty.timeouts.head = std::time::Duration::from_millis(150);
    let world = world_of(hasty, DoorSpec { tls: Some(tls), ..door() });
    assert_eq!(world.talk("\x16\x03\x01"), "");
    until("the count", || world.metric("coordinator_tls_handshakes_total{door=\"public\",result=\"late\"}") == 1);
}

#[test]
fn plain_peer_doors_know_loopback_only() {
    let world = world_of(plan(), DoorSpec { door: Door::Peer, ..door() });
    let answer = world.talk("GET /who HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(answer.ends_with("Loopback None"), "{answer}");
}

#[test]
fn a_client_that_takes_nothing_over_tls_is_cut_in_time() {
    let authority = Authority::new();
    let tls = ServerTls::public(&[authority.files("a", "a.example", None)], &TlsSettings::default()).unwrap();
    let mut hasty = plan();
    hasty.timeouts.send = std::time::Duration::from_secs(1);
    let world = world_of(hasty, DoorSpec { tls: Some(tls), ..door() });
    client_h2::run(async {
        let mut tls = connect(&world, &Arc::new(authority.client(None, &[])), "a.example").await.unwrap();
        let asked = clock::now();
        tls.write_all(b"GET /flood HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
        assert_eq!(world.recorded(1), [(200, "connection_write_timeout")]);
        // What TLS still had room for must not count as taken by the client: it was once a second for each record.
        let waited = clock::now().duration_since(asked);
        assert!(waited < std::time::Duration::from_secs(3), "{waited:?}");
    });
}

/// A client's side of a connection, with what the server has sent.
struct Tapped {
    tcp: tokio::net::TcpStream,
    came: Arc<std::sync::Mutex<Vec<u8>>>,
}

impl tokio::io::AsyncRead for Tapped {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let read = std::pin::Pin::new(&mut self.tcp).poll_read(cx, buf);
        self.came.lock().unwrap().extend_from_slice(&buf.filled()[before..]);
        read
    }
}

impl tokio::io::AsyncWrite for Tapped {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        octets: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.tcp).poll_write(cx, octets)
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// How many records of TLS these octets hold.
fn records(mut octets: &[u8]) -> usize {
    let mut count = 0;
    while let [_, _, _, high, low, rest @ ..] = octets {
        octets = rest.get(usize::from(*high) << 8 | usize::from(*low)..).unwrap_or_default();
        count += 1;
    }
    count
}

#[test]
fn answers_share_records_and_a_session_costs_one_ticket() {
    let authority = Authority::new();
    let (world, _) = public(&authority);
    client_h2::run(async {
        let came = Arc::new(std::sync::Mutex::new(Vec::new()));
        let taken = || std::mem::take(&mut *came.lock().unwrap());
        let config = Arc::new(authority.client(None, &["http/1.1"]));
        let name = ServerName::try_from("a.example").unwrap();
        let tcp = tokio::net::TcpStream::connect(world.address).await.unwrap();
        let tapped = Tapped { tcp, came: came.clone() };
        let mut tls = TlsConnector::from(config).connect(name.clone(), tapped).await.unwrap();
        let suite = tls.get_ref().1.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256, "the client names AES-256 first");
        taken();
        for expected in [2, 1] {
            tls.write_all(b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
            let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
            while !answer.ends_with(b"hello") {
                let got = tls.read(&mut piece).await.unwrap();
                answer.extend_from_slice(&piece[..got]);
            }
            assert_eq!(records(&taken()), expected, "head and content in one, the ticket before the first");
        }
        let config = Arc::new(authority.client(None, &["h2"]));
        let tcp = tokio::net::TcpStream::connect(world.address).await.unwrap();
        let tapped = Tapped { tcp, came: came.clone() };
        let tls = TlsConnector::from(config).connect(name, tapped).await.unwrap();
        let mut client = client_h2::client_over(tls).await;
        client_h2::get(&mut client, "/hello").await.unwrap();
        taken();
        let answers = (0..32).map(|_| {
            let mut client = client.clone();
            tokio::task::spawn_local(async move { client_h2::get(&mut client, "/hello").await.unwrap().status() })
        });
        for answer in answers.collect::<Vec<_>>() {
            assert_eq!(answer.await.unwrap(), 200);
        }
        assert!(records(&taken()) < 16, "32 answers");
    });
}
