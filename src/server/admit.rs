//! The gate between what an engine read and what the service may see.

use crate::error::Error;
use crate::message::{Name, RequestHead, Scheme};

/// Stands in for `message::request::admit` until that lands.
pub(super) fn admit(head: &mut RequestHead, scheme: Scheme) -> Result<(), Error> {
    head.scheme = scheme;
    let mut hosts = head.fields.all(Name::Host);
    let host = hosts.next().map(|host| String::from_utf8_lossy(host).to_ascii_lowercase());
    if hosts.next().is_some() {
        return Err(Error::bad_request("more than one Host"));
    }
    drop(hosts);
    head.fields.remove(Name::Host);
    if head.authority.is_empty() {
        head.authority = host.ok_or_else(|| Error::bad_request("Host is missing"))?;
    }
    Ok(())
}

/// Stands in for `message::request::check_h2_fields` until that lands.
pub(super) fn check_h2_fields(_head: &RequestHead) -> Result<(), Error> {
    Ok(())
}
