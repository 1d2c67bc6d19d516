//! Clients: they register, write and read at any edge, and requests go from edge to edge by the table of 2.5.

use super::run::{CENTRAL, Event, Outcome, Sim};
use super::world::*;
use super::{U, Writes};
use coordinator::home::Home;
use coordinator::home::guard::Guard;
use coordinator::peer::answer::{Answer, leads_on};

/// Milliseconds between requests, at most.
const ASK: u64 = 12;
/// How often a request that was parked looks again before it is refused.
const PATIENCE: u8 = 5;

/// A request on its way.
#[derive(Debug, Clone, Copy)]
pub struct Asking {
    user: User,
    entry: Edge,
    /// Where it is now, and by which epoch; the entry itself at first.
    at: Edge,
    epoch: u32,
    seq: u64,
    tries: u8,
    parked: u8,
    /// The write; none for a read.
    bit: Option<Writes>,
    /// What was acknowledged when it began.
    acked: Writes,
}

impl Sim {
    /// A client does something.
    pub fn ask(&mut self) -> Outcome {
        let wait = 1 + self.dice.roll(ASK);
        self.later(wait, Event::Ask);
        if !self.is_stormy {
            return Ok(());
        }
        let user = self.dice.roll(U as u64) as User;
        let entry = self.dice.roll(self.homes.bounds.edges as u64) as Edge;
        if !self.is_up(entry) {
            return Ok(());
        }
        if self.homes.look(&self.s, entry, user) == Home::Unknown {
            self.begin_home(entry, user);
            return Ok(());
        }
        let writes = self.dice.one_in(2) && self.next_bit[usize::from(user)] < Writes::BITS;
        let bit = writes.then(|| {
            self.next_bit[usize::from(user)] += 1;
            1 << (self.next_bit[usize::from(user)] - 1)
        });
        let acked = self.s.acked[usize::from(user)];
        self.attempt(Asking { user, entry, at: entry, epoch: 0, seq: 0, tries: 0, parked: 0, bit, acked })
    }

    /// A user is registered where it is minted, or touched where it comes by.
    fn begin_home(&mut self, entry: Edge, user: User) {
        let it = &self.s.edges[usize::from(entry)];
        let (boot, is_ready) = (it.standing.boot, it.standing.is_ready(self.homes.guards));
        if !is_ready || it.is_fenced {
            return;
        }
        if self.homes.bounds.first_touch {
            self.send(usize::from(entry), CENTRAL, Event::Arrive(Msg::Claim { user, edge: entry, boot }));
            return;
        }
        let of = usize::from(user);
        if self.homes.minter(user) == entry && !self.s.minted[of] {
            self.s.minted[of] = true;
            self.s.edges[usize::from(entry)].data[of] |= 0;
            if !self.homes.guards.has(Guard::OutboxFirst) {
                self.answered[of] = true;
            }
            let (life, wait) = (self.processes[usize::from(entry)].life, 1 + self.dice.roll(8));
            self.later(wait, Event::Minted { edge: entry, life, user });
        }
    }

    /// A request is where it is, and goes on from there.
    pub fn attempt(&mut self, asking: Asking) -> Outcome {
        if !self.is_up(asking.at) || self.s.edges[usize::from(asking.at)].is_fenced {
            return self.refuse();
        }
        if asking.tries == 0 {
            return self.at_entry(asking);
        }
        let Asking { user, entry, at, epoch, seq, tries, .. } = asking;
        let request = Request { user, a: entry, b: at, epoch, seq, tries };
        match self.homes.answered(&self.s, request) {
            Answer::Serve { .. } => self.serve(asking),
            Answer::Moved { edge, epoch } => self.corrected(asking, Some(edge.0), epoch),
            Answer::Unknown => {
                let record = self.shown().records[usize::from(user)];
                self.corrected(asking, record.home, record.epoch)
            }
            Answer::Park | Answer::Ask | Answer::Hold { .. } | Answer::Later if asking.parked < PATIENCE => {
                self.later(50, Event::Try(Asking { parked: asking.parked + 1, ..asking }));
                Ok(())
            }
            _ => self.refuse(),
        }
    }

    fn at_entry(&mut self, asking: Asking) -> Outcome {
        match self.homes.look(&self.s, asking.entry, asking.user) {
            Home::Ours { .. } => self.serve(asking),
            Home::Leaving { is_released: false, .. } if asking.bit.is_none() => self.serve(asking),
            Home::At { edge, epoch } => {
                self.story.forwards += 1;
                let seq = self.s.edges[usize::from(asking.entry)].map;
                self.visit(Asking { at: edge.0, epoch, seq, tries: 1, ..asking })
            }
            _ => self.refuse(),
        }
    }

    fn visit(&mut self, asking: Asking) -> Outcome {
        if !self.send(usize::from(asking.entry), usize::from(asking.at), Event::Try(asking)) {
            return self.refuse();
        }
        Ok(())
    }

    /// I6 and I11 hold at every correction.
    fn corrected(&mut self, asking: Asking, to: Option<Edge>, epoch: u32) -> Outcome {
        self.story.corrections += 1;
        let it = &self.s.edges[usize::from(asking.at)];
        let of = usize::from(asking.user);
        let is_duplicate =
            self.s.edges.iter().any(|it| (it.data[of] | it.busy[of] | it.orphan[of]) & asking.bit.unwrap_or(0) != 0);
        let seen = (it.data[of] | it.busy[of]) & asking.bit.unwrap_or(0) != 0;
        if seen && !is_duplicate {
            return Err(format!("I11: {} corrected a request that its origin saw", asking.at));
        }
        if !leads_on(epoch, asking.epoch, self.homes.guards) {
            return self.refuse();
        }
        if epoch <= asking.epoch {
            return Err(format!("I6: a retry at epoch {epoch} after {}", asking.epoch));
        }
        match to {
            Some(to) if to == asking.entry => self.at_entry(Asking { at: to, ..asking }),
            Some(to) if asking.tries < 3 => self.visit(Asking { at: to, epoch, tries: asking.tries + 1, ..asking }),
            _ => self.refuse(),
        }
    }

    fn refuse(&mut self) -> Outcome {
        self.story.refusals += 1;
        Ok(())
    }

    /// The owner takes it. A read sees all that was acknowledged before it began (I3).
    fn serve(&mut self, asking: Asking) -> Outcome {
        let (edge, of) = (asking.at, usize::from(asking.user));
        let it = &self.s.edges[usize::from(edge)];
        let Some(bit) = asking.bit else {
            self.story.reads += 1;
            // What a takeover gave up is no longer counted.
            let missing = asking.acked & self.s.acked[of] & !it.data[of];
            let excused = self.forced[of];
            return match missing {
                0 => Ok(()),
                _ if excused => Ok(()),
                _ => Err(format!("I3: a read of {} at {edge} misses {missing:b}", asking.user)),
            };
        };
        if !self.homes.accepts(&self.s, edge, asking.user) {
            return self.refuse();
        }
        self.story.writes += 1;
        self.s.edges[usize::from(edge)].busy[of] |= bit;
        let slow = self.dice.one_in(12);
        let wait = 1 + self.dice.roll(if slow { 400 } else { 30 });
        self.later(wait, Event::Finish { edge, user: asking.user, bit });
        Ok(())
    }
}
