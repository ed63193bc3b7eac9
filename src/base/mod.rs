//! Words everyone may use: ids, the machine contract, message content, memory budget, and what is told as it was found.
//!
//! Pure, but for `sys`, the one audited module that may say `unsafe`, and `harden`. Imports nothing of the house.

pub mod audit;
pub mod content;
pub mod harden;
pub mod id;
pub mod machine;
pub mod report;
pub mod secret;
pub mod sys;
pub mod unix;
