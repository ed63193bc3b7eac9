//! We as a milter: a conversation with Postfix or Sendmail, message after message. I/O: its socket; [`Filter`] itself has none.
//!
//! Milter protocol 6. The machine gathers envelope and content, asks for a judgement at the end of the body, and turns it into
//! responses: fields inserted and removed, reject, tempfail, quarantine, discard. What it need not answer it asks
//! the server not to wait for. Bytes that are no milter conversation close it, and the server does what its own default is.

use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::listen::Desk;
use super::{Case, Fate, Judgement};
use crate::base::content::{Content, ContentBuilder, ContentSource};
use crate::wire::header::fields;
use crate::wire::milter::{
    Edit, MilterFault, Options, Packet, Response, VERSION, VERSION_MIN, action, command, split, step, strings,
};
use crate::wire::reply::{Enhanced, Reply};

/// Recipients that are remembered; more are judged by the first of them. RFC 5321 §4.5.3.1.8 speaks of 100.
const RECIPIENTS_MAX: usize = 10_000;
const READ_BYTES: usize = 64 * 1024;
/// What we want to do.
const ACTIONS: u32 = action::ADD_HEADERS | action::CHANGE_HEADERS | action::QUARANTINE;
/// What the server need not send, and where it need not wait.
const STEPS: u32 = step::NO_UNKNOWN
    | step::NO_DATA
    | step::SILENT_CONNECT
    | step::SILENT_HELO
    | step::SILENT_MAIL
    | step::SILENT_RCPT
    | step::SILENT_HEADERS
    | step::SILENT_END_OF_HEADERS
    | step::SILENT_BODY
    | step::HEADER_LEADING_SPACE;

const TOO_LARGE: Reply = Reply::fixed(552, Enhanced(5, 3, 4), "The message is too large to be judged");
const NO_ROOM: Reply = Reply::fixed(452, Enhanced(4, 3, 1), "No room to judge the message, try again later");

/// What the server said of the client.
#[derive(Clone, Debug, Default)]
struct Client {
    ip: Option<IpAddr>,
    port: u16,
    host: Option<String>,
    helo: String,
}

/// What it said of the message.
#[derive(Default)]
struct Letter {
    sender: String,
    login: Option<String>,
    recipients: Vec<String>,
    content: Option<ContentBuilder>,
    trouble: Option<Reply>,
}

/// One conversation.
pub struct Filter {
    source: ContentSource,
    size_max: u64,
    options: Options,
    client: Client,
    letter: Letter,
    is_over: bool,
}

impl Filter {
    /// Begins one; messages above `size_max` bytes are refused.
    pub fn new(source: ContentSource, size_max: u64) -> Self {
        let (options, client, letter) = Default::default();
        Filter { source, size_max, options, client, letter, is_over: false }
    }

