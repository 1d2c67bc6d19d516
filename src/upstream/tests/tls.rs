//! TLS to origins and between edges: who is believed, what is negotiated, and what a reload keeps.

use super::*;
use crate::base::id::{ClusterId, EdgeId};
use crate::base::snapshot::Snapshot;
use crate::config::plan::{Central, CertificateFiles, Cluster as Planned, Edge, HealthCheck, MutualTls, PeerDoor};
use crate::metrics::tests::plan;
use crate::tls::client::{Client, Trust};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::path::PathBuf;
use tokio_rustls::TlsAcceptor;

/// A deployment's certificates in a folder.
struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Authority { folder, issuer: Issuer::new(params, key), root: certificate.der().clone() }
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Writes a certificate for 127.0.0.1, also named by `uri`.
    fn issue(&self, file: &str, uri: &str) -> CertificateFiles {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |kind: &str| self.folder.path().join(format!("{file}.{kind}"));
        std::fs::write(path("pem"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        CertificateFiles { chain: path("pem"), key: path("key") }
    }

    fn mutual(&self, file: &str, uri: &str) -> MutualTls {
        MutualTls { own: self.issue(file, uri), ca: self.ca() }
    }

    /// A server with the certificate in `files`; `mutual`: it asks for one of ours.
    fn server(&self, files: &CertificateFiles, mutual: bool, alpn: &[&str]) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain =
            CertificateDer::pem_file_iter(&files.chain).unwrap().collect::<std::result::Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let builder = match mutual {
            true => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap(),
            ),
            false => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Serves 200 with the protocol's name over whatever TLS negotiates.
async fn serve(acceptor: TlsAcceptor) -> SocketAddr {
    let (listener, address) = listen().await;
    spawn_local(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            spawn_local(async move {
                let Ok(mut stream) = acceptor.accept(socket).await else { return };
                if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                    let mut head = [0; 1024];
                    while stream.read(&mut head).await.unwrap_or(0) > 0 {
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nh1").await.unwrap();
                    }
                    return;
                }
                let mut connection = ::h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let mut send = respond.send_response(http::Response::new(()), false).unwrap();
                    send.send_data(Bytes::from("h2"), true).unwrap();
                }
            });
        }
    });
    address
}

fn secure(address: SocketAddr, kind: Side, trust: Trust) -> Arc<Endpoint> {
    let url =
        Url { scheme: UrlScheme::Https, host: address.ip().to_string(), port: address.port(), base: String::new() };
    let client = Arc::new(Client::new(trust.clone()));
    Arc::new(Endpoint::new(Spec { kind, url, trust: Some(trust), connections_max: 4 }, Ok(Some(client))))
}

/// Handshakes in a debug build are slow on a busy machine.
async fn patiently(upstream: &Upstream, endpoint: &Arc<Endpoint>, mut request: Outgoing<'_>) -> String {
    let long = Duration::from_secs(10);
    let waits = Timeouts { connect: long, first_byte: long, between: long, ..Timeouts::default() };
    match upstream.exchange(endpoint, &mut request, &waits, &mut Record::start()).await {
        Ok(mut answer) => format!("{} {}", answer.head.status, read(&mut answer.body).await),
        Err(error) => format!("{} {:?}", error.kind().name(), error.may_retry()),
    }
}

#[test]
fn origins_are_verified_and_choose_their_protocol() {
    local(async {
        let (ours, other) = (Authority::new(), Authority::new());
        let files = ours.issue("origin", "urn:origin");
        for (alpn, expected) in [(&["h2", "http/1.1"][..], "200 h2."), (&["http/1.1"], "200 h1."), (&[], "200 h1.")] {
            let address = serve(ours.server(&files, false, alpn)).await;
            let upstream = Upstream::new(LIMITS);
            let trusted = secure(address, Side::Origin, Trust::Private(ours.ca()));
            let call = || patiently(&upstream, &trusted, get("/"));
            assert_eq!(<[String; 3]>::from(tokio::join!(call(), call(), call())), [expected; 3], "{alpn:?}");
            assert_eq!(call().await, expected, "{alpn:?}");
            assert_eq!(idle(&upstream, &trusted) > 0, expected == "200 h1.", "tickets do not spoil reuse");
            let upgrade = Outgoing { upgrade: Some("websocket".to_owned()), ..get("/") };
            assert_eq!(patiently(&upstream, &trusted, upgrade).await, "200 h1.", "upgrades take HTTP/1.1");
            let stranger = secure(address, Side::Origin, Trust::Private(other.ca()));
            assert_eq!(patiently(&upstream, &stranger, get("/")).await, "tls_certificate_error Unsent");
            // Where the machine has no roots at all, that is said instead.
            let public = patiently(&upstream, &secure(address, Side::Origin, Trust::System), get("/")).await;
            assert!(["tls_certificate_error Unsent", "proxy_configuration_error Unsent"].contains(&public.as_str()));
        }
        let plain = origin(|_, mut peer| async move { peer.say("HTTP/1.1 400 Bad\r\n\r\n").await }).await;
        let address = SocketAddr::from(([127, 0, 0, 1], plain.url().port));
        let endpoint = secure(address, Side::Origin, Trust::Private(ours.ca()));
        assert_eq!(patiently(&Upstream::new(LIMITS), &endpoint, get("/")).await, "tls_protocol_error Unsent");
    });
}

