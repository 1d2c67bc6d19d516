//! From an upstream's answer to our response: hop-by-hop and internal fields out, Via in, the route's edits done.

use super::{Site, outgoing};
use crate::body::Response;
use crate::config::plan::RouteSettings;
use crate::message::hop;

/// Makes a response fit for downstream. An origin cannot speak to edges: every `Coordinator` field of it is dropped.
pub(super) fn response(site: &Site, settings: &RouteSettings, response: &mut Response) {
    let fields = &mut response.head.fields;
    hop::strip_connection(fields);
    hop::strip_internal(fields);
    site.mark.add_via(fields, response.head.version);
    if !settings.response_headers.is_empty() {
        outgoing::edit(fields, &settings.response_headers);
    }
}
