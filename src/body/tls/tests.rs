//! Sessions against rustls' own client: in memory, where every octet's way can be chosen, and over sockets.

use super::session::Session;
use super::*;
use crate::body::io::{Io, Stream};
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, HandshakeKind, RootCertStore, SupportedProtocolVersion,
    version,
};
use std::io::{Read, Write};
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt;

/// A certificate for both sides that both believe in.
struct Party {
    cert: CertificateDer<'static>,
    key: KeyPair,
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

impl Party {
    fn new() -> Party {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        Party { cert: params.self_signed(&key).unwrap().der().clone(), key }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.cert.clone()).unwrap();
        Arc::new(roots)
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }

    fn server(&self, provider: CryptoProvider, mutual: bool) -> Arc<ServerConfig> {
        let provider = Arc::new(provider);
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&VERSIONS).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), provider).build().unwrap();
        let builder = if mutual { builder.with_client_cert_verifier(verifier) } else { builder.with_no_client_auth() };
        let mut config = builder.with_single_cert(vec![self.cert.clone()], self.key()).unwrap();
        config.send_tls13_tickets = 1;
        Arc::new(config)
    }

    fn client(&self, version: &'static SupportedProtocolVersion, provider: CryptoProvider) -> Arc<ClientConfig> {
        let builder =
            ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[version]).unwrap();
        let builder = builder.with_root_certificates(self.roots());
        Arc::new(builder.with_client_auth_cert(vec![self.cert.clone()], self.key()).unwrap())
    }
}

/// Both sides of a session, in memory.
struct Talk {
    client: ClientConnection,
    server: Session,
    /// Octets come to either side in pieces of this length.
    piece: usize,
    /// What came to the server.
    content: Vec<u8>,
}

impl Talk {
    fn new(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>, piece: usize) -> Talk {
        let name = ServerName::try_from("a.example").unwrap();
        let client = ClientConnection::new(client.clone(), name).unwrap();
        Talk { client, server: Session::new(server.clone()).unwrap(), piece, content: Vec::new() }
    }

    /// The usual two.
    fn shaken(version: &'static SupportedProtocolVersion) -> Talk {
        let party = Party::new();
        let (server, client) = (aws_lc_rs::default_provider(), aws_lc_rs::default_provider());
        let mut talk = Talk::new(&party.server(server, false), &party.client(version, client), usize::MAX);
        talk.run().unwrap();
        assert!(!talk.server.agreed().is_handshaking());
        talk
    }

    /// What the client would send.
    fn client_says(&mut self) -> Vec<u8> {
        let mut octets = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut octets).unwrap();
        }
        octets
    }

    fn server_hears(&mut self, octets: &[u8]) -> Result<(), Error> {
        for piece in octets.chunks(self.piece) {
            self.server.room().unwrap().extend_from_slice(piece);
            self.server.open(|octets| self.content.extend_from_slice(octets))?;
        }
        Ok(())
    }

    fn client_hears(&mut self, octets: &[u8]) -> Result<(), Error> {
        for piece in octets.chunks(self.piece.min(4096)) {
            self.client.read_tls(&mut &*piece).unwrap();
            self.client.process_new_packets()?;
        }
        Ok(())
    }

    /// Goes on until neither side has anything to say.
    fn run(&mut self) -> Result<(), Error> {
        while self.client.wants_write() || !self.server.said.is_empty() {
            let octets = self.client_says();
            self.server_hears(&octets)?;
            let said = std::mem::take(&mut self.server.said);
            self.client_hears(&said)?;
        }
        Ok(())
    }

    /// What comes to the client of what the server seals.
    fn answer(&mut self, octets: &[u8]) -> Vec<u8> {
        let mut out = Out::default();
        out.begin(octets.len(), &std::mem::take(&mut self.server.said));
        let sealed = self.server.seal(octets, out.room()).unwrap();
        out.grown(sealed);
        self.client_hears(out.unsent()).unwrap();
        let mut came = vec![0; octets.len()];
        self.client.reader().read_exact(&mut came).unwrap();
        came
    }

    /// What comes to the server of what the client says.
    fn ask(&mut self, octets: &[u8]) -> Vec<u8> {
        self.client.writer().write_all(octets).unwrap();
        self.run().unwrap();
        std::mem::take(&mut self.content)
    }
}

