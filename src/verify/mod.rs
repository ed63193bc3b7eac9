//! SPF, DKIM, DMARC, ARC: who sent it. I/O: DNS, through the seam in [`lookup`].

pub mod author;
pub mod dkim;
pub mod dmarc;
pub mod lookup;
pub mod message;
pub mod offload;
pub mod outcome;
pub mod resolver;
pub mod spf;
pub mod tags;
