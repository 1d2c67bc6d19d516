//! The access line: one JSON object per request.

use super::Summary;
use crate::body::Downstream;
use crate::config::plan::Plan;
use crate::record::Record;

/// Appends the line of a request that has ended, with its newline.
pub fn line(_out: &mut Vec<u8>, _plan: &Plan, _record: &Record, _from: &Downstream, _head: Option<&Summary>) {
    unimplemented!()
}
