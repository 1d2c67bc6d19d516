//! States, messages, and how the code's rules act on them.
//!
//! Three choices keep the model small without hiding faults:
//! - The network is the set of all messages ever sent. A message may be delivered at any time, any number of times, in
//!   any order, or never: so loss, duplication, delay and reordering need no actions of their own.
//! - What a process sends follows from its state (`sends`), so it is put on the network at once; a crash before the send
//!   is the same as a message that is never delivered.
//! - Time-outs are actions that may fire at any moment. No clock is trusted by any property.

use coordinator::base::id::EdgeId;
use coordinator::central::state::rules::{self, Crew, Grant, Office, Proof, Record, Registration};
use coordinator::home::Home;
use coordinator::home::guard::{Guard, Guards};
use coordinator::home::ledger::{self, Input, MoveId, Named, Phase, Row, Word};
use coordinator::home::standing::{About, Boot, Meaning, Stage, Standing, Tag};
use coordinator::peer::answer::{self, Answer, Claimed, Effort};
use std::collections::BTreeSet;

// How many edges and users there are at most, and how many writes: `sim` compiles this file with larger numbers.
use super::{E, U, Writes};

pub type Edge = u16;
pub type User = u8;

/// Bounds of one scenario: how much of each thing may happen, and in which regime.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub edges: usize,
    pub users: usize,
    /// Else: registration; user u is minted at edge u.
    pub first_touch: bool,
    pub left: Left,
    /// MOVED rows are dropped once all cursors have passed.
    pub cleanup: bool,
}

/// How much may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Left {
    pub writes: u8,
    pub moves: u8,
    /// Process crash and restart: volatile state lost.
    pub crashes: u8,
    /// Map image lost, ledger kept: the feed is read again from the start.
    pub map_losses: u8,
    /// Disk lost: ledger, map, everything but the origin's data.
    pub ledger_losses: u8,
    /// Operator fences an edge and forces its users elsewhere.
    pub forces: u8,
    /// Central comes back from an older copy.
    pub restores: u8,
    /// Unused homes given up (tombstone).
    pub expiries: u8,
    /// Requests that follow 2.5 from edge to edge.
    pub forwards: u8,
}

/// One entry of Central's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    Home { user: User, grant: Option<Edge>, epoch: u32 },
    Incarnation,
    Term(u32),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Central {
    pub log: Vec<Entry>,
    pub records: [Record; U],
    pub crews: [Crew; E],
    pub office: Office,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EdgeState {
    pub standing: Standing,
    pub keys: [ledger::State; U],
    /// The map: a prefix of the log of the term in `standing.history`.
    pub map: u64,
    /// Ids of the writes that the origin holds; a bit each.
    pub data: [Writes; U],
    /// Accepted, not finished, client still waiting.
    pub busy: [Writes; U],
    /// Not finished, client gone (crash of the Coordinator).
    pub orphan: [Writes; U],
    pub is_fenced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Msg {
    // To Central.
    Register { edge: Edge, boot: Boot },
    Claim { user: User, edge: Edge, boot: Boot },
    Receipt { user: User, edge: Edge, boot: Boot, epoch: u32, mid: MoveId },
    NotReleased { user: User, edge: Edge, boot: Boot, mid: MoveId },
    // To an edge.
    Registered { edge: Edge, boot: Boot, at: u64, term: u32 },
    ImportCommand { user: User, edge: Edge, tag: Tag, mid: MoveId, from: Edge, epoch: u32 },
    Freeze { user: User, edge: Edge, tag: Tag, mid: MoveId, epoch: u32, to: Option<Edge> },
    Abort { user: User, edge: Edge, tag: Tag, mid: MoveId },
    NotCurrent { user: User, edge: Edge, mid: MoveId, seq: u64, term: u32 },
    Denied { user: User, edge: Edge, tag: Tag, to: Edge, epoch: u32 },
    // Between edges.
    Export { user: User, mid: MoveId, data: Writes },
    Verified { user: User, mid: MoveId, to: Edge },
}

/// A request on its way between edges (2.5): from `a`, last sent to `b`, with the epoch it named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    pub user: User,
    pub a: Edge,
    pub b: Edge,
    pub epoch: u32,
    pub seq: u64,
    pub tries: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub central: Central,
    pub edges: [EdgeState; E],
    pub net: BTreeSet<Msg>,
    pub request: Option<Request>,
    pub backup: Option<Box<Central>>,
    pub left: Left,
    // History, read by the properties only.
    pub acked: [Writes; U],
    pub minted: [bool; U],
    pub acceptor: [[Option<Edge>; 8]; U],
    pub bad: Bad,
}

/// Violations seen on a step rather than in a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bad {
    pub two_per_epoch: bool,
    pub epoch_back: bool,
    /// A write landed at an origin after another edge became owner.
    pub stray_write: bool,
    /// A retry without a greater epoch, or to the sender itself.
    pub retry_epoch: bool,
    /// A request gave up although the user had a live owner and all feeds were level.
    pub dead_end: bool,
}

