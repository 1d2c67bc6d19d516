//! An origin that costs nearly nothing: one thread and one poll; the path says how many octets the answer has.
//!
//! It answers only a request whose content came whole, and what it does not know by 404, which fails the benchmark.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

/// What paths end in, and how long their answers are.
const ANSWERS: [(&str, usize); 3] = [("/small", 512), ("/16k", 16 << 10), ("/1m", 1 << 20)];

const LISTENER: Token = Token(usize::MAX);

/// Starts it on a thread of its own, which ends with the process.
pub fn start() -> SocketAddr {
    let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let poll = Poll::new().expect("a poll");
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE).expect("the poll takes a listener");
    std::thread::spawn(move || Origin { listener, poll, lines: Vec::new(), free: Vec::new() }.run());
    address
}

struct Origin {
    listener: TcpListener,
    poll: Poll,
    lines: Vec<Option<Line>>,
    free: Vec<usize>,
}

struct Line {
    socket: TcpStream,
    /// A head that has not come whole.
    head: Vec<u8>,
    /// Content of a request that is still to come, and the answer that follows it.
    open: Option<(usize, usize)>,
    /// What is being sent: an answer and how much of it the socket has taken.
    sending: Option<(usize, usize)>,
}

impl Origin {
    fn run(mut self) {
        let answers = ANSWERS.map(|(_, length)| answer("200 OK", length)).into_iter();
        let answers: Vec<Vec<u8>> = answers.chain([answer("404 Not Found", 0)]).collect();
        let mut events = Events::with_capacity(256);
        let mut buffer = vec![0; 64 << 10];
        loop {
            // Interrupted by a signal: the next one tells.
            let _ = self.poll.poll(&mut events, None);
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    Token(at) => self.serve(at, &answers, &mut buffer),
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((mut socket, _)) = self.listener.accept() {
            let at = self.free.pop().unwrap_or(self.lines.len());
            let both = Interest::READABLE | Interest::WRITABLE;
            let taken = self.poll.registry().register(&mut socket, Token(at), both);
            // Nothing hangs on Nagle's delay but the figures.
            if taken.and_then(|()| socket.set_nodelay(true)).is_err() {
                continue;
            }
            if at == self.lines.len() {
                self.lines.push(None);
            }
            self.lines[at] = Some(Line { socket, head: Vec::new(), open: None, sending: None });
        }
    }

    fn serve(&mut self, at: usize, answers: &[Vec<u8>], buffer: &mut [u8]) {
        let Some(line) = self.lines.get_mut(at).and_then(Option::as_mut) else { return };
        if line.serve(answers, buffer).is_err_and(|error| error.kind() != ErrorKind::WouldBlock) {
            self.lines[at] = None;
            self.free.push(at);
        }
    }
}

impl Line {
    /// Reads and answers until the socket has or takes no more.
    fn serve(&mut self, answers: &[Vec<u8>], buffer: &mut [u8]) -> std::io::Result<()> {
        loop {
            self.send(answers)?;
            let got = self.socket.read(buffer)?;
            if got == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.take(&buffer[..got]);
            if got < buffer.len() {
                return self.send(answers);
            }
        }
    }

    fn take(&mut self, octets: &[u8]) {
        if let Some((left, answer)) = self.open {
            self.content(left, answer, octets.len());
            return;
        }
        self.head.extend_from_slice(octets);
        let Some(end) = memchr::memmem::find(&self.head, b"\r\n\r\n") else { return };
        let (content, answer) = read(&self.head[..end]);
        let came = self.head.len() - end - 4;
        self.head.clear();
        self.content(content, answer, came);
    }

    /// Counts content; the last of it begins the answer.
    fn content(&mut self, left: usize, answer: usize, came: usize) {
        match left.checked_sub(came) {
            Some(0) => (self.open, self.sending) = (None, Some((answer, 0))),
            Some(left) => self.open = Some((left, answer)),
            // More than one request at a time, or chunks: no subject sends that here.
            None => (self.open, self.sending) = (None, Some((ANSWERS.len(), 0))),
        }
    }

    fn send(&mut self, answers: &[Vec<u8>]) -> std::io::Result<()> {
        while let Some((answer, sent)) = self.sending {
            let whole = &answers[answer];
            let sent = sent + self.socket.write(&whole[sent..])?;
            self.sending = (sent < whole.len()).then_some((answer, sent));
        }
        Ok(())
    }
}

/// How much content a request has, and which answer it gets.
fn read(head: &[u8]) -> (usize, usize) {
    let head = String::from_utf8_lossy(head);
    let path = head.split(' ').nth(1).unwrap_or_default();
    let answer = ANSWERS.iter().position(|(end, _)| path.ends_with(end)).unwrap_or(ANSWERS.len());
    let content = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    (content.unwrap_or_default(), answer)
}

fn answer(status: &str, length: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nServer: bench\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\
         ETag: \"0123456789abcdef\"\r\nCache-Control: max-age=60\r\n\r\n"
    );
    [head.as_bytes(), &vec![b'x'; length]].concat()
}
