//! What Central knows: every home and every edge, as the log up to `head` says. Pure: no clock, no file, no lock.
//!
//! The rows stand in the order of their seq, superseded ones taken out, so the state is itself the compacted log: a
//! stream reads it from any cursor, and a snapshot is a stream that is sorted. Changes come only as log entries through
//! [`State::apply`], in dense order; [`State::plan`] decides what the entries shall be, before they are durable.

use crate::home::cursor::FeedId;
use crate::home::digest::Digest;
use crate::home::event::{self, EdgeRow, EdgeState, Event};
use crate::home::hash::{KeyHash, OVERRIDES_MAX, Override, Overrides, nameless, nameless_hash, other_hash};
use crate::home::key;
use crate::home::snapshot;
use crate::home::standing::Boot;
use recovery::Recovery;
use rules::{Crew, Office, Proof, Registration};
use std::collections::{HashMap, VecDeque};

pub mod recovery;
pub mod rules;

/// Edge indices below this are given out; those above are for edges that only a configuration names (`EdgeId`).
pub const EDGES_MAX: u16 = 2048;
/// So many hashes are tried for a key whose own is another key's; that even the second is taken is beyond all chance.
const HASHES_MAX: u32 = 8;
/// Superseded rows are swept out when they are half of all, but not below this.
const SWEEP_MIN: usize = 1024;

/// Purged tags that are kept for those who follow; who is further behind takes a snapshot, and purges all.
const PURGES_MAX: usize = 4096;

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A key's home changed.
    Home(Event),
    /// An edge was registered or changed.
    Edge {
        /// The seq.
        s: u64,
        /// The edge.
        edge: EdgeRow,
    },
    /// What is cached under a tag is stale.
    Purge {
        /// The seq.
        s: u64,
        /// The tag.
        tag: String,
    },
    /// An incarnation of an edge was registered; from here on it speaks for its edge (HOMES 2.1).
    Incarnation {
        /// The seq.
        s: u64,
        /// The name of the edge.
        edge: String,
        /// The incarnation.
        boot: Boot,
        /// Those that it replaces.
        ends: Vec<Boot>,
    },
    /// This Central came from a copy: from here on nothing is granted or published before [`Entry::Term`] (HOMES 2.2).
    Restored {
        /// The seq.
        s: u64,
        /// The term that begins.
        term: u32,
    },
    /// Every edge has reported or is fenced, and what they reported stands before this: the term is open.
    Term {
        /// The seq.
        s: u64,
        /// The term.
        term: u32,
    },
}

impl Entry {
    /// The entry's number.
    pub fn seq(&self) -> u64 {
        match self {
            Entry::Home(event) => event.s,
            Entry::Edge { s, .. }
            | Entry::Incarnation { s, .. }
            | Entry::Purge { s, .. }
            | Entry::Restored { s, .. }
            | Entry::Term { s, .. } => *s,
        }
    }
}

/// Why a home was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Why {
    Claim,
    Put,
    Import,
    Outbox,
    Recover,
    Other,
}

impl Why {
    /// The word for it in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Claim => "claim",
            Why::Put => "put",
            Why::Import => "import",
            Why::Outbox => "outbox",
            Why::Recover => "recover",
            Why::Other => "other",
        }
    }

    fn of(text: &str) -> Why {
        let all = [Why::Claim, Why::Put, Why::Import, Why::Outbox, Why::Recover];
        all.into_iter().find(|why| why.as_str() == text).unwrap_or(Why::Other)
    }
}

/// Where a key lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    /// The index of the edge.
    pub edge: u16,
    /// The owner epoch.
    pub epoch: u32,
    /// Whether the key is gone.
    pub state: event::State,
    /// The seq that made it so.
    pub seq: u64,
}

/// What somebody wants: that a key live at an edge. It only ever creates (DESIGN 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The full key, checked.
    pub key: String,
    /// The name of the edge.
    pub edge: String,
    /// Why.
    pub why: Why,
}

/// What becomes of a want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The key had no home; now it has this one.
    Created(Home),
    /// It lives there already.
    Same(Home),
    /// It lives elsewhere: nothing changes.
    Taken(Home),
    /// No such edge takes new keys.
    NoEdge,
    /// Other keys have all hashes that this one may be filed under, or too many keys are filed so already.
    Collision,
    /// It takes an event that needs this feature, and not every instance that follows has it.
    Withheld(&'static str),
}

