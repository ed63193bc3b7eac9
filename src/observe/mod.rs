//! Metrics, message log. I/O: standard error, and /proc when metrics are read.
//!
//! [`log`] starts the event log, [`outcome`] writes the one line that each message gets, [`metrics`] is the process's registry,
//! [`meters`] are those of the gateway as a whole, [`trace`] remembers decisions; each stage has meters of its own. No secrets, no content, and no addresses in labels.

mod lines;
pub mod log;
pub mod meters;
pub mod metrics;
pub mod outcome;
mod text;
pub mod trace;
