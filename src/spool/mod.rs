//! Stage 6, keep it: durable first, then 250. I/O: disk.
//!
//! [`queue::MailQueue`] is what the other rooms see: `flow` accepts messages into it, `deliver` leases them out of it.
//! [`Spool`] implements it with a journal of segment files, which is the truth, and a table in memory, which follows it.

mod batch;
mod codec;
mod committer;
mod handle;
mod hot;
mod journal;
mod keeper;
mod ledger;
mod message;
pub mod meters;
mod names;
mod payload;
pub mod queue;
mod record;
mod recover;
mod schedule;
mod segments;
mod shared;
mod slab;
mod spill;
mod state;
pub mod storage;
mod table;

pub use handle::{Opening, Spool};
pub use ledger::{Account, Audit};
pub use recover::Damage;
pub use shared::Options;
pub use spill::SpillDirectory;
