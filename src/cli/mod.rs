//! The command line: one file per subcommand. I/O: everything, by calling the rooms.

pub mod demo;
pub mod user;
