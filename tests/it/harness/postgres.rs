//! A PostgreSQL server of a test's own, on a unix socket in a temporary folder.
//!
//! It refuses to run as root, so root runs it as the user `postgres` of Debian's package.

use super::folder::{self, Folder};
use super::launch::held_port;
use coordinator::tls::issue::Issued;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls};

/// A running server; killed when dropped.
pub struct Postgres {
    folder: Folder,
    owner: Option<(u32, u32)>,
    running: Option<Child>,
    level: &'static str,
    /// Settings of TLS, and its port.
    tls: Vec<String>,
    port: u16,
}

/// Where Debian puts the programs of the newest version.
fn programs() -> PathBuf {
    let mut all: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("Debian's package `postgresql` is installed")
        .map(|entry| entry.unwrap().path().join("bin"))
        .filter(|path| path.join("initdb").exists())
        .collect();
    all.sort();
    all.pop().expect("a server is installed")
}

fn number(flag: &str) -> u32 {
    let output = Command::new("id").args([flag, "postgres"]).output().expect("`id` runs");
    String::from_utf8(output.stdout).unwrap().trim().parse().expect("there is a user `postgres`")
}

impl Postgres {
    /// A server with `wal_level = logical`.
    pub async fn start() -> Postgres {
        Postgres::with_level("logical").await
    }

    /// A server with another `wal_level`.
    pub async fn with_level(level: &'static str) -> Postgres {
        let mut postgres = Postgres::new(level);
        postgres.launch().await;
        postgres
    }

    /// A server that takes TLS too, on a port of loopback.
    pub async fn with_tls(issued: &Issued) -> Postgres {
        let mut postgres = Postgres::new("logical");
        let (held, address) = held_port();
        // PostgreSQL does not share ports: between this and its start anybody may take it, and the test fails then.
        drop(held);
        let chain = postgres.folder.write("server.pem", &issued.chain_pem);
        let key = postgres.folder.write("server.key", &issued.key_pem);
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        for file in [&chain, &key] {
            if let Some((user, group)) = postgres.owner {
                std::os::unix::fs::chown(file, Some(user), Some(group)).unwrap();
            }
        }
        postgres.port = address.port();
        postgres.tls = vec![
            "listen_addresses=127.0.0.1".to_owned(),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", chain.display()),
            format!("ssl_key_file={}", key.display()),
        ];
        postgres.launch().await;
        postgres
    }

    fn new(level: &'static str) -> Postgres {
        let folder = folder::new();
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        let owner = is_root.then(|| (number("-u"), number("-g")));
        if let Some((user, group)) = owner {
            std::os::unix::fs::chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let postgres = Postgres { folder, owner, running: None, level, tls: Vec::new(), port: 5432 };
        let data = postgres.folder.join("data");
        let words = ["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C", "-D"];
        let made = postgres.command("initdb").args(words).arg(&data).stdout(Stdio::null()).status();
        assert!(made.unwrap().success(), "initdb failed");
        postgres
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(programs().join(program));
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Starts it again, and waits until it answers.
    pub async fn launch(&mut self) {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let mut command = self.command("postgres");
            command.arg("-D").arg(self.folder.join("data"));
            for setting in [
                "listen_addresses=".to_owned(),
                format!("unix_socket_directories={}", self.folder.path().display()),
                format!("wal_level={}", self.level),
                // The machine does not fail in a test, only processes do.
                "fsync=off".to_owned(),
                "max_connections=60".to_owned(),
                // In its folder, so that one that was killed leaves nothing behind.
                "dynamic_shared_memory_type=mmap".to_owned(),
                format!("port={}", self.port),
            ]
            .iter()
            .chain(&self.tls)
            {
                command.args(["-c", setting]);
            }
            let log = std::fs::File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
            self.running = Some(command.stdout(Stdio::null()).stderr(log).spawn().expect("the server starts"));
            // Those whom a killed one left behind may hold its memory for a moment: then it ends, and is started anew.
            while self.running.as_mut().is_some_and(|running| running.try_wait().unwrap().is_none()) {
                if self.try_connect("postgres", "postgres").await.is_ok() {
                    return;
                }
                assert!(Instant::now() < end, "{}", self.folder.read("log"));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(Instant::now() < end, "{}", self.folder.read("log"));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Ends it as `kill -9` does; its children end by themselves.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.kill();
            let _ = running.wait();
        }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        self.folder.path()
    }

    /// A connection string.
    pub fn url(&self, user: &str) -> String {
        format!("host={} port={} user={user} dbname=postgres", self.socket().display(), self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    async fn try_connect(&self, user: &str, database: &str) -> Result<Client, tokio_postgres::Error> {
        let url = format!("host={} port={} user={user} dbname={database}", self.socket().display(), self.port);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// A connection.
    pub async fn connect(&self) -> Client {
        self.try_connect("postgres", "postgres").await.expect("the server takes connections")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}
