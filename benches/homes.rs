//! The home map beside what else one could keep it in: DashMap in memory, redb on disk, on the same data in the same run.
//!
//! `cargo bench --bench homes [-- --smoke] [--json FILE] [--users 100m] [NAME]`. Without `--users` it runs at 1 and 10
//! million. `NAME` is one of look-up, disk, propagation, catch-up and writers. Nothing is asserted; docs/performance.md says
//! what was found.

// Benchmarks are outside the rules for clocks and threads that `clippy.toml` sets for the data path.
#![allow(clippy::disallowed_methods)]

#[path = "support/edges.rs"]
mod edges;
#[path = "support/facts.rs"]
mod facts;
#[path = "support/histogram.rs"]
mod histogram;
#[path = "support/report.rs"]
mod report;
#[path = "support/scripted.rs"]
mod scripted;

use coordinator::base::id::EdgeId;
use coordinator::home::cursor::{Cursor, FeedId};
use coordinator::home::event::{EdgeRow, EdgeState, Event, Frame, State};
use coordinator::home::hash::{KeyHash, key_hash};
use coordinator::home::slot::{Entry, EpochLow, State as Slot};
use coordinator::home::snapshot::{Decoder, Encoder, Header, Part};
use coordinator::home::table::Writer;
use coordinator::homes::{Applier, AskReceiver, Homes, SnapshotRow};
use dashmap::DashMap;
use histogram::Histogram;
use redb::{Database, Durability, ReadableDatabase, TableDefinition};
use report::{Asked, Report};
use scripted::Scripted;
use serde_json::{Value, json};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The daemon's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FEED: FeedId = FeedId([7; 16]);

/// redb takes minutes to load more; its cost for each row has settled by then.
const REDB_MAX: u64 = 10_000_000;

/// How long a rate is measured.
const FOR: Duration = Duration::from_secs(4);

/// Events that are made durable together: as Central cuts its batches at most, and as an edge groups what has come.
const BATCHES: [usize; 2] = [1024, 16_384];

/// Events of one frame of a feed, few and as many as Central puts into one.
const FRAMES: [usize; 2] = [64, 1024];

/// Events that are followed for each.
const FOLLOWED: usize = 2_000_000;

/// Ours and redb take turns so often: what else the machine does falls on both.
const ROUNDS: usize = 3;

/// Writers at Central at a time.
const WRITERS: [u64; 3] = [1, 16, 128];

/// After so long nothing is left of who was dropped.
const GONE: Duration = Duration::from_millis(500);

/// The brake on mass changes is not what is measured here.
const UNBRAKED: Duration = Duration::from_secs(24 * 3600);

const ROWS: TableDefinition<'_, u64, u64> = TableDefinition::new("rows");

fn main() {
    let asked = Asked::read();
    let mut bench = Bench { report: Report::begin("homes: a map of many users"), asked, users: 0 };
    let sizes = match (bench.asked.users, bench.asked.smoke) {
        (Some(users), _) => vec![users],
        (None, true) => vec![20_000],
        (None, false) => vec![1_000_000, 10_000_000],
    };
    for users in sizes {
        bench.users = users;
        println!("{users} users");
        let users = Users { count: users };
        if bench.wants("look-up") {
            look_ups(&mut bench, &users);
        }
        if bench.wants("disk") {
            on_disk(&mut bench, &users);
        }
    }
    bench.users = 0;
    if bench.wants("propagation") {
        propagation(&mut bench);
    }
    if bench.wants("catch-up") {
        catch_up(&mut bench);
    }
    if bench.wants("writers") {
        writers(&mut bench);
    }
    let Bench { report, asked, .. } = bench;
    report.end(&asked);
}

struct Bench {
    report: Report,
    asked: Asked,
    users: u64,
}

impl Bench {
    fn wants(&self, name: &str) -> bool {
        self.asked.wants(name)
    }

    /// Prints and keeps one figure.
    fn tell(&mut self, what: &str, figure: f64, unit: &str) {
        let text = if figure >= 1000.0 { format!("{figure:.0}") } else { format!("{figure:.2}") };
        println!("  {what:<58} {text:>12} {unit}");
        self.report.row(json!({ "users": self.users, "what": what, "figure": figure, "unit": unit }));
    }

