//! SPF, DKIM, DMARC, ARC: who sent it. I/O: DNS, through the seam in [`lookup`].

pub mod lookup;
pub mod message;
pub mod outcome;
pub mod resolver;
pub mod spf;
pub mod tags;
