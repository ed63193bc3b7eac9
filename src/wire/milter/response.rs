//! What a milter answers, read from and written to packets. Pure. libmilter/mfdef.h, SMFIR_*.

use super::{MilterFault, Options, Packet, put, strings};
use crate::wire::reply::{Enhanced, Reply};

/// A change to the message or its envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// A field at the end of the header section.
    AddHeader {
        /// Its name.
        name: String,
        /// Its value as the milter wrote it.
        value: Vec<u8>,
    },
    /// A recipient more.
    AddRecipient(String),
    /// Another value, or none at all, for a field.
    ChangeHeader {
        /// Which of the fields of this name, from 1.
        index: u32,
        /// The name.
        name: String,
        /// The new value; empty: the field goes.
        value: Vec<u8>,
    },
    /// Another reverse-path.
    ChangeSender(String),
    /// A field at a place.
    InsertHeader {
        /// Before which field, from 0.
        index: u32,
        /// Its name.
        name: String,
        /// Its value.
        value: Vec<u8>,
    },
    /// A recipient less.
    RemoveRecipient(String),
    /// A piece of the new body.
    ReplaceBody(Vec<u8>),
}

/// What a milter answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// Take the message, ask nothing more.
    Accept,
    /// Close the connection to the client.
    ConnectionFailure,
    /// Go on.
    Continue,
    /// Take the message and throw it away.
    Discard,
    /// Change this.
    Edit(Edit),
    /// The answer to a negotiation.
    Options(Options),
    /// Still at work.
    Progress,
    /// Keep the message back, with the reason.
    Quarantine(String),
    /// `550`.
    Reject,
    /// Refuse with this reply, 4xx or 5xx.
    Reply(Reply),
    /// `421`: close the connection to the client.
    Shutdown,
    /// Send no more pieces of this kind.
    Skip,
    /// `451`.
    Tempfail,
}

impl Response {
    /// Reads a packet of a milter.
    /// # Errors
    /// A packet that is none, or a reply that is no refusal.
    pub fn parse(packet: &Packet<'_>) -> Result<Self, MilterFault> {
        let malformed = || MilterFault::Malformed(packet.command.into());
        let texts = || strings(packet.data);
        let text = |place: usize| texts().get(place).map(|text| String::from_utf8_lossy(text).into_owned());
        let first = || text(0).ok_or_else(malformed);
        Ok(match packet.command {
            b'+' | b'2' => Response::Edit(Edit::AddRecipient(first()?)),
            b'-' => Response::Edit(Edit::RemoveRecipient(first()?)),
            b'4' => Response::Shutdown,
            b'O' => Response::Options(Options::parse(packet.data)?),
            b'a' => Response::Accept,
            b'b' => Response::Edit(Edit::ReplaceBody(packet.data.to_vec())),
            b'c' => Response::Continue,
            b'd' => Response::Discard,
            b'e' => Response::Edit(Edit::ChangeSender(first()?)),
            b'f' => Response::ConnectionFailure,
            b'h' => {
                let (name, value) = field(packet.data).ok_or_else(malformed)?;
                Response::Edit(Edit::AddHeader { name, value })
            }
            b'i' | b'm' => {
                let (index, rest) = packet.data.split_first_chunk::<4>().ok_or_else(malformed)?;
                let index = u32::from_be_bytes(*index);
                let (name, value) = field(rest).ok_or_else(malformed)?;
                Response::Edit(if packet.command == b'i' {
                    Edit::InsertHeader { index, name, value }
                } else {
                    Edit::ChangeHeader { index, name, value }
                })
            }
            b'p' => Response::Progress,
            b'q' => Response::Quarantine(first()?),
            b'r' => Response::Reject,
            b's' => Response::Skip,
            b't' => Response::Tempfail,
            b'y' => Response::Reply(reply(&first()?).ok_or_else(malformed)?),
            other => return Err(MilterFault::Unexpected(other.into())),
        })
    }

    /// Appends it as a packet; for the responses that we give as a milter ourselves.
    pub fn put(&self, out: &mut Vec<u8>) {
        match self {
            Response::Accept => put(out, b'a', &[]),
            Response::ConnectionFailure => put(out, b'f', &[]),
            Response::Continue => put(out, b'c', &[]),
            Response::Discard => put(out, b'd', &[]),
            Response::Edit(edit) => put_edit(out, edit),
            Response::Options(options) => options.put(out),
            Response::Progress => put(out, b'p', &[]),
            Response::Quarantine(reason) => put(out, b'q', &[without_nul(reason).as_bytes(), b"\0"]),
            Response::Reject => put(out, b'r', &[]),
            Response::Reply(reply) => put(out, b'y', &[reply_text(reply).as_bytes(), b"\0"]),
            Response::Shutdown => put(out, b'4', &[]),
            Response::Skip => put(out, b's', &[]),
            Response::Tempfail => put(out, b't', &[]),
        }
    }
}

