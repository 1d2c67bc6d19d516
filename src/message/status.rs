//! Statuses: their phrases, and Proxy-Status: what a proxy did to a request, for machines (RFC 9209).

use super::dictionary::{Quoted, Shortest};
use std::fmt;

/// The longest detail that is shown, in characters.
const DETAILS_MAX: usize = 256;

/// One member of a Proxy-Status list; its `Display` is the wire form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProxyStatus<'a> {
    /// Who says so: the name of the edge.
    pub proxy: &'a str,
    /// The error type, when we made the answer.
    pub error: Option<&'a str>,
    /// Whom we asked.
    pub next_hop: Option<&'a str>,
    /// What that one answered.
    pub received_status: Option<u16>,
    /// More, for people.
    pub details: Option<&'a str>,
}

impl fmt::Display for ProxyStatus<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", Shortest(self.proxy))?;
        if let Some(error) = self.error {
            write!(out, "; error={}", Shortest(error))?;
        }
        if let Some(hop) = self.next_hop {
            write!(out, "; next-hop={}", Shortest(hop))?;
        }
        if let Some(status) = self.received_status {
            write!(out, "; received-status={status}")?;
        }
        if let Some(details) = self.details.filter(|details| !details.is_empty()) {
            let end = details.char_indices().nth(DETAILS_MAX).map_or(details.len(), |(at, _)| at);
            write!(out, "; details={}", Quoted(&details[..end]))?;
        }
        Ok(())
    }
}

macro_rules! phrases {
    ($($status:literal = $phrase:literal),+ $(,)?) => {
        /// The reason phrase of a status (RFC 9110 section 15, IANA's registry); empty for unknown ones. Only people read it.
        pub fn phrase(status: u16) -> &'static str {
            match status {
                $($status => $phrase,)+
                _ => "",
            }
        }

        /// The whole status line of HTTP/1.1, its end included; `None` for an unknown status.
        pub fn line(status: u16) -> Option<&'static [u8]> {
            Some(match status {
                $($status => concat!("HTTP/1.1 ", $status, " ", $phrase, "\r\n").as_bytes(),)+
                _ => return None,
            })
        }
    };
}

phrases! {
    100 = "Continue",
    101 = "Switching Protocols",
    102 = "Processing",
    103 = "Early Hints",
    200 = "OK",
    201 = "Created",
    202 = "Accepted",
    203 = "Non-Authoritative Information",
    204 = "No Content",
    205 = "Reset Content",
    206 = "Partial Content",
    207 = "Multi-Status",
    208 = "Already Reported",
    226 = "IM Used",
    300 = "Multiple Choices",
    301 = "Moved Permanently",
    302 = "Found",
    303 = "See Other",
    304 = "Not Modified",
    305 = "Use Proxy",
    307 = "Temporary Redirect",
    308 = "Permanent Redirect",
    400 = "Bad Request",
    401 = "Unauthorized",
    402 = "Payment Required",
    403 = "Forbidden",
    404 = "Not Found",
    405 = "Method Not Allowed",
    406 = "Not Acceptable",
    407 = "Proxy Authentication Required",
    408 = "Request Timeout",
    409 = "Conflict",
    410 = "Gone",
    411 = "Length Required",
    412 = "Precondition Failed",
    413 = "Content Too Large",
    414 = "URI Too Long",
    415 = "Unsupported Media Type",
    416 = "Range Not Satisfiable",
    417 = "Expectation Failed",
    418 = "I'm a teapot",
    421 = "Misdirected Request",
    422 = "Unprocessable Content",
    423 = "Locked",
    424 = "Failed Dependency",
    425 = "Too Early",
    426 = "Upgrade Required",
    428 = "Precondition Required",
    429 = "Too Many Requests",
    431 = "Request Header Fields Too Large",
    451 = "Unavailable For Legal Reasons",
    499 = "Client Closed Request",
    500 = "Internal Server Error",
    501 = "Not Implemented",
    502 = "Bad Gateway",
    503 = "Service Unavailable",
    504 = "Gateway Timeout",
    505 = "HTTP Version Not Supported",
    506 = "Variant Also Negotiates",
    507 = "Insufficient Storage",
    508 = "Loop Detected",
    511 = "Network Authentication Required",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_what_phrases_say() {
        for status in 0..=999 {
            let line = format!("HTTP/1.1 {status} {}\r\n", phrase(status));
            match super::line(status) {
                Some(known) => assert_eq!(known, line.as_bytes()),
                None => assert_eq!(phrase(status), ""),
            }
        }
    }

    #[test]
    fn written_as_a_structured_field() {
        let full = ProxyStatus {
            proxy: "fr",
            error: Some("connection_refused"),
            next_hop: Some("10.0.0.1:3000"),
            received_status: Some(503),
            details: Some("a \"b\" \\ \u{e9}\r\n; x=1"),
        };
        let text = r#"fr; error=connection_refused; next-hop="10.0.0.1:3000"; received-status=503; details="a \"b\" \\ ???; x=1""#;
        assert_eq!(full.to_string(), text);
        assert_eq!(ProxyStatus { proxy: "3 x", ..Default::default() }.to_string(), "\"3 x\"");
        let long = "\u{e9}".repeat(1000);
        let status = ProxyStatus { proxy: "fr", details: Some(&long), ..Default::default() };
        assert_eq!(status.to_string().len(), "fr; details=\"\"".len() + DETAILS_MAX);
    }
}