#[derive(Debug)]
struct Row {
    kh: KeyHash,
    seq: u64,
    key: Box<str>,
    epoch: u32,
    edge: u16,
    state: event::State,
    why: Why,
    superseded: bool,
}

impl Row {
    fn home(&self) -> Home {
        Home { edge: self.edge, epoch: self.epoch, state: self.state, seq: self.seq }
    }
}

/// The state at `head`.
#[derive(Debug)]
pub struct State {
    feed: FeedId,
    head: u64,
    /// In rising order of seq.
    rows: Vec<Row>,
    /// The row of each key, by its hash.
    by_hash: HashMap<KeyHash, usize>,
    superseded: usize,
    /// The keys that are filed under another hash than their own.
    overrides: Overrides,
    hasher: Hasher,
    edges: Vec<EdgeRow>,
    edges_seq: u64,
    /// The incarnations of each edge, by its index.
    crews: Vec<Crew>,
    /// The last purged tags with their seqs, in order.
    purges: VecDeque<(u64, String)>,
    /// The seq of the last purge that is no longer among them: who has not passed it has missed it.
    purges_gone: u64,
    /// Up to here nothing is kept but the homes themselves.
    compacted: u64,
    office: Office,
    /// While edges are awaited after a restore.
    recovery: Option<Recovery>,
    chain: Chain,
    digest: Digest,
}

/// A checksum over all entries up to each of the last ones: two logs that differ anywhere differ from there on. An edge
/// keeps that of its cursor, so that a log which was set back and has grown past the cursor again is noticed too.
#[derive(Debug, Default)]
struct Chain {
    /// The checksum up to the last entry; 0 before the first.
    last: u32,
    /// Those up to the last entries, the newest at the back.
    recent: VecDeque<u32>,
}

/// Checksums that are kept: of as many seqs as a stream may lag behind.
const CHAIN_MAX: usize = super::HELD_MAX as usize;

impl Chain {
    fn push(&mut self, payload: &[u8]) {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.last.to_le_bytes());
        crc.update(payload);
        // 0 says that nothing is known.
        self.last = crc.finalize().max(1);
        if self.recent.len() == CHAIN_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(self.last);
    }
}

/// Hashes a key, by the number of its hash; a test puts one in its place that collides.
type Hasher = fn(FeedId, &str, &str, u32) -> KeyHash;

/// Entries decided upon and not yet durable, and what they do to keys.
#[derive(Debug)]
pub struct Draft {
    /// The entries.
    pub entries: Vec<Entry>,
    keys: HashMap<KeyHash, (String, Home)>,
    /// Keys of the draft that are filed under another hash than their own.
    overrides: HashMap<String, u32>,
    next: u64,
    /// Whether an event may need [`event::OTHER_HASH`].
    knows_other_hash: bool,
}

impl State {
    /// An empty state of the feed with this id.
    pub fn new(feed: FeedId) -> State {
        State {
            feed,
            head: 0,
            rows: Vec::new(),
            by_hash: HashMap::new(),
            superseded: 0,
            overrides: Overrides::default(),
            hasher: other_hash,
            edges: Vec::new(),
            edges_seq: 0,
            crews: Vec::new(),
            purges: VecDeque::new(),
            purges_gone: 0,
            compacted: 0,
            office: Office::first(),
            recovery: None,
            chain: Chain::default(),
            digest: Digest::default(),
        }
    }

    /// The term.
    pub fn term(&self) -> u32 {
        self.office.term
    }

    /// What a restored Central still waits for; `None` if everything may be granted and published.
    pub fn recovery(&self) -> Option<&Recovery> {
        self.recovery.as_ref()
    }

    /// The same, to take a report.
    pub fn recovery_mut(&mut self) -> Option<&mut Recovery> {
        self.recovery.as_mut()
    }

    /// The digest of all homes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The payload of the entry that was just applied; the checksum goes on.
    pub fn chained(&mut self, payload: &[u8]) {
        self.chain.push(payload);
    }