pub struct Homes {
    pub bounds: Bounds,
    pub guards: Guards,
    /// Leave I12 out: a mutant then shows its damage, not only that it gets stuck.
    pub safety_only: bool,
}

impl EdgeState {
    pub fn phase(&self, user: User) -> Phase {
        self.keys[usize::from(user)].phase()
    }
}

impl Central {
    /// The last entry of a user in the first `length` of the log.
    pub fn latest(&self, length: u64, user: User) -> Option<(Option<Edge>, u32)> {
        let length = usize::try_from(length).unwrap().min(self.log.len());
        self.log[..length].iter().rev().find_map(|entry| match *entry {
            Entry::Home { user: of, grant, epoch } if of == user => Some((grant, epoch)),
            _ => None,
        })
    }

    pub fn head(&self) -> u64 {
        self.log.len() as u64
    }

    fn tag(&self, edge: Edge) -> Tag {
        let boot = self.crews[usize::from(edge)].current().last().unwrap_or(Boot(0));
        self.office.tag(boot)
    }

    fn is_current(&self, edge: Edge, boot: Boot) -> bool {
        self.crews[usize::from(edge)].is_current(boot)
    }
}

impl Homes {
    pub fn has(&self, guard: Guard) -> bool {
        self.guards.has(guard)
    }

    pub fn edges(&self) -> impl Iterator<Item = Edge> + use<> {
        0..self.bounds.edges as Edge
    }

    pub fn users(&self) -> impl Iterator<Item = User> + use<> {
        0..self.bounds.users as User
    }

    /// The edge whose origin mints a user, in the registration regime.
    pub fn minter(&self, user: User) -> Edge {
        Edge::from(user) % self.bounds.edges as Edge
    }

    pub fn init(&self) -> State {
        let mut crew = Crew::default();
        crew.enter(Boot(1), 0, &[]);
        let edge = EdgeState {
            standing: Standing::ready(Boot(1), 1, 0),
            keys: Default::default(),
            map: 0,
            data: [0; U],
            busy: [0; U],
            orphan: [0; U],
            is_fenced: false,
        };
        let crews = std::array::from_fn(|_| crew.clone());
        let central = Central { log: vec![], records: Default::default(), crews, office: Office::first() };
        State {
            central,
            edges: [edge; E],
            net: BTreeSet::new(),
            request: None,
            backup: None,
            left: self.bounds.left,
            acked: [0; U],
            minted: [false; U],
            acceptor: [[None; 8]; U],
            bad: Bad::default(),
        }
    }

    /// What the map of an edge says.
    pub fn map(&self, s: &State, edge: Edge, user: User) -> Option<(Option<Edge>, u32)> {
        s.central.latest(s.edges[usize::from(edge)].map, user)
    }

    /// The edge that the map names.
    pub fn mapped(&self, s: &State, edge: Edge, user: User) -> Option<(Edge, u32)> {
        self.map(s, edge, user).and_then(|(home, epoch)| Some((home?, epoch)))
    }

