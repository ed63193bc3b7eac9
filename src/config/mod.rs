//! Text -> checked settings, once. I/O: reads the configuration files.
//!
//! [`settings`] are what the rest of the house sees: complete, checked, with every default filled in. [`limits`] holds
//! every bound with its unit and reason. [`Config::load`] is the one way from a file to them; `weir check`, `weir serve` and a
//! reload all take it. It reports every fault of all files with file, line, column and what would be right.

mod build;
mod changes;
mod dkim;
mod forwarding;
pub mod limits;
mod listener;
mod load;
mod next_hop;
mod node;
mod problem;
mod reports;
mod routing;
pub mod scanners;
pub mod scores;
mod section;
pub mod settings;
mod summary;
pub mod units;

pub use problem::{Problem, Problems, Spot};
pub use settings::Config;
