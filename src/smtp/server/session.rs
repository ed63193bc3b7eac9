//! The machine of one SMTP or LMTP server conversation. Pure. RFC 5321 §4.3 (sequencing), RFC 2920 (pipelining).
//!
//! Invariant: while a question is open, or replies wait to be written, not one byte of input is consumed; otherwise all of
//! it is, so a driver need not keep half a command. Not here: what a command means (see `dispatch`).
//! Fails only towards the peer; never panics on its bytes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use memchr::memchr;

use super::ask::{Answer, Ask};
use super::context::{Context, tls_text};
use super::counters::{Limit, SessionCounters};
use super::replies;
use super::settings::SessionSettings;
use super::state::{Asked, State};
use crate::base::content::ContentSource;
use crate::base::machine::{Control, Machine, TlsFacts};
use crate::config::settings::Role;
use crate::wire::envelope::Origin;
use crate::wire::reply::Reply;

/// Replies that may wait before no more commands are taken: a client that sends and never reads costs this much.
const OUTPUT_BYTES_MAX: usize = 16 * 1024;
/// Longest line of an AUTH exchange, CR LF included (RFC 4954 §4).
const AUTH_LINE_BYTES_MAX: usize = 12_288;

/// One conversation with one client.
pub struct Session {
    pub(super) context: Context,
    pub(super) state: State,
    pub(super) opened: Instant,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    /// The line is over its limit already; it is dropped up to its end.
    overlong: bool,
    opening: Opening,
}

/// What is watched until the banner has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    /// Nothing was sent yet.
    Silent,
    /// The client talked first.
    Early,
    /// The banner has left.
    Over,
}

impl Session {
    /// A conversation with a client at `ip` and `port`; `tls` if the handshake came first. Asks [`Ask::Connect`] before it says a word.
    pub fn new(
        settings: Arc<SessionSettings>,
        content: ContentSource,
        ip: IpAddr,
        port: u16,
        tls: Option<TlsFacts>,
        now: Instant,
    ) -> Self {
        let ip = ip.to_canonical();
        let origin = Origin {
            ip,
            port,
            helo: String::new(),
            host: None,
            login: None,
            tls: tls.as_ref().map(tls_text),
            protocol: "SMTP",
            listener: settings.listener.clone(),
        };
        let mut context = Context::new(settings, content, origin, now);
        let state = context.ask(Ask::Connect { ip }, Asked::Connect);
        Session { context, state, opened: now, partial: Vec::new(), overlong: false, opening: Opening::Silent }
    }

    /// What happened so far.
    pub fn counters(&self) -> &SessionCounters {
        &self.context.counters
    }

    /// The client, as known so far.
    pub fn origin(&self) -> &Arc<Origin> {
        &self.context.origin
    }

    /// The settings that the conversation was opened with.
    pub fn settings(&self) -> &Arc<SessionSettings> {
        &self.context.settings
    }

    /// True if the client talked before the banner had left, which strangers may not (RFC 5321 §3.1).
    pub(super) fn is_early(&self) -> bool {
        self.opening == Opening::Early && self.context.settings.role == Role::Mx
    }

    fn takes_input(&self) -> bool {
        let open = !matches!(self.state, State::Asked(_) | State::Closed | State::StartTls | State::Handshake);
        open && self.context.out.len() < OUTPUT_BYTES_MAX
    }

    /// Looks at input that came where it should not have.
    fn notice_early(&mut self) {
        match (self.opening, &self.state) {
            (Opening::Silent, State::Asked(Asked::Connect)) => self.opening = Opening::Early,
            (Opening::Silent, State::Ready) => {
                self.opening = Opening::Early;
                if self.is_early() {
                    self.context.out.clear();
                    self.state = self.context.reply_and_close(&replies::EARLY);
                }
            }
            (_, State::StartTls) => self.state = self.context.reply_and_close(&replies::BEHIND_STARTTLS),
            _ => return,
        }
        self.context.counters.pipelining_faults += 1;
    }

