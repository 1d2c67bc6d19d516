//! Content that goes through an engine against decoders that refuse what is cut.

use super::*;
use brotli::Decompressor;
use futures_util::FutureExt;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::task::Waker;

/// What a source does at one poll.
#[derive(Debug, Clone)]
enum Act {
    Give(Vec<u8>),
    Wait,
    Cut,
    Trailers,
}

struct Script {
    acts: VecDeque<Act>,
    length: Option<u64>,
    /// Whether waits wake at once; else somebody else must.
    awake: bool,
}

impl Pull for Script {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        match self.acts.pop_front() {
            None => Poll::Ready(None),
            Some(Act::Give(octets)) => Poll::Ready(Some(Ok(Piece::Data(octets.into())))),
            Some(Act::Cut) => Poll::Ready(Some(Err(Error::new(Kind::ConnectionTerminated, "cut")))),
            Some(Act::Trailers) => Poll::Ready(Some(Ok(Piece::Trailers([("x-sum", "7")].into_iter().collect())))),
            Some(Act::Wait) => {
                if self.awake {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }

    fn length(&self) -> Option<u64> {
        self.length
    }
}

fn script(acts: Vec<Act>, length: Option<u64>) -> Body {
    Body::Pulled(Box::new(Script { acts: acts.into(), length, awake: true }))
}

fn encoded(encoders: &Rc<Encoders>, coding: Coding, level: u32, source: Body) -> Body {
    let lease = encoders.lease_unless_full(coding, level, source.length()).expect("there is room");
    Body::Pulled(Box::new(Encoded::new(source, lease, Arc::default())))
}

fn decoded(coding: Coding, octets: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    match coding {
        Coding::Gzip => flate2::read::GzDecoder::new(octets).read_to_end(&mut plain)?,
        Coding::Br => Decompressor::new(octets, 4096).read_to_end(&mut plain)?,
        Coding::Zstd => return unzstd(octets),
    };
    Ok(plain)
}

/// By the streaming decoder of the reference library, which refuses what is cut and windows over 8 MiB.
fn unzstd(octets: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut context = zstd_safe::DCtx::create();
    context.set_parameter(zstd_safe::DParameter::WindowLogMax(23)).expect("a known parameter");
    let (mut plain, mut input) = (Vec::new(), zstd_safe::InBuffer::around(octets));
    loop {
        plain.reserve(64 << 10);
        let at = plain.len();
        let mut out = zstd_safe::OutBuffer::around_pos(&mut plain, at);
        let left = context.decompress_stream(&mut out, &mut input);
        let left = left.map_err(|code| std::io::Error::other(zstd_safe::get_error_name(code)))?;
        let ended = input.pos() == octets.len();
        match (left, ended, plain.len() == plain.capacity()) {
            (0, true, _) => return Ok(plain),
            (_, true, false) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
    }
}

/// All pieces of a body: content, trailers, and the error that ended it.
fn drained(mut body: Body) -> (Vec<u8>, Option<Fields>, Option<Kind>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut octets, mut trailers) = (Vec::new(), None);
        loop {
            match body.next().await {
                None => return (octets, trailers, None),
                Some(Err(error)) => return (octets, trailers, Some(error.kind())),
                Some(Ok(Piece::Trailers(fields))) => trailers = Some(fields),
                Some(Ok(Piece::Data(data))) => {
                    assert!(!data.is_empty() && trailers.is_none());
                    octets.extend_from_slice(&data);
                }
            }
        }
    })
}

/// Text with repetitions near and far, so that windows and tables are used.
fn prose(length: usize) -> Vec<u8> {
    let mut octets = Vec::with_capacity(length + 64);
    let mut seed = 7_u32;
    while octets.len() < length {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        octets
            .extend_from_slice(format!("{{\"item\":{},\"name\":\"thing {}\"}},\n", seed >> 20, seed >> 27).as_bytes());
    }
    octets.truncate(length);
    octets
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => proptest::collection::vec(any::<u8>(), 1..200).prop_map(Act::Give),
        2 => (1_usize..90_000).prop_map(|length| Act::Give(prose(length))),
        1 => (1_usize..300_000, any::<u8>()).prop_map(|(length, octet)| Act::Give(vec![octet; length])),
        2 => Just(Act::Wait),
    ]
}

