//! Every bound of the front end, with unit and reason. Pure.
//!
//! `[limits]` sets them for all listeners; a `[[listener]]` may set any of them again for itself.

use std::time::Duration;

/// Bounds of SMTP sessions. Field names are the configuration's keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Largest message in bytes (SIZE). 50 MiB: Exim's default, above what Exchange sends (36 MiB).
    pub size: u64,
    /// Recipients of one transaction; then `452 4.5.3`. RFC 5321 §4.5.3.1.8 asks for at least 100.
    pub recipients: u32,
    /// Messages of one connection; then `421 4.7.0`.
    pub messages_per_connection: u32,
    /// Connections in total; then `421 4.3.2`.
    pub connections: u32,
    /// Connections of one client address; then `421 4.7.0`. Postfix: 50.
    pub connections_per_ip: u32,
    /// Connections of one network (IPv4 /24, IPv6 /64).
    pub connections_per_net: u32,
    /// Places that only trusted networks (relay.networks) may use when the total is nearly reached.
    pub connections_reserved: u32,
    /// TLS handshakes of one client address in a minute; then `421 4.7.0` to its next connection. A handshake with RSA costs
    /// half a millisecond of CPU; the busiest senders need a few a second.
    pub handshakes_per_minute: u32,
    /// Syntax and sequence errors of a session before it ends with `421 4.7.0`. Postfix's hard limit: 20.
    pub errors: u32,
    /// Refused recipients of a session before it ends. Stalwart 5, Postfix 20.
    pub unknown_recipients: u32,
    /// Failed AUTH attempts of a session before it ends. Stalwart: 3.
    pub auth_failures: u32,
    /// NOOP, RSET, VRFY, EHLO … of a session without a message between, before it ends. Postfix: 100.
    pub junk_commands: u32,
    /// Command line with CR LF, in bytes (RFC 5321 §4.5.3.1.4 says 512; parameters add; AUTH is 12,288 by RFC 4954 §4).
    pub command_bytes: u32,
    /// Header section of a message in bytes. Exchange: 256 KiB.
    pub header_bytes: u32,
    /// `Received` fields before a message counts as looping (RFC 5321 §6.3: at least 100).
    pub hops: u32,
    /// Wait for the next command (RFC 5321 §4.5.3.2.7).
    pub command_timeout: Duration,
    /// Wait for the next piece of content (RFC 5321 §4.5.3.2.5).
    pub data_timeout: Duration,
    /// TLS handshake.
    pub handshake_timeout: Duration,
    /// A whole session, whatever it does.
    pub session_timeout: Duration,
    /// Slowest average rate of content in bytes a second, after `data_grace`. Postfix: 500.
    pub data_rate_min: u32,
    /// Content may be slower than `data_rate_min` for this long.
    pub data_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            size: 50 * 1024 * 1024,
            recipients: 1000,
            messages_per_connection: 10_000,
            connections: 20_000,
            connections_per_ip: 50,
            connections_per_net: 500,
            connections_reserved: 100,
            handshakes_per_minute: 600,
            errors: 20,
            unknown_recipients: 20,
            auth_failures: 3,
            junk_commands: 100,
            command_bytes: 2048,
            header_bytes: 256 * 1024,
            hops: 100,
            command_timeout: Duration::from_secs(300),
            data_timeout: Duration::from_secs(180),
            handshake_timeout: Duration::from_secs(10),
            session_timeout: Duration::from_secs(3600),
            data_rate_min: 500,
            data_grace: Duration::from_secs(60),
        }
    }
}