    fn ratio(&mut self, what: &str, ratio: f64) {
        self.tell(what, ratio, "x");
    }

    /// How long rates are measured here.
    fn long(&self) -> Duration {
        if self.asked.smoke { FOR / 100 } else { FOR }
    }
}

/// All users, by number; each lives at one of three edges, `fr` among them.
struct Users {
    count: u64,
}

impl Users {
    fn home(user: u64) -> u16 {
        1 + (user % 3) as u16
    }

    /// Hash and home of all, in the order of the hashes.
    fn sorted(&self, hash: impl Fn(u64) -> KeyHash) -> Vec<(KeyHash, u16)> {
        let mut rows: Vec<_> = (0..self.count).map(|user| (hash(user), Users::home(user))).collect();
        rows.sort_unstable();
        rows
    }

    fn any(&self, random: &mut Random) -> u64 {
        random.below(self.count)
    }
}

/// A user's hash without a look into memory, which would cost as much as what is measured (splitmix64, Steele 2014).
fn mixed(user: u64) -> KeyHash {
    let mut hash = user.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    KeyHash(hash ^ (hash >> 31))
}

/// A user's hash as edges have it.
fn keyed(user: u64) -> KeyHash {
    key_hash(FEED, "user", &user.to_string())
}

/// Numbers that no cache foresees (xorshift64*, Vigna 2014), drawn without a division.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// Octets of this process that are in memory.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// Begins to note the peak of what is in memory; gives what is.
fn start_peak() -> u64 {
    // Where the system refuses, the peak is that of the whole run.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    resident()
}

/// The most octets of this process that were in memory since.
fn peak() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Processor time of this process.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks: u64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}

/// In memory: the flat table and DashMap.
fn look_ups(bench: &mut Bench, users: &Users) {
    let mut writer = Writer::with_room(users.count as usize);
    let entry = |home| Entry { home: EdgeId(home), state: Slot::Active, epoch: EpochLow::of(1) };
    let rows = users.sorted(mixed);
    let with_rows = resident();
    let began = Instant::now();
    let filled = writer.fill(rows.iter().map(|(hash, home)| Ok::<_, ()>((*hash, entry(*home)))));
    assert_eq!(filled, Ok(Ok(())), "the table has room for all");
    bench.tell("table: filled from sorted rows", users.count as f64 / seconds(began) / 1e6, "M rows/s");
    let each = |octets: u64| octets as f64 / users.count as f64;
    bench.tell("table: resident for each user", each(resident().saturating_sub(with_rows)), "octets");
    bench.tell("table: load", users.count as f64 / writer.table().slots() as f64, "");
    drop(rows);
    let table = writer.table().clone();
    let held = resident();
    let map: DashMap<u64, u64> = DashMap::new();
    for user in 0..users.count {
        map.insert(mixed(user).0, u64::from(Users::home(user)));
    }
    bench.tell("DashMap<u64, u64>: resident for each user", each(resident().saturating_sub(held)), "octets");
    let mut ours = |hash| table.get(hash).map_or(0, |entry| u64::from(entry.home.0));
    let mut theirs = |hash: KeyHash| map.get(&hash.0).map_or(0, |home| *home);
    let (mut of_ours, mut of_theirs) = (Timed::nothing(), Timed::nothing());
    for _ in 0..ROUNDS {
        of_ours.round(bench.long() / ROUNDS as u32, users, &mut ours);
        of_theirs.round(bench.long() / ROUNDS as u32, users, &mut theirs);
    }
    of_ours.tell(bench, "table");
    let mut random = Random(3);
    let unknown = throughput(bench.long(), || table.get(KeyHash(random.next())).is_some().into());
    bench.tell("table: throughput, unknown users", unknown, "ns");
    of_theirs.tell(bench, "DashMap<u64, u64>");
    let middle = |of: fn(&Timed) -> &Vec<f64>| {
        let mut ratios: Vec<f64> =
            of(&of_theirs).iter().zip(of(&of_ours)).map(|(theirs, ours)| theirs / ours).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    };
    bench.ratio("table beside DashMap: one after the other, the middle round", middle(|timed| &timed.dependent));
    bench.ratio("table beside DashMap: throughput, the middle round", middle(|timed| &timed.independent));
    bench.ratio("table beside DashMap: p50", of_theirs.times.micros(0.5) / of_ours.times.micros(0.5));
}

