//! A NATS server with JetStream of a test's own, on loopback.

use super::folder::{self, Folder};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server; killed when dropped.
pub struct Server {
    folder: Folder,
    running: Option<Child>,
    port: Option<u16>,
}

impl Server {
    /// A server on any port.
    pub fn start() -> Server {
        let mut server = Server { folder: folder::new(), running: None, port: None };
        server.launch();
        server
    }

    /// Starts it again, on the same port, and waits until it takes connections.
    pub fn launch(&mut self) {
        let port = self.port.map_or("-1".to_owned(), |port| port.to_string());
        let log = std::fs::File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut command = Command::new("nats-server");
        command.args(["-js", "-a", "127.0.0.1", "-p", &port, "-sd"]).arg(self.folder.join("store"));
        command.arg("--ports_file_dir").arg(self.folder.path()).stdin(Stdio::null());
        let running =
            command.stdout(Stdio::null()).stderr(log).spawn().expect("Debian's package `nats-server` is installed");
        let file = format!("nats-server_{}.ports", running.id());
        self.running = Some(running);
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let text = std::fs::read_to_string(self.folder.join(&file)).unwrap_or_default();
            let ports: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            if let Some(url) = ports.pointer("/nats/0").and_then(|url| url.as_str()) {
                let address: SocketAddr = url.trim_start_matches("nats://").parse().unwrap();
                self.port = Some(address.port());
                if std::net::TcpStream::connect(address).is_ok() {
                    return;
                }
            }
            assert!(Instant::now() < end, "{}", self.folder.read("log"));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.kill();
            let _ = running.wait();
        }
    }

    /// Throws away all that it has stored, while it is down.
    pub fn forget(&self) {
        std::fs::remove_dir_all(self.folder.join("store")).unwrap();
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port.expect("known once it was started")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
