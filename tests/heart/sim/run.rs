//! The executor: a queue of events in virtual time, and what each does to the world.

use super::requests::Asking;
use super::world::*;
use super::{E, U, Writes};
use coordinator::central::state::rules;
use coordinator::home::cursor::{Coverage, Cursor};
use coordinator::home::guard::{Guard, Guards};
use coordinator::home::ledger::{Hold, Input, Phase};
use coordinator::home::standing::{Stage, Standing};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Milliseconds of faults, and then of calm in which all must come to rest (HOMES I9).
const STORMY: u64 = 2_500;
const CALM: u64 = 5_000;
/// How often processes say again what they owe, and Central looks what it may send.
const SAY: u64 = 40;
const PUSH: u64 = 25;
/// How much of the story is kept for a failure.
const TOLD: usize = 40;
/// Where Central stands among the places of the network.
pub const CENTRAL: usize = E;

/// SplitMix64.
pub struct Dice(u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }

    pub fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

/// What happens at a moment. `life` counts the processes of an edge: what an earlier one had begun ends with it.
#[derive(Debug, Clone)]
pub enum Event {
    Arrive(Msg),
    Say,
    Push,
    Fsync,
    Follow { edge: Edge, from: u64 },
    Batch { edge: Edge, term: u32, first: u64, last: u64 },
    Ledger { edge: Edge, life: u64, first: u64, last: u64 },
    Map { edge: Edge, life: u64, first: u64, last: u64 },
    Minted { edge: Edge, life: u64, user: User },
    Ask,
    Try(Asking),
    Finish { edge: Edge, user: User, bit: Writes },
    Fault,
}

/// What has happened, so that a run that tested nothing is noticed.
#[derive(Debug, Default)]
pub struct Story {
    pub writes: u64,
    pub reads: u64,
    pub forwards: u64,
    pub corrections: u64,
    pub refusals: u64,
    pub moves: u64,
    pub gaps: u64,
    pub torn: u64,
    pub crashes: u64,
    pub central_crashes: u64,
    pub lost_maps: u64,
    pub lost_ledgers: u64,
    pub restores: u64,
    pub takeovers: u64,
    pub cuts: u64,
    pub jumps: u64,
    pub grants: u64,
}

impl Story {
    fn counts(&self) -> [u64; 17] {
        [
            self.writes,
            self.reads,
            self.forwards,
            self.corrections,
            self.refusals,
            self.moves,
            self.gaps,
            self.torn,
            self.crashes,
            self.central_crashes,
            self.lost_maps,
            self.lost_ledgers,
            self.restores,
            self.takeovers,
            self.cuts,
            self.jumps,
            self.grants,
        ]
    }

    pub fn add(&mut self, other: &Story) {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q] = other.counts();
        self.writes += a;
        self.reads += b;
        self.forwards += c;
        self.corrections += d;
        self.refusals += e;
        self.moves += f;
        self.gaps += g;
        self.torn += h;
        self.crashes += i;
        self.central_crashes += j;
        self.lost_maps += k;
        self.lost_ledgers += l;
        self.restores += m;
        self.takeovers += n;
        self.cuts += o;
        self.jumps += p;
        self.grants += q;
    }

    /// Whether everything has happened at least once in twenty runs.
    pub fn is_rich(&self, runs: u64) -> bool {
        self.counts().iter().all(|count| *count >= runs / 20)
    }
}

/// An edge's process, beside what is durable.
#[derive(Debug, Clone, Default)]
pub struct Process {
    pub life: u64,
    pub down_until: u64,
    /// Up to where batches have been taken, durable or on their way to the disk.
    pub taken: u64,
    pub is_writing: bool,
    /// Without `DurableFirst`: the rows before the last batch, which a crash brings back.
    pub unsynced: Option<[coordinator::home::ledger::State; U]>,
}