/// Look-ups in rounds: one after the other, as many as come, and each by itself.
struct Timed {
    dependent: Vec<f64>,
    independent: Vec<f64>,
    times: Histogram,
}

impl Timed {
    fn nothing() -> Timed {
        Timed { dependent: Vec::new(), independent: Vec::new(), times: Histogram::new() }
    }

    fn round(&mut self, long: Duration, users: &Users, look: &mut impl FnMut(KeyHash) -> u64) {
        let mut random = Random(1);
        let mut found = 0;
        self.dependent.push(throughput(long, || {
            // The next user depends on what was found: the processor cannot look ahead.
            found = look(mixed(random.below(users.count - 4) + found));
            found
        }));
        let mut random = Random(2);
        self.independent.push(throughput(long, || look(mixed(users.any(&mut random)))));
        each_by_itself(long, users, look, &mut self.times);
    }

    fn tell(&self, bench: &mut Bench, what: &str) {
        let best = |rounds: &[f64]| rounds.iter().copied().fold(f64::MAX, f64::min);
        bench.tell(&format!("{what}: one after the other"), best(&self.dependent), "ns");
        bench.tell(&format!("{what}: throughput"), best(&self.independent), "ns");
        let clock = clock_cost();
        for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
            let nanos = (self.times.micros(share) * 1e3 - clock).max(0.0);
            bench.tell(&format!("{what}: {name}"), nanos, "ns");
        }
    }
}

/// Nanoseconds of processor time for each, the best of five rounds: what the code costs, not what else the machine does,
/// though that takes its part of the caches.
fn throughput(long: Duration, mut step: impl FnMut() -> u64) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let (began, had) = (Instant::now(), on_processor());
        let mut count = 0u64;
        let mut sum = 0u64;
        while began.elapsed() < long / 5 {
            for _ in 0..1024 {
                sum = sum.wrapping_add(step());
            }
            count += 1024;
        }
        black_box(sum);
        best = best.min((on_processor() - had).as_nanos() as f64 / count as f64);
    }
    best
}

/// Processor time of this thread.
fn on_processor() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

/// What reading the clock twice costs, in nanoseconds.
fn clock_cost() -> f64 {
    let mut costs: Vec<u128> = (0..10_001).map(|_| Instant::now().elapsed().as_nanos()).collect();
    costs.sort_unstable();
    costs[costs.len() / 2] as f64
}

/// Each look-up timed by itself.
fn each_by_itself(long: Duration, users: &Users, look: &mut impl FnMut(KeyHash) -> u64, times: &mut Histogram) {
    let mut random = Random(4);
    let began = Instant::now();
    while began.elapsed() < long {
        for _ in 0..256 {
            let hash = mixed(users.any(&mut random));
            let start = Instant::now();
            black_box(look(hash));
            times.record(start.elapsed());
        }
    }
}

fn edge_rows() -> Vec<EdgeRow> {
    let row = |idx, name: &str| EdgeRow { idx, name: name.to_owned(), peer: None, state: EdgeState::Active };
    vec![row(1, "fr"), row(2, "us"), row(3, "jp")]
}

fn open(folder: &Path) -> (Arc<Homes>, Applier, AskReceiver) {
    let opened = Homes::open(folder, "fr", vec!["user".to_owned()]).expect("the folder can be opened");
    opened.0.lift_brake(UNBRAKED);
    opened
}

