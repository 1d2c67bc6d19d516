//! The page of the admin door: three files of our own, nothing from elsewhere.

use super::answer::{Answer, typed};
use http::StatusCode;
use http::header::{CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};

/// Only our own files, and none written into the page; nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// One of the page's files.
pub(super) fn part(path: &str) -> Answer {
    let (kind, content) = match path {
        "/page.css" => ("text/css; charset=utf-8", include_str!("page/page.css")),
        "/page.js" => ("text/javascript; charset=utf-8", include_str!("page/page.js")),
        _ => ("text/html; charset=utf-8", include_str!("page/page.html")),
    };
    let mut answer = typed(StatusCode::OK, kind, content);
    let fields: [(HeaderName, &'static str); 3] =
        [(CONTENT_SECURITY_POLICY, POLICY), (X_CONTENT_TYPE_OPTIONS, "nosniff"), (REFERRER_POLICY, "no-referrer")];
    for (name, value) in fields {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}
