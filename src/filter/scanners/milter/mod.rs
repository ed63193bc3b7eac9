//! One milter conversation from the mail server's side: a message in, what becomes of it out. Pure. Milter protocol 6.
//!
//! All stages are played in order (connect, HELO, MAIL, each RCPT, DATA, header fields, end of headers, body, end of body),
//! except those that the milter does not want; what it does not answer is not waited for. A conversation without content ends
//! behind the recipients: that is how one is asked about a single RCPT. What a stage looks like on the wire stands in `show`.
//! Fails only towards the caller, by a [`MilterFault`].

mod show;

use std::net::IpAddr;

use crate::base::content::Content;
use crate::wire::header::fields;
use crate::wire::milter::{
    BODY_CHUNK_BYTES, Edit, MilterFault, Options, Response, VERSION, VERSION_MIN, action, split, step,
};
use crate::wire::reply::{Enhanced, Reply};

/// Bytes that wait to be sent before more are made.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// Changes of one message; opendkim makes ten.
const EDITS_MAX: usize = 1000;
/// Bytes of all changes, a new body included.
const EDIT_BYTES_MAX: usize = 64 << 20;

/// What a milter is shown.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// Our host name.
    pub hostname: String,
    /// The listener's name.
    pub listener: String,
    /// The message's id.
    pub id: String,
    /// The client's address.
    pub ip: Option<IpAddr>,
    /// The client's port.
    pub port: u16,
    /// Its verified name, if it has one.
    pub host: Option<String>,
    /// What it said in HELO.
    pub helo: String,
    /// The login.
    pub login: Option<String>,
    /// TLS version and cipher.
    pub tls: Option<String>,
    /// MAIL FROM without brackets; empty for the null reverse-path.
    pub sender: String,
    /// RCPT TO without brackets.
    pub recipients: Vec<String>,
    /// The content; without it only the envelope is shown.
    pub content: Option<Content>,
}

/// What a milter wants done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Changes in their order.
    pub edits: Vec<Edit>,
    /// Keep the message back, with the reason.
    pub quarantine: Option<String>,
    /// Values of header fields bring their leading blank.
    pub leading_space: bool,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The message is thrown away.
    Discard,
    /// It is kept, changed so.
    Keep(Wishes),
    /// It, or one of its recipients, is refused.
    Refuse(Reply),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Options,
    Connect,
    Helo,
    Mail,
    Rcpt(usize),
    Data,
    Header(usize),
    EndOfHeaders,
    Body(usize),
    EndOfBody,
    Over,
}

/// A conversation under way.
pub struct Conversation {
    transaction: Transaction,
    /// Byte ranges of the fields, as name's end and the field's range.
    fields: Vec<std::ops::Range<usize>>,
    body: usize,
    options: Options,
    /// The stage that is played next, or that waits for its answer.
    stage: Stage,
    waits: bool,
    wishes: Wishes,
    edit_bytes: usize,
    end: Option<End>,
}

impl Conversation {
    /// Begins one.
    pub fn new(transaction: Transaction) -> Self {
        let content = transaction.content.clone();
        let content: &[u8] = content.as_deref().unwrap_or_default();
        let mut walk = fields(content);
        let ranges = walk.by_ref().map(|field| field.range).collect();
        let rest = &content[walk.position()..];
        let blank = if rest.starts_with(b"\r\n") { 2 } else { usize::from(rest.starts_with(b"\n")) };
        Conversation {
            body: walk.position() + blank,
            fields: ranges,
            transaction,
            options: Options::default(),
            stage: Stage::Options,
            waits: false,
            wishes: Wishes::default(),
            edit_bytes: 0,
            end: None,
        }
    }

    /// What was agreed on, once it was.
    pub fn options(&self) -> Option<Options> {
        (self.options.version != 0).then_some(self.options)
    }

    /// How it ended, once it did.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Appends what is to be sent now; nothing while an answer is waited for.
    pub fn poll_output(&mut self, out: &mut Vec<u8>) {
        while !self.waits && self.end.is_none() && out.len() < OUTPUT_BYTES_MAX {
            if self.stage == Stage::Over {
                self.finish(End::Keep(Wishes::default()));
                break;
            }
            self.play(out);
        }
    }

