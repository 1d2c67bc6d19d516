//! The commands, one file each; clap derives help from their arguments.

pub mod admin;
pub mod certs;
pub mod check;
pub mod completions;
pub mod demo;
pub mod edge;
pub mod explain;
pub mod homes;
pub mod man;
pub mod progress;
pub mod run;
pub mod schema;
mod signals;
pub mod top;

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

/// Home routing for globally distributed systems.
///
/// A reverse proxy before each edge of a distributed application: it decides for every request whether this edge's origin,
/// Central, or the user's home edge answers it.
#[derive(Debug, Parser)]
#[command(name = "coordinator", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the Coordinator of an edge
    Run(run::Args),
    /// Run Central: the ordered log of homes, its feed and its API
    Central(run::CentralArgs),
    /// Read a configuration and report every problem in it
    Check(check::Args),
    /// Tell what would become of a request, and why
    Explain(explain::Args),
    /// Read and fill the home map at Central
    Homes(homes::Args),
    /// Tell Central that an edge, or its disks, are gone for good
    Edge(edge::Args),
    /// Make a standby the Central: it takes the next term, and grants nothing before every edge has reported
    Promote(homes::PromoteArgs),
    /// Make a CA and the certificates of a deployment
    Certs(certs::Args),
    /// Print the JSON Schema of the configuration
    Schema(schema::Args),
    /// Run Central, three edges and sample origins in this terminal, to see it work
    Demo(demo::Args),
    /// Watch a running process in this terminal
    Top(top::Args),
    /// Ask a running process to read its configuration again
    Reload(admin::Args),
    /// Let the mass change of homes pass that the brake of a running edge holds back; without an id, tell what is held
    Release(admin::ReleaseArgs),
    /// Ask a running process to drain, and wait until it has; it stays, its doors closed, until a signal ends it
    Drain(admin::Args),
    /// Print the completions for a shell
    Completions(completions::Args),
    /// Print the manual page of a command, or write the pages of all
    Man(man::Args),
}

/// The commands as they are read, for what is made from them.
fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run::edge(&args),
        Command::Central(args) => run::central(&args),
        Command::Check(args) => check::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Homes(args) => homes::run(&args),
        Command::Edge(args) => edge::run(&args),
        Command::Promote(args) => homes::promote(&args),
        Command::Certs(args) => certs::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Reload(args) => admin::post(&args, "/reload"),
        Command::Release(args) => admin::release(&args),
        Command::Drain(args) => admin::post(&args, "/drain"),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}