pub struct Sim {
    pub homes: Homes,
    pub s: State,
    pub dice: Dice,
    pub now: u64,
    pub story: Story,
    pub processes: [Process; E],
    /// Central as it is on disk; `s.central` may be ahead by what is not synced yet.
    pub synced: Central,
    /// What Central says once that is synced.
    pub held: Vec<Msg>,
    pub central_down_until: u64,
    pub copy: Option<Central>,
    /// Up to when nothing gets from one place to another.
    pub cuts: [[u64; E + 1]; E + 1],
    pub forced: [bool; U],
    /// Users whose registration was answered.
    pub answered: [bool; U],
    pub next_bit: [u32; U],
    pub is_stormy: bool,
    queue: BTreeMap<(u64, u64), Event>,
    number: u64,
    sent: [u64; E],
    /// Whether a write to Central's disk is on its way.
    is_syncing: bool,
    acceptors: HashMap<(User, u32), Edge>,
    highest: [[u32; U]; E],
    told: VecDeque<String>,
}

/// Why a run failed.
pub type Outcome = Result<(), String>;

impl Sim {
    pub fn new(seed: u64, guards: Guards) -> Sim {
        let mut dice = Dice(seed);
        let edges = 3 + dice.roll(3) as usize;
        let first_touch = dice.one_in(3);
        let bounds = Bounds { edges, users: U, first_touch, left: Left::default(), cleanup: true };
        let homes = Homes { bounds, guards, safety_only: true };
        let s = homes.init();
        let synced = s.central.clone();
        Sim {
            homes,
            s,
            dice,
            now: 0,
            story: Story::default(),
            processes: Default::default(),
            synced,
            held: vec![],
            central_down_until: 0,
            copy: None,
            cuts: [[0; E + 1]; E + 1],
            forced: [false; U],
            answered: [false; U],
            next_bit: [0; U],
            is_stormy: true,
            queue: BTreeMap::new(),
            number: 0,
            sent: [0; E],
            is_syncing: false,
            acceptors: HashMap::new(),
            highest: [[0; U]; E],
            told: VecDeque::new(),
        }
    }

    /// Errors: the invariant that was violated.
    pub fn run(&mut self) -> Outcome {
        for first in [Event::Say, Event::Push, Event::Ask, Event::Fault] {
            self.later(1, first);
        }
        while let Some(((at, _), event)) = self.queue.pop_first() {
            if at > STORMY + CALM {
                break;
            }
            self.now = at;
            if self.is_stormy && at > STORMY {
                self.calm();
            }
            self.tell(&event);
            let head = self.s.central.head();
            self.happen(event)?;
            for seq in head..self.s.central.head() {
                self.note(format!("entry {}: {:?}", seq + 1, self.s.central.log[seq as usize]));
            }
            self.check()?;
        }
        self.has_settled()
    }

    /// The last events, for people.
    pub fn told(&self) -> String {
        Vec::from_iter(self.told.iter().cloned()).join("\n")
    }

    fn tell(&mut self, event: &Event) {
        if matches!(event, Event::Say | Event::Push | Event::Ask | Event::Fault) {
            return;
        }
        self.note(format!("{event:?}"));
    }

    pub fn note(&mut self, what: String) {
        if self.told.len() == TOLD && std::env::var_os("HEART_SEED").is_none() {
            self.told.pop_front();
        }
        self.told.push_back(format!("{:>6} {what}", self.now));
    }

    pub fn later(&mut self, wait: u64, event: Event) {
        self.number += 1;
        self.queue.insert((self.now + wait, self.number), event);
    }

    /// Sends something from place to place: it comes late, twice, or never. False if the link is cut.
    pub fn send(&mut self, from: usize, to: usize, event: Event) -> bool {
        if self.cuts[from][to] > self.now {
            return false;
        }
        if self.is_stormy && self.dice.one_in(12) {
            return true;
        }
        if self.is_stormy && self.dice.one_in(20) {
            let late = 1 + self.dice.roll(300);
            self.later(late, event.clone());
        }
        let spread = if self.dice.one_in(10) { 120 } else { 20 };
        let wait = 1 + self.dice.roll(spread);
        self.later(wait, event);
        true
    }

    pub fn is_up(&self, edge: Edge) -> bool {
        self.processes[usize::from(edge)].down_until <= self.now
    }

    pub fn is_central_up(&self) -> bool {
        self.central_down_until <= self.now
    }

    fn has(&self, guard: Guard) -> bool {
        self.homes.guards.has(guard)
    }

    /// What Central shows: what is on its disk.
    pub fn shown(&self) -> &Central {
        if self.has(Guard::PublishDurable) { &self.synced } else { &self.s.central }
    }

