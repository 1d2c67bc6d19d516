//! What may happen next, the properties, and the healing run that stands for liveness.

use super::world::*;
use super::{U, Writes};
use coordinator::central::state::rules;
use coordinator::home::guard::Guard;
use coordinator::home::ledger::{Hold, Input, Phase, Row};
use coordinator::home::standing::{Boot, Stage, Standing};
use stateright::{Model, Property};

/// The actions, by the names that HOMES and its model give them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    Deliver(Msg),
    Feed(Edge),
    Mint(Edge, User),
    Touch(Edge, User),
    Report(Edge),
    Begin(Edge, User),
    Finish(Edge, User, Writes),
    Move(User, Edge),
    CentralAbort(User),
    SelfAbort(Edge, User),
    Crash(Edge),
    LoseMap(Edge),
    LoseLedger(Edge),
    Fence(Edge),
    Force(User, Edge),
    Unfence(Edge),
    Backup,
    Restore,
    Expire(User),
    Cleanup(Edge, User),
    Request(Edge, User),
    Attempt,
}

impl Homes {
    fn can_feed(&self, s: &State, edge: Edge) -> bool {
        let it = &s.edges[usize::from(edge)];
        let has_news = it.map < s.central.head() || it.standing.history != u64::from(s.central.office.term);
        s.central.office.is_open() && has_news
    }

    pub fn step(&self, s: &mut State, act: Act) {
        match act {
            Act::Deliver(msg) => self.deliver(s, msg),
            Act::Feed(edge) => self.feed(s, edge),
            Act::Mint(edge, user) => {
                s.minted[usize::from(user)] = true;
                self.local(s, edge, user, Input::Register);
            }
            Act::Touch(edge, user) => {
                let boot = s.edges[usize::from(edge)].standing.boot;
                s.net.insert(Msg::Claim { user, edge, boot });
            }
            Act::Begin(edge, user) => {
                s.left.writes -= 1;
                s.edges[usize::from(edge)].busy[usize::from(user)] |= 1 << s.left.writes;
            }
            Act::Finish(edge, user, bit) => self.finish(s, edge, user, bit),
            Act::SelfAbort(edge, user) => self.local(s, edge, user, Input::Overdue),
            Act::Report(edge) => self.report(s, edge),
            Act::Cleanup(edge, user) => self.local(s, edge, user, Input::Passed),
            Act::Request(edge, user) => {
                s.left.forwards -= 1;
                let (b, epoch) = self.mapped(s, edge, user).expect("requested only of who is mapped");
                let seq = s.edges[usize::from(edge)].map;
                s.request = Some(Request { user, a: edge, b, epoch, seq, tries: 1 });
            }
            Act::Attempt => self.attempt(s),
            Act::Crash(_) | Act::LoseMap(_) | Act::LoseLedger(_) | Act::Fence(_) | Act::Unfence(_) => {
                self.fail(s, act);
            }
            Act::Move(..) | Act::CentralAbort(_) | Act::Expire(_) | Act::Force(..) | Act::Backup | Act::Restore => {
                self.operate(s, act);
            }
        }
    }

    fn finish(&self, s: &mut State, edge: Edge, user: User, bit: Writes) {
        let at = usize::from(user);
        let it = &mut s.edges[usize::from(edge)];
        let (phase, epoch, was) = (it.phase(user), it.keys[at].epoch(), it.busy[at]);
        it.busy[at] &= !bit;
        it.orphan[at] &= !bit;
        it.data[at] |= bit;
        if was & bit != 0 {
            s.acked[at] |= bit;
        }
        let is_owner = matches!(phase, Phase::Owned { .. });
        let mut others =
            self.edges().filter(|other| *other != edge).map(|other| s.edges[usize::from(other)].phase(user));
        let later = others.any(|other| matches!(other, Phase::Owned { epoch: e } if e > epoch || !is_owner));
        s.bad.stray_write |= later && self.bounds.left.forces == 0;
    }

    /// Faults of edges.
    fn fail(&self, s: &mut State, act: Act) {
        match act {
            Act::Crash(edge) => {
                s.left.crashes -= 1;
                self.orphans(s, edge);
            }
            Act::LoseMap(edge) => {
                s.left.map_losses -= 1;
                self.orphans(s, edge);
                s.edges[usize::from(edge)].map = 0;
            }
            Act::LoseLedger(edge) => {
                s.left.ledger_losses -= 1;
                self.orphans(s, edge);
                let it = &mut s.edges[usize::from(edge)];
                let boot = Boot(it.standing.boot.0 + 1);
                (it.keys, it.map, it.standing) = (Default::default(), 0, Standing::fresh(boot));
                // The operator's word that the old disk is gone for good.
                s.central.crews[usize::from(edge)].replace();
            }
            Act::Fence(edge) => {
                self.orphans(s, edge);
                s.edges[usize::from(edge)].is_fenced = true;
            }
            Act::Unfence(edge) => s.edges[usize::from(edge)].is_fenced = false,
            _ => {}
        }
    }

