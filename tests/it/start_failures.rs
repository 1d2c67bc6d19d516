//! A start that fails says what, where and how to mend it.

use crate::harness::{edge, folder, process};
use std::net::TcpListener;
use std::path::Path;

/// Runs an edge on a configuration that cannot start; what it says.
#[track_caller]
fn says(toml: &str) -> String {
    let folder = folder::new();
    let config = folder.write("config.toml", toml);
    let output = process::run(&["run", "--config", config.to_str().expect("a temporary path is text")]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("config.toml"), "{text}");
    text
}

#[test]
fn a_port_in_use_is_told_at_every_door() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let public = edge::PLAIN.replace("127.0.0.1:0", &address).replace("${origin}", "127.0.0.1:9");
    let admin = format!("{}\n[admin]\naddress = \"{address}\"\n", edge::PLAIN.replace("${origin}", "127.0.0.1:9"));
    for toml in [public, admin] {
        let text = says(&toml);
        assert!(text.starts_with(&format!("error: could not start: cannot listen on {address}: ")), "{text}");
        assert!(text.contains("  = help: another program listens there"), "{text}");
    }
}

#[test]
fn a_folder_that_cannot_be_is_told() {
    let plain = edge::PLAIN.replace("${origin}", "127.0.0.1:9");
    let homes = "\n[central]\nurl = \"http://127.0.0.1:9\"\n[homes.user]\n";
    for (data, help) in [("config.toml", "move it away"), ("/proc/no/such", "mkdir -p")] {
        let text = says(&(plain.replace("name = \"fr\"", &format!("name = \"fr\"\ndata = \"{data}\"")) + homes));
        assert!(text.contains("error: could not start: `data` of [edge] cannot be used: "), "{text}");
        assert!(text.contains(data) && text.contains(help), "{text}");
    }
    let text = says(&(plain + "\n[log]\nfile = \"/no/such/folder/access.log\"\n"));
    assert!(text.contains("`file` of [log] cannot be opened: /no/such/folder/access.log"), "{text}");
    assert!(!Path::new("/no/such/folder").exists());
}