    /// accept_write of HOMES 2.1.
    pub fn accepts(&self, s: &State, edge: Edge, user: User) -> bool {
        let it = &s.edges[usize::from(edge)];
        if it.is_fenced {
            return false;
        }
        if !self.has(Guard::LedgerDecides) {
            return self.mapped(s, edge, user).is_some_and(|(home, _)| home == edge);
        }
        let accepted = it.keys[usize::from(user)].accepts();
        it.standing.is_ready(self.guards)
            && accepted.is_some_and(|(_, provisional)| !provisional || !self.bounds.first_touch)
    }

    /// What the code's `look` says: the ledger first, then the map.
    pub fn look(&self, s: &State, edge: Edge, user: User) -> Home {
        let it = &s.edges[usize::from(edge)];
        let phase = if it.standing.is_ready(self.guards) { it.phase(user) } else { Phase::None };
        match phase {
            Phase::Owned { epoch } => Home::Ours { epoch, provisional: false },
            Phase::Provisional => Home::Ours { epoch: 1, provisional: true },
            Phase::Frozen { epoch, .. } => Home::Leaving { epoch, is_released: false },
            Phase::Released { epoch, .. } => Home::Leaving { epoch, is_released: true },
            Phase::Moved { to, epoch } => Home::At { edge: to, epoch },
            Phase::Gone { .. } => Home::Unknown,
            Phase::None | Phase::Lost { .. } => match self.mapped(s, edge, user) {
                Some((home, _)) if home == edge => Home::Disputed,
                Some((home, epoch)) => Home::At { edge: EdgeId(home), epoch },
                None => Home::Unknown,
            },
        }
    }

    /// One step of a key's rules.
    fn turn(&self, s: &mut State, edge: Edge, user: User, input: Input) {
        let key = &mut s.edges[usize::from(edge)].keys[usize::from(user)];
        let (next, effects) = key.step_by(input, self.guards);
        *key = next;
        let boot = s.edges[usize::from(edge)].standing.boot;
        for effect in effects {
            if let ledger::Effect::Say(Word::NotReleased { mid }) = effect {
                s.net.insert(Msg::NotReleased { user, edge, boot, mid });
            }
        }
    }

    /// One step of a record's rules.
    fn decide(&self, s: &mut State, user: User, input: rules::Input) {
        let (next, grant) = s.central.records[usize::from(user)].step_by(input, self.guards);
        s.central.records[usize::from(user)] = next;
        if let Some(Grant { home, epoch }) = grant {
            s.central.log.push(Entry::Home { user, grant: home, epoch });
        }
    }

    pub fn command(&self, s: &mut State, user: User, input: rules::Input) {
        self.decide(s, user, input);
    }

    pub fn local(&self, s: &mut State, edge: Edge, user: User, input: Input) {
        self.turn(s, edge, user, input);
    }

    /// Everything the processes would send, or send again, in this state.
    pub fn sends(&self, s: &State, net: &mut BTreeSet<Msg>) {
        self.users().for_each(|user| self.central_sends(s, user, net));
        for edge in self.edges() {
            let it = &s.edges[usize::from(edge)];
            let boot = it.standing.boot;
            if it.standing.stage == Stage::Fresh {
                net.insert(Msg::Register { edge, boot });
            }
            if it.standing.is_ready(self.guards) {
                self.users().for_each(|user| self.edge_sends(s, edge, user, net));
            }
        }
    }

    fn central_sends(&self, s: &State, user: User, net: &mut BTreeSet<Msg>) {
        let record = s.central.records[usize::from(user)];
        let (Some(moving), Some(home), true) = (record.moving, record.home, s.central.office.is_open()) else { return };
        let (mid, epoch) = (moving.mid, record.epoch);
        if let Some(to) = moving.to {
            net.insert(Msg::ImportCommand { user, edge: to, tag: s.central.tag(to), mid, from: home, epoch });
        }
        let tag = s.central.tag(home);
        net.insert(Msg::Freeze { user, edge: home, tag, mid, epoch, to: moving.to });
        if moving.is_off {
            net.insert(Msg::Abort { user, edge: home, tag, mid });
        }
    }

