//! Stage 7, send it: schedule, route, shape, bounce (pure); workers and transports. I/O: tokio, in `worker` and `transport`.
//!
//! A worker holds one connection and takes leases of its destination until none is left; what a remote says becomes an
//! [`transport::Answer`], and [`settle`] turns answers into outcomes and reports in one place.

pub mod book;
pub mod bounce;
pub mod call_ahead;
pub mod dane;
pub mod engine;
pub mod held;
pub mod meters;
pub mod mta_sts;
pub mod pool;
pub mod route;
pub mod schedule;
pub mod settle;
pub mod shape;
pub mod tls_result;
pub mod transport;
mod worker;

pub use engine::{Delivery, Parts};
