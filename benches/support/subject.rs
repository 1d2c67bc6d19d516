//! Subjects: the daemon, other proxies, another build of the daemon; each as processes of its own, configured alike.
//!
//! The measured process has one core and one worker; everything else shares the next core: driver, origin, and whatever
//! else a deployment needs. Configurations are the files in `benches/subjects`, with their @NAMES@ filled in here.

use super::usage;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The core of the measured process.
const CORE: &str = "0";

/// The core of everything else.
const ASIDE: &str = "1";

/// How long a subject may take to answer its first request; far longer than any needs, but for an emulated one.
const START: Duration = Duration::from_secs(120);

/// How long one may take to stop when it is asked to.
const STOP: Duration = Duration::from_secs(20);

/// What can be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The daemon as this benchmark was built with, its access log on or off.
    Own {
        access_log: bool,
    },
    /// The daemon as an edge of a deployment: Central and another edge are up beside it.
    Deployed {
        access_log: bool,
    },
    /// Another build of it.
    Build(PathBuf),
    Nginx,
    Haproxy,
}

/// Where subjects run, and what they stand before.
pub struct Place {
    pub origin: SocketAddr,
    /// Whether processes can be tied to cores.
    pub pinned: bool,
    /// Descriptors that a process may have.
    pub files: u64,
}

/// A running subject; it ends when it is dropped.
pub struct Subject {
    process: Child,
    aside: Vec<Child>,
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    folder: tempfile::TempDir,
    _ports: Vec<socket2::Socket>,
}

impl Which {
    /// What tables call it.
    pub fn name(&self) -> String {
        match self {
            Which::Own { access_log: false } | Which::Deployed { access_log: false } => "coordinator".to_owned(),
            Which::Own { access_log: true } | Which::Deployed { access_log: true } => "with log".to_owned(),
            Which::Build(path) => path.display().to_string(),
            Which::Nginx => "nginx".to_owned(),
            Which::Haproxy => "haproxy".to_owned(),
        }
    }

    /// Whether it is one that ours is compared with.
    pub fn is_peer(&self) -> bool {
        matches!(self, Which::Nginx | Which::Haproxy | Which::Build(_))
    }

    /// What it says of its version; none = it is not installed.
    pub fn version(&self) -> Option<String> {
        let (binary, word) = match self {
            Which::Nginx => (Path::new("nginx"), "-v"),
            Which::Haproxy => (Path::new("haproxy"), "-v"),
            Which::Build(path) => (path.as_path(), "--version"),
            Which::Own { .. } | Which::Deployed { .. } => (Path::new(OWN), "--version"),
        };
        let output = Command::new(binary).arg(word).output().ok()?;
        let said = [output.stdout, output.stderr].concat();
        Some(String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned())
    }

    /// What makes up its command line, in its folder.
    fn words(&self, folder: &Path, single: bool) -> Vec<String> {
        let file = |name: &str| folder.join(name).display().to_string();
        let run =
            |binary: &Path, name: &str| vec![binary.display().to_string(), "run".into(), "--config".into(), file(name)];
        match self {
            Which::Own { .. } => run(Path::new(OWN), "coordinator.toml"),
            Which::Deployed { .. } => run(Path::new(OWN), "fr.toml"),
            Which::Build(path) => run(path, "coordinator.toml"),
            Which::Nginx => {
                let mut words = ["nginx", "-p", &file(""), "-c", &file("nginx.conf")].map(str::to_owned).to_vec();
                words.extend(single.then(|| ["-g", "master_process off;"].map(str::to_owned)).into_iter().flatten());
                words
            }
            Which::Haproxy => ["haproxy", "-f", &file("haproxy.cfg")].map(str::to_owned).to_vec(),
        }
    }
}

/// The daemon that was built with this benchmark.
const OWN: &str = env!("CARGO_BIN_EXE_coordinator");

impl Place {
    /// Starts a subject and waits until it answers. Errors: what it said instead.
    pub fn start(&self, which: &Which) -> Result<Subject, String> {
        self.start_under(which, &[])
    }

