//! TLS where we call: what is trusted, which certificate we show, swapped when files change.
