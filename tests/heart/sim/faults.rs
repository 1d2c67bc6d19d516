//! What fails: links, processes, disks, clocks, Central, whole edges.

use super::U;
use super::run::{CENTRAL, Event, Sim};
use super::world::*;
use coordinator::central::state::rules;
use coordinator::home::guard::Guard;
use coordinator::home::ledger::Input;
use coordinator::home::standing::Stage;

/// Milliseconds between faults, at most.
const FAULT: u64 = 60;

impl Sim {
    /// Something fails, or somebody begins a move.
    pub fn fault(&mut self) {
        let wait = 1 + self.dice.roll(FAULT);
        self.later(wait, Event::Fault);
        if !self.is_stormy {
            return;
        }
        let edge = self.dice.roll(self.homes.bounds.edges as u64) as Edge;
        match self.dice.roll(40) {
            0..18 => self.move_one(),
            18..24 => self.cut(),
            24..29 => self.crash(edge),
            29 => self.lose_map(edge),
            30..32 => self.lose_ledger(edge),
            32..34 => self.crash_central(),
            34..36 => self.jump(edge),
            36 => self.copy = Some(self.synced.clone()),
            37 => self.restore(),
            38 => self.take_over(edge),
            _ => {}
        }
    }

    /// One direction, or both, between two places.
    fn cut(&mut self) {
        self.story.cuts += 1;
        let places = self.homes.bounds.edges as u64 + 1;
        let place = |n: u64| if n + 1 == places { CENTRAL } else { n as usize };
        let (a, b) = (place(self.dice.roll(places)), place(self.dice.roll(places)));
        let until = self.now + 20 + self.dice.roll(600);
        self.cuts[a][b] = until;
        if self.dice.one_in(2) {
            self.cuts[b][a] = until;
        }
        self.note(format!("cut {a} to {b} until {until}"));
    }

    /// The process ends at once. What it had not made durable is gone; its origin works on.
    pub fn crash(&mut self, edge: Edge) {
        let at = usize::from(edge);
        self.story.crashes += 1;
        self.note(format!("crash {edge}"));
        let down_until = self.now + 1 + self.dice.roll(150);
        let process = &mut self.processes[at];
        process.life += 1;
        process.down_until = process.down_until.max(down_until);
        process.is_writing = false;
        if let Some(keys) = process.unsynced.take() {
            self.s.edges[at].keys = keys;
        }
        let it = &mut self.s.edges[at];
        for user in 0..U {
            it.orphan[user] |= std::mem::take(&mut it.busy[user]);
        }
        self.processes[at].taken = self.s.edges[at].map;
    }

    fn lose_map(&mut self, edge: Edge) {
        self.crash(edge);
        self.story.lost_maps += 1;
        self.s.edges[usize::from(edge)].map = 0;
        self.processes[usize::from(edge)].taken = 0;
    }

    /// The operator gives the word that goes with it.
    fn lose_ledger(&mut self, edge: Edge) {
        // A home that only this disk and a lost tail of Central's log knew is forgotten: not one fault, but two.
        if self.s.edges[usize::from(edge)].standing.stage != Stage::Ready || !self.s.central.office.is_open() {
            return;
        }
        self.crash(edge);
        self.story.lost_ledgers += 1;
        self.note(format!("the disk of {edge} is lost"));
        // In the registration regime a user whom nobody but this disk knew is found again by what the origin holds. One
        // without any data there is not: the origin's own record of a registration is that data.
        for user in self.homes.users() {
            let key = self.s.edges[usize::from(edge)].keys[usize::from(user)];
            if key.claim.is_some() && self.s.edges[usize::from(edge)].data[usize::from(user)] == 0 {
                self.answered[usize::from(user)] = false;
            }
        }
        self.fresh(edge);
        self.forget(edge);
        self.processes[usize::from(edge)].taken = 0;
        self.s.central.crews[usize::from(edge)].replace();
        self.sync_later();
    }

    /// Central's process ends: what it had decided and not synced was never said.
    fn crash_central(&mut self) {
        self.story.central_crashes += 1;
        self.note("crash of Central".to_owned());
        self.s.central = self.synced.clone();
        self.held.clear();
        self.central_down_until = self.now + 20 + self.dice.roll(200);
        // A word that was given while it was down is given again.
        for edge in self.homes.edges() {
            if self.s.edges[usize::from(edge)].standing.stage != Stage::Ready {
                self.s.central.crews[usize::from(edge)].replace();
            }
        }
        self.synced = self.s.central.clone();
    }

    /// The wall clock of an edge leaps: every freeze is overdue at once.
    fn jump(&mut self, edge: Edge) {
        self.story.jumps += 1;
        self.homes.users().for_each(|user| self.homes.local(&mut self.s, edge, user, Input::Overdue));
    }

    /// Central comes back from the copy. Registrations of disks that were lost since are void; the word is given again.
    fn restore(&mut self) {
        let all_whole = self.homes.edges().all(|edge| self.s.edges[usize::from(edge)].standing.stage == Stage::Ready);
        if !self.s.central.office.is_open() || !all_whole {
            return;
        }
        let Some(copy) = self.copy.take() else { return };
        self.story.restores += 1;
        self.note("Central is restored".to_owned());
        // The copy may be of an earlier term.
        let term = self.s.central.office.term;
        self.s.central = copy;
        while self.homes.guards.has(Guard::RestoreGate) && self.s.central.office.term <= term {
            self.s.central.office.restored(self.homes.edges(), self.homes.guards);
        }
        self.homes.users().for_each(|user| self.homes.command(&mut self.s, user, rules::Input::Restored));
        self.synced = self.s.central.clone();
        self.held.clear();
    }

    /// An edge is fenced, and its users are forced elsewhere, at the price that is stated.
    fn take_over(&mut self, edge: Edge) {
        if !self.is_central_up() || !self.s.central.office.is_open() {
            return;
        }
        let to = self.dice.roll(self.homes.bounds.edges as u64) as Edge;
        let owned: Vec<User> =
            self.homes.users().filter(|user| self.s.central.records[usize::from(*user)].home == Some(edge)).collect();
        if to == edge || owned.is_empty() || self.s.edges[usize::from(to)].is_fenced {
            return;
        }
        self.story.takeovers += 1;
        self.note(format!("{edge} is fenced, {owned:?} go to {to}"));
        self.crash(edge);
        self.s.edges[usize::from(edge)].is_fenced = true;
        for user in owned {
            self.forced[usize::from(user)] = true;
            // Who only has an older copy of the data serves that.
            self.s.acked[usize::from(user)] &= self.s.edges[usize::from(to)].data[usize::from(user)];
            self.homes.command(&mut self.s, user, rules::Input::Force { to: Some(to) });
        }
        self.sync_later();
    }
}