    /// The same under another program, as a single process.
    pub fn start_under(&self, which: &Which, program: &[String]) -> Result<Subject, String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (ports, doors): (Vec<_>, Vec<_>) = (0..2).map(|_| held_port()).unzip();
        let [plain, tls] = doors[..] else { unreachable!("there are two") };
        self.write_files(which, folder.path(), plain, tls);
        let aside = match which {
            Which::Deployed { .. } => {
                self.deploy(folder.path(), plain, which == &Which::Deployed { access_log: true })?
            }
            _ => Vec::new(),
        };
        let words = [program, &which.words(folder.path(), !program.is_empty())].concat();
        let process = self.spawn(CORE, &words, folder.path(), "log")?;
        let mut subject = Subject { process, aside, plain, tls, folder, _ports: ports };
        let path = if subject.aside.is_empty() { "/small" } else { "/local/small" };
        subject.wait("it answers", || answers(plain, path))?;
        if subject.aside.is_empty() {
            subject.wait("its TLS door is open", || TcpStream::connect(tls).is_ok())?;
        } else {
            subject.settle()?;
        }
        Ok(subject)
    }

    fn write_files(&self, which: &Which, folder: &Path, plain: SocketAddr, tls: SocketAddr) {
        let made = rcgen::generate_simple_self_signed(vec!["bench.example".to_owned()]).expect("a certificate");
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let at = |name: &str| folder.join(name).display().to_string();
        let values = [
            ("DIR", folder.display().to_string()),
            ("PLAIN", plain.port().to_string()),
            ("TLS", tls.port().to_string()),
            ("GZIP", "0".to_owned()),
            ("ORIGIN", self.origin.to_string()),
            ("CERT", at("chain.pem")),
            ("KEY", at("key.pem")),
            ("PEM", at("both.pem")),
            ("FILES", self.files.to_string()),
        ];
        let own = fill(include_str!("../subjects/coordinator.toml"), &values);
        let logs = *which == Which::Own { access_log: true };
        let own = if logs { own.replace("access = false", "access = true") } else { own };
        write(folder, "chain.pem", &chain);
        write(folder, "key.pem", &key);
        write(folder, "both.pem", &(chain + &key));
        write(folder, "coordinator.toml", &own);
        write(folder, "nginx.conf", &fill(include_str!("../subjects/nginx.conf"), &values));
        write(folder, "haproxy.cfg", &fill(include_str!("../subjects/haproxy.cfg"), &values));
    }

    /// Makes the certificates and files of a deployment and starts all of it but the measured edge.
    fn deploy(&self, folder: &Path, plain: SocketAddr, access_log: bool) -> Result<Vec<Child>, String> {
        let mut words = vec![OWN, "certs", "--out", "certs", "--deployment", "bench", "central", "fr", "us"];
        words.extend(["central", "fr", "us"].iter().flat_map(|_| ["--host"]).zip(HOSTS).flat_map(|(a, b)| [a, b]));
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        let status = self.spawn(ASIDE, &words, folder, "certs.log")?.wait().map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!("coordinator certs: {}", tail(&folder.join("certs.log"))));
        }
        // Nobody else takes them before the daemons do: they are asked for and let go at once, and the range is wide.
        let [central, fr, us] = [(); 3].map(|()| held_port().1.port().to_string());
        write(folder, "central.port", &central);
        let edge = |name: &str, door: u16, peer: &str, access_log: bool| {
            let values = [
                ("EDGE", name.to_owned()),
                ("PLAIN", door.to_string()),
                ("PEER", peer.to_owned()),
                ("DIR", folder.display().to_string()),
                ("ACCESS", access_log.to_string()),
                ("ORIGIN", self.origin.to_string()),
                ("CENTRAL", central.clone()),
                ("FR", fr.clone()),
                ("US", us.clone()),
            ];
            let template = if name == "central" { include_str!("../subjects/central.toml") } else { DEPLOYED };
            write(folder, &format!("{name}.toml"), &fill(template, &values));
        };
        edge("central", 0, &central, false);
        edge("fr", plain.port(), &fr, access_log);
        edge("us", 0, &us, false);
        let start = |command: &str, name: &str| {
            let words = [OWN, command, "--config", &format!("{name}.toml")].map(str::to_owned);
            self.spawn(ASIDE, &words, folder, &format!("{name}.log"))
        };
        Ok(vec![start("central", "central")?, start("run", "us")?])
    }

    fn spawn(&self, core: &str, words: &[String], folder: &Path, log: &str) -> Result<Child, String> {
        let pin: &[String] = &["taskset".to_owned(), "-c".to_owned(), core.to_owned()];
        let words = [if self.pinned { pin } else { &[] }, words].concat();
        let log = fs::File::create(folder.join(log)).expect("a temporary file");
        let errors = log.try_clone().expect("a file has two handles");
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(folder).stdin(Stdio::null()).stdout(log).stderr(errors);
        command.spawn().map_err(|error| format!("{}: {error}", words[0]))
    }
}

