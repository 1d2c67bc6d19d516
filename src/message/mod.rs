//! HTTP semantics as pure functions and types, one concern per file (RFC 9110). Knows no sockets and no config.

pub mod authority;
pub mod fields;
pub mod head;
pub mod hop;
pub mod method;
pub mod path;
pub mod request;

pub use fields::{Field, Fields, Name};
pub use head::{RequestHead, ResponseHead, Scheme, Version};
pub use method::Method;
