//! Words everyone may use: ids, the machine contract, message content, memory budget, and what is told as it was found.
//!
//! Pure, but for `sys`, the one audited module that may say `unsafe`, `harden`, `owner`, and what reads clocks. Imports nothing of the house.

pub mod audit;
pub mod clock;
pub mod content;
pub mod harden;
pub mod id;
pub mod machine;
pub mod owner;
pub mod quiet;
pub mod report;
pub mod secret;
pub mod sys;
pub mod unix;
