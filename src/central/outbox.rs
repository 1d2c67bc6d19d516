//! The relay of a PostgreSQL outbox: what an application writes into `coordinator_outbox` inside its own transactions
//! reaches Central's log in the order of their commits, each in effect once (docs/decisions/0017).
//!
//! The order and the position are PostgreSQL's: a logical replication slot gives committed transactions, whole, as their
//! commits stand in the database's log. One round: read what is committed, have Central make it durable, clear the rows away,
//! note the position, let the slot go on. A crash between any two steps repeats from the position, and what is repeated
//! changes nothing: homes are only ever created, and what stands below the noted position is passed over.

use super::appender::read;
use super::state::{Outcome, Want, Why};
use super::{BATCH_MAX, Central};
use crate::base::backoff::{Backoff, random};
use crate::base::clock;
use crate::config::plan::Database;
use crate::home::key;
use crate::store::files;
use database::{Found, Session};
use pgoutput::{Decoder, Lsn, Row, Said};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod database;
mod pgoutput;
mod status;
mod tls;

pub use status::Status;

/// The name of the table, of its publication and of the slot.
const NAME: &str = "coordinator_outbox";
/// Between two looks at a database in which nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The most time between two looks.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// A look waits so many times as long as the one before took: reading again what an open transaction holds back must not
/// keep the database busy.
const LOOK_SHARE: u32 = 4;
/// Rows after which one round ends, at the next commit.
const ROWS_PER_ROUND: i32 = 4096;
/// The log that the slot may hold back before it goes on though nothing of ours was in it.
const HELD_BACK: u64 = 1 << 20;

/// The relay.
pub struct Outbox {
    central: Arc<Central>,
    database: Database,
    status: Arc<Status>,
    /// Where the position is noted.
    noted_at: PathBuf,
}

/// How far the outbox was taken over, and in which database: positions of another one, or of another line of its history,
/// mean nothing.
///
/// A slot tells only what is committed once it stands, so it is noted before one is made that the rows of the table are to
/// be taken first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    system: String,
    timeline: String,
    lsn: Lsn,
    /// Whether the rows that stand in the table are yet to be taken.
    #[serde(default)]
    backlog: bool,
}

/// What became of the rows of a round.
#[derive(Debug, Default)]
struct Done {
    taken: Vec<i64>,
    refused: Vec<(i64, String)>,
}

/// Rows on their way, in order.
struct Round<'a> {
    outbox: &'a Outbox,
    waiting: Vec<Row>,
    done: Done,
}

impl Outbox {
    /// The relay of a database into Central. The position is noted in `data`, Central's folder.
    pub fn new(central: Arc<Central>, database: Database, data: &std::path::Path, status: Arc<Status>) -> Outbox {
        Outbox { central, database, status, noted_at: data.join("outbox-position") }
    }

    /// Relays for ever; a database that is away is waited for.
    pub async fn run(self) {
        let mut backoff = Backoff::links();
        loop {
            let began = clock::now();
            let Err(why) = self.session().await;
            if self.status.closed(&why) {
                tracing::error!(why, "the outbox is not taken over");
            }
            if clock::now().saturating_duration_since(began) > LOOK_MAX {
                backoff.reset();
            }
            tokio::time::sleep(backoff.next(random())).await;
        }
    }

    /// One connection, until it ends. Errors: why it ended, and what to do about it.
    async fn session(&self) -> Result<std::convert::Infallible, String> {
        // A standby, or a restored Central that waits, must not keep the outbox from who may take it over.
        self.central.must_be_open().map_err(|refusal| refusal.detail().to_owned())?;
        let mut session = Session::open(&self.database).await?;
        let Found { system, timeline } = session.check().await?;
        let mut position = self.position(system, timeline);
        let confirmed = match session.slot().await? {
            Some(confirmed) => confirmed,
            None => {
                (position.lsn, position.backlog) = (0, true);
                self.note(position.clone()).await?;
                session.make_slot().await?
            }
        };
        if position.backlog {
            self.backlog(&session).await?;
            position.backlog = false;
            self.note(position.clone()).await?;
        }
        self.status.opened();
        tracing::info!(from = pgoutput::show(confirmed), "the outbox is taken over");
        let mut confirmed = confirmed;
        loop {
            let began = clock::now();
            let is_full = self.round(&mut session, &mut position, &mut confirmed).await?;
            if !is_full {
                tokio::time::sleep(pause(began)).await;
            }
        }
    }