    fn edge_sends(&self, s: &State, edge: Edge, user: User, net: &mut BTreeSet<Msg>) {
        let it = &s.edges[usize::from(edge)];
        let record = s.central.records[usize::from(user)];
        let boot = it.standing.boot;
        for word in it.keys[usize::from(user)].owes() {
            match word {
                Word::Claim => drop(net.insert(Msg::Claim { user, edge, boot })),
                Word::NotReleased { mid } => drop(net.insert(Msg::NotReleased { user, edge, boot, mid })),
                Word::Receipt { epoch, mid } => drop(net.insert(Msg::Receipt { user, edge, boot, epoch, mid })),
                Word::Export { mid } if self.is_drained(it, user) => {
                    net.insert(Msg::Export { user, mid, data: it.data[usize::from(user)] });
                    if !self.has(Guard::ImportBeforeRelease) {
                        net.insert(Msg::Verified { user, mid, to: edge });
                    }
                }
                Word::Export { .. } => {}
                Word::Verified { mid } => drop(record.home.map(|to| net.insert(Msg::Verified { user, mid, to }))),
                // Central answers, and says at which seq that was true.
                Word::IsCurrent { mid } => {
                    let is_over = record.moving.is_none_or(|moving| moving.mid != mid);
                    if is_over && s.central.office.is_open() && self.has(Guard::AskCurrent) {
                        let (seq, term) = (s.central.head(), s.central.office.term);
                        net.insert(Msg::NotCurrent { user, edge, mid, seq, term });
                    }
                }
            }
        }
    }

    pub fn is_drained(&self, it: &EdgeState, user: User) -> bool {
        let user = usize::from(user);
        (!self.has(Guard::Drain) || it.busy[user] == 0) && (!self.has(Guard::DrainAtOrigin) || it.orphan[user] == 0)
    }

    /// An edge reads the next entry of the log.
    pub fn feed(&self, s: &mut State, edge: Edge) {
        let it = &s.edges[usize::from(edge)];
        if it.standing.history != u64::from(s.central.office.term) {
            return self.new_history(s, edge);
        }
        let seq = it.map + 1;
        self.ledger_takes(s, edge, seq);
        self.map_takes(s, edge, seq);
    }

    /// An edge meets a new term: both its cursors start over.
    pub fn new_history(&self, s: &mut State, edge: Edge) {
        let term = s.central.office.term;
        let before = s.central.log.iter().position(|entry| *entry == Entry::Term(term)).unwrap_or(0) as u64;
        let it = &mut s.edges[usize::from(edge)];
        it.standing = it.standing.new_history(u64::from(term), before);
        it.map = 0;
    }

    /// The ledger takes the entry at `seq`; it is first, so the map never shows what the ledger could not know.
    pub fn ledger_takes(&self, s: &mut State, edge: Edge, seq: u64) {
        let entry = s.central.log[usize::try_from(seq).unwrap() - 1];
        let about = match entry {
            Entry::Home { .. } => About::Home,
            Entry::Term(_) => About::Term,
            Entry::Incarnation => About::Other,
        };
        let it = &mut s.edges[usize::from(edge)];
        let (standing, meaning) = it.standing.entry(seq, about, self.guards);
        it.standing = standing;
        match (meaning, entry) {
            (Meaning::Row, Entry::Home { user, grant, epoch }) => self.told(s, edge, user, grant, epoch),
            (Meaning::Stock, _) => self.take_stock(s, edge, seq),
            _ => {}
        }
    }

    /// The map has come to `seq`.
    pub fn map_takes(&self, s: &mut State, edge: Edge, seq: u64) {
        s.edges[usize::from(edge)].map = seq;
        self.reached(s, edge);
    }

