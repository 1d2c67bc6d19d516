//! The daemon under load: what a request costs it, and how long clients wait, beside other proxies.
//!
//! `cargo bench --bench load -- [--list] [--smoke] [--against nginx,haproxy] [--access-log] [--rounds N] [--scale F]
//! [--json FILE] [--svg FILE] [--instr SCENARIO] [SCENARIO]...`
//!
//! The measured process has one core and one worker; driver, origin and all else share the other core. A round gives every
//! subject the same work, one after the other, and the next round begins with the next subject. Of each scenario it tells:
//!
//! - **CPU time for each request**: the scheduler's nanoseconds of the subject's processes, user and system, over a closed
//!   loop of a fixed number of requests. The figure that compares proxies: it is taken on a core of its own and hardly
//!   depends on what the driver can do. Its ratio to the best peer is taken inside each round, so that what else the
//!   machine does falls on all alike.
//! - **Requests a second** in that loop, and how busy the core was: well below 100 %, the driver was the limit.
//! - **Latency on a schedule** at fixed rates, the same for all subjects: p50 to p99.9 and the maximum, over all rounds. A
//!   request counts from the moment it was due, whether or not it could be sent then.
//! - **Memory of an idle connection**: what the subject's memory grows by when thousands are held after one request each.
//!
//! The scenarios (`--list`): GET of 512 octets, 16 KiB and 1 MiB and POST of 4 KiB, over HTTP/1.1, TLS and HTTP/2; a new
//! connection for each request, plain, with a full and with a resumed handshake; a user whose home is another edge; Central;
//! idle connections. Figures are told, never asserted. A request that is not answered as it must be fails the run.

// Benchmarks are outside the rules for clocks and threads that `clippy.toml` sets for the data path.
#![allow(clippy::disallowed_methods)]

#[path = "support/asked.rs"]
mod asked;
#[path = "support/deployment.rs"]
mod deployment;
#[path = "support/drive.rs"]
mod drive;
#[path = "support/facts.rs"]
mod facts;
#[path = "support/figures.rs"]
mod figures;
#[path = "support/histogram.rs"]
mod histogram;
#[path = "support/http1.rs"]
mod http1;
#[path = "support/http2.rs"]
mod http2;
#[path = "support/instructions.rs"]
mod instructions;
#[path = "support/line.rs"]
mod line;
#[path = "support/origin.rs"]
mod origin;
#[path = "support/plot.rs"]
mod plot;
#[path = "support/print.rs"]
mod print;
#[path = "support/process.rs"]
mod process;
#[path = "support/scenario.rs"]
mod scenario;
#[path = "support/subject.rs"]
mod subject;
#[path = "support/usage.rs"]
mod usage;

use asked::Asked;
use clap::Parser;
use drive::{Drive, Load, Outcome};
use figures::{Closed, Idle, Row, Spent, Table};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use scenario::{IDLE, Scenario};
use serde_json::Value;
use std::process::ExitCode;
use std::time::Duration;
use subject::{Place, Subject, Which};

/// Descriptors for all that is not an idle connection.
const SPARE: u64 = 2_000;

/// The share of descriptors that idle connections may take: some proxies count two for each.
const SHARE: u64 = 2;

/// How long a subject gets to come to rest before its memory is read.
const REST: Duration = Duration::from_secs(1);

/// A handshake that should have been resumed may be a full one in so many: the first of each connection's place.
const FULL: u64 = 10;

