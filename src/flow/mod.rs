//! The conductor: answers the questions of a session by calling the stages. I/O: through the stages.
//!
//! The only room that names them all. What waits gathers facts; what decides ([`judge`], [`stamp`], `policy`) is pure.

pub mod judge;
pub mod passwords;
pub mod stamp;