    /// The one place where a row changes by word of the log.
    fn told(&self, s: &mut State, edge: Edge, user: User, home: Option<Edge>, epoch: u32) {
        let home = match home {
            None => Named::Nobody,
            Some(own) if own == edge => Named::Own,
            Some(other) => Named::Other(EdgeId(other)),
        };
        self.turn(s, edge, user, Input::Entry { home, epoch });
    }

    fn take_stock(&self, s: &mut State, edge: Edge, seq: u64) {
        for user in self.users() {
            if let Some((home, epoch)) = s.central.latest(seq, user) {
                self.told(s, edge, user, home, epoch);
            }
        }
    }

    /// A fresh ledger may have reached its own registration: it takes the homes that still stand there, then reclaims.
    fn reached(&self, s: &mut State, edge: Edge) {
        let it = &mut s.edges[usize::from(edge)];
        let (standing, meaning) = it.standing.reached(it.map);
        it.standing = standing;
        if meaning != Meaning::Rebuild {
            return;
        }
        for user in self.users() {
            let known = self.map(s, edge, user);
            if let Some((Some(home), epoch)) = known.filter(|(home, _)| *home == Some(edge)) {
                self.told(s, edge, user, Some(home), epoch);
            }
            let is_minted = !self.bounds.first_touch && self.minter(user) == edge;
            if is_minted && s.edges[usize::from(edge)].data[usize::from(user)] != 0 {
                self.turn(s, edge, user, Input::Reclaim { is_known: known.is_some() });
            }
        }
    }

    pub fn deliver(&self, s: &mut State, msg: Msg) {
        match msg {
            Msg::Register { edge, boot } => self.register(s, edge, boot),
            Msg::Claim { user, edge, boot } => self.claim(s, user, edge, boot),
            Msg::Receipt { user, edge, boot, epoch, mid } => {
                let is_heard = s.central.is_current(edge, boot) || !self.has(Guard::ReceiptOfCurrent);
                if s.central.office.is_open() && is_heard {
                    self.decide(s, user, rules::Input::Receipt { edge, epoch, mid });
                }
            }
            Msg::NotReleased { user, edge, boot, mid } => {
                if s.central.office.is_open() && s.central.is_current(edge, boot) {
                    self.decide(s, user, rules::Input::NotReleased { edge, mid });
                }
            }
            Msg::Export { user, mid, data } => self.edges().for_each(|edge| self.exported(s, edge, user, mid, data)),
            Msg::Verified { user, mid, to } => {
                let is_drained = self.is_drained(&s.edges[usize::from(to)], user);
                self.turn(s, to, user, Input::Verified { mid, is_drained });
            }
            command => self.obey(s, command),
        }
    }

    /// What Central says to an edge.
    fn obey(&self, s: &mut State, msg: Msg) {
        match msg {
            Msg::Registered { edge, boot, at, term } => {
                let it = &mut s.edges[usize::from(edge)];
                if it.standing.boot == boot && it.standing.history == u64::from(term) {
                    it.standing = it.standing.registered(at, u64::from(term));
                    self.reached(s, edge);
                }
            }
            Msg::ImportCommand { user, edge, tag, mid, from, epoch } if self.obeys(s, edge, tag) => {
                let known = self.map(s, edge, user).map_or(0, |(_, epoch)| epoch);
                self.turn(s, edge, user, Input::Import { mid, from: EdgeId(from), epoch, known });
            }
            Msg::Freeze { user, edge, tag, mid, epoch, to } if self.obeys(s, edge, tag) => {
                let (it, at) = (&s.edges[usize::from(edge)], usize::from(user));
                let is_used = it.data[at] | it.busy[at] | it.orphan[at] != 0;
                self.turn(s, edge, user, Input::Freeze { mid, epoch, expires: to.is_none(), is_used, until: 0 });
            }
            Msg::Abort { user, edge, tag, mid } if self.obeys(s, edge, tag) => {
                self.turn(s, edge, user, Input::Abort { mid });
            }
            Msg::NotCurrent { user, edge, mid, seq, term } => {
                let it = &s.edges[usize::from(edge)];
                let is_reached = it.standing.history == u64::from(term) && it.map >= seq;
                self.turn(s, edge, user, Input::NotCurrent { mid, is_reached });
            }
            Msg::Denied { user, edge, tag, to, epoch } if self.obeys(s, edge, tag) => {
                self.turn(s, edge, user, Input::Denied { to: EdgeId(to), epoch });
            }
            _ => {}
        }
    }