    fn happen(&mut self, event: Event) -> Outcome {
        match event {
            Event::Arrive(msg) => self.arrive(msg),
            Event::Say => self.say(),
            Event::Push => self.push(),
            Event::Fsync => self.fsync(),
            Event::Follow { edge, from } if self.is_central_up() => self.sent[usize::from(edge)] = from,
            Event::Batch { edge, term, first, last } if self.is_up(edge) => self.batch(edge, term, first, last),
            Event::Ledger { edge, life, first, last } if self.lives(edge, life) => self.ledger(edge, first, last),
            Event::Map { edge, life, first, last } if self.lives(edge, life) => self.map(edge, first, last),
            Event::Minted { edge, life, user } if self.lives(edge, life) => self.minted(edge, user),
            Event::Ask => self.ask()?,
            Event::Try(asking) => self.attempt(asking)?,
            Event::Finish { edge, user, bit } => self.finish(edge, user, bit)?,
            Event::Fault => self.fault(),
            _ => {}
        }
        Ok(())
    }

    fn lives(&self, edge: Edge, life: u64) -> bool {
        self.is_up(edge) && self.processes[usize::from(edge)].life == life
    }

    /// From whom to whom a message goes.
    fn link(&self, msg: &Msg) -> (usize, usize) {
        let home = |user: User| self.s.central.records[usize::from(user)].home.map_or(CENTRAL, usize::from);
        match *msg {
            Msg::Register { edge, .. }
            | Msg::Claim { edge, .. }
            | Msg::Receipt { edge, .. }
            | Msg::NotReleased { edge, .. } => (usize::from(edge), CENTRAL),
            Msg::Registered { edge, .. }
            | Msg::ImportCommand { edge, .. }
            | Msg::Freeze { edge, .. }
            | Msg::Abort { edge, .. }
            | Msg::NotCurrent { edge, .. }
            | Msg::Denied { edge, .. } => (CENTRAL, usize::from(edge)),
            Msg::Export { user, mid, .. } => (home(user), self.importer(user, mid).unwrap_or(CENTRAL)),
            Msg::Verified { user, mid, to } => (self.importer(user, mid).unwrap_or(CENTRAL), usize::from(to)),
        }
    }

    fn importer(&self, user: User, mid: coordinator::home::ledger::MoveId) -> Option<usize> {
        let imports = |it: &EdgeState| it.keys[usize::from(user)].import.is_some_and(|import| import.mid == mid);
        self.s.edges.iter().position(imports)
    }

    fn arrive(&mut self, msg: Msg) {
        let (from, to) = self.link(&msg);
        let is_there = if to == CENTRAL { self.is_central_up() } else { self.is_up(to as Edge) };
        // The data of a move comes from a living process; all else may have been on its way.
        let is_sent = !matches!(msg, Msg::Export { .. }) || from == CENTRAL || self.is_up(from as Edge);
        if !is_there || !is_sent {
            return;
        }
        // The one writer of an edge takes it between batches: a ledger that became complete in the middle of one would
        // have passed over its first part (seed 257 showed it).
        if matches!(msg, Msg::Registered { edge, .. } if self.processes[usize::from(edge)].is_writing) {
            return;
        }
        let before = self.s.central.head();
        self.homes.deliver(&mut self.s, msg);
        self.story.grants += self.s.central.head() - before;
        let said: Vec<Msg> = std::mem::take(&mut self.s.net).into_iter().collect();
        for msg in said {
            let (from, to) = self.link(&msg);
            if from == CENTRAL && self.has(Guard::PublishDurable) {
                self.held.push(msg);
            } else {
                self.send(from, to, Event::Arrive(msg));
            }
        }
        self.sync_later();
    }

    pub fn sync_later(&mut self) {
        if !self.is_syncing {
            self.is_syncing = true;
            self.later(2, Event::Fsync);
        }
    }

    /// What Central decided is on its disk; now it may be said.
    fn fsync(&mut self) {
        self.is_syncing = false;
        if !self.is_central_up() {
            return;
        }
        if self.synced != self.s.central {
            self.synced = self.s.central.clone();
        }
        for msg in std::mem::take(&mut self.held) {
            let (from, to) = self.link(&msg);
            self.send(from, to, Event::Arrive(msg));
        }
    }

