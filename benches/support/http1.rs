//! The driver's HTTP/1.1: one request at a time, the same octets every time, and answers of a length that is known before.
//!
//! It reads no more of a head than it must to prove the answer right: the status, and the length of the content.

use std::rc::Rc;
use std::time::Instant;

/// What one connection has under way.
pub struct Session {
    request: Rc<[u8]>,
    /// Octets of content that each answer must have.
    answer: usize,
    /// When the open request was due.
    due: Option<Instant>,
    /// What has come of an unfinished head.
    head: Vec<u8>,
    /// Content still to come, once the head is there.
    left: Option<usize>,
}

/// The octets of a request: a GET, or a POST of so much content.
pub fn request(path: &str, content: usize) -> Rc<[u8]> {
    let method = if content > 0 { "POST" } else { "GET" };
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {}\r\nAccept: {}\r\n",
        super::http2::AUTHORITY,
        super::http2::AGENT,
        super::http2::ACCEPT
    );
    if content > 0 {
        head += &format!("Content-Type: application/octet-stream\r\nContent-Length: {content}\r\n");
    }
    [head.as_bytes(), b"\r\n", &vec![b'z'; content]].concat().into()
}

impl Session {
    /// A connection that will send `request` and wants `answer` octets of content each time.
    pub fn new(request: Rc<[u8]>, answer: usize) -> Session {
        Session { request, answer, due: None, head: Vec::new(), left: None }
    }

    /// Appends a request to what is to be sent.
    pub fn ask(&mut self, due: Instant, out: &mut Vec<u8>) {
        self.due = Some(due);
        out.extend_from_slice(&self.request);
    }

    /// Takes what came; a finished answer adds the moment its request was due to `done`. Errors: what came instead.
    pub fn take(&mut self, octets: &[u8], done: &mut Vec<Instant>) -> Result<(), String> {
        let Some(due) = self.due else { return Err(came("an answer to nothing", octets)) };
        let content = match self.left {
            Some(_) => octets.len(),
            None => match self.take_head(octets)? {
                Some(content) => content,
                None => return Ok(()),
            },
        };
        let left = self.left.unwrap_or(self.answer);
        if content > left {
            return Err(came("more than the answer", octets));
        }
        self.left = Some(left - content);
        if content == left {
            done.push(due);
            (self.due, self.left) = (None, None);
        }
        Ok(())
    }

    /// Takes octets until the head is whole; then how many octets of content came with it.
    fn take_head(&mut self, octets: &[u8]) -> Result<Option<usize>, String> {
        if self.head.is_empty() {
            let Some(end) = memchr::memmem::find(octets, b"\r\n\r\n") else {
                self.head.extend_from_slice(octets);
                return Ok(None);
            };
            check(&octets[..end], self.answer)?;
            return Ok(Some(octets.len() - end - 4));
        }
        self.head.extend_from_slice(octets);
        let Some(end) = memchr::memmem::find(&self.head, b"\r\n\r\n") else { return Ok(None) };
        check(&self.head[..end], self.answer)?;
        let content = self.head.len() - end - 4;
        self.head.clear();
        Ok(Some(content))
    }
}

/// Whether a head is that of a 200 with the content that was asked for.
fn check(head: &[u8], answer: usize) -> Result<(), String> {
    let length = head.split(|octet| *octet == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked("content-length:".len())?;
        name.eq_ignore_ascii_case(b"content-length:").then_some(value.trim_ascii())
    });
    let length = length.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    if head.starts_with(b"HTTP/1.1 200") && length == Some(answer) {
        return Ok(());
    }
    Err(came(&format!("not a 200 with Content-Length: {answer}"), head))
}

/// Says what came, as far as it fits a line.
pub fn came(what: &str, octets: &[u8]) -> String {
    format!("{what}: {}", octets[..octets.len().min(400)].escape_ascii())
}