    /// Takes what came in; gives the bytes that were used.
    /// # Errors
    /// What no milter says.
    pub fn handle_input(&mut self, bytes: &[u8]) -> Result<usize, MilterFault> {
        let mut used = 0;
        while self.end.is_none() {
            let Some((packet, length)) = split(&bytes[used..])? else { break };
            used += length;
            if !self.waits {
                return Err(MilterFault::Unexpected(packet.command.into()));
            }
            self.answered(Response::parse(&packet)?)?;
        }
        Ok(used)
    }

    fn finish(&mut self, end: End) {
        self.end = Some(end);
        self.waits = false;
    }

    fn answered(&mut self, response: Response) -> Result<(), MilterFault> {
        if self.stage == Stage::Options {
            return self.negotiated(response);
        }
        let unexpected = |what: char| Err(MilterFault::Unexpected(what));
        match response {
            Response::Continue if self.stage == Stage::EndOfBody => self.finish_kept(),
            Response::Continue => self.advance(),
            Response::Accept if self.stage == Stage::EndOfBody => self.finish_kept(),
            Response::Accept => self.finish(End::Keep(Wishes::default())),
            Response::Skip => {
                if let Stage::Body(_) = self.stage {
                    self.stage = Stage::Body(usize::MAX);
                }
                self.advance();
            }
            Response::Progress => {}
            Response::Discard => self.finish(End::Discard),
            Response::Reject => self.finish(End::Refuse(REJECTED)),
            Response::Tempfail => self.finish(End::Refuse(TEMPFAILED)),
            Response::ConnectionFailure | Response::Shutdown => self.finish(End::Refuse(SHUT)),
            Response::Reply(reply) => self.finish(End::Refuse(reply)),
            Response::Quarantine(reason) if self.stage == Stage::EndOfBody => self.wishes.quarantine = Some(reason),
            Response::Edit(edit) if self.stage == Stage::EndOfBody => self.wish(edit)?,
            Response::Quarantine(_) | Response::Edit(_) => return unexpected('e'),
            Response::Options(_) => return unexpected('O'),
        }
        Ok(())
    }

    fn finish_kept(&mut self) {
        self.wishes.leading_space = self.options.has(step::HEADER_LEADING_SPACE);
        let wishes = std::mem::take(&mut self.wishes);
        self.finish(End::Keep(wishes));
    }

    fn wish(&mut self, edit: Edit) -> Result<(), MilterFault> {
        self.edit_bytes += match &edit {
            Edit::AddHeader { value, .. } | Edit::ChangeHeader { value, .. } | Edit::InsertHeader { value, .. } => {
                value.len()
            }
            Edit::ReplaceBody(part) => part.len(),
            Edit::AddRecipient(path) | Edit::ChangeSender(path) | Edit::RemoveRecipient(path) => path.len(),
        };
        let pieces = usize::from(!matches!(edit, Edit::ReplaceBody(_)));
        let count = self.wishes.edits.iter().filter(|edit| !matches!(edit, Edit::ReplaceBody(_))).count() + pieces;
        if self.edit_bytes > EDIT_BYTES_MAX || count > EDITS_MAX {
            return Err(MilterFault::TooMuch);
        }
        self.wishes.edits.push(edit);
        Ok(())
    }

    fn negotiated(&mut self, response: Response) -> Result<(), MilterFault> {
        let Response::Options(options) = response else { return Err(MilterFault::Unexpected('o')) };
        if !(VERSION_MIN..=VERSION).contains(&options.version)
            || options.actions & !action::ALL != 0
            || options.steps & !step::ALL != 0
        {
            return Err(MilterFault::Version(options.version));
        }
        self.options = options;
        self.advance();
        Ok(())
    }

    /// Goes on to the next stage that the milter wants.
    fn advance(&mut self) {
        self.waits = false;
        loop {
            self.stage = self.following();
            if !self.options.has(unwanted(self.stage)) {
                return;
            }
        }
    }

