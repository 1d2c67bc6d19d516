//! A trickle of requests such as a shop gets, so that the demo has something to show.
//!
//! Each is an ordinary request at the public door of an edge. Its query says [`MARK`], by which the terminal leaves it
//! out. Refuses to know what becomes of it: an edge that does not answer is asked again next time.

use super::world::{EdgeDoors, USERS, World};
use crate::base::backoff::random;
use crate::config;
use crate::feed::client::{Call, Line, content};
use http::Method;
use std::time::Duration;

/// The query of every request of the trickle.
pub const MARK: &str = "trickle";

/// Between two requests, over all edges.
const EVERY: Duration = Duration::from_millis(300);
/// The longest answer that is read.
const ANSWER_MAX: usize = 64 << 10;

/// What visitors do, and how often of a hundred times: they look more than they buy.
const VISITS: [(u64, Visit); 6] = [
    (50, Visit::Item),
    (8, Visit::FarItem),
    (22, Visit::Wishes),
    (8, Visit::Wish),
    (8, Visit::Edit),
    (4, Visit::Register),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visit {
    /// Reads an item, which every edge has.
    Item,
    /// Reads an item that only Central has.
    FarItem,
    /// Reads somebody's wish list, wherever that lives.
    Wishes,
    /// Writes one.
    Wish,
    /// Edits an item, at Central.
    Edit,
    /// Becomes a user.
    Register,
}

/// Sends requests until dropped.
pub async fn run(world: &World) {
    let each = world.edges.iter().map(|edge| at(edge, EVERY * world.edges.len() as u32));
    futures_util::future::join_all(each).await;
}

/// The visitors of one edge.
async fn at(edge: &EdgeDoors, every: Duration) {
    let mut line = None;
    loop {
        // Unevenly, as people come.
        tokio::time::sleep(every.mul_f64(0.5 + (random() % 1000) as f64 / 1000.0)).await;
        line = send(edge, line.take(), call(visit(random()), random())).await;
    }
}

/// Sends over the connection at hand or a new one, which it gives back if it is still of use.
async fn send(edge: &EdgeDoors, line: Option<Line>, call: Call) -> Option<Line> {
    let mut line = match line {
        Some(line) => line,
        None => Line::connect(&config::door_url(&format!("http://{}", edge.http))?, None).await.ok()?,
    };
    let answer = line.send(call).await.ok()?;
    content(answer.into_body(), ANSWER_MAX).await.ok()?;
    Some(line)
}

fn visit(random: u64) -> Visit {
    let mut left = random % 100;
    for (share, visit) in VISITS {
        match left.checked_sub(share) {
            Some(rest) => left = rest,
            None => return visit,
        }
    }
    Visit::Item
}

fn call(visit: Visit, random: u64) -> Call {
    let (user, _) = USERS[(random % USERS.len() as u64) as usize];
    let item = 1 + random / 8 % 999;
    let (method, path, content) = match visit {
        Visit::Item => (Method::GET, format!("/v1/items/{item}.json"), String::new()),
        Visit::FarItem => (Method::GET, format!("/v1/items/{}.json", 1000 + item), String::new()),
        Visit::Wishes => (Method::GET, format!("/v1/users/{user}/wishlist.json"), String::new()),
        Visit::Wish => (Method::PUT, format!("/v1/users/{user}/wishlist.json"), format!("[{item}]")),
        Visit::Edit => (Method::POST, format!("/v1/items/{item}.json"), format!("{{\"name\":\"Item {item}\"}}")),
        Visit::Register => (Method::POST, "/v1/users".to_owned(), "{}".to_owned()),
    };
    let kind = if content.is_empty() { vec![] } else { vec![("content-type", "application/json".to_owned())] };
    Call { method, target: format!("{path}?{MARK}"), fields: kind, content: content.into(), ..Call::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_visit_has_its_share_and_all_are_a_hundred() {
        assert_eq!(VISITS.iter().map(|(share, _)| share).sum::<u64>(), 100);
        for (share, wanted) in VISITS {
            assert_eq!((0..100).filter(|at| visit(*at) == wanted).count() as u64, share, "{wanted:?}");
        }
    }

    #[test]
    fn every_request_is_marked() {
        for (_, visit) in VISITS {
            assert!(call(visit, 12345).target.ends_with("?trickle"));
        }
    }
}
