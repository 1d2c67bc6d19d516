//! Subjects: the daemon, other proxies, another build of the daemon; each as processes of its own, configured alike.
//!
//! Configurations are the files in `benches/subjects`, with their @NAMES@ filled in here.

use super::deployment::{self, Deployment};
use super::process::{self, Core, Door, OWN};
use super::usage;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

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
    pub plain: Door,
    pub tls: Door,
    deployment: Option<Deployment>,
    folder: tempfile::TempDir,
}

impl Which {
    /// What tables call it.
    pub fn name(&self) -> String {
        match self {
            Which::Own { access_log: false } | Which::Deployed { access_log: false } => "coordinator".to_owned(),
            Which::Own { access_log: true } | Which::Deployed { access_log: true } => "with access log".to_owned(),
            Which::Build(path) => path.display().to_string(),
            Which::Nginx => "nginx".to_owned(),
            Which::Haproxy => "haproxy".to_owned(),
        }
    }

    /// Whether it is one that ours is compared with.
    pub fn is_peer(&self) -> bool {
        matches!(self, Which::Nginx | Which::Haproxy | Which::Build(_))
    }

    /// Whether it writes an access log.
    pub fn logs(&self) -> bool {
        matches!(self, Which::Own { access_log: true } | Which::Deployed { access_log: true })
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

    /// Its command line, for the folder with its files; `single` = all in one process, for those that start others.
    fn words(&self, folder: &Path, single: bool) -> Vec<String> {
        let file = |name: &str| folder.join(name).display().to_string();
        let run =
            |binary: &Path, name: &str| vec![binary.display().to_string(), "run".into(), "--config".into(), file(name)];
        match self {
            Which::Own { .. } => run(Path::new(OWN), "coordinator.toml"),
            Which::Deployed { .. } => run(Path::new(OWN), "fr.toml"),
            Which::Build(path) => run(path, "coordinator.toml"),
            Which::Haproxy => vec!["haproxy".into(), "-f".into(), file("haproxy.cfg")],
            Which::Nginx => {
                let master: &[&str] = if single { &["-g", "master_process off;"] } else { &[] };
                let words = ["nginx", "-p", &file(""), "-c", &file("nginx.conf")];
                [&words[..], master].concat().into_iter().map(str::to_owned).collect()
            }
        }
    }
}

impl Place {
    /// Starts a subject and waits until it answers. Errors: what it said instead.
    pub fn start(&self, which: &Which) -> Result<Subject, String> {
        self.start_under(&[], which)
    }

    /// The same under another program, as a single process.
    pub fn start_under(&self, program: &[String], which: &Which) -> Result<Subject, String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (plain, tls) = (Door::hold(), Door::hold());
        self.write_files(which, folder.path(), &plain, &tls);
        let (measured, aside) = if self.pinned { (Core::Measured, Core::Aside) } else { (Core::Any, Core::Any) };
        let deployment = match which {
            Which::Deployed { access_log } => {
                Some(Deployment::start(folder.path(), &plain, self.origin, aside, *access_log)?)
            }
            _ => None,
        };
        let words = [program, &which.words(folder.path(), !program.is_empty())].concat();
        let process = process::spawn(measured, &words, folder.path(), "log")?;
        let mut subject = Subject { process, plain, tls, deployment, folder };
        subject.settle()?;
        Ok(subject)
    }

    fn write_files(&self, which: &Which, folder: &Path, plain: &Door, tls: &Door) {
        let made = rcgen::generate_simple_self_signed(vec!["bench.example".to_owned()]).expect("a certificate");
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let at = |name: &str| folder.join(name).display().to_string();
        let values = [
            ("DIR", folder.display().to_string()),
            ("PLAIN", plain.port()),
            ("TLS", tls.port()),
            ("GZIP", "0".to_owned()),
            ("ORIGIN", self.origin.to_string()),
            ("CERT", at("chain.pem")),
            ("KEY", at("key.pem")),
            ("PEM", at("both.pem")),
            ("FILES", self.files.to_string()),
        ];
        let own = include_str!("../subjects/coordinator.toml");
        let own = if which.logs() { own.replace("access = false", "access = true") } else { own.to_owned() };
        let nginx = include_str!("../subjects/nginx.conf");
        let haproxy = include_str!("../subjects/haproxy.cfg");
        process::write(folder, "chain.pem", &chain, &[]);
        process::write(folder, "key.pem", &key, &[]);
        process::write(folder, "both.pem", &(chain + &key), &[]);
        process::write(folder, "coordinator.toml", &own, &values);
        process::write(folder, "nginx.conf", nginx, &values);
        process::write(folder, "haproxy.cfg", haproxy, &values);
    }
}

impl Subject {
    /// The measured process and what it started.
    pub fn processes(&self) -> Vec<u32> {
        usage::tree(self.process.id())
    }

    /// Waits until all that is measured of it is answered.
    fn settle(&mut self) -> Result<(), String> {
        if self.deployment.is_none() {
            self.wait("it answers", |own| own.plain.answers("/small"))?;
            return self.wait("its TLS door is open", |own| own.tls.is_open());
        }
        self.wait("Central takes a home", |own| own.deployment.as_ref().is_some_and(Deployment::place_the_user))?;
        [deployment::CENTRAL, deployment::REMOTE]
            .into_iter()
            .try_for_each(|path| self.wait(&format!("{path} is answered"), |own| own.plain.answers(path)))
    }

    fn wait(&mut self, what: &str, done: impl Fn(&Subject) -> bool) -> Result<(), String> {
        let end = Instant::now() + START;
        while Instant::now() < end && !self.has_ended() {
            if done(self) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let state = if self.has_ended() { "it ended" } else { "it runs" };
        let logs = ["log", "central.log", "us.log", "nginx.error"];
        let said = logs.map(|name| process::tail(&self.folder.path().join(name))).join("\n");
        Err(format!("in vain waited until {what}; {state}, and said: {}", said.trim()))
    }

    fn has_ended(&mut self) -> bool {
        self.process.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(&mut self) {
        process::signal("-TERM", &[self.process.id()]);
        let end = Instant::now() + STOP;
        while Instant::now() < end && !self.has_ended() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // One that has ended may have left its number to another process.
        if !self.has_ended() {
            // Killed, not drained: nothing of it is kept. All at once: a child would outlive its parent.
            process::signal("-KILL", &self.processes());
            // Where there is no such command.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
