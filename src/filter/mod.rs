//! Stage 5, what is it: rules, classifier, attachments. I/O: scanners.

pub mod budget;
pub mod classifier;
pub mod message;
