//! The decision: local, Central, or the edge that is somebody's home. Pure: `explain` runs the very code that serves.
//!
//! Invariants: an unknown home is never guessed; a place that does not own a key never gets a request for it; asking
//! Central is the only way out of not knowing. Source: DESIGN 5 and 10.

use super::Place;
use crate::base::id::EdgeId;
use crate::home::Home;

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// This edge's origin.
    Local,
    /// The authority.
    Central,
    /// Another edge.
    Remote(EdgeId),
}

impl Decision {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Decision::Local => "local",
            Decision::Central => "central",
            Decision::Remote(_) => "remote",
        }
    }
}

/// Why a request goes there, or nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The route names this place.
    Route,
    /// The route names an edge, and that is us.
    NamedHere,
    /// The route names another edge.
    NamedElsewhere,
    /// The ledger says that the key lives here.
    HomeHere,
    /// The map says that the key lives at another edge.
    HomeElsewhere,
    /// Central owns every key that nobody claimed (`unknown = "central"`).
    UnclaimedAtCentral,
    /// An earlier place of the list could not be reached.
    FirstUnreachable,
    /// An earlier place of the list answered with a status of `next_on`.
    NextOnStatus,
    /// The edge that we asked named a newer home.
    Corrected,
    /// Another edge sent it here, and the key lives here.
    SentHere,
    /// Central knows no such key.
    NoSuchKey,
    /// The home is not known here and Central cannot be asked.
    CannotAsk,
    /// The map gives the key to us, but our ledger does not have it.
    NotInLedger,
    /// The key is on its way to another edge.
    Moving,
    /// There is no map yet.
    NoMapYet,
    /// The edge table has no address for that edge.
    NoAddress,
}

impl Reason {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Route => "route",
            Reason::NamedHere => "named_here",
            Reason::NamedElsewhere => "named_elsewhere",
            Reason::HomeHere => "home_here",
            Reason::HomeElsewhere => "home_elsewhere",
            Reason::UnclaimedAtCentral => "unclaimed_at_central",
            Reason::FirstUnreachable => "first_unreachable",
            Reason::NextOnStatus => "next_on_status",
            Reason::Corrected => "corrected",
            Reason::SentHere => "sent_here",
            Reason::NoSuchKey => "no_such_key",
            Reason::CannotAsk => "cannot_ask",
            Reason::NotInLedger => "not_in_ledger",
            Reason::Moving => "moving",
            Reason::NoMapYet => "no_map_yet",
            Reason::NoAddress => "no_address",
        }
    }

    /// The sentence for people.
    pub fn sentence(self) -> &'static str {
        match self {
            Reason::Route => "the route names this place",
            Reason::NamedHere => "the request names an edge, and that is this one",
            Reason::NamedElsewhere => "the request names another edge",
            Reason::HomeHere => "this edge's ledger owns the key",
            Reason::HomeElsewhere => "the home map places the key at another edge",
            Reason::UnclaimedAtCentral => "nobody has claimed the key, and the space leaves such keys to Central",
            Reason::FirstUnreachable => "an earlier place of the list could not be reached",
            Reason::NextOnStatus => "an earlier place of the list answered with a status of next_on",
            Reason::Corrected => "the edge that was asked named a newer home",
            Reason::SentHere => "another edge sent it here, and the key lives here",
            Reason::NoSuchKey => "Central knows no such key",
            Reason::CannotAsk => "the home is not known here, and Central cannot be asked now",
            Reason::NotInLedger => "the map gives the key to this edge, but its ledger does not have it",
            Reason::Moving => "the key is being moved to another edge",
            Reason::NoMapYet => "this edge has no home map yet",
            Reason::NoAddress => "no table gives an address for that edge",
        }
    }
}

/// How the question for an unknown key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Nobody was asked yet.
    NotYet,
    /// Central knows no such key.
    NoSuchKey,
    /// Central could not be asked.
    Unreachable,
}

/// What is known when a place is decided upon.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// Our own id, once a table says it.
    pub own: Option<EdgeId>,
    /// What is believed of the key; only for `Place::Home`.
    pub home: Home,
    /// How asking ended.
    pub asked: Asked,
    /// Whether Central owns what nobody claimed.
    pub central_owns_unknown: bool,
    /// Whether this very request may claim an unknown key (first-touch spaces).
    pub may_claim: bool,
    /// The edge that the request or the route names, if a table knows it.
    pub named: Option<EdgeId>,
}

/// What follows for one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Send it there.
    Go(Decision, Reason),
    /// Ask Central for the home, then decide again.
    Ask,
    /// Claim the key at Central, then decide again.
    Claim,
    /// There is no such key: 404.
    NoSuchKey,
    /// Nobody may serve it now: 503, prompt and clear.
    Unavailable(Reason),
}

/// Decides upon one place of a route.
///
/// Cost: a few comparisons; allocates nothing.
pub fn decide(place: &Place, facts: &Facts) -> Step {
    match place {
        Place::Local => Step::Go(Decision::Local, Reason::Route),
        Place::Central => Step::Go(Decision::Central, Reason::Route),
        Place::EdgeNamed(_) | Place::Edge(_) => named(facts),
        Place::Home(_) => home(facts),
    }
}

