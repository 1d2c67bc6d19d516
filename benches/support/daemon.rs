//! The daemon as processes of its own: Central and two edges from one folder, and what the kernel says that they cost.
//!
//! One core is the measured edge's alone; everything else (driver, origins, Central, the other edge) shares the next one.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The core of the edge that is measured.
const EDGE_CORE: &str = "0";

/// The core of everything else.
const OTHER_CORE: &str = "1";

/// A deployment with the edge `fr` in front; everything ends when it is dropped.
pub struct Deployment {
    edge: Child,
    others: Vec<Child>,
    /// The CA of all its certificates.
    pub ca: PathBuf,
    /// The plain door of `fr`.
    pub plain: SocketAddr,
    /// Its TLS door.
    pub tls: SocketAddr,
    _ports: Vec<socket2::Socket>,
    _folder: tempfile::TempDir,
}

/// Keeps this process, and what it starts from here on, away from the edge's core; whether that is possible.
pub fn stay_aside() -> bool {
    let several = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
    let own = std::process::id().to_string();
    several
        && Command::new("taskset")
            .args(["-cp", OTHER_CORE, &own])
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
}

impl Deployment {
    /// Starts it; every place has its application at `origin`. The user `448` lives at the other edge.
    pub fn start(origin: SocketAddr, pinned: bool) -> Deployment {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (ports, addresses): (Vec<_>, Vec<_>) = (0..5).map(|_| held_port()).unzip();
        let [plain, tls, fr, us, central] = addresses[..] else { unreachable!("there are five ports") };
        let path = folder.path();
        let hosts = ["central=127.0.0.1", "fr=127.0.0.1", "us=127.0.0.1"];
        let mut words = vec!["certs", "--out", "certs", "--deployment", "bench", "central", "fr", "us"];
        words.extend(hosts.iter().flat_map(|host| ["--host", host]));
        call(path, &words);
        let peer = |name: &str, address| {
            format!(
                "[peer]\naddress = \"{address}\"\nchain = \"certs/{name}.pem\"\nkey = \"certs/{name}.key\"\n\
                 ca = \"certs/ca.pem\"\n[local]\norigins = [\"http://{origin}\"]\n[log]\naccess = false\n"
            )
        };
        let edge = |name: &str, door: SocketAddr, doors: &str| {
            format!(
                "[edge]\nname = \"{name}\"\ndeployment = \"bench\"\ndata = \"data/{name}\"\nworkers = 1\n{doors}\n{}\n\
                 [central]\nurl = \"https://{central}\"\n[edges.fr]\npeer = \"https://{fr}\"\n\
                 [edges.us]\npeer = \"https://{us}\"\n[homes.user]\n{ROUTES}",
                peer(name, door)
            )
        };
        let write = |name: &str, text: String| fs::write(path.join(name), text).expect("a temporary file");
        write(
            "central.toml",
            format!(
                "[central]\ndeployment = \"bench\"\ndata = \"data/central\"\nworkers = 1\n{}\n\
                 [edges.fr]\npeer = \"https://{fr}\"\n[edges.us]\npeer = \"https://{us}\"\n",
                peer("central", central)
            ),
        );
        write(
            "fr.toml",
            edge(
                "fr",
                fr,
                &format!(
                    "[[listen]]\naddress = \"{plain}\"\n[[listen]]\naddress = \"{tls}\"\n\
                     [[listen.certificate]]\nchain = \"certs/fr.pem\"\nkey = \"certs/fr.key\"\n"
                ),
            ),
        );
        write("us.toml", edge("us", us, "[[listen]]\naddress = \"127.0.0.1:0\"\n"));
        let start = |command: &str, name: &str, core: &str| {
            let core = pinned.then_some(core);
            let mut command = daemon(core, path, &[command, "--config", &format!("{name}.toml")]);
            let log = fs::File::create(path.join(format!("{name}.log"))).expect("a temporary file");
            let errors = log.try_clone().expect("a file has two handles");
            command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("the daemon starts")
        };
        let others = vec![start("central", "central", OTHER_CORE), start("run", "us", OTHER_CORE)];
        let edge = start("run", "fr", EDGE_CORE);
        let ca = path.join("certs/ca.pem");
        let deployment = Deployment { edge, others, ca, plain, tls, _ports: ports, _folder: folder };
        deployment.settle(central);
        deployment
    }

    /// Waits until all doors answer and the home of 448 is known.
    fn settle(&self, central: SocketAddr) {
        let path = self._folder.path();
        let url = format!("https://{central}");
        let words = [
            "homes",
            "set",
            "--central",
            &url,
            "--cert",
            "certs/operator.pem",
            "--key",
            "certs/operator.key",
            "--ca",
            "certs/ca.pem",
            "448",
            "us",
        ];
        let set = || daemon(None, path, &words).stdout(Stdio::null()).stderr(Stdio::null()).status();
        self.wait("Central takes a home", || set().is_ok_and(|status| status.success()));
        for path in [LOCAL, CENTRAL, REMOTE] {
            self.wait(&format!("{path} is answered"), || answers(self.plain, path));
        }
    }

    fn wait(&self, what: &str, mut done: impl FnMut() -> bool) {
        for _ in 0..200 {
            if done() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let logs = ["central", "fr", "us"]
            .map(|name| fs::read_to_string(self._folder.path().join(name).with_extension("log")));
        panic!("in vain waited until {what}: {logs:#?}");
    }

    /// CPU time of the measured edge so far, all threads.
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.edge.id())).into_iter().flatten().flatten();
        let times = tasks.filter_map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(times.sum())
    }

    /// Its resident memory in KiB.
    pub fn rss_kib(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.edge.id())).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
    }
}

/// Paths of the three decisions.
pub const LOCAL: &str = "/local/small";
/// Central's application, through its door.
pub const CENTRAL: &str = "/central/small";
/// A user whose home is the other edge.
pub const REMOTE: &str = "/users/448/small";

const ROUTES: &str = r#"
[[route]]
match = "/local/"
to = "local"
[[route]]
match = "/central/"
to = "central"
[[route]]
match = "/users/{user}/"
to = "home:user"
"#;

impl Drop for Deployment {
    fn drop(&mut self) {
        for child in self.others.iter_mut().chain([&mut self.edge]) {
            // Killed, not drained: nothing of it is kept.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn daemon(core: Option<&str>, folder: &Path, words: &[&str]) -> Command {
    let binary = env!("CARGO_BIN_EXE_coordinator");
    let mut command = match core {
        Some(core) => {
            let mut command = Command::new("taskset");
            command.args(["-c", core, binary]);
            command
        }
        None => Command::new(binary),
    };
    command.args(words).current_dir(folder);
    command
}

fn call(folder: &Path, words: &[&str]) {
    let output = daemon(None, folder, words).output().expect("the daemon starts");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether a GET is answered by 200.
fn answers(address: SocketAddr, path: &str) -> bool {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::net::TcpStream::connect(address) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let mut answer = [0; 12];
    write!(stream, "GET {path} HTTP/1.1\r\nHost: bench.example\r\nConnection: close\r\n\r\n").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer == *b"HTTP/1.1 200"
}

/// A port that is ours while the socket lives: doors open with `SO_REUSEPORT`, so they can listen beside it.
fn held_port() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_reuse_port(true).expect("ports can be shared");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a free port");
    let address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("it is bound");
    (socket, address)
}
