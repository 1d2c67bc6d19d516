//! The database of an outbox: what must hold there, the slot, and the few statements that the relay needs.

use super::NAME;
use super::pgoutput::{self, Lsn, Row};
use super::tls::Secure;
use crate::config::plan::Database;
use futures_util::{Stream, StreamExt};
use std::pin::Pin;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Config, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, NoTls, RowStream, Socket};

/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A connection on which nothing was acknowledged for so long is dead.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// The oldest server whose slots say whether they were lost.
const VERSION_MIN: i32 = 130_000;
/// Where the table's definition is shipped.
const SCHEMA: &str = "packaging/postgres/outbox.sql (installed as /usr/share/doc/coordinator/outbox.sql)";

/// A connection that alone relays this outbox.
pub(super) struct Session {
    client: Client,
    driver: JoinHandle<()>,
}

/// What a database is found to be.
pub(super) struct Found {
    /// Which one.
    pub(super) system: String,
    /// Which line of its history.
    pub(super) timeline: String,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    /// Connects. Errors: why not.
    pub(super) async fn open(database: &Database) -> Result<Session, String> {
        let mut config: Config =
            database.url.parse().map_err(|error| format!("`outbox` of [central] cannot be understood: {error}"))?;
        config.application_name("coordinator").tcp_user_timeout(SILENCE_MAX).keepalives_idle(SILENCE_MAX);
        match config.get_ssl_mode() {
            SslMode::Require => Session::over(&config, Secure::to(database)?).await,
            _ => Session::over(&config, NoTls).await,
        }
    }

    async fn over<T>(config: &Config, tls: T) -> Result<Session, String>
    where
        T: MakeTlsConnect<Socket, Stream: Send + 'static>,
    {
        let connecting = tokio::time::timeout(CONNECT_MAX, config.connect(tls)).await;
        let connected =
            connecting.map_err(|_| format!("the database did not answer within {} s", CONNECT_MAX.as_secs()))?;
        let (client, connection) =
            connected.map_err(|error| format!("the database cannot be reached: {}", told(&error)))?;
        let driver = tokio::spawn(async move {
            // Its end shows at every statement.
            let _ = connection.await;
        });
        Ok(Session { client, driver })
    }

    /// Looks whether everything is as it must be. Errors: what to mend.
    pub(super) async fn check(&mut self) -> Result<Found, String> {
        self.settings().await?;
        self.schema().await?;
        self.alone().await?;
        let row = self.one(
            "SELECT system_identifier::text, left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system()",
        );
        let row = row.await?;
        Ok(Found { system: row.get(0), timeline: row.get(1) })
    }

    async fn settings(&self) -> Result<(), String> {
        let row = self.one(
            "SELECT current_setting('server_version_num')::int4, pg_is_in_recovery(), current_setting('wal_level'),
                    rolreplication OR rolsuper, rolname::text FROM pg_roles WHERE rolname = current_user",
        );
        let row = row.await?;
        if row.get::<_, i32>(0) < VERSION_MIN {
            return Err("the database is older than PostgreSQL 13".to_owned());
        }
        if row.get::<_, bool>(1) {
            return Err("this is a standby of the database: name its primary in `outbox`".to_owned());
        }
        let level: String = row.get(2);
        if level != "logical" {
            return Err(format!(
                "the database has `wal_level = {level}`, which does not tell commits: write `wal_level = logical` into postgresql.conf and restart it"
            ));
        }
        if !row.get::<_, bool>(3) {
            let role: String = row.get(4);
            return Err(format!("the role `{role}` may not read commits: ALTER ROLE {role} REPLICATION"));
        }
        Ok(())
    }

