//! What to try in the demo: one command for each kind of decision, and what it will answer.
//!
//! A test runs every command and holds its answer against what is printed here, so nothing of it is a promise only.

use super::origin::CENTRAL;
use super::world::{EdgeDoors, World};

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// The application of a place: the answer says so in `served_by`.
    Place(&'static str),
    /// The Coordinator that was asked.
    Itself(&'static str),
    /// The application; what comes is no JSON, but this.
    Stream(&'static str),
}

/// One command.
#[derive(Debug, Clone)]
pub struct Stop {
    /// What it shows.
    pub shows: &'static str,
    /// The command.
    pub command: String,
    /// The status of the answer; `None` for a command that is no request.
    pub status: Option<u16>,
    /// Who gives it.
    pub by: By,
}

impl std::fmt::Display for Stop {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "  # {}\n  {}\n  #   -> ", self.shows, self.command)?;
        if let Some(status) = self.status {
            write!(out, "{status}, ")?;
        }
        match &self.by {
            By::Place(place) => writeln!(out, "served_by {place}"),
            By::Itself(why) => writeln!(out, "answered by the edge itself: {why}"),
            By::Stream(what) => writeln!(out, "{what}"),
        }
    }
}

/// All of them; `own` is the program to ask for explanations.
pub fn stops(world: &World, own: &str) -> Vec<Stop> {
    let [fr, us, jp] = &world.edges;
    let mut all = Vec::from(shared_data(fr, jp));
    all.extend(users(fr, us, jp));
    all.extend(edges_of_the_table(fr));
    all.extend([
        request("over TLS and HTTP/2", tls(world, fr), 200, By::Place("fr")),
        Stop {
            shows: "why? (explain runs the code that serves)",
            command: format!("{own} explain --admin {} GET /v1/users/448/wishlist.json", jp.admin),
            status: None,
            by: By::Stream("decision: remote fr"),
        },
    ]);
    all
}

fn request(shows: &'static str, command: String, status: u16, by: By) -> Stop {
    Stop { shows, command, status: Some(status), by }
}

fn curl(options: &str, edge: &EdgeDoors, target: &str) -> String {
    format!("curl -i {options}http://{}{target}", edge.http)
}

fn tls(world: &World, edge: &EdgeDoors) -> String {
    format!("curl -i --cacert {} https://{}/v1/items/847.json", world.ca.display(), edge.https)
}

fn shared_data(fr: &EdgeDoors, jp: &EdgeDoors) -> [Stop; 4] {
    let lamp = "-X POST -d '{\"name\":\"lamp\"}' ";
    [
        request(
            "a read of shared data: local, from fr's own copy",
            curl("", fr, "/v1/items/847.json"),
            200,
            By::Place("fr"),
        ),
        request(
            "only Central has this item (fr's copy ends at 999): local says 404, so the list of the route goes on",
            curl("", fr, "/v1/items/5001.json"),
            200,
            By::Place(CENTRAL),
        ),
        request(
            "a write to shared data: Central, wherever it comes in",
            curl(lamp, jp, "/v1/items/5001.json"),
            200,
            By::Place(CENTRAL),
        ),
        request(
            "the place is written in the id: jp, wherever it is asked for",
            curl("", fr, "/v1/items/847_jp.json"),
            200,
            By::Place("jp"),
        ),
    ]
}

fn users(fr: &EdgeDoors, us: &EdgeDoors, jp: &EdgeDoors) -> [Stop; 6] {
    [
        request(
            "user 448 lives at fr, and fr is asked: home, here",
            curl("", fr, "/v1/users/448/wishlist.json"),
            200,
            By::Place("fr"),
        ),
        request(
            "the same user, asked at jp: passed to fr",
            curl("", jp, "/v1/users/448/wishlist.json"),
            200,
            By::Place("fr"),
        ),
        request(
            "a write for that user, sent to us: accepted at fr alone",
            curl("-X PUT -d '[\"lamp\"]' ", us, "/v1/users/448/wishlist.json"),
            200,
            By::Place("fr"),
        ),
        request(
            "a new user belongs to the edge that registered them: see Location",
            curl("-X POST -d '{}' ", jp, "/v1/users"),
            201,
            By::Place("jp"),
        ),
        request(
            "a WebSocket to user 448, opened at jp: it passes to fr over HTTP/2 (any WebSocket client will do)",
            format!("websocat ws://{}/v1/users/448/chat", jp.http),
            101,
            By::Stream("then each line comes back, from fr"),
        ),
        request(
            "a user that nobody knows, said by Central",
            curl("", fr, "/v1/users/nobody/wishlist.json"),
            404,
            By::Itself("it is not passed to any origin"),
        ),
    ]
}

fn edges_of_the_table(fr: &EdgeDoors) -> [Stop; 4] {
    [
        request("no route at all", curl("", fr, "/nothing/here"), 404, By::Itself("no route")),
        request("a route, but not with GET", curl("", fr, "/v1/users"), 405, By::Itself("see Allow")),
        request("a route that replies by itself", curl("", fr, "/old/items/847.json"), 308, By::Itself("see Location")),
        request(
            "server-sent events, not buffered; Ctrl-C ends it",
            curl("-N ", fr, "/v1/events"),
            200,
            By::Stream("then an event each second"),
        ),
    ]
}
