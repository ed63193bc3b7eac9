//! Weir: a high-throughput SMTP relay and spam-filtering gateway.
//!
//! The crate is a house with one room per stage, declared here in the order in which a message
//! meets them. Data goes one way; a stage never imports another stage. [`flow`] is the only room that
//! names them all: it gathers facts from the stages, decides in pure functions, and acts.
//!
//! ```text
//! peer ──TCP/TLS──> front ──bytes──> smtp ──questions──> flow ──┬─> policy    may this client, sender, recipient?
//!                     ^                ^                  │     ├─> verify    SPF, DKIM, DMARC, ARC: who is it?
//!                     └──replies───────┴────decisions─────┤     └─> filter    rules, classifier: what is it?
//!                                                         ├─> spool    durable first, then 250
//!                                                         │     │ leases
//!                                                         │     └─> deliver ──> SMTP / LMTP / Maildir ──> store ──> POP3
//! ```
//!
//! Protocol code is sans-IO (see [`base::machine::Machine`]): bytes in, events out, no sockets, and no clocks but
//! those passed in. 250 means durable: nothing is acknowledged before [`spool`] has it on disk.
#![allow(rustdoc::private_intra_doc_links)] // The documents are read in the source as well.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod base;
pub mod wire;

pub mod config;

pub mod front;

pub mod smtp;

pub mod policy;

pub mod verify;

pub mod filter;

pub mod services;

pub mod spool;

pub mod deliver;

pub mod store;

pub mod dns;

pub mod observe;

pub mod flow;

pub mod admin;

pub mod cli;