    async fn schema(&self) -> Result<(), String> {
        let row = self.one(
            "SELECT to_regclass('coordinator_outbox') IS NOT NULL,
                    (SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass('coordinator_outbox') AND NOT attisdropped
                     AND (attname, atttypid) IN (('id', 'int8'::regtype), ('kind', 'text'::regtype), ('space', 'text'::regtype),
                                                 ('key', 'text'::regtype), ('value', 'text'::regtype), ('refused', 'text'::regtype))),
                    EXISTS (SELECT FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
                            WHERE p.pubname = 'coordinator_outbox' AND p.pubinsert
                            AND r.prrelid = to_regclass('coordinator_outbox')),
                    coalesce(has_table_privilege(to_regclass('coordinator_outbox'), 'SELECT')
                             AND has_table_privilege(to_regclass('coordinator_outbox'), 'UPDATE')
                             AND has_table_privilege(to_regclass('coordinator_outbox'), 'DELETE'), false)",
        );
        let row = row.await?;
        if !row.get::<_, bool>(0) {
            return Err(format!("there is no table `{NAME}` in this database: run {SCHEMA}"));
        }
        if row.get::<_, i64>(1) != 6 {
            return Err(format!(
                "the table `{NAME}` lacks columns, or has them of other types: compare it with {SCHEMA}"
            ));
        }
        if !row.get::<_, bool>(2) {
            return Err(format!("there is no publication `{NAME}` of the table's insertions: compare with {SCHEMA}"));
        }
        if !row.get::<_, bool>(3) {
            return Err(format!("the role lacks rights: GRANT SELECT, UPDATE, DELETE ON {NAME} TO it"));
        }
        Ok(())
    }

    /// Two relays would take turns at one slot, and mix the order.
    async fn alone(&self) -> Result<(), String> {
        let row = self.one("SELECT pg_try_advisory_lock(hashtext('coordinator_outbox'))").await?;
        if row.get(0) { Ok(()) } else { Err("another Central takes over this outbox".to_owned()) }
    }

    /// Where the slot stands; `None` if there is none, or none of use any more.
    pub(super) async fn slot(&self) -> Result<Option<Lsn>, String> {
        let ask = "SELECT plugin::text, database = current_database(), coalesce(wal_status, '') = 'lost', confirmed_flush_lsn::text
             FROM pg_replication_slots WHERE slot_name = $1::text";
        let Some(row) = self.client.query_opt(ask, &[&NAME]).await.map_err(failed)? else { return Ok(None) };
        let plugin: Option<String> = row.get(0);
        if plugin.as_deref() != Some("pgoutput") || !row.get::<_, Option<bool>>(1).unwrap_or(false) {
            return Err(format!(
                "the replication slot `{NAME}` is of another database or plugin: drop it, or use another server"
            ));
        }
        if !row.get::<_, bool>(2) {
            return place(row.get::<_, Option<String>>(3).as_deref().unwrap_or_default()).map(Some);
        }
        tracing::error!(
            "the database has dropped log that the outbox needed; what stands in the table is taken by its ids"
        );
        self.one_of("SELECT pg_drop_replication_slot($1::text)::text", &[&NAME]).await?;
        Ok(None)
    }

    /// Makes the slot, which waits until every transaction that runs now has ended; where it stands then.
    pub(super) async fn make_slot(&self) -> Result<Lsn, String> {
        let make = "SELECT lsn::text FROM pg_create_logical_replication_slot($1::text, 'pgoutput')";
        place(self.one_of(make, &[&NAME]).await?.get(0))
    }

    /// The end of the database's durable log.
    pub(super) async fn flushed(&self) -> Result<Lsn, String> {
        place(self.one("SELECT pg_current_wal_flush_lsn()::text").await?.get(0))
    }