    /// What operators and Central's own rules begin.
    fn operate(&self, s: &mut State, act: Act) {
        match act {
            Act::Move(user, to) => {
                s.left.moves -= 1;
                let mid = s.central.office.next_move(self.guards);
                self.command(s, user, rules::Input::Begin { mid, to: Some(to) });
            }
            Act::Expire(user) => {
                s.left.expiries -= 1;
                let mid = s.central.office.next_move(self.guards);
                self.command(s, user, rules::Input::Begin { mid, to: None });
            }
            Act::CentralAbort(user) => self.command(s, user, rules::Input::CallOff),
            Act::Force(user, to) => {
                s.left.forces -= 1;
                // The stated loss window.
                s.acked[usize::from(user)] &= s.edges[usize::from(to)].data[usize::from(user)];
                self.command(s, user, rules::Input::Force { to: Some(to) });
            }
            Act::Backup => s.backup = Some(Box::new(s.central.clone())),
            Act::Restore => self.restore(s),
            _ => {}
        }
    }

    fn restore(&self, s: &mut State) {
        s.left.restores -= 1;
        s.central = *s.backup.take().expect("restored only from a backup");
        s.central.office.restored(self.edges(), self.guards);
        if self.has(Guard::RestoreGate) {
            self.users().for_each(|user| self.command(s, user, rules::Input::Restored));
        }
    }

    /// The Coordinator of an edge died: its clients are gone, its origin still works on what it was sent.
    fn orphans(&self, s: &mut State, edge: Edge) {
        let it = &mut s.edges[usize::from(edge)];
        for user in 0..U {
            it.orphan[user] |= it.busy[user];
            it.busy[user] = 0;
        }
    }

    /// From this state, with everything in flight lost and all faults over: does the system come to rest with every known
    /// user owned? `abort`: every move is first called off; else every move is driven on.
    pub fn heals(&self, from: &State, abort: bool) -> bool {
        let mut s = from.clone();
        s.net.clear();
        s.request = None;
        s.left = Left::default();
        for round in 0..24 {
            self.edges().for_each(|edge| self.heal_edge(&mut s, edge, abort || round == 8));
            if abort {
                self.users().for_each(|user| self.command(&mut s, user, rules::Input::CallOff));
            }
            if self.at_rest(&s) {
                return s.bad == Bad::default() || from.bad != Bad::default();
            }
            let mut net = std::mem::take(&mut s.net);
            self.sends(&s, &mut net);
            net.into_iter().for_each(|msg| self.deliver(&mut s, msg));
        }
        false
    }

    fn heal_edge(&self, s: &mut State, edge: Edge, thaw: bool) {
        let at = usize::from(edge);
        if s.central.office.awaits(edge) {
            self.report(s, edge);
        }
        while self.can_feed(s, edge) {
            self.feed(s, edge);
        }
        let it = s.edges[at];
        if it.is_fenced && it.map == s.central.head() {
            s.edges[at].is_fenced = false;
        }
        for user in self.users() {
            let busy = it.busy[usize::from(user)] | it.orphan[usize::from(user)];
            (0..8).map(|n| 1 << n).filter(|bit| busy & bit != 0).for_each(|bit| self.finish(s, edge, user, bit));
            if thaw {
                self.local(s, edge, user, Input::Overdue);
            }
        }
    }

    /// Every user that exists is OWNED at exactly the home and epoch of Central's record, all feeds level.
    fn at_rest(&self, s: &State) -> bool {
        let is_level = |edge: Edge| {
            let it = &s.edges[usize::from(edge)];
            it.standing.stage == Stage::Ready && !self.can_feed(s, edge)
        };
        s.central.office.is_open() && self.edges().all(is_level) && self.users().all(|user| self.is_settled(s, user))
    }

