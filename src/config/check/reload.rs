//! What a reload may not change.

use crate::config::plan::Plan;
use crate::config::problem::Problem;

/// A problem for each setting that needs a restart and differs: name, deployment, data, feed, workers (DESIGN 10).
pub fn unchanged_or_problem(old: &Plan, new: &Plan) -> Vec<Problem> {
    let data =
        |plan: &Plan| plan.own.data.as_ref().map_or_else(|| "none".to_owned(), |path| path.display().to_string());
    let feed = |plan: &Plan| plan.central.as_ref().map_or_else(String::new, |central| central.feed.to_string());
    // Their logins are nobody's business.
    let relayed = |is: bool| if is { "another" } else { "the same" }.to_owned();
    let fixed = [
        ("name", old.own.name.clone(), new.own.name.clone()),
        ("deployment", old.own.deployment.clone(), new.own.deployment.clone()),
        ("data", data(old), data(new)),
        ("feed", feed(old), feed(new)),
        ("outbox", relayed(false), relayed(old.relays.outbox != new.relays.outbox)),
        ("publish", relayed(false), relayed(old.relays.publish != new.relays.publish)),
        ("workers", old.own.workers.to_string(), new.own.workers.to_string()),
    ];
    let differing = fixed.into_iter().filter(|(_, old, new)| old != new);
    differing
        .map(|(key, old, new)| {
            Problem::new(format!("`{key}` cannot change while running: {old} runs, {new} is written"))
                .help("restart, or write the old value again")
        })
        .collect()
}
