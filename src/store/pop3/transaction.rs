//! The TRANSACTION state: the list of messages, what is marked, and messages on their way (RFC 1939 §5, §7). Pure.

use std::io::Write;

use super::ask::{Answer, Ask, Entry};
use super::command::{Command, parse};
use super::session::{Session, State};
use super::wire::{DotStuffer, TopLimit};

const NO_SUCH_MESSAGE: &str = "no such message";

/// The opened maildrop as the client sees it.
#[derive(Debug)]
pub(super) struct Maildrop {
    entries: Vec<Entry>,
    deleted: Vec<bool>,
}

impl Maildrop {
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        let deleted = vec![false; entries.len()];
        Maildrop { entries, deleted }
    }

    fn kept(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().zip(&self.deleted).filter(|(_, deleted)| !**deleted).map(|(entry, _)| entry)
    }

    /// Messages and bytes that are not marked as deleted.
    pub(super) fn stat(&self) -> (usize, u64) {
        (self.kept().count(), self.kept().map(|entry| entry.size).sum())
    }

    /// Index of message `number` (from 1), if it is there and not marked.
    fn index(&self, number: u32) -> Option<usize> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        (self.deleted.get(index) == Some(&false)).then_some(index)
    }

    fn marked(&self) -> Vec<usize> {
        (0..self.deleted.len()).filter(|index| self.deleted[*index]).collect()
    }
}

/// Which list is being written.
#[derive(Clone, Copy, Debug)]
enum Column {
    Size,
    Uidl,
}

/// LIST or UIDL of everything, written in pieces: a large maildrop's list is never whole in memory.
#[derive(Debug)]
pub(super) struct Listing {
    column: Column,
    next: usize,
}

impl Column {
    fn write(self, maildrop: &Maildrop, index: usize, sink: &mut Vec<u8>) {
        let entry = &maildrop.entries[index];
        let written = match self {
            Column::Size => write!(sink, "{} {}\r\n", index + 1, entry.size),
            Column::Uidl => write!(sink, "{} {}\r\n", index + 1, entry.uidl),
        };
        written.expect("a Vec takes everything");
    }
}

impl Listing {
    /// Writes on until the end or about `bytes_max`; gives the state that follows.
    pub(super) fn write(mut self, maildrop: Maildrop, sink: &mut Vec<u8>, bytes_max: usize) -> State {
        while self.next < maildrop.entries.len() {
            if sink.len() >= bytes_max {
                return State::Listing(maildrop, self);
            }
            if !maildrop.deleted[self.next] {
                self.column.write(&maildrop, self.next, sink);
            }
            self.next += 1;
        }
        sink.extend_from_slice(b".\r\n");
        State::Transaction(maildrop)
    }
}

/// RETR or TOP under way.
#[derive(Debug)]
pub(super) struct Sending {
    index: usize,
    offset: u64,
    stuffer: DotStuffer,
    limit: Option<TopLimit>,
}

impl Session {
    /// A line in the TRANSACTION state. The state is `Closed` meanwhile.
    pub(super) fn transact(&mut self, mut maildrop: Maildrop, line: &[u8]) {
        match parse(line) {
            Err(text) => self.error(text),
            Ok(Command::Capa) => self.say_capabilities(false),
            Ok(Command::Noop) => self.say("+OK"),
            Ok(Command::Stat) => {
                let (count, bytes) = maildrop.stat();
                self.say(&format!("+OK {count} {bytes}"));
            }
            Ok(Command::Rset) => {
                maildrop.deleted.fill(false);
                self.say("+OK");
            }
            Ok(Command::Dele(number)) => match maildrop.index(number) {
                Some(index) => {
                    maildrop.deleted[index] = true;
                    self.say("+OK");
                }
                None => self.error(NO_SUCH_MESSAGE),
            },
            Ok(Command::List(Some(number))) => self.say_one(&maildrop, number, Column::Size),
            Ok(Command::Uidl(Some(number))) => self.say_one(&maildrop, number, Column::Uidl),
            Ok(Command::List(None)) => return self.list(maildrop, Column::Size),
            Ok(Command::Uidl(None)) => return self.list(maildrop, Column::Uidl),
            Ok(Command::Retr(number)) => return self.begin_sending(maildrop, number, None),
            Ok(Command::Top(number, lines)) => return self.begin_sending(maildrop, number, Some(lines)),
            Ok(Command::Quit) => return self.quit(&maildrop),
            Ok(_) => self.error("logged in already"),
        }
        self.stay(maildrop);
    }

    /// Back to TRANSACTION, unless an error was one too many.
    fn stay(&mut self, maildrop: Maildrop) {
        if !self.is_closing() {
            self.state = State::Transaction(maildrop);
        }
    }

    fn say_one(&mut self, maildrop: &Maildrop, number: u32, column: Column) {
        let Some(index) = maildrop.index(number) else {
            return self.error(NO_SUCH_MESSAGE);
        };
        self.out.extend_from_slice(b"+OK ");
        column.write(maildrop, index, &mut self.out);
    }

    fn list(&mut self, maildrop: Maildrop, column: Column) {
        self.say("+OK");
        self.state = State::Listing(maildrop, Listing { column, next: 0 });
    }

    fn quit(&mut self, maildrop: &Maildrop) {
        let indexes = maildrop.marked();
        if indexes.is_empty() {
            self.say("+OK bye");
            return self.close();
        }
        self.ask(Ask::Remove { indexes });
        self.state = State::Update;
    }

    fn begin_sending(&mut self, maildrop: Maildrop, number: u32, lines: Option<u32>) {
        let Some(index) = maildrop.index(number) else {
            self.error(NO_SUCH_MESSAGE);
            return self.stay(maildrop);
        };
        let limit = lines.map(TopLimit::new);
        self.ask(Ask::Read { index, offset: 0 });
        self.state = State::Sending(maildrop, Sending { index, offset: 0, stuffer: DotStuffer::default(), limit });
    }

    /// A piece of the message is there. The positive response waits for the first, so that it is never given for a message that can't be read.
    pub(super) fn send(&mut self, maildrop: Maildrop, mut sending: Sending, answer: Answer) {
        let Answer::Piece { bytes, last } = answer else {
            if sending.offset == 0 {
                self.error("[SYS/TEMP] the message can't be read now");
                return self.stay(maildrop);
            }
            // There is no way to say so inside a message; without its end the client won't take it for whole.
            return self.close();
        };
        if sending.offset == 0 {
            match sending.limit {
                Some(_) => self.say("+OK"),
                None => self.say(&format!("+OK {} octets", maildrop.entries[sending.index].size)),
            }
        }
        let (wanted, limit_reached) = match &mut sending.limit {
            Some(limit) => limit.take(&bytes),
            None => (bytes.len(), false),
        };
        sending.stuffer.push(&bytes[..wanted], &mut self.out);
        sending.offset += bytes.len() as u64;
        if last || limit_reached || bytes.is_empty() {
            sending.stuffer.finish(&mut self.out);
            self.state = State::Transaction(maildrop);
            return;
        }
        self.ask(Ask::Read { index: sending.index, offset: sending.offset });
        self.state = State::Sending(maildrop, sending);
    }
}
