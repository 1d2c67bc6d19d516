//! A snapshot on its way: checked as it comes, handed on as it comes, and continued where it was cut (HOMES 2.2).
//!
//! A task of its own fetches it, so that its homes can be loaded meanwhile; no more than some pieces are held between the
//! two. Invariant: what is held of an answer is either taken whole by the decoder or never believed; an answer that
//! continues another one says by its ETag that it is of the same octets.

use super::super::client::Line;
use super::super::source::{End, Image, Piece, Rows};
use super::super::status::LinkStatus;
use super::{Target, call, connect, detail, refused, with_detail};
use crate::base::backoff::{Backoff, random};
use crate::base::clock;
use crate::home::event::EdgeRow;
use crate::home::hash::Override;
use crate::home::snapshot::{Decoder, Header, Part};
use async_compression::tokio::write::ZstdDecoder;
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Between two words on a long snapshot.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Compressed octets expanded at once; even these may become some MiB.
const UNPACK_STEP: usize = 512;
/// The most rows of a snapshot: 2.5 GiB once it is loaded.
const ROWS_MAX: u64 = 1 << 28;
/// How long Central may take to sort and pack its homes: about a second for 4 M.
const MAKING_MAX: Duration = Duration::from_secs(120);
/// A transfer that is cut goes on so often without having brought anything.
const VAIN_MAX: u32 = 5;

/// Takes the coding off, if there is one.
pub(super) struct Unpack(Option<ZstdDecoder<Vec<u8>>>);

impl Unpack {
    pub(super) fn new(is_packed: bool) -> Unpack {
        Unpack(is_packed.then(|| ZstdDecoder::new(Vec::new())))
    }

    /// Octets in steps so small that what one expands to can be held.
    pub(super) fn steps(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
        octets.chunks(UNPACK_STEP)
    }

    /// What one step expands to. Errors: it is not in that coding.
    pub(super) async fn take(&mut self, step: &[u8]) -> Result<Vec<u8>, String> {
        let Some(decoder) = &mut self.0 else { return Ok(step.to_vec()) };
        decoder.write_all(step).await.map_err(|error| error.to_string())?;
        decoder.flush().await.map_err(|error| error.to_string())?;
        Ok(std::mem::take(decoder.get_mut()))
    }
}

/// Begins to fetch a snapshot that is not older than `least`, first over `line`. Errors: how it ended before its first row.
pub(super) async fn fetch(line: Line, target: Arc<Target>, status: Arc<LinkStatus>, least: u64) -> Result<Image, End> {
    let (tell, told) = oneshot::channel();
    let transfer = Transfer::new(least, Some(tell));
    let given = transfer.give.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = transfer.run(line, &target, &status) => {}
            // Nobody takes it any more.
            () = given.closed() => {}
        }
    });
    told.await.unwrap_or_else(|_| Err(End::Broken("nobody fetches the snapshot any more".to_owned())))
}

/// The state of a transfer over all its answers.
struct Transfer {
    /// The snapshot must not be older than this.
    least: u64,
    tag: Option<String>,
    chain: u32,
    received: u64,
    vain: u32,
    unpack: Unpack,
    decoder: Decoder,
    found: Found,
    /// Where its rows go.
    give: mpsc::Sender<Piece>,
    rows: Option<Rows>,
    count: u64,
    /// Takes what it says of itself, or how it ended before its first row; taken once.
    tell: Option<oneshot::Sender<Result<Image, End>>>,
    told: Instant,
}

impl Transfer {
    fn new(least: u64, tell: Option<oneshot::Sender<Result<Image, End>>>) -> Transfer {
        let (give, rows) = Rows::arriving();
        Transfer {
            least,
            tag: None,
            chain: 0,
            received: 0,
            vain: 0,
            unpack: Unpack::new(false),
            decoder: Decoder::default(),
            found: Found::default(),
            give,
            rows: Some(rows),
            count: 0,
            tell,
            told: clock::now(),
        }
    }

    /// Fetches to the end, over further connections where one breaks.
    async fn run(mut self, line: Line, target: &Target, status: &LinkStatus) {
        let (mut line, mut backoff) = (Some(line), Backoff::links());
        loop {
            let gone_on = match self.connected(line.take(), target, status).await {
                Ok(mut line) => self.go_on(&mut line, target).await,
                Err(end) => Err(end),
            };
            match gone_on {
                Err(End::Broken(why)) if self.may_go_on() => {
                    tracing::warn!(why, "the snapshot was cut, and goes on from there");
                    tokio::time::sleep(backoff.next(random())).await;
                }
                ended => return self.end(ended).await,
            }
        }
    }

    async fn connected(&self, line: Option<Line>, target: &Target, status: &LinkStatus) -> Result<Line, End> {
        match line {
            Some(line) => Ok(line),
            None => connect(target, status).await.map_err(End::Broken),
        }
    }

    /// Whether it is worth going on.
    fn may_go_on(&self) -> bool {
        self.tag.is_some() && self.vain < VAIN_MAX
    }

