//! From TOML files to a [`plan::Plan`]: all else imports only the plan.

pub mod plan;