fn named(facts: &Facts) -> Step {
    match facts.named {
        Some(edge) if Some(edge) == facts.own => Step::Go(Decision::Local, Reason::NamedHere),
        Some(edge) => Step::Go(Decision::Remote(edge), Reason::NamedElsewhere),
        None => Step::Unavailable(Reason::NoAddress),
    }
}

fn home(facts: &Facts) -> Step {
    match (facts.home, facts.asked) {
        (Home::Ours { .. }, _) => Step::Go(Decision::Local, Reason::HomeHere),
        (Home::At { edge, .. }, _) => Step::Go(Decision::Remote(edge), Reason::HomeElsewhere),
        (Home::Leaving { .. }, _) => Step::Unavailable(Reason::Moving),
        (Home::Unsynced, _) => Step::Unavailable(Reason::NoMapYet),
        (Home::Disputed, Asked::NotYet) => Step::Ask,
        (Home::Disputed, _) => Step::Unavailable(Reason::NotInLedger),
        (Home::Unknown, Asked::NotYet) if facts.may_claim => Step::Claim,
        (Home::Unknown, Asked::NotYet) => Step::Ask,
        (Home::Unknown, Asked::Unreachable) => Step::Unavailable(Reason::CannotAsk),
        (Home::Unknown, Asked::NoSuchKey) if facts.central_owns_unknown => {
            Step::Go(Decision::Central, Reason::UnclaimedAtCentral)
        }
        (Home::Unknown, Asked::NoSuchKey) => Step::NoSuchKey,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::SpaceId;

    const OWN: EdgeId = EdgeId(1);
    const OTHER: EdgeId = EdgeId(2);

    fn facts(home: Home, asked: Asked) -> Facts {
        Facts { own: Some(OWN), home, asked, central_owns_unknown: false, may_claim: false, named: None }
    }

    #[test]
    fn plain_places_are_taken_at_their_word() {
        let any = facts(Home::Unknown, Asked::NotYet);
        assert_eq!(decide(&Place::Local, &any), Step::Go(Decision::Local, Reason::Route));
        assert_eq!(decide(&Place::Central, &any), Step::Go(Decision::Central, Reason::Route));
    }

    #[test]
    fn a_named_edge_is_local_only_when_it_is_us() {
        let place = Place::EdgeNamed("edge".into());
        let known = |named| Facts { named, ..facts(Home::Unknown, Asked::NotYet) };
        assert_eq!(decide(&place, &known(Some(OWN))), Step::Go(Decision::Local, Reason::NamedHere));
        assert_eq!(decide(&place, &known(Some(OTHER))), Step::Go(Decision::Remote(OTHER), Reason::NamedElsewhere));
        assert_eq!(decide(&place, &known(None)), Step::Unavailable(Reason::NoAddress));
        let nameless = Facts { own: None, ..known(Some(OTHER)) };
        assert_eq!(decide(&place, &nameless), Step::Go(Decision::Remote(OTHER), Reason::NamedElsewhere));
    }

    #[test]
    fn homes_follow_ledger_then_map_then_central() {
        let ours = Home::Ours { epoch: 3, provisional: false };
        let there = Home::At { edge: OTHER, epoch: 4 };
        let table = [
            (ours, Asked::NotYet, Step::Go(Decision::Local, Reason::HomeHere)),
            (there, Asked::NotYet, Step::Go(Decision::Remote(OTHER), Reason::HomeElsewhere)),
            (there, Asked::Unreachable, Step::Go(Decision::Remote(OTHER), Reason::HomeElsewhere)),
            (Home::Unknown, Asked::NotYet, Step::Ask),
            (Home::Unknown, Asked::NoSuchKey, Step::NoSuchKey),
            (Home::Unknown, Asked::Unreachable, Step::Unavailable(Reason::CannotAsk)),
            (Home::Disputed, Asked::NotYet, Step::Ask),
            (Home::Disputed, Asked::NoSuchKey, Step::Unavailable(Reason::NotInLedger)),
            (Home::Disputed, Asked::Unreachable, Step::Unavailable(Reason::NotInLedger)),
            (Home::Unsynced, Asked::NotYet, Step::Unavailable(Reason::NoMapYet)),
        ];
        for (home, asked, expected) in table {
            assert_eq!(decide(&Place::Home(SpaceId(0)), &facts(home, asked)), expected, "{home:?} {asked:?}");
        }
    }

    #[test]
    fn claims_and_unclaimed_keys_follow_their_space() {
        let place = Place::Home(SpaceId(0));
        let claims = Facts { may_claim: true, ..facts(Home::Unknown, Asked::NotYet) };
        assert_eq!(decide(&place, &claims), Step::Claim);
        let disputed = Facts { may_claim: true, ..facts(Home::Disputed, Asked::NotYet) };
        assert_eq!(decide(&place, &disputed), Step::Ask, "a key that the map knows is never claimed");
        let adopted = Facts { central_owns_unknown: true, ..facts(Home::Unknown, Asked::NoSuchKey) };
        assert_eq!(decide(&place, &adopted), Step::Go(Decision::Central, Reason::UnclaimedAtCentral));
        let cut = Facts { central_owns_unknown: true, ..facts(Home::Unknown, Asked::Unreachable) };
        assert_eq!(
            decide(&place, &cut),
            Step::Unavailable(Reason::CannotAsk),
            "not knowing is not knowing that nobody owns it"
        );
    }
}