fn put_edit(out: &mut Vec<u8>, edit: &Edit) {
    match edit {
        Edit::AddHeader { name, value } => put(out, b'h', &[name.as_bytes(), b"\0", value, b"\0"]),
        Edit::AddRecipient(path) => put(out, b'+', &[path.as_bytes(), b"\0"]),
        Edit::ChangeHeader { index, name, value } => {
            put(out, b'm', &[&index.to_be_bytes(), name.as_bytes(), b"\0", value, b"\0"]);
        }
        Edit::ChangeSender(path) => put(out, b'e', &[path.as_bytes(), b"\0"]),
        Edit::InsertHeader { index, name, value } => {
            put(out, b'i', &[&index.to_be_bytes(), name.as_bytes(), b"\0", value, b"\0"]);
        }
        Edit::RemoveRecipient(path) => put(out, b'-', &[path.as_bytes(), b"\0"]),
        Edit::ReplaceBody(piece) => put(out, b'b', &[piece]),
    }
}

fn without_nul(text: &str) -> String {
    text.replace('\0', "?")
}

/// A name that may stand before a colon (RFC 5322 §3.6.8), and its value.
fn field(data: &[u8]) -> Option<(String, Vec<u8>)> {
    let texts = strings(data);
    let (name, value) = (texts.first()?, texts.get(1)?);
    let fits = |byte: &u8| byte.is_ascii_graphic() && *byte != b':';
    let name =
        std::str::from_utf8(name).ok().filter(|name| !name.is_empty() && name.bytes().all(|byte| fits(&byte)))?;
    Some((name.to_owned(), value.to_vec()))
}

/// `550 5.7.1 text`, in several lines perhaps; nothing unless it is a refusal whose enhanced code agrees.
fn reply(text: &str) -> Option<Reply> {
    let mut words = Vec::new();
    let mut code = None;
    let mut enhanced = None;
    for line in text.split("\r\n").flat_map(|part| part.split('\n')).filter(|line| !line.is_empty()) {
        let number: u16 = line.get(..3)?.parse().ok()?;
        if !(400..600).contains(&number) || code.is_some_and(|first| first != number) {
            return None;
        }
        code = Some(number);
        let rest = line.get(3..)?.trim_start_matches(['-', ' ']);
        let (own, rest) = split_enhanced(rest, number / 100);
        enhanced = enhanced.or(own);
        // smfi_setreply(3) wants a percent sign doubled; it stands for one.
        words.push(rest.replace("%%", "%"));
    }
    let code = code?;
    let enhanced = enhanced.unwrap_or(Enhanced((code / 100) as u8, 7, 1));
    Some(Reply::new(code, enhanced, words.join("\n")))
}

fn split_enhanced(text: &str, class: u16) -> (Option<Enhanced>, &str) {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let mut numbers = word.split('.').map(|part| part.parse::<u16>().ok());
    match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
        (Some(Some(own)), Some(Some(subject)), Some(Some(detail)), None) if own == class => {
            (Some(Enhanced(own as u8, subject, detail)), rest)
        }
        _ => (None, text),
    }
}

/// As smfi_setreply takes it: in one line, percent signs doubled.
fn reply_text(reply: &Reply) -> String {
    let text: String = reply.text.replace('%', "%%").chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match reply.enhanced {
        Some(enhanced) => format!("{} {enhanced} {text}", reply.code),
        None => format!("{} {text}", reply.code),
    }
}

#[cfg(test)]
mod tests {
    use super::super::split;
    use super::*;

    fn again(response: &Response) -> Result<Response, MilterFault> {
        let mut bytes = Vec::new();
        response.put(&mut bytes);
        let (packet, length) = split(&bytes).unwrap().unwrap();
        assert_eq!(length, bytes.len());
        Response::parse(&packet)
    }

    #[test]
    fn responses_read_back_as_they_are_written() {
        let name = || "X-A".to_owned();
        for response in [
            Response::Accept,
            Response::Quarantine("why".into()),
            Response::Reply(Reply::new(451, Enhanced(4, 7, 1), "100% busy")),
            Response::Edit(Edit::AddHeader { name: name(), value: b" v\n\tw".to_vec() }),
            Response::Edit(Edit::ChangeHeader { index: 2, name: name(), value: Vec::new() }),
            Response::Edit(Edit::InsertHeader { index: 0, name: name(), value: b"x".to_vec() }),
            Response::Edit(Edit::RemoveRecipient("<a@b.c>".into())),
            Response::Edit(Edit::ReplaceBody(b"a\0b".to_vec())),
        ] {
            assert_eq!(again(&response), Ok(response));
        }
    }

    #[test]
    fn only_refusals_are_replies() {
        let read = |text: &str| {
            Response::parse(&Packet { command: b'y', data: format!("{text}\0").as_bytes() }).map(|response| {
                match response {
                    Response::Reply(reply) => reply.to_string(),
                    other => format!("{other:?}"),
                }
            })
        };
        assert_eq!(read("550 5.1.1 no").as_deref(), Ok("550 5.1.1 no"));
        assert_eq!(read("550-5.7.9 one\r\n550 5.7.9 two").as_deref(), Ok("550 5.7.9 one\ntwo"));
        assert_eq!(read("451 4x later").as_deref(), Ok("451 4.7.1 4x later"));
        assert_eq!(read("550 4.1.1 other class").as_deref(), Ok("550 5.7.1 4.1.1 other class"));
        for wrong in ["", "250 2.0.0 yes", "354 go", "55", "550-a\r\n450 b", "abc"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let bad_name = Packet { command: b'h', data: b"X A:\0v\0" };
        assert!(Response::parse(&bad_name).is_err());
    }
}