fn main() -> ExitCode {
    let asked = Asked::parse();
    if asked.list {
        asked.scenarios().iter().for_each(|scenario| println!("{:<11} {}", scenario.name, scenario.about));
        return ExitCode::SUCCESS;
    }
    if asked.scenarios().is_empty() {
        eprintln!("error: no scenario has such a name; --list tells them");
        return ExitCode::from(2);
    }
    let facts = facts::tell("load: the daemon as a process of its own");
    let mut bench = Bench::prepare(asked);
    let sound = match bench.asked.instr.clone() {
        Some(name) => bench.instructions(&name),
        None => bench.run(facts),
    };
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A run of the benchmark.
struct Bench {
    asked: Asked,
    place: Place,
    subjects: Vec<Which>,
    /// Those that were needed so far, but for idle connections: they stay, so that each round finds them as warm.
    started: Vec<(Which, Subject)>,
}

impl Bench {
    /// Takes its core, raises its limits, and finds out who takes part; tells what is not as it should be.
    fn prepare(asked: Asked) -> Bench {
        // Before all else: threads and processes start where the one that starts them runs.
        let pinned = process::stay_aside();
        let place = Place { origin: origin::start(), pinned, files: raise_files() };
        if !pinned {
            println!("NOT PINNED: one core only, or no taskset; CPU times hold, the others say little");
        }
        let (most, files) = (permitted(place.files), place.files);
        if most < IDLE {
            println!("LIMITED  to {most} idle connections instead of {IDLE}: {files} descriptors are permitted");
        }
        Bench { subjects: asked.subjects(), place, asked, started: Vec::new() }
    }

    /// Measures all scenarios and writes what was asked for; whether every request succeeded.
    fn run(&mut self, mut facts: Value) -> bool {
        let scenarios = self.asked.scenarios();
        let tables: Vec<Table> = scenarios.into_iter().map(|scenario| self.scenario(scenario)).collect();
        facts["beside"] = self.subjects.iter().filter(|which| which.is_peer()).map(Which::version).collect();
        facts["smoke"] = self.asked.smoke.into();
        facts["scenarios"] = tables.iter().map(Table::json).collect();
        self.write(&facts, &tables);
        tables.iter().flat_map(|table| &table.rows).all(|row| row.failure.is_none())
    }

    /// Measures a scenario and prints it.
    fn scenario(&mut self, scenario: Scenario) -> Table {
        let subjects = self.subjects_of(&scenario);
        let mut rows: Vec<Row> = subjects.into_iter().map(Row::new).collect();
        if scenario.is_idle() {
            for row in &mut rows {
                row.failure = self.idle(&scenario, row).err();
            }
        } else {
            for round in 0..self.asked.rounds() {
                self.round(&scenario, &mut rows, round);
            }
        }
        let table = Table { scenario, rows };
        print::table(&table);
        table
    }

    /// Those who can take part in a scenario.
    fn subjects_of(&self, scenario: &Scenario) -> Vec<Which> {
        if !scenario.is_deployed() {
            return self.subjects.clone();
        }
        let mut subjects = vec![Which::Deployed { access_log: false }];
        subjects.extend(self.asked.access_log.then_some(Which::Deployed { access_log: true }));
        subjects
    }

    /// One turn of each subject that has not failed; another one is first in each round.
    fn round(&mut self, scenario: &Scenario, rows: &mut [Row], round: usize) {
        let first = round % rows.len();
        for at in (first..rows.len()).chain(0..first) {
            if rows[at].failure.is_none() {
                rows[at].failure = self.turn(scenario, &mut rows[at]).err();
            }
        }
    }

    /// One subject's turn: warm up, the closed loop, the schedules.
    fn turn(&mut self, scenario: &Scenario, row: &mut Row) -> Result<(), String> {
        let scale = self.asked.scale();
        let subject = self.started(&row.which)?;
        let mut drive = Drive::new(scenario.way(subject));
        measured(&mut drive, subject, scenario.warm(scale))?;
        let (outcome, spent) = measured(&mut drive, subject, scenario.closed(scale))?;
        resumed_as_asked(scenario, &outcome)?;
        row.closed.push(Closed::of(&outcome, spent));
        for load in scenario.open(scale) {
            let (outcome, spent) = measured(&mut drive, subject, load)?;
            row.add_open(load, &outcome, spent);
        }
        row.memory_kib = usage::memory_kib(&subject.processes());
        Ok(())
    }

    fn started(&mut self, which: &Which) -> Result<&Subject, String> {
        let at = self.started.iter().position(|(started, _)| started == which).unwrap_or(self.started.len());
        if at == self.started.len() {
            self.started.push((which.clone(), self.place.start(which)?));
        }
        Ok(&self.started[at].1)
    }

    /// Memory of idle connections, on a subject that has just been started: memory that was used before would hide it.
    fn idle(&self, scenario: &Scenario, row: &mut Row) -> Result<(), String> {
        let subject = self.place.start(&row.which)?;
        let warm = Load { requests: 200, rate: None };
        measured(&mut Drive::new(scenario.way_warm(&subject)), &subject, warm)?;
        std::thread::sleep(REST);
        let before = usage::memory_kib(&subject.processes());
        let mut drive = Drive::new(scenario.way(&subject));
        let load = scenario.closed(self.asked.scale());
        let load = Load { requests: load.requests.min(permitted(self.place.files)), ..load };
        measured(&mut drive, &subject, load)?;
        std::thread::sleep(REST);
        let with = usage::memory_kib(&subject.processes());
        let (held, closed) = drive.held();
        row.idle = Some(Idle { held, before, with });
        if closed == 0 { Ok(()) } else { Err(format!("{closed} of {held} idle connections were closed")) }
    }

    /// Counts the instructions of a request for every subject; whether that was possible.
    fn instructions(&self, name: &str) -> bool {
        let Some(scenario) = scenario::all().into_iter().find(|scenario| scenario.name == name) else {
            eprintln!("error: there is no scenario {name}; --list tells them");
            return false;
        };
        if !instructions::installed() {
            eprintln!("NOT INSTALLED: valgrind; instructions cannot be counted");
            return false;
        }
        println!("\nuser-space instructions of a request, {}: {}", scenario.name, scenario.about);
        let mut sound = true;
        for which in self.subjects_of(&scenario) {
            let counted = instructions::each(&self.place, &which, &scenario);
            sound &= counted.is_ok();
            match counted {
                Ok(count) => println!("    {:<22} {count:>10.0}", which.name()),
                Err(failure) => println!("  FAILED  {}: {failure}", which.name()),
            }
        }
        sound
    }

    fn write(&self, facts: &Value, tables: &[Table]) {
        if let Some(path) = &self.asked.json {
            let text = serde_json::to_string_pretty(facts).expect("figures are JSON");
            std::fs::write(path, text + "\n").expect("the JSON file can be written");
        }
        if let Some(path) = &self.asked.svg {
            std::fs::write(path, plot::svg(facts, tables)).expect("the SVG file can be written");
        }
    }
}

/// Runs a load and says what CPU time it took. Errors: what came back instead of an answer.
fn measured(drive: &mut Drive, subject: &Subject, load: Load) -> Result<(Outcome, Spent), String> {
    let (processes, own) = (subject.processes(), [std::process::id()]);
    let before = [usage::cpu(&processes), usage::cpu(&own)];
    let outcome = drive.run(load);
    let after = [usage::cpu(&processes), usage::cpu(&own)];
    let [subject, driver] = [0, 1].map(|at| after[at].saturating_sub(before[at]));
    match &outcome.failure {
        Some(failure) => Err(failure.clone()),
        None => Ok((outcome, Spent { subject, driver })),
    }
}

/// Whether TLS handshakes were of the kind that is measured.
fn resumed_as_asked(scenario: &Scenario, outcome: &Outcome) -> Result<(), String> {
    let (resumed, all) = (outcome.resumed, outcome.latency.total());
    let full = all - resumed;
    if (scenario.resumes() && full > all / FULL) || (!scenario.resumes() && resumed > 0) {
        return Err(format!("{resumed} of {all} handshakes were resumed"));
    }
    Ok(())
}

/// Idle connections that so many descriptors permit.
fn permitted(files: u64) -> u64 {
    files.saturating_sub(SPARE) / SHARE
}

/// Raises the limit of descriptors, which subjects inherit, as far as it goes; what it is then.
fn raise_files() -> u64 {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a process has limits");
    let wanted = SPARE + SHARE * IDLE;
    // Beyond the hard limit only with a right that root has, and not everywhere.
    let raised = [hard.max(wanted), hard].into_iter().find(|to| setrlimit(Resource::RLIMIT_NOFILE, *to, *to).is_ok());
    raised.unwrap_or(soft)
}