#[test]
fn an_edge_must_prove_that_it_is_that_edge() {
    local(async {
        let ours = Authority::new();
        let own = ours.mutual("fr", "spiffe://shop/edge/fr");
        for (uri, expected) in [
            ("spiffe://shop/edge/de", "200 h2."),
            ("spiffe://shop/edge/us", "tls_certificate_error Unsent"),
            ("spiffe://shop/edge/de/x", "tls_certificate_error Unsent"),
            ("spiffe://other/edge/de", "tls_certificate_error Unsent"),
            ("spiffe://shop/central", "tls_certificate_error Unsent"),
        ] {
            let theirs = ours.issue("de", uri);
            let address = serve(ours.server(&theirs, true, &["h2"])).await;
            let trust = Trust::Deployment { files: own.clone(), name: "spiffe://shop/edge/de".to_owned() };
            let endpoint = secure(address, Side::Link, trust);
            assert_eq!(patiently(&Upstream::new(LIMITS), &endpoint, get("/")).await, expected, "{uri}");
        }
    });
}

#[test]
fn certificates_are_read_again_when_they_change() {
    local(async {
        let (ours, other) = (Authority::new(), Authority::new());
        let name = "spiffe://shop/edge/de".to_owned();
        let theirs = ours.issue("de", &name);
        let address = serve(ours.server(&theirs, true, &["h2"])).await;
        // Our certificate is of another CA at first: the server refuses it.
        let own = MutualTls { own: other.issue("fr", "spiffe://shop/edge/fr"), ca: ours.ca() };
        let client = Arc::new(Client::new(Trust::Deployment { files: own.clone(), name }));
        assert_eq!(client.reload(), Ok(false));
        let url = Url { scheme: UrlScheme::Https, host: "127.0.0.1".into(), port: address.port(), base: String::new() };
        let spec = Spec { kind: Side::Link, url, trust: Some(client.trust().clone()), connections_max: 4 };
        let endpoint = Arc::new(Endpoint::new(spec, Ok(Some(client.clone()))));
        let refused = patiently(&Upstream::new(LIMITS), &endpoint, get("/")).await;
        assert!(!refused.starts_with("200"), "{refused}");
        let fresh = ours.issue("fr", "spiffe://shop/edge/fr");
        std::fs::copy(fresh.chain, &own.own.chain).unwrap();
        assert!(client.reload().is_err(), "half of a pair is not taken");
        std::fs::copy(fresh.key, &own.own.key).unwrap();
        assert_eq!(client.reload(), Ok(true));
        assert_eq!(patiently(&Upstream::new(LIMITS), &endpoint, get("/")).await, "200 h2.");
    });
}

fn http(port: u16) -> Url {
    Url { scheme: UrlScheme::Http, host: "127.0.0.1".into(), port, base: String::new() }
}

fn planned(name: &str, ports: &[u16]) -> Planned {
    Planned {
        name: name.into(),
        origins: ports.iter().map(|port| http(*port)).collect(),
        balance: Balance::P2c,
        health: None,
        ca: None,
        connections_max: 4,
    }
}