    /// The checksum over all entries up to `seq`, if that is not too far back.
    pub fn chain_at(&self, seq: u64) -> Option<u32> {
        let back = usize::try_from(self.head.checked_sub(seq)?).ok()?;
        let at = self.chain.recent.len().checked_sub(back + 1)?;
        self.chain.recent.get(at).copied()
    }

    /// The last seq.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// How many keys have a row, tombstones included.
    pub fn keys(&self) -> usize {
        self.by_hash.len()
    }

    /// All edges ever registered, by index.
    pub fn edges(&self) -> &[EdgeRow] {
        &self.edges
    }

    /// The seq of the last change of the edge table.
    pub fn edges_seq(&self) -> u64 {
        self.edges_seq
    }

    /// The edge with this name.
    pub fn edge(&self, name: &str) -> Option<&EdgeRow> {
        self.edges.iter().find(|edge| edge.name == name)
    }

    /// The name of an edge.
    pub fn edge_name(&self, index: u16) -> &str {
        self.edges.get(usize::from(index)).map_or("?", |edge| &edge.name)
    }

    /// Where a key lives, or lived.
    pub fn home(&self, full_key: &str) -> Option<Home> {
        let row = self.rows.get(*self.by_hash.get(&self.hash(full_key))?)?;
        is_of(&row.key, full_key).then(|| row.home())
    }

    /// The events after `cursor`, at most `max`, and the last seq that they cover.
    ///
    /// Superseded events and changes of the edge table leave holes in what is covered.
    pub fn after(&self, cursor: u64, max: usize) -> (u64, Vec<Event>) {
        let from = self.rows.partition_point(|row| row.seq <= cursor);
        let mut rows = self.rows[from..].iter().filter(|row| !row.superseded);
        let events: Vec<Event> = rows.by_ref().take(max).map(|row| self.event(row)).collect();
        let last = match (rows.next(), events.last()) {
            (Some(_), Some(event)) => event.s,
            _ => self.head,
        };
        (last, self.with_purges(cursor, last, events))
    }

    /// The events together with the purges among them.
    fn with_purges(&self, cursor: u64, last: u64, mut events: Vec<Event>) -> Vec<Event> {
        let from = self.purges.partition_point(|(seq, _)| *seq <= cursor);
        let until = self.purges.partition_point(|(seq, _)| *seq <= last);
        if from < until {
            let purge = |(s, tag): &(u64, String)| Event {
                c: "purge".to_owned(),
                e: 1,
                h: String::new(),
                k: format!("tag:{tag}"),
                s: *s,
                st: event::State::Purge,
                x: 0,
            };
            events.extend(self.purges.range(from..until).map(purge));
            events.sort_by_key(|event| event.s);
        }
        events
    }

    /// The same as rows of a snapshot.
    pub fn rows_after(&self, cursor: u64, max: usize) -> (u64, Vec<snapshot::Row>) {
        let from = self.rows.partition_point(|row| row.seq <= cursor);
        let slice = &self.rows[from..];
        let slice = &slice[..slice.len().min(max)];
        let last = if from + slice.len() == self.rows.len() { self.head } else { slice.last().map_or(0, |r| r.seq) };
        let rows = slice.iter().filter(|row| !row.superseded).map(|row| snapshot::Row {
            kh: row.kh,
            epoch: row.epoch,
            home: row.edge,
            tomb: row.state == event::State::Tomb,
        });
        (last, rows.collect())
    }

    fn event(&self, row: &Row) -> Event {
        Event {
            c: row.why.as_str().to_owned(),
            e: row.epoch,
            h: self.edge_name(row.edge).to_owned(),
            k: row.key.clone().into(),
            s: row.seq,
            st: row.state,
            x: self.overrides.number(&row.key),
        }
    }

    /// A draft that starts where the state ends.
    pub fn draft(&self) -> Draft {
        Draft {
            entries: Vec::new(),
            keys: HashMap::new(),
            overrides: HashMap::new(),
            next: self.head + 1,
            knows_other_hash: true,
        }
    }

    /// The same while not every instance that follows can read a key that is filed under another hash than its own.
    pub fn draft_of_own_hashes(&self) -> Draft {
        Draft { knows_other_hash: false, ..self.draft() }
    }