    /// Takes over what is committed. True if there may be more at once.
    async fn round(&self, session: &mut Session, position: &mut Position, confirmed: &mut Lsn) -> Result<bool, String> {
        // Read before the changes: every commit below it is among them.
        let end = session.flushed().await?;
        if end < position.lsn {
            let (was, is) = (pgoutput::show(position.lsn), pgoutput::show(end));
            tracing::error!(
                was,
                is,
                "the database has gone back in time; the outbox is taken over from the slot's place"
            );
            position.lsn = 0;
        }
        self.status.saw(end, position.lsn.max(*confirmed));
        if end <= position.lsn.max(*confirmed) {
            return Ok(false);
        }
        let mut changes = session.changes(end, ROWS_PER_ROUND).await?;
        let (mut decoder, mut round) = (Decoder::default(), Round::of(self));
        let (mut rows, mut reached, mut is_known) = (0, position.lsn, false);
        while let Some(message) = changes.next().await? {
            rows += 1;
            match decoder.read(&message)? {
                Said::Begin { commit } => is_known = commit < position.lsn,
                Said::Insert(row) if !is_known => round.take(row).await?,
                Said::Commit { end } => reached = reached.max(end),
                Said::Insert(_) | Said::Other => {}
            }
        }
        let done = round.finish().await?;
        let is_full = rows >= ROWS_PER_ROUND;
        position.lsn = if is_full { reached } else { end.max(reached) };
        let has_done = !done.taken.is_empty() || !done.refused.is_empty();
        if has_done {
            // Before the note: what is below it is never looked at again, so what was not cleared away would stay.
            session.clear(&done.taken, &done.refused).await?;
            self.note(position.clone()).await?;
            self.status.took(done.taken.len(), done.refused.len());
        }
        // A full round that was all known, or none of ours, comes again for ever unless the slot goes on: after a crash of
        // the database it stands where it stood at the last checkpoint.
        if has_done || is_full || position.lsn > confirmed.saturating_add(HELD_BACK) {
            session.advance(position.lsn).await?;
            *confirmed = position.lsn;
        }
        self.status.saw(end, position.lsn);
        Ok(is_full)
    }

    /// Takes over the rows that stand in the table. The order of their commits is known no more: that of their ids is the
    /// best left.
    async fn backlog(&self, session: &Session) -> Result<(), String> {
        let mut rows = session.rows().await?;
        let mut round = Round::of(self);
        while let Some(row) = rows.next().await? {
            round.take(row).await?;
        }
        let done = round.finish().await?;
        session.clear(&done.taken, &done.refused).await?;
        self.status.took(done.taken.len(), done.refused.len());
        Ok(())
    }

    /// What was noted, if it is of this database.
    fn position(&self, system: String, timeline: String) -> Position {
        let noted = std::fs::read(&self.noted_at).ok().and_then(|text| serde_json::from_slice::<Position>(&text).ok());
        match noted {
            Some(noted) if noted.system == system && noted.timeline == timeline => noted,
            _ => Position { system, timeline, ..Position::default() },
        }
    }

    async fn note(&self, position: Position) -> Result<(), String> {
        let at = self.noted_at.clone();
        let noted = tokio::task::spawn_blocking(move || {
            let text = serde_json::to_vec(&position).map_err(std::io::Error::other)?;
            files::write_whole(&at, &text)
        });
        let noted = noted.await.map_err(|error| error.to_string())?;
        noted.map_err(|error| format!("{} cannot be written: {error}", self.noted_at.display()))
    }
}