/// What it costs here to make 64 KiB durable, in a file that grows and in one whose space is prepared: the disk's part in
/// every figure of durable events.
fn fsyncs(bench: &mut Bench, folder: &Path) {
    use std::os::unix::fs::FileExt;
    let block = [1u8; 64 << 10];
    let count = if bench.asked.smoke { 5 } else { 200 };
    for (what, prepared) in [("a file that grows", 0), ("prepared space", count)] {
        let file = std::fs::File::create(folder.join("fsync")).expect("a file");
        for at in 0..prepared {
            file.write_all_at(&[0; 64 << 10], at * block.len() as u64).expect("zeros");
        }
        file.sync_all().expect("an fsync");
        let mut times = Histogram::new();
        for at in 0..count {
            let start = Instant::now();
            file.write_all_at(&block, at * block.len() as u64).expect("a block");
            file.sync_data().expect("an fdatasync");
            times.record(start.elapsed());
        }
        bench.tell(&format!("the disk: fdatasync of 64 KiB, {what}, p50"), times.micros(0.5) / 1e3, "ms");
        bench.tell(&format!("the disk: fdatasync of 64 KiB, {what}, p99"), times.micros(0.99) / 1e3, "ms");
    }
}

/// On disk: snapshot, image, log, and redb.
fn on_disk(bench: &mut Bench, users: &Users) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder on a disk");
    fsyncs(bench, folder.path());
    let snapshot = encoded(bench, users);
    fresh(bench, users, folder.path(), &snapshot);
    drop(snapshot);
    start(bench, users, folder.path(), "image");
    let beside = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder on a disk");
    let mut theirs = Redb::load(bench, users, beside.path());
    let mut moves = Moves::of(users);
    let rates = apply(bench, &mut moves, folder.path(), &mut theirs);
    drop(theirs);
    let followed = followed(bench, &mut moves, folder.path());
    drop(moves);
    for (batch, rate) in BATCHES.into_iter().zip(rates) {
        bench.ratio(&format!("the whole path, grouped, beside redb in batches of {batch}"), followed / rate);
    }
    start(bench, users, folder.path(), "image and log");
}

fn encoded(bench: &mut Bench, users: &Users) -> Vec<u8> {
    let rows = users.sorted(keyed);
    let rows: Vec<SnapshotRow> =
        rows.into_iter().map(|(kh, home)| SnapshotRow { kh, epoch: 1, home, tomb: false }).collect();
    let began = Instant::now();
    let mut out = Vec::new();
    let header = Header { feed: FEED, term: 1, seq: 1 };
    let mut encoder = Encoder::start(&header, &edge_rows(), &mut out);
    let mut rest = &rows[..];
    while !rest.is_empty() {
        rest = &rest[encoder.rows(rest, &mut out)..];
    }
    encoder.finish(&mut out);
    bench.tell("snapshot: encoded", rows.len() as f64 / seconds(began) / 1e6, "M rows/s");
    bench.tell("snapshot: octets for each user", out.len() as f64 / rows.len() as f64, "octets");
    out
}

/// The rows of a snapshot as they come from its octets.
fn decoded(snapshot: &[u8]) -> impl Iterator<Item = Result<SnapshotRow, String>> {
    let (mut decoder, mut pieces) = (Decoder::default(), snapshot.chunks(64 << 10));
    let parts = std::iter::from_fn(move || {
        let mut parts = Vec::new();
        decoder.push(pieces.next()?, &mut parts).expect("the snapshot is sound");
        Some(parts)
    });
    parts.flatten().flat_map(|part| if let Part::Rows(rows) = part { rows } else { Vec::new() }).map(Ok)
}

/// An edge that has nothing and gets a snapshot.
fn fresh(bench: &mut Bench, users: &Users, folder: &Path, snapshot: &[u8]) {
    let (homes, mut applier, _asks) = open(folder);
    let began = Instant::now();
    assert_eq!(decoded(snapshot).filter(Result::is_ok).count() as u64, users.count);
    bench.tell("snapshot: decoded", users.count as f64 / seconds(began) / 1e6, "M rows/s");
    let had = start_peak();
    let began = Instant::now();
    applier.begin_feed(FEED, 1).expect("a first feed");
    // Without it the ledger waits for Central's word, and nobody is ours.
    applier.registered(1, 1);
    let at = Cursor { feed: Some(FEED), term: 1, seq: 1, chain: 0 };
    applier.load_at(at, &edge_rows(), decoded(snapshot)).expect("a sound snapshot");
    bench.tell("fresh start: from snapshot in memory to all durable and hot", seconds(began), "s");
    let each = |octets: u64| octets as f64 / users.count as f64;
    bench.tell("fresh start: peak of memory for each user", each(peak().saturating_sub(had)), "octets");
    let size = |name: &str| {
        let files = std::fs::read_dir(folder).expect("the folder is there").flatten();
        let files = files.filter(|file| file.file_name().to_string_lossy().starts_with(name));
        files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum::<u64>() as f64
    };
    bench.tell("map on disk for each user", size("map") / users.count as f64, "octets");
    bench.tell("ledger on disk for each own user", size("ledger") / users.count as f64 * 3.0, "octets");
    assert_eq!(homes.figures().map_keys, users.count);
}

