//! The conductor: answers the questions of a session by calling the stages.

pub mod stamp;
