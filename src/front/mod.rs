//! Stage 1, accept: mio reactors, listeners, TLS, timers, PROXY protocol. I/O: sockets.
//!
//! Drives any [`crate::base::machine::Machine`] and has never heard of SMTP.

pub mod service;