#[test]
fn a_reload_keeps_what_did_not_change() {
    let mut plan = plan(&[]);
    plan.clusters = vec![planned("local", &[1, 2]), planned("chat", &[3])];
    plan.central = Some(Central { urls: vec![http(4)], origins: None, feed: Default::default(), tls: None });
    for (id, name) in [(1, "fr"), (2, "de"), (3, "us")] {
        plan.edges.insert(Edge { id: EdgeId(id), name: name.into(), peer: Some(http(10 + id)) });
    }
    plan.edges.own = Some(EdgeId(1));
    let old = Live::build(&plan, None);
    assert_eq!(old.all().map(|cluster| cluster.name()).filter(|name| *name == "fr").count(), 0);
    assert!(old.edge(EdgeId(1)).is_none() && old.edge(EdgeId(9)).is_none() && old.cluster(ClusterId(2)).is_none());
    let _active = old.cluster(ClusterId(0)).unwrap().begin();

    // `local` changes one origin and moves; `us` changes its address; `de` gets another id.
    plan.clusters = vec![planned("chat", &[3]), planned("local", &[2, 5])];
    plan.edges.insert(Edge { id: EdgeId(7), name: "de".into(), peer: Some(http(12)) });
    plan.edges.insert(Edge { id: EdgeId(3), name: "us".into(), peer: Some(http(99)) });
    let new = Live::build(&plan, Some(&old));
    let same = |a: Option<&Arc<Cluster>>, b: Option<&Arc<Cluster>>| Arc::ptr_eq(a.unwrap(), b.unwrap());
    assert!(same(old.cluster(ClusterId(1)), new.cluster(ClusterId(0))));
    assert!(same(old.central(), new.central()));
    assert!(same(old.edge(EdgeId(2)), new.edge(EdgeId(7))) && new.edge(EdgeId(2)).is_none());
    assert!(!same(old.edge(EdgeId(3)), new.edge(EdgeId(3))));
    let (was, is) = (old.cluster(ClusterId(0)).unwrap(), new.cluster(ClusterId(1)).unwrap());
    assert!(!Arc::ptr_eq(was, is));
    assert_eq!(was.endpoints()[1].id(), is.endpoints()[0].id());
    assert_eq!(is.active(), 1, "counters go on");
}

#[test]
fn https_links_need_certificates() {
    local(async {
        let ours = Authority::new();
        let address = serve(ours.server(&ours.issue("c", "spiffe://shop/central"), true, &["h2"])).await;
        let url = Url { scheme: UrlScheme::Https, ..http(address.port()) };
        let mut plan = plan(&[]);
        plan.central = Some(Central { urls: vec![url.clone()], origins: None, feed: Default::default(), tls: None });
        let bare = Live::build(&plan, None);
        let endpoint = bare.central().unwrap().pick(&[], 0, clock::now()).unwrap();
        let upstream = Upstream::new(LIMITS);
        assert_eq!(patiently(&upstream, endpoint, get("/")).await, "proxy_configuration_error Unsent");
        let tls = ours.mutual("fr", "spiffe://shop/edge/fr");
        plan.peer = Some(PeerDoor { address, tls: Some(tls.clone()) });
        plan.central = Some(Central { urls: vec![url], origins: None, feed: Default::default(), tls: Some(tls) });
        let live = Live::build(&plan, Some(&bare));
        let endpoint = live.central().unwrap().pick(&[], 0, clock::now()).unwrap();
        assert_eq!(patiently(&upstream, endpoint, get("/")).await, "200 h2.");
        assert_eq!(live.reload_certificates(), Vec::<String>::new());
        std::fs::remove_file(ours.ca()).unwrap();
        assert_eq!(live.reload_certificates().len(), 1);
    });
}

#[test]
fn checks_bring_endpoints_down_and_up() {
    local(async {
        let healthy = Rc::new(Cell::new(true));
        let state = healthy.clone();
        let endpoint = origin(move |_, mut peer| {
            let status = if state.get() { "200 OK" } else { "500 Broken" };
            async move {
                assert!(peer.head().await.starts_with("GET /healthz HTTP/1.1\r\n"));
                peer.say(&format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")).await;
                peer.closed().await;
            }
        })
        .await;
        let mut plan = plan(&[]);
        let every = Duration::from_millis(5);
        let timeout = Duration::from_secs(2);
        let health = Some(HealthCheck { path: "/healthz".into(), every, timeout, rise: 2, fall: 3 });
        plan.clusters = vec![Planned { health, ..planned("local", &[endpoint.url().port]) }];
        let snapshot = Snapshot::new(Live::build(&plan, None));
        let checks = spawn_local(probe::run(snapshot.reader()));
        let live = snapshot.load();
        let cluster = live.cluster(ClusterId(0)).unwrap().clone();
        let until = async |up: bool| {
            while cluster.is_reachable(clock::now()) != up {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        healthy.set(false);
        until(false).await;
        assert!(cluster.pick(&[], 0, clock::now()).is_none());
        healthy.set(true);
        until(true).await;
        // Without checks, what they said is forgotten.
        healthy.set(false);
        until(false).await;
        plan.clusters[0].health = None;
        snapshot.set(Live::build(&plan, Some(&live)));
        assert!(snapshot.load().cluster(ClusterId(0)).unwrap().is_reachable(clock::now()));
        drop(snapshot);
        checks.await.unwrap();
    });
}
