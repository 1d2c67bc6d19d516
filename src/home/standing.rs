//! Where an edge's ledger stands in Central's log, and which words of Central it obeys (HOMES 2.1, Incarnation).
//!
//! A ledger that is complete follows the log at its own cursor: what stands at or below it never touches a row again, so
//! a map that starts over revives nothing. A ledger that was lost begins as a new incarnation: it is registered with
//! Central at a seq of the log, and until the map has reached that seq no row is written, no write accepted and no
//! command obeyed. There it takes the homes that still name its edge. Pure: no clock, no disk.

use super::guard::{Guard, Guards};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One disk of one instance of an edge: random, because who has lost a disk cannot know its old number. It is written as
/// 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Boot(pub u64);

impl fmt::Display for Boot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

impl From<Boot> for String {
    fn from(boot: Boot) -> String {
        boot.to_string()
    }
}

impl TryFrom<String> for Boot {
    type Error = String;

    fn try_from(text: String) -> Result<Boot, String> {
        let is_hex = text.len() == 16 && text.bytes().all(|octet| octet.is_ascii_hexdigit());
        let number = u64::from_str_radix(&text, 16).ok().filter(|_| is_hex);
        number.map(Boot).ok_or_else(|| "an incarnation is 16 hexadecimal digits".to_owned())
    }
}

/// How far a ledger has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Central does not know this incarnation yet.
    Fresh,
    /// Central has entered it in the log.
    Registered {
        /// The seq of that entry.
        at: u64,
    },
    /// Complete: rows follow the log.
    Ready,
}

/// For whom, and by which Central, something was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag {
    /// The incarnation that is meant.
    pub boot: Boot,
    /// The term of the Central that speaks.
    pub term: u64,
}

/// Where a ledger stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Standing {
    /// Which disk this is.
    pub boot: Boot,
    /// How far it has come.
    pub stage: Stage,
    /// The highest term that it has spoken to.
    pub term: u64,
    /// The term of the history in which `cursor` counts.
    pub history: u64,
    /// The last seq that the rows have followed.
    pub cursor: u64,
}

/// What an entry of the log means to the ledger; the map takes every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing.
    MapOnly,
    /// A row may change.
    Row,
    /// Here the ledger is complete: it takes the homes that the map gives to this edge now.
    Rebuild,
    /// A restored history begins: every row compares itself with what the map says now.
    Stock,
}

/// What an entry is about, as far as the standing is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// A home.
    Home,
    /// The end of what a restored Central recovered.
    Term,
    /// Anything else.
    Other,
}

impl Standing {
    /// A new disk, not yet known to Central.
    pub fn fresh(boot: Boot) -> Standing {
        Standing { boot, stage: Stage::Fresh, term: 0, history: 0, cursor: 0 }
    }

    /// A ledger that is complete up to `cursor`.
    pub fn ready(boot: Boot, term: u64, cursor: u64) -> Standing {
        Standing { boot, stage: Stage::Ready, term, history: term, cursor }
    }

    /// Whether rows count: whether anything may be accepted, and any command obeyed.
    pub fn is_ready(self, guards: Guards) -> bool {
        self.stage == Stage::Ready
            || !guards.has(Guard::RegisterFirst)
            || (!guards.has(Guard::CatchUpFirst) && self.stage != Stage::Fresh)
    }

    /// Central, at this term, has entered this incarnation at `at`; told again, nothing changes.
    ///
    /// To be taken between two batches, never between the ledger's and the map's part of one: the ledger would become
    /// complete at a cursor that the map has, and would have passed over what it is about to get.
    pub fn registered(self, at: u64, term: u64) -> Standing {
        match self.stage {
            Stage::Fresh if term >= self.term => Standing { stage: Stage::Registered { at }, term, ..self },
            _ => self,
        }
    }

    /// The map now stands at `map`. `Rebuild` once that is where a registered ledger becomes complete.
    pub fn reached(self, map: u64) -> (Standing, Meaning) {
        match self.stage {
            Stage::Registered { at } if map >= at => {
                (Standing { stage: Stage::Ready, cursor: map, ..self }, Meaning::Rebuild)
            }
            _ => (self, Meaning::MapOnly),
        }
    }

