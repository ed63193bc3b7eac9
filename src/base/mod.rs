//! Words everyone may use: ids, the machine contract, message content, memory budget.
//!
//! Pure, but for `sys`, the one audited module that may say `unsafe`, and `harden`. Imports nothing of the house.

pub mod content;
pub mod harden;
pub mod id;
pub mod machine;
pub mod secret;
pub mod sys;
