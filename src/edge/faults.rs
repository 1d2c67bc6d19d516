//! Faults on purpose, as the admin door asks for them: on the links of this place, and on Central itself.

use super::Shared;
use crate::admin::{Make, Order, Refused};
use crate::base::clock;
use crate::base::fault::Fault;
use crate::metrics::Page;
use crate::proxy::Site;
use serde_json::{Value, json};
use std::time::Instant;

/// What Central is called among the places.
const CENTRAL: &str = "central";

/// Carries out an order, and lists what there is.
pub(super) fn faults(shared: &Shared, order: Option<Order>) -> Result<Value, Refused> {
    let site = shared.site.load();
    if !site.plan.faults {
        return Err(Refused::Off);
    }
    if let Some(order) = order {
        make(shared, &site, &order)?;
        tracing::warn!(place = order.place, what = ?order.what, lasts = ?order.lasts, "a fault on purpose");
    }
    Ok(json!({ "faults": list(shared, &site) }))
}

fn make(shared: &Shared, site: &Site, order: &Order) -> Result<(), Refused> {
    let own = shared.central.as_ref().filter(|_| order.place == CENTRAL);
    if own.is_some() && matches!(order.what, Make::Delay(_)) {
        return Err(Refused::Wrong("Central itself is stopped or not; delays are made on the links to it".to_owned()));
    }
    let faults = all(shared, site).into_iter().filter(|(place, _)| *place == order.place);
    let made = faults.map(|(_, fault)| apply(fault, order, clock::now())).count();
    if made == 0 {
        let mut names: Vec<_> = all(shared, site).into_iter().map(|(place, _)| place).collect();
        names.dedup();
        return Err(Refused::Wrong(format!(
            "`{}` is no place at the other end of a link; there are {}",
            order.place,
            names.join(", ")
        )));
    }
    Ok(())
}

fn apply(fault: &Fault, order: &Order, now: Instant) {
    match order.what {
        Make::Cut => fault.cut(now, order.lasts),
        Make::Delay(by) => fault.delay(now, by, order.lasts),
        Make::Mend => fault.mend(),
    }
}

/// Every place that can have a fault, with the fault of each of its addresses.
fn all<'a>(shared: &'a Shared, site: &'a Site) -> Vec<(&'a str, &'a Fault)> {
    let own = shared.central.iter().map(|central| (CENTRAL, central.stop()));
    // At Central there is nothing to cut: the edges are those who call.
    let links = site.live.links().filter(|_| shared.central.is_none());
    let links = links.flat_map(|link| link.endpoints().iter().map(|one| (link.name(), &**one.fault())));
    let mut all: Vec<_> = own.chain(links).collect();
    all.sort_by_key(|(place, _)| *place);
    all
}

/// The faults that there are now, one for each place.
pub(super) fn list(shared: &Shared, site: &Site) -> Vec<Value> {
    let mut all = all(shared, site);
    all.dedup_by_key(|(place, _)| *place);
    let now = clock::now();
    all.into_iter()
        .filter_map(|(place, fault)| shown(fault, now).map(|what| json!({ "place": place, "fault": what })))
        .collect()
}

/// A fault in figures; `None` where there is none.
pub(super) fn shown(fault: &Fault, now: Instant) -> Option<Value> {
    let (cut, delay) = (fault.cut_left(now), fault.delayed(now));
    (cut.is_some() || delay.is_some()).then(|| {
        json!({
            "cut_left_ms": cut.map(|left| left.as_millis() as u64),
            "delay_ms": delay.map(|(by, _)| by.as_millis() as u64),
            "delay_left_ms": delay.map(|(_, left)| left.as_millis() as u64),
        })
    })
}

/// What metrics tell of them.
pub(super) fn write(shared: &Shared, site: &Site, page: &mut Page<'_>) -> std::fmt::Result {
    if !site.plan.faults {
        return Ok(());
    }
    let mut all = all(shared, site);
    all.dedup_by_key(|(place, _)| *place);
    let now = clock::now();
    let labels: Vec<_> = all.iter().map(|(place, _)| [("place", *place)]).collect();
    let on = |fault: &Fault| f64::from(u8::from(shown(fault, now).is_some()));
    let lines: Vec<_> = labels.iter().zip(&all).map(|(label, (_, fault))| (&label[..], on(fault))).collect();
    page.gauge("coordinator_fault_on", "Whether there is a fault on purpose, by place", &lines)?;
    let lines: Vec<_> = labels.iter().zip(&all).map(|(label, (_, fault))| (&label[..], fault.made())).collect();
    page.counter("coordinator_faults_made", "Faults made on purpose, by place", &lines)
}