#[test]
fn handshakes_and_content_come_in_pieces_of_any_length() {
    let party = Party::new();
    for version in VERSIONS {
        for (mutual, piece) in [(false, 1), (true, 1), (true, 2), (false, 7), (true, 1000), (true, usize::MAX)] {
            let (server, client) = (aws_lc_rs::default_provider(), aws_lc_rs::default_provider());
            let mut talk = Talk::new(&party.server(server, mutual), &party.client(version, client), piece);
            talk.run().unwrap();
            let agreed = talk.server.agreed();
            let facts = (agreed.protocol_version(), agreed.peer_certificates().is_some(), agreed.is_handshaking());
            assert_eq!(facts, (Some(version.version), mutual, false), "pieces of {piece}");
            assert_eq!((talk.ask(b"question"), talk.answer(b"answer")), (b"question".to_vec(), b"answer".to_vec()));
        }
    }
}

#[test]
fn records_come_together_and_cut_anywhere() {
    for version in VERSIONS {
        let mut talk = Talk::shaken(version);
        let mut length = 0;
        for cut in 0.. {
            for part in [&b"one "[..], b"two ", b"three"] {
                talk.client.writer().write_all(part).unwrap();
            }
            let octets = talk.client_says();
            if cut > octets.len() {
                break;
            }
            length = octets.len();
            let (first, second) = octets.split_at(cut);
            talk.server_hears(first).unwrap();
            talk.server_hears(second).unwrap();
            assert_eq!(std::mem::take(&mut talk.content), b"one two three", "cut at {cut}");
            assert_eq!(talk.server.room().unwrap().len(), 0);
        }
        assert!(length > 60, "three records");
    }
}

#[test]
fn keys_are_renewed_by_either_side() {
    let mut talk = Talk::shaken(&version::TLS13);
    for _ in 0..3 {
        talk.client.refresh_traffic_keys().unwrap();
        assert_eq!(talk.ask(b"with new keys"), b"with new keys");
        assert_eq!(talk.answer(b"with ours, too"), b"with ours, too");
    }
    let mut traffic = None;
    talk.server
        .write(|own| {
            traffic = Some(own.refresh_traffic_keys());
            Ok(0)
        })
        .unwrap();
    assert_eq!(traffic, Some(Ok(())));
    talk.server.open(|_| unreachable!()).unwrap();
    assert_eq!(talk.answer(b"ours first"), b"ours first");
    assert_eq!(talk.ask(b"theirs"), b"theirs");
}

#[test]
fn a_client_that_wants_nothing_but_new_keys_is_refused() {
    let mut talk = Talk::shaken(&version::TLS13);
    let end = (0..100).find_map(|_| {
        talk.client.refresh_traffic_keys().unwrap();
        let octets = talk.client_says();
        talk.server_hears(&octets).err()
    });
    assert_eq!(end, Some(rustls::PeerMisbehaved::TooManyKeyUpdateRequests.into()));
}

#[test]
fn either_side_ends_in_order() {
    for version in VERSIONS {
        let mut talk = Talk::shaken(version);
        talk.client.writer().write_all(b"last").unwrap();
        talk.client.send_close_notify();
        let mut octets = talk.client_says();
        octets.extend_from_slice(b"what follows is ignored");
        talk.server_hears(&octets).unwrap();
        assert!(talk.content == b"last" && talk.server.has_ended());
        assert_eq!(talk.answer(b"an answer all the same"), b"an answer all the same");
        talk.server.close().unwrap();
        let said = std::mem::take(&mut talk.server.said);
        talk.client_hears(&said).unwrap();
        assert_eq!(talk.client.reader().read(&mut [0; 8]).unwrap(), 0);
        assert!(talk.server.seal(b"more", &mut [0; 100]).is_err());
    }
}

#[test]
fn what_is_no_record_is_answered_by_an_alert() {
    const TOO_LONG: &[u8] = &[23, 3, 3, 0xff, 0xff];
    let garbage = [&[23, 3, 3, 0, 40][..], &[7; 40]].concat();
    for version in VERSIONS {
        for (octets, alert) in [
            (&garbage[..], AlertDescription::BadRecordMac),
            (TOO_LONG, AlertDescription::DecodeError),
            (b"GET / HTTP/1.1\r\n\r\n", AlertDescription::DecodeError),
        ] {
            let mut talk = Talk::shaken(version);
            talk.client.writer().write_all(b"good").unwrap();
            let good = talk.client_says();
            let error = talk.server_hears(&[&good, octets].concat()).unwrap_err();
            assert_eq!(talk.content, b"good", "what came before is content");
            let said = std::mem::take(&mut talk.server.said);
            assert_eq!(talk.client_hears(&said), Err(Error::AlertReceived(alert)), "{error}");
        }
    }
}