    /// What was committed up to `end`, as messages of the plugin. Ends at the first commit after `rows` of them.
    pub(super) async fn changes(&self, end: Lsn, rows: i32) -> Result<Changes, String> {
        let end = pgoutput::show(end);
        let stream = self.client.query_raw(
            "SELECT data FROM pg_logical_slot_peek_binary_changes($1::text, $2::text::pg_lsn, $3::int4,
                    'proto_version', '1', 'publication_names', 'coordinator_outbox')",
            [&NAME as &(dyn tokio_postgres::types::ToSql + Sync), &end, &rows],
        );
        Ok(Changes(Box::pin(stream.await.map_err(failed)?)))
    }

    /// The rows of the table that nobody has refused.
    pub(super) async fn rows(&self) -> Result<Rows, String> {
        let none: [&(dyn tokio_postgres::types::ToSql + Sync); 0] = [];
        let stream = self.client.query_raw(
            "SELECT id, kind, space, key, value FROM coordinator_outbox WHERE refused IS NULL ORDER BY id",
            none,
        );
        Ok(Rows(Box::pin(stream.await.map_err(failed)?)))
    }

    /// Removes the rows that were taken over, and says at the others why they were not.
    pub(super) async fn clear(&self, taken: &[i64], refused: &[(i64, String)]) -> Result<(), String> {
        let delete = "DELETE FROM coordinator_outbox WHERE id = ANY($1::int8[])";
        self.client.execute(delete, &[&taken]).await.map_err(failed)?;
        let (ids, whys): (Vec<i64>, Vec<&str>) = refused.iter().map(|(id, why)| (*id, why.as_str())).unzip();
        let mark = "UPDATE coordinator_outbox SET refused = told.why
             FROM unnest($1::int8[], $2::text[]) AS told (id, why) WHERE coordinator_outbox.id = told.id";
        self.client.execute(mark, &[&ids, &whys]).await.map_err(failed).map(drop)
    }

    /// Lets the slot go on: the database need not keep what stands before.
    pub(super) async fn advance(&self, to: Lsn) -> Result<(), String> {
        let to = pgoutput::show(to);
        self.one_of("SELECT pg_replication_slot_advance($1::text, $2::text::pg_lsn)::text", &[&NAME, &to])
            .await
            .map(drop)
    }

    async fn one(&self, statement: &str) -> Result<tokio_postgres::Row, String> {
        self.one_of(statement, &[]).await
    }

    async fn one_of(
        &self,
        statement: &str,
        with: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<tokio_postgres::Row, String> {
        self.client.query_one(statement, with).await.map_err(failed)
    }
}

/// Messages of the plugin.
pub(super) struct Changes(Pin<Box<RowStream>>);

impl Changes {
    /// The next one.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        next(&mut self.0).await?.map(|row| row.try_get(0).map_err(failed)).transpose()
    }
}

/// Rows of the table.
pub(super) struct Rows(Pin<Box<RowStream>>);

impl Rows {
    /// The next one.
    pub(super) async fn next(&mut self) -> Result<Option<Row>, String> {
        let Some(row) = next(&mut self.0).await? else { return Ok(None) };
        Ok(Some(Row {
            id: row.try_get(0).map_err(failed)?,
            kind: row.try_get(1).map_err(failed)?,
            space: row.try_get::<_, Option<String>>(2).map_err(failed)?.unwrap_or_default(),
            key: row.try_get(3).map_err(failed)?,
            value: row.try_get(4).map_err(failed)?,
        }))
    }
}

async fn next(
    stream: &mut (impl Stream<Item = Result<tokio_postgres::Row, tokio_postgres::Error>> + Unpin),
) -> Result<Option<tokio_postgres::Row>, String> {
    stream.next().await.transpose().map_err(failed)
}

fn place(text: &str) -> Result<Lsn, String> {
    pgoutput::lsn(text).ok_or_else(|| format!("the database named a place that is none: {text}"))
}

fn failed(error: tokio_postgres::Error) -> String {
    format!("the database refused: {}", told(&error))
}

/// What the server said, if it said anything.
fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => match said.hint() {
            Some(hint) => format!("{}; {hint}", said.message()),
            None => said.message().to_owned(),
        },
        None => match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}
