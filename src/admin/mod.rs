//! HTTP API for metrics and operators. I/O: network.