#[test]
fn a_client_without_the_right_key_share_is_asked_for_it() {
    let party = Party::new();
    let groups = |kx_groups| CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() };
    let server = party.server(groups(vec![aws_lc_rs::kx_group::SECP384R1]), false);
    let client = groups(vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP384R1]);
    for piece in [1, usize::MAX] {
        let mut talk = Talk::new(&server, &party.client(&version::TLS13, client.clone()), piece);
        talk.run().unwrap();
        assert_eq!(talk.server.agreed().handshake_kind(), Some(HandshakeKind::FullWithHelloRetryRequest));
        assert_eq!(talk.ask(b"question"), b"question");
    }
}

#[test]
fn sessions_are_resumed() {
    let party = Party::new();
    for version in VERSIONS {
        let server = party.server(aws_lc_rs::default_provider(), false);
        let client = party.client(version, aws_lc_rs::default_provider());
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut talk = Talk::new(&server, &client, usize::MAX);
            talk.run().unwrap();
            assert_eq!(talk.server.agreed().handshake_kind(), Some(kind));
            assert_eq!(talk.answer(b"answer"), b"answer");
        }
    }
}

#[test]
fn a_handshake_cannot_grow_without_end() {
    // A hello of 60 000 octets, one in each record: with their headers they are too many.
    let mut talk = Talk::new(&Party::new().server(aws_lc_rs::default_provider(), false), &client(), usize::MAX);
    let hello = [1, 0, 0xea, 0x60].into_iter().chain(std::iter::repeat_n(0, 60_000));
    let mut held = 0;
    for octet in hello {
        let Ok(room) = talk.server.room() else { break };
        room.extend_from_slice(&[22, 3, 1, 0, 1, octet]);
        talk.server.open(|_| unreachable!()).unwrap();
        held += 6;
    }
    assert!((64 << 10..65 << 10).contains(&held), "{held}");
    let mut talk = Talk::new(&Party::new().server(aws_lc_rs::default_provider(), false), &client(), usize::MAX);
    assert!(talk.server_hears(&[22, 3, 1, 0, 5, 1, 1, 0, 0, 0]).is_err(), "64 KiB in one message");
}

fn client() -> Arc<ClientConfig> {
    Party::new().client(&version::TLS13, aws_lc_rs::default_provider())
}

/// Octets as they come by chance; the same for the same seed.
fn chance(seed: u64) -> impl FnMut() -> usize {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    }
}

#[test]
fn nothing_that_comes_breaks_more_than_the_session() {
    let party = Party::new();
    for seed in 0..300 {
        println!("seed {seed}");
        let mut next = chance(seed);
        let version = VERSIONS[next() % 2];
        let server = party.server(aws_lc_rs::default_provider(), next().is_multiple_of(2));
        let mut talk = Talk::new(&server, &party.client(version, aws_lc_rs::default_provider()), 1 + next() % 99);
        // Somewhere in what the client says first, second or third, some octet is another, or missing.
        let (mut until, cuts) = (next() % 3, next().is_multiple_of(2));
        for _ in 0..4 {
            let mut octets = talk.client_says();
            if until == 0 && !octets.is_empty() {
                let at = next() % octets.len();
                octets[at] ^= 1 << (next() % 8);
                if cuts {
                    octets.remove(at);
                }
            }
            until = until.wrapping_sub(1);
            let heard = talk.server_hears(&octets);
            let said = std::mem::take(&mut talk.server.said);
            if heard.is_err() || talk.client_hears(&said).is_err() {
                break;
            }
            let _ = talk.client.writer().write_all(b"content");
        }
        assert!(b"contentcontentcontent".starts_with(&talk.content), "seed {seed}");
    }
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (listener.accept().await.unwrap().0, client)
}

type Client = tokio_rustls::client::TlsStream<TcpStream>;

