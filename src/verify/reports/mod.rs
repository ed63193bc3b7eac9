//! Reports about identity: DMARC aggregate (RFC 9990, RFC 7489 App. C) and TLS (RFC 8460). I/O: DNS, to verify destinations.
//!
//! [`read`] makes a summary of what others send us; [`collect`] counts what we saw, bounded, and makes the message that a domain's
//! owner asked for. mail-auth knows the XML and JSON; its types stay inside these two files.

pub mod collect;
pub mod read;
