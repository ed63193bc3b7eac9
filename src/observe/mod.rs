//! Metrics, message log. I/O: standard error.