    /// All that processes owe is said again, or some of it.
    fn say(&mut self) {
        self.later(SAY, Event::Say);
        let mut net = std::collections::BTreeSet::new();
        let shown = self.shown().clone();
        let ahead = std::mem::replace(&mut self.s.central, shown);
        self.homes.sends(&self.s, &mut net);
        self.s.central = ahead;
        for msg in net {
            let (from, to) = self.link(&msg);
            let is_there = if from == CENTRAL { self.is_central_up() } else { self.is_up(from as Edge) };
            if is_there && !self.dice.one_in(3) {
                self.send(from, to, Event::Arrive(msg));
            }
        }
        for edge in self.homes.edges() {
            self.say_of(edge);
        }
    }

    /// What an edge does from time to time: report, follow, thaw, forget.
    fn say_of(&mut self, edge: Edge) {
        let at = usize::from(edge);
        if !self.is_up(edge) {
            return;
        }
        let can_speak = self.cuts[at][CENTRAL] <= self.now && self.cuts[CENTRAL][at] <= self.now;
        if self.s.central.office.awaits(edge) && self.is_central_up() && can_speak {
            self.note(format!("edge {edge} reports"));
            self.homes.report(&mut self.s, edge);
            self.sync_later();
        }
        if self.dice.one_in(6) {
            let from = self.processes[at].taken;
            self.send(at, CENTRAL, Event::Follow { edge, from });
        }
        for user in self.homes.users() {
            let is_frozen = matches!(self.s.edges[at].keys[usize::from(user)].hold, Some(Hold::Frozen { .. }));
            if is_frozen && self.dice.one_in(30) {
                self.homes.local(&mut self.s, edge, user, Input::Overdue);
            }
            if self.dice.one_in(10) && self.homes.may_clean(&self.s, edge, user) {
                self.homes.local(&mut self.s, edge, user, Input::Passed);
            }
        }
        let it = &mut self.s.edges[at];
        if it.is_fenced
            && it.map == self.s.central.head()
            && it.standing.history == u64::from(self.s.central.office.term)
        {
            it.is_fenced = false;
        }
    }

    /// Central sends each edge what comes next.
    fn push(&mut self) {
        self.later(PUSH, Event::Push);
        if !self.is_central_up() || !self.shown().office.is_open() {
            return;
        }
        for edge in self.homes.edges() {
            let at = usize::from(edge);
            let (head, term) = (self.shown().head(), self.shown().office.term);
            self.sent[at] = self.sent[at].min(head);
            let last = (self.sent[at] + 1 + self.dice.roll(4)).min(head);
            let first = self.sent[at] + 1;
            // An empty batch is a heartbeat, by which an edge learns of a new term.
            if self.send(CENTRAL, at, Event::Batch { edge, term, first, last }) {
                self.sent[at] = last;
            }
        }
    }

    fn batch(&mut self, edge: Edge, term: u32, first: u64, last: u64) {
        let at = usize::from(edge);
        if term != self.s.central.office.term || !self.s.central.office.is_open() {
            return;
        }
        if self.s.edges[at].standing.history != u64::from(term) {
            if !self.processes[at].is_writing {
                self.homes.new_history(&mut self.s, edge);
                self.processes[at].taken = 0;
                self.send(at, CENTRAL, Event::Follow { edge, from: 0 });
            }
            return;
        }
        let cursor = Cursor { feed: None, term: u64::from(term), seq: self.processes[at].taken, chain: 0 };
        let coverage = cursor.coverage(first, last);
        if coverage == Coverage::Known || self.processes[at].is_writing || last > self.s.central.head() {
            return;
        }
        if coverage == Coverage::Gap {
            self.story.gaps += 1;
            if self.has(Guard::NoGaps) {
                let from = self.processes[at].taken;
                self.send(at, CENTRAL, Event::Follow { edge, from });
                return;
            }
        }
        let first = if coverage == Coverage::Gap { first } else { self.processes[at].taken + 1 };
        let (life, wait) = (self.processes[at].life, 1 + self.dice.roll(6));
        self.processes[at].is_writing = true;
        let is_ordered = self.has(Guard::LedgerBeforeMap);
        let next =
            if is_ordered { Event::Ledger { edge, life, first, last } } else { Event::Map { edge, life, first, last } };
        self.later(wait, next);
    }

