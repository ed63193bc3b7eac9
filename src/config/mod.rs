//! Text -> checked settings, once. I/O: reads the configuration files.
//!
//! [`settings`] are what the rest of the house sees: complete, checked, with every default filled in. [`limits`] holds
//! every bound with its unit and reason.

pub mod limits;
pub mod settings;

pub use settings::Config;
