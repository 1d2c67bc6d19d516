//! The real binary as a process of its own: started, watched, signalled, and never left behind.

use super::wait;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// A running process; killed when dropped.
pub struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    /// Who reads its outputs.
    readers: Vec<thread::JoinHandle<()>>,
    ended: Option<ExitStatus>,
}

/// The signals that an operator sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Int,
    /// Drain and stop.
    Term,
    /// Reload.
    Hup,
    /// Stop at once: what `kill -9` does.
    Kill,
    /// Stand still, as under a debugger or a stuck machine.
    Stop,
    /// Go on.
    Continue,
}

impl Process {
    /// Starts `coordinator` with `words`; both its outputs are captured by line.
    pub fn start(words: &[&str]) -> Process {
        Process::start_in(None, words)
    }

    /// As `start`, with temporary files in `temporary`.
    pub fn start_with_temporary(temporary: &Path, words: &[&str]) -> Process {
        Process::spawn(command(words).env("TMPDIR", temporary).stdin(Stdio::null()))
    }

    /// As `start`, with a working folder.
    pub fn start_in(folder: Option<&Path>, words: &[&str]) -> Process {
        let mut command = command(words);
        if let Some(folder) = folder {
            command.current_dir(folder);
        }
        Process::spawn(command.stdin(Stdio::null()))
    }

    /// As `start`, of a command made elsewhere, with its own environment and standard input.
    pub fn spawn(command: &mut Command) -> Process {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let lines = Arc::default();
        let readers = vec![
            listen(child.stdout.take().expect("stdout is piped"), &lines),
            listen(child.stderr.take().expect("stderr is piped"), &lines),
        ];
        Process { child, lines, readers, ended: None }
    }

    /// What it has printed so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("nobody panics under this lock").clone()
    }

    /// Waits for a line that contains `text`, and gives it. Panics, with all output, if the process ends before.
    #[track_caller]
    pub fn line(&mut self, text: &str) -> String {
        let found = |lines: &[String]| lines.iter().find(|line| line.contains(text)).cloned();
        let line = wait::until(
            &format!("a line with {text:?}"),
            || (self.is_over(), found(&self.lines()), self.lines()),
            |(over, line, _)| line.is_some() || *over,
        );
        line.1.or_else(|| found(&self.lines())).unwrap_or_else(|| panic!("the process ended: {:#?}", self.lines()))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let name = match signal {
            Signal::Int => "INT",
            Signal::Term => "TERM",
            Signal::Hup => "HUP",
            Signal::Kill => "KILL",
            Signal::Stop => "STOP",
            Signal::Continue => "CONT",
        };
        // The shell's own kill: present on every machine, and no unsafe code here.
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.id())).output().expect("sh runs");
        assert!(sent.status.success() || name == "KILL", "kill -{name}: {}", String::from_utf8_lossy(&sent.stderr));
    }

    /// Whether it has ended, and all that it printed has been read.
    pub fn is_over(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child can be waited for");
        }
        self.ended.is_some() && self.readers.iter().all(thread::JoinHandle::is_finished)
    }

    /// Waits for its end; the exit code, or `None` if a signal ended it.
    #[track_caller]
    pub fn end(&mut self) -> Option<i32> {
        wait::until("the process to end", || self.is_over(), |over| *over);
        self.ended.expect("it is over").code()
    }

    /// Kills it without a chance to clean up, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.ended = self.child.wait().ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            println!("process {}:\n  {}", self.id(), self.lines().join("\n  "));
        }
    }
}

/// Runs `coordinator` with `words` to its end.
pub fn run(words: &[&str]) -> Output {
    command(words).stdin(Stdio::null()).output().expect("the binary starts")
}

/// `coordinator` with `words`, not yet started.
pub fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
    command.args(words);
    command
}

fn listen(pipe: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) -> thread::JoinHandle<()> {
    let lines = lines.clone();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            let Ok(line) = line else { return };
            lines.lock().expect("nobody panics under this lock").push(line);
        }
    })
}
