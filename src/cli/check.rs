//! `coordinator check --config FILE`: every problem at once, before a process meets it.

use crate::config::load::{self, Kind, Strictness};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit code for bad usage or configuration.
const BAD_CONFIG: u8 = 2;

/// Checks a configuration file without running it: edge's or Central's, as the file itself tells.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file.
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
    /// Treat unset variables as errors, as `run` does.
    #[arg(long)]
    pub strict: bool,
}

/// Prints problems to standard error, or one line to standard output. Exit code 0, or 2 with problems.
pub fn run(args: &Args) -> ExitCode {
    let strictness = if args.strict { Strictness::Run } else { Strictness::Check };
    let (kind, outcome) = load::either(&args.config, &load::process_env, strictness);
    let mut err = std::io::stderr().lock();
    let shown = outcome.render(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    // Nobody left to tell when a stream is closed.
    let _ = err.write_all(shown.as_bytes());
    if !outcome.problems.is_empty() {
        let _ = writeln!(err, "{}: {}", args.config.display(), count(outcome.problems.len(), "problem"));
        return ExitCode::from(BAD_CONFIG);
    }
    let _ = writeln!(std::io::stdout(), "{}", summary(kind, args, &outcome));
    ExitCode::SUCCESS
}

fn summary(kind: Kind, args: &Args, outcome: &load::Outcome) -> String {
    let what = match (&outcome.plan, kind) {
        (Some(plan), Kind::Edge) => {
            let (routes, doors) = (count(plan.settings.len(), "route"), count(plan.listeners.len(), "public door"));
            format!("edge {}, {routes}, {doors}", plan.own.name)
        }
        (Some(plan), Kind::Central) => {
            format!("Central of {}, {}", plan.own.deployment, count(plan.edges.list().len(), "edge"))
        }
        (None, _) => "right as far as it goes without the unset variables".to_owned(),
    };
    let notes = match outcome.notes.len() {
        0 => String::new(),
        notes => format!(", {}", count(notes, "note")),
    };
    format!("{}: ok ({what}{notes})", args.config.display())
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_tells() {
        let code = |config: &str| format!("{:?}", run(&Args { config: config.into(), strict: false }));
        assert_eq!(code("config/edge.toml"), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code("config/central.toml"), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code("Cargo.toml"), format!("{:?}", ExitCode::from(2)));
        assert_eq!(code("no such file"), format!("{:?}", ExitCode::from(2)));
    }
}
