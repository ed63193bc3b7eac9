//! The conductor: answers the questions of a session by calling the stages. I/O: through the stages.
//!
//! The only room that names them all. What waits gathers facts; what decides ([`judge`], [`stamp`], `policy`) is pure.

pub mod again;
pub mod backend;
pub mod checks;
pub mod clock;
mod confine;
pub mod counsel;
pub mod docket;
mod door;
pub mod forward;
pub mod gateway;
pub mod house;
pub mod judge;
pub mod keep;
pub mod ledger;
mod lesson;
pub mod lists;
pub mod local;
mod logins;
pub mod message;
pub mod meters;
mod operate;
pub mod parcels;
pub mod passwords;
mod pool;
pub mod record;
pub mod reports;
pub mod run_file;
pub mod scanning;
pub mod service;
mod shared;
pub mod snapshot;
pub mod stamp;
mod symbols;
mod teach;
pub mod underway;
mod view;
pub mod why;
mod workshop;