    /// Takes some input, at least one byte.
    fn step(&mut self, now: Instant, input: &[u8]) -> usize {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Receiving(receiving) => {
                let (used, state) = receiving.input(&mut self.context, now, input);
                self.state = state;
                used
            }
            State::Chunking(chunking) if chunking.is_inside() => {
                let (used, state) = chunking.input(&mut self.context, now, input);
                self.state = state;
                used
            }
            State::Refused(refused) => {
                let (used, state) = refused.input(&mut self.context, now, input);
                self.state = state;
                used
            }
            state => {
                self.state = state;
                self.line(now, input)
            }
        }
    }

    /// Takes input up to the end of a line, and the line once it is whole.
    fn line(&mut self, now: Instant, input: &[u8]) -> usize {
        let Some(lf) = memchr(b'\n', input) else {
            self.keep(input);
            return input.len();
        };
        let used = lf + 1;
        self.context.pipelined = used < input.len();
        if self.partial.is_empty() && !self.overlong && used <= self.line_bytes_max() {
            self.whole_line(now, &input[..used]);
        } else {
            self.keep(&input[..used]);
            let line = std::mem::take(&mut self.partial);
            if std::mem::take(&mut self.overlong) { self.overlong_line() } else { self.whole_line(now, &line) }
        }
        self.context.waiting_since = now;
        used
    }

    fn keep(&mut self, part: &[u8]) {
        if self.overlong || self.partial.len() + part.len() > self.line_bytes_max() {
            self.overlong = true;
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(part);
        }
    }

    fn line_bytes_max(&self) -> usize {
        // The initial response of AUTH stands on a command line; what is longer than a command and is not AUTH is
        // refused by what it says (RFC 4954 §4).
        let long = matches!(self.state, State::Authenticating(_)) || self.context.settings.auth;
        let limit = self.context.settings.limits.command_bytes as usize;
        if long { limit.max(AUTH_LINE_BYTES_MAX) } else { limit }
    }

    fn overlong_line(&mut self) {
        self.context.counters.commands += 1;
        self.context.counters.hit(Limit::CommandBytes);
        let state = self.state_after_bad_line();
        let reply =
            if matches!(self.state, State::Authenticating(_)) { replies::AUTH_LINE_LONG } else { replies::LINE_LONG };
        let state = self.context.error(&reply, state);
        self.state = self.context.settle(state);
    }

    /// A bad line ends an AUTH exchange and leaves every other state as it is.
    fn state_after_bad_line(&mut self) -> State {
        match &mut self.state {
            State::Authenticating(_) => State::Ready,
            state => std::mem::replace(state, State::Closed),
        }
    }

    fn whole_line(&mut self, now: Instant, line: &[u8]) {
        let Some(text) = line.strip_suffix(b"\r\n") else {
            self.context.counters.commands += 1;
            let state = self.state_after_bad_line();
            let state = self.context.error(&replies::BARE_LF, state);
            self.state = self.context.settle(state);
            return;
        };
        let is_auth = || text.get(..5).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH "));
        let command_bytes = self.context.settings.limits.command_bytes as usize;
        if line.len() > command_bytes && !matches!(self.state, State::Authenticating(_)) && !is_auth() {
            return self.overlong_line();
        }
        self.context.counters.commands += 1;
        self.dispatch_line(now, text);
    }
}

impl Machine for Session {
    type Ask = Ask;
    type Answer = Answer;

    fn handle_input(&mut self, now: Instant, bytes: &[u8]) -> usize {
        if !bytes.is_empty() && (self.opening == Opening::Silent || matches!(self.state, State::StartTls)) {
            self.notice_early();
        }
        let mut used = 0;
        while used < bytes.len() && self.takes_input() {
            used += self.step(now, &bytes[used..]);
        }
        // What comes after the end is dropped, not left for the driver to offer again.
        if matches!(self.state, State::Closed) { bytes.len() } else { used }
    }

    fn handle_answer(&mut self, now: Instant, answer: Answer) {
        self.take_answer(now, answer);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.time_out(now);
    }

    fn handle_tls(&mut self, now: Instant, facts: TlsFacts) {
        if matches!(self.state, State::Handshake) {
            self.context.waiting_since = now;
            self.context.change_origin(|origin| origin.tls = Some(tls_text(&facts)));
            self.state = State::Ready;
        }
    }

    fn handle_eof(&mut self, _now: Instant) {
        // An open question is answered all the same: the client may have closed only its sending side.
        if matches!(self.state, State::Asked(_)) {
            self.context.eof = true;
        } else if !matches!(self.state, State::Closed) {
            self.state = self.context.close();
        }
    }

    fn handle_stop(&mut self, _now: Instant) {
        self.context.stopping = true;
        if matches!(self.state, State::Ready | State::Authenticating(_)) {
            self.state = self.context.reply_and_close(&Reply::STOPPING);
        }
    }

    fn poll_output(&mut self, sink: &mut Vec<u8>) -> Option<Control> {
        if matches!(self.state, State::StartTls) {
            self.context.reply(&replies::START_TLS);
            self.context.control = Some(Control::StartTls);
            self.state = State::Handshake;
        }
        if !self.context.out.is_empty() {
            self.opening = Opening::Over;
            // Given away rather than kept: an idle conversation holds no buffer.
            let out = std::mem::take(&mut self.context.out);
            if sink.is_empty() && sink.capacity() == 0 { *sink = out } else { sink.extend_from_slice(&out) }
        }
        self.context.control.take()
    }

    fn poll_ask(&mut self) -> Option<Ask> {
        self.context.ask.take()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.deadline().map(|(at, _)| at)
    }
}
