//! `coordinator edge replace|fence`: an operator's words about edges, to Central.

use super::homes::{self, CentralDoor};
use std::process::ExitCode;

/// Tell Central about an edge
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to tell
    #[command(subcommand)]
    pub command: Command,
}

/// What is told.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Every disk of this edge is gone for good, and nothing of it still runs: its next process may take its users
    Replace {
        /// The name of the edge, such as fr
        edge: String,
        /// Central's door
        #[command(flatten)]
        central: CentralDoor,
    },
    /// To a Central that was restored: nothing of this edge runs, nor ever will with what is on its disks. What only they
    /// knew is lost
    Fence {
        /// The name of the edge, such as fr
        edge: String,
        /// Central's door
        #[command(flatten)]
        central: CentralDoor,
    },
}

/// Tells it. Exit code 0; 1 if Central refuses or cannot be reached; 2 for bad usage.
pub fn run(args: &Args) -> ExitCode {
    let (edge, central, word) = match &args.command {
        Command::Replace { edge, central } => (edge, central, "replace"),
        Command::Fence { edge, central } => (edge, central, "fence"),
    };
    homes::tell(central, &format!("/v1/edges/{}/{word}", crate::home::key::escape(edge)))
}
