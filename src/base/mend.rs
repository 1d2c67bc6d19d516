//! What an operator can do about an error of the operating system. Words only; the callers say what failed and where.

use std::io;

/// The remedy for an address that cannot be listened on; empty where there is nothing better to say than the error.
pub fn listen(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there: `ss -ltnp` shows which; stop it, or choose another address"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=), or choose a higher port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address: `ip address` lists those it has; 0.0.0.0 or [::] takes all of them"
        }
        io::ErrorKind::NotFound => "the folder of a unix socket must exist before the start",
        _ => "",
    }
}

/// The remedy for a folder or file that cannot be made or written.
pub fn write(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "give it to the user that runs this (`chown`), or let another place be configured"
        }
        io::ErrorKind::NotFound => "make the folder above it first (`mkdir -p`), or name another place",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "something that is no folder has this name: move it away, or name another place"
        }
        io::ErrorKind::ReadOnlyFilesystem => "the file system is mounted read-only: name a place that can be written",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full: make room, or name another place"
        }
        _ => "",
    }
}

/// What is wrong with a thing, and on a line of its own how to mend it.
pub fn told(wrong: impl std::fmt::Display, help: &str) -> String {
    if help.is_empty() { wrong.to_string() } else { format!("{wrong}\nhelp: {help}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_mended_has_a_line_of_its_own() {
        let used = io::Error::from(io::ErrorKind::AddrInUse);
        let text = told(format!("cannot listen on [::]:80: {used}"), listen(&used));
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains("\nhelp: another program listens there"), "{text}");
        let odd = io::Error::other("odd");
        assert_eq!(told(&odd, write(&odd)), "odd");
    }
}
