//! Stage 6, keep it: durable first, then 250. I/O: disk.
//!
//! [`queue::MailQueue`] is what the other rooms see: `flow` accepts messages into it, `deliver` leases them out of it.

pub mod queue;
