//! The outbox of a real PostgreSQL: what was committed arrives once, in the order of commits, whoever is killed meanwhile.

use crate::harness::certs;
use crate::harness::edge::door_in;
use crate::harness::folder;
use crate::harness::postgres::Postgres;
use crate::harness::process::Process;
use crate::harness::seed::{Random, random};
use crate::harness::wait;
use coordinator::central::Central;
use coordinator::central::outbox::{Outbox, Status};
use coordinator::config::plan::Database;
use coordinator::home::event::{Event, Frame, Received, State};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

const WAIT: Duration = Duration::from_secs(60);
const SQL: &str = include_str!("../../packaging/postgres/outbox.sql");

fn central(data: &Path) -> Arc<Central> {
    let edges = ["fr", "de"].map(|name| (name.to_owned(), Some(format!("https://{name}.test:8444"))));
    Central::start(data, &edges, 1_000_000).unwrap()
}

/// A relay that can be ended in the middle of anything.
struct Relay {
    status: Arc<Status>,
    task: JoinHandle<()>,
}

impl Relay {
    fn start(central: &Arc<Central>, url: String, data: &Path) -> Relay {
        Relay::trusting(central, url, None, data)
    }

    fn trusting(central: &Arc<Central>, url: String, ca: Option<PathBuf>, data: &Path) -> Relay {
        let status = Arc::<Status>::default();
        let outbox = Outbox::new(central.clone(), Database { url, ca }, data, status.clone());
        Relay { status, task: tokio::spawn(outbox.run()) }
    }