/// From the opening of the folder to the first answer, and to look-ups in memory.
fn start(bench: &mut Bench, users: &Users, folder: &Path, from: &str) {
    // The claims' store of who had the folder before ends on a thread of its own.
    std::thread::sleep(GONE);
    let before = resident();
    let mut random = Random(5);
    let mut look = |homes: &Homes| {
        let user = users.any(&mut random);
        let home = homes.look("user", &user.to_string());
        assert!(matches!(home, coordinator::home::Home::At { .. } | coordinator::home::Home::Ours { .. }), "{home:?}");
    };
    let began = Instant::now();
    let (homes, mut applier, _asks) = open(folder);
    look(&homes);
    bench.tell(&format!("start from {from}: to the first answer"), seconds(began) * 1e3, "ms");
    let mut cold = Histogram::new();
    while homes.figures().is_cold {
        for _ in 0..16 {
            let start = Instant::now();
            look(&homes);
            cold.record(start.elapsed());
        }
    }
    applier.warm().expect("the files are sound");
    bench.tell(&format!("start from {from}: to all in memory, while answering"), seconds(began), "s");
    if cold.total() > 0 {
        bench.tell(&format!("start from {from}: answers meanwhile, p50"), cold.micros(0.5), "us");
        bench.tell(&format!("start from {from}: answers meanwhile, p99"), cold.micros(0.99), "us");
    }
    let mut hot = || look(&homes);
    let each = throughput(bench.long(), || {
        hot();
        1
    });
    bench.tell(&format!("start from {from}: a look-up by key, hash included"), each, "ns");
    let held = resident().saturating_sub(before) as f64 / users.count as f64;
    bench.tell(&format!("start from {from}: resident for each user, ledger included"), held, "octets");
}

/// Users that move about: the events that come next in the feed.
struct Moves<'a> {
    users: &'a Users,
    random: Random,
    epochs: Vec<u32>,
    seq: u64,
}

impl Moves<'_> {
    /// After a snapshot in which each has the first epoch.
    fn of(users: &Users) -> Moves<'_> {
        Moves { users, random: Random(6), epochs: vec![1; users.count as usize], seq: 1 }
    }

    fn next(&mut self) -> Event {
        let user = self.users.any(&mut self.random);
        let epoch = &mut self.epochs[user as usize];
        *epoch += 1;
        self.seq += 1;
        Event {
            c: "put".into(),
            e: *epoch,
            h: ["fr", "us", "jp"][(user + u64::from(*epoch)) as usize % 3].into(),
            k: format!("user:{user}"),
            s: self.seq,
            st: State::Active,
            x: 0,
        }
    }

    fn batch(&mut self, count: usize) -> Vec<Event> {
        (0..count).map(|_| self.next()).collect()
    }

    /// A batch as Central writes it.
    fn line(&mut self, count: usize) -> Vec<u8> {
        let batch = self.batch(count);
        let mut line = Frame::batch(batch[0].s, self.seq, batch).line();
        line.pop();
        line
    }
}

/// What was made durable in some time, batch by batch.
struct Applied {
    count: u64,
    took: Duration,
    used: Duration,
    times: Histogram,
}

impl Applied {
    fn nothing() -> Applied {
        Applied { count: 0, took: Duration::ZERO, used: Duration::ZERO, times: Histogram::new() }
    }

    fn rate(&self) -> f64 {
        self.count as f64 / self.took.as_secs_f64()
    }

