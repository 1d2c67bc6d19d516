//! argv in, exit code out: 0 ok, 1 failed at run time, 2 wrong configuration or usage.

use std::process::ExitCode;

/// Requests take and give back small pieces of memory all the time, mostly on the thread that took them: here that costs a
/// fraction of what the system's allocator takes, above all for what is larger than a kilobyte.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    coordinator::cli::run()
}