fn coding() -> impl Strategy<Value = (Coding, u32)> {
    prop_oneof![
        (1_u32..=9).prop_map(|level| (Coding::Gzip, level)),
        (0_u32..=6).prop_map(|level| (Coding::Br, level)),
        (1_u32..=9).prop_map(|level| (Coding::Zstd, level)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever pieces content comes in, and wherever it waits, what a client decodes is that content; and no prefix of
    /// it decodes as complete.
    #[test]
    fn content_survives(
        mut acts in proptest::collection::vec(act(), 0..8),
        (coding, level) in coding(),
        stated: bool,
        trailers: bool,
        cut in any::<prop::sample::Index>(),
    ) {
        let encoders = Encoders::new();
        let plain: Vec<u8> = acts.iter().flat_map(|act| match act { Act::Give(octets) => octets.clone(), _ => vec![] }).collect();
        if trailers {
            acts.push(Act::Trailers);
        }
        let length = stated.then_some(plain.len() as u64);
        // Twice: the second answer meets the engine of the first.
        for _ in 0..2 {
            let (octets, end, error) = drained(encoded(&encoders, coding, level, script(acts.clone(), length)));
            prop_assert_eq!(error, None);
            prop_assert_eq!(end.is_some(), trailers);
            prop_assert!(decoded(coding, &octets).unwrap() == plain, "{:?} {}", coding, level);
            let short = &octets[..cut.index(octets.len())];
            prop_assert!(decoded(coding, short).is_err() || short.is_empty(), "a cut answer passes for whole");
        }
        prop_assert_eq!(encoders.open.get(), 0);
    }
}

#[test]
fn every_level_round_trips_within_its_weight() {
    let plain = prose(3 << 20);
    let most = |coding| match coding {
        Coding::Gzip => 1..=9,
        Coding::Br => 0..=11,
        Coding::Zstd => 1..=19,
    };
    for coding in Coding::ALL {
        for level in most(coding) {
            // The slowest levels differ from their neighbours in time only.
            let plain = if matches!((coding, level), (Coding::Br, 9..) | (Coding::Zstd, 13..)) {
                &plain[..600 << 10]
            } else {
                &plain
            };
            let (mut engine, mut out) = (Engine::new(coding, level).unwrap(), Vec::new());
            engine.run(plain, Step::More, &mut out).unwrap();
            engine.run(&[], Step::End, &mut out).unwrap();
            assert!(decoded(coding, &out).unwrap() == plain, "{coding:?} {level}");
            assert!(out.len() < plain.len() / 2, "{coding:?} {level} makes {} of {}", out.len(), plain.len());
            if let Some(size) = engine.size() {
                assert!(size <= engine::weight(coding, level), "{coding:?} {level} holds {size}");
            }
        }
    }
}

#[test]
fn a_cut_stays_a_cut() {
    for coding in Coding::ALL {
        let encoders = Encoders::new();
        let mut body = encoded(&encoders, coding, 4, script(vec![Act::Give(prose(100_000)), Act::Cut], None));
        let mut octets = Vec::new();
        let mut next = |cx: &mut Context<'_>| body.poll_piece(cx);
        let mut cx = Context::from_waker(Waker::noop());
        let error = loop {
            match next(&mut cx) {
                Poll::Ready(Some(Ok(Piece::Data(data)))) => octets.extend_from_slice(&data),
                Poll::Ready(Some(Err(error))) => break error,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(error.kind(), Kind::ConnectionTerminated);
        assert!(decoded(coding, &octets).is_err(), "{coding:?}");
        assert!(matches!(next(&mut cx), Poll::Ready(Some(Err(_)))), "an error is not followed by an end");
        assert_eq!(encoders.open.get(), 0, "the engine is given back at once");
    }
}

/// A source that is fed by the test.
fn fed() -> (tokio::sync::mpsc::UnboundedSender<Bytes>, impl Fn(Option<u64>) -> Body) {
    struct Fed(Rc<RefCell<tokio::sync::mpsc::UnboundedReceiver<Bytes>>>, Option<u64>);
    impl Pull for Fed {
        fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
            self.0.borrow_mut().poll_recv(cx).map(|octets| octets.map(|octets| Ok(Piece::Data(octets))))
        }
        fn length(&self) -> Option<u64> {
            self.1
        }
    }
    let (feed, source) = tokio::sync::mpsc::unbounded_channel();
    let source = Rc::new(RefCell::new(source));
    (feed, move |length| Body::Pulled(Box::new(Fed(source.clone(), length))))
}

/// Decodes as much as is there.
fn so_far(coding: Coding, octets: &[u8]) -> Vec<u8> {
    match coding {
        Coding::Gzip => {
            let mut decoder = flate2::write::GzDecoder::new(Vec::new());
            decoder.write_all(octets).and_then(|()| decoder.flush()).unwrap();
            decoder.get_ref().clone()
        }
        Coding::Br => {
            let mut decoder = brotli::DecompressorWriter::new(Vec::new(), 4096);
            decoder.write_all(octets).and_then(|()| decoder.flush()).unwrap();
            decoder.get_ref().clone()
        }
        Coding::Zstd => {
            let mut plain = Vec::with_capacity(4096);
            let mut input = zstd_safe::InBuffer::around(octets);
            zstd_safe::DCtx::create()
                .decompress_stream(&mut zstd_safe::OutBuffer::around(&mut plain), &mut input)
                .unwrap();
            plain
        }
    }
}

#[tokio::test]
async fn a_stream_that_waits_holds_nothing_back() {
    for coding in Coding::ALL {
        let (feed, source) = fed();
        let mut body = encoded(&Encoders::new(), coding, 4, source(None));
        let (mut octets, mut plain) = (Vec::new(), Vec::new());
        for line in ["one\n", "two\n", "three\n"] {
            feed.send(line.into()).unwrap();
            plain.extend_from_slice(line.as_bytes());
            while so_far(coding, &octets) != plain {
                let Some(Ok(Piece::Data(data))) = body.next().now_or_never().expect("nothing waits") else {
                    panic!("the stream ended")
                };
                octets.extend_from_slice(&data);
            }
        }
        // With nothing new nothing comes.
        assert!(poll_fn(|cx| Poll::Ready(body.poll_piece(cx).is_pending())).await);
        drop(feed);
        while let Some(piece) = body.next().await {
            let Ok(Piece::Data(data)) = piece else { panic!("{piece:?}") };
            octets.extend_from_slice(&data);
        }
        assert_eq!(decoded(coding, &octets).unwrap(), plain);
    }
}

#[tokio::test]
async fn a_file_that_stalls_is_flushed_after_a_while() {
    let (feed, source) = fed();
    let mut body = encoded(&Encoders::new(), Coding::Zstd, 1, source(Some(100)));
    feed.send(Bytes::from_static(b"begun")).unwrap();
    let began = clock::now();
    let mut octets = Vec::new();
    while so_far(Coding::Zstd, &octets) != b"begun" {
        let Some(Ok(Piece::Data(data))) = body.next().await else { panic!("the stream ended") };
        octets.extend_from_slice(&data);
    }
    assert!(clock::now() - began >= FLUSH_AFTER);
}

#[test]
fn a_poll_does_a_bounded_amount_of_work() {
    let zeros = Bytes::from(vec![0; 64 << 20]);
    let mut body = encoded(&Encoders::new(), Coding::Gzip, 1, Body::Full(zeros.clone()));
    let mut cx = Context::from_waker(Waker::noop());
    let (mut polls, mut octets) = (0, Vec::new());
    loop {
        polls += 1;
        match body.poll_piece(&mut cx) {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(Piece::Data(data)))) => {
                assert!(data.len() <= FEED_MAX + (16 << 10));
                octets.extend_from_slice(&data);
            }
            Poll::Ready(None) => break,
            Poll::Ready(other) => panic!("{other:?}"),
        }
    }
    assert!(polls >= zeros.len() / POLL_MAX, "{polls}");
    assert!(decoded(Coding::Gzip, &octets).unwrap() == zeros);
}

#[test]
fn engines_are_used_again_and_bounded() {
    let encoders = Encoders::new();
    let idle = || encoders.idle.borrow().len();
    for _ in 0..3 {
        drained(encoded(&encoders, Coding::Gzip, 4, "text".into()));
        drained(encoded(&encoders, Coding::Zstd, 1, "text".into()));
        drained(encoded(&encoders, Coding::Br, 4, "text".into()));
        assert_eq!(idle(), 2, "brotli cannot be used again");
    }
    for level in 1..=9 {
        drained(encoded(&encoders, Coding::Gzip, level, "text".into()));
    }
    assert_eq!(idle(), IDLE_MAX);
    drained(encoded(&encoders, Coding::Zstd, 9, "text".into()));
    assert!(encoders.take(Coding::Zstd, 9).is_none(), "what is heavy is not kept");

    let leases: Vec<_> = std::iter::from_fn(|| encoders.lease_unless_full(Coding::Br, 4, None).ok()).collect();
    assert_eq!(leases.len(), OPEN_MAX / engine::weight(Coding::Br, 4));
    assert_eq!(encoders.lease_unless_full(Coding::Br, 4, None).err(), Some(Plain::Full));
    drop(leases);
    assert!(encoders.lease_unless_full(Coding::Br, 4, None).is_ok());
    // Whatever level is written, one answer at a time can have it.
    assert!(Coding::ALL.iter().all(|coding| engine::weight(*coding, 19) < OPEN_MAX));
}

#[test]
fn a_length_that_was_a_lie_is_an_error() {
    let source = script(vec![Act::Give(b"short".to_vec())], Some(100));
    let (octets, _, error) = drained(encoded(&Encoders::new(), Coding::Zstd, 1, source));
    assert_eq!(error, Some(Kind::ProxyInternalError));
    assert!(decoded(Coding::Zstd, &octets).is_err());
}
