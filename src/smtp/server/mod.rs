//! One SMTP or LMTP server conversation: bytes and answers in, replies and questions out. Pure.
//!
//! [`session`] is the machine and reads lines; `dispatch` sends each command to the state that may take it; the
//! states live where their work is done (`transaction`, `data`, `chunk`, `auth`). `context` holds what outlives
//! a state, writes every reply and keeps every count.

pub mod ask;
pub mod counters;
pub mod meters;
pub mod session;
pub mod settings;

mod answer;
mod auth;
mod chunk;
mod context;
mod data;
mod dispatch;
mod hello;
mod replies;
mod state;
mod timing;
mod transaction;
mod xclient;

pub use session::Session;
pub use settings::SessionSettings;
