//! Stage 6, keep it: durable first, then 250. I/O: disk.
//!
//! [`queue::MailQueue`] is what the other rooms see: `flow` accepts messages into it, `deliver` leases them out of it.
//! [`Spool`] implements it with a journal of segment files, which is the truth, and a table in memory, which follows it.
//!
//! # Files
//!
//! `GGGGGGGGGG-SSSSSSSSSSSSSSSS.seg` is a segment: generation (decimal, counts up, never used again) and seal (hexadecimal, random for
//! each use of a file). `free-N` waits, reserved, zero-filled or used before, to become one. `damaged-GENERATION-OFFSET` is a copy of
//! bytes that could not be read. `index/` is sled's, `index.checkpoint` says whether and up to where it is to be believed. `lock` is locked.
//!
//! # A segment, byte by byte
//!
//! Records stand one behind the other from byte 0, each at a multiple of 8. Numbers in the header are little-endian:
//!
//! ```text
//!  0  4  "WJ01"
//!  4  4  CRC32C of bytes 8..48
//!  8  8  the segment's seal
//! 16  4  offset of the first record of the batch (one batch: one write, one sync)
//! 20  1  kind
//! 21  1  flags; 1: this record and the next stand or fall together
//! 22  2  zero
//! 24  8  content bytes
//! 32  4  meta bytes
//! 36  4  CRC32C of the meta
//! 40  4  CRC32C of the content
//! 44  4  zero
//! 48     meta, content, zeros up to a multiple of 8
//! ```
//!
//! In a meta, `n` is a LEB128 number, `u64` eight bytes little-endian, `t` a text (`n` bytes of UTF-8), `t?` one byte 0 or 1 and then
//! `t`, `[…]` a number of entries and the entries. Times are milliseconds since 1970.
//!
//! ```text
//! 1 segment    n generation, u64 highest id, [n segment, n believed bytes] poisoned, [n segment, n offset, n bytes] known
//!              damage, books (7 zigzag n before, [n hour, 7 zigzag n]). First record of each segment.
//! 2 accepted   u64 id, n accepted, byte disposition (0 deliver, 1 hold, 2 quarantine), t reason, t sender, t sender's domain,
//!              byte null sender, [t] names, [n destination, n domain] recipients as indexes into names; envelope (see
//!              `message.rs`, in the order of its fields), t prefix, t verdict; content: the message as received
//! 3 attempt    u64 id, n time, n body's segment, byte 1 if the message is over, [n recipient, n attempts, byte fate, n next
//!              if deferred, t note]; fates: 0 deferred, 1 deferred and notified, 2 held, 3 delivered, 4 bounced,
//!              5 expired, 6 discarded
//! 4 state      u64 id, [t destination, n due, t last reply, t reason, [n recipient, n attempts, byte flags (1 notified,
//!              2 held, 4 quarantined), t domain or nothing if it is the destination]]; replaces all earlier state
//! 5 moved      as accepted; the body stands here from now on
//! 6 admin      n time, n recipients dropped, byte act (0 hold: t reason; 1 release: n due; 2 retry: n due; 3 drop),
//!              [t destination, [n id, as difference to the one before]]
//! 7 dead       [n id, as difference], [n segment that their bodies may stand in]
//! 8 discarded  u64 id, n time, n recipients, t reason
//! ```

mod admin;
mod ages;
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

pub use admin::{Action, Enveloped, Filter, ItemView, RecipientView, Shown, StateCounts, WhyFacts};
pub use handle::{Opening, Spool};
pub use ledger::Account;
pub use recover::Damage;
pub use shared::Options;
pub use spill::SpillDirectory;
pub use state::fuzz_record;
pub use verify::{Report, audit_stopped, verify_stopped};
