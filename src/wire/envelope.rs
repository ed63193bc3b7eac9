//! The envelope: who sends, who shall get it, how, and from where it came. Pure. RFC 5321 §2.3.1, RFC 3461.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::address::Mailbox;

/// Where a message came from; written to `Received` and kept with the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The client's address, after PROXY or XCLIENT.
    pub ip: IpAddr,
    /// The client's port.
    pub port: u16,
    /// What it said in HELO, EHLO or LHLO; empty for mail of our own.
    pub helo: String,
    /// Its verified host name, if known (XCLIENT NAME, or reverse DNS that resolves forward again).
    pub host: Option<String>,
    /// The login it authenticated as.
    pub login: Option<Arc<str>>,
    /// TLS version and cipher, if the session was encrypted.
    pub tls: Option<String>,
    /// `ESMTP`, `ESMTPSA`, `LMTP` … (RFC 3848, RFC 6531).
    pub protocol: &'static str,
    /// Name of the listener (`mx`, `submission` …), as in the configuration.
    pub listener: Arc<str>,
}

impl Origin {
    /// Of mail that we wrote ourselves; `listener` says which part of us.
    pub fn local(listener: &str) -> Self {
        Origin {
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            helo: String::new(),
            host: None,
            login: None,
            tls: None,
            protocol: "local",
            listener: listener.into(),
        }
    }
}

/// The body type that the client declared (RFC 6152, RFC 3030).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyType {
    /// `7BIT`, or nothing declared.
    #[default]
    SevenBit,
    /// `8BITMIME`.
    EightBitMime,
    /// `BINARYMIME`; came by BDAT.
    BinaryMime,
}

/// `RET` (RFC 3461 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// The whole message.
    Full,
    /// Only its header section.
    Headers,
}

/// `NOTIFY` (RFC 3461 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify {
    /// Report delivery.
    pub success: bool,
    /// Report failure.
    pub failure: bool,
    /// Report a delay.
    pub delay: bool,
}

impl Notify {
    /// `NOTIFY=NEVER`.
    pub const NEVER: Notify = Notify { success: false, failure: false, delay: false };
    /// What holds if the client said nothing.
    pub const DEFAULT: Notify = Notify { success: false, failure: true, delay: true };
}

/// One forward-path with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The mailbox.
    pub mailbox: Mailbox,
    /// `NOTIFY`, if given.
    pub notify: Option<Notify>,
    /// `ORCPT` as `addr-type;text`, xtext decoded, free of control characters.
    pub orcpt: Option<String>,
}

impl Recipient {
    /// A recipient without parameters.
    pub fn plain(mailbox: Mailbox) -> Self {
        Recipient { mailbox, notify: None, orcpt: None }
    }
}

/// Everything of a transaction but the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Where it came from.
    pub origin: Origin,
    /// `MAIL FROM`; nothing for the null reverse-path `<>`.
    pub reverse_path: Option<Mailbox>,
    /// The recipients, at least one once accepted.
    pub recipients: Vec<Recipient>,
    /// `BODY`.
    pub body: BodyType,
    /// `SMTPUTF8` (RFC 6531).
    pub smtputf8: bool,
    /// `REQUIRETLS` (RFC 8689).
    pub require_tls: bool,
    /// `RET`.
    pub ret: Option<Return>,
    /// `ENVID`, xtext decoded, free of control characters.
    pub envid: Option<String>,
}

impl Envelope {
    /// An envelope without parameters: seven-bit content, nothing asked for.
    pub fn plain(origin: Origin, reverse_path: Option<Mailbox>, recipients: Vec<Recipient>) -> Self {
        Envelope {
            origin,
            reverse_path,
            recipients,
            body: BodyType::SevenBit,
            smtputf8: false,
            require_tls: false,
            ret: None,
            envid: None,
        }
    }
}