    fn following(&self) -> Stage {
        let has_content = self.transaction.content.is_some();
        let body_bytes = self.transaction.content.as_ref().map_or(0, |content| content.len());
        match self.stage {
            Stage::Options => Stage::Connect,
            Stage::Connect => Stage::Helo,
            Stage::Helo => Stage::Mail,
            Stage::Mail if !self.transaction.recipients.is_empty() => Stage::Rcpt(0),
            Stage::Rcpt(place) if place + 1 < self.transaction.recipients.len() => Stage::Rcpt(place + 1),
            Stage::Mail | Stage::Rcpt(_) if has_content => Stage::Data,
            Stage::Data if !self.fields.is_empty() => Stage::Header(0),
            Stage::Header(place) if place + 1 < self.fields.len() => Stage::Header(place + 1),
            Stage::Data | Stage::Header(_) => Stage::EndOfHeaders,
            Stage::EndOfHeaders if self.body < body_bytes => Stage::Body(self.body),
            Stage::Body(at) if at < body_bytes.saturating_sub(BODY_CHUNK_BYTES) => Stage::Body(at + BODY_CHUNK_BYTES),
            Stage::EndOfHeaders | Stage::Body(_) => Stage::EndOfBody,
            Stage::Mail | Stage::Rcpt(_) | Stage::EndOfBody | Stage::Over => Stage::Over,
        }
    }

    /// Sends the stage; goes on at once where no answer comes.
    fn play(&mut self, out: &mut Vec<u8>) {
        let stage = self.stage;
        if stage == Stage::Options {
            Options { version: VERSION, actions: action::ALL, steps: step::ALL }.put(out);
        } else {
            self.show(stage, out);
        }
        self.waits = true;
        if self.options.has(silent(stage)) {
            self.advance();
        }
    }
}

const REJECTED: Reply = Reply::fixed(550, Enhanced(5, 7, 1), "Refused by a filter");
const TEMPFAILED: Reply = Reply::fixed(451, Enhanced(4, 7, 1), "Not now, says a filter; try again later");
const SHUT: Reply = Reply::fixed(421, Enhanced(4, 7, 0), "A filter closes the session");

/// The flag by which a milter does not want the stage.
fn unwanted(stage: Stage) -> u32 {
    match stage {
        Stage::Connect => step::NO_CONNECT,
        Stage::Helo => step::NO_HELO,
        Stage::Mail => step::NO_MAIL,
        Stage::Rcpt(_) => step::NO_RCPT,
        Stage::Data => step::NO_DATA,
        Stage::Header(_) => step::NO_HEADERS,
        Stage::EndOfHeaders => step::NO_END_OF_HEADERS,
        Stage::Body(_) => step::NO_BODY,
        Stage::Options | Stage::EndOfBody | Stage::Over => 0,
    }
}

