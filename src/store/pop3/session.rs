//! One POP3 conversation: bytes and answers in, responses and questions out. Pure. RFC 1939.
//!
//! Invariants: while a question is open, a response is held back or a list is being sent, not one byte of input is
//! consumed; messages are removed only by QUIT in the TRANSACTION state (RFC 1939 §6); memory is bounded by the line limit, one
//! piece of a message, and the list of the maildrop. Not here: passwords, files, sockets.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ask::{Answer, Ask};
use super::authorization::{Authorization, Login};
use super::transaction::{Listing, Maildrop, Sending};
use crate::base::machine::{Control, Machine, TlsFacts};
use crate::wire::sasl::SASL_MESSAGE_BYTES_MAX;

/// Longest command line, CR LF included. RFC 2449 §4 asks for 255; passwords may be longer than that.
const COMMAND_BYTES_MAX: usize = 1024;
/// Longest line of a SASL exchange: base64 of the longest message, and CR LF.
const SASL_LINE_BYTES_MAX: usize = SASL_MESSAGE_BYTES_MAX.div_ceil(3) * 4 + 2;
/// Inactivity in the TRANSACTION state (RFC 1939 §3: at least 10 minutes), and all that a login may take.
const IDLE_MAX: Duration = Duration::from_secs(10 * 60);
/// Bad commands of a session. Postfix's hard limit for SMTP is the same.
const ERRORS_MAX: u32 = 20;
/// Failed logins of a session. Stalwart's number.
const AUTH_FAILURES_MAX: u32 = 3;
/// A failed login is answered this much later, times the failures of the session.
const AUTH_FAILURE_DELAY: Duration = Duration::from_secs(1);
/// Output is made up to about this much before input is looked at again.
const OUTPUT_BYTES: usize = 64 * 1024;

/// What a conversation is opened with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The session is under TLS already.
    pub tls: bool,
    /// STLS is offered.
    pub stls: bool,
    /// Logins are taken without TLS.
    pub plaintext_login: bool,
    /// `<…@host>`, unique for this session, if APOP is offered. Shown only where a login is allowed at once.
    pub timestamp: Option<Arc<str>>,
    /// Our part of SCRAM nonces: fresh, random, graphic ASCII without a comma.
    pub nonce: String,
}

/// The conversation.
#[derive(Debug)]
pub struct Session {
    pub(super) options: Options,
    pub(super) state: State,
    pub(super) out: Vec<u8>,
    control: Option<Control>,
    line: Vec<u8>,
    line_overlong: bool,
    ask: Option<Ask>,
    asked: bool,
    held: Option<(Instant, &'static str)>,
    deadline: Instant,
    errors: u32,
    pub(super) auth_failures: u32,
    stopping: bool,
}

/// Where a conversation stands; each owns what is true in it.
#[derive(Debug)]
pub(super) enum State {
    /// RFC 1939 §4; also between the steps of a login.
    Authorization(Authorization),
    /// A login's question is open.
    Login(Login),
    /// RFC 1939 §5.
    Transaction(Maildrop),
    /// LIST or UIDL of everything is being written.
    Listing(Maildrop, Listing),
    /// RETR or TOP is under way.
    Sending(Maildrop, Sending),
    /// RFC 1939 §6: messages are being removed.
    Update,
    /// STLS was answered.
    Handshake,
    /// Nothing more is said or heard.
    Closed,
}

impl Session {
    /// A conversation that begins at `now` with its banner.
    pub fn new(mut options: Options, now: Instant) -> Self {
        if !(options.tls || options.plaintext_login) {
            options.timestamp = None;
        }
        let mut session = Session {
            out: Vec::new(),
            state: State::Authorization(Authorization::default()),
            control: None,
            line: Vec::new(),
            line_overlong: false,
            ask: None,
            asked: false,
            held: None,
            deadline: now + IDLE_MAX,
            errors: 0,
            auth_failures: 0,
            stopping: false,
            options,
        };
        match session.options.timestamp.clone() {
            Some(timestamp) => session.say(&format!("+OK Weir POP3 ready {timestamp}")),
            None => session.say("+OK Weir POP3 ready"),
        }
        session
    }

    /// True if logins are taken now.
    pub(super) fn login_allowed(&self) -> bool {
        self.options.tls || self.options.plaintext_login
    }

