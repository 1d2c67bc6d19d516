//! Disks as they are: full, or not ours to write. Real files, real limits; nothing is pretended.

use crate::harness::client::{Answer, Client};
use crate::harness::edge::door_in;
use crate::harness::process::{Process, command};
use crate::harness::wait;
use crate::harness::world::{World, setup};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Octets that one file may have while the disk is "full": more than the small store needs, less than the homes do.
const ROOM: u64 = 512 << 10;

/// Homes that take twice as much in the log of the map.
const MANY: usize = 2 * ROOM as usize / 16;

/// Starts the edge `fr` of a world; with a limit, no file of it grows beyond.
fn start(world: &World, limit: Option<u64>) -> Process {
    let config = world.folder().join("fr.toml");
    let coordinator = command(&["run", "--config", config.to_str().expect("a temporary path is text")]);
    let mut shell = Command::new("sh");
    // A write beyond the limit is to fail as one on a full disk does, not to end the process.
    let limit = limit.map_or(String::new(), |octets| format!("trap '' XFSZ; ulimit -f {}; ", octets / 512));
    shell
        .arg("-c")
        .arg(format!("{limit}exec \"$0\" \"$@\""))
        .arg(coordinator.get_program())
        .args(coordinator.get_args());
    let mut process = Process::spawn(shell.stdin(Stdio::null()));
    process.line("admin");
    process
}

fn ask(edge: &Process, user: usize) -> Option<Answer> {
    let door = edge.lines().iter().find_map(|line| door_in(line, "public"))?;
    let head = format!("GET /v1/users/{user}/cart HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
    Client::over_plain(TcpStream::connect(door).ok()?).send(head).try_answer("GET").ok()
}

/// Waits until the edge serves a user of its own.
#[track_caller]
fn serves(edge: &Process, user: usize) {
    wait::until(
        &format!("user {user} to be served"),
        || ask(edge, user).map(|answer| answer.status),
        |status| *status == Some(200),
    );
}

#[test]
fn a_full_disk_stops_what_is_new_and_nothing_that_is_known() {
    let mut world = setup().build();
    world.start_central();
    world.central().put_home("user", "1", "fr");
    let mut edge = start(&world, Some(ROOM));
    serves(&edge, 1);
    for from in (1..MANY).step_by(MANY / 32) {
        let users = from..from + MANY / 32;
        let homes: String = users.map(|user| format!("{{\"key\":\"{user}\",\"home\":\"fr\"}}\n")).collect();
        let taken = world.central().ask("POST", "/v1/homes", &homes);
        assert_eq!(taken.status, 200, "{taken:?}");
    }
    // It says so, goes on with what it has, and does not make up the rest.
    edge.line("could not be made durable");
    assert_eq!(ask(&edge, 1).map(|answer| answer.status), Some(200));
    assert!(!edge.is_over());
    let beyond = ask(&edge, MANY);
    assert!(beyond.as_ref().is_some_and(|answer| answer.status == 503), "{beyond:?}");
    edge.kill();
    let edge = start(&world, None);
    serves(&edge, 1);
    serves(&edge, MANY);
}

#[test]
fn state_that_may_not_be_written_is_told_at_the_start() {
    let mut world = setup().start();
    world.central().put_home("user", "1", "fr");
    world.stop("fr");
    // Readable by all and writable by none but us; then somebody else comes.
    open_up(world.folder().join(".").as_path());
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let program = folder.path().join("coordinator");
    std::fs::copy(command(&[]).get_program(), &program).unwrap();
    let config = world.folder().join("fr.toml");
    let mut start = Command::new(&program);
    start.args(["run", "--config"]).arg(config).env("RUST_BACKTRACE", "0");
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if is_root {
        start.uid(65534).gid(65534);
    } else {
        seal(&world.folder().join("data-fr"));
    }
    let output = start.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("data-fr") && text.contains("ermission denied"), "{text}");
    if !is_root {
        open_up(&world.folder().join("data-fr"));
    }
    // Nothing was harmed.
    world.start_edge("fr");
    world.synced();
    assert_eq!(world.edge("fr").homes().owned().len(), 1);
}

/// Makes a tree readable by all.
fn open_up(path: &Path) {
    change(path, 0o755, 0o644);
}

/// Makes a tree writable by nobody.
fn seal(path: &Path) {
    change(path, 0o555, 0o444);
}

fn change(path: &Path, folder: u32, file: u32) {
    let is_folder = path.is_dir();
    std::fs::set_permissions(path, PermissionsExt::from_mode(if is_folder { folder } else { file })).unwrap();
    if is_folder {
        std::fs::read_dir(path).unwrap().flatten().for_each(|entry| change(&entry.path(), folder, file));
    }
}
