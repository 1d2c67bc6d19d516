//! Processes on cores, their doors and their files.
//!
//! One core is the measured process's alone; everything else shares the next one: driver, origin, and what a deployment
//! needs besides.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The daemon that was built with this benchmark.
pub const OWN: &str = env!("CARGO_BIN_EXE_coordinator");

/// Where a process runs.
#[derive(Debug, Clone, Copy)]
pub enum Core {
    /// Alone, measured.
    Measured,
    /// With everything else.
    Aside,
    /// Anywhere: there are no two cores, or no `taskset`.
    Any,
}

impl Core {
    fn number(self) -> Option<&'static str> {
        match self {
            Core::Measured => Some("0"),
            Core::Aside => Some("1"),
            Core::Any => None,
        }
    }
}

/// Keeps this process away from the measured core; whether that is possible.
pub fn stay_aside() -> bool {
    let several = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
    let own = std::process::id().to_string();
    let mut command = Command::new("taskset");
    command.args(["-cp", "1", &own]).stdout(Stdio::null());
    several && command.status().is_ok_and(|status| status.success())
}

/// Starts a command in a folder; what it says goes to the file `log` there.
pub fn spawn<W: AsRef<str>>(core: Core, words: &[W], folder: &Path, log: &str) -> Result<Child, String> {
    let pin = core.number().map(|core| ["taskset", "-c", core]);
    let words: Vec<&str> = pin.iter().flatten().copied().chain(words.iter().map(AsRef::as_ref)).collect();
    let [program, words @ ..] = &words[..] else { return Err("an empty command".to_owned()) };
    let log = fs::File::create(folder.join(log)).expect("a temporary file");
    let errors = log.try_clone().expect("a file has two handles");
    let mut command = Command::new(program);
    command.args(words).current_dir(folder).stdin(Stdio::null()).stdout(log).stderr(errors);
    command.spawn().map_err(|error| format!("{program}: {error}"))
}

/// Sends a signal, by the command: there is no safe call for it without a further dependency.
pub fn signal(name: &str, processes: &[u32]) {
    let mut command = Command::new("kill");
    command.arg(name).args(processes.iter().map(u32::to_string)).stderr(Stdio::null());
    let _ = command.status();
}

/// A port that is ours while this lives: all subjects open their doors so that they can share one that nobody listens on.
pub struct Door {
    pub address: SocketAddr,
    _socket: socket2::Socket,
}

impl Door {
    /// A free port.
    pub fn hold() -> Door {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.set_reuse_port(true).expect("ports can be shared");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any.into()).expect("a free port");
        let address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("it is bound");
        Door { address, _socket: socket }
    }

    /// Its number, as configurations write it.
    pub fn port(&self) -> String {
        self.address.port().to_string()
    }

    /// Whether somebody listens.
    pub fn is_open(&self) -> bool {
        TcpStream::connect(self.address).is_ok()
    }

    /// Whether a GET is answered by 200.
    pub fn answers(&self, path: &str) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.address) else { return false };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
        let mut answer = [0; 12];
        write!(stream, "GET {path} HTTP/1.1\r\nHost: bench.example\r\nConnection: close\r\n\r\n").is_ok()
            && stream.read_exact(&mut answer).is_ok()
            && answer == *b"HTTP/1.1 200"
    }
}

/// Writes a file with its @NAMES@ filled in.
pub fn write(folder: &Path, name: &str, template: &str, values: &[(&str, String)]) {
    let text = values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value));
    fs::write(folder.join(name), text).expect("a temporary file");
}

/// The end of a log.
pub fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
