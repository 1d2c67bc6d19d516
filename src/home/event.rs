//! The forms in which homes travel and rest: feed events, batches, the edge table (HOMES 2.2, DESIGN 10).
//!
//! A frame of the NDJSON stream is one [`Frame`] per line. Unknown kinds of frames and of events decode to `Other`: they
//! are counted and passed over, never an error.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// One change of one key's home.
///
/// The members stand in the order of their names, so that writing an event gives its canonical JSON at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Why, such as `claim`, `put`, `import`.
    #[serde(default)]
    pub c: String,
    /// The owner epoch: above that of every earlier event of the key.
    pub e: u32,
    /// The name of the home edge.
    pub h: String,
    /// `space:key`, such as `user:448`.
    pub k: String,
    /// Its dense number.
    pub s: u64,
    /// What became of the key.
    #[serde(default)]
    pub st: State,
    /// Under which of its hashes the key is filed: 0, its own, unless another key has the same.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub x: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What an event says of a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It lives at `h`.
    #[default]
    #[serde(rename = "a")]
    Active,
    /// It is gone; a later claim starts at the next epoch.
    #[serde(rename = "t")]
    Tomb,
    /// No home at all: what is cached under the tag that `k` names, as `tag:TAG`, is stale. Until there is a cache it is
    /// counted.
    #[serde(rename = "p")]
    Purge,
}

/// One edge of the edge table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeRow {
    /// Its index, below 4096, never reused within a feed.
    pub idx: u16,
    /// Its name.
    pub name: String,
    /// Its peer door, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Its state.
    #[serde(default)]
    pub state: EdgeState,
}

/// The states of an edge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum EdgeState {
    #[default]
    Active,
    Draining,
    Down,
    Removed,
}

/// What this release understands of the feed beyond its first form. An instance names them when it opens a stream and in
/// its acknowledgements, and Central writes no event that needs one while an instance that follows has not named it.
pub const FEATURES: &[&str] = &["chain", "digest", "nameless", OTHER_HASH, PURGE, "recover"];
/// Keys that are filed under another hash than their own ([`Event::x`]).
pub const OTHER_HASH: &str = "other-hash";
/// Events that say that what is cached under a tag is stale ([`State::Purge`]).
pub const PURGE: &str = "purge";

/// One line of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "lowercase")]
pub enum Frame {
    /// Events that cover the interval `first..=last`.
    Batch {
        /// The first seq covered.
        first: u64,
        /// The last seq covered.
        last: u64,
        /// The events; after compaction, superseded ones inside the interval may be absent.
        ev: Vec<Event>,
        /// CRC-32 of the canonical JSON of `[first,last,ev]`: no white space, members sorted by name, those unknown to
        /// us included.
        crc: u32,
        /// A checksum over all entries of the log up to `last`, which names this history there; 0 if it is not said.
        #[serde(default, skip_serializing_if = "is_zero")]
        chain: u32,
    },
    /// The whole edge table; sent before any event that uses it, and again when it changes.
    Edges {
        /// The seq as of which it holds.
        s: u64,
        /// All edges ever registered.
        edges: Vec<EdgeRow>,
    },
    /// A heartbeat, every second.
    Hb {
        /// The last seq of the log.
        head: u64,
        /// The oldest seq from which the stream can still start.
        oldest: u64,
        /// Central's wall clock in milliseconds since the epoch.
        ms: u64,
        /// The digest of all homes at `head`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dig: Option<String>,
    },
    /// The server ends the stream on purpose.
    Bye {
        /// Why.
        why: String,
        /// When to come back.
        retry_ms: u64,
    },
    /// A kind of frame that this release does not know.
    #[serde(other)]
    Other,
}

/// The longest line of the stream that is read: an edge table of 4096 rows is the largest frame.
pub const LINE_MAX: usize = 4 << 20;

/// A frame as a receiver reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// The frame, whole.
    Whole(Frame),
    /// A batch of which some events say nothing that we understand: those keys keep their last good home.
    Poisoned {
        /// The batch with the events that could be read.
        batch: Frame,
        /// The seq of each event that could not, as far as it says one, and why.
        poison: Vec<(Option<u64>, String)>,
    },
}

impl Received {
    /// The digest of all homes that a heartbeat says, and the seq that it is of.
    pub fn digest(&self) -> Option<(u64, String)> {
        match self {
            Received::Whole(Frame::Hb { head, dig: Some(digest), .. }) => Some((*head, digest.clone())),
            _ => None,
        }
    }