    /// Says how it ended. Who takes rows learns of other ends than a cut when it asks anew.
    async fn end(&mut self, ended: Result<(), End>) {
        let piece = match (ended, self.tell.take()) {
            (Err(end), Some(tell)) => return drop(tell.send(Err(end))),
            (Ok(()), _) => Piece::End,
            (Err(End::Broken(why)), None) => Piece::Cut(why),
            (Err(end), None) => Piece::Cut(format!("it cannot be continued: {end:?}")),
        };
        // Whoever is gone needs no end.
        let _ = self.give.send(piece).await;
    }

    /// Asks for what is missing, and takes it. Errors: how it ended before the snapshot was whole.
    async fn go_on(&mut self, line: &mut Line, target: &Target) -> Result<(), End> {
        let mut call = call(format!("/feed/v1/snapshot?least={}", self.least), &target.edge);
        call.fields.push(("accept-encoding", "zstd".to_owned()));
        call.patience = Some(MAKING_MAX);
        if let Some(tag) = self.tag.as_ref().filter(|_| self.received > 0) {
            call.fields.push(("range", format!("bytes={}-", self.received)));
            call.fields.push(("if-range", tag.clone()));
        }
        self.vain += 1;
        let answer = line.send(call).await.map_err(End::Broken)?;
        if answer.status() != 206
            && let Some(end) = refused(&answer)
        {
            let why = detail(answer).await;
            return Err(with_detail(end, &why));
        }
        self.begin(answer.status() == 206, answer.headers()).map_err(End::Broken)?;
        let taken = self.take(answer.into_body(), target.pace.silence).await;
        taken.map_err(|why| End::Broken(format!("the snapshot cannot be used: {why}")))
    }

    /// Goes on, or starts over if these are other octets than before and nothing was handed on. Errors: it is neither.
    fn begin(&mut self, goes_on: bool, fields: &HeaderMap) -> Result<(), String> {
        let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
        let tag = text("etag").map(str::to_owned);
        if goes_on {
            let from =
                text("content-range").and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
            return match from == Some(self.received) && tag == self.tag {
                true => Ok(()),
                false => Err("Central continues another snapshot than was begun".to_owned()),
            };
        }
        self.start_over()?;
        self.unpack = Unpack::new(text("content-encoding") == Some("zstd"));
        self.chain = text("feed-chain").and_then(|chain| chain.parse().ok()).unwrap_or(0);
        self.tag = tag;
        Ok(())
    }

    /// Nothing of it is to be continued. Errors: something was handed on, so it ends here.
    fn start_over(&mut self) -> Result<(), String> {
        self.tag = None;
        if self.tell.is_none() {
            return Err("Central has another snapshot now than was begun".to_owned());
        }
        let (give, rows) = (self.give.clone(), self.rows.take());
        *self = Transfer { vain: self.vain, give, rows, ..Transfer::new(self.least, self.tell.take()) };
        Ok(())
    }

    async fn take(&mut self, mut body: Incoming, silence: Duration) -> Result<(), String> {
        while let Some(frame) = timeout(silence, body.frame()).await.map_err(|_| "Central fell silent".to_owned())? {
            let frame = frame.map_err(|error| error.to_string())?;
            let Some(octets) = frame.data_ref() else { continue };
            for step in Unpack::steps(octets) {
                if let Err(why) = self.push(step).await {
                    // Nothing of it is to be continued.
                    self.tag = None;
                    return Err(why);
                }
                self.received += step.len() as u64;
            }
            self.vain = 0;
            self.say();
        }
        if self.decoder.is_complete() { Ok(()) } else { Err("it was cut".to_owned()) }
    }

    async fn push(&mut self, step: &[u8]) -> Result<(), String> {
        let octets = self.unpack.take(step).await?;
        let mut parts = Vec::new();
        self.decoder.push(&octets, &mut parts)?;
        for part in parts {
            match part {
                Part::Header(header) => self.found.header = Some(header),
                Part::Edges(edges) => self.found.edges = edges,
                Part::Overrides(overrides) => self.found.overrides = overrides,
                Part::Rows(rows) => {
                    self.introduce()?;
                    self.count += rows.len() as u64;
                    if self.count > ROWS_MAX {
                        return Err("it has too many rows".to_owned());
                    }
                    self.give.send(Piece::Rows(rows)).await.map_err(|_| "nobody takes it any more".to_owned())?;
                }
                Part::End(_) => self.introduce()?,
            }
        }
        Ok(())
    }

    /// Before the first row: all else is known.
    fn introduce(&mut self) -> Result<(), String> {
        let (Some(tell), Some(rows)) = (self.tell.take(), self.rows.take()) else { return Ok(()) };
        let Found { header, edges, overrides } = std::mem::take(&mut self.found);
        let header = header.ok_or("it has no header")?;
        let _ = tell.send(Ok(Image { header, chain: self.chain, edges, overrides, rows }));
        Ok(())
    }

    fn say(&mut self) {
        if clock::now().saturating_duration_since(self.told) >= TELL_EVERY {
            self.told = clock::now();
            let (homes, received_bytes) = (self.count, self.received);
            tracing::info!(homes, received_bytes, "a snapshot of all homes is arriving");
        }
    }
}

/// What a snapshot says of itself.
#[derive(Default)]
struct Found {
    header: Option<Header>,
    edges: Vec<EdgeRow>,
    overrides: Vec<Override>,
}
