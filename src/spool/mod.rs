//! Stage 6, keep it: durable first, then 250. I/O: disk.
//!
//! [`queue::MailQueue`] is what the other rooms see: `flow` accepts messages into it, `deliver` leases them out of it.
//! [`Spool`] implements it with a journal of segment files, which is the truth, and a table in memory, which follows it.

mod admin;
mod batch;
mod clean;
mod codec;
mod committer;
mod handle;
mod hot;
mod index;
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
mod verify;

pub use admin::{Action, Filter, ItemView, RecipientView, Shown, StateCounts, WhyFacts};
pub use handle::{Opening, Spool};
pub use ledger::{Account, Audit};
pub use recover::Damage;
pub use shared::Options;
pub use spill::SpillDirectory;
pub use verify::{Report, verify_stopped};