    fn obeys(&self, s: &State, edge: Edge, tag: Tag) -> bool {
        s.edges[usize::from(edge)].standing.obeys(tag, self.guards)
    }

    /// A restored Central registers nobody before it is complete: what its copy says of the homes may be old.
    fn register(&self, s: &mut State, edge: Edge, boot: Boot) {
        if !s.central.office.is_open() {
            return;
        }
        let crew = &mut s.central.crews[usize::from(edge)];
        let term = s.central.office.term;
        match crew.judge(boot, Proof::None) {
            Registration::Entered { .. } => {
                let ends = crew.ends(Proof::None);
                s.central.log.push(Entry::Incarnation);
                let at = s.central.head();
                s.central.crews[usize::from(edge)].enter(boot, at, &ends);
                self.users().for_each(|user| self.decide(s, user, rules::Input::Registered { edge }));
                s.net.insert(Msg::Registered { edge, boot, at, term });
            }
            Registration::Known { at } => drop(s.net.insert(Msg::Registered { edge, boot, at, term })),
            Registration::Ended | Registration::NeedsWord => {}
        }
    }

    /// A claim is heard from the current incarnation only. An answer writes no row: what was granted comes by the feed.
    fn claim(&self, s: &mut State, user: User, edge: Edge, boot: Boot) {
        if !s.central.office.is_open() {
            return;
        }
        if s.central.is_current(edge, boot) {
            self.decide(s, user, rules::Input::Claim { edge });
        }
        let record = s.central.records[usize::from(user)];
        if let Some(to) = record.home.filter(|home| *home != edge) {
            let tag = s.central.office.tag(boot);
            s.net.insert(Msg::Denied { user, edge, tag, to, epoch: record.epoch });
        }
    }

    /// The owner's last data reaches an edge that imports. It replaces what is there.
    fn exported(&self, s: &mut State, edge: Edge, user: User, mid: MoveId, data: Writes) {
        let at = usize::from(user);
        let Some(import) = s.edges[usize::from(edge)].keys[at].import else { return };
        if import.mid != mid && self.has(Guard::ImportForMove) {
            return;
        }
        s.edges[usize::from(edge)].data[at] = data;
        self.turn(s, edge, user, Input::Imported { mid });
        let is_current = s.central.records[at].moving.is_some_and(|moving| moving.mid == import.mid);
        if !self.has(Guard::ReleaseBeforeCommit) && is_current {
            self.decide(s, user, rules::Input::Force { to: Some(edge) });
        }
    }

    /// An edge offers its ledger to a restored Central, and from then on obeys only the new term. One whose ledger is not
    /// complete has nothing to offer, and the operator's word for its registration is needed again.
    pub fn report(&self, s: &mut State, edge: Edge) {
        let term = u64::from(s.central.office.term);
        let it = &mut s.edges[usize::from(edge)];
        it.standing = it.standing.reported(term);
        let (stage, boot) = (it.standing.stage, it.standing.boot);
        if stage == Stage::Ready {
            self.report_rows(s, edge, boot);
        } else {
            s.central.crews[usize::from(edge)].replace();
        }
        if s.central.office.heard(edge) {
            self.recovered(s);
        }
    }

