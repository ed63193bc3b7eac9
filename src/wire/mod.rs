//! Bytes <-> values: addresses, envelopes, replies, commands, header fields. Pure.
//!
//! Imports only `base`. What can't be said in RFC 5321 can't be built from these types.

pub mod address;
pub mod command;
pub mod data;
pub mod date;
pub mod envelope;
pub mod header;
pub mod parameters;
pub mod path;
pub mod reply;
pub mod sasl;
pub mod xtext;