    /// Whether a batch on its way to the disk belongs to a history that is no more.
    fn is_void(&mut self, edge: Edge, last: u64) -> bool {
        let at = usize::from(edge);
        let is_other = self.s.edges[at].standing.history != u64::from(self.s.central.office.term);
        let is_void = is_other || last > self.s.central.head();
        self.processes[at].is_writing &= !is_void;
        is_void
    }

    /// The ledger's rows of a batch are on the disk, or some of them if the power fails meanwhile.
    fn ledger(&mut self, edge: Edge, first: u64, last: u64) {
        let at = usize::from(edge);
        if self.is_void(edge, last) {
            return;
        }
        if !self.has(Guard::DurableFirst) {
            self.processes[at].unsynced = Some(self.s.edges[at].keys);
        }
        if self.is_stormy && self.dice.one_in(40) {
            let standing = self.s.edges[at].standing;
            let part = first + self.dice.roll(last - first + 1);
            (first..part).for_each(|seq| self.homes.ledger_takes(&mut self.s, edge, seq));
            // The mark moves with the last frame only.
            self.s.edges[at].standing = standing;
            self.story.torn += 1;
            self.crash(edge);
            return;
        }
        (first..=last).for_each(|seq| self.homes.ledger_takes(&mut self.s, edge, seq));
        let (life, wait) = (self.processes[at].life, 1 + self.dice.roll(6));
        if self.has(Guard::LedgerBeforeMap) {
            self.later(wait, Event::Map { edge, life, first, last });
        } else {
            self.processes[at].is_writing = false;
        }
    }

    /// The map's rows of a batch are on the disk, with the cursor.
    fn map(&mut self, edge: Edge, first: u64, last: u64) {
        let at = usize::from(edge);
        if self.is_void(edge, last) {
            return;
        }
        self.homes.map_takes(&mut self.s, edge, last);
        self.processes[at].taken = last;
        let (life, wait) = (self.processes[at].life, 1 + self.dice.roll(6));
        if self.has(Guard::LedgerBeforeMap) {
            self.processes[at].is_writing = false;
        } else {
            self.later(wait, Event::Ledger { edge, life, first, last });
        }
    }

    /// A registration is on the edge's disk with its outbox entry: it is served, and answered.
    fn minted(&mut self, edge: Edge, user: User) {
        self.homes.local(&mut self.s, edge, user, Input::Register);
        self.answered[usize::from(user)] = true;
    }

    /// A write lands at the origin.
    fn finish(&mut self, edge: Edge, user: User, bit: Writes) -> Outcome {
        let (at, of) = (usize::from(edge), usize::from(user));
        let it = &mut self.s.edges[at];
        let is_acked = it.busy[of] & bit != 0;
        let (epoch, is_fenced) = (it.keys[of].epoch(), it.is_fenced);
        it.busy[of] &= !bit;
        it.orphan[of] &= !bit;
        it.data[of] |= bit;
        if is_acked {
            self.s.acked[of] |= bit;
        }
        let newer = |other: Edge| match self.s.edges[usize::from(other)].phase(user) {
            Phase::Owned { epoch: theirs } => {
                other != edge && theirs > epoch && self.s.edges[usize::from(other)].standing.stage == Stage::Ready
            }
            _ => false,
        };
        let excused = is_fenced || self.forced[of];
        match self.homes.edges().find(|other| newer(*other)) {
            Some(other) if !excused && epoch > 0 => {
                Err(format!("I1: a write of {user} landed at {edge} after {other} became the owner"))
            }
            _ => Ok(()),
        }
    }

