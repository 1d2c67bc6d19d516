//! Follows the frames that a client sends, octet by octet, to see what the engine does not tell: a header block that
//! never ends, floods of frames that cost us more than the client, and frames that break a rule which the engine does not
//! know or calls by another name.
//!
//! Only frame headers are read (RFC 9113 section 4.1); what they mean for a stream is the engine's.

use crate::metrics::Cut;
use h2::Reason;
use tokio::time::Instant;

/// Octets of the client's preface, which are no frame.
const PREFACE: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// END_STREAM of DATA and HEADERS, and ACK of SETTINGS and PING.
const FLAG_1: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// Resets that a client may send beyond half of its streams: a browser that leaves a page with a hundred open requests a
/// few times over, not the rapid reset attack (CVE-2023-44487), whose resets equal its streams.
const RESETS_FREE: u64 = 500;

/// PING, SETTINGS, PRIORITY and unknown frames at once, and per second: clients measure with a few PINGs a second.
const CONTROL: Budget = Budget { size: 1000.0, per_second: 100.0 };

/// Empty DATA frames without END_STREAM: some clients flush with one.
const EMPTY: Budget = Budget { size: 200.0, per_second: 20.0 };

/// How many are free at once, and how fast they come back.
#[derive(Debug, Clone, Copy)]
struct Budget {
    size: f64,
    per_second: f64,
}

#[derive(Debug, Clone, Copy)]
struct Spent {
    left: f64,
    at: Instant,
}

impl Budget {
    fn fresh(self, now: Instant) -> Spent {
        Spent { left: self.size, at: now }
    }

    /// Takes one; whether there was one.
    fn take(self, spent: &mut Spent, now: Instant) -> bool {
        let back = now.saturating_duration_since(spent.at).as_secs_f64() * self.per_second;
        *spent = Spent { left: (spent.left + back).min(self.size) - 1.0, at: now };
        spent.left >= 0.0
    }
}

/// What is known of the frames so far.
#[derive(Debug)]
pub(super) struct Follow {
    /// Octets to pass over: the preface, then payloads.
    skip: usize,
    header: [u8; 9],
    have: usize,
    kind: u8,
    flags: u8,
    /// Whether a header block is open: CONTINUATION is due.
    block: bool,
    /// Since when the client owes the rest of something other than DATA.
    owing: Option<Instant>,
    /// The newest stream of the client's, and whether its first header block is on its way.
    newest: u32,
    opening: bool,
    /// Streams whose first header block came whole.
    opened: u64,
    streams: u64,
    resets: u64,
    control: Spent,
    empty: Spent,
    /// The flood that was seen first.
    flood: Option<Cut>,
    /// Whether the first frame has come.
    begun: bool,
    /// How RFC 9113 calls the rule that a frame has broken.
    broken: Option<Reason>,
}

impl Follow {
    pub(super) fn new(now: Instant) -> Follow {
        Follow {
            skip: PREFACE,
            header: [0; 9],
            have: 0,
            kind: DATA,
            flags: 0,
            block: false,
            owing: Some(now),
            newest: 0,
            opening: false,
            opened: 0,
            streams: 0,
            resets: 0,
            control: CONTROL.fresh(now),
            empty: EMPTY.fresh(now),
            flood: None,
            begun: false,
            broken: None,
        }
    }

    /// Since when the client owes the rest of a preface, its settings, a frame header, a header block or a control frame.
    pub(super) fn owing(&self) -> Option<Instant> {
        self.owing
    }

    /// Whether a header block has begun and not ended.
    pub(super) fn in_block(&self) -> bool {
        self.block
    }

    /// Streams that the client has opened. The engine hands out those that it does not refuse by itself.
    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    /// The flood that was seen, if any.
    pub(super) fn flood(&self) -> Option<Cut> {
        self.flood
    }

    /// The rule that was broken, if any: nothing that follows is for the engine.
    pub(super) fn broken(&self) -> Option<Reason> {
        self.broken
    }

