//! `coordinator schema`: the JSON Schema of the configuration, for editors.

use crate::config::{self, load::Kind};
use std::io::Write;
use std::process::ExitCode;

/// Prints the JSON Schema of the configuration, for completion and checks in editors.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Central's file instead of an edge's.
    #[arg(long)]
    pub central: bool,
}

/// Prints the schema to standard output. Exit code 1 if that is closed.
pub fn run(args: &Args) -> ExitCode {
    let schema = config::schema(if args.central { Kind::Central } else { Kind::Edge });
    match writeln!(std::io::stdout(), "{schema:#}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
