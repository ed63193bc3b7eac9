//! The milter protocol, version 6: packets, negotiation, responses. Pure. libmilter/mfdef.h of Sendmail; there is no RFC.
//!
//! A packet is a length of four octets, big endian, that counts the command octet and its data. Both halves of the protocol use this
//! module: we ask milters of others, and serve as one. Every length is checked before it is believed.

mod response;

use std::fmt;

pub use response::{Edit, Response};

/// Greatest packet that is read: libmilter's largest, MILTER_MDS_1M.
pub const PACKET_BYTES_MAX: usize = 1 << 20;
/// Octets of body in one packet: MILTER_CHUNK_SIZE.
pub const BODY_CHUNK_BYTES: usize = 65_535;
/// The version that we speak, as Postfix does.
pub const VERSION: u32 = 6;
/// The oldest that we answer: what came before can't skip steps.
pub const VERSION_MIN: u32 = 2;

/// Commands, from the mail server to the milter.
pub mod command {
    /// The message was broken off.
    pub const ABORT: u8 = b'A';
    /// A piece of the body.
    pub const BODY: u8 = b'B';
    /// A client is there.
    pub const CONNECT: u8 = b'C';
    /// DATA.
    pub const DATA: u8 = b'T';
    /// The end of the body.
    pub const END_OF_BODY: u8 = b'E';
    /// The end of the header section.
    pub const END_OF_HEADERS: u8 = b'N';
    /// A header field.
    pub const HEADER: u8 = b'L';
    /// HELO or EHLO.
    pub const HELO: u8 = b'H';
    /// Macros of the command that follows.
    pub const MACROS: u8 = b'D';
    /// MAIL.
    pub const MAIL: u8 = b'M';
    /// Negotiation.
    pub const OPTIONS: u8 = b'O';
    /// The end of the conversation.
    pub const QUIT: u8 = b'Q';
    /// The end of this client; another follows on the same connection.
    pub const QUIT_NEXT_CLIENT: u8 = b'K';
    /// RCPT.
    pub const RCPT: u8 = b'R';
    /// A command that the mail server does not know.
    pub const UNKNOWN: u8 = b'U';
}

/// What a milter may change.
pub mod action {
    /// Add and insert header fields.
    pub const ADD_HEADERS: u32 = 0x01;
    /// Replace the body.
    pub const CHANGE_BODY: u32 = 0x02;
    /// Add recipients.
    pub const ADD_RECIPIENTS: u32 = 0x04;
    /// Remove recipients.
    pub const REMOVE_RECIPIENTS: u32 = 0x08;
    /// Change and delete header fields.
    pub const CHANGE_HEADERS: u32 = 0x10;
    /// Keep the message back.
    pub const QUARANTINE: u32 = 0x20;
    /// Change the reverse-path.
    pub const CHANGE_SENDER: u32 = 0x40;
    /// Add recipients with ESMTP parameters.
    pub const ADD_RECIPIENTS_WITH_PARAMETERS: u32 = 0x80;
    /// All of these.
    pub const ALL: u32 = 0xff;
}

/// Steps that a milter does not want, or does not answer.
pub mod step {
    /// No connect.
    pub const NO_CONNECT: u32 = 0x01;
    /// No HELO.
    pub const NO_HELO: u32 = 0x02;
    /// No MAIL.
    pub const NO_MAIL: u32 = 0x04;
    /// No RCPT.
    pub const NO_RCPT: u32 = 0x08;
    /// No body.
    pub const NO_BODY: u32 = 0x10;
    /// No header fields.
    pub const NO_HEADERS: u32 = 0x20;
    /// No end of headers.
    pub const NO_END_OF_HEADERS: u32 = 0x40;
    /// Header fields are not answered.
    pub const SILENT_HEADERS: u32 = 0x80;
    /// No unknown commands.
    pub const NO_UNKNOWN: u32 = 0x100;
    /// No DATA.
    pub const NO_DATA: u32 = 0x200;
    /// The response "skip" is understood.
    pub const SKIP: u32 = 0x400;
    /// Refused recipients are shown too.
    pub const REFUSED_RCPT: u32 = 0x800;
    /// Connect is not answered.
    pub const SILENT_CONNECT: u32 = 0x1000;
    /// HELO is not answered.
    pub const SILENT_HELO: u32 = 0x2000;
    /// MAIL is not answered.
    pub const SILENT_MAIL: u32 = 0x4000;
    /// RCPT is not answered.
    pub const SILENT_RCPT: u32 = 0x8000;
    /// DATA is not answered.
    pub const SILENT_DATA: u32 = 0x1_0000;
    /// Unknown commands are not answered.
    pub const SILENT_UNKNOWN: u32 = 0x2_0000;
    /// The end of headers is not answered.
    pub const SILENT_END_OF_HEADERS: u32 = 0x4_0000;
    /// The body is not answered.
    pub const SILENT_BODY: u32 = 0x8_0000;
    /// Values of header fields keep the blank behind the colon: what was signed arrives as it was.
    pub const HEADER_LEADING_SPACE: u32 = 0x10_0000;
    /// All that we, as a mail server, can do.
    pub const ALL: u32 = 0x1f_ffff & !REFUSED_RCPT;
}