/// Both sides of a connection.
async fn connected(version: &'static SupportedProtocolVersion) -> (Tls, Client) {
    let party = Party::new();
    let (server, client) = sockets().await;
    let connector = tokio_rustls::TlsConnector::from(party.client(version, aws_lc_rs::default_provider()));
    let accept = Tls::accept(server, party.server(aws_lc_rs::default_provider(), false));
    let connect = connector.connect(ServerName::try_from("a.example").unwrap(), client);
    let (mut tls, client) = tokio::join!(accept, async {
        let mut client = connect.await.unwrap();
        client.write_all(b"?").await.unwrap();
        client
    });
    let tls_ref = tls.as_mut().unwrap();
    assert_eq!(tls_ref.read_u8().await.unwrap(), b'?');
    (tls.unwrap(), client)
}

fn holds_nothing(tls: &Tls) -> bool {
    tls.out.is_empty() && tls.plain.capacity() == 0 && tls.session.said.capacity() == 0 && tls.session.holds_nothing()
}

/// How many octets have come to a client by now: on the loopback that is all that was sent.
async fn come(client: &Client) -> usize {
    let mut octets = [0; 4096];
    let peeked = tokio::time::timeout(std::time::Duration::from_millis(20), client.get_ref().0.peek(&mut octets));
    peeked.await.map_or(0, Result::unwrap)
}