    /// The entry at `seq` has come by.
    pub fn entry(self, seq: u64, about: About, guards: Guards) -> (Standing, Meaning) {
        if self.stage != Stage::Ready {
            let heeds = self.is_ready(guards) && about == About::Home;
            return (self, if heeds { Meaning::Row } else { Meaning::MapOnly });
        }
        if guards.has(Guard::LedgerCursor) && seq <= self.cursor {
            return (self, Meaning::MapOnly);
        }
        let meaning = match about {
            About::Home => Meaning::Row,
            About::Term => Meaning::Stock,
            About::Other => Meaning::MapOnly,
        };
        (Standing { cursor: self.cursor.max(seq), ..self }, meaning)
    }

    /// Whether a command with this tag is obeyed.
    pub fn obeys(self, tag: Tag, guards: Guards) -> bool {
        let is_meant = tag.boot == self.boot && self.stage == Stage::Ready;
        (is_meant || !guards.has(Guard::TagIncarnation)) && (tag.term == self.term || !guards.has(Guard::TagTerm))
    }

    /// It reports its rows to the Central of a new term, and from now on obeys only that one. One that is not complete
    /// reports that it has none, and must be registered anew: an answer of the old term that is still on its way would
    /// make it an owner whom the new one has not counted.
    pub fn reported(self, term: u64) -> Standing {
        if term <= self.term {
            return self;
        }
        Standing { term, ..self.forgotten() }
    }

    /// As it is once no registration counts that is not fulfilled.
    fn forgotten(self) -> Standing {
        let stage = if self.stage == Stage::Ready { Stage::Ready } else { Stage::Fresh };
        Standing { stage, ..self }
    }

    /// A new history is followed from its beginning. Its recovered part, up to the seq before `TERM`, tells nothing that
    /// was not reported: rows wait for `TERM` itself. A registration of the old history holds nothing in the new one.
    pub fn new_history(self, term: u64, before_term: u64) -> Standing {
        Standing { history: term, cursor: before_term, ..self.forgotten() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Guards = Guards::ALL;

    #[test]
    fn a_fresh_ledger_fills_its_map_until_its_registration_is_reached() {
        let fresh = Standing::fresh(Boot(7));
        assert!(!fresh.is_ready(ALL));
        assert_eq!(fresh.entry(5, About::Home, ALL), (fresh, Meaning::MapOnly));
        assert_eq!(fresh.reached(5), (fresh, Meaning::MapOnly));
        let known = fresh.registered(9, 1);
        assert_eq!(known.entry(8, About::Home, ALL).1, Meaning::MapOnly);
        assert_eq!(known.reached(8), (known, Meaning::MapOnly));
        let (ready, meaning) = known.reached(9);
        assert_eq!((ready.is_ready(ALL), ready.cursor, meaning), (true, 9, Meaning::Rebuild));
        assert_eq!(ready.registered(12, 1), ready, "told again, nothing changes");
    }

    #[test]
    fn what_is_old_touches_no_row() {
        let ready = Standing::ready(Boot(7), 1, 9);
        assert_eq!(ready.entry(9, About::Home, ALL), (ready, Meaning::MapOnly));
        let (later, meaning) = ready.entry(10, About::Home, ALL);
        assert_eq!((later.cursor, meaning), (10, Meaning::Row));
        assert_eq!(later.entry(11, About::Term, ALL).1, Meaning::Stock);
        assert_eq!(Standing::fresh(Boot(7)).registered(9, 1).new_history(2, 3).stage, Stage::Fresh);
        assert_eq!(ready.new_history(2, 3).entry(3, About::Home, ALL).1, Meaning::MapOnly);
    }

    #[test]
    fn only_words_meant_for_this_incarnation_in_this_term_are_obeyed() {
        let ready = Standing::ready(Boot(7), 2, 9);
        let tag = |boot, term| Tag { boot: Boot(boot), term };
        assert!(ready.obeys(tag(7, 2), ALL));
        assert!(!ready.obeys(tag(6, 2), ALL) && !ready.obeys(tag(7, 1), ALL) && !ready.obeys(tag(7, 3), ALL));
        assert!(ready.reported(3).obeys(tag(7, 3), ALL) && !ready.reported(3).obeys(tag(7, 2), ALL));
        assert!(!Standing::fresh(Boot(7)).obeys(tag(7, 0), ALL));
        let fresh = Standing::fresh(Boot(7)).registered(9, 1).reported(2);
        assert_eq!((fresh.stage, fresh.registered(9, 1).stage), (Stage::Fresh, Stage::Fresh), "told by the old term");
    }
}
