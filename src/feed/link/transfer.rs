//! A snapshot on its way: checked as it comes, and continued where it was cut (HOMES 2.2).
//!
//! Invariant: what is held of an answer is either taken whole by the decoder or never believed; an answer that continues
//! another one says by its ETag that it is of the same octets.

use super::super::client::Line;
use super::{End, Target, call, detail, refused, with_detail};
use crate::base::clock;
use crate::home::event::EdgeRow;
use crate::home::hash::Override;
use crate::home::snapshot::{Decoder, Header, Part, Row};
use async_compression::tokio::write::ZstdDecoder;
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// Between two words on a long snapshot.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Compressed octets expanded at once; even these may become some MiB.
const UNPACK_STEP: usize = 512;
/// The most rows of a snapshot: 4 GiB while it is loaded.
const ROWS_MAX: usize = 1 << 28;
/// How long Central may take to sort and pack its homes: about a second for 4 M.
const MAKING_MAX: Duration = Duration::from_secs(120);
/// A transfer that is cut goes on so often without having brought anything.
const VAIN_MAX: u32 = 5;

/// A snapshot, complete and checked.
pub(super) struct Image {
    pub(super) header: Header,
    pub(super) chain: u32,
    pub(super) edges: Vec<EdgeRow>,
    pub(super) overrides: Vec<Override>,
    pub(super) rows: Vec<Row>,
}

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

/// The state of a transfer over all its answers.
pub(super) struct Transfer {
    /// The snapshot must not be older than this.
    least: u64,
    tag: Option<String>,
    chain: u32,
    received: u64,
    vain: u32,
    unpack: Unpack,
    decoder: Decoder,
    found: Found,
    told: Instant,
}

impl Transfer {
    pub(super) fn new(least: u64) -> Transfer {
        Transfer {
            least,
            tag: None,
            chain: 0,
            received: 0,
            vain: 0,
            unpack: Unpack::new(false),
            decoder: Decoder::default(),
            found: Found::default(),
            told: clock::now(),
        }
    }

    /// Whether it is worth going on.
    pub(super) fn may_go_on(&self) -> bool {
        self.tag.is_some() && self.vain < VAIN_MAX
    }

    /// Asks for what is missing, and takes it. Errors: how it ended before the snapshot was whole.
    pub(super) async fn go_on(&mut self, line: &mut Line, target: &Target) -> Result<Image, End> {
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

    /// Goes on, or starts over if these are other octets than before. Errors: it is neither.
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
        let is_packed = text("content-encoding") == Some("zstd");
        let chain = text("feed-chain").and_then(|chain| chain.parse().ok()).unwrap_or(0);
        let vain = self.vain;
        *self = Transfer { tag, chain, vain, unpack: Unpack::new(is_packed), ..Transfer::new(self.least) };
        Ok(())
    }

    async fn take(&mut self, mut body: Incoming, silence: Duration) -> Result<Image, String> {
        while let Some(frame) = timeout(silence, body.frame()).await.map_err(|_| "Central fell silent".to_owned())? {
            let frame = frame.map_err(|error| error.to_string())?;
            let Some(octets) = frame.data_ref() else { continue };
            for step in Unpack::steps(octets) {
                let unpacked = self.unpack.take(step).await;
                let pushed = unpacked.and_then(|octets| self.found.push(&mut self.decoder, &octets));
                if let Err(why) = pushed {
                    // Nothing of it is to be continued.
                    *self = Transfer { vain: self.vain, ..Transfer::new(self.least) };
                    return Err(why);
                }
                self.received += step.len() as u64;
            }
            self.vain = 0;
            self.tell();
        }
        if !self.decoder.is_complete() {
            return Err("it was cut".to_owned());
        }
        std::mem::take(&mut self.found).image(self.chain)
    }

    fn tell(&mut self) {
        if clock::now().saturating_duration_since(self.told) >= TELL_EVERY {
            self.told = clock::now();
            let (homes, received_bytes) = (self.found.rows.len(), self.received);
            tracing::info!(homes, received_bytes, "a snapshot of all homes is arriving");
        }
    }
}

#[derive(Default)]
struct Found {
    header: Option<Header>,
    edges: Vec<EdgeRow>,
    overrides: Vec<Override>,
    rows: Vec<Row>,
}

impl Found {
    fn push(&mut self, decoder: &mut Decoder, octets: &[u8]) -> Result<(), String> {
        let mut parts = Vec::new();
        decoder.push(octets, &mut parts)?;
        for part in parts {
            match part {
                Part::Header(header) => self.header = Some(header),
                Part::Edges(edges) => self.edges = edges,
                Part::Rows(rows) if self.rows.len() + rows.len() > ROWS_MAX => {
                    return Err("it has too many rows".to_owned());
                }
                Part::Rows(rows) => self.rows.extend(rows),
                Part::Overrides(overrides) => self.overrides = overrides,
                Part::End(_) => {}
            }
        }
        Ok(())
    }

    fn image(self, chain: u32) -> Result<Image, String> {
        let header = self.header.ok_or("it has no header")?;
        Ok(Image { header, chain, edges: self.edges, overrides: self.overrides, rows: self.rows })
    }
}