    pub(super) fn say(&mut self, line: &str) {
        self.out.extend_from_slice(line.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    pub(super) fn ask(&mut self, ask: Ask) {
        debug_assert!(!self.asked, "one question at a time");
        self.ask = Some(ask);
        self.asked = true;
    }

    pub(super) fn close(&mut self) {
        self.state = State::Closed;
        self.ask = None;
        self.held = None;
        self.control = Some(Control::Close);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.control == Some(Control::Close)
    }

    /// A bad command: counted, and the last one closes.
    pub(super) fn error(&mut self, text: &str) {
        self.errors += 1;
        if self.errors >= ERRORS_MAX {
            self.say("-ERR too many errors");
            return self.close();
        }
        self.say(&format!("-ERR {text}"));
    }

    /// A failed login.
    pub(super) fn refuse_login(&mut self, now: Instant) {
        // RFC 3206 §4: the problem is the user's credentials.
        self.hold_back(now, "-ERR [AUTH] login or password is wrong");
    }

    /// A login that nobody looked at, because too many failed.
    pub(super) fn put_off_login(&mut self, now: Instant) {
        // RFC 3206 §4: not the credentials' fault, and it passes.
        self.hold_back(now, "-ERR [SYS/TEMP] too many failed logins, try again later");
    }

    /// The answer to a login that came to nothing waits, longer each time.
    fn hold_back(&mut self, now: Instant, text: &'static str) {
        self.auth_failures += 1;
        self.state = State::Authorization(Authorization::default());
        self.held = Some((now + AUTH_FAILURE_DELAY * self.auth_failures, text));
    }

    pub(super) fn start_tls(&mut self) {
        self.state = State::Handshake;
        self.control = Some(Control::StartTls);
        self.line.clear();
    }

    fn takes_input(&self) -> bool {
        let state = matches!(self.state, State::Authorization(_) | State::Transaction(_));
        state && !self.asked && self.held.is_none() && self.out.len() < OUTPUT_BYTES
    }

    fn line_bytes_max(&self) -> usize {
        match &self.state {
            State::Authorization(Authorization::Sasl(_)) => SASL_LINE_BYTES_MAX,
            _ => COMMAND_BYTES_MAX,
        }
    }

    /// Takes bytes up to the end of a line; gives how many.
    fn gather(&mut self, now: Instant, bytes: &[u8]) -> usize {
        let end = memchr::memchr(b'\n', bytes);
        let piece = &bytes[..end.unwrap_or(bytes.len())];
        if self.line_overlong || self.line.len() + piece.len() + 1 > self.line_bytes_max() {
            self.line_overlong = true;
            self.line.clear();
        } else {
            self.line.extend_from_slice(piece);
        }
        if end.is_none() {
            return bytes.len();
        }
        let mut line = mem::take(&mut self.line);
        if mem::take(&mut self.line_overlong) {
            self.handle_overlong();
            return piece.len() + 1;
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        self.handle_line(now, &line);
        line.clear();
        // Kept for its memory; a password in it is gone.
        self.line = line;
        piece.len() + 1
    }

    fn handle_overlong(&mut self) {
        if matches!(self.state, State::Authorization(_)) {
            self.state = State::Authorization(Authorization::default());
        }
        self.error("line too long");
    }

    fn handle_line(&mut self, now: Instant, line: &[u8]) {
        match mem::replace(&mut self.state, State::Closed) {
            State::Authorization(state) => self.authorize(state, line),
            State::Transaction(maildrop) => {
                self.deadline = now + IDLE_MAX;
                self.transact(maildrop, line);
            }
            other => self.state = other,
        }
    }

    /// Closes at once unless something is under way that can end.
    fn close_if_idle(&mut self) {
        let idle = matches!(self.state, State::Authorization(_) | State::Transaction(_)) && !self.asked;
        if self.stopping && idle {
            self.say("-ERR [SYS/TEMP] the server is stopping");
            self.close();
        }
    }
}

impl Machine for Session {
    type Ask = Ask;
    type Answer = Answer;

    fn handle_input(&mut self, now: Instant, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() && self.takes_input() {
            used += self.gather(now, &bytes[used..]);
        }
        used
    }

    fn handle_answer(&mut self, now: Instant, answer: Answer) {
        self.asked = false;
        match mem::replace(&mut self.state, State::Closed) {
            State::Login(login) => {
                self.deadline = self.deadline.max(now);
                self.handle_login(now, login, answer);
                if matches!(self.state, State::Transaction(_)) {
                    self.deadline = now + IDLE_MAX;
                }
            }
            State::Sending(maildrop, sending) => {
                self.deadline = now + IDLE_MAX;
                self.send(maildrop, sending, answer);
            }
            State::Update => {
                match answer {
                    Answer::Removed { failed: 0 } => self.say("+OK bye"),
                    _ => self.say("-ERR [SYS/TEMP] some deleted messages not removed"),
                }
                self.close();
            }
            other => self.state = other,
        }
        self.close_if_idle();
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some((until, reply)) = self.held
            && until <= now
        {
            self.held = None;
            self.say(reply);
            if self.auth_failures >= AUTH_FAILURES_MAX {
                self.close();
            }
        }
        // Autologout removes nothing (RFC 1939 §3). A question that is open is ours to answer, not the client's fault.
        if self.deadline <= now && !self.asked && !matches!(self.state, State::Closed) {
            self.say("-ERR [SYS/TEMP] idle for too long");
            self.close();
        }
    }

    fn handle_tls(&mut self, _now: Instant, _facts: TlsFacts) {
        // RFC 2595 §4: what was learned before the handshake is forgotten; there is no second banner.
        self.options.tls = true;
        self.line.clear();
        self.state = State::Authorization(Authorization::default());
    }

    fn handle_eof(&mut self, _now: Instant) {
        // Messages marked for removal stay: without QUIT there is no UPDATE state (RFC 1939 §6).
        if !matches!(self.state, State::Update) {
            self.close();
        }
    }

    fn handle_stop(&mut self, _now: Instant) {
        self.stopping = true;
        self.close_if_idle();
    }

    fn poll_output(&mut self, sink: &mut Vec<u8>) -> Option<Control> {
        sink.append(&mut self.out);
        if matches!(self.state, State::Listing(..)) {
            if let State::Listing(maildrop, listing) = mem::replace(&mut self.state, State::Closed) {
                self.state = listing.write(maildrop, sink, OUTPUT_BYTES);
            }
            self.close_if_idle();
        }
        self.control.take()
    }

    fn poll_ask(&mut self) -> Option<Ask> {
        if !self.out.is_empty() {
            return None;
        }
        self.ask.take()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if matches!(self.state, State::Closed) {
            return None;
        }
        let held = self.held.map(|(until, _)| until);
        let deadline = if self.asked { None } else { Some(self.deadline) };
        [held, deadline].into_iter().flatten().min()
    }
}