    /// Waits until trouble is told, and gives it.
    async fn trouble(&self, text: &str) {
        until(text, || self.status.show()["trouble"].as_str().is_some_and(|trouble| trouble.contains(text))).await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + WAIT;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What Central's log says of homes and purges, in its order.
async fn events(central: &Arc<Central>) -> Vec<Event> {
    let door = crate::door::TestDoor::open(central.clone(), None);
    let url = coordinator::config::plan::Url {
        scheme: coordinator::config::plan::UrlScheme::Http,
        host: door.address.ip().to_string(),
        port: door.address.port(),
        base: String::new(),
    };
    stream(&url, central.feed_id(), central.head()).await
}

async fn stream(url: &coordinator::config::plan::Url, feed: &str, head: u64) -> Vec<Event> {
    use http_body_util::BodyExt;
    let mut line = coordinator::feed::client::Line::connect(url, None).await.unwrap();
    let call = coordinator::feed::client::Call {
        target: format!("/feed/v1/stream?feed={feed}&from=1"),
        fields: vec![("coordinator-edge", "fr".to_owned())],
        ..Default::default()
    };
    let mut body = line.send(call).await.unwrap().into_body();
    let (mut lines, mut all) = (coordinator::feed::follow::Lines::default(), Vec::new());
    loop {
        while let Some(line) = lines.next(1 << 24).unwrap() {
            if let Ok(Received::Whole(Frame::Batch { last, ev, .. })) = Frame::read(&line) {
                all.extend(ev);
                if last >= head {
                    return all;
                }
            }
        }
        let frame = body.frame().await.unwrap().unwrap();
        lines.push(frame.data_ref().map_or(&[], |octets| octets));
    }
}

async fn homes(central: &Arc<Central>) -> Vec<(String, String)> {
    let events = events(central).await;
    events.into_iter().filter(|event| event.st == State::Active).map(|event| (event.k, event.h)).collect()
}

async fn put(client: &Client, key: &str, home: &str) {
    let insert = "INSERT INTO coordinator_outbox (kind, space, key, value) VALUES ('home', 'user', $1, $2)";
    client.execute(insert, &[&key, &home]).await.unwrap();
}

async fn left(client: &Client) -> Vec<(String, Option<String>)> {
    let rows = client.query("SELECT key, refused FROM coordinator_outbox ORDER BY id", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Waits until nothing waits in the table.
async fn drained(client: &Client) {
    let end = Instant::now() + WAIT;
    while left(client).await.iter().any(|(_, refused)| refused.is_none()) {
        assert!(Instant::now() < end, "rows wait: {:?}", left(client).await.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_told_and_mended_while_it_runs() {
    let data = folder::new();
    let central = central(data.path());
    let postgres = Postgres::start().await;
    let client = postgres.connect().await;
    client.batch_execute("CREATE ROLE relay LOGIN").await.unwrap();
    let relay = Relay::start(&central, postgres.url("relay"), data.path());
    relay.trouble("ALTER ROLE relay REPLICATION").await;
    client.batch_execute("ALTER ROLE relay REPLICATION").await.unwrap();
    relay.trouble("there is no table `coordinator_outbox`").await;
    client.batch_execute("CREATE TABLE coordinator_outbox (id bigint, kind text)").await.unwrap();
    relay.trouble("lacks columns").await;
    client.batch_execute("DROP TABLE coordinator_outbox").await.unwrap();
    client.batch_execute(SQL).await.unwrap();
    relay.trouble("GRANT SELECT, UPDATE, DELETE").await;
    client.batch_execute("DROP PUBLICATION coordinator_outbox").await.unwrap();
    relay.trouble("no publication").await;
    client.batch_execute("CREATE PUBLICATION coordinator_outbox FOR TABLE coordinator_outbox").await.unwrap();
    // What stands in the table before the slot does is taken too.
    put(&client, "early", "fr").await;
    client.batch_execute("GRANT SELECT, UPDATE, DELETE ON coordinator_outbox TO relay").await.unwrap();
    until("taken over", || relay.status.is_connected() && relay.status.taken() == 1).await;
    put(&client, "late", "de").await;
    drained(&client).await;
    assert_eq!(homes(&central).await, [("user:early".into(), "fr".into()), ("user:late".into(), "de".into())]);

    // A second Central keeps its hands off.
    let other = folder::new();
    let second = Relay::start(&self::central(other.path()), postgres.url("relay"), other.path());
    second.trouble("another Central").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_tell_commits_is_refused() {
    let data = folder::new();
    let central = central(data.path());
    let postgres = Postgres::with_level("replica").await;
    Relay::start(&central, postgres.url("postgres"), data.path()).trouble("`wal_level = logical`").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_holds_up_nobody_and_is_not_lost() {
    let data = folder::new();
    let central = central(data.path());
    let mut postgres = Postgres::start().await;
    let client = postgres.connect().await;
    client.batch_execute(SQL).await.unwrap();
    let relay = Relay::start(&central, postgres.url("postgres"), data.path());
    until("connected", || relay.status.is_connected()).await;

    // Its rows have the lowest ids of all, and its commit is the last.
    let late = postgres.connect().await;
    late.batch_execute("BEGIN").await.unwrap();
    put(&late, "late-1", "fr").await;
    put(&late, "disputed", "fr").await;
    // Rolled back: as a whole, and in part.
    client.batch_execute("BEGIN").await.unwrap();
    put(&client, "never", "fr").await;
    client.batch_execute("ROLLBACK; BEGIN").await.unwrap();
    put(&client, "kept", "fr").await;
    client.batch_execute("SAVEPOINT a").await.unwrap();
    put(&client, "never-2", "fr").await;
    client.batch_execute("ROLLBACK TO a; SAVEPOINT b").await.unwrap();
    put(&client, "kept-too", "de").await;
    client.batch_execute("RELEASE b; COMMIT").await.unwrap();
    for number in 0..400 {
        put(&client, &format!("n{number}"), "de").await;
    }
    put(&client, "disputed", "de").await;
    let insert = "INSERT INTO coordinator_outbox (kind, key) VALUES ('purge-tag', 'article-7')";
    client.execute(insert, &[]).await.unwrap();
    until("all but the open one", || relay.status.taken() == 404).await;
    assert_eq!(homes(&central).await.len(), 403);

    late.batch_execute("COMMIT").await.unwrap();
    until("the late one", || relay.status.taken() == 405 && relay.status.refused() == 1).await;
    let refused = left(&client).await;
    assert!(
        matches!(&refused[..], [(key, Some(why))] if key == "disputed" && why.contains("lives at `de`")),
        "{refused:?}"
    );
    let all = events(&central).await;
    let keys: Vec<&str> = all.iter().map(|event| event.k.as_str()).collect();
    assert_eq!((keys[0], keys[1], keys.len()), ("user:kept", "user:kept-too", 405));
    assert_eq!(keys[403..], ["tag:article-7", "user:late-1"]);
    assert_eq!((all[403].st, all[403].c.as_str()), (State::Purge, "purge"));

    // A server that was killed forgets how far the slot was; Central does not.
    let head = central.head();
    postgres.kill();
    postgres.launch().await;
    let client = postgres.connect().await;
    put(&client, "after", "fr").await;
    drained(&client).await;
    assert_eq!(central.head(), head + 1);
}

/// What was committed, in the order of commits, by PostgreSQL's other plugin.
async fn committed(client: &Client) -> Vec<(String, String)> {
    let read = "SELECT data FROM pg_logical_slot_peek_changes('oracle', NULL, NULL, 'skip-empty-xacts', '1')
                WHERE data LIKE 'table public.coordinator_outbox: INSERT:%'";
    let rows = client.query(read, &[]).await.unwrap();
    let field = |text: &str, name: &str| {
        let from = text.split_once(&format!("{name}[text]:'")).unwrap().1;
        from.split_once('\'').unwrap().0.to_owned()
    };
    let pair = |text: String| (format!("user:{}", field(&text, "key")), field(&text, "value"));
    rows.iter().map(|row| pair(row.get(0))).collect()
}

/// What must come of it: the first commit of a key wins, and the rest is as it was.
fn first_of_each(committed: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut seen = HashMap::new();
    committed.into_iter().filter(|(key, home)| seen.insert(key.clone(), home.clone()).is_none()).collect()
}

/// Writes transactions of all kinds until the server goes away or all are written.
async fn write(client: Client, mut random: Random, transactions: u64) {
    for _ in 0..transactions {
        if transaction(&client, &mut random).await.is_err() {
            return;
        }
    }
}

async fn transaction(client: &Client, random: &mut Random) -> Result<(), tokio_postgres::Error> {
    let insert = "INSERT INTO coordinator_outbox (kind, space, key, value) VALUES ('home', 'user', $1, $2)";
    client.batch_execute("BEGIN").await?;
    for _ in 0..1 + random.below(6) {
        let in_part = random.below(4) == 0;
        if in_part {
            client.batch_execute("SAVEPOINT s").await?;
        }
        // Few enough keys that many are written more than once, by several writers at the same time.
        let (key, home) = (random.below(3000).to_string(), ["fr", "de"][random.below(2) as usize]);
        client.execute(insert, &[&key, &home]).await?;
        if in_part {
            client.batch_execute(["ROLLBACK TO s", "RELEASE s"][random.below(2) as usize]).await?;
        }
    }
    tokio::time::sleep(Duration::from_millis(random.below(12))).await;
    client.batch_execute(if random.below(6) == 0 { "ROLLBACK" } else { "COMMIT" }).await
}

async fn oracle(client: &Client) {
    client.batch_execute(SQL).await.unwrap();
    client.execute("SELECT pg_create_logical_replication_slot('oracle', 'test_decoding')", &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_transactions_arrive_in_the_order_of_their_commits() {
    let data = folder::new();
    let central = central(data.path());
    let postgres = Postgres::start().await;
    let client = postgres.connect().await;
    oracle(&client).await;
    // Only what is committed once the slot stands is known by the order of its commits.
    let first = Relay::start(&central, postgres.url("postgres"), data.path());
    until("connected", || first.status.is_connected()).await;
    drop(first);
    let mut writers = Vec::new();
    let mut random = random("outbox");
    for _ in 0..12 {
        let own = Random::new(random.next());
        writers.push(tokio::spawn(write(postgres.connect().await, own, 60)));
    }
    // The relay is ended in the middle of anything, again and again.
    while writers.iter().any(|writer| !writer.is_finished()) {
        let relay = Relay::start(&central, postgres.url("postgres"), data.path());
        tokio::time::sleep(Duration::from_millis(50 + random.below(400))).await;
        drop(relay);
    }
    let _relay = Relay::start(&central, postgres.url("postgres"), data.path());
    drained(&client).await;
    let expected = first_of_each(committed(&client).await);
    assert!(expected.len() > 500, "{}", expected.len());
    same(&homes(&central).await, &expected);
}

/// Panics at the first difference.
#[track_caller]
fn same(found: &[(String, String)], expected: &[(String, String)]) {
    let differs = found.iter().zip(expected).position(|(found, expected)| found != expected);
    assert_eq!(differs.map(|at| (at, &found[at], &expected[at])), None);
    assert_eq!(found.len(), expected.len());
}

/// Central as a process, with an outbox.
fn central_process(file: &Path) -> (Process, coordinator::config::plan::Url) {
    let process = Process::start(&["central", "--config", file.to_str().unwrap()]);
    let address = wait::until(
        "Central's door",
        || process.lines().iter().find_map(|line| door_in(line, "central")),
        Option::is_some,
    );
    let address = address.expect("just seen");
    let url = coordinator::config::plan::Url {
        scheme: coordinator::config::plan::UrlScheme::Http,
        host: address.ip().to_string(),
        port: address.port(),
        base: String::new(),
    };
    (process, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_mixed_when_central_and_the_database_are_killed() {
    let folder = folder::new();
    let mut postgres = Postgres::start().await;
    oracle(&postgres.connect().await).await;
    let text = format!(
        "[central]\ndata = \"{}\"\noutbox = \"{}\"\n[peer]\naddress = \"127.0.0.1:0\"\n\
         [edges.fr]\npeer = \"http://127.0.0.1:1\"\n[edges.de]\npeer = \"http://127.0.0.1:2\"\n",
        folder.join("central").display(),
        postgres.url("postgres")
    );
    let file = folder.write("central.toml", text);
    let mut random = random("killed");
    let (mut central, mut url) = central_process(&file);
    central.line("the outbox is taken over");
    for round in 0..8 {
        let mut writers = Vec::new();
        for _ in 0..6 {
            let own = Random::new(random.next());
            writers.push(tokio::spawn(write(postgres.connect().await, own, 1000)));
        }
        tokio::time::sleep(Duration::from_millis(300 + random.below(700))).await;
        if round % 2 == 0 {
            central.kill();
            tokio::time::sleep(Duration::from_millis(random.below(300))).await;
        }
        postgres.kill();
        for writer in writers {
            writer.await.unwrap();
        }
        postgres.launch().await;
        if round % 2 == 0 {
            (central, url) = central_process(&file);
        }
    }
    let client = postgres.connect().await;
    drained(&client).await;
    let expected = first_of_each(committed(&client).await);
    let status = ask(&url, "/v1/status").await;
    let (feed, head) = (status["feed"].as_str().unwrap().to_owned(), status["head"].as_u64().unwrap());
    let found = stream(&url, &feed, head).await;
    let found: Vec<_> = found.into_iter().map(|event| (event.k, event.h)).collect();
    assert!(expected.len() > 100, "{}", expected.len());
    same(&found, &expected);
    drop(central);
}

/// The certificate is verified, and so is its name: `sslmode=require` is not only a wish for secrecy.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_over_tls_must_prove_who_it_is() {
    let (data, issuer) = (folder::new(), certs::issuer());
    let central = central(data.path());
    let postgres = Postgres::with_tls(&certs::public(&issuer, &["127.0.0.1"])).await;
    let client = postgres.connect().await;
    client.batch_execute(SQL).await.unwrap();
    let ca = data.write("ca.pem", issuer.ca_pem());
    let strange = data.write("strange.pem", certs::issuer().ca_pem());
    let url = |host: &str| format!("postgres://postgres@{host}:{}/postgres?sslmode=require", postgres.port());
    for (host, ca, why) in [
        ("127.0.0.1", Some(strange), "invalid peer certificate"),
        ("localhost", Some(ca.clone()), "not valid for name"),
        ("127.0.0.1", None, "invalid peer certificate"),
    ] {
        Relay::trusting(&central, url(host), ca, data.path()).trouble(why).await;
    }
    let relay = Relay::trusting(&central, url("127.0.0.1"), Some(ca), data.path());
    until("connected", || relay.status.is_connected()).await;
    put(&client, "1", "fr").await;
    drained(&client).await;
    let sealed = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND application_name = 'coordinator'";
    assert_eq!(client.query_one(sealed, &[]).await.unwrap().get::<_, i64>(0), 1);
}

/// A database that crashes forgets how far its slot was, back to the last checkpoint. What was taken over since is read
/// again, and more of it than one round reads must not hold up what is new.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_fell_back_far_is_led_on() {
    let data = folder::new();
    let central = central(data.path());
    let mut postgres = Postgres::start().await;
    let client = postgres.connect().await;
    client.batch_execute(SQL).await.unwrap();
    let relay = Relay::start(&central, postgres.url("postgres"), data.path());
    until("connected", || relay.status.is_connected()).await;
    client.batch_execute("CHECKPOINT").await.unwrap();
    let many = "INSERT INTO coordinator_outbox (kind, space, key, value) SELECT 'home', 'user', n::text, 'fr' FROM generate_series(1, 5000) n";
    client.batch_execute(many).await.unwrap();
    drained(&client).await;
    postgres.kill();
    postgres.launch().await;
    let client = postgres.connect().await;
    put(&client, "new", "de").await;
    drained(&client).await;
    assert_eq!(homes(&central).await.last(), Some(&("user:new".to_owned(), "de".to_owned())));
}

async fn ask(url: &coordinator::config::plan::Url, target: &str) -> serde_json::Value {
    let mut line = coordinator::feed::client::Line::connect(url, None).await.unwrap();
    let call = coordinator::feed::client::Call { target: target.to_owned(), ..Default::default() };
    let answer = line.send(call).await.unwrap();
    let text = coordinator::feed::client::content(answer.into_body(), 1 << 20).await.unwrap();
    serde_json::from_slice(&text).unwrap()
}
