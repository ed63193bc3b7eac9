//! Stage 3, who may: access, relay, limits. Pure; look-ups come in as facts.
//!
//! [`access`] decides at connect and MAIL, [`relay`] at RCPT, [`rates`] counts. Each answer is a [`Decision`]: what to say and
//! why, as values; the reason reaches reply, log, metric and trace. Never an open relay: a foreign domain is reached only by
//! a login, or from `relay.networks` on a relay listener.

pub mod access;
pub mod decision;
pub mod domains;
pub mod greylist;
pub mod meters;
mod rate_keys;
pub mod rate_snapshot;
#[cfg(test)]
mod rate_tests;
pub mod rates;
pub mod relay;
mod window;

pub use decision::{Decision, Reason};
pub use domains::Domains;
