//! The integration tests: one binary, one module per fear.

mod differential;
