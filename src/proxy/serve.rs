//! The path of a request from the public door.

use super::course::{self, Course};
use super::obtain::Sending;
use super::{Proxy, RETRY_AFTER, Site, compress, finish, limit, reply};
use crate::body::{Request, Response};
use crate::config::plan::{Regime, Space, UnknownKey};
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::homes;
use crate::message::{RequestHead, hop, via};
use crate::record::Record;
use crate::route::decide::{Asked, Decision, Facts, Reason, Step, decide};
use crate::route::{Action, KeySource, Place, key};

/// What was settled for one place: where to, why, and by which epoch.
#[derive(Debug, Clone, Copy)]
pub struct Settled {
    /// Where to.
    pub decision: Decision,
    /// Why.
    pub reason: Reason,
    /// The owner epoch, for keys.
    pub epoch: u32,
}

impl Proxy {
    pub(super) async fn serve(&self, site: &Site, request: &mut Request, record: &mut Record) -> Result<Response> {
        if via::has_passed(&request.head.fields, &site.plan.own.deployment) {
            return Err(Error::new(Kind::ProxyLoopDetected, "this request has passed through this deployment before"));
        }
        if is_for_us(&mut request.head) {
            record.decision = "reply";
            return Ok(Response::new(204));
        }
        let course = course::find(&site.plan, &request.head, record)?;
        let Some(Action::To(places)) = course.rule.map(|rule| &rule.action) else {
            let mut response = reply::response(&course, record)?;
            compress::response(&self.encoders, course.settings, &request.head, &mut response, record);
            return Ok(response);
        };
        limit::bound(&mut request.body, course.settings.body_max)?;
        if course.settings.claim.is_some() {
            Box::pin(self.claimable()).await?;
        }
        let may_claim = may_claim(&course, &request.head);
        self.within_claim_rate(site, &course, request, may_claim)?;
        let mut sending = Sending::new(site, &course, request, &self.replays);
        let mut outcome = self.obtain(&mut sending, places, may_claim, record).await;
        if let Some(rule) = course.settings.claim.as_ref().filter(|_| sending.to == Some(Decision::Local)) {
            outcome = Box::pin(self.claim(rule, &sending, outcome?, record)).await;
        }
        // Where it lies: an answer is large.
        if let Ok(response) = &mut outcome {
            finish::response(site, course.settings, response);
            compress::response(&self.encoders, course.settings, sending.head, response, record);
        }
        outcome
    }

    /// Settles where a place of the route is, by what is known here; `None` where only Central can tell.
    pub(super) fn settle(&self, sending: &Sending<'_>, place: &Place, may_claim: bool) -> Result<Option<Settled>> {
        let home = self.look(sending.course, place)?;
        let step = decide(place, &facts(sending, home, Asked::NotYet, may_claim));
        if matches!(step, Step::Ask | Step::Claim) { Ok(None) } else { settled(step, home).map(Some) }
    }

    /// The same, asking Central where only it can tell.
    pub(super) async fn settle_by_asking(
        &self,
        sending: &Sending<'_>,
        place: &Place,
        may_claim: bool,
    ) -> Result<Settled> {
        let mut asked = Asked::NotYet;
        let mut home = self.look(sending.course, place)?;
        loop {
            match decide(place, &facts(sending, home, asked, may_claim)) {
                step @ (Step::Ask | Step::Claim) => {
                    (home, asked) = self.find_out(sending.course, home, step).await?;
                }
                step => return settled(step, home),
            }
        }
    }

    /// What is believed of the key of a home place; `Unknown` for the others, which do not use it.
    fn look(&self, course: &Course<'_>, place: &Place) -> Result<Home> {
        match (place, &course.key) {
            (Place::Home(_), Some((space, key))) => Ok(self.homes()?.look(&space.name, key)),
            _ => Ok(Home::Unknown),
        }
    }

    async fn find_out(&self, course: &Course<'_>, home: Home, step: Step) -> Result<(Home, Asked)> {
        let Some((space, key)) = &course.key else { return Ok((home, Asked::NoSuchKey)) };
        let homes = self.homes()?;
        let answer = match step {
            Step::Claim => homes.claim_now(&space.name, key).await,
            _ => homes.ask(&space.name, key).await,
        };
        Ok(match answer {
            homes::Asked::Home(found) => (found, Asked::NoSuchKey),
            homes::Asked::NoSuchKey => (home, Asked::NoSuchKey),
            homes::Asked::Unreachable => (home, Asked::Unreachable),
        })
    }

    /// The route claims on its answers: the store must be proven writable before the origin acts.
    async fn claimable(&self) -> Result<()> {
        if self.homes()?.ready_to_register().await {
            return Ok(());
        }
        Err(Error::unavailable("a new key could not be stored durably here now", RETRY_AFTER)
            .on(crate::error::Side::Own))
    }
}

/// What is known when a place is decided upon.
fn facts(sending: &Sending<'_>, home: Home, asked: Asked, may_claim: bool) -> Facts {
    let course = sending.course;
    let central_owns_unknown = matches!(&course.key, Some((space, _)) if space.unknown == UnknownKey::Central);
    Facts { own: sending.site.plan.edges.own, home, asked, central_owns_unknown, may_claim, named: course.named }
}

/// What follows from a step that is not to ask.
fn settled(step: Step, home: Home) -> Result<Settled> {
    match step {
        Step::Go(decision, reason) => Ok(Settled { decision, reason, epoch: epoch(home) }),
        Step::Unavailable(reason) => Err(Error::unavailable(reason.sentence(), RETRY_AFTER)),
        Step::NoSuchKey | Step::Ask | Step::Claim => Err(no_such_key()),
    }
}

/// Whether an OPTIONS request asks about this proxy itself: `*`, or no hop left (RFC 9110 sections 7.6.2 and 9.3.7).
pub(super) fn is_for_us(head: &mut RequestHead) -> bool {
    head.target == "*" || !hop::spend_forward(head)
}

/// The epoch by which a home was found.
fn epoch(home: Home) -> u32 {
    match home {
        Home::Ours { epoch, .. } | Home::At { epoch, .. } => epoch,
        _ => 0,
    }
}

fn no_such_key() -> Error {
    Error::new(Kind::UnknownKey, Reason::NoSuchKey.sentence())
}

/// Whether this very request may claim an unknown key: first-touch spaces only, by an unsafe method or `claim_if`.
fn may_claim(course: &Course<'_>, head: &RequestHead) -> bool {
    let Some((Space { claim: Regime::FirstTouch, .. }, _)) = &course.key else { return false };
    !head.method.is_safe() || course.settings.claim_if.as_ref().is_some_and(|source| is_present(source, head))
}

/// Whether the field or the cookie of a `claim_if` is there.
fn is_present(source: &KeySource, head: &RequestHead) -> bool {
    match source {
        KeySource::Header(name) => head.fields.named(name).next().is_some(),
        KeySource::Cookie(name) => key::cookies(head, name).next().is_some(),
        KeySource::Capture(_) | KeySource::Query(_) | KeySource::HostLabel(_) => false,
    }
}

/// Notes what was settled.
pub(super) fn note(site: &Site, settled: Settled, course: &Course<'_>, record: &mut Record) {
    record.decision = settled.decision.as_str();
    record.reason = settled.reason.as_str();
    record.home = match settled.decision {
        Decision::Remote(edge) => Some(site.plan.edges.name(edge).to_owned()),
        Decision::Local if course.key.is_some() => Some(site.plan.own.name.clone()),
        _ => None,
    };
    record.epoch = course.key.is_some().then_some(settled.epoch);
}
