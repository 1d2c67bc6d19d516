//! Our own answers when a request fails (RFC 9457, RFC 9209). An origin's own errors never come through here.
//!
//! Invariant: what we answer ourselves says so in Proxy-Status, is never stored, and shows nothing unescaped that a
//! client wrote.

use crate::body::Response;
use crate::error::{Error, Kind};
use crate::message::Name;
use crate::message::negotiate::{Form, error_form};
use crate::message::status::{ProxyStatus, phrase};
use serde::Serialize;
use std::time::Duration;

/// The answer to a failed request. `edge` is our name, `accept` the request's Accept, `next_hop` whom we asked, if we
/// did. The content is there for HEAD too: the writer leaves it out.
pub fn response(error: &Error, edge: &str, accept: Option<&[u8]>, next_hop: Option<&str>) -> Response {
    let (content_type, content) = match error_form(accept) {
        Form::Problem => ("application/problem+json", problem(error)),
        Form::Html => ("text/html; charset=utf-8", page(error, edge)),
        Form::Plain => ("text/plain; charset=utf-8", plain(error)),
    };
    let mut response = Response::with(error.status(), content_type, content);
    let fields = &mut response.head.fields;
    fields.push(b"x-content-type-options", b"nosniff");
    fields.push(b"content-security-policy", b"default-src 'none'");
    fields.add(Name::CacheControl, "no-store");
    fields.add(Name::Vary, "accept");
    let status = ProxyStatus {
        proxy: edge,
        error: Some(error.token()),
        next_hop,
        received_status: None,
        details: Some(error.public_detail()),
    };
    fields.add(Name::ProxyStatus, status.to_string());
    if let Some(wait) = error.wait() {
        fields.add(Name::RetryAfter, seconds(wait).to_string());
    }
    if error.kind() == Kind::NoMethod || !error.allowed().is_empty() {
        fields.add(Name::Allow, error.allowed());
    }
    response
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    /// The RFC 9209 error type: the same in Proxy-Status, log and metrics.
    token: &'a str,
    /// How it is mended.
    help: &'a str,
}

fn problem(error: &Error) -> String {
    let problem = Problem {
        r#type: format!("urn:coordinator:error:{}", error.kind().name()),
        title: phrase(error.status()),
        status: error.status(),
        detail: error.public_detail(),
        token: error.token(),
        help: error.kind().remedy(),
    };
    // Strings and a number always serialise.
    serde_json::to_string(&problem).unwrap_or_default() + "\n"
}

/// For people at a browser: they are told how to mend their own mistakes only, not how to run the deployment.
fn page(error: &Error, edge: &str) -> String {
    let (status, title) = (error.status(), phrase(error.status()));
    let (detail, token, edge) = (escaped(error.public_detail()), escaped(error.token()), escaped(edge));
    let help = match (error.is_for_clients(), error.wait()) {
        (true, _) => format!("<p>{}</p>\n", escaped(error.kind().remedy())),
        (false, Some(wait)) => format!("<p>Please try again in {} s.</p>\n", seconds(wait)),
        (false, None) => String::new(),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{status} {title}</title>\n\
         <h1>{status} {title}</h1>\n<p>{detail}</p>\n{help}<p><small>{token} at {edge}</small></p>\n</html>\n"
    )
}

