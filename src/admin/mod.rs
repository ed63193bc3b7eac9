//! HTTP API for metrics and operators. I/O: network.
//!
//! HTTP/1.1 on a loopback address: `/metrics`, `/healthz`, `/readyz` for machines, JSON under `/v1` for operators and the command
//! line. What the API can do stands in [`backend`]; the conductor implements it. [`guard`] decides who may ask, [`route`] what
//! is asked; both are pure. Nothing changes state by GET, and everything under `/v1` needs the token.

pub mod backend;
pub mod guard;
pub mod model;
pub mod query;
mod respond;
pub mod route;
pub mod server;
pub mod token;
