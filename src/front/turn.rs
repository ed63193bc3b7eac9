//! One connection's turn: read, let the conversation run, write once. I/O: the connection's socket.
//!
//! Invariants: nothing is read while a question is open, a handshake is due or output waits; all replies of a batch
//! leave in one write; a turn reads a bounded number of times, so that one fast peer can't starve the others. What is in
//! the clear behind STARTTLS is dropped (RFC 3207 §4.2).

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::connection::{Connection, End, Talk};
use super::inbox::{Desk, Inbox};
use super::proxy::{self, Header};
use super::service::{Admission, Answered, Service};
use super::shared::Shared;
use super::slab::Key;
use crate::base::machine::{Control, Machine, TlsFacts};
use crate::config::settings::ListenerTls;

/// The reactor's read buffer.
const INPUT_BYTES: usize = 64 * 1024;
/// Ciphertext read at once; one TLS record is at most 16 KiB + 256 (RFC 8446 §5.2).
const CIPHER_BYTES: usize = 16 * 1024;
/// Free input space that a read of ciphertext needs: what it brings, and a record that rustls held back.
const CIPHER_ROOM: usize = 2 * CIPHER_BYTES + 1024;
/// Input that a conversation may leave unused without a question being open; far above any command line.
const REST_BYTES_MAX: usize = INPUT_BYTES - CIPHER_ROOM;
/// Above this much output a conversation is not run until the socket took it.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Reads of one turn: 512 KiB, then others have theirs.
const READS_PER_TURN: usize = 8;

type Ask<S> = <<S as Service>::Machine as Machine>::Ask;
type Answer<S> = <<S as Service>::Machine as Machine>::Answer;