fn plain(error: &Error) -> String {
    let detail: String = error.public_detail().chars().filter(|c| !c.is_control()).collect();
    let (status, help) = (error.status(), error.kind().remedy());
    format!("{status} {}\n{detail}\nhelp: {help}\n{}\n", phrase(status), error.token())
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Whole seconds, rounded up, at least one: `Retry-After: 0` would mean at once.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Body;
    use crate::error::KINDS;

    fn content(response: &Response) -> String {
        match &response.body {
            Body::Full(octets) => String::from_utf8(octets.to_vec()).unwrap(),
            _ => panic!("no content"),
        }
    }

    #[test]
    fn every_kind_has_a_title_and_a_token() {
        for kind in KINDS {
            let error = Error::new(kind, "x");
            let response = response(&error, "fr", None, None);
            assert_ne!(phrase(response.head.status), "", "{kind:?}");
            let status = response.head.fields.text(Name::ProxyStatus).unwrap();
            let details = error.public_detail().replace('\\', "\\\\").replace('"', "\\\"");
            assert_eq!(status, format!("fr; error={}; details=\"{details}\"", kind.token()));
            assert_eq!(response.head.fields.text(Name::CacheControl), Some("no-store"));
            let problem: serde_json::Value = serde_json::from_str(&content(&response)).unwrap();
            assert_eq!(problem["status"], kind.status());
            assert_eq!(problem["token"], kind.token());
            assert_eq!(problem["help"], kind.remedy());
        }
    }

    #[test]
    fn every_kind_says_what_happened_and_how_to_mend_it() {
        for kind in KINDS {
            for sentence in [kind.cause(), kind.remedy()] {
                assert!(sentence.ends_with('.') && sentence.len() > 20, "{kind:?}: {sentence}");
                assert!(!sentence.contains(['|', '<', '\n']), "{kind:?}: {sentence}");
            }
        }
    }

    #[test]
    fn clients_see_no_file_and_no_inner_name() {
        for kind in [Kind::ProxyConfigurationError, Kind::ProxyInternalError, Kind::TlsCertificateError, Kind::DnsError]
        {
            let error = Error::new(kind, "/etc/coordinator/fr.key: not valid for db.internal");
            for accept in ["application/json", "text/html", "text/plain"] {
                let response = response(&error, "fr", Some(accept.as_bytes()), None);
                let shown = content(&response) + response.head.fields.text(Name::ProxyStatus).unwrap();
                assert!(!shown.contains("fr.key") && !shown.contains("db.internal"), "{shown}");
                assert!(shown.contains(&kind.cause()[..20]), "{shown}");
            }
        }
    }

    #[test]
    fn browsers_are_told_what_their_people_can_do() {
        let html = |error: &Error| content(&response(error, "fr", Some(b"text/html"), None));
        assert!(html(&Error::new(Kind::UriTooLong, "too long")).contains("Shorten the URL"));
        let busy = html(&Error::unavailable("the place is down", Duration::from_secs(2)));
        assert!(busy.contains("try again in 2 s") && !busy.contains("admin door"), "{busy}");
    }

    #[test]
    fn nothing_goes_out_unescaped() {
        let hostile = "<script>\"'&\r\nSet-Cookie: a=b\u{0}";
        let error = Error::bad_request(hostile);
        for accept in ["application/json", "text/html", "text/plain"] {
            let response = response(&error, "f\"r<", Some(accept.as_bytes()), Some("h\r\nx: y"));
            let content = content(&response);
            assert!(!content.contains("<script>") || accept != "text/html", "{content}");
            assert!(!content.contains('\r') && !content.contains('\0'), "{content}");
            for field in response.head.fields.iter() {
                assert!(!field.value.iter().any(u8::is_ascii_control), "{field:?}");
            }
            assert!(response.head.fields.named("set-cookie").next().is_none());
        }
    }

    #[test]
    fn the_fields_that_an_error_brings() {
        let late = Error::unavailable("busy", Duration::from_millis(1200));
        assert_eq!(response(&late, "fr", None, None).head.fields.text(Name::RetryAfter), Some("2"));
        let soon = Error::unavailable("busy", Duration::ZERO);
        assert_eq!(response(&soon, "fr", None, None).head.fields.text(Name::RetryAfter), Some("1"));
        let method = Error::new(Kind::NoMethod, "x").allow("GET, HEAD".to_owned());
        assert_eq!(response(&method, "fr", None, None).head.fields.text(Name::Allow), Some("GET, HEAD"));
        let hop = response(&Error::new(Kind::ConnectionRefused, ""), "fr", None, Some("local"));
        let status = hop.head.fields.text(Name::ProxyStatus).unwrap();
        assert_eq!(status, "fr; error=connection_refused; next-hop=local");
    }
}
