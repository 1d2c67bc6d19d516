//! HTTP semantics as pure functions and types, one concern per file (RFC 9110). Knows no sockets and no config.

pub mod accept;
pub mod authority;
pub mod dictionary;
pub mod fields;
pub mod forwarded;
pub mod head;
pub mod hop;
pub mod list;
pub mod media;
pub mod method;
pub mod name;
pub mod negotiate;
pub mod path;
pub mod request;
pub mod status;
pub mod via;

pub use fields::{Field, Fields, Ready};
pub use head::{RequestHead, ResponseHead, Scheme, Version};
pub use method::Method;
pub use name::{Name, Names};
