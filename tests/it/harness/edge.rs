//! A running edge for a test.

use super::process::Process;
use super::{folder, wait};
use std::net::SocketAddr;

/// The default configuration of a test: one door, one origin, everything local. `${origin}` is the origin's address.
pub const PLAIN: &str = r#"
[edge]
name = "fr"

[[listen]]
address = "127.0.0.1:0"

[local]
origins = ["http://${origin}"]

[[route]]
match = "/"
to = "local"
"#;

/// An edge with an operator's door before an origin that nobody answers at, to which routes can be added.
pub const ALONE: &str = r#"
[edge]
name = "fr"

[[listen]]
address = "127.0.0.1:0"

[admin]
address = "127.0.0.1:0"

[local]
origins = ["http://127.0.0.1:9"]
"#;

/// An edge; stopped when dropped.
pub struct Edge {
    process: Process,
    folder: folder::Folder,
}

/// Starts an edge with this configuration and waits until its doors are open.
#[track_caller]
pub fn start(toml: &str) -> Edge {
    start_as("run", toml, folder::new())
}

/// Starts Central with this configuration.
#[track_caller]
pub fn start_central(toml: &str) -> Edge {
    start_as("central", toml, folder::new())
}

/// Starts an edge (`run`) or Central (`central`) on a folder that may hold certificates and data: of a place that comes
/// back, say.
#[track_caller]
pub fn start_as(command: &str, toml: &str, folder: folder::Folder) -> Edge {
    let config = folder.write("config.toml", toml);
    let process = Process::start(&[command, "--config", config.to_str().expect("a temporary path is text")]);
    let mut edge = Edge { process, folder };
    edge.process.line("listening");
    edge
}

impl Edge {
    /// The address of the first public door.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        self.door("public")
    }

    /// The address of a door: `public`, `peer`, `observe`, `admin`.
    ///
    /// Read from the line that says it is listening: JSON or text with `door` and `address`.
    #[track_caller]
    pub fn door(&self, name: &str) -> SocketAddr {
        wait::some(&format!("the {name} door"), || {
            self.process.lines().iter().filter(|line| line.contains("listening")).find_map(|line| door_in(line, name))
        })
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The folder of its configuration.
    pub fn folder(&self) -> &folder::Folder {
        &self.folder
    }

    /// Kills it as `kill -9` does; its folder, for whoever starts it again.
    pub fn kill(mut self) -> folder::Folder {
        self.process.kill();
        self.folder
    }
}

/// The address in a line about `door`.
pub fn door_in(line: &str, door: &str) -> Option<SocketAddr> {
    if value_in(line, "door")? != door {
        return None;
    }
    value_in(line, "address")?.parse().ok()
}

/// The value of `key` in `{"key":"value"}` or `key=value`, wherever it stands in the line.
fn value_in<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let json = format!("\"{key}\":\"");
    if let Some(at) = line.find(&json) {
        return line[at + json.len()..].split('"').next();
    }
    let text = format!("{key}=");
    let at = line.find(&text)?;
    line[at + text.len()..].split_whitespace().next().map(|value| value.trim_matches('"'))
}