    /// True once the server has said good-bye.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes bytes, appends what is to be answered to `out`; gives how many were used, and a message that is to be judged.
    /// While one is under way nothing more may be handed in.
    /// # Errors
    /// What no mail server says.
    pub fn handle_input(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(usize, Option<Case>), MilterFault> {
        let mut used = 0;
        while !self.is_over {
            let Some((packet, length)) = split(&bytes[used..])? else { break };
            used += length;
            if packet.command == command::END_OF_BODY {
                self.body(packet.data);
                if let Some(case) = self.end_of_body(out) {
                    return Ok((used, Some(case)));
                }
            } else {
                self.packet(&packet, out)?;
            }
        }
        Ok((used, None))
    }

    /// Answers with a judgement; nothing: too busy.
    pub fn handle_judgement(&mut self, content: &Content, judgement: Option<&Judgement>, out: &mut Vec<u8>) {
        let Some(judgement) = judgement else {
            Response::Reply(Reply::BUSY).put(out);
            return;
        };
        match &judgement.fate {
            Fate::Refuse(reply) => Response::Reply(reply.clone()).put(out),
            Fate::Discard => Response::Discard.put(out),
            Fate::Deliver | Fate::Quarantine(_) => {
                if self.options.actions & action::CHANGE_HEADERS != 0 {
                    // From the last to the first, so that no index moves.
                    for (name, index) in judgement.forged.iter().rev() {
                        let edit = Edit::ChangeHeader { index: *index, name: name.clone(), value: Vec::new() };
                        Response::Edit(edit).put(out);
                    }
                }
                if self.options.actions & action::ADD_HEADERS != 0 {
                    self.put_fields(&judgement.fields, out);
                }
                if let Fate::Quarantine(reason) = &judgement.fate
                    && self.options.actions & action::QUARANTINE != 0
                {
                    Response::Quarantine(reason.clone()).put(out);
                }
                Response::Continue.put(out);
            }
        }
        tracing::info!(id = %judgement.id, bytes = content.len(), score = judgement.score, "judged for a mail server");
    }

    fn put_fields(&self, added: &[u8], out: &mut Vec<u8>) {
        for (place, field) in fields(added).enumerate() {
            let value: Vec<u8> = field.value.iter().copied().filter(|byte| *byte != b'\r').collect();
            let value = value.strip_suffix(b"\n").unwrap_or(&value);
            let keeps = self.options.has(step::HEADER_LEADING_SPACE);
            let value = if keeps { value } else { value.strip_prefix(b" ").unwrap_or(value) };
            let name = String::from_utf8_lossy(field.name).into_owned();
            let index = u32::try_from(place).expect("our own fields are few");
            Response::Edit(Edit::InsertHeader { index, name, value: value.to_vec() }).put(out);
        }
    }

    fn packet(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>) -> Result<(), MilterFault> {
        let text =
            |place: usize| strings(packet.data).get(place).map(|text| String::from_utf8_lossy(text).into_owned());
        let silent = match packet.command {
            command::OPTIONS => return self.negotiate(packet.data, out),
            command::MACROS => {
                self.macros(packet.data);
                return Ok(());
            }
            command::ABORT => {
                self.letter = Letter::default();
                return Ok(());
            }
            command::QUIT_NEXT_CLIENT => {
                (self.client, self.letter) = Default::default();
                return Ok(());
            }
            command::QUIT => {
                self.is_over = true;
                return Ok(());
            }
            command::CONNECT => {
                self.connect(packet.data)?;
                step::SILENT_CONNECT
            }
            command::HELO => {
                self.client.helo = text(0).unwrap_or_default();
                step::SILENT_HELO
            }
            command::MAIL => {
                let login = self.letter.login.take();
                self.letter = Letter { sender: bare(&text(0).unwrap_or_default()), login, ..Letter::default() };
                step::SILENT_MAIL
            }
            command::RCPT => {
                if self.letter.recipients.len() < RECIPIENTS_MAX {
                    self.letter.recipients.push(bare(&text(0).unwrap_or_default()));
                }
                step::SILENT_RCPT
            }
            command::DATA => step::SILENT_DATA,
            command::HEADER => {
                self.header(packet.data)?;
                step::SILENT_HEADERS
            }
            command::END_OF_HEADERS => {
                self.grow(b"\r\n");
                step::SILENT_END_OF_HEADERS
            }
            command::BODY => {
                self.body(packet.data);
                step::SILENT_BODY
            }
            command::UNKNOWN => step::SILENT_UNKNOWN,
            other => return Err(MilterFault::Unexpected(other.into())),
        };
        if !self.options.has(silent) {
            Response::Continue.put(out);
        }
        Ok(())
    }

    fn negotiate(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), MilterFault> {
        let offered = Options::parse(data)?;
        if offered.version < VERSION_MIN {
            return Err(MilterFault::Version(offered.version));
        }
        self.options = Options {
            version: offered.version.min(VERSION),
            actions: offered.actions & ACTIONS,
            steps: offered.steps & STEPS,
        };
        self.options.put(out);
        Ok(())
    }

    /// Only the login is taken from macros: all else is said in the commands themselves.
    fn macros(&mut self, data: &[u8]) {
        let texts = strings(data.get(1..).unwrap_or_default());
        for pair in texts.chunks_exact(2).filter(|pair| pair[0] == b"{auth_authen}") {
            self.letter.login = Some(String::from_utf8_lossy(pair[1]).into_owned()).filter(|login| !login.is_empty());
        }
    }

    /// `name NUL family port address NUL`.
    fn connect(&mut self, data: &[u8]) -> Result<(), MilterFault> {
        let end = memchr::memchr(0, data).ok_or(MilterFault::Malformed('C'))?;
        let (name, rest) = (String::from_utf8_lossy(&data[..end]).into_owned(), &data[end + 1..]);
        let address =
            rest.get(3..).map(|text| strings(text).first().map(|text| String::from_utf8_lossy(text).into_owned()));
        let address = address.flatten().unwrap_or_default();
        self.client = Client {
            ip: address.strip_prefix("IPv6:").unwrap_or(&address).parse().ok(),
            port: rest.get(1..3).map_or(0, |port| u16::from_be_bytes([port[0], port[1]])),
            // A server that knows no name says so, or puts the address into brackets.
            host: Some(name).filter(|name| name != "unknown" && !name.starts_with('[')),
            helo: String::new(),
        };
        Ok(())
    }

    fn header(&mut self, data: &[u8]) -> Result<(), MilterFault> {
        let texts = strings(data);
        let (Some(name), Some(value)) = (texts.first(), texts.get(1)) else { return Err(MilterFault::Malformed('L')) };
        let mut line = [*name, b":"].concat();
        if !self.options.has(step::HEADER_LEADING_SPACE) {
            line.push(b' ');
        }
        for (place, part) in value.split(|byte| *byte == b'\n').enumerate() {
            if place > 0 {
                line.extend_from_slice(b"\r\n");
            }
            line.extend_from_slice(part.strip_suffix(b"\r").unwrap_or(part));
        }
        line.extend_from_slice(b"\r\n");
        self.grow(&line);
        Ok(())
    }

    fn body(&mut self, piece: &[u8]) {
        self.grow(piece);
    }

    fn grow(&mut self, bytes: &[u8]) {
        if self.letter.trouble.is_some() {
            return;
        }
        let content = self.letter.content.get_or_insert_with(|| self.source.builder());
        if content.len() + bytes.len() as u64 > self.size_max {
            self.letter.trouble = Some(TOO_LARGE);
        } else if let Err(error) = content.append(bytes) {
            tracing::error!(%error, "content of a message to be judged can't grow");
            self.letter.trouble = Some(NO_ROOM);
        }
    }

    fn end_of_body(&mut self, out: &mut Vec<u8>) -> Option<Case> {
        let letter = std::mem::take(&mut self.letter);
        let content = letter.content.unwrap_or_else(|| self.source.builder()).finish();
        let trouble = letter.trouble.or(content.is_err().then_some(NO_ROOM));
        if let Some(reply) = trouble {
            Response::Reply(reply).put(out);
            return None;
        }
        Some(Case {
            protocol: "milter",
            ip: self.client.ip,
            port: self.client.port,
            host: self.client.host.clone(),
            helo: self.client.helo.clone(),
            login: letter.login,
            sender: letter.sender,
            recipients: letter.recipients,
            content: content.ok()?,
        })
    }
}

fn bare(path: &str) -> String {
    path.trim().trim_start_matches('<').trim_end_matches('>').to_owned()
}

/// Serves one connection.
pub async fn serve(mut stream: TcpStream, desk: &Desk) -> io::Result<()> {
    let mut filter = Filter::new(desk.judge.content(), desk.settings.size);
    let (mut input, mut out, mut piece) = (Vec::new(), Vec::new(), vec![0; READ_BYTES]);
    while !filter.is_over() {
        let (used, case) = filter.handle_input(&input, &mut out).map_err(io::Error::other)?;
        input.drain(..used);
        if let Some(case) = case {
            let content = case.content.clone();
            let judgement = desk.judge(case).await;
            filter.handle_judgement(&content, judgement.as_ref(), &mut out);
        }
        if !out.is_empty() {
            timeout(desk.settings.timeout, stream.write_all(&out)).await??;
            out.clear();
            continue;
        }
        let read = timeout(desk.settings.timeout, stream.read(&mut piece)).await??;
        if read == 0 {
            return Ok(());
        }
        input.extend_from_slice(&piece[..read]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::milter::{put, put_macros};

    fn conversation(steps: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        Options { version: 6, actions: 0x1ff, steps }.put(&mut bytes);
        put(&mut bytes, command::CONNECT, &[b"host.test\x004", &25u16.to_be_bytes(), b"192.0.2.1\0"]);
        put(&mut bytes, command::HELO, &[b"helo.test\0"]);
        put_macros(&mut bytes, command::MAIL, &[("{auth_authen}", "alice")]);
        put(&mut bytes, command::MAIL, &[b"<a@b.c>\0SIZE=5\0"]);
        put(&mut bytes, command::RCPT, &[b"<x@y.z>\0"]);
        put(&mut bytes, command::HEADER, &[b"Subject\0 s\n\tfold\0"]);
        put(&mut bytes, command::END_OF_HEADERS, &[]);
        put(&mut bytes, command::BODY, &[b"body\r\n"]);
        put(&mut bytes, command::END_OF_BODY, &[]);
        bytes
    }

    fn judgement(fate: Fate) -> Judgement {
        Judgement {
            id: "1".into(),
            fate,
            score: 1.0,
            tag: 5.0,
            reject: 15.0,
            spam: false,
            symbols: Vec::new(),
            fields: b"X-A: 1\r\nX-B: 2\r\n\tfold\r\n".to_vec(),
            forged: vec![("Return-Path".into(), 1), ("Return-Path".into(), 2)],
            seconds: 0.0,
        }
    }

    fn commands(bytes: &[u8]) -> String {
        let (mut rest, mut found) = (bytes, String::new());
        while let Some((packet, length)) = split(rest).unwrap() {
            found.push(packet.command.into());
            rest = &rest[length..];
        }
        found
    }

    #[test]
    fn a_message_is_gathered_as_it_was_and_answered_once() {
        let mut filter = Filter::new(ContentSource::unbounded(), 1000);
        let (bytes, mut out) = (conversation(step::ALL), Vec::new());
        let (used, case) = filter.handle_input(&bytes, &mut out).unwrap();
        let case = case.unwrap();
        assert_eq!((used, commands(&out).as_str()), (bytes.len(), "O"));
        assert_eq!(
            (case.sender.as_str(), case.login.as_deref(), case.helo.as_str()),
            ("a@b.c", Some("alice"), "helo.test")
        );
        assert_eq!((case.ip, case.host.as_deref()), ("192.0.2.1".parse().ok(), Some("host.test")));
        assert_eq!(&*case.content, b"Subject: s\r\n\tfold\r\n\r\nbody\r\n");
        let mut answer = |fate| {
            let mut out = Vec::new();
            filter.handle_judgement(&case.content, Some(&judgement(fate)), &mut out);
            commands(&out)
        };
        assert_eq!(answer(Fate::Deliver), "mmiic");
        assert_eq!(answer(Fate::Quarantine("q".into())), "mmiiqc");
        assert_eq!(answer(Fate::Refuse(Reply::BUSY)), "y");
        assert_eq!(answer(Fate::Discard), "d");
    }

    #[test]
    fn an_old_server_is_answered_at_each_step() {
        let mut filter = Filter::new(ContentSource::unbounded(), 1000);
        let mut out = Vec::new();
        let (_, case) = filter.handle_input(&conversation(0), &mut out).unwrap();
        assert_eq!(commands(&out), "Occccccc");
        assert_eq!(&case.unwrap().content[..14], b"Subject:  s\r\n\t");
    }

    #[test]
    fn a_message_above_the_bound_is_refused_unread() {
        let mut filter = Filter::new(ContentSource::unbounded(), 10);
        let mut out = Vec::new();
        let (_, case) = filter.handle_input(&conversation(step::ALL), &mut out).unwrap();
        assert!(case.is_none() && commands(&out) == "Oy" && out.windows(3).any(|text| text == b"552"));
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_message(cut in 0usize..200) {
            let bytes = conversation(step::ALL);
            let cut = cut.min(bytes.len() - 1);
            let mut filter = Filter::new(ContentSource::unbounded(), 1000);
            let mut out = Vec::new();
            let (used, case) = filter.handle_input(&bytes[..cut], &mut out).unwrap();
            prop_assert!(case.is_none());
            let (_, case) = filter.handle_input(&bytes[used..], &mut out).unwrap();
            prop_assert_eq!(case.unwrap().content.len(), 27);
        }

        #[test]
        fn any_packets_are_taken_or_refused(packets in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..20)), 0..20)) {
            let mut bytes = Vec::new();
            packets.iter().for_each(|(command, data)| put(&mut bytes, *command, &[data]));
            let _ = Filter::new(ContentSource::unbounded(), 100).handle_input(&bytes, &mut Vec::new());
        }
    }
}