impl<'a> Round<'a> {
    fn of(outbox: &'a Outbox) -> Round<'a> {
        Round { outbox, waiting: Vec::new(), done: Done::default() }
    }

    async fn take(&mut self, row: Row) -> Result<(), String> {
        self.waiting.push(row);
        if self.waiting.len() >= BATCH_MAX { self.deliver().await } else { Ok(()) }
    }

    async fn finish(mut self) -> Result<Done, String> {
        self.deliver().await?;
        Ok(self.done)
    }

    /// Has Central make what waits durable, in its order: homes together, each purge by itself.
    async fn deliver(&mut self) -> Result<(), String> {
        let mut homes: Vec<(i64, Want)> = Vec::new();
        for row in std::mem::take(&mut self.waiting) {
            let id = row.id;
            match order(row) {
                Ok(Order::Home(want)) => homes.push((id, want)),
                Ok(Order::Purge(tag)) => {
                    self.create(std::mem::take(&mut homes)).await?;
                    match self.outbox.central.purge(tag).await? {
                        Ok(_) => self.done.taken.push(id),
                        Err(refusal) => self.done.refused.push((id, refusal.detail().to_owned())),
                    }
                }
                Err(why) => self.done.refused.push((id, why)),
            }
        }
        self.create(homes).await
    }

    async fn create(&mut self, homes: Vec<(i64, Want)>) -> Result<(), String> {
        self.outbox.central.must_be_open().map_err(|refusal| refusal.detail().to_owned())?;
        let (ids, wants): (Vec<i64>, Vec<Want>) = homes.into_iter().unzip();
        if wants.is_empty() {
            return Ok(());
        }
        let central = &self.outbox.central;
        let outcomes = central.commit(wants).await.map_err(|refusal| refusal.detail().to_owned())?;
        let state = read(&central.state);
        for (id, outcome) in ids.into_iter().zip(outcomes) {
            match refusal(outcome, |edge| state.edge_name(edge).to_owned()) {
                None => self.done.taken.push(id),
                Some(why) => self.done.refused.push((id, why)),
            }
        }
        Ok(())
    }
}

/// What a row asks for.
#[derive(Debug, PartialEq, Eq)]
enum Order {
    Home(Want),
    Purge(String),
}

/// Reads a row. Errors: why it cannot be done.
fn order(row: Row) -> Result<Order, String> {
    match row.kind.as_str() {
        "home" => {
            let space = if row.space.is_empty() { "user" } else { &row.space };
            let edge = row.value.filter(|edge| !edge.is_empty()).ok_or("`value` is missing: the home edge")?;
            Ok(Order::Home(Want { key: key::full(space, &row.key)?, edge, why: Why::Outbox }))
        }
        "purge-tag" => key::check_full(&format!("tag:{}", row.key)).map(|()| Order::Purge(row.key)),
        other => Err(format!("`{}` is not a kind: home or purge-tag", key::shown(other))),
    }
}

/// Why a row was not done; `None` if it was.
fn refusal(outcome: Outcome, name: impl Fn(u16) -> String) -> Option<String> {
    match outcome {
        Outcome::Created(_) | Outcome::Same(_) => None,
        Outcome::Taken(home) => {
            Some(format!("it lives at `{}` (epoch {}): to change that is a move", name(home.edge), home.epoch))
        }
        Outcome::NoEdge => Some("no such edge takes new homes".to_owned()),
        Outcome::Collision => Some("too many other keys have the same 64-bit hash".to_owned()),
        Outcome::Withheld(feature) => {
            Some(format!("not every edge reads `{feature}` yet: upgrade them, then insert it again"))
        }
    }
}

/// How long to wait after a round that began then.
fn pause(began: Instant) -> Duration {
    let took = clock::now().saturating_duration_since(began);
    (took * LOOK_SHARE).clamp(LOOK_EVERY, LOOK_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::state::Home;
    use super::*;
    use crate::home::event::State;

    fn row(kind: &str, space: &str, key: &str, value: Option<&str>) -> Row {
        Row { id: 1, kind: kind.into(), space: space.into(), key: key.into(), value: value.map(str::to_owned) }
    }

    #[test]
    fn rows_are_understood_or_refused_with_a_reason() {
        let home = |key: &str| Order::Home(Want { key: key.into(), edge: "fr".into(), why: Why::Outbox });
        assert_eq!(order(row("home", "user", "448", Some("fr"))), Ok(home("user:448")));
        assert_eq!(order(row("home", "", "4:8", Some("fr"))), Ok(home("user:4:8")));
        assert_eq!(order(row("purge-tag", "", "a b", None)), Ok(Order::Purge("a b".into())));
        for (refused, why) in [
            (row("move", "user", "448", Some("fr")), "not a kind"),
            (row("home", "user", "448", None), "`value` is missing"),
            (row("home", "Us er", "448", Some("fr")), "key space"),
            (row("home", "user", "", Some("fr")), "empty"),
            (row("purge-tag", "", "\n", None), "control"),
        ] {
            let told = order(refused).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn only_what_changed_nothing_on_purpose_counts_as_done() {
        let at = Home { edge: 2, epoch: 3, state: State::Active, seq: 9 };
        let told = |outcome| refusal(outcome, |edge| format!("edge-{edge}"));
        assert_eq!((told(Outcome::Created(at)), told(Outcome::Same(at))), (None, None));
        assert!(told(Outcome::Taken(at)).unwrap().contains("`edge-2` (epoch 3)"));
        assert!(told(Outcome::NoEdge).is_some() && told(Outcome::Collision).is_some());
    }
}
