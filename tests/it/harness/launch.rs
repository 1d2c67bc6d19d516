//! An edge or a Central in this process, by its file, and ports for its doors; for benchmarks too.

use coordinator::config::load::{self, Strictness};
use coordinator::config::plan::Plan;
use coordinator::edge::{ReadPlan, Running};
use std::net::SocketAddr;
use std::path::Path;

type Load = fn(&Path, load::Env<'_>, Strictness) -> load::Outcome;

/// Starts what a file describes. Panics with what is wrong with it.
#[track_caller]
pub fn launch(file: &Path, load: Load, run: impl FnOnce(Plan, ReadPlan) -> Result<Running, String>) -> Running {
    let path = file.to_owned();
    let read = move || {
        let outcome = load(&path, &load::process_env, Strictness::Run);
        let shown = outcome.render(false);
        outcome.plan.ok_or(shown)
    };
    let plan = read().unwrap_or_else(|why| panic!("{}:\n{why}", file.display()));
    run(plan, Box::new(read)).unwrap_or_else(|why| panic!("{}: {why}", file.display()))
}

/// A port that is ours until the socket is dropped: doors open with `SO_REUSEPORT`, so that they can listen beside it,
/// and nobody else is given the port while they do not.
pub fn held_port() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_reuse_port(true).expect("ports can be shared");
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    socket.bind(&any.into()).expect("a free port");
    let address = socket.local_addr().expect("it is bound").as_socket().expect("it is IPv4");
    (socket, address)
}