    /// What must hold after every event.
    fn check(&mut self) -> Outcome {
        for user in self.homes.users() {
            let of = usize::from(user);
            let owners: Vec<Edge> =
                self.homes.edges().filter(|edge| self.homes.accepts(&self.s, *edge, user)).collect();
            if owners.len() > 1 {
                return Err(format!("I1: {user} is accepted by {owners:?}"));
            }
            for edge in owners {
                let it = &self.s.edges[usize::from(edge)];
                let lost = self.s.acked[of] & !it.data[of];
                if lost != 0 {
                    return Err(format!("I2: {user} at {edge} misses acknowledged writes {lost:b}"));
                }
                if let Phase::Owned { epoch } = it.phase(user) {
                    let first = *self.acceptors.entry((user, epoch)).or_insert(edge);
                    if first != edge {
                        return Err(format!("I1: {user} was accepted at epoch {epoch} by {first} and by {edge}"));
                    }
                }
            }
        }
        self.check_epochs()
    }

    fn check_epochs(&mut self) -> Outcome {
        for edge in self.homes.edges() {
            for user in self.homes.users() {
                let highest = &mut self.highest[usize::from(edge)][usize::from(user)];
                match self.s.edges[usize::from(edge)].keys[usize::from(user)].epoch() {
                    // Cleaned away.
                    0 => {}
                    epoch if epoch < *highest => {
                        return Err(format!("I4: {edge} went back from epoch {highest} of {user} to {epoch}"));
                    }
                    epoch => *highest = epoch,
                }
            }
        }
        Ok(())
    }

    /// Its disk is gone, and with it what an edge remembers of epochs.
    pub fn forget(&mut self, edge: Edge) {
        self.highest[usize::from(edge)] = [0; U];
    }

    /// Nothing fails any more, and nothing new begins.
    fn calm(&mut self) {
        self.is_stormy = false;
        self.cuts = [[0; E + 1]; E + 1];
        self.central_down_until = 0;
        self.processes.iter_mut().for_each(|process| process.down_until = 0);
        self.note("calm".to_owned());
    }

    /// I9 and I12: all feeds level, every user owned where Central says, nothing left over.
    fn has_settled(&self) -> Outcome {
        for edge in self.homes.edges() {
            let it = &self.s.edges[usize::from(edge)];
            if it.standing.stage != Stage::Ready || it.map != self.s.central.head() {
                return Err(format!(
                    "I9: edge {edge} is at {} of {}, {:?}",
                    it.map,
                    self.s.central.head(),
                    it.standing
                ));
            }
        }
        for user in self.homes.users() {
            let record = self.s.central.records[usize::from(user)];
            let owners: Vec<Edge> =
                self.homes.edges().filter(|edge| self.homes.accepts(&self.s, *edge, user)).collect();
            if owners != Vec::from_iter(record.home) || record.moving.is_some() {
                return Err(format!("I12: Central has {user} as {record:?}; accepted by {owners:?}"));
            }
            if self.answered[usize::from(user)] && record.home.is_none() {
                return Err(format!("I2: {user} was registered, and is nobody's"));
            }
            for edge in self.homes.edges() {
                let key = self.s.edges[usize::from(edge)].keys[usize::from(user)];
                if key.import.is_some()
                    || key.hold.is_some()
                    || key.claim == Some(coordinator::home::ledger::Claim::Waiting)
                {
                    return Err(format!("I12: {user} is left at {edge} as {key:?}"));
                }
            }
        }
        Ok(())
    }

    /// Central begins a move, or calls one off.
    pub fn move_one(&mut self) {
        let user = self.dice.roll(U as u64) as User;
        let record = self.s.central.records[usize::from(user)];
        if !self.is_central_up() || !self.s.central.office.is_open() {
            return;
        }
        let to = self.dice.roll(self.homes.bounds.edges as u64) as Edge;
        match record.moving {
            Some(_) if self.dice.one_in(3) => self.homes.command(&mut self.s, user, rules::Input::CallOff),
            None if record.home.is_some() && record.home != Some(to) => {
                let mid = self.s.central.office.next_move(self.homes.guards);
                self.story.moves += 1;
                self.note(format!("move {user} to {to}: {mid:?}"));
                self.homes.command(&mut self.s, user, rules::Input::Begin { mid, to: Some(to) });
            }
            _ => return,
        }
        self.sync_later();
    }

    /// A fresh disk.
    pub fn fresh(&mut self, edge: Edge) {
        let it = &mut self.s.edges[usize::from(edge)];
        let boot = coordinator::home::standing::Boot(it.standing.boot.0 + 1);
        (it.keys, it.map, it.standing) = (Default::default(), 0, Standing::fresh(boot));
    }
}
