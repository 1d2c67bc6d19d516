//! `coordinator completions SHELL`: what a shell needs to complete our commands and options.

use clap_complete::Shell;
use std::io::{self, Write};
use std::process::ExitCode;

/// Print the completions for a shell: bash, elvish, fish, powershell or zsh
///
/// For bash: coordinator completions bash > /etc/bash_completion.d/coordinator
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Prints them to standard output. Exit code 1 if that is closed.
pub fn run(args: &Args) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "coordinator", &mut script);
    match io::stdout().write_all(&script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