    /// Draws `groups` batches, then makes them durable, so often that it takes `lasts`. Drawing is not in the time.
    fn for_long<T>(
        lasts: Duration,
        groups: usize,
        mut draw: impl FnMut() -> T,
        mut make: impl FnMut(T) -> u64,
    ) -> Applied {
        let mut applied = Applied::nothing();
        while applied.took < lasts {
            let group: Vec<T> = (0..groups).map(|_| draw()).collect();
            let (began, had) = (Instant::now(), cpu());
            for batch in group {
                let start = Instant::now();
                applied.count += make(batch);
                applied.times.record(start.elapsed());
            }
            applied.took += began.elapsed();
            applied.used += cpu() - had;
        }
        applied
    }

    fn add(&mut self, other: &Applied) {
        self.count += other.count;
        self.took += other.took;
        self.used += other.used;
        self.times.add(&other.times);
    }

    fn tell(&self, bench: &mut Bench, what: &str) {
        tell_rate(bench, what, self.count, self.took, self.used);
        bench.tell(&format!("{what}: p50 of a batch"), self.times.micros(0.5) / 1e3, "ms");
        bench.tell(&format!("{what}: p99 of a batch"), self.times.micros(0.99) / 1e3, "ms");
    }
}

/// Events a second, each batch durable before the next, by turns with redb. Gives redb's rates.
fn apply(bench: &mut Bench, moves: &mut Moves<'_>, folder: &Path, redb: &mut Redb) -> Vec<f64> {
    let (_homes, mut applier, _asks) = open(folder);
    applier.begin_feed(FEED, 1).expect("the feed goes on");
    let mut rates = Vec::new();
    for batch in BATCHES {
        // As many as the clock of processor time can measure.
        let groups = if bench.asked.smoke { 2 } else { 200_000 / batch };
        let (mut ours, mut theirs, mut ratios) = (Applied::nothing(), Applied::nothing(), Vec::new());
        for _ in 0..ROUNDS {
            let events = |events: Vec<Event>| {
                let (first, last) = (events[0].s, events[events.len() - 1].s);
                let applied = applier.apply(first, last, &events).expect("the next events");
                assert_eq!(applied.kept_out, 0);
                events.len() as u64
            };
            let one = Applied::for_long(bench.long(), groups, || moves.batch(batch), events);
            let other = redb.apply(bench.long(), batch);
            ratios.push(one.rate() / other.rate());
            ours.add(&one);
            theirs.add(&other);
        }
        ours.tell(bench, &format!("apply, {batch} events to an fsync"));
        theirs.tell(bench, &format!("redb: {batch} rows to a durable commit"));
        ratios.sort_unstable_by(f64::total_cmp);
        bench.ratio(&format!("apply beside redb, {batch} each, the middle of {ROUNDS} rounds"), ratios[ROUNDS / 2]);
        rates.push(theirs.rate());
    }
    rates
}

fn tell_rate(bench: &mut Bench, what: &str, count: u64, took: Duration, used: Duration) -> f64 {
    let rate = count as f64 / took.as_secs_f64();
    bench.tell(what, rate, "a second");
    let of_a_core = count as f64 / used.as_secs_f64().max(1e-3);
    bench.tell(&format!("{what}: for each second of one core"), of_a_core, "");
    rate
}

/// The whole path: from the lines of a feed that are all there, through parsing and grouping, to what is durable and
/// visible. Gives events a second where Central cuts its frames shortest.
fn followed(bench: &mut Bench, moves: &mut Moves<'_>, folder: &Path) -> f64 {
    let mut rates = Vec::new();
    for frame in FRAMES {
        let (homes, mut applier, asks) = open(folder);
        applier.warm().expect("the files are sound");
        let frames = if bench.asked.smoke { 20 } else { FOLLOWED / frame };
        let lines = (0..frames).map(|_| moves.line(frame)).collect();
        let (had, last) = (cpu(), moves.seq);
        let took = scripted::follow(Scripted { history: (FEED, 1), lines }, &homes, applier, asks, last);
        let what = format!("the whole path, frames of {frame} events, grouped");
        rates.push(tell_rate(bench, &what, (frames * frame) as u64, took, cpu() - had));
    }
    rates.into_iter().fold(f64::MAX, f64::min)
}