async fn wait_for_client(tls: &mut Tls) {
    poll_fn(|cx| {
        assert!(tls.poll_readable(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn a_ticket_leaves_with_the_answer() {
    let (mut tls, mut client) = connected(&version::TLS13).await;
    wait_for_client(&mut tls).await;
    assert_eq!(come(&client).await, 0, "the answer is to come");
    assert!(!tls.session.said.is_empty());
    tls.write_all(b"answer").await.unwrap();
    assert!(come(&client).await > 100, "ticket and answer");
    assert!(holds_nothing(&tls));
    let mut answer = [0; 6];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"answer");
}

#[tokio::test]
async fn in_tls_1_2_nothing_is_kept_from_a_client_that_waits() {
    // The client has its last words, or it would not be here.
    let (mut tls, _client) = connected(&version::TLS12).await;
    wait_for_client(&mut tls).await;
    assert!(holds_nothing(&tls));
}

#[tokio::test]
async fn an_end_without_a_word_is_an_error_and_one_in_order_is_none() {
    for version in VERSIONS {
        let (mut tls, mut client) = connected(version).await;
        client.write_all(b"some").await.unwrap();
        drop(client.into_inner().0);
        let mut octets = Vec::new();
        let end = tls.read_to_end(&mut octets).await.unwrap_err();
        assert_eq!((&octets[..], end.kind()), (&b"some"[..], io::ErrorKind::UnexpectedEof));
        let (mut tls, mut client) = connected(version).await;
        client.write_all(b"some").await.unwrap();
        client.shutdown().await.unwrap();
        let mut octets = Vec::new();
        tls.read_to_end(&mut octets).await.unwrap();
        assert_eq!(octets, b"some");
        tls.write_all(b"answer").await.unwrap();
        tls.shutdown().await.unwrap();
        assert!(tls.write_all(b"more").await.is_err());
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer");
    }
}

#[tokio::test]
async fn a_reader_with_little_room_gets_all_of_it() {
    let (mut tls, mut client) = connected(&version::TLS13).await;
    client.write_all(b"some octets").await.unwrap();
    let mut came = Vec::new();
    while came.len() < 11 {
        let mut three = [0; 3];
        let got = tls.read(&mut three).await.unwrap();
        came.extend_from_slice(&three[..got]);
    }
    assert_eq!(came, b"some octets");
    assert!(holds_nothing(&tls) || !tls.session.said.is_empty());
}

#[tokio::test]
async fn who_speaks_no_tls_is_told_so() {
    let (server, mut client) = sockets().await;
    let config = Party::new().server(aws_lc_rs::default_provider(), false);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    assert_eq!(Tls::accept(server, config).await.err().unwrap().kind(), io::ErrorKind::InvalidData);
    let mut alert = Vec::new();
    client.read_to_end(&mut alert).await.unwrap();
    assert_eq!(alert, [21, 3, 3, 0, 2, 2, 50], "decode_error");
}

#[tokio::test]
async fn a_broken_record_is_an_error_for_good() {
    let (mut tls, mut client) = connected(&version::TLS13).await;
    client.write_all(b"good").await.unwrap();
    client
        .get_mut()
        .0
        .write_all(&[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2])
        .await
        .unwrap();
    let mut octets = Vec::new();
    for _ in 0..2 {
        assert_eq!(tls.read_to_end(&mut octets).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
    assert_eq!(octets, b"good");
    assert_eq!(tls.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    let alert = client.read(&mut [0; 8]).await.unwrap_err();
    assert!(alert.to_string().contains("BadRecordMac"), "{alert}");
}

#[tokio::test]
async fn much_goes_both_ways_and_a_client_that_takes_nothing_is_not_buffered_for() {
    let (mut tls, mut client) = connected(&version::TLS13).await;
    let all: Vec<u8> = (0..8_000_000u32).map(|number| (number / 251) as u8).collect();
    let mut sent = 0;
    // Until nothing more is taken.
    poll_fn(|cx| {
        while let Poll::Ready(took) = Pin::new(&mut tls)
            .poll_write_vectored(cx, &[IoSlice::new(&all[sent..][..5]), IoSlice::new(&all[sent + 5..])])
        {
            sent += took.unwrap();
        }
        Poll::Ready(())
    })
    .await;
    assert!(!tls.out.is_empty() && tls.session.said.is_empty());
    let (wrote, came) = tokio::join!(
        async {
            tls.write_all(&all[sent..]).await?;
            tls.flush().await
        },
        async {
            let mut came = vec![0; all.len()];
            client.read_exact(&mut came).await.map(|_| came)
        }
    );
    wrote.unwrap();
    assert!(came.unwrap() == all && holds_nothing(&tls));
    let (wrote, came) = tokio::join!(client.write_all(&all), async {
        let mut inbox = BytesMut::with_capacity(buffers::LARGE);
        let mut came = Vec::new();
        while came.len() < all.len() {
            poll_fn(|cx| tls.poll_fill(cx, &mut inbox)).await.unwrap();
            came.extend_from_slice(&inbox);
            inbox.clear();
        }
        came
    });
    wrote.unwrap();
    assert!(came == all && holds_nothing(&tls));
}

/// What is gathered, in pieces of this length, with a look at how much the client has got before it is sent.
async fn gathered(tls: Tls, client: &mut Client, all: &[u8], piece: usize) -> (usize, Tls) {
    let mut io = Io::new(Stream::TlsServer(Box::new(tls)));
    all.chunks(piece).for_each(|piece| io.gather(piece).unwrap());
    let (early, unsealed) = (come(client).await, io.unsent());
    assert!(early == 0 && unsealed < RECORD, "{early} octets are out, {unsealed} are not sealed");
    let (sent, came) = tokio::join!(io.flush(), async {
        let mut came = vec![0; all.len()];
        client.read_exact(&mut came).await.map(|_| came)
    });
    sent.unwrap();
    assert!(came.unwrap() == all, "all of it, in order");
    match io.stream {
        Stream::TlsServer(tls) => (unsealed, *tls),
        _ => unreachable!("it was one"),
    }
}

#[tokio::test]
async fn what_is_gathered_is_sealed_when_it_fills_a_record_and_leaves_together() {
    let (mut tls, mut client) = connected(&version::TLS13).await;
    let all: Vec<u8> = (0..200_000u32).map(|number| (number / 251) as u8).collect();
    for (length, piece) in [(10, 3), (RECORD, 1000), (4 * RECORD + 100, 16_450), (200_000, 9), (200_000, 65_536)] {
        let unsealed;
        (unsealed, tls) = gathered(tls, &mut client, &all[..length], piece).await;
        assert!(unsealed == length % RECORD && holds_nothing(&tls) && !tls.held, "{length} by {piece}");
    }
    // New keys: the word about ours goes behind what the old ones have sealed, and before what they seal.
    let full = &all[..RECORD];
    assert_eq!(tls.hold(full).unwrap(), RECORD);
    client.get_mut().1.refresh_traffic_keys().unwrap();
    client.write_all(b"!").await.unwrap();
    assert_eq!(tls.read_u8().await.unwrap(), b'!');
    assert_eq!(tls.hold(full).unwrap(), RECORD);
    tls.write_all(b"end").await.unwrap();
    let mut came = vec![0; 2 * RECORD + 3];
    client.read_exact(&mut came).await.unwrap();
    assert!(came == [full, full, b"end"].concat() && holds_nothing(&tls));
    // Nothing is held for a client that takes nothing, but what is sealed already.
    let mut held = 0;
    while let more @ 1.. = tls.hold(&all[..8 * RECORD]).unwrap() {
        held += more;
    }
    assert_eq!(held, out::MUCH);
}