    /// Takes further octets; how many of them are for the engine: those before a frame that breaks a rule.
    pub(super) fn feed(&mut self, octets: &[u8], now: Instant) -> usize {
        let mut rest = octets;
        while !rest.is_empty() && self.broken.is_none() {
            if self.skip > 0 {
                let (_, after) = rest.split_at(self.skip.min(rest.len()));
                self.skip -= rest.len() - after.len();
                rest = after;
            } else {
                let (part, after) = rest.split_at((self.header.len() - self.have).min(rest.len()));
                self.header[self.have..self.have + part.len()].copy_from_slice(part);
                self.have += part.len();
                rest = after;
                if self.have == self.header.len() {
                    self.frame(now);
                }
            }
            if self.opening && self.skip == 0 && self.have == 0 && !self.block {
                self.opening = false;
                self.opened += 1;
            }
        }
        self.owe(now);
        // The engine does nothing about a frame whose header lacks its last octet.
        (octets.len() - rest.len()).saturating_sub(usize::from(self.broken.is_some()))
    }

    /// A frame header is complete.
    fn frame(&mut self, now: Instant) {
        let [a, b, c, kind, flags, stream @ ..] = self.header;
        self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        (self.have, self.kind, self.flags) = (0, kind, flags);
        self.broken = self.judge();
        let fine = match kind {
            DATA if self.skip == 0 && flags & FLAG_1 == 0 => EMPTY.take(&mut self.empty, now),
            DATA | WINDOW_UPDATE | CONTINUATION => true,
            HEADERS => {
                self.streams += 1;
                let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
                self.opening |= stream > self.newest;
                self.newest = self.newest.max(stream);
                true
            }
            RST_STREAM => {
                self.resets += 1;
                self.resets <= RESETS_FREE + self.streams / 2
            }
            _ => CONTROL.take(&mut self.control, now),
        };
        if !fine && self.flood.is_none() {
            self.flood = Some(match kind {
                DATA => Cut::FloodEmpty,
                RST_STREAM => Cut::FloodReset,
                _ => Cut::FloodControl,
            });
        }
        if matches!(kind, HEADERS | CONTINUATION) {
            self.block = flags & END_HEADERS == 0;
        }
    }

    /// The rule that this frame breaks: a client begins with its settings (section 3.4), and frames without a field section
    /// or content have their sizes (section 6). That none is larger than agreed the engine sees.
    fn judge(&mut self) -> Option<Reason> {
        let (acknowledges, length) = (self.flags & FLAG_1 != 0, self.skip);
        if !std::mem::replace(&mut self.begun, true) && (self.kind != SETTINGS || acknowledges) {
            return Some(Reason::PROTOCOL_ERROR);
        }
        let fits = match self.kind {
            PRIORITY => length == 5,
            RST_STREAM | WINDOW_UPDATE => length == 4,
            SETTINGS if acknowledges => length == 0,
            SETTINGS => length.is_multiple_of(6),
            PING => length == 8,
            GOAWAY => length >= 8,
            _ => true,
        };
        (!fits).then_some(Reason::FRAME_SIZE_ERROR)
    }