    fn is_settled(&self, s: &State, user: User) -> bool {
        let at = usize::from(user);
        let record = s.central.records[at];
        let owners: Vec<Edge> = self.edges().filter(|edge| self.accepts(s, *edge, user)).collect();
        let are_done = self.edges().all(|edge| {
            let key = s.edges[usize::from(edge)].keys[at];
            key.import.is_none() && key.hold.is_none() && key.claim.is_none()
        });
        let is_owned = match record.home {
            Some(home) => {
                let row = s.edges[usize::from(home)].keys[at].row;
                owners == [home] && row == Some(Row::Owned { epoch: record.epoch })
            }
            None => owners.is_empty() && (record.epoch > 0 || s.acked[at] == 0),
        };
        record.moving.is_none() && are_done && is_owned
    }

    fn user_acts(&self, s: &State, user: User, out: &mut Vec<Act>) {
        let record = s.central.records[usize::from(user)];
        if !s.central.office.is_open() {
            return;
        }
        if let (Some(home), None) = (record.home, record.moving) {
            if s.left.moves > 0 {
                out.extend(self.edges().filter(|to| *to != home).map(|to| Act::Move(user, to)));
            }
            out.extend((s.left.expiries > 0).then_some(Act::Expire(user)));
        }
        out.extend(record.moving.is_some_and(|moving| !moving.is_off).then_some(Act::CentralAbort(user)));
        if let Some(home) = record.home.filter(|home| s.left.forces > 0 && s.edges[usize::from(*home)].is_fenced) {
            let free = self.edges().filter(|to| *to != home && !s.edges[usize::from(*to)].is_fenced);
            out.extend(free.map(|to| Act::Force(user, to)));
        }
    }

    fn edge_acts(&self, s: &State, edge: Edge, out: &mut Vec<Act>) {
        let it = &s.edges[usize::from(edge)];
        let is_ready = it.standing.stage == Stage::Ready;
        out.extend(self.can_feed(s, edge).then_some(Act::Feed(edge)));
        out.extend(s.central.office.awaits(edge).then_some(Act::Report(edge)));
        self.users().for_each(|user| self.key_acts(s, edge, user, out));
        out.extend((s.left.crashes > 0).then_some(Act::Crash(edge)));
        out.extend((s.left.map_losses > 0 && it.map > 0).then_some(Act::LoseMap(edge)));
        out.extend((s.left.ledger_losses > 0 && is_ready).then_some(Act::LoseLedger(edge)));
        let owns = s.central.records.iter().any(|record| record.home == Some(edge));
        out.extend((s.left.forces > 0 && !it.is_fenced && owns).then_some(Act::Fence(edge)));
        let has_seen = !self.has(Guard::FenceUntilSeen) || it.map == s.central.head();
        out.extend((it.is_fenced && s.left.forces == 0 && has_seen).then_some(Act::Unfence(edge)));
    }

    fn key_acts(&self, s: &State, edge: Edge, user: User, out: &mut Vec<Act>) {
        let (it, at) = (&s.edges[usize::from(edge)], usize::from(user));
        let key = it.keys[at];
        let is_unknown =
            matches!(key.phase(), Phase::None | Phase::Gone { .. }) && self.mapped(s, edge, user).is_none();
        if is_unknown && it.standing.stage == Stage::Ready && !it.is_fenced {
            out.extend((self.bounds.first_touch || !self.has(Guard::MinterOnly)).then_some(Act::Touch(edge, user)));
            let is_minter = !self.bounds.first_touch && self.minter(user) == edge && !s.minted[at];
            out.extend(is_minter.then_some(Act::Mint(edge, user)));
        }
        out.extend((s.left.writes > 0 && self.accepts(s, edge, user)).then_some(Act::Begin(edge, user)));
        let busy = it.busy[at] | it.orphan[at];
        out.extend((0..8).map(|n| 1 << n).filter(|bit| busy & bit != 0).map(|bit| Act::Finish(edge, user, bit)));
        out.extend(matches!(key.hold, Some(Hold::Frozen { .. })).then_some(Act::SelfAbort(edge, user)));
        out.extend((self.bounds.cleanup && self.may_clean(s, edge, user)).then_some(Act::Cleanup(edge, user)));
        let is_elsewhere = self.mapped(s, edge, user).is_some_and(|(home, _)| home != edge);
        let may_ask = s.left.forwards > 0 && s.request.is_none() && !self.accepts(s, edge, user) && is_elsewhere;
        out.extend(may_ask.then_some(Act::Request(edge, user)));
    }