    /// The checksum of the log up to where a batch ends; 0 if none is said.
    pub fn chain(&self) -> u32 {
        match self {
            Received::Whole(Frame::Batch { chain, .. })
            | Received::Poisoned { batch: Frame::Batch { chain, .. }, .. } => *chain,
            _ => 0,
        }
    }
}

impl Frame {
    /// A batch with its checksum.
    pub fn batch(first: u64, last: u64, ev: Vec<Event>) -> Frame {
        Frame::batch_at(first, last, ev, 0)
    }

    /// The same with the checksum of the log up to `last`.
    pub fn batch_at(first: u64, last: u64, ev: Vec<Event>, chain: u32) -> Frame {
        let crc = crc32fast::hash(&json(&(first, last, &ev)));
        Frame::Batch { first, last, ev, crc, chain }
    }

    /// The frame as a line of the stream, line feed included.
    pub fn line(&self) -> Vec<u8> {
        let mut line = json(self);
        line.push(b'\n');
        line
    }

    /// Reads a line. Errors: it is no frame, or a batch whose checksum does not fit: nothing of it may be believed.
    ///
    /// Cost: a batch as Central writes it is read once, some 300 ns for each event; any other takes several times as long.
    pub fn read(line: &[u8]) -> Result<Received, String> {
        match Plain::read(line) {
            Some(batch) => Ok(Received::Whole(batch)),
            None => Frame::read_any(line),
        }
    }

    /// The same for a line that may be of any kind, spelt in any way, or poisoned.
    fn read_any(line: &[u8]) -> Result<Received, String> {
        let mut value: Value = serde_json::from_slice(line).map_err(|error| format!("not a frame: {error}"))?;
        let poison = match value.get("t").and_then(Value::as_str) {
            Some("batch") => sift(&mut value)?,
            Some(_) => Vec::new(),
            None => return Err("not a frame: it has no `t`".to_owned()),
        };
        let frame = serde_json::from_value(value).map_err(|error| format!("not a frame: {error}"))?;
        Ok(if poison.is_empty() { Received::Whole(frame) } else { Received::Poisoned { batch: frame, poison } })
    }
}

/// A batch whose events stand in the line as they stood when their checksum was made: canonical, since that is what fits.
#[derive(Deserialize)]
struct Plain<'a> {
    #[serde(borrow)]
    t: Cow<'a, str>,
    first: u64,
    last: u64,
    #[serde(borrow)]
    ev: &'a RawValue,
    crc: u32,
    #[serde(default)]
    chain: u32,
}

impl Plain<'_> {
    /// The batch, if the line is one and all of it can be read.
    fn read(line: &[u8]) -> Option<Frame> {
        let Plain { t, first, last, ev, crc, chain } = serde_json::from_slice(line).ok()?;
        let mut covered = crc32fast::Hasher::new();
        covered.update(format!("[{first},{last},").as_bytes());
        covered.update(ev.get().as_bytes());
        covered.update(b"]");
        if t != "batch" || covered.finalize() != crc {
            return None;
        }
        let ev = serde_json::from_str(ev.get()).ok()?;
        Some(Frame::Batch { first, last, ev, crc, chain })
    }
}

/// Takes the events that cannot be read out of a batch, once its checksum has been found right.
fn sift(batch: &mut Value) -> Result<Vec<(Option<u64>, String)>, String> {
    let covered = json(&[batch.get("first"), batch.get("last"), batch.get("ev")]);
    if batch.get("crc").and_then(Value::as_u64) != Some(u64::from(crc32fast::hash(&covered))) {
        return Err("a batch with a wrong checksum".to_owned());
    }
    let Some(Value::Array(events)) = batch.get_mut("ev") else { return Err("a batch without `ev`".to_owned()) };
    let mut poison = Vec::new();
    events.retain(|event| match Event::deserialize(event) {
        Ok(_) => true,
        Err(error) => {
            poison.push((event.get("s").and_then(Value::as_u64), error.to_string()));
            false
        }
    });
    Ok(poison)
}

