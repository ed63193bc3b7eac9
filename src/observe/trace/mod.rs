//! What was decided of each message, and on what grounds: kept for a while, bounded, for whoever asks why. I/O: files in `data_dir/trace`.
//!
//! [`record`] is what is kept, [`allowance`] how many refusals before DATA of it, [`store`] writes it behind the reactors' backs and drops (and counts) what it can't keep up with,
//! [`read`] finds it again. Records hold envelopes, results and the few bytes that rules matched; whole messages only where
//! `[trace] content` says so. Files are readable by the gateway's own user only.

pub mod allowance;
pub mod read;
pub mod record;
pub mod store;

pub use record::{Asked, Check, Client, Decided, Entry, Event, Parcel, Reason, Record};
pub use store::Trace;

/// The folder below `data_dir`.
pub const FOLDER: &str = "trace";
/// The folder below that for refusals before DATA: they have a share of their own, and can't push out what became of messages.
pub const DOOR_FOLDER: &str = "door";
