//! Tables for people.

use super::figures::{Row, SHARES, Table};

/// Prints what was measured in a scenario.
pub fn table(table: &Table) {
    println!("\n{}: {}", table.scenario.name, table.scenario.about);
    if table.scenario.is_idle() {
        idle(table);
    } else {
        closed(table);
        open(table);
    }
    if let Some(percent) = table.log_costs() {
        println!("  the access log adds {percent:+.1} % of CPU time");
    }
    for row in &table.rows {
        if let Some(failure) = &row.failure {
            println!("  FAILED  {}: {failure}", row.which.name());
        }
    }
}

fn closed(table: &Table) {
    let cpu = format!("us/{}", table.scenario.unit());
    println!(
        "  {:<24} {cpu:>10} {:>9} {:>9} {:>7} {:>9} {:>6} {:>9} {:>8}",
        "closed loop: CPU time", "least", "most", "ratio", "req/s", "core", "driver us", "MiB"
    );
    for row in table.rows.iter().filter(|row| !row.closed.is_empty()) {
        let cpu = || row.closed.iter().map(|round| round.cpu);
        let (least, most) = (cpu().fold(f64::INFINITY, f64::min), cpu().fold(0.0, f64::max));
        let ratio = table.ratio(row).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        println!(
            "    {:<22} {:>10.1} {least:>9.1} {most:>9.1} {ratio:>7} {:>9.0} {:>5.0}% {:>9.1} {:>8.1}",
            name(row),
            row.median(|round| round.cpu),
            row.median(|round| round.rate),
            row.median(|round| round.busy) * 100.0,
            row.median(|round| round.driver),
            row.memory_kib as f64 / 1024.0
        );
    }
}

fn open(table: &Table) {
    print!("  {:<24} {:>10}", "on a schedule: latency", "req/s");
    SHARES.iter().for_each(|(share, _)| print!(" {:>9}", format!("{share} us")));
    println!(" {:>9}", "CPU us");
    for row in &table.rows {
        for open in &row.open {
            print!("    {:<22} {:>10.0}", name(row), open.rate);
            SHARES.iter().for_each(|(_, share)| print!(" {:>9.0}", open.latency.micros(*share)));
            println!(" {:>9.1}{}", open.cpu(), if open.behind { "  behind" } else { "" });
        }
    }
}

fn idle(table: &Table) {
    println!("  {:<24} {:>10} {:>14} {:>14} {:>10}", "", "held", "MiB before", "MiB with", "KiB each");
    for row in &table.rows {
        let Some(idle) = row.idle else { continue };
        let (before, with) = (idle.before as f64 / 1024.0, idle.with as f64 / 1024.0);
        println!("    {:<22} {:>10} {before:>14.1} {with:>14.1} {:>10.2}", name(row), idle.held, idle.each());
    }
}

/// A subject's name, its end where it is long.
fn name(row: &Row) -> String {
    let name = row.which.name();
    let from = name.char_indices().rev().nth(21).map_or(0, |(at, _)| at);
    name[from..].to_owned()
}