    /// History, for the properties.
    fn note(&self, old: &State, s: &mut State, act: Act) {
        let is_lost = matches!(act, Act::LoseLedger(_) | Act::Cleanup(..));
        for user in self.users() {
            for edge in self.edges() {
                let at = usize::from(user);
                let (was, is) = (old.edges[usize::from(edge)].keys[at], s.edges[usize::from(edge)].keys[at]);
                s.bad.epoch_back |= is.epoch() < was.epoch() && !is_lost;
                if let (true, Phase::Owned { epoch }) = (self.accepts(s, edge, user), is.phase()) {
                    let acceptor = &mut s.acceptor[at][epoch as usize & 7];
                    s.bad.two_per_epoch |= acceptor.is_some_and(|other| other != edge);
                    *acceptor = Some(edge);
                }
            }
        }
    }
}

impl Model for Homes {
    type State = State;
    type Action = Act;

    fn init_states(&self) -> Vec<State> {
        vec![self.init()]
    }

    fn actions(&self, s: &State, out: &mut Vec<Act>) {
        // No need to look beyond a violation.
        if s.bad != Bad::default() {
            return;
        }
        out.extend(s.net.iter().map(|msg| Act::Deliver(*msg)));
        self.users().for_each(|user| self.user_acts(s, user, out));
        self.edges().for_each(|edge| self.edge_acts(s, edge, out));
        if s.left.restores > 0 {
            out.push(if s.backup.is_none() { Act::Backup } else { Act::Restore });
        }
        out.extend(s.request.is_some().then_some(Act::Attempt));
    }

    fn next_state(&self, old: &State, act: Act) -> Option<State> {
        let mut s = old.clone();
        self.step(&mut s, act);
        let mut net = std::mem::take(&mut s.net);
        self.sends(&s, &mut net);
        s.net = net;
        self.note(old, &mut s, act);
        (s != *old).then_some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::always("I1 at most one edge accepts", |m: &Self, s: &State| {
                m.users().all(|user| m.edges().filter(|edge| m.accepts(s, *edge, user)).count() <= 1)
            }),
            Property::always("I1 one acceptor per epoch", |_: &Self, s: &State| !s.bad.two_per_epoch),
            Property::always("I1 no write lands after the next owner began", |_: &Self, s: &State| !s.bad.stray_write),
            Property::always("I2 no acknowledged write lost", |m: &Self, s: &State| {
                m.users().all(|user| {
                    let mut owners = m.edges().filter(|edge| m.accepts(s, *edge, user));
                    let at = usize::from(user);
                    owners.all(|edge| s.acked[at] & !s.edges[usize::from(edge)].data[at] == 0)
                })
            }),
            Property::always("I4 epochs never go back", |m: &Self, s: &State| {
                let rises = |user| grants(s, user).collect::<Vec<_>>().is_sorted_by(|a, b| a.1 < b.1);
                !s.bad.epoch_back && m.users().all(rises)
            }),
            Property::always("I5 one grant per key", |m: &Self, s: &State| {
                m.users().all(|user| {
                    let first: Vec<Edge> =
                        grants(s, user).filter(|(_, epoch)| *epoch == 1).filter_map(|it| it.0).collect();
                    first.len() <= 1 && (m.bounds.first_touch || first.iter().all(|edge| *edge == m.minter(user)))
                })
            }),
            Property::always("I6 every retry has a greater epoch", |_: &Self, s: &State| !s.bad.retry_epoch),
            Property::always("I6 no dead end while the owner lives", |_: &Self, s: &State| !s.bad.dead_end),
            Property::sometimes("a write is acknowledged", |m: &Self, s: &State| {
                m.bounds.left.writes == 0 || s.acked.iter().any(|acked| *acked != 0)
            }),
            Property::sometimes("an epoch above the first", |m: &Self, s: &State| {
                let left = m.bounds.left;
                left.moves + left.forces + left.expiries == 0
                    || m.users().any(|user| grants(s, user).any(|it| it.1 > 1))
            }),
        ];
        if !self.safety_only {
            all.push(Property::always("I12 heals, moves driven on", |m: &Self, s: &State| m.heals(s, false)));
            all.push(Property::always("I12 heals, moves called off", |m: &Self, s: &State| m.heals(s, true)));
        }
        all
    }
}

/// All grants of a user in the log.
fn grants(s: &State, user: User) -> impl Iterator<Item = (Option<Edge>, u32)> + '_ {
    s.central.log.iter().filter_map(move |entry| match *entry {
        Entry::Home { user: of, grant, epoch } if of == user => Some((grant, epoch)),
        _ => None,
    })
}
