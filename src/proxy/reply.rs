//! Routes that answer by themselves: redirects, fixed answers, a maintenance page.

use super::course::Course;
use crate::body::Response;
use crate::error::{Error, Kind, Result};
use crate::message::Name;
use crate::record::Record;

/// The answer of a `reply` route.
pub fn response(course: &Course<'_>, record: &mut Record) -> Result<Response> {
    let reply = course.settings.reply.as_ref();
    let reply = reply.ok_or_else(|| Error::new(Kind::ProxyConfigurationError, "the reply route has no answer"))?;
    record.decision = "reply";
    record.reason = "route";
    let mut response = Response::new(reply.status);
    if !reply.body.is_empty() {
        response = Response::with(reply.status, &reply.content_type, reply.body.clone());
    }
    if let Some(location) = &course.location {
        response.head.fields.add(Name::Location, location);
    }
    Ok(response)
}
