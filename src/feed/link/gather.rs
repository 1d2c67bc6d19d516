//! The group commit of an edge: while a batch is being made durable the next ones gather, and go to the disk together.
//!
//! Two halves of one task. [`Reader`] reads frames as they come, and holds a bounded part of the stream; [`Gathered`] gives
//! them out in their order, and joins those batches that are there. Nobody waits for company: a batch that comes alone is
//! applied at once. How a stream ended is told behind its last frame, so that nothing which came whole is lost.

use super::super::follow::{self, Poison, Step};
use super::super::source::{End, Lines};
use crate::home::cursor::Cursor;
use crate::home::event::{Event, Frame, LINE_MAX, Received};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Batches are joined up to so many events: at a microsecond for each, what the first of them waits for the last is as
/// much as an fsync takes.
pub(super) const GROUP_MAX: usize = 16 << 10;

/// So many octets of frames are held: what some of the longest groups take, and more than any line.
const HELD_MAX: u32 = 2 * LINE_MAX as u32;

/// And so many frames, for short ones.
const FRAMES_MAX: usize = 4096;

/// What was read, and its share of what may be held.
type Held = (Result<Received, End>, Option<OwnedSemaphorePermit>);

/// The two halves.
pub(super) fn between() -> (Reader, Gathered) {
    let (give, take) = mpsc::channel(FRAMES_MAX);
    (Reader { give, room: Arc::new(Semaphore::new(HELD_MAX as usize)) }, Gathered { take, ahead: None })
}

/// The reading half.
pub(super) struct Reader {
    give: mpsc::Sender<Held>,
    room: Arc<Semaphore>,
}

impl Reader {
    /// Reads until the stream ends; then only waits, for the other half has yet to come to the end.
    pub(super) async fn read_all(self, lines: &mut impl Lines) -> Infallible {
        while self.read(lines).await.is_some() {}
        std::future::pending().await
    }

    async fn read(&self, lines: &mut impl Lines) -> Option<()> {
        let (read, room) = match lines.next().await {
            Ok(line) => {
                let octets = u32::try_from(line.len()).unwrap_or(HELD_MAX).min(HELD_MAX);
                let room = self.room.clone().acquire_many_owned(octets).await.ok();
                (Frame::read(&line).map_err(End::Resume), room)
            }
            Err(end) => (Err(end), None),
        };
        let goes_on = read.is_ok();
        self.give.send((read, room)).await.ok().filter(|()| goes_on)
    }
}

/// The taking half.
pub(super) struct Gathered {
    take: mpsc::Receiver<Held>,
    /// What was looked at and is no batch.
    ahead: Option<Result<Received, End>>,
}

impl Gathered {
    /// The next frame. Errors: how the stream ended.
    pub(super) async fn next(&mut self) -> Result<Received, End> {
        if let Some(ahead) = self.ahead.take() {
            return ahead;
        }
        match self.take.recv().await {
            Some((read, _)) => read,
            None => Err(End::Broken("nobody reads the stream".to_owned())),
        }
    }

    /// Adds to `group`, which begins at `cursor`, the batches that are there and follow it. Gives what of them could not be
    /// read, and why the stream cannot go on behind the group, if one of them says so.
    pub(super) fn join(&mut self, cursor: &Cursor, group: &mut Group) -> (Vec<Poison>, Option<String>) {
        let mut poison = Vec::new();
        while group.events.len() < GROUP_MAX {
            let Some(next) = self.next_batch() else { break };
            let chain = next.chain();
            let (step, unread) = follow::step(&Cursor { seq: group.last, ..*cursor }, next);
            poison.extend(unread);
            match step {
                Step::Apply { last, events, .. } => {
                    (group.last, group.chain) = (last, chain);
                    group.events.extend(events);
                }
                Step::Resume(why) => return (poison, Some(why)),
                // What is known already. A batch is nothing else.
                _ => {}
            }
        }
        (poison, None)
    }

    /// The next frame, if it is there and a batch.
    fn next_batch(&mut self) -> Option<Received> {
        if self.ahead.is_some() {
            return None;
        }
        match self.take.try_recv().ok()?.0 {
            Ok(batch @ (Received::Whole(Frame::Batch { .. }) | Received::Poisoned { .. })) => Some(batch),
            other => {
                self.ahead = Some(other);
                None
            }
        }
    }
}

