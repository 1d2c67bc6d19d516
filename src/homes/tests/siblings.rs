//! What a sibling's word is worth.

use super::*;
use std::sync::atomic::AtomicUsize;

/// An edge whose siblings answer from `words`, in order, and then nothing; how often they were asked.
fn with_siblings(dir: &Path, words: Vec<Option<Word>>) -> (Edge, Arc<AtomicUsize>) {
    let edge = followed(dir);
    let (mut asks, asked) = (edge.homes.sibling_asks(), Arc::new(AtomicUsize::new(0)));
    edge.homes.has_siblings(true);
    let count = asked.clone();
    tokio::spawn(async move {
        let mut words = words.into_iter();
        while let Some(SiblingAsk { reply, .. }) = asks.recv().await {
            count.fetch_add(1, Ordering::SeqCst);
            // Who is silent drops the question.
            words.next().map(|word| reply.send(word));
        }
    });
    (edge, asked)
}

fn elsewhere(edge: &str, epoch: u32) -> Option<Word> {
    Some(Word::Elsewhere { edge: edge.into(), epoch })
}

#[tokio::test]
async fn a_sibling_is_asked_before_central_and_again_after_central_knew_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (mut edge, asked) = with_siblings(dir.path(), vec![None, Some(Word::Ours { epoch: 1 }), None]);
    let asks = std::mem::replace(&mut edge.asks, closed());
    let centrals = central(asks, LookUpAnswer::NoSuchKey { seq: 0 }, ClaimAnswer::Unreachable);
    assert_eq!(edge.homes.ask("user", "1").await, Asked::NoSuchKey);
    // The other instance has registered it since.
    assert_eq!(edge.homes.ask("user", "1").await, Asked::Home(PROVISIONAL));
    assert_eq!(edge.look("1"), Home::Unknown, "its word is for this request, and is not kept");
    assert_eq!(edge.homes.ask("user", "1").await, Asked::NoSuchKey, "the claim was lost");
    assert_eq!((asked.load(Ordering::SeqCst), centrals.load(Ordering::SeqCst)), (3, 1));
    edge.one(event(1, "1", "us", 1));
    assert_eq!(edge.look("1"), at(US, 1));
}

#[tokio::test]
async fn what_is_known_here_is_not_asked_and_who_accepts_nothing_believes_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let words = vec![elsewhere("de", 3), elsewhere("mars", 1), Some(Word::Ours { epoch: 1 })];
    let (mut edge, asked) = with_siblings(dir.path(), words);
    // Central is away.
    edge.asks = closed();
    assert_eq!(edge.homes.ask("user", "2").await, Asked::Home(at(DE, 3)), "its feed is ahead of ours");
    assert_eq!(edge.look("2"), at(DE, 3));
    assert_eq!(edge.homes.ask("user", "2").await, Asked::Unreachable, "known now: Central is asked");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(edge.homes.ask("user", "3").await, Asked::Unreachable, "an edge that nobody knows");
    edge.homes.replaced();
    assert_eq!(edge.homes.ask("user", "4").await, Asked::Unreachable);
    assert_eq!(asked.load(Ordering::SeqCst), 2, "a disk that was replaced asks nobody");
    assert_eq!(edge.homes.siblings_asked(), [("found", 2), ("unknown", 0), ("silent", 0)]);
    edge.one(event(1, "5", "us", 2));
    assert_eq!(edge.homes.word_of("user", "5"), elsewhere("us", 2));
    assert_eq!((edge.homes.word_of("user", "9"), edge.homes.word_of("shop", "5")), (None, None));
}

#[tokio::test]
async fn silence_costs_a_moment_and_central_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (mut edge, _) = with_siblings(dir.path(), Vec::new());
    let asks = std::mem::replace(&mut edge.asks, closed());
    central(asks, LookUpAnswer::Home { home: "us".into(), epoch: 1, seq: 1 }, ClaimAnswer::Unreachable);
    assert_eq!(edge.homes.ask("user", "1").await, Asked::Home(at(US, 1)));
    assert_eq!(edge.homes.siblings_asked(), [("found", 0), ("unknown", 0), ("silent", 1)]);
}
