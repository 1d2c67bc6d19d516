//! HTTP/1 messages, read leniently and told exactly: what came, and how it ended.
//!
//! Lenient means that nothing is refused that can be shown to a test; the one thing that is never blurred is whether a
//! body was complete by its own framing.

use std::io::{ErrorKind, Read};

/// Names and values in the order they came; values as text, octets above ASCII replaced.
pub type Fields = Vec<(String, String)>;

/// How a message or a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Where its framing said, or by a clean end of the connection where that is the framing.
    Clean,
    /// Before that; with what happened instead.
    Cut(String),
}

/// Why no more octets came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The peer ended the connection cleanly.
    Ended,
    /// The connection broke.
    Broken(String),
    /// Nothing came within the socket's time limit.
    Silent,
    /// What came is not even remotely HTTP/1.
    Garbled(String),
}

impl Stop {
    fn cut(&self, at: &str) -> End {
        End::Cut(format!("{self:?} {at}"))
    }
}

/// A connection's octets, read as they are needed; all that came are kept for the record.
pub struct Reader<S> {
    stream: S,
    /// Read and not yet taken.
    pub waiting: Vec<u8>,
    /// Everything that ever came.
    pub record: Vec<u8>,
}

/// A start line and fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The start line without its end.
    pub start: String,
    /// The fields.
    pub fields: Fields,
}

/// What followed a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// The content, decoded.
    pub octets: Vec<u8>,
    /// The trailer section of a chunked body.
    pub trailers: Fields,
    /// Whether it was complete.
    pub end: End,
}

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// After so many octets.
    Length(usize),
    /// Chunked.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// The values of `name` in `fields`, in order.
pub fn values<'a>(fields: &'a Fields, name: &str) -> Vec<&'a str> {
    fields.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
}

/// Whether the fields say chunked.
pub fn is_chunked(fields: &Fields) -> bool {
    values(fields, "transfer-encoding").iter().any(|value| value.to_ascii_lowercase().contains("chunked"))
}

/// The Content-Length, if there is a readable one.
pub fn length(fields: &Fields) -> Option<usize> {
    values(fields, "content-length").first().and_then(|value| value.parse().ok())
}

impl<S: Read> Reader<S> {
    /// A reader that has seen nothing yet.
    pub fn new(stream: S) -> Self {
        Reader { stream, waiting: Vec::new(), record: Vec::new() }
    }

    /// The connection itself, for writing.
    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Reads once more from the connection.
    pub fn more(&mut self) -> Result<(), Stop> {
        let mut space = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut space) {
                Ok(0) => return Err(Stop::Ended),
                Ok(count) => {
                    self.waiting.extend_from_slice(&space[..count]);
                    self.record.extend_from_slice(&space[..count]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(Stop::Silent);
                }
                Err(error) => return Err(Stop::Broken(error.to_string())),
            }
        }
    }

    /// The next `count` octets. On failure, those that came stay in `waiting`.
    pub fn take(&mut self, count: usize) -> Result<Vec<u8>, Stop> {
        while self.waiting.len() < count {
            self.more()?;
        }
        Ok(self.waiting.drain(..count).collect())
    }

    /// The next line without its end.
    pub fn line(&mut self) -> Result<String, Stop> {
        loop {
            if let Some(end) = self.waiting.iter().position(|octet| *octet == b'\n') {
                let mut line: Vec<u8> = self.waiting.drain(..=end).collect();
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            self.more()?;
        }
    }

    /// The next head.
    pub fn head(&mut self) -> Result<Head, Stop> {
        let start = self.line()?;
        Ok(Head { start, fields: self.fields()? })
    }

    /// Fields up to the empty line.
    pub fn fields(&mut self) -> Result<Fields, Stop> {
        let mut fields = Fields::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| Stop::Garbled(format!("field line {line:?}")))?;
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// The body that `framing` announces.
    pub fn body(&mut self, framing: Framing) -> Body {
        match framing {
            Framing::None => Body { octets: Vec::new(), trailers: Fields::new(), end: End::Clean },
            Framing::Length(count) => match self.take(count) {
                Ok(octets) => Body { octets, trailers: Fields::new(), end: End::Clean },
                Err(stop) => {
                    let octets = std::mem::take(&mut self.waiting);
                    Body {
                        end: stop.cut(&format!("after {} of {count} octets", octets.len())),
                        octets,
                        trailers: Fields::new(),
                    }
                }
            },
            Framing::Chunked => self.chunked(),
            Framing::UntilClose => self.until_close(),
        }
    }

    fn chunked(&mut self) -> Body {
        let mut octets = Vec::new();
        let outcome = self.chunks(&mut octets);
        match outcome {
            Ok(trailers) => Body { octets, trailers, end: End::Clean },
            Err(stop) => Body { end: stop.cut("within a chunked body"), octets, trailers: Fields::new() },
        }
    }

    fn chunks(&mut self, octets: &mut Vec<u8>) -> Result<Fields, Stop> {
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| Stop::Garbled(format!("chunk size {line:?}")))?;
            if size == 0 {
                return self.fields();
            }
            match self.take(size) {
                Ok(chunk) => octets.extend_from_slice(&chunk),
                Err(stop) => {
                    octets.append(&mut self.waiting);
                    return Err(stop);
                }
            }
            let end = self.line()?;
            if !end.is_empty() {
                return Err(Stop::Garbled(format!("{end:?} after a chunk")));
            }
        }
    }

    fn until_close(&mut self) -> Body {
        let stop = loop {
            if let Err(stop) = self.more() {
                break stop;
            }
        };
        let end =
            if stop == Stop::Ended { End::Clean } else { stop.cut("where the end of the connection was the end") };
        Body { octets: std::mem::take(&mut self.waiting), trailers: Fields::new(), end }
    }
}
