//! Who makes things fail: one act after the other, several at work at once, each with its end.

use super::session::History;
use crate::harness::certs;
use crate::harness::deployment::{Deployment, places};
use crate::harness::process::Signal;
use crate::harness::seed::Random;
use crate::harness::wait;
use crate::harness::world::{CENTRAL, EDGES};
use coordinator::tls::issue::{Issued, Issuer, Party};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Between two acts.
const PAUSE_MS: u64 = 300;

/// How long an act lasts at most: longer than a link needs to be given up, shorter than a run.
const LASTS_MS: u64 = 2000;

/// The nemesis.
pub struct Nemesis<'a> {
    deployment: &'a Deployment,
    history: &'a History,
    random: Random,
    /// What is wrong now, and when it ends.
    wrong: Vec<(Instant, Wrong)>,
    /// Where users were put, with their epochs.
    moved: HashMap<String, (&'static str, u32)>,
    strangers: Issuer,
    acts: BTreeMap<&'static str, u64>,
}

/// What is wrong with a place or its wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Dead(&'static str),
    Still(&'static str),
    Alone(&'static str),
    Strange(&'static str),
}

impl Wrong {
    fn place(self) -> &'static str {
        match self {
            Wrong::Dead(place) | Wrong::Still(place) | Wrong::Alone(place) | Wrong::Strange(place) => place,
        }
    }
}

impl<'a> Nemesis<'a> {
    /// One that has done nothing yet.
    pub fn new(deployment: &'a Deployment, history: &'a History, random: Random) -> Nemesis<'a> {
        let strangers = Issuer::new("shop").expect("another CA of the same name");
        let (wrong, moved, acts) = (Vec::new(), HashMap::new(), BTreeMap::new());
        Nemesis { deployment, history, random, wrong, moved, strangers, acts }
    }

    /// Acts for so long, or until `enough`.
    pub fn rage(&mut self, time: Duration, enough: impl Fn() -> bool) {
        let began = Instant::now();
        while began.elapsed() < time && !enough() {
            std::thread::sleep(Duration::from_millis(self.random.below(PAUSE_MS)));
            self.mend(Instant::now());
            self.act();
        }
    }

    /// Ends all that is wrong.
    pub fn heal(&mut self) {
        let end = self.wrong.iter().map(|(until, _)| *until).max().unwrap_or_else(Instant::now);
        self.mend(end);
        for place in places() {
            for other in places().filter(|other| (*other == place) == (place == CENTRAL)) {
                let known = || place == CENTRAL || self.deployment.knows(place, other);
                wait::until(&format!("{place} to know {other}"), known, |known| *known);
                self.deployment.try_admin(place, "POST", &format!("/faults?place={other}&do=mend"));
            }
        }
    }

    /// What was done how often.
    pub fn report(&self) -> String {
        let acts: Vec<_> = self.acts.iter().map(|(name, count)| format!("{count} {name}")).collect();
        acts.join(", ")
    }

    fn act(&mut self) {
        let edge = *self.random.pick(&EDGES);
        let place = if self.random.one_in(3) { CENTRAL } else { edge };
        let act = self.random.below(12);
        if self.wrong.iter().any(|(_, wrong)| wrong.place() == if matches!(act, 0..=4) { place } else { edge }) {
            return;
        }
        let done = match act {
            0 | 1 => self.kill(place),
            2 | 3 => self.stand_still(place),
            4 => self.stop_central(),
            5 | 6 => self.cut_off(edge),
            7 => self.freeze(edge),
            8 | 9 => self.cut_between(edge),
            10 => self.certificate(edge),
            _ => self.take_over(),
        };
        *self.acts.entry(done).or_default() += 1;
    }

    fn lasts(&mut self, wrong: Wrong) {
        let until = Instant::now() + Duration::from_millis(self.random.below(LASTS_MS));
        self.wrong.push((until, wrong));
    }

    fn kill(&mut self, place: &'static str) -> &'static str {
        self.deployment.kill(place);
        self.lasts(Wrong::Dead(place));
        if place == CENTRAL { "kills of Central" } else { "kills" }
    }

    fn stand_still(&mut self, place: &'static str) -> &'static str {
        self.deployment.signal(place, Signal::Stop);
        self.lasts(Wrong::Still(place));
        "standstills"
    }

    /// Central runs, and refuses everybody.
    fn stop_central(&mut self) -> &'static str {
        self.fault(CENTRAL, CENTRAL, "cut");
        "stops of Central"
    }

    /// The wire to Central is cut: whoever connects is refused.
    fn cut_off(&mut self, edge: &'static str) -> &'static str {
        self.deployment.world.edge(edge).wire().cut();
        self.lasts(Wrong::Alone(edge));
        "cuts from Central"
    }

    /// What runs over the wire to Central stays open and carries nothing.
    fn freeze(&mut self, edge: &'static str) -> &'static str {
        self.deployment.world.edge(edge).wire().freeze();
        "silent wires"
    }

    /// One edge cannot reach another, which may well reach it.
    fn cut_between(&mut self, edge: &'static str) -> &'static str {
        let others: Vec<_> = EDGES.into_iter().filter(|other| *other != edge).collect();
        let other = *self.random.pick(&others);
        let what = *self.random.pick(&["cut", "delay&by=300ms"]);
        // One that was started a moment ago may not have read yet who the others are.
        if self.deployment.knows(edge, other) {
            self.fault(edge, other, what);
        }
        "cuts between edges"
    }

    fn fault(&mut self, at: &str, place: &str, what: &str) {
        let lasts = self.random.below(LASTS_MS) + 1;
        self.deployment.try_admin(at, "POST", &format!("/faults?place={place}&do={what}&for={lasts}ms"));
    }

    /// A place gets another certificate: of its own deployment, or for a while of another one that calls itself the same.
    fn certificate(&mut self, edge: &'static str) -> &'static str {
        if self.random.one_in(2) {
            self.write_certificate(edge, &self.deployment.world.certificate(Party::Edge(edge)));
            return "new certificates";
        }
        let strange = self.strangers.edge(edge, &["127.0.0.1".to_owned()]).expect("a certificate");
        self.write_certificate(edge, &strange);
        self.lasts(Wrong::Strange(edge));
        "strange certificates"
    }

    fn write_certificate(&self, edge: &str, issued: &Issued) {
        certs::write(self.deployment.world.folder(), edge, issued);
    }

    /// A user goes to another edge although the owner did not release it: the application of the owner is fenced, its
    /// data taken over, and only then the entry written, with the next epoch.
    fn take_over(&mut self) -> &'static str {
        let known = self.history.known();
        let users: Vec<_> = known.iter().filter(|(key, _)| key.starts_with("user:")).collect();
        if users.is_empty() || self.wrong.iter().any(|(_, wrong)| wrong.place() == CENTRAL) {
            return "nothing";
        }
        let (key, known) = *self.random.pick(&users);
        let (from, epoch) = match self.moved.get(key) {
            Some((from, epoch)) => (*from, *epoch),
            None => (EDGES.into_iter().find(|edge| *edge == known.home).expect("an edge"), known.epoch),
        };
        let others: Vec<_> = EDGES.into_iter().filter(|edge| *edge != from).collect();
        let to = *self.random.pick(&others);
        let apps = &self.deployment.apps;
        apps[to].import(key, apps[from].fence(key, epoch + 1));
        self.deployment.kill(CENTRAL);
        let (space, name) = key.split_once(':').expect("a key has a space");
        self.deployment.world.append_home(space, name, to, epoch + 1);
        self.moved.insert(key.clone(), (to, epoch + 1));
        self.lasts(Wrong::Dead(CENTRAL));
        "takeovers"
    }

    /// Ends what has lasted until `now`.
    fn mend(&mut self, now: Instant) {
        let (over, wrong) = self.wrong.iter().partition(|(until, _)| *until <= now);
        self.wrong = wrong;
        let over: Vec<(Instant, Wrong)> = over;
        for (_, wrong) in over {
            match wrong {
                Wrong::Dead(place) => self.deployment.launch(place),
                Wrong::Still(place) => self.deployment.signal(place, Signal::Continue),
                Wrong::Alone(edge) => self.deployment.world.edge(edge).wire().mend(),
                Wrong::Strange(edge) => {
                    self.write_certificate(edge, &self.deployment.world.certificate(Party::Edge(edge)));
                }
            }
        }
    }
}
