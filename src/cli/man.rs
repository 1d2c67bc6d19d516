//! `coordinator man`: the manual pages, made from the very definitions by which commands are read.

use clap_mangen::Man;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit code for bad usage or configuration.
const BAD_USAGE: u8 = 2;

/// Print the manual page of a command, or write the pages of all
///
/// To read one at once: coordinator man homes import | man -l -
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The command, such as `run` or `homes import`; none = coordinator itself
    #[arg(value_name = "COMMAND")]
    pub command: Vec<String>,
    /// Write the pages of all commands into this folder, as coordinator-COMMAND.1
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    pub out: Option<PathBuf>,
}

/// Prints or writes. Exit code 0; 1 if that fails; 2 for a command that does not exist.
pub fn run(args: &Args) -> ExitCode {
    let mut command = super::command();
    command.build();
    let done = match &args.out {
        Some(folder) => write(&command, folder).map_err(|error| (1, format!("{}: {error}", folder.display()))),
        None => find(&command, &args.command).map_err(|why| (BAD_USAGE, why)).and_then(|found| {
            let page = page(found).map_err(|error| (1, error.to_string()))?;
            io::stdout().write_all(&page).map_err(|error| (1, error.to_string()))
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, why)) => {
            let _ = writeln!(io::stderr(), "error: {why}");
            ExitCode::from(code)
        }
    }
}

fn find<'a>(command: &'a clap::Command, path: &[String]) -> Result<&'a clap::Command, String> {
    let mut found = command;
    for name in path {
        let next = found.get_subcommands().find(|one| one.get_name() == name);
        found = next.ok_or_else(|| {
            let known: Vec<_> = found.get_subcommands().map(clap::Command::get_name).collect();
            format!("there is no command `{name}` here\nhelp: the commands are {}", known.join(", "))
        })?;
    }
    Ok(found)
}

fn page(command: &clap::Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone()).manual("Coordinator").render(&mut page)?;
    Ok(page)
}

/// The pages of all commands that are not `help`, by the names that `man` looks for.
fn write(command: &clap::Command, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut left = vec![command];
    while let Some(command) = left.pop() {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name());
        std::fs::write(folder.join(format!("{name}.1")), page(command)?)?;
        left.extend(command.get_subcommands().filter(|one| one.get_name() != "help"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built() -> clap::Command {
        let mut command = crate::cli::command();
        command.build();
        command
    }

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        write(&built(), folder.path()).unwrap();
        for name in ["coordinator", "coordinator-run", "coordinator-top", "coordinator-homes-watch", "coordinator-man"]
        {
            let page = std::fs::read_to_string(folder.path().join(format!("{name}.1"))).unwrap();
            assert!(page.contains(".SH SYNOPSIS") && page.contains(".SH DESCRIPTION"), "{name}:\n{page}");
        }
        assert!(!folder.path().join("coordinator-help.1").exists());
    }

    #[test]
    fn an_unknown_command_is_told_with_those_that_are() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(find(&built(), &words("homes import")).unwrap().get_name(), "import");
        let why = find(&built(), &words("homes impart")).unwrap_err();
        assert!(why.contains("`impart`") && why.contains("import"), "{why}");
    }
}