    /// Sets or clears what is owed. A debt keeps its age until it is paid in full; DATA has timers of its own.
    fn owe(&mut self, now: Instant) {
        let within = self.skip > 0 && self.kind != DATA;
        if !self.begun || self.block || self.have > 0 || within {
            self.owing.get_or_insert(now);
        } else {
            self.owing = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = (payload as u32).to_be_bytes();
        let mut octets = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        octets.resize(9 + payload, 0);
        octets
    }

    fn fed(follow: &mut Follow, octets: &[u8], now: Instant) -> Option<Instant> {
        octets.iter().for_each(|octet| assert_eq!(follow.feed(&[*octet], now), 1));
        follow.owing()
    }

    /// How every client begins: its preface and its settings.
    fn hello() -> Vec<u8> {
        [vec![0; PREFACE], frame(SETTINGS, 0, 6)].concat()
    }

    #[test]
    fn a_debt_keeps_its_age_until_it_is_paid() {
        let start = Instant::now();
        let later = start + Duration::from_secs(5);
        let mut follow = Follow::new(start);
        assert_eq!(fed(&mut follow, &hello()[..PREFACE], later), Some(start), "its settings belong to its preface");
        assert_eq!(fed(&mut follow, &hello()[PREFACE..], later), None);
        assert_eq!(fed(&mut follow, &frame(HEADERS, END_HEADERS, 30), start), None);
        assert_eq!(fed(&mut follow, &frame(HEADERS, 0, 30), start), Some(start));
        assert_eq!(fed(&mut follow, &frame(CONTINUATION, 0, 1), later), Some(start));
        assert_eq!(fed(&mut follow, &frame(CONTINUATION, END_HEADERS, 0), later), None);
        assert_eq!(fed(&mut follow, &frame(DATA, 0, 30)[..20], start), None, "content has its own timer");
        assert_eq!(fed(&mut follow, &[0; 19], start), None);
        assert_eq!(fed(&mut follow, &frame(6, 0, 8)[..12], start), Some(start));
    }

    #[test]
    fn streams_count_once_their_block_is_whole() {
        let now = Instant::now();
        let mut follow = Follow::new(now);
        let mut opened = |octets: &[u8]| {
            fed(&mut follow, octets, now);
            follow.opened()
        };
        assert_eq!(opened(&hello()), 0);
        let whole = frame(HEADERS, 0, 3);
        assert_eq!(opened(&whole[..10]), 0);
        assert_eq!(opened(&whole[10..]), 0, "its rest is to come");
        assert_eq!(opened(&frame(CONTINUATION, END_HEADERS, 3)), 1);
        assert_eq!(opened(&frame(HEADERS, END_HEADERS, 3)), 1, "trailers open nothing");
        let mut next = frame(HEADERS, END_HEADERS, 0);
        next[8] = 3;
        assert_eq!(opened(&next), 2);
    }

    #[test]
    fn floods_are_seen() {
        let now = Instant::now();
        let floods = [
            (frame(RST_STREAM, 0, 4), Some(Cut::FloodReset)),
            (frame(6, 0, 8), Some(Cut::FloodControl)),
            (frame(4, FLAG_1, 0), Some(Cut::FloodControl)),
            (frame(0xfa, 0, 0), Some(Cut::FloodControl)),
            (frame(DATA, 0, 0), Some(Cut::FloodEmpty)),
            (frame(DATA, FLAG_1, 0), None),
            (frame(DATA, 0, 100), None),
            (frame(WINDOW_UPDATE, 0, 4), None),
        ];
        for (octets, expected) in floods {
            let mut follow = Follow::new(now);
            follow.feed(&hello(), now);
            for _ in 0..1001 {
                follow.feed(&octets, now);
            }
            assert_eq!(follow.flood(), expected, "{octets:?}");
        }
    }

    #[test]
    fn the_engine_gets_what_comes_before_a_frame_that_breaks_a_rule() {
        let now = Instant::now();
        let (ping, begun) = (frame(PING, 0, 8), hello());
        let (size, protocol) = (Some(Reason::FRAME_SIZE_ERROR), Some(Reason::PROTOCOL_ERROR));
        for (before, octets, expected) in [
            (&begun[..PREFACE], frame(SETTINGS, 0, 0), None),
            (&begun[..PREFACE], frame(SETTINGS, FLAG_1, 0), protocol),
            (&begun[..PREFACE], frame(HEADERS, END_HEADERS, 3), protocol),
            (&begun, frame(SETTINGS, FLAG_1, 0), None),
            (&begun, frame(SETTINGS, FLAG_1, 6), size),
            (&begun, frame(SETTINGS, 0, 7), size),
            (&begun, frame(PRIORITY, 0, 5), None),
            (&begun, frame(PRIORITY, 0, 4), size),
            (&begun, frame(RST_STREAM, 0, 5), size),
            (&begun, frame(WINDOW_UPDATE, 0, 3), size),
            (&begun, frame(PING, 0, 9), size),
            (&begun, frame(GOAWAY, 0, 20), None),
            (&begun, frame(GOAWAY, 0, 7), size),
            (&begun, frame(0xfa, 0, 7), None),
        ] {
            let whole = [before, &octets, &ping].concat();
            let passed = if expected.is_some() { before.len() + 8 } else { whole.len() };
            let mut follow = Follow::new(now);
            assert_eq!((follow.feed(&whole, now), follow.broken()), (passed, expected), "{octets:?}");
            let mut follow = Follow::new(now);
            let piecemeal: usize = whole.iter().map(|octet| follow.feed(&[*octet], now)).sum();
            assert_eq!((piecemeal, follow.broken()), (passed, expected), "{octets:?}, octet by octet");
        }
    }

    #[test]
    fn honest_clients_are_no_flood() {
        let (mut now, mut follow) = (Instant::now(), Follow::new(Instant::now()));
        follow.feed(&hello(), now);
        for round in 0..5000 {
            now += Duration::from_millis(50);
            follow.feed(&frame(HEADERS, END_HEADERS, 10), now);
            follow.feed(&frame(6, 0, 8), now);
            if round % 2 == 0 {
                follow.feed(&frame(RST_STREAM, 0, 4), now);
            }
        }
        assert_eq!(follow.flood(), None);
    }
}