const DEPLOYED: &str = include_str!("../subjects/deployed.toml");

/// Where each place of a deployment is: all here.
const HOSTS: [&str; 3] = ["central=127.0.0.1", "fr=127.0.0.1", "us=127.0.0.1"];

impl Subject {
    /// The measured process and what it started.
    pub fn processes(&self) -> Vec<u32> {
        usage::tree(self.process.id())
    }

    /// Waits until the user 448 lives at the other edge and all three decisions are answered.
    fn settle(&mut self) -> Result<(), String> {
        let folder = self.folder.path().to_owned();
        let central = fs::read_to_string(folder.join("central.port")).expect("it was written");
        let url = format!("https://127.0.0.1:{central}");
        let mut command = Command::new(OWN);
        command.args([
            "homes",
            "set",
            "--central",
            &url,
            "--cert",
            "certs/operator.pem",
            "--key",
            "certs/operator.key",
        ]);
        command.args(["--ca", "certs/ca.pem", "448", "us"]).current_dir(&folder);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.wait("Central takes a home", || command.status().is_ok_and(|status| status.success()))?;
        let plain = self.plain;
        ["/central/small", "/users/448/small"]
            .into_iter()
            .try_for_each(|path| self.wait(&format!("{path} is answered"), || answers(plain, path)))
    }

    fn wait(&mut self, what: &str, mut done: impl FnMut() -> bool) -> Result<(), String> {
        let end = Instant::now() + START;
        let mut ended = false;
        while Instant::now() < end && !ended {
            if done() {
                return Ok(());
            }
            ended = self.process.try_wait().is_ok_and(|status| status.is_some());
            std::thread::sleep(Duration::from_millis(20));
        }
        let state = if ended { "it ended" } else { "it runs" };
        let logs = ["log", "central.log", "us.log", "nginx.error"].map(|name| tail(&self.folder.path().join(name)));
        Err(format!("in vain waited until {what}; {state}, and said: {}", logs.join("\n")))
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(&mut self) {
        let processes = self.processes();
        signal("-TERM", &processes[..1]);
        let end = Instant::now() + STOP;
        while Instant::now() < end && !self.process.try_wait().is_ok_and(|status| status.is_some()) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // Killed, not drained: nothing of it is kept. Children first known would outlive a killed parent.
        signal("-KILL", &self.processes());
        let _ = self.process.wait();
        for child in &mut self.aside {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Keeps this process away from the measured core; whether that is possible.
pub fn stay_aside() -> bool {
    let several = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
    let own = std::process::id().to_string();
    let mut command = Command::new("taskset");
    command.args(["-cp", ASIDE, &own]).stdout(Stdio::null());
    several && command.status().is_ok_and(|status| status.success())
}

/// There is no safe call for it without a further dependency.
fn signal(name: &str, processes: &[u32]) {
    let mut command = Command::new("kill");
    command.arg(name).args(processes.iter().map(u32::to_string)).stderr(Stdio::null());
    let _ = command.status();
}

fn fill(template: &str, values: &[(&str, String)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value))
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("a temporary file");
}

/// The end of a log.
fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// Whether a GET is answered by 200.
fn answers(address: SocketAddr, path: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    let mut answer = [0; 12];
    write!(stream, "GET {path} HTTP/1.1\r\nHost: bench.example\r\nConnection: close\r\n\r\n").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer == *b"HTTP/1.1 200"
}

/// A port that is ours while the socket lives: all subjects open their doors so that they can share it with one that does
/// not listen.
fn held_port() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_reuse_port(true).expect("ports can be shared");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a free port");
    let address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("it is bound");
    (socket, address)
}