/// Why bytes are no milter conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MilterFault {
    /// A length of zero, or beyond the bound.
    Length(u32),
    /// A packet whose data is not what its command needs.
    Malformed(char),
    /// A packet that has no place where it came.
    Unexpected(char),
    /// A version that we can't speak.
    Version(u32),
    /// More changes than we take.
    TooMuch,
}

impl fmt::Display for MilterFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MilterFault::Length(bytes) => write!(f, "a packet of {bytes} bytes"),
            MilterFault::Malformed(what) => write!(f, "a malformed packet {what:?}"),
            MilterFault::Unexpected(what) => write!(f, "an unexpected packet {what:?}"),
            MilterFault::Version(version) => write!(f, "version {version} of the protocol"),
            MilterFault::TooMuch => f.write_str("more changes than are taken"),
        }
    }
}

impl std::error::Error for MilterFault {}

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Command or response.
    pub command: u8,
    /// What it carries.
    pub data: &'a [u8],
}

/// The packet at the front of `bytes` and its length; nothing while it is not whole.
/// # Errors
/// A length that is none.
pub fn split(bytes: &[u8]) -> Result<Option<(Packet<'_>, usize)>, MilterFault> {
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head);
    if length == 0 || length as usize > PACKET_BYTES_MAX {
        return Err(MilterFault::Length(length));
    }
    let Some(packet) = rest.get(..length as usize) else { return Ok(None) };
    Ok(Some((Packet { command: packet[0], data: &packet[1..] }, 4 + packet.len())))
}

/// Appends a packet whose data is `parts`, one after the other.
pub fn put(out: &mut Vec<u8>, command: u8, parts: &[&[u8]]) {
    let bytes: usize = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    let length = u32::try_from(bytes).expect("parts are bounded by the limits of a message");
    out.extend_from_slice(&length.to_be_bytes());
    out.push(command);
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// Appends the macros of `command`: names and values, in pairs.
pub fn put_macros(out: &mut Vec<u8>, command: u8, macros: &[(&str, &str)]) {
    let mut data = vec![command];
    for (name, value) in macros.iter().filter(|(_, value)| !value.is_empty()) {
        for text in [name, value] {
            data.extend(text.bytes().filter(|byte| *byte != 0));
            data.push(0);
        }
    }
    put(out, command::MACROS, &[&data]);
}

/// The texts of `data`, each ended by a NUL; what stands behind the last one is left out.
pub fn strings(data: &[u8]) -> Vec<&[u8]> {
    let mut texts: Vec<&[u8]> = data.split(|byte| *byte == 0).collect();
    texts.pop();
    texts
}

/// What both sides agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Protocol version.
    pub version: u32,
    /// See [`action`].
    pub actions: u32,
    /// See [`step`].
    pub steps: u32,
}

impl Options {
    /// Appends them as a negotiation packet.
    pub fn put(&self, out: &mut Vec<u8>) {
        let words = [self.version, self.actions, self.steps].map(u32::to_be_bytes);
        put(out, command::OPTIONS, &[words.as_flattened()]);
    }

    /// Reads a negotiation packet; macro lists behind the three words are left unread.
    /// # Errors
    /// If it is too short.
    pub fn parse(data: &[u8]) -> Result<Self, MilterFault> {
        let word = |place: usize| data[place..].first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
        match data.len() {
            12.. => Ok(Options {
                version: word(0).expect("twelve octets"),
                actions: word(4).expect("twelve octets"),
                steps: word(8).expect("twelve octets"),
            }),
            _ => Err(MilterFault::Malformed('O')),
        }
    }

    /// True if any of `steps` is set.
    pub fn has(&self, steps: u32) -> bool {
        self.steps & steps != 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn packets_are_cut_where_they_end() {
        let mut bytes = Vec::new();
        put_macros(&mut bytes, command::MAIL, &[("i", "1"), ("empty", ""), ("{mail_addr}", "a@b")]);
        Options { version: 6, actions: 1, steps: 2 }.put(&mut bytes);
        for end in 0..8 {
            assert_eq!(split(&bytes[..end]), Ok(None));
        }
        let (packet, length) = split(&bytes).unwrap().unwrap();
        assert_eq!((packet.command, strings(&packet.data[1..])), (b'D', vec![&b"i"[..], b"1", b"{mail_addr}", b"a@b"]));
        let (packet, _) = split(&bytes[length..]).unwrap().unwrap();
        assert_eq!(Options::parse(packet.data), Ok(Options { version: 6, actions: 1, steps: 2 }));
        assert_eq!(split(&[0, 0, 0, 0, 1]), Err(MilterFault::Length(0)));
        assert_eq!(split(&[255, 0, 0, 0]), Err(MilterFault::Length(0xff00_0000)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_packets_or_none(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Some((packet, length))) = split(&bytes) {
                prop_assert_eq!(packet.data.len() + 5, length);
                let _ = Options::parse(packet.data);
                let _ = Response::parse(&packet);
            }
        }
    }
}