/// Buffers of one reactor, used by whichever connection has its turn.
pub(super) struct Scratch {
    pub input: Box<[u8]>,
    /// Unused input is `input[start..end]`.
    pub start: usize,
    pub end: usize,
    pub cipher: Box<[u8]>,
    output: Vec<u8>,
    /// Bytes read from and written to sockets since last asked.
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Scratch {
    pub fn new() -> Self {
        Scratch {
            input: vec![0; INPUT_BYTES].into(),
            start: 0,
            end: 0,
            cipher: vec![0; CIPHER_BYTES].into(),
            output: Vec::with_capacity(4096),
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    fn load(&mut self, rest: &mut Vec<u8>) {
        self.output.clear();
        self.start = 0;
        self.end = rest.len();
        self.input[..self.end].copy_from_slice(rest);
        *rest = Vec::new();
    }

    /// Moves unused input to the front when the room behind it is short.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 && INPUT_BYTES - self.end < CIPHER_ROOM {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }
}

/// What a turn works with.
pub(super) struct Turn<'a, S: Service> {
    pub shared: &'a Shared<S>,
    pub inbox: &'a Arc<Inbox<Answer<S>>>,
    pub scratch: &'a mut Scratch,
    pub now: Instant,
    pub key: Key,
}

impl<S: Service> Turn<'_, S> {
    /// Gives the conversation, if there is one, what the reactor has for it.
    pub fn hand_over(&mut self, c: &mut Connection<S::Machine>, first: impl FnOnce(&mut S::Machine, Instant)) {
        if let Talk::Open(machine) = &mut c.talk {
            first(machine, self.now);
        }
    }

    /// Runs the connection until it must wait; true if it could go on but others come first.
    pub fn run(&mut self, c: &mut Connection<S::Machine>) -> Result<bool, End> {
        if let Talk::Lingering { bytes_left } = c.talk {
            return self.linger(c, bytes_left);
        }
        self.scratch.load(&mut c.rest);
        let outcome = self.rounds(c);
        c.rest = self.scratch.input[self.scratch.start..self.scratch.end].to_vec();
        outcome
    }

    fn rounds(&mut self, c: &mut Connection<S::Machine>) -> Result<bool, End> {
        if matches!(c.talk, Talk::Arriving) {
            self.greet(c)?;
        }
        for _ in 0..READS_PER_TURN {
            if c.has_backlog() {
                self.flush(c)?;
                if c.has_backlog() {
                    // The socket tells when it takes more. Were it tried once more here, and took all, nothing would tell of it, and the
                    // conversation has not run.
                    return Ok(false);
                }
            }
            let more = self.pump(c);
            self.flush(c)?;
            if more {
                continue;
            }
            if c.flags.eof && !c.flags.asking && c.then.is_none() && !c.has_backlog() {
                return Err(End::Gone);
            }
            if !c.wants_input() {
                return Ok(false);
            }
            if self.scratch.end - self.scratch.start > REST_BYTES_MAX {
                return Err(End::Stuck);
            }
            self.scratch.make_room();
            if !self.fill(c)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Runs the conversation as far as it goes; true if only the amount of output stopped it.
    fn pump(&mut self, c: &mut Connection<S::Machine>) -> bool {
        if c.is_handshaking() || c.has_backlog() {
            return false;
        }
        let Talk::Open(machine) = &mut c.talk else { return false };
        while c.then.is_none() {
            c.then = machine.poll_output(&mut self.scratch.output);
            if c.then.is_some() || c.flags.asking {
                return false;
            }
            if let Some(ask) = machine.poll_ask() {
                match answer(self.shared, self.inbox, self.now, self.key, &c.peer, ask) {
                    Answered::Now(answer) => machine.handle_answer(self.now, answer),
                    Answered::Later => c.flags.asking = true,
                }
                continue;
            }
            if self.scratch.output.len() > OUTPUT_BYTES_MAX {
                return true;
            }
            let input = &self.scratch.input[self.scratch.start..self.scratch.end];
            let used = if input.is_empty() { 0 } else { machine.handle_input(self.now, input) };
            self.scratch.start += used;
            if used == 0 {
                if !c.flags.eof || c.flags.eof_told {
                    return false;
                }
                c.flags.eof_told = true;
                machine.handle_eof(self.now);
            }
        }
        false
    }

    /// Writes what was said, and does what was to be done after it.
    fn flush(&mut self, c: &mut Connection<S::Machine>) -> Result<(), End> {
        if !self.scratch.output.is_empty() || c.has_backlog() {
            let written = c.write(&self.scratch.output)?;
            self.scratch.bytes_out += written as u64;
            self.scratch.output.clear();
            self.watch_reader(c, written > 0);
        }
        if c.has_backlog() {
            return Ok(());
        }
        match c.then.take() {
            None => Ok(()),
            Some(Control::Close) => Err(End::Closed),
            Some(Control::StartTls) => {
                (self.scratch.start, self.scratch.end) = (0, 0);
                self.begin_tls(c)
            }
        }
    }

    /// The conversation does not run while output waits, so its own timeouts can't end a peer that never reads.
    fn watch_reader(&self, c: &mut Connection<S::Machine>, progress: bool) {
        if c.is_handshaking() || !matches!(c.talk, Talk::Open(_) | Talk::Leaving) {
            return;
        }
        if !c.has_backlog() {
            c.deadline = None;
        } else if progress || c.deadline.is_none() {
            c.deadline = Some(self.now + self.shared.setup(c.peer.listener).limits.command_timeout);
        }
    }

    /// Gets more for the conversation; true if there is anything new.
    fn fill(&mut self, c: &mut Connection<S::Machine>) -> Result<bool, End> {
        if matches!(c.talk, Talk::Introduction) {
            return self.introduce(c);
        }
        let read = match c.tls {
            Some(_) => self.fill_tls(c)?,
            None => c.read(&mut self.scratch.input[self.scratch.end..])?.inspect(|read| self.scratch.end += read),
        };
        if let Some(read) = read {
            self.scratch.bytes_in += read as u64;
            c.active = self.now;
        }
        Ok(read.is_some())
    }

    /// Opens the conversation, or begins the TLS that comes before it.
    fn greet(&mut self, c: &mut Connection<S::Machine>) -> Result<(), End> {
        c.deadline = None;
        if self.shared.setup(c.peer.listener).tls == ListenerTls::Implicit {
            c.talk = Talk::Handshake;
            return self.begin_tls(c);
        }
        self.open(c, None);
        self.hear_early(c)
    }

    /// Shows the conversation, once and before it may say a word, what came before the banner: it is for it to judge
    /// early talkers, which it cannot if the first read comes after the banner.
    fn hear_early(&mut self, c: &mut Connection<S::Machine>) -> Result<(), End> {
        if !matches!(c.talk, Talk::Open(_)) {
            return Ok(());
        }
        c.flags.readable = true;
        self.fill(c)?;
        let input = &self.scratch.input[self.scratch.start..self.scratch.end];
        if let Talk::Open(machine) = &mut c.talk
            && !input.is_empty()
        {
            self.scratch.start += machine.handle_input(self.now, input);
        }
        Ok(())
    }

    pub fn open(&mut self, c: &mut Connection<S::Machine>, facts: Option<TlsFacts>) {
        match self.shared.service.open(self.now, &c.peer, facts) {
            Admission::Open(machine) => c.talk = Talk::Open(machine),
            Admission::Refuse(text) => {
                self.scratch.output.extend_from_slice(&text);
                c.talk = Talk::Leaving;
                c.then = Some(Control::Close);
            }
        }
    }

    /// Looks for the PROXY header. It is peeked at and then taken exactly, so what follows it, TLS or not, is untouched.
    fn introduce(&mut self, c: &mut Connection<S::Machine>) -> Result<bool, End> {
        let seen = match c.stream.peek(&mut self.scratch.cipher[..proxy::HEADER_BYTES_MAX]) {
            Ok(0) => return Err(End::Gone),
            Ok(seen) => seen,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        match proxy::parse(&self.scratch.cipher[..seen]) {
            Header::Partial if c.flags.hung_up => Err(End::Gone),
            Header::Partial => Ok(false),
            Header::Wrong(why) => Err(End::Proxy(why)),
            Header::Whole { bytes, ends } => {
                c.read(&mut self.scratch.cipher[..bytes])?;
                if let Some((remote, local)) = ends {
                    (c.peer.remote, c.peer.local) = (remote, local);
                    self.name(c)?;
                }
                self.greet(c)?;
                Ok(true)
            }
        }
    }

    /// Counts the client behind a balancer as itself.
    fn name(&self, c: &mut Connection<S::Machine>) -> Result<(), End> {
        let ip = c.peer.remote.ip();
        let setup = self.shared.setup(c.peer.listener);
        if setup.trusts(ip) {
            return Ok(());
        }
        let place = c.place.as_mut().expect("every connection has a place until it ends");
        place.name(self.now, ip, &setup.limits).map_err(End::Refused)
    }

    fn linger(&mut self, c: &mut Connection<S::Machine>, bytes_left: usize) -> Result<bool, End> {
        match c.read(&mut self.scratch.cipher)? {
            None => Ok(false),
            Some(read) if read == 0 || read > bytes_left => Err(End::Gone),
            Some(read) => {
                c.talk = Talk::Lingering { bytes_left: bytes_left - read };
                Ok(c.flags.readable)
            }
        }
    }
}

fn answer<S: Service>(
    shared: &Shared<S>,
    inbox: &Arc<Inbox<Answer<S>>>,
    now: Instant,
    key: Key,
    peer: &super::service::Peer,
    ask: Ask<S>,
) -> Answered<Answer<S>> {
    let mut desk = Desk { inbox, key, taken: false };
    let answered = shared.service.answer(now, peer, ask, &mut desk);
    if matches!(answered, Answered::Later) && !desk.taken {
        // Nobody can answer; the dropped ticket says so in the usual way.
        use super::service::Later;
        drop(desk.ticket());
    }
    answered
}
