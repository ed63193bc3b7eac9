//! POP3 as a sans-IO machine (RFC 1939, 2449, 2595, 3206, 5034). Pure.
//!
//! [`session`] is the machine, [`ask`] what it asks of the world, [`command`] the grammar, [`wire`] the form of a message
//! on the wire.

pub mod ask;
pub mod command;
pub mod session;
pub mod wire;

mod authorization;
mod transaction;

#[cfg(test)]
mod tests;