/// Batches that are applied as one.
pub(super) struct Group {
    /// The first seq covered.
    pub(super) first: u64,
    /// The last seq covered.
    pub(super) last: u64,
    /// The checksum of Central's log up to there; 0 if none is said.
    pub(super) chain: u32,
    /// The events.
    pub(super) events: Vec<Event>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::event::State;
    use std::collections::VecDeque;

    /// Lines that are all there, and then how the stream ends.
    struct Script(VecDeque<Vec<u8>>);

    impl Lines for Script {
        async fn next(&mut self) -> Result<Vec<u8>, End> {
            self.0.pop_front().ok_or_else(|| End::Broken("the end".to_owned()))
        }
    }

    fn event(s: u64) -> Event {
        Event { c: "put".into(), e: 1, h: "fr".into(), k: format!("user:{s}"), s, st: State::Active, x: 0 }
    }

    fn batch(first: u64, last: u64) -> Vec<u8> {
        Frame::batch_at(first, last, (first..=last).map(event).collect(), last as u32).line()
    }

    fn beat(head: u64) -> Vec<u8> {
        Frame::Hb { head, oldest: 1, ms: 0, dig: None }.line()
    }

    /// What becomes of lines: the groups as `first..=last`, then how it ended.
    async fn groups(lines: Vec<Vec<u8>>) -> (Vec<(u64, u64, usize)>, String) {
        let (reader, mut frames) = between();
        let mut lines = Script(lines.into());
        let taking = async {
            let mut groups = Vec::new();
            let mut cursor = Cursor::default();
            loop {
                // Only once all has come: which frames had come when is the machine's business.
                tokio::task::yield_now().await;
                let received = match frames.next().await {
                    Ok(received) => received,
                    Err(end) => return (groups, format!("{end:?}")),
                };
                let chain = received.chain();
                let Step::Apply { first, last, events } = follow::step(&cursor, received).0 else { continue };
                let mut group = Group { first, last, chain, events };
                let (_, broken) = frames.join(&cursor, &mut group);
                assert_eq!(u64::from(group.chain), group.last);
                assert!(
                    group.events.iter().map(|event| event.s).eq(cursor.seq + 1..=group.last),
                    "each once, in order"
                );
                cursor.seq = group.last;
                groups.push((group.first, group.last, group.events.len()));
                if let Some(why) = broken {
                    return (groups, why);
                }
            }
        };
        tokio::select! {
            biased;
            never = reader.read_all(&mut lines) => match never {},
            groups = taking => groups,
        }
    }

    #[tokio::test]
    async fn batches_that_are_there_are_one_group() {
        let (all, end) = groups(vec![batch(1, 2), batch(3, 3), batch(2, 3), batch(4, 9), beat(9), batch(10, 11)]).await;
        assert_eq!(all, [(1, 9, 9), (10, 11, 2)], "a frame of another kind parts them, a repetition does not");
        assert!(end.contains("the end"), "{end}");
    }

    #[tokio::test]
    async fn a_gap_or_nonsense_ends_the_stream_behind_what_came_before() {
        let (all, end) = groups(vec![batch(1, 2), batch(4, 4), batch(5, 5)]).await;
        assert_eq!(all, [(1, 2, 2)]);
        assert!(end.contains("begins at 4"), "{end}");
        let (all, end) = groups(vec![batch(1, 2), b"{".to_vec(), batch(3, 3)]).await;
        assert_eq!(all, [(1, 2, 2)]);
        assert!(end.contains("not a frame"), "{end}");
    }

    #[tokio::test]
    async fn a_group_has_its_bound_and_so_has_what_is_held() {
        let step = 1024;
        let (all, _) = groups((0..40).map(|at| batch(at * step + 1, (at + 1) * step)).collect()).await;
        assert!(all.iter().all(|(.., count)| *count <= GROUP_MAX), "{all:?}");
        assert_eq!(all.iter().map(|(.., count)| count).sum::<usize>(), 40 * step as usize);
        let (reader, mut frames) = between();
        let mut lines = Script((0..400).map(|at| batch(at * step + 1, (at + 1) * step)).collect());
        let whole = lines.0.iter().map(Vec::len).sum::<usize>();
        assert!(whole > 2 * HELD_MAX as usize);
        let reading = reader.read_all(&mut lines);
        let full = tokio::time::timeout(std::time::Duration::from_millis(1), reading).await;
        assert!(full.is_err() && frames.next().await.is_ok());
        let left = lines.0.iter().map(Vec::len).sum::<usize>();
        assert!(whole - left <= HELD_MAX as usize + LINE_MAX, "{left} of {whole} were not read");
    }
}
