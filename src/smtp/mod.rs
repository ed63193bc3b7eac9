//! Stage 2, converse: SMTP server and client, SASL, as state machines. Pure.
//!
//! RFC 5321 and its extensions. Not here: sockets, DNS, policy; a machine asks, `flow` answers.

pub mod client;
pub mod server;
