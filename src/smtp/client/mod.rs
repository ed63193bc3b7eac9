//! SMTP and LMTP as client: greeting to transaction, replies in, commands out. Pure.
//!
//! RFC 5321, RFC 2033 (LMTP), RFC 2920 (PIPELINING), RFC 3030 (CHUNKING). The driver reads bytes into
//! [`reply::ReplyReader`], gives each whole reply to the [`handshake::Handshake`] and then to one
//! [`transaction::Transaction`] after the other, as its [`plan::Plan`] says, and writes what they append to its buffer. What a server
//! says is hostile until parsed.

pub mod capabilities;
pub mod content;
pub mod handshake;
pub mod plan;
pub mod reply;
pub mod transaction;

/// Which of the two protocols is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// LHLO, and one reply a recipient after the content.
    Lmtp,
    /// EHLO or HELO, one reply after the content.
    Smtp,
}
