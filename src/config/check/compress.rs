//! Compression: what `[compress]` says, and what a route says instead.

use super::{Found, set};
use crate::config::plan::Compress;
use crate::config::problem::Problem;
use crate::config::raw;
use crate::config::read::{At, Either, Field};
use crate::message::accept::Coding;

/// `[compress]`; `None` where it is not written.
pub(super) fn section(field: &Field<raw::Compress>, found: &mut Found<'_>) -> Option<Compress> {
    field.get().map(|raw| over(Compress::default(), raw, found))
}

/// A route's own word over that of the section: `false`, `true`, or a table of what differs.
pub(super) fn route(
    section: Option<&Compress>,
    field: &Field<Either<bool, raw::Compress>>,
    found: &mut Found<'_>,
) -> Option<Compress> {
    let base = || section.cloned().unwrap_or_default();
    match field.get() {
        None => section.cloned(),
        Some(Either::Short(false)) => None,
        Some(Either::Short(true)) => Some(base()),
        Some(Either::Table(raw)) => Some(over(base(), raw, found)),
    }
}

fn over(mut to: Compress, raw: &raw::Compress, found: &mut Found<'_>) -> Compress {
    set(&mut to.gzip_level, &raw.gzip_level, |level| level.0);
    set(&mut to.br_level, &raw.br_level, |level| level.0);
    set(&mut to.zstd_level, &raw.zstd_level, |level| level.0);
    set(&mut to.min_size, &raw.min_size, |size| size.0);
    set(&mut to.types, &raw.types, |types| types.iter().map(|at| at.value.0.clone()).collect());
    if let Some(list) = raw.types.at().filter(|list| is_empty(list, found)) {
        nothing(list.place, "no media type is listed", found);
    }
    let Some(list) = raw.codings.at() else { return to };
    if is_empty(list, found) {
        nothing(list.place, "no coding is listed", found);
    }
    to.codings.clear();
    for at in &list.value {
        let coding = coding(at.value);
        if to.codings.contains(&coding) {
            let wrong = format!("\"{}\" is listed twice", coding.as_str());
            found.report(Problem::at(at.place, wrong).help("remove one: the order says which is preferred"));
        }
        to.codings.push(coding);
    }
    to
}

/// Whether nothing is written in a list; what is written and wrong is reported already.
fn is_empty<T>(list: &At<Vec<At<T>>>, found: &Found<'_>) -> bool {
    list.value.is_empty() && found.sources.text(list.place).trim_matches(['[', ']', ' ']).is_empty()
}

fn nothing(place: crate::config::problem::Place, wrong: &str, found: &mut Found<'_>) {
    let remedy = "nothing would be compressed: remove [compress], or write `compress = false` in the route";
    found.report(Problem::at(place, wrong).help(remedy));
}

fn coding(raw: raw::Coding) -> Coding {
    match raw {
        raw::Coding::Zstd => Coding::Zstd,
        raw::Coding::Br => Coding::Br,
        raw::Coding::Gzip => Coding::Gzip,
    }
}
