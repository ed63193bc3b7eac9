//! Stage 5, what is it: rules, classifier, attachments. I/O: rule files and the model at start; scanners.
//!
//! [`Engine::judge`] is the one entry: content and facts in, a [`Verdict`] out. Behind it a message is read once
//! ([`message`]), within a [`budget`], and then seen by each judge; every one returns [`verdict::Symbol`]s, and nothing else decides.

pub mod attachment;
pub mod budget;
pub mod classifier;
pub mod duplicates;
pub mod engine;
pub mod message;
pub mod meters;
pub mod rules;
pub mod scanners;
pub mod verdict;

pub use engine::{Engine, Facts};
pub use verdict::{Action, Judge, Points, Symbol, Thresholds, Verdict};
