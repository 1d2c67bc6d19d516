//! From TOML files to a [`plan::Plan`]: all else imports only the plan.
//!
//! The way is `load` (files, includes, variables) → `tree` (values with their places) → `raw` (the tables as declared,
//! which also give the JSON Schema) → `check` (names resolved, ranges and files proven) → `plan`. Every step reports
//! all problems that it finds, each with its place; a plan is made only when there is none.

pub mod check;
pub mod load;
pub mod plan;
pub mod problem;
pub mod raw;
mod leaf;
mod read;
mod tree;
mod vars;

#[cfg(test)]
mod tests;

/// The JSON Schema (draft 2020-12) of an edge's file, or of Central's.
pub fn schema(kind: load::Kind) -> serde_json::Value {
    let mut schema = match kind {
        load::Kind::Edge => <raw::EdgeFile as read::Read>::schema(),
        load::Kind::Central => <raw::CentralFile as read::Read>::schema(),
    };
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = format!("coordinator {kind:?} configuration").to_lowercase().into();
    schema
}

/// Reads the URL of an origin as `origins` takes it. Errors: what is wrong with it, and how to mend it.
pub fn origin_url(text: &str) -> Result<plan::Url, String> {
    let read = <leaf::Origin as read::Leaf>::parse(text).map(|origin| origin.0);
    read.map_err(|wrong| format!("{}; {}", wrong.wrong, wrong.remedy))
}

/// Reads the URL of a place's private door as the feed's edge table carries it; `None` for one that is none.
pub fn door_url(text: &str) -> Option<plan::Url> {
    <leaf::Door as read::Leaf>::parse(text).ok().map(|door| door.0)
}
