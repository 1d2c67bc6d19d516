//! What stands beside the measured edge `fr` of a deployment: Central and the edge `us`, where the user 448 lives.

use super::process::{self, Core, Door, OWN};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Paths that are answered by Central's application, and by the home of 448.
pub const CENTRAL: &str = "/central/small";
pub const REMOTE: &str = "/users/448/small";

/// Its processes; they end when it is dropped.
pub struct Deployment {
    folder: PathBuf,
    central: Door,
    /// The peer doors of `fr` and `us`.
    fr: Door,
    us: Door,
    processes: Vec<Child>,
}

impl Deployment {
    /// Writes certificates and files for all three, also `fr.toml`, and starts the two beside it.
    pub fn start(
        folder: &Path,
        plain: &Door,
        origin: SocketAddr,
        aside: Core,
        access_log: bool,
    ) -> Result<Deployment, String> {
        let doors = [(); 3].map(|()| Door::hold());
        let [central, fr, us] = doors;
        let mut deployment = Deployment { folder: folder.to_owned(), central, fr, us, processes: Vec::new() };
        deployment.make_certificates(aside)?;
        let edge = |name: &str, plain: String, peer: &Door, access_log: bool| {
            let own = [
                ("EDGE", name.to_owned()),
                ("PLAIN", plain),
                ("PEER", peer.port()),
                ("ACCESS", access_log.to_string()),
            ];
            let values = [&own[..], &deployment.values(origin)].concat();
            process::write(folder, &format!("{name}.toml"), include_str!("../subjects/deployed.toml"), &values);
        };
        edge("fr", plain.port(), &deployment.fr, access_log);
        edge("us", "0".to_owned(), &deployment.us, false);
        let values = deployment.values(origin);
        process::write(folder, "central.toml", include_str!("../subjects/central.toml"), &values);
        for (command, file, log) in [("central", "central.toml", "central.log"), ("run", "us.toml", "us.log")] {
            deployment.processes.push(process::spawn(aside, &[OWN, command, "--config", file], folder, log)?);
        }
        Ok(deployment)
    }

    fn values(&self, origin: SocketAddr) -> Vec<(&'static str, String)> {
        vec![
            ("DIR", self.folder.display().to_string()),
            ("ORIGIN", origin.to_string()),
            ("CENTRAL", self.central.port()),
            ("FR", self.fr.port()),
            ("US", self.us.port()),
        ]
    }

    fn make_certificates(&self, aside: Core) -> Result<(), String> {
        let names = ["central", "fr", "us"];
        let mut words = vec![OWN, "certs", "--out", "certs", "--deployment", "bench"];
        words.extend(names);
        let hosts = names.map(|name| format!("{name}=127.0.0.1"));
        words.extend(hosts.iter().flat_map(|host| ["--host", host]));
        let made = process::spawn(aside, &words, &self.folder, "certs.log")?.wait();
        match made.is_ok_and(|status| status.success()) {
            true => Ok(()),
            false => Err(format!("coordinator certs: {}", process::tail(&self.folder.join("certs.log")))),
        }
    }

    /// Makes `us` the home of 448; whether Central took it.
    pub fn place_the_user(&self) -> bool {
        let url = format!("https://127.0.0.1:{}", self.central.port());
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
        command.args(["--ca", "certs/ca.pem", "448", "us"]).current_dir(&self.folder);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        for child in &mut self.processes {
            // Killed, not drained: nothing of it is kept.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