    /// Decides a want, given what the draft holds already.
    pub fn plan(&self, draft: &mut Draft, want: &Want) -> Outcome {
        let Some(edge) = self.edge(&want.edge).filter(|edge| edge.state == EdgeState::Active) else {
            return Outcome::NoEdge;
        };
        let Some(number) = self.number(draft, &want.key) else { return Outcome::Collision };
        let kh = self.hash_by(&want.key, number);
        let known = self.known(draft, kh).map(|(_, home)| home);
        match (record(known).step(rules::Input::Claim { edge: edge.idx }).1, known) {
            (Some(_), _) if number > 0 && !draft.knows_other_hash => Outcome::Withheld(event::OTHER_HASH),
            (Some(grant), _) => {
                if number > 0 {
                    draft.overrides.insert(want.key.clone(), number);
                }
                Outcome::Created(draft.add((kh, number), want, edge, grant.epoch))
            }
            (None, Some(home)) if home.state == event::State::Active && home.edge == edge.idx => Outcome::Same(home),
            (None, Some(home)) => Outcome::Taken(home),
            // A key without a record is granted, always.
            (None, None) => Outcome::Collision,
        }
    }

    /// Under which of its hashes a key is filed, or shall be: the first that is no other key's. `None` if none is left.
    fn number(&self, draft: &Draft, full_key: &str) -> Option<u32> {
        if let Some(number) = draft.overrides.get(full_key) {
            return Some(*number);
        }
        let from = self.overrides.number(full_key);
        let is_free = |number: &u32| {
            self.known(draft, self.hash_by(full_key, *number)).is_none_or(|(other, _)| is_of(other, full_key))
        };
        let number = (from..HASHES_MAX).find(is_free)?;
        let others = self.overrides.len() + draft.overrides.len();
        (number == from || others < OVERRIDES_MAX).then_some(number)
    }