/// JSON of our own types, which have string keys only and no map that could refuse.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("wire forms hold nothing that JSON cannot say")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(s: u64, k: &str) -> Event {
        Event { c: "claim".into(), e: 1, h: "fr".into(), k: k.into(), s, st: State::Active, x: 0 }
    }

    /// A batch from 1 as somebody else may write it.
    fn line_of(last: u64, ev: &str, more: &str) -> String {
        let crc = crc32fast::hash(format!("[1,{last},{ev}]").as_bytes());
        format!(r#"{{"t":"batch","first":1,"last":{last},"ev":{ev},"crc":{crc}{more}}}"#)
    }

    #[test]
    fn an_event_is_written_canonically() {
        let event = event(7, "user:448");
        assert_eq!(json(&event), br#"{"c":"claim","e":1,"h":"fr","k":"user:448","s":7,"st":"a"}"#);
        // Holds only while serde_json sorts the members of a Value, that is, without its feature `preserve_order`.
        let value: Value =
            serde_json::from_str(r#"{"s":7, "k":"user:448","h":"fr","e":1,"c":"claim","st":"a"}"#).unwrap();
        assert_eq!(json(&value), json(&event));
    }

    #[test]
    fn what_is_written_is_read() {
        for frame in [
            Frame::batch(5, 7, vec![event(5, "user:a"), event(7, "shop:ü\"")]),
            Frame::batch(8, 8, vec![]),
            Frame::Edges {
                s: 2,
                edges: vec![EdgeRow { idx: 0, name: "fr".into(), peer: None, state: EdgeState::Active }],
            },
            Frame::Hb { head: 9, oldest: 1, ms: 5, dig: None },
            Frame::Hb { head: 9, oldest: 1, ms: 5, dig: Some("00".into()) },
            Frame::batch_at(5, 6, vec![event(6, "user:b")], 77),
            Frame::Bye { why: "stop".into(), retry_ms: 800 },
        ] {
            let line = frame.line();
            assert_eq!(Frame::read(&line), Ok(Received::Whole(frame)), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn a_batch_is_read_whichever_way_it_is_spelt() {
        let batch = Frame::batch_at(5, 6, vec![event(5, "user:a"), event(6, "shop:ü\"")], 77);
        let line = String::from_utf8(batch.line()).unwrap();
        assert_eq!(Plain::read(line.as_bytes()), Some(batch.clone()), "as Central writes it");
        for other in
            [line.replace(",\"", ", \""), line.replace("ü", "\\u00fc"), line.replace("\"st\":\"a\"", "\"st\" : \"a\"")]
        {
            assert_ne!(other, line);
            assert_eq!(Plain::read(other.as_bytes()), None, "{other}");
            assert_eq!(Frame::read(other.as_bytes()), Ok(Received::Whole(batch.clone())), "{other}");
        }
    }

    #[test]
    fn unknown_members_and_kinds_pass() {
        let ev = r#"[{"c":"","e":1,"h":"fr","k":"user:1","s":1,"st":"a","zone":"x"}]"#;
        let line = line_of(1, ev, r#","sig":"?""#);
        let Ok(Received::Whole(Frame::Batch { ev, .. })) = Frame::read(line.as_bytes()) else { panic!() };
        assert_eq!(ev[0].k, "user:1");
        assert_eq!(Frame::read(br#"{"t":"cmd","mid":4}"#), Ok(Received::Whole(Frame::Other)));
    }

    #[test]
    fn one_unreadable_event_spares_the_others() {
        let ev = r#"[{"e":1,"h":"fr","k":"user:1","s":1},{"e":-4,"h":"fr","k":"user:2","s":2},{"e":1,"h":"fr","k":"user:3","s":3,"st":"q"},7]"#;
        let line = line_of(4, ev, "");
        let Ok(Received::Poisoned { batch: Frame::Batch { ev, last, .. }, poison }) = Frame::read(line.as_bytes())
        else {
            panic!()
        };
        assert_eq!((ev.len(), last), (1, 4));
        assert_eq!(poison.iter().map(|(s, _)| *s).collect::<Vec<_>>(), [Some(2), Some(3), None]);
    }

    #[test]
    fn damage_is_noticed() {
        let line = String::from_utf8(Frame::batch(1, 1, vec![event(1, "user:1")]).line()).unwrap();
        for damaged in
            [line.replace("\"fr\"", "\"de\""), line.replace("user:1", "user:2"), line.replace("\"crc\":", "\"crc\":1")]
        {
            assert!(Frame::read(damaged.as_bytes()).is_err(), "{damaged}");
        }
        for garbage in ["", "{", "[]", "{}", "7", r#"{"t":7}"#, r#"{"t":"batch"}"#, r#"{"t":"hb"}"#, "\u{0}"] {
            assert!(Frame::read(garbage.as_bytes()).is_err(), "{garbage}");
        }
    }
}
