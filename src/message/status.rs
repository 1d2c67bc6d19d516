//! Proxy-Status: what a proxy did to a request, for machines (RFC 9209).

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

#[cfg(test)]
mod tests {
    use super::*;

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
