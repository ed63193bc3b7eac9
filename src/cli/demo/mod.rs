//! `weir demo`. I/O.
pub mod dns;
pub mod samples;