/// The same rows in redb, in one table, with the cursor.
struct Redb {
    database: Database,
    /// The hashes of the users that are in it.
    hashes: Vec<u64>,
    random: Random,
    done: u64,
}

impl Redb {
    fn load(bench: &mut Bench, users: &Users, folder: &Path) -> Redb {
        let count = (users.count).min(REDB_MAX);
        let rows = Users { count }.sorted(keyed);
        let database = Database::create(folder.join("redb")).expect("a database");
        let mut redb =
            Redb { database, hashes: rows.iter().map(|(hash, _)| hash.0).collect(), random: Random(7), done: 0 };
        let began = Instant::now();
        redb.write(rows.iter().map(|(hash, home)| (hash.0, u64::from(*home))));
        bench.tell(&format!("redb: {count} sorted rows loaded in"), seconds(began), "s");
        let size = std::fs::metadata(folder.join("redb")).map_or(0, |file| file.len());
        bench.tell("redb: on disk for each user", size as f64 / count as f64, "octets");
        let transaction = redb.database.begin_read().expect("a transaction");
        let table = transaction.open_table(ROWS).expect("a table");
        let mut random = Random(3);
        let mut look = || {
            let hash = redb.hashes[random.below(count) as usize];
            table.get(hash).expect("a row").map_or(0, |row| row.value())
        };
        let each = throughput(bench.long(), &mut look);
        bench.tell("redb: look-up", each, "ns");
        redb
    }

    /// One durable commit.
    fn write(&mut self, rows: impl Iterator<Item = (u64, u64)>) {
        let mut transaction = self.database.begin_write().expect("a transaction");
        transaction.set_durability(Durability::Immediate).expect("it is durable");
        {
            let mut table = transaction.open_table(ROWS).expect("a table");
            for (hash, value) in rows {
                table.insert(hash, value).expect("a row");
            }
        }
        transaction.commit().expect("a commit");
    }

    fn apply(&mut self, lasts: Duration, batch: usize) -> Applied {
        let mut random = Random(self.random.next());
        let hashes = std::mem::take(&mut self.hashes);
        let draw = || (0..batch).map(|_| hashes[random.below(hashes.len() as u64) as usize]).collect::<Vec<_>>();
        let applied = Applied::for_long(lasts, 1, draw, |updates| {
            self.done += batch as u64;
            let (done, cursor) = (self.done, (0, self.done));
            self.write(updates.into_iter().map(|hash| (hash, done)).chain([cursor]));
            batch as u64
        });
        self.hashes = hashes;
        applied
    }
}

/// Central and three edges on real sockets: from the commit of one home to its being applied at each.
fn propagation(bench: &mut Bench) {
    println!("propagation: Central and three edges in this process, over loopback");
    let puts = if bench.asked.smoke { 20 } else { 2000 };
    let figures: Value = edges::propagation(puts);
    for (what, micros) in figures.as_object().into_iter().flatten() {
        bench.tell(what, micros.as_f64().unwrap_or(0.0) / 1e3, "ms");
    }
}

/// An edge that was away, over real sockets.
fn catch_up(bench: &mut Bench) {
    println!("catch-up: Central and one edge in this process, over loopback");
    let events = if bench.asked.smoke { 5000 } else { 1_000_000 };
    let (imported, followed, of_a_core) = edges::catch_up(events);
    bench.tell("Central: homes imported, each durable", imported, "events/s");
    bench.tell("an edge that was away, following the stream, each durable", followed, "events/s");
    bench.tell("the same for each second of one core, of the edge's threads", of_a_core, "events");
}

/// Many who write at Central at once.
fn writers(bench: &mut Bench) {
    println!("writers: puts at Central, each durable before it is answered, over loopback");
    for count in WRITERS {
        let (rate, p50, shared) = edges::writers(count, bench.long());
        bench.tell(&format!("{count} writers"), rate, "puts/s");
        bench.tell(&format!("{count} writers: p50 of a put"), p50 / 1e3, "ms");
        bench.tell(&format!("{count} writers: puts to a commit"), shared, "");
    }
}