/// The flag by which it does not answer the stage.
fn silent(stage: Stage) -> u32 {
    match stage {
        Stage::Connect => step::SILENT_CONNECT,
        Stage::Helo => step::SILENT_HELO,
        Stage::Mail => step::SILENT_MAIL,
        Stage::Rcpt(_) => step::SILENT_RCPT,
        Stage::Data => step::SILENT_DATA,
        Stage::Header(_) => step::SILENT_HEADERS,
        Stage::EndOfHeaders => step::SILENT_END_OF_HEADERS,
        Stage::Body(_) => step::SILENT_BODY,
        Stage::Options | Stage::EndOfBody | Stage::Over => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::milter::command;

    /// Plays a milter that answers the negotiation with `steps` and then as `answer` says; gives the commands that it saw.
    fn play(
        transaction: Transaction,
        steps: u32,
        answer: impl Fn(u8) -> Vec<Response>,
    ) -> (String, Result<End, MilterFault>) {
        let mut conversation = Conversation::new(transaction);
        let mut seen = String::new();
        for _ in 0..1000 {
            let mut sent = Vec::new();
            conversation.poll_output(&mut sent);
            if let Some(end) = conversation.end() {
                return (seen, Ok(end.clone()));
            }
            let (mut answers, mut rest) = (Vec::new(), &sent[..]);
            while let Some((packet, length)) = split(rest).unwrap() {
                rest = &rest[length..];
                if packet.command == command::OPTIONS {
                    Options { version: 6, actions: action::ALL, steps }.put(&mut answers);
                } else if packet.command != command::MACROS {
                    seen.push(packet.command.into());
                    answer(packet.command).iter().for_each(|response| response.put(&mut answers));
                }
            }
            if let Err(fault) = conversation.handle_input(&answers) {
                return (seen, Err(fault));
            }
        }
        panic!("no end: {seen}");
    }

    fn message() -> Transaction {
        Transaction {
            sender: "a@b.c".into(),
            recipients: vec!["x@y.z".into(), "w@y.z".into()],
            content: Some(Content::from_bytes(b"A: 1\r\nB: 2\r\n\r\nbody\r\n".to_vec())),
            ..Transaction::default()
        }
    }

    #[test]
    fn all_stages_are_played_but_those_that_are_not_wanted() {
        let go = |_| vec![Response::Continue];
        let (seen, end) = play(message(), 0, go);
        assert_eq!((seen.as_str(), end), ("CHMRRTLLNBE", Ok(End::Keep(Wishes::default()))));
        let silent_headers = |command| if command == b'L' { Vec::new() } else { vec![Response::Continue] };
        let steps = step::NO_CONNECT | step::NO_HELO | step::NO_DATA | step::NO_BODY | step::SILENT_HEADERS;
        assert_eq!(play(message(), steps, silent_headers).0, "MRRLLNE");
        let envelope = Transaction { content: None, ..message() };
        assert_eq!(play(envelope, step::NO_RCPT, go), ("CHM".into(), Ok(End::Keep(Wishes::default()))));
    }

    #[test]
    fn a_refusal_ends_it_where_it_is_said() {
        let at_rcpt = |command| vec![if command == b'R' { Response::Tempfail } else { Response::Continue }];
        assert_eq!(play(message(), 0, at_rcpt), ("CHMR".into(), Ok(End::Refuse(TEMPFAILED))));
        let accept = |_| vec![Response::Accept];
        assert_eq!(play(message(), 0, accept), ("C".into(), Ok(End::Keep(Wishes::default()))));
    }

    #[test]
    fn changes_are_taken_at_the_end_of_the_body_only() {
        let edit = || Response::Edit(Edit::AddHeader { name: "X".into(), value: b" y".to_vec() });
        let at_end = |command| match command {
            b'E' => vec![Response::Progress, edit(), Response::Quarantine("q".into()), Response::Continue],
            _ => vec![Response::Continue],
        };
        let (_, end) = play(message(), step::HEADER_LEADING_SPACE, at_end);
        let Ok(End::Keep(wishes)) = end else { panic!() };
        assert_eq!((wishes.edits.len(), wishes.quarantine.as_deref(), wishes.leading_space), (1, Some("q"), true));
        let early = |command| vec![if command == b'M' { edit() } else { Response::Continue }];
        assert!(play(message(), 0, early).1.is_err());
        let twice = |_| vec![Response::Continue, Response::Continue];
        assert!(play(message(), 0, twice).1.is_err(), "an answer without a question");
    }

    #[test]
    fn a_long_body_comes_in_pieces_until_it_is_skipped() {
        let content = [b"A: 1\r\n\r\n".as_slice(), &vec![b'x'; 3 * BODY_CHUNK_BYTES]].concat();
        let long = || Transaction { content: Some(Content::from_bytes(content.clone())), ..message() };
        assert_eq!(play(long(), 0, |_| vec![Response::Continue]).0, "CHMRRTLNBBBE");
        let skip = |command| vec![if command == b'B' { Response::Skip } else { Response::Continue }];
        assert_eq!(play(long(), 0, skip).0, "CHMRRTLNBE");
    }
}
