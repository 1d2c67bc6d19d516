//! argv in, exit code out: 0 ok, 1 failed at run time, 2 wrong configuration or usage.

use std::process::ExitCode;

fn main() -> ExitCode {
    coordinator::cli::run()
}