    fn report_rows(&self, s: &mut State, edge: Edge, boot: Boot) {
        if !s.central.is_current(edge, boot) {
            // The copy is older than the registration.
            let old: Vec<Boot> = s.central.crews[usize::from(edge)].current().collect();
            s.central.crews[usize::from(edge)].enter(boot, 0, &old);
        }
        for user in self.users() {
            self.turn(s, edge, user, Input::NewTerm);
            let (home, epoch, is_released) = match s.edges[usize::from(edge)].phase(user) {
                Phase::Owned { epoch } | Phase::Frozen { epoch, .. } => (Some(edge), epoch, false),
                Phase::Released { epoch, .. } => (Some(edge), epoch, true),
                Phase::Moved { to, epoch } => (Some(to.0), epoch, false),
                Phase::Gone { epoch } => (None, epoch, false),
                Phase::None | Phase::Provisional | Phase::Lost { .. } => continue,
            };
            self.decide(s, user, rules::Input::Report { home, epoch, is_released });
        }
    }

    /// All edges have reported: the recovered homes are written down, then the new term.
    pub fn recovered(&self, s: &mut State) {
        for user in self.users() {
            self.decide(s, user, rules::Input::Recovered);
            let record = s.central.records[usize::from(user)];
            if record.epoch > s.central.latest(u64::MAX >> 1, user).map_or(0, |(_, epoch)| epoch) {
                s.central.log.push(Entry::Home { user, grant: record.home, epoch: record.epoch });
            }
        }
        s.central.log.push(Entry::Term(s.central.office.term));
        let head = s.central.head();
        s.central.crews.iter_mut().for_each(|crew| crew.recovered(head));
    }

    /// B answers a forwarded request by the table of 2.5, and A acts on the answer.
    pub fn attempt(&self, s: &mut State) {
        let Some(request) = s.request else { return };
        let central = s.central.records[usize::from(request.user)];
        match self.answered(s, request) {
            Answer::Serve { .. } => s.request = None,
            Answer::Moved { edge, epoch } => self.go_on(s, request, Some(edge.0), epoch),
            Answer::Unknown => self.go_on(s, request, central.home, central.epoch),
            // Parked, and in the end 503: nothing was decided.
            Answer::Park | Answer::Ask | Answer::Hold { .. } | Answer::Later => {}
        }
    }

    pub fn answered(&self, s: &State, request: Request) -> Answer {
        let central = s.central.records[usize::from(request.user)];
        let claimed = Claimed { epoch: request.epoch, seq: request.seq, is_safe: false };
        let cursor = s.edges[usize::from(request.b)].map;
        let looked = self.look(s, request.b, request.user);
        match answer::answer_by(looked, cursor, claimed, Effort::Looked, self.guards) {
            // B waits for its feed in vain, and asks Central; what that says of B itself only the feed can bring.
            Answer::Park => match central.home {
                Some(home) if home != request.b && central.epoch > request.epoch => {
                    let found = Home::At { edge: EdgeId(home), epoch: central.epoch };
                    answer::answer_by(found, cursor, claimed, Effort::Asked, self.guards)
                }
                _ => Answer::Park,
            },
            other => other,
        }
    }

    /// A, corrected, goes on, or parks for its own feed, or gives up.
    fn go_on(&self, s: &mut State, request: Request, to: Option<Edge>, epoch: u32) {
        if !answer::leads_on(epoch, request.epoch, self.guards) {
            s.bad.dead_end = true;
            s.request = None;
            return;
        }
        s.bad.retry_epoch |= epoch <= request.epoch;
        let to = to.filter(|to| *to != request.a && request.tries < 3);
        s.request = to.map(|b| Request { b, epoch, tries: request.tries + 1, ..request });
    }

    /// All cursors have passed the entry that a MOVED row points to.
    pub fn may_clean(&self, s: &State, edge: Edge, user: User) -> bool {
        let Some(Row::Moved { epoch, .. }) = s.edges[usize::from(edge)].keys[usize::from(user)].row else {
            return false;
        };
        let at = s.central.log.iter().position(
            |entry| matches!(*entry, Entry::Home { user: of, epoch: there, .. } if of == user && there >= epoch),
        );
        at.is_some_and(|at| self.edges().all(|edge| s.edges[usize::from(edge)].map > at as u64))
    }
}