    fn known<'a>(&'a self, draft: &'a Draft, kh: KeyHash) -> Option<(&'a str, Home)> {
        if let Some((key, home)) = draft.keys.get(&kh) {
            return Some((key, *home));
        }
        let row = self.rows.get(*self.by_hash.get(&kh)?)?;
        Some((&row.key, row.home()))
    }

    /// The entry that registers an edge or changes its peer address; `None` when nothing changes. Errors: no index left.
    pub fn plan_edge(&self, name: &str, peer: Option<&str>) -> Result<Option<Entry>, String> {
        let peer = peer.map(str::to_owned);
        let edge = match self.edge(name) {
            Some(edge) if edge.peer == peer => return Ok(None),
            Some(edge) => EdgeRow { peer, ..edge.clone() },
            None => EdgeRow { idx: self.next_index()?, name: name.to_owned(), peer, state: EdgeState::Active },
        };
        Ok(Some(Entry::Edge { s: self.head + 1, edge }))
    }

    /// The incarnations of an edge.
    pub fn crew(&self, name: &str) -> Option<&Crew> {
        self.crews.get(usize::from(self.edge(name)?.idx))
    }

    /// The operator's word that every disk of an edge is gone for good; it is not kept over a restart. False if there is
    /// no such edge.
    pub fn replace(&mut self, name: &str) -> bool {
        let crew = self.edge(name).map(|edge| usize::from(edge.idx)).and_then(|at| self.crews.get_mut(at));
        crew.map(Crew::replace).is_some()
    }

    /// What a registration comes to, and the entry if it is a new one; `None` if there is no such edge.
    pub fn plan_incarnation(&self, edge: &str, boot: Boot, proof: Proof) -> Option<(Registration, Option<Entry>)> {
        let crew = self.crew(edge)?;
        let judged = crew.judge(boot, proof);
        let entry = matches!(judged, Registration::Entered { .. }).then(|| Entry::Incarnation {
            s: self.head + 1,
            edge: edge.to_owned(),
            boot,
            ends: crew.ends(proof).into_vec(),
        });
        Some((judged, entry))
    }

    fn next_index(&self) -> Result<u16, String> {
        u16::try_from(self.edges.len()).ok().filter(|index| *index < EDGES_MAX).ok_or_else(|| {
            format!("{EDGES_MAX} edges were registered in this feed, and an index is never given out twice")
        })
    }

    /// Takes the next entry of the log. Errors: why it cannot stand there; the state is unchanged then.
    pub fn apply(&mut self, entry: Entry) -> Result<(), String> {
        let seq = entry.seq();
        if seq != self.head + 1 {
            return Err(format!("entry {seq} follows {}", self.head));
        }
        match entry {
            Entry::Home(event) => self.apply_home(event)?,
            Entry::Edge { edge, .. } => self.apply_edge(edge)?,
            Entry::Incarnation { edge, boot, ends, .. } => self.apply_incarnation(&edge, boot, &ends)?,
            Entry::Purge { s, tag } => self.apply_purge(s, tag)?,
            Entry::Restored { term, .. } => self.apply_restored(term)?,
            Entry::Term { term, .. } => self.apply_term(term)?,
        }
        self.head = seq;
        Ok(())
    }

    fn apply_home(&mut self, event: Event) -> Result<(), String> {
        // A restored Central names keys by their hash whose names it has lost.
        if !is_of(&event.k, "") {
            key::check_full(&event.k)?;
        }
        let edge = self.edge(&event.h).ok_or_else(|| format!("entry {} names an unknown edge", event.s))?.idx;
        let kh = self.hash_by(&event.k, event.x);
        if let Some(&at) = self.by_hash.get(&kh) {
            let old = &mut self.rows[at];
            // A key whose name was lost may have got it back, and one that has it is its hash to a restored Central.
            if !(is_of(&old.key, &event.k) || is_of(&event.k, &old.key)) || old.epoch >= event.e {
                return Err(format!("entry {} does not continue its key", event.s));
            }
            old.superseded = true;
            self.superseded += 1;
            self.digest.take(kh, (old.state == event::State::Active).then_some(old.edge), old.epoch);
        }
        self.digest.add(kh, (event.st == event::State::Active).then_some(edge), event.e);
        self.overrides.insert(&event.k, event.x);
        self.by_hash.insert(kh, self.rows.len());
        self.rows.push(Row {
            kh,
            seq: event.s,
            key: event.k.into_boxed_str(),
            epoch: event.e,
            edge,
            state: event.st,
            why: Why::of(&event.c),
            superseded: false,
        });
        self.sweep();
        Ok(())
    }

    fn apply_edge(&mut self, edge: EdgeRow) -> Result<(), String> {
        key::check_name("edge", &edge.name)?;
        let at = usize::from(edge.idx);
        let fits = match self.edges.get(at) {
            Some(old) => old.name == edge.name,
            None => at == self.edges.len() && self.edge(&edge.name).is_none() && edge.idx < EDGES_MAX,
        };
        if !fits {
            return Err(format!("edge `{}` cannot have index {}", edge.name, edge.idx));
        }
        if at == self.edges.len() {
            self.edges.push(edge);
            self.crews.push(Crew::default());
        } else {
            self.edges[at] = edge;
        }
        self.edges_seq = self.head + 1;
        Ok(())
    }

    fn apply_incarnation(&mut self, edge: &str, boot: Boot, ends: &[Boot]) -> Result<(), String> {
        let at = self.head + 1;
        let index = self.edge(edge).map(|edge| usize::from(edge.idx));
        let crew = index.and_then(|index| self.crews.get_mut(index));
        crew.ok_or_else(|| format!("entry {at} registers an unknown edge"))?.enter(boot, at, ends);
        Ok(())
    }

    fn apply_purge(&mut self, seq: u64, tag: String) -> Result<(), String> {
        key::check_full(&format!("tag:{tag}"))?;
        self.purges.push_back((seq, tag));
        if self.purges.len() > PURGES_MAX
            && let Some((gone, _)) = self.purges.pop_front()
        {
            self.purges_gone = gone;
        }
        Ok(())
    }

    /// The seq of the last purge that can no longer be told.
    pub fn purges_gone(&self) -> u64 {
        self.purges_gone
    }

    /// Lets go of what tells only the way from one seq to the next, up to `floor`: purges and checksums. Superseded homes go
    /// by themselves, and tombstones never: a key that is claimed again begins at its tombstone's next epoch.
    pub fn compact(&mut self, floor: u64) {
        self.compacted = self.compacted.max(floor.min(self.head));
        let passed = self.purges.partition_point(|(seq, _)| *seq <= self.compacted);
        self.purges.drain(..passed);
        let kept = usize::try_from(self.head - self.compacted).unwrap_or(usize::MAX).saturating_add(1);
        let recent = &mut self.chain.recent;
        recent.drain(..recent.len().saturating_sub(kept));
        if recent.capacity() / 4 > recent.len().max(SWEEP_MIN) {
            recent.shrink_to(recent.len() * 2);
        }
    }

    /// The seq up to which it was compacted: no stream starts before the next.
    pub fn compacted(&self) -> u64 {
        self.compacted
    }

    fn apply_restored(&mut self, term: u32) -> Result<(), String> {
        if term <= self.office.term {
            return Err(format!("term {term} follows {}", self.office.term));
        }
        self.office.restored_at(term, self.edges.iter().map(|edge| edge.idx));
        let crews = self.edges.iter().zip(&self.crews);
        self.recovery =
            Some(Recovery::awaiting(crews.map(|(edge, crew)| (edge.name.clone(), crew.current().collect()))));
        Ok(())
    }

    fn apply_term(&mut self, term: u32) -> Result<(), String> {
        if term != self.office.term || self.recovery.is_none() {
            return Err(format!("term {term} was never begun"));
        }
        self.office.restored_at(term, std::iter::empty());
        self.recovery = None;
        let seq = self.head + 1;
        self.crews.iter_mut().for_each(|crew| crew.recovered(seq));
        Ok(())
    }

    /// What the log knows of a hash, as the rules see it.
    pub fn record_of(&self, kh: KeyHash) -> rules::Record {
        record(self.by_hash.get(&kh).and_then(|at| self.rows.get(*at)).map(Row::home))
    }

    /// Under which of its hashes a key is filed.
    pub fn number_of(&self, full_key: &str) -> u32 {
        self.overrides.number(full_key)
    }

    /// The name of the key that is filed under a hash; one that only says the hash, if it is not known.
    pub fn name_of(&self, kh: KeyHash) -> String {
        let row = self.by_hash.get(&kh).and_then(|at| self.rows.get(*at));
        row.map_or_else(|| nameless(kh), |row| row.key.to_string())
    }

    /// Takes superseded rows out once they are half of all.
    fn sweep(&mut self) {
        if self.superseded < SWEEP_MIN || self.superseded * 2 < self.rows.len() {
            return;
        }
        self.rows.retain(|row| !row.superseded);
        self.superseded = 0;
        self.by_hash = self.rows.iter().enumerate().map(|(at, row)| (row.kh, at)).collect();
    }

    fn hash(&self, full_key: &str) -> KeyHash {
        self.hash_by(full_key, self.overrides.number(full_key))
    }

    fn hash_by(&self, full_key: &str, number: u32) -> KeyHash {
        let (space, key) = key::split(full_key);
        (self.hasher)(self.feed, space, key, number)
    }

    /// The keys that are filed under another hash than their own.
    pub fn overrides(&self) -> Vec<Override> {
        self.overrides.list()
    }
}

/// Whether `known` is the name of a key, or what stands for it where the name was lost.
fn is_of(known: &str, full_key: &str) -> bool {
    // Both were found under one hash.
    known == full_key || known.split_once(':').is_some_and(|(space, key)| nameless_hash(space, key).is_some())
}

/// A home as the rules see it. No move is under way: they are not wired in yet.
fn record(known: Option<Home>) -> rules::Record {
    let home = known.filter(|home| home.state == event::State::Active).map(|home| home.edge);
    rules::Record { home, epoch: known.map_or(0, |home| home.epoch), ..rules::Record::default() }
}

impl Draft {
    fn add(&mut self, (kh, x): (KeyHash, u32), want: &Want, edge: &EdgeRow, epoch: u32) -> Home {
        let home = Home { edge: edge.idx, epoch, state: event::State::Active, seq: self.next };
        self.entries.push(Entry::Home(Event {
            c: want.why.as_str().to_owned(),
            e: epoch,
            h: edge.name.clone(),
            k: want.key.clone(),
            s: self.next,
            st: event::State::Active,
            x,
        }));
        self.keys.insert(kh, (want.key.clone(), home));
        self.next += 1;
        home
    }
}

#[cfg(test)]
mod tests;
