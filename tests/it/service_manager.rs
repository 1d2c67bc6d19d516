//! systemd's side of the process: what it is told, and the sockets that it hands over.

use crate::harness::client::Client;
use crate::harness::edge::PLAIN;
use crate::harness::process::{self, Process, Signal};
use crate::harness::{PATIENCE, folder};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

fn config(address: &str) -> String {
    PLAIN.replace("127.0.0.1:0", address).replace("${origin}", "127.0.0.1:9")
}

/// One that hears nothing before its queue, which is full, has been emptied.
fn deaf_manager(folder: &folder::Folder) -> UnixDatagram {
    let manager = manager(folder);
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send_to(b"WATCHDOG=1", folder.join("notify")).is_ok() {}
    manager
}

/// The next message; those that only say that we live are passed over.
#[track_caller]
fn told(manager: &UnixDatagram) -> String {
    loop {
        let mut message = [0; 4096];
        let length = manager.recv(&mut message).expect("the service manager is told in time");
        let message = String::from_utf8(message[..length].to_vec()).expect("text");
        if !message.contains("WATCHDOG=1") {
            return message;
        }
    }
}

fn manager(folder: &folder::Folder) -> UnixDatagram {
    let manager = UnixDatagram::bind(folder.join("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    manager
}

#[test]
fn the_service_manager_is_told_every_state() {
    let folder = folder::new();
    let manager = manager(&folder);
    let file = folder.write("edge.toml", config("127.0.0.1:0"));
    let mut command = process::command(&["run", "--config", file.to_str().unwrap()]);
    let mut process = Process::spawn(command.env("NOTIFY_SOCKET", folder.join("notify")).stdin(Stdio::null()));
    let ready = told(&manager);
    assert!(ready.contains("READY=1") && ready.contains("STATUS=serving"), "{ready}");
    // Ready means that the doors are open, and said so.
    let line = process.line("listening");
    let address = crate::harness::edge::door_in(&line, "public").expect("the public door");
    Client::plain(address);

    process.signal(Signal::Hup);
    let reloading = told(&manager);
    let since =
        reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).expect("the time of the reload");
    assert!(reloading.contains("RELOADING=1") && since.parse::<u64>().is_ok_and(|time| time > 0), "{reloading}");
    assert!(told(&manager).contains("READY=1"));

    folder.write("edge.toml", "nonsense");
    process.signal(Signal::Hup);
    assert!(told(&manager).contains("RELOADING=1"));
    let refused = told(&manager);
    assert!(refused.contains("READY=1") && refused.contains("refused"), "{refused}");

    process.signal(Signal::Term);
    assert!(told(&manager).contains("STOPPING=1"));
    assert_eq!(process.end(), Some(0));
}

#[test]
fn a_reload_may_be_asked_for_as_soon_as_doors_are_open() {
    let folder = folder::new();
    let manager = deaf_manager(&folder);
    let file = folder.write("edge.toml", config("127.0.0.1:0"));
    let mut command = process::command(&["run", "--config", file.to_str().unwrap()]);
    let mut process = Process::spawn(command.env("NOTIFY_SOCKET", folder.join("notify")).stdin(Stdio::null()));
    process.line("listening");
    process.signal(Signal::Hup);
    assert!(told(&manager).contains("READY=1"), "the end of its start");
    assert!(told(&manager).contains("RELOADING=1"));
    assert!(told(&manager).contains("READY=1"), "the end of the reload");
}

#[test]
fn the_watchdog_hears_of_a_living_process() {
    let folder = folder::new();
    let manager = manager(&folder);
    let file = folder.write("edge.toml", config("127.0.0.1:0"));
    let mut command = process::command(&["run", "--config", file.to_str().unwrap()]);
    command.env("NOTIFY_SOCKET", folder.join("notify")).env("WATCHDOG_USEC", "100000");
    let process = Process::spawn(command.stdin(Stdio::null()));
    let mut beats = 0;
    while beats < 3 {
        let mut message = [0; 4096];
        let length = manager.recv(&mut message).expect("the service manager is told in time");
        beats += usize::from(message[..length] == *b"WATCHDOG=1\n" || message[..length] == *b"WATCHDOG=1");
    }
    // One that stands still says nothing: the service manager then starts it anew.
    process.signal(Signal::Stop);
    manager.set_nonblocking(true).unwrap();
    let mut message = [0; 4096];
    while manager.recv(&mut message).is_ok() {}
    manager.set_nonblocking(false).unwrap();
    manager.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    assert!(manager.recv(&mut message).is_err(), "a process that stands still is not alive");
}

/// Starts an edge with `socket` as its third descriptor, as systemd does.
fn start_with(socket: &TcpListener, config: &str) -> Process {
    let script = r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" run --config "$1" 3<&0 </dev/null"#;
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_coordinator"), config]);
    Process::spawn(command.stdin(OwnedFd::from(socket.try_clone().unwrap())))
}

fn listener() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[test]
fn no_connection_is_refused_while_a_handed_over_door_restarts() {
    let (socket, address) = listener();
    let folder = folder::new();
    let text = config(&address.to_string()).replace("workers = 0", "workers = 2");
    let file = folder.write("edge.toml", text);
    // Connected before anybody serves: it waits in the queue.
    let mut early = Client::plain(address);
    early.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut first = start_with(&socket, file.to_str().unwrap());
    first.line("listening");
    assert!(early.answer().status >= 400, "the origin is dead, but the door answers");
    first.signal(Signal::Term);
    assert_eq!(first.end(), Some(0));

    let mut between = Client::plain(address);
    between.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut second = start_with(&socket, file.to_str().unwrap());
    second.line("listening");
    assert!(between.answer().status >= 400);
    assert!(!second.lines().iter().any(|line| line.contains("handed over")), "{:#?}", second.lines());
}

#[test]
fn a_socket_that_nobody_asks_for_is_told() {
    let (socket, address) = listener();
    let folder = folder::new();
    let file = folder.write("edge.toml", config("127.0.0.1:0"));
    let mut process = start_with(&socket, file.to_str().unwrap());
    let line = process.line("handed over");
    assert!(line.contains(&address.to_string()), "{line}");
}

#[test]
fn what_is_no_socket_is_refused() {
    let folder = folder::new();
    let file = folder.write("edge.toml", config("127.0.0.1:0"));
    let script = r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" run --config "$1" 3</dev/null"#;
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_coordinator"), file.to_str().unwrap()]);
    let mut process = Process::spawn(command.stdin(Stdio::null()));
    process.line("no listening TCP socket");
    assert_eq!(process.end(), Some(1));
}
