//! Bytes <-> values: addresses, envelopes, replies, commands, header fields. Pure.
//!
//! Imports only `base`. What can't be said in RFC 5321 can't be built from these types. The protocols of scanners
//! (milter, spamd, clamd, Rspamd's JSON) are here because we speak both halves of them.

pub mod address;
pub mod checkv2;
pub mod clamd;
pub mod command;
pub mod data;
pub mod date;
pub mod downgrade;
pub mod envelope;
pub mod header;
pub mod milter;
pub mod parameters;
pub mod path;
pub mod reply;
pub mod sasl;
pub mod spamd;
pub mod srs;
pub mod xtext;
