//! One SMTP or LMTP server conversation: bytes and answers in, replies and questions out. Pure.

pub mod ask;
