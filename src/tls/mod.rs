//! TLS: certificates, keys and who they prove. Knows no HTTP.

pub mod client;
